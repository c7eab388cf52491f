//! Streams on the ring: single-shot operations, each awaited before the stream is freed.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use io_uring::{cqueue, opcode, squeue, types};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, setsockopt, socket, sockopt};

use super::buffers::CHUNKS;
use super::files::Descriptor;
use super::{Uring, target};
use crate::driver::counters::count;
use crate::driver::tag::{Op, Tag};
use crate::driver::turn::{SHORTAGE_REST, is_shortage};
use crate::driver::writes::Writes;
use crate::io::{Fault, Input, StreamKey};

/// A stream that is being opened, or open.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and most combinations occur")]
pub(super) struct Stream {
    /// `None` only while it is released.
    descriptor: Option<Descriptor>,
    /// Where it connects to. The kernel may read it until it is connected.
    address: Option<Box<SockaddrStorage>>,
    connected: bool,
    /// What the machine wants.
    pub(super) reading: bool,
    ended: bool,
    failed: bool,
    closing: bool,
    flight: Flight,
    pub(super) writes: Writes,
}

/// Operations whose completion is awaited.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "a set of four, each asked for by name")]
struct Flight {
    connect: bool,
    receive: bool,
    write: bool,
    shutdown: bool,
}

impl Flight {
    fn is_empty(&self) -> bool {
        !(self.connect || self.receive || self.write || self.shutdown)
    }
}

/// The one accept that is armed for all offered keys: more would all wake for each connection.
#[derive(Default)]
pub(super) struct Accepting {
    pub(super) armed: bool,
    /// A connection that came when no key was offered any more.
    spare: Option<OwnedFd>,
    /// After a shortage: when to accept again.
    pub(super) retry_at: Option<Instant>,
}

impl Stream {
    fn new(descriptor: Descriptor, address: Option<Box<SockaddrStorage>>) -> Self {
        let connected = address.is_none();
        Self {
            descriptor: Some(descriptor),
            address,
            connected,
            reading: true,
            ended: false,
            failed: false,
            closing: false,
            flight: Flight::default(),
            writes: Writes::default(),
        }
    }

    fn alive(&self) -> bool {
        self.connected && !self.failed && !self.closing
    }

    fn target(&self) -> (types::Fd, squeue::Flags) {
        target(self.descriptor.as_ref().expect("open"))
    }
}

