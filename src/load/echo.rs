//! Finds the bursts of a probe call in what comes back, and how long each was under way.
//!
//! A burst is known by its pitch, so that an echo is never taken for that of another burst: pitches repeat only after
//! some seconds, and a burst that is not heard by then is missed. The time is that of the first packet with sound.

use std::f64::consts::TAU;
use std::time::{Duration, Instant};

use crate::audio::{CodecError, Decoder, PACKET_SAMPLES_MAX, SAMPLE_RATE_HZ};

use super::voices::PITCHES;

/// Samples that are loud or silent together: 2.5 ms.
const BLOCK_SAMPLES: usize = 60;

/// Root mean square of a block from which it is a burst: a third of what was sent, and several times what codecs put
/// before it.
const LOUD_RMS: f64 = 2_500.0;

/// Silence after which sound begins a new burst: longer than any hole inside of one.
const QUIET_MIN: Duration = Duration::from_millis(100);

/// Samples from the onset by which the pitch is judged: 30 ms.
const JUDGED_SAMPLES: usize = 720;

/// The share of the energy at a pitch that makes it one; the codec keeps most of a tone.
const PITCH_SHARE_MIN: f64 = 0.4;

/// One probe call's ear.
#[derive(Debug)]
pub(super) struct Ear {
    decoder: Decoder,
    /// When the newest burst of each pitch was sent, until it is heard.
    under_way: [Option<Instant>; PITCHES.len()],
    /// The last packet with sound.
    loud_at: Option<Instant>,
    onset: Option<Onset>,
}

#[derive(Debug)]
struct Onset {
    at: Instant,
    pcm: Vec<i16>,
}

impl Ear {
    /// An ear that has heard nothing.
    pub(super) fn new() -> Result<Self, CodecError> {
        Ok(Self { decoder: Decoder::new()?, under_way: [None; PITCHES.len()], loud_at: None, onset: None })
    }

    /// A burst of this pitch was handed to the kernel; whether the one before it was never heard.
    pub(super) fn sent(&mut self, pitch: usize, at: Instant) -> bool {
        self.under_way[pitch].replace(at).is_some()
    }

    /// Takes a packet that the kernel took in at `at`. The round trip of a burst, once enough of it has come to know it.
    pub(super) fn hear(&mut self, at: Instant, payload: &[u8]) -> Option<Duration> {
        let mut pcm = [0; PACKET_SAMPLES_MAX];
        let len = self.decoder.decode(payload, &mut pcm).ok()?;
        let pcm = &pcm[..len];
        let loud = pcm.chunks(BLOCK_SAMPLES).position(|block| rms(block) > LOUD_RMS);
        if let Some(onset) = &mut self.onset {
            onset.pcm.extend_from_slice(pcm);
        } else if let Some(block) = loud
            && self.loud_at.is_none_or(|before| at.saturating_duration_since(before) > QUIET_MIN)
        {
            self.onset = Some(Onset { at, pcm: pcm[block * BLOCK_SAMPLES..].to_vec() });
        }
        if loud.is_some() {
            self.loud_at = Some(at);
        }
        let Onset { at, pcm } = self.onset.take_if(|onset| onset.pcm.len() >= JUDGED_SAMPLES)?;
        let sent = self.under_way[pitch_of(&pcm[..JUDGED_SAMPLES])?].take_if(|sent| *sent <= at)?;
        Some(at - sent)
    }
}

fn rms(pcm: &[i16]) -> f64 {
    let sum: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (sum / pcm.len().max(1) as f64).sqrt()
}

/// Which pitch this is, if it is one.
fn pitch_of(pcm: &[i16]) -> Option<usize> {
    let total: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let share = |hz: f64| {
        let step = TAU * hz / f64::from(SAMPLE_RATE_HZ);
        let (re, im) = pcm.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, sample)| {
            let angle = step * n as f64;
            (re + f64::from(*sample) * angle.cos(), im + f64::from(*sample) * angle.sin())
        });
        2.0 * (re * re + im * im) / (pcm.len() as f64 * total.max(1.0))
    };
    let (pitch, share) = PITCHES.map(share).into_iter().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (share >= PITCH_SHARE_MIN).then_some(pitch)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::voices::{Talk, Voices, burst_at};
    use super::*;
    use crate::relay::rng::Rng;
    use crate::relay::script::FRAME;

    const ALL: usize = 400;

    fn payloads() -> Vec<Arc<[u8]>> {
        let probe = Voices::new(&vec![100; 24_000], Talk::Always, &mut Rng::new(1)).unwrap().probe();
        probe.beats.iter().flatten().cycle().take(ALL).cloned().collect()
    }

    /// Sends the probe's script and hears it again after `delay` (of each burst, by its number), as the same packets.
    fn round_trips(delay: Duration, is_lost: impl Fn(usize) -> bool) -> (Vec<Duration>, usize) {
        let start = Instant::now();
        let mut ear = Ear::new().unwrap();
        let (mut heard, mut missed) = (Vec::new(), 0);
        let mut events: Vec<(Instant, bool, usize)> = (0..ALL)
            .flat_map(|n| [(start + FRAME * n as u32, false, n), (start + FRAME * n as u32 + delay, true, n)])
            .collect();
        events.sort();
        let payloads = payloads();
        for (at, is_back, n) in events {
            if is_back && !is_lost(n) {
                heard.extend(ear.hear(at, &payloads[n]));
            } else if let Some(pitch) = burst_at(n).filter(|_| !is_back) {
                missed += usize::from(ear.sent(pitch, at));
            }
        }
        (heard, missed)
    }

    #[test]
    fn every_burst_is_timed_to_its_first_packet() {
        for ms in [1, 15, 202, 999, 1_500] {
            let (heard, missed) = round_trips(Duration::from_millis(ms), |_| false);
            assert_eq!(heard, vec![Duration::from_millis(ms); 8], "{ms} ms are told from the next burst's");
            assert_eq!(missed, 0);
        }
    }

    #[test]
    fn a_burst_that_does_not_come_back_is_missed_and_changes_no_other() {
        let lost = |n: usize| n / 50 == 1;
        let (heard, missed) = round_trips(Duration::from_millis(15), lost);
        assert_eq!(heard, vec![Duration::from_millis(15); 7]);
        assert_eq!(missed, 1);
    }

    #[test]
    fn speech_and_noise_are_no_burst() {
        let mut rng = Rng::new(5);
        let noise: Vec<i16> = (0..JUDGED_SAMPLES).map(|_| rng.next_u32() as i16 / 4).collect();
        assert_eq!(pitch_of(&noise), None);
        assert_eq!(pitch_of(&[0; JUDGED_SAMPLES]), None);
    }
}
