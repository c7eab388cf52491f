//! A whole worker: many calls at once on virtual time, and what the codec alone takes of the same frames.
//!
//! `cargo bench --bench worker`; `-- CALLS COMPLEXITY` runs one size for a profiler. All that a worker does in a second is
//! metered as processor time of its thread: packets, deltas, beats, timers, latencies. The callers speak all the time; the
//! model either does too, or 40 % of it, in replies that come faster than they are played. Not in it: the kernel, TLS.
//! Codec and worker take turns, second by second.

#![expect(clippy::unwrap_used, reason = "a bench that fails stops")]

mod rig;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use rig::bridge::{Batch, Bridge};
use rig::meter::cpu_nanos;
use rig::report::{Table, median};
use rig::sound::{Pcm, TALK_FRAMES, delta_event, talk, talk_encoded, text_frame, whatsapp};
use voice_media_bridge::audio::{Decoder, Encoder, PACKET_SAMPLES_MAX, PAYLOAD_BYTES_MAX};
use voice_media_bridge::call::downlink::SETTLE_FRAMES;
use voice_media_bridge::relay::script::Script;

const SECOND: Duration = Duration::from_secs(1);
/// Frames of a delta, and so how often one comes while the model speaks.
const DELTA_FRAMES: usize = 5;
const DELTAS_PER_SECOND: usize = 10;
/// In a conversation a reply of 2 s begins every 5 s: 40 %.
const TURN_SECONDS: usize = 5;
const REPLY_DELTAS: usize = 20;
/// A reply comes this much faster than it is played.
const REPLY_SPEED: u32 = 4;
/// Seconds measured of each size: whole turns of a conversation.
const SECONDS: usize = 15;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    Both,
    Conversation,
}

/// Each call is elsewhere in the speech, by whole deltas: a processor that sees the same frame from many calls at once learns
/// it by heart, and codec and worker would learn it differently.
fn spread(call: usize) -> usize {
    call * 7 * DELTA_FRAMES
}

/// Events by item and place in the speech. Calls share them: what a kernel hands over was just written, and is in the cache.
type Events = HashMap<(usize, usize), Rc<[u8]>>;

/// What the models of all calls say in a given second.
fn model(
    talk: Talk,
    calls: usize,
    second: usize,
    frames: &[Pcm],
    events: &mut Events,
) -> Vec<(Duration, usize, Rc<[u8]>)> {
    let mut delta = |item: usize, n: usize| {
        let at = n * DELTA_FRAMES % TALK_FRAMES;
        let make = || text_frame(&delta_event(item as u64, frames[at..at + DELTA_FRAMES].as_flattened())).into();
        events.entry((item, at)).or_insert_with(make).clone()
    };
    let length = SECOND / DELTAS_PER_SECOND as u32;
    let mut said = Vec::new();
    for call in 0..calls {
        // Calls are spread over the length of a delta, and over that of a turn.
        let phase = length * call as u32 / calls as u32;
        match talk {
            Talk::Both => said.extend((0..DELTAS_PER_SECOND).map(|n| {
                (
                    length * n as u32 + phase,
                    call,
                    delta(0, second * DELTAS_PER_SECOND + n + spread(call) / DELTA_FRAMES),
                )
            })),
            Talk::Conversation if (second + call).is_multiple_of(TURN_SECONDS) => {
                let item = (second + call) / TURN_SECONDS;
                said.extend((0..REPLY_DELTAS).map(|n| {
                    (length / REPLY_SPEED * n as u32 + phase, call, delta(item, n + spread(call) / DELTA_FRAMES))
                }));
            }
            Talk::Conversation => {}
        }
    }
    said
}

/// The codecs of as many calls, without anything around them.
struct Codecs {
    calls: Vec<(Encoder, Decoder)>,
    payloads: Vec<std::sync::Arc<[u8]>>,
    frames: Vec<Pcm>,
    n: usize,
}

impl Codecs {
    fn new(calls: usize, complexity: u8) -> Self {
        let frames = talk();
        let make = |_| (Encoder::new(whatsapp(complexity)).unwrap(), Decoder::new().unwrap());
        Self { calls: (0..calls).map(make).collect(), payloads: talk_encoded(), frames, n: 0 }
    }

