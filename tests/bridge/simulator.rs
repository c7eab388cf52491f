//! `voice-media-bridge simulate-whatsapp` and `demo` as a user runs them: every scenario over real sockets against the real
//! server, and what is said when that is not possible.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::server_calls::{PATIENCE, poll_until, start_with};
use crate::server_process::run;
use crate::support::http_client::HttpClient;
use crate::support::https_client::{Authority, Files};
use crate::support::process::Process;
use crate::support::server::{Server, free_address};

/// How long all scenarios may take: the longest of them, some times over.
const ALL_TIME_MAX: Duration = Duration::from_secs(180);

/// Exit code of a run in which something did not hold.
const MISSED: Option<i32> = Some(3);

/// What both sides know.
const ACCOUNT: [(&str, &str); 4] = [
    ("WHATSAPP_PHONE_NUMBER_ID", "106540352242922"),
    ("WHATSAPP_ACCESS_TOKEN", "an-access-token-0123456789"),
    ("WHATSAPP_APP_SECRET", "0123456789abcdef0123456789abcdef"),
    ("WHATSAPP_VERIFY_TOKEN", "a-verify-token-0123456789"),
];

/// A bridge that asks the Graph API there, and a folder for its journal.
fn bridge(name: &str, graph: &str, media_ports: &str) -> Server {
    bridge_with(name, graph, media_ports, &[])
}

