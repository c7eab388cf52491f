//! Whether what is heard is what was said: the loudness of both, frame by frame, laid over each other at every delay.
//!
//! Words that went through two codecs and an agent's pauses keep their rise and fall; other words have another. It must not
//! know calls, packets or decoders.

use std::sync::Arc;

use crate::audio::FRAME_SAMPLES;

/// RTP ticks (48 kHz) of a frame of 20 ms.
const FRAME_TICKS: u32 = 960;

/// Frames that are kept of what is heard: a minute and a half, longer than any answer that is waited for.
const FRAMES_MAX: usize = 90 * 50;

/// From this likeness on it is taken for the same. Other speech of the same length comes to some 0.4.
pub(super) const LIKENESS_MIN: f64 = 0.7;

/// The root mean square of some samples.
pub(super) fn loudness(pcm: &[i16]) -> f64 {
    let sum: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (sum / pcm.len().max(1) as f64).sqrt()
}

/// The loudness of each 20 ms of speech at 24 kHz.
pub(super) fn frames(pcm: &[i16]) -> Arc<[f64]> {
    pcm.chunks(FRAME_SAMPLES).map(loudness).collect()
}

/// What is heard while an answer is waited for.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The RTP time of the first packet.
    first: Option<u32>,
    frames: Vec<f64>,
}

impl Heard {
    /// Takes a packet's RTP time and its loudness; between packets it was quiet.
    pub(super) fn take(&mut self, timestamp: u32, loudness: f64) {
        let first = *self.first.get_or_insert(timestamp);
        let place = (timestamp.wrapping_sub(first) / FRAME_TICKS) as usize;
        if (self.frames.len()..FRAMES_MAX).contains(&place) {
            self.frames.resize(place, 0.0);
            self.frames.push(loudness);
        }
    }

    /// How like these words the most similar stretch is: 1 where it rises and falls with them, 0 where it does not.
    pub(super) fn likeness(&self, said: &[f64]) -> f64 {
        let stretches = self.frames.windows(said.len().max(1));
        stretches.map(|heard| correlation(said, heard)).fold(0.0, f64::max)
    }
}

/// Pearson's coefficient.
fn correlation(one: &[f64], two: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_one, mean_two) = (mean(one), mean(two));
    let (mut both, mut of_one, mut of_two) = (0.0, 0.0, 0.0);
    for (a, b) in one.iter().zip(two) {
        let (a, b) = (a - mean_one, b - mean_two);
        both += a * b;
        of_one += a * a;
        of_two += b * b;
    }
    let whole = (of_one * of_two).sqrt();
    if whole > 0.0 { both / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::rng::Rng;

    fn words(seed: u64) -> Vec<f64> {
        let mut rng = Rng::new(seed);
        (0..30).flat_map(|_| std::iter::repeat_n(rng.below(5_000) as f64, 5)).collect()
    }

    fn heard(frames: &[f64]) -> Heard {
        let mut heard = Heard::default();
        for (n, loudness) in frames.iter().enumerate() {
            heard.take((u32::MAX - 5_000).wrapping_add(n as u32 * FRAME_TICKS), *loudness);
        }
        heard
    }

    #[test]
    fn words_are_found_again_later_and_quieter_and_others_are_not() {
        let said = words(1);
        let later: Vec<f64> =
            [vec![3.0; 77], said.iter().map(|loudness| 0.3 * loudness).collect(), vec![0.0; 40]].concat();
        assert!(heard(&later).likeness(&said) > 0.99);
        for other in [[words(2), words(3)].concat(), vec![0.0; 400], vec![900.0; 400], said[..100].to_vec(), vec![]] {
            let likeness = heard(&other).likeness(&said);
            assert!((0.0..0.6).contains(&likeness), "{likeness}");
        }
    }

    #[test]
    fn time_without_packets_is_quiet_and_what_comes_late_or_never_ends_is_left_out() {
        let mut heard = Heard::default();
        for (frame, loudness) in [(0, 5.0), (3, 6.0), (1, 7.0), (FRAMES_MAX as u32, 8.0)] {
            heard.take(frame * FRAME_TICKS, loudness);
        }
        assert_eq!(heard.frames, [5.0, 0.0, 0.0, 6.0]);
    }
}
