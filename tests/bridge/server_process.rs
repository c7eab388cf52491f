//! The process around the calls: how it ends, how it says that it cannot start, and what it tells about its settings.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::pump::Pump;
use crate::relay::script::Script;
use crate::server_calls::{PATIENCE, apply, heard, poll_until, post, start};
use crate::support::process::Process;
use crate::voice::silence;

/// Workers get this long to end their calls; an orchestrator that sends SIGTERM waits for longer.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);

/// A secret that must not be shown.
const SECRET: &str = "canary-of-a-secret-0123456789";

/// Runs the binary with these arguments and settings and no others until it ends: its exit code and all that it printed.
pub(crate) fn run(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
    let mut process = Process::start(command.args(arguments).env_clear().envs(settings.iter().copied()));
    poll_until("the process to end", || process.try_wait().map(|_| ()).ok_or_else(|| process.output()));
    let (status, output) = process.terminate(PATIENCE);
    (status.code(), output)
}

fn stop_in_mid_call(io: &str, media_ports: &str) {
    let server = start(io, media_ports);
    let pump = Pump::start(3).expect("a relay");
    let (key, answer) = post(&server, &pump, "wacid.stop", Script::repeated(silence(Duration::from_secs(1))));
    apply(&pump, key, &answer);
    heard(&pump, key, 10);
    let asked = Instant::now();
    let (status, log) = server.stop();
    let time = asked.elapsed();
    println!("{io}: SIGTERM with a call up: exited after {time:?}");
    assert!(status.success(), "{status}:\n{log}");
    assert!(time < STOP_TIME_MAX, "{time:?}:\n{log}");
    pump.wait_for("the relay to be told", PATIENCE, move |relay, _| relay.record(key).and_then(|record| record.closed));
    assert!(log.contains("server_stopping"), "{log}");
}

#[test]
fn sigterm_ends_calls_with_a_word_to_their_relay_on_uring() {
    stop_in_mid_call("uring", "21510-21519");
}

#[test]
fn sigterm_ends_calls_with_a_word_to_their_relay_on_epoll() {
    stop_in_mid_call("epoll", "21520-21529");
}

#[test]
fn a_second_server_on_a_port_says_so_in_one_line_and_fails() {
    let server = start("auto", "21530-21539");
    let address = server.address().to_string();
    let (code, output) = run(&[], &[("BRIDGE_LISTEN", &address), ("BRIDGE_AGENT", "builtin")]);
    assert_eq!(code, Some(1), "{output}");
    let errors: Vec<&str> = output.lines().filter(|line| line.starts_with("error:")).collect();
    let [error] = errors[..] else { panic!("not one error:\n{output}") };
    assert!(error.contains(&address) && error.contains("BRIDGE_LISTEN") && error.contains("in use"), "{error}");
    assert!(!output.contains("panicked"), "{output}");
    assert_eq!(server.http().get("/health").status, 200, "the first is not disturbed");
}

#[test]
fn check_config_prints_the_settings_and_hides_the_secrets() {
    let settings = [
        ("BRIDGE_LISTEN", "127.0.0.1:0"),
        ("BRIDGE_MEDIA_IP", "127.0.0.1"),
        ("BRIDGE_MEDIA_PORTS", "21540-21549"),
        ("BRIDGE_API_TOKEN", SECRET),
        ("OPENAI_API_KEY", SECRET),
        ("BRIDGE_EVENTS_TOKEN", SECRET),
        ("BRIDGE_EVENTS_URL", &format!("https://hooks.example/calls?key={SECRET}")),
    ];
    let (code, output) = run(&["check-config", "--offline"], &settings);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.lines().last().is_some_and(|line| line.starts_with("ok")), "{output}");
    assert!(!output.contains(SECRET), "{output}");
    for name in ["BRIDGE_API_TOKEN", "OPENAI_API_KEY", "BRIDGE_EVENTS_TOKEN", "BRIDGE_EVENTS_URL"] {
        let line = output.lines().find(|line| line.starts_with(name)).expect("a line for each setting");
        assert!(line.contains("(hidden)"), "{line}");
    }
    assert!(output.contains("21540-21549"), "{output}");
}

