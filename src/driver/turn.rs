//! The loop that both drivers share: inputs in, outputs out, then to the kernel and to sleep.
//!
//! One turn: what our own effects caused, then the kernel's completions, then the mailbox, then the deadline if it has
//! passed; then every output; then [`Input::Submitted`]; then one call into the kernel that submits and sleeps. What came
//! in before a deadline is thus seen before it. A turn is bounded in inputs and in time, because what it puts out reaches
//! the kernel only at its end. This file must not know which kernel interface is underneath.

use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counters::{Counters, count};
use super::mail::{Inbox, Mail, Routes};
use super::pace::{Pace, Window};
use super::stream::Remote;
use super::system;
use super::udp::{self, Moment, Ports};
use crate::io::{Deadline, Door, Fault, Input, Machine, Output, SocketKey, StreamKey};

/// Inputs of the kernel per turn, at most; the rest waits for the next one.
pub(super) const INPUTS_PER_TURN: usize = 256;

/// A turn takes no more inputs once it is this old. A packet costs a worker 16 µs, a step of a DTLS handshake 300: without
/// this, what a burst holds up would be late by all of it. A twentieth of the beat.
const TURN_TIME: Duration = Duration::from_millis(1);

/// Inputs between two looks at the clock, which costs less than one of them.
const INPUTS_PER_LOOK: usize = 16;

/// Messages per turn. Opening a call is the dearest, some 150 µs: a storm of them must not hold up the beat.
const MESSAGES_PER_TURN: usize = 8;

/// How long messages wait for room in a full mailbox before they are tried again: there is nothing to be woken by.
const RETRY: Duration = Duration::from_millis(1);

/// How long a loop that ends tries to deliver what waits for room.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long accepting rests when descriptors or memory are short: without a rest it would fail again at once.
pub(super) const SHORTAGE_REST: Duration = Duration::from_millis(100);

/// Whether an accept failed for want of descriptors or memory, and not by the connection's own fault.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// What a backend shares with the turn.
pub(super) struct Common<M> {
    /// Inputs that effects caused at once; handed over first in the next turn.
    pub(super) pending: VecDeque<Input<'static, M>>,
    /// Keys that wait for a connection at each door, in the order they were offered.
    pub(super) offers: [VecDeque<StreamKey>; Door::ALL.len()],
    pub(super) ports: Ports,
    pub(super) counters: Arc<Counters>,
    window: Window,
}

impl<M> Common<M> {
    pub(super) fn new(ports: Ports, counters: Arc<Counters>, window: Window) -> Self {
        Self { pending: VecDeque::new(), offers: Default::default(), ports, counters, window }
    }

    pub(super) fn failed(&mut self, stream: StreamKey, error: &io::Error) {
        self.pending.push_back(Input::Failed { stream, fault: Fault::of(error) });
    }

    /// Takes an offered key back; the door it waited at, if it did.
    pub(super) fn withdraw(&mut self, stream: StreamKey) -> Option<Door> {
        Door::ALL.into_iter().find(|door| {
            let offers = &mut self.offers[*door as usize];
            let place = offers.iter().position(|offer| *offer == stream);
            place.is_some_and(|place| offers.remove(place).is_some())
        })
    }
}

/// How long a backend may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sleep {
    /// Until something happens, or this time is over; `None`: no limit.
    pub(super) timeout: Option<Duration>,
    /// What happens before this time is over may wait until then: the collection window. At most `timeout`.
    pub(super) window: Duration,
}

impl Sleep {
    /// No sleep at all.
    pub(super) const NONE: Self = Self { timeout: Some(Duration::ZERO), window: Duration::ZERO };

    /// Until something happens or this time is over.
    pub(super) const fn at_most(time: Duration) -> Self {
        Self { timeout: Some(time), window: Duration::ZERO }
    }
}

