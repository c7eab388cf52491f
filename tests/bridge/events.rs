//! Events: what a receiver of the user's is told of calls, and what happens when it is not there.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::pump::Pump;
use crate::relay::script::Script;
use crate::server_calls::{PATIENCE, apply, heard, poll_until, post, start_with};
use crate::support::http_server::{Asked, HttpServer};
use crate::support::server::{Server, free_address};
use crate::voice::silence;

const TOKEN: &str = "canary-events-token-1f7c";
/// The part of the call id that survives percent-encoding.
const CALL: &str = "wacid.Q0FOQVJZIGV2ZW50";
/// What the process may take to stop: calls, then events that nobody takes, and a busy machine.
const STOP_TIME_MAX: Duration = Duration::from_secs(8);

/// A bridge that tells its events to this URL.
fn start(url: &str, media_ports: &str) -> Server {
    start_with(&[
        ("BRIDGE_AGENT", "builtin"),
        ("BRIDGE_MEDIA_PORTS", media_ports),
        ("BRIDGE_LOG", "trace"),
        ("BRIDGE_EVENTS_URL", url),
        ("BRIDGE_EVENTS_TOKEN", TOKEN),
    ])
}

/// A call that is hung up before anything happens.
fn short_call(server: &Server, pump: &Pump, id: &str) {
    post(server, pump, id, Script::repeated(silence(Duration::from_secs(1))));
    assert_eq!(server.http().delete(&format!("/api/sessions/{id}")).status, 200);
}

