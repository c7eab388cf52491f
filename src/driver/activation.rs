//! The listener that the service manager passes to the process: systemd's socket activation, `LISTEN_FDS` and what goes
//! with it. Such a socket outlives the process, and two instances may hold it at once.

use std::fmt::Display;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockType, getsockopt, sockopt};

/// What a unit must say for its socket to be of use.
const CURE: &str = "the socket unit needs one ListenStream= with an address and a port, and Accept=no";

/// The passed listener and its address, or `None` when nothing was passed to this process. To be called once: it takes
/// the descriptor.
pub fn listener() -> Result<Option<(TcpListener, SocketAddr)>, String> {
    let passed = sd_listen_fds::get().map_err(|error| format!("LISTEN_FDS or LISTEN_PID: {error}"))?;
    let sockets = passed.into_iter().map(|(name, socket)| (name, socket.into_std())).collect();
    choose(sockets)
}

fn choose(mut sockets: Vec<(Option<String>, OwnedFd)>) -> Result<Option<(TcpListener, SocketAddr)>, String> {
    if sockets.len() > 1 {
        let names: Vec<_> = sockets.iter().map(|(name, _)| name.as_deref().unwrap_or("unnamed")).collect();
        return Err(format!("the service manager passes {} sockets ({}): {CURE}", names.len(), names.join(", ")));
    }
    let Some((name, socket)) = sockets.pop() else { return Ok(None) };
    let wrong = |why: &dyn Display| {
        let name = name.as_deref().unwrap_or("unnamed");
        format!("the socket ({name}) that the service manager passes {why}: {CURE}")
    };
    // No child of ours is to hold it.
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|error| wrong(&format!("is not open ({error})")))?;
    if getsockopt(&socket.as_fd(), sockopt::SockType) != Ok(SockType::Stream) {
        return Err(wrong(&"carries no streams"));
    }
    if getsockopt(&socket.as_fd(), sockopt::AcceptConn) != Ok(true) {
        return Err(wrong(&"does not listen"));
    }
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().map_err(|_| wrong(&"has no IP address"))?;
    Ok(Some((listener, address)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn choose_one(socket: impl Into<OwnedFd>) -> Result<Option<(TcpListener, SocketAddr)>, String> {
        choose(vec![(Some("api".into()), socket.into())])
    }

    #[test]
    fn one_listening_tcp_socket_is_taken_and_closes_on_exec() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let (listener, address) = choose_one(listener).unwrap().unwrap();
        assert_eq!(address, here);
        assert_eq!(fcntl(&listener, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
        assert!(choose(Vec::new()).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_the_apis_listener_is_refused_with_the_cure() {
        let path = std::env::temp_dir().join(format!("activation-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(far.local_addr().unwrap()).unwrap();
        for (refused, word) in [
            (choose_one(UdpSocket::bind("127.0.0.1:0").unwrap()), "carries no streams"),
            (choose_one(connected), "does not listen"),
            (choose_one(UnixListener::bind(&path).unwrap()), "has no IP address"),
            (choose_one(std::fs::File::open("/dev/null").unwrap()), "carries no streams"),
            (choose(vec![(Some("api".into()), far.try_clone().unwrap().into()), (None, far.into())]), "2 sockets"),
        ] {
            let why = refused.unwrap_err();
            assert!(why.contains(word) && why.contains("api") && why.contains("ListenStream="), "{why}");
        }
        std::fs::remove_file(path).unwrap();
    }
}
