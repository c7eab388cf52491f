//! What the jitter buffer costs, without a decoder and around one.
//!
//! `cargo bench --bench jitter`. At the end the share of the uplink that is the decoder's, both measured in turns.

#![expect(clippy::unwrap_used, reason = "a bench that fails stops")]

mod rig;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use rig::meter::cpu_nanos;
use rig::report::{Table, median};
use rig::sound::{TALK_FRAMES, talk_encoded};
use voice_media_bridge::audio::{Decoder, FRAME, PACKET_SAMPLES_MAX};
use voice_media_bridge::call::uplink::Uplink;
use voice_media_bridge::jitter::{Decision, JitterBuffer, Packet, RtpTime, SeqNo};

const ROUNDS: usize = 21;

fn packet(now: Instant, n: u64, payload: &Arc<[u8]>) -> Packet {
    Packet {
        time: RtpTime(n * 960),
        payload: payload.clone(),
        samples: 480,
        frame_samples: 480,
        is_dtx: false,
        has_fec: false,
        received: now,
        inserted: now,
    }
}

/// Packets whose numbers come in this order, over and over; decisions are drained after each.
fn buffer_step(order: &'static [u64]) -> impl FnMut() {
    let payload: Arc<[u8]> = Arc::from([0_u8; 50]);
    let (mut buffer, mut now, mut base) = (JitterBuffer::new(), Instant::now(), 0);
    move || {
        for n in order {
            now += FRAME;
            buffer.insert_packet(SeqNo(base + n), packet(now, base + n, &payload));
            while !matches!(black_box(buffer.decide(now)), Decision::Wait(_)) {}
        }
        base += order.len() as u64;
    }
}

fn uplink_step() -> impl FnMut() {
    let (payloads, mut n) = (talk_encoded(), 0_u64);
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

fn decode_step() -> impl FnMut() {
    let (payloads, mut n) = (talk_encoded(), 0);
    let mut decoder = Decoder::new().unwrap();
    let mut out = [0; PACKET_SAMPLES_MAX];
    move || {
        black_box(decoder.decode(&payloads[n % TALK_FRAMES], &mut out).unwrap());
        n += 1;
    }
}

fn jitter(c: &mut Criterion) {
    let mut step = buffer_step(&[0]);
    c.bench_function("jitter/packet_in_order", |b| b.iter(&mut step));
    let mut step = buffer_step(&[1, 0, 2, 3]);
    c.bench_function("jitter/four_packets_two_swapped", |b| b.iter(&mut step));
    let mut step = buffer_step(&[0, 1, 2, 4, 5, 6, 7, 8]);
    c.bench_function("jitter/eight_packets_one_lost", |b| b.iter(&mut step));
    let mut uplink = Uplink::new().unwrap();
    let now = Instant::now();
    c.bench_function("jitter/poll_with_nothing_to_do", |b| {
        b.iter(|| {
            uplink.poll(black_box(now), &mut |frame| {
                black_box(frame.pcm);
            });
        });
    });
}

/// The uplink and its decoder alone, in turns.
fn share() {
    let (mut whole, mut alone) = (uplink_step(), decode_step());
    let mut costs = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        costs.0.push(cpu_nanos(&mut || (0..TALK_FRAMES).for_each(|_| whole())));
        costs.1.push(cpu_nanos(&mut || (0..TALK_FRAMES).for_each(|_| alone())));
    }
    let us = 1.0 / (TALK_FRAMES as f64 * 1_000.0);
    let (whole, alone) = (median(&mut costs.0) * us, median(&mut costs.1) * us);
    let mut table = Table::new("jitter", "uplink, a frame", &["whole us", "decoder us", "ours us"]);
    table.row("insert, decide, decode", [whole, alone, whole - alone]);
    table.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    targets = jitter
}

fn main() {
    benches();
    share();
    Criterion::default().configure_from_args().final_summary();
}
