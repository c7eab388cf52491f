//! The caller's phone: what is said into it, and what is heard from it.
//!
//! Words are encoded once for all callers, at WhatsApp's settings. It must not know calls, webhooks or sockets.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audio::{CodecError, DTX_BYTES_MAX, Decoder, FRAME_SAMPLES, PACKET_SAMPLES_MAX, SAMPLE_RATE_HZ};
use crate::load::voices;
use crate::relay::record::Received;
use crate::relay::script::{Beat, Script};

use super::echo::{self, Heard};

/// Silence behind the words, in frames: five minutes, longer than any scenario.
const AFTER_WORDS_FRAMES: usize = 5 * 60 * 50;

/// Longest speech, in samples: a minute.
pub const SPEECH_SAMPLES_MAX: usize = 60 * SAMPLE_RATE_HZ as usize;

/// Root mean square of a packet's samples from which it is sound: far above what a codec makes of silence, far below
/// speech.
const SOUND_RMS: f64 = 200.0;

/// Packets of sound that make a voice: 60 ms.
const VOICE_PACKETS: u32 = 3;

/// Quiet after which a voice has ended: longer than a pause between two sentences.
const LULL: Duration = Duration::from_millis(900);

/// Longest recording of a call, in samples: ten minutes.
const RECORDING_SAMPLES_MAX: usize = 10 * 60 * SAMPLE_RATE_HZ as usize;

/// Longest gap within a recording, in samples: five seconds. A leap of RTP time is no silence of an hour.
const GAP_SAMPLES_MAX: usize = 5 * SAMPLE_RATE_HZ as usize;

/// All that callers say.
#[derive(Clone, Debug)]
pub(super) struct Words {
    speech: Arc<[Beat]>,
    silence: Arc<[Beat]>,
    length: Duration,
    /// The loudness of each of its frames.
    loudness: Arc<[f64]>,
}

impl Words {
    /// Encodes it; takes a fraction of a second. `pcm` is speech, 24 kHz mono.
    pub(super) fn new(pcm: &[i16]) -> Result<Self, CodecError> {
        let mut whole = pcm[..pcm.len().min(SPEECH_SAMPLES_MAX)].to_vec();
        whole.resize(whole.len().next_multiple_of(FRAME_SAMPLES).max(FRAME_SAMPLES), 0);
        let (frames, loudness) = (voices::encode(&whole)?, echo::frames(&whole));
        let pause = voices::pause(&frames[0], AFTER_WORDS_FRAMES);
        let silence: Arc<[Beat]> = pause.clone().take(voices::PAUSE_SIGN_FRAMES).collect();
        let length = crate::relay::script::FRAME * u32::try_from(frames.len()).expect("a minute has 3000 frames");
        Ok(Self { speech: frames.into_iter().map(Some).chain(pause).collect(), silence, length, loudness })
    }

    /// The words once, and silence after them.
    pub(super) fn say(&self) -> Script {
        Script::shared(Arc::clone(&self.speech))
    }

    /// Somebody who listens.
    pub(super) fn listen(&self) -> Script {
        Script { repeat: true, ..Script::shared(Arc::clone(&self.silence)) }
    }

    /// How loud each 20 ms of the words are.
    pub(super) fn loudness(&self) -> Arc<[f64]> {
        Arc::clone(&self.loudness)
    }

    /// How long the words take.
    pub(super) fn length(&self) -> Duration {
        self.length
    }
}

/// What is heard on one phone.
pub(super) struct Ear {
    decoder: Decoder,
    /// Packets of sound in this stretch.
    sound: u32,
    last_sound: Option<Instant>,
    /// Stretches of voice that began.
    pub(super) voices: u8,
    /// Those that ended.
    pub(super) lulls: u8,
    recording: Option<Recording>,
    /// The words that were said, and what was heard since.
    answer: Option<(Arc<[f64]>, Heard)>,
}

