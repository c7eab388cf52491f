//! The two drivers that run machines on a kernel, and what only the edge of the process may touch: sockets, threads, the
//! clock, signals, name look-ups.
//!
//! [`probe`] chooses between io_uring and epoll, [`run`] runs one [`Machine`] on the calling thread until it exits.
//! Both drivers keep the promises of [`crate::io`], and share all but the kernel interface itself. Nothing here knows
//! what a machine is for, except the threads that machines write to: the resolver, the senders of events and
//! webhooks, those that ask the Graph API, the journal and the supervisor.

pub mod activation;
pub mod children;
pub mod crew;
pub mod fetch;
pub mod files;
pub mod forward;
pub mod graph;
pub mod inspect;
pub mod installed;
pub mod journal;
pub mod local;
pub mod mail;
pub mod outbound;
pub mod ports;
pub mod process;
pub mod resolver;
pub mod signals;
pub mod supervisor;
pub mod system;
pub mod terminal;
pub mod threads;
pub mod tools;

mod counters;
mod epoll;
mod pace;
mod probe;
mod stream;
mod table;
mod tag;
mod turn;
mod udp;
#[expect(unsafe_code, reason = "a ring is memory shared with the kernel: each block says why it is sound")]
mod uring;
mod writes;

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::io::{Door, Machine};

pub use counters::Counters;
pub use pace::Window;
pub use probe::{Chosen, NoUring, probe, try_rings, try_uring};
pub use stream::Listener;
pub use udp::PAYLOAD_MAX;

use self::mail::{Inbox, Routes};
use self::ports::PortPool;
use self::turn::Common;
use self::udp::Ports;

/// A kernel interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// io_uring.
    Uring {
        /// Whether descriptors are registered with the ring. Sound only where the kernel frees them at once; [`probe`]
        /// finds out.
        registered: bool,
    },
    /// epoll.
    Epoll,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring { .. } => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// What a loop is given besides its machine.
#[derive(Debug)]
pub struct Setup<M> {
    /// What logs call the loop.
    pub name: String,
    /// Its mailbox.
    pub inbox: Inbox<M>,
    /// Whom it may send to.
    pub routes: Routes<M>,
    /// Where [`crate::io::Output::Accept`] takes connections from: at most one listener for each door.
    pub doors: Vec<(Door, Listener)>,
    /// Its share of the media ports; `None`: the kernel chooses ports.
    pub ports: Option<RangeInclusive<u16>>,
    /// The processor it is pinned to.
    pub core: Option<usize>,
    /// Whether it goes before other threads: for a loop that does little, and must not wait for those that do much.
    pub first: bool,
    /// Where it counts, and no other loop.
    pub counters: Arc<Counters>,
    /// How long it lets work gather while it is busy.
    pub window: Window,
}

impl<M> Setup<M> {
    /// A loop with a mailbox and nothing else.
    pub fn new(name: impl Into<String>, inbox: Inbox<M>, routes: Routes<M>) -> Self {
        let name = name.into();
        Self {
            name,
            inbox,
            routes,
            doors: Vec::new(),
            ports: None,
            core: None,
            first: false,
            counters: Arc::default(),
            window: Window::NONE,
        }
    }
}

/// Runs a machine on this thread until it exits. Fails when the loop cannot be set up, or when the kernel interface
/// itself breaks; what happens to single sockets is the machine's business.
pub fn run<T: Machine>(kind: Kind, mut machine: T, setup: Setup<T::Message>) -> io::Result<()> {
    let Setup { name, inbox, mut routes, doors, ports, core, first, counters, window } = setup;
    if let Some(core) = core
        && let Err(error) = system::pin_to(core)
    {
        tracing::warn!(name, core, %error, "not pinned: the host does not allow it");
    }
    if first && let Err(error) = system::go_first() {
        tracing::debug!(name, %error, "goes no faster than others: the host does not allow it (systemd: LimitNICE=-10)");
    }
    if let Err(error) = system::wake_on_time() {
        tracing::debug!(name, %error, "sleeps may last 50 µs longer than asked");
    }
    let ports = ports.map_or(Ports::Any, |range| Ports::Share(PortPool::new(range, ports::REST)));
    let common = Common::new(ports, counters, window);
    let ended = match kind {
        Kind::Uring { registered } => {
            let mut ring = uring::Uring::new(common, &inbox, doors, registered).map_err(io::Error::from)?;
            turn::run(&mut machine, &mut ring, &inbox, &mut routes)
        }
        Kind::Epoll => {
            let mut epoll = epoll::Epoll::new(common, &inbox, doors)?;
            turn::run(&mut machine, &mut epoll, &inbox, &mut routes)
        }
    };
    tracing::debug!(name, ok = ended.is_ok(), "loop ended");
    ended
}
