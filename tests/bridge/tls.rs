//! The API over TLS on the real process: calls, certificates and tokens that change under them, clients that mean harm.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::pump::Pump;
use crate::relay::script::Script;
use crate::server_calls::{apply, heard, poll_until, session_request, start_with};
use crate::server_process::run;
use crate::support::https_client::{Authority, Files, HttpsClient};
use crate::support::server::{Server, free_address};
use crate::voice::silence;

const TOKEN: &str = "canary-token-of-the-webhook";
const OTHER: &str = "canary-token-of-the-people";
const NEW: &str = "canary-token-that-is-newer";

/// Waits longer than the server does for a handshake.
const STALLED: Duration = Duration::from_secs(15);

/// A server with the certificate and the tokens of these files.
fn secure(io: &str, media_ports: &str, files: &Files) -> Server {
    start_with(&[
        ("BRIDGE_IO", io),
        ("BRIDGE_MEDIA_PORTS", media_ports),
        ("BRIDGE_AGENT", "builtin"),
        ("BRIDGE_TLS_CERT", &files.path("cert.pem")),
        ("BRIDGE_TLS_KEY", &files.path("key.pem")),
        ("BRIDGE_API_TOKEN_FILE", &files.path("tokens")),
    ])
}

fn hang_up_signal(server: &Server) {
    let sent = Command::new("sh").args(["-c", &format!("kill -HUP {}", server.id())]).status();
    assert!(sent.expect("there is a shell").success(), "the process is ours");
}

/// The value of a sample of `/metrics`.
fn metric(client: &mut HttpsClient, name: &str) -> Option<String> {
    let body = client.request("GET", "/metrics", None).body;
    body.lines().find_map(|line| line.strip_prefix(&format!("voice_media_bridge_{name} ")).map(str::to_owned))
}

fn connect(server: SocketAddr, authority: &Authority) -> HttpsClient {
    HttpsClient::connect(server, authority).expect("a server with a certificate of this authority")
}

/// Makes a call over https that is heard, and returns its key.
fn call(client: &mut HttpsClient, pump: &Pump, id: &str) -> crate::relay::CallKey {
    let script = Script::repeated(silence(Duration::from_secs(1)));
    let (key, offer) = pump.with(move |relay, now| relay.offer(now, script));
    let response = client.request("POST", "/api/sessions", Some(&session_request(id, &offer)));
    assert_eq!(response.status, 200, "{}", response.body);
    apply(pump, key, response.json()["sdpAnswer"].as_str().expect("an answer"));
    heard(pump, key, 20);
    key
}

fn a_call_over_https(io: &str, media_ports: &str) {
    let (authority, files) = (Authority::new("ours"), Files::new(&format!("https-{io}")));
    authority.issue(2090, &files);
    files.write("tokens", &format!("# the webhook's\n{TOKEN}\n{OTHER} # people's\n"));
    let server = secure(io, media_ports, &files);
    let pump = Pump::start(61).expect("a relay");
    let mut client = connect(server.address(), &authority).with_token(TOKEN);
    call(&mut client, &pump, "wacid.tls");
    let sessions = client.request("GET", "/api/sessions", None);
    assert_eq!((sessions.status, &sessions.json()["count"]), (200, &json!(1)));
    assert_eq!(metric(&mut client, "tls_handshakes_total{outcome=\"full\"}").as_deref(), Some("1"));
    assert_eq!(metric(&mut client, "tls_certificate_not_after_seconds").as_deref(), Some("3818361600"));

    let mut other = connect(server.address(), &authority).with_token(OTHER);
    assert_eq!(other.request("DELETE", "/api/sessions/wacid.tls", None).status, 200, "another token of the file");
    let mut nobody = connect(server.address(), &authority);
    assert_eq!(nobody.request("GET", "/api/sessions", None).status, 401);
    assert!(HttpsClient::connect(server.address(), &Authority::new("another")).is_err(), "not their certificate");

    assert!(client.ends_cleanly(), "with the end of TLS before that of the stream");

    let plain = server.http().get("/health");
    assert_eq!((plain.status, &plain.json()["code"]), (400, &json!("tls_required")));
    assert!(plain.body.contains("https://"), "{}", plain.body);

    let (status, log) = server.stop();
    assert!(status.success(), "{status}:\n{log}");
    assert!(log.contains("https://") && !log.contains("canary"), "{log}");
}

#[test]
fn a_call_is_made_and_ended_over_https_on_uring() {
    a_call_over_https("uring", "21810-21819");
}

#[test]
fn a_call_is_made_and_ended_over_https_on_epoll() {
    a_call_over_https("epoll", "21820-21829");
}