#[derive(Debug, Default)]
struct Recording {
    samples: Vec<i16>,
    /// The stream, its first RTP time, and where that stands in `samples`.
    origin: Option<(u32, u32, usize)>,
}

impl Ear {
    /// An ear that keeps what it hears, if it is to be recorded.
    pub(super) fn new(record: bool) -> Result<Self, CodecError> {
        let recording = record.then(Recording::default);
        Ok(Self { decoder: Decoder::new()?, sound: 0, last_sound: None, voices: 0, lulls: 0, recording, answer: None })
    }

    /// Takes a packet. Whether a voice begins with it.
    pub(super) fn hear(&mut self, packet: &Received) -> bool {
        let is_quiet = packet.payload.len() <= DTX_BYTES_MAX;
        if let Some((_, heard)) = self.answer.as_mut().filter(|_| is_quiet) {
            heard.take(packet.timestamp, 0.0);
        }
        if is_quiet && self.recording.is_none() {
            return false;
        }
        let mut pcm = [0; PACKET_SAMPLES_MAX];
        let Ok(len @ 1..) = self.decoder.decode(&packet.payload, &mut pcm) else { return false };
        let pcm = &pcm[..len];
        if let Some(recording) = &mut self.recording {
            recording.take(packet, pcm);
        }
        let loudness = echo::loudness(pcm);
        if let Some((_, heard)) = &mut self.answer {
            heard.take(packet.timestamp, loudness);
        }
        if loudness <= SOUND_RMS {
            return false;
        }
        self.last_sound = Some(packet.at);
        self.sound += 1;
        let begins = self.sound == VOICE_PACKETS;
        self.voices = self.voices.saturating_add(u8::from(begins));
        begins
    }

    /// These words are being said: from now on it is listened for them.
    pub(super) fn listen_for(&mut self, words: Arc<[f64]>) {
        self.answer = Some((words, Heard::default()));
    }

    /// How like the words that were said something is that was heard since: 0 to 1.
    pub(super) fn likeness(&self) -> Option<f64> {
        self.answer.as_ref().map(|(said, heard)| heard.likeness(said))
    }

    /// The time is `now`. Whether a voice has ended.
    pub(super) fn has_quieted(&mut self, now: Instant) -> bool {
        if self.last_sound.is_none_or(|at| now.saturating_duration_since(at) < LULL) {
            return false;
        }
        let ended = self.sound >= VOICE_PACKETS;
        (self.sound, self.last_sound) = (0, None);
        self.lulls = self.lulls.saturating_add(u8::from(ended));
        ended
    }

    /// What was heard, if it was to be recorded and there is any of it.
    pub(super) fn take_recording(&mut self) -> Option<Vec<i16>> {
        self.recording.take().map(|recording| recording.samples).filter(|samples| !samples.is_empty())
    }
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear").field("voices", &self.voices).field("lulls", &self.lulls).finish_non_exhaustive()
    }
}

