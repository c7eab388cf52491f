//! The commands that look at a running bridge: `top` and `latency`.

use std::time::Duration;

use serde_json::json;
use voice_media_bridge::call_id::CallId;

use crate::pump::Pump;
use crate::relay::script::Script;
use crate::server_calls::{apply, heard, session_request, start_with};
use crate::server_process::run;
use crate::support::http_server::{Asked, HttpServer};
use crate::support::server::free_address;
use crate::voice::silence;

const TOKEN: &str = "canary-token-3c55c1f0aa";

fn hash(id: &str) -> String {
    CallId::new(id).expect("an id").log_id().to_string()
}

/// A bridge as it is to be: all routes, one call.
fn bridge() -> HttpServer {
    HttpServer::start(|asked: &Asked| {
        let stage = json!({"stage": "uplink", "count": 1000, "p50Us": 210, "p90Us": 400, "p99Us": 900, "p999Us": 1500,
                           "maxUs": 2100, "meanUs": 230, "buckets": [[128, 10], [1024, 1000]]});
        let latencies = json!({"uptimeMs": 61_000, "stages": [stage]}).to_string();
        let unknown = json!({"error": "Session not found", "code": "not_found"}).to_string();
        let workers = json!({"callsMax": 200, "workers": [
            {"worker": 0, "calls": 1, "busyRatio": 0.5, "tickLateP99Us": 310, "complexity": 5, "admits": true}]});
        match asked.line() {
            _ if asked.header("authorization") != Some(&format!("Bearer {TOKEN}")) => (401, "{}".into()),
            "GET /api/latency"
            | "GET /api/latency?format=json"
            | "GET /api/sessions/wacid.a%2Fb%3D/latency?format=json" => (200, latencies),
            "GET /api/latency?format=hgrm" => (200, "# stage: uplink\n       Value     Percentile\n".into()),
            "GET /api/sessions/wacid.a%2Fb%3D/latency?format=log" => {
                (200, "#[Histogram log format version 1.3]\n".into())
            }
            "GET /api/workers" => (200, workers.to_string()),
            "GET /api/sessions" => {
                let call = json!({"callId": "wacid.a/b=", "worker": 0, "state": "active", "durationMs": 61_000});
                (200, json!({"count": 1, "sessions": [call]}).to_string())
            }
            _ => (404, unknown),
        }
    })
}

#[test]
fn top_prints_the_live_calls_of_a_bridge_by_their_hash() {
    let server =
        start_with(&[("BRIDGE_MEDIA_PORTS", "21750-21759"), ("BRIDGE_AGENT", "builtin"), ("BRIDGE_API_TOKEN", TOKEN)]);
    let pump = Pump::start(41).expect("a relay");
    let ids = ["wacid.top1", "wacid.top2"];
    for id in ids {
        let script = Script::repeated(silence(Duration::from_secs(1)));
        let (key, offer) = pump.with(move |relay, now| relay.offer(now, script));
        let response = server.http().with_token(TOKEN).post("/api/sessions", &session_request(id, &offer));
        apply(&pump, key, response.json()["sdpAnswer"].as_str().expect("an answer"));
        heard(&pump, key, 50);
    }
    let url = format!("http://{}", server.address());
    let settings = [("BRIDGE_URL", url.as_str()), ("BRIDGE_API_TOKEN", TOKEN)];
    // No terminal: the same as --once.
    for arguments in [&["top", "--once"][..], &["top"]] {
        let (code, output) = run(arguments, &settings);
        assert_eq!(code, Some(0), "{output}");
        for id in ids {
            let line = output.lines().find(|line| line.starts_with(&hash(id))).expect("a line for each call");
            assert!(line.contains("active") && line.contains(" µs") | line.contains(" ms"), "{line}");
        }
        assert!(!output.contains("wacid.") && !output.contains('\u{1b}') && !output.contains(TOKEN), "{output}");
    }
    let (code, output) = run(&["top", "--once", "--url", &url], &[]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.starts_with("error: ") && output.contains("--token"), "{output}");
}

#[test]
fn top_shows_workers_and_latencies_where_the_bridge_tells_them() {
    let bridge = bridge();
    let url = format!("http://{}/", bridge.address());
    let (code, output) = run(&["top", "--once", "--url", &url, "--token", TOKEN], &[]);
    assert_eq!(code, Some(0), "{output}");
    for words in ["1 of 200 calls", "up 1:01", "worker 0 ", "50 %", "uplink 900 µs", &hash("wacid.a/b=")] {
        assert!(output.contains(words), "{words} is not in\n{output}");
    }
}

#[test]
fn a_command_says_so_when_nothing_listens() {
    let url = format!("http://{}", free_address());
    for command in ["top", "latency"] {
        let (code, output) = run(&[command, "--url", &url], &[]);
        assert_eq!(code, Some(1), "{output}");
        assert!(output.starts_with("error: nothing listens on ") && output.lines().count() == 1, "{output}");
    }
}

#[test]
fn latency_prints_a_table_or_what_the_bridge_writes() {
    let bridge = bridge();
    let url = format!("http://{}", bridge.address());
    let latency = |arguments: &[&str]| {
        let common = ["latency", "--url", &url, "--token", TOKEN];
        run(&[&common, arguments].concat(), &[])
    };
    let table = "stage              count      p50      p90      p99    p99.9      max\n\
                 uplink              1000   210 µs   400 µs   900 µs   1.5 ms   2.1 ms\n";
    assert_eq!(latency(&[]), (Some(0), table.to_owned()));
    assert_eq!(latency(&["--call", "wacid.a/b="]), (Some(0), table.to_owned()));
    assert_eq!(latency(&["--format", "hgrm"]), (Some(0), "# stage: uplink\n       Value     Percentile\n".to_owned()));
    let log = "#[Histogram log format version 1.3]\n".to_owned();
    assert_eq!(latency(&["--call", "wacid.a/b=", "--format", "log"]), (Some(0), log));
    let (code, json) = latency(&["--format", "json"]);
    assert!(code == Some(0) && json.starts_with("{\"stages\":[{"), "{json}");

    let (code, output) = latency(&["--call", "wacid.canary"]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.starts_with("error: the bridge knows no call of this id"), "{output}");
    assert!(!output.contains("canary"), "{output}");
    let (code, output) = latency(&["--format", "xml"]);
    assert!(code == Some(2) && output.contains("hgrm"), "{output}");
}
