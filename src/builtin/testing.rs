//! Sounds for tests: 24 kHz mono PCM, deterministic.

use super::vad::SAMPLES_PER_MS;

/// Digital silence.
pub(crate) fn silence(ms: u64) -> Vec<i16> {
    vec![0; (ms * SAMPLES_PER_MS) as usize]
}

/// A tone of 440 Hz at this RMS level.
pub(crate) fn tone(ms: u64, dbfs: f64) -> Vec<i16> {
    let peak = 32_768.0 * 2f64.sqrt() * 10f64.powf(dbfs / 20.0);
    let step = std::f64::consts::TAU * 440.0 / 24_000.0;
    (0..ms * SAMPLES_PER_MS).map(|n| (peak * (step * n as f64).sin()) as i16).collect()
}

/// White noise at this RMS level.
pub(crate) fn noise(ms: u64, dbfs: f64) -> Vec<i16> {
    // Uniform noise has an RMS of its peak over the square root of three.
    let peak = 32_768.0 * 3f64.sqrt() * 10f64.powf(dbfs / 20.0);
    let mut random = Random::new(0x2545_f491_4f6c_dd1d);
    (0..ms * SAMPLES_PER_MS).map(|_| (peak * (random.next() as f64 / 2f64.powi(31) - 1.0)) as i16).collect()
}

/// xorshift64: small, seeded, good enough to mutate with.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 32 bits.
    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    /// Below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }
}
