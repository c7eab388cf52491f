//! The paths of a packet through the bridge, step by step, with what the codec and the WebRTC stack alone take of the same
//! frames.
//!
//! Each part has its own meter. Codec and path take turns at going first: the second finds the codec's code in the cache.

use std::sync::Arc;

use voice_media_bridge::audio::{Decoder, Encoder, PACKET_SAMPLES_MAX, PAYLOAD_BYTES_MAX};

use super::bridge::{Bridge, Posted};
use super::meter::{Meter, unmetered};
use super::sound::{Pcm, delta_event, talk, talk_encoded, text_frame, whatsapp};
use super::stack::{self, Stack};
use voice_media_bridge::relay::crypto::Crypto;
use voice_media_bridge::relay::script::Script;

/// How each part of a step is measured.
#[derive(Clone, Copy)]
pub(crate) struct Meters {
    pub(crate) path: Meter,
    pub(crate) codec: Meter,
    pub(crate) stack: Meter,
}

impl Meters {
    /// All parts alike.
    pub(crate) fn all(meter: Meter) -> Self {
        Self { path: meter, codec: meter, stack: meter }
    }

    /// The path alone.
    pub(crate) fn path(meter: Meter) -> Self {
        Self { path: meter, codec: unmetered, stack: unmetered }
    }

    /// The WebRTC stack alone.
    pub(crate) fn stack(meter: Meter) -> Self {
        Self { path: unmetered, codec: unmetered, stack: meter }
    }

    /// The codec alone.
    pub(crate) fn codec(meter: Meter) -> Self {
        Self { path: unmetered, codec: meter, stack: unmetered }
    }
}

/// What one step cost: the bridge's path, and the parts of it measured alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) path: u64,
    pub(crate) codec: u64,
    pub(crate) stack: u64,
    /// Whether something else was done in the same step: a report or a check left with the packet.
    pub(crate) mixed: bool,
}

/// A path, to be run step by step.
pub(crate) type Step = Box<dyn FnMut() -> Sample>;

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

fn payloads() -> Vec<Arc<[u8]>> {
    talk_encoded()
}

/// Meters what the bridge does here, and nothing before and after it.
fn on_the_watch<T>(bridge: &mut Bridge, meters: Meters, act: impl FnOnce(&mut Bridge) -> T) -> T {
    bridge.meter = meters.path;
    let result = act(bridge);
    bridge.meter = unmetered;
    result
}

/// An offer posted to its answer in bytes; `part` says whose cost counts.
pub(crate) fn answer(meters: Meters, part: fn(&Posted) -> u64) -> Step {
    let mut bridge = Bridge::new(5);
    bridge.meter = meters.path;
    let (_, offer) = bridge.relay.offer(bridge.now, Script::silent());
    let (crypto, mut swap) = (Crypto::new(), false);
    Box::new(move || {
        let codec = || {
            (meters.codec)(&mut || {
                std::hint::black_box((Encoder::new(whatsapp(5)).unwrap(), Decoder::new().unwrap()));
            })
        };
        let (posted, codec) = in_turns(&mut swap, || bridge.post(&offer), codec);
        bridge.hang_up(posted.call);
        let now = bridge.now;
        let stack = (meters.stack)(&mut || stack::build(&crypto, now));
        Sample { path: part(&posted), codec, stack, ..Sample::default() }
    })
}

