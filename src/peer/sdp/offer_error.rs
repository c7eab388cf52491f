//! Why an offer cannot be answered, in words for the person who sent it.
//!
//! Each error names the line or attribute at fault and what would be right. None carries credentials, and what it
//! quotes of the offer is clipped and printable, so it may go into a log line and an HTTP body.

use std::fmt;
use std::net::SocketAddr;

use super::candidate::Refused;
use super::lines::{OFFER_ATTRIBUTES_MAX, OFFER_BYTES_MAX, OFFER_LINES_MAX, OFFER_MEDIA_MAX};

/// Most characters of an offer that an error quotes.
const EXCERPT_CHARS_MAX: usize = 40;
/// Most candidates that an error lists: as many as would have been used.
const LISTED_CANDIDATES_MAX: usize = super::candidate::CANDIDATES_MAX;

/// An offer that cannot be answered. `line` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferError {
    /// More than [`OFFER_BYTES_MAX`] bytes. The one error that HTTP calls 413.
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// More than [`OFFER_LINES_MAX`] lines.
    TooManyLines,
    /// More than [`OFFER_MEDIA_MAX`] m-lines.
    TooManyMedia {
        /// The first m-line too many.
        line: u32,
    },
    /// More than [`OFFER_ATTRIBUTES_MAX`] attributes in one section.
    TooManyAttributes {
        /// The first attribute too many.
        line: u32,
    },
    /// A line that no session description has.
    NotSdp {
        /// Which.
        line: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No m-line at all.
    NoAudio,
    /// An m-line that is not audio.
    OtherMedia {
        /// Which.
        line: u32,
        /// Its media type, clipped.
        kind: String,
    },
    /// A second audio m-line.
    SeveralAudio {
        /// Which.
        line: u32,
    },
    /// Keys by SDES (`a=crypto`) instead of DTLS.
    Sdes {
        /// The m-line or the `a=crypto` line.
        line: u32,
    },
    /// RTP without encryption.
    NotEncrypted {
        /// The m-line.
        line: u32,
        /// Its profile, clipped.
        profile: String,
    },
    /// A profile that is none of ours.
    Profile {
        /// The m-line.
        line: u32,
        /// Its profile, clipped.
        profile: String,
    },
    /// No `a=rtcp-mux`.
    NoRtcpMux,
    /// Audio in one direction only, or in none.
    Direction {
        /// Which line says so.
        line: u32,
        /// `sendonly`, `recvonly` or `inactive`.
        direction: &'static str,
    },
    /// No `opus/48000/2` among the formats of the m-line.
    NoOpus {
        /// The m-line.
        line: u32,
    },
    /// No `a=fingerprint`.
    NoFingerprint,
    /// Fingerprints, but none by sha-256.
    NoSha256 {
        /// The first fingerprint.
        line: u32,
        /// Its hash, clipped.
        hash: String,
    },
    /// `a=ice-ufrag` or `a=ice-pwd` is missing.
    NoIce {
        /// Which of the two.
        attribute: &'static str,
    },
    /// An attribute, or the m-line, whose value cannot be used.
    Attribute {
        /// Which line.
        line: u32,
        /// Its name.
        attribute: &'static str,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// The offerer is ice-lite, so it never checks us, and we may use none of its candidates.
    NoCandidate {
        /// Each IP candidate and why it is not used.
        refused: Vec<(SocketAddr, Refused)>,
        /// Candidates that are `.local` names.
        mdns: u32,
        /// Candidates that are TCP, another component, other names, or malformed.
        unused: u32,
    },
}

impl OfferError {
    /// A short, stable name for APIs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "offer_too_large",
            Self::TooManyLines => "offer_too_many_lines",
            Self::TooManyMedia { .. } => "offer_too_many_media",
            Self::TooManyAttributes { .. } => "offer_too_many_attributes",
            Self::NotSdp { .. } => "offer_not_sdp",
            Self::NoAudio => "offer_no_audio",
            Self::OtherMedia { .. } => "offer_other_media",
            Self::SeveralAudio { .. } => "offer_several_audio",
            Self::Sdes { .. } => "offer_sdes",
            Self::NotEncrypted { .. } => "offer_not_encrypted",
            Self::Profile { .. } => "offer_profile",
            Self::NoRtcpMux => "offer_no_rtcp_mux",
            Self::Direction { .. } => "offer_direction",
            Self::NoOpus { .. } => "offer_no_opus",
            Self::NoFingerprint => "offer_no_fingerprint",
            Self::NoSha256 { .. } => "offer_no_sha256",
            Self::NoIce { .. } => "offer_no_ice",
            Self::Attribute { .. } => "offer_bad_attribute",
            Self::NoCandidate { .. } => "offer_no_candidate",
        }
    }
}

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes } => {
                write!(f, "the offer has {bytes} bytes; at most {OFFER_BYTES_MAX} are read")
            }
            Self::TooManyLines => write!(f, "the offer has more than {OFFER_LINES_MAX} lines"),
            Self::TooManyMedia { line } => {
                write!(f, "line {line}: more than {OFFER_MEDIA_MAX} m= lines; offer one, for audio")
            }
            Self::TooManyAttributes { line } => {
                write!(f, "line {line}: more than {OFFER_ATTRIBUTES_MAX} a= lines in one section")
            }
            Self::NotSdp { line, problem } => write!(f, "line {line} {problem}"),
            Self::NoAudio => f.write_str("the offer has no m=audio line"),
            Self::OtherMedia { line, kind } => {
                write!(f, "line {line}: offers {kind}; only one audio line can be answered, so offer audio alone")
            }
            Self::SeveralAudio { line } => {
                write!(f, "line {line}: a second m=audio line; only one audio line can be answered")
            }
            Self::Sdes { line } => write!(
                f,
                "line {line}: the offer exchanges keys by SDES (RTP/SAVP, a=crypto); only DTLS-SRTP is spoken here. \
                 Set calling.srtp_key_exchange_protocol to \"DTLS\" in the settings of the WhatsApp number"
            ),
            Self::NotEncrypted { line, profile } => {
                write!(f, "line {line}: {profile} is RTP without encryption; offer UDP/TLS/RTP/SAVPF")
            }
            Self::Profile { line, profile } => {
                write!(f, "line {line}: unknown profile {profile}; offer UDP/TLS/RTP/SAVPF")
            }
            Self::NoRtcpMux => {
                f.write_str("a=rtcp-mux is missing; RTP and RTCP share one port here, so the offer must allow it")
            }
            Self::Direction { line, direction } => {
                let effect = match *direction {
                    "sendonly" => "the caller would not hear anything",
                    "recvonly" => "there would be nothing to hear from the caller",
                    _ => "no audio would flow",
                };
                write!(f, "line {line}: a={direction}: {effect}; offer a=sendrecv")
            }
            Self::NoOpus { line } => write!(
                f,
                "line {line}: no payload type of the m=audio line maps to opus/48000/2 \
                 (a=rtpmap:111 opus/48000/2; types 64 to 95 are RTCP's under rtcp-mux)"
            ),
            Self::NoFingerprint => {
                f.write_str("a=fingerprint is missing; DTLS-SRTP needs the sha-256 of the offerer's certificate")
            }
            Self::NoSha256 { line, hash } => {
                write!(f, "line {line}: a=fingerprint by {hash} only; add one by sha-256")
            }
            Self::NoIce { attribute } => write!(f, "a={attribute} is missing; media needs ICE"),
            Self::Attribute { line, attribute, problem } => write!(f, "line {line}: {attribute} {problem}"),
            Self::NoCandidate { refused, mdns, unused } => {
                f.write_str("the offer is ice-lite and has no a=candidate that may be used")?;
                let mut separator = ": ";
                for (addr, why) in refused.iter().take(LISTED_CANDIDATES_MAX) {
                    write!(f, "{separator}{addr}: {why}")?;
                    separator = "; ";
                }
                if refused.len() > LISTED_CANDIDATES_MAX {
                    write!(f, "; and {} more", refused.len() - LISTED_CANDIDATES_MAX)?;
                }
                if *mdns > 0 {
                    write!(f, "{separator}{mdns} .local names, which are never resolved")?;
                    separator = "; ";
                }
                if *unused > 0 {
                    write!(f, "{separator}{unused} that are not UDP, component 1 and an IP address")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for OfferError {}

/// The start of a text from an offer, printable and clipped.
pub(super) fn excerpt(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(EXCERPT_CHARS_MAX).map(plain).collect()
}
