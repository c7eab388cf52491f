//! The Graph API's connections: keys, and whether a request waits for its answer.
//!
//! It must not know what is asked.

use std::collections::VecDeque;
use std::time::Instant;

use crate::http::{Connection, Event, Request, Response};
use crate::io::{Deadline, Door, Output, StreamKey};
use crate::slab::Slab;

/// Keys that are offered to the driver.
const OFFERED: usize = 8;

/// Connections at once; more wait with the kernel. A bridge has a pool of some.
const CONNECTIONS_MAX: usize = 512;

/// Names a request on one connection; stale once that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    stream: StreamKey,
    number: u64,
}

/// The connections.
#[derive(Debug, Default)]
pub(super) struct Served {
    streams: Slab<Stream>,
    offered: usize,
    requests: u64,
    waiting: VecDeque<(Ticket, Request)>,
    outputs: VecDeque<Output<()>>,
}

#[derive(Debug)]
enum Stream {
    Offered,
    Open {
        connection: Box<Connection>,
        /// The request that waits.
        number: Option<u64>,
    },
    /// Closed by us; the driver has not given the key back.
    Closing,
}

impl Served {
    /// Offers keys, where there are too few.
    pub(super) fn offer(&mut self) {
        while self.offered < OFFERED && self.streams.len() < CONNECTIONS_MAX {
            let (slot, generation) = self.streams.insert(Stream::Offered);
            self.offered += 1;
            self.outputs.push_back(Output::Accept { stream: StreamKey { slot, generation }, door: Door::Api });
        }
    }

    pub(super) fn accepted(&mut self, now: Instant, stream: StreamKey) {
        if let Some(state @ Stream::Offered) = self.streams.get_mut(stream.slot, stream.generation) {
            *state = Stream::Open { connection: Box::new(Connection::new(now)), number: None };
            self.offered -= 1;
        }
        self.offer();
    }

    pub(super) fn received(&mut self, now: Instant, stream: StreamKey, bytes: &[u8]) {
        self.with(now, stream, |connection| connection.received(now, bytes));
    }

    pub(super) fn ended(&mut self, now: Instant, stream: StreamKey) {
        self.with(now, stream, |connection| connection.ended(now));
    }

    pub(super) fn written(&mut self, now: Instant, stream: StreamKey) {
        self.with(now, stream, |connection| connection.written(now));
    }

    pub(super) fn failed(&mut self, stream: StreamKey) {
        self.close(stream);
    }

    pub(super) fn closed(&mut self, stream: StreamKey) {
        self.streams.remove(stream.slot, stream.generation);
        self.offer();
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let is_due = |stream: &Stream| match stream {
            Stream::Open { connection, .. } => connection.deadline().is_some_and(|at| at <= now),
            _ => false,
        };
        let due: Vec<StreamKey> = self
            .streams
            .iter()
            .filter(|(.., stream)| is_due(stream))
            .map(|(slot, generation, _)| StreamKey { slot, generation })
            .collect();
        for stream in due {
            self.with(now, stream, |connection| connection.timed_out(now));
        }
    }

    pub(super) fn deadline(&self) -> Deadline {
        let at = self.streams.iter().filter_map(|(.., stream)| match stream {
            Stream::Open { connection, .. } => connection.deadline(),
            _ => None,
        });
        at.min().map_or(Deadline::NEVER, |at| Deadline::at(at, "connection"))
    }

    /// The next request. It waits until [`Self::respond`] or [`Self::cut`].
    pub(super) fn poll_request(&mut self) -> Option<(Ticket, Request)> {
        self.waiting.pop_front()
    }

    /// Answers a request; without effect when nobody waits for that any more.
    pub(super) fn respond(&mut self, now: Instant, ticket: Ticket, response: Response) {
        if self.take(ticket) {
            self.with(now, ticket.stream, |connection| connection.respond(now, response));
        }
    }

    /// Closes the connection of a request instead of answering it.
    pub(super) fn cut(&mut self, ticket: Ticket) {
        if self.take(ticket) {
            self.close(ticket.stream);
        }
    }

    /// The next thing for the driver to do.
    pub(super) fn poll_output(&mut self) -> Option<Output<()>> {
        self.outputs.pop_front()
    }

