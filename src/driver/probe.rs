//! Which kernel interface runs: io_uring where it works, and in one line why not where it does not.
//!
//! A ring is made as the driver makes it, and a small machine is run on it: it sends itself a datagram, and closes one
//! socket while another goes on receiving. So a kernel, a sandbox or an emulation that only claims to have io_uring is
//! found out before a call is lost to it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::mail::{Routes, mailbox};
use super::turn::{self, Common};
use super::udp::Ports;
use super::uring::{STEP_RING, SetupError, Uring};
use super::{Counters, Kind, Window};
use crate::config::IoChoice;
use crate::io::{Deadline, Input, Machine, Output, SocketKey};

/// How long a datagram to ourselves may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What runs, and what to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The kernel interface.
    pub kind: Kind,
    /// One line for the log.
    pub line: String,
}

/// Chooses the kernel interface. Fails when io_uring was asked for and does not work; the error says why, and the cure.
pub fn probe(choice: IoChoice) -> Result<Chosen, String> {
    let kernel = release();
    if choice == IoChoice::Epoll {
        return Ok(Chosen { kind: Kind::Epoll, line: format!("epoll, as asked for (kernel {kernel})") });
    }
    match try_uring() {
        Ok(registered) => {
            let table = if registered { "registered" } else { "plain" };
            let line = format!("io_uring with {table} descriptors (kernel {kernel})");
            Ok(Chosen { kind: Kind::Uring { registered }, line })
        }
        Err(refusal) if choice == IoChoice::Auto => {
            Ok(Chosen { kind: Kind::Epoll, line: format!("epoll, because io_uring does not work here: {refusal}") })
        }
        Err(refusal) => Err(format!("io_uring does not work here: {refusal}")),
    }
}

/// Why io_uring does not work, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoUring {
    /// What was seen.
    pub why: String,
    /// The cure.
    pub cure: String,
}

impl fmt::Display for NoUring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.why, self.cure)
    }
}

/// Whether io_uring works, and if so whether registered descriptors are sound.
pub fn try_uring() -> Result<bool, NoUring> {
    let failed = |outcome| NoUring { why: format!("its self-test failed ({outcome:?})"), cure: WITHOUT.into() };
    match self_test(true).map_err(|failed| explained(&failed))? {
        Outcome::Freed => Ok(true),
        Outcome::Held => match self_test(false).map_err(|failed| explained(&failed))? {
            Outcome::Freed => Ok(false),
            other => Err(failed(other)),
        },
        other => Err(failed(other)),
    }
}

/// Whether so many loops can have their rings at the same time: each takes memory that some kernels count as locked.
pub fn try_rings(loops: u16) -> Result<(), NoUring> {
    let mut rings = Vec::new();
    for _ in 0..loops {
        let (sender, inbox) = mailbox::<()>().map_err(|error| explained(&SetupError { step: "mailbox", error }))?;
        let common = Common::new(Ports::Any, Arc::new(Counters::default()), Window::NONE);
        let ring = Uring::new(common, &inbox, Vec::new(), true).map_err(|failed| explained(&failed))?;
        rings.push((ring, inbox, sender));
    }
    Ok(())
}

/// The way out where there is no other.
const WITHOUT: &str = "BRIDGE_IO=epoll does without it";

/// What the self-test saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// A datagram came, and a socket that was closed was free at once.
    Freed,
    /// A datagram came, but a closed socket kept its port.
    Held,
    /// No datagram came.
    Silent,
    /// The sockets themselves could not be opened: the host has no loopback address.
    NoSockets,
}

fn self_test(registered: bool) -> Result<Outcome, SetupError> {
    let outcome = Rc::new(Cell::new(Outcome::Silent));
    let mut machine = SelfTest { outcome: Rc::clone(&outcome), out: VecDeque::new(), deadline: None, ports: [0; 2] };
    let setup = |step| move |error| SetupError { step, error };
    let (_sender, inbox) = mailbox().map_err(setup("mailbox"))?;
    let common = Common::new(Ports::Any, Arc::new(Counters::default()), Window::NONE);
    let mut ring = Uring::new(common, &inbox, Vec::new(), registered)?;
    turn::run(&mut machine, &mut ring, &inbox, &mut Routes::new()).map_err(setup("io_uring_enter"))?;
    // Without a loopback address there is nothing to try, and nothing wrong with the ring. Plain descriptors are safe.
    Ok(if outcome.get() == Outcome::NoSockets && !registered { Outcome::Freed } else { outcome.get() })
}

const SENDER: SocketKey = SocketKey { slot: 0, generation: 1 };
const RECEIVER: SocketKey = SocketKey { slot: 1, generation: 1 };
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Opens two sockets, sends from one to the other, closes the receiver, and tries its port.
struct SelfTest {
    outcome: Rc<Cell<Outcome>>,
    out: VecDeque<Output<()>>,
    deadline: Option<Instant>,
    ports: [u16; 2],
}

impl Machine for SelfTest {
    type Message = ();

