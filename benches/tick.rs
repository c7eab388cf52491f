//! What it costs that nothing happens: beats of silence, an idle turn of the loop, and the recording of a latency.
//!
//! `cargo bench --bench tick`.

#![expect(clippy::unwrap_used, reason = "a bench that fails stops")]

mod rig;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use rig::bridge::Bridge;
use rig::meter::nanos;
use rig::sound::{talk, whatsapp};
use voice_media_bridge::audio::FRAME;
use voice_media_bridge::call::downlink::{Downlink, ItemId};
use voice_media_bridge::relay::script::Script;
use voice_media_bridge::stats::{Stage, Stages};

fn beats(c: &mut Criterion) {
    let started = Instant::now();
    let mut downlink = Downlink::new(whatsapp(5), Duration::ZERO, 0).unwrap();
    downlink.start(started);
    let mut now = started;
    c.bench_function("tick/downlink_beat_of_silence", |b| {
        b.iter(|| {
            black_box(downlink.beat(now).unwrap().payload);
            now += FRAME;
        });
    });

    let (talk, mut n) = (talk(), 0);
    let mut downlink = Downlink::new(whatsapp(0), Duration::ZERO, 0).unwrap();
    c.bench_function("tick/queue_a_frame_and_flush", |b| {
        b.iter(|| {
            black_box(downlink.push(ItemId(n), &talk[n as usize % talk.len()]));
            black_box(downlink.flush(|_| {}));
            n += 1;
        });
    });
}

/// A turn of the loop in which nothing is due.
fn turns(c: &mut Criterion) {
    for calls in [1, 100] {
        let mut bridge = Bridge::in_calls(0, (0..calls).map(|_| Script::silent()));
        bridge.meter = nanos;
        c.bench_function(&format!("tick/second_of_silence_{calls}_calls"), |b| {
            b.iter_custom(|seconds| {
                let cost = (0..seconds).map(|_| bridge.batch(Duration::from_secs(1), []).cost).sum();
                Duration::from_nanos(cost)
            });
        });
    }
}

fn stats(c: &mut Criterion) {
    let mut stages = Stages::<u32>::new();
    let mut us = 1_u64;
    // Latencies of every size, so that no branch and no line of memory is warmer than it would be.
    let mut next = || {
        us = us.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros(us >> 44)
    };
    c.bench_function("tick/record_a_latency", |b| {
        b.iter(|| stages.record(black_box(Stage::Uplink), black_box(next())));
    });
    c.bench_function("tick/percentiles_of_a_stage", |b| b.iter(|| black_box(&stages).percentiles()));
    let mut sum = Stages::<u32>::new();
    c.bench_function("tick/merge_the_stages_of_a_call", |b| b.iter(|| sum.merge(black_box(&stages))));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    targets = beats, turns, stats
}
criterion_main!(benches);
