//! Webhooks as they come: verified, signed or not, again, out of order, several in one, and what is passed on.

use super::*;

#[test]
fn meta_verifies_the_webhook_with_the_token_and_gets_its_challenge_back() {
    let mut world = World::whatsapp();
    let ask = |world: &mut World, query: &str| world.ask("GET", &format!("/webhooks/whatsapp{query}"), "");
    let right = ask(&mut world, "?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=verify-me");
    assert_eq!((right.status, right.text.as_str()), (200, "1158201444"));
    assert!(right.header("Content-Type").is_some_and(|kind| kind.starts_with("text/plain")));
    for (query, status, code) in [
        ("?hub.mode=subscribe&hub.challenge=1&hub.verify_token=verify-mf", 403, "wrong_verify_token"),
        ("?hub.mode=subscribe&hub.challenge=1&hub.verify_token=", 403, "wrong_verify_token"),
        ("?hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=verify-me", 400, "bad_verification"),
        ("?hub.mode=subscribe&hub.verify_token=verify-me", 400, "bad_verification"),
        ("?hub.mode=subscribe&hub.challenge=%3Cb%3E%20&hub.verify_token=verify-me", 400, "bad_field"),
        ("", 400, "bad_verification"),
    ] {
        let answer = ask(&mut world, query);
        assert_eq!((answer.status, answer.code()), (status, code), "{query}");
    }
}

#[test]
fn without_numbers_there_is_no_webhook_and_the_error_names_the_setting() {
    let mut world = World::new();
    for method in ["GET", "POST"] {
        let answer = world.ask(method, "/webhooks/whatsapp", "");
        assert_eq!(answer.status, 404);
        assert!(answer.error().contains("WHATSAPP_PHONE_NUMBER_ID"), "{}", answer.error());
    }
}

#[test]
fn only_what_one_of_the_apps_has_signed_is_read() {
    let mut world = World::whatsapp();
    let body = connect(ID);
    for (header, said) in [
        (String::new(), "missing"),
        ("X-Hub-Signature-256: sha256=00\r\n".to_owned(), "64 hexadecimal digits"),
        (format!("X-Hub-Signature-256: {}\r\n", sign("wrong", &body)), "WHATSAPP_APP_SECRET"),
        (format!("X-Hub-Signature-256: {}\r\n", sign(APP_SECRET, &(body.clone() + " "))), "WHATSAPP_APP_SECRET"),
    ] {
        let answer = world.ask_with("POST", "/webhooks/whatsapp", &header, &body);
        assert_eq!((answer.status, answer.code()), (401, "bad_signature"), "{header}");
        assert!(answer.error().contains(said), "{}", answer.error());
    }
    assert_eq!((world.opened.len(), world.graph.len()), (0, 0));
    let by_another_app = format!("X-Hub-Signature-256: {}\r\n", sign("another-app's", &body));
    assert_eq!(world.ask_with("POST", "/webhooks/whatsapp", &by_another_app, &body).status, 200);
    assert_eq!(world.opened.len(), 1);
    assert_eq!(world.metric("whatsapp_webhooks_total{outcome=\"bad_signature\"}"), Some(4));
}

#[test]
fn the_apis_tokens_are_not_metas_business() {
    let mut config = config_with(&["--api-token", "0123456789abcdef"], None);
    config.page = false;
    let mut world = World::made(config, None, None, Some(settings()), BTreeMap::new());
    world.prompt = true;
    world.run();
    assert_eq!(world.deliver(&connect(ID)).status, 200);
    assert_eq!(world.ask("GET", "/api/sessions", "").status, 401);
}

#[test]
fn what_is_signed_and_cannot_be_read_is_refused_in_words() {
    let mut world = World::whatsapp();
    for body in ["", "{", "[]", "null", "\"x\""] {
        let answer = world.deliver(body);
        assert_eq!((answer.status, answer.code()), (400, "bad_webhook"), "{body}");
    }
}

#[test]
fn every_call_of_every_change_is_acted_on_and_one_bad_event_takes_none_along() {
    let mut world = World::whatsapp();
    let mut lame = connect_event("wacid.lame");
    lame.as_object_mut().unwrap().remove("session");
    let mut nameless = connect_event("wacid.nameless");
    nameless.as_object_mut().unwrap().remove("from");
    nameless["later"] = json!({ "unknown": [1, 2] });
    let body = webhook(&[
        calls(NUMBER, &json!([connect_event("wacid.1"), lame])),
        calls(NUMBER, &json!([nameless, connect_event("wacid.3")])),
    ]);
    world.deliver(&body);
    assert_eq!(world.opened.len(), 3);
    assert_eq!(world.metric("whatsapp_unusable_events_total"), Some(1));
    assert_eq!(world.metric("whatsapp_calls_total{number=\"front desk\"}"), Some(3));
}