impl Recording {
    /// Puts a packet at its place in RTP time; what comes late is left out.
    fn take(&mut self, packet: &Received, pcm: &[i16]) {
        let here = self.samples.len();
        let (ssrc, first, offset) = *self.origin.get_or_insert((packet.ssrc, packet.timestamp, here));
        let ticks = packet.timestamp.wrapping_sub(first);
        if ssrc != packet.ssrc || ticks > u32::MAX / 2 && here == offset {
            self.origin = Some((packet.ssrc, packet.timestamp, here));
            return self.take(packet, pcm);
        }
        let mut place = offset + ticks as usize / 2;
        if place > here + GAP_SAMPLES_MAX && ticks <= u32::MAX / 2 {
            place = here + GAP_SAMPLES_MAX;
            self.origin = Some((packet.ssrc, packet.timestamp, place));
        }
        if place < here || place + pcm.len() > RECORDING_SAMPLES_MAX {
            return;
        }
        self.samples.resize(place, 0);
        self.samples.extend_from_slice(pcm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(samples: usize) -> Vec<i16> {
        (0..samples).map(|n| (8_000.0 * (n as f64 * 0.1).sin()) as i16).collect()
    }

    fn packet(at: Instant, seq: u16, payload: &Arc<[u8]>) -> Received {
        let timestamp = u32::from(seq) * 960;
        Received { at, seq, timestamp, ssrc: 7, pt: 111, marker: false, payload: payload.clone() }
    }

    #[test]
    fn words_are_said_once_and_followed_by_signs_of_life() {
        let words = Words::new(&tone(24_000)).unwrap();
        assert_eq!(words.length(), Duration::from_secs(1));
        let script = words.say();
        assert!(script.beats[..50].iter().all(Option::is_some) && !script.repeat);
        let signs = script.beats[50..150].iter().flatten().map(|sign| sign.len()).collect::<Vec<_>>();
        assert_eq!(signs, [1; 5]);
        assert_eq!(words.listen().beats.iter().flatten().count(), 1);
    }

    #[test]
    fn a_voice_begins_with_its_sound_and_ends_with_quiet() {
        let words = Words::new(&tone(24_000)).unwrap();
        let (mut ear, start) = (Ear::new(false).unwrap(), Instant::now());
        let at = |frame: u64| start + Duration::from_millis(20 * frame);
        let frames: Vec<_> = words.say().beats.iter().take(50).flatten().cloned().collect();
        let begun: Vec<usize> = (0..50).filter(|n| ear.hear(&packet(at(*n as u64), *n as u16, &frames[*n]))).collect();
        assert!(begun.len() == 1 && begun[0] < 5, "{begun:?}");
        assert!(!ear.has_quieted(at(49) + LULL / 2));
        assert!(ear.has_quieted(at(49) + LULL) && !ear.has_quieted(at(49) + 2 * LULL));
        assert_eq!((ear.voices, ear.lulls), (1, 1));
    }

    #[test]
    fn a_greeting_is_no_answer_and_words_through_a_codec_are() {
        let greeting = crate::builtin::recording();
        let words = Words::new(&voices::at_speed(&greeting, 1.19)).unwrap();
        let likeness = |said: Script| {
            let mut ear = Ear::new(false).unwrap();
            ear.listen_for(words.loudness());
            for (seq, beat) in said.beats.iter().take(400).enumerate() {
                if let Some(payload) = beat {
                    ear.hear(&packet(Instant::now(), seq as u16, payload));
                }
            }
            ear.likeness().unwrap()
        };
        let (same, other) = (likeness(words.say()), likeness(Words::new(&greeting).unwrap().say()));
        assert!(same > 0.95 && other < 0.6, "{same} {other}");
    }

    #[test]
    fn a_recording_keeps_rtp_time_and_goes_on_after_a_change_of_stream() {
        let words = Words::new(&tone(2_400)).unwrap();
        let frames: Vec<_> = words.say().beats.iter().take(5).flatten().cloned().collect();
        let (mut ear, now) = (Ear::new(true).unwrap(), Instant::now());
        for (seq, frame) in [(0, 0), (1, 1), (4, 2), (2, 3)] {
            ear.hear(&packet(now, seq, &frames[frame]));
        }
        ear.hear(&Received { ssrc: 8, ..packet(now, 9, &frames[4]) });
        let recording = ear.take_recording().unwrap();
        assert_eq!(recording.len(), 6 * FRAME_SAMPLES, "two, a gap of two, one, and one of the other stream");
        assert!(recording[2 * FRAME_SAMPLES..4 * FRAME_SAMPLES].iter().all(|sample| *sample == 0));
        assert_eq!(ear.take_recording(), None);
        let mut ear = Ear::new(true).unwrap();
        for timestamp in [0, 1 << 30, (1 << 30) + 960] {
            ear.hear(&Received { timestamp, ..packet(now, 0, &frames[0]) });
        }
        assert_eq!(ear.take_recording().unwrap().len(), 3 * FRAME_SAMPLES + GAP_SAMPLES_MAX, "a leap is cut short");
    }
}
