//! The contract between machines and drivers.
//!
//! A machine is state without a socket, thread or clock: it is handed inputs and the time, and is then drained
//! of outputs until it names its next deadline. A driver owns the kernel side and never looks inside a machine.
//! The same machine runs on io_uring, on epoll and in tests; only the caller differs.
//!
//! Promises that every driver keeps, and every machine may build on:
//!
//! * Inputs of one turn are all handed over before outputs are drained; a machine never loses one to another's error.
//! * A key belongs to the machine until [`Input::UdpClosed`] or [`Input::Closed`] returns it. Only then may its slot
//!   be used again, with a higher generation. A late completion of an older generation never reaches the machine.
//! * Outputs take effect in order. [`Input::Submitted`] says that all drained so far were handed to the kernel.
//! * After [`Input::Failed`] or [`Input::UdpRefused`] nothing more comes for that key but what the machine asks for:
//!   it still has to close it.
//!
//! This file must not know what a call, a packet or a request is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

/// State that turns inputs and time into outputs.
pub trait Machine {
    /// What travels between this machine and others.
    type Message: Send + 'static;

    /// Takes one input. Outputs it causes are queued for [`Machine::poll_output`].
    fn handle_input(&mut self, now: Instant, input: Input<'_, Self::Message>);

    /// The next output; [`Output::Timeout`] says that there is no other before the deadline it carries.
    fn poll_output(&mut self) -> Output<Self::Message>;
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            /// Dense index: drivers and machines keep tables by it.
            pub slot: u32,
            /// Tells this use of the slot from earlier ones.
            pub generation: u32,
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}.{})"), self.slot, self.generation)
            }
        }
    };
}

key!(
    /// A datagram socket, named by the machine that asked for it.
    SocketKey
);
key!(
    /// A byte stream, named by the machine that accepts or connects it.
    StreamKey
);

/// Where a message goes. Control talks with workers and with the helper threads for HTTP, and tells events, the journal and the
/// supervisor; workers talk with the resolver, and never with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// The HTTP API and placement.
    Control,
    /// A worker, by its index.
    Worker(u16),
    /// The helper thread that looks up names.
    Resolver,
    /// The helper thread that posts events.
    Events,
    /// The helper thread that reports to the service manager.
    Supervisor,
    /// The helper threads that ask Meta's Graph API.
    Graph,
    /// The helper threads that pass webhooks on.
    Forwarder,
    /// The helper thread that writes the journal.
    Journal,
}

/// A listener of a machine's driver, by what it is for. A machine may be given any of them, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// Where clients come: the machine's API.
    Api,
    /// A Unix socket, for the other instance on this machine.
    Local,
    /// Where a balancer asks how much more may come.
    AgentCheck,
}

impl Door {
    /// Every door, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Api, Self::Local, Self::AgentCheck];
}

/// An error of the operating system, as its number: small, comparable, and printable.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fault {
    /// `errno`, positive.
    pub errno: i32,
}

impl Fault {
    /// The fault behind an I/O error; those without a number become `EIO` (5).
    pub fn of(error: &std::io::Error) -> Self {
        Self { errno: error.raw_os_error().unwrap_or(5) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.errno).fmt(f)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fault({self})")
    }
}

/// One datagram, lent for the length of the call.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The socket it came in on.
    pub socket: SocketKey,
    /// Its sender, unverified.
    pub from: SocketAddr,
    /// Its bytes. A datagram larger than the driver's buffer never gets here: the driver counts and drops it.
    pub payload: &'a [u8],
    /// When the kernel took it in; never later than the `now` it is handed over with.
    pub received: Instant,
}

/// What happened.
#[derive(Debug)]
pub enum Input<'a, M> {
    /// The deadline named last has passed (or the driver woke for another reason: harmless).
    Timeout,
    /// Every output drained so far was handed to the kernel at this `now`. Causes no output.
    Submitted,
    /// A datagram came.
    Datagram(Datagram<'a>),
    /// The socket asked for is open on this port.
    UdpBound {
        /// Which.
        socket: SocketKey,
        /// Its local port.
        port: u16,
    },
    /// The socket asked for could not be opened. Close the key to get it back.
    UdpRefused {
        /// Which.
        socket: SocketKey,
        /// Why; `EADDRINUSE` when no port of the range is free.
        fault: Fault,
    },
    /// A datagram could not be sent. It is lost, the socket is not.
    SendFailed {
        /// From which socket.
        socket: SocketKey,
        /// Why.
        fault: Fault,
    },
    /// The socket is closed and its slot may be used again.
    UdpClosed {
        /// Which.
        socket: SocketKey,
    },
    /// A connection was accepted under the key that [`Output::Accept`] offered.
    Accepted {
        /// Which.
        stream: StreamKey,
        /// Through which door.
        door: Door,
        /// The other end; none on a Unix socket.
        peer: Option<SocketAddr>,
    },
    /// The connection asked for stands.
    Connected {
        /// Which.
        stream: StreamKey,
    },
    /// Bytes came.
    Received {
        /// On which stream.
        stream: StreamKey,
        /// The bytes, lent.
        bytes: &'a [u8],
    },
    /// The other end will send no more. Writing may go on.
    Ended {
        /// Which.
        stream: StreamKey,
    },
    /// Connecting, reading or writing failed. Nothing more comes until the key is closed.
    Failed {
        /// Which.
        stream: StreamKey,
        /// Why.
        fault: Fault,
    },
    /// A buffer was written whole and comes back, emptied, to be used again.
    Written {
        /// On which stream.
        stream: StreamKey,
        /// How many bytes it held.
        len: usize,
        /// The buffer, cleared.
        buffer: Vec<u8>,
    },
    /// The stream is closed and its slot may be used again.
    Closed {
        /// Which.
        stream: StreamKey,
    },
    /// Another machine sent this.
    Message(M),
    /// The process was asked to end (SIGTERM, SIGINT): it may take its time. A second one means: at once.
    Stop,
}

