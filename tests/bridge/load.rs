//! `voice-media-bridge load` as a user runs it: against the real server with the real echo agent, against servers that
//! refuse, and against what is no server at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use serde_json::Value;

use crate::server_calls::{PATIENCE, poll_until, start_with};
use crate::support::process::Process;
use crate::support::server::{Server, free_address};

/// Exit code of a run that missed a bound or connected nothing.
const MISSED: Option<i32> = Some(3);

/// The echo agent and a bridge that has its calls answered by it.
fn bridge_with_echo(media_ports: &str) -> (Process, Server) {
    let model = free_address().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
    let agent = Process::start(command.env_clear().args(["agent", "--echo", "--listen", &model]));
    poll_until("the agent", || agent.output().contains("listens on").then_some(()).ok_or_else(|| agent.output()));
    let url = format!("ws://{model}/v1/realtime");
    let settings =
        [("BRIDGE_MEDIA_PORTS", media_ports), ("BRIDGE_AGENT", "openai"), ("OPENAI_REALTIME_URL", url.as_str())];
    (agent, start_with(&settings))
}

fn spawn_load(server: SocketAddr, arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
    Process::start(command.env_clear().args(["load", "--url", &format!("http://{server}")]).args(arguments))
}

/// Runs a load to its end: exit code, and all that it printed.
fn load(server: SocketAddr, arguments: &[&str]) -> (Option<i32>, String) {
    let mut process = spawn_load(server, arguments);
    poll_until("the load to end", || process.try_wait().map(|_| ()).ok_or_else(|| process.output()));
    let (status, output) = process.terminate(PATIENCE);
    (status.code(), output)
}

/// The same with its JSON report.
fn load_with_json(name: &str, server: SocketAddr, arguments: &[&str]) -> (Option<i32>, String, Value) {
    let path = format!("{}/{name}.json", env!("CARGO_TARGET_TMPDIR"));
    let (code, output) = load(server, &[arguments, &["--json", &path]].concat());
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error}:\n{output}"));
    (code, output, serde_json::from_str(&text).expect("a report"))
}

#[test]
fn calls_through_the_bridge_and_an_echo_are_all_connected_heard_and_timed() {
    let (_agent, server) = bridge_with_echo("21600-21649");
    let arguments = [
        "--calls",
        "4",
        "--rate",
        "20",
        "--duration",
        "5",
        "--echo",
        "--probes",
        "2",
        "--max-loss-percent",
        "0",
        "--max-refused-percent",
        "0",
        "--max-echo-p99-ms",
        "4000",
    ];
    let (code, output, report) = load_with_json("echo", server.address(), &arguments);
    assert_eq!(code, Some(0), "{output}");
    assert_eq!((&report["passed"], &report["interrupted"]), (&Value::Bool(true), &Value::Bool(false)), "{report}");
    for (count, expected) in [("asked", 4), ("answered", 4), ("connected", 4), ("refused", 0), ("endedByServer", 0)] {
        assert_eq!(report["calls"][count], expected, "{count}: {report}");
    }
    assert_eq!(report["calls"]["answer"]["count"], 4);
    assert_eq!(report["calls"]["connect"]["count"], 4);
    assert_eq!(report["calls"]["firstMedia"]["count"], 4);
    let packets = |what: &str| report["packets"][what].as_u64().expect("a count");
    assert!(packets("received") > 400 && packets("sent") > 400, "{report}");
    assert_eq!((packets("lost"), packets("duplicates"), packets("undecryptable")), (0, 0, 0), "{report}");
    assert!(report["interarrival"]["deviation"]["count"].as_u64() > Some(400), "{report}");
    let echo = &report["echo"];
    assert_eq!(echo["probes"], 2);
    assert!(echo["heard"].as_u64() >= Some(6) && echo["missed"] == 0, "{report}");
    assert!(echo["roundTrip"]["p50Us"].as_u64() > Some(0), "{report}");
    assert_eq!(report["bounds"].as_array().map(Vec::len), Some(3));
    assert!(output.contains("4 connected") && output.contains("echo round trip"), "{output}");
    assert_eq!(server.http().get("/api/sessions").json()["count"], 0, "every call is hung up");
}

#[test]
fn a_bridge_for_this_host_alone_serves_callers_on_loopback_whatever_address_it_advertises() {
    // An address as the default route gives one, and no word about private callers: what a first run has.
    let settings = [("BRIDGE_MEDIA_IP", "198.41.0.4"), ("BRIDGE_MEDIA_PORTS", "22590-22599")];
    let server = Server::start(&settings);
    let (code, output) = load(server.address(), &["--calls", "2", "--rate", "20", "--duration", "1"]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("2 connected"), "{output}");
}

