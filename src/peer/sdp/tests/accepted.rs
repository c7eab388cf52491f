//! What is read out of offers that live peers send.

use crate::peer::sdp::samples::{self, fixture, offer};
use crate::peer::sdp::{OpusParams, Profile, Setup};

#[test]
fn the_live_offer_of_whatsapp_is_read_in_full() {
    let offer = offer(&fixture("offer-live-2026-10-02.sdp"));
    assert_eq!((offer.mid.as_deref(), offer.bundled, offer.ice_lite), (Some("audio"), true, true));
    assert_eq!((offer.profile, offer.setup), (Profile::Savpf, Setup::ActPass));
    assert_eq!((offer.ice.ufrag.as_str(), offer.ice.pwd.as_str()), ("NvPeRHRlBReaRYCZ", "+219v9nKr3xSQIn8s+Fy8g=="));
    assert_eq!((offer.fingerprint[..3].to_vec(), offer.fingerprint[31]), (vec![0x75, 0x85, 0x02], 0x71));
    let candidates: Vec<_> = offer.candidates.iter().map(|c| (c.addr.to_string(), c.priority)).collect();
    let expected = [
        ("203.0.113.49:3480".to_owned(), 2_122_260_223),
        ("[2001:db8:f312:131:face:b00c:0:699c]:3480".to_owned(), 2_122_262_783),
    ];
    assert_eq!(candidates, expected);
    assert_eq!((offer.mdns_candidates, offer.unused_candidates), (0, 0));
    assert_eq!((offer.opus.payload_type, offer.opus.rtcp_fb), (111, vec!["transport-cc".to_owned()]));
    let fmtp = "maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;sprop-maxcapturerate=16000;useinbandfec=1";
    assert_eq!(offer.opus.fmtp.as_deref(), Some(fmtp));
    assert_eq!(
        (offer.opus.params.max_average_bitrate, offer.opus.params.max_playback_rate),
        (Some(20_000), Some(16_000))
    );
    let event = offer.telephone_event.unwrap();
    assert_eq!((event.payload_type, event.fmtp), (126, None));
    assert_eq!((offer.ssrc, offer.ptime, offer.maxptime), (Some(613_016_344), Some(20), Some(20)));
}

#[test]
fn line_ends_do_not_matter() {
    let crlf = format!("{:?}", offer(&fixture("offer-live-2026-10-02.sdp")));
    for variant in ["variant-offer-lf-only.sdp", "variant-offer-no-final-crlf.sdp"] {
        assert_eq!(format!("{:?}", offer(&fixture(variant))), crlf, "{variant}");
    }
    let cut_inside_crlf = fixture("offer-live-2026-10-02.sdp");
    assert_eq!(format!("{:?}", offer(cut_inside_crlf.trim_end_matches('\n'))), crlf);
    let blank_lines_behind = fixture("offer-live-2026-10-02.sdp") + "\r\n\n";
    assert_eq!(format!("{:?}", offer(&blank_lines_behind)), crlf);
}

#[test]
fn the_fixtures_keep_their_line_ends() {
    assert_eq!(fixture("offer-live-2026-10-02.sdp").len(), 1026, "a checkout has converted line ends");
    assert!(!fixture("variant-offer-lf-only.sdp").contains('\r'));
    assert!(!fixture("variant-offer-no-final-crlf.sdp").ends_with('\n'));
}

#[test]
fn the_documented_offer_with_extensions_and_candidate_ufrags_is_read() {
    let offer = offer(&fixture("offer-metadoc-uic.sdp"));
    assert_eq!((offer.candidates.len(), offer.unused_candidates), (2, 0));
    assert_eq!((offer.ptime, offer.maxptime), (None, None));
    assert_eq!(offer.opus.params, OpusParams { min_ptime: Some(10), use_inband_fec: true, ..OpusParams::default() });
}

#[test]
fn a_chrome_offer_is_read() {
    let offer = offer(&samples::chrome());
    assert_eq!((offer.mid.as_deref(), offer.bundled, offer.ice_lite), (Some("0"), true, false));
    assert_eq!((offer.candidates.len(), offer.mdns_candidates, offer.unused_candidates), (0, 2, 1));
    assert_eq!((offer.opus.payload_type, offer.telephone_event.unwrap().payload_type), (111, 126));
}

#[test]
fn a_firefox_offer_with_session_level_attributes_is_read() {
    let offer = offer(&samples::firefox());
    assert_eq!((offer.opus.payload_type, offer.fingerprint[0]), (109, 0xd2));
    assert!(offer.opus.params.stereo);
    let event = offer.telephone_event.unwrap();
    assert_eq!((event.payload_type, event.fmtp.as_deref()), (101, Some("0-15")));
    assert_eq!((offer.candidates.len(), offer.unused_candidates), (1, 2));
}

