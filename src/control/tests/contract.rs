//! What the deployed webhook sends, to the letter, and what it reads of the answers.

use super::*;

/// The webhook's POST for a caller who speaks French.
fn webhook_post(id: &str) -> String {
    let body = json!({
        "callId": id,
        "sdpOffer": OFFER,
        "from": "250788123456",
        "config": {
            "voice": "shimmer",
            "instructions": "Vous \u{ea}tes l'assistant de \u{201c}Easy\u{201d}.\nR\u{e9}pondez en 1-2 phrases.",
            "model": "gpt-4o-realtime-preview"
        }
    })
    .to_string();
    format!(
        "POST /api/sessions HTTP/1.1\r\nhost: localhost:8080\r\ncontent-type: application/json\r\naccept: */*\r\n\
         accept-language: *\r\nuser-agent: Deno/1.40.2 (Supabase)\r\naccept-encoding: gzip, br\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn the_webhooks_offer_is_answered_with_the_fields_it_reads() {
    let mut world = World::new();
    let stream = world.client();
    world.send(stream, webhook_post(ID));
    let answer = world.answer(stream);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let session_id = "ab".repeat(16);
    let want = json!({ "success": true, "callId": ID, "sessionId": session_id, "sdpAnswer": ANSWER });
    assert_eq!(answer.json, want);

    let open = &world.opened[0];
    assert_eq!(open.session.voice.as_deref(), Some("shimmer"));
    assert!(open.session.instructions.as_ref().unwrap().starts_with("Vous \u{ea}tes"));
    assert_eq!(open.session.model, crate::config::DEFAULT_MODEL, "the retired model is replaced");
    assert_eq!(open.start_media, crate::messages::StartMedia::Auto);
    let metrics = world.ask("GET", "/metrics", "").text;
    assert!(metrics.contains("\nvoice_media_bridge_retired_models_total 1\n"), "{metrics}");
}

#[test]
fn the_webhooks_replies_to_errors_are_the_ones_it_knows() {
    let mut world = World::new();
    for body in [
        "",
        "{}",
        r#"{"callId":"a"}"#,
        r#"{"sdpOffer":"v=0"}"#,
        r#"{"callId":"","sdpOffer":"v=0"}"#,
        r#"{"callId":"a","sdpOffer":""}"#,
        r#"{"callId":1,"sdpOffer":"v=0"}"#,
        r#"{"callId":"a","sdpOffer":{"sdp":"v=0"}}"#,
        r#"{"callId":null,"sdpOffer":null}"#,
    ] {
        let answer = world.ask("POST", "/api/sessions", body);
        assert_eq!((answer.status, answer.error()), (400, "Missing callId or sdpOffer"), "{body}");
        assert_eq!(answer.code(), "missing_field");
    }
    world.refusal = Some(OpenRefusal::Internal("no codec".into()));
    let answer = world.post(ID);
    assert_eq!((answer.status, answer.error()), (500, "Failed to create session"));
    let answer = world.ask("DELETE", &path("never"), "");
    assert_eq!((answer.status, answer.error()), (404, "Session not found"));
}

#[test]
fn the_webhooks_stop_ends_the_call_and_is_always_200() {
    let mut world = World::new();
    world.post(ID);
    let body = json!({ "callId": ID }).to_string();
    for _ in 0..3 {
        let answer = world.ask("POST", "/bridge/stop", &body);
        assert_eq!((answer.status, answer.json), (200, json!({ "success": true })));
    }
    assert!(world.calls.is_empty(), "the call lives on");
    assert_eq!(world.told.iter().filter(|told| told.ends_with("Hangup")).count(), 1);
    assert_eq!(world.ask("POST", "/bridge/stop", r#"{"callId":"never seen"}"#).status, 200);
    assert_eq!(world.ask("POST", "/bridge/stop", "{}").status, 400);
    assert_eq!(world.ask("POST", "/bridge/stop", "nonsense").status, 400);
}

#[test]
fn a_webhook_that_can_only_be_given_a_base_url_carries_the_token_in_it() {
    let token = "0123456789abcdef-secret";
    let mut world = World::with(&["--api-token", token]);
    let base = format!("/k/{token}");
    let body = session(ID, OFFER, &json!({}));
    assert_eq!(world.ask("POST", "/api/sessions", &body).status, 401);
    assert_eq!(world.ask("POST", &format!("{base}/api/sessions"), &body).status, 200);
    assert_eq!(world.ask("GET", &format!("{base}{}", path(ID)), "").status, 200);
    let stop = json!({ "callId": ID }).to_string();
    assert_eq!(world.ask("POST", "/bridge/stop", &stop).status, 401);
    assert_eq!(world.ask("POST", &format!("{base}/bridge/stop"), &stop).status, 200);
    assert!(world.calls.is_empty());
}

#[test]
fn health_says_what_the_old_bridges_said() {
    let mut world = World::new();
    world.post("a");
    let answer = world.ask("GET", "/health", "");
    let want = json!({ "status": "healthy", "service": "voice-media-bridge", "activeCalls": 1 });
    assert_eq!((answer.status, answer.json), (200, want));
}

#[test]
fn a_repeated_post_is_the_same_call_and_another_offer_is_a_conflict() {
    let mut world = World::new();
    let first = world.post(ID);
    let again = world.post(ID);
    assert_eq!((first.status, &first.text), (200, &again.text));
    assert_eq!(world.opened.len(), 1);
    let other = session(ID, &OFFER.replace("3480", "3482"), &json!({}));
    let answer = world.ask("POST", "/api/sessions", &other);
    assert_eq!((answer.status, answer.code()), (409, "conflict"));
    assert_eq!(world.opened.len(), 1);
}

#[test]
fn a_post_repeated_while_the_first_waits_gets_the_same_answer() {
    let mut world = World::new();
    world.prompt = false;
    let body = session(ID, OFFER, &json!({}));
    let first = world.begin("POST", "/api/sessions", "", &body);
    let second = world.begin("POST", "/api/sessions", "", &body);
    let third = world.begin("PUT", &path(ID), "", &json!({ "sdpOffer": OFFER }).to_string());
    let gone = world.begin("POST", "/api/sessions", "", &body);
    world.fail(gone);
    assert!([first, second, third].iter().all(|stream| world.clients[stream].out.is_empty()));
    world.prompt = true;
    world.run();
    let texts = [first, second, third].map(|stream| world.answer(stream).text);
    assert!(texts[0].contains("sdpAnswer") && texts[0] == texts[1] && texts[1] == texts[2]);
    assert_eq!(world.opened.len(), 1, "one call");
}

#[test]
fn an_ended_id_posted_again_is_a_new_call() {
    let mut world = World::new();
    world.post(ID);
    world.ask("DELETE", &path(ID), "");
    assert_eq!(world.ask("DELETE", &path(ID), "").status, 200, "while it is remembered");
    assert_eq!(world.post(ID).status, 200);
    assert_eq!(world.opened.len(), 2);
    assert_eq!(world.ask("GET", &path(ID), "").json["state"], "connecting");
    assert_eq!(world.control.calls.remembered(), (1, 1, 0), "the ended one made way");

    // Also before its worker has ended it.
    world.prompt = false;
    let stop = world.begin("DELETE", &path(ID), "", "");
    assert_eq!(world.answer(stop).status, 200);
    let again = world.begin("POST", "/api/sessions", "", &session(ID, OFFER, &json!({})));
    world.prompt = true;
    world.run();
    assert_eq!(world.answer(again).status, 200);
    assert_eq!((world.opened.len(), world.calls.len()), (3, 1));
    assert_eq!(world.ask("GET", &path(ID), "").json["state"], "connecting", "the new call, not the ended one");
}
