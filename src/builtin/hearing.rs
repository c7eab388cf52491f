//! The input audio buffer: what the caller said lately, by position, and the detector that finds turns in it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::vad::{SAMPLES_PER_MS, Turn, TurnDetector, VadSettings};

/// Longest speech kept and played back, in milliseconds. Of a longer monologue the caller hears the end.
pub(super) const WORDS_MS_MAX: u64 = 30_000;

/// What is kept while nobody speaks, in milliseconds: more than [`WORDS_LEAD_MS`] and the frames of detection.
const QUIET_KEPT_MS: u64 = 1_000;

/// What is played back before the first frame of speech, in milliseconds: soft consonants begin below the level.
const WORDS_LEAD_MS: u64 = 100;

/// What is played back after the last frame of speech, in milliseconds.
const WORDS_TAIL_MS: u64 = 200;

/// The caller's audio.
#[derive(Debug)]
pub(super) struct Hearing {
    detector: Option<TurnDetector>,
    samples: VecDeque<i16>,
    /// Position of the first sample kept.
    start: u64,
}

impl Hearing {
    /// Nothing was said so far. Without settings, turns are the client's affair.
    pub(super) fn new(settings: Option<VadSettings>) -> Self {
        Self { detector: settings.map(|settings| TurnDetector::new(settings, 0)), samples: VecDeque::new(), start: 0 }
    }

    /// Goes on with other settings. A turn that has begun is forgotten.
    pub(super) fn restart(&mut self, settings: Option<VadSettings>) {
        let position = self.position();
        match (&mut self.detector, settings) {
            (Some(detector), Some(settings)) => detector.restart(settings),
            (detector, settings) => *detector = settings.map(|settings| TurnDetector::new(settings, position)),
        }
    }

    /// How many samples were heard in the session.
    pub(super) fn position(&self) -> u64 {
        self.start + self.samples.len() as u64
    }

    /// How much is in the buffer, in milliseconds.
    pub(super) fn buffered_ms(&self) -> u64 {
        self.samples.len() as u64 / SAMPLES_PER_MS
    }

    /// Takes samples. Then [`Hearing::detect`] has to go through them, and [`Hearing::trim`] ends it.
    pub(super) fn append(&mut self, samples: &[i16]) {
        self.samples.extend(samples);
    }

    /// Goes through appended samples up to a turn's edge; returns what is left.
    pub(super) fn detect<'a>(&mut self, samples: &'a [i16]) -> (&'a [i16], Option<Turn>) {
        match &mut self.detector {
            Some(detector) => detector.push(samples),
            None => (&[], None),
        }
    }

    /// Forgets what can no longer be asked for.
    pub(super) fn trim(&mut self) {
        let is_quiet = self.detector.as_ref().is_some_and(|detector| !detector.is_speaking());
        let kept = if is_quiet { QUIET_KEPT_MS } else { WORDS_MS_MAX } * SAMPLES_PER_MS;
        self.forget_until(self.position().saturating_sub(kept));
    }

    /// The words of a detected turn, with a little air around them. The buffer then begins behind the turn.
    pub(super) fn words(&mut self, from: u64, speech_end: u64, at: u64) -> Arc<[i16]> {
        let from = from.saturating_sub(WORDS_LEAD_MS * SAMPLES_PER_MS).max(self.start);
        let to = (speech_end + WORDS_TAIL_MS * SAMPLES_PER_MS).min(at);
        let from = from.max(to.saturating_sub(WORDS_MS_MAX * SAMPLES_PER_MS));
        let words = self.samples.range((from - self.start) as usize..(to - self.start) as usize).copied().collect();
        self.forget_until(at);
        self.samples.shrink_to((QUIET_KEPT_MS * SAMPLES_PER_MS) as usize);
        words
    }

    /// Everything in the buffer, which is then empty; a turn that has begun ends with it.
    pub(super) fn take_all(&mut self) -> Arc<[i16]> {
        let words = self.samples.iter().copied().collect();
        self.clear();
        words
    }

    /// Empties the buffer, and forgets a turn that has begun.
    pub(super) fn clear(&mut self) {
        self.forget_until(self.position());
        self.samples.shrink_to((QUIET_KEPT_MS * SAMPLES_PER_MS) as usize);
        if let Some(detector) = &mut self.detector {
            detector.forget();
        }
    }

    fn forget_until(&mut self, position: u64) {
        let count = position.saturating_sub(self.start);
        self.samples.drain(..count as usize);
        self.start += count;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{silence, tone};
    use super::*;

    const SETTINGS: VadSettings = VadSettings { threshold: 0.5, silence_ms: 500 };

    /// The turns' edges in these samples, and the words of the last turn, taken at its end.
    fn hear(hearing: &mut Hearing, samples: &[i16]) -> (Vec<Turn>, Option<Arc<[i16]>>) {
        let (mut turns, mut words) = (Vec::new(), None);
        for piece in samples.chunks(480) {
            hearing.append(piece);
            let mut rest = piece;
            while !rest.is_empty() {
                let (later, turn) = hearing.detect(rest);
                if let Some(Turn::Stopped { speech_end, at }) = turn {
                    words = Some(hearing.words(0, speech_end, at));
                }
                turns.extend(turn);
                rest = later;
            }
            hearing.trim();
        }
        (turns, words)
    }

    #[test]
    fn quiet_is_forgotten_and_speech_is_kept_up_to_its_bound() {
        let mut hearing = Hearing::new(Some(SETTINGS));
        hear(&mut hearing, &silence(10_000));
        assert_eq!((hearing.buffered_ms(), hearing.position()), (1_000, 240_000));
        // A steady tone would become the noise floor: 20 s with gaps, as speech has them.
        for _ in 0..20 {
            hear(&mut hearing, &[tone(900, -20.0), silence(100)].concat());
        }
        // Speech was known for such after 80 ms; until then it took the place of quiet.
        assert_eq!(hearing.buffered_ms(), 1_000 - 60 + 20_000);
        for _ in 0..20 {
            hear(&mut hearing, &[tone(900, -20.0), silence(100)].concat());
        }
        assert_eq!(hearing.buffered_ms(), WORDS_MS_MAX);
        let (_, words) = hear(&mut hearing, &silence(600));
        // The silence that ended the turn, but for its last frame, has pushed out as much of the words' beginning.
        let words_ms = words.unwrap().len() as u64 / SAMPLES_PER_MS;
        assert_eq!(words_ms, WORDS_MS_MAX - 480 + WORDS_TAIL_MS);
        assert!(hearing.samples.capacity() < 100_000);
    }

    #[test]
    fn without_a_detector_everything_waits_for_the_commit() {
        let mut hearing = Hearing::new(None);
        let audio = tone(2_000, -20.0);
        assert_eq!(hear(&mut hearing, &audio), (vec![], None));
        assert_eq!(hearing.take_all()[..], audio);
        assert_eq!((hearing.buffered_ms(), hearing.position()), (0, 48_000));
    }

    #[test]
    fn a_detector_that_comes_later_counts_from_the_sessions_start() {
        let mut hearing = Hearing::new(None);
        hear(&mut hearing, &silence(1_000));
        hearing.restart(Some(SETTINGS));
        let (turns, _) = hear(&mut hearing, &tone(200, -20.0));
        assert_eq!(turns, [Turn::Started { at: 24_000 }]);
    }
}
