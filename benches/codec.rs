//! What libopus alone takes, and the baseline that the whole is held against: a call-second of codec both ways.
//!
//! `cargo bench --bench codec`; `-- baseline` prints only the baseline, `-- frames FILE` leaves the
//! frames for a program with another libopus in it. The caller's packets are decoded and the samples that
//! come out are encoded, as a call with the echoing agent does it. All complexities take turns, so that the machine's moods
//! fall on all of them; time is the thread's processor time.

#![expect(clippy::unwrap_used, reason = "a bench that fails stops")]

mod rig;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group};
use rig::meter::{Meter, cpu_nanos};
use rig::report::{Table, median};
use rig::sound::{Pcm, TALK_FRAMES, encoded, talk, talk_encoded, unlimited, whatsapp};
use voice_media_bridge::audio::{
    Decoder, Encoder, EncoderSettings, FRAME_SAMPLES, PACKET_SAMPLES_MAX, PAYLOAD_BYTES_MAX, PacketInfo,
};

const COMPLEXITIES: [u8; 7] = [0, 1, 2, 3, 5, 8, 10];
/// Rounds of the baseline, each 10 s of a call at every complexity.
const ROUNDS: usize = 15;

fn encode_step(settings: EncoderSettings) -> impl FnMut() {
    let (talk, mut n) = (talk(), 0);
    let mut encoder = Encoder::new(settings).unwrap();
    let mut out = [0; PAYLOAD_BYTES_MAX];
    move || {
        black_box(encoder.encode(&talk[n % TALK_FRAMES], &mut out).unwrap());
        n += 1;
    }
}

fn codec(c: &mut Criterion) {
    for (name, settings) in [("20k_wideband", whatsapp as fn(u8) -> _), ("32k_fullband", unlimited)] {
        for complexity in COMPLEXITIES {
            let mut step = encode_step(settings(complexity));
            c.bench_function(&format!("codec/encode_{name}_cx{complexity}"), |b| b.iter(&mut step));
        }
        let (payloads, mut n) = (encoded(&talk(), settings(5)), 0);
        let (mut decoder, mut out) = (Decoder::new().unwrap(), [0; PACKET_SAMPLES_MAX]);
        c.bench_function(&format!("codec/decode_{name}"), |b| {
            b.iter(|| {
                black_box(decoder.decode(&payloads[n % TALK_FRAMES], &mut out).unwrap());
                n += 1;
            });
        });
    }

    let payloads = talk_encoded();
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
    c.bench_function("codec/new_encoder_and_decoder", |b| {
        b.iter(|| (Encoder::new(whatsapp(5)).unwrap(), Decoder::new().unwrap()));
    });
}

/// Ten seconds of one side of a call.
struct Side {
    payloads: Vec<std::sync::Arc<[u8]>>,
    frames: Vec<Pcm>,
}

impl Side {
    fn new() -> Self {
        let payloads = talk_encoded();
        let mut decoder = Decoder::new().unwrap();
        let decode = |payload: &std::sync::Arc<[u8]>| {
            let mut pcm = [0; FRAME_SAMPLES];
            decoder.decode(payload, &mut pcm).unwrap();
            pcm
        };
        let frames = payloads.iter().map(decode).collect();
        Self { payloads, frames }
    }

    fn decode(&self, meter: Meter, decoder: &mut Decoder) -> u64 {
        let mut out = [0; PACKET_SAMPLES_MAX];
        meter(&mut || {
            for payload in &self.payloads {
                black_box(decoder.decode(payload, &mut out).unwrap());
            }
        })
    }

    fn encode(&self, meter: Meter, encoder: &mut Encoder) -> u64 {
        let mut out = [0; PAYLOAD_BYTES_MAX];
        meter(&mut || {
            for frame in &self.frames {
                black_box(encoder.encode(frame, &mut out).unwrap());
            }
        })
    }
}

/// The codec's cost of one second of a call, both sides talking all the time.
fn baseline() {
    let side = Side::new();
    let mut decoder = Decoder::new().unwrap();
    let mut encoders = COMPLEXITIES.map(|complexity| Encoder::new(whatsapp(complexity)).unwrap());
    let mut costs: Vec<(Vec<u64>, Vec<u64>)> = vec![Default::default(); COMPLEXITIES.len()];
    for _ in 0..ROUNDS {
        for (encoder, (decode, encode)) in encoders.iter_mut().zip(&mut costs) {
            decode.push(side.decode(cpu_nanos, &mut decoder));
            encode.push(side.encode(cpu_nanos, encoder));
        }
    }
    let columns = &["decode us", "encode us", "call-second us", "quietest us", "calls a core"];
    let mut table = Table::new("codec", "codec alone, both sides talking", columns);
    for (complexity, (mut decode, mut encode)) in COMPLEXITIES.into_iter().zip(costs) {
        let frames = TALK_FRAMES as f64 * 1_000.0;
        let (decode_us, encode_us) = (median(&mut decode) / frames, median(&mut encode) / frames);
        let quietest = (decode[0] + encode[0]) as f64 / frames * 50.0;
        let second = (decode_us + encode_us) * 50.0;
        table.row(format!("complexity {complexity}"), [decode_us, encode_us, second, quietest, 1e6 / second]);
    }
    table.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    targets = codec
}

/// Leaves the frames for a program with another libopus in it, and says with which settings they are to be coded.
fn write_frames(path: &str) {
    let side = Side::new();
    let mut bytes = Vec::new();
    for (payload, pcm) in side.payloads.iter().zip(&side.frames) {
        bytes.extend((payload.len() as u16).to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes.extend(pcm.iter().flat_map(|sample| sample.to_le_bytes()));
    }
    std::fs::write(path, bytes).expect("the file can be written");
    let settings = COMPLEXITIES.map(|complexity| format!("{complexity}:{}", whatsapp(complexity).loss_pct));
    println!("{}", settings.join(" "));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [word, path] = &arguments[..]
        && word == "frames"
    {
        return write_frames(path);
    }
    if !arguments.iter().any(|argument| argument == "baseline") {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
    baseline();
}
