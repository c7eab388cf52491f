//! The log of a whole run at its most talkative holds nothing that is secret or personal.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::pump::Pump;
use crate::relay::script::Script;
use crate::server_calls::{PATIENCE, apply, fixture, heard, poll_until, start_with};
use crate::support::process::Process;
use crate::support::server::free_address;
use crate::voice::speech;

const TOKEN: &str = "canary-token-5f0e9a7c1b";
const WRONG_TOKEN: &str = "canary-wrong-5f0e9a7c1b";
const API_KEY: &str = "sk-canary-key-77a1";
const FROM: &str = "15550177123";
const TO: &str = "15550188456";
/// The part of the call id that survives percent-encoding.
const CALL: &str = "Q0FOQVJZIGNhbGw";
const WORDS: &str = "canary-instructions";

/// Less than what a [`Process`] keeps of its output: past that, the test would be blind.
const LOG_BYTES_MAX: usize = 4 << 20;

fn password(sdp: &str) -> String {
    sdp.lines().find_map(|line| line.strip_prefix("a=ice-pwd:")).expect("a password").trim().to_owned()
}

fn run(io: &str, format: &str, media_ports: &str) {
    let model = free_address().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
    command.env_clear().args(["agent", "--listen", &model, "--log", "trace"]);
    let agent = Process::start(&mut command);
    poll_until("the agent", || agent.output().contains("listens on").then_some(()).ok_or_else(|| agent.output()));
    let server = start_with(&[
        ("BRIDGE_IO", io),
        ("BRIDGE_LOG", "trace"),
        ("BRIDGE_LOG_FORMAT", format),
        ("BRIDGE_MEDIA_PORTS", media_ports),
        ("BRIDGE_API_TOKEN", TOKEN),
        ("BRIDGE_AGENT", "openai"),
        ("OPENAI_API_KEY", API_KEY),
        ("OPENAI_REALTIME_URL", &format!("ws://{model}/v1/realtime")),
    ]);
    let (api, open) = (server.http().with_token(TOKEN), server.http());
    let pump = Pump::start(9).expect("a relay");

    // A call that is connected, heard and hung up.
    let script = Script::repeated(speech(Duration::from_secs(1), 150.0));
    let (key, offer) = pump.with(move |relay, now| relay.offer(now, script));
    let mut body = json!({
        "callId": format!("wacid.{CALL}/+=="), "sdpOffer": offer, "from": FROM, "to": TO,
        "config": {"instructions": WORDS, "greeting": WORDS, "metadata": {"caller": FROM}},
    });
    let response = api.post("/api/sessions", &body);
    assert_eq!(response.status, 200, "{}", response.body);
    let answer = response.json()["sdpAnswer"].as_str().expect("an answer").to_owned();
    apply(&pump, key, &answer);
    heard(&pump, key, 25);
    pump.with(move |relay, now| relay.press(now, key, 4, Duration::from_millis(100)));
    heard(&pump, key, 50);
    let path = format!("/api/sessions/wacid.{CALL}%2F%2B%3D%3D");
    assert_eq!(open.get(&format!("/k/{TOKEN}{path}")).json()["state"], "active");

    // Requests of every kind that is refused, each with something that must not be shown.
    assert_eq!(open.with_token(WRONG_TOKEN).get(&path).status, 401);
    assert_eq!(server.http().get(&format!("/k/{WRONG_TOKEN}{path}")).status, 401);
    assert_eq!(api.get(&format!("/api/session/{CALL}")).status, 404);
    assert_eq!(api.delete(&format!("{path}2")).status, 404);
    assert_eq!(api.put(&path, &json!({"callId": FROM, "sdpOffer": offer})).status, 400);
    for bad in [fixture("offer-metadoc-sdes.sdp"), offer.replace("opus/48000/2", "PCMU/8000"), FROM.to_owned()] {
        body["callId"] = json!(format!("{CALL}{}", bad.len()));
        body["sdpOffer"] = json!(bad);
        assert_eq!(api.post("/api/sessions", &body).status, 400, "{bad}");
    }
    let broken = api.request("POST", "/api/sessions", Some(&format!("{{\"callId\": \"{CALL}\", \"from\": {FROM}")));
    assert_eq!(broken.expect("an answer").status, 400);
    for request in [
        format!("GET /k/{TOKEN}/{CALL} HTTP/9.9\r\n\r\n"),
        format!("GET /{CALL} HTTP/1.1\r\nHost: x\r\nAuthorization Bearer {TOKEN}\r\n\r\n"),
        format!("POST /{CALL} HTTP/1.1\r\nHost: x\r\nContent-Length: {FROM}{FROM}\r\n\r\n"),
    ] {
        let reply = server.http().exchange(request.as_bytes()).expect("an answer");
        assert!(reply.starts_with(b"HTTP/1.1 4") || reply.starts_with(b"HTTP/1.1 5"), "{request}");
    }
    assert_eq!(api.delete(&path).status, 200);
    poll_until("the end", || {
        let session = api.get(&path).json();
        if session["closeReason"] == "hangup" { Ok(()) } else { Err(session.to_string()) }
    });

    let (_, log) = server.stop();
    let (_, agent_log) = agent.terminate(PATIENCE);
    println!("{io}: {} KiB of log, {} KiB of the agent's", log.len() >> 10, agent_log.len() >> 10);
    assert!(log.contains("call answered") && log.contains("DEBUG"), "it is the whole log:\n{log}");
    assert!(log.len() < LOG_BYTES_MAX && agent_log.len() < LOG_BYTES_MAX, "{} and {}", log.len(), agent_log.len());
    let passwords = [password(&offer), password(&answer)];
    let shown = [TOKEN, WRONG_TOKEN, API_KEY, FROM, TO, CALL, WORDS, "a=ice-pwd", "inline:"];
    for canary in shown.into_iter().chain(passwords.iter().map(String::as_str)) {
        for (whose, log) in [("the bridge's", &log), ("the agent's", &agent_log)] {
            let found: Vec<&str> = log.lines().filter(|line| line.contains(canary)).take(3).collect();
            assert!(found.is_empty(), "{canary} is in {whose} log: {found:#?}");
        }
    }
}

#[test]
fn the_log_at_trace_holds_no_secret_and_nothing_personal_on_uring() {
    run("uring", "text", "21550-21559");
}

#[test]
fn the_log_at_trace_holds_no_secret_and_nothing_personal_on_epoll() {
    run("epoll", "json", "21560-21569");
}
