//! `voice-media-bridge check-config` as a user runs it: on a machine that will do, and with one thing wrong at a time.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use serde_json::Value;

use crate::server_calls::{poll_until, start_with};
use crate::server_process::run;
use crate::support::http_server::{Asked, HttpServer};
use crate::support::https_client::{Authority, Files};
use crate::support::process::Process;
use crate::support::server::{Server, free_address};

/// A secret that must not be shown.
const SECRET: &str = "canary-of-a-secret-0123456789";

/// What a machine without a model needs to pass.
const PLAIN: [(&str, &str); 3] =
    [("BRIDGE_LISTEN", "127.0.0.1:0"), ("BRIDGE_AGENT", "builtin"), ("BRIDGE_MEDIA_PORTS", "22650-22659")];

/// The exit code, all that was printed, and the verdicts by name.
fn check(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String, Vec<Value>) {
    let (code, output) = run(&[&["check-config", "--json"], arguments].concat(), settings);
    assert!(!output.contains(SECRET) && !output.contains("panicked"), "{output}");
    let report: Value = serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}:\n{output}"));
    (code, output, report["checks"].as_array().expect("a list").clone())
}

/// One verdict: outcome, what was found, what to do.
#[track_caller]
fn verdict(checks: &[Value], name: &str) -> (String, String, String) {
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("nothing is said about {name}: {checks:#?}"));
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    (text("outcome"), text("found"), text("advice"))
}

#[test]
fn a_machine_that_will_do_is_told_so_a_line_for_each_check() {
    let (code, output) = run(&["check-config"], &PLAIN);
    assert_eq!(code, Some(0), "{output}");
    for line in ["HTTP API:", "Media:", "Capacity:", "Checks:"] {
        assert!(output.lines().any(|each| each == line), "{line} is not in\n{output}");
    }
    for name in ["io_uring", "cores", "api_port", "media_ports", "media_address", "model"] {
        let is_ok = |line: &str| line.starts_with("ok ") && line.split_whitespace().nth(1) == Some(name);
        let is_warned = |line: &str| line.starts_with("warn ") && line.split_whitespace().nth(1) == Some(name);
        assert!(output.lines().any(|line| is_ok(line) || is_warned(line)), "{name} is not in\n{output}");
    }
    assert!(output.contains("22650-22659                      (environment)"), "{output}");
    let flag = run(&["check-config", "--offline", "--media-ports", "22650-22658"], &PLAIN).1;
    assert!(flag.contains("22650-22658                      (--media-ports)"), "{flag}");
}

#[test]
fn a_running_bridge_on_the_port_is_well_and_a_stranger_is_a_failure() {
    let server = start_with(&[("BRIDGE_AGENT", "builtin"), ("BRIDGE_MEDIA_PORTS", "22660-22669")]);
    let address = server.address().to_string();
    let settings =
        |listen| [("BRIDGE_LISTEN", listen), ("BRIDGE_AGENT", "builtin"), ("BRIDGE_MEDIA_PORTS", "22660-22669")];
    let (code, output, checks) = check(&[], &settings(&address));
    assert_eq!(code, Some(0), "{output}");
    let (outcome, found, _) = verdict(&checks, "api_port");
    assert!(outcome == "ok" && found.contains("a voice-media-bridge runs there with 0 calls"), "{found}");

    let stranger = HttpServer::start(|_: &Asked| (404, "nothing here".into()));
    let address = stranger.address().to_string();
    let (code, output, checks) = check(&[], &settings(&address));
    assert_eq!(code, Some(1), "{output}");
    let (outcome, found, advice) = verdict(&checks, "api_port");
    assert!(outcome == "fail" && found.contains(&address), "{found}");
    assert!(advice.contains("ss -ltnp") && advice.contains("BRIDGE_LISTEN"), "{advice}");
}

#[test]
fn media_ports_of_another_program_are_a_failure_when_none_is_left() {
    // The kernel's choice, so that tests side by side do not meet.
    let busy = UdpSocket::bind("0.0.0.0:0").expect("a port");
    let port = busy.local_addr().expect("bound").port();
    let range = format!("{port}-{port}");
    let settings = [PLAIN[0], PLAIN[1], ("BRIDGE_MEDIA_PORTS", range.as_str()), ("BRIDGE_WORKERS", "1")];
    let (code, output, checks) = check(&[], &settings);
    assert_eq!(code, Some(1), "{output}");
    let (outcome, found, advice) = verdict(&checks, "media_ports");
    assert!(outcome == "fail" && found.contains(&port.to_string()) && advice.contains("ss -lunp"), "{found} {advice}");
}

