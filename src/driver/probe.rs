//! Which kernel interface runs: io_uring where it works, and in one line why not where it does not.
//!
//! A ring is made as the driver makes it, and a small machine is run on it: it sends itself a datagram, and closes one
//! socket while another goes on receiving. So a kernel, a sandbox or an emulation that only claims to have io_uring is
//! found out before a call is lost to it.

use std::cell::Cell;
use std::collections::VecDeque;
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
        Err(why) if choice == IoChoice::Auto => {
            Ok(Chosen { kind: Kind::Epoll, line: format!("epoll, because io_uring does not work here: {why}") })
        }
        Err(why) => Err(format!("io_uring does not work here: {why}")),
    }
}

/// Whether io_uring works, and if so whether registered descriptors are sound.
fn try_uring() -> Result<bool, String> {
    let explain = |error: SetupError| explain(&error, &release(), uring_disabled());
    match self_test(true).map_err(explain)? {
        Outcome::Freed => Ok(true),
        Outcome::Held => match self_test(false).map_err(explain)? {
            Outcome::Freed => Ok(false),
            other => Err(format!("its self-test failed ({other:?}); BRIDGE_IO=epoll does without it")),
        },
        other => Err(format!("its self-test failed ({other:?}); BRIDGE_IO=epoll does without it")),
    }
}

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
fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |text| text.trim().into())
}

/// `kernel.io_uring_disabled`, where the kernel has that setting (Linux 6.6).
fn uring_disabled() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// Why a ring could not be made, and what to do about it.
fn explain(failed: &SetupError, release: &str, disabled: Option<u8>) -> String {
    let first = failed.step == STEP_RING;
    match (failed.error.raw_os_error(), disabled) {
        (Some(libc::EPERM), Some(1)) if first => "kernel.io_uring_disabled is 1: run as a member of the group in \
             kernel.io_uring_group, or set it to 0 with sysctl"
            .into(),
        (Some(libc::EPERM), Some(2)) if first => {
            "kernel.io_uring_disabled is 2: allow it with `sysctl kernel.io_uring_disabled=0`".into()
        }
        (Some(libc::EPERM | libc::EACCES), _) if first => "the container or a seccomp filter forbids io_uring_setup: \
             allow io_uring_setup, io_uring_enter and io_uring_register (systemd: add them to SystemCallFilter=; \
             Docker: a seccomp profile with them)"
            .into(),
        (Some(libc::ENOSYS), _) => "the kernel is built without it, or a sandbox hides it".into(),
        (Some(libc::EINVAL), _) => format!("kernel {release} is too old ({}): 6.1 or newer has it all", failed.step),
        (Some(libc::ENOMEM), _) => format!(
            "{} found too little memory that may be locked: raise it (ulimit -l, systemd LimitMEMLOCK=)",
            failed.step
        ),
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            format!("{} found too few descriptors: raise the limit (ulimit -n, systemd LimitNOFILE=)", failed.step)
        }
        _ => format!("{} failed: {}", failed.step, failed.error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_its_cure() {
        let why = |step, errno, disabled| {
            explain(&SetupError { step, error: io::Error::from_raw_os_error(errno) }, "5.15.0-generic", disabled)
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
