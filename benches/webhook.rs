//! Meta's webhook: what stands between its bytes and `pre_accept` on its way to the Graph API.
//!
//! `cargo bench --bench webhook`.

mod rig;

use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::hmac;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rig::bridge::Bridge;
use rig::meter::nanos;
use serde_json::json;
use voice_media_bridge::config::Secret;
use voice_media_bridge::messages::GraphReply;
use voice_media_bridge::relay::script::Script;
use voice_media_bridge::whatsapp::{CallPolicy, Number, Settings, graph, signature, webhook};

const OFFER: &str = include_str!("../tests/fixtures/sdp/offer-live-2026-10-02.sdp");
const SECRET: &str = "00112233445566778899aabbccddeeff";
const NUMBER: &str = "106540352242922";

fn settings() -> Settings {
    let number = Number {
        phone_number_id: NUMBER.to_owned(),
        name: "front desk".to_owned(),
        access_token: Secret::new("EAAJB".repeat(40)),
        calls: CallPolicy::Answer,
        config: json!({ "voice": "marin", "instructions": "Answer in one sentence. ".repeat(40) }).to_string(),
    };
    Settings { numbers: vec![number], app_secrets: vec![Secret::new(SECRET)], verify_token: Secret::new("verify") }
}

/// The webhook of a call, as Meta sends it.
fn connect(id: &str, offer: &str) -> String {
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": "366634483210360", "changes": [{
        "field": "calls",
        "value": {
            "messaging_product": "whatsapp",
            "metadata": { "display_phone_number": "15550783881", "phone_number_id": NUMBER },
            "contacts": [{ "profile": { "name": "A caller" }, "wa_id": "15550100" }],
            "calls": [{
                "id": id, "from": "15550100", "to": "15550783881", "event": "connect", "timestamp": "0",
                "direction": "USER_INITIATED", "session": { "sdp_type": "offer", "sdp": offer },
            }],
        },
    }] }] })
    .to_string()
}

fn sign(body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), body);
    tag.as_ref().iter().fold("sha256=".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn parts(c: &mut Criterion) {
    let (body, secrets) = (connect("wacid.HBgLMTU1NTEyMzQ1NjcVAgASGCA0QzRBRDRFMzQ3", OFFER), [Secret::new(SECRET)]);
    let long = vec![b'x'; 3 << 20];
    let mut group = c.benchmark_group("webhook/verify");
    for (name, body) in [("a_call", body.as_bytes()), ("3_mib", &long)] {
        let signature = sign(body);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| signature::verify(Some(&signature), black_box(body), &secrets).expect("it is signed"));
        });
    }
    group.finish();
    c.bench_function("webhook/parse_a_call", |b| {
        b.iter(|| webhook::parse(black_box(body.as_bytes())).expect("a webhook"));
    });
    let text = json!({ "messages": [{ "from": "15550100", "text": { "body": "a word or two ".repeat(5) } }] });
    let changes: Vec<_> = (0..1_000).map(|_| json!({ "field": "messages", "value": text })).collect();
    let batch =
        json!({ "object": "whatsapp_business_account", "entry": [{ "id": "1", "changes": changes }] }).to_string();
    println!("a batch of 1,000 messages: {} bytes", batch.len());
    c.bench_function("webhook/parse_1000_messages", |b| {
        b.iter(|| webhook::parse(black_box(batch.as_bytes())).expect("a webhook"));
    });
    let body = r#"{"messaging_product":"whatsapp","success":true}"#.to_owned();
    let answer = Ok(GraphReply { status: 200, retry_after_sec: None, body });
    c.bench_function("webhook/read_an_answer", |b| b.iter(|| graph::read(black_box(&answer))));
}

/// From the webhook's bytes to `pre_accept` with the Graph API's threads: control alone, and with the worker that answers.
fn whole(c: &mut Criterion) {
    let mut bridge = Bridge::with_numbers(5, Some(settings()));
    bridge.meter = nanos;
    let (_, offer) = bridge.relay.offer(bridge.now, Script::silent());
    let mut calls = 0;
    for (name, with_worker) in [("webhook/to_pre_accept_control_alone", false), ("webhook/to_pre_accept", true)] {
        c.bench_function(name, |b| {
            b.iter_custom(|count| {
                let mut cost = 0;
                for _ in 0..count {
                    calls += 1;
                    let body = connect(&format!("wacid.{calls}"), &offer);
                    let (control, worker) = bridge.deliver(&body, &sign(body.as_bytes()));
                    cost += control + if with_worker { worker } else { 0 };
                }
                Duration::from_nanos(cost)
            });
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