#[test]
fn an_event_that_comes_again_changes_nothing() {
    let mut world = World::whatsapp();
    for _ in 0..3 {
        assert_eq!(world.deliver(&connect(ID)).status, 200);
    }
    assert_eq!((world.opened.len(), world.asked_of_meta()), (1, vec!["pre_accept".to_owned()]));
    world.deliver(&terminate(ID));
    world.deliver(&connect(ID));
    world.deliver(&terminate(ID));
    assert_eq!(world.opened.len(), 1);
    assert_eq!(world.metric("whatsapp_call_events_total{event=\"connect\",outcome=\"repeated\"}"), Some(3));
}

#[test]
fn a_connect_that_comes_after_its_terminate_opens_nothing() {
    let mut world = World::whatsapp();
    world.deliver(&terminate(ID));
    world.deliver(&connect(ID));
    assert_eq!((world.opened.len(), world.graph.len(), world.journal.len()), (0, 0, 0));
    assert_eq!(world.metric("whatsapp_call_events_total{event=\"connect\",outcome=\"over\"}"), Some(1));
}

#[test]
fn a_connect_that_is_a_minute_old_is_left_alone() {
    let mut world = World::whatsapp();
    let mut event = connect_event(ID);
    event["timestamp"] = (UNIX_SEC - 61).to_string().into();
    world.deliver(&webhook(&[calls(NUMBER, &json!([event]))]));
    assert_eq!((world.opened.len(), world.graph.len()), (0, 0));
    let mut event = connect_event("wacid.young");
    event["timestamp"] = (UNIX_SEC - 59).to_string().into();
    world.deliver(&webhook(&[calls(NUMBER, &json!([event]))]));
    assert_eq!(world.opened.len(), 1);
}

#[test]
fn a_call_that_the_deployed_webhook_has_posted_is_not_opened_twice_and_ends_by_either_word() {
    let mut world = World::whatsapp();
    assert_eq!(world.post(ID).status, 200);
    world.deliver(&connect(ID));
    assert_eq!((world.opened.len(), world.graph.len()), (1, 0));
    world.deliver(&terminate(ID));
    let shown = world.ask("GET", &path(ID), "").json;
    assert_eq!(shown["closeReason"], "terminated");
}

#[test]
fn what_is_no_call_event_is_passed_on_byte_for_byte_with_its_signature() {
    let mut world = World::whatsapp_with(&[], Some("http://127.0.0.1:9/hook"), BTreeMap::new());
    let message = json!({ "field": "messages", "value": { "messages": [{ "from": "16505551234", "id": "wamid.1" }] } });
    let body = webhook(&[calls(NUMBER, &json!([connect_event(ID)])), message]).replace("wamid", "wam\\u0069d");
    assert_eq!(world.deliver(&body).status, 200);
    assert_eq!(world.opened.len(), 1, "the call in it is ours");
    let parcel = &world.parcels[0];
    assert_eq!(
        (parcel.body.as_slice(), parcel.signature.as_str()),
        (body.as_bytes(), sign(APP_SECRET, &body).as_str())
    );
    assert!(!parcel.senders.is_empty());
    assert_eq!(world.metric("whatsapp_forward_waiting"), Some(1));
    let bytes = body.len();
    world.input(Input::Message(Message::Forwarded(Forwarded { bytes, taken: true })));
    assert_eq!(world.metric("whatsapp_forward_waiting"), Some(0));
    assert_eq!(world.metric("whatsapp_forwarded_total{outcome=\"taken\"}"), Some(1));
    world.deliver(&connect("wacid.alone"));
    assert_eq!(world.parcels.len(), 1, "a delivery of our own calls alone is nobody else's");
}

#[test]
fn without_a_receiver_other_events_are_taken_and_counted() {
    let mut world = World::whatsapp();
    let message = json!({ "field": "messages", "value": { "messages": [{ "from": "16505551234", "id": "wamid.1" }] } });
    assert_eq!(world.deliver(&webhook(&[message])).status, 200);
    assert_eq!((world.parcels.len(), world.metric("whatsapp_forwarded_total{outcome=\"nobody\"}")), (0, Some(1)));
}

