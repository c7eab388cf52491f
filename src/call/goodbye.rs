//! What a caller hears when we end the call: two falling tones.
//!
//! A line that goes dead sounds like a fault, and callers wait or redial; a falling interval is heard as an end in any
//! language. This file must not know why a call ends.

use std::f64::consts::{PI, TAU};
use std::sync::LazyLock;

use crate::audio::SAMPLE_RATE_HZ;

/// A falling fifth, E5 and A4: within what any telephone carries, and neither a pair of the keypad's tones nor the pitch
/// of a busy line (425 Hz, or 480 with 620).
const TONES: [Tone; 2] = [Tone { hz: 659.26, ms: 180 }, Tone { hz: 440.0, ms: 320 }];
/// As loud as speech: -19 dBFS, since a tone of peak `A` has the power of `A` / √2.
const PEAK: f64 = 5_000.0;
/// Tones begin and end within this time along half a cosine: a hard edge clicks.
const EDGE_MS: u32 = 20;
/// Silence behind the tones, so that they have left the caller's jitter buffer when the goodbye of DTLS reaches it.
const TAIL_MS: u32 = 200;

struct Tone {
    hz: f64,
    ms: u32,
}

/// The tones and the silence behind them, 24 kHz. Made once for all calls.
pub(super) fn tones() -> &'static [i16] {
    static PCM: LazyLock<Vec<i16>> = LazyLock::new(|| {
        let mut pcm: Vec<i16> = TONES.iter().flat_map(samples_of).collect();
        pcm.resize(pcm.len() + samples(TAIL_MS), 0);
        pcm
    });
    &PCM
}

fn samples_of(tone: &Tone) -> impl Iterator<Item = i16> {
    let (len, edge) = (samples(tone.ms), samples(EDGE_MS));
    let step = TAU * tone.hz / f64::from(SAMPLE_RATE_HZ);
    (0..len).map(move |n| {
        let from_edge = n.min(len - 1 - n).min(edge) as f64 / edge as f64;
        let level = (1.0 - (PI * from_edge).cos()) / 2.0;
        (PEAK * level * (step * n as f64).sin()) as i16
    })
}

const fn samples(ms: u32) -> usize {
    (SAMPLE_RATE_HZ / 1000 * ms) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::FRAME_SAMPLES;

    #[test]
    fn the_goodbye_is_below_a_second_of_whole_frames_and_has_no_hard_edge() {
        let pcm = tones();
        assert!(pcm.len() < SAMPLE_RATE_HZ as usize && pcm.len().is_multiple_of(FRAME_SAMPLES), "{}", pcm.len());
        assert_eq!((pcm[0], pcm[pcm.len() - 1]), (0, 0));
        // The steepest that a tone of this height and peak is by itself.
        let steepest = PEAK * TAU * TONES[0].hz / f64::from(SAMPLE_RATE_HZ);
        let step = pcm.windows(2).map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs()).max().unwrap();
        assert!(f64::from(step) < 1.05 * steepest, "{step} is more than {steepest}");
        let peak = f64::from(*pcm.iter().max().unwrap());
        assert!((0.95 * PEAK..=PEAK).contains(&peak), "{peak}");
    }
}
