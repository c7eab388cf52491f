//! Remote ICE candidates: how a line is read, and which addresses we are willing to send to.
//!
//! An ice-lite offer makes us send STUN checks to the addresses it names, so an unfiltered offer could aim this host at
//! its own network or at a third party. Names are never resolved, ranges that no caller can sit in are never used, and
//! the number of targets is bounded.

use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use crate::config::is_private;

use super::lines::decimal;
use super::offer::Offer;
use super::offer_error::OfferError;

/// Most remote candidates used for one call: WhatsApp names two, and each one is a target for our checks.
pub const CANDIDATES_MAX: usize = 8;

/// A UDP candidate of component 1 with an IP address (RFC 8839, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteCandidate {
    /// Where; an IPv4-mapped address has become IPv4.
    pub addr: SocketAddr,
    /// Its priority as offered.
    pub priority: u32,
}

/// What an `a=candidate` line turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CandidateLine {
    Udp(RemoteCandidate),
    /// A `.local` name: a browser hiding its address.
    Mdns,
    /// TCP, another component, another name, or not a candidate at all.
    Unused,
}

impl CandidateLine {
    /// Reads `foundation component transport priority address port typ type …`; what follows is of no interest.
    pub(super) fn parse(value: &str) -> Self {
        let mut words = value.split_ascii_whitespace();
        let mut word = || words.next().unwrap_or("");
        let (foundation, component, transport) = (word(), word(), word());
        let (priority, address, port, typ, kind) = (word(), word(), word(), word(), word());
        if foundation.is_empty() || component != "1" || !transport.eq_ignore_ascii_case("udp") {
            return Self::Unused;
        }
        let (Some(priority), Some(port @ 1..)) = (decimal(priority), decimal::<u16>(port)) else { return Self::Unused };
        if typ != "typ" || kind.is_empty() {
            return Self::Unused;
        }
        match address.parse::<IpAddr>() {
            Ok(ip) => Self::Udp(RemoteCandidate { addr: SocketAddr::new(ip.to_canonical(), port), priority }),
            Err(_) if address.to_ascii_lowercase().ends_with(".local") => Self::Mdns,
            Err(_) => Self::Unused,
        }
    }
}

/// Why a remote address is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// `0.0.0.0/8` or `::`.
    Unspecified,
    /// A multicast group.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// `169.254.0.0/16` (clouds keep their metadata service there) or `fe80::/10`.
    LinkLocal,
    /// Addresses for examples in documents (RFC 5737, RFC 3849, RFC 9637).
    Documentation,
    /// `198.18.0.0/15` or `2001:2::/48` (RFC 2544, RFC 5180).
    Benchmarking,
    /// Special-purpose: not a place where a caller can be (IANA's registries; includes tunnels that embed IPv4).
    Reserved,
    /// Private, loopback, carrier-grade NAT or unique local, and the policy does not allow those.
    Private,
    /// A port below 1024: a service, not a caller.
    PrivilegedPort,
    /// Our own listener or media ports.
    OwnSocket,
    /// The other address family than that of our media address.
    OtherFamily,
    /// Good, but [`CANDIDATES_MAX`] better ones were there.
    OverLimit,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified address",
            Self::Multicast => "multicast address",
            Self::Broadcast => "broadcast address",
            Self::LinkLocal => "link-local address",
            Self::Documentation => "documentation range",
            Self::Benchmarking => "benchmarking range",
            Self::Reserved => "reserved range",
            Self::Private => "private or loopback address (set BRIDGE_ALLOW_PRIVATE=1 to accept such)",
            Self::PrivilegedPort => "port below 1024",
            Self::OwnSocket => "this bridge's own listener or media port",
            Self::OtherFamily => "not the address family of our media address (BRIDGE_MEDIA_IP)",
            Self::OverLimit => "beyond the number of candidates used",
        })
    }
}

/// Which remote addresses a call may send to.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whether private, loopback, carrier-grade NAT and unique local addresses may be used.
    pub allow_private: bool,
    /// Where the HTTP API listens, if it does.
    pub own_listener: Option<SocketAddr>,
    /// The ports that calls of this process may have.
    pub own_media_ports: RangeInclusive<u16>,
    /// The address that this call's answer advertises. It also decides the address family.
    pub own_media_ip: IpAddr,
}

impl Policy {
    /// Whether we may send to `addr`, whatever its family.
    pub fn usable(&self, addr: SocketAddr) -> Result<(), Refused> {
        let ip = addr.ip().to_canonical();
        usable_ip(ip, self.allow_private)?;
        if addr.port() < 1024 {
            return Err(Refused::PrivilegedPort);
        }
        if self.is_own(ip, addr.port()) { Err(Refused::OwnSocket) } else { Ok(()) }
    }