fn counter(server: &Server, name: &str) -> u64 {
    let metrics = server.http().get("/metrics").body;
    let name = format!("voice_media_bridge_driver_events_{name}_total ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
    value.unwrap_or_else(|| panic!("{name} is not in\n{metrics}")).parse().expect("a count")
}

#[track_caller]
fn wait_for_counter(server: &Server, name: &str, least: u64) {
    poll_until(name, || {
        let count = counter(server, name);
        if count >= least { Ok(()) } else { Err(format!("{count} {name}")) }
    });
}

fn json(asked: &Asked) -> Value {
    serde_json::from_str(&asked.body).expect("an event is JSON")
}

#[track_caller]
fn assert_log_is_clean(log: &str) {
    assert!(log.contains("DEBUG") && log.contains("call ended"), "it is the whole log:\n{log}");
    for canary in [TOKEN, CALL] {
        let found: Vec<&str> = log.lines().filter(|line| line.contains(canary)).take(3).collect();
        assert!(found.is_empty(), "{canary} is in the log: {found:#?}");
    }
}

#[test]
fn the_end_of_a_call_is_told_once_with_all_that_the_api_says_of_it() {
    let receiver = HttpServer::start(|_| (204, String::new()));
    let server = start(&format!("http://{}/hooks/calls?key=1", receiver.address()), "21700-21709");
    let pump = Pump::start(31).expect("a relay");
    let (key, answer) = post(&server, &pump, CALL, Script::repeated(silence(Duration::from_secs(1))));
    apply(&pump, key, &answer);
    heard(&pump, key, 50);
    assert_eq!(receiver.asked().len(), 0, "nothing has ended");
    let path = format!("/api/sessions/{CALL}");
    assert_eq!(server.http().delete(&path).status, 200);
    wait_for_counter(&server, "sent", 1);

    let asked = receiver.asked();
    let [event] = &asked[..] else { panic!("not one event: {asked:?}") };
    assert_eq!(event.line(), "POST /hooks/calls?key=1");
    assert_eq!(event.header("content-type"), Some("application/json"));
    assert_eq!(event.header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
    let event = json(event);
    assert_eq!((&event["event"], &event["call"]["callId"]), (&"call.ended".into(), &CALL.into()));
    assert_eq!(event["eventId"].as_str().map(str::len), Some(32));
    assert!(event["at"].as_str().is_some_and(|at| at.len() == 24 && at.ends_with('Z')), "{event}");
    assert_eq!(event["call"], server.http().get(&path).json(), "what the API says of the ended call");
    assert_eq!(event["call"]["closeReason"], "hangup");
    let stages = event["call"]["latency"].as_array().expect("latencies");
    let uplink = stages.iter().find(|stage| stage["stage"] == "uplink").expect("packets were heard");
    assert!(uplink["count"].as_u64().is_some_and(|count| count > 10) && uplink["p99Us"].is_u64(), "{uplink}");

    let (status, log) = server.stop();
    assert!(status.success(), "{status}:\n{log}");
    assert_eq!(receiver.asked().len(), 1, "told once");
    assert_log_is_clean(&log);
}

#[test]
fn an_event_waits_for_a_receiver_that_is_not_there_yet() {
    let address = free_address();
    let server = start(&format!("http://{address}/"), "21710-21719");
    let pump = Pump::start(32).expect("a relay");
    short_call(&server, &pump, CALL);
    wait_for_counter(&server, "retried", 1);
    let receiver = HttpServer::start_at(address, |_| (200, "ok".into()));
    wait_for_counter(&server, "sent", 1);
    let (status, log) = server.stop();
    assert!(status.success(), "{status}:\n{log}");
    let asked = receiver.asked();
    let [event] = &asked[..] else { panic!("not one event: {asked:?}") };
    assert_eq!(json(event)["call"]["callId"], CALL);
    assert!(log.contains("connection refused") && log.contains("events are taken again"), "{log}");
    assert_log_is_clean(&log);
}

#[test]
fn a_receiver_that_fails_for_ever_disturbs_nothing_and_is_counted() {
    let receiver = HttpServer::start(|_| (500, String::new()));
    let server = start(&format!("http://{}/", receiver.address()), "21720-21729");
    let pump = Pump::start(33).expect("a relay");
    for call in 0..3 {
        short_call(&server, &pump, &format!("{CALL}{call}"));
    }
    wait_for_counter(&server, "retried", 2);
    assert_eq!((counter(&server, "sent"), counter(&server, "failed"), counter(&server, "dropped")), (0, 0, 0));
    assert_eq!(server.http().get("/health").status, 200);
    short_call(&server, &pump, &format!("{CALL}4"));
    let first = json(&receiver.asked()[0])["eventId"].clone();
    assert!(receiver.asked().iter().all(|asked| json(asked)["eventId"] == first), "the same event again, in its turn");
    let asked = Instant::now();
    let (status, log) = server.stop();
    let time = asked.elapsed();
    assert!(status.success() && time < STOP_TIME_MAX, "{status} after {time:?}:\n{log}");
    assert!(log.contains("the process ends with events that could not be sent"), "{log}");
    assert_log_is_clean(&log);
}

#[test]
fn an_event_that_its_receiver_refuses_is_given_up_at_once() {
    let receiver = HttpServer::start(|_| (401, String::new()));
    let server = start(&format!("http://{}/", receiver.address()), "21730-21739");
    let pump = Pump::start(34).expect("a relay");
    short_call(&server, &pump, CALL);
    wait_for_counter(&server, "failed", 1);
    assert_eq!((receiver.asked().len(), counter(&server, "retried")), (1, 0));
}

#[test]
fn calls_that_the_end_of_the_process_ends_are_told_before_it() {
    let receiver = HttpServer::start(|_| (200, String::new()));
    let server = start(&format!("http://{}/", receiver.address()), "21740-21749");
    let pump = Pump::start(35).expect("a relay");
    for call in 0..3 {
        let script = Script::repeated(silence(Duration::from_secs(1)));
        post(&server, &pump, &format!("{CALL}{call}"), script);
    }
    let (status, log) = server.stop();
    assert!(status.success(), "{status}:\n{log}");
    let reasons: Vec<Value> = receiver.asked().iter().map(|asked| json(asked)["call"]["closeReason"].clone()).collect();
    assert_eq!(reasons, vec![Value::from("server_stopping"); 3], "{PATIENCE:?}:\n{log}");
    assert_log_is_clean(&log);
}
