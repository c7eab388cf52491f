//! What callers say, encoded once for all of them: speech, pauses, and the bursts whose echo is timed.
//!
//! At WhatsApp's settings (20 kbit/s, wideband, FEC). A call costs no codec work and no memory for its words: all share
//! the same payloads, each from another place on.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::Duration;

use crate::audio::{CodecError, Encoder, EncoderSettings, FRAME_SAMPLES, PAYLOAD_BYTES_MAX, SAMPLE_RATE_HZ};
use crate::relay::rng::Rng;
use crate::relay::script::{Beat, Script};

/// How fast the one recording is spoken by each of the voices that take turns: other pitch, other packets.
const SPEEDS: [f64; 3] = [1.0, 0.84, 1.19];

/// Frames after which the sender of a pause shows that it is there (libopus: every 400 ms).
pub(crate) const PAUSE_SIGN_FRAMES: usize = 20;

/// The shortest and the longest stretch of talk, in frames: 1 and 4 s.
const TALK_FRAMES: (usize, usize) = (50, 200);

/// Stretches of talk before the pattern repeats.
const TALK_STRETCHES: usize = 24;

/// Frames from one burst to the next: a second, so that an echo of up to [`PITCHES`] seconds is told from the next one.
pub(super) const ROUND_FRAMES: usize = 50;

/// The frame of a round with which its burst begins.
pub(super) const BURST_FRAME: usize = 25;

/// Frames of a burst: 100 ms, long enough for a packet that holds nothing else.
const BURST_FRAMES: usize = 5;

/// Bursts that follow each other differ in pitch: echoes are matched by it.
pub(super) const PITCHES: [f64; 4] = [450.0, 750.0, 1_250.0, 1_950.0];

/// Peak of a burst.
const BURST_PEAK: f64 = 12_000.0;

/// How much later each round is sent than 20 ms frames ask for: 20 ms divided by the golden ratio squared, so that a few
/// bursts already fall evenly between any two beats of the server. A call's phase against that beat is fixed otherwise,
/// and its median would be that of one draw. RTP time does not move along: a server that keeps to RTP time would hold the
/// delay that it began with, and the phase would not change at all. To it, this is a caller whose clock is slow.
const ROUND_LAG: Duration = Duration::from_micros(7_639);

/// Encoder delay: what is encoded comes out of the decoder this much later (libopus, speech at any rate: 6.5 ms).
const ENCODER_DELAY_SAMPLES: usize = 156;

/// How much of the time a caller talks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Talk {
    /// Without a pause.
    Always,
    /// This share, 0 to 1, in stretches of some seconds; in between the sender pauses (DTX).
    Share(f64),
}

impl std::str::FromStr for Talk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "always" {
            return Ok(Self::Always);
        }
        match text.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Self::Share(share)),
            _ => Err("must be `always`, or the share of time from 0 to 1, such as 0.4".into()),
        }
    }
}

/// All that is ever said.
#[derive(Debug)]
pub(crate) struct Voices {
    talk: Arc<[Beat]>,
    probe: Arc<[Beat]>,
}

impl Voices {
    /// Encodes everything; takes a fraction of a second. `recording` is speech, 24 kHz.
    pub(crate) fn new(recording: &[i16], talk: Talk, rng: &mut Rng) -> Result<Self, CodecError> {
        let pcm: Vec<i16> = SPEEDS.iter().flat_map(|speed| at_speed(recording, *speed)).collect();
        let speech = encode(&pcm)?;
        let talk = match talk {
            Talk::Always => speech.into_iter().map(Some).collect(),
            Talk::Share(share) => conversation(&speech, share, rng),
        };
        let probe = encode(&bursts())?.into_iter().map(Some).collect();
        Ok(Self { talk, probe })
    }

    /// A caller who talks, from a place of their own on.
    pub(crate) fn caller(&self, rng: &mut Rng) -> Script {
        let first = rng.below(self.talk.len().max(1));
        Script { first, repeat: true, ..Script::shared(self.talk.clone()) }
    }

    /// A caller who is silent but for the bursts.
    pub(super) fn probe(&self) -> Script {
        Script { repeat: true, lag: Some((ROUND_FRAMES, ROUND_LAG)), ..Script::shared(self.probe.clone()) }
    }
}

/// Which pitch begins with this entry of a probe's script, if one does.
pub(super) fn burst_at(position: usize) -> Option<usize> {
    (position % ROUND_FRAMES == BURST_FRAME).then_some(position / ROUND_FRAMES % PITCHES.len())
}

/// Silence with one burst a round. What the decoder makes of a burst's first packet begins with the burst.
fn bursts() -> Vec<i16> {
    let mut pcm = vec![0; PITCHES.len() * ROUND_FRAMES * FRAME_SAMPLES];
    for (round, pitch) in PITCHES.iter().enumerate() {
        let start = (round * ROUND_FRAMES + BURST_FRAME) * FRAME_SAMPLES - ENCODER_DELAY_SAMPLES;
        for (n, sample) in pcm[start..][..BURST_FRAMES * FRAME_SAMPLES].iter_mut().enumerate() {
            *sample = (BURST_PEAK * (TAU * pitch * n as f64 / f64::from(SAMPLE_RATE_HZ)).sin()) as i16;
        }
    }
    pcm
}

