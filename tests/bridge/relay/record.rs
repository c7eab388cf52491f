//! What the relay saw of one call, for a test to judge afterwards.
//!
//! Facts only: nothing here changes how the call runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Packets kept per call and direction: an hour and more of audio. Further ones are only counted.
const PACKETS_MAX: usize = 200_000;

/// Distinct sources kept per call.
const SOURCES_MAX: usize = 8;

/// Business media must have reached WhatsApp's client this soon after the call began, or it hangs up.
pub(crate) const FIRST_MEDIA_MAX: Duration = Duration::from_secs(20);

/// The longest stretch without any packet that WhatsApp's client bears.
pub(crate) const GAP_MAX: Duration = Duration::from_secs(30);

/// One call as the relay saw it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// When the offer was made.
    offered: Instant,
    /// When the answer was applied.
    pub(crate) answered: Option<Instant>,
    /// When ICE had its nominated pair.
    pub(crate) nominated: Option<Instant>,
    /// When the DTLS handshake ended well.
    pub(crate) connected: Option<Instant>,
    /// When the other side closed, or DTLS failed.
    pub(crate) closed: Option<Instant>,
    /// Connectivity checks.
    pub(crate) checks: Checks,
    /// Every address that sent a check which passed, in order.
    pub(crate) sources: Vec<SocketAddr>,
    /// RTP received, decrypted, each packet once, in order of arrival.
    pub(crate) received: Vec<Received>,
    /// Every SSRC heard, in order.
    pub(crate) ssrcs: Vec<u32>,
    /// RTP packets that came again.
    pub(crate) duplicates: u64,
    /// RTP packets that could not be believed: before DTLS, not decrypted, or more than 100 behind the newest.
    pub(crate) undecryptable: u64,
    /// RTCP packets received, as they are seen on the wire.
    pub(crate) rtcp: u64,
    /// Datagrams that str0m refused with an error.
    pub(crate) errors: u64,
    /// RTP handed out, lost ones too.
    pub(crate) sent: Vec<Sent>,
    rtp_heard: u64,
    last_packet: Option<Instant>,
    longest_gap: Duration,
}

/// Connectivity checks of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    /// Before the answer was applied: unanswered.
    pub(crate) before_answer: u64,
    /// After it.
    pub(crate) after_answer: u64,
    /// Of those after it, the ones left unanswered because the test said so.
    pub(crate) ignored: u64,
    /// Of those after it, the ones that failed their integrity check.
    pub(crate) refused: u64,
    /// Of those after it, the ones in the relay's own role: answered with 487.
    pub(crate) role_conflicts: u64,
    /// Checks that carried USE-CANDIDATE.
    pub(crate) nominating: u64,
    /// The very first check nominated already: aggressive nomination.
    pub(crate) aggressive: bool,
    /// Checks after DTLS was connected: consent (RFC 7675).
    pub(crate) consent: u64,
    /// When the first came.
    pub(crate) first: Option<Instant>,
    /// When the first after the answer came.
    pub(crate) first_after_answer: Option<Instant>,
    /// When the last came.
    pub(crate) last: Option<Instant>,
}

/// One RTP packet received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// When.
    pub(crate) at: Instant,
    /// Sequence number.
    pub(crate) seq: u16,
    /// RTP timestamp, 48 kHz.
    pub(crate) timestamp: u32,
    /// Its stream.
    pub(crate) ssrc: u32,
    /// Payload type.
    pub(crate) pt: u8,
    /// Marker bit.
    pub(crate) marker: bool,
    /// Payload, decrypted.
    pub(crate) payload: Arc<[u8]>,
}

/// One RTP packet sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// When its beat was handled.
    pub(crate) at: Instant,
    /// Sequence number.
    pub(crate) seq: u16,
    /// RTP timestamp, 48 kHz.
    pub(crate) timestamp: u32,
    /// Payload type.
    pub(crate) pt: u8,
}

impl Record {
    pub(super) fn new(offered: Instant) -> Self {
        Self {
            offered,
            answered: None,
            nominated: None,
            connected: None,
            closed: None,
            checks: Checks::default(),
            sources: Vec::new(),
            received: Vec::new(),
            ssrcs: Vec::new(),
            duplicates: 0,
            undecryptable: 0,
            rtcp: 0,
            errors: 0,
            sent: Vec::new(),
            rtp_heard: 0,
            last_packet: None,
            longest_gap: Duration::ZERO,
        }
    }

    /// From the offer to the first check.
    pub(crate) fn first_check_after_offer(&self) -> Option<Duration> {
        Some(self.checks.first? - self.offered)
    }

    /// From the answer's being applied to the end of the DTLS handshake.
    pub(crate) fn connect_time(&self) -> Option<Duration> {
        Some(self.connected? - self.answered?)
    }

    /// RTP packets received, those included that were too many to keep.
    pub(crate) fn rtp_heard(&self) -> u64 {
        self.rtp_heard
    }

    /// When the first RTP packet came.
    pub(crate) fn first_media(&self) -> Option<Instant> {
        self.received.first().map(|packet| packet.at)
    }

    /// Whether WhatsApp's client would have hung up by `now` for want of a first packet, 20 s after the answer.
    pub(crate) fn media_came_late(&self, now: Instant) -> bool {
        self.answered.is_some_and(|answered| self.first_media().unwrap_or(now) - answered > FIRST_MEDIA_MAX)
    }

    /// The longest time without RTP or RTCP since the first RTP packet, the one that lasts until `now` included.
    pub(crate) fn longest_gap(&self, now: Instant) -> Duration {
        self.last_packet.map_or(Duration::ZERO, |last| self.longest_gap.max(now.saturating_duration_since(last)))
    }

    /// Whether WhatsApp's client would have hung up by `now` for a gap in the media of more than 30 s.
    pub(crate) fn media_broke_off(&self, now: Instant) -> bool {
        self.longest_gap(now) > GAP_MAX
    }

    pub(super) fn heard_from(&mut self, source: SocketAddr) {
        if !self.sources.contains(&source) && self.sources.len() < SOURCES_MAX {
            self.sources.push(source);
        }
    }

    pub(super) fn heard_rtp(&mut self, packet: Received) {
        if !self.ssrcs.contains(&packet.ssrc) {
            self.ssrcs.push(packet.ssrc);
        }
        self.heard_packet(packet.at);
        self.rtp_heard += 1;
        if self.received.len() < PACKETS_MAX {
            self.received.push(packet);
        }
    }

    pub(super) fn heard_rtcp(&mut self, at: Instant) {
        self.rtcp += 1;
        if self.last_packet.is_some() {
            self.heard_packet(at);
        }
    }

    pub(super) fn sent_rtp(&mut self, packet: Sent) {
        if self.sent.len() < PACKETS_MAX {
            self.sent.push(packet);
        }
    }

    fn heard_packet(&mut self, at: Instant) {
        if let Some(last) = self.last_packet {
            self.longest_gap = self.longest_gap.max(at.saturating_duration_since(last));
        }
        self.last_packet = Some(at);
    }
}
