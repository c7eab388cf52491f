//! Rules on how media travels: addresses, ICE, DTLS, the place of the m-line in its session.

use std::net::IpAddr;

use super::document::Document;
use super::{Findings, Rule};
use crate::peer::sdp::candidate::{Refused, usable_ip};

pub(super) fn judge(answer: &Document<'_>, offer: Option<&Document<'_>>, allow_private: bool, findings: &mut Findings) {
    addresses(answer, allow_private, findings);
    ice(answer, offer, findings);
    dtls(answer, offer, findings);
    if let Some(offer) = offer {
        identification(answer, offer, findings);
    }
    if !answer.has("rtcp-mux") {
        findings.error(Rule::RtcpMux, "rtcp-mux is missing");
    }
}

/// A candidate of the answer.
struct Candidate<'a> {
    ip: IpAddr,
    port: u16,
    kind: &'a str,
    related: Option<IpAddr>,
}

impl<'a> Candidate<'a> {
    fn parse(value: &'a str) -> Option<Self> {
        let words: Vec<&str> = value.split(' ').collect();
        let [_, "1", transport, priority, ip, port, "typ", kind, extensions @ ..] = &words[..] else { return None };
        let priority: u32 = priority.parse().ok()?;
        let related = extensions.windows(2).find(|pair| pair[0] == "raddr");
        let is_udp = transport.eq_ignore_ascii_case("udp");
        (is_udp && (1..1 << 31).contains(&priority)).then_some(Self {
            ip: ip.parse().ok()?,
            port: port.parse().ok().filter(|port| *port > 0)?,
            kind,
            related: match related {
                Some(pair) => Some(pair[1].parse().ok()?),
                None => None,
            },
        })
    }
}

fn addresses(answer: &Document<'_>, allow_private: bool, findings: &mut Findings) {
    let mut candidates = Vec::new();
    for value in answer.all("candidate") {
        match Candidate::parse(value) {
            Some(candidate) => candidates.push(candidate),
            None => findings.error(Rule::Candidate, "a candidate is not UDP, component 1 and an IP address"),
        }
    }
    let families =
        [candidates.iter().filter(|c| c.ip.is_ipv4()).count(), candidates.iter().filter(|c| c.ip.is_ipv6()).count()];
    if candidates.is_empty() {
        findings.warning(Rule::Candidate, "no candidate: WhatsApp must learn our address from our checks");
    } else if families.iter().any(|count| *count > 1) || candidates.iter().any(|candidate| candidate.kind != "host") {
        findings.warning(Rule::Candidate, "more than one host candidate for each family");
    }

    let mut public = |ip: IpAddr, what: &str| match usable_ip(ip.to_canonical(), allow_private) {
        Ok(()) | Err(Refused::Documentation) => {} // examples of public addresses
        Err(_) => findings.error(Rule::PrivateAddress, format!("{what} {ip} is not reachable for the peer")),
    };
    for candidate in &candidates {
        public(candidate.ip, "candidate");
        if let Some(related) = candidate.related.filter(|ip| !ip.is_unspecified()) {
            public(related, "related address");
        }
    }
    match answer.connection.map(connection) {
        None => findings.error(Rule::Connection, "c= is missing"),
        Some(None) => findings.error(Rule::Connection, "c= is not `IN IP4 address` or `IN IP6 address`"),
        // Without candidates, the unspecified address says "no default" (RFC 8840).
        Some(Some(ip)) if ip.is_unspecified() && candidates.is_empty() => {}
        Some(Some(ip)) => {
            public(ip, "c=");
            let port =
                answer.media.first().and_then(|media| media.split(' ').nth(1)).and_then(|port| port.parse().ok());
            if !candidates.is_empty() && !candidates.iter().any(|c| c.ip == ip && Some(c.port) == port) {
                findings.error(Rule::Connection, "c= and the port of m= are not one of the candidates");
            }
        }
    }
}

