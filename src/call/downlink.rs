//! Model to caller: PCM in bursts in, one Opus packet every 20 ms out.
//!
//! Packets leave on an absolute beat: the first one phase after the start, each other a whole number of frames later,
//! however late the ones before it were. A frame is taken from the queue and encoded at the moment it is sent, so a flush
//! is exact and nothing that was flushed can still leave. This file must not know RTP's bytes, the model or the peer.
//!
//! **Late.** A beat that is served late by less than a frame leaves with the timestamp of its beat. Later than that, the
//! beats that passed are skipped and counted: one packet leaves, with the timestamp of the newest beat that is due, and
//! its sequence number follows the last one. The far side sees a pause of the sender. Audio is not lost, it is later by
//! the beats skipped; sending it in a burst instead would only make the caller's jitter buffer larger for a while.
//!
//! **Dry.** When a reply runs dry in the middle of a frame, what is there is sent and the rest of the frame ramps down to
//! silence; when more comes, it ramps up. Holding the rest back would delay it for nothing: replies come in bursts, and
//! one that runs dry has stalled for far longer than a frame.
//!
//! **Silence.** The stream never stops. After [`SETTLE_FRAMES`] of silence the encoder and the far decoder rest, and the
//! last payload is sent again and again without encoding, be it that nothing is there to play or that the model pauses.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::meter::Meter;
use crate::audio::{
    CodecError, Encoder, EncoderSettings, FRAME, FRAME_SAMPLES, PAYLOAD_BYTES_MAX, RTP_TICKS_PER_FRAME, ramp_in,
    ramp_out, samples_to_ms,
};
use crate::io::{Deadline, Stopwatch};
pub use crate::playout::{ItemId, Push};
use crate::playout::{Played, Playout};

/// Frames of silence that are encoded before the payload is reused. The encoder's level, its noise shaping and the FEC copy
/// of the last word are through after three; one more is for a far decoder that lost one of them.
pub const SETTLE_FRAMES: u32 = 4;

crate::report! {
    /// What was played to the caller.
    DownlinkReport {
        /// Packets sent.
        packets,
        /// Of these, packets of silence.
        silence_packets,
        /// Frames encoded.
        encoded,
        /// Audio received from the model, milliseconds.
        queued_ms,
        /// Audio of the model sent to the caller, milliseconds.
        played_ms,
        /// Audio thrown away on barge-in, milliseconds.
        flushed_ms,
        /// Audio dropped on arrival, milliseconds: the queue was full, or its item was over.
        dropped_ms,
        /// Times that an item ran dry before its end.
        underruns,
        /// Frames whose due time had passed by more than a frame: skipped beats.
        skipped_beats,
    }
}

/// Names audio of ours in the playout. The model's items are numbered from zero, and no call has four thousand million.
pub const OWN_ITEM: ItemId = ItemId(u32::MAX);

/// What a flush threw away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// The item being played, or the first that waited. Others behind it were not heard at all.
    pub item: ItemId,
    /// How much of it was sent, in whole milliseconds. Never more than the model sent of it.
    pub played_ms: u32,
    /// How much was thrown away, of it and of those behind it.
    pub flushed_ms: u32,
}

/// A packet to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat<'a> {
    /// The Opus payload.
    pub payload: &'a [u8],
    /// RTP timestamp, 48 kHz.
    pub rtp_time: u32,
    /// RTP marker: the first packet of speech after silence.
    pub marker: bool,
    /// When the beat was due; with beats skipped, the first of them.
    pub due: Instant,
    /// Whose audio it is; `None` is silence.
    pub item: Option<ItemId>,
    /// Whether it is the first packet of its item.
    pub first_of_item: bool,
    /// Whether it is the last packet of its item, which has ended.
    pub last_of_item: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    packets: u64,
    silence_packets: u64,
    encoded: u64,
    queued_samples: u64,
    played_samples: u64,
    flushed_samples: u64,
    dropped_samples: u64,
    underruns: u64,
    skipped_beats: u64,
}

