//! Two instances of the bridge on one listening socket, as systemd runs them: the test holds the socket, passes it on, and
//! is told when an instance is ready.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::http_client::HttpClient;
use super::process::Process;

/// How long an instance may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// The time between two looks at whether a process that is to be ready has ended instead.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Makes the descriptor that a shell has as its input the third one, as the protocol of systemd has it, in the process that
/// the variable is about: this one.
const PASS_ON: &str = r#"export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=api; exec "$0" serve 3<&0 0</dev/null"#;

/// What a service manager does for a pair of instances.
#[derive(Debug)]
pub(crate) struct Manager {
    listener: TcpListener,
    folder: PathBuf,
    settings: Vec<(String, String)>,
}

impl Manager {
    /// Listens; starts nothing yet. The name is one of its own for each test.
    pub(crate) fn new(name: &str, settings: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let folder = std::env::temp_dir().join(format!("vmb-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for sockets");
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self { listener, folder, settings: settings.iter().map(owned).collect() }
    }

    /// Where clients connect, whichever instance runs.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket has an address")
    }

    /// A client of whichever instance runs.
    pub(crate) fn http(&self) -> HttpClient {
        HttpClient::new(self.address())
    }

    /// Starts an instance, `a` or `b`, and returns when it says that it is ready.
    ///
    /// # Panics
    /// When it is not ready in time; the message carries what it printed.
    pub(crate) fn start(&self, instance: &str) -> Process {
        let path = self.folder.join(format!("notify-{instance}"));
        let _ = std::fs::remove_file(&path); // of an earlier start
        let notices = UnixDatagram::bind(&path).expect("a socket of ours");
        notices.set_read_timeout(Some(LOOK_AGAIN)).expect("a socket takes a timeout");
        let mut process = self.launch(instance, &[("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))]);
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 512];
        loop {
            match notices.recv(&mut buffer) {
                Ok(len) if buffer[..len].starts_with(b"READY=1") => return process,
                Ok(_) => {}
                Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}"),
            }
            let ended = process.try_wait();
            assert!(ended.is_none() && Instant::now() < deadline, "not ready: {ended:?}\n{}", process.output());
        }
    }

    /// Starts an instance with settings beyond those of the pair, and does not wait.
    pub(crate) fn launch(&self, instance: &str, more: &[(&str, &str)]) -> Process {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", PASS_ON, env!("CARGO_BIN_EXE_voice-media-bridge")]).env_clear();
        command.env("BRIDGE_INSTANCE", instance).env("BRIDGE_HANDOVER_DIR", &self.folder);
        command.envs(self.settings.iter().map(|(name, value)| (name, value))).envs(more.iter().copied());
        let listener = self.listener.try_clone().expect("descriptors are left");
        Process::start_with_input(&mut command, Stdio::from(OwnedFd::from(listener)))
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
