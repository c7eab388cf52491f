//! How a bridge leaves: what those hear who are in a call, and what those are told who want one.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::calls;
use crate::pump::Pump;
use crate::relay::record::Record;
use crate::relay::script::Script;
use crate::server_calls::{PATIENCE, apply, heard, poll_until, post, session_request, start_with};
use crate::support::server::Server;
use crate::voice::{ends_with_goodbye, silence, speech, voiced_time};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const FRAME: Duration = Duration::from_millis(20);
/// A goodbye, from the packet before it to the last.
const GOODBYE: Duration = Duration::from_millis(720);

fn assert_heard_goodbye(record: &Record) {
    assert_eq!(ends_with_goodbye(&record.received), Ok(()));
    let (last, closed) = (record.received.last().expect("packets").at, record.closed.expect("the caller is told"));
    assert!(closed >= last, "closed {:?} before the last packet", last - closed);
}

#[test]
fn at_the_bound_of_a_drain_a_caller_hears_two_falling_tones_on_the_beat_and_is_then_hung_up_on() {
    let mut world = World::new(&["--drain-sec", "10"]);
    let key = calls::call(&mut world, "wacid.late", Script::repeated(silence(SECOND)));
    world.run(3 * SECOND);
    world.stop();
    world.run(Duration::from_millis(9_980));
    let record = world.relay.record(key).unwrap();
    assert!(record.closed.is_none() && ends_with_goodbye(&record.received).is_err(), "the call goes on");
    let before = world.now;
    world.run(3 * SECOND);
    assert_eq!(world.exited(), ["worker", "control"]);
    let record = world.relay.record(key).unwrap();
    assert_heard_goodbye(record);
    let took = record.closed.unwrap() - before;
    assert!((GOODBYE..GOODBYE + 5 * FRAME).contains(&took), "{took:?}");
    for pair in record.received.windows(2) {
        assert_eq!(pair[1].at - pair[0].at, FRAME);
        assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(960));
    }
    assert_eq!(world.open_ports(), 0);
}

#[test]
fn a_goodbye_cuts_the_models_words_off() {
    let mut world = World::new(&["--drain-sec", "0"]);
    let key = calls::call(&mut world, "wacid.words", Script::repeated(silence(SECOND)));
    // In the middle of the greeting.
    world.run(SECOND);
    world.stop();
    world.run(3 * SECOND);
    let record = world.relay.record(key).unwrap();
    assert_heard_goodbye(record);
    assert!(record.received.len() < 110, "{} packets", record.received.len());
}

#[test]
fn a_call_without_media_is_ended_without_waiting_for_tones_that_nobody_hears() {
    let mut world = World::new(&["--drain-sec", "0"]);
    let manual = json!({"startMedia": "manual"});
    let (key, answer) = calls::post(&mut world, "wacid.held", Script::silent(), &manual);
    world.relay.apply_answer(world.now, key, &answer).unwrap();
    calls::post(&mut world, "wacid.unanswered", Script::silent(), &json!({}));
    world.run(SECOND);
    let asked = world.now;
    world.stop();
    world.run(3 * SECOND);
    assert_eq!(world.exited(), ["worker", "control"]);
    let record = world.relay.record(key).unwrap();
    assert!(record.closed.expect("the relay is told") - asked < Duration::from_millis(100));
    assert!(record.received.is_empty());
}

#[test]
fn whoever_reaches_the_longest_duration_hears_why_the_line_goes_dead() {
    let mut world = World::new(&["--max-duration-sec", "10"]);
    let key = calls::call(&mut world, "wacid.long", Script::repeated(silence(SECOND)));
    assert_eq!(calls::ended(&mut world, "wacid.long", 12 * SECOND), "max_duration");
    let session = calls::session(&mut world, "wacid.long");
    let (queued, played) = (&session["downlink"]["queuedMs"], &session["downlink"]["playedMs"]);
    assert_eq!(queued, played, "the greeting, and not the tones: {session}");
    calls::nothing_is_left(&mut world);
    assert_heard_goodbye(world.relay.record(key).unwrap());
}

#[test]
fn a_hang_up_during_the_goodbye_ends_it() {
    let mut world = World::new(&["--max-duration-sec", "10"]);
    let key = calls::call(&mut world, "wacid.both", Script::repeated(silence(SECOND)));
    world.run(10 * SECOND + SECOND / 5);
    assert!(world.relay.record(key).unwrap().closed.is_none());
    assert_eq!(world.http("DELETE", "/api/sessions/wacid.both", None).0, 200);
    assert_eq!(calls::ended(&mut world, "wacid.both", SECOND / 10), "hangup");
}

