//! The offer, laid out line by line as WhatsApp's live ones: what differs between two calls is what differs here.
//!
//! This file must not know how a call runs.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};

use super::rng::Rng;

/// What one call's offer says that another's does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The relay's address, the one that can be reached.
    pub address: SocketAddr,
    /// An IPv6 address with the higher priority that nothing answers on, at the same port.
    pub unreachable: Ipv6Addr,
    /// The number in the `o=` line.
    pub session: u64,
    /// The media stream's id, a UUID.
    pub stream: String,
    /// Foundations of the IPv4 and of the IPv6 candidate.
    pub foundations: [u32; 2],
    /// ICE username fragment, 16 characters.
    pub ufrag: String,
    /// ICE password: 24 characters that end in `==`, which RFC 8839 does not allow and WhatsApp sends.
    pub password: String,
    /// `sha-256 AB:CD:...`.
    pub fingerprint: String,
    /// SSRC of the relay's audio.
    pub ssrc: u32,
}

/// The IPv6 address that offers carry: of the range for documentation, so that nothing can ever answer.
const UNREACHABLE: Ipv6Addr = Ipv6Addr::new(0x2001, 0x0db8, 0xf312, 0x131, 0xface, 0xb00c, 0, 0x699c);

const ALPHANUMERIC: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl Offer {
    /// An offer of its own for each call.
    pub(super) fn draw(address: SocketAddr, fingerprint: String, rng: &mut Rng) -> Self {
        let mut text = |alphabet: &[u8], len: usize| -> String {
            (0..len).map(|_| char::from(alphabet[rng.below(alphabet.len())])).collect()
        };
        let ufrag = text(ALPHANUMERIC, 16);
        // 16 bytes in base64: the last of the 22 characters carries two bits.
        let password = text(BASE64, 21) + &text(b"AQgw", 1) + "==";
        let hex = text(b"0123456789abcdef", 32);
        let stream = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        Self {
            address,
            unreachable: UNREACHABLE,
            session: 1_700_000_000_000 + u64::from(rng.next_u32()),
            stream,
            foundations: [rng.next_u32(), rng.next_u32()],
            ufrag,
            password,
            fingerprint,
            ssrc: rng.next_u32().max(1),
        }
    }
}

/// The address in full form with its first groups padded, as the live offers write it.
fn padded(address: Ipv6Addr) -> String {
    let [first, second, rest @ ..] = address.segments();
    let rest = rest.map(|group| format!("{group:x}")).join(":");
    format!("{first:04x}:{second:04x}:{rest}")
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, stream, foundations: [v4, v6], ufrag, password, fingerprint, ssrc, .. } = self;
        let (ip, port, unreachable) = (self.address.ip(), self.address.port(), padded(self.unreachable));
        write!(f, "v=0\r\no=- {session} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE audio\r\n")?;
        write!(f, "a=msid-semantic: WMS {stream}\r\na=ice-lite\r\n")?;
        write!(f, "m=audio {port} UDP/TLS/RTP/SAVPF 111 126\r\nc=IN IP4 {ip}\r\na=rtcp:9 IN IP4 0.0.0.0\r\n")?;
        write!(f, "a=candidate:{v4} 1 udp 2122260223 {ip} {port} typ host generation 0 network-cost 50\r\n")?;
        write!(f, "a=candidate:{v6} 1 udp 2122262783 {unreachable} {port} typ host generation 0 network-cost 50\r\n")?;
        write!(f, "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\na=fingerprint:{fingerprint}\r\n")?;
        write!(f, "a=setup:actpass\r\na=mid:audio\r\na=sendrecv\r\na=msid:{stream} WhatsAppTrack1\r\na=rtcp-mux\r\n")?;
        write!(f, "a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n")?;
        write!(f, "a=fmtp:111 maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;")?;
        write!(f, "sprop-maxcapturerate=16000;useinbandfec=1\r\n")?;
        write!(f, "a=rtpmap:126 telephone-event/8000\r\na=maxptime:20\r\na=ptime:20\r\n")?;
        write!(f, "a=ssrc:{ssrc} cname:WhatsAppAudioStream1\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A live offer of 2026-10-02, its addresses replaced by ones of the ranges for documentation.
    const LIVE: &str = "v=0
o=- 1790963543407 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE audio
a=msid-semantic: WMS 7da83f2b-4810-4fe9-b568-5c88eb1b1724
a=ice-lite
m=audio 3480 UDP/TLS/RTP/SAVPF 111 126
c=IN IP4 203.0.113.49
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:2275956755 1 udp 2122260223 203.0.113.49 3480 typ host generation 0 network-cost 50
a=candidate:2684782176 1 udp 2122262783 2001:0db8:f312:131:face:b00c:0:699c 3480 typ host generation 0 network-cost 50
a=ice-ufrag:NvPeRHRlBReaRYCZ
a=ice-pwd:+219v9nKr3xSQIn8s+Fy8g==
a=fingerprint:sha-256 75:85:02:48:2F:A1:97:65:81:65:4C:B3:2D:13:72:84:8F:D4:BE:31:6E:A0:71:34:52:C3:7A:28:76:43:C6:71
a=setup:actpass
a=mid:audio
a=sendrecv
a=msid:7da83f2b-4810-4fe9-b568-5c88eb1b1724 WhatsAppTrack1
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;sprop-maxcapturerate=16000;useinbandfec=1
a=rtpmap:126 telephone-event/8000
a=maxptime:20
a=ptime:20
a=ssrc:613016344 cname:WhatsAppAudioStream1
";

    #[test]
    fn the_layout_is_a_live_offers_byte_for_byte() {
        let fingerprint = "sha-256 75:85:02:48:2F:A1:97:65:81:65:4C:B3:2D:13:72:84:\
                           8F:D4:BE:31:6E:A0:71:34:52:C3:7A:28:76:43:C6:71";
        let offer = Offer {
            address: "203.0.113.49:3480".parse().unwrap(),
            unreachable: UNREACHABLE,
            session: 1_790_963_543_407,
            stream: "7da83f2b-4810-4fe9-b568-5c88eb1b1724".into(),
            foundations: [2_275_956_755, 2_684_782_176],
            ufrag: "NvPeRHRlBReaRYCZ".into(),
            password: "+219v9nKr3xSQIn8s+Fy8g==".into(),
            fingerprint: fingerprint.into(),
            ssrc: 613_016_344,
        };
        assert_eq!(offer.to_string(), LIVE.replace('\n', "\r\n"));
    }

    #[test]
    fn drawn_values_have_the_live_lengths_and_differ_between_calls() {
        let mut rng = Rng::new(1);
        let address = "127.0.0.1:3480".parse().unwrap();
        let mut draw = || Offer::draw(address, "sha-256 00".into(), &mut rng);
        let (one, two) = (draw(), draw());
        assert_eq!((one.ufrag.len(), one.password.len(), one.stream.len()), (16, 24, 36));
        assert!(one.password.ends_with("=="));
        assert_ne!(one.ufrag, two.ufrag);
        assert_ne!(one.password, two.password);
        assert_ne!(one.ssrc, two.ssrc);
    }
}
