//! Caller to model: packets in, 24 kHz PCM out, as soon as it can be.
//!
//! Runs the decisions of the jitter buffer with the decoder. What comes out is one unbroken stream of samples in which
//! time is exact: appended = RTP time elapsed + `stall_fill_ms`, whatever was lost, late or silent on the way, but for
//! silence at its end that RTP time may still explain. A packet that cannot be decoded is concealed, never an error of the
//! call. This file must not know the model or RTP's bytes.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::meter::Meter;
use crate::audio::{
    CodecError, Decoder, FRAME_SAMPLES, PACKET_SAMPLES_MAX, PacketInfo, RAMP_SAMPLES, ramp_out, samples_to_ms,
};
use crate::io::{Deadline, Stopwatch};
use crate::jitter::{Decision, FILL_SAMPLES, JitterBuffer, Packet, RtpTime, SeqNo};

crate::report! {
    /// What happened to the caller's packets.
    UplinkReport {
        /// Audio packets inserted.
        packets,
        /// Packets that came after their place was concealed or passed.
        late,
        /// Packets whose place was taken already.
        duplicates,
        /// Packets too far ahead or behind to be part of the stream.
        out_of_range,
        /// Packets that never came in time.
        lost,
        /// Packets repaired by in-band FEC.
        fec,
        /// Packets concealed by expansion.
        expanded,
        /// Packets that libopus refused; concealed.
        undecodable,
        /// DTMF packets, which take places in the audio's sequence.
        events,
        /// Jumps of the RTP clock: the timeline goes on from the new time.
        resyncs,
        /// Audio handed to the model, milliseconds.
        appended_ms,
        /// Silence put in where the wire was silent, milliseconds.
        silence_ms,
        /// Silence put in beyond the RTP timeline (the wire stalled and then caught up), milliseconds.
        stall_fill_ms,
    }
}

/// Where samples come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A packet, decoded.
    Decoded,
    /// A lost packet, repaired from the FEC of the next.
    Fec,
    /// Made up by the decoder.
    Expanded,
    /// Silence.
    Silence,
}

/// Samples to be appended.
#[derive(Clone, Copy, Debug)]
pub struct UplinkFrame<'a> {
    /// 24 kHz mono; 20 ms as a rule, 120 ms at most.
    pub pcm: &'a [i16],
    /// When the kernel took in the packet behind them. `None` where there is none.
    pub received: Option<Instant>,
    /// How long that packet waited in the jitter buffer.
    pub waited: Duration,
    /// Where they come from.
    pub kind: FrameKind,
}

/// One call's way from the caller to the model.
#[derive(Debug)]
pub struct Uplink {
    buffer: JitterBuffer,
    decoder: Decoder,
    meter: Meter,
    /// The last sample appended, from which silence ramps down.
    last: i16,
    undecodable: u64,
    appended_samples: u64,
    silence_samples: u64,
}

