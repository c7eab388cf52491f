//! Turn detection by energy, the built-in agent's `server_vad`: when does the caller start and stop speaking?
//!
//! Audio is measured in frames of 20 ms. A frame is speech when it is well above the noise floor, and above a level that
//! no quiet room reaches. The floor is the quietest frame of the last seconds, so a noise that stays becomes the floor:
//! a fan that starts in mid-call is taken for speech once, for [`FLOOR_SECONDS`] at most, and then never again.
//! Positions are samples of 24 kHz since the session began; this file knows neither time nor events.

/// Samples of 24 kHz mono per millisecond.
pub(super) const SAMPLES_PER_MS: u64 = 24;

/// Samples per frame: 20 ms.
const FRAME_SAMPLES: u64 = 20 * SAMPLES_PER_MS;

/// Speech frames that make a turn: 80 ms, longer than a click or a knock, shorter than a "yes".
const START_FRAMES: u32 = 4;

/// How far above the floor speech begins, in dB. Speech frames vary by 20 and more, those of a steady noise by 1.
const START_ABOVE_FLOOR_DB: f64 = 12.0;

/// How much lower the level is below which speech ends, in dB: a voice falls at the end of a sentence.
const HYSTERESIS_DB: f64 = 6.0;

/// Level of speech for `threshold` 0.5, in dBFS; a quiet voice on a telephone is at -40.
const LEVEL_DBFS: f64 = -45.0;

/// What the whole range of `threshold`, 0 to 1, changes about that level, in dB.
const THRESHOLD_SPAN_DB: f64 = 40.0;

/// The floor before anything was heard, in dBFS: a call may begin in the middle of a word.
const FLOOR_PRIOR_DBFS: f64 = -50.0;

/// Length of the window whose quietest frame is the floor. Nobody speaks for so long without a gap between two words.
pub(super) const FLOOR_SECONDS: usize = 5;

/// The floor is kept as minima of half seconds.
const FLOOR_BUCKET_FRAMES: u32 = 25;

/// What the session's `turn_detection` says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct VadSettings {
    /// 0 to 1; higher needs louder speech.
    pub(super) threshold: f64,
    /// Silence that ends a turn, in milliseconds.
    pub(super) silence_ms: u64,
}

/// What was detected, at which sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The caller began to speak here.
    Started {
        /// First sample of the first frame of speech; detection itself is some frames later.
        at: u64,
    },
    /// The caller has stopped.
    Stopped {
        /// One past the last frame of speech.
        speech_end: u64,
        /// One past the silence that proved it.
        at: u64,
    },
}

/// Finds turns in a stream of samples.
#[derive(Debug)]
pub(super) struct TurnDetector {
    settings: VadSettings,
    floor: NoiseFloor,
    position: u64,
    frame: FrameSum,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nobody speaks; this many frames, from here on, were speech.
    Quiet { frames: u32, from: u64 },
    /// The caller speaks; the last frame of speech ended here.
    Speaking { speech_end: u64 },
}

const QUIET: State = State::Quiet { frames: 0, from: 0 };

impl TurnDetector {
    /// A detector whose first sample will be at this position.
    pub(super) fn new(settings: VadSettings, position: u64) -> Self {
        Self { settings, floor: NoiseFloor::new(), position, frame: FrameSum::default(), state: QUIET }
    }

    /// Goes on with other settings, and forgets a turn that has begun.
    pub(super) fn restart(&mut self, settings: VadSettings) {
        self.settings = settings;
        self.forget();
    }

    /// Forgets a turn that has begun.
    pub(super) fn forget(&mut self) {
        self.state = QUIET;
    }

    /// Whether the caller speaks.
    pub(super) fn is_speaking(&self) -> bool {
        matches!(self.state, State::Speaking { .. })
    }