#[test]
fn a_model_that_is_not_there_fails_at_the_step_and_offline_does_not_ask() {
    let free = free_address();
    let url = format!("ws://{free}/v1/realtime");
    let settings = [PLAIN[0], PLAIN[2], ("OPENAI_REALTIME_URL", url.as_str()), ("OPENAI_API_KEY", SECRET)];
    let (code, output, checks) = check(&[], &settings);
    assert_eq!(code, Some(1), "{output}");
    assert_eq!(verdict(&checks, "model_dns").0, "ok");
    let (outcome, found, advice) = verdict(&checks, "model_tcp");
    assert!(outcome == "fail" && found.contains("refused"), "{found}");
    assert!(advice.contains(&format!("nc -vz 127.0.0.1 {}", free.port())), "{advice}");
    let (code, output, checks) = check(&["--offline"], &settings);
    assert_eq!(code, Some(0), "{output}");
    assert!(!checks.iter().any(|check| check["name"] == "model_tcp"), "{output}");

    let nowhere = [settings[0], settings[1], ("OPENAI_REALTIME_URL", "wss://nowhere.invalid/v1/realtime"), settings[3]];
    let (code, output, checks) = check(&[], &nowhere);
    assert_eq!(code, Some(1), "{output}");
    let (outcome, found, advice) = verdict(&checks, "model_dns");
    assert!(
        outcome == "fail" && found.contains("nowhere.invalid") && advice.contains("getent hosts"),
        "{found} {advice}"
    );
}

#[test]
fn the_key_is_shown_to_the_model_only_when_asked_to_and_a_refusal_is_told_as_one() {
    let model = HttpServer::start(|_: &Asked| (401, r#"{"error":{"message":"no such key"}}"#.into()));
    let url = format!("ws://{}/v1/realtime", model.address());
    let settings = [PLAIN[0], PLAIN[2], ("OPENAI_REALTIME_URL", url.as_str()), ("OPENAI_API_KEY", SECRET)];
    let (code, output, checks) = check(&[], &settings);
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(verdict(&checks, "model_tcp").0, "ok");
    assert!(model.asked().is_empty(), "a connection, and no request");

    let (code, output, checks) = check(&["--deep"], &settings);
    assert_eq!(code, Some(1), "{output}");
    let (outcome, _, advice) = verdict(&checks, "model_session");
    assert!(outcome == "fail" && advice.contains("the key is refused"), "{advice}");
    let asked = model.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), Some(format!("Bearer {SECRET}").as_str()));
}

#[test]
fn a_session_that_opens_is_closed_again() {
    let address = free_address().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
    let agent = Process::start(command.env_clear().args(["agent", "--listen", &address]));
    poll_until("the agent", || agent.output().contains("listens on").then_some(()).ok_or_else(|| agent.output()));
    let url = format!("ws://{address}/v1/realtime");
    let (code, output, checks) = check(&["--deep"], &[PLAIN[0], PLAIN[2], ("OPENAI_REALTIME_URL", url.as_str())]);
    assert_eq!(code, Some(0), "{output}");
    let (outcome, found, _) = verdict(&checks, "model_session");
    assert!(outcome == "ok" && found.contains("opened and closed"), "{found}");
}

#[test]
fn a_warning_fails_only_where_that_is_asked_for() {
    // A receiver of events that nobody started: calls go on without it.
    let url = format!("http://{}/", free_address());
    let settings = [&PLAIN[..], &[("BRIDGE_EVENTS_URL", url.as_str())]].concat();
    let (code, output, checks) = check(&[], &settings);
    assert_eq!((code, verdict(&checks, "events").0.as_str()), (Some(0), "warn"), "{output}");
    let (code, output, _) = check(&["--strict"], &settings);
    assert_eq!(code, Some(1), "{output}");
    let (code, output) = run(&["check-config"], &settings);
    let last = output.lines().last().unwrap_or_default();
    assert!(code == Some(0) && last.starts_with("ok, ") && last.contains("warning"), "{output}");
}

