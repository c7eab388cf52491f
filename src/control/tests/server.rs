//! The HTTP side: routes, methods, limits, and connections in number.

use super::*;
use crate::control::connections::CONNECTIONS_MAX;

#[test]
fn wrong_methods_and_paths_say_what_would_be_right() {
    let mut world = World::new();
    for (method, path, allow) in [
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/api/sessions", "GET, HEAD, POST"),
        ("OPTIONS", "/api/sessions", "GET, HEAD, POST"),
        ("POST", "/api/sessions/x", "GET, HEAD, PUT, DELETE"),
        ("GET", "/api/sessions/x/activate", "POST"),
        ("GET", "/bridge/stop", "POST"),
        ("get", "/", "GET, HEAD"),
    ] {
        let answer = world.ask(method, path, "");
        assert_eq!((answer.status, answer.code()), (405, "method_not_allowed"), "{method} {path}");
        assert_eq!(answer.header("Allow"), Some(allow), "{method} {path}");
        assert!(answer.header("Access-Control-Allow-Origin").is_none());
    }
    for path in ["/nowhere", "/api", "/api/sessions/", "/api/sessions/a/b", "/api/sessions//activate", "/HEALTH"] {
        let answer = world.ask("GET", path, "");
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{path}");
    }
    assert!(world.ask("POST", "//api/sessions", "").error().contains("base URL"));
    assert!(world.ask("GET", "/api/sessions/a/b==", "").error().contains("%2F"));
    let answer = world.ask("GET", &format!("/api/sessions/{}", "a".repeat(257)), "");
    assert_eq!((answer.status, answer.code()), (400, "bad_field"));
    assert_eq!(world.ask("GET", "/api/sessions/a%0Ab", "").status, 400);
}

#[test]
fn every_answer_carries_the_headers_that_all_carry() {
    let mut world = World::new();
    for path in ["/", "/health", "/metrics", "/nowhere", "/api/sessions"] {
        let answer = world.ask("GET", path, "");
        assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("Referrer-Policy"), Some("no-referrer"), "{path}");
    }
}

#[test]
fn the_page_comes_with_a_policy_and_can_be_off() {
    let mut world = World::new();
    let answer = world.ask("GET", "/", "");
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    let policy = answer.header("Content-Security-Policy").unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'sha256-",
        "style-src 'sha256-",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe"));
    assert_eq!(World::with(&["--no-page"]).ask("GET", "/", "").status, 404);
}

#[test]
fn head_counts_the_body_and_leaves_it_out() {
    let mut world = World::new();
    let get = world.ask("GET", "/health", "");
    let head = world.ask("HEAD", "/health", "");
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(head.header("Content-Length"), get.header("Content-Length"));
    assert_eq!(world.ask("HEAD", "/metrics", "").text, "");
}

#[test]
fn pipelined_requests_are_answered_in_order_though_some_wait_for_workers() {
    let mut world = World::new();
    let body = session(ID, OFFER, &json!({}));
    let stream = world.client();
    let host = "Host: localhost\r\n";
    world.prompt = false;
    world.send(
        stream,
        format!(
            "POST /api/sessions HTTP/1.1\r\n{host}Content-Length: {}\r\n\r\n{body}GET {} HTTP/1.1\r\n{host}\r\n\
             GET /health HTTP/1.1\r\n{host}\r\nGET /api/sessions HTTP/1.1\r\n{host}\r\n",
            body.len(),
            path(ID)
        ),
    );
    assert!(world.clients[&stream].out.is_empty(), "nothing overtakes the first");
    world.prompt = true;
    world.run();
    let answers = world.answers(stream);
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let keys = ["sdpAnswer", "state", "activeCalls", "count"];
    assert!(answers.iter().zip(keys).all(|(answer, key)| !answer.json[key].is_null()), "{answers:?}");
}

#[test]
fn requests_in_error_get_json_and_a_close() {
    let mut world = World::new();
    let long = "a".repeat(9_000);
    for (text, status, code) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"), 414, "uri_too_long"),
        (format!("GET / HTTP/1.1\r\nHost: h\r\nX: {long}\r\nY: {long}\r\n\r\n"), 431, "head_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(64)), 431, "too_many_headers"),
        ("POST /api/sessions HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n".into(), 413, "body_too_large"),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400, "bad_request"),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            400,
            "bad_framing",
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505, "http_version"),
    ] {
        let stream = world.client();
        world.send(stream, text);
        let answer = world.answer(stream);
        assert_eq!((answer.status, answer.code()), (status, code));
        assert_eq!(answer.header("Connection"), Some("close"));
        assert!(world.clients[&stream].shut && !world.clients[&stream].closed);
        world.input(Input::Ended { stream });
        assert!(world.clients[&stream].closed);
    }
    let metrics = world.ask("GET", "/metrics", "").text;
    assert!(metrics.contains("http_requests_total{route=\"none\",code=\"431\"} 2"), "{metrics}");
}

#[test]
fn slow_clients_are_told_and_closed_by_their_deadlines() {
    let mut world = World::new();
    let silent = world.client();
    let slow = world.client();
    world.send(slow, "POST /api/sessions HTTP/1.1\r\n");
    world.wait(Duration::from_secs(5));
    assert!(world.clients[&silent].closed && world.clients[&silent].out.is_empty());
    let answer = world.answer(slow);
    assert_eq!((answer.status, answer.code()), (408, "head_timeout"));
    world.wait(Duration::from_secs(2));
    assert!(world.clients[&slow].closed);

    world.takes = false;
    let deaf = world.begin("GET", "/health", "", "");
    world.wait(Duration::from_millis(9_999));
    assert!(!world.clients[&deaf].closed);
    world.wait(Duration::from_millis(1));
    assert!(world.clients[&deaf].closed);
}

