//! A live session: audio, barge-in, truncation, one response at a time, tools, keys.

use std::time::Duration;

use serde_json::json;

use super::rig::{Rig, Told, settings};
use crate::agent::ItemId;
use crate::agent::turns::ANSWER_WAIT;
use crate::realtime::{Json, SessionSettings};

const SPEECH_STARTED: &str = r#"{"type":"input_audio_buffer.speech_started","audio_start_ms":1,"item_id":"u"}"#;
const SPEECH_STOPPED: &str = r#"{"type":"input_audio_buffer.speech_stopped","audio_end_ms":2,"item_id":"u"}"#;

fn delta(response: &str, item: &str, pcm: &[i16]) -> String {
    let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    json!({"type": "response.output_audio.delta", "response_id": response, "item_id": item,
        "delta": base64_simd::STANDARD.encode_to_string(bytes)})
    .to_string()
}

fn created(response: &str) -> String {
    json!({"type": "response.created", "response": {"id": response, "status": "in_progress"}}).to_string()
}

fn done(response: &str, status: &str) -> String {
    json!({"type": "response.done", "response": {"id": response, "status": status, "output": []}}).to_string()
}

fn call(response: &str, id: &str) -> String {
    json!({"type": "response.output_item.done", "response_id": response,
        "item": {"type": "function_call", "status": "completed", "call_id": id, "name": "f", "arguments": "{}"}})
    .to_string()
}

fn audio_ms(told: &[Told], id: u32) -> usize {
    let of_item = told.iter().map(|told| match told {
        Told::Audio(item, pcm) if *item == ItemId(id) => pcm.len(),
        _ => 0,
    });
    of_item.sum::<usize>() / 24
}

/// A model in mid-reply: response `r`, item `i`, this much audio received.
fn replying(ms: usize) -> Rig {
    let mut rig = Rig::live(settings());
    rig.model(&created("r"));
    rig.model(&delta("r", "i", &vec![5; ms * 24]));
    assert_eq!(audio_ms(&rig.take(), 0), ms);
    rig
}