/// What is to be done.
#[derive(Debug)]
pub enum Output<M> {
    /// Opens a datagram socket on a free port of the driver's share. The driver binds to `address` where that is an
    /// address of this host, so that the kernel cannot choose another as source, and to any address where it is not
    /// (1:1 NAT: the address is only advertised).
    BindUdp {
        /// The key it shall have.
        socket: SocketKey,
        /// The address that is advertised.
        address: IpAddr,
    },
    /// Sends a datagram.
    Send {
        /// From which socket.
        socket: SocketKey,
        /// To whom.
        to: SocketAddr,
        /// What.
        payload: Vec<u8>,
    },
    /// Closes a datagram socket.
    CloseUdp {
        /// Which.
        socket: SocketKey,
    },
    /// Accepts one connection under this key.
    Accept {
        /// The key it shall have.
        stream: StreamKey,
        /// From which listener of the driver. From one that the driver does not have, nothing ever comes.
        door: Door,
    },
    /// Takes an offered key back without losing a connection. It comes back by [`Input::Closed`], or as
    /// [`Input::Accepted`] when a connection was under way to it already: that one is to be served like any other.
    Withdraw {
        /// Which.
        stream: StreamKey,
    },
    /// Closes a listener for good, and drops what waits there. Its offered keys come back as after [`Output::Withdraw`].
    CloseDoor {
        /// Which.
        door: Door,
    },
    /// Opens a connection.
    Connect {
        /// The key it shall have.
        stream: StreamKey,
        /// To where.
        to: SocketAddr,
    },
    /// Opens a connection to a Unix socket.
    ConnectLocal {
        /// The key it shall have.
        stream: StreamKey,
        /// Where the socket is.
        path: PathBuf,
    },
    /// Writes all of these bytes, after those of earlier writes. The machine bounds what it has unwritten.
    Write {
        /// On which stream.
        stream: StreamKey,
        /// What.
        bytes: Vec<u8>,
    },
    /// Reads (the state at the start) or stops reading: what comes meanwhile stays with the kernel. Bytes that
    /// were read in the turn under way are still handed over, and those of one read after it.
    Read {
        /// Which stream.
        stream: StreamKey,
        /// Whether to read.
        on: bool,
    },
    /// Sends the end of our side after what is unwritten.
    Shutdown {
        /// Which stream.
        stream: StreamKey,
    },
    /// Closes a stream at once, whatever is unwritten. Also gives back a key whose `Accept` or `Connect` is under way, and
    /// drops a connection that has just come of it.
    Close {
        /// Which.
        stream: StreamKey,
    },
    /// Sends to another machine.
    Message {
        /// To whom.
        to: Node,
        /// What.
        message: M,
    },
    /// The machine is done for good: its driver returns.
    Exit,
    /// Nothing more until this deadline or another input.
    Timeout(Deadline),
}

/// When a machine next wants to run, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// When; `None` for: only on input.
    pub at: Option<Instant>,
    /// What for, in a word or two, for traces.
    pub reason: &'static str,
}

impl Deadline {
    /// No deadline: the machine sleeps until an input comes.
    pub const NEVER: Self = Self { at: None, reason: "idle" };

    /// A deadline with its reason.
    pub fn at(at: Instant, reason: &'static str) -> Self {
        Self { at: Some(at), reason }
    }

    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        match (self.at, other.at) {
            (Some(a), Some(b)) if b < a => other,
            (None, Some(_)) => other,
            _ => self,
        }
    }
}

/// Fills a buffer with unpredictable bytes. Production passes the operating system's source; a simulation a seeded one.
pub type Entropy = fn(&mut [u8]);

/// Nanoseconds that only grow, for measuring how long work took. Nothing may be decided by two readings that are not a
/// difference, and no deadline may come from one: those are on the clock that inputs carry.
pub type Stopwatch = fn() -> u64;
