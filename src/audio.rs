//! Frames of speech and the Opus codec.
//!
//! Both directions of a call run at 24 kHz mono, the rate of the model. libopus decodes any Opus stream to it and encodes
//! from it, so there is no resampler. A bad packet is an error, never the end of a codec. This module must not know RTP,
//! sequence numbers or calls.

#[expect(unsafe_code, reason = "libopus is a C library; every call into it stands in this one file")]
mod libopus;
mod ramp;
mod settings;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

pub use libopus::{Decoder, Encoder, library_version};
pub use ramp::{RAMP_SAMPLES, ramp_in, ramp_out};
pub use settings::{Bandwidth, COMPLEXITY_MAX, EncoderSettings, relative_cost};

/// Samples per second of all PCM in the program.
pub const SAMPLE_RATE_HZ: u32 = 24_000;
/// Length of a frame.
pub const FRAME: Duration = Duration::from_millis(20);
/// Samples of a frame.
pub const FRAME_SAMPLES: usize = 480;
/// Ticks of the RTP clock per sample: Opus always counts at 48 kHz (RFC 7587 section 4.1).
pub const RTP_TICKS_PER_SAMPLE: u32 = 2;
/// Ticks of the RTP clock per frame.
pub const RTP_TICKS_PER_FRAME: u32 = 960;
/// Longest payload of one Opus frame, in bytes (RFC 6716 section 3.2.1).
pub const PAYLOAD_BYTES_MAX: usize = 1275;
/// Samples of the longest packet: 120 ms (RFC 6716 section 3.2.5).
pub const PACKET_SAMPLES_MAX: usize = 2_880;
/// Concealment comes in multiples of this many samples: 2.5 ms, the shortest Opus frame.
pub const EXPAND_STEP_SAMPLES: usize = 60;
/// Payloads up to this many bytes carry no audio: the sender pauses (DTX) or has nothing to say.
pub const DTX_BYTES_MAX: usize = 2;

/// Whole milliseconds of this many samples.
pub const fn samples_to_ms(samples: u64) -> u64 {
    samples / (SAMPLE_RATE_HZ as u64 / 1000)
}

/// Bytes of memory that an encoder and a decoder take together. libopus allocates them itself.
pub fn codec_bytes() -> usize {
    libopus::state_bytes()
}

/// Why the codec refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The payload is no Opus packet, or one of more than 120 ms.
    BadPacket,
    /// The output has no room, or concealment was asked for a length that is no multiple of 2.5 ms.
    BadLength,
    /// A setting is out of range.
    BadSetting,
    /// No memory for the codec's state.
    OutOfMemory,
    /// libopus failed in another way; its error code.
    Internal(i32),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadPacket => f.write_str("not an Opus packet of at most 120 ms"),
            Self::BadLength => f.write_str("output too small, or not a multiple of 2.5 ms"),
            Self::BadSetting => f.write_str("setting out of range"),
            Self::OutOfMemory => f.write_str("no memory for the codec"),
            Self::Internal(code) => write!(f, "libopus error {code}"),
        }
    }
}

impl std::error::Error for CodecError {}

/// What a packet's header says, without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketInfo {
    /// Samples it decodes to, at most [`PACKET_SAMPLES_MAX`].
    pub samples: u16,
    /// Samples of each of its frames, and so of the audio before it that its FEC can repair.
    pub frame_samples: u16,
    /// Whether it carries no audio because the sender pauses.
    pub is_dtx: bool,
    /// Whether it carries a coarse copy (LBRR) of the frame before it.
    pub has_fec: bool,
}

impl PacketInfo {
    /// Reads the header of a payload (RFC 6716 section 3). Takes some nanoseconds and touches no codec state.
    pub fn of(payload: &[u8]) -> Result<Self, CodecError> {
        let samples = libopus::packet_samples(payload)?;
        let is_dtx = payload.len() <= DTX_BYTES_MAX;
        let has_fec = !is_dtx && libopus::packet_has_fec(payload)?;
        Ok(Self { samples, frame_samples: libopus::frame_samples(payload)?, is_dtx, has_fec })
    }
}