    /// Decodes a second of every call, and encodes so many frames of it.
    fn second(&mut self, encoded_frames: usize) -> u64 {
        let mut pcm = [0; PACKET_SAMPLES_MAX];
        let mut out = [0; PAYLOAD_BYTES_MAX];
        cpu_nanos(&mut || {
            for frame in 0..50 {
                for (call, (encoder, decoder)) in self.calls.iter_mut().enumerate() {
                    let at = (self.n + frame + spread(call)) % TALK_FRAMES;
                    decoder.decode(&self.payloads[at], &mut pcm).unwrap();
                    if frame < encoded_frames {
                        encoder.encode(&self.frames[at], &mut out).unwrap();
                    }
                }
            }
            self.n += 50;
        })
    }
}

/// Runs a worker of one size; the costs of its seconds and those of the codec alone.
fn run(talk_mode: Talk, calls: usize, complexity: u8, seconds: usize) -> (Vec<u64>, Vec<u64>, Batch) {
    let frames = talk();
    let payloads = talk_encoded();
    let script = |call| {
        let mut payloads = payloads.clone();
        payloads.rotate_left(spread(call) % TALK_FRAMES);
        Script::repeated(payloads)
    };
    let mut bridge = Bridge::in_calls(complexity, (0..calls).map(script));
    bridge.meter = cpu_nanos;
    let mut codecs = Codecs::new(calls, complexity);
    let mut events = Events::new();
    let encoded_frames = match talk_mode {
        Talk::Both => 50,
        // What a reply makes the encoder do, spread over the seconds of a turn: its frames, and the silence behind it.
        Talk::Conversation => (REPLY_DELTAS * DELTA_FRAMES + SETTLE_FRAMES as usize) / TURN_SECONDS,
    };
    let (mut whole, mut alone, mut total) = (Vec::new(), Vec::new(), Batch::default());
    for second in 0..=seconds {
        let said = model(talk_mode, calls, second, &frames, &mut events);
        let batch = bridge.batch(SECOND, said);
        let codec = codecs.second(encoded_frames);
        // The first second warms up.
        if second > 0 {
            whole.push(batch.cost);
            alone.push(codec);
            total.rtp_received += batch.rtp_received;
            total.rtp_sent += batch.rtp_sent;
            total.writes += batch.writes;
            total.turns += batch.turns;
        }
    }
    let expected = (calls * seconds * 50) as u64;
    for (what, count) in [("heard", total.rtp_received), ("sent", total.rtp_sent), ("appended", total.writes)] {
        assert!(count.abs_diff(expected) <= expected / 50 + 2, "{what}: {count} of {expected}");
    }
    (whole, alone, total)
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    if let [calls, complexity] = numbers[..] {
        let (whole, ..) = run(Talk::Both, calls, complexity as u8, SECONDS);
        println!("{} us per call-second", whole.iter().sum::<u64>() / (SECONDS * calls) as u64 / 1_000);
        return;
    }
    let columns = &["whole us", "codec us", "whole/codec", "rest us", "calls a core"];
    let mut table = Table::new("worker", "worker, a call-second", columns);
    let sizes = [
        (Talk::Both, 1, 5),
        (Talk::Both, 10, 5),
        (Talk::Both, 50, 5),
        (Talk::Both, 100, 5),
        (Talk::Both, 100, 0),
        (Talk::Conversation, 100, 5),
        (Talk::Conversation, 100, 0),
    ];
    for (talk, calls, complexity) in sizes {
        // Few calls are measured longer: as many call-seconds at least, and whole turns of a conversation.
        let seconds = if calls < 10 { 4 * SECONDS } else { SECONDS };
        let (mut whole, mut alone, _) = run(talk, calls, complexity, seconds);
        let mut ratios: Vec<u64> = whole.iter().zip(&alone).map(|(w, a)| w * 10_000 / a).collect();
        let us = calls as f64 * 1_000.0;
        let (whole, alone, ratio) = (median(&mut whole) / us, median(&mut alone) / us, median(&mut ratios) / 1e4);
        let who = if talk == Talk::Both { "both talk" } else { "model talks 40 %" };
        table.row(
            format!("{calls} calls, complexity {complexity}, {who}"),
            [whole, alone, ratio, whole - alone, 1e6 / whole],
        );
    }
    table.finish();
}
