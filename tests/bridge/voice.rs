//! Test voices: speech-like sound as Opus frames, and what a recording sounds like to a simple ear.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::Duration;

use voice_media_bridge::audio::{
    Decoder, Encoder, EncoderSettings, FRAME_SAMPLES, PACKET_SAMPLES_MAX, PAYLOAD_BYTES_MAX, SAMPLE_RATE_HZ,
};

use crate::relay::record::Received;

/// Root mean square of a frame above which it counts as voice.
const VOICE_RMS: f64 = 500.0;

/// A voiced sound: a pitch with harmonics whose strength rises and falls as syllables do, as Opus frames.
pub(crate) fn speech(time: Duration, pitch_hz: f64) -> Vec<Arc<[u8]>> {
    let samples = (time.as_secs_f64() * f64::from(SAMPLE_RATE_HZ)) as usize;
    let voice = |n: usize| {
        let t = n as f64 / f64::from(SAMPLE_RATE_HZ);
        let syllable = 0.6 + 0.4 * (TAU * 3.0 * t).sin();
        let tone: f64 = (1..8).map(|h| (TAU * pitch_hz * f64::from(h) * t).sin() / f64::from(h)).sum();
        (tone * syllable * 5000.0) as i16
    };
    encode((0..samples).map(voice))
}

/// Silence as Opus frames.
pub(crate) fn silence(time: Duration) -> Vec<Arc<[u8]>> {
    encode(std::iter::repeat_n(0, (time.as_secs_f64() * f64::from(SAMPLE_RATE_HZ)) as usize))
}

fn encode(samples: impl Iterator<Item = i16>) -> Vec<Arc<[u8]>> {
    let settings = EncoderSettings::for_peer(Some(20_000), Some(16_000), true, 5);
    let mut encoder = Encoder::new(settings).expect("valid settings");
    let pcm: Vec<i16> = samples.collect();
    let (frames, _) = pcm.as_chunks::<FRAME_SAMPLES>();
    let mut out = [0; PAYLOAD_BYTES_MAX];
    frames
        .iter()
        .map(|frame| {
            let len = encoder.encode(frame, &mut out).expect("a frame is encoded");
            Arc::from(&out[..len])
        })
        .collect()
}

/// A recording as sound, 24 kHz.
pub(crate) fn decode(received: &[Received]) -> Vec<i16> {
    let mut decoder = Decoder::new().expect("a decoder");
    let mut out = [0; PACKET_SAMPLES_MAX];
    let mut pcm = Vec::new();
    for packet in received {
        let len = decoder.decode(&packet.payload, &mut out).expect("what we send decodes");
        pcm.extend_from_slice(&out[..len]);
    }
    pcm
}

/// Which frames of a recording carry voice.
pub(crate) fn voiced(pcm: &[i16]) -> Vec<bool> {
    pcm.chunks(FRAME_SAMPLES).map(|frame| rms(frame) > VOICE_RMS).collect()
}

/// How much of a recording is voice.
pub(crate) fn voiced_time(pcm: &[i16]) -> Duration {
    Duration::from_millis(20) * voiced(pcm).iter().filter(|voiced| **voiced).count() as u32
}

fn rms(frame: &[i16]) -> f64 {
    let sum: f64 = frame.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (sum / frame.len().max(1) as f64).sqrt()
}

/// The share of a recording's energy at a pitch and its first harmonics, 0 to 1.
pub(crate) fn share_at(pcm: &[i16], pitch_hz: f64) -> f64 {
    let total: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let at = |hz: f64| {
        let step = TAU * hz / f64::from(SAMPLE_RATE_HZ);
        let (re, im) = pcm.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, sample)| {
            let angle = step * n as f64;
            (re + f64::from(*sample) * angle.cos(), im + f64::from(*sample) * angle.sin())
        });
        2.0 * (re * re + im * im) / pcm.len().max(1) as f64
    };
    // Syllables spread each harmonic by their rate: 3 Hz to both sides.
    let lines = (1..4).flat_map(|h| [-3.0, 0.0, 3.0].map(|side| pitch_hz * f64::from(h) + side));
    lines.map(at).sum::<f64>() / total.max(1.0)
}

/// Whether a recording ends as the bridge says goodbye: two falling tones of these pitches and frames, then silence.
pub(crate) fn ends_with_goodbye(received: &[Received]) -> Result<(), String> {
    const TONES: [(f64, usize); 2] = [(659.26, 9), (440.0, 16)];
    const TAIL: usize = 10;
    let frames = decode(received);
    let mut rest = &frames[frames.len().saturating_sub((9 + 16 + TAIL) * FRAME_SAMPLES)..];
    for (index, (own_hz, len)) in TONES.into_iter().enumerate() {
        let other_hz = TONES[1 - index].0;
        let (tone, after) = rest.split_at_checked(len * FRAME_SAMPLES).ok_or("the recording is too short")?;
        rest = after;
        // Away from the edges, which the codec shifts by its delay.
        let tone = &tone[2 * FRAME_SAMPLES..(len - 1) * FRAME_SAMPLES];
        let (level, own, other) = (rms(tone), pure_share_at(tone, own_hz), pure_share_at(tone, other_hz));
        if level < VOICE_RMS || own < 0.8 || other > 0.1 {
            return Err(format!(
                "tone {index}: level {level:.0}, {own:.2} at {own_hz} Hz, {other:.2} at {other_hz} Hz"
            ));
        }
    }
    match voiced(&rest[FRAME_SAMPLES..]).iter().position(|voiced| *voiced) {
        None => Ok(()),
        Some(frame) => Err(format!("voice {frame} frames behind the tones")),
    }
}

/// The share of a recording's energy at one pitch alone.
fn pure_share_at(pcm: &[i16], hz: f64) -> f64 {
    let step = TAU * hz / f64::from(SAMPLE_RATE_HZ);
    let (re, im) = pcm.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, sample)| {
        let angle = step * n as f64;
        (re + f64::from(*sample) * angle.cos(), im + f64::from(*sample) * angle.sin())
    });
    let total: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    2.0 * (re * re + im * im) / pcm.len().max(1) as f64 / total.max(1.0)
}
