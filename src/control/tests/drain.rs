//! A drain: no new calls, while those that live go on.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn drain(world: &mut World) -> Value {
    let answer = world.ask("POST", "/api/drain", "");
    assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")));
    answer.json
}

#[test]
fn no_new_call_is_taken_and_everything_about_the_live_one_works() {
    let mut world = World::new();
    world.post("a");
    assert_eq!(world.ask("GET", "/api/drain", "").json, json!({"draining": false, "calls": 1}));
    world.input(Input::Stop);

    let ready = world.ask("GET", "/ready", "");
    assert_eq!((ready.status, ready.code()), (503, "draining"));
    for refused in [world.post("b"), world.ask("PUT", &path("b"), &json!({"sdpOffer": OFFER}).to_string())] {
        assert_eq!((refused.status, refused.code()), (503, "draining"));
        assert_eq!((refused.header("Retry-After"), refused.header("Connection")), (Some("5"), Some("close")));
        assert!(refused.error().contains("Use another"), "{}", refused.error());
    }
    assert_eq!(world.ask("GET", "/api/workers", "").json["workers"][0]["admits"], false);
    let metrics = world.ask("GET", "/metrics", "").text;
    assert!(metrics.contains("\nvoice_media_bridge_draining 1\n"), "{metrics}");
    assert!(metrics.contains("calls_refused_total{code=\"draining\"} 2"), "{metrics}");

    let again = world.post("a");
    assert_eq!((again.status, &again.json["sdpAnswer"]), (200, &json!(ANSWER)), "a repeated post gets its answer");
    let other = world.ask("POST", "/api/sessions", &session("a", &format!("{OFFER}a=x\r\n"), &json!({})));
    assert_eq!((other.status, other.code()), (409, "conflict"));
    let waits = world.begin("GET", &format!("{}?wait=connected", path("a")), "", "");
    assert_eq!(world.ask("POST", &format!("{}/activate", path("a")), "").status, 200);
    assert!(world.told.last().unwrap().ends_with("Activate"));
    world.connect_call(1);
    assert_eq!(world.answer(waits).json["state"], "active");
    for about in ["/api/sessions", &path("a"), &format!("{}/latency", path("a")), "/api/latency", "/health"] {
        let answer = world.ask("GET", about, "");
        assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")), "{about}");
    }
    world.wait(5 * MINUTE);
    assert!(!world.exited && world.mail.is_empty());

    assert_eq!(world.ask("DELETE", &path("a"), "").status, 200);
    assert!(world.exited, "the last call has ended");
    assert_eq!(world.run(), None, "no deadline after the end");
}

#[test]
fn a_process_without_drain_says_so_in_its_metrics() {
    let metrics = World::new().ask("GET", "/metrics", "").text;
    assert!(metrics.contains("\nvoice_media_bridge_draining 0\n"), "{metrics}");
}

#[test]
fn without_calls_the_end_comes_at_once_and_the_request_for_it_is_answered_first() {
    let mut world = World::new();
    world.input(Input::Stop);
    assert!(world.exited);

    let mut world = World::new();
    world.takes = false;
    let asked = world.begin("POST", "/api/drain", "", "");
    assert!(!world.exited, "the answer is not written");
    world.take(asked);
    world.run();
    assert_eq!(world.answer(asked).json, json!({"draining": true, "calls": 0, "secondsLeft": 600}));
    assert!(world.exited);
}

#[test]
fn a_drain_may_be_asked_for_again_and_tells_what_is_left() {
    let mut world = World::with(&["--drain-sec", "240"]);
    world.post("a");
    world.post("b");
    assert_eq!(drain(&mut world), json!({"draining": true, "calls": 2, "secondsLeft": 240}));
    world.wait(MINUTE);
    assert_eq!(drain(&mut world), json!({"draining": true, "calls": 2, "secondsLeft": 180}), "the bound stays");
    world.end_call(1, CloseReason::PeerClosed);
    world.wait(Duration::from_millis(500));
    let left = world.ask("GET", "/api/drain", "").json;
    assert_eq!(left, json!({"draining": true, "calls": 1, "secondsLeft": 180}), "counted up");
    world.end_call(2, CloseReason::PeerClosed);
    assert!(world.exited);
}

#[test]
fn at_the_bound_those_who_are_left_hear_a_goodbye_and_the_world_is_told_of_them() {
    let words = ["--drain-sec", "240", "--events-url", "http://127.0.0.1:9/"];
    let mut world = World::with(&words);
    world.post("a");
    world.post("b");
    world.end_call(1, CloseReason::PeerClosed);
    drain(&mut world);
    world.prompt = false;
    world.wait(Duration::from_millis(239_999));
    assert!(world.mail.is_empty());
    world.wait(Duration::from_millis(1));
    assert!(world.mail.iter().all(|(_, message)| matches!(message, ToWorker::Stop(Ending::Goodbye))));
    assert_eq!(world.mail.len(), 2, "each worker is told");
    assert_eq!(world.ask("GET", "/api/drain", "").json, json!({"draining": true, "calls": 1, "secondsLeft": 0}));
    assert_eq!(world.post("c").code(), "draining");
    assert!(!world.exited);
    world.prompt = true;
    world.run();
    assert!(world.exited);
    let ends = world.events.iter().map(|event| serde_json::from_slice::<Value>(&event.call).unwrap());
    let reasons: Vec<_> = ends.map(|end| end["closeReason"].clone()).collect();
    assert_eq!(reasons, ["peer_closed", "server_stopping"]);
}