#[test]
fn connections_are_bounded_and_those_beyond_are_told() {
    let mut world = World::new();
    assert_eq!(world.offered.len(), 8, "a few accepts are armed");
    let mut streams: Vec<_> = (0..CONNECTIONS_MAX).map(|_| world.client()).collect();
    let beyond = world.client();
    let answer = world.answer(beyond);
    assert_eq!((answer.status, answer.code()), (503, "too_many_connections"));
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(world.clients[&beyond].shut);

    let more: Vec<_> = std::iter::from_fn(|| (!world.offered.is_empty()).then(|| world.client())).collect();
    assert!(more.len() < 100, "beyond the refusals under way, nothing is accepted: {}", more.len());
    let stream = streams.pop().unwrap();
    world.send(stream, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(world.answer(stream).status, 200, "those within are served");
    streams.push(stream);

    world.wait(Duration::from_secs(20));
    assert!(streams.iter().all(|stream| world.clients[stream].closed));
    assert_eq!((world.control.connections.count(), world.control.timers.len()), (0, 0), "nothing is left");
    assert_eq!(world.ask("GET", "/health", "").status, 200);
}

#[test]
fn a_key_is_used_again_with_a_higher_generation_only() {
    let mut world = World::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        let stream = world.begin("GET", "/health", "", "");
        assert!(seen.insert(stream), "{stream:?} was used before");
        world.fail(stream);
        // What comes late for a key that was given up changes nothing.
        world.input(Input::Received { stream, bytes: b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" });
        world.input(Input::Ended { stream });
        world.input(Input::Written { stream, len: 1, buffer: Vec::new() });
        world.input(Input::Failed { stream, fault: Fault { errno: 104 } });
    }
    let slots: std::collections::HashSet<_> = seen.iter().map(|stream| stream.slot).collect();
    assert!(slots.len() <= 9, "slots are used again: {}", slots.len());
}

#[test]
fn an_accept_that_fails_is_tried_again_after_a_pause() {
    let mut world = World::new();
    let before = world.offered.len();
    while let Some(stream) = world.offered.pop_front() {
        world.fail(stream);
    }
    assert!(world.offered.is_empty(), "no descriptor, no hurry");
    world.wait(Duration::from_millis(100));
    assert_eq!(world.offered.len(), before);
    assert_eq!(world.ask("GET", "/health", "").status, 200);
}

#[test]
fn mutated_bodies_are_answered_and_never_panic() {
    let mut world = World::new();
    let config =
        json!({ "tools": [{ "type": "function" }], "metadata": { "a": "b" }, "maxDurationSec": 60, "language": "en" });
    let seed = session(ID, OFFER, &config).into_bytes();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let mut taken = 0;
    for _ in 0..5_000 {
        let mut body = seed.clone();
        for _ in 0..=random(3) {
            let at = random(body.len());
            match random(3) {
                0 => body[at] = random(256) as u8,
                1 => drop(body.remove(at)),
                _ => body.insert(at, b"\"{}[],:\\0"[random(9)]),
            }
        }
        let stream = world.client();
        let mut request = format!(
            "POST /api/sessions HTTP/1.1\r\nHost: h\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        request = request.replacen("Host: h\r\n", "", 1);
        world.send(stream, [request.as_bytes(), &body].concat());
        let answer = world.answer(stream);
        assert!([200, 400, 409].contains(&answer.status), "{answer:?}");
        taken += usize::from(answer.status == 200);
        world.fail(stream);
        while let Some((&call, _)) = world.calls.first_key_value() {
            world.end_call(call.0, CloseReason::Hangup);
        }
    }
    assert!(taken > 100, "some mutations are harmless: {taken}");
}

#[test]
fn the_end_of_each_call_is_told_once_where_somebody_listens() {
    let mut world = World::with(&["--events-url", "http://127.0.0.1:9/hook", "--drain-sec", "0"]);
    world.post(ID);
    world.post("b");
    world.end_call(1, CloseReason::Hangup);
    world.end_call(1, CloseReason::Hangup);
    assert_eq!(world.events.len(), 1);
    let event = world.events.remove(0);
    let view = world.ask("GET", &path(ID), "").json;
    assert_eq!((event.name, serde_json::from_slice::<Value>(&event.call).unwrap()), ("call.ended", view));
    world.input(Input::Stop);
    let last: Value = serde_json::from_slice(&world.events.remove(0).call).unwrap();
    assert_eq!((&last["callId"], &last["closeReason"]), (&json!("b"), &json!("server_stopping")));
    assert!(world.exited && world.events.is_empty());
}

#[test]
fn the_end_of_a_call_whose_id_has_a_new_call_is_told_too() {
    let mut world = World::with(&["--events-url", "http://127.0.0.1:9/hook"]);
    world.post("a");
    world.prompt = false;
    world.ask("DELETE", &path("a"), "");
    let again = world.begin("POST", "/api/sessions", "", &session("a", OFFER, &json!({})));
    world.prompt = true;
    world.run();
    assert_eq!(world.answer(again).status, 200);
    assert_eq!(world.events.len(), 1);
}
