//! What the command-line tools ask of their host beyond what the bridge does: where a server is, what a thread and a
//! socket have used up, a file to write.

use std::cell::Cell;
use std::convert::Infallible;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::files;
use super::mail::{Inbox, Mail, mailbox};
use super::signals::{Forwarder, forward};
use crate::config::{SECRET_FILE_BYTES_MAX, Secret, first_token, tokens_of_file};
use crate::tls::{Acceptor, certificates};

/// The first address of a host. Blocks as long as the system's resolver does: for the time before anything runs.
pub fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let mut addresses = (host, port).to_socket_addrs()?;
    addresses.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    Duration::from_nanos(super::system::thread_time())
}

/// Datagrams that the UDP socket on this local port has dropped for want of room; `None` where the host does not tell.
pub fn socket_drops(port: u16) -> Option<u64> {
    let texts = ["/proc/net/udp", "/proc/net/udp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    texts.iter().find_map(|text| drops_of(text, port))
}

/// The last column of the line whose second is `ADDRESS:PORT` in hexadecimal digits.
fn drops_of(table: &str, port: u16) -> Option<u64> {
    let wanted = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace();
        let is_it = columns.nth(1)?.ends_with(&wanted);
        if is_it { columns.next_back()?.parse().ok() } else { None }
    })
}

/// A loopback port that was free a moment ago.
pub fn free_loopback_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// SIGINT and SIGTERM for a tool that waits and runs no loop.
#[derive(Debug)]
pub struct Interrupts {
    inbox: Inbox<()>,
    came: Cell<bool>,
    _forwarder: Forwarder,
}

impl Interrupts {
    /// From here on signals are noted instead of ending the process.
    pub fn catch() -> io::Result<Self> {
        let (sender, inbox) = mailbox::<()>()?;
        let forwarder = forward(sender.stopper())?;
        Ok(Self { inbox, came: Cell::new(false), _forwarder: forwarder })
    }

    /// Waits so long, or until a signal comes; whether one has come, now or before.
    pub fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.came.get() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.inbox.wait(Some(left)).is_err() {
                break;
            }
            self.came.set(matches!(self.inbox.take(), Mail::Stop));
        }
        self.came.get()
    }
}

/// Something that is done at intervals, on a thread of its own, until this is dropped; what is under way then ends first.
#[derive(Debug)]
pub struct Regularly {
    stop: Option<mpsc::Sender<Infallible>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Regularly {
    /// From now on, first at once.
    pub fn begin(interval: Duration, mut act: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<Infallible>();
        let thread = thread::Builder::new().name("regularly".to_owned()).spawn(move || {
            act();
            while matches!(stopped.recv_timeout(interval), Err(mpsc::RecvTimeoutError::Timeout)) {
                act();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Regularly {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic was shown
        }
    }
}

/// The token that a client shows: the one given, else the first of the file's. Both may hold what the server is given.
pub fn api_token(given: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, String> {
    let Some(path) = file.filter(|_| given.is_none()) else { return Ok(given.map(first_token)) };
    let text = read_named("--token-file", path, SECRET_FILE_BYTES_MAX)?;
    let tokens = tokens_of_file(&text).map_err(|problem| format!("--token-file {} {problem}", path.display()))?;
    Ok(tokens.into_iter().next())
}

/// The authorities of `--ca`, each in DER.
pub fn authorities(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let text = read_named("--ca", path, Acceptor::PEM_BYTES_MAX)?;
    certificates(&text).map_err(|problem| format!("--ca {} {problem}", path.display()))
}

fn read_named(flag: &str, path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let name = |problem: &str| format!("{flag} {} {problem}", path.display());
    files::read(path, bytes_max).map_err(|problem| name(&problem))?.ok_or_else(|| name("does not exist"))
}

/// Writes a file, whole.
pub fn write_file(path: &str, contents: impl AsRef<[u8]>) -> io::Result<()> {
    fs::write(path, contents)
}

/// A folder of this user alone, removed with all that is in it when this is dropped.
#[derive(Debug)]
pub struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// Makes one of this name, which nobody else has, where the system keeps such folders.
    pub fn create(name: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // what cannot be removed is left to the system
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_sockets_drops_are_found_by_its_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                      1: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 5\n\
                      2: 0100007F:9C40 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 77\n";
        assert_eq!(drops_of(table, 40_000), Some(77));
        assert_eq!(drops_of(table, 53), Some(5));
        assert_eq!(drops_of(table, 54), None);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(socket_drops(socket.local_addr().unwrap().port()).unwrap_or(0), 0);
    }

    #[test]
    fn a_threads_cpu_time_grows_with_its_work_alone() {
        let before = thread_cpu();
        let work: u64 = (0..3_000_000u64).fold(1, |sum, n| std::hint::black_box(sum ^ n));
        assert!(thread_cpu() > before, "{work}");
    }

    #[test]
    fn a_wait_ends_with_its_time_or_with_a_signal() {
        let (sender, inbox) = mailbox().unwrap();
        let forwarder = forward(sender.stopper()).unwrap();
        let interrupts = Interrupts { inbox, came: Cell::new(false), _forwarder: forwarder };
        assert!(!interrupts.wait(Duration::from_millis(1)));
        sender.stopper().stop();
        assert!(interrupts.wait(Duration::from_secs(600)) && interrupts.wait(Duration::from_secs(600)));
    }

    #[test]
    fn a_temporary_folder_is_this_users_alone_and_goes_with_what_is_in_it() {
        let name = format!("voice-media-bridge-tools-{}", std::process::id());
        let folder = TemporaryFolder::create(&name).unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(TemporaryFolder::create(&name).is_err(), "a folder that is there may be somebody else's");
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn an_address_resolves_to_itself_and_nonsense_to_an_error() {
        assert_eq!(resolve("127.0.0.1", 9).unwrap(), "127.0.0.1:9".parse().unwrap());
        assert!(resolve("no name at all", 9).is_err());
    }
}
