//! The linter on answers of others, and on ours with one thing made wrong.

use crate::peer::sdp::lint::{Context, FINDINGS_MAX, Finding, LINT_BYTES_MAX, LINT_LINES_MAX, Rule, Severity, lint};
use crate::peer::sdp::samples::{answer, fixture, fixture_names};

fn errors(findings: &[Finding]) -> Vec<Rule> {
    let mut rules: Vec<Rule> =
        findings.iter().filter(|f| f.severity == Severity::Error).map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}

fn alone(answer: &str) -> Vec<Finding> {
    lint(answer, Context::default())
}

fn against(answer: &str, offer: &str) -> Vec<Finding> {
    lint(answer, Context { offer: Some(offer), allow_private: false })
}

#[test]
fn metas_own_sample_passes_with_warnings_only() {
    let findings = against(&fixture("answer-metadoc-uic.sdp"), &fixture("offer-metadoc-uic.sdp"));
    assert_eq!(errors(&findings), [], "{findings:?}");
    for rule in [Rule::Candidate, Rule::PacketTime, Rule::RtcpFeedback, Rule::Extmap] {
        assert!(findings.iter().any(|f| f.rule == rule && f.severity == Severity::Warning), "{rule:?} {findings:?}");
    }
    assert_eq!(findings.len(), 6, "{findings:?}");
}

#[test]
fn the_recommended_answer_passes_and_its_feedback_is_a_warning() {
    let findings = against(&fixture("proposed-answer.sdp"), &fixture("offer-live-2026-10-02.sdp"));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((findings[0].severity, findings[0].rule), (Severity::Warning, Rule::RtcpFeedback));
}

#[test]
fn the_432_byte_answer_fails_for_the_place_of_c_and_for_echoed_credentials() {
    let answer = fixture("negative-answer-seed-432.sdp");
    let findings = against(&answer, &fixture("offer-live-2025-10-17.sdp"));
    let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(texts.contains(&"error: Grammar: line 5: c= after t=".to_owned()), "{texts:#?}");
    for rule in [Rule::EchoedCredentials, Rule::EchoedFingerprint, Rule::Mid, Rule::Bundle, Rule::Ssrc, Rule::Fmtp] {
        assert!(errors(&findings).contains(&rule), "{rule:?} {texts:#?}");
    }
    assert!(errors(&alone(&answer)).contains(&Rule::Grammar), "the order is judged without the offer too");
}

#[test]
fn the_echoing_answer_fails_for_credentials_mid_and_its_loopback_address() {
    let findings =
        against(&fixture("negative-answer-seed-echoed-credentials.sdp"), &fixture("offer-live-2025-10-17.sdp"));
    let rules = errors(&findings);
    for rule in
        [Rule::EchoedCredentials, Rule::EchoedFingerprint, Rule::Mid, Rule::Bundle, Rule::PrivateAddress, Rule::Ssrc]
    {
        assert!(rules.contains(&rule), "{rule:?} {findings:?}");
    }
    assert_eq!(findings.iter().filter(|f| f.rule == Rule::EchoedCredentials).count(), 2, "ufrag and pwd");
    assert!(!rules.contains(&Rule::Grammar), "its grammar is right: {findings:?}");
}

#[test]
fn three_fingerprints_fail_for_their_number_alone() {
    let findings = alone(&fixture("negative-answer-three-fingerprints.sdp"));
    assert_eq!(errors(&findings), [Rule::FingerprintCount], "{findings:?}");
    assert!(findings[0].text.contains('3') || findings.iter().any(|f| f.text.contains("3 fingerprints")));
    let without = alone(&fixture("answer-accepted-2025-10-17.sdp"));
    assert_eq!(errors(&without), [], "the same answer with one fingerprint was accepted: {without:?}");
}

#[test]
fn every_negative_fixture_fails() {
    let names = fixture_names("negative-");
    assert_eq!(names.len(), 3);
    for name in names {
        assert!(!errors(&alone(&fixture(&name))).is_empty(), "{name}");
    }
}

