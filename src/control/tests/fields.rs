//! Every field of a session request: what is taken, what is refused, and that the error names it.

use super::*;
use crate::realtime::{Greeting, Json};

fn opened(config: &Value) -> OpenCall {
    let mut world = World::new();
    let answer = world.ask("POST", "/api/sessions", &session(ID, OFFER, config));
    assert_eq!(answer.status, 200, "{config} was refused: {}", answer.text);
    world.opened.remove(0)
}

#[test]
fn settings_reach_the_call_as_they_were_sent() {
    let open = opened(&json!({
        "model": "gpt-realtime-2.1-mini", "voice": "marin", "instructions": "Be brief.", "language": "pt-BR",
        "greeting": "Hello!", "maxDurationSec": 60, "startMedia": "auto", "to": "16505550000",
    }));
    assert_eq!((open.session.model.as_str(), open.session.voice.as_deref()), ("gpt-realtime-2.1-mini", Some("marin")));
    assert_eq!(open.session.instructions.as_deref(), Some("Be brief."));
    assert_eq!(open.session.language.as_deref(), Some("pt-BR"));
    assert_eq!((open.session.greeting, open.duration_sec_max), (Greeting::Text("Hello!".into()), 60));

    let open = opened(&json!({}));
    assert_eq!((open.session.greeting, open.duration_sec_max), (Greeting::Own, 3600));
    assert_eq!((open.session.tools, open.session.turn_detection, open.session.voice), (None, None, None));
    assert_eq!(opened(&json!({ "greeting": "" })).session.greeting, Greeting::None);
    assert_eq!(
        opened(&json!({ "greeting": null, "tools": null, "metadata": null, "model": null, "voice": "" })).session,
        opened(&json!({})).session
    );
}

