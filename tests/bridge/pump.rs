//! Runs a relay on a real UDP socket: one thread that moves datagrams and wakes at deadlines, and nothing else.
//!
//! The thread lives no longer than its handle and never longer than [`LIFE_MAX`].

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use crate::relay::Relay;

/// No test lasts longer, so no thread does.
const LIFE_MAX: Duration = Duration::from_secs(900);

/// The longest sleep: what a lost wake-up would cost.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// The time between two questions of [`Pump::wait_for`].
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Receive buffer asked for: a second of hundreds of calls, should the machine be busy with something else.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Larger than any datagram of a call.
const DATAGRAM_MAX: usize = 2048;

/// Datagrams taken before deadlines are looked at again.
const BATCH: usize = 64;

type Command = Box<dyn FnOnce(&mut Relay, Instant) + Send>;

/// A relay that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Pump {
    address: SocketAddr,
    commands: Option<Sender<Command>>,
    waker: UdpSocket,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// Starts a relay on a free port of 127.0.0.1.
    pub(crate) fn start(seed: u64) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER)?;
        let address = socket.local_addr()?;
        let waker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        waker.connect(address)?;
        let wakes_from = waker.local_addr()?;
        let (commands, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("relay".into())
            .spawn(move || run(&socket, wakes_from, Relay::new(address, seed), &inbox))?;
        Ok(Self { address, commands: Some(commands), waker, thread: Some(thread) })
    }

    /// Where the relay listens; its offers say the same.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs `f` on the relay's thread and waits for what it returns.
    ///
    /// # Panics
    /// When the relay's thread has panicked or outlived [`LIFE_MAX`].
    pub(crate) fn with<R: Send + 'static>(&self, f: impl FnOnce(&mut Relay, Instant) -> R + Send + 'static) -> R {
        let (reply, replied) = sync_channel(1);
        let command: Command = Box::new(move |relay, now| {
            let _ = reply.send(f(relay, now)); // nobody waits any more: the asking thread has panicked
        });
        let commands = self.commands.as_ref().expect("taken by drop alone");
        commands.send(command).expect("the relay's thread runs");
        self.wake();
        replied.recv().expect("the relay's thread runs")
    }

    /// Asks again and again until `f` has something to return.
    ///
    /// # Panics
    /// When that takes longer than `patience`; the message says what was waited for.
    pub(crate) fn wait_for<R: Send + 'static>(
        &self,
        what: &str,
        patience: Duration,
        f: impl Fn(&mut Relay, Instant) -> Option<R> + Clone + Send + 'static,
    ) -> R {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = self.with(f.clone()) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited {patience:?} in vain for {what}");
            std::thread::sleep(ASK_AGAIN);
        }
    }

    fn wake(&self) {
        let _ = self.waker.send(&[]); // lost: the thread wakes by itself soon
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            assert!(outcome.is_ok() || std::thread::panicking(), "the relay's thread panicked");
        }
    }
}

fn run(socket: &UdpSocket, wakes_from: SocketAddr, mut relay: Relay, inbox: &Receiver<Command>) {
    let end = Instant::now() + LIFE_MAX;
    let mut buffer = [0; DATAGRAM_MAX];
    while Instant::now() < end {
        loop {
            match inbox.try_recv() {
                Ok(command) => command(&mut relay, Instant::now()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        for _ in 0..BATCH {
            // Any error but "nothing there" is one of an earlier send, which is lost.
            match socket.recv_from(&mut buffer) {
                Ok((_, from)) if from == wakes_from => {}
                Ok((len, from)) => relay.handle_datagram(Instant::now(), from, &buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
        relay.handle_timeout(Instant::now());
        while let Some(datagram) = relay.poll_transmit() {
            let _ = socket.send_to(&datagram.payload, datagram.to); // lost, as on any network
        }
        let sleep = relay.poll_timeout().map_or(SLEEP_MAX, |at| at.saturating_duration_since(Instant::now()));
        wait_readable(socket, sleep.min(SLEEP_MAX));
    }
}

/// Waits for a datagram, a millisecond too long at most. A socket's read timeout counts in jiffies, up to 10 ms: too
/// coarse for a 20 ms beat.
fn wait_readable(socket: &UdpSocket, at_most: Duration) {
    let millis = at_most.as_micros().div_ceil(1000) as u16;
    let _ = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::from(millis)); // EINTR: as a wake
}
