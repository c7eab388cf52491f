//! The packet path allocates nothing of its own, and a call's memory has a bound.
//!
//! A worker with a call in steady state, on virtual time, beside what it is made of doing the same work alone: the WebRTC
//! stack for packets, the WebSocket for deltas. What they allocate is theirs, is counted and named; there is nothing
//! besides. Growth of queues is over after the first seconds.

#![allow(clippy::unwrap_used, reason = "tests, helpers included, end by panicking")]

#[path = "../benches/rig/mod.rs"]
mod rig;

use std::time::Duration;

use allocation_counter::measure;
use rig::bridge::Bridge;
use rig::paths::{Meters, Sample, Step, beat, beat_of_silence, delta_in, rtp_in};
use rig::sound::{delta_event, talk, talk_encoded, text_frame};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use voice_media_bridge::audio;
use voice_media_bridge::relay::script::Script;
use voice_media_bridge::stats::{Stage, Stages};
use voice_media_bridge::wss::memory::MemoryStream;

/// Steps until queues have their size and every kind of latency was recorded: 10 s of a call.
const WARM_UP: usize = 500;
/// Steps counted: 4 s.
const STEPS: usize = 200;
/// What a call may hold without its playout queue.
const CALL_BYTES_MAX: i64 = 250_000;

/// A meter of allocations.
fn allocations(step: &mut dyn FnMut()) -> u64 {
    measure(step).count_total
}

/// The counts of many steps of a path that is warm, those left out on which a report or a check left too.
fn counts(mut step: Step) -> Vec<Sample> {
    (0..WARM_UP).for_each(|_| _ = step());
    let samples: Vec<Sample> = (0..STEPS).map(|_| step()).filter(|sample| !sample.mixed).collect();
    assert!(samples.len() > STEPS * 9 / 10, "such steps are rare: {} are left", samples.len());
    samples
}

/// Sums of path and stack, with the count that most steps have.
fn summed(what: &str, samples: &[Sample]) -> (u64, u64) {
    let sum = |part: fn(&Sample) -> u64| samples.iter().map(part).sum::<u64>();
    let (path, stack) = (sum(|sample| sample.path), sum(|sample| sample.stack));
    let usual = |part: fn(&Sample) -> u64| {
        let mut counts: Vec<u64> = samples.iter().map(part).collect();
        counts.sort_unstable();
        counts[counts.len() / 2]
    };
    println!(
        "{what}: {} by the bridge, {} by the libraries alone; {path} and {stack} in {STEPS} steps",
        usual(|sample| sample.path),
        usual(|sample| sample.stack)
    );
    (path, stack)
}

#[test]
fn a_packet_from_the_caller_allocates_what_the_webrtc_stack_does() {
    let (path, stack) = summed("RTP packet in, append out", &counts(rtp_in(Meters::all(allocations))));
    assert_eq!(path, stack);
}

#[test]
fn a_beat_of_audio_allocates_what_the_webrtc_stack_does() {
    let (path, stack) = summed("beat of audio", &counts(beat(Meters::all(allocations), 0)));
    assert_eq!(path, stack);
}

#[test]
fn a_beat_of_silence_allocates_what_the_webrtc_stack_does() {
    let (path, stack) = summed("beat of silence", &counts(beat_of_silence(Meters::all(allocations))));
    assert_eq!(path, stack);
}

#[test]
fn a_delta_of_the_model_allocates_what_the_websocket_does() {
    for frames in [1, 5] {
        let event = text_frame(&delta_event(1, talk()[..frames].as_flattened()));
        let config =
            WebSocketConfig::default().read_buffer_size(8 << 10).write_buffer_size(0).max_write_buffer_size(8 << 10);
        let mut socket = WebSocket::from_raw_socket(MemoryStream::default(), Role::Client, Some(config));
        let mut alone = || {
            allocations(&mut || {
                socket.get_mut().feed(&event);
                assert!(socket.read().unwrap().is_text());
            })
        };
        (0..WARM_UP).for_each(|_| _ = alone());
        let alone: u64 = (0..STEPS).map(|_| alone()).sum();
        let what = format!("delta of {} ms", frames * 20);
        let (path, _) = summed(&what, &counts(delta_in(Meters::path(allocations), frames)));
        println!("{what}: {alone} by the WebSocket alone");
        assert_eq!(path, alone, "{what}");
    }
}

#[test]
fn recording_a_latency_allocates_nothing() {
    let mut stages = Stages::new();
    stages.prepare_call();
    let record = || (0..10_000).for_each(|us| stages.record(Stage::Uplink, Duration::from_micros(us)));
    assert_eq!(measure(record).count_total, 0);
}

/// Heap of ours that a worker with so many calls holds, told by what is given back when it is dropped.
fn held(calls: usize) -> i64 {
    let payloads = talk_encoded();
    let mut bridge = Bridge::in_calls(0, (0..calls).map(|_| Script::repeated(payloads.clone())));
    bridge.batch(Duration::from_secs(2), []);
    let worker = bridge.into_worker();
    -measure(|| drop(worker)).bytes_current
}

#[test]
fn a_call_holds_at_most_250_kb_without_its_playout_queue() {
    let (few, many) = (5, 25);
    let heap = (held(many) - held(few)) / (many - few) as i64;
    let codec = audio::codec_bytes() as i64;
    println!("a call holds {heap} bytes of heap and {codec} in the codec");
    assert!(heap > 10_000 && codec > 10_000, "both are counted");
    assert!(heap + codec <= CALL_BYTES_MAX, "{heap} + {codec}");
}
