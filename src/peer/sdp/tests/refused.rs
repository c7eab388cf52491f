//! Every kind of offer that cannot be answered, and what its error says.

use crate::peer::sdp::samples::{self, fixture};
use crate::peer::sdp::{Offer, OfferError};

fn refusal(text: &str) -> OfferError {
    Offer::parse(text).expect_err("an offer that cannot be answered was taken")
}

#[test]
fn an_sdes_offer_is_refused_with_the_setting_to_change() {
    let error = refusal(&fixture("offer-metadoc-sdes.sdp"));
    assert_eq!(error, OfferError::Sdes { line: 7 });
    let text = error.to_string();
    assert!(text.contains("calling.srtp_key_exchange_protocol") && text.contains("\"DTLS\""), "{text}");
}

#[test]
fn each_fault_has_its_code_and_its_culprit_named() {
    let live = fixture("offer-live-2026-10-02.sdp");
    let crypto = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x";
    let fingerprint = "a=fingerprint:sha-256 75:85:02:48:2F:A1:97:65:81:65:4C:B3:2D:13:72:84:8F:D4:BE:31:6E:A0:71:34:52:C3:7A:28:76:43:C6:71";
    let pwd = "a=ice-pwd:+219v9nKr3xSQIn8s+Fy8g==";
    let other_fingerprint = fingerprint.replace(":71", ":72");
    let twice = format!("{fingerprint}\r\n{other_fingerprint}");
    let video = format!("{live}m=video 9 UDP/TLS/RTP/SAVPF 96\r\n");
    let data = format!("{live}m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n");
    let second = format!("{live}m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n");
    let long_fmtp = format!("a=fmtp:111 x={}", "1".repeat(600));
    let long_mid = format!("a=mid:{}", "a".repeat(65));
    let long_pwd = format!("a=ice-pwd:{}", "a".repeat(257));
    let many_types = format!("SAVPF{}", " 111".repeat(129));
    let edits: &[(&str, &str, &str, &str)] = &[
        // what is replaced, by what, the code, a word of the message
        ("v=0", "v=1", "offer_not_sdp", "line 1"),
        ("v=0\r\n", "v=0\\r\\n", "offer_not_sdp", "decode the JSON string"),
        ("v=0\r\n", "{\"sdp\":\"v=0\r\n", "offer_not_sdp", "JSON"),
        ("s=-", "s", "offer_not_sdp", "line 3"),
        ("s=-", " s=-", "offer_not_sdp", "line 3"),
        ("s=-", "S=-", "offer_not_sdp", "line 3"),
        ("s=-", "s=\u{0}", "offer_not_sdp", "control character"),
        ("s=-", "s=-\ra=x", "offer_not_sdp", "control character"),
        ("m=audio", "m=video", "offer_other_media", "offers video"),
        ("m=audio 3480 UDP/TLS/RTP/SAVPF 111 126", "a=none", "offer_no_audio", "m=audio"),
        ("m=audio 3480", "m=audio 0", "offer_bad_attribute", "port 0"),
        ("m=audio 3480", "m=audio 65536", "offer_bad_attribute", "port"),
        ("m=audio 3480", "m=audio", "offer_bad_attribute", "m=audio"),
        ("m=audio 3480 UDP/TLS/RTP/SAVPF 111 126", "m=audio", "offer_bad_attribute", "line 8"),
        ("SAVPF 111", "SAVPF 128", "offer_bad_attribute", "0 to 127"),
        ("SAVPF 111", "SAVPF opus", "offer_bad_attribute", "0 to 127"),
        ("SAVPF", &many_types, "offer_bad_attribute", "128 payload types"),
        ("UDP/TLS/RTP/SAVPF", "RTP/AVP", "offer_not_encrypted", "RTP/AVP"),
        ("UDP/TLS/RTP/SAVPF", "RTP/AVPF", "offer_not_encrypted", "RTP/AVPF"),
        ("UDP/TLS/RTP/SAVPF", "RTP/SAVPF", "offer_profile", "RTP/SAVPF"),
        ("UDP/TLS/RTP/SAVPF", "TCP/TLS/RTP/SAVPF", "offer_profile", "TCP/TLS/RTP/SAVPF"),
        (fingerprint, crypto, "offer_sdes", "srtp_key_exchange_protocol"),
        (fingerprint, "a=x", "offer_no_fingerprint", "a=fingerprint"),
        ("sha-256 75", "sha-384 75", "offer_no_sha256", "sha-384"),
        ("sha-256 75:85", "sha-256 75", "offer_bad_attribute", "fingerprint"),
        ("sha-256 75:85", "sha-256 75:85:85", "offer_bad_attribute", "fingerprint"),
        ("sha-256 75:85", "sha-256 75:8", "offer_bad_attribute", "fingerprint"),
        ("sha-256 75:85", "sha-256 75:+5", "offer_bad_attribute", "fingerprint"),
        (fingerprint, &twice, "offer_bad_attribute", "differs from the first"),
        ("a=rtcp-mux", "a=x", "offer_no_rtcp_mux", "a=rtcp-mux"),
        ("a=sendrecv", "a=sendonly", "offer_direction", "a=sendonly"),
        ("a=sendrecv", "a=recvonly", "offer_direction", "nothing to hear"),
        ("a=sendrecv", "a=inactive", "offer_direction", "a=inactive"),
        ("a=sendrecv\r\n", "a=sendrecv\r\na=inactive\r\n", "offer_direction", "a=inactive"),
        ("opus/48000/2", "opus/48000", "offer_no_opus", "line 8"),
        ("opus/48000/2", "PCMU/8000", "offer_no_opus", "opus/48000/2"),
        ("SAVPF 111 126", "SAVPF 126", "offer_no_opus", "opus/48000/2"),
        ("111", "72", "offer_no_opus", "64 to 95"),
        ("a=fmtp:111 maxaveragebitrate=20000", &long_fmtp, "offer_bad_attribute", "fmtp"),
        ("a=fmtp:111 ", "a=fmtp:111 é=1;", "offer_bad_attribute", "fmtp"),
        ("a=ice-ufrag:NvPeRHRlBReaRYCZ", "a=x", "offer_no_ice", "ice-ufrag"),
        (pwd, "a=x", "offer_no_ice", "ice-pwd"),
        ("a=ice-ufrag:NvPeRHRlBReaRYCZ", "a=ice-ufrag:abc", "offer_bad_attribute", "ice-ufrag"),
        ("a=ice-ufrag:NvPeRHRlBReaRYCZ", "a=ice-ufrag:ab:cd", "offer_bad_attribute", "ice-ufrag"),
        ("a=ice-ufrag:NvPe", "a=ice-ufrag:abcd\r\na=ice-ufrag:NvPe", "offer_bad_attribute", "contradicts"),
        (pwd, "a=ice-pwd:short", "offer_bad_attribute", "ice-pwd"),
        (pwd, "a=ice-pwd:twenty two characters and more", "offer_bad_attribute", "ice-pwd"),
        (pwd, &long_pwd, "offer_bad_attribute", "ice-pwd"),
        ("a=setup:actpass", "a=setup:holdconn", "offer_bad_attribute", "setup"),
        ("a=mid:audio", "a=mid:", "offer_bad_attribute", "mid"),
        ("a=mid:audio", "a=mid:a b", "offer_bad_attribute", "mid"),
        ("a=mid:audio", "a=mid:é", "offer_bad_attribute", "mid"),
        ("a=mid:audio", &long_mid, "offer_bad_attribute", "mid"),
        ("a=mid:audio", "a=mid:audio\r\na=mid:video", "offer_bad_attribute", "line 18"),
        ("a=maxptime:20", "a=maxptime:10", "offer_bad_attribute", "maxptime"),
        (&live, "", "offer_not_sdp", "v=0"),
        (&live, "hello", "offer_not_sdp", "v=0"),
        (&live, "v=0", "offer_no_audio", "m=audio"),
        (&live, &video, "offer_other_media", "offers video"),
        (&live, &data, "offer_other_media", "application"),
        (&live, &second, "offer_several_audio", "second m=audio"),
    ];
    for (from, to, code, word) in edits {
        assert!(live.contains(from), "{from:?} is not in the offer");
        let error = refusal(&live.replace(from, to));
        assert_eq!(error.code(), *code, "{from:?} to {to:?}: {error}");
        assert!(error.to_string().contains(word), "{from:?} to {to:?}: {error}");
    }
}