    /// Listens to samples, from the first one on, until they are through or a turn begins or ends; returns what is left.
    pub(super) fn push<'a>(&mut self, mut samples: &'a [i16]) -> (&'a [i16], Option<Turn>) {
        while !samples.is_empty() {
            let missing = FRAME_SAMPLES - self.frame.count;
            let (now, later) = samples.split_at(samples.len().min(missing as usize));
            self.frame.add(now);
            self.position += now.len() as u64;
            samples = later;
            if self.frame.count == FRAME_SAMPLES {
                let level = std::mem::take(&mut self.frame).dbfs();
                let turn = self.judge(level);
                if turn.is_some() {
                    return (samples, turn);
                }
            }
        }
        (samples, None)
    }

    fn judge(&mut self, level: f64) -> Option<Turn> {
        self.floor.push(level);
        let at_least = LEVEL_DBFS + (self.settings.threshold - 0.5) * THRESHOLD_SPAN_DB;
        let start = at_least.max(self.floor.dbfs() + START_ABOVE_FLOOR_DB);
        let at = self.position;
        match self.state {
            State::Quiet { frames, from } if level >= start => {
                let from = if frames == 0 { at - FRAME_SAMPLES } else { from };
                if frames + 1 < START_FRAMES {
                    self.state = State::Quiet { frames: frames + 1, from };
                    return None;
                }
                self.state = State::Speaking { speech_end: at };
                Some(Turn::Started { at: from })
            }
            State::Quiet { frames, from } => {
                // One step back, not to the start: a plosive is silent for a frame or two.
                self.state = State::Quiet { frames: frames.saturating_sub(1), from };
                None
            }
            State::Speaking { .. } if level >= start - HYSTERESIS_DB => {
                self.state = State::Speaking { speech_end: at };
                None
            }
            State::Speaking { speech_end } => {
                let silence_ms = (at - speech_end) / SAMPLES_PER_MS;
                if silence_ms < self.settings.silence_ms {
                    return None;
                }
                self.state = QUIET;
                Some(Turn::Stopped { speech_end, at })
            }
        }
    }
}

/// Sums of the samples of a frame.
#[derive(Debug, Default)]
struct FrameSum {
    count: u64,
    sum: i64,
    squares: i64,
}

impl FrameSum {
    fn add(&mut self, samples: &[i16]) {
        self.count += samples.len() as u64;
        for sample in samples {
            let sample = i64::from(*sample);
            self.sum += sample;
            self.squares += sample * sample;
        }
    }

    /// Level of what alternates: a constant offset is no sound. Never below -100.
    fn dbfs(&self) -> f64 {
        let count = self.count as f64;
        let mean = self.sum as f64 / count;
        let power = (self.squares as f64 / count - mean * mean) / (32_768.0 * 32_768.0);
        10.0 * power.max(1e-10).log10()
    }
}

/// The quietest frame of the last seconds.
#[derive(Debug)]
struct NoiseFloor {
    minima: [f64; FLOOR_SECONDS * 2],
    bucket: usize,
    frames: u32,
}

impl NoiseFloor {
    fn new() -> Self {
        Self { minima: [FLOOR_PRIOR_DBFS; FLOOR_SECONDS * 2], bucket: 0, frames: 0 }
    }

    fn push(&mut self, level: f64) {
        if self.frames == FLOOR_BUCKET_FRAMES {
            self.bucket = (self.bucket + 1) % self.minima.len();
            self.minima[self.bucket] = level;
            self.frames = 0;
        }
        self.minima[self.bucket] = self.minima[self.bucket].min(level);
        self.frames += 1;
    }

