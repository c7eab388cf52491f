//! Calls that do not come about: Meta is told, whatever fails, and no phone rings on.

use super::*;

#[test]
fn a_call_that_no_core_can_take_is_rejected() {
    let mut world = World::whatsapp_with(&["--max-calls", "2"], None, BTreeMap::new());
    world.deliver(&connect("wacid.1"));
    world.deliver(&connect("wacid.2"));
    assert_eq!(world.deliver(&connect("wacid.3")).status, 200);
    assert_eq!(world.asked_of_meta(), ["pre_accept", "pre_accept", "reject"]);
    assert_eq!(world.metric("calls_refused_total{code=\"full\"}"), Some(1));
    world.graph_ok();
    world.graph_ok();
    world.graph_ok();
    assert_eq!((world.journal.len(), world.metric("whatsapp_calls_alive")), (2, Some(2)));
}

#[test]
fn an_offer_that_cannot_be_answered_is_rejected() {
    let mut world = World::whatsapp();
    let mut event = connect_event(ID);
    event["session"]["sdp"] = "v=0\r\n".into();
    world.deliver(&webhook(&[calls(NUMBER, &json!([event]))]));
    assert_eq!((world.opened.len(), world.asked_of_meta()), (0, vec!["reject".to_owned()]));
}

#[test]
fn a_call_that_its_worker_refuses_is_rejected() {
    let mut world = World::whatsapp();
    world.refusal = Some(OpenRefusal::NoPort("all are taken".to_owned()));
    world.deliver(&connect(ID));
    assert_eq!(world.asked_of_meta(), ["reject"]);
    world.graph_ok();
    assert_eq!(world.journal.len(), 0);
}

#[test]
fn a_worker_that_hangs_leaves_no_phone_ringing() {
    let mut world = World::whatsapp();
    world.prompt = false;
    world.deliver(&connect(ID));
    assert_eq!(world.asked_of_meta(), [""; 0]);
    world.wait(Duration::from_secs(3));
    assert_eq!(world.asked_of_meta(), ["reject"]);
}

#[test]
fn an_answer_that_meta_refuses_ends_the_call_on_both_sides_and_the_record_says_why() {
    let mut world = World::whatsapp();
    world.deliver(&connect(ID));
    world.graph_refuses(138_008);
    assert_eq!(world.asked_of_meta(), ["reject"]);
    world.graph_ok();
    let shown = world.ask("GET", &path(ID), "").json;
    assert_eq!((shown["closeReason"].as_str(), shown["closeBlame"].as_str()), (Some("accept_failed"), Some("peer")));
    let error = &shown["whatsapp"]["lastError"];
    assert_eq!((error["action"].as_str(), error["code"].as_i64()), (Some("pre_accept"), Some(138_008)));
    assert!(error["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{error}");
    assert_eq!(world.journal.len(), 0);
}

#[test]
fn a_graph_api_that_is_away_is_asked_again_within_the_life_of_the_call() {
    let mut world = World::whatsapp();
    world.deliver(&connect(ID));
    world.graph_says(503, "");
    assert_eq!(world.asked_of_meta(), [""; 0], "not at once");
    world.wait(Duration::from_secs(3));
    assert_eq!(world.asked_of_meta(), ["pre_accept"]);
    world.graph_ok();
    world.connect_call(1);
    world.graph_outcome(Err("graph.example does not answer".to_owned()));
    world.wait(Duration::from_secs(3));
    assert_eq!(world.asked_of_meta(), ["accept"]);
    world.graph_ok();
    assert_eq!(world.record(ID)["state"], "accepted");
    assert_eq!(world.metric("whatsapp_graph_requests_total{action=\"accept\",outcome=\"unclear\"}"), Some(1));
}

#[test]
fn a_request_that_the_client_had_to_send_twice_is_not_taken_for_somebody_elses() {
    let mut world = World::whatsapp();
    world.deliver(&connect(ID));
    world.graph_ok();
    world.connect_call(1);
    let ask = world.graph.pop_front().unwrap();
    let body = json!({ "error": { "message": "again", "code": 138_003 } }).to_string();
    let outcome = Ok(GraphReply { status: 400, retry_after_sec: None, body });
    let answer = GraphAnswer { id: ask.id, begun: world.now, ended: world.now, is_repeated: true, outcome };
    world.input(Input::Message(Message::GraphAnswered(answer)));
    assert_eq!((world.asked_of_meta().len(), world.record(ID)["state"].clone()), (0, json!("accepted")));
    assert_eq!(world.metric("whatsapp_graph_requests_total{action=\"accept\",outcome=\"ok\"}"), Some(1));
    assert!(world.record(ID)["lastError"].is_null(), "it is no error");
}

#[test]
fn an_answer_that_comes_after_it_was_given_up_is_not_taken_for_the_next_ones() {
    let mut world = World::whatsapp();
    world.deliver(&connect(ID));
    let lost = world.graph.pop_front().unwrap();
    world.connect_call(1);
    world.wait(Duration::from_secs(16));
    assert_eq!(world.asked_of_meta(), ["accept"], "media is up: Meta has our answer");
    let outcome = Err("no answer".to_owned());
    let late = GraphAnswer { id: lost.id, begun: world.now, ended: world.now, is_repeated: false, outcome };
    world.input(Input::Message(Message::GraphAnswered(late)));
    assert_eq!((world.graph.len(), world.record(ID)["state"].clone()), (1, json!("accepting")));
    world.graph_ok();
    assert_eq!(world.record(ID)["state"], "accepted");
}

#[test]
fn threads_that_never_answer_do_not_keep_a_call_for_ever() {
    let mut world = World::whatsapp();
    world.deliver(&connect(ID));
    world.wait(Duration::from_secs(600));
    assert_eq!((world.journal.len(), world.metric("whatsapp_given_up_total")), (0, Some(1)));
    let shown = world.ask("GET", &path(ID), "").json;
    assert_eq!(shown["closeReason"], "accept_failed");
}

#[test]
fn media_that_does_not_come_up_is_not_waited_for_longer_than_meta_waits() {
    let mut world = World::whatsapp();
    world.deliver(&connect(ID));
    world.graph_ok();
    world.wait(Duration::from_secs(15));
    assert_eq!(world.asked_of_meta(), ["accept"]);
}

#[test]
fn numbers_that_are_closed_reject_and_those_that_are_others_are_let_be() {
    let mut world = World::whatsapp();
    let body = webhook(&[
        calls(CLOSED, &json!([connect_event("wacid.closed")])),
        calls(IGNORED, &json!([connect_event("wacid.ignored")])),
        calls("999", &json!([connect_event("wacid.strange")])),
    ]);
    assert_eq!(world.deliver(&body).status, 200);
    assert_eq!((world.opened.len(), world.asked_of_meta()), (0, vec!["reject".to_owned()]));
    assert_eq!(world.graph_ok().path, format!("/{CLOSED}/calls"));
    assert_eq!(world.metric("whatsapp_call_events_total{event=\"connect\",outcome=\"other_number\"}"), Some(2));
}
