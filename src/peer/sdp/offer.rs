//! An offer as a call needs it, and nothing else of it.
//!
//! What is kept as text is bounded and printable, since the answer repeats it. Knows neither the text it came from nor a
//! policy: candidates are kept as offered.

use std::fmt;

use super::candidate::RemoteCandidate;
use super::opus_params::OpusParams;

/// Longest `mid` taken, in bytes. Live ones are `audio` and `0`; some browsers wrote a UUID in braces.
pub const MID_BYTES_MAX: usize = 64;
/// Longest `fmtp` taken, in bytes: it is copied into the answer. WhatsApp's has 104.
pub const FMTP_BYTES_MAX: usize = 512;
/// Duration of the packets we send, in milliseconds.
pub const PTIME_MS: u32 = 20;

/// An offer we can answer.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Transport profile of the audio line, to be repeated by the answer.
    pub profile: Profile,
    /// `a=mid` of the audio line as offered, at most [`MID_BYTES_MAX`] bytes; an answer has one only if the offer has.
    pub mid: Option<String>,
    /// Whether a BUNDLE group names this mid.
    pub bundled: bool,
    /// Whether the offerer is an ICE-lite agent: then we control, and its candidates are the only way to it.
    pub ice_lite: bool,
    /// The offerer's ICE credentials.
    pub ice: IceCredentials,
    /// sha-256 of the offerer's DTLS certificate.
    pub fingerprint: [u8; 32],
    /// The DTLS role offered.
    pub setup: Setup,
    /// UDP candidates of component 1, in the order of the text, not judged yet (see [`Policy`](super::Policy)).
    pub candidates: Vec<RemoteCandidate>,
    /// How many candidates were `.local` names, which are never resolved.
    pub mdns_candidates: u32,
    /// How many candidates were TCP, another component, another name, or malformed.
    pub unused_candidates: u32,
    /// The Opus format to use.
    pub opus: OpusFormat,
    /// The telephone-event format with the 8000 Hz clock.
    pub telephone_event: Option<TelephoneEvent>,
    /// The first SSRC announced for the audio line.
    pub ssrc: Option<u32>,
    /// `a=ptime`, in milliseconds.
    pub ptime: Option<u32>,
    /// `a=maxptime`, in milliseconds, at least [`PTIME_MS`].
    pub maxptime: Option<u32>,
}

/// Transport profile of the audio line (RFC 5764).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `UDP/TLS/RTP/SAVPF`.
    Savpf,
    /// `UDP/TLS/RTP/SAVP`.
    Savp,
}

impl Profile {
    /// As the m-line says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Savpf => "UDP/TLS/RTP/SAVPF",
            Self::Savp => "UDP/TLS/RTP/SAVP",
        }
    }
}

/// Who opens the DTLS handshake, as the offer has it (RFC 4145, RFC 5763).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Either; we choose to open it.
    ActPass,
    /// The offerer opens it: we must wait, as DTLS server.
    Active,
    /// The offerer waits: we must open it.
    Passive,
}

impl Setup {
    /// Whether we are the DTLS client.
    pub const fn we_are_client(self) -> bool {
        !matches!(self, Self::Active)
    }
}

/// ICE username fragment and password. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// Username fragment, 4 to 256 bytes.
    pub ufrag: String,
    /// Password, 22 to 256 bytes.
    pub pwd: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// An offered `opus/48000/2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpusFormat {
    /// RTP payload type, below 128 and not 64 to 95.
    pub payload_type: u8,
    /// Its `fmtp` parameters verbatim, at most [`FMTP_BYTES_MAX`] bytes of printable ASCII.
    pub fmtp: Option<String>,
    /// What the same `fmtp` means for our encoder.
    pub params: OpusParams,
    /// `rtcp-fb` values for this payload type or for all, such as `transport-cc`.
    pub rtcp_fb: Vec<String>,
}

/// An offered `telephone-event/8000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// RTP payload type, below 128 and not 64 to 95.
    pub payload_type: u8,
    /// Its `fmtp` verbatim, such as `0-16`; bounded as that of Opus.
    pub fmtp: Option<String>,
}
