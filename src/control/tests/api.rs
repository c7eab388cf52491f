//! Sessions seen by their owner: views, waiting, activation, the list, metrics, and what happens when workers fail.

use super::*;
use crate::control::calls::{ENDED_CALLS_MAX, ENDED_TIME_MAX};

#[test]
fn a_live_call_shows_its_report_and_an_ended_one_its_reason() {
    let mut world = World::new();
    let metadata = json!({ "metadata": { "tenant": "a", "order": "7" } });
    let body = session(ID, OFFER, &metadata);
    world.ask("POST", "/api/sessions", &body);
    let view = world.ask("GET", &path(ID), "").json;
    assert_eq!((&view["callId"], &view["state"], &view["worker"]), (&json!(ID), &json!("connecting"), &json!(0)));
    assert_eq!(view["sessionId"].as_str().map(str::len), Some(32));
    assert_eq!((&view["metadata"], &view["durationMs"]), (&metadata["metadata"], &json!(1234)));
    assert!(view["uplink"]["packets"].is_u64() && view.get("closeReason").is_none());

    world.end_call(1, CloseReason::PeerSilent);
    let view = world.ask("GET", &path(ID), "").json;
    assert_eq!((&view["state"], &view["closeReason"]), (&json!("ended"), &json!("peer_silent")));
    assert_eq!((&view["closeBlame"], &view["closeDetail"]), (&json!("peer"), &json!("in words")));
    assert_eq!(view["metadata"], metadata["metadata"], "remembered with the call");
    assert_eq!(world.ask("GET", &path("never"), "").status, 404);
}

#[test]
fn waiting_for_connected_answers_when_media_is_up() {
    let mut world = World::new();
    world.post(ID);
    let waits = world.begin("GET", &format!("{}?wait=connected", path(ID)), "", "");
    assert!(world.clients[&waits].out.is_empty());
    world.wait(Duration::from_secs(20));
    assert!(world.clients[&waits].out.is_empty() && !world.clients[&waits].closed);
    world.connect_call(1);
    assert_eq!(world.answer(waits).json["state"], "active");
    let later = world.ask("GET", &format!("{}?wait=connected", path(ID)), "");
    assert_eq!(later.json["state"], "active", "no wait where it is connected already");
    assert_eq!(world.ask("GET", &format!("{}?wait=media", path(ID)), "").status, 400);
}

#[test]
fn waiting_for_connected_answers_when_the_call_ends_or_the_wait_is_over() {
    let mut world = World::new();
    world.post("a");
    world.post("b");
    let waits_a = world.begin("GET", &format!("{}?wait=connected", path("a")), "", "");
    let waits_b = world.begin("GET", &format!("{}?wait=connected", path("b")), "", "");
    world.end_call(1, CloseReason::IceTimeout);
    let answer = world.answer(waits_a);
    assert_eq!((&answer.json["state"], &answer.json["closeReason"]), (&json!("ended"), &json!("ice_timeout")));
    world.wait(Duration::from_millis(29_999));
    assert!(world.clients[&waits_b].out.is_empty());
    world.wait(Duration::from_millis(1));
    assert_eq!(world.answer(waits_b).json["state"], "connecting");
    world.connect_call(2);
    assert!(world.clients[&waits_b].out.is_empty(), "answered once");
}

#[test]
fn a_client_that_leaves_while_it_waits_leaves_nothing_behind() {
    let mut world = World::new();
    world.post(ID);
    let timers = world.control.timers.len();
    for _ in 0..100 {
        let waits = world.begin("GET", &format!("{}?wait=connected", path(ID)), "", "");
        world.fail(waits);
    }
    assert_eq!(world.control.timers.len(), timers);
    assert!(world.control.calls.by_number(CallNumber(1)).unwrap().waiting.is_empty());
    world.connect_call(1);
}

