//! The jitter buffer of a listener that has no playout clock.
//!
//! A model takes audio whenever it comes, so packets in order are decoded as they arrive: no delay is added. Only a gap
//! makes later packets wait, at most an adaptive bound; then it is repaired, expanded or filled. The RTP timeline stays
//! exact: every sample appended is either RTP time that passed or silence put in while the wire stalled, which is counted.
//!
//! Everything is decided here and comes out as [`Decision`] values. Whoever runs them must append exactly the samples that
//! each one names, silence if the codec fails. This module must not know Opus or the model.
//!
//! When the wire is silent:
//!
//! * After a pause was announced (a DTX frame, a DTMF event), silence is put in as soon as audio is a frame overdue, so
//!   that the model hears the end of a turn in real time.
//! * After speech, only when nothing was heard for about 200 ms, and from then on: a stall of the network must not
//!   sound like the end of a turn. The burst that ends a stall is appended whole.

mod lateness;
mod number;
mod ring;
mod timeline;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use lateness::{WAIT_MAX, WAIT_MIN};
pub use number::{RtpTime, SeqNo};
pub use ring::{Packet, RING_SLOTS};
pub use timeline::{EXPAND_SAMPLES_MAX, FILL_SAMPLES, GAP_FILL_SAMPLES_MAX};

use lateness::Lateness;
use ring::{Content, Inserted, Ring};
use timeline::{Step, Timeline};

/// How long audio may be overdue after an announced pause before silence is put in: one frame, so that speech which
/// resumes at once with a little jitter leaves no trace.
pub const PATIENCE_PAUSE: Duration = Duration::from_millis(20);
/// The same after speech: with the 20 ms of the frame itself the wire was silent for 200 ms.
pub const PATIENCE_SPEECH: Duration = Duration::from_millis(180);
/// A gap is not waited for when this many numbers are behind it: a burst came, and the missing packet did not come with it.
const AHEAD_MAX: i64 = RING_SLOTS as i64 / 2;
/// A forward jump in numbers of up to a minute is a loss (RFC 3550 appendix A.1, MAX_DROPOUT).
const DROPOUT_MAX: i64 = 3_000;

const FILL: Duration = Duration::from_millis(20);
const SAMPLES_PER_MS: u64 = 24;

/// What is to be done next. Samples are at 24 kHz.
#[derive(Debug)]
pub enum Decision<'a> {
    /// Decode this packet.
    Decode(Packet),
    /// Repair what is missing before `next` from the FEC in it.
    Fec {
        /// The payload after the gap.
        next: &'a [u8],
        /// Samples to repair.
        samples: usize,
    },
    /// Expand what was heard last.
    Expand {
        /// Samples to make, a multiple of 2.5 ms.
        samples: usize,
    },
    /// Append silence.
    Silence {
        /// Samples of it, at most 20 ms.
        samples: usize,
    },
    /// Nothing before this time, unless a packet comes.
    Wait(Option<Instant>),
}

impl Decision<'_> {
    /// Samples that it makes; none while it waits.
    pub fn samples(&self) -> usize {
        match self {
            Self::Decode(packet) => packet.samples.into(),
            Self::Fec { samples, .. } | Self::Expand { samples } | Self::Silence { samples } => *samples,
            Self::Wait(_) => 0,
        }
    }
}

/// What happened to the packets so far. Durations are in samples at 24 kHz.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Audio packets that got their place.
    pub packets: u64,
    /// Packets that came after their place was passed.
    pub late: u64,
    /// Packets whose place was taken.
    pub duplicates: u64,
    /// Packets outside the stream's range.
    pub out_of_range: u64,
    /// Audio packets given up.
    pub lost: u64,
    /// Of these, repaired by FEC.
    pub fec: u64,
    /// Of these, expanded.
    pub expanded: u64,
    /// DTMF packets.
    pub events: u64,
    /// Jumps of the RTP clock.
    pub resyncs: u64,
    /// RTP time appended, jumps left out.
    pub elapsed_samples: u64,
    /// Silence appended that RTP time never explained.
    pub stall_fill_samples: u64,
}