/// One call's way from the model to the caller.
#[derive(Debug)]
pub struct Downlink {
    encoder: Encoder,
    settings: EncoderSettings,
    meter: Meter,
    /// The newest payload; after [`SETTLE_FRAMES`] of silence, the one that is sent again.
    payload: Box<[u8; PAYLOAD_BYTES_MAX]>,
    payload_len: usize,
    playout: Playout,
    phase: Duration,
    /// The next beat; `None` before the start.
    due: Option<Instant>,
    rtp_time: u32,
    /// Frames of silence since the last sound, counted up to one more than are encoded.
    settled: u32,
    /// Whether the last packet was silence.
    silent: bool,
    /// The last sample of the last frame, from which silence ramps down.
    last: i16,
    counts: Counts,
}

impl Downlink {
    /// A downlink that has not started. `phase` is the time from the start to the first beat, at most a frame: spread it
    /// over the calls, so that they do not encode together. `rtp_time` is the first timestamp; it should be random.
    pub fn new(settings: EncoderSettings, phase: Duration, rtp_time: u32) -> Result<Self, CodecError> {
        Ok(Self {
            encoder: Encoder::new(settings)?,
            settings,
            meter: Meter::off(),
            payload: Box::new([0; PAYLOAD_BYTES_MAX]),
            payload_len: 0,
            playout: Playout::new(),
            phase: phase.min(FRAME),
            due: None,
            rtp_time,
            settled: 0,
            silent: true,
            last: 0,
            counts: Counts::default(),
        })
    }

    /// Measures what encoding takes.
    #[must_use]
    pub fn timed_by(self, stopwatch: Stopwatch) -> Self {
        Self { meter: Meter::by(stopwatch), ..self }
    }

    /// What encoding has taken, in nanoseconds; zero where nothing measures it.
    pub fn encode_ns(&self) -> u64 {
        self.meter.ns()
    }

    /// The complexity that the next frame is encoded with.
    pub fn complexity(&self) -> u8 {
        self.settings.complexity
    }

    /// Encodes with this complexity from the next frame on.
    pub fn set_complexity(&mut self, complexity: u8) {
        if complexity != self.settings.complexity {
            self.settings = self.settings.with_complexity(complexity);
            self.encoder.set_effort(self.settings).expect("libopus takes efforts in their range at any time");
        }
    }

    /// Lets the stream flow from now on. Audio that was pushed before waited for it.
    pub fn start(&mut self, now: Instant) {
        self.due.get_or_insert(now + self.phase);
    }

    /// The same for a start that comes by itself at a moment like no other call's: a tenth of the phase is spread enough, and
    /// its listener waits.
    pub fn start_soon(&mut self, now: Instant) {
        self.due.get_or_insert(now + self.phase / 10);
    }

    /// Queues audio of an item, all or none of it.
    pub fn push(&mut self, item: ItemId, pcm: &[i16]) -> Push {
        let push = self.playout.push(item, pcm);
        match push {
            Push::Queued => self.counts.queued_samples += pcm.len() as u64,
            Push::Full | Push::Closed => self.counts.dropped_samples += pcm.len() as u64,
        }
        push
    }

    /// Queues audio that is not the model's: it is played like any other as [`OWN_ITEM`], and not counted as the model's.
    /// Once in a call.
    pub fn push_own(&mut self, pcm: &[i16]) {
        self.playout.push(OWN_ITEM, pcm);
        self.playout.end_item(OWN_ITEM);
    }

    /// No more audio comes for this item; what waits of it is played.
    pub fn end_item(&mut self, item: ItemId) {
        self.playout.end_item(item);
    }

    /// The caller speaks: throws away all that waits. The next packet is silence, and late audio of these items is
    /// dropped. Items behind the one playing are named as unheard. `None` when nothing was playing or waiting.
    pub fn flush(&mut self, unheard: impl FnMut(ItemId)) -> Option<Flushed> {
        let flush = self.playout.flush(unheard)?;
        self.counts.flushed_samples += flush.flushed;
        let ms = |samples| u32::try_from(samples_to_ms(samples)).unwrap_or(u32::MAX);
        Some(Flushed { item: flush.item, played_ms: ms(flush.played), flushed_ms: ms(flush.flushed) })
    }