#[test]
fn check_config_fails_on_nonsense_and_names_the_setting() {
    let cases = [
        ("BRIDGE_MEDIA_PORTS", "9-1"),
        ("BRIDGE_MEDIA_IP", "0.0.0.0"),
        ("BRIDGE_WORKERS", "0"),
        ("BRIDGE_MAX_CALLS", "0"),
        ("BRIDGE_MAX_DURATION_SEC", "1"),
        ("BRIDGE_DRAIN_SEC", "86401"),
        ("BRIDGE_AGENT_CHECK_LISTEN", "somewhere"),
        ("BRIDGE_OPUS_COMPLEXITY", "11"),
        ("BRIDGE_START_DELAY_MS", "60000"),
        ("BRIDGE_LOG", "=loud="),
        ("BRIDGE_API_TOKEN", "secret canary"),
        ("OPENAI_REALTIME_URL", "ws://model.example/v1/realtime"),
        ("BRIDGE_EVENTS_URL", "http://hooks.example/calls"),
        ("BRIDGE_EVENTS_TOKEN", "secret canary"),
        ("BRIDGE_AGENT", "nobody"),
        ("BRIDGE_IO", "kqueue"),
        ("BRIDGE_LISTEN", "somewhere"),
    ];
    for (name, value) in cases {
        let mut settings = vec![("BRIDGE_LISTEN", "127.0.0.1:0"), ("OPENAI_API_KEY", SECRET)];
        settings.push((name, value));
        let (code, output) = run(&["check-config"], &settings);
        assert!(code.is_some_and(|code| code != 0), "{name}={value} was taken:\n{output}");
        let flag = name.trim_start_matches("BRIDGE_").to_ascii_lowercase().replace('_', "-");
        assert!(output.contains(name) || output.contains(&format!("--{flag}")), "{name} is not named:\n{output}");
        assert!(!output.contains("canary") && !output.contains("panicked"), "{output}");
    }
}

#[test]
fn a_switch_may_be_one_or_true() {
    for (name, shown) in [("BRIDGE_ALLOW_PRIVATE", "true"), ("BRIDGE_NO_PAGE", "true")] {
        for value in ["1", "true", "yes"] {
            let (code, output) = run(&["check-config"], &[("BRIDGE_LISTEN", "127.0.0.1:0"), (name, value)]);
            assert_eq!(code, Some(0), "{name}={value}:\n{output}");
            let line = output.lines().find(|line| line.starts_with(name)).expect("a line for each setting");
            assert!(line.contains(&format!(" {shown} ")) && line.ends_with("(environment)"), "{name}={value}: {line}");
        }
    }
    let model = [("BRIDGE_LISTEN", "127.0.0.1:0"), ("OPENAI_REALTIME_URL", "ws://model.example/v1/realtime")];
    let allowed = [&model[..], &[("BRIDGE_ALLOW_PLAINTEXT_MODEL", "1")]].concat();
    let (code, output) = run(&["check-config", "--offline"], &allowed);
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn the_help_names_the_variable_of_every_setting() {
    let (code, output) = run(&["--help"], &[("BRIDGE_API_TOKEN", SECRET), ("OPENAI_API_KEY", SECRET)]);
    assert_eq!(code, Some(0), "{output}");
    for name in [
        "BRIDGE_LISTEN",
        "PORT",
        "BRIDGE_API_TOKEN",
        "BRIDGE_API_TOKEN_FILE",
        "BRIDGE_TLS_CERT",
        "BRIDGE_TLS_KEY",
        "BRIDGE_MEDIA_IP",
        "BRIDGE_MEDIA_PORTS",
        "BRIDGE_ALLOW_PRIVATE",
        "BRIDGE_WORKERS",
        "BRIDGE_IO",
        "BRIDGE_EVENTS_URL",
        "BRIDGE_EVENTS_TOKEN",
        "BRIDGE_EVENTS_TOKEN_FILE",
        "CREDENTIALS_DIRECTORY",
        "BRIDGE_AGENT",
        "BRIDGE_MAX_CALLS",
        "BRIDGE_DRAIN_SEC",
        "BRIDGE_AGENT_CHECK_LISTEN",
        "BRIDGE_LOG",
        "BRIDGE_LOG_FORMAT",
        "OPENAI_API_KEY",
        "OPENAI_API_KEY_FILE",
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
        "OPENAI_REALTIME_MODEL",
        "OPENAI_REALTIME_URL",
    ] {
        assert!(output.contains(&format!("[env: {name}")), "{name} is not named:\n{output}");
    }
    assert!(!output.contains(SECRET), "{output}");
}

#[test]
fn listening_beyond_loopback_needs_a_token() {
    let (code, output) = run(&[], &[("BRIDGE_LISTEN", "0.0.0.0:0"), ("BRIDGE_AGENT", "builtin")]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.starts_with("error: BRIDGE_API_TOKEN"), "{output}");
    assert_eq!(output.lines().count(), 1, "{output}");
}

#[test]
fn a_variable_that_is_set_to_nothing_counts_as_not_set() {
    let names = ["PORT", "OPENAI_API_KEY", "BRIDGE_MAX_CALLS", "BRIDGE_NO_PAGE", "BRIDGE_MEDIA_IP", "BRIDGE_API_TOKEN"];
    let mut settings = vec![("BRIDGE_LISTEN", "127.0.0.1:0")];
    settings.extend(names.map(|name| (name, "")));
    let (code, output) = run(&["check-config"], &settings);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("BRIDGE_AGENT               builtin"), "{output}");
}