#[test]
fn put_names_the_call_in_its_path() {
    let mut world = World::new();
    let offer = json!({ "sdpOffer": OFFER }).to_string();
    let answer = world.ask("PUT", &path(ID), &offer);
    assert_eq!((answer.status, &answer.json["callId"]), (200, &json!(ID)));
    assert_eq!(world.ask("PUT", &path(ID), &session(ID, OFFER, &json!({}))).text, answer.text);
    assert_eq!(world.post(ID).text, answer.text, "the same as POST");
    assert_eq!(world.ask("PUT", &path(ID), &session("other", OFFER, &json!({}))).status, 400);
    assert_eq!(world.ask("PUT", &path(ID), &json!({ "callId": 1, "sdpOffer": OFFER }).to_string()).status, 400);
    assert_eq!(world.ask("PUT", &path(ID), "{}").error(), "Missing callId or sdpOffer");
    assert_eq!(world.opened.len(), 1);
}

#[test]
fn activate_reaches_the_worker_of_the_call() {
    let mut world = World::new();
    world.ask("POST", "/api/sessions", &session(ID, OFFER, &json!({ "startMedia": "manual" })));
    assert_eq!(world.opened[0].start_media, crate::messages::StartMedia::Manual);
    let activate = format!("{}/activate", path(ID));
    let answer = world.ask("POST", &activate, "");
    assert_eq!((answer.status, answer.json), (200, json!({ "success": true })));
    assert_eq!(world.told.last().unwrap(), "0 Activate");
    world.end_call(1, CloseReason::PeerClosed);
    let answer = world.ask("POST", &activate, "{}");
    assert_eq!((answer.status, answer.code()), (409, "ended"));
    assert_eq!(world.ask("POST", "/api/sessions/never/activate", "").status, 404);
}

#[test]
fn calls_go_to_the_worker_with_the_fewest() {
    let mut world = World::new();
    for id in ["a", "b", "c", "d"] {
        world.post(id);
    }
    let placed: Vec<_> = world.calls.values().map(|(worker, _)| *worker).collect();
    assert_eq!(placed, [0, 1, 0, 1]);
    world.ask("DELETE", &path("a"), "");
    world.ask("DELETE", &path("c"), "");
    world.post("e");
    world.post("f");
    assert_eq!(world.calls.values().map(|(worker, _)| *worker).collect::<Vec<_>>(), [1, 1, 0, 0]);
}

#[test]
fn the_list_shows_live_calls_of_all_workers() {
    let mut world = World::new();
    assert_eq!(world.ask("GET", "/api/sessions", "").json, json!({ "count": 0, "sessions": [] }));
    for id in ["a", "b", "c"] {
        world.post(id);
    }
    world.end_call(2, CloseReason::Hangup);
    let list = world.ask("GET", "/api/sessions", "").json;
    let mut ids: Vec<_> = list["sessions"].as_array().unwrap().iter().map(|view| view["callId"].clone()).collect();
    ids.sort_by_key(ToString::to_string);
    assert_eq!((&list["count"], ids), (&json!(2), vec![json!("a"), json!("c")]));
}

#[test]
fn a_full_server_says_so_and_when_to_come_back() {
    let mut world = World::with(&["--max-calls", "2"]);
    world.post("a");
    world.post("b");
    let answer = world.post("c");
    assert_eq!((answer.status, answer.code(), answer.header("Retry-After")), (503, "full", Some("5")));
    assert_eq!(world.post("a").status, 200, "a call that has its place keeps it");
    let ready = world.ask("GET", "/ready", "");
    assert_eq!((ready.status, ready.code()), (503, "full"));
    world.end_call(1, CloseReason::PeerClosed);
    assert_eq!(world.ask("GET", "/ready", "").status, 200);
    assert_eq!(world.post("c").status, 200);
}

