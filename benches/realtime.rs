//! What one append and one delta cost the model leg, without TLS.
//!
//! `cargo bench --bench realtime`. An append is 20 ms of the caller: samples in, bytes ready to write out. A delta is
//! 100 ms of the model: bytes off the socket in, samples out. The model is not in memory: its bytes are prepared.

mod rig;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rig::sound::{delta_event, text_frame};
use voice_media_bridge::agent::{Agent, AgentConfig, AgentEvent, AgentOutput, AgentSink, Attempt};
use voice_media_bridge::call_id::LogId;
use voice_media_bridge::realtime::{PcmDecoder, ServerEvent, SessionSettings, append};

struct Count(usize);

impl AgentSink for Count {
    fn agent_event(&mut self, _: Instant, event: AgentEvent<'_>) {
        if let AgentEvent::Audio { pcm, .. } = event {
            self.0 += pcm.len();
        }
    }
}

/// The nonce is of zeros, so the answer to it is known.
fn zeros(bytes: &mut [u8]) {
    bytes.fill(0);
}

fn live() -> (Agent, Instant) {
    let now = Instant::now();
    let config = AgentConfig {
        host: "localhost".into(),
        port: 80,
        path: "/v1/realtime".into(),
        tls: None,
        api_key: None,
        org_id: None,
        project_id: None,
        entropy: zeros,
    };
    let mut agent = Agent::new(now, LogId::default(), Arc::new(config), SessionSettings::default());
    let mut sink = Count(0);
    agent.handle_resolved(now, Ok(Arc::from(["192.0.2.1:80".parse().expect("an address")])), &mut sink);
    agent.handle_connected(now, Attempt(0), &mut sink);
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";
    agent.handle_received(now, Attempt(0), answer.as_bytes(), &mut sink);
    for event in [r#"{"type":"session.created"}"#, r#"{"type":"session.updated"}"#] {
        agent.handle_received(now, Attempt(0), &text_frame(event), &mut sink);
    }
    while agent.poll_output().is_some() {}
    assert!(agent.is_live());
    (agent, now)
}

fn speech(samples: usize) -> Vec<i16> {
    (0..samples).map(|index| ((index as f32 * 0.05).sin() * 9000.0) as i16).collect()
}

fn appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    let pcm = speech(480);
    let mut out = Vec::new();
    group.bench_function("json_480", |bencher| {
        bencher.iter(|| {
            out.clear();
            append(&mut out, black_box(&pcm));
        });
    });
    let (mut agent, now) = live();
    group.bench_function("agent_480", |bencher| {
        bencher.iter(|| {
            agent.append(now, black_box(&pcm));
            while let Some(output) = agent.poll_output() {
                let AgentOutput::Write { attempt, mut bytes } = output else { panic!("{output:?}") };
                let len = bytes.len();
                bytes.clear();
                agent.handle_written(attempt, len, bytes);
            }
        });
    });
    group.finish();
}

fn deltas(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("delta");
    group.throughput(Throughput::Elements(1));
    for ms in [100, 400] {
        let event = delta_event(1, &speech(ms * 24));
        group.bench_function(format!("parse_{ms}ms"), |bencher| bencher.iter(|| ServerEvent::parse(black_box(&event))));
        let mut decoder = PcmDecoder::new();
        group.bench_function(format!("parse_decode_{ms}ms"), |bencher| {
            bencher.iter(|| {
                let mut samples = 0;
                if let Some(ServerEvent::AudioDelta { delta, .. }) = ServerEvent::parse(black_box(&event)) {
                    decoder.decode(&mut None, &delta, |pcm| samples += pcm.len()).expect("valid base64");
                }
                assert_eq!(samples, ms * 24);
            });
        });
        let (mut agent, now) = live();
        let bytes = text_frame(&event);
        let mut sink = Count(0);
        group.bench_function(format!("agent_{ms}ms"), |bencher| {
            bencher.iter_batched(
                || (),
                |()| agent.handle_received(now, Attempt(0), black_box(&bytes), &mut sink),
                BatchSize::SmallInput,
            );
        });
        assert!(sink.0 > 0);
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    targets = appends, deltas
}
criterion_main!(benches);
