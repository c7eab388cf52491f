//! The answer to an offer, as text.
//!
//! Written by us and not by the WebRTC stack: WhatsApp wants `ptime:20`, a candidate inline, `c=` right under `m=`, and
//! nothing that was not offered. Promises only what the rest of the bridge does. The same offer and parameters give the
//! same bytes; WhatsApp compares them between `pre_accept` and `accept`.

use std::fmt::{Arguments, Write};
use std::net::SocketAddr;

use super::offer::{Offer, PTIME_MS, Setup};

/// How the hash is named. RFC 8122 compares it without case, and both cases were seen accepted.
const HASH_NAME: &str = "sha-256";
/// Priority of the only candidate (RFC 8445, section 5.1.2.1): type preference of a host, then all ones.
const PRIORITY: u32 = (126 << 24) | (65_535 << 8) | 255;
/// Longest answer, in bytes: about 1 KiB of ours and each text of an offer at its maximum.
pub const ANSWER_BYTES_MAX: usize = 4096;

/// Our side of a call. Every text is of our own making: letters, digits and `-._+/` only, at most 64 bytes.
#[derive(Clone, Copy)]
pub struct AnswerParams<'a> {
    /// Session id of the `o=` line; its lowest 63 bits are used (RFC 8829, section 5.2.1).
    pub session_id: u64,
    /// Where this call's media reaches us: the advertised address and the call's own port.
    pub address: SocketAddr,
    /// Our ICE username fragment: at least 4 letters, digits, `+` or `/`.
    pub ufrag: &'a str,
    /// Our ICE password: at least 22 letters, digits, `+` or `/`.
    pub pwd: &'a str,
    /// sha-256 of our DTLS certificate.
    pub fingerprint: [u8; 32],
    /// The one SSRC that we send with.
    pub ssrc: u32,
    /// Its canonical name.
    pub cname: &'a str,
    /// The id of our one stream.
    pub stream_id: &'a str,
    /// The id of its one track.
    pub track_id: &'a str,
}

/// Writes the answer.
///
/// Left out on purpose: `ice-lite` and trickle (we are a full agent and all candidates are here); header extensions,
/// since none is used; and every `rtcp-fb`, `transport-cc` above all: no congestion feedback, NACK or key frame request
/// is made or served here, and an answer that promises feedback leaves the sender waiting for it.
pub fn write_answer(offer: &Offer, params: &AnswerParams<'_>) -> String {
    let mut text = String::with_capacity(1536);
    let mut line = |line: Arguments<'_>| {
        text.write_fmt(line).expect("a String takes every write");
        text.push_str("\r\n");
    };
    let (ip, port) = (params.address.ip().to_canonical(), params.address.port());
    let (family, any) = if ip.is_ipv4() { ("IP4", "0.0.0.0") } else { ("IP6", "::") };
    let opus = &offer.opus;

    line(format_args!("v=0"));
    line(format_args!("o=- {} 2 IN {family} {ip}", params.session_id & (u64::MAX >> 1)));
    line(format_args!("s=-"));
    line(format_args!("t=0 0"));
    if let Some(mid) = offer.mid.as_ref().filter(|_| offer.bundled) {
        line(format_args!("a=group:BUNDLE {mid}"));
    }
    line(format_args!("a=msid-semantic: WMS {}", params.stream_id));

    let profile = offer.profile.as_str();
    match &offer.telephone_event {
        Some(event) => line(format_args!("m=audio {port} {profile} {} {}", opus.payload_type, event.payload_type)),
        None => line(format_args!("m=audio {port} {profile} {}", opus.payload_type)),
    }
    line(format_args!("c=IN {family} {ip}"));
    line(format_args!("a=rtcp:9 IN {family} {any}"));
    line(format_args!("a=candidate:1 1 udp {PRIORITY} {ip} {port} typ host generation 0"));
    line(format_args!("a=end-of-candidates"));
    line(format_args!("a=ice-ufrag:{}", params.ufrag));
    line(format_args!("a=ice-pwd:{}", params.pwd));
    line(format_args!("a=fingerprint:{HASH_NAME} {}", colon_hex(&params.fingerprint)));
    line(format_args!("a=setup:{}", if offer.setup == Setup::Active { "passive" } else { "active" }));
    if let Some(mid) = &offer.mid {
        line(format_args!("a=mid:{mid}"));
    }
    line(format_args!("a=sendrecv"));
    line(format_args!("a=msid:{} {}", params.stream_id, params.track_id));
    line(format_args!("a=rtcp-mux"));
    line(format_args!("a=rtpmap:{} opus/48000/2", opus.payload_type));
    if let Some(fmtp) = &opus.fmtp {
        line(format_args!("a=fmtp:{} {fmtp}", opus.payload_type));
    }
    if let Some(event) = &offer.telephone_event {
        line(format_args!("a=rtpmap:{} telephone-event/8000", event.payload_type));
        if let Some(fmtp) = &event.fmtp {
            line(format_args!("a=fmtp:{} {fmtp}", event.payload_type));
        }
    }
    if offer.maxptime.is_some() {
        line(format_args!("a=maxptime:{PTIME_MS}"));
    }
    line(format_args!("a=ptime:{PTIME_MS}"));
    line(format_args!("a=ssrc:{} cname:{}", params.ssrc, params.cname));
    text
}

fn colon_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}
