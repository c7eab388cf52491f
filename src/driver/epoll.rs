//! The driver on epoll, by mio: for hosts where io_uring is forbidden.
//!
//! The same contract as the ring's driver, by system calls: each datagram is sent when the machine says so, each
//! readable socket is read until it is empty or its share of the turn is used up. epoll's own timeout knows milliseconds
//! alone, too coarse for the beat: a timer descriptor keeps deadlines to the nanosecond. A collection window is slept
//! through. `recvmmsg` and `sendmmsg` are not used: they gather on one socket, and a call, which has a socket of its own,
//! has one datagram there as a rule. No `unsafe`.

mod sockets;
mod streams;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::counters::count_many;
use super::mail::Inbox;
use super::stream::{Listener, Remote};
use super::table::Table;
use super::tag::{Op, Tag};
use super::turn::{Backend, Common, Sleep};
use super::udp::Moment;
use crate::io::{Door, Input, SocketKey, StreamKey};

/// Events taken from the kernel at once; more wait for the next turn.
const EVENTS_MAX: usize = 1024;

/// Reads of one socket or stream before the next one has its turn.
const READS_MAX: usize = 16;

/// Bytes read at once: a TLS record and its header fit.
const CHUNK: usize = 16 * 1024 + 512;

/// The epoll instance with all that is registered.
pub(super) struct Epoll<M> {
    common: Common<M>,
    poll: Poll,
    /// Wakes a sleep at its deadline.
    timer: TimerFd,
    events: Events,
    sockets: Table<SocketKey, sockets::Socket>,
    streams: Table<StreamKey, streams::Stream>,
    doors: [Option<streams::Accepting>; Door::ALL.len()],
    /// What may have more to read, each at most once.
    ready: VecDeque<Tag>,
    chunk: Box<[u8]>,
    control: Vec<u8>,
    woken: bool,
}

impl<M> Epoll<M> {
    /// Registers the mailbox and the listeners.
    pub(super) fn new(common: Common<M>, inbox: &Inbox<M>, listeners: Vec<(Door, Listener)>) -> io::Result<Self> {
        let poll = Poll::new()?;
        // Every write to an eventfd is an edge of its own, so it never needs reading here.
        poll.registry().register(
            &mut SourceFd(&inbox.event().as_raw_fd()),
            token(Tag::bare(Op::Wake)),
            Interest::READABLE,
        )?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        poll.registry().register(
            &mut SourceFd(&timer.as_fd().as_raw_fd()),
            token(Tag::bare(Op::Cancel)),
            Interest::READABLE,
        )?;
        let mut doors = <[_; Door::ALL.len()]>::default();
        for (door, listener) in listeners {
            let tag = token(Tag::door(Op::Accept, door));
            poll.registry().register(&mut SourceFd(&listener.as_fd().as_raw_fd()), tag, Interest::READABLE)?;
            doors[door as usize] = Some(streams::Accepting::new(listener));
        }
        Ok(Self {
            common,
            poll,
            timer,
            events: Events::with_capacity(EVENTS_MAX),
            sockets: Table::new(),
            streams: Table::new(),
            doors,
            ready: VecDeque::new(),
            chunk: vec![0; CHUNK].into_boxed_slice(),
            control: nix::cmsg_space!(nix::sys::time::TimeSpec),
            woken: false,
        })
    }

    /// Takes up what the kernel said in the last wait.
    fn note_events(&mut self) {
        for event in &self.events {
            let Some(tag) = Tag::unpack(event.token().0 as u64) else { continue };
            match tag.op {
                Op::Wake => self.woken = true,
                // The timer: a deadline is seen by the time.
                Op::Cancel => {}
                Op::Accept => {
                    if let Some(accepting) = tag.of_door().and_then(|door| self.doors[door as usize].as_mut()) {
                        accepting.acceptable = true;
                    }
                }
                Op::UdpReceive => {
                    if let Some(socket) = self.sockets.get(tag.socket_key()) {
                        queue(&mut self.ready, &mut socket.queued, tag);
                    }
                }
                _ => {
                    if let Some(stream) = self.streams.get(tag.stream_key()) {
                        stream.writable |= event.is_writable() || event.is_error() || event.is_write_closed();
                        stream.readable |= event.is_readable() || event.is_error() || event.is_read_closed();
                        queue(&mut self.ready, &mut stream.queued, tag);
                    }
                }
            }
        }
        self.events.clear();
    }
}

impl<M> Backend<M> for Epoll<M> {
    fn common(&mut self) -> &mut Common<M> {
        &mut self.common
    }

