//! Soft edges where audio stops or starts in the middle of a sound.

/// Length of an edge: 5 ms. Shorter clicks, longer smears.
pub const RAMP_SAMPLES: usize = 120;

/// Fills `out` with the way from `last`, the sample before it, down to silence.
pub fn ramp_out(last: i16, out: &mut [i16]) {
    let steps = out.len().min(RAMP_SAMPLES);
    let (edge, rest) = out.split_at_mut(steps);
    for (n, sample) in edge.iter_mut().enumerate() {
        *sample = (i32::from(last) * (steps - 1 - n) as i32 / steps as i32) as i16;
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
        let mut one = [9];
        ramp_out(100, &mut one);
        assert_eq!(one, [0], "with no room it still ends in silence");
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
