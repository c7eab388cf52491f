//! The HTTP API: a session request from bytes to bytes, and the pages that are asked for again and again.
//!
//! `cargo bench --bench http`.

mod rig;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use rig::bridge::Bridge;
use rig::meter::nanos;
use rig::sound::talk_encoded;
use voice_media_bridge::http::{Connection, Event, Response};
use voice_media_bridge::peer::sdp::Offer;
use voice_media_bridge::relay::script::Script;

const OFFER: &str = include_str!("../tests/fixtures/sdp/offer-live-2026-10-02.sdp");

fn request() -> Vec<u8> {
    let body = serde_json::json!({
        "callId": "wacid.HBgLMTU1NTEyMzQ1NjcVAgASGCA0QzRBRDRFMzQ3",
        "sdpOffer": OFFER,
        "from": "15550100",
        "to": "15550199",
        "config": {"model": "gpt-realtime", "voice": "alloy", "instructions": "Answer in one sentence. ".repeat(40)},
    })
    .to_string();
    let head = format!(
        "POST /api/sessions HTTP/1.1\r\nHost: bridge.example:8080\r\nUser-Agent: node-fetch\r\nAccept: */*\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

fn parts(c: &mut Criterion) {
    let (request, now) = (request(), Instant::now());
    let mut connection = Connection::new(now);
    c.bench_function("http/parse_and_answer_a_post", |b| {
        b.iter(|| {
            connection.received(now, black_box(&request));
            while let Some(event) = connection.poll() {
                match event {
                    Event::Request(request) => {
                        black_box(request.body);
                        connection.respond(now, Response::new(200, "application/json", vec![b' '; 1_500]));
                    }
                    Event::Write(bytes) => {
                        black_box(bytes);
                        connection.written(now);
                    }
                    Event::Answered | Event::Read(_) => {}
                    event => panic!("{event:?}"),
                }
            }
        });
    });
    c.bench_function("http/parse_an_offer", |b| b.iter(|| Offer::parse(black_box(OFFER)).expect("a real offer")));
}

/// Whole requests through control, and through the worker where it is asked.
fn whole(c: &mut Criterion) {
    let mut bridge = Bridge::new(5);
    bridge.meter = nanos;
    let (_, offer) = bridge.relay.offer(bridge.now, Script::silent());
    c.bench_function("http/post_session_control_alone", |b| {
        b.iter_custom(|posts| {
            let mut cost = 0;
            for _ in 0..posts {
                let posted = bridge.post(&offer);
                cost += posted.control;
                bridge.hang_up(posted.call);
            }
            Duration::from_nanos(cost)
        });
    });

    let payloads = talk_encoded();
    let mut bridge = Bridge::in_calls(0, (0..100).map(|_| Script::repeated(payloads.clone())));
    bridge.batch(Duration::from_secs(2), []);
    bridge.meter = nanos;
    for path in ["/health", "/metrics", "/api/sessions"] {
        let (_, answer) = bridge.get(path);
        println!("{path} with 100 calls: {} bytes", answer.len());
        c.bench_function(&format!("http/get{}_100_calls", path.replace('/', "_")), |b| {
            b.iter_custom(|gets| Duration::from_nanos((0..gets).map(|_| bridge.get(path).0).sum()));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    targets = parts, whole
}
criterion_main!(benches);
