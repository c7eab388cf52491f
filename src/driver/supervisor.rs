//! What the service manager is told: readiness, a status line, the end, and proof of life. The protocol is systemd's
//! `sd_notify`: lines of `NAME=value` in one datagram to the socket that `NOTIFY_SOCKET` names. Without that variable
//! nobody listens, and no thread runs.
//!
//! Control decides what is said and when; this file must not know why.

use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

use super::mail::{Endpoint, Mail};
use crate::messages::{Message, Notice};

/// A status line is for people; more than this is cut.
const STATUS_CHARS_MAX: usize = 200;

/// A manager that does not read for this long loses the line: the end of the process must not wait for it.
const SEND_TIME_MAX: Duration = Duration::from_secs(1);

/// Beyond what control says, the end of the process takes this long at most: the last events are sent.
const EXIT_TIME_MAX: Duration = Duration::from_secs(15);

/// The socket of a service manager that wants to hear of this process.
pub struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manager({:?}, watchdog {:?})", self.address, self.watchdog)
    }
}

impl Manager {
    /// The one that the environment names, if it names any. Errors say which variable is wrong.
    pub fn from_env() -> Result<Option<Self>, String> {
        let word = |name| std::env::var(name).ok().filter(|word| !word.is_empty());
        let Some(path) = word("NOTIFY_SOCKET") else { return Ok(None) };
        let watchdog = watchdog(word("WATCHDOG_USEC").as_deref(), word("WATCHDOG_PID").as_deref(), std::process::id());
        Self::at(&path, watchdog).map(Some).map_err(|error| format!("NOTIFY_SOCKET={path} cannot be used: {error}"))
    }

    fn at(path: &str, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None if path.starts_with('/') => SocketAddr::from_pathname(path)?,
            None => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name (@)")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIME_MAX))?;
        Ok(Self { socket, address, watchdog })
    }

    /// The manager ends a process that gives no proof of life ([`Notice::Alive`]) for this long; `None`: it does not.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    fn tell(&self, notice: &Notice) {
        // It may be gone or replaced under the same path: each line is sent to the address anew.
        if let Err(error) = self.socket.send_to_addr(text(notice).as_bytes(), &self.address) {
            tracing::warn!(%error, ?notice, "the service manager was not told");
        }
    }
}

/// The thread that tells the manager what control says; ends when control is gone.
pub fn spawn(endpoint: Endpoint<Message>, manager: Manager) -> io::Result<JoinHandle<()>> {
    Builder::new().name("supervisor".into()).spawn(move || {
        loop {
            match endpoint.inbox.take() {
                Mail::Message(Message::Notify(notice)) => manager.tell(&notice),
                Mail::Message(_) | Mail::Stop => {}
                Mail::Closed => return,
                Mail::Nothing => {
                    if let Err(error) = endpoint.inbox.wait(None) {
                        return tracing::error!(%error, "the service manager is told nothing more");
                    }
                }
            }
        }
    })
}

/// The watchdog's time, if it is for this process.
fn watchdog(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    usec?.parse().ok().filter(|usec| ours && *usec > 0).map(Duration::from_micros)
}

fn text(notice: &Notice) -> String {
    match notice {
        Notice::Ready => "READY=1".into(),
        // systemd's own patience (TimeoutStopSec) runs from here on: ours is the one that counts.
        Notice::Stopping { within } => {
            format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", (*within + EXIT_TIME_MAX).as_micros())
        }
        Notice::Alive => "WATCHDOG=1".into(),
        // A line break would begin another assignment.
        Notice::Status(status) => {
            let plain = status.chars().take(STATUS_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c });
            format!("STATUS={}", plain.collect::<String>())
        }
        Notice::Reloading => {
            let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.num_microseconds());
            format!("RELOADING=1\nMONOTONIC_USEC={now}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::mail::{Routes, mailbox};
    use crate::io::Node;

    #[test]
    fn notices_arrive_as_they_were_sent_on_a_path_and_on_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("supervisor-{}", std::process::id()));
        let name = format!("supervisor-{}", std::process::id());
        let _ = std::fs::remove_file(&path);
        let hidden = SocketAddr::from_abstract_name(&name).unwrap();
        let path_text = path.to_str().unwrap().to_owned();
        for (at, there) in [
            (path_text, UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}"), UnixDatagram::bind_addr(&hidden).unwrap()),
        ] {
            let (sender, inbox) = mailbox().unwrap();
            let thread = spawn(Endpoint { inbox, routes: Routes::new() }, Manager::at(&at, None).unwrap()).unwrap();
            let mut routes = Routes::new().with(Node::Supervisor, sender);
            let stopping = Notice::Stopping { within: Duration::from_secs(605) };
            for notice in [Notice::Ready, Notice::Status("12 calls".into()), Notice::Alive, stopping] {
                routes.send(Node::Supervisor, Message::Notify(notice));
            }
            drop(routes);
            thread.join().unwrap();
            let mut buffer = [0; 512];
            for expected in ["READY=1", "STATUS=12 calls", "WATCHDOG=1", "STOPPING=1\nEXTEND_TIMEOUT_USEC=620000000"] {
                let len = there.recv(&mut buffer).unwrap();
                assert_eq!(std::str::from_utf8(&buffer[..len]), Ok(expected), "{at}");
            }
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_status_is_one_short_line_and_a_reload_carries_its_time() {
        let status = text(&Notice::Status(format!("12\nREADY=1\r\0{}", "x".repeat(500))));
        assert!(status.starts_with("STATUS=12 READY=1  xxx"), "{status}");
        assert_eq!(status.chars().count(), "STATUS=".len() + STATUS_CHARS_MAX);
        let reload = text(&Notice::Reloading);
        let (word, time) = reload.split_once('\n').unwrap();
        assert_eq!(word, "RELOADING=1");
        assert!(time.strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn a_watchdog_is_ours_when_it_names_nobody_else() {
        let ten_sec = Some(Duration::from_secs(10));
        assert_eq!(watchdog(Some("10000000"), None, 7), ten_sec);
        assert_eq!(watchdog(Some("10000000"), Some("7"), 7), ten_sec);
        for (usec, pid) in [(Some("10000000"), Some("8")), (Some("0"), None), (Some("soon"), None), (None, Some("7"))] {
            assert_eq!(watchdog(usec, pid, 7), None, "{usec:?} {pid:?}");
        }
    }

    #[test]
    fn a_socket_that_cannot_be_used_is_refused() {
        for path in ["vsock:2:1234", "relative", ""] {
            Manager::at(path, None).unwrap_err();
        }
    }
}
