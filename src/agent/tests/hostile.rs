//! What a broken or hostile model may send: mutated events, floods, endless names. No panic, bounded memory and work.

use serde_json::json;

use super::rig::{Recorder, Rig, Told, settings};
use crate::agent::items::ITEMS_MAX;
use crate::realtime::ServerEvent;

/// xorshift64: small, and the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % bound
    }
}

const EVENTS: [&str; 14] = [
    r#"{"type":"session.created","event_id":"e","session":{"id":"sess_1","model":"m","expires_at":1234567890}}"#,
    r#"{"type":"session.updated","session":{"audio":{"input":{"turn_detection":null}}}}"#,
    r#"{"type":"input_audio_buffer.speech_started","audio_start_ms":1,"item_id":"u"}"#,
    r#"{"type":"input_audio_buffer.speech_stopped","audio_end_ms":2,"item_id":"u"}"#,
    r#"{"type":"response.created","response":{"id":"r1","status":"in_progress"}}"#,
    r#"{"type":"response.output_audio.delta","response_id":"r1","item_id":"i1","output_index":0,"delta":"AAECAwQF"}"#,
    r#"{"type":"response.output_audio.delta","response_id":"r1","item_id":"i2","delta":"AAEC"}"#,
    r#"{"type":"response.audio.delta","response_id":"r2","item_id":"i1","delta":"AA=="}"#,
    r#"{"type":"response.output_audio.done","response_id":"r1","item_id":"i1"}"#,
    r#"{"type":"response.output_item.done","response_id":"r1","item":{"type":"function_call","call_id":"c1","name":"f"}}"#,
    r#"{"type":"response.done","response":{"id":"r1","status":"completed","output":[]}}"#,
    r#"{"type":"response.done","response":{"id":"r2","status":"failed","status_details":{"error":{"message":"m"}}}}"#,
    r#"{"type":"error","error":{"type":"x","code":"conversation_already_has_active_response","event_id":"create_1"}}"#,
    r#"{"type":"error","error":{"type":"x","code":null,"message":"a\u0000\"b\ud83d\ude00","event_id":null}}"#,
];

fn mutate(random: &mut Random, event: &str) -> String {
    let mut bytes = event.as_bytes().to_vec();
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = b"\"{}[],:\\0e-n"[random.below(12)],
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, bytes[at]),
            _ => bytes.truncate(at + 1),
        }
        if bytes.is_empty() {
            bytes.push(b'{');
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn mutated_events_in_any_order_never_panic() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut malformed, mut audio) = (0, 0);
    for _ in 0..300 {
        let mut rig = Rig::live(settings());
        for _ in 0..100 {
            let index = random.below(EVENTS.len());
            let event = mutate(&mut random, EVENTS[index]);
            rig.agent.handle_message(rig.now, &event, &mut rig.told);
            match random.below(20) {
                0 => rig.agent.truncate(rig.now, crate::agent::ItemId(random.below(4) as u32), random.below(9) as u32),
                1 => rig.agent.refuse_item(rig.now, crate::agent::ItemId(random.below(4) as u32)),
                2 => rig.agent.greet(rig.now),
                3 => rig.agent.digit(rig.now, '#'),
                4 => rig.agent.append(rig.now, &[1; 480]),
                5 => rig.pass(std::time::Duration::from_millis(random.below(3000) as u64)),
                _ => {}
            }
        }
        assert!(rig.agent.is_live(), "nothing of this ends a session");
        // All that was sent in answer is JSON, and known: `sent` parses it.
        rig.sent();
        malformed += rig.report().malformed_events;
        audio += rig.take().iter().filter(|told| matches!(told, Told::Audio(..))).count();
    }
    assert!(malformed > 1000 && audio > 100, "the mutations must reach both sides: {malformed} {audio}");
}

#[test]
fn mutated_events_on_the_ladder_end_it_or_do_not_but_never_panic() {
    let mut random = Random(7);
    for _ in 0..500 {
        let mut rig = Rig::new(settings());
        rig.connect();
        for _ in 0..10 {
            let index = random.below(EVENTS.len());
            let event = mutate(&mut random, EVENTS[index]);
            rig.agent.handle_message(rig.now, &event, &mut rig.told);
        }
        let ends = rig.take().iter().filter(|told| matches!(told, Told::Closed(..))).count();
        assert!(ends <= 1);
    }
}

#[test]
fn parsing_alone_survives_deeper_mutation() {
    let mut random = Random(99);
    for _ in 0..50_000 {
        let index = random.below(EVENTS.len());
        let mut event = mutate(&mut random, EVENTS[index]);
        if random.below(2) == 0 {
            event = mutate(&mut random, &event);
        }
        _ = ServerEvent::parse(&event);
    }
}

#[test]
fn endless_items_responses_and_calls_stay_bounded() {
    let mut rig = Rig::live(settings());
    for index in 0..5000 {
        let name = format!("{index}");
        for event in [
            json!({"type": "response.created", "response": {"id": name}}),
            json!({"type": "response.output_audio.delta", "response_id": name, "item_id": name, "delta": "AAAA"}),
            json!({"type": "response.output_item.done", "response_id": "x",
                "item": {"type": "function_call", "call_id": name}}),
            json!({"type": "input_audio_buffer.speech_started"}),
        ] {
            rig.agent.handle_message(rig.now, &event.to_string(), &mut rig.told);
        }
    }
    assert!(rig.agent.items.by_id(crate::agent::ItemId(5000 - ITEMS_MAX as u32 - 1)).is_none());
    assert!(rig.agent.items.by_id(crate::agent::ItemId(4999)).is_some());
}

#[test]
fn a_name_beyond_its_bound_makes_no_item() {
    let mut rig = Rig::live(settings());
    let event = json!({"type": "response.output_audio.delta", "item_id": "x".repeat(1 << 20), "delta": "AAAA"});
    rig.model(&event.to_string());
    rig.model(r#"{"type":"response.output_audio.delta","delta":"AAAA"}"#);
    assert_eq!((rig.take(), rig.report().malformed_events), (vec![], 2));
}

#[test]
fn one_delta_of_a_minute_comes_in_pieces() {
    let mut rig = Rig::live(settings());
    let event = json!({"type": "response.output_audio.delta", "item_id": "i",
        "delta": base64_simd::STANDARD.encode_to_string(vec![1; 60 * 48_000])});
    rig.model(&event.to_string());
    let pieces: Vec<usize> = rig
        .take()
        .iter()
        .map(|told| match told {
            Told::Audio(_, pcm) => pcm.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(pieces.iter().sum::<usize>(), 60 * 24_000);
    assert!(pieces.iter().all(|&samples| samples <= 3100));
}

#[test]
fn inputs_of_connections_that_are_not_ours_change_nothing() {
    let mut rig = Rig::live(settings());
    let mut told = Recorder::default();
    let stranger = crate::agent::Attempt(5);
    rig.agent.handle_received(rig.now, stranger, b"\x88\x00", &mut told);
    rig.agent.handle_ended(rig.now, stranger, &mut told);
    rig.agent.handle_failed(rig.now, stranger, crate::io::Fault { errno: 104 }, &mut told);
    rig.agent.handle_connected(rig.now, stranger, &mut told);
    rig.agent.handle_connected(rig.now, crate::agent::Attempt(0), &mut told);
    rig.agent.handle_written(stranger, usize::MAX, vec![]);
    rig.agent.handle_resolved(rig.now, Err("late".into()), &mut told);
    assert!(told.0.is_empty() && rig.agent.is_live() && rig.agent.poll_output().is_none());
}
