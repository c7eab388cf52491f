//! Latencies over HTTP: of the process, of a live call, of one that has ended; in three forms.

use super::*;
use crate::stats::{Count, Stage};

/// What every call and every worker of these tests has measured.
fn measured<C: Count>() -> Stages<C> {
    let mut stages = Stages::new();
    for us in [210, 230, 900] {
        stages.record(Stage::Uplink, Duration::from_micros(us));
    }
    stages.record(Stage::TickLate, Duration::from_micros(40));
    stages
}

fn world() -> World {
    let mut world = World::new();
    (world.stages, world.worker_stages) = (measured(), measured());
    world.post(ID);
    world
}

fn of_call(query: &str) -> String {
    format!("{}/latency{query}", path(ID))
}

#[test]
fn the_process_shows_what_workers_and_control_have_measured() {
    let mut world = world();
    world.now += Duration::from_secs(5);
    let answer = world.ask("GET", "/api/latency", "");
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    assert_eq!(answer.json["uptimeMs"], 5_000);
    let stages = answer.json["stages"].as_array().unwrap();
    let shown: Vec<_> = stages.iter().map(|stage| (&stage["stage"], &stage["count"])).collect();
    // Each of the two workers tells what it has measured, and control the setup of one call.
    assert_eq!(shown, [(&json!("uplink"), &json!(6)), (&json!("tick_late"), &json!(2)), (&json!("setup"), &json!(1))]);
    assert_eq!(
        stages[0],
        json!({
            "stage": "uplink", "count": 6, "p50Us": 230, "p90Us": 903, "p99Us": 903, "p999Us": 903, "maxUs": 903,
            "meanUs": 447, "buckets": [[200, 0], [256, 4], [320, 4], [400, 4], [512, 4], [640, 4], [800, 4], [1024, 6]]
        })
    );
}

#[test]
fn a_call_shows_its_latencies_alive_and_ended() {
    let mut world = world();
    let alive = world.ask("GET", &of_call(""), "");
    assert_eq!((alive.status, &alive.json["callId"]), (200, &json!(ID)));
    let stages: Vec<_> = alive.json["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].clone()).collect();
    assert_eq!(stages, ["uplink", "tick_late", "setup"], "setup is control's own part");
    world.end_call(1, CloseReason::PeerClosed);
    let ended = world.ask("GET", &of_call(""), "");
    assert_eq!(ended.json["stages"], alive.json["stages"]);
    assert_eq!(world.ask("GET", "/api/sessions/never/latency", "").status, 404);
}

#[test]
fn a_call_that_ends_while_its_latencies_are_asked_for_shows_its_last() {
    let mut world = world();
    world.prompt = false;
    let stream = world.begin("GET", &of_call(""), "", "");
    world.end_call(1, CloseReason::AgentClosed);
    world.prompt = true;
    world.run();
    assert_eq!(world.answer(stream).json["stages"][0]["count"], 3);
}

#[test]
fn hdrhistogram_forms_are_text() {
    let mut world = world();
    for path in ["/api/latency".to_owned(), of_call("")] {
        let text = world.ask("GET", &format!("{path}?format=hgrm"), "");
        assert_eq!(text.header("Content-Type"), Some("text/plain; charset=utf-8"));
        assert!(text.text.starts_with("# stage: uplink\n") && text.text.contains("#[Mean "), "{}", text.text);
        let log = world.ask("GET", &format!("{path}?format=log"), "");
        assert_eq!(log.header("Content-Type"), Some("text/plain; charset=utf-8"));
        assert!(log.text.starts_with("#[Histogram log format version 1.3]\n"), "{}", log.text);
        assert_eq!(log.text.matches("\nTag=").count(), 3, "{}", log.text);
        assert_eq!(world.ask("GET", &format!("{path}?format=json"), "").json["stages"][0]["stage"], "uplink");
        let refused = world.ask("GET", &format!("{path}?format=xml"), "");
        assert_eq!((refused.status, refused.error()), (400, "format must be json, hgrm or log."));
    }
}

#[test]
fn latencies_are_for_those_who_may_ask() {
    let mut world = World::with(&["--api-token", "a-token-of-some-length"]);
    assert_eq!(world.ask("GET", "/api/latency", "").status, 401);
    assert_eq!(world.ask("GET", &of_call(""), "").status, 401);
    let answer = world.ask("POST", "/k/a-token-of-some-length/api/latency", "");
    assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET, HEAD")));
    assert_eq!(world.ask("GET", "/k/a-token-of-some-length/api/latency", "").json["stages"], json!([]));
}