    fn adopt(&mut self, key: SocketKey, socket: UdpSocket, port: u16) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let tag = token(Tag::socket(Op::UdpReceive, key));
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), tag, Interest::READABLE)?;
        self.sockets.insert(key, sockets::Socket { udp: socket, port, queued: false });
        Ok(())
    }

    fn send(&mut self, key: SocketKey, to: SocketAddr, payload: Vec<u8>) {
        self.send_datagram(key, to, &payload);
    }

    fn close_udp(&mut self, key: SocketKey, now: Instant) {
        if let Some(socket) = self.sockets.remove(key) {
            self.common.ports.rest(socket.port, now);
        }
        self.common.pending.push_back(Input::UdpClosed { socket: key });
    }

    fn accept(&mut self, key: StreamKey, door: Door) {
        self.common.offers[door as usize].push_back(key);
    }

    fn withdraw(&mut self, key: StreamKey) {
        // Accepting and handing over are one step here: no connection can be between the two.
        if self.common.withdraw(key).is_some() {
            self.common.pending.push_back(Input::Closed { stream: key });
        }
    }

    fn close_door(&mut self, door: Door) {
        self.doors[door as usize] = None;
        let offers = std::mem::take(&mut self.common.offers[door as usize]);
        self.common.pending.extend(offers.into_iter().map(|stream| Input::Closed { stream }));
    }

    fn connect(&mut self, key: StreamKey, to: Remote<'_>) {
        self.open_stream(key, to);
    }

    fn write(&mut self, key: StreamKey, bytes: Vec<u8>) {
        if let Some(stream) = self.streams.get(key) {
            stream.writes.push(bytes);
            self.flush(key);
        }
    }

    fn read(&mut self, key: StreamKey, on: bool) {
        if let Some(stream) = self.streams.get(key) {
            stream.reading = on;
            queue(&mut self.ready, &mut stream.queued, Tag::stream(Op::Receive, key));
        }
    }

    fn shutdown(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get(key) {
            stream.writes.finish();
            self.flush(key);
        }
    }

    fn close(&mut self, key: StreamKey) {
        self.common.withdraw(key);
        // Dropping closes, and closing deregisters.
        self.streams.remove(key);
        self.common.pending.push_back(Input::Closed { stream: key });
    }

    fn reap(&mut self, moment: &Moment, max: usize, give: &mut impl FnMut(Input<'_, M>)) -> bool {
        self.note_events();
        let mut budget = max;
        for door in Door::ALL {
            self.accept_waiting(door, moment.now, &mut budget, give);
        }
        while budget > 0
            && let Some(tag) = self.ready.pop_front()
        {
            match tag.op {
                Op::UdpReceive => self.receive_datagrams(tag.socket_key(), moment, &mut budget, give),
                _ => self.progress(tag.stream_key(), &mut budget, give),
            }
        }
        !self.ready.is_empty()
    }

    fn take_woken(&mut self) -> bool {
        std::mem::take(&mut self.woken)
    }

    fn retry_at(&self) -> Option<Instant> {
        self.doors.iter().flatten().filter_map(|accepting| accepting.retry_at).min()
    }

    fn wait(&mut self, sleep: Sleep) -> io::Result<()> {
        let mut doors = self.doors.iter().zip(&self.common.offers);
        let acceptable = doors.any(|(door, offers)| door.as_ref().is_some_and(|door| door.has_work(offers)));
        let busy = !self.ready.is_empty() || acceptable;
        let mut calls = 1;
        let timeout = if busy {
            Some(Duration::ZERO)
        } else if sleep.window.is_zero() {
            sleep.timeout
        } else {
            calls += 1;
            std::thread::sleep(sleep.window);
            Some(Duration::ZERO)
        };
        let polls_only = timeout == Some(Duration::ZERO);
        if let Some(timeout) = timeout.filter(|_| !polls_only) {
            calls += 1;
            // Each setting is an edge of its own when it runs out, so the timer never needs reading.
            self.timer.set(Expiration::OneShot(TimeSpec::from_duration(timeout)), TimerSetTimeFlags::empty())?;
        }
        count_many(&self.common.counters.system_calls, calls);
        match self.poll.poll(&mut self.events, polls_only.then_some(Duration::ZERO)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

fn token(tag: Tag) -> Token {
    Token(usize::try_from(tag.pack()).expect("tokens have 64 bits"))
}

/// Notes that there may be something to read, once.
fn queue(ready: &mut VecDeque<Tag>, queued: &mut bool, tag: Tag) {
    if !std::mem::replace(queued, true) {
        ready.push_back(tag);
    }
}
