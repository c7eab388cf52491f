//! The ports that the settings name: free, or held by whom.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::Secret;
use crate::driver::fetch;
use crate::driver::threads::listen;

/// How long whoever holds the API's port may take to say who it is.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Busy ports that are named.
const NAMED_MAX: usize = 5;

/// The API's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiPort {
    /// Nobody listens on it.
    Free,
    /// Held; what it answered to `GET /health`, or why it did not.
    Held(Result<String, String>),
    /// It cannot be listened on.
    Refused(ErrorKind, String),
}

/// Tries to listen, for a moment; asks who does where that fails.
pub fn api_port(address: SocketAddr, tls: bool) -> ApiPort {
    match listen(address) {
        Ok(_) => ApiPort::Free,
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            let scheme = if tls { "https" } else { "http" };
            let url = format!("{scheme}://{}/health", SocketAddr::new(ip, address.port()));
            let answer = fetch::get(&url, None::<&Secret>, ANSWER_TIME_MAX);
            ApiPort::Held(answer.map(|answer| answer.body).map_err(|error| error.to_string()))
        }
        Err(error) => ApiPort::Refused(error.kind(), error.to_string()),
    }
}

/// The media ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaPorts {
    /// Free ones.
    pub free: usize,
    /// Busy ones.
    pub busy: usize,
    /// The first of these.
    pub busy_first: Vec<u16>,
    /// Why a port could not be opened, if that was not because it is busy.
    pub refused: Option<String>,
}

/// Opens each for a moment, as a call does, on any address of the family.
pub fn media_ports(ports: &RangeInclusive<u16>, media_ip: IpAddr) -> MediaPorts {
    let any: IpAddr = if media_ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let mut found = MediaPorts::default();
    for port in ports.clone() {
        match UdpSocket::bind((any, port)) {
            Ok(_) => found.free += 1,
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                found.busy += 1;
                if found.busy_first.len() < NAMED_MAX {
                    found.busy_first.push(port);
                }
            }
            Err(error) => {
                found.refused = Some(error.to_string());
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_free_or_held() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        assert!(matches!(api_port(address, false), ApiPort::Held(Err(_))), "it says nothing");
        drop(held);
        assert_eq!(api_port(address, false), ApiPort::Free);
        let elsewhere = SocketAddr::from(([198, 41, 0, 4], 8080));
        assert!(matches!(api_port(elsewhere, false), ApiPort::Refused(ErrorKind::AddrNotAvailable, _)));
    }

    #[test]
    fn busy_media_ports_are_counted_and_named() {
        let busy = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = busy.local_addr().unwrap().port();
        let found = media_ports(&(port..=port), [127, 0, 0, 1].into());
        assert_eq!(found, MediaPorts { free: 0, busy: 1, busy_first: vec![port], refused: None });
        drop(busy);
        assert_eq!(media_ports(&(port..=port), [127, 0, 0, 1].into()).free, 1);
    }
}
