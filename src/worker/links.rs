//! Streams between calls and the model: which call owns which, and what becomes of those whose call has ended.
//!
//! A stream outlives its call by its goodbye: the bytes still unwritten, then the end of our side, then at most
//! [`GOODBYE_MAX`] for the other end to close.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::Attempt;
use crate::call::{CallSink, StreamEvent};
use crate::call_id::CallNumber;
use crate::io::{Deadline, Node, Output, SocketKey, StreamKey};
use crate::messages::{Message, Resolve};
use crate::slab::Slab;
use crate::stats::{Recorder, Stage};

/// A stream whose call has ended may take this long to deliver its goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Slot and generation of a call, which are those of its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallKey {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl CallKey {
    pub(super) fn of(socket: SocketKey) -> Self {
        Self { slot: socket.slot, generation: socket.generation }
    }

    pub(super) fn socket(self) -> SocketKey {
        SocketKey { slot: self.slot, generation: self.generation }
    }
}

#[derive(Debug)]
struct Link {
    /// `None` once the call has ended or given the stream up.
    owner: Option<(CallKey, Attempt)>,
    connected: bool,
    closing: bool,
}

/// All streams of a worker.
#[derive(Debug, Default)]
pub(super) struct Links {
    table: Slab<Link>,
    /// The streams of each call, by its slot: at most as many as it dials at once.
    by_call: Vec<Vec<(Attempt, StreamKey)>>,
    /// By when streams without a call are cut, in the order of those times.
    goodbyes: VecDeque<(Instant, StreamKey)>,
}

impl Links {
    /// A sink for one call's outputs.
    pub(super) fn out<'a>(
        &'a mut self,
        key: CallKey,
        number: CallNumber,
        worker: u16,
        outputs: &'a mut VecDeque<Output<Message>>,
        recorder: &'a mut Recorder,
    ) -> Out<'a> {
        Out { key, number, worker, links: self, outputs, recorder }
    }

    /// Whose stream this is.
    pub(super) fn owner(&self, stream: StreamKey) -> Option<(CallKey, Attempt)> {
        self.table.get(stream.slot, stream.generation)?.owner
    }

    /// Whether no stream is left.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The slot may be used again.
    pub(super) fn closed(&mut self, stream: StreamKey) {
        self.table.remove(stream.slot, stream.generation);
    }

    /// A call has ended: its connected streams say goodbye, the others are closed.
    pub(super) fn abandon(&mut self, now: Instant, key: CallKey, outputs: &mut VecDeque<Output<Message>>) {
        let Some(streams) = self.by_call.get_mut(key.slot as usize).map(std::mem::take) else { return };
        for (_, stream) in streams {
            let Some(link) = self.table.get_mut(stream.slot, stream.generation) else { continue };
            if link.connected {
                link.owner = None;
                outputs.push_back(Output::Shutdown { stream });
                self.goodbyes.push_back((now + GOODBYE_MAX, stream));
            } else {
                self.close(stream, outputs);
            }
        }
    }

    /// A connection stands: from now on it is owed a goodbye.
    pub(super) fn connected(&mut self, stream: StreamKey) {
        if let Some(link) = self.table.get_mut(stream.slot, stream.generation) {
            link.connected = true;
        }
    }

    /// Something happened to a stream without a call: once the other end is done, so are we.
    pub(super) fn orphan(
        &mut self,
        stream: StreamKey,
        event: &StreamEvent<'_>,
        outputs: &mut VecDeque<Output<Message>>,
    ) {
        if matches!(event, StreamEvent::Ended | StreamEvent::Failed(_) | StreamEvent::Connected) {
            self.close(stream, outputs);
        }
    }

    /// Closes the streams whose goodbye took too long.
    pub(super) fn cut_overdue(&mut self, now: Instant, outputs: &mut VecDeque<Output<Message>>) {
        while self.goodbyes.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, stream)) = self.goodbyes.pop_front() {
                self.close(stream, outputs);
            }
        }
    }

    /// When [`Links::cut_overdue`] is next due.
    pub(super) fn deadline(&self) -> Deadline {
        self.goodbyes.front().map_or(Deadline::NEVER, |(at, _)| Deadline::at(*at, "goodbye"))
    }

    fn close(&mut self, stream: StreamKey, outputs: &mut VecDeque<Output<Message>>) {
        if let Some(link) = self.table.get_mut(stream.slot, stream.generation)
            && !link.closing
        {
            link.closing = true;
            link.owner = None;
            outputs.push_back(Output::Close { stream });
        }
    }

    fn open(&mut self, key: CallKey, attempt: Attempt) -> StreamKey {
        let (slot, generation) =
            self.table.insert(Link { owner: Some((key, attempt)), connected: false, closing: false });
        let stream = StreamKey { slot, generation };
        let index = key.slot as usize;
        if self.by_call.len() <= index {
            self.by_call.resize_with(index + 1, Vec::new);
        }
        self.by_call[index].push((attempt, stream));
        stream
    }

    fn find(&self, key: CallKey, attempt: Attempt) -> Option<StreamKey> {
        let streams = self.by_call.get(key.slot as usize)?;
        streams.iter().find(|(each, _)| *each == attempt).map(|(_, stream)| *stream)
    }

    fn give_up(&mut self, key: CallKey, attempt: Attempt, outputs: &mut VecDeque<Output<Message>>) {
        if let Some(stream) = self.find(key, attempt) {
            self.by_call[key.slot as usize].retain(|(each, _)| *each != attempt);
            self.close(stream, outputs);
        }
    }
}

/// Takes the outputs of one call.
pub(super) struct Out<'a> {
    key: CallKey,
    number: CallNumber,
    worker: u16,
    links: &'a mut Links,
    outputs: &'a mut VecDeque<Output<Message>>,
    recorder: &'a mut Recorder,
}

impl CallSink for Out<'_> {
    fn send(&mut self, to: SocketAddr, payload: Vec<u8>) {
        self.outputs.push_back(Output::Send { socket: self.key.socket(), to, payload });
    }

    fn resolve(&mut self, host: &Arc<str>, port: u16) {
        let resolve = Resolve { worker: self.worker, call: self.number, host: host.clone(), port };
        self.outputs.push_back(Output::Message { to: Node::Resolver, message: Message::Resolve(resolve) });
    }

    fn connect(&mut self, attempt: Attempt, to: SocketAddr) {
        let stream = self.links.open(self.key, attempt);
        self.outputs.push_back(Output::Connect { stream, to });
    }

    fn write(&mut self, attempt: Attempt, bytes: Vec<u8>) {
        if let Some(stream) = self.links.find(self.key, attempt) {
            self.outputs.push_back(Output::Write { stream, bytes });
        }
    }

    fn close_stream(&mut self, attempt: Attempt) {
        self.links.give_up(self.key, attempt, self.outputs);
    }

    fn measured(&mut self, stage: Stage, latency: Duration) {
        self.recorder.record(stage, latency);
    }
}