    /// Audio that waits, in milliseconds.
    pub fn queued_ms(&self) -> u64 {
        samples_to_ms(self.playout.queued_samples() as u64)
    }

    /// When the next beat is due.
    pub fn deadline(&self) -> Deadline {
        self.due.map_or(Deadline::NEVER, |due| Deadline::at(due, "downlink beat"))
    }

    /// The packet that is due, if one is. At most one a call: what it returns is to be sent now.
    pub fn beat(&mut self, now: Instant) -> Option<Beat<'_>> {
        let due = self.due.filter(|due| *due <= now)?;
        let skipped = (now - due).as_nanos() / FRAME.as_nanos();
        let skipped = u32::try_from(skipped).expect("no call lasts for years between two beats");
        self.counts.skipped_beats += u64::from(skipped);
        self.due = Some(due + FRAME * skipped + FRAME);
        let rtp_time = self.rtp_time.wrapping_add(RTP_TICKS_PER_FRAME.wrapping_mul(skipped));
        self.rtp_time = rtp_time.wrapping_add(RTP_TICKS_PER_FRAME);

        let was_silent = self.silent;
        let mut frame = [0; FRAME_SAMPLES];
        let played = self.render(&mut frame);
        if let Some(played) = played {
            let of_model = if played.item == OWN_ITEM { 0 } else { played.samples };
            self.counts.played_samples += of_model as u64;
        } else {
            self.counts.silence_packets += 1;
            self.counts.underruns += u64::from(!was_silent && self.playout.is_waiting());
        }
        // A pause in the model's audio is silence like any other.
        let is_silence = played.is_none() || frame.iter().all(|sample| *sample == 0);
        self.settled = if is_silence { (self.settled + 1).min(SETTLE_FRAMES + 1) } else { 0 };
        if self.settled <= SETTLE_FRAMES {
            self.encode(&frame);
        }
        self.counts.packets += 1;
        Some(Beat {
            payload: &self.payload[..self.payload_len],
            rtp_time,
            marker: was_silent && !self.silent,
            due,
            item: played.map(|played| played.item),
            first_of_item: played.is_some_and(|played| played.first),
            last_of_item: played.is_some_and(|played| played.last),
        })
    }

    /// What happened so far.
    pub fn report(&self) -> DownlinkReport {
        let counts = &self.counts;
        DownlinkReport {
            packets: counts.packets,
            silence_packets: counts.silence_packets,
            encoded: counts.encoded,
            queued_ms: samples_to_ms(counts.queued_samples),
            played_ms: samples_to_ms(counts.played_samples),
            flushed_ms: samples_to_ms(counts.flushed_samples),
            dropped_ms: samples_to_ms(counts.dropped_samples),
            underruns: counts.underruns,
            skipped_beats: counts.skipped_beats,
        }
    }

    /// Fills the next frame: audio, if some waits, with soft edges where it stops or starts inside of a sound.
    fn render(&mut self, frame: &mut [i16; FRAME_SAMPLES]) -> Option<Played> {
        let played = self.playout.pop(frame);
        let (audio, rest) = frame.split_at_mut(played.map_or(0, |played| played.samples));
        if self.silent && played.is_some_and(|played| !played.first) {
            ramp_in(audio);
        }
        ramp_out(audio.last().copied().unwrap_or(self.last), rest);
        self.silent = played.is_none();
        self.last = frame[FRAME_SAMPLES - 1];
        played
    }

    fn encode(&mut self, frame: &[i16; FRAME_SAMPLES]) {
        let begun = self.meter.begin();
        self.payload_len = self
            .encoder
            .encode(frame, &mut self.payload[..])
            .expect("a whole frame, with room for the longest payload, is all that libopus asks for");
        self.counts.encoded += 1;
        self.meter.end(begun);
    }
}