impl Uplink {
    /// An uplink that has heard nothing. The error is an out-of-memory.
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self {
            buffer: JitterBuffer::new(),
            decoder: Decoder::new()?,
            meter: Meter::off(),
            last: 0,
            undecodable: 0,
            appended_samples: 0,
            silence_samples: 0,
        })
    }

    /// Measures what decoding takes.
    #[must_use]
    pub fn timed_by(self, stopwatch: Stopwatch) -> Self {
        Self { meter: Meter::by(stopwatch), ..self }
    }

    /// What decoding and concealment have taken, in nanoseconds; zero where nothing measures it.
    pub fn decode_ns(&self) -> u64 {
        self.meter.ns()
    }

    /// Inserts an audio packet. Sequence number and RTP time (48 kHz) are extended, so that they do not wrap. Call
    /// [`Uplink::poll`] after each: there is little room for packets that are not asked for.
    pub fn insert_packet(&mut self, now: Instant, received: Instant, seq: u64, rtp_time: u64, payload: Arc<[u8]>) {
        let Ok(info) = PacketInfo::of(&payload) else {
            self.undecodable += 1;
            return self.buffer.insert_bad(now, SeqNo(seq));
        };
        let packet = Packet {
            time: RtpTime(rtp_time),
            payload,
            samples: info.samples,
            frame_samples: info.frame_samples,
            is_dtx: info.is_dtx,
            has_fec: info.has_fec,
            received,
            inserted: now,
        };
        self.buffer.insert_packet(SeqNo(seq), packet);
    }

    /// Inserts a DTMF event, which takes a sequence number of the audio. Call [`Uplink::poll`] after it.
    pub fn insert_event(&mut self, now: Instant, seq: u64) {
        self.buffer.insert_event(now, SeqNo(seq));
    }

    /// The peer begins a new stream (another SSRC): numbers and times of the next packet have nothing to do with those
    /// so far.
    pub fn restart(&mut self) {
        self.buffer.restart();
    }

    /// Hands everything that can be appended now to `sink`, in order.
    pub fn poll(&mut self, now: Instant, sink: &mut dyn FnMut(UplinkFrame<'_>)) {
        loop {
            let decision = self.buffer.decide(now);
            // Nearly every frame is 20 ms long: only a longer one shall pay for clearing room for the longest.
            match decision.samples() {
                0 => return,
                samples @ 1..=FRAME_SAMPLES => {
                    let mut pcm = [0; FRAME_SAMPLES];
                    let begun = self.meter.begin();
                    let frame = render(&mut self.decoder, self.last, now, decision, &mut pcm[..samples]);
                    self.meter.end(begun);
                    self.append(frame, sink);
                }
                samples => {
                    let mut pcm = [0; PACKET_SAMPLES_MAX];
                    let begun = self.meter.begin();
                    let frame = render(&mut self.decoder, self.last, now, decision, &mut pcm[..samples]);
                    self.meter.end(begun);
                    self.append(frame, sink);
                }
            }
        }
    }

    /// Counts a frame and hands it on.
    fn append(&mut self, frame: UplinkFrame<'_>, sink: &mut dyn FnMut(UplinkFrame<'_>)) {
        let samples = frame.pcm.len() as u64;
        self.appended_samples += samples;
        if frame.kind == FrameKind::Silence {
            self.silence_samples += samples;
        }
        self.undecodable += u64::from(frame.received.is_some() && frame.kind != FrameKind::Decoded);
        self.last = frame.pcm.last().copied().unwrap_or(self.last);
        sink(frame);
    }

    /// When [`Uplink::poll`] has more to do without another packet.
    pub fn deadline(&self) -> Deadline {
        self.buffer.deadline().map_or(Deadline::NEVER, |at| Deadline::at(at, "uplink silence or gap"))
    }

    /// Packets that wait behind a gap.
    pub fn waiting_packets(&self) -> usize {
        self.buffer.waiting_packets()
    }

    /// What happened so far.
    pub fn report(&self) -> UplinkReport {
        let counts = self.buffer.counts();
        UplinkReport {
            packets: counts.packets,
            late: counts.late,
            duplicates: counts.duplicates,
            out_of_range: counts.out_of_range,
            lost: counts.lost,
            fec: counts.fec,
            expanded: counts.expanded,
            undecodable: self.undecodable,
            events: counts.events,
            resyncs: counts.resyncs,
            appended_ms: samples_to_ms(self.appended_samples),
            silence_ms: samples_to_ms(self.silence_samples),
            stall_fill_ms: samples_to_ms(counts.stall_fill_samples),
        }
    }
}

/// Fills `out`, which is as long as the decision says, with what was decided.
fn render<'a>(
    decoder: &mut Decoder,
    last: i16,
    now: Instant,
    decision: Decision<'_>,
    out: &'a mut [i16],
) -> UplinkFrame<'a> {
    let (mut received, mut waited) = (None, Duration::ZERO);
    let kind = match decision {
        Decision::Decode(packet) => {
            received = Some(packet.received);
            waited = now.saturating_duration_since(packet.inserted);
            if decoder.decode(&packet.payload, out) == Ok(out.len()) {
                FrameKind::Decoded
            } else {
                conceal(decoder, last, out)
            }
        }
        Decision::Fec { next, .. } => match decoder.decode_fec(next, out) {
            Ok(()) => FrameKind::Fec,
            Err(_) => conceal(decoder, last, out),
        },
        Decision::Expand { .. } => conceal(decoder, last, out),
        Decision::Silence { .. } | Decision::Wait(_) => {
            ramp_out(last, out);
            FrameKind::Silence
        }
    };
    UplinkFrame { pcm: out, received, waited, kind }
}

/// Fills `out` with expansion; where that fails, with silence.
fn conceal(decoder: &mut Decoder, last: i16, out: &mut [i16]) -> FrameKind {
    if decoder.expand(out).is_ok() {
        return FrameKind::Expanded;
    }
    ramp_out(last, out);
    FrameKind::Silence
}

const _: () = assert!(RAMP_SAMPLES as u64 <= FILL_SAMPLES, "a frame of silence has room for the way down");