/// A server with a call in which both hear each other.
fn talking(settings: &[(&str, &str)], pump: &Pump) -> (Server, crate::relay::CallKey) {
    let server = start_with(&[&[("BRIDGE_AGENT", "builtin")], settings].concat());
    let words = [speech(SECOND, 150.0), silence(2 * SECOND)].concat();
    let (key, answer) = post(&server, pump, "wacid.talks", Script::repeated(words));
    apply(pump, key, &answer);
    heard(pump, key, 10);
    (server, key)
}

/// Asks on a connection that the client would keep; the answer, once the server has closed it.
fn asked_and_closed(server: &Server, method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.address());
    String::from_utf8(server.http().exchange(request.as_bytes()).expect("an answer")).expect("text")
}

fn a_signal_lets_a_call_go_on(io: &str, media_ports: &str) {
    let pump = Pump::start(61).expect("a relay");
    let settings = [("BRIDGE_IO", io), ("BRIDGE_MEDIA_PORTS", media_ports), ("BRIDGE_DRAIN_SEC", "60")];
    let (server, key) = talking(&settings, &pump);
    assert_eq!(server.http().get("/ready").status, 200);
    server.signal();
    poll_until("/ready to turn red", || {
        let ready = server.http().get("/ready");
        if ready.status == 503 && ready.json()["code"] == "draining" { Ok(()) } else { Err(ready.body) }
    });
    assert!(asked_and_closed(&server, "GET", "/health").starts_with("HTTP/1.1 200 "));
    let (_, offer) = pump.with(|relay, now| relay.offer(now, Script::silent()));
    let refused = server.http().post("/api/sessions", &session_request("wacid.new", &offer));
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("draining")));
    assert!(refused.headers.iter().any(|(name, _)| name == "retry-after"), "{:?}", refused.headers);
    let drain = server.http().request("POST", "/api/drain", None).expect("an answer").json();
    assert_eq!((&drain["draining"], &drain["calls"]), (&json!(true), &json!(1)));
    assert!(drain["secondsLeft"].as_u64().is_some_and(|left| (30..=60).contains(&left)), "{drain}");

    // They talk on: the agent says back what it hears from now on.
    let before = heard(&pump, key, 10).received.len();
    let reply = 400; // 8 s: a turn of the caller and the agent's answer, whatever the phase
    let record = heard(&pump, key, before + reply);
    let said = voiced_time(&crate::voice::decode(&record.received[before..]));
    assert!(said > SECOND / 2 && record.closed.is_none(), "{said:?} of voice");

    assert_eq!(server.http().delete("/api/sessions/wacid.talks").status, 200);
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("draining") && log.contains("drained") && !log.contains("goodbye"), "{log}");
}

#[test]
fn a_signal_lets_a_call_go_on_until_it_is_hung_up_on_uring() {
    a_signal_lets_a_call_go_on("uring", "21800-21809");
}

#[test]
fn a_signal_lets_a_call_go_on_until_it_is_hung_up_on_epoll() {
    a_signal_lets_a_call_go_on("epoll", "21810-21819");
}

#[test]
fn at_the_bound_the_goodbye_is_heard_over_real_sockets_and_the_exit_is_clean() {
    let pump = Pump::start(62).expect("a relay");
    let (server, key) = talking(&[("BRIDGE_MEDIA_PORTS", "21820-21829"), ("BRIDGE_DRAIN_SEC", "1")], &pump);
    server.signal();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("hear a goodbye") && log.contains("server_stopping"), "{log}");
    let record = pump.wait_for("the relay to be told", PATIENCE, move |relay, _| {
        relay.record(key).filter(|record| record.closed.is_some()).cloned()
    });
    assert_heard_goodbye(&record);
}

#[test]
fn a_second_signal_ends_calls_at_once() {
    let pump = Pump::start(63).expect("a relay");
    let (server, key) = talking(&[("BRIDGE_MEDIA_PORTS", "21830-21839"), ("BRIDGE_DRAIN_SEC", "60")], &pump);
    server.signal();
    poll_until("the drain", || {
        let drain = server.http().get("/api/drain").json();
        if drain["draining"] == true { Ok(()) } else { Err(drain.to_string()) }
    });
    let asked = Instant::now();
    server.signal();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    println!("second SIGTERM with a call up: exited after {:?}", asked.elapsed());
    assert!(asked.elapsed() < 3 * SECOND, "{:?}:\n{log}", asked.elapsed());
    assert!(log.contains("server_stopping"), "{log}");
    let record = pump.wait_for("the relay to be told", PATIENCE, move |relay, _| {
        relay.record(key).filter(|record| record.closed.is_some()).cloned()
    });
    assert!(ends_with_goodbye(&record.received).is_err(), "no tones");
}

#[test]
fn a_request_to_drain_without_calls_is_answered_before_the_exit() {
    let server = start_with(&[("BRIDGE_AGENT", "builtin"), ("BRIDGE_MEDIA_PORTS", "21840-21849")]);
    let answer = asked_and_closed(&server, "POST", "/api/drain");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(r#"{"draining":true,"calls":0"#), "{answer}");
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
}