impl<M> Uring<M> {
    /// Arms the accept when there is a key to give the connection to.
    pub(super) fn arm_accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let idle = !self.accept.armed && self.accept.spare.is_none() && self.accept.retry_at.is_none();
        if idle && !self.common.offers.is_empty() {
            self.accept.armed = true;
            let fd = types::Fd(listener.as_raw_fd());
            let accept = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut());
            let entry = accept.flags(libc::SOCK_CLOEXEC).build().user_data(Tag::bare(Op::Accept).pack());
            // SAFETY: the operation carries no pointer; the peer's address is asked for afterwards.
            unsafe { self.ring.push(entry) };
        }
    }

    /// Accepts again when the rest after a shortage is over.
    pub(super) fn retry_accept(&mut self, now: Instant) {
        if self.accept.retry_at.is_some_and(|at| at <= now) {
            self.accept.retry_at = None;
            self.arm_accept();
        }
    }

    /// A connection came, or accepting failed.
    pub(super) fn accepted(&mut self, now: Instant, completion: &cqueue::Entry, give: &mut impl FnMut(Input<'_, M>)) {
        self.accept.armed = false;
        if completion.result() < 0 {
            let error = io::Error::from_raw_os_error(-completion.result());
            if is_shortage(&error) {
                count(&self.common.counters.accepts_delayed);
                self.accept.retry_at = Some(now + SHORTAGE_REST);
            }
        } else {
            // SAFETY: the completion of an accept names a new descriptor that nobody else owns.
            self.accept.spare = Some(unsafe { OwnedFd::from_raw_fd(completion.result()) });
        }
        if let Some(accepted) = self.seat_spare() {
            give(accepted);
        }
        self.arm_accept();
    }

    /// Gives a connection that is there to the key that was offered first.
    pub(super) fn seat_spare(&mut self) -> Option<Input<'static, M>> {
        let key = *self.common.offers.front()?;
        let stream = TcpStream::from(self.accept.spare.take()?);
        // A connection that is gone already has no peer; the key waits for the next one.
        let peer = stream.peer_addr().and_then(|peer| stream.set_nodelay(true).map(|()| peer)).ok()?;
        self.common.offers.pop_front();
        let descriptor = self.files.adopt(&self.ring, OwnedFd::from(stream));
        self.streams.insert(key, Stream::new(descriptor, None));
        self.arm_receive(key);
        Some(Input::Accepted { stream: key, peer })
    }

    /// Starts to connect; a failure at once is an input of the next turn.
    pub(super) fn open_stream(&mut self, key: StreamKey, to: SocketAddr) {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let opened = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
            .and_then(|fd| setsockopt(&fd, sockopt::TcpNoDelay, &true).map(|()| fd));
        let fd = match opened {
            Ok(fd) => fd,
            Err(errno) => return self.common.failed(key, &errno.into()),
        };
        let descriptor = self.files.adopt(&self.ring, fd);
        let address = Box::new(SockaddrStorage::from(to));
        let (fd, flags) = target(&descriptor);
        let connect = opcode::Connect::new(fd, address.as_ptr(), address.len()).build();
        let entry = connect.flags(flags).user_data(Tag::stream(Op::Connect, key).pack());
        let mut stream = Stream::new(descriptor, Some(address));
        stream.flight.connect = true;
        self.streams.insert(key, stream);
        // SAFETY: the address is boxed in the stream, which stays until this completes.
        unsafe { self.ring.push(entry) };
    }

    /// Connecting is over.
    pub(super) fn connected(
        &mut self,
        key: StreamKey,
        completion: &cqueue::Entry,
        give: &mut impl FnMut(Input<'_, M>),
    ) {
        let Some(stream) = self.streams.get(key) else { return };
        stream.flight.connect = false;
        stream.address = None;
        if stream.closing {
            return self.finish_closing(key, give);
        }
        if completion.result() < 0 {
            stream.failed = true;
            return give(Input::Failed { stream: key, fault: Fault { errno: -completion.result() } });
        }
        stream.connected = true;
        give(Input::Connected { stream: key });
        self.arm_receive(key);
        self.progress_writes(key);
    }

    /// Arms the receive when the machine wants to read and none is in flight.
    pub(super) fn arm_receive(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        if !stream.alive() || !stream.reading || stream.ended || stream.flight.receive {
            return;
        }
        stream.flight.receive = true;
        let (fd, flags) = stream.target();
        let receive = opcode::Recv::new(fd, std::ptr::null_mut(), 0).buf_group(CHUNKS.group).build();
        let entry = receive.flags(flags | squeue::Flags::BUFFER_SELECT).user_data(Tag::stream(Op::Receive, key).pack());
        // SAFETY: the kernel fills a buffer of the group, which lives until the ring is quiet.
        unsafe { self.ring.push(entry) };
    }

    /// Bytes, the end, or a failure.
    pub(super) fn received_bytes(
        &mut self,
        key: StreamKey,
        completion: &cqueue::Entry,
        give: &mut impl FnMut(Input<'_, M>),
    ) {
        let result = completion.result();
        let buffer = cqueue::buffer_select(completion.flags());
        if let Some(stream) = self.streams.get(key) {
            stream.flight.receive = false;
            if stream.closing {
                self.finish_closing(key, give);
            } else if !stream.failed {
                match (usize::try_from(result), buffer) {
                    (Ok(0), _) => {
                        stream.ended = true;
                        give(Input::Ended { stream: key });
                    }
                    (Ok(len), Some(id)) => {
                        give(Input::Received { stream: key, bytes: self.chunks.bytes(id, len) });
                    }
                    _ if result == -libc::ENOBUFS => count(&self.common.counters.receive_buffers_short),
                    _ if result == -libc::EINTR || result == -libc::EAGAIN => {}
                    _ => {
                        stream.failed = true;
                        give(Input::Failed { stream: key, fault: Fault { errno: result.saturating_neg() } });
                    }
                }
                self.arm_receive(key);
            }
        }
        if let Some(id) = buffer {
            self.chunks.give_back(id);
        }
    }

    /// Starts the next write, or the end, when none is in flight.
    pub(super) fn progress_writes(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        if !stream.alive() || stream.flight.write {
            return;
        }
        while stream.writes.front().is_some_and(<[u8]>::is_empty) {
            let (len, buffer) = stream.writes.advance(0).expect("an empty buffer is written at once");
            self.common.pending.push_back(Input::Written { stream: key, len, buffer });
        }
        let (fd, flags) = stream.target();
        if let Some(bytes) = stream.writes.front() {
            stream.flight.write = true;
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let send = opcode::Send::new(fd, bytes.as_ptr(), len).flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL);
            let entry = send.build().flags(flags).user_data(Tag::stream(Op::Write, key).pack());
            // SAFETY: the buffer stays at the front of the stream's queue, and the stream in its table, until this
            // completes.
            unsafe { self.ring.push(entry) };
        } else if stream.writes.take_end() {
            stream.flight.shutdown = true;
            let shutdown = opcode::Shutdown::new(fd, libc::SHUT_WR).build();
            let entry = shutdown.flags(flags).user_data(Tag::stream(Op::Shutdown, key).pack());
            // SAFETY: the operation carries no pointer.
            unsafe { self.ring.push(entry) };
        }
    }

    /// Bytes were written, or writing failed.
    pub(super) fn wrote(&mut self, key: StreamKey, completion: &cqueue::Entry, give: &mut impl FnMut(Input<'_, M>)) {
        let Some(stream) = self.streams.get(key) else { return };
        stream.flight.write = false;
        if stream.closing {
            return self.finish_closing(key, give);
        }
        if stream.failed {
            return;
        }
        match usize::try_from(completion.result()) {
            Ok(len) => {
                if let Some((len, buffer)) = stream.writes.advance(len) {
                    give(Input::Written { stream: key, len, buffer });
                }
            }
            Err(_) if matches!(-completion.result(), libc::EINTR | libc::EAGAIN) => {}
            Err(_) => {
                stream.failed = true;
                return give(Input::Failed { stream: key, fault: Fault { errno: -completion.result() } });
            }
        }
        self.progress_writes(key);
    }

    /// The end of our side was sent. It fails only when the other side is gone, and then reading says so.
    pub(super) fn shut_down(&mut self, key: StreamKey, give: &mut impl FnMut(Input<'_, M>)) {
        let Some(stream) = self.streams.get(key) else { return };
        stream.flight.shutdown = false;
        if stream.closing {
            self.finish_closing(key, give);
        }
    }

    /// Cancels what is in flight; the last completion closes the stream.
    pub(super) fn close_stream(&mut self, key: StreamKey) {
        let offered = self.common.withdraw(key);
        let Some(stream) = self.streams.get(key).filter(|_| !offered) else {
            return self.common.pending.push_back(Input::Closed { stream: key });
        };
        if stream.closing {
            return;
        }
        stream.closing = true;
        let Flight { connect, receive, write, .. } = stream.flight;
        if stream.flight.is_empty() {
            self.release_stream(key);
            return self.common.pending.push_back(Input::Closed { stream: key });
        }
        for (in_flight, op) in [(connect, Op::Connect), (receive, Op::Receive), (write, Op::Write)] {
            if in_flight {
                self.cancel(Tag::stream(op, key));
            }
        }
    }

    fn finish_closing(&mut self, key: StreamKey, give: &mut impl FnMut(Input<'_, M>)) {
        if self.streams.get(key).is_some_and(|stream| stream.closing && stream.flight.is_empty()) {
            self.release_stream(key);
            give(Input::Closed { stream: key });
        }
    }

    fn release_stream(&mut self, key: StreamKey) {
        if let Some(mut stream) = self.streams.remove(key) {
            self.files.release(&self.ring, stream.descriptor.take().expect("released once"));
        }
    }
}