#[test]
fn audio_comes_with_its_item_in_order_and_ends() {
    let mut rig = Rig::live(settings());
    rig.model(&created("r"));
    rig.model(&delta("r", "a", &[1, 2, 3]));
    rig.model(&delta("r", "b", &[4]));
    rig.model(&delta("r", "a", &[5]));
    rig.model(r#"{"type":"response.output_audio.done","item_id":"a"}"#);
    rig.model(r#"{"type":"response.audio.done","item_id":"b"}"#);
    rig.model(r#"{"type":"response.output_audio.done","item_id":"unheard of"}"#);
    rig.model(&done("r", "completed"));
    assert_eq!(
        rig.take(),
        [
            Told::Audio(ItemId(0), vec![1, 2, 3]),
            Told::Audio(ItemId(1), vec![4]),
            Told::Audio(ItemId(0), vec![5]),
            Told::ItemDone(ItemId(0)),
            Told::ItemDone(ItemId(1)),
            Told::ResponseDone,
        ]
    );
    assert_eq!((rig.report().deltas, rig.report().responses), (3, 1));
}

#[test]
fn a_sample_split_between_deltas_is_whole_even_with_another_item_in_between() {
    let mut rig = Rig::live(settings());
    let raw = |item: &str, base64: &str| {
        json!({"type": "response.output_audio.delta", "response_id": "r", "item_id": item, "delta": base64}).to_string()
    };
    rig.model(&raw("a", "AQID")); // 01 02 03
    rig.model(&raw("b", "Bw==")); // 07
    rig.model(&raw("a", "BA==")); // 04
    assert_eq!(rig.take(), [Told::Audio(ItemId(0), vec![0x0201]), Told::Audio(ItemId(0), vec![0x0403])]);
    rig.model(&raw("a", "not base64"));
    assert_eq!((rig.take(), rig.report().malformed_events), (vec![], 1));
}

#[test]
fn speech_over_a_reply_silences_it_and_the_model_learns_what_was_heard() {
    let mut rig = replying(900);
    rig.model(SPEECH_STARTED);
    assert_eq!(rig.take(), [Told::SpeechStarted]);
    rig.agent.truncate(rig.now, ItemId(0), 440);
    rig.agent.truncate(rig.now, ItemId(0), 460);
    let sent = rig.sent();
    assert_eq!(sent.len(), 1, "told once");
    assert_eq!(
        (&sent[0]["type"], &sent[0]["item_id"], &sent[0]["content_index"], &sent[0]["audio_end_ms"]),
        (&json!("conversation.item.truncate"), &json!("i"), &json!(0), &json!(440))
    );
    rig.model(&delta("r", "i", &[5; 480]));
    rig.model(&delta("r", "another item of it", &[5; 480]));
    rig.model(r#"{"type":"response.output_audio.done","item_id":"i"}"#);
    rig.model(&done("r", "cancelled"));
    rig.model(&delta("r", "i", &[5; 480]));
    rig.model(&delta("r", "and one after its end", &[5; 480]));
    assert_eq!(rig.take(), [Told::ResponseDone]);
    rig.model(SPEECH_STOPPED);
    rig.model(&created("r2"));
    rig.model(&delta("r2", "i2", &[6; 480]));
    let told = rig.take();
    assert!(matches!(&told[..], [Told::SpeechStopped, Told::Audio(_, pcm)] if pcm.len() == 480), "{told:?}");
    let report = rig.report();
    assert_eq!((report.barge_ins, report.truncations, report.deltas_late), (1, 1, 4));
    assert!(rig.sent().is_empty(), "the model cancels by itself");
}

#[test]
fn what_was_not_heard_at_all_is_deleted() {
    let mut rig = replying(500);
    rig.model(&delta("r", "second", &[5; 480]));
    rig.model(SPEECH_STARTED);
    rig.agent.truncate(rig.now, ItemId(0), 300);
    rig.agent.truncate(rig.now, ItemId(1), 0);
    let sent = rig.sent();
    assert_eq!((&sent[1]["type"], &sent[1]["item_id"]), (&json!("conversation.item.delete"), &json!("second")));
    assert_eq!((rig.report().truncations, rig.report().deletions, rig.report().barge_ins), (1, 1, 1));
}

#[test]
fn an_item_is_truncated_also_after_its_response_is_done() {
    let mut rig = replying(5000);
    rig.model(r#"{"type":"response.output_audio.done","item_id":"i"}"#);
    rig.model(&done("r", "completed"));
    rig.model(SPEECH_STARTED);
    rig.agent.truncate(rig.now, ItemId(0), 1200);
    assert_eq!(rig.sent()[0]["audio_end_ms"], 1200);
    assert_eq!(rig.report().barge_ins, 1);
}

#[test]
fn what_was_played_is_never_more_than_what_was_received() {
    let mut rig = replying(100);
    rig.model(SPEECH_STARTED);
    rig.agent.truncate(rig.now, ItemId(0), u32::MAX);
    assert_eq!(rig.sent()[0]["audio_end_ms"], 100);
}

#[test]
fn an_item_heard_to_its_end_and_an_unknown_one_are_not_truncated() {
    let mut rig = replying(100);
    rig.model(r#"{"type":"response.output_audio.done","item_id":"i"}"#);
    rig.model(&done("r", "completed"));
    rig.model(SPEECH_STARTED);
    rig.agent.truncate(rig.now, ItemId(0), 100);
    rig.agent.truncate(rig.now, ItemId(99), 100);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.report().barge_ins, 0, "nobody was spoken over");
}

#[test]
fn speech_does_not_interrupt_where_the_session_says_so() {
    let turn_detection = Some(Json(r#"{"type":"server_vad","interrupt_response":false}"#.into()));
    let mut rig = Rig::live(SessionSettings { turn_detection, ..settings() });
    rig.model(&created("r"));
    rig.model(&delta("r", "i", &[5; 480]));
    rig.model(SPEECH_STARTED);
    rig.model(&delta("r", "i", &[5; 480]));
    rig.model(SPEECH_STOPPED);
    let told = rig.take();
    assert_eq!((audio_ms(&told, 0), &told[2..]), (40, &[Told::SpeechStopped][..]));
}

#[test]
fn a_refused_item_is_cancelled_and_silent() {
    let mut rig = replying(100);
    rig.agent.refuse_item(rig.now, ItemId(0));
    rig.agent.refuse_item(rig.now, ItemId(0));
    let sent = rig.sent();
    assert_eq!((sent.len(), &sent[0]["type"], &sent[0]["response_id"]), (1, &json!("response.cancel"), &json!("r")));
    rig.model(&delta("r", "i", &[5; 480]));
    rig.model(&done("r", "cancelled"));
    assert_eq!(rig.take(), [Told::ResponseDone]);
    assert_eq!((rig.report().items_refused, rig.report().deltas_late), (1, 1));
    rig.model(SPEECH_STARTED);
    rig.agent.truncate(rig.now, ItemId(0), 60);
    assert_eq!(rig.sent()[0]["audio_end_ms"], 60, "what did play can still be cut");
}

#[test]
fn an_item_whose_response_is_over_is_refused_without_a_cancel() {
    let mut rig = replying(100);
    rig.model(&done("r", "completed"));
    rig.agent.refuse_item(rig.now, ItemId(0));
    rig.agent.refuse_item(rig.now, ItemId(5));
    assert!(rig.sent().is_empty());
}

#[test]
fn a_greeting_that_the_caller_spoke_over_before_it_began_is_cancelled() {
    let mut rig = Rig::live(settings());
    rig.agent.greet(rig.now);
    assert_eq!(rig.sent_types(), ["response.create"]);
    rig.model(SPEECH_STARTED);
    rig.model(&created("greeting"));
    let sent = rig.sent();
    assert_eq!((&sent[0]["type"], &sent[0]["response_id"]), (&json!("response.cancel"), &json!("greeting")));
    rig.model(&delta("greeting", "g", &[5; 480]));
    assert_eq!(rig.take(), [Told::SpeechStarted]);
}

#[test]
fn a_caller_who_speaks_first_is_not_greeted() {
    let mut rig = Rig::live(settings());
    rig.model(SPEECH_STARTED);
    rig.agent.greet(rig.now);
    rig.model(SPEECH_STOPPED);
    assert!(rig.sent().is_empty());
}

#[test]
fn requests_wait_for_the_response_under_way() {
    let mut rig = replying(100);
    rig.agent.greet(rig.now);
    assert!(rig.sent().is_empty());
    rig.model(&done("r", "completed"));
    assert_eq!(rig.sent_types(), ["response.create"]);
}

#[test]
fn a_request_that_met_another_response_is_repeated_after_it() {
    let mut rig = Rig::live(settings());
    rig.agent.greet(rig.now);
    let id = rig.sent()[0]["event_id"].clone();
    rig.model(&created("theirs"));
    rig.model(
        &json!({"type": "error", "error": {"type": "invalid_request_error", "event_id": id,
            "code": "conversation_already_has_active_response", "message": "Conversation already has one."}})
        .to_string(),
    );
    assert!(rig.sent().is_empty());
    rig.model(&done("theirs", "completed"));
    assert_eq!(rig.sent_types(), ["response.create"]);
    assert_eq!((rig.report().errors_benign, rig.report().errors), (1, 0));
}

#[test]
fn a_request_that_is_never_answered_does_not_block_the_next_for_ever() {
    let mut rig = Rig::live(settings());
    rig.agent.greet(rig.now);
    rig.agent.digit(rig.now, '#');
    rig.pass(Duration::ZERO);
    assert_eq!(rig.sent_types(), ["response.create", "conversation.item.create"]);
    rig.pass(ANSWER_WAIT);
    assert_eq!(rig.sent_types(), ["response.create"]);
}

#[test]
fn each_function_call_is_answered_once_and_the_model_goes_on() {
    let mut rig = Rig::live(settings());
    rig.model(&created("r"));
    rig.model(&call("r", "call_1"));
    rig.model(&call("r", "call_2"));
    rig.model(&call("r", "call_1"));
    assert!(rig.sent().is_empty(), "not before the response is done");
    rig.model(&done("r", "completed"));
    let sent = rig.sent();
    assert_eq!(sent.len(), 3);
    assert_eq!((&sent[0]["item"]["call_id"], &sent[1]["item"]["call_id"]), (&json!("call_1"), &json!("call_2")));
    assert_eq!(sent[0]["item"]["type"], "function_call_output");
    assert!(sent[0]["item"]["output"].as_str().unwrap().contains("No handler"));
    assert_eq!(sent[2]["type"], "response.create");
    assert_eq!(rig.report().function_calls, 2);
}

#[test]
fn calls_of_an_interrupted_response_are_answered_without_a_new_one() {
    let mut rig = Rig::live(settings());
    rig.model(&created("r"));
    rig.model(&call("r", "call_1"));
    rig.model(SPEECH_STARTED);
    rig.model(&done("r", "cancelled"));
    rig.model(SPEECH_STOPPED);
    assert_eq!(rig.sent_types(), ["conversation.item.create"]);
}

#[test]
fn keys_are_told_as_text_after_a_pause() {
    let mut rig = Rig::live(settings());
    rig.agent.digit(rig.now, '4');
    rig.pass(Duration::from_millis(800));
    rig.agent.digit(rig.now, '2');
    assert!(rig.sent().is_empty());
    rig.pass(Duration::from_millis(1500));
    let sent = rig.sent();
    assert_eq!(sent[0]["item"]["role"], "user");
    assert!(sent[0]["item"]["content"][0]["text"].as_str().unwrap().contains(" 42)"));
    assert_eq!((sent.len(), &sent[1]["type"]), (2, &json!("response.create")));
}

#[test]
fn keys_pressed_before_the_session_are_told_when_it_is_live() {
    let mut rig = Rig::new(settings());
    "12#".chars().for_each(|key| rig.agent.digit(rig.now, key));
    rig.connect();
    rig.model(r#"{"type":"session.created"}"#);
    rig.sent();
    rig.model(r#"{"type":"session.updated"}"#);
    assert_eq!(rig.sent_types(), ["conversation.item.create", "response.create"]);
}

#[test]
fn failed_responses_and_errors_are_counted_and_the_session_goes_on() {
    let mut rig = Rig::live(settings());
    for status in ["failed", "incomplete", "cancelled", "completed"] {
        rig.model(&done("r", status));
    }
    rig.model(r#"{"type":"error","error":{"type":"server_error","message":"odd"}}"#);
    rig.model(r#"{"type":"error","error":{"message":"no such item","event_id":"delete_7"}}"#);
    rig.model(r#"{"type":"error","error":{"type":"response_cancel_not_active"}}"#);
    rig.model(r#"{"type":"response.cancelled","response_id":"r"}"#);
    rig.model(r#"{"type":"something.new","delta":{}}"#);
    rig.model("not json");
    rig.server.send_binary(&[0; 100]);
    rig.run();
    let report = rig.report();
    assert_eq!((report.responses, report.responses_failed), (5, 2));
    assert_eq!((report.errors, report.errors_benign), (1, 2));
    assert_eq!((report.unknown_events, report.malformed_events), (2, 1));
    assert!(rig.agent.is_live());
}
