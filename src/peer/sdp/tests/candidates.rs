//! Which candidates are read, and which addresses a call may send to.

use std::net::SocketAddr;

use crate::peer::sdp::candidate::CandidateLine;
use crate::peer::sdp::samples;
use crate::peer::sdp::{Policy, Refused, RemoteCandidate};

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
            udp("31.13.64.5:3480", 2_122_260_223),
        ),
        ("1 1 UDP 1 2a03:2880:0:0::7 3480 typ host generation 0 ufrag 6k2q/2", udp("[2a03:2880::7]:3480", 1)),
        ("a 1 udp 1694498815 8.8.4.4 7371 typ srflx raddr 10.0.0.2 rport 51420", udp("8.8.4.4:7371", 1_694_498_815)),
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
    for addr in
        ["31.13.64.5:3480", "157.240.1.1:40012", "[2a03:2880:f312:131:face:b00c:0:699c]:3480", "[::ffff:8.8.4.4]:5000"]
    {
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
