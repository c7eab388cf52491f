//! Offers for tests: the fixtures, and offers laid out as browsers and libraries write them. CRLF line ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::answer::{AnswerParams, write_answer};
use super::offer::Offer;

fn fixtures() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", "sdp"].iter().collect()
}

/// One fixture's text.
pub(crate) fn fixture(name: &str) -> String {
    std::fs::read_to_string(fixtures().join(name)).expect(name)
}

/// Names of the fixtures that start so, sorted.
pub(crate) fn fixture_names(prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(fixtures()).expect("the fixtures are part of the repository");
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

/// Every offer that must be answered: name and text.
pub(crate) fn acceptable() -> Vec<(String, String)> {
    let mut offers: Vec<(String, String)> = [fixture_names("offer-"), fixture_names("variant-")]
        .concat()
        .into_iter()
        .filter(|name| name != "offer-metadoc-sdes.sdp")
        .map(|name| (name.clone(), fixture(&name)))
        .collect();
    for (name, text) in [("chrome", chrome()), ("firefox", firefox()), ("aiortc", aiortc()), ("safari", safari())] {
        offers.push((name.to_owned(), text));
    }
    offers
}

/// The parsed form of a good offer.
pub(crate) fn offer(text: &str) -> Offer {
    Offer::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// WhatsApp's layout with the relay's two candidates at other places.
pub(crate) fn relay_at(first: &str, second: &str, port: u16) -> String {
    fixture("offer-live-2026-10-02.sdp")
        .replace("203.0.113.49 3480 typ", &format!("{first} {port} typ"))
        .replace("2001:0db8:f312:131:face:b00c:0:699c 3480 typ", &format!("{second} {port} typ"))
}

/// Our side of `proposed-answer.sdp`, but for the fingerprint: its digits are those of a synthetic offer, too.
pub(crate) fn params() -> AnswerParams<'static> {
    AnswerParams {
        session_id: 4_611_731_400_430_051_336,
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), 40_000),
        ufrag: "aB3dE6gH",
        pwd: "kLmN0pQrStUvWxYz12345678",
        fingerprint: std::array::from_fn(|i| 0xe0 | i as u8),
        ssrc: 2_911_500_123,
        cname: "BridgeAudio1",
        stream_id: "5d9a1f0c-6d1e-4f6e-9a56-3c2f1c0e7b11",
        track_id: "BridgeTrack1",
    }
}

/// An answer to an offer by [`params`].
pub(crate) fn answer(offer_text: &str) -> String {
    write_answer(&offer(offer_text), &params())
}

fn crlf(text: &str) -> String {
    text.trim_start().replace('\n', "\r\n")
}