#[test]
fn an_accepted_answer_trips_over_its_stray_ice_lite_only() {
    let findings = alone(&fixture("answer-accepted-dtls-connected-2025-10-23.sdp"));
    assert_eq!(errors(&findings), [Rule::IceLite], "{findings:?}");
}

#[test]
fn one_wrong_thing_gives_its_rule_and_no_other() {
    let offer = fixture("offer-live-2026-10-02.sdp");
    let good = answer(&offer);
    assert_eq!(against(&good, &offer), []);
    let fingerprint = "a=fingerprint:sha-256 E0:E1";
    let their_fingerprint = offer.lines().find(|line| line.starts_with("a=fingerprint")).unwrap();
    let our_fingerprint = good.lines().find(|line| line.starts_with("a=fingerprint")).unwrap();
    let lower = their_fingerprint.to_ascii_lowercase();
    let edits: &[(&str, &str, &[Rule])] = &[
        ("s=-\r\n", "s=-\n", &[Rule::LineEnds]),
        ("s=-\r\n", "s=-\r\r\n", &[Rule::LineEnds]),
        ("cname:BridgeAudio1\r\n", "cname:BridgeAudio1", &[Rule::LineEnds]),
        ("s=-", "s=é", &[Rule::Grammar]),
        ("v=0\r\n", "", &[Rule::Grammar]),
        ("v=0", "v=1", &[Rule::Grammar]),
        ("o=- 4611731400430051336", "o=- x", &[Rule::Grammar]),
        ("o=- 4611731400430051336", "o=- 9223372036854775808", &[Rule::Grammar]),
        ("s=-\r\n", "", &[Rule::Grammar]),
        ("s=-\r\n", "s=-\r\ns=-\r\n", &[Rule::Grammar]),
        ("s=-\r\n", "s=-\r\n\r\n", &[Rule::Grammar]),
        ("t=0 0\r\n", "", &[Rule::Grammar]),
        ("t=0 0\r\n", "t=0 0\r\nc=IN IP4 198.51.100.7\r\n", &[Rule::Grammar]),
        ("c=IN IP4 198.51.100.7\r\na=rtcp:9", "a=x\r\nc=IN IP4 198.51.100.7\r\na=rtcp:9", &[Rule::Grammar]),
        ("c=IN IP4 198.51.100.7\r\n", "", &[Rule::Connection]),
        ("c=IN IP4", "c=IN IP6", &[Rule::Connection]),
        ("c=IN IP4 198.51.100.7", "c=IN IP4 8.8.8.8", &[Rule::Connection]),
        ("m=audio 40000", "m=audio 40002", &[Rule::Connection]),
        ("m=audio 40000", "m=audio 0", &[Rule::Connection, Rule::OneMedia]),
        ("a=ptime:20\r\n", "a=ptime:20\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\n", &[Rule::OneMedia]),
        ("SAVPF", "SAVP", &[Rule::Profile]),
        ("SAVPF 111 126", "SAVPF 111 126 0", &[Rule::PayloadTypes]),
        ("SAVPF 111 126", "SAVPF 111 111 126", &[Rule::PayloadTypes]),
        ("SAVPF 111 126", "SAVPF 111", &[Rule::PayloadTypes]),
        ("SAVPF 111 126", "SAVPF 126", &[Rule::Codec, Rule::PayloadTypes]),
        ("a=rtpmap:126 telephone-event/8000\r\n", "", &[Rule::Codec]),
        ("telephone-event/8000", "telephone-event/48000", &[Rule::Codec]),
        ("opus/48000/2", "opus/48000", &[Rule::Codec]),
        ("a=ptime", "a=rtpmap:111 opus/48000/2\r\na=ptime", &[Rule::PayloadTypes]),
        ("useinbandfec=1", "useinbandfec=0", &[Rule::Fmtp]),
        ("a=fmtp:111", "a=x:111", &[Rule::Fmtp]),
        ("a=ptime", "a=fmtp:126 0-15\r\na=ptime", &[Rule::Fmtp]),
        ("a=ptime", "a=rtcp-fb:111 nack\r\na=ptime", &[Rule::RtcpFeedback]),
        ("a=ptime", "a=extmap:1 urn:x\r\na=ptime", &[Rule::Extmap]),
        ("a=ptime:20", "a=ptime:40", &[Rule::PacketTime]),
        ("a=maxptime:20", "a=maxptime:60", &[Rule::PacketTime]),
        ("a=ssrc:2911500123 cname:BridgeAudio1\r\n", "", &[Rule::Ssrc]),
        ("a=ssrc", "a=ssrc:1 cname:x\r\na=ssrc", &[Rule::Ssrc]),
        ("a=ssrc:2911500123", "a=ssrc:x", &[Rule::Ssrc]),
        ("cname:", "label:", &[Rule::Ssrc]),
        ("a=ssrc", "a=ssrc-group:FID 1 2\r\na=ssrc", &[Rule::Ssrc]),
        ("a=msid:", "a=msid:a b\r\na=msid:", &[Rule::Msid]),
        ("a=rtcp-mux\r\n", "", &[Rule::RtcpMux]),
        ("a=sendrecv", "a=sendonly", &[Rule::Direction]),
        ("a=mid:audio", "a=mid:0", &[Rule::Mid]),
        ("a=mid:audio\r\n", "", &[Rule::Mid]),
        ("BUNDLE audio", "BUNDLE 0", &[Rule::Bundle]),
        ("BUNDLE audio", "BUNDLE audio video", &[Rule::Bundle]),
        ("a=group:BUNDLE audio\r\n", "", &[Rule::Bundle]),
        ("a=setup:active", "a=setup:passive", &[Rule::Setup]),
        ("a=setup:active\r\n", "", &[Rule::Setup]),
        ("a=setup:active", "a=setup:active\r\na=setup:active", &[Rule::Setup]),
        (our_fingerprint, their_fingerprint, &[Rule::EchoedFingerprint]),
        (our_fingerprint, &lower, &[Rule::EchoedFingerprint]),
        (our_fingerprint, "a=x", &[Rule::FingerprintCount]),
        (fingerprint, "a=fingerprint:sha-384 E0:E1", &[Rule::Fingerprint]),
        (fingerprint, "a=fingerprint:sha-256 E0", &[Rule::Fingerprint]),
        ("aB3dE6gH", "NvPeRHRlBReaRYCZ", &[Rule::EchoedCredentials]),
        ("kLmN0pQrStUvWxYz12345678", "+219v9nKr3xSQIn8s+Fy8g==", &[Rule::EchoedCredentials]),
        ("aB3dE6gH", "aB3", &[Rule::IceCredentials]),
        ("kLmN0pQrStUvWxYz12345678", "kLmN0pQrStUvWxYz1234==", &[Rule::IceCredentials]),
        ("a=ice-pwd:kLmN0pQrStUvWxYz12345678\r\n", "", &[Rule::IceCredentials]),
        ("a=ice-ufrag:", "a=ice-ufrag:abcd\r\na=ice-ufrag:", &[Rule::IceCredentials]),
        ("a=mid", "a=ice-lite\r\na=mid", &[Rule::IceLite]),
        ("a=mid", "a=ice-options:ice2 trickle\r\na=mid", &[Rule::Trickle]),
        ("a=mid", "a=crypto:1 x inline:y\r\na=mid", &[Rule::Sdes]),
        ("198.51.100.7", "192.168.1.7", &[Rule::PrivateAddress]),
        ("198.51.100.7", "127.0.0.1", &[Rule::PrivateAddress]),
        ("198.51.100.7", "169.254.1.7", &[Rule::PrivateAddress]),
        ("typ host", "typ host raddr 10.0.0.1 rport 9", &[Rule::PrivateAddress]),
        ("1 udp 2130706431", "2 udp 2130706431", &[Rule::Candidate]),
        ("1 udp 2130706431", "1 udp 4294967296", &[Rule::Candidate]),
    ];
    for (from, to, rules) in edits {
        assert!(good.contains(from), "{from:?} is not in the answer");
        let findings = against(&good.replace(from, to), &offer);
        assert_eq!(errors(&findings), *rules, "{from:?} to {to:?}: {findings:#?}");
    }
}