#[test]
fn an_aiortc_offer_with_three_fingerprints_is_read_by_its_sha_256() {
    let offer = offer(&samples::aiortc());
    assert_eq!((offer.opus.payload_type, offer.opus.fmtp, offer.fingerprint[0]), (96, None, 0x5c));
    assert_eq!((offer.telephone_event, offer.candidates.len()), (None, 2));
}

#[test]
fn a_safari_offer_is_read_and_its_8000_hz_events_are_chosen() {
    let offer = offer(&samples::safari());
    assert_eq!(offer.telephone_event.unwrap().payload_type, 126);
    assert_eq!((offer.maxptime, offer.candidates.len(), offer.mdns_candidates), (Some(60), 1, 1));
}

#[test]
fn what_live_offers_leave_out_or_say_elsewhere_is_tolerated() {
    let live = fixture("offer-live-2026-10-02.sdp");
    let edit = |from: &str, to: &str| {
        assert!(live.contains(from), "{from}");
        offer(&live.replace(from, to))
    };
    assert!(!edit("a=group:BUNDLE audio\r\n", "").bundled);
    assert!(!edit("a=group:BUNDLE audio", "a=group:BUNDLE video").bundled);
    assert!(!edit("a=group:BUNDLE audio", "a=group:LS audio").bundled);
    let without_mid = edit("a=mid:audio\r\n", "");
    assert_eq!((without_mid.mid, without_mid.bundled), (None, false));
    edit("a=sendrecv\r\n", "");
    edit("a=rtcp-fb:111 transport-cc\r\n", "");
    assert_eq!(edit("a=setup:actpass\r\n", "").setup, Setup::ActPass);
    assert_eq!(edit("a=setup:actpass", "a=setup:active").setup, Setup::Active);
    assert_eq!(edit("a=setup:actpass", "a=setup:passive").setup, Setup::Passive);
    assert_eq!(edit("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP").profile, Profile::Savp);
    assert_eq!(edit("opus/48000/2", "OPUS/48000/2").opus.payload_type, 111);
    assert_eq!(edit("sha-256 75", "Sha-256 75").fingerprint[0], 0x75);
    assert_eq!(edit("a=fmtp:111 ", "a=fmtp:96 ").opus.fmtp, None);
    assert_eq!(edit("a=ssrc:613016344", "a=ssrc:nonsense").ssrc, None);
    assert_eq!(edit("a=ptime:20", "a=ptime:20.0").ptime, Some(20));
    assert_eq!(edit("a=rtcp-fb:111 transport-cc", "a=rtcp-fb:* nack").opus.rtcp_fb, ["nack"]);
    assert_eq!(edit("t=0 0", "b=AS:64\r\nt=0 0").candidates.len(), 2);

    let at_session_level =
        ["a=ice-ufrag:NvPeRHRlBReaRYCZ\r\n", "a=ice-pwd:+219v9nKr3xSQIn8s+Fy8g==\r\n", "a=setup:actpass\r\n"];
    let moved = at_session_level.iter().fold(live.clone(), |text, line| text.replace(line, ""));
    let moved = moved.replace("m=audio", &format!("{}m=audio", at_session_level.concat()));
    assert_eq!(offer(&moved).ice.ufrag, "NvPeRHRlBReaRYCZ");
}

#[test]
fn the_nearer_level_wins() {
    let live = fixture("offer-live-2026-10-02.sdp");
    let far = live.replace("a=ice-lite", "a=ice-lite\r\na=ice-ufrag:farther\r\na=setup:active\r\na=inactive");
    let offer = offer(&far);
    assert_eq!((offer.ice.ufrag.as_str(), offer.setup), ("NvPeRHRlBReaRYCZ", Setup::ActPass));
}

#[test]
fn the_first_opus_of_the_m_line_is_taken_and_rtcp_numbers_are_passed_over() {
    let live = fixture("offer-live-2026-10-02.sdp");
    let two = live
        .replace("SAVPF 111 126", "SAVPF 72 100 111 126")
        .replace("a=rtpmap:126", "a=rtpmap:72 opus/48000/2\r\na=rtpmap:100 opus/48000/2\r\na=rtpmap:126");
    assert_eq!(offer(&two).opus.payload_type, 100);
}

#[test]
fn credentials_do_not_print() {
    for (name, text) in samples::acceptable() {
        let offer = offer(&text);
        let shown = format!("{offer:?}");
        assert!(!shown.contains(&offer.ice.ufrag) && !shown.contains(&offer.ice.pwd), "{name}");
    }
}