#[test]
fn a_workers_refusal_is_the_answer_and_leaves_no_call() {
    for (why, status, code) in [
        (OpenRefusal::NoPort("EADDRINUSE".into()), 503, "no_port"),
        (OpenRefusal::Offer { code: "offer_no_candidate", text: "no candidate".into() }, 400, "offer_no_candidate"),
        (OpenRefusal::Stopping, 503, "draining"),
        (OpenRefusal::Internal("codec".into()), 500, "internal"),
    ] {
        let mut world = World::new();
        world.refusal = Some(why);
        let answer = world.post(ID);
        assert_eq!((answer.status, answer.code()), (status, code));
        assert_eq!(answer.header("Retry-After").is_some(), status == 503);
        assert_eq!(world.ask("GET", &path(ID), "").status, 404);
        assert_eq!(world.ask("GET", "/health", "").json["activeCalls"], 0);
        let metrics = world.ask("GET", "/metrics", "").text;
        assert!(metrics.contains(&format!("calls_refused_total{{code=\"{code}\"}} 1")), "{metrics}");
        world.refusal = None;
        assert_eq!(world.post(ID).status, 200, "the id is free again");
    }
}

#[test]
fn an_offer_that_is_none_never_reaches_a_worker() {
    let mut world = World::new();
    let answer = world.ask("POST", "/api/sessions", &session(ID, "hello", &json!({})));
    assert_eq!((answer.status, answer.code()), (400, "offer_not_sdp"));
    assert!(answer.error().starts_with("sdpOffer cannot be answered: "), "{}", answer.error());
    let large = session(ID, &format!("{OFFER}{}", "a".repeat(64 * 1024)), &json!({}));
    let answer = world.ask("POST", "/api/sessions", &large);
    assert_eq!((answer.status, answer.code()), (413, "offer_too_large"));
    assert!(world.told.is_empty());
}

#[test]
fn a_worker_that_does_not_answer_an_offer_is_named_and_the_call_ended_later() {
    let mut world = World::new();
    world.prompt = false;
    let stream = world.begin("POST", "/api/sessions", "", &session(ID, OFFER, &json!({})));
    world.wait(Duration::from_millis(1_999));
    assert!(world.clients[&stream].out.is_empty());
    world.wait(Duration::from_millis(1));
    let answer = world.answer(stream);
    assert_eq!((answer.status, answer.code()), (503, "worker_silent"));
    world.prompt = true;
    world.run();
    assert!(world.calls.is_empty(), "what came too late was ended");
    assert_eq!(world.ask("GET", "/health", "").json["activeCalls"], 0);
    assert_eq!(world.post(ID).status, 200);
}

#[test]
fn questions_to_silent_workers_end_with_503() {
    let mut world = World::new();
    world.post(ID);
    world.prompt = false;
    for path in ["/metrics", "/api/sessions", &path(ID)] {
        let stream = world.begin("GET", path, "", "");
        world.wait(Duration::from_secs(2));
        let answer = world.answer(stream);
        assert_eq!((answer.status, answer.code()), (503, "worker_silent"), "{path}");
    }
    world.prompt = true;
    world.run();
    assert_eq!(world.ask("GET", "/api/sessions", "").json["count"], 1);
}

#[test]
fn questions_under_way_are_bounded() {
    let mut world = World::new();
    world.prompt = false;
    let streams: Vec<_> = (0..200).map(|_| world.begin("GET", "/metrics", "", "")).collect();
    let refused: Vec<_> = streams.iter().filter(|stream| !world.clients[stream].out.is_empty()).copied().collect();
    assert_eq!(refused.len(), 72);
    assert_eq!(world.answer(refused[0]).code(), "busy");
    world.prompt = true;
    world.run();
    assert_eq!(world.answer(streams[0]).status, 200);
}

#[test]
fn a_call_that_ends_while_it_is_asked_about_is_shown_ended() {
    let mut world = World::new();
    world.post(ID);
    world.prompt = false;
    let stream = world.begin("GET", &path(ID), "", "");
    world.end_call(1, CloseReason::AgentClosed);
    world.prompt = true;
    world.run();
    assert_eq!(world.answer(stream).json["closeReason"], "agent_closed");
}