#[test]
fn what_whatsapp_takes_and_we_do_not_write_is_a_warning() {
    let offer = fixture("offer-metadoc-uic.sdp");
    let good = answer(&offer);
    let candidate = good.lines().find(|line| line.starts_with("a=candidate")).unwrap();
    let second = format!("{candidate}\r\n{candidate}");
    for (from, to, rule) in [
        ("a=ptime:20\r\n", "", Rule::PacketTime),
        (candidate, "a=x", Rule::Candidate),
        (candidate, second.as_str(), Rule::Candidate),
        ("typ host", "typ srflx", Rule::Candidate),
        ("a=ptime", "a=rtcp-fb:111 transport-cc\r\na=ptime", Rule::RtcpFeedback),
        ("a=ptime", "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=ptime", Rule::Extmap),
    ] {
        assert!(good.contains(from), "{from:?}");
        let findings = against(&good.replace(from, to), &offer);
        let found: Vec<_> = findings.iter().map(|f| (f.severity, f.rule)).collect();
        assert_eq!(found, [(Severity::Warning, rule)], "{from:?} to {to:?}");
    }
}

#[test]
fn a_profile_without_dtls_is_an_error_even_when_it_was_offered() {
    let offer = fixture("offer-live-2026-10-02.sdp");
    let (plain_offer, plain) =
        (offer.replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF"), answer(&offer).replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF"));
    assert_eq!(errors(&against(&plain, &plain_offer)), [Rule::Profile]);
    assert_eq!(errors(&alone(&plain)), [Rule::Profile]);
}

