//! What the relay saw of one call, to be judged by its owner.
//!
//! Facts only: nothing here changes how the call runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flow::Flow;

/// Packets kept per call and direction: an hour and more of audio. Further ones are only counted.
const PACKETS_MAX: usize = 200_000;

/// Distinct sources kept per call.
const SOURCES_MAX: usize = 8;

/// Business media must have reached WhatsApp's client this soon after the call began, or it hangs up.
pub const FIRST_MEDIA_MAX: Duration = Duration::from_secs(20);

/// The longest stretch without any packet that WhatsApp's client bears.
pub const GAP_MAX: Duration = Duration::from_secs(30);

/// How much of a call is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Every packet, in lists: for tests, which look afterwards.
    #[default]
    Lists,
    /// Counts alone; each packet is told once, as an [`Event`]: for load, which must not grow with time.
    Events,
}

/// What happened in a call, as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The DTLS handshake ended well.
    Connected,
    /// The other side closed, or DTLS failed.
    Closed,
    /// RTP was handed out.
    Sent(Sent),
    /// RTP came, decrypted, each packet once.
    Received(Received),
}

/// One call as the relay saw it.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the offer was made.
    offered: Instant,
    /// When the answer was applied.
    pub answered: Option<Instant>,
    /// When ICE had its nominated pair.
    pub nominated: Option<Instant>,
    /// When the DTLS handshake ended well.
    pub connected: Option<Instant>,
    /// When the other side closed, or DTLS failed.
    pub closed: Option<Instant>,
    /// Connectivity checks.
    pub checks: Checks,
    /// Every address that sent a check which passed, in order.
    pub sources: Vec<SocketAddr>,
    /// RTP received, decrypted, each packet once, in order of arrival. Empty with [`Detail::Events`].
    pub received: Vec<Received>,
    /// Every SSRC heard, in order.
    pub ssrcs: Vec<u32>,
    /// RTP packets that came again.
    pub duplicates: u64,
    /// RTP packets that could not be believed: before DTLS, not decrypted, or more than 100 behind the newest.
    pub undecryptable: u64,
    /// RTCP packets received, as they are seen on the wire.
    pub rtcp: u64,
    /// Datagrams that str0m refused with an error.
    pub errors: u64,
    /// RTP handed out, lost ones too. Empty with [`Detail::Events`].
    pub sent: Vec<Sent>,
    /// One for each of `ssrcs`.
    flows: Vec<Flow>,
    rtp_heard: u64,
    rtp_sent: u64,
    first_media: Option<Instant>,
    last_packet: Option<Instant>,
    longest_gap: Duration,
}

/// Connectivity checks of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Before the answer was applied: unanswered.
    pub before_answer: u64,
    /// After it.
    pub after_answer: u64,
    /// Of those after it, the ones left unanswered because the test said so.
    pub ignored: u64,
    /// Of those after it, the ones that failed their integrity check.
    pub refused: u64,
    /// Of those after it, the ones in the relay's own role: answered with 487.
    pub role_conflicts: u64,
    /// Checks that carried USE-CANDIDATE.
    pub nominating: u64,
    /// The very first check nominated already: aggressive nomination.
    pub aggressive: bool,
    /// Checks after DTLS was connected: consent (RFC 7675).
    pub consent: u64,
    /// When the first came.
    pub first: Option<Instant>,
    /// When the first after the answer came.
    pub first_after_answer: Option<Instant>,
    /// When the last came.
    pub last: Option<Instant>,
}

/// One RTP packet received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// When the kernel took it in, as far as that is known.
    pub at: Instant,
    /// Sequence number.
    pub seq: u16,
    /// RTP timestamp, 48 kHz.
    pub timestamp: u32,
    /// Its stream.
    pub ssrc: u32,
    /// Payload type.
    pub pt: u8,
    /// Marker bit.
    pub marker: bool,
    /// Payload, decrypted.
    pub payload: Arc<[u8]>,
}

/// One RTP packet sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When its beat was due.
    pub due: Instant,
    /// The entry of the script it came from; `None` for a key.
    pub position: Option<usize>,
    /// When its beat was handled.
    pub at: Instant,
    /// Sequence number.
    pub seq: u16,
    /// RTP timestamp, 48 kHz.
    pub timestamp: u32,
    /// Payload type.
    pub pt: u8,
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
            flows: Vec::new(),
            rtp_heard: 0,
            rtp_sent: 0,
            first_media: None,
            last_packet: None,
            longest_gap: Duration::ZERO,
        }
    }

    /// From the offer to the first check.
    pub fn first_check_after_offer(&self) -> Option<Duration> {
        Some(self.checks.first? - self.offered)
    }

    /// From the answer's being applied to the end of the DTLS handshake.
    pub fn connect_time(&self) -> Option<Duration> {
        Some(self.connected? - self.answered?)
    }

    /// RTP packets received, those included that were too many to keep.
    pub fn rtp_heard(&self) -> u64 {
        self.rtp_heard
    }

    /// RTP packets handed out.
    pub fn rtp_sent(&self) -> u64 {
        self.rtp_sent
    }

    /// RTP packets that never came, by the gaps in their numbers; what is still under way counts.
    pub fn rtp_lost(&self) -> u64 {
        self.flows.iter().map(Flow::lost).sum()
    }

    /// RTP packets that came behind one that was sent after them.
    pub fn rtp_late(&self) -> u64 {
        self.flows.iter().map(Flow::late).sum()
    }

    /// When the first RTP packet came.
    pub fn first_media(&self) -> Option<Instant> {
        self.first_media
    }

    /// Whether WhatsApp's client would have hung up by `now` for want of a first packet, 20 s after the answer.
    pub fn media_came_late(&self, now: Instant) -> bool {
        self.answered.is_some_and(|answered| self.first_media().unwrap_or(now) - answered > FIRST_MEDIA_MAX)
    }

    /// The longest time without RTP or RTCP since the first RTP packet, the one that lasts until `now` included.
    pub fn longest_gap(&self, now: Instant) -> Duration {
        self.last_packet.map_or(Duration::ZERO, |last| self.longest_gap.max(now.saturating_duration_since(last)))
    }

    /// Whether WhatsApp's client would have hung up by `now` for a gap in the media of more than 30 s.
    pub fn media_broke_off(&self, now: Instant) -> bool {
        self.longest_gap(now) > GAP_MAX
    }

    pub(super) fn heard_from(&mut self, source: SocketAddr) {
        if !self.sources.contains(&source) && self.sources.len() < SOURCES_MAX {
            self.sources.push(source);
        }
    }

    /// Whether this packet is known to have come. The caller sees to it that there are few streams.
    pub(super) fn has_heard(&self, ssrc: u32, seq: u16) -> bool {
        let stream = self.ssrcs.iter().position(|known| *known == ssrc);
        stream.is_some_and(|stream| self.flows[stream].has(seq))
    }

    pub(super) fn heard_rtp(&mut self, packet: &Received) {
        if let Some(stream) = self.ssrcs.iter().position(|known| *known == packet.ssrc) {
            self.flows[stream].take(packet.seq);
        } else {
            self.ssrcs.push(packet.ssrc);
            self.flows.push(Flow::begin(packet.seq));
        }
        self.heard_packet(packet.at);
        self.first_media.get_or_insert(packet.at);
        self.rtp_heard += 1;
    }

    pub(super) fn keep_received(&mut self, packet: Received) {
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

    pub(super) fn sent_rtp(&mut self) {
        self.rtp_sent += 1;
    }

    pub(super) fn keep_sent(&mut self, packet: Sent) {
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
