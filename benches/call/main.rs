//! The bridge's own path, from the input that a driver hands over to the output that it gets back, and what the codec and
//! the WebRTC stack alone take of the same frames.
//!
//! `cargo bench --bench call`. Time is virtual; control and worker are the real machines, without a driver, without TLS.
//! Every step measures the path, the codec and the stack on the same frame, so that noise of the machine falls on all of
//! them; codec and path take turns at going first, because the second finds the codec's code in the cache. The table at the
//! end gives medians over all steps.

#![expect(clippy::unwrap_used, reason = "a bench that fails stops")]

mod bridge;
mod stack;
/// The tests' caller, of which a bench needs a part.
#[allow(dead_code, unused_imports, reason = "a bench uses a part of what the tests share")]
#[path = "../../tests/bridge"]
mod shared {
    pub(crate) mod support;
    pub(crate) mod voice;
    pub(crate) use voice_media_bridge::relay;
}
use shared::{relay, support, voice};

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64_simd::STANDARD;
use criterion::Criterion;
use voice_media_bridge::audio::{
    Decoder, Encoder, EncoderSettings, FRAME_SAMPLES, PACKET_SAMPLES_MAX, PAYLOAD_BYTES_MAX,
};

use bridge::{Bridge, Posted, text_frame};
use relay::script::Script;
use stack::Stack;
use support::crypto::Crypto;

/// What one step took: the bridge's path, and the parts of it measured alone.
#[derive(Clone, Copy)]
struct Sample {
    path: Duration,
    codec: Duration,
    stack: Duration,
}

fn time<T>(f: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    let result = f();
    let took = start.elapsed();
    drop(result);
    took
}

/// Runs two measurements, the second first every other time.
fn in_turns<A, B>(swap: &mut bool, a: impl FnOnce() -> A, b: impl FnOnce() -> B) -> (A, B) {
    *swap = !*swap;
    if *swap {
        let b = b();
        return (a(), b);
    }
    let a = a();
    (a, b())
}

/// WhatsApp's limits.
fn settings(complexity: u8) -> EncoderSettings {
    EncoderSettings::for_peer(Some(20_000), Some(16_000), true, complexity)
}

fn talk() -> Vec<Arc<[u8]>> {
    voice::speech(Duration::from_secs(10), 180.0)
}

/// An offer posted to its answer in bytes; `part` says whose time counts.
fn answer(part: fn(&Posted) -> Duration) -> impl FnMut() -> Sample {
    let mut bridge = Bridge::new(5);
    let (_, offer) = bridge.relay.offer(bridge.now, Script::silent());
    let (crypto, mut swap) = (Crypto::new(), false);
    move || {
        let codec = || time(|| (Encoder::new(settings(5)).unwrap(), Decoder::new().unwrap()));
        let (posted, codec) = in_turns(&mut swap, || bridge.post(&offer), codec);
        bridge.hang_up(posted.call);
        Sample { path: part(&posted), codec, stack: stack::build(&crypto, bridge.now) }
    }
}

/// One SRTP packet to the bytes of an append.
fn rtp_in() -> impl FnMut() -> Sample {
    let frames = talk();
    let mut bridge = Bridge::in_call(5, Script::repeated(frames.clone()));
    let mut stack = Stack::new(Script::repeated(frames.clone()));
    let (mut decoder, mut pcm) = (Decoder::new().unwrap(), [0; PACKET_SAMPLES_MAX]);
    let (mut payloads, mut swap) = (frames.into_iter().cycle(), false);
    move || {
        let payload = payloads.next().expect("endless");
        let path = || bridge.run_to_mid_frame().expect("the caller speaks");
        let (done, codec) = in_turns(&mut swap, path, || time(|| decoder.decode(&payload, &mut pcm).unwrap()));
        assert_eq!((done.writes, done.rtp_sent), (1, 0), "a packet is an append");
        bridge.run_to_beat();
        Sample { path: done.took, codec, stack: stack.step().receive }
    }
}

/// The caller's sound as the model's: PCM, and the bytes that carry it off the socket.
fn deltas() -> impl Iterator<Item = ([i16; FRAME_SAMPLES], Vec<u8>)> {
    let mut decoder = Decoder::new().unwrap();
    let frames: Vec<_> = talk()
        .iter()
        .map(|payload| {
            let mut pcm = [0; FRAME_SAMPLES];
            decoder.decode(payload, &mut pcm).unwrap();
            (pcm, text_frame(&delta_event(&pcm)))
        })
        .collect();
    frames.into_iter().cycle()
}

