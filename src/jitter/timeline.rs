//! The RTP timeline of what was appended, sample by sample.
//!
//! Holds, at every moment: appended = elapsed RTP time + `stall_fill` + `filled`. Silence that was put in while the wire
//! was silent (`filled`) is not yet explained. When audio comes again, the RTP time that passed explains as much of it as
//! it can; what is left was a stall, and stays as `stall_fill`.

use super::number::RtpTime;
use super::ring::Packet;

/// Longest gap in RTP time that is filled. A longer one is not a pause (those are filled as they last) but a clock that
/// jumped, and filling it would hold up the caller's words.
pub const GAP_FILL_SAMPLES_MAX: u64 = 48_000;
/// Longest stretch that is expanded in one gap, 60 ms. Beyond it the decoder only hums.
pub const EXPAND_SAMPLES_MAX: u64 = 1_440;
/// Silence and expansion are made in frames of at most this, 20 ms.
pub const FILL_SAMPLES: u64 = 480;

const TICKS_PER_SAMPLE: u64 = 2;
/// Expansion comes in multiples of 2.5 ms.
const EXPAND_STEP: u64 = 60;

/// What has to be appended before a packet, or the packet itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Decode it; this much of the gap before it was expanded.
    Decode {
        expanded: u64,
    },
    Fec(u64),
    Expand(u64),
    Silence(u64),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Timeline {
    /// RTP time that is appended up to; `None` before the first packet.
    position: Option<RtpTime>,
    /// RTP time appended since the start, in samples; jumps of the clock left out.
    elapsed: u64,
    /// Silence put in that RTP time has not explained yet, in samples.
    filled: u64,
    /// Silence put in that RTP time never explained, in samples.
    stall_fill: u64,
    /// What was expanded of the gap at hand, in samples.
    expanded: u64,
    /// Whether silence stands in the gap at hand already. To go on from what was before it would sound out of nowhere.
    silenced: bool,
    /// Jumps of the RTP clock.
    pub(super) resyncs: u64,
}

impl Timeline {
    pub(super) fn started(&self) -> bool {
        self.position.is_some()
    }

    pub(super) fn elapsed_samples(&self) -> u64 {
        self.elapsed
    }

    pub(super) fn stall_fill_samples(&self) -> u64 {
        self.stall_fill
    }

    /// The next step towards `packet`, which is the next to be decoded; `missing` packets right before it never came.
    pub(super) fn step(&mut self, packet: &Packet, missing: u64) -> Step {
        let position = *self.position.get_or_insert(packet.time);
        let gap = u64::try_from(packet.time.since(position)).ok().map(|ticks| ticks / TICKS_PER_SAMPLE);
        let Some(mut gap) = gap.filter(|gap| gap.saturating_sub(self.filled) <= GAP_FILL_SAMPLES_MAX) else {
            self.resync(packet.time);
            return self.decode(packet);
        };
        // What FEC can repair is repaired, even where silence stands in for it already: it may be the start of a word.
        let repairable = u64::from(packet.frame_samples);
        let fec = if missing > 0 && packet.has_fec && repairable <= gap { repairable } else { 0 };
        let explained = self.filled.min(gap - fec);
        if explained > 0 {
            self.filled -= explained;
            self.advance(explained);
            gap -= explained;
            self.silenced = true;
        }
        let rest = gap - fec;
        // Beyond what the missing packets may have held, the sender paused.
        let most = EXPAND_SAMPLES_MAX.min(missing.saturating_mul(u64::from(packet.samples)));
        let expand = rest.min(most.saturating_sub(self.expanded)).min(FILL_SAMPLES);
        let expand = if self.silenced { 0 } else { expand - expand % EXPAND_STEP };
        let (step, samples) = if expand > 0 {
            self.expanded += expand;
            (Step::Expand(expand), expand)
        } else if rest > 0 {
            self.silenced = true;
            (Step::Silence(rest.min(FILL_SAMPLES)), rest.min(FILL_SAMPLES))
        } else if fec > 0 {
            (Step::Fec(fec), fec)
        } else {
            return self.decode(packet);
        };
        self.advance(samples);
        step
    }

    /// Silence is put in while the wire is silent.
    pub(super) fn fill(&mut self, samples: u64) {
        self.filled += samples;
    }

    /// The RTP clock goes on elsewhere, with the next packet.
    pub(super) fn restart(&mut self) {
        if self.position.take().is_some() {
            self.resyncs += 1;
        }
        self.settle();
    }

    fn resync(&mut self, time: RtpTime) {
        self.restart();
        self.position = Some(time);
    }

    fn decode(&mut self, packet: &Packet) -> Step {
        let expanded = self.expanded;
        self.settle();
        self.advance(u64::from(packet.samples));
        Step::Decode { expanded }
    }

    fn settle(&mut self) {
        self.stall_fill += std::mem::take(&mut self.filled);
        self.expanded = 0;
        self.silenced = false;
    }

    fn advance(&mut self, samples: u64) {
        self.position = self.position.map(|position| position.plus(samples * TICKS_PER_SAMPLE));
        self.elapsed += samples;
    }
}