#[test]
fn a_browser_offer_with_video_says_so() {
    let with_video = samples::chrome() + "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\n";
    assert_eq!(
        refusal(&with_video).to_string(),
        "line 41: offers video; only one audio line can be answered, so offer audio alone"
    );
}

#[test]
fn limits_are_exact() {
    let live = fixture("offer-live-2026-10-02.sdp");
    let padded = |bytes: usize| live.replace("s=-", &format!("s={}", "x".repeat(bytes - live.len() + 1)));
    assert!(Offer::parse(&padded(64 * 1024)).is_ok());
    assert_eq!(refusal(&padded(64 * 1024 + 1)), OfferError::TooLarge { bytes: 65_537 });

    let lines = |count: usize| live.clone() + &"b=AS:1\r\n".repeat(count - live.lines().count());
    assert!(Offer::parse(&lines(512)).is_ok());
    assert_eq!(refusal(&lines(513)), OfferError::TooManyLines);

    let in_audio = live.split("m=audio").nth(1).unwrap().matches("\r\na=").count();
    let attributes = |count: usize| live.clone() + &"a=x\r\n".repeat(count - in_audio);
    assert!(Offer::parse(&attributes(128)).is_ok());
    assert_eq!(refusal(&attributes(129)).code(), "offer_too_many_attributes");

    let media = |count: usize| live.clone() + &"m=video 9 x 1\r\n".repeat(count - 1);
    assert_eq!(refusal(&media(4)).code(), "offer_other_media");
    assert_eq!(refusal(&media(5)).code(), "offer_too_many_media");
}

#[test]
fn errors_quote_little_and_only_printable_text() {
    let live = fixture("offer-live-2026-10-02.sdp");
    let long = "é".repeat(10_000);
    for (from, to) in
        [("UDP/TLS/RTP/SAVPF", long.clone()), ("m=audio", format!("m={long}")), ("sha-256 75", format!("{long} 75"))]
    {
        let text = refusal(&live.replace(from, &to)).to_string();
        assert!(text.len() < 200 && text.is_ascii(), "{text}");
    }
}

#[test]
fn errors_do_not_quote_credentials() {
    let live = fixture("offer-live-2026-10-02.sdp");
    for (from, to) in
        [("NvPeRHRlBReaRYCZ", "CANARY:CANARY"), ("+219v9nKr3xSQIn8s+Fy8g==", "CANARY CANARY CANARY CANARY")]
    {
        let error = refusal(&live.replace(from, to));
        assert!(!format!("{error} {error:?}").contains("CANARY"), "{error:?}");
    }
}
