//! Streams on epoll: accept, connect, read and write as far as the kernel takes it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use mio::Interest;
use mio::unix::SourceFd;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, SockFlag, connect, getsockopt, recv, send, shutdown, sockopt};

use super::{Epoll, READS_MAX, queue, token};
use crate::driver::counters::count;
use crate::driver::stream::{self, Listener, Remote};
use crate::driver::tag::{Op, Tag};
use crate::driver::turn::{SHORTAGE_REST, is_shortage};
use crate::driver::writes::Writes;
use crate::io::{Door, Fault, Input, StreamKey};

/// A listener, and when to look at it.
pub(super) struct Accepting {
    listener: Listener,
    /// Whether it is known not to block: a listener that is shared stays as it is until it is used here.
    ready: bool,
    /// Whether it may hold connections: epoll says it once.
    pub(super) acceptable: bool,
    /// After a shortage: when to accept again.
    pub(super) retry_at: Option<Instant>,
}

impl Accepting {
    pub(super) fn new(listener: Listener) -> Self {
        Self { listener, ready: false, acceptable: true, retry_at: None }
    }

    /// Whether there may be a connection and a key for it.
    pub(super) fn has_work(&self, offers: &VecDeque<StreamKey>) -> bool {
        self.acceptable && self.retry_at.is_none() && !offers.is_empty()
    }

    fn accept(&mut self) -> io::Result<OwnedFd> {
        if !self.ready {
            self.listener.set_nonblocking(true)?;
            self.ready = true;
        }
        self.listener.accept()
    }
}

/// A stream that is being opened, or open.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and most combinations occur")]
pub(super) struct Stream {
    socket: OwnedFd,
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
    fn new(socket: OwnedFd, connected: bool) -> Self {
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
    pub(super) fn accept_waiting(
        &mut self,
        door: Door,
        now: Instant,
        budget: &mut usize,
        give: &mut impl FnMut(Input<'_, M>),
    ) {
        let Some(accepting) = &mut self.doors[door as usize] else { return };
        if accepting.retry_at.is_some_and(|at| at > now) {
            return;
        }
        accepting.retry_at = None;
        while accepting.acceptable && *budget > 0 {
            let Some(key) = self.common.offers[door as usize].front().copied() else { return };
            *budget -= 1;
            let socket = match accepting.accept() {
                Ok(socket) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    accepting.acceptable = false;
                    return;
                }
                Err(error) if is_shortage(&error) => {
                    count(&self.common.counters.accepts_delayed);
                    accepting.retry_at = Some(now + SHORTAGE_REST);
                    return;
                }
                // The connection that failed is gone; the next one may be well.
                Err(_) => continue,
            };
            let tag = Tag::stream(Op::Receive, key);
            let ready =
                stream::accepted(&socket).and_then(|peer| watch(self.poll.registry(), &socket, tag).map(|()| peer));
            if let Ok(peer) = ready {
                self.common.offers[door as usize].pop_front();
                let mut stream = Stream::new(socket, true);
                queue(&mut self.ready, &mut stream.queued, tag);
                self.streams.insert(key, stream);
                give(Input::Accepted { stream: key, door, peer });
            }
        }
    }

    /// Starts to connect; a failure at once is an input of the next turn.
    pub(super) fn open_stream(&mut self, key: StreamKey, to: Remote<'_>) {
        let opened = stream::open(to, SockFlag::SOCK_NONBLOCK).and_then(|(socket, address)| {
            match connect(socket.as_raw_fd(), &*address) {
                Ok(()) | Err(Errno::EINPROGRESS) => {}
                Err(error) => return Err(error.into()),
            }
            watch(self.poll.registry(), &socket, Tag::stream(Op::Receive, key))?;
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
            let read = recv(stream.socket.as_raw_fd(), &mut self.chunk, MsgFlags::MSG_DONTWAIT);
            match read.map_err(io::Error::from) {
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
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let wrote = if bytes.is_empty() { Ok(0) } else { send(stream.socket.as_raw_fd(), bytes, flags) };
            match wrote.map_err(io::Error::from) {
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
            let _ = shutdown(stream.socket.as_raw_fd(), Shutdown::Write);
        }
    }
}

/// Whether connecting is over, and well.
fn connected(stream: &Stream) -> io::Result<bool> {
    if !stream.writable {
        return Ok(false);
    }
    match getsockopt(&stream.socket, sockopt::SocketError)? {
        0 => {}
        errno => return Err(io::Error::from_raw_os_error(errno)),
    }
    match stream::peer(&stream.socket) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets epoll say when a stream can be read or written.
fn watch(registry: &mio::Registry, socket: &OwnedFd, tag: Tag) -> io::Result<()> {
    registry.register(&mut SourceFd(&socket.as_raw_fd()), token(tag), Interest::READABLE | Interest::WRITABLE)
}