/// The recording spoken faster or slower: linear interpolation, which is good enough to be encoded.
pub(crate) fn at_speed(recording: &[i16], speed: f64) -> Vec<i16> {
    let len = (recording.len() as f64 / speed) as usize;
    let sample = |n: usize| {
        let at = n as f64 * speed;
        let (left, part) = (at as usize, at.fract());
        let get = |at: usize| recording.get(at).copied().map_or(0.0, f64::from);
        (get(left) * (1.0 - part) + get(left + 1) * part) as i16
    };
    (0..len).map(sample).collect()
}

/// Talk and pauses in turn, so that about `share` of the time is talk.
fn conversation(speech: &[Arc<[u8]>], share: f64, rng: &mut Rng) -> Arc<[Beat]> {
    let mut words = speech.iter().cycle();
    let mut beats: Vec<Beat> = Vec::new();
    for _ in 0..TALK_STRETCHES {
        let stretch = TALK_FRAMES.0 + rng.below(TALK_FRAMES.1 - TALK_FRAMES.0);
        let talk = if share > 0.0 { stretch } else { 0 };
        // Below one part in twenty, pauses are no longer in proportion but already minutes long.
        let silent = (stretch as f64 * (1.0 - share) / share.max(0.05)).round() as usize;
        beats.extend(words.by_ref().take(talk).cloned().map(Some));
        beats.extend(pause(&speech[0], silent));
    }
    beats.into()
}

/// So many frames of a pause by the encoder of this packet: a sign now and then, and nothing between.
pub(crate) fn pause(packet: &[u8], frames: usize) -> impl Iterator<Item = Beat> + Clone + use<> {
    // A payload of the first byte alone is a frame without content: the sign of a sender that pauses.
    let sign: Arc<[u8]> = packet[..1].into();
    (0..frames).map(move |n| n.is_multiple_of(PAUSE_SIGN_FRAMES).then(|| sign.clone()))
}

pub(crate) fn encode(pcm: &[i16]) -> Result<Vec<Arc<[u8]>>, CodecError> {
    let mut encoder = Encoder::new(EncoderSettings::for_peer(Some(20_000), Some(16_000), true, 9))?;
    let (frames, _) = pcm.as_chunks::<FRAME_SAMPLES>();
    let mut out = [0; PAYLOAD_BYTES_MAX];
    frames.iter().map(|frame| encoder.encode(frame, &mut out).map(|len| out[..len].into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voices(talk: Talk) -> Voices {
        let mut rng = Rng::new(1);
        let recording: Vec<i16> = (0..24_000 * 4).map(|_| rng.next_u32() as i16 / 8).collect();
        Voices::new(&recording, talk, &mut rng).unwrap()
    }

    #[test]
    fn callers_share_their_words_and_begin_at_different_places() {
        let voices = voices(Talk::Always);
        let mut rng = Rng::new(2);
        let (one, two) = (voices.caller(&mut rng), voices.caller(&mut rng));
        assert!(Arc::ptr_eq(&one.beats, &two.beats) && one.first != two.first);
        assert!(one.beats.len() > 500, "more than ten seconds");
        assert!(one.beats.iter().all(Option::is_some) && one.repeat);
    }

    #[test]
    fn a_share_of_talk_is_kept_and_pauses_show_a_sign_of_life() {
        for share in [0.0, 0.4, 0.8, 1.0] {
            let beats = voices(Talk::Share(share)).talk;
            let talk = beats.iter().flatten().filter(|payload| payload.len() > 2).count();
            let measured = talk as f64 / beats.len() as f64;
            assert!((measured - share).abs() < 0.02, "{share}: {measured}");
            let signs = beats.iter().flatten().filter(|payload| payload.len() == 1).count();
            assert!((signs > 0) == (share < 1.0));
        }
    }

    #[test]
    fn a_burst_is_in_its_first_packet_and_in_none_before() {
        let probe = voices(Talk::Always).probe();
        let mut decoder = crate::audio::Decoder::new().unwrap();
        let mut pcm = [0; FRAME_SAMPLES];
        for (position, beat) in probe.beats.iter().enumerate() {
            decoder.decode(beat.as_ref().unwrap(), &mut pcm).unwrap();
            let peak = |pcm: &[i16]| pcm.iter().map(|sample| i32::from(*sample).abs()).max().unwrap();
            if burst_at(position).is_some() {
                assert!(peak(&pcm[..120]) > 4_000, "within 5 ms: {}", peak(&pcm[..120]));
            }
            let quiet = position % ROUND_FRAMES < BURST_FRAME || position % ROUND_FRAMES > BURST_FRAME + 10;
            assert!(!quiet || peak(&pcm) < 2_000, "{position}: {}", peak(&pcm));
        }
        assert_eq!([25, 75, 125, 175, 225, 26].map(burst_at), [Some(0), Some(1), Some(2), Some(3), Some(0), None]);
    }

    #[test]
    fn a_share_is_read_or_said_to_be_wrong() {
        assert_eq!("always".parse(), Ok(Talk::Always));
        assert_eq!("0.4".parse(), Ok(Talk::Share(0.4)));
        for wrong in ["40", "-1", "", "NaN", "never"] {
            assert!(wrong.parse::<Talk>().unwrap_err().contains("0 to 1"), "{wrong}");
        }
    }
}
