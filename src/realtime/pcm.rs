//! Base64 of PCM16: little-endian mono samples at 24 kHz, as audio events carry them.

use base64_simd::{AsOut, STANDARD};

/// Base64 characters decoded at a time; a multiple of four. This is 128 ms, and most deltas are shorter; a longer one is
/// handed over in such pieces, so that what is kept per call does not grow to the longest delta.
const PIECE_CHARS: usize = 8 << 10;
/// Bytes of a piece.
const PIECE_BYTES: usize = PIECE_CHARS / 4 * 3;
/// Samples encoded at a time: a multiple of three, so that no piece but the last is padded.
const ENCODE_SAMPLES: usize = 480;

/// A delta that is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAudio;

/// Decodes deltas into buffers of its own, which are used again.
#[derive(Debug)]
pub struct PcmDecoder {
    /// One byte carried over, then a piece.
    bytes: Box<[u8]>,
    samples: Vec<i16>,
}

impl PcmDecoder {
    /// Allocates the buffers, 12 KiB.
    pub fn new() -> Self {
        Self { bytes: vec![0; 1 + PIECE_BYTES].into(), samples: Vec::with_capacity(PIECE_BYTES.div_ceil(2) + 1) }
    }

    /// Decodes one delta and hands its samples to `take`, in pieces when there are many. `odd` is the half sample that the
    /// deltas of an item so far left over, and is renewed. On an error the pieces before it have been handed over.
    pub fn decode(&mut self, odd: &mut Option<u8>, base64: &str, mut take: impl FnMut(&[i16])) -> Result<(), NotAudio> {
        for piece in base64.as_bytes().chunks(PIECE_CHARS) {
            let carried = usize::from(odd.is_some());
            self.bytes[0] = odd.unwrap_or_default();
            let decoded = STANDARD.decode(piece, self.bytes[carried..].as_out()).map_err(|_| NotAudio)?.len();
            let mut pairs = self.bytes[..carried + decoded].chunks_exact(2);
            self.samples.clear();
            self.samples.extend(pairs.by_ref().map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
            *odd = pairs.remainder().first().copied();
            if !self.samples.is_empty() {
                take(&self.samples);
            }
        }
        Ok(())
    }
}

impl Default for PcmDecoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Appends the base64 of samples.
pub(super) fn encode(out: &mut Vec<u8>, pcm: &[i16]) {
    let mut bytes = [0; ENCODE_SAMPLES * 2];
    for piece in pcm.chunks(ENCODE_SAMPLES) {
        let bytes = &mut bytes[..piece.len() * 2];
        for (pair, sample) in bytes.chunks_exact_mut(2).zip(piece) {
            pair.copy_from_slice(&sample.to_le_bytes());
        }
        STANDARD.encode_append(&*bytes, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(samples: usize) -> Vec<i16> {
        (0..samples).map(|index| (index as i32 * 37 - 30_000) as i16).collect()
    }

    fn base64(pcm: &[i16]) -> String {
        let mut out = Vec::new();
        encode(&mut out, pcm);
        String::from_utf8(out).unwrap()
    }

    fn decode_all(deltas: &[&str]) -> Result<(Vec<i16>, Option<u8>), NotAudio> {
        let mut decoder = PcmDecoder::new();
        let (mut odd, mut pcm) = (None, Vec::new());
        for delta in deltas {
            decoder.decode(&mut odd, delta, |piece| pcm.extend_from_slice(piece))?;
        }
        Ok((pcm, odd))
    }

    #[test]
    fn what_is_encoded_decodes_to_itself_at_every_length_that_matters() {
        for samples in [0, 1, 2, 3, 479, 480, 481, 960, 3071, 3072, 3073, 100_000] {
            let pcm = ramp(samples);
            let text = base64(&pcm);
            assert_eq!(text, STANDARD.encode_to_string(pcm.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<_>>()));
            assert_eq!(decode_all(&[&text]).unwrap(), (pcm, None), "{samples} samples");
        }
    }

    #[test]
    fn deltas_that_end_in_mid_sample_lose_nothing() {
        let pcm = ramp(10_000);
        let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        for sizes in [&[1][..], &[3, 5], &[6143, 1, 6145], &[7777]] {
            let mut rest = &bytes[..];
            let mut deltas = Vec::new();
            for size in sizes.iter().cycle() {
                let (head, tail) = rest.split_at((*size).min(rest.len()));
                deltas.push(STANDARD.encode_to_string(head));
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            let deltas: Vec<&str> = deltas.iter().map(String::as_str).collect();
            assert_eq!(decode_all(&deltas).unwrap(), (pcm.clone(), None), "sizes {sizes:?}");
        }
    }

    #[test]
    fn a_half_sample_at_the_end_stays_behind() {
        assert_eq!(decode_all(&[&STANDARD.encode_to_string([1, 2, 3])]).unwrap(), (vec![0x0201], Some(3)));
        assert_eq!(decode_all(&[""]).unwrap(), (vec![], None));
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for bad in ["a", "####", "AAA", "AA=A", "AAAA ", "Ä"] {
            assert_eq!(decode_all(&[bad]), Err(NotAudio), "{bad:?}");
        }
    }

    #[test]
    fn a_long_delta_comes_in_bounded_pieces() {
        let pcm = ramp(240_000);
        let text = base64(&pcm);
        let mut longest = 0;
        PcmDecoder::new().decode(&mut Some(7), &text, |piece| longest = longest.max(piece.len())).unwrap();
        assert!(longest <= PIECE_BYTES / 2 + 1, "{longest}");
    }
}