/// Orders packets, decides about gaps and keeps the timeline.
#[derive(Debug)]
pub struct JitterBuffer {
    /// `None` before the first packet.
    ring: Option<Ring>,
    lateness: Lateness,
    timeline: Timeline,
    counts: Counts,
    /// A packet from beyond the ring: all before it is given up as soon as it is seen to.
    jump: Option<(SeqNo, Instant, Content)>,
    /// The number that would confirm that the stream goes on elsewhere.
    probation: Option<SeqNo>,
    /// Whether the next packet begins a new stream.
    restarting: bool,
    /// Packets missing right before the next one to be decoded.
    missing: u64,
    /// When silence is put in next, if nothing comes.
    fill_at: Option<Instant>,
}

impl Default for JitterBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl JitterBuffer {
    /// An empty buffer; its timeline begins with the first packet.
    pub fn new() -> Self {
        Self {
            ring: None,
            lateness: Lateness::new(),
            timeline: Timeline::default(),
            counts: Counts::default(),
            jump: None,
            probation: None,
            restarting: false,
            missing: 0,
            fill_at: None,
        }
    }

    /// Inserts an audio packet. Decisions must be drained before the next insertion.
    pub fn insert_packet(&mut self, seq: SeqNo, packet: Packet) {
        let now = packet.inserted;
        self.counts.packets += u64::from(self.insert(now, seq, Content::Audio(packet)));
    }

    /// Inserts an audio packet that cannot be decoded: it is missing, but nobody waits for it.
    pub fn insert_bad(&mut self, now: Instant, seq: SeqNo) {
        self.counts.packets += u64::from(self.insert(now, seq, Content::Bad));
    }

    /// Inserts a DTMF event: it takes a number of the audio's sequence.
    pub fn insert_event(&mut self, now: Instant, seq: SeqNo) {
        self.counts.events += u64::from(self.insert(now, seq, Content::Event));
    }

    /// The next packet begins a new stream (another SSRC): its numbers and times have nothing to do with those so far.
    pub fn restart(&mut self) {
        self.restarting = self.ring.is_some();
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        Counts {
            resyncs: self.timeline.resyncs,
            elapsed_samples: self.timeline.elapsed_samples(),
            stall_fill_samples: self.timeline.stall_fill_samples(),
            ..self.counts
        }
    }

    /// Whether packets wait behind a gap.
    pub fn holds_packets(&self) -> bool {
        self.ring.as_ref().is_some_and(|ring| !ring.is_empty())
    }

    /// How many packets wait behind a gap.
    pub fn waiting_packets(&self) -> usize {
        self.ring.as_ref().map_or(0, Ring::held)
    }

    /// How long a gap is waited for as of now.
    pub fn gap_wait(&self) -> Duration {
        self.lateness.wait()
    }

    /// When the next decision is due without another packet.
    pub fn deadline(&self) -> Option<Instant> {
        match self.ring.as_ref() {
            Some(ring) if !ring.is_empty() => self.gap_until(ring),
            _ => self.fill_at,
        }
    }

