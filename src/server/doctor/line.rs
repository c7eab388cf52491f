//! The caller's side of the call: a caller on a driver of its own, told what to do and listened to.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::builtin;
use crate::config::IoChoice;
use crate::doctor::caller::{Ask, Caller, News, Repertoire};
use crate::doctor::flags::DoctorFlags;
use crate::driver::mail::{Routes, Sender, mailbox};
use crate::driver::threads::Threads;
use crate::driver::tools::Interrupts;
use crate::driver::{self, Setup, Window, inspect, system};
use crate::peer::sdp::Policy;

use super::{Halt, LOOK_AGAIN};

/// Where the caller's port may be, the first that is none of the bridge's: it sends to none of its own.
const PORTS: [RangeInclusive<u16>; 3] = [20_000..=20_999, 28_000..=28_999, 12_000..=12_999];

/// A caller that listens.
pub(super) struct Line {
    pub(super) ip: IpAddr,
    caller: Sender<Ask>,
    news: Receiver<(Instant, News)>,
    /// News that was not waited for yet. Each comes once in a call.
    kept: Vec<(Instant, News)>,
    /// Whether the other side closed.
    pub(super) is_closed: bool,
}

impl Line {
    /// Starts the caller on its thread.
    pub(super) fn start(ip: IpAddr, media_ports: &str) -> Result<Self, Halt> {
        let broken = |what: &str, error: &dyn Display| Halt::Broken(format!("{what}: {error}"));
        let mut seed = [0; 8];
        system::entropy(&mut seed);
        let voices = Repertoire::new(&builtin::recording(), u64::from_le_bytes(seed)).map_err(Halt::Broken)?;
        let (caller, inbox) = mailbox::<Ask>().map_err(|error| broken("no mailbox", &error))?;
        let (sender, news) = mpsc::channel();
        let mut setup = Setup::new("caller", inbox, Routes::new());
        setup.ports = Some(ports(media_ports));
        setup.window = Window::of_tool();
        let kind = driver::probe(IoChoice::Auto).map_err(Halt::Broken)?.kind;
        let make = move || {
            // Whoever listens may be gone by the end.
            let sink = Box::new(move |at, news| drop(sender.send((at, news))));
            Caller::new(ip, voices, sink)
        };
        let spawned = Threads::new(caller.stopper()).spawn(kind, setup, make);
        spawned.map_err(|error| broken("no thread for the caller", &error))?;
        Ok(Self { ip, caller, news, kept: Vec::new(), is_closed: false })
    }

    pub(super) fn ask(&self, ask: Ask) {
        // A caller whose loop has failed says no more, and that is found out where it is waited for.
        let _ = self.caller.send(ask);
    }

    /// Waits for news that `wanted` takes, and tells when it was so; in vain, at the latest, when the call is over.
    pub(super) fn news<T>(
        &mut self,
        interrupts: &Interrupts,
        patience: Duration,
        wanted: impl Fn(&News) -> Option<T>,
    ) -> Result<Option<(Instant, T)>, Halt> {
        let end = system::now() + patience;
        loop {
            let found = self.kept.iter().enumerate().find_map(|(place, (_, news))| Some((place, wanted(news)?)));
            if let Some((place, found)) = found {
                return Ok(Some((self.kept.swap_remove(place).0, found)));
            }
            let left = end.saturating_duration_since(system::now());
            match self.news.recv_timeout(left.min(LOOK_AGAIN)) {
                Ok((at, news)) => {
                    self.is_closed |= news == News::Closed;
                    self.kept.push((at, news));
                }
                Err(_) if left.is_zero() || self.is_closed => return Ok(None),
                Err(_) if interrupts.wait(Duration::from_millis(1)) => return Err(Halt::interrupted()),
                Err(_) => {}
            }
        }
    }
}

