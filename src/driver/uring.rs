//! The driver on io_uring: one ring per loop, made and used by the thread that runs it.
//!
//! A turn costs one `io_uring_enter`: it submits what the machine asked for and sleeps until the deadline, which rides on
//! the same call. Datagrams come by one multishot receive per socket into a ring of provided buffers; their sends post a
//! completion only when they fail. Streams use single-shot operations, because a multishot receive cannot be paused.
//! Everything here is in Linux 6.1; nothing newer is used.
//!
//! What the kernel may still read or write must stay in place, and closing keeps that promise: cancel, await the last
//! completion, only then free. The operations in flight are counted per socket and stream; a ring that ends does the same
//! for all of them first, and leaks its buffers rather than free them under the kernel's hands.

mod buffers;
mod files;
mod ring;
mod sends;
mod sockets;
mod streams;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::{cqueue, opcode, squeue, types};

use self::buffers::BufferRing;
use self::files::{Descriptor, Files};
use self::ring::Ring;
use self::sends::WakeCount;
use self::sockets::Template;
use super::counters::{count, count_many};
use super::mail::Inbox;
use super::stream::{Listener, Remote};
use super::table::Table;
use super::tag::{Op, Tag};
use super::turn::{Backend, Common, INPUTS_PER_TURN, Sleep};
use super::udp::Moment;
use crate::io::{Door, Fault, Input, SocketKey, StreamKey};

pub(super) use self::ring::{STEP_RING, SetupError};

/// How long a ring that ends waits for its operations to end. They are cancelled, so this is for a kernel in trouble.
const QUIESCE: Duration = Duration::from_secs(1);

/// The ring and all that it serves.
pub(super) struct Uring<M> {
    common: Common<M>,
    ring: Ring,
    files: Files,
    datagrams: BufferRing,
    chunks: BufferRing,
    template: Template,
    sockets: Table<SocketKey, sockets::Socket>,
    streams: Table<StreamKey, streams::Stream>,
    doors: [Option<streams::Accepting>; Door::ALL.len()],
    batch: Vec<cqueue::Entry>,
    wake: Wake,
}

/// The read of the mailbox's eventfd.
struct Wake {
    fd: i32,
    count: WakeCount,
    armed: bool,
    woken: bool,
    /// The ring ends: the read is not armed again.
    ending: bool,
}

impl<M> Uring<M> {
    /// Makes a ring on this thread, with registered descriptors if so wanted.
    pub(super) fn new(
        common: Common<M>,
        inbox: &Inbox<M>,
        listeners: Vec<(Door, Listener)>,
        registered: bool,
    ) -> Result<Self, SetupError> {
        let mut ring = Ring::new()?;
        let datagrams = BufferRing::new(&ring, buffers::DATAGRAMS)?;
        let chunks = BufferRing::new(&ring, buffers::CHUNKS)?;
        let files = Files::new(&ring, registered)?;
        ring.enable()?;
        let mut doors = <[_; Door::ALL.len()]>::default();
        for (door, listener) in listeners {
            doors[door as usize] = Some(streams::Accepting::new(listener));
        }
        let wake =
            Wake { fd: inbox.event().as_raw_fd(), count: WakeCount::new(), armed: false, woken: false, ending: false };
        let mut uring = Self {
            common,
            ring,
            files,
            datagrams,
            chunks,
            template: Template::new(),
            sockets: Table::new(),
            streams: Table::new(),
            doors,
            batch: Vec::with_capacity(INPUTS_PER_TURN),
            wake,
        };
        uring.arm_wake();
        Ok(uring)
    }

    fn arm_wake(&mut self) {
        let read = opcode::Read::new(types::Fd(self.wake.fd), self.wake.count.place(), WakeCount::LEN);
        self.wake.armed = true;
        // SAFETY: the count lives until the ring is quiet (see `Drop`), and nothing else writes to it.
        unsafe { self.ring.push(read.build().user_data(Tag::bare(Op::Wake).pack())) };
    }

    /// Asks the kernel to end an operation; its completion still comes.
    fn cancel(&mut self, tag: Tag) {
        let cancel = opcode::AsyncCancel::new(tag.pack()).build();
        let entry = cancel.flags(squeue::Flags::SKIP_SUCCESS).user_data(Tag::bare(Op::Cancel).pack());
        // SAFETY: the operation carries no pointer.
        unsafe { self.ring.push(entry) };
    }