    /// The next thing to be done. Call it until it says wait.
    pub fn decide(&mut self, now: Instant) -> Decision<'_> {
        loop {
            let Some(ring) = self.ring.as_mut() else { return Decision::Wait(None) };
            match ring.front() {
                Some(Content::Audio(packet)) => {
                    let step = self.timeline.step(packet, self.missing);
                    return self.take_step(step);
                }
                Some(Content::Event) => {
                    ring.take();
                    if self.timeline.started() {
                        let overdue = now + FILL + PATIENCE_PAUSE;
                        self.fill_at = Some(self.fill_at.map_or(overdue, |at| at.min(overdue)));
                    }
                }
                Some(Content::Bad) => {
                    ring.take();
                    self.missing += 1;
                }
                None if !ring.is_empty() => {
                    let until = self.gap_until(self.ring.as_ref().expect("it is there, see above"));
                    if self.jump.is_none() && until.is_some_and(|until| now < until) {
                        return Decision::Wait(until);
                    }
                    let missing = self.ring.as_mut().expect("it is there, see above").skip_gap();
                    self.missing += missing;
                    self.counts.lost += missing;
                }
                None => match self.jump.take() {
                    Some((seq, at, content)) => self.land(seq, at, content),
                    None => return self.fill(now),
                },
            }
        }
    }

    /// Puts a packet in its place, or aside if it has none; whether it was taken.
    fn insert(&mut self, now: Instant, seq: SeqNo, content: Content) -> bool {
        self.lateness.packet();
        let ring = self.ring.get_or_insert_with(|| Ring::new(seq));
        let offset = seq.since(ring.next());
        if !self.restarting && offset.unsigned_abs() < RING_SLOTS as u64 {
            self.probation = None;
            let overtaken_at = ring.overtaken_at(seq);
            match ring.insert(now, seq, content) {
                Inserted::Duplicate => self.counts.duplicates += 1,
                inserted => {
                    if let Some(at) = overtaken_at {
                        self.lateness.overtaken(now.saturating_duration_since(at));
                    }
                    self.counts.late += u64::from(inserted == Inserted::Late);
                    return inserted == Inserted::Held;
                }
            }
            return false;
        }
        let confirmed = self.probation == Some(seq);
        if (self.restarting || confirmed || (0..=DROPOUT_MAX).contains(&offset)) && self.jump.is_none() {
            self.restarting |= confirmed;
            self.probation = None;
            self.jump = Some((seq, now, content));
            return true;
        }
        self.probation = Some(seq.plus(1));
        self.counts.out_of_range += 1;
        false
    }

    /// Goes on at the packet that was put aside. All before it was seen to.
    fn land(&mut self, seq: SeqNo, at: Instant, content: Content) {
        let ring = self.ring.as_mut().expect("a jump starts from somewhere");
        if std::mem::take(&mut self.restarting) {
            self.timeline.restart();
            self.missing = 0;
        } else {
            let missing = u64::try_from(seq.since(ring.next())).expect("other jumps are restarts");
            self.missing += missing;
            self.counts.lost += missing;
        }
        ring.jump(seq);
        assert_eq!(ring.insert(at, seq, content), Inserted::Held, "a jump lands on free ground");
    }

    /// When the gap before the first packet held has been waited for: counted from the packet that showed it.
    fn gap_until(&self, ring: &Ring) -> Option<Instant> {
        let shown = ring.overtaken_at(ring.next())?;
        Some(if ring.ahead() > AHEAD_MAX { shown } else { shown + self.lateness.wait() })
    }

    fn take_step(&mut self, step: Step) -> Decision<'_> {
        let ring = self.ring.as_mut().expect("a step is towards a packet of the ring");
        match step {
            Step::Decode { expanded } => {
                let Some(Content::Audio(packet)) = ring.take() else { unreachable!("the step was towards audio") };
                let patience = if packet.is_dtx { PATIENCE_PAUSE } else { PATIENCE_SPEECH };
                let length = Duration::from_micros(u64::from(packet.samples) * 1000 / SAMPLES_PER_MS);
                self.fill_at = Some(packet.inserted + length + patience);
                self.counts.expanded += expanded.div_ceil(u64::from(packet.samples.max(1))).min(self.missing);
                self.missing = 0;
                Decision::Decode(packet)
            }
            Step::Fec(samples) => {
                self.counts.fec += 1;
                let Some(Content::Audio(packet)) = ring.front() else { unreachable!("the step was towards audio") };
                Decision::Fec { next: &packet.payload, samples: samples as usize }
            }
            Step::Expand(samples) => Decision::Expand { samples: samples as usize },
            Step::Silence(samples) => Decision::Silence { samples: samples as usize },
        }
    }

    /// Nothing is held: silence, if it is due.
    fn fill(&mut self, now: Instant) -> Decision<'_> {
        let Some(at) = self.fill_at.filter(|at| *at <= now) else { return Decision::Wait(self.fill_at) };
        // A caller that slept (a suspended machine) is not owed all the silence it slept through.
        let longest = Duration::from_millis(GAP_FILL_SAMPLES_MAX / SAMPLES_PER_MS);
        self.fill_at = Some(at.max(now.checked_sub(longest).unwrap_or(at)) + FILL);
        self.timeline.fill(FILL_SAMPLES);
        Decision::Silence { samples: FILL_SAMPLES as usize }
    }
}
