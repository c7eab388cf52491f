//! The server under test as a process of its own: started on a free port, ready when it returns, gone when dropped.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use super::http_client::{HttpClient, Response};
use super::process::Process;

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// The time between two questions whether it is up.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// A server that answers `GET /health`.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    address: SocketAddr,
}

impl Server {
    /// Starts the bridge with these settings (environment variables) and no others, but that it waits for no call when it
    /// is stopped.
    ///
    /// # Panics
    /// When it ends at once, or is not up in time; the message carries what it printed.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
        command.env_clear().env("BRIDGE_DRAIN_SEC", "0").envs(settings.iter().copied());
        Self::start_command(&mut command)
    }

    fn start_command(command: &mut Command) -> Self {
        let address = free_address();
        let mut process = Process::start(command.env("BRIDGE_LISTEN", address.to_string()));
        let client = HttpClient::new(address);
        let deadline = Instant::now() + PATIENCE;
        // One that speaks TLS says so to who does not: it is up as well.
        let is_up = |response: Response| response.status == 200 || response.body.contains("\"tls_required\"");
        while !client.request("GET", "/health", None).is_ok_and(is_up) {
            if let Some(status) = process.try_wait() {
                let (_, output) = process.terminate(PATIENCE);
                panic!("the server ended with {status}:\n{output}");
            }
            assert!(Instant::now() < deadline, "the server was not up in time:\n{}", process.output());
            std::thread::sleep(ASK_AGAIN);
        }
        Self { process, address }
    }

    /// Where its API listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of its API.
    pub(crate) fn http(&self) -> HttpClient {
        HttpClient::new(self.address)
    }

    /// What has been read of its log so far; the last lines may be on their way. [`Self::stop`] gives all of it.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }

    /// Its process id, to look at what it holds open.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to end (SIGTERM), once more with each call.
    pub(crate) fn signal(&self) {
        self.process.signal();
    }

    /// Waits until it has ended by itself, and returns how it did and its whole log.
    pub(crate) fn ended(self) -> (ExitStatus, String) {
        self.process.ended(PATIENCE)
    }

    /// Asks it to end, and returns how it did and its whole log.
    pub(crate) fn stop(self) -> (ExitStatus, String) {
        self.process.terminate(PATIENCE)
    }
}

/// A loopback address whose port was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    listener.local_addr().expect("a bound socket has an address")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// Set for the process that plays the server.
    const ROLE: &str = "BRIDGE_TEST_PLAYS_SERVER";

    /// This test binary, told to run the one test below that is a server.
    fn stand_in(role: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "support::server::tests::stand_in_server", "--ignored", "--nocapture"]);
        command.env(ROLE, role);
        command
    }

    #[test]
    #[ignore = "it is the server that the others start"]
    fn stand_in_server() {
        let Ok(role) = std::env::var(ROLE) else { return };
        assert_eq!(role, "healthy", "told to fail");
        let listener = TcpListener::bind(std::env::var("BRIDGE_LISTEN").unwrap()).unwrap();
        println!("listening");
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        }
    }

    #[test]
    fn a_server_is_up_when_start_returns_and_ends_when_stopped() {
        let server = Server::start_command(&mut stand_in("healthy"));
        assert_eq!(server.http().get("/health").json(), serde_json::json!({}));
        let deadline = Instant::now() + PATIENCE;
        while !server.log().contains("listening") {
            assert!(Instant::now() < deadline, "{}", server.log());
            std::thread::yield_now();
        }
        assert!(std::path::Path::new(&format!("/proc/{}", server.id())).exists());
        let (status, log) = server.stop();
        assert!(!status.success(), "a default SIGTERM");
        assert!(log.contains("listening"));
    }

    #[test]
    #[should_panic(expected = "told to fail")]
    fn a_server_that_fails_at_once_shows_what_it_said() {
        Server::start_command(&mut stand_in("broken"));
    }

    #[test]
    #[should_panic(expected = "the server ended with")]
    fn a_bridge_with_nonsense_for_settings_does_not_start() {
        Server::start(&[("BRIDGE_MEDIA_PORTS", "9-1")]);
    }
}