/// One SRTP packet to the bytes of an append.
pub(crate) fn rtp_in(meters: Meters) -> Step {
    let frames = payloads();
    let mut bridge = Bridge::in_call(5, Script::repeated(frames.clone()));
    let mut stack = Stack::new();
    let (mut decoder, mut pcm) = (Decoder::new().unwrap(), [0; PACKET_SAMPLES_MAX]);
    let (mut payloads, mut swap) = (frames.into_iter().cycle(), false);
    Box::new(move || {
        let payload = payloads.next().expect("endless");
        let path = || on_the_watch(&mut bridge, meters, |bridge| bridge.run_to_mid_frame().expect("the caller speaks"));
        let codec = || {
            (meters.codec)(&mut || {
                decoder.decode(&payload, &mut pcm).unwrap();
            })
        };
        let (done, codec) = in_turns(&mut swap, path, codec);
        assert_eq!((done.writes, done.rtp_sent), (1, 0), "a packet is an append");
        bridge.run_to_beat();
        Sample {
            path: done.cost,
            codec,
            stack: stack.step(&payload, unmetered, meters.stack).receive,
            ..Sample::default()
        }
    })
}

/// The caller's sound as the model's, in deltas of so many frames: the frames, and the bytes that carry them off the socket.
fn deltas(frames: usize) -> impl Iterator<Item = (Vec<Pcm>, Vec<u8>)> {
    let talk = talk();
    let deltas: Vec<_> = talk
        .chunks_exact(frames)
        .map(|frames| (frames.to_vec(), text_frame(&delta_event(1, frames.as_flattened()))))
        .collect();
    deltas.into_iter().cycle()
}

/// The model's bytes up to where their audio waits for its beat, in deltas of so many frames.
pub(crate) fn delta_in(meters: Meters, frames: usize) -> Step {
    let mut bridge = Bridge::in_call(0, Script::silent());
    let mut deltas = deltas(frames);
    Box::new(move || {
        let (_, bytes) = deltas.next().expect("endless");
        bridge.run_to_mid_frame();
        let path = on_the_watch(&mut bridge, meters, |bridge| bridge.hear_model(&bytes)).cost;
        for _ in 1..frames {
            bridge.run_to_beat();
            bridge.run_to_mid_frame();
        }
        bridge.run_to_beat();
        Sample { path, ..Sample::default() }
    })
}

/// A beat with audio of the model that came half a frame before: encoding, and the RTP packet.
pub(crate) fn beat(meters: Meters, complexity: u8) -> Step {
    let mut bridge = Bridge::in_call(complexity, Script::silent());
    let (mut stack, mut deltas) = (Stack::new(), deltas(1));
    let (mut encoder, mut out) = (Encoder::new(whatsapp(complexity)).unwrap(), [0; PAYLOAD_BYTES_MAX]);
    let (mut payloads, mut swap) = (payloads().into_iter().cycle(), false);
    Box::new(move || {
        let (pcm, bytes) = deltas.next().expect("endless");
        bridge.run_to_mid_frame();
        let queued = bridge.hear_model(&bytes);
        let codec = || {
            (meters.codec)(&mut || {
                encoder.encode(&pcm[0], &mut out).unwrap();
            })
        };
        let (beat, codec) = in_turns(&mut swap, || on_the_watch(&mut bridge, meters, Bridge::run_to_beat), codec);
        assert_eq!((queued.rtp_sent, beat.rtp_sent), (0, 1), "a delta waits for its beat");
        let alone = stack.step(&payloads.next().expect("endless"), meters.stack, unmetered);
        Sample { path: beat.cost, codec, stack: alone.send, mixed: beat.others_sent > 0 || alone.mixed }
    })
}

/// A beat on which neither side has anything to say.
pub(crate) fn beat_of_silence(meters: Meters) -> Step {
    let mut bridge = Bridge::in_call(5, Script::silent());
    let mut stack = Stack::new();
    let payload: Arc<[u8]> = Arc::from([0_u8; 4]);
    Box::new(move || {
        bridge.run_to_mid_frame();
        let beat = on_the_watch(&mut bridge, meters, Bridge::run_to_beat);
        assert_eq!((beat.writes, beat.rtp_sent), (0, 1), "silence is a packet");
        let alone = stack.step(&payload, meters.stack, unmetered);
        Sample { path: beat.cost, codec: 0, stack: alone.send, mixed: beat.others_sent > 0 || alone.mixed }
    })
}