    fn complete(&mut self, moment: &Moment, completion: &cqueue::Entry, give: &mut impl FnMut(Input<'_, M>)) {
        let Some(tag) = Tag::unpack(completion.user_data()) else { return };
        match tag.op {
            Op::Wake => {
                self.wake.armed = false;
                self.wake.woken = true;
                if !self.wake.ending {
                    self.arm_wake();
                }
            }
            Op::Cancel => {}
            Op::UdpReceive => self.received_datagram(tag.socket_key(), moment, completion, give),
            Op::UdpSend => {
                let key = tag.socket_key();
                if completion.result() < 0 && self.sockets.get(key).is_some_and(|socket| !socket.closing) {
                    give(Input::SendFailed { socket: key, fault: Fault { errno: -completion.result() } });
                }
            }
            Op::Accept => {
                if let Some(door) = tag.of_door() {
                    self.accepted(door, moment.now, completion, give);
                }
            }
            Op::Connect => self.connected(tag.stream_key(), completion, give),
            Op::Receive => self.received_bytes(tag.stream_key(), completion, give),
            Op::Write => self.wrote(tag.stream_key(), completion, give),
            Op::Shutdown => self.shut_down(tag.stream_key(), give),
        }
    }

    /// Ends every operation and waits for its last completion; true when the kernel holds nothing of ours any more.
    fn quiesce(&mut self) -> bool {
        let now = Instant::now();
        for key in self.sockets.keys() {
            self.close_udp(key, now);
        }
        for key in self.streams.keys() {
            self.close(key);
        }
        let armed = |uring: &Self, door: Door| uring.doors[door as usize].as_ref().is_some_and(|door| door.armed);
        for door in Door::ALL {
            if armed(self, door) {
                self.cancel(Tag::door(Op::Accept, door));
            }
            self.common.offers[door as usize].clear();
        }
        self.doors.iter_mut().flatten().for_each(streams::Accepting::forget_leaving);
        self.wake.ending = true;
        if self.wake.armed {
            self.cancel(Tag::bare(Op::Wake));
        }
        let quiet = |uring: &Self| {
            uring.sockets.is_empty()
                && uring.streams.is_empty()
                && !uring.wake.armed
                && !Door::ALL.into_iter().any(|door| armed(uring, door))
        };
        while !quiet(self) {
            if now.elapsed() > QUIESCE || self.wait(Sleep::at_most(Duration::from_millis(10))).is_err() {
                return false;
            }
            self.reap(&Moment::read(), INPUTS_PER_TURN, &mut |_| {});
        }
        true
    }
}

impl<M> Drop for Uring<M> {
    fn drop(&mut self) {
        if !self.quiesce() {
            count(&self.common.counters.rings_leaked);
            tracing::error!("operations of a ring did not end: its buffers are left to the kernel");
            self.ring.leak();
            self.datagrams.leak();
            self.chunks.leak();
            self.template.leak();
            self.wake.count.leak();
            std::mem::forget(std::mem::replace(&mut self.streams, Table::new()));
        }
    }
}

impl<M> Backend<M> for Uring<M> {
    fn common(&mut self) -> &mut Common<M> {
        &mut self.common
    }

    fn adopt(&mut self, key: SocketKey, socket: UdpSocket, port: u16) -> io::Result<()> {
        let descriptor = self.files.adopt(&self.ring, OwnedFd::from(socket));
        self.sockets.insert(key, sockets::Socket::new(descriptor, port));
        self.arm_datagrams(key);
        Ok(())
    }

    fn send(&mut self, key: SocketKey, to: SocketAddr, payload: Vec<u8>) {
        self.send_datagram(key, to, payload);
    }

    fn close_udp(&mut self, key: SocketKey, now: Instant) {
        self.close_socket(key, now);
    }

    fn accept(&mut self, key: StreamKey, door: Door) {
        self.common.offers[door as usize].push_back(key);
        if let Some(accepted) = self.seat_spare(door) {
            self.common.pending.push_back(accepted);
        }
        self.arm_accept(door);
    }

    fn withdraw(&mut self, key: StreamKey) {
        self.withdraw_offer(key);
    }

    fn close_door(&mut self, door: Door) {
        for key in self.common.offers[door as usize].clone() {
            self.withdraw_offer(key);
        }
        self.close_listener(door);
    }

    fn connect(&mut self, key: StreamKey, to: Remote<'_>) {
        self.open_stream(key, to);
    }

    fn write(&mut self, key: StreamKey, bytes: Vec<u8>) {
        if let Some(stream) = self.streams.get(key) {
            stream.writes.push(bytes);
            self.progress_writes(key);
        }
    }

    fn read(&mut self, key: StreamKey, on: bool) {
        if let Some(stream) = self.streams.get(key) {
            stream.reading = on;
            self.arm_receive(key);
        }
    }

    fn shutdown(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get(key) {
            stream.writes.finish();
            self.progress_writes(key);
        }
    }

    fn close(&mut self, key: StreamKey) {
        self.close_stream(key);
    }

    fn reap(&mut self, moment: &Moment, max: usize, give: &mut impl FnMut(Input<'_, M>)) -> bool {
        self.retry_accepts(moment.now);
        let mut batch = std::mem::take(&mut self.batch);
        let more = self.ring.completions(&mut batch, max);
        count_many(&self.common.counters.ring_completions, batch.len() as u64);
        for completion in batch.drain(..) {
            self.complete(moment, &completion, give);
        }
        self.batch = batch;
        self.datagrams.publish();
        self.chunks.publish();
        more
    }

    fn take_woken(&mut self) -> bool {
        std::mem::take(&mut self.wake.woken)
    }

    fn retry_at(&self) -> Option<Instant> {
        self.doors.iter().flatten().filter_map(|accepting| accepting.retry_at).min()
    }

    fn wait(&mut self, sleep: Sleep) -> io::Result<()> {
        let entered = self.ring.enter(sleep);
        let (tally, counters) = (self.ring.take_tally(), &self.common.counters);
        count_many(&counters.system_calls, tally.enters);
        count_many(&counters.ring_submissions, tally.submissions);
        if self.ring.has_overflowed() {
            count(&counters.ring_overflows);
        }
        entered
    }
}

/// The descriptor of an operation: its number, and the flag that says which table it is in.
fn target(descriptor: &Descriptor) -> (types::Fd, squeue::Flags) {
    match descriptor {
        Descriptor::Plain(fd) => (types::Fd(fd.as_raw_fd()), squeue::Flags::empty()),
        Descriptor::Registered(slot) => {
            (types::Fd(i32::try_from(*slot).expect("the table is small")), squeue::Flags::FIXED_FILE)
        }
    }
}
