//! Stream sockets, TCP and Unix alike: to both drivers a stream is a descriptor. What differs between the two families is
//! how one is opened and what is known of its other end, and that is here.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, getpeername, setsockopt, socket,
    sockopt,
};

/// Where connections are accepted.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A path of the file system.
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Listener {
    /// Takes a connection; it closes on exec.
    pub(super) fn accept(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.accept().map(|(stream, _)| OwnedFd::from(stream)),
            Self::Unix(listener) => listener.accept().map(|(stream, _)| OwnedFd::from(stream)),
        }
    }

    /// Whether accepting waits. All processes that hold the listener share this.
    pub(super) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(on),
            Self::Unix(listener) => listener.set_nonblocking(on),
        }
    }
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Remote<'a> {
    Tcp(SocketAddr),
    Unix(&'a Path),
}

/// A socket to connect with and the address to connect it to, in the place where it stays.
pub(super) fn open(to: Remote<'_>, flags: SockFlag) -> io::Result<(OwnedFd, Box<dyn SockaddrLike>)> {
    let (family, address): (_, Box<dyn SockaddrLike>) = match to {
        Remote::Tcp(to @ SocketAddr::V4(_)) => (AddressFamily::Inet, Box::new(SockaddrStorage::from(to))),
        Remote::Tcp(to @ SocketAddr::V6(_)) => (AddressFamily::Inet6, Box::new(SockaddrStorage::from(to))),
        Remote::Unix(path) => (AddressFamily::Unix, Box::new(UnixAddr::new(path)?)),
    };
    let socket = socket(family, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)?;
    if let Remote::Tcp(_) = to {
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    }
    Ok((socket, address))
}

/// Readies a connection that was accepted; its other end, where that has an address. Fails when it is gone already.
pub(super) fn accepted(socket: &impl AsFd) -> io::Result<Option<SocketAddr>> {
    let peer = peer(socket)?;
    if peer.is_some() {
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    }
    Ok(peer)
}

/// The other end of a connection: an address for TCP, none for Unix. Fails with `ENOTCONN` while there is none.
pub(super) fn peer(socket: &impl AsFd) -> io::Result<Option<SocketAddr>> {
    let name = getpeername::<SockaddrStorage>(socket.as_fd().as_raw_fd())?;
    Ok(ip_address(&name))
}

/// An address of either IP family.
pub(super) fn ip_address(name: &SockaddrStorage) -> Option<SocketAddr> {
    name.as_sockaddr_in()
        .map(|v4| SocketAddrV4::from(*v4).into())
        .or_else(|| name.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}
