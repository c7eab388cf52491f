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
        let (Ok(priority), Ok(port @ 1..)) = (priority.parse(), port.parse::<u16>()) else { return Self::Unused };
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
        // Protocol assignments (a cloud's metadata service among them) and the retired 6to4 relays.
        [192, 0, 0, _] | [192, 88, 99, _] => Err(Refused::Reserved),
        [224..=239, ..] => Err(Refused::Multicast),
        [255, 255, 255, 255] => Err(Refused::Broadcast),
        [240..=255, ..] => Err(Refused::Reserved),
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

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn policy(media_ip: &str, allow_private: bool) -> Policy {
        Policy {
            allow_private,
            own_listener: Some("0.0.0.0:8080".parse().unwrap()),
            own_media_ports: 40_000..=41_999,
            own_media_ip: media_ip.parse().unwrap(),
        }
    }

    fn usable(policy: &Policy, addr: &str) -> Result<(), Refused> {
        policy.usable(addr.parse().expect(addr))
    }

    #[test]
    fn candidate_lines_are_told_apart() {
        let udp = |text: &str, priority| CandidateLine::Udp(RemoteCandidate { addr: text.parse().unwrap(), priority });
        for (line, expected) in [
            (
                "1 1 udp 2122260223 31.13.64.5 3480 typ host generation 0 network-cost 50",
                udp("31.13.64.5:3480", 2122260223),
            ),
            ("1 1 UDP 1 2a03:2880:0:0::7 3480 typ host generation 0 ufrag 6k2q/2", udp("[2a03:2880::7]:3480", 1)),
            ("a 1 udp 1694498815 8.8.4.4 7371 typ srflx raddr 10.0.0.2 rport 51420", udp("8.8.4.4:7371", 1694498815)),
            ("1 1 udp 1 ::ffff:8.8.4.4 5000 typ host", udp("8.8.4.4:5000", 1)),
            ("1 1 udp 2122260223 0b6c2f0e-4d1b-4c51-8f2e-1ad0a5d0ee34.local 51000 typ host", CandidateLine::Mdns),
            ("1 1 udp 1 x.LOCAL 51000 typ host", CandidateLine::Mdns),
            ("1 1 tcp 1518280447 31.13.64.5 9 typ host tcptype active", CandidateLine::Unused),
            ("1 2 udp 1 31.13.64.5 3481 typ host", CandidateLine::Unused),
            ("1 1 udp 1 relay.example 3481 typ host", CandidateLine::Unused),
            ("1 1 udp 1 fe80::1%eth0 3481 typ host", CandidateLine::Unused),
            ("1 1 udp 1 31.13.64.5 0 typ host", CandidateLine::Unused),
            ("1 1 udp 1 31.13.64.5 65536 typ host", CandidateLine::Unused),
            ("1 1 udp 4294967296 31.13.64.5 3480 typ host", CandidateLine::Unused),
            ("1 1 udp 1 31.13.64.5 3480", CandidateLine::Unused),
            ("1 1 udp 1 31.13.64.5 3480 typ", CandidateLine::Unused),
            ("", CandidateLine::Unused),
        ] {
            assert_eq!(CandidateLine::parse(line), expected, "{line}");
        }
    }

    #[test]
    fn public_addresses_are_usable_under_either_policy() {
        for addr in [
            "31.13.64.5:3480",
            "157.240.1.1:40012",
            "[2a03:2880:f312:131:face:b00c:0:699c]:3480",
            "[::ffff:8.8.4.4]:5000",
        ] {
            for allow_private in [false, true] {
                assert_eq!(usable(&policy("8.8.8.8", allow_private), addr), Ok(()), "{addr}");
            }
        }
    }

    #[test]
    fn ranges_without_callers_are_never_usable() {
        for (addr, why) in [
            ("0.0.0.0:5000", Refused::Unspecified),
            ("0.1.2.3:5000", Refused::Unspecified),
            ("[::]:5000", Refused::Unspecified),
            ("224.0.0.1:5000", Refused::Multicast),
            ("239.255.255.250:5000", Refused::Multicast),
            ("[ff02::1]:5000", Refused::Multicast),
            ("255.255.255.255:5000", Refused::Broadcast),
            ("169.254.169.254:5000", Refused::LinkLocal),
            ("[fe80::1]:5000", Refused::LinkLocal),
            ("[febf::1]:5000", Refused::LinkLocal),
            ("192.0.2.1:5000", Refused::Documentation),
            ("198.51.100.1:5000", Refused::Documentation),
            ("203.0.113.49:3480", Refused::Documentation),
            ("[2001:db8::1]:5000", Refused::Documentation),
            ("[3fff:fff::1]:5000", Refused::Documentation),
            ("198.18.0.1:5000", Refused::Benchmarking),
            ("198.19.255.255:5000", Refused::Benchmarking),
            ("[2001:2::1]:5000", Refused::Benchmarking),
            ("240.0.0.1:5000", Refused::Reserved),
            ("255.255.255.254:5000", Refused::Reserved),
            ("192.0.0.192:5000", Refused::Reserved),
            ("192.88.99.1:5000", Refused::Reserved),
            ("[2001::1]:5000", Refused::Reserved),
            ("[2002:7f00:1::1]:5000", Refused::Reserved),
            ("[64:ff9b::7f00:1]:5000", Refused::Reserved),
            ("[::127.0.0.1]:5000", Refused::Reserved),
            ("[fec0::1]:5000", Refused::Reserved),
            ("[4000::1]:5000", Refused::Reserved),
            ("[::ffff:169.254.169.254]:5000", Refused::LinkLocal),
            ("[::ffff:203.0.113.1]:5000", Refused::Documentation),
        ] {
            for allow_private in [false, true] {
                assert_eq!(usable(&policy("10.0.0.5", allow_private), addr), Err(why), "{addr}");
            }
        }
    }

    #[test]
    fn private_addresses_are_usable_only_when_allowed() {
        for addr in [
            "127.0.0.1:5000",
            "127.9.9.9:5000",
            "10.1.2.3:5000",
            "172.16.0.1:5000",
            "192.168.1.1:5000",
            "100.64.0.1:5000",
            "[::1]:5000",
            "[fd00:ec2::254]:5000",
            "[::ffff:127.0.0.1]:5000",
        ] {
            assert_eq!(usable(&policy("8.8.8.8", false), addr), Err(Refused::Private), "{addr}");
            assert_eq!(usable(&policy("8.8.8.8", true), addr), Ok(()), "{addr}");
        }
        assert_eq!(usable(&policy("8.8.8.8", false), "172.32.0.1:5000"), Ok(()));
        assert_eq!(usable(&policy("8.8.8.8", false), "100.128.0.1:5000"), Ok(()));
    }

    #[test]
    fn ports_below_1024_are_refused() {
        let policy = policy("8.8.8.8", true);
        assert_eq!(usable(&policy, "31.13.64.5:1023"), Err(Refused::PrivilegedPort));
        assert_eq!(usable(&policy, "31.13.64.5:1024"), Ok(()));
    }

    #[test]
    fn our_own_sockets_are_refused_and_a_neighbour_on_our_address_is_not() {
        let policy = policy("10.0.0.5", true);
        for own in [
            "10.0.0.5:40000",
            "10.0.0.5:41999",
            "10.0.0.5:8080",
            "127.0.0.1:40000",
            "127.0.0.1:8080",
            "[::1]:40500",
            "[::ffff:10.0.0.5]:40000",
        ] {
            assert_eq!(usable(&policy, own), Err(Refused::OwnSocket), "{own}");
        }
        for neighbour in ["10.0.0.5:39999", "10.0.0.5:42000", "127.0.0.1:5000", "10.0.0.6:40000", "31.13.64.5:8080"] {
            assert_eq!(usable(&policy, neighbour), Ok(()), "{neighbour}");
        }
    }

    #[test]
    fn the_listener_is_ours_on_its_own_address_too() {
        let policy = Policy { own_listener: Some("10.0.0.9:9000".parse().unwrap()), ..policy("10.0.0.5", true) };
        assert_eq!(usable(&policy, "10.0.0.9:9000"), Err(Refused::OwnSocket));
        assert_eq!(usable(&policy, "10.0.0.9:9001"), Ok(()));
        let none = Policy { own_listener: None, ..policy };
        assert_eq!(usable(&none, "10.0.0.9:9000"), Ok(()));
    }

    #[test]
    fn only_our_address_family_is_selected() {
        let offer = samples::offer(&samples::relay_at("31.13.64.5", "2a03:2880::7", 3480));
        let v4 = policy("8.8.8.8", false).select(&offer).unwrap();
        assert_eq!(v4.usable, ["31.13.64.5:3480".parse().unwrap()]);
        assert_eq!(v4.refused, [("[2a03:2880::7]:3480".parse().unwrap(), Refused::OtherFamily)]);
        let v6 = policy("2606:4700::1", false).select(&offer).unwrap();
        assert_eq!(v6.usable, ["[2a03:2880::7]:3480".parse().unwrap()]);
        assert_eq!(v6.refused_for(Refused::OtherFamily), 1);
    }

    #[test]
    fn an_ice_lite_offer_without_a_usable_candidate_says_which_were_refused_and_why() {
        let offer = samples::offer(&samples::fixture("offer-live-2026-10-02.sdp"));
        let error = policy("8.8.8.8", true).select(&offer).unwrap_err();
        assert_eq!(error.code(), "offer_no_candidate");
        assert!(error.to_string().contains("203.0.113.49:3480: documentation range"), "{error}");

        let offer = samples::offer(&samples::relay_at("127.0.0.1", "fd00::1", 3480));
        let text = policy("8.8.8.8", false).select(&offer).unwrap_err().to_string();
        assert!(text.contains("127.0.0.1:3480") && text.contains("BRIDGE_ALLOW_PRIVATE=1"), "{text}");

        let none = samples::relay_at("relay.local", "relay.example", 3480);
        let text = policy("8.8.8.8", false).select(&samples::offer(&none)).unwrap_err().to_string();
        assert!(text.contains("1 .local names") && text.contains("1 that are not UDP"), "{text}");
    }

    #[test]
    fn a_full_ice_offer_needs_no_usable_candidate() {
        let offer = samples::offer(&samples::chrome());
        assert_eq!(offer.mdns_candidates, 2);
        let selected = policy("8.8.8.8", false).select(&offer).unwrap();
        assert!(selected.usable.is_empty());
    }

    #[test]
    fn at_most_eight_candidates_are_used_best_first_each_once() {
        let mut offer = samples::offer(&samples::chrome());
        offer.candidates = (0..20)
            .map(|i: u16| RemoteCandidate { addr: SocketAddr::from(([31, 13, 64, 5], 5000 + i)), priority: i.into() })
            .collect();
        offer.candidates.push(offer.candidates[19]);
        let selected = policy("8.8.8.8", false).select(&offer).unwrap();
        let ports: Vec<u16> = selected.usable.iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [5019, 5018, 5017, 5016, 5015, 5014, 5013, 5012]);
        assert_eq!(selected.refused_for(Refused::OverLimit), 12);
    }
}