fn bridge_with(name: &str, graph: &str, media_ports: &str, more: &[(&str, &str)]) -> Server {
    let state = format!("{}/simulator-{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(&state).expect("a folder");
    let url = format!("http://{graph}");
    let own = [
        ("BRIDGE_AGENT", "builtin"),
        ("BRIDGE_MEDIA_PORTS", media_ports),
        ("BRIDGE_GRAPH_URL", &url),
        ("BRIDGE_STATE_DIR", &state),
        ("BRIDGE_LOG", "warn"),
    ];
    start_with(&[&own[..], &ACCOUNT[..], more].concat())
}

/// Runs the simulator to its end: exit code, what it printed, its report.
fn simulate(name: &str, webhook: &str, graph: &str, arguments: &[&str]) -> (Option<i32>, String, Value) {
    let path = format!("{}/simulator-{name}.json", env!("CARGO_TARGET_TMPDIR"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
    command.env_clear().envs(ACCOUNT).args(["simulate-whatsapp", "--webhook", webhook, "--listen", graph]);
    let mut process = Process::start(command.args(["--json", &path, "--verbose"]).args(arguments));
    let end = Instant::now() + ALL_TIME_MAX;
    while process.try_wait().is_none() {
        assert!(Instant::now() < end, "it did not end:\n{}", process.output());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (status, output) = process.terminate(PATIENCE);
    let report = std::fs::read_to_string(&path).unwrap_or_default();
    (status.code(), output, serde_json::from_str(&report).unwrap_or_default())
}

/// The blocks of the output for scenarios that did not hold.
fn not_held(report: &Value) -> Vec<String> {
    let scenarios = report["scenarios"].as_array().expect("a list");
    let failed = scenarios.iter().filter(|scenario| scenario["held"] != true);
    failed.map(|scenario| format!("{}: {} {}", scenario["name"], scenario["checks"], scenario["notes"])).collect()
}

#[test]
fn every_scenario_holds_against_the_real_server() {
    let graph = free_address().to_string();
    let server = bridge("all", &graph, "24000-24199");
    let webhook = format!("http://{}/webhooks/whatsapp", server.address());
    let arguments = ["--scenario", "all", "--at-once", "4", "--calls", "20", "--relay", "127.0.0.1:24900"];
    let (code, output, report) = simulate("all", &webhook, &graph, &arguments);
    assert_eq!(not_held(&report), Vec::<String>::new(), "{output}\n{}", server.log());
    assert_eq!((code, &report["passed"]), (Some(0), &Value::Bool(true)), "{output}");
    assert_eq!(report["strays"].as_array().map(Vec::len), Some(0), "{report}");
    let scenarios = report["scenarios"].as_array().expect("a list");
    let dtmf = scenarios.iter().find(|scenario| scenario["name"] == "dtmf").expect("one of all");
    let id = dtmf["calls"][0]["id"].as_str().expect("an id");
    let record = server.http().get(&format!("/api/sessions/{id}")).json();
    assert_eq!(record["peer"]["dtmfDigits"], 4, "{record}");
    assert_eq!(server.http().get("/api/sessions").json()["count"], 0, "every call is over");
}

#[test]
fn two_hundred_calls_within_two_seconds_are_each_exactly_one_and_none_rings_on() {
    let graph = free_address().to_string();
    // How many a machine carries is not the question.
    let every_call = ("BRIDGE_ADMIT_BUSY_PERCENT", "100");
    let server = bridge_with("burst", &graph, "25000-25799", &[("BRIDGE_MAX_CALLS", "400"), every_call]);
    let webhook = format!("http://{}/webhooks/whatsapp", server.address());
    let arguments = ["--scenario", "burst", "--calls", "200", "--relay", "127.0.0.1:25900"];
    let (code, output, report) = simulate("burst", &webhook, &graph, &arguments);
    // How soon all this is done is the machine's matter, where others use it as well.
    let in_time = |check: &Value| check["seen"].as_str().is_some_and(|seen| seen.starts_with("200 only after"));
    let checks = report["scenarios"][0]["checks"].as_array().expect("a list");
    let missed: Vec<&Value> = checks.iter().filter(|check| check["held"] != true && !in_time(check)).collect();
    assert_eq!(missed, Vec::<&Value>::new(), "{}\n{output:.2000}", server.log());
    let expected = if checks.iter().any(in_time) { MISSED } else { Some(0) };
    assert_eq!(code, expected, "{}", report["strays"]);
    let calls = report["scenarios"][0]["calls"].as_array().expect("a list");
    assert_eq!((calls.len(), report["strays"].as_array().map(Vec::len)), (200, Some(0)));
    assert_eq!(server.http().get("/api/sessions").json()["count"], 0, "every call is over");
}

#[test]
fn a_recording_is_played_and_what_is_heard_is_kept() {
    let graph = free_address().to_string();
    let server = bridge("record", &graph, "24200-24219");
    let webhook = format!("http://{}/webhooks/whatsapp", server.address());
    let folder = env!("CARGO_TARGET_TMPDIR");
    let speech = format!("{folder}/simulator-speech.wav");
    let samples: Vec<i16> = (0..24_000).map(|n| (9_000.0 * (f64::from(n) * 0.05).sin()) as i16).collect();
    std::fs::write(&speech, voice_media_bridge::simulator::wav::write(&samples)).expect("a file");
    let arguments = ["--speech", &speech, "--record", folder, "--relay", "127.0.0.1:24901"];
    let (code, output, _) = simulate("record", &webhook, &graph, &arguments);
    assert_eq!(code, Some(0), "{output}\n{}", server.log());
    let heard = std::fs::read(format!("{folder}/happy-1.wav")).expect("it was written");
    let heard = voice_media_bridge::simulator::wav::read(&heard).expect("a WAV file");
    assert!(heard.len() > 5 * 24_000, "{} samples", heard.len());
}

#[test]
fn webhooks_go_over_https_to_a_bridge_that_is_trusted() {
    let (authority, files) = (Authority::new("ours"), Files::new("simulator"));
    authority.issue(2090, &files);
    let graph = free_address().to_string();
    let tls = [("BRIDGE_TLS_CERT", &*files.path("cert.pem")), ("BRIDGE_TLS_KEY", &*files.path("key.pem"))];
    let server = bridge_with("https", &graph, "24240-24249", &tls);
    let webhook = format!("https://localhost:{}/webhooks/whatsapp", server.address().port());
    let (ca, arguments) = (files.path("ca.pem"), ["--scenario", "duplicate-connect", "--relay", "127.0.0.1:24905"]);
    let (code, output, _) = simulate("https", &webhook, &graph, &[&arguments[..], &["--ca", &ca]].concat());
    assert_eq!(code, Some(0), "{output}\n{}", server.log());
    let (code, output, _) = simulate("https", &webhook, &graph, &arguments);
    assert!(code == Some(1) && output.contains("authority that this machine does not trust"), "{output}");
}

#[test]
fn a_bridge_that_does_not_know_the_webhook_fails_with_what_it_said() {
    let server = start_with(&[("BRIDGE_AGENT", "builtin"), ("BRIDGE_MEDIA_PORTS", "24220-24229")]);
    let (graph, webhook) = (free_address().to_string(), format!("http://{}/webhooks/whatsapp", server.address()));
    let (code, output, report) = simulate("unknown", &webhook, &graph, &["--relay", "127.0.0.1:24902"]);
    assert_eq!(code, MISSED, "{output}");
    assert!(output.contains("it was answered 404") && output.contains("0 of 1 held"), "{output}");
    assert_eq!(report["scenarios"][0]["calls"][0]["endedBy"], "simulator", "{report}");
}

#[test]
fn calls_are_placed_on_demand_where_it_serves() {
    let address = free_address();
    let server = bridge("serve", &address.to_string(), "24250-24259");
    let webhook = format!("http://{}/webhooks/whatsapp", server.address());
    let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
    command.env_clear().envs(ACCOUNT).args(["simulate-whatsapp", "--serve", "--webhook", &webhook]);
    command.args(["--listen", &address.to_string(), "--relay", "127.0.0.1:24906"]);
    let simulator = Process::start(&mut command);
    poll_until("the simulator", || {
        if simulator.output().contains("listens on") { Ok(()) } else { Err(simulator.output()) }
    });
    let http = HttpClient::new(address);
    let wrong = http.post("/simulator/calls", &serde_json::json!({ "scenario": "nothing" }));
    assert_eq!(wrong.status, 400, "{}", wrong.body);
    assert_eq!(http.get("/simulator/nothing").status, 404);
    for name in ["missing-from", "other-events"] {
        let placed = http.post("/simulator/calls", &serde_json::json!({ "scenario": name }));
        assert_eq!((placed.status, &placed.json()["scenario"]), (200, &Value::from(name)), "{}", placed.body);
    }
    let report = poll_until("both scenarios", || {
        let report = http.get("/simulator/report").json();
        if report["ran"] == 2 { Ok(report) } else { Err(report.to_string()) }
    });
    assert_eq!(report["held"], 2, "{report}");
    let (status, output) = simulator.terminate(PATIENCE);
    assert!(status.success() && output.contains("2 of 2 held"), "{output}");
}

#[test]
fn a_webhook_that_nobody_takes_is_no_run() {
    let (graph, webhook) = (free_address().to_string(), format!("http://{}/webhook", free_address()));
    let (code, output, _) = simulate("nobody", &webhook, &graph, &["--relay", "127.0.0.1:24903"]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("error: no webhook is taken at") && output.contains("Connection refused"), "{output}");
}

#[test]
fn calls_of_a_bridge_that_was_killed_are_ended_at_meta_by_its_successor_whether_up_or_ringing() {
    let graph = free_address().to_string();
    let server = bridge("killed", &graph, "24230-24239");
    let webhook = format!("http://{}/webhooks/whatsapp", server.address());
    let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
    let path = format!("{}/simulator-killed.json", env!("CARGO_TARGET_TMPDIR"));
    command.env_clear().envs(ACCOUNT).args(["simulate-whatsapp", "--webhook", &webhook, "--listen", &graph]);
    command.args(["bridge-hangs-up"; 3].map(|name| ["--scenario", name]).concat());
    command.args(["no-udp"; 2].map(|name| ["--scenario", name]).concat());
    command.args(["--at-once", "5", "--relay", "127.0.0.1:24904", "--json", &path, "--verbose"]);
    let simulator = Process::start(&mut command);
    let before = poll_until("three calls to be up and two to ring", || {
        let output = simulator.output();
        let count = |said: &str| output.matches(said).count();
        if count("a voice is heard") == 3 && count("200: the phone rings") == 5 { Ok(output) } else { Err(output) }
    });
    assert!(!before.contains("200: the call is over"), "{before}");
    drop(server); // kills it: no word to Meta or to the relay
    let successor = bridge("killed", &graph, "24230-24239");
    let (status, output) = simulator.ended(Duration::from_secs(60));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("a report")).expect("JSON");
    let scenarios = report["scenarios"].as_array().expect("a list");
    let ended: Vec<&Value> = scenarios.iter().map(|scenario| &scenario["calls"][0]["endedBy"]).collect();
    assert_eq!(ended, ["bridge"; 5], "{output}\n{}", successor.log());
    // Webhooks still go to where the killed one was.
    let checks = scenarios.iter().flat_map(|scenario| scenario["checks"].as_array().expect("a list"));
    let missed =
        checks.filter(|check| check["held"] != true && check["text"] != "each webhook is answered 200 within 1 s");
    assert_eq!(missed.collect::<Vec<_>>(), Vec::<&Value>::new(), "{output}");
    // The successor may have been given the same port.
    let code = if not_held(&report).is_empty() { Some(0) } else { MISSED };
    assert_eq!((&report["strays"], status.code()), (&serde_json::json!([]), code), "{output}");
}

#[test]
fn what_cannot_work_is_said_in_a_sentence() {
    let long = format!("{}/simulator-long.wav", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&long, voice_media_bridge::simulator::wav::write(&vec![0; 61 * 24_000])).expect("a file");
    for (arguments, said) in [
        (&["--webhook", "https://198.41.0.4/hook"][..], "--allow-remote"),
        (&["--scenario", "nothing"], "--list shows those that are"),
        (&["--speech", "/does/not/exist.wav"], "does not exist"),
        (&["--speech", &long], "lasts longer than a minute"),
        (&["--record", "/does/not/exist"], "is no folder"),
        (&["--relay", "192.0.2.1:0"], "cannot reach each other"),
    ] {
        let (code, output) = run(&[&["simulate-whatsapp", "--listen", "127.0.0.1:0"], arguments].concat(), &[]);
        assert_eq!(code, Some(1), "{output}");
        assert!(output.starts_with("error: ") && output.contains(said), "{arguments:?}: {output}");
    }
    let (code, output) = run(&["simulate-whatsapp", "--list"], &[]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("happy") && output.contains("inferred"), "{output}");
}

#[test]
fn a_reader_that_has_seen_enough_ends_nothing() {
    let graph = free_address().to_string();
    let server = bridge("pipe", &graph, "24260-24269");
    let webhook = format!("http://{}/webhooks/whatsapp", server.address());
    for json in [&[][..], &["--json", "-"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
        command.env_clear().envs(ACCOUNT).args(["simulate-whatsapp", "--webhook", &webhook, "--listen", &graph]);
        command.args(["--scenario", "verification", "--verbose"]).args(json);
        let status = command.stdout(writer.try_clone().expect("a descriptor")).stderr(writer).status();
        assert_eq!(status.expect("it was started").code(), Some(0), "{json:?}");
    }
}

#[test]
fn the_demo_shows_a_call_and_its_record() {
    let heard = format!("{}/demo.wav", env!("CARGO_TARGET_TMPDIR"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
    let process = Process::start(command.env_clear().args(["demo", "--record", &heard]));
    let (status, output) = process.ended(Duration::from_secs(90));
    assert!(status.success(), "{output}");
    for said in [
        "says back",
        "bridge's record  state active",
        "uplink.appendedMs",
        "pre_accept",
        "the call is up",
        "the first audio",
        "hangs up",
        "callId",
        "It works",
    ] {
        assert!(output.contains(said), "{said}:\n{output}");
    }
    assert!(output.lines().all(|line| line.chars().count() <= 100), "{output}");
    let (code, short) = run(&["demo", "--seconds", "6"], &[]);
    assert!(code == Some(1) && short.contains("--seconds must be from 20 to 60"), "{short}");
    assert!(std::fs::metadata(&heard).is_ok_and(|file| file.len() > 100_000));
}
