//! The answers that we write.

use crate::peer::sdp::answer::ANSWER_BYTES_MAX;
use crate::peer::sdp::lint::{Context, lint};
use crate::peer::sdp::samples::{acceptable, answer, fixture, offer, params};
use crate::peer::sdp::{AnswerParams, write_answer};

#[test]
fn the_answer_to_whatsapp_is_the_recommended_one_without_feedback() {
    let recommended = fixture("proposed-answer.sdp").replace("a=rtcp-fb:111 transport-cc\r\n", "");
    let fingerprint = std::array::from_fn(|i| (i % 16 * 0x11) as u8);
    let live = offer(&fixture("offer-live-2026-10-02.sdp"));
    assert_eq!(write_answer(&live, &AnswerParams { fingerprint, ..params() }), recommended);
}

#[test]
fn every_answer_is_without_a_finding() {
    let offers = acceptable();
    assert!(offers.len() >= 10, "fixtures are missing: {}", offers.len());
    for (name, text) in offers {
        let answer = answer(&text);
        let findings = lint(&answer, Context { offer: Some(&text), allow_private: false });
        assert!(findings.is_empty(), "{name}: {findings:?}\n{answer}");
        assert!(answer.len() <= ANSWER_BYTES_MAX, "{name}: {} bytes", answer.len());
    }
}

#[test]
fn a_browser_gets_what_it_offered_and_nothing_else() {
    let answer = answer(&crate::peer::sdp::samples::firefox());
    for line in [
        "m=audio 40000 UDP/TLS/RTP/SAVPF 109 101",
        "a=group:BUNDLE 0",
        "a=mid:0",
        "a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-15",
    ] {
        assert!(answer.lines().any(|ours| ours == line), "{line} is missing:\n{answer}");
    }
    for absent in ["maxptime", "extmap", "trickle", "ice-lite", "rtcp-fb", "G722"] {
        assert!(!answer.contains(absent), "{absent} was not to be said:\n{answer}");
    }
}

#[test]
fn an_active_offer_gets_a_passive_answer_and_the_others_an_active_one() {
    let live = fixture("offer-live-2026-10-02.sdp");
    for (theirs, ours) in [("actpass", "active"), ("passive", "active"), ("active", "passive")] {
        let text = live.replace("a=setup:actpass", &format!("a=setup:{theirs}"));
        let answer = answer(&text);
        assert!(answer.contains(&format!("a=setup:{ours}\r\n")), "{theirs}");
        assert_eq!(lint(&answer, Context { offer: Some(&text), allow_private: false }), [], "{theirs}");
        assert_eq!(offer(&text).setup.we_are_client(), ours == "active");
    }
}

#[test]
fn mid_and_bundle_are_said_only_when_offered() {
    let live = fixture("offer-live-2026-10-02.sdp");
    let without_bundle = live.replace("a=group:BUNDLE audio\r\n", "");
    let without_mid = live.replace("a=mid:audio\r\n", "");
    let neither = without_bundle.replace("a=mid:audio\r\n", "");
    for (text, mid) in [(without_bundle, true), (without_mid, false), (neither, false)] {
        let answer = answer(&text);
        assert_eq!((answer.contains("a=mid:audio\r\n"), answer.contains("BUNDLE")), (mid, false));
        assert_eq!(lint(&answer, Context { offer: Some(&text), allow_private: false }), []);
    }
}

#[test]
fn an_ipv6_address_is_written_as_ip6_and_a_mapped_one_as_ip4() {
    let live = fixture("offer-live-2026-10-02.sdp");
    let at =
        |address: &str| write_answer(&offer(&live), &AnswerParams { address: address.parse().unwrap(), ..params() });
    let v6 = at("[2606:4700::7]:40002");
    for line in [
        "c=IN IP6 2606:4700::7",
        "a=rtcp:9 IN IP6 ::",
        "o=- 4611731400430051336 2 IN IP6 2606:4700::7",
        "a=candidate:1 1 udp 2130706431 2606:4700::7 40002 typ host generation 0",
    ] {
        assert!(v6.lines().any(|ours| ours == line), "{line} is missing:\n{v6}");
    }
    assert_eq!(lint(&v6, Context { offer: Some(&live), allow_private: false }), []);
    assert_eq!(at("[::ffff:198.51.100.7]:40000"), at("198.51.100.7:40000"));
}

#[test]
fn the_session_id_keeps_to_63_bits() {
    let live = fixture("offer-live-2026-10-02.sdp");
    let text = write_answer(&offer(&live), &AnswerParams { session_id: u64::MAX, ..params() });
    assert!(text.contains("o=- 9223372036854775807 2 "), "{text}");
}

#[test]
fn the_same_offer_gives_the_same_bytes() {
    let live = fixture("offer-live-2026-10-02.sdp");
    assert_eq!(answer(&live), answer(&live));
}