    fn handle_input(&mut self, now: Instant, input: Input<'_, ()>) {
        match input {
            Input::Timeout if self.deadline.is_none() => {
                self.deadline = Some(now + PATIENCE);
                self.out.extend([SENDER, RECEIVER].map(|socket| Output::BindUdp { socket, address: LOOPBACK }));
            }
            Input::Timeout if self.deadline.is_some_and(|at| at <= now) => self.out.push_back(Output::Exit),
            Input::UdpBound { socket, port } => {
                self.ports[socket.slot as usize] = port;
                if !self.ports.contains(&0) {
                    let to = SocketAddr::new(LOOPBACK, self.ports[RECEIVER.slot as usize]);
                    self.out.push_back(Output::Send { socket: SENDER, to, payload: b"probe".to_vec() });
                }
            }
            Input::Datagram(datagram) if datagram.payload == b"probe" => {
                self.out.push_back(Output::CloseUdp { socket: RECEIVER });
            }
            Input::UdpClosed { socket: RECEIVER } => {
                let free = UdpSocket::bind((LOOPBACK, self.ports[RECEIVER.slot as usize])).is_ok();
                self.outcome.set(if free { Outcome::Freed } else { Outcome::Held });
                self.out.push_back(Output::Exit);
            }
            Input::UdpRefused { .. } => {
                self.outcome.set(Outcome::NoSockets);
                self.out.push_back(Output::Exit);
            }
            _ => {}
        }
    }

    fn poll_output(&mut self) -> Output<()> {
        let deadline = Deadline { at: self.deadline, reason: "self-test" };
        self.out.pop_front().unwrap_or(Output::Timeout(deadline))
    }
}

impl From<SetupError> for io::Error {
    fn from(error: SetupError) -> Self {
        Self::new(error.error.kind(), format!("{} failed: {}", error.step, error.error))
    }
}

/// The kernel's release, such as `6.1.0-18-amd64`.
pub(super) fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |text| text.trim().into())
}

/// `kernel.io_uring_disabled`, where the kernel has that setting (Linux 6.6).
fn uring_disabled() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn explained(failed: &SetupError) -> NoUring {
    explain(failed, &release(), uring_disabled())
}

/// Why a ring could not be made, and what to do about it.
fn explain(failed: &SetupError, release: &str, disabled: Option<u8>) -> NoUring {
    let (first, step) = (failed.step == STEP_RING, failed.step);
    let (why, cure) = match (failed.error.raw_os_error(), disabled) {
        (Some(libc::EPERM), Some(1)) if first => (
            "kernel.io_uring_disabled is 1".into(),
            "run as a member of the group in kernel.io_uring_group, or set it to 0 with sysctl",
        ),
        (Some(libc::EPERM), Some(2)) if first => {
            ("kernel.io_uring_disabled is 2".into(), "allow it with `sysctl kernel.io_uring_disabled=0`")
        }
        (Some(libc::EPERM | libc::EACCES), _) if first => (
            "the container or a seccomp filter forbids io_uring_setup".into(),
            "allow io_uring_setup, io_uring_enter and io_uring_register (systemd: add them to SystemCallFilter=; \
             Docker: a seccomp profile with them)",
        ),
        (Some(libc::ENOSYS), _) => (
            "the kernel is built without it, or a sandbox hides it".into(),
            "a kernel with CONFIG_IO_URING=y outside the sandbox has it",
        ),
        (Some(libc::EINVAL), _) => (format!("kernel {release} is too old ({step})"), "6.1 or newer has it all"),
        (Some(libc::ENOMEM), _) => (
            format!("{step} found too little memory that may be locked"),
            "raise it (ulimit -l, systemd LimitMEMLOCK=)",
        ),
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            (format!("{step} found too few descriptors"), "raise the limit (ulimit -n, systemd LimitNOFILE=)")
        }
        _ => (format!("{step} failed: {}", failed.error), WITHOUT),
    };
    NoUring { why, cure: cure.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_its_cure() {
        let why = |step, errno, disabled| {
            let failed = SetupError { step, error: io::Error::from_raw_os_error(errno) };
            explain(&failed, "5.15.0-generic", disabled).to_string()
        };
        for (text, cure) in [
            (why(STEP_RING, libc::EPERM, Some(1)), "io_uring_group"),
            (why(STEP_RING, libc::EPERM, Some(2)), "sysctl kernel.io_uring_disabled=0"),
            (why(STEP_RING, libc::EPERM, Some(0)), "seccomp"),
            (why(STEP_RING, libc::EPERM, None), "seccomp"),
            (why(STEP_RING, libc::EINVAL, None), "kernel 5.15.0-generic is too old"),
            (why("register_buf_ring", libc::ENOMEM, None), "LimitMEMLOCK"),
            (why("register_files", libc::EMFILE, None), "LimitNOFILE"),
            (why(STEP_RING, libc::ENOSYS, None), "built without"),
            (why("io_uring_enter", libc::EIO, None), "io_uring_enter failed"),
        ] {
            assert!(text.contains(cure) && !text.contains('\n'), "{text:?} does not name {cure:?}");
        }
    }

    #[test]
    fn epoll_runs_when_it_is_asked_for() {
        let chosen = probe(IoChoice::Epoll).unwrap();
        assert_eq!(chosen.kind, Kind::Epoll);
        assert!(chosen.line.starts_with("epoll, as asked for"));
    }
}
