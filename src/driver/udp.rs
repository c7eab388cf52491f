//! Datagram sockets as both drivers open and read them: the port from the pool, the options, the receive time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};

use super::counters::{Counters, count};
use super::ports::PortPool;

/// Receive buffer asked of the kernel, which doubles it for its own bookkeeping. About 300 packets of a call: six
/// seconds of a caller, so that a stalled loop loses nothing, and an attack on a port cannot hold more memory than this.
pub(super) const RECEIVE_BUFFER_BYTES: usize = 128 * 1024;

/// The same for a loop without a share of ports: one socket for many calls (a load's), and no attack to bound. Where the
/// limit of the host cannot be passed (net.core.rmem_max), it is as large as that.
const RECEIVE_BUFFER_BYTES_SHARED: usize = 8 * 1024 * 1024;

/// Send buffer asked of the kernel: a call sends 50 small packets a second, and a burst of handshake flights.
pub(super) const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// Largest datagram payload that reaches a machine, in bytes. A media packet fits the path's MTU, which is 1500 at most.
pub const PAYLOAD_MAX: usize = 1900;

/// A datagram older than this was not kept back by the kernel: the wall clock was set meanwhile.
const AGE_MAX: Duration = Duration::from_secs(10);

/// Where local ports come from.
#[derive(Debug)]
pub(super) enum Ports {
    /// From this loop's share of the media ports.
    Share(PortPool),
    /// The kernel chooses.
    Any,
}

impl Ports {
    fn take(&mut self, now: Instant) -> Result<u16, Errno> {
        match self {
            Self::Share(pool) => pool.take(now).ok_or(Errno::EADDRINUSE),
            Self::Any => Ok(0),
        }
    }

    /// A port whose socket is closed, or which is busy.
    pub(super) fn rest(&mut self, port: u16, now: Instant) {
        if let Self::Share(pool) = self {
            pool.rest(port, now);
        }
    }

    fn unused(&mut self, port: u16) {
        if let Self::Share(pool) = self {
            pool.unused(port);
        }
    }
}

/// Opens a socket on the next port that is not busy, on `address` or, where that is not an address of this host, on any.
/// Every busy port is tried once and then rests, so a crowded range costs one pass per rest.
pub(super) fn open(
    address: IpAddr,
    ports: &mut Ports,
    counters: &Counters,
    now: Instant,
) -> Result<(UdpSocket, u16), Errno> {
    let (family, any) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        IpAddr::V6(_) => (AddressFamily::Inet6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    prepare(&fd, address)?;
    if matches!(ports, Ports::Any) && setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES_SHARED).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES_SHARED)?;
    }
    let mut local = address;
    for _ in 0..=u16::MAX {
        let port = ports.take(now)?;
        match bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(local, port))) {
            Ok(()) => {
                let socket = UdpSocket::from(fd);
                let port = socket.local_addr().map_or(port, |bound| bound.port());
                return Ok((socket, port));
            }
            Err(Errno::EADDRINUSE) if port != 0 => {
                count(&counters.ports_busy);
                ports.rest(port, now);
            }
            Err(Errno::EADDRNOTAVAIL) if local != any => {
                ports.unused(port);
                local = any;
            }
            Err(errno) => {
                ports.unused(port);
                return Err(errno);
            }
        }
    }
    Err(Errno::EADDRINUSE)
}

fn prepare(fd: &OwnedFd, address: IpAddr) -> Result<(), Errno> {
    setsockopt(fd, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)?;
    setsockopt(fd, sockopt::SndBuf, &SEND_BUFFER_BYTES)?;
    setsockopt(fd, sockopt::ReceiveTimestampns, &true)?;
    if address.is_ipv6() {
        // Else the any-address would take the port of the other family as well.
        setsockopt(fd, sockopt::Ipv6V6Only, &true)?;
    }
    Ok(())
}

/// The time of a turn, on the clock of machines and on the clock of the kernel's receive times, read together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    wall: SystemTime,
}

impl Moment {
    pub(super) fn read() -> Self {
        Self { now: Instant::now(), wall: SystemTime::now() }
    }

    /// When a datagram came in, from the kernel's wall-clock time of it; never later than now.
    pub(super) fn received(&self, since_epoch: Option<Duration>) -> Instant {
        let age = since_epoch
            .and_then(|time| SystemTime::UNIX_EPOCH.checked_add(time))
            .and_then(|time| self.wall.duration_since(time).ok())
            .filter(|age| *age <= AGE_MAX)
            .unwrap_or_default();
        self.now.checked_sub(age).unwrap_or(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::ports::REST;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_busy_port_is_skipped_and_an_exhausted_share_says_so() {
        let now = Instant::now();
        let other = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        let busy = other.local_addr().unwrap().port();
        let mut ports = Ports::Share(PortPool::new(busy..=busy, REST));
        let counters = Counters::default();
        assert_eq!(open(LOOPBACK, &mut ports, &counters, now).unwrap_err(), Errno::EADDRINUSE);
        assert_eq!(counters.value("ports_busy"), Some(1));
        drop(other);
        assert_eq!(open(LOOPBACK, &mut ports, &counters, now).unwrap_err(), Errno::EADDRINUSE);
        assert_eq!(open(LOOPBACK, &mut ports, &counters, now + REST).unwrap().1, busy);
    }

    #[test]
    fn an_address_that_is_only_advertised_binds_to_any() {
        let advertised = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
        let (socket, port) = open(advertised, &mut Ports::Any, &Counters::default(), Instant::now()).unwrap();
        assert_eq!(socket.local_addr().unwrap(), SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
        let (socket, _) = open(LOOPBACK, &mut Ports::Any, &Counters::default(), Instant::now()).unwrap();
        assert_eq!(socket.local_addr().unwrap().ip(), LOOPBACK);
    }

    #[test]
    fn a_receive_time_is_never_later_than_now_nor_moved_by_a_clock_that_was_set() {
        let moment = Moment::read();
        let wall = moment.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let ms = Duration::from_millis(3);
        assert_eq!(moment.received(wall.checked_sub(ms)) + ms, moment.now);
        for odd in [None, Some(wall + ms), wall.checked_sub(Duration::from_secs(3600)), Some(Duration::MAX)] {
            assert_eq!(moment.received(odd), moment.now);
        }
    }
}
