//! Speech-like test signals and measures of likeness.

use super::{FRAME_SAMPLES, SAMPLE_RATE_HZ};

/// A small seeded generator (xorshift64*): tests repeat.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    /// True this many times in a thousand.
    pub(crate) fn permille(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }
}

/// Voiced speech: a gliding pitch of 110 to 170 Hz, harmonics shaped by two moving formants, and syllables four times a
/// second that never fall silent.
pub(crate) fn speech(frames: usize) -> Vec<i16> {
    let rate = f64::from(SAMPLE_RATE_HZ);
    let mut phase = 0.0;
    (0..frames * FRAME_SAMPLES)
        .map(|n| {
            let t = n as f64 / rate;
            let pitch = 140.0 + 30.0 * (t * 2.1).sin();
            phase += pitch / rate;
            let formants = [500.0 + 250.0 * (t * 3.3).sin(), 1700.0 + 500.0 * (t * 2.7).cos()];
            let mut sum = 0.0;
            for k in 1..=24 {
                let hz = pitch * f64::from(k);
                let gain: f64 = formants.iter().map(|f| (-((hz - f) / 220.0).powi(2)).exp()).sum();
                sum += (gain + 0.02) * (std::f64::consts::TAU * phase * f64::from(k)).sin();
            }
            let syllable = 0.35 + 0.65 * (std::f64::consts::PI * t * 4.0).sin().powi(2);
            (sum * syllable * 3_000.0).clamp(-32_000.0, 32_000.0) as i16
        })
        .collect()
}

/// Frames of a signal.
pub(crate) fn frames(pcm: &[i16]) -> impl Iterator<Item = &[i16; FRAME_SAMPLES]> {
    pcm.as_chunks().0.iter()
}

/// Normalised correlation of two signals of one length, -1 to 1.
pub(crate) fn correlation(a: &[i16], b: &[i16]) -> f64 {
    let dot = |x: &[i16], y: &[i16]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1.0)
}

/// The best correlation over delays of 0 to 20 ms of `heard`, and the delay in samples: codecs look ahead.
pub(crate) fn best_correlation(said: &[i16], heard: &[i16]) -> (f64, usize) {
    (0..FRAME_SAMPLES)
        .map(|delay| (correlation(&said[..said.len() - delay], &heard[delay..]), delay))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .expect("there are delays to try")
}

/// Root mean square of a signal.
pub(crate) fn rms(pcm: &[i16]) -> f64 {
    (pcm.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / pcm.len().max(1) as f64).sqrt()
}