/// 20 ms of the model, from the socket's bytes to the RTP packet of the next beat.
fn delta_in_to_rtp_out(complexity: u8) -> impl FnMut() -> Sample {
    let mut bridge = Bridge::in_call(complexity, Script::silent());
    let (mut stack, mut deltas) = (Stack::new(Script::repeated(talk())), deltas());
    let (mut encoder, mut out) = (Encoder::new(settings(complexity)).unwrap(), [0; PAYLOAD_BYTES_MAX]);
    let mut swap = false;
    move || {
        let (pcm, bytes) = deltas.next().expect("endless");
        bridge.run_to_mid_frame();
        let queued = bridge.hear_model(&bytes);
        let (beat, codec) =
            in_turns(&mut swap, || bridge.run_to_beat(), || time(|| encoder.encode(&pcm, &mut out).unwrap()));
        assert_eq!((queued.rtp_sent, beat.rtp_sent), (0, 1), "a delta waits for its beat");
        Sample { path: queued.took + beat.took, codec, stack: stack.step().send }
    }
}

/// The first half of that: the delta, up to where it waits for its beat.
fn delta_in() -> impl FnMut() -> Sample {
    let mut bridge = Bridge::in_call(0, Script::silent());
    let mut deltas = deltas();
    move || {
        let (_, bytes) = deltas.next().expect("endless");
        bridge.run_to_mid_frame();
        let path = bridge.hear_model(&bytes).took;
        bridge.run_to_beat();
        Sample { path, codec: Duration::ZERO, stack: Duration::ZERO }
    }
}

fn delta_event(pcm: &[i16]) -> String {
    let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    format!(
        r#"{{"type":"response.output_audio.delta","event_id":"event_CAiWX0mAX5YZkR5qj1JMa","response_id":"resp_CAiWWoVKkNNcTJuzwRb3B","item_id":"item_CAiWWwNkgdUbzHtVvSdZr","output_index":0,"content_index":0,"delta":"{}"}}"#,
        STANDARD.encode_to_string(bytes)
    )
}

/// A beat on which neither side has anything to say.
fn idle_beat() -> impl FnMut() -> Sample {
    let mut bridge = Bridge::in_call(5, Script::silent());
    let mut stack = Stack::new(Script::repeated(talk()));
    move || {
        bridge.run_to_mid_frame();
        let beat = bridge.run_to_beat();
        assert_eq!((beat.writes, beat.rtp_sent), (0, 1), "silence is a packet");
        Sample { path: beat.took, codec: Duration::ZERO, stack: stack.step().send }
    }
}

fn median(samples: &[Sample], part: fn(&Sample) -> Duration) -> f64 {
    let mut times: Vec<Duration> = samples.iter().map(part).collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let table = RefCell::new(Vec::new());
    let mut measure = |name: &'static str, mut step: Box<dyn FnMut() -> Sample>| {
        let mut samples = Vec::new();
        criterion.bench_function(&format!("call/{name}"), |bencher| {
            bencher.iter_custom(|steps| {
                let first = samples.len();
                samples.extend((0..steps).map(|_| step()));
                samples[first..].iter().map(|sample: &Sample| sample.path).sum()
            });
        });
        table.borrow_mut().push((name, samples));
    };
    measure("answer", Box::new(answer(|posted| posted.whole)));
    measure("answer_worker", Box::new(answer(|posted| posted.worker)));
    measure("rtp_in", Box::new(rtp_in()));
    measure("delta_in", Box::new(delta_in()));
    measure("delta_in_to_rtp_out_cx0", Box::new(delta_in_to_rtp_out(0)));
    measure("delta_in_to_rtp_out_cx5", Box::new(delta_in_to_rtp_out(5)));
    measure("idle_beat", Box::new(idle_beat()));

    println!(
        "\n{:<26}{:>10}{:>10}{:>10}{:>9}{:>9}{:>10}",
        "median, us", "path", "codec", "stack", "codec %", "stack %", "ours us"
    );
    for (name, samples) in table.into_inner().iter().filter(|(_, samples)| !samples.is_empty()) {
        let [path, codec, stack] =
            [|s: &Sample| s.path, |s: &Sample| s.codec, |s: &Sample| s.stack].map(|part| median(samples, part));
        let share = |us: f64| us / path * 100.0;
        println!(
            "{name:<26}{path:>10.2}{codec:>10.2}{stack:>10.2}{:>9.1}{:>9.1}{:>10.2}",
            share(codec),
            share(stack),
            path - codec - stack
        );
    }
    criterion.final_summary();
}