#[test]
fn a_second_signal_ends_calls_at_once_and_a_request_is_no_signal() {
    let mut world = World::new();
    world.post("a");
    drain(&mut world);
    world.prompt = false;
    world.input(Input::Stop);
    drain(&mut world);
    assert!(world.mail.is_empty(), "one signal: a service manager's stop cuts no drain short");
    world.input(Input::Stop);
    assert!(world.mail.iter().all(|(_, message)| matches!(message, ToWorker::Stop(Ending::AtOnce))));
    world.prompt = true;
    world.run();
    assert!(world.exited && world.calls.is_empty());
}

#[test]
fn a_call_that_is_being_opened_when_the_drain_begins_is_opened_and_waited_for() {
    let mut world = World::new();
    world.prompt = false;
    let posted = world.begin("POST", "/api/sessions", "", &session("a", OFFER, &json!({})));
    world.input(Input::Stop);
    let repeated = world.begin("POST", "/api/sessions", "", &session("a", OFFER, &json!({})));
    assert_eq!(world.post("b").code(), "draining");
    world.prompt = true;
    world.run();
    assert_eq!((world.answer(posted).status, world.answer(repeated).status), (200, 200));
    assert!(!world.exited);
    world.end_call(1, CloseReason::Hangup);
    assert!(world.exited);
}

#[test]
fn a_call_that_is_being_opened_at_the_bound_is_refused_as_draining() {
    let mut world = World::with(&["--drain-sec", "1"]);
    world.prompt = false;
    let posted = world.begin("POST", "/api/sessions", "", &session("a", OFFER, &json!({})));
    world.input(Input::Stop);
    world.wait(Duration::from_secs(1));
    // The worker ends it before it has answered.
    world.mail.retain(|(_, message)| !matches!(message, ToWorker::Open(_)));
    let mut ended = report(CallNumber(1));
    ended.close = Some(CloseReason::ServerStopping);
    world.from(0, FromWorker::Ended(Box::new(ended), Box::default()));
    world.prompt = true;
    world.run();
    let answer = world.answer(posted);
    assert_eq!((answer.status, answer.code()), (503, "draining"));
    assert!(answer.header("Retry-After").is_some());
    assert!(world.exited);
}

#[test]
fn a_worker_that_answers_no_offer_is_not_waited_for_beyond_the_bound() {
    let mut world = World::with(&["--drain-sec", "10"]);
    world.prompt = false;
    let posted = world.begin("POST", "/api/sessions", "", &session("a", OFFER, &json!({})));
    world.input(Input::Stop);
    world.wait(Duration::from_secs(2));
    assert_eq!(world.answer(posted).code(), "worker_silent");
    world.wait(Duration::from_millis(12_999));
    assert!(!world.exited, "10 s of drain, 2 s of goodbye, 3 s to stop");
    world.wait(Duration::from_millis(1));
    assert!(world.exited);
}

#[test]
fn a_wait_for_connected_is_answered_by_the_end_of_its_call() {
    let mut world = World::with(&["--drain-sec", "5"]);
    world.post("a");
    let waits = world.begin("GET", &format!("{}?wait=connected", path("a")), "", "");
    world.input(Input::Stop);
    world.wait(Duration::from_secs(5));
    assert_eq!(world.answer(waits).json["closeReason"], "server_stopping");
    assert!(world.exited);
}

#[test]
fn a_drain_is_asked_for_with_the_token() {
    let mut world = World::with(&["--api-token", "0123456789abcdef"]);
    world.prompt = false;
    for method in ["GET", "POST"] {
        assert_eq!(world.ask(method, "/api/drain", "").status, 401);
    }
    assert_eq!(world.ask("DELETE", "/k/0123456789abcdef/api/drain", "").status, 405);
    assert!(world.mail.is_empty() && !world.exited);
    assert_eq!(world.ask("POST", "/k/0123456789abcdef/api/drain", "").status, 200);
}

#[test]
fn the_log_says_how_many_calls_remain_now_and_then() {
    let mut world = World::with(&["--drain-sec", "100"]);
    world.post("a");
    let log = super::gate::log_of(|| {
        world.input(Input::Stop);
        world.wait(2 * MINUTE);
    });
    for said in
        ["calls=1 sec_max=100", "calls=1 sec_left=70", "sec_left=40", "sec_left=10", "hear a goodbye", "stopped"]
    {
        assert!(log.contains(said), "{said:?} is not in\n{log}");
    }
    assert_eq!(log.matches("these calls remain").count(), 3, "{log}");
}
