//! The spoken greeting: a WAV file of IMA ADPCM, four bits a sample, which any player opens.
//!
//! `greeting.wav` was made from text, with espeak-ng 1.51 and sox 14.4.2, by these two commands:
//!
//! ```text
//! espeak-ng -v en-us+f3 -s 155 -p 45 -g 2 -w greeting-22k.wav "Hello. Say something, and I will say it back to you."
//! sox greeting-22k.wav -r 24000 -c 1 -e ima-adpcm greeting.wav silence 1 0.02 0.5% reverse silence 1 0.02 0.5% \
//!     reverse highpass 80 lowpass 7000 gain -n -3 pad 0.1 0.1
//! ```
//!
//! The format is that of the IMA's "Recommended Practices for Enhancing Digital Audio Compatibility", revision 3.00, in
//! the blocks of Microsoft's WAVE format tag 0x11. Only this one file is ever decoded, so its shape is taken as given.

use std::sync::Arc;

/// What the greeting says.
pub(super) const GREETING_TEXT: &str = "Hello. Say something, and I will say it back to you.";

const FILE: &[u8] = include_bytes!("greeting.wav");

/// Bytes before the first block: RIFF header, `fmt `, `fact`, and the head of `data`.
const HEAD_BYTES: usize = 60;

/// Bytes of a block: predictor (2), step index (1), reserved (1), then two samples a byte.
const BLOCK_BYTES: usize = 256;

/// Step sizes of IMA ADPCM: each about a tenth above the last.
const STEPS: [i32; 89] = [
    7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97, 107,
    118, 130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796, 876, 963,
    1060, 1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660, 4026, 4428, 4871, 5358, 5894,
    6484, 7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623, 27086, 29794,
    32767,
];

/// How a code's magnitude moves the step index.
const INDEX_MOVES: [i32; 8] = [-1, -1, -1, -1, 2, 4, 6, 8];

/// The greeting as 24 kHz mono PCM, 4.1 s.
pub(super) fn greeting() -> Arc<[i16]> {
    FILE[HEAD_BYTES..].chunks_exact(BLOCK_BYTES).flat_map(decode_block).collect()
}

fn decode_block(block: &[u8]) -> impl Iterator<Item = i16> {
    let first = i16::from_le_bytes([block[0], block[1]]);
    let (mut sample, mut index) = (i32::from(first), i32::from(block[2]));
    let codes = block[4..].iter().flat_map(|byte| [byte & 15, byte >> 4]);
    let rest = codes.map(move |code| {
        let step = STEPS[index.clamp(0, 88) as usize];
        let magnitude = i32::from(code & 7);
        // (magnitude + 1/2) * step / 4 in the standard's integer steps, each of which drops its remainder.
        let change = (step >> 3)
            + if magnitude & 4 == 0 { 0 } else { step }
            + if magnitude & 2 == 0 { 0 } else { step >> 1 }
            + if magnitude & 1 == 0 { 0 } else { step >> 2 };
        sample = if code & 8 == 0 { sample + change } else { sample - change };
        sample = sample.clamp(i32::from(i16::MIN), i32::from(i16::MAX));
        index = (index + INDEX_MOVES[magnitude as usize]).clamp(0, 88);
        sample as i16
    });
    std::iter::once(first).chain(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_what_the_decoder_takes_it_for() {
        let u16_at = |at: usize| u16::from_le_bytes([FILE[at], FILE[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([FILE[at], FILE[at + 1], FILE[at + 2], FILE[at + 3]]);
        assert_eq!((&FILE[..4], &FILE[8..16], &FILE[52..56]), (&b"RIFF"[..], &b"WAVEfmt "[..], &b"data"[..]));
        assert_eq!((u16_at(20), u16_at(22), u32_at(24)), (0x11, 1, 24_000), "IMA ADPCM, mono, 24 kHz");
        assert_eq!((u16_at(32) as usize, u16_at(38)), (BLOCK_BYTES, 505));
        assert_eq!(u32_at(56) as usize, FILE.len() - HEAD_BYTES);
        assert!((FILE.len() - HEAD_BYTES).is_multiple_of(BLOCK_BYTES));
        assert!(FILE.len() < 60 * 1024);
    }

    #[test]
    fn it_decodes_to_speech_at_a_gentle_level_with_quiet_edges() {
        let pcm = greeting();
        assert_eq!(pcm.len(), 97_970);
        let peak = |pcm: &[i16]| pcm.iter().map(|s| i32::from(*s).abs()).max().unwrap();
        // -3 dBFS is 23,198.
        assert!((22_500..23_300).contains(&peak(&pcm)), "{}", peak(&pcm));
        assert!(peak(&pcm[..2_000]) < 30 && peak(&pcm[pcm.len() - 2_000..]) < 30);
        // The sum that sox's own decoder gives for the same file: sox greeting.wav -t s16 -
        let sum: i64 = pcm.iter().zip(1i64..).map(|(sample, at)| i64::from(*sample) * (at % 1009)).sum();
        assert_eq!(sum, SOX_SUM);
    }

    const SOX_SUM: i64 = -265_790_815;
}