    fn dbfs(&self) -> f64 {
        self.minima.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{noise, silence, tone};
    use super::*;

    const SETTINGS: VadSettings = VadSettings { threshold: 0.5, silence_ms: 500 };

    fn turns(detector: &mut TurnDetector, mut samples: &[i16]) -> Vec<Turn> {
        let mut turns = Vec::new();
        while !samples.is_empty() {
            let (rest, turn) = detector.push(samples);
            turns.extend(turn);
            samples = rest;
        }
        turns
    }

    fn heard(parts: &[Vec<i16>]) -> Vec<Turn> {
        turns(&mut TurnDetector::new(SETTINGS, 0), &parts.concat())
    }

    #[test]
    fn a_word_starts_and_stops_a_turn_at_its_edges() {
        let turns = heard(&[silence(1_000), tone(400, -20.0), silence(1_000)]);
        let ms = |ms: u64| ms * SAMPLES_PER_MS;
        assert_eq!(turns, [Turn::Started { at: ms(1_000) }, Turn::Stopped { speech_end: ms(1_400), at: ms(1_900) }]);
    }

    #[test]
    fn the_cut_into_appends_changes_nothing() {
        let audio = [noise(700, -55.0), tone(333, -25.0), noise(900, -55.0), tone(200, -30.0), silence(800)].concat();
        let whole = heard(std::slice::from_ref(&audio));
        assert_eq!(whole.len(), 4);
        for step in [1, 7, 479, 481, 5_000] {
            let mut detector = TurnDetector::new(SETTINGS, 0);
            let pieces: Vec<_> = audio.chunks(step).flat_map(|piece| turns(&mut detector, piece)).collect();
            assert_eq!(pieces, whole, "in appends of {step}");
            assert_eq!(detector.position, audio.len() as u64);
        }
    }

    #[test]
    fn a_click_is_no_turn_and_a_short_gap_does_not_end_one() {
        assert_eq!(heard(&[silence(500), tone(40, -10.0), silence(500), tone(60, -10.0), silence(900)]), []);
        let turns = heard(&[silence(500), tone(300, -20.0), silence(400), tone(300, -20.0), silence(900)]);
        assert_eq!(turns.len(), 2, "{turns:?}");
    }

    #[test]
    fn silence_and_steady_noise_are_no_turns() {
        assert_eq!(heard(&[silence(20_000)]), []);
        assert_eq!(heard(&[noise(20_000, -60.0)]), []);
        assert_eq!(heard(&[noise(20_000, -40.0)]), []);
        let offset = vec![9_000; 24_000];
        assert_eq!(heard(&[offset]), [], "a constant offset");
    }

    #[test]
    fn a_noise_that_starts_and_stays_is_one_turn_that_ends() {
        let turns = heard(&[silence(6_000), noise(30_000, -35.0)]);
        let [Turn::Started { .. }, Turn::Stopped { at, .. }] = turns[..] else { panic!("{turns:?}") };
        assert!(at < (6_000 + 6_000) * SAMPLES_PER_MS, "{at}");
    }

    #[test]
    fn speech_is_found_in_loud_noise() {
        let turns = heard(&[noise(10_000, -40.0), tone(500, -18.0), noise(2_000, -40.0)]);
        assert_eq!(turns.len(), 2, "{turns:?}");
    }

    #[test]
    fn speech_that_begins_with_the_call_is_found() {
        assert_eq!(heard(&[tone(500, -20.0), silence(600)]).len(), 2);
    }

    #[test]
    fn the_threshold_and_the_silence_are_the_sessions() {
        let audio = [silence(500), tone(300, -35.0), silence(2_000)].concat();
        let with = |settings| turns(&mut TurnDetector::new(settings, 0), &audio);
        assert_eq!(with(VadSettings { threshold: 0.9, ..SETTINGS }), []);
        let Some(Turn::Stopped { speech_end, at }) = with(VadSettings { silence_ms: 200, ..SETTINGS }).last().copied()
        else {
            panic!("no turn")
        };
        assert_eq!((at - speech_end) / SAMPLES_PER_MS, 200);
    }

    #[test]
    fn synthetic_speech_is_one_turn_when_its_pauses_are_short() {
        let speech = super::super::greeting::greeting();
        let mut detector = TurnDetector::new(VadSettings { silence_ms: 700, ..SETTINGS }, 0);
        let turns = turns(&mut detector, &[&silence(300)[..], &speech, &silence(1_000)].concat());
        let [Turn::Started { at }, Turn::Stopped { speech_end, .. }] = turns[..] else { panic!("{turns:?}") };
        let said_ms = (speech_end - at) / SAMPLES_PER_MS;
        // 100 ms of silence on either edge of the file.
        assert!((3_700..=3_900).contains(&said_ms), "{said_ms}");
    }
}