#[test]
fn a_pair_that_is_none_is_a_failure_and_its_file_is_named() {
    let (authority, files) = (Authority::new("ours"), Files::new("check-tls"));
    authority.issue(2090, &files);
    let (certificate, key) = (files.path("cert.pem"), files.path("key.pem"));
    let tls = [("BRIDGE_TLS_CERT", certificate.as_str()), ("BRIDGE_TLS_KEY", key.as_str())];
    let settings = [&PLAIN[..], &tls].concat();
    let (code, output, checks) = check(&["--offline"], &settings);
    let (outcome, found, _) = verdict(&checks, "tls_files");
    assert!(code == Some(0) && outcome != "fail" && !found.is_empty(), "{output}");

    // The key of another certificate.
    let other = Files::new("check-tls-other");
    authority.issue(2090, &other);
    files.write("key.pem", &std::fs::read_to_string(other.path("key.pem")).expect("a key"));
    let (code, output, checks) = check(&["--offline"], &settings);
    assert_eq!(code, Some(1), "{output}");
    let (outcome, found, advice) = verdict(&checks, "tls_files");
    assert!(outcome == "fail" && found.contains(&key), "{found}");
    assert!(advice.contains("openssl x509") && advice.contains(&certificate), "{advice}");
}

#[test]
fn a_secrets_file_is_told_with_its_permissions_and_one_that_is_not_there_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new("check-secret");
    files.write("key", SECRET);
    let path = files.path("key");
    let model = free_address();
    let url = format!("ws://{model}/");
    let settings = [PLAIN[0], PLAIN[2], ("OPENAI_REALTIME_URL", url.as_str()), ("OPENAI_API_KEY_FILE", path.as_str())];
    for (mode, expected) in [(0o600, "ok"), (0o644, "warn")] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
        let (code, output, checks) = check(&["--offline"], &settings);
        assert_eq!(code, Some(0), "{output}");
        let (outcome, found, advice) = verdict(&checks, "secret_api_key");
        assert!(outcome == expected && found.contains(&path), "{found}");
        assert_eq!(advice.contains("chmod 0600"), mode == 0o644, "{advice}");
    }
    let nowhere = [settings[0], settings[1], settings[2], ("OPENAI_API_KEY_FILE", "/nowhere/key")];
    let (code, output) = run(&["check-config", "--offline"], &nowhere);
    assert!(code == Some(1) && output.contains("OPENAI_API_KEY_FILE") && output.contains("/nowhere/key"), "{output}");
}

#[test]
fn the_installed_services_settings_are_taken_instead_of_the_shells() {
    let files = Files::new("check-installed");
    std::fs::create_dir(files.path("credentials")).expect("a folder");
    files.write("credentials/api-token", &format!("{SECRET}\n"));
    files.write(
        "voice-media-bridge.env",
        "# the service's\nBRIDGE_LISTEN=127.0.0.1:0\nBRIDGE_MEDIA_PORTS=\"22680-22689\"\n",
    );
    let installed = format!("--installed={}", files.path(""));
    let shell = [("BRIDGE_MEDIA_PORTS", "nonsense"), ("OPENAI_API_KEY", "of-the-shell")];
    let (code, output) = run(&["check-config", &installed, "--offline"], &shell);
    assert_eq!(code, Some(0), "{output}");
    assert!(
        output.contains("22680-22689") && output.contains("credentials/api-token") && !output.contains(SECRET),
        "{output}"
    );
    assert!(output.contains("BRIDGE_AGENT               builtin"), "{output}");

    let (code, output) = run(&["check-config", "--installed=/nowhere"], &[]);
    assert!(code == Some(1) && output.contains("--installed"), "{output}");
}

#[test]
fn an_address_that_no_caller_reaches_is_a_failure_beyond_this_host() {
    let beyond = [("BRIDGE_LISTEN", "0.0.0.0:0"), ("BRIDGE_API_TOKEN", SECRET), PLAIN[1], PLAIN[2]];
    let (code, output, checks) = check(&[], &[&beyond[..], &[("BRIDGE_MEDIA_IP", "127.0.0.1")]].concat());
    assert_eq!(code, Some(1), "{output}");
    let (outcome, _, advice) = verdict(&checks, "media_address");
    assert!(outcome == "fail" && advice.contains("BRIDGE_MEDIA_IP"), "{advice}");
}

#[test]
fn what_is_looked_at_is_left_as_it_was() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let listen = address.to_string();
    let settings = [("BRIDGE_LISTEN", listen.as_str()), PLAIN[1], ("BRIDGE_MEDIA_PORTS", "22670-22679")];
    let (_, output, checks) = check(&[], &settings);
    assert_eq!(verdict(&checks, "api_port").0, "ok", "{output}");
    assert_eq!(verdict(&checks, "media_ports").1, "UDP 22670-22679: all 10 are free");
    // The same ports serve a bridge at once.
    let server = Server::start(&[PLAIN[1], ("BRIDGE_MEDIA_PORTS", "22670-22679")]);
    assert_eq!(server.http().get("/health").status, 200);
}