/// Where the caller listens, and why there. `server` is where the bridge's API is.
pub(super) fn address(flags: &DoctorFlags, server: Option<IpAddr>) -> Result<(IpAddr, String), String> {
    if let Some(ip) = flags.relay_ip {
        if !inspect::is_local_address(ip) {
            return Err(format!("--relay-ip {ip} is no address of this machine: `ip -brief address` shows them"));
        }
        return Ok((ip, "as asked for".to_owned()));
    }
    if let Some(ip) = flags.media_ip.filter(|ip| is_usable(*ip)) {
        return Ok((ip, "the address that the bridge advertises".to_owned()));
    }
    if let Some(ip) = system::default_route_ip().filter(|ip| is_usable(*ip)) {
        let beyond = match flags.media_ip {
            Some(media_ip) => format!(
                ": the advertised {media_ip} is none of this machine's, and few NATs send a packet back to where it came \
                 from, so what lies beyond this machine is not tested"
            ),
            None => String::new(),
        };
        return Ok((ip, format!("this machine's address of the default route{beyond}")));
    }
    match server {
        Some(ip) if ip.is_loopback() => {
            Ok((Ipv4Addr::LOCALHOST.into(), "loopback, for want of another address".to_owned()))
        }
        _ => Err("this machine has no address that the bridge could send to; name one with --relay-ip".to_owned()),
    }
}

/// Whether it is this machine's, and one that a bridge would ever send to.
fn is_usable(ip: IpAddr) -> bool {
    let policy = Policy {
        allow_private: true,
        own_listener: None,
        own_media_ports: RangeInclusive::new(1, 0),
        own_media_ip: ip,
    };
    ip.is_ipv4() && inspect::is_local_address(ip) && policy.usable(SocketAddr::new(ip, *PORTS[0].start())).is_ok()
}

/// Ports that are none of the bridge's, which are `FIRST-LAST`.
fn ports(media_ports: &str) -> RangeInclusive<u16> {
    let port = |text: &str| text.trim().parse::<u16>().ok();
    let taken = media_ports.split_once('-').and_then(|(first, last)| Some(port(first)?..=port(last)?));
    let is_free = |range: &RangeInclusive<u16>| {
        taken.as_ref().is_none_or(|taken| range.end() < taken.start() || taken.end() < range.start())
    };
    PORTS.into_iter().find(is_free).unwrap_or(PORTS[0].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(relay_ip: Option<[u8; 4]>, media_ip: Option<[u8; 4]>) -> DoctorFlags {
        let (relay_ip, media_ip) = (relay_ip.map(Into::into), media_ip.map(Into::into));
        DoctorFlags {
            relay_ip,
            media_ip,
            seconds: 1,
            no_start: true,
            json: false,
            media_ports: String::new(),
            installed: None,
        }
    }

    #[test]
    fn the_caller_is_where_it_is_asked_to_be_or_where_the_bridge_is() {
        let (here, public) = ([127, 0, 0, 1], [198, 41, 0, 4]);
        assert_eq!(address(&flags(Some(here), Some(public)), None).unwrap().1, "as asked for");
        assert!(address(&flags(Some(public), None), None).unwrap_err().contains("--relay-ip 198.41.0.4 is no address"));
        let (ip, why) = address(&flags(None, Some(here)), None).unwrap();
        assert!(ip.is_loopback() && why.contains("advertises"), "{why}");
        // Whatever this machine has: never an address of another one.
        if let Ok((ip, _)) = address(&flags(None, Some(public)), Some(here.into())) {
            assert!(inspect::is_local_address(ip));
        }
    }

    #[test]
    fn the_callers_port_is_none_of_the_bridges() {
        assert_eq!(ports("40000-41999"), 20_000..=20_999);
        assert_eq!(ports("20500-20501"), 28_000..=28_999);
        assert_eq!(ports("20000-30000"), 12_000..=12_999);
        assert_eq!(ports("nonsense"), 20_000..=20_999);
    }
}
