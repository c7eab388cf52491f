//! The pieces of the hot path, to be counted in instructions: these repeat where microseconds do not.
//!
//! `cargo bench --bench instructions` only lists the pieces. `benches/scoreboard` runs each under
//! `valgrind --tool=callgrind --toggle-collect='*watched*'` as `instructions PIECE STEPS`: what leads up to a piece and what
//! plays the other side is outside the one function in which callgrind counts.

#![expect(clippy::unwrap_used, reason = "a bench that fails stops")]

mod rig;

use std::time::{Duration, Instant};

use rig::meter::{Meter, unmetered, watched};
use rig::paths::{Meters, Step, answer, beat, beat_of_silence, delta_in, rtp_in};
use rig::sound::{talk, whatsapp};
use voice_media_bridge::audio::{Encoder, PAYLOAD_BYTES_MAX};
use voice_media_bridge::call::uplink::Uplink;
use voice_media_bridge::realtime::append;
use voice_media_bridge::stats::{Stage, Stages};

/// Steps before the count: buffers have their size and the encoder its level.
const WARM_UP: usize = 60;

/// A piece by its name, and how it is made.
type Piece = (&'static str, fn(Meter) -> Step);

const PIECES: &[Piece] = &[
    ("RTP packet in, append out", |meter| rtp_in(Meters::path(meter))),
    ("  of it the decoder", |meter| rtp_in(Meters::codec(meter))),
    ("  of it the WebRTC stack", |meter| rtp_in(Meters::stack(meter))),
    ("delta of 20 ms in", |meter| delta_in(Meters::path(meter), 1)),
    ("delta of 100 ms in", |meter| delta_in(Meters::path(meter), 5)),
    ("beat of audio, complexity 0", |meter| beat(Meters::path(meter), 0)),
    ("  of it the encoder", |meter| beat(Meters::codec(meter), 0)),
    ("  of it the WebRTC stack", |meter| beat(Meters::stack(meter), 0)),
    ("beat of audio, complexity 5", |meter| beat(Meters::path(meter), 5)),
    ("  of it the encoder", |meter| beat(Meters::codec(meter), 5)),
    ("beat of silence", |meter| beat_of_silence(Meters::path(meter))),
    ("  of it the WebRTC stack", |meter| beat_of_silence(Meters::stack(meter))),
    ("answer to an offer", |meter| answer(Meters::path(meter), |posted| posted.control + posted.worker)),
    ("encode, complexity 10", encode_10),
    ("poll of an idle uplink", idle_uplink),
    ("append of 20 ms, JSON and base64", json_append),
    ("recording of a latency", record),
];

fn plain(meter: Meter, mut step: impl FnMut() + 'static) -> Step {
    Box::new(move || rig::paths::Sample { path: meter(&mut step), ..Default::default() })
}

fn encode_10(meter: Meter) -> Step {
    let (talk, mut n) = (talk(), 0);
    let (mut encoder, mut out) = (Encoder::new(whatsapp(10)).unwrap(), [0; PAYLOAD_BYTES_MAX]);
    plain(meter, move || {
        encoder.encode(&talk[n % talk.len()], &mut out).unwrap();
        n += 1;
    })
}

fn idle_uplink(meter: Meter) -> Step {
    let (mut uplink, now) = (Uplink::new().unwrap(), Instant::now());
    plain(meter, move || uplink.poll(now, &mut |_| {}))
}

fn json_append(meter: Meter) -> Step {
    let (talk, mut out) = (talk(), Vec::new());
    plain(meter, move || {
        out.clear();
        append(&mut out, &talk[0]);
    })
}

fn record(meter: Meter) -> Step {
    let (mut stages, mut us) = (Stages::<u32>::new(), 0);
    plain(meter, move || {
        us = (us + 37) % 4_000;
        stages.record(Stage::Uplink, Duration::from_micros(us));
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [piece, steps] = &arguments[..] else {
        PIECES.iter().enumerate().for_each(|(index, (name, _))| println!("{index} {name}"));
        return;
    };
    let (piece, steps): (usize, usize) = (piece.parse().expect("a number"), steps.parse().expect("a number"));
    // Watched only once it is warm.
    let mut step = (PIECES[piece].1)(|step| if warm() { watched(step) } else { unmetered(step) });
    (0..WARM_UP).for_each(|_| _ = step());
    WARM.store(true, std::sync::atomic::Ordering::Relaxed);
    (0..steps).for_each(|_| _ = step());
}

static WARM: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

fn warm() -> bool {
    WARM.load(std::sync::atomic::Ordering::Relaxed)
}
