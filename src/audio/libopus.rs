//! The binding to libopus: two state machines and three questions about packets, in safe clothes.
//!
//! What makes it safe: a state is created, used through `&mut` and destroyed by its one owner, and every pointer handed
//! over comes from a slice whose length goes with it. libopus keeps no global state, so a codec may move between
//! threads; it is never shared. No other file names the C library.

use std::ffi::{CStr, c_int};
use std::ptr::{self, NonNull};

use opusic_sys as sys;

use super::{
    Bandwidth, CodecError, EXPAND_STEP_SAMPLES, EncoderSettings, FRAME_SAMPLES, PACKET_SAMPLES_MAX, SAMPLE_RATE_HZ,
};

const CHANNELS: c_int = 1;
const RATE: i32 = SAMPLE_RATE_HZ as i32;

/// Makes a count, or the error that stands in its place.
fn count(code: c_int) -> Result<usize, CodecError> {
    usize::try_from(code).map_err(|_| match code {
        sys::OPUS_INVALID_PACKET => CodecError::BadPacket,
        sys::OPUS_BUFFER_TOO_SMALL => CodecError::BadLength,
        sys::OPUS_BAD_ARG => CodecError::BadSetting,
        sys::OPUS_ALLOC_FAIL => CodecError::OutOfMemory,
        code => CodecError::Internal(code),
    })
}

/// The length of a payload as libopus takes it. An empty one would ask for concealment, so it is no packet.
fn payload_len(payload: &[u8]) -> Result<i32, CodecError> {
    match i32::try_from(payload.len()) {
        Ok(len @ 1..) => Ok(len),
        _ => Err(CodecError::BadPacket),
    }
}

/// An Opus encoder for speech: mono, 24 kHz, 20 ms.
#[derive(Debug)]
pub struct Encoder {
    state: NonNull<sys::OpusEncoder>,
}

// SAFETY: the state is plain memory that this value alone owns; libopus ties none of it to a thread.
unsafe impl Send for Encoder {}

impl Encoder {
    /// An encoder with these settings.
    pub fn new(settings: EncoderSettings) -> Result<Self, CodecError> {
        let mut code = sys::OPUS_OK;
        // SAFETY: the error pointer outlives the call; the result is checked below.
        let state = unsafe { sys::opus_encoder_create(RATE, CHANNELS, sys::OPUS_APPLICATION_VOIP, &raw mut code) };
        count(code)?;
        let mut encoder = Self { state: NonNull::new(state).ok_or(CodecError::OutOfMemory)? };
        let bandwidth = match settings.bandwidth_max {
            Bandwidth::Narrow => sys::OPUS_BANDWIDTH_NARROWBAND,
            Bandwidth::Medium => sys::OPUS_BANDWIDTH_MEDIUMBAND,
            Bandwidth::Wide => sys::OPUS_BANDWIDTH_WIDEBAND,
            Bandwidth::SuperWide => sys::OPUS_BANDWIDTH_SUPERWIDEBAND,
            Bandwidth::Full => sys::OPUS_BANDWIDTH_FULLBAND,
        };
        for (request, value) in [
            (sys::OPUS_SET_BITRATE_REQUEST, i32::try_from(settings.bitrate_bps).map_err(|_| CodecError::BadSetting)?),
            (sys::OPUS_SET_MAX_BANDWIDTH_REQUEST, bandwidth),
            (sys::OPUS_SET_SIGNAL_REQUEST, sys::OPUS_SIGNAL_VOICE),
            (sys::OPUS_SET_VBR_REQUEST, 1),
            (sys::OPUS_SET_VBR_CONSTRAINT_REQUEST, 1),
            (sys::OPUS_SET_DTX_REQUEST, 0),
        ] {
            encoder.set(request, value)?;
        }
        encoder.set_effort(settings)?;
        Ok(encoder)
    }

    /// Takes complexity and FEC from these settings, and nothing else, from the next frame on.
    pub fn set_effort(&mut self, settings: EncoderSettings) -> Result<(), CodecError> {
        self.set(sys::OPUS_SET_COMPLEXITY_REQUEST, settings.complexity.into())?;
        self.set(sys::OPUS_SET_INBAND_FEC_REQUEST, settings.inband_fec.into())?;
        self.set(sys::OPUS_SET_PACKET_LOSS_PERC_REQUEST, settings.loss_pct.into())
    }

    fn set(&mut self, request: c_int, value: i32) -> Result<(), CodecError> {
        // SAFETY: the state is live, and every request of this file takes exactly one `opus_int32`.
        count(unsafe { sys::opus_encoder_ctl(self.state.as_ptr(), request, value) }).map(drop)
    }

    /// Encodes one frame into `out` and says how many bytes it took. With less than
    /// [`PAYLOAD_BYTES_MAX`](super::PAYLOAD_BYTES_MAX) bytes of room libopus lowers the quality to fit.
    pub fn encode(&mut self, frame: &[i16; FRAME_SAMPLES], out: &mut [u8]) -> Result<usize, CodecError> {
        let room = i32::try_from(out.len()).unwrap_or(i32::MAX);
        // SAFETY: the state is live; exactly `FRAME_SAMPLES` samples are read from the frame and at most `room` bytes,
        // no more than `out` has, are written to it.
        let code = unsafe {
            sys::opus_encode(self.state.as_ptr(), frame.as_ptr(), FRAME_SAMPLES as c_int, out.as_mut_ptr(), room)
        };
        count(code)
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `opus_encoder_create` and nothing uses it after its owner.
        unsafe { sys::opus_encoder_destroy(self.state.as_ptr()) }
    }
}

