//! The caller's audio from before the session is ready.

use std::collections::VecDeque;

use crate::realtime::SAMPLES_PER_MS;

/// Audio kept, in milliseconds: a caller's first words while a slow connection comes up. Older audio is dropped first, as a
/// reply to words of long ago helps nobody.
pub(super) const EARLY_MS_MAX: usize = 3000;
const SAMPLES_MAX: usize = EARLY_MS_MAX * SAMPLES_PER_MS;

#[derive(Debug, Default)]
pub(super) struct EarlyAudio {
    samples: VecDeque<i16>,
    dropped: u64,
}

impl EarlyAudio {
    pub(super) fn push(&mut self, pcm: &[i16]) {
        let excess = (self.samples.len() + pcm.len()).saturating_sub(SAMPLES_MAX);
        let from_old = excess.min(self.samples.len());
        self.samples.drain(..from_old);
        self.samples.extend(&pcm[excess - from_old..]);
        self.dropped += excess as u64;
    }

    /// All of it, leaving nothing behind.
    pub(super) fn take(&mut self) -> Vec<i16> {
        std::mem::take(&mut self.samples).into()
    }

    /// What was dropped, in milliseconds.
    pub(super) fn dropped_ms(&self) -> u64 {
        self.dropped / SAMPLES_PER_MS as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_three_seconds_are_kept() {
        let mut early = EarlyAudio::default();
        (0..200).for_each(|frame| early.push(&[frame; 480]));
        assert_eq!(early.dropped_ms(), 1000);
        let kept = early.take();
        assert_eq!((kept.len(), kept[0], kept[SAMPLES_MAX - 1]), (SAMPLES_MAX, 50, 199));
        assert!(early.take().is_empty());
    }

    #[test]
    fn one_piece_longer_than_all_room_leaves_its_end() {
        let mut early = EarlyAudio::default();
        early.push(&[1; 480]);
        let long: Vec<i16> = (0..SAMPLES_MAX + 24).map(|index| (index % 1000) as i16).collect();
        early.push(&long);
        assert_eq!((early.dropped_ms(), early.take()), (21, long[24..].to_vec()));
    }
}