fn connection(value: &str) -> Option<IpAddr> {
    match value.split(' ').collect::<Vec<_>>()[..] {
        ["IN", "IP4", ip] => ip.parse().ok().map(IpAddr::V4),
        ["IN", "IP6", ip] => ip.parse().ok().map(IpAddr::V6),
        _ => None,
    }
}

fn ice(answer: &Document<'_>, offer: Option<&Document<'_>>, findings: &mut Findings) {
    if answer.has("ice-lite") {
        findings.error(Rule::IceLite, "ice-lite: two lite agents never check each other");
    }
    if answer.all("ice-options").any(|options| options.split(' ').any(|option| option == "trickle")) {
        findings.error(Rule::Trickle, "ice-options:trickle, but no candidate can follow an answer");
    }
    for (name, length_min) in [("ice-ufrag", 4), ("ice-pwd", 22)] {
        let mut values = answer.all(name);
        let (value, second) = (values.next(), values.next());
        match value {
            None => findings.error(Rule::IceCredentials, format!("{name} is missing")),
            Some(_) if second.is_some() => findings.error(Rule::IceCredentials, format!("more than one {name}")),
            Some(text) if offer.is_some_and(|offer| offer.all(name).any(|theirs| theirs == text)) => {
                findings.error(Rule::EchoedCredentials, format!("{name} is the offer's, not our own"));
            }
            Some(text) => {
                let ice_chars = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
                if !ice_chars || !(length_min..=256).contains(&text.len()) {
                    let problem = format!("{name} is not {length_min} to 256 letters, digits, + or /");
                    findings.error(Rule::IceCredentials, problem);
                }
            }
        }
    }
}

fn dtls(answer: &Document<'_>, offer: Option<&Document<'_>>, findings: &mut Findings) {
    let count = answer.all("fingerprint").count();
    if count != 1 {
        findings.error(Rule::FingerprintCount, format!("{count} fingerprints instead of one"));
    }
    if let Some(fingerprint) = answer.first("fingerprint") {
        if !is_sha256(fingerprint) {
            findings.error(Rule::Fingerprint, "the fingerprint is not 32 bytes of sha-256");
        }
        let same = |theirs: &str| theirs.eq_ignore_ascii_case(fingerprint);
        if offer.is_some_and(|offer| offer.all("fingerprint").any(same)) {
            findings.error(Rule::EchoedFingerprint, "the fingerprint is the offer's, not our own");
        }
    }
    let they_are_active = offer.is_some_and(|offer| offer.first("setup") == Some("active"));
    let expected = if they_are_active { "passive" } else { "active" };
    if !answer.all("setup").eq([expected]) {
        findings.error(Rule::Setup, format!("setup is not {expected}, once"));
    }
    if answer.has("crypto") {
        findings.error(Rule::Sdes, "a=crypto puts keys into the SDP");
    }
}

fn is_sha256(fingerprint: &str) -> bool {
    let (hash, digest) = fingerprint.split_once(' ').unwrap_or((fingerprint, ""));
    let mut pairs = digest.split(':');
    let is_byte = |pair: &str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
    hash.eq_ignore_ascii_case("sha-256") && digest.len() == 95 && pairs.all(is_byte)
}

fn identification(answer: &Document<'_>, offer: &Document<'_>, findings: &mut Findings) {
    let (ours, theirs) = (answer.of_media("mid").next(), offer.of_media("mid").next());
    if ours != theirs || answer.all("mid").count() > 1 {
        findings.error(Rule::Mid, "the mid is not the offer's");
    }
    let bundles = |document: &Document<'_>| {
        let names_mid = |group: &str| {
            let mut words = group.split(' ');
            words.next() == Some("BUNDLE") && theirs.is_some_and(|mid| words.any(|word| word == mid))
        };
        document.of_session("group").any(names_mid)
    };
    let others = answer.all("group").any(|group| group.split(' ').count() != 2);
    if bundles(answer) != bundles(offer) || others || answer.all("group").count() > 1 {
        findings.error(Rule::Bundle, "the BUNDLE group is not that of the offer, with its mid alone");
    }
}