/// An Opus decoder: any Opus stream to mono, 24 kHz.
#[derive(Debug)]
pub struct Decoder {
    state: NonNull<sys::OpusDecoder>,
}

// SAFETY: the state is plain memory that this value alone owns; libopus ties none of it to a thread.
unsafe impl Send for Decoder {}

impl Decoder {
    /// A decoder that has heard nothing yet.
    pub fn new() -> Result<Self, CodecError> {
        let mut code = sys::OPUS_OK;
        // SAFETY: the error pointer outlives the call; the result is checked below.
        let state = unsafe { sys::opus_decoder_create(RATE, CHANNELS, &raw mut code) };
        count(code)?;
        Ok(Self { state: NonNull::new(state).ok_or(CodecError::OutOfMemory)? })
    }

    /// Decodes a packet and says how many samples came out. Room for [`PACKET_SAMPLES_MAX`] is always enough.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecError> {
        self.run(payload.as_ptr(), payload_len(payload)?, out, 0)
    }

    /// Repairs the audio right before `next` from the coarse copy in it, filling `out` whole. Where `out` is longer than
    /// a frame of `next`, or `next` has no such copy, the rest is expanded. The length must be a multiple of 2.5 ms.
    pub fn decode_fec(&mut self, next: &[u8], out: &mut [i16]) -> Result<(), CodecError> {
        self.conceal(next.as_ptr(), payload_len(next)?, out, 1)
    }

    /// Makes up what may have followed the audio so far (packet loss concealment), filling `out` whole. The length must
    /// be a multiple of 2.5 ms.
    pub fn expand(&mut self, out: &mut [i16]) -> Result<(), CodecError> {
        self.conceal(ptr::null(), 0, out, 0)
    }

    fn conceal(&mut self, data: *const u8, len: i32, out: &mut [i16], fec: c_int) -> Result<(), CodecError> {
        if out.is_empty() || out.len() > PACKET_SAMPLES_MAX || !out.len().is_multiple_of(EXPAND_STEP_SAMPLES) {
            return Err(CodecError::BadLength);
        }
        let made = self.run(data, len, out, fec)?;
        assert_eq!(made, out.len(), "libopus fills exactly what concealment asks for");
        Ok(())
    }

    /// `data` points at `len` readable bytes, or is null with `len` zero.
    fn run(&mut self, data: *const u8, len: i32, out: &mut [i16], fec: c_int) -> Result<usize, CodecError> {
        let room = out.len().min(PACKET_SAMPLES_MAX) as c_int;
        // SAFETY: the state is live; `data` and `len` are those of a live slice, or null and zero, by the callers above;
        // at most `room` mono samples, no more than `out` has, are written to it.
        count(unsafe { sys::opus_decode(self.state.as_ptr(), data, len, out.as_mut_ptr(), room, fec) })
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `opus_decoder_create` and nothing uses it after its owner.
        unsafe { sys::opus_decoder_destroy(self.state.as_ptr()) }
    }
}

/// What the library calls itself: `libopus 1.6.1`.
pub fn library_version() -> &'static str {
    // SAFETY: the library returns a string of its own that ends with a zero and lasts as long as the program.
    let name = unsafe { CStr::from_ptr(sys::opus_get_version_string()) };
    name.to_str().unwrap_or("unknown")
}

/// Bytes that an encoder and a decoder take together: libopus allocates them itself, past Rust's allocator.
pub(super) fn state_bytes() -> usize {
    // SAFETY: both only compute a number from the count of channels.
    let sizes = unsafe { [sys::opus_encoder_get_size(CHANNELS), sys::opus_decoder_get_size(CHANNELS)] };
    sizes.into_iter().map(|size| usize::try_from(size).unwrap_or(0)).sum()
}

/// Samples that a packet decodes to, at most [`PACKET_SAMPLES_MAX`].
pub(super) fn packet_samples(payload: &[u8]) -> Result<u16, CodecError> {
    let len = payload_len(payload)?;
    // SAFETY: reads at most `len` bytes, at least one, of a live slice.
    let samples = count(unsafe { sys::opus_packet_get_nb_samples(payload.as_ptr(), len, RATE) })?;
    match u16::try_from(samples) {
        Ok(samples @ 1..) if usize::from(samples) <= PACKET_SAMPLES_MAX => Ok(samples),
        _ => Err(CodecError::BadPacket),
    }
}

/// Samples of each frame of a packet.
pub(super) fn frame_samples(payload: &[u8]) -> Result<u16, CodecError> {
    payload_len(payload)?;
    // SAFETY: reads the first byte of a slice that has one.
    let samples = count(unsafe { sys::opus_packet_get_samples_per_frame(payload.as_ptr(), RATE) })?;
    u16::try_from(samples).map_err(|_| CodecError::BadPacket)
}

/// Whether a packet carries a coarse copy of the frame before it.
pub(super) fn packet_has_fec(payload: &[u8]) -> Result<bool, CodecError> {
    let len = payload_len(payload)?;
    // SAFETY: reads at most `len` bytes, at least one, of a live slice.
    count(unsafe { sys::opus_packet_has_lbrr(payload.as_ptr(), len) }).map(|flag| flag != 0)
}