/// One kernel interface. Effects act at once or are queued for [`Backend::wait`]; none of them blocks.
pub(super) trait Backend<M> {
    fn common(&mut self) -> &mut Common<M>;
    fn adopt(&mut self, key: SocketKey, socket: UdpSocket, port: u16) -> io::Result<()>;
    fn send(&mut self, key: SocketKey, to: std::net::SocketAddr, payload: Vec<u8>);
    fn close_udp(&mut self, key: SocketKey, now: Instant);
    fn accept(&mut self, key: StreamKey, door: Door);
    fn withdraw(&mut self, key: StreamKey);
    fn close_door(&mut self, door: Door);
    fn connect(&mut self, key: StreamKey, to: Remote<'_>);
    fn write(&mut self, key: StreamKey, bytes: Vec<u8>);
    fn read(&mut self, key: StreamKey, on: bool);
    fn shutdown(&mut self, key: StreamKey);
    fn close(&mut self, key: StreamKey);
    /// Hands over at most `max` of what happened; true when there may be more.
    fn reap(&mut self, moment: &Moment, max: usize, give: &mut impl FnMut(Input<'_, M>)) -> bool;
    /// Whether the mailbox was signalled since this was last asked.
    fn take_woken(&mut self) -> bool;
    /// When the backend itself wants to run again.
    fn retry_at(&self) -> Option<Instant>;
    /// Gives all effects to the kernel, then sleeps as told.
    fn wait(&mut self, sleep: Sleep) -> io::Result<()>;
}

/// Runs a machine until it exits, or the kernel interface itself fails.
pub(super) fn run<T: Machine, B: Backend<T::Message>>(
    machine: &mut T,
    backend: &mut B,
    inbox: &Inbox<T::Message>,
    routes: &mut Routes<T::Message>,
) -> io::Result<()> {
    let mut moment = Moment::read();
    let mut pace = Pace::new(moment.now, backend.common().window);
    let (mut mail_left, mut more) = (true, false);
    machine.handle_input(moment.now, Input::Timeout);
    loop {
        let Some(deadline) = drain(machine, backend, routes, moment.now) else {
            backend.wait(Sleep::NONE)?;
            return last_words(routes, moment.now);
        };
        let waiting = routes.retry();
        let submitted = Instant::now();
        machine.handle_input(submitted, Input::Submitted);
        // A deadline that had come when the turn began is one that the machine has put off: it goes on at once.
        let overdue = deadline.at.is_some_and(|at| at <= moment.now);
        let idle = backend.common().pending.is_empty() && !mail_left && !more && !overdue;
        let until = [deadline.at, backend.retry_at(), waiting.then(|| submitted + RETRY)].into_iter().flatten().min();
        let window = pace.rests(submitted, || Duration::from_nanos(system::thread_time()));
        let sleep = if idle {
            Sleep { timeout: until.map(|at| at.saturating_duration_since(submitted).max(window)), window }
        } else {
            Sleep::NONE
        };
        backend.wait(sleep)?;

        moment = Moment::read();
        let now = moment.now;
        pace.woke(now);
        let counters = &backend.common().counters;
        count(&counters.turns);
        if !sleep.window.is_zero() {
            count(&counters.windows);
        }
        while let Some(input) = backend.common().pending.pop_front() {
            machine.handle_input(now, input);
        }
        let mut give = |input: Input<'_, T::Message>| machine.handle_input(now, input);
        let mut left = INPUTS_PER_TURN;
        loop {
            more = backend.reap(&moment, INPUTS_PER_LOOK, &mut give);
            left = left.saturating_sub(INPUTS_PER_LOOK);
            if !more || left == 0 || now.elapsed() >= TURN_TIME {
                break;
            }
        }
        if backend.take_woken() {
            inbox.answer();
            mail_left = true;
        }
        if mail_left {
            mail_left = deliver(machine, inbox, now);
        }
        if deadline.at.is_some_and(|at| at <= now) {
            machine.handle_input(now, Input::Timeout);
        }
    }
}

/// Hands over messages; true when some may be left.
fn deliver<T: Machine>(machine: &mut T, inbox: &Inbox<T::Message>, now: Instant) -> bool {
    for _ in 0..MESSAGES_PER_TURN {
        match inbox.take() {
            Mail::Message(message) => machine.handle_input(now, Input::Message(message)),
            Mail::Stop => machine.handle_input(now, Input::Stop),
            Mail::Nothing | Mail::Closed => return false,
        }
    }
    true
}

/// Puts every output into effect; `None` when the machine is done.
fn drain<T: Machine, B: Backend<T::Message>>(
    machine: &mut T,
    backend: &mut B,
    routes: &mut Routes<T::Message>,
    now: Instant,
) -> Option<Deadline> {
    loop {
        match machine.poll_output() {
            Output::Timeout(deadline) => return Some(deadline),
            Output::Exit => return None,
            Output::Send { socket, to, payload } => backend.send(socket, to, payload),
            Output::Write { stream, bytes } => backend.write(stream, bytes),
            Output::Message { to, message } => routes.send(to, message),
            Output::BindUdp { socket, address } => {
                let common = backend.common();
                let opened = udp::open(address, &mut common.ports, &common.counters, now).map_err(io::Error::from);
                let bound = opened.and_then(|(opened, port)| {
                    backend.adopt(socket, opened, port).inspect_err(|_| backend.common().ports.rest(port, now))?;
                    Ok(port)
                });
                backend.common().pending.push_back(match bound {
                    Ok(port) => Input::UdpBound { socket, port },
                    Err(error) => Input::UdpRefused { socket, fault: Fault::of(&error) },
                });
            }
            Output::CloseUdp { socket } => backend.close_udp(socket, now),
            Output::Accept { stream, door } => backend.accept(stream, door),
            Output::Withdraw { stream } => backend.withdraw(stream),
            Output::CloseDoor { door } => backend.close_door(door),
            Output::Connect { stream, to } => backend.connect(stream, Remote::Tcp(to)),
            Output::ConnectLocal { stream, path } => backend.connect(stream, Remote::Unix(&path)),
            Output::Read { stream, on } => backend.read(stream, on),
            Output::Shutdown { stream } => backend.shutdown(stream),
            Output::Close { stream } => backend.close(stream),
        }
    }
}

/// A loop that ends still owes the messages that found a full mailbox.
fn last_words<M>(routes: &mut Routes<M>, now: Instant) -> io::Result<()> {
    while routes.retry() {
        if now.elapsed() > LAST_WORDS {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a mailbox stayed full while its sender ended"));
        }
        std::thread::sleep(RETRY);
    }
    Ok(())
}
