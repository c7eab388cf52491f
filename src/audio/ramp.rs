//! Soft edges where audio stops or starts in the middle of a sound.

/// Length of an edge: 5 ms. Shorter clicks, longer smears.
pub const RAMP_SAMPLES: usize = 120;

/// The steepest step of an edge: full scale in [`RAMP_SAMPLES`].
const STEP_MAX: i16 = i16::MAX / RAMP_SAMPLES as i16 + 1;

/// Fills `out` with the way from `last`, the sample before it, down to silence. Where `out` is too short for it, its own
/// last sample is where the rest begins.
pub fn ramp_out(last: i16, out: &mut [i16]) {
    let steps = usize::from(last.unsigned_abs().div_ceil(STEP_MAX.unsigned_abs()));
    let (edge, rest) = out.split_at_mut(steps.min(out.len()));
    let mut level = last;
    for sample in edge {
        level -= level.clamp(-STEP_MAX, STEP_MAX);
        *sample = level;
    }
    rest.fill(0);
}

/// Lets `pcm` rise from silence.
pub fn ramp_in(pcm: &mut [i16]) {
    let steps = pcm.len().min(RAMP_SAMPLES);
    for (n, sample) in pcm[..steps].iter_mut().enumerate() {
        *sample = (i32::from(*sample) * n as i32 / steps as i32) as i16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steepest(pcm: &[i16]) -> u16 {
        pcm.windows(2).map(|pair| pair[1].abs_diff(pair[0])).max().unwrap_or(0)
    }

    #[test]
    fn a_sound_ends_in_small_steps() {
        for last in [i16::MIN, -5, 0, 7, i16::MAX] {
            let mut out = [1; 480];
            ramp_out(last, &mut out);
            assert!(steepest(&[&[last], &out[..]].concat()) <= 274, "from {last}");
            assert!(out[RAMP_SAMPLES - 1..].iter().all(|sample| *sample == 0));
        }
        ramp_out(100, &mut []);
        let (mut whole, mut parts) = ([0; 480], [0; 480]);
        ramp_out(30_000, &mut whole);
        ramp_out(30_000, &mut parts[..7]);
        let last = parts[6];
        ramp_out(last, &mut parts[7..]);
        assert_eq!(parts, whole, "what does not fit goes on in the next piece");
    }

    #[test]
    fn a_sound_starts_in_small_steps() {
        let mut pcm = [i16::MIN; 480];
        ramp_in(&mut pcm);
        assert!(steepest(&[&[0], &pcm[..]].concat()) <= 274);
        assert_eq!(pcm[RAMP_SAMPLES], i16::MIN);
        ramp_in(&mut []);
    }
}