#[test]
fn a_maximum_packet_time_that_was_not_offered_is_an_error() {
    let offer = fixture("offer-metadoc-uic.sdp");
    let more = answer(&offer).replace("a=ptime:20", "a=maxptime:20\r\na=ptime:20");
    assert_eq!(errors(&against(&more, &offer)), [Rule::PacketTime]);
}

#[test]
fn private_addresses_pass_when_they_are_allowed_but_never_link_local_ones() {
    let offer = fixture("offer-live-2026-10-02.sdp");
    let allowed = Context { offer: Some(&offer), allow_private: true };
    assert_eq!(lint(&answer(&offer).replace("198.51.100.7", "127.0.0.1"), allowed), []);
    assert!(!lint(&answer(&offer).replace("198.51.100.7", "169.254.1.7"), allowed).is_empty());
}

#[test]
fn findings_are_bounded_and_hold_no_credentials() {
    let huge = "x".repeat(LINT_BYTES_MAX + 1);
    assert_eq!(errors(&alone(&huge)), [Rule::Size]);
    let offer = fixture("offer-live-2026-10-02.sdp");
    let long = answer(&offer) + &"a=x\r\n".repeat(LINT_LINES_MAX);
    assert_eq!(errors(&against(&long, &offer)), [Rule::Size]);
    assert_eq!(alone(&"x\n".repeat(10_000)).len(), FINDINGS_MAX);
    let echo = fixture("negative-answer-seed-echoed-credentials.sdp");
    let shown = format!("{:?}", against(&echo, &fixture("offer-live-2025-10-17.sdp")));
    assert!(!shown.contains("AeinEGDfvqBctbtM") && !shown.contains("F6/jjqL0"), "{shown}");
}
