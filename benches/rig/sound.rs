//! The speech that all benches code, as samples, as Opus and as the model's events.

use std::sync::{Arc, LazyLock};

use base64_simd::STANDARD;
use voice_media_bridge::audio::{Encoder, EncoderSettings, FRAME_SAMPLES, PAYLOAD_BYTES_MAX, SAMPLE_RATE_HZ};

/// One frame of samples.
pub(crate) type Pcm = [i16; FRAME_SAMPLES];

/// Frames of [`talk`]: ten seconds.
pub(crate) const TALK_FRAMES: usize = 500;

/// WhatsApp's limits: 20 kbit/s, wideband, FEC.
pub(crate) fn whatsapp(complexity: u8) -> EncoderSettings {
    EncoderSettings::for_peer(Some(20_000), Some(16_000), true, complexity)
}

/// What a peer gets that names no limits, as a browser does: 32 kbit/s, full band, FEC.
pub(crate) fn unlimited(complexity: u8) -> EncoderSettings {
    EncoderSettings::for_peer(None, None, true, complexity)
}

/// Ten seconds of something like voiced speech with pauses between syllables.
pub(crate) fn talk() -> Vec<Pcm> {
    static TALK: LazyLock<Vec<Pcm>> = LazyLock::new(synthesize);
    TALK.clone()
}

/// The same as the packets that WhatsApp would make of it.
pub(crate) fn talk_encoded() -> Vec<Arc<[u8]>> {
    static ENCODED: LazyLock<Vec<Arc<[u8]>>> = LazyLock::new(|| encoded(&talk(), whatsapp(5)));
    ENCODED.clone()
}

fn synthesize() -> Vec<Pcm> {
    let rate = f64::from(SAMPLE_RATE_HZ);
    let mut phase = 0.0;
    let pcm: Vec<i16> = (0..TALK_FRAMES * FRAME_SAMPLES)
        .map(|n| {
            let t = n as f64 / rate;
            let pitch = 140.0 + 30.0 * (t * 2.1).sin();
            phase += pitch / rate;
            let formants = [500.0 + 250.0 * (t * 3.3).sin(), 1700.0 + 500.0 * (t * 2.7).cos()];
            let voice: f64 = (1..=24)
                .map(|k| {
                    let hz = pitch * f64::from(k);
                    let gain: f64 = formants.iter().map(|f| (-((hz - f) / 220.0).powi(2)).exp()).sum();
                    (gain + 0.02) * (std::f64::consts::TAU * phase * f64::from(k)).sin()
                })
                .sum();
            (voice * (std::f64::consts::PI * t * 4.0).sin().powi(2) * 4_000.0).clamp(-32_000.0, 32_000.0) as i16
        })
        .collect();
    pcm.as_chunks().0.to_vec()
}

/// Frames as Opus, by an encoder of complexity 5.
pub(crate) fn encoded(frames: &[Pcm], settings: EncoderSettings) -> Vec<Arc<[u8]>> {
    let mut encoder = Encoder::new(settings).unwrap();
    let mut out = [0; PAYLOAD_BYTES_MAX];
    frames
        .iter()
        .map(|frame| {
            let len = encoder.encode(frame, &mut out).unwrap();
            Arc::from(&out[..len])
        })
        .collect()
}

/// A delta as OpenAI writes it. Items with other numbers have other names.
pub(crate) fn delta_event(item: u64, pcm: &[i16]) -> String {
    let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    format!(
        r#"{{"type":"response.output_audio.delta","event_id":"event_CAiWX0mAX5YZkR5qj1JMa","response_id":"resp_CAiWWoVKkNNc{item:08}","item_id":"item_CAiWWwNkgdUb{item:08}","output_index":0,"content_index":0,"delta":"{}"}}"#,
        STANDARD.encode_to_string(bytes)
    )
}

/// A text frame of a server: not masked.
pub(crate) fn text_frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match u16::try_from(text.len()).expect("a short text") {
        length @ 0..126 => bytes.push(length as u8),
        length => {
            bytes.push(126);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(text.as_bytes());
    bytes
}