    fn take(&mut self, ticket: Ticket) -> bool {
        let stream = self.streams.get_mut(ticket.stream.slot, ticket.stream.generation);
        match stream {
            Some(Stream::Open { number, .. }) if *number == Some(ticket.number) => number.take().is_some(),
            _ => false,
        }
    }

    /// Lets a connection do something, and takes from it what is to be done.
    fn with(&mut self, now: Instant, stream: StreamKey, act: impl FnOnce(&mut Connection)) {
        let Some(Stream::Open { connection, number }) = self.streams.get_mut(stream.slot, stream.generation) else {
            return;
        };
        act(connection);
        let mut closes = false;
        while let Some(event) = connection.poll() {
            match event {
                Event::Request(request) => {
                    self.requests += 1;
                    *number = Some(self.requests);
                    self.waiting.push_back((Ticket { stream, number: self.requests }, *request));
                }
                Event::Bad(problem) => {
                    let body = serde_json::json!({ "error": { "message": problem.text, "code": 1 } }).to_string();
                    connection.respond(now, Response::new(problem.status, "application/json", body.into_bytes()));
                }
                Event::Answered => {}
                Event::Write(bytes) => self.outputs.push_back(Output::Write { stream, bytes }),
                Event::Read(on) => self.outputs.push_back(Output::Read { stream, on }),
                Event::Shutdown => self.outputs.push_back(Output::Shutdown { stream }),
                Event::Close => closes = true,
            }
        }
        if closes {
            self.close(stream);
        }
    }

    fn close(&mut self, stream: StreamKey) {
        let Some(state) = self.streams.get_mut(stream.slot, stream.generation) else { return };
        match std::mem::replace(state, Stream::Closing) {
            Stream::Closing => return,
            Stream::Offered => self.offered -= 1,
            Stream::Open { .. } => {}
        }
        self.outputs.push_back(Output::Close { stream });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: graph\r\n\r\n";

    fn outputs(served: &mut Served) -> Vec<Output<()>> {
        std::iter::from_fn(|| served.poll_output()).collect()
    }

    fn open(served: &mut Served, now: Instant) -> StreamKey {
        served.offer();
        let Some(Output::Accept { stream, .. }) = outputs(served).pop() else { panic!("a key is offered") };
        served.accepted(now, stream);
        stream
    }

    #[test]
    fn a_request_waits_for_its_answer_and_the_connection_is_kept() {
        let (mut served, now) = (Served::default(), Instant::now());
        let stream = open(&mut served, now);
        assert!(matches!(outputs(&mut served)[..], [Output::Accept { .. }]), "another key is offered for the one used");
        for _ in 0..2 {
            served.received(now, stream, REQUEST);
            let (ticket, _) = served.poll_request().expect("it was read");
            served.respond(now, ticket, Response::new(200, "text/plain", b"hi".to_vec()));
            served.respond(now, ticket, Response::new(200, "text/plain", b"twice".to_vec()));
            assert!(matches!(&outputs(&mut served)[..], [Output::Write { bytes, .. }] if bytes.ends_with(b"hi")));
            served.written(now, stream);
        }
    }

    #[test]
    fn a_request_can_be_cut_off_and_its_key_comes_back() {
        let (mut served, now) = (Served::default(), Instant::now());
        let stream = open(&mut served, now);
        served.received(now, stream, REQUEST);
        let (ticket, _) = served.poll_request().expect("it was read");
        outputs(&mut served);
        served.cut(ticket);
        assert!(matches!(outputs(&mut served)[..], [Output::Close { stream: closed }] if closed == stream));
        served.respond(now, ticket, Response::new(200, "text/plain", Vec::new()));
        served.closed(stream);
        served.closed(stream);
        assert_eq!(served.streams.len(), OFFERED);
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        let (mut served, now) = (Served::default(), Instant::now());
        let stream = open(&mut served, now);
        outputs(&mut served);
        served.received(now, stream, b"SSH-2.0\r\n\r\n");
        assert!(matches!(&outputs(&mut served)[0], Output::Write { bytes, .. } if bytes.starts_with(b"HTTP/1.1 400")));
        assert!(served.poll_request().is_none());
    }
}