#[test]
fn what_is_for_the_model_keeps_its_text() {
    let mut world = World::new();
    let tools = r#"[ {"type":"function","name":"z","parameters":{"z":1,"a":1.50}} ]"#;
    let body = format!(
        r#"{{"callId":"a","sdpOffer":{},"config":{{"tools":{tools},"turnDetection":null,"transcription":{{"b":1,"a":2}}}}}}"#,
        json!(OFFER)
    );
    assert_eq!(world.ask("POST", "/api/sessions", &body).status, 200);
    let session = &world.opened[0].session;
    assert_eq!(session.tools, Some(Json(tools.into())));
    assert_eq!(session.turn_detection, Some(Json("null".into())));
    assert_eq!(session.transcription, Some(Json(r#"{"b":1,"a":2}"#.into())));
}

#[test]
fn retired_models_become_the_operators_default() {
    let mut world = World::with(&["--realtime-model", "gpt-realtime-2.1-mini"]);
    world.ask("POST", "/api/sessions", &session(ID, OFFER, &json!({ "model": "gpt-5-realtime" })));
    assert_eq!(world.opened[0].session.model, "gpt-realtime-2.1-mini");
    let metrics = world.ask("GET", "/metrics", "").text;
    assert!(metrics.contains("\nvoice_media_bridge_retired_models_total 1\n"));
}

#[test]
fn a_wrong_setting_is_refused_by_its_name() {
    let long = |length: usize| "a".repeat(length);
    let many = |length: usize| Value::from(vec![json!({ "type": "function" }); length]);
    let entries = |count: usize| Value::Object((0..count).map(|n| (format!("k{n}"), json!("v"))).collect());
    opened(&json!({ "tools": many(64), "metadata": entries(16), "instructions": long(32 * 1024) }));
    opened(&json!({ "voice": long(64), "greeting": long(4096), "language": "rw", "maxDurationSec": 10 }));
    let mut world = World::new();
    for (config, field) in [
        (json!({ "modle": "x" }), "config.modle"),
        (json!({ "temperature": 0.8 }), "config.temperature"),
        (json!({ "model": 1 }), "config.model"),
        (json!({ "model": "a b" }), "config.model"),
        (json!({ "model": "x&y=z" }), "config.model"),
        (json!({ "model": long(129) }), "config.model"),
        (json!({ "voice": 1 }), "config.voice"),
        (json!({ "voice": long(65) }), "config.voice"),
        (json!({ "voice": "a\r\nb" }), "config.voice"),
        (json!({ "instructions": ["x"] }), "config.instructions"),
        (json!({ "instructions": long(32 * 1024 + 1) }), "config.instructions"),
        (json!({ "language": "en_US" }), "config.language"),
        (json!({ "language": "e" }), "config.language"),
        (json!({ "language": "en--US" }), "config.language"),
        (json!({ "language": long(36) }), "config.language"),
        (json!({ "greeting": false }), "config.greeting"),
        (json!({ "greeting": long(4097) }), "config.greeting"),
        (json!({ "tools": {} }), "config.tools"),
        (json!({ "tools": many(65) }), "config.tools"),
        (json!({ "tools": [{ "type": "function" }, { "name": "x" }] }), "config.tools[1]"),
        (json!({ "tools": ["x"] }), "config.tools[0]"),
        (json!({ "tools": [{ "type": "" }] }), "config.tools[0]"),
        (json!({ "turnDetection": "server_vad" }), "config.turnDetection"),
        (json!({ "turnDetection": [] }), "config.turnDetection"),
        (json!({ "transcription": true }), "config.transcription"),
        (json!({ "metadata": [] }), "config.metadata"),
        (json!({ "metadata": { "a": 1 } }), "config.metadata"),
        (json!({ "metadata": entries(17) }), "config.metadata"),
        (json!({ "metadata": { "a": long(513) } }), "config.metadata"),
        (json!({ "metadata": { long(65): "v" } }), "config.metadata"),
        (json!({ "startMedia": "now" }), "config.startMedia"),
        (json!({ "startMedia": true }), "config.startMedia"),
        (json!({ "maxDurationSec": 9 }), "config.maxDurationSec"),
        (json!({ "maxDurationSec": 3601 }), "config.maxDurationSec"),
        (json!({ "maxDurationSec": 60.5 }), "config.maxDurationSec"),
        (json!({ "maxDurationSec": -60 }), "config.maxDurationSec"),
        (json!({ "maxDurationSec": "60" }), "config.maxDurationSec"),
        (json!("x"), "config must"),
        (json!([]), "config must"),
    ] {
        let answer = world.ask("POST", "/api/sessions", &session(ID, OFFER, &config));
        assert_eq!(answer.status, 400, "{config} was taken");
        assert!(answer.error().starts_with(field), "{config}: {}", answer.error());
        assert!(["bad_field", "unknown_field"].contains(&answer.code()), "{}", answer.code());
    }
    assert!(world.told.is_empty());
}

#[test]
fn a_wrong_body_is_refused_and_unknown_fields_beside_config_are_not() {
    let mut world = World::new();
    for (body, start) in [
        ("nonsense", "The body is not valid JSON"),
        ("[]", "The body must be a JSON object."),
        ("{\"callId\":\"a\",\"callId\":\"b\"}", "The body is not valid JSON: an object has the same key twice"),
        (
            &format!("{{\"callId\":\"a\",\"sdpOffer\":\"v=0\",\"x\":{}}}", "[".repeat(100_000)),
            "The body is not valid JSON",
        ),
        (r#"{"callId":"\ud800","sdpOffer":"v=0"}"#, "The body is not valid JSON"),
        (r#"{"callId":"a\nb","sdpOffer":"v=0"}"#, "callId must be 1 to 256 bytes"),
        (&json!({ "callId": "a".repeat(257), "sdpOffer": OFFER }).to_string(), "callId must be 1 to 256 bytes"),
        (&json!({ "callId": "a", "sdpOffer": OFFER, "from": 1 }).to_string(), "from must be a string."),
        (&json!({ "callId": "a", "sdpOffer": OFFER, "to": [] }).to_string(), "to must be a string."),
    ] {
        let answer = world.ask("POST", "/api/sessions", body);
        assert_eq!(answer.status, 400, "{body:.80}");
        assert!(answer.error().starts_with(start), "{body:.80}: {}", answer.error());
    }
    let body = json!({ "callId": "a", "sdpOffer": OFFER, "timestamp": "1760681533", "from": null, "config": null });
    assert_eq!(world.ask("POST", "/api/sessions", &body.to_string()).status, 200);
}
