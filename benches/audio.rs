//! What 20 ms of a call cost: the codec alone, and each direction around it.
//!
//! `cargo bench --bench audio`. Absolute times are the machine's; at the end it prints the share of each direction that is
//! the codec's, with both sides measured in turns in one run.

#![expect(clippy::unwrap_used, reason = "a bench that fails stops")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use voice_media_bridge::audio::{
    Decoder, Encoder, EncoderSettings, FRAME, FRAME_SAMPLES, PACKET_SAMPLES_MAX, PAYLOAD_BYTES_MAX, PacketInfo,
    SAMPLE_RATE_HZ,
};
use voice_media_bridge::call::downlink::{Downlink, ItemId};
use voice_media_bridge::call::uplink::Uplink;

const TALK_FRAMES: usize = 500;

/// Ten seconds of something like voiced speech with pauses between syllables.
fn talk() -> Vec<[i16; FRAME_SAMPLES]> {
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

/// WhatsApp's limits.
fn settings(complexity: u8) -> EncoderSettings {
    EncoderSettings::for_peer(Some(20_000), Some(16_000), true, complexity)
}

fn encoded(talk: &[[i16; FRAME_SAMPLES]]) -> Vec<Arc<[u8]>> {
    let mut encoder = Encoder::new(settings(5)).unwrap();
    let mut out = [0; PAYLOAD_BYTES_MAX];
    talk.iter()
        .map(|frame| {
            let len = encoder.encode(frame, &mut out).unwrap();
            Arc::from(&out[..len])
        })
        .collect()
}

fn encode_step(complexity: u8) -> impl FnMut() {
    let (talk, mut n) = (talk(), 0);
    let mut encoder = Encoder::new(settings(complexity)).unwrap();
    let mut out = [0; PAYLOAD_BYTES_MAX];
    move || {
        black_box(encoder.encode(&talk[n % TALK_FRAMES], &mut out).unwrap());
        n += 1;
    }
}

fn decode_step() -> impl FnMut() {
    let (payloads, mut n) = (encoded(&talk()), 0);
    let mut decoder = Decoder::new().unwrap();
    let mut out = [0; PACKET_SAMPLES_MAX];
    move || {
        black_box(decoder.decode(&payloads[n % TALK_FRAMES], &mut out).unwrap());
        n += 1;
    }
}

fn uplink_step() -> impl FnMut() {
    let (payloads, mut n) = (encoded(&talk()), 0_u64);
    let mut uplink = Uplink::new().unwrap();
    let mut now = Instant::now();
    move || {
        now += FRAME;
        uplink.insert_packet(now, now, n, n * 960, payloads[n as usize % TALK_FRAMES].clone());
        uplink.poll(now, &mut |frame| {
            black_box(frame.pcm);
        });
        n += 1;
    }
}

fn downlink(complexity: u8) -> (Downlink, Instant) {
    let now = Instant::now();
    let mut downlink = Downlink::new(settings(complexity), Duration::ZERO, 0).unwrap();
    downlink.start(now);
    (downlink, now)
}

fn talking_step(complexity: u8) -> impl FnMut() {
    let (talk, mut n) = (talk(), 0);
    let (mut downlink, mut now) = downlink(complexity);
    move || {
        downlink.push(ItemId(1), &talk[n % TALK_FRAMES]);
        black_box(downlink.beat(now).unwrap().payload);
        now += FRAME;
        n += 1;
    }
}

fn silent_step() -> impl FnMut() {
    let (mut downlink, mut now) = downlink(5);
    move || {
        black_box(downlink.beat(now).unwrap().payload);
        now += FRAME;
    }
}

fn codec(c: &mut Criterion) {
    for complexity in [0, 5, 10] {
        let mut step = encode_step(complexity);
        c.bench_function(&format!("codec/encode_cx{complexity}"), |b| b.iter(&mut step));
    }
    let mut step = decode_step();
    c.bench_function("codec/decode", |b| b.iter(&mut step));

    let payloads = encoded(&talk());
    let next = payloads.iter().skip(100).find(|payload| PacketInfo::of(payload).unwrap().has_fec).unwrap();
    let mut out = [0; PACKET_SAMPLES_MAX];
    let warm = || {
        let (mut decoder, mut out) = (Decoder::new().unwrap(), [0; PACKET_SAMPLES_MAX]);
        payloads[..100].iter().for_each(|payload| {
            decoder.decode(payload, &mut out).unwrap();
        });
        decoder
    };
    let mut decoder = warm();
    // Every second frame is lost: expanding for longer would measure the decoder's hum.
    c.bench_function("codec/decode_then_expand", |b| {
        b.iter(|| {
            decoder.decode(next, &mut out).unwrap();
            decoder.expand(&mut out[..FRAME_SAMPLES]).unwrap();
        });
    });
    let mut decoder = warm();
    c.bench_function("codec/fec_then_decode", |b| {
        b.iter(|| {
            decoder.decode_fec(next, &mut out[..FRAME_SAMPLES]).unwrap();
            decoder.decode(next, &mut out).unwrap();
        });
    });
    c.bench_function("codec/packet_info", |b| b.iter(|| PacketInfo::of(black_box(next)).unwrap()));
}

fn directions(c: &mut Criterion) {
    let mut step = uplink_step();
    c.bench_function("uplink/insert_and_poll", |b| b.iter(&mut step));
    for complexity in [0, 5] {
        let mut step = talking_step(complexity);
        c.bench_function(&format!("downlink/push_and_beat_cx{complexity}"), |b| b.iter(&mut step));
    }
    let mut step = silent_step();
    c.bench_function("downlink/beat_of_silence", |b| b.iter(&mut step));
}

/// The median over rounds of what the codec takes of the whole, the two measured in turns.
fn share(name: &str, mut codec: impl FnMut(), mut whole: impl FnMut()) {
    let time = |step: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..TALK_FRAMES).for_each(|_| step());
        start.elapsed().as_secs_f64()
    };
    let mut rounds: Vec<(f64, f64)> = (0..31).map(|_| (time(&mut codec), time(&mut whole))).collect();
    rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let (codec, whole) = rounds[rounds.len() / 2];
    let us = 1e6 / TALK_FRAMES as f64;
    println!(
        "{name}: {:.2} us a frame, the codec alone {:.2} us: {:.1} %",
        whole * us,
        codec * us,
        codec / whole * 100.0
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = codec, directions
}

fn main() {
    benches();
    println!();
    share("uplink", decode_step(), uplink_step());
    share("downlink cx0", encode_step(0), talking_step(0));
    share("downlink cx5", encode_step(5), talking_step(5));
    Criterion::default().configure_from_args().final_summary();
}
