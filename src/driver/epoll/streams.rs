//! Streams on epoll: accept, connect, read and write as far as the kernel takes it.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Instant;

use mio::Interest;
use mio::net::TcpStream;

use super::{Epoll, READS_MAX, queue, token};
use crate::driver::counters::count;
use crate::driver::tag::{Op, Tag};
use crate::driver::turn::{SHORTAGE_REST, is_shortage};
use crate::driver::writes::Writes;
use crate::io::{Fault, Input, StreamKey};

/// A stream that is being opened, or open.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and most combinations occur")]
pub(super) struct Stream {
    pub(super) socket: TcpStream,
    connected: bool,
    /// What the machine wants.
    pub(super) reading: bool,
    /// Whether there may be something to read: epoll says it once.
    pub(super) readable: bool,
    /// Whether the kernel may take bytes.
    pub(super) writable: bool,
    /// Nothing more comes: it failed.
    failed: bool,
    /// The other side's end was handed over.
    ended: bool,
    pub(super) writes: Writes,
    /// Whether it is in the list of those to be looked at.
    pub(super) queued: bool,
}

impl Stream {
    fn new(socket: TcpStream, connected: bool) -> Self {
        Self {
            socket,
            connected,
            reading: true,
            readable: connected,
            writable: connected,
            failed: false,
            ended: false,
            writes: Writes::default(),
            queued: false,
        }
    }
}

impl<M> Epoll<M> {
    /// Gives waiting connections to offered keys.
    pub(super) fn accept_waiting(&mut self, now: Instant, budget: &mut usize, give: &mut impl FnMut(Input<'_, M>)) {
        if self.accept_at.is_some_and(|at| at > now) {
            return;
        }
        self.accept_at = None;
        let Some(listener) = &self.listener else { return };
        while self.acceptable && *budget > 0 {
            let Some(key) = self.common.offers.front().copied() else { return };
            *budget -= 1;
            let (mut socket, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.acceptable = false;
                    return;
                }
                Err(error) if is_shortage(&error) => {
                    count(&self.common.counters.accepts_delayed);
                    self.accept_at = Some(now + SHORTAGE_REST);
                    return;
                }
                // The connection that failed is gone; the next one may be well.
                Err(_) => continue,
            };
            let interest = Interest::READABLE | Interest::WRITABLE;
            let tag = Tag::stream(Op::Receive, key);
            let ready = socket
                .set_nodelay(true)
                .and_then(|()| self.poll.registry().register(&mut socket, token(tag), interest));
            if ready.is_ok() {
                self.common.offers.pop_front();
                let mut stream = Stream::new(socket, true);
                queue(&mut self.ready, &mut stream.queued, tag);
                self.streams.insert(key, stream);
                give(Input::Accepted { stream: key, peer });
            }
        }
    }

    /// Starts to connect; a failure at once is an input of the next turn.
    pub(super) fn open_stream(&mut self, key: StreamKey, to: SocketAddr) {
        let opened = TcpStream::connect(to).and_then(|mut socket| {
            socket.set_nodelay(true)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, token(Tag::stream(Op::Receive, key)), interest)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => self.streams.insert(key, Stream::new(socket, false)),
            Err(error) => self.common.failed(key, &error),
        }
    }

    /// Looks at a stream: is it connected, can it write on, is there something to read.
    pub(super) fn progress(&mut self, key: StreamKey, budget: &mut usize, give: &mut impl FnMut(Input<'_, M>)) {
        let Some(stream) = self.streams.get(key) else { return };
        stream.queued = false;
        if stream.failed {
            return;
        }
        if !stream.connected {
            match connected(stream) {
                Ok(false) => return,
                Ok(true) => {
                    *budget -= 1;
                    stream.connected = true;
                    give(Input::Connected { stream: key });
                }
                Err(error) => {
                    *budget -= 1;
                    stream.failed = true;
                    return give(Input::Failed { stream: key, fault: Fault::of(&error) });
                }
            }
        }
        self.flush(key);
        self.receive(key, budget, give);
    }

    fn receive(&mut self, key: StreamKey, budget: &mut usize, give: &mut impl FnMut(Input<'_, M>)) {
        let Some(stream) = self.streams.get(key) else { return };
        for _ in 0..READS_MAX.min(*budget) {
            if !stream.reading || !stream.readable || stream.ended || stream.failed {
                return;
            }
            count(&self.common.counters.system_calls);
            match stream.socket.read(&mut self.chunk) {
                Ok(0) => {
                    stream.ended = true;
                    *budget -= 1;
                    give(Input::Ended { stream: key });
                }
                Ok(len) => {
                    *budget -= 1;
                    give(Input::Received { stream: key, bytes: &self.chunk[..len] });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => stream.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // In the next turn, behind the buffers that were written in this one.
                    stream.failed = true;
                    return self.common.failed(key, &error);
                }
            }
        }
        queue(&mut self.ready, &mut stream.queued, Tag::stream(Op::Receive, key));
    }

    /// Writes as far as the kernel takes it; buffers that are done come back in the next turn.
    pub(super) fn flush(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        if !stream.connected || stream.failed {
            return;
        }
        while stream.writable
            && let Some(bytes) = stream.writes.front()
        {
            count(&self.common.counters.system_calls);
            let wrote = if bytes.is_empty() { Ok(0) } else { stream.socket.write(bytes) };
            match wrote {
                Ok(len) => {
                    if let Some((len, buffer)) = stream.writes.advance(len) {
                        self.common.pending.push_back(Input::Written { stream: key, len, buffer });
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => stream.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    stream.failed = true;
                    return self.common.failed(key, &error);
                }
            }
        }
        if stream.writes.take_end() {
            // Fails only when the other side is gone already, and then reading says so.
            let _ = stream.socket.shutdown(Shutdown::Write);
        }
    }
}

/// Whether connecting is over, and well.
fn connected(stream: &Stream) -> io::Result<bool> {
    if !stream.writable {
        return Ok(false);
    }
    if let Some(error) = stream.socket.take_error()? {
        return Err(error);
    }
    match stream.socket.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}
