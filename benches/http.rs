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
use voice_media_bridge::tls::{Acceptor, ClientSession, ServerSession, Tls};

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

/// Reads a request and answers it.
fn answer(connection: &mut Connection, now: Instant, request: &[u8], mut write: impl FnMut(Vec<u8>)) {
    connection.received(now, request);
    while let Some(event) = connection.poll() {
        match event {
            Event::Request(request) => {
                black_box(request.body);
                connection.respond(now, Response::new(200, "application/json", vec![b' '; 1_500]));
            }
            Event::Write(bytes) => {
                write(bytes);
                connection.written(now);
            }
            Event::Answered | Event::Read(_) => {}
            event => panic!("{event:?}"),
        }
    }
}

fn parts(c: &mut Criterion) {
    let (request, now) = (request(), Instant::now());
    let mut connection = Connection::new(now);
    c.bench_function("http/parse_and_answer_a_post", |b| {
        b.iter(|| answer(&mut connection, now, black_box(&request), |bytes| drop(black_box(bytes))));
    });
    c.bench_function("http/parse_an_offer", |b| b.iter(|| Offer::parse(black_box(OFFER)).expect("a real offer")));
}

/// A certificate that a server shows and a client trusts, on a key of this kind.
fn identity(key: &rcgen::KeyPair) -> (Acceptor, impl Fn() -> Tls) {
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a good name");
    let certificate = params.self_signed(key).expect("a certificate");
    let acceptor = Acceptor::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes());
    let der = certificate.der().to_vec();
    (acceptor.expect("a pair"), move || Tls::with_roots([der.clone()]).expect("a root"))
}

/// A handshake, and the time that the server's side of it took.
fn shake_hands(acceptor: &Acceptor, tls: &Tls) -> (ClientSession, ServerSession, Duration) {
    let mut client = ClientSession::new(tls, "localhost").expect("a name");
    let started = Instant::now();
    let mut server = ServerSession::new(acceptor);
    let mut time = started.elapsed();
    let (mut sealed, mut plain) = (Vec::new(), Vec::new());
    client.seal(&[], &mut sealed);
    while !sealed.is_empty() {
        let mut back = Vec::new();
        let started = Instant::now();
        server.open(&sealed, &mut plain).expect("TLS");
        server.seal(&[], &mut back);
        time += started.elapsed();
        sealed.clear();
        client.open(&back, &mut plain).expect("TLS");
        client.seal(&[], &mut sealed);
    }
    assert!(!server.is_handshaking());
    (client, server, time)
}

/// What TLS costs the server alone: a handshake by kind of key, a resumed one, and the request of `parts` inside it.
fn tls(c: &mut Criterion) {
    let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
    let ecdsa = rcgen::KeyPair::generate().expect("a key");
    for (name, key) in [("rsa_2048", &rsa), ("ecdsa_p256", &ecdsa)] {
        let (acceptor, client) = identity(key);
        c.bench_function(&format!("http/tls_handshake_{name}"), |b| {
            // A client of its own each time: nothing to resume.
            b.iter_custom(|count| (0..count).map(|_| shake_hands(&acceptor, &client()).2).sum());
        });
    }
    let (acceptor, client) = identity(&ecdsa);
    let known = client();
    shake_hands(&acceptor, &known);
    c.bench_function("http/tls_handshake_resumed", |b| {
        b.iter_custom(|count| (0..count).map(|_| shake_hands(&acceptor, &known).2).sum());
    });

    let (request, now) = (request(), Instant::now());
    let (mut client, mut server, _) = shake_hands(&acceptor, &known);
    let mut connection = Connection::new(now);
    c.bench_function("http/parse_and_answer_a_post_over_tls", |b| {
        b.iter_custom(|count| {
            let mut time = Duration::ZERO;
            for _ in 0..count {
                let (mut sealed, mut plain, mut back) = (Vec::new(), Vec::new(), Vec::new());
                client.seal(&request, &mut sealed);
                let started = Instant::now();
                server.open(&sealed, &mut plain).expect("TLS");
                answer(&mut connection, now, &plain, |bytes| server.seal(&bytes, &mut back));
                time += started.elapsed();
                client.open(&back, &mut plain).expect("TLS");
            }
            time
        });
    });
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
    targets = parts, tls, whole
}
criterion_main!(benches);
