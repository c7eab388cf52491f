//! Two instances: who takes over when, and who answers for which call. The other one is a script here: each row of the
//! table in [`super::super::handover`] has its case.

use super::*;
use crate::control::handover::TAKE_OVER_TIME_MAX;

const SECOND: Duration = Duration::from_secs(1);
const UNKNOWN: &str = r#"{"error":"This instance does not know the call.","code":"not_here"}"#;

/// An instance whose workers turn and which has asked the other for nothing yet but to hand over.
fn started(instance: &str) -> World {
    World::with(&["--instance", instance, "--handover-dir", "/run/x", "--api-token", TOKEN])
}

const TOKEN: &str = "0123456789abcdef";

/// The new one: `a` has handed over to it.
fn new() -> World {
    let mut world = started("b");
    let asked = world.dialled();
    world.other_answers(asked, 200, r#"{"draining":true,"calls":1}"#);
    world
}

/// The old one: `b` has taken over from it. Its own call is `mine`, and clients have connections to it.
fn old() -> World {
    let mut world = started("a");
    let asked = world.dialled();
    world.nobody_is_there(asked);
    assert_eq!(post(&mut world, "mine").status, 200);
    let kept = (0..6).map(|_| world.client()).collect();
    assert_eq!(hand_over(&mut world).status, 200);
    world.kept = kept;
    world
}

fn hand_over(world: &mut World) -> Answer {
    local(world, "POST", "/api/drain", "Bridge-Successor: b\r\n", "")
}

/// A client's request with the token, sent and left waiting.
fn begin(world: &mut World, method: &str, path: &str, body: &str) -> StreamKey {
    world.begin(method, path, &format!("Authorization: Bearer {TOKEN}\r\n"), body)
}

fn ask(world: &mut World, method: &str, path: &str, body: &str) -> Answer {
    let stream = begin(world, method, path, body);
    world.answer(stream)
}

fn post(world: &mut World, id: &str) -> Answer {
    ask(world, "POST", "/api/sessions", &offer(id))
}

fn offer(id: &str) -> String {
    session(id, OFFER, &json!({}))
}

/// A request of the other instance: without a token.
fn local(world: &mut World, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let stream = world.offered_locals.pop_front().expect("the local door is open");
    world.clients.insert(stream, Client::default());
    world.input(Input::Accepted { stream, door: Door::Local, peer: None });
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n");
    world.send(stream, head + body);
    world.answer(stream)
}

impl World {
    /// The connection that was asked for last, and not yet taken from here.
    fn dialled(&mut self) -> StreamKey {
        assert_eq!(self.dialled.len(), 1, "one question is under way");
        self.dialled.pop_front().expect("counted above").0
    }

    fn asks_nobody(&self) -> bool {
        self.dialled.is_empty()
    }

    fn other_answers(&mut self, stream: StreamKey, status: u16, body: &str) {
        self.input(Input::Connected { stream });
        let head = format!("HTTP/1.1 {status} Words\r\nContent-Type: application/json\r\nRetry-After: 7\r\n");
        self.send(stream, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
        assert!(self.clients[&stream].closed, "one request a connection");
    }

    fn nobody_is_there(&mut self, stream: StreamKey) {
        self.input(Input::Failed { stream, fault: Fault { errno: 2 } });
    }

    /// What was written to the other instance.
    fn asked(&self, stream: StreamKey) -> &str {
        &self.clients[&stream].out
    }

    fn is_ready(&self) -> bool {
        self.notices.contains(&Notice::Ready)
    }
}

#[test]
fn the_new_one_accepts_and_is_ready_only_after_the_old_one_has_handed_over() {
    let mut world = started("b");
    assert_eq!(world.dialled.front().unwrap().1.to_str(), Some("/run/x/a.sock"));
    let asked = world.dialled();
    assert!(world.asked(asked).starts_with("POST /api/drain HTTP/1.1\r\n"));
    assert!(world.asked(asked).contains("\r\nBridge-Successor: b\r\n"));
    assert!(world.offered.is_empty() && !world.is_ready(), "two would accept");
    assert!(!world.offered_locals.is_empty());
    world.other_answers(asked, 200, "{}");
    assert!(!world.offered.is_empty() && world.is_ready());
}

#[test]
fn alone_it_serves_at_once() {
    let mut world = started("a");
    let asked = world.dialled();
    world.nobody_is_there(asked);
    assert!(!world.offered.is_empty() && world.is_ready());
    assert_eq!(post(&mut world, "x").status, 200);
    assert_eq!(ask(&mut world, "GET", &path("y"), "").status, 404);
    assert!(world.asks_nobody());
}

#[test]
fn it_is_ready_only_when_every_worker_turns() {
    let world = World::new();
    assert!(world.is_ready());
    assert_eq!(world.notices.iter().filter(|notice| **notice == Notice::Ready).count(), 1);
    let mut world = World::unstarted(&["--instance", "a"], None, None);
    world.from(1, FromWorker::Pong);
    world.run();
    assert!(world.asks_nobody() && !world.is_ready(), "a worker has said nothing yet");
    world.from(0, FromWorker::Pong);
    world.run();
    let asked = world.dialled();
    world.nobody_is_there(asked);
    assert!(world.is_ready());
}

#[test]
fn one_that_does_not_hand_over_is_asked_again_and_not_for_ever() {
    for silent in [true, false] {
        let mut world = started("b");
        let begun = world.now;
        while !world.is_ready() {
            assert!(world.now < begun + TAKE_OVER_TIME_MAX + 5 * SECOND, "asked for ever");
            if let Some((stream, _)) = world.dialled.pop_front()
                && !silent
            {
                world.other_answers(stream, 500, "{}");
            }
            world.wait(SECOND / 10);
        }
        assert!(world.now >= begun + TAKE_OVER_TIME_MAX, "given up at once");
        assert_eq!(post(&mut world, "x").status, 200, "it serves beside the other");
        assert!(world.asks_nobody());
    }
}

#[test]
fn one_that_comes_to_itself_late_drains_and_is_asked_about_its_calls_from_then_on() {
    let mut world = started("b");
    while !world.is_ready() {
        if let Some((stream, _)) = world.dialled.pop_front() {
            world.other_answers(stream, 500, "{}");
        }
        world.wait(SECOND / 10);
    }
    world.wait(2 * SECOND);
    let asked = world.dialled();
    assert!(world.asked(asked).starts_with("POST /api/drain"));
    world.other_answers(asked, 200, r#"{"draining":true,"calls":1}"#);
    begin(&mut world, "GET", &path("x"), "");
    assert!(!world.asks_nobody(), "its calls are there");
}

#[test]
fn one_that_is_stopped_while_it_starts_takes_nothing_over() {
    let mut world = World::unstarted(&["--instance", "b"], None, None);
    world.input(Input::Stop);
    for worker in [0, 1] {
        world.from(worker, FromWorker::Pong);
        world.run();
    }
    assert!(world.asks_nobody() && !world.is_ready());
}

#[test]
fn one_that_only_starts_opens_nothing_for_the_other() {
    let mut world = started("b");
    let answer = local(&mut world, "POST", "/api/sessions", "Bridge-Forwarded: 1\r\n", &offer("x"));
    assert_eq!((answer.status, answer.code(), world.opened.len()), (404, "not_here", 0));
}

#[test]
fn one_that_has_been_silent_for_half_a_minute_stops_no_calls_any_more() {
    let mut world = new();
    let silent = |world: &mut World, method: &str, target: &str, body: &str| {
        let stream = begin(world, method, target, body);
        let asked = world.dialled();
        world.input(Input::Connected { stream: asked });
        world.wait(3 * SECOND);
        world.answer(stream)
    };
    assert_eq!(silent(&mut world, "POST", "/api/sessions", &offer("x")).status, 504);
    world.wait(30 * SECOND);
    assert_eq!(silent(&mut world, "POST", "/api/sessions", &offer("x")).status, 200);
    assert_eq!(silent(&mut world, "GET", &path("y"), "").status, 504, "what it has is still not known");
}

#[test]
fn of_two_that_start_at_once_a_goes_first() {
    let mut world = started("a");
    let refused = local(&mut world, "POST", "/api/drain", "Bridge-Successor: b\r\n", "");
    assert_eq!((refused.status, refused.code()), (409, "starting"));
    let asked = world.dialled();
    world.other_answers(asked, 409, "{}");
    assert!(world.is_ready());
    assert_eq!(hand_over(&mut world).status, 200, "and then hands over");

    let mut world = started("b");
    let asked = world.dialled();
    world.other_answers(asked, 409, "{}");
    assert!(!world.is_ready());
    world.wait(SECOND);
    let asked = world.dialled();
    world.other_answers(asked, 200, "{}");
    assert!(world.is_ready());
}

#[test]
fn the_old_one_stops_accepting_and_goes_on_serving_the_connections_it_has() {
    let mut world = started("a");
    let asked = world.dialled();
    world.nobody_is_there(asked);
    let kept = world.client();
    let offered = world.offered.len();
    assert_eq!(hand_over(&mut world).json, json!({"draining": true, "calls": 0, "secondsLeft": 600}));
    assert_eq!((world.withdrawn, world.offered.len()), (offered, 0));
    assert!(!world.exited, "a client may still ask something on the connection it has");
    world.send(kept, "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let answer = world.answer(kept);
    assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")));
    world.input(Input::Ended { stream: kept });
    assert!(world.exited);
}

#[test]
fn whoever_asks_nothing_more_holds_the_old_one_for_a_bounded_time() {
    let mut world = started("a");
    let asked = world.dialled();
    world.nobody_is_there(asked);
    world.client();
    hand_over(&mut world);
    world.wait(crate::http::IDLE_TIME_MAX + 3 * SECOND);
    assert!(world.exited);
}

#[test]
fn a_connection_that_was_under_way_to_a_withdrawn_key_is_served() {
    let mut world = started("a");
    let asked = world.dialled();
    world.nobody_is_there(asked);
    assert_eq!(post(&mut world, "mine").status, 200);
    world.keeps_one_withdrawn = true;
    hand_over(&mut world);
    let answer = ask(&mut world, "GET", &path("mine"), "");
    assert_eq!(answer.status, 200);
    assert!(world.offered.is_empty());
}

#[test]
fn at_the_new_one_what_is_known_is_answered_here() {
    let mut world = new();
    let stream = begin(&mut world, "POST", "/api/sessions", &offer("x"));
    let asked = world.dialled();
    world.other_answers(asked, 404, UNKNOWN);
    assert_eq!(world.answer(stream).status, 200);
    for method in ["GET", "DELETE"] {
        assert_eq!(ask(&mut world, method, &path("x"), "").status, 200, "live, then ended");
        assert_eq!(ask(&mut world, "GET", &path("x"), "").status, 200);
    }
    assert_eq!(post(&mut world, "x").status, 200, "an ended id again");
    assert_eq!(world.opened.len(), 2);
    assert!(world.asks_nobody());
}

#[test]
fn at_the_new_one_a_post_is_the_old_ones_if_that_knows_it_and_else_opened_here() {
    for (method, target) in [("POST", "/api/sessions".to_owned()), ("PUT", path("x"))] {
        for (status, body) in [(200, r#"{"success":true,"sdpAnswer":"theirs"}"#), (409, r#"{"code":"conflict"}"#)] {
            let mut world = new();
            let stream = begin(&mut world, method, &target, &offer("x"));
            let asked = world.dialled();
            let sent = world.asked(asked);
            assert!(sent.starts_with(&format!("{method} {target} HTTP/1.1\r\n")), "{sent}");
            assert!(sent.contains("\r\nBridge-Forwarded: 1\r\n") && sent.ends_with(&offer("x")), "{sent}");
            assert!(!sent.contains(TOKEN), "the token has done its work");
            world.other_answers(asked, status, body);
            let answer = world.answer(stream);
            assert_eq!((answer.status, answer.text.as_str(), answer.header("Retry-After")), (status, body, Some("7")));
            assert!(world.opened.is_empty());
        }
        let mut world = new();
        let stream = begin(&mut world, method, &target, &offer("x"));
        let again = begin(&mut world, method, &target, &offer("x"));
        for _ in 0..2 {
            let asked = world.dialled.pop_front().unwrap().0;
            world.other_answers(asked, 404, UNKNOWN);
        }
        let (first, second) = (world.answer(stream), world.answer(again));
        assert_eq!((first.status, &first.json), (200, &second.json));
        assert_eq!(world.opened.len(), 1, "asked for twice at once, and opened once");
    }
}

#[test]
fn nonsense_is_refused_without_asking_anybody() {
    let mut world = new();
    for body in ["", "{", r#"{"callId":"x"}"#, &session("x", "no offer", &json!({"unknown": 1}))] {
        assert_eq!(ask(&mut world, "POST", "/api/sessions", body).status, 400, "{body}");
    }
    assert_eq!(world.ask("POST", "/api/sessions", &offer("x")).status, 401, "no token");
    assert!(world.asks_nobody());
}

#[test]
fn at_the_new_one_what_else_is_about_an_unknown_call_is_asked_of_the_old_one() {
    let id = "wacid.a/b+c=";
    for (method, target, body) in [
        ("GET", path(id), ""),
        ("GET", format!("{}?wait=connected", path(id)), ""),
        ("DELETE", path(id), ""),
        ("POST", format!("{}/activate", path(id)), ""),
        ("GET", format!("{}/latency?format=hgrm", path(id)), ""),
        ("POST", "/bridge/stop".to_owned(), r#"{"callId":"wacid.a/b+c="}"#),
    ] {
        let mut world = new();
        let stream = begin(&mut world, method, &format!("/k/{TOKEN}{target}"), body);
        let asked = world.dialled();
        let sent = world.asked(asked);
        assert!(sent.starts_with(&format!("{method} {target} HTTP/1.1\r\n")) && sent.ends_with(body), "{sent}");
        assert!(!sent.contains(TOKEN), "{sent}");
        world.other_answers(asked, 200, r#"{"theirs":1}"#);
        assert_eq!(world.answer(stream).json, json!({"theirs": 1}));

        // Unknown there too: answered as by one that is alone.
        let stream = begin(&mut world, method, &target, body);
        let asked = world.dialled();
        world.other_answers(asked, 404, UNKNOWN);
        let answer = world.answer(stream);
        let expected = if target == "/bridge/stop" { (200, "") } else { (404, "not_found") };
        assert_eq!((answer.status, answer.code()), expected, "{method} {target}");
    }
}

#[test]
fn head_has_the_length_of_the_others_answer_and_no_body() {
    let mut world = new();
    let stream = begin(&mut world, "HEAD", &path("x"), "");
    let asked = world.dialled();
    assert!(world.asked(asked).starts_with("GET "));
    world.other_answers(asked, 200, r#"{"theirs":1}"#);
    let answer = world.answer(stream);
    assert_eq!((answer.status, answer.header("Content-Length"), answer.text.as_str()), (200, Some("12"), ""));
}

#[test]
fn when_the_old_one_is_gone_so_are_its_calls() {
    for errno in [2, 111] {
        let mut world = new();
        let stream = begin(&mut world, "POST", "/api/sessions", &offer("x"));
        let asked = world.dialled();
        world.input(Input::Failed { stream: asked, fault: Fault { errno } });
        assert_eq!(world.answer(stream).status, 200);
        assert_eq!(post(&mut world, "y").status, 200);
        assert_eq!(ask(&mut world, "GET", &path("z"), "").status, 404);
        assert!(world.asks_nobody(), "it is not asked again");
    }
}

#[test]
fn one_that_breaks_off_is_asked_once_more() {
    for breaks in [Some(Fault { errno: 104 }), None] {
        let break_off = |world: &mut World| {
            let stream = world.dialled();
            world.input(Input::Connected { stream });
            match breaks {
                Some(fault) => world.input(Input::Failed { stream, fault }),
                None => world.input(Input::Ended { stream }),
            }
        };
        let mut world = new();
        // It may just have exited, and then nobody is there.
        let stream = begin(&mut world, "POST", "/api/sessions", &offer("x"));
        break_off(&mut world);
        let again = world.dialled();
        assert!(world.asked(again).ends_with(&offer("x")));
        world.nobody_is_there(again);
        assert_eq!((world.answer(stream).status, world.opened.len()), (200, 1));

        let mut world = new();
        for (method, target, body) in [("POST", "/api/sessions", offer("x")), ("GET", &path("x"), String::new())] {
            let stream = begin(&mut world, method, target, &body);
            break_off(&mut world);
            break_off(&mut world);
            let answer = world.answer(stream);
            assert_eq!((answer.status, answer.code(), answer.header("Retry-After")), (504, "other_silent", Some("1")));
        }
        assert!(world.opened.is_empty(), "it may have the call");
    }
}

#[test]
fn one_that_is_silent_may_have_the_call() {
    for (method, target, body) in [
        ("POST", "/api/sessions".to_owned(), offer("x")),
        ("GET", path("x"), String::new()),
        ("DELETE", path("x"), String::new()),
        ("POST", "/bridge/stop".to_owned(), r#"{"callId":"x"}"#.to_owned()),
    ] {
        let mut world = new();
        let stream = begin(&mut world, method, &target, &body);
        let asked = world.dialled();
        world.input(Input::Connected { stream: asked });
        world.wait(3 * SECOND);
        let answer = world.answer(stream);
        assert_eq!((answer.status, answer.code()), (504, "other_silent"), "{method} {target}");
        assert!(world.opened.is_empty() && world.clients[&asked].closed);
    }
    // A wait for a call to connect may last as long as it does here.
    let mut world = new();
    let stream = begin(&mut world, "GET", &format!("{}?wait=connected", path("x")), "");
    let asked = world.dialled();
    world.input(Input::Connected { stream: asked });
    world.wait(30 * SECOND);
    assert!(world.answers(stream).is_empty());
    world.wait(3 * SECOND);
    assert_eq!(world.answer(stream).code(), "other_silent");
}

#[test]
fn words_that_are_no_answer_are_as_good_as_none() {
    let mut world = new();
    let stream = begin(&mut world, "GET", &path("x"), "");
    let asked = world.dialled();
    world.input(Input::Connected { stream: asked });
    world.send(asked, "SSH-2.0-OpenSSH_9.2\r\n");
    assert_eq!(world.answer(stream).code(), "other_silent");
}

#[test]
fn a_client_that_does_not_wait_costs_nothing_and_opens_nothing() {
    let mut world = new();
    let stream = begin(&mut world, "POST", "/api/sessions", &offer("x"));
    let asked = world.dialled();
    world.fail(stream);
    world.other_answers(asked, 404, UNKNOWN);
    assert!(world.opened.is_empty());
}

#[test]
fn what_is_asked_of_the_other_is_bounded() {
    let mut world = new();
    let streams: Vec<_> = (0..300).map(|n| begin(&mut world, "GET", &path(&format!("x{n}")), "")).collect();
    assert_eq!(world.dialled.len(), 256);
    let refused = world.answer(streams[256]);
    assert_eq!((refused.status, refused.code(), refused.header("Retry-After")), (503, "other_busy", Some("1")));
    while let Some((asked, _)) = world.dialled.pop_front() {
        world.other_answers(asked, 404, UNKNOWN);
    }
    let stream = begin(&mut world, "GET", &path("again"), "");
    let asked = world.dialled();
    world.other_answers(asked, 404, UNKNOWN);
    assert_eq!(world.answer(stream).status, 404);
}

#[test]
fn at_the_old_one_its_live_calls_are_answered_and_new_ones_go_to_the_new_one() {
    let mut world = old();
    let mine = ask(&mut world, "GET", &path("mine"), "");
    assert_eq!(mine.status, 200);
    assert_eq!(post(&mut world, "mine").json["sdpAnswer"], ANSWER, "the same answer again");
    let other = ask(&mut world, "POST", "/api/sessions", &session("mine", &format!("{OFFER}a=x\r\n"), &json!({})));
    assert_eq!(other.status, 409);
    assert!(world.asks_nobody());

    // On a connection that was kept alive.
    let stream = begin(&mut world, "POST", "/api/sessions", &offer("x"));
    let asked = world.dialled();
    assert!(world.asked(asked).ends_with(&offer("x")));
    world.other_answers(asked, 200, r#"{"sdpAnswer":"theirs"}"#);
    assert_eq!(world.answer(stream).json["sdpAnswer"], "theirs");
    assert_eq!(world.opened.len(), 1, "mine");
}

#[test]
fn at_the_old_one_an_ended_call_may_have_a_successor_at_the_new_one() {
    let mut world = old();
    assert_eq!(post(&mut world, "mine").status, 200);
    world.end_call(1, CloseReason::Hangup);
    let stream = begin(&mut world, "GET", &path("mine"), "");
    let asked = world.dialled();
    world.other_answers(asked, 200, r#"{"state":"active"}"#);
    assert_eq!(world.answer(stream).json["state"], "active");
    let stream = begin(&mut world, "GET", &path("mine"), "");
    let asked = world.dialled();
    world.other_answers(asked, 404, UNKNOWN);
    assert_eq!(world.answer(stream).json["state"], "ended");
}

#[test]
fn at_the_old_one_nothing_is_opened_when_the_new_one_is_gone_or_drains() {
    let mut world = old();
    let stream = begin(&mut world, "POST", "/api/sessions", &offer("x"));
    let asked = world.dialled();
    world.other_answers(asked, 404, UNKNOWN);
    assert_eq!(world.answer(stream).code(), "draining");
    let stream = begin(&mut world, "POST", "/api/sessions", &offer("x"));
    let asked = world.dialled();
    world.nobody_is_there(asked);
    assert_eq!(world.answer(stream).code(), "draining");
    assert_eq!(world.opened.len(), 1, "mine");
    // The new one may be started once more.
    assert_eq!(hand_over(&mut world).status, 200);
    let stream = begin(&mut world, "POST", "/api/sessions", &offer("x"));
    let asked = world.dialled();
    world.other_answers(asked, 200, r#"{"sdpAnswer":"theirs"}"#);
    assert_eq!(world.answer(stream).status, 200);
}

#[test]
fn through_the_local_door_the_old_one_answers_for_its_calls_and_opens_nothing() {
    let mut world = old();
    assert_eq!(local(&mut world, "POST", "/api/sessions", "", &offer("mine")).json["sdpAnswer"], ANSWER);
    assert_eq!(local(&mut world, "GET", &path("mine"), "", "").status, 200);
    for (method, target, body) in [
        ("POST", "/api/sessions".to_owned(), offer("x")),
        ("PUT", path("x"), offer("x")),
        ("GET", path("x"), String::new()),
        ("DELETE", path("x"), String::new()),
        ("POST", "/bridge/stop".to_owned(), r#"{"callId":"x"}"#.to_owned()),
    ] {
        let answer = local(&mut world, method, &target, "Bridge-Forwarded: 1\r\n", &body);
        assert_eq!((answer.status, answer.code()), (404, "not_here"), "{method} {target}");
    }
    assert_eq!(local(&mut world, "POST", "/bridge/stop", "", r#"{"callId":"mine"}"#).status, 200);
    assert!(world.asks_nobody(), "never passed on again");
}

#[test]
fn through_the_local_door_the_new_one_opens_calls() {
    let mut world = new();
    assert_eq!(local(&mut world, "POST", "/api/sessions", "Bridge-Forwarded: 1\r\n", &offer("x")).status, 200);
    assert_eq!(world.opened.len(), 1);
    assert_eq!(local(&mut world, "GET", &path("y"), "", "").code(), "not_here");
    assert!(world.asks_nobody());
}

#[test]
fn only_the_local_door_names_successors() {
    let mut world = started("a");
    let asked = world.dialled();
    world.nobody_is_there(asked);
    post(&mut world, "mine");
    let headers = format!("Authorization: Bearer {TOKEN}\r\nBridge-Successor: b\r\nBridge-Forwarded: 1\r\n");
    assert_eq!(world.ask_with("POST", "/api/drain", &headers, "").status, 200);
    assert!(!world.offered.is_empty(), "a drain without a successor goes on accepting");
    assert_eq!(world.ask_with("GET", &path("unknown"), &headers, "").status, 404);
}