#[test]
fn a_receiver_that_takes_nothing_fills_a_bounded_queue_and_then_meta_keeps_what_comes() {
    let mut world = World::whatsapp_with(&[], Some("http://127.0.0.1:9/hook"), BTreeMap::new());
    let body = |n: usize| {
        let text = json!({ "body": "x".repeat(60_000) });
        webhook(&[json!({ "field": "messages", "value": { "messages": [{ "from": n.to_string(), "text": text }] } })])
    };
    let mut taken = 0;
    let full = loop {
        let answer = world.deliver(&body(taken));
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
    };
    assert_eq!((full.status, full.code()), (503, "forward_full"));
    assert!(full.header("Retry-After").is_some());
    let waiting: usize = world.parcels.iter().map(|parcel| parcel.body.len()).sum();
    assert!(waiting > (64 << 20) - 100_000 && waiting <= 64 << 20, "{waiting}");
    assert_eq!(world.deliver(&connect(ID)).status, 200, "calls are not held up by it");
    let message =
        json!({ "field": "messages", "value": { "messages": [{ "from": "1", "text": "x".repeat(90_000) }] } });
    let both = webhook(&[calls(NUMBER, &json!([connect_event("wacid.both")])), message]);
    assert_eq!((world.deliver(&both).status, world.opened.len()), (503, 2), "nor where both are in one body");
    assert_eq!((world.deliver(&both).status, world.opened.len()), (503, 2), "which comes again");
    let bytes = world.parcels[0].body.len();
    world.input(Input::Message(Message::Forwarded(Forwarded { bytes, taken: false })));
    assert_eq!(world.deliver(&body(taken)).status, 200);
}

/// With a balancer that asks how much more may come.
const BALANCED: [&str; 2] = ["--agent-check-listen", "127.0.0.1:8081"];

#[test]
fn a_full_server_behind_a_balancer_lets_it_try_another_and_is_open_to_the_same_call_later() {
    let words = [&BALANCED[..], &["--max-calls", "2"]].concat();
    let mut world = World::whatsapp_with(&words, None, BTreeMap::new());
    world.deliver(&connect("wacid.1"));
    world.deliver(&connect("wacid.2"));
    let answer = world.deliver(&connect("wacid.3"));
    assert_eq!((answer.status, answer.code()), (503, "full"));
    assert!(answer.header("Retry-After").is_some());
    assert_eq!((world.asked_of_meta().len(), world.journal.len()), (2, 2), "nothing is said of it to Meta");
    world.deliver(&terminate("wacid.1"));
    assert_eq!((world.deliver(&connect("wacid.3")).status, world.opened.len()), (200, 3));
}

#[test]
fn a_server_that_drains_alone_rejects_new_calls_for_nobody_else_would() {
    let mut world = World::whatsapp();
    world.accepted("wacid.old");
    world.input(Input::Stop);
    assert_eq!(world.deliver(&connect("wacid.new")).status, 200);
    assert_eq!((world.opened.len(), world.asked_of_meta()), (1, vec!["reject".to_owned()]));
}

#[test]
fn a_server_that_drains_behind_a_balancer_sends_new_calls_on_and_hears_of_the_end_of_old_ones() {
    let mut world = World::whatsapp_with(&BALANCED, None, BTreeMap::new());
    world.accepted("wacid.old");
    world.deliver(&connect("wacid.ringing"));
    world.input(Input::Stop);
    let both = webhook(&[calls(NUMBER, &json!([connect_event("wacid.new"), terminate_event("wacid.ringing")]))]);
    let answer = world.deliver(&both);
    assert_eq!((answer.status, answer.code()), (503, "draining"));
    assert_eq!(world.opened.len(), 2);
    assert_eq!(world.journal.len(), 1, "the old one alone is alive");
    assert_eq!(world.deliver(&both).status, 503, "asked again, it is new again");
    assert_eq!(world.deliver(&terminate("wacid.old")).status, 200);
}

#[test]
fn neither_numbers_nor_ids_nor_sdp_print() {
    let mut world = World::whatsapp();
    world.deliver(&connect(ID));
    let shown = format!("{:?} {:?}", world.control.meta, world.graph);
    for secret in [ID, "16505551234", "ice-pwd", APP_SECRET, "token of", "verify-me"] {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
}
