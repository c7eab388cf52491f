//! Streams on the ring: single-shot operations, each awaited before the stream is freed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use io_uring::{cqueue, opcode, squeue, types};
use nix::sys::socket::{SockFlag, SockaddrLike};

use super::buffers::CHUNKS;
use super::files::Descriptor;
use super::{Uring, target};
use crate::driver::counters::count;
use crate::driver::stream::{self, Listener, Remote};
use crate::driver::tag::{Op, Tag};
use crate::driver::turn::{SHORTAGE_REST, is_shortage};
use crate::driver::writes::Writes;
use crate::io::{Door, Fault, Input, StreamKey};

/// A stream that is being opened, or open.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and most combinations occur")]
pub(super) struct Stream {
    /// `None` only while it is released.
    descriptor: Option<Descriptor>,
    /// Where it connects to. The kernel may read it until it is connected.
    address: Option<Box<dyn SockaddrLike>>,
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

/// A listener, and the one accept that is armed on it for all keys of its door: more would all wake for each connection.
pub(super) struct Accepting {
    listener: Listener,
    /// Whether it is known to block: a listener that is shared stays as it is until it is used here.
    ready: bool,
    pub(super) armed: bool,
    /// The last key of the door, withdrawn: it has the accept that is being cancelled, and gets its connection if one came.
    leaving: Option<StreamKey>,
    /// It is to be closed as soon as no accept is armed on it.
    closing: bool,
    /// A connection that came when no key was offered any more.
    spare: Option<OwnedFd>,
    /// After a shortage: when to accept again.
    pub(super) retry_at: Option<Instant>,
}

impl Accepting {
    pub(super) fn new(listener: Listener) -> Self {
        Self { listener, ready: false, armed: false, leaving: None, closing: false, spare: None, retry_at: None }
    }

    fn is_idle(&self) -> bool {
        !self.armed && self.spare.is_none() && self.retry_at.is_none()
    }

    /// Whoever waits for the accept's end waits no more.
    pub(super) fn forget_leaving(&mut self) {
        self.leaving = None;
    }

    /// A ring's accept on a non-blocking listener fails instead of waiting.
    fn make_ready(&mut self) {
        if !self.ready {
            self.ready = true;
            if let Err(error) = self.listener.set_nonblocking(false) {
                tracing::error!(%error, "a listener cannot be set to block: connections may be late");
            }
        }
    }
}

impl Stream {
    fn new(descriptor: Descriptor, address: Option<Box<dyn SockaddrLike>>) -> Self {
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
    pub(super) fn arm_accept(&mut self, door: Door) {
        let Some(accepting) = &mut self.doors[door as usize] else { return };
        if accepting.is_idle() && !self.common.offers[door as usize].is_empty() {
            accepting.make_ready();
            accepting.armed = true;
            let fd = types::Fd(accepting.listener.as_fd().as_raw_fd());
            let accept = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut());
            let entry = accept.flags(libc::SOCK_CLOEXEC).build().user_data(Tag::door(Op::Accept, door).pack());
            // SAFETY: the operation carries no pointer; the peer's address is asked for afterwards.
            unsafe { self.ring.push(entry) };
        }
    }

    /// Accepts again when the rest after a shortage is over.
    pub(super) fn retry_accepts(&mut self, now: Instant) {
        for door in Door::ALL {
            if let Some(accepting) = &mut self.doors[door as usize]
                && accepting.retry_at.is_some_and(|at| at <= now)
            {
                accepting.retry_at = None;
                self.arm_accept(door);
            }
        }
    }

    /// A connection came, or accepting failed.
    pub(super) fn accepted(
        &mut self,
        door: Door,
        now: Instant,
        completion: &cqueue::Entry,
        give: &mut impl FnMut(Input<'_, M>),
    ) {
        let Some(accepting) = &mut self.doors[door as usize] else { return };
        accepting.armed = false;
        if completion.result() < 0 {
            let error = io::Error::from_raw_os_error(-completion.result());
            if is_shortage(&error) {
                count(&self.common.counters.accepts_delayed);
                accepting.retry_at = Some(now + SHORTAGE_REST);
            }
            // Another process that holds the listener has set it not to block.
            accepting.ready &= error.kind() != io::ErrorKind::WouldBlock;
        } else {
            // SAFETY: the completion of an accept names a new descriptor that nobody else owns.
            accepting.spare = Some(unsafe { OwnedFd::from_raw_fd(completion.result()) });
        }
        let (leaving, closing) = (accepting.leaving.take(), accepting.closing);
        if let Some(key) = leaving {
            self.common.offers[door as usize].push_front(key);
        }
        let accepted = self.seat_spare(door);
        if closing {
            self.doors[door as usize] = None;
        }
        if let Some(accepted) = accepted {
            give(accepted);
        }
        if let Some(key) = leaving
            && self.common.withdraw(key).is_some()
        {
            give(Input::Closed { stream: key });
        }
        self.arm_accept(door);
    }

    /// Gives a connection that is there to the key that was offered first.
    pub(super) fn seat_spare(&mut self, door: Door) -> Option<Input<'static, M>> {
        let key = *self.common.offers[door as usize].front()?;
        let socket = self.doors[door as usize].as_mut()?.spare.take()?;
        // A connection that is gone already has no peer; the key waits for the next one.
        let peer = stream::accepted(&socket).ok()?;
        self.common.offers[door as usize].pop_front();
        let descriptor = self.files.adopt(&self.ring, socket);
        self.streams.insert(key, Stream::new(descriptor, None));
        self.arm_receive(key);
        Some(Input::Accepted { stream: key, door, peer })
    }

    /// Takes an offered key back. The last one of its door waits for the end of the accept, which may have a connection.
    pub(super) fn withdraw_offer(&mut self, key: StreamKey) {
        let Some(door) = self.common.withdraw(key) else { return };
        if let Some(accepting) = &mut self.doors[door as usize]
            && accepting.armed
            && accepting.leaving.is_none()
            && self.common.offers[door as usize].is_empty()
        {
            accepting.leaving = Some(key);
            return self.cancel(Tag::door(Op::Accept, door));
        }
        self.common.pending.push_back(Input::Closed { stream: key });
    }

    /// Closes a listener, once the accept that is armed on it has ended.
    pub(super) fn close_listener(&mut self, door: Door) {
        let Some(accepting) = &mut self.doors[door as usize] else { return };
        if !accepting.armed {
            self.doors[door as usize] = None;
        } else if !std::mem::replace(&mut accepting.closing, true) {
            self.cancel(Tag::door(Op::Accept, door));
        }
    }

    /// Starts to connect; a failure at once is an input of the next turn.
    pub(super) fn open_stream(&mut self, key: StreamKey, to: Remote<'_>) {
        let (socket, address) = match stream::open(to, SockFlag::empty()) {
            Ok(opened) => opened,
            Err(error) => return self.common.failed(key, &error),
        };
        let descriptor = self.files.adopt(&self.ring, socket);
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

    /// Gives up a key that is being withdrawn; true when it was one. What the accept still brings is for the next key.
    fn forget_leaving(&mut self, key: StreamKey) -> bool {
        self.doors.iter_mut().flatten().any(|accepting| accepting.leaving.take_if(|leaving| *leaving == key).is_some())
    }

    /// Cancels what is in flight; the last completion closes the stream.
    pub(super) fn close_stream(&mut self, key: StreamKey) {
        let offered = self.common.withdraw(key).is_some() || self.forget_leaving(key);
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