#[test]
fn sighup_brings_another_certificate_and_tokens_under_a_live_call() {
    let (old, new, files) = (Authority::new("old"), Authority::new("new"), Files::new("sighup"));
    old.issue(2090, &files);
    files.write("tokens", TOKEN);
    let server = secure("auto", "21830-21839", &files);
    let pump = Pump::start(62).expect("a relay");
    let mut kept = connect(server.address(), &old).with_token(TOKEN);
    let key = call(&mut kept, &pump, "wacid.sighup");

    new.issue(2091, &files);
    files.write("tokens", &format!("{NEW}\n{OTHER}\n"));
    hang_up_signal(&server);
    poll_until("the new tokens", || match kept.request("GET", "/api/sessions", None).status {
        401 => Ok(()),
        status => Err(format!("the old token is answered {status}")),
    });
    let mut kept = kept.with_token(NEW);
    assert_eq!(kept.request("GET", "/api/sessions", None).json()["count"], 1, "the kept connection goes on");
    let mut fresh = connect(server.address(), &new).with_token(NEW);
    assert_eq!(metric(&mut fresh, "reloads_total{outcome=\"ok\"}").as_deref(), Some("1"));
    assert_eq!(metric(&mut fresh, "tls_certificate_not_after_seconds").as_deref(), Some("3849897600"));
    assert!(HttpsClient::connect(server.address(), &old).is_err(), "the old certificate is gone");
    let before = heard(&pump, key, 1).received.len();
    heard(&pump, key, before + 20);

    // A key that is another's, and no token at all: what was in use stays.
    let good = std::fs::read_to_string(files.path("key.pem")).expect("it was written");
    old.issue(2092, &files);
    files.write("key.pem", &good);
    files.write("tokens", "# none yet\n");
    hang_up_signal(&server);
    poll_until("the failed reload", || match metric(&mut kept, "reloads_total{outcome=\"failed\"}").as_deref() {
        Some("1") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let mut again = connect(server.address(), &new).with_token(NEW);
    assert_eq!(again.request("GET", "/api/sessions", None).json()["count"], 1);
    let before = heard(&pump, key, 1).received.len();
    heard(&pump, key, before + 20);

    assert_eq!(kept.request("DELETE", "/api/sessions/wacid.sighup", None).status, 200);
    let (status, log) = server.stop();
    assert!(status.success(), "{status}:\n{log}");
    for told in ["new connections get it", "BRIDGE_TLS_KEY", "does not match the certificate", "holds no token"] {
        assert!(log.contains(told), "{told} is not told in\n{log}");
    }
    assert!(!log.contains("canary"), "{log}");
}

#[test]
fn sighup_with_nothing_to_read_again_is_harmless_and_says_so() {
    let server = start_with(&[("BRIDGE_MEDIA_PORTS", "21840-21849"), ("BRIDGE_AGENT", "builtin")]);
    hang_up_signal(&server);
    let sample = "voice_media_bridge_reloads_total{outcome=\"nothing\"} 1";
    poll_until("the reload", || {
        let metrics = server.http().get("/metrics").body;
        if metrics.lines().any(|line| line == sample) { Ok(()) } else { Err("not yet".into()) }
    });
    let (status, log) = server.stop();
    assert!(status.success(), "{status}:\n{log}");
    assert!(log.contains("nothing to read again") && log.contains("BRIDGE_TLS_CERT"), "{log}");
}

#[test]
fn a_thousand_stalled_handshakes_do_not_keep_an_honest_client_out() {
    let (authority, files) = (Authority::new("ours"), Files::new("stalled"));
    authority.issue(2090, &files);
    files.write("tokens", TOKEN);
    let server = secure("auto", "21850-21859", &files);
    let stalled: Vec<TcpStream> = (0..1000)
        .map(|number| {
            let mut stream = TcpStream::connect(server.address()).expect("the server listens");
            // The head of a hello and part of it, or nothing at all.
            let part: &[u8] = if number % 4 == 0 { b"" } else { b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" };
            stream.write_all(part).expect("a small write");
            stream
        })
        .collect();
    let pump = Pump::start(63).expect("a relay");
    let mut client = connect(server.address(), &authority).with_token(TOKEN);
    call(&mut client, &pump, "wacid.honest");
    assert_eq!(client.request("DELETE", "/api/sessions/wacid.honest", None).status, 200);
    for mut stream in stalled {
        stream.set_read_timeout(Some(STALLED)).expect("a time");
        let end = stream.read(&mut [0]);
        assert!(matches!(end, Ok(0)) || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    }
    poll_until("the stalled ones to be forgotten", || {
        match metric(&mut connect(server.address(), &authority).with_token(TOKEN), "http_connections") {
            Some(count) if count.parse::<u32>().is_ok_and(|count| count < 10) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn the_commands_speak_https_to_a_bridge_that_they_trust() {
    let (authority, files) = (Authority::new("ours"), Files::new("commands"));
    authority.issue(2090, &files);
    files.write("tokens", &format!("{TOKEN}\n{OTHER}\n"));
    let server = secure("auto", "21860-21889", &files);
    let url = format!("https://localhost:{}", server.address().port());
    let (ca, tokens) = (files.path("ca.pem"), files.path("tokens"));
    let settings = [("BRIDGE_URL", url.as_str()), ("BRIDGE_API_TOKEN_FILE", tokens.as_str())];
    for command in [&["top", "--once"][..], &["latency"]] {
        let (code, output) = run(&[command, &["--ca", &ca]].concat(), &settings);
        assert_eq!(code, Some(0), "{output}");
        let (code, output) = run(command, &settings);
        assert!(code == Some(1) && output.contains("authority that this machine does not trust"), "{output}");
    }
    let report = files.path("report.json");
    let load = ["load", "--calls", "4", "--rate", "50", "--duration", "1", "--json", &report];
    let (code, output) = run(&[&load[..], &["--ca", &ca, "--max-refused-percent", "0"]].concat(), &settings);
    assert_eq!(code, Some(0), "{output}");
    let text = std::fs::read_to_string(&report).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("a report");
    assert_eq!(report["calls"]["connected"], 4, "{report}");
    let (code, output) = run(&load, &settings);
    assert!(code == Some(3) && output.contains("authority that this machine does not trust"), "{output}");
    let plain = format!("http://{}", server.address());
    let (code, output) = run(&["top", "--once", "--url", &plain], &settings);
    assert!(code == Some(1) && output.contains("https"), "{output}");
    let (code, output) = run(&["latency", "--ca", &files.path("none.pem")], &settings);
    assert!(code == Some(1) && output.contains("--ca") && output.contains("does not exist"), "{output}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_an_error_that_says_what_to_do() {
    let (authority, files) = (Authority::new("ours"), Files::new("unusable"));
    authority.issue(2090, &files);
    let (cert, key, ca) = (files.path("cert.pem"), files.path("key.pem"), files.path("ca.pem"));
    let listen = free_address().to_string();
    let check = |cert: &str, key: &str| {
        let settings = [("BRIDGE_LISTEN", listen.as_str()), ("BRIDGE_TLS_CERT", cert), ("BRIDGE_TLS_KEY", key)];
        run(&["check-config"], &settings)
    };
    let (code, output) = check(&cert, &key);
    assert_eq!(code, Some(0), "{output}");
    for (bad_cert, bad_key, said) in [
        (cert.as_str(), "", "BRIDGE_TLS_KEY"),
        (&cert, &cert, "swapped"),
        (&ca, &key, "does not match"),
        ("/nowhere.pem", &key, "does not exist"),
    ] {
        for command in [&["check-config"][..], &[]] {
            let settings =
                [("BRIDGE_LISTEN", listen.as_str()), ("BRIDGE_TLS_CERT", bad_cert), ("BRIDGE_TLS_KEY", bad_key)];
            let (code, output) = run(command, &settings);
            assert_eq!(code, Some(1), "{output}");
            assert!(output.contains(said) && output.contains("BRIDGE_TLS_"), "{said} is not in\n{output}");
        }
    }
    authority.issue(2021, &files);
    let (code, output) = check(&cert, &key);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("expired on 2021-12-31"), "{output}");
}

#[test]
fn check_config_says_where_secrets_came_from_and_refuses_them_twice() {
    let files = Files::new("secrets");
    files.write("tokens", &format!("{TOKEN}\n{OTHER}\n"));
    files.write("credentials_openai-api-key", "canary-key\n");
    let (tokens, folder) = (files.path("tokens"), files.path(""));
    let settings = [
        ("BRIDGE_LISTEN", "127.0.0.1:0"),
        ("BRIDGE_API_TOKEN_FILE", tokens.as_str()),
        ("CREDENTIALS_DIRECTORY", folder.as_str()),
    ];
    let (code, output) = run(&["check-config", "--offline"], &settings);
    assert_eq!(code, Some(0), "{output}");
    let line = |name: &str| output.lines().find(|line| line.starts_with(name)).expect("a line for each setting");
    assert!(line("BRIDGE_API_TOKEN").contains(&tokens) && output.contains("2 tokens"), "{output}");
    assert!(line("OPENAI_API_KEY").contains("credentials_openai-api-key"), "{output}");
    assert!(!output.contains("canary"), "{output}");
    let (code, output) = run(&[], &[&settings[..], &[("BRIDGE_API_TOKEN", TOKEN)]].concat());
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("BRIDGE_API_TOKEN_FILE") && output.contains("BRIDGE_API_TOKEN (--api-token)"), "{output}");
}
