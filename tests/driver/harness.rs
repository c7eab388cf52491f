//! A machine that is a closure, and the ways to run it on every driver this host allows.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use voice_media_bridge::config::IoChoice;
use voice_media_bridge::driver::mail::{Routes, Sender, mailbox};
use voice_media_bridge::driver::{Counters, Kind, Listener, Setup, Window, probe, run};
use voice_media_bridge::io::{Deadline, Door, Input, Machine, Node, Output, SocketKey, StreamKey};

/// A test that lasts longer than this hangs: it is ended with a panic in place of a stuck run.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type Message = u32;

/// What a scripted machine says.
pub(crate) struct Script {
    out: VecDeque<Output<Message>>,
    pub(crate) deadline: Deadline,
    /// Turns begun: inputs with the same number came before outputs were drained again.
    pub(crate) turn: u64,
}

impl Script {
    pub(crate) fn say(&mut self, output: Output<Message>) {
        self.out.push_back(output);
    }
}

/// Runs a closure on every input but `Submitted`, and holds the driver to the order of a turn.
struct Scripted<F> {
    script: Script,
    react: F,
    started: Option<Instant>,
    /// Whether `Submitted` came since the outputs were drained.
    submitted: bool,
}

impl<F: FnMut(&mut Script, Instant, &Input<'_, Message>)> Machine for Scripted<F> {
    type Message = Message;

    fn handle_input(&mut self, now: Instant, input: Input<'_, Message>) {
        let started = *self.started.get_or_insert(now);
        assert!(now.duration_since(started) < PATIENCE, "still running, now with {input:?}");
        if let Input::Submitted = input {
            assert!(!self.submitted, "submitted twice");
            self.submitted = true;
            self.script.turn += 1;
            return;
        }
        assert!(self.submitted, "{input:?} came before what was drained was submitted");
        (self.react)(&mut self.script, now, &input);
    }

    fn poll_output(&mut self) -> Output<Message> {
        self.submitted = false;
        // So that a test that waits for nothing ends by its own assertion.
        let watchdog = Deadline { at: self.started.map(|at| at + PATIENCE), reason: "watchdog" };
        self.script.out.pop_front().unwrap_or(Output::Timeout(self.script.deadline.min(watchdog)))
    }
}

/// What a machine is given.
pub(crate) struct World {
    pub(crate) doors: Vec<(Door, Listener)>,
    pub(crate) ports: Option<RangeInclusive<u16>>,
    pub(crate) window: Window,
    pub(crate) counters: Arc<Counters>,
    /// Writes to the machine's own mailbox; the machine itself does so under `Node::Control`.
    pub(crate) sender: Sender<Message>,
    setup: Option<Setup<Message>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let (sender, inbox) = mailbox().unwrap();
        let routes = Routes::new().with(Node::Control, sender.clone());
        let setup = Setup::new("test", inbox, routes);
        let counters = Arc::clone(&setup.counters);
        Self { doors: Vec::new(), ports: None, window: Window::NONE, counters, sender, setup: Some(setup) }
    }

    /// Runs until the closure says `Exit`.
    pub(crate) fn run(&mut self, kind: Kind, react: impl FnMut(&mut Script, Instant, &Input<'_, Message>)) {
        let mut setup = self.setup.take().expect("a world runs once");
        setup.doors = std::mem::take(&mut self.doors);
        setup.ports = self.ports.take();
        setup.window = self.window;
        let script = Script { out: VecDeque::new(), deadline: Deadline::NEVER, turn: 0 };
        // The first input of all is the time; nothing was drained before it.
        run(kind, Scripted { script, react, started: None, submitted: true }, setup).unwrap();
        assert_eq!(self.counters.value("rings_leaked"), Some(0), "{kind:?} left operations behind");
    }
}

/// Every driver this host allows.
pub(crate) fn kinds() -> Vec<Kind> {
    let chosen = probe(IoChoice::Auto).unwrap();
    if chosen.kind == Kind::Epoll {
        // A host may forbid rings; one that makes them and finds them broken has found a fault of ours.
        assert!(!chosen.line.contains("self-test"), "{}", chosen.line);
        eprintln!("io_uring not tested: {}", chosen.line);
        return vec![Kind::Epoll];
    }
    vec![Kind::Epoll, Kind::Uring { registered: false }, Kind::Uring { registered: true }]
}

static PROCESS: RwLock<()> = RwLock::new(());

/// For tests that may run beside each other.
pub(crate) fn beside_others() -> RwLockReadGuard<'static, ()> {
    PROCESS.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// For tests that look at the whole process.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    PROCESS.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) const fn socket(slot: u32, generation: u32) -> SocketKey {
    SocketKey { slot, generation }
}

pub(crate) const fn stream(slot: u32, generation: u32) -> StreamKey {
    StreamKey { slot, generation }
}

pub(crate) const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