#[test]
fn calls_come_and_go_and_a_bound_that_cannot_be_met_fails_by_its_name() {
    let (_agent, server) = bridge_with_echo("21650-21699");
    let arguments = [
        "--calls",
        "3",
        "--rate",
        "20",
        "--duration",
        "3",
        "--churn",
        "3",
        "--speech",
        "0.4",
        "--max-answer-p99-ms",
        "0.001",
        "--max-loss-percent",
        "100",
    ];
    let (code, output, report) = load_with_json("churn", server.address(), &arguments);
    assert_eq!(code, MISSED, "{output}");
    assert!(output.contains("FAILED: --max-answer-p99-ms 0.001 was missed"), "{output}");
    assert!(output.contains("met: --max-loss-percent 100"), "{output}");
    assert!(report["calls"]["connected"].as_u64() > Some(6), "{report}");
    assert_eq!((&report["calls"]["refused"], &report["calls"]["hangupsFailed"]), (&0.into(), &0.into()), "{report}");
    assert!(report["echo"]["roundTrip"].is_null() && report["echo"]["sent"] == 0, "nobody asked for it");
}

#[test]
fn an_interrupted_load_hangs_up_and_reports() {
    let (_agent, server) = bridge_with_echo("21700-21719");
    let process = spawn_load(server.address(), &["--calls", "2", "--rate", "50", "--duration", "600"]);
    poll_until("both calls", || process.output().contains("2 connected").then_some(()).ok_or_else(|| process.output()));
    let (status, output) = process.terminate(PATIENCE);
    assert!(status.success(), "{output}");
    assert!(output.contains("interrupted"), "{output}");
    assert_eq!(server.http().get("/api/sessions").json()["count"], 0, "every call is hung up");
}

#[test]
fn refusals_are_reported_with_their_codes() {
    let settings = [("BRIDGE_AGENT", "builtin"), ("BRIDGE_API_TOKEN", "token-0123456789abcdef")];
    let server = start_with(&[&settings[..], &[("BRIDGE_MEDIA_PORTS", "21720-21729")]].concat());
    let (code, output, report) = load_with_json("no-token", server.address(), &["--calls", "2", "--rate", "50"]);
    assert_eq!(code, MISSED, "{output}");
    assert!(output.contains("FAILED: no call was connected: 401 "), "{output}");
    assert_eq!((&report["calls"]["refused"], &report["calls"]["refusal"]["count"]), (&2.into(), &2.into()), "{report}");

    let full = [("BRIDGE_MEDIA_PORTS", "21730-21739"), ("BRIDGE_MAX_CALLS", "1")];
    let server = start_with(&[&settings[..], &full].concat());
    let arguments = [
        "--calls",
        "3",
        "--rate",
        "20",
        "--duration",
        "1",
        "--token",
        "token-0123456789abcdef",
        "--max-refused-percent",
        "0",
    ];
    let (code, output, report) = load_with_json("full", server.address(), &arguments);
    assert_eq!(code, MISSED, "{output}");
    assert!(output.contains("--max-refused-percent 0 was missed: it was 66.67"), "{output}");
    assert_eq!(report["calls"]["connected"], 1, "{report}");
    let refusals = report["calls"]["refusals"].as_array().expect("a list");
    assert_eq!((refusals.len(), &refusals[0]["count"]), (1, &2.into()), "{report}");
    assert!(refusals[0]["what"].as_str().is_some_and(|what| what.starts_with("503 ")), "{report}");
}

#[test]
fn what_is_no_such_server_is_said_in_a_sentence() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    // Ends with the test's process: it waits for one connection more.
    std::thread::spawn(move || {
        let words = [&b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"];
        for (stream, words) in listener.incoming().zip(words.into_iter().cycle()) {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(words);
        }
    });
    let (code, output) = load(address, &["--calls", "2", "--rate", "5", "--duration", "60"]);
    assert_eq!(code, MISSED, "{output}");
    for said in ["what came is not HTTP/1.1", "200 with a body that is not the JSON of an answer"] {
        assert!(output.contains(said), "{output}");
    }

    let (code, output) = load(free_address(), &["--calls", "1"]);
    assert_eq!(code, MISSED, "{output}");
    assert!(output.contains("cannot connect: Connection refused"), "{output}");

    let (code, output) = load(address, &["--relay-ip", "192.0.2.1"]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("--relay-ip 192.0.2.1 and the server"), "{output}");
}
