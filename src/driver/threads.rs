//! The threads of the process: each runs one loop, and none of them dies unnoticed.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use super::mail::Stopper;
use super::{Kind, Setup, run};
use crate::io::Machine;

/// Loops on threads of their own. One that fails asks the process to stop at once: a bridge without one of its workers
/// would go on answering for calls that nobody carries.
pub struct Threads {
    stopper: Stopper,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Threads {
    /// No threads yet; `stopper` tells control to stop.
    pub fn new(stopper: Stopper) -> Self {
        Self { stopper, failures: Arc::default() }
    }

    /// Runs a machine on a new thread, which makes the machine itself: machines need not be able to move.
    pub fn spawn<T: Machine>(
        &self,
        kind: Kind,
        setup: Setup<T::Message>,
        make: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<()> {
        let (stopper, failures) = (self.stopper.clone(), Arc::clone(&self.failures));
        let name = setup.name.clone();
        thread::Builder::new().name(name.clone()).spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| run(kind, make(), setup)));
            let failure = match ended {
                Ok(Ok(())) => return,
                Ok(Err(error)) => format!("the loop {name} failed: {error}"),
                Err(_) => format!("the loop {name} panicked"),
            };
            tracing::error!("{failure}; the process stops");
            failures.lock().expect("nothing panics while it is held").push(failure);
            // Twice: the other workers' calls are ended without a drain, and a worker that no longer answers is not waited
            // for longer than it would take.
            stopper.stop();
            stopper.stop();
        })?;
        Ok(())
    }

    /// What made the process stop, if it was a failure.
    pub fn outcome(&self) -> Result<(), String> {
        self.failures.lock().expect("nothing panics while it is held").first().cloned().map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Threads")
    }
}

/// Opens a listener on a port that another process may listen on as well, if it has opened it in this way too.
pub fn listen_beside(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    nix::sys::socket::listen(&socket, Backlog::MAXCONN)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Opens a listener. The error names the address.
pub fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