/// Chrome 130: microphone only, mDNS candidates, RED, many payload types, extensions.
pub(crate) fn chrome() -> String {
    crlf("
v=0
o=- 7273918276351928374 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=extmap-allow-mixed
a=msid-semantic: WMS 4c0b7d2f-8f4e-4f7c-8f58-3f6c8e1f2a90
m=audio 51472 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:2270012313 1 udp 2122260223 0b6c2f0e-4d1b-4c51-8f2e-1ad0a5d0ee34.local 51472 typ host generation 0 network-id 1 network-cost 10
a=candidate:1876313031 1 udp 2122194687 7c1f0a52-63c8-4b6e-9a07-65a1f0f1d9c2.local 60123 typ host generation 0 network-id 2
a=candidate:3388485749 1 tcp 1518280447 0b6c2f0e-4d1b-4c51-8f2e-1ad0a5d0ee34.local 9 typ host tcptype active generation 0 network-id 1 network-cost 10
a=ice-ufrag:+fG7
a=ice-pwd:q0Zr9h3Qf/4cV+u2m1WnYbTs
a=ice-options:trickle
a=fingerprint:sha-256 7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08
a=setup:actpass
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendrecv
a=msid:4c0b7d2f-8f4e-4f7c-8f58-3f6c8e1f2a90 1f7a3a55-6a3a-4c41-8f43-7a9f0c6fd0f5
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:2231627014 cname:4TOk42mSjXCkVIa6
a=ssrc:2231627014 msid:4c0b7d2f-8f4e-4f7c-8f58-3f6c8e1f2a90 1f7a3a55-6a3a-4c41-8f43-7a9f0c6fd0f5
")
}

/// Firefox: payload type 109, fingerprint and direction at session level, an event format with fmtp.
pub(crate) fn firefox() -> String {
    crlf(
        "
v=0
o=mozilla...THIS_IS_SDPARTA-99.0 8323741283746512 0 IN IP4 0.0.0.0
s=-
t=0 0
a=sendrecv
a=fingerprint:sha-256 d2:b6:7c:0a:4d:41:9b:0f:51:25:e4:8f:5e:43:97:2a:64:ac:8b:ef:06:0c:de:57:9b:1f:33:72:ed:08:c1:b5
a=group:BUNDLE 0
a=ice-options:trickle
a=msid-semantic:WMS *
m=audio 9 UDP/TLS/RTP/SAVPF 109 9 0 8 101
c=IN IP4 0.0.0.0
a=candidate:0 1 UDP 2122252543 31.13.64.9 54609 typ host
a=candidate:1 1 TCP 2105524479 31.13.64.9 9 typ host tcptype active
a=candidate:0 2 UDP 2122252542 31.13.64.9 54610 typ host
a=sendrecv
a=end-of-candidates
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1
a=fmtp:101 0-15
a=ice-pwd:4ddcd8a4a1a6cd0ee6ed5bd2ae3c1b9a
a=ice-ufrag:6a1b2c3d
a=mid:0
a=msid:{2a1e8c2c-75d1-4c55-9d0b-6ae6f0a3a7d1} {6a0b6fb9-9d0d-4b7a-8d8f-f7d7b1d6f1ce}
a=rtcp-mux
a=rtpmap:109 opus/48000/2
a=rtpmap:9 G722/8000/1
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000/1
a=setup:actpass
a=ssrc:3735928559 cname:{f1c9d7c8-0e5b-4d5e-9e0f-5f0c1c7d2b3a}
",
    )
}

/// aiortc: payload type 96, three fingerprints, no fmtp, private candidates.
pub(crate) fn aiortc() -> String {
    crlf("
v=0
o=- 3969670312 3969670312 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0
a=msid-semantic:WMS *
m=audio 51420 UDP/TLS/RTP/SAVPF 96 9 0 8
c=IN IP4 192.168.1.105
a=sendrecv
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:2 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=mid:0
a=msid:af87c5bc-d802-4572-9423-90b4f778b127 780da3b0-c136-411a-a62a-4be38cf71504
a=rtcp:9 IN IP4 0.0.0.0
a=rtcp-mux
a=ssrc:871350736 cname:571588de-f844-4e01-8bef-e64c539ea7fa
a=rtpmap:96 opus/48000/2
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=candidate:81e4055b388bb46e1abb9c8a0f6f87ce 1 udp 2130706431 192.168.1.105 51420 typ host
a=candidate:ba07806f1ab850f35970a5643d51e347 1 udp 1694498815 31.13.64.120 7371 typ srflx raddr 192.168.1.105 rport 51420
a=end-of-candidates
a=ice-ufrag:TJvS
a=ice-pwd:KTrAGZGgLLknVI4GLfjXFp
a=fingerprint:sha-256 5C:8E:0A:DD:2B:2B:5E:AC:6C:13:71:2E:C8:E4:0A:B5:F5:2C:7D:D7:38:97:0A:B2:4F:F5:14:8E:4A:10:22:CE
a=fingerprint:sha-384 D0:52:E8:5C:CB:38:51:5E:4B:4F:A2:16:2C:DE:12:0F:BC:49:C2:CA:38:CC:E2:87:57:84:50:FA:D8:C2:2D:83:00:AF:39:CE:96:3C:64:FE:4D:47:6B:9B:51:C7:FA:F9
a=fingerprint:sha-512 1D:54:67:5D:C8:2D:AF:8F:A8:78:9E:3E:43:BF:21:21:56:67:9E:AE:0F:8E:6E:3C:90:83:BD:15:91:DD:B9:55:25:39:2A:CB:4A:EB:5F:AF:9A:FF:34:64:F0:5C:F4:5C:CA:1B:90:2F:19:BD:01:D6:60:33:33:31:6F:C0:17:A3
a=setup:actpass
")
}

/// Safari: as Chrome, with older habits: several event clocks, srflx before host, no rtcp-fb for Opus.
pub(crate) fn safari() -> String {
    crlf("
v=0
o=- 4962303333179871723 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE audio
a=msid-semantic: WMS 7f2d6a31-0a34-4b5c-8b38-0d9f2b0a5f6b
m=audio 58779 UDP/TLS/RTP/SAVPF 111 103 9 102 0 8 105 13 110 113 126
c=IN IP4 31.13.64.77
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:842163049 1 udp 1677729535 31.13.64.77 58779 typ srflx raddr 0.0.0.0 rport 0 generation 0 network-cost 999
a=candidate:1467250027 1 udp 2122260223 d7c0b84e-8a2a-4e0e-8d8a-6b3d5f4bb1a3.local 58779 typ host generation 0 network-cost 999
a=ice-ufrag:Oyef
a=ice-pwd:OpEwn8eC6k5KdWbNOoPzVqXt
a=ice-options:trickle
a=fingerprint:SHA-256 49:66:12:17:0D:1C:91:AE:57:4C:C6:36:DD:D5:97:D2:7D:62:C9:9A:7F:B9:A3:F4:70:03:E7:43:91:73:23:5E
a=setup:actpass
a=mid:audio
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=sendrecv
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10; useinbandfec=1
a=rtpmap:103 ISAC/16000
a=rtpmap:9 G722/8000
a=rtpmap:102 ILBC/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:105 CN/16000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:113 telephone-event/16000
a=rtpmap:126 telephone-event/8000
a=maxptime:60
a=ssrc:1976175890 cname:YZcxBwerFFm6GH69
a=ssrc:1976175890 msid:7f2d6a31-0a34-4b5c-8b38-0d9f2b0a5f6b d1a2c3b4-1111-4222-8333-944455566677
")
}