#[test]
fn a_call_ended_before_it_is_answered_refuses_the_post_and_is_for_no_other_server_when_it_was_hung_up() {
    for (reason, status) in [(CloseReason::InternalError, 503), (CloseReason::Hangup, 409)] {
        let mut world = World::new();
        world.prompt = false;
        let stream = world.begin("POST", "/api/sessions", "", &session(ID, OFFER, &json!({})));
        let (worker, _) = world.mail.pop_front().unwrap();
        world.calls.insert(CallNumber(1), (worker, report(CallNumber(1))));
        world.end_call(1, reason);
        let answer = world.answer(stream);
        assert_eq!((answer.status, answer.code()), (status, "ended"));
        assert_eq!(world.ask("GET", &path(ID), "").json["closeReason"], reason.label());
    }
}

#[test]
fn metrics_sum_workers_and_control() {
    let mut world = World::new();
    for id in ["a", "b", "c"] {
        world.post(id);
    }
    world.ask("GET", "/nowhere", "");
    let answer = world.ask("GET", "/metrics", "");
    assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "calls{state=\"connecting\"} 3",
        "calls_opened_total 20",
        "calls_limit 800",
        "http_requests_total{route=\"/api/sessions\",code=\"200\"} 3",
        "http_requests_total{route=\"none\",code=\"404\"} 1",
        "stage_duration_seconds_count{stage=\"setup\"} 3",
        "http_connections 1",
    ] {
        assert!(answer.text.contains(&format!("\nvoice_media_bridge_{line}\n")), "{line} in\n{}", answer.text);
    }
}

#[test]
fn setup_is_measured_from_the_request_to_the_answer_written_once_per_call() {
    let mut world = World::new();
    world.prompt = false;
    world.takes = false;
    let stream = world.begin("POST", "/api/sessions", "", &session(ID, OFFER, &json!({})));
    world.now += Duration::from_millis(3);
    world.work_one();
    world.run();
    world.now += Duration::from_millis(4);
    world.take(stream);
    world.takes = true;
    world.prompt = true;
    world.post(ID);
    let (mut total, mut recent) = (Stages::new(), Stages::new());
    world.control.recorder.read_all(&mut total, &mut recent);
    let setup = total.get(crate::stats::Stage::Setup).unwrap().percentiles().unwrap();
    assert_eq!(setup.count, 1);
    assert!((6_900..=7_100).contains(&setup.p50_us), "{setup:?}");
}

#[test]
fn ended_calls_are_remembered_for_a_time_and_in_number() {
    let mut world = World::new();
    world.post("first");
    world.end_call(1, CloseReason::PeerClosed);
    world.wait(Duration::from_secs(3599));
    assert_eq!(world.ask("GET", &path("first"), "").status, 200);
    world.wait(Duration::from_secs(1));
    assert_eq!(world.ask("GET", &path("first"), "").status, 404);

    for n in 0..ENDED_CALLS_MAX as u64 + 10 {
        world.post(&format!("call {n}"));
        world.end_call(n + 2, CloseReason::PeerClosed);
    }
    let full = (ENDED_CALLS_MAX, ENDED_CALLS_MAX, ENDED_CALLS_MAX);
    assert_eq!(world.control.calls.remembered(), full);
    assert_eq!(world.ask("GET", &path("call 9"), "").status, 404);
    assert_eq!(world.ask("GET", &path("call 10"), "").status, 200);
    world.wait(ENDED_TIME_MAX + Duration::from_secs(60));
    assert_eq!(world.control.calls.remembered(), (0, 0, 0), "nothing is left");
    assert_eq!(world.control.timers.len(), 0);
    assert!(world.control.gathers.is_empty());
}