    /// Picks the candidates to check: of our family, allowed, each once, highest priority first, at most
    /// [`CANDIDATES_MAX`].
    ///
    /// None is an error for an ice-lite offer ([`OfferError::NoCandidate`]) and fine for any other: a full ICE agent
    /// checks us, and its address is learned from that.
    pub fn select(&self, offer: &Offer) -> Result<Selected, OfferError> {
        let mut candidates = offer.candidates.clone();
        candidates.sort_by_key(|candidate| Reverse(candidate.priority));
        let mut usable = Vec::new();
        let mut refused = Vec::new();
        for RemoteCandidate { addr, .. } in candidates {
            let verdict = self.usable(addr).and_then(|()| self.of_our_family(addr));
            match verdict {
                Ok(()) if usable.contains(&addr) => {}
                Ok(()) if usable.len() == CANDIDATES_MAX => refused.push((addr, Refused::OverLimit)),
                Ok(()) => usable.push(addr),
                Err(why) => refused.push((addr, why)),
            }
        }
        if offer.ice_lite && usable.is_empty() {
            let (mdns, unused) = (offer.mdns_candidates, offer.unused_candidates);
            return Err(OfferError::NoCandidate { refused, mdns, unused });
        }
        Ok(Selected { usable, refused })
    }

    fn of_our_family(&self, addr: SocketAddr) -> Result<(), Refused> {
        let ours = self.own_media_ip.to_canonical();
        if addr.ip().to_canonical().is_ipv4() == ours.is_ipv4() { Ok(()) } else { Err(Refused::OtherFamily) }
    }

    /// Whether one of our own sockets is there. They are bound to any address, so loopback reaches them too; a
    /// neighbour on the same address with another port is no concern.
    fn is_own(&self, ip: IpAddr, port: u16) -> bool {
        let listener = self.own_listener.map(|at| (at.ip().to_canonical(), at.port()));
        let our_address = ip == self.own_media_ip.to_canonical()
            || ip.is_loopback()
            || listener.is_some_and(|(listener_ip, _)| listener_ip == ip);
        let our_port =
            self.own_media_ports.contains(&port) || listener.is_some_and(|(_, listener_port)| listener_port == port);
        our_address && our_port
    }
}

/// The outcome of [`Policy::select`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Addresses to check, best first, all of one family, at most [`CANDIDATES_MAX`].
    pub usable: Vec<SocketAddr>,
    /// The rest, each with the reason. As many at most as an offer has attributes.
    pub refused: Vec<(SocketAddr, Refused)>,
}

impl Selected {
    /// How many candidates were refused for this reason.
    pub fn refused_for(&self, why: Refused) -> usize {
        self.refused.iter().filter(|(_, reason)| *reason == why).count()
    }
}

/// Judges a canonical address, without its port.
pub(super) fn usable_ip(ip: IpAddr, allow_private: bool) -> Result<(), Refused> {
    // First, since unique local and loopback lie in ranges that are reserved for everybody else.
    if is_private(ip) {
        return if allow_private { Ok(()) } else { Err(Refused::Private) };
    }
    match ip {
        IpAddr::V4(ip) => usable_v4(ip),
        IpAddr::V6(ip) => usable_v6(ip),
    }
}

fn usable_v4(ip: Ipv4Addr) -> Result<(), Refused> {
    match ip.octets() {
        [0, ..] => Err(Refused::Unspecified),
        [169, 254, ..] => Err(Refused::LinkLocal),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Err(Refused::Documentation),
        [198, 18..=19, ..] => Err(Refused::Benchmarking),
        [224..=239, ..] => Err(Refused::Multicast),
        [255, 255, 255, 255] => Err(Refused::Broadcast),
        // Protocol assignments (a cloud's metadata service among them), the retired 6to4 relays, class E.
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Err(Refused::Reserved),
        _ => Ok(()),
    }
}

fn usable_v6(ip: Ipv6Addr) -> Result<(), Refused> {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Err(Refused::Unspecified),
        [0xff00..=0xffff, ..] => Err(Refused::Multicast),
        [0xfe80..=0xfebf, ..] => Err(Refused::LinkLocal),
        [0x2001, 0x0db8, ..] | [0x3fff, 0x0000..=0x0fff, ..] => Err(Refused::Documentation),
        [0x2001, 0x0002, 0, ..] => Err(Refused::Benchmarking),
        // Protocol assignments with Teredo, then 6to4: both carry an IPv4 address past the rules for IPv4.
        [0x2001, 0x0000..=0x01ff, ..] | [0x2002, ..] => Err(Refused::Reserved),
        [0x2000..=0x3fff, ..] => Ok(()),
        _ => Err(Refused::Reserved), // outside 2000::/3 nothing is global unicast; NAT64 prefixes lie there
    }
}
