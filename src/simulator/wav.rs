//! WAV files of 16-bit mono PCM: what a caller says, read from one, and what a caller heard, written to one.
//!
//! Bounded: a header that promises more than the file holds is an error, and so is more audio than anyone says in a call.
//! It must not know files; it turns bytes into samples and back.

use crate::audio::SAMPLE_RATE_HZ;

/// Rates that are read, in Hz: those that speech is kept at, each in a simple ratio to 24 kHz.
const RATES_HZ: [u32; 4] = [8_000, 16_000, 24_000, 48_000];

/// Longest file that is read: ten minutes at 48 kHz.
pub const FILE_BYTES_MAX: usize = 10 * 60 * 48_000 * 2 + 1024;

/// Reads a file; samples at 24 kHz. The error is a phrase that goes behind the file's name.
pub fn read(file: &[u8]) -> Result<Vec<i16>, String> {
    if file.len() > FILE_BYTES_MAX {
        return Err(format!("is longer than {FILE_BYTES_MAX} bytes: ten minutes at 48 kHz"));
    }
    let rest = file.strip_prefix(b"RIFF").and_then(|rest| rest.get(4..)).and_then(|rest| rest.strip_prefix(b"WAVE"));
    let mut rest = rest.ok_or("is no WAV file: it begins with no RIFF header")?;
    let mut rate = None;
    while let Some((head, body)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        match &head[..4] {
            b"fmt " => rate = Some(format(body.get(..length).ok_or("is cut short")?)?),
            b"data" => {
                let rate = rate.ok_or("has no fmt chunk before its data")?;
                // Programs that write to a pipe put a length there that they cannot know.
                let (pairs, _) = body[..length.min(body.len())].as_chunks::<2>();
                let samples: Vec<i16> = pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
                return if samples.is_empty() {
                    Err("holds no audio".to_owned())
                } else {
                    Ok(resample(&samples, rate))
                };
            }
            _ => {}
        }
        rest = body.get(length + length % 2..).unwrap_or_default();
    }
    Err("has no data chunk".to_owned())
}

/// The rate of a `fmt ` chunk.
fn format(chunk: &[u8]) -> Result<u32, String> {
    let &[tag_low, tag_high, channels, 0, r0, r1, r2, r3, _, _, _, _, _, _, bits, 0, ..] = chunk else {
        return Err("has a fmt chunk that is none of PCM".to_owned());
    };
    let (tag, rate) = (u16::from_le_bytes([tag_low, tag_high]), u32::from_le_bytes([r0, r1, r2, r3]));
    // 0xfffe: the same in the longer form, whose first fields are these.
    if !matches!(tag, 1 | 0xfffe) || channels != 1 || bits != 16 {
        return Err(format!("has format {tag} with {channels} channels of {bits} bits; 16-bit PCM in mono is read"));
    }
    if !RATES_HZ.contains(&rate) {
        return Err(format!("has {rate} samples a second; 8000, 16000, 24000 and 48000 are read"));
    }
    Ok(rate)
}

/// To 24 kHz by linear interpolation, which is good enough to be encoded at WhatsApp's 20 kbit/s.
fn resample(samples: &[i16], rate: u32) -> Vec<i16> {
    if rate == SAMPLE_RATE_HZ {
        return samples.to_vec();
    }
    crate::load::voices::at_speed(samples, f64::from(rate) / f64::from(SAMPLE_RATE_HZ))
}

/// A file of these samples at 24 kHz.
pub fn write(samples: &[i16]) -> Vec<u8> {
    let bytes = u32::try_from(samples.len() * 2).expect("recordings are bounded far below 4 GiB");
    let mut file = Vec::with_capacity(44 + samples.len() * 2);
    file.extend(b"RIFF");
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    file.extend([1, 0, 1, 0]); // PCM, mono
    file.extend(SAMPLE_RATE_HZ.to_le_bytes());
    file.extend((SAMPLE_RATE_HZ * 2).to_le_bytes());
    file.extend([2, 0, 16, 0]); // bytes of a sample, bits
    file.extend(b"data");
    file.extend(bytes.to_le_bytes());
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_other_rates_keep_their_length_in_time() {
        let samples: Vec<i16> = (0..4_800).map(|n| n as i16).collect();
        let file = write(&samples);
        assert_eq!(read(&file).unwrap(), samples);
        for (rate, expected) in [(8_000u32, 14_400), (16_000, 7_200), (48_000, 2_400)] {
            let mut other = file.clone();
            other[24..28].copy_from_slice(&rate.to_le_bytes());
            assert_eq!(read(&other).unwrap().len(), expected, "{rate}");
        }
    }

    #[test]
    fn chunks_between_are_skipped_and_a_length_that_nobody_knew_is_that_of_the_file() {
        let mut file = write(&[1, 2, 3]);
        file[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
        file.splice(36..36, *b"LIST\x03\0\0\0abc\0");
        assert_eq!(read(&file).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn what_is_no_such_file_is_said_in_words() {
        let good = write(&[1, 2, 3]);
        let changed = |at: usize, byte: u8| {
            let mut file = good.clone();
            file[at] = byte;
            file
        };
        for (file, said) in [
            (b"ID3".to_vec(), "no RIFF header"),
            (changed(20, 3), "format 3"),
            (changed(22, 2), "2 channels"),
            (changed(34, 8), "8 bits"),
            (changed(24, 1), "samples a second"),
            (changed(36, b'x'), "no data chunk"),
            (changed(12, b'x'), "no fmt chunk"),
            (write(&[]), "no audio"),
            (good[..30].to_vec(), "cut short"),
            (vec![0; FILE_BYTES_MAX + 1], "ten minutes"),
        ] {
            let error = read(&file).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
