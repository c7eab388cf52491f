//! `voice-media-bridge doctor` as a user runs it: against bridges that are well, and against what is broken at one step.

use serde_json::{Value, json};

use crate::server_calls::start_with;
use crate::server_process::run;
use crate::support::http_server::{Asked, HttpServer};
use crate::support::https_client::{Authority, Files};
use crate::support::server::{Server, free_address};

const TOKEN: &str = "canary-token-3c55c1f0aa";

/// Exit code of a call that failed at a step.
const FAILED: Option<i32> = Some(3);

/// The doctor's settings on a machine whose bridge advertises loopback.
const HERE: [(&str, &str); 2] = [("BRIDGE_MEDIA_IP", "127.0.0.1"), ("BRIDGE_API_TOKEN", TOKEN)];

fn doctor(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let (code, output) = run(&[&["doctor", "--seconds", "1"], arguments].concat(), settings);
    assert!(!output.contains("panicked") && !output.contains(TOKEN), "{output}");
    (code, output)
}

fn bridge(media_ports: &str, settings: &[(&str, &str)]) -> Server {
    start_with(&[&[("BRIDGE_MEDIA_PORTS", media_ports), ("BRIDGE_API_TOKEN", TOKEN)], settings].concat())
}

/// Every step is well. Only a machine that is too busy to keep the beat may say so: whether it is, is not this test's.
#[track_caller]
fn is_well((code, output): &(Option<i32>, String)) {
    let stalled = ["flow", "timing"].iter().any(|name| step(output, name).starts_with("FAILED"));
    assert!(*code == Some(0) || *code == FAILED && stalled, "{output}");
    for name in [
        "dns", "tcp", "token", "ready", "offer", "answer", "stun", "ice", "dtls", "media", "voice", "speech", "hangup",
        "record",
    ] {
        assert!(step(output, name).starts_with("ok "), "{output}");
    }
}

/// The line of a step, those below it included.
#[track_caller]
fn step<'a>(output: &'a str, name: &str) -> &'a str {
    let is_it = |line: &str| {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("ok" | "FAILED") => words.next() == Some(name),
            Some("not") => words.nth(1) == Some(name),
            _ => false,
        }
    };
    let line = output.lines().find(|line| is_it(line)).unwrap_or_else(|| panic!("{name} is not in\n{output}"));
    let start = line.as_ptr() as usize - output.as_ptr() as usize;
    let rest = &output[start..];
    let mut end = 0;
    for (n, line) in rest.split_inclusive('\n').enumerate() {
        if n > 0 && !line.starts_with(' ') {
            break;
        }
        end += line.len();
    }
    &rest[..end]
}

#[test]
fn every_step_of_a_call_to_a_bridge_that_is_well_is_told_to_be_so() {
    let server = bridge("22780-22789", &[("BRIDGE_AGENT", "builtin")]);
    let url = format!("http://{}", server.address());
    let called = doctor(&["--url", &url], &HERE);
    is_well(&called);
    assert!(called.1.contains("The caller is at 127.0.0.1:") && called.1.contains("\nThe call "), "{}", called.1);
    let client = server.http().with_token(TOKEN);
    assert_eq!(client.get("/api/sessions").json()["count"], 0, "the call is hung up");

    let called = doctor(&["--url", &url, "--json"], &HERE);
    is_well(&called);
    let (code, output) = called;
    let json = output.find("{\n").expect("JSON behind the progress, which is on the other stream");
    let report: Value = serde_json::Deserializer::from_str(&output[json..]).into_iter().next().unwrap().unwrap();
    assert_eq!(report["passed"], code == Some(0), "{report}");
    assert_eq!(report["steps"].as_array().map(Vec::len), Some(16), "{report}");
    assert!(report["steps"][0]["tookMs"].as_f64().is_some(), "{report}");
}

#[test]
fn where_no_bridge_listens_one_is_started_for_the_call_and_gone_after_it() {
    let free = free_address();
    let url = format!("http://{free}");
    let settings = [
        HERE[0],
        HERE[1],
        ("BRIDGE_AGENT", "builtin"),
        ("BRIDGE_MEDIA_PORTS", "22790-22799"),
        ("BRIDGE_EVENTS_URL", "http://127.0.0.1:9/nobody-is-told"),
    ];
    let called = doctor(&["--url", &url], &settings);
    is_well(&called);
    assert!(called.1.starts_with(&format!("Nothing listens on {free}: a bridge is started")), "{}", called.1);

    let (code, output) = doctor(&["--url", &url, "--no-start"], &settings);
    assert_eq!(code, FAILED, "{output}");
    let failed = step(&output, "tcp");
    assert!(failed.starts_with("FAILED") && failed.contains("refused") && failed.contains("ss -ltn"), "{output}");
    assert!(step(&output, "token").starts_with("not reached"), "{output}");
    assert!(output.ends_with("The call failed at the step: tcp.\n"), "{output}");

    // A bridge that does not start says why.
    let (code, output) = doctor(&["--url", &url], &[&settings[..], &[("BRIDGE_OPUS_COMPLEXITY", "11")]].concat());
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("BRIDGE_OPUS_COMPLEXITY"), "{output}");
}

#[test]
fn a_bridge_on_https_is_called_too_and_a_certificate_that_is_not_trusted_is_told() {
    let (authority, files) = (Authority::new("ours"), Files::new("doctor-tls"));
    authority.issue(2090, &files);
    let (certificate, key, ca) = (files.path("cert.pem"), files.path("key.pem"), files.path("ca.pem"));
    let tls =
        [("BRIDGE_AGENT", "builtin"), ("BRIDGE_TLS_CERT", certificate.as_str()), ("BRIDGE_TLS_KEY", key.as_str())];
    let server = bridge("22870-22879", &tls);
    let url = format!("https://localhost:{}", server.address().port());
    let called = doctor(&["--url", &url, "--ca", &ca], &HERE);
    is_well(&called);
    assert!(step(&called.1, "tls").starts_with("ok "), "{}", called.1);

    let (code, output) = doctor(&["--url", &url], &HERE);
    assert_eq!(code, FAILED, "{output}");
    let failed = step(&output, "tls");
    assert!(failed.starts_with("FAILED") && failed.contains("does not trust"), "{output}");
}

#[test]
fn another_token_is_told_as_one() {
    let server = bridge("22800-22809", &[("BRIDGE_AGENT", "builtin")]);
    let url = format!("http://{}", server.address());
    let (code, output) = doctor(&["--url", &url], &[HERE[0], ("BRIDGE_API_TOKEN", "another-0123456789")]);
    assert_eq!(code, FAILED, "{output}");
    let failed = step(&output, "token");
    assert!(failed.starts_with("FAILED") && failed.contains("401") && failed.contains("--token"), "{output}");
    assert!(step(&output, "offer").starts_with("not reached"), "{output}");
}

#[test]
fn a_model_that_is_not_there_fails_at_its_step_with_the_bridges_words() {
    let model = format!("ws://{}/v1/realtime", free_address());
    let settings = [("BRIDGE_AGENT", "openai"), ("OPENAI_REALTIME_URL", model.as_str())];
    let server = bridge("22810-22819", &settings);
    let (code, output) = doctor(&["--url", &format!("http://{}", server.address())], &HERE);
    assert_eq!(code, FAILED, "{output}");
    let failed = step(&output, "voice");
    for words in ["FAILED", "agent_tcp", "does not reach the model's host", "check-config"] {
        assert!(failed.contains(words), "{words} is not in\n{output}");
    }
    assert!(step(&output, "hangup").starts_with("not reached"), "{output}");
}

#[test]
fn a_call_whose_media_goes_nowhere_fails_at_udp() {
    // A bridge that answers, and from whose media ports nothing ever comes.
    let server = HttpServer::start(|asked: &Asked| match asked.line() {
        "POST /api/sessions" => {
            let answer = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE audio\r\n\
                          m=audio 40000 UDP/TLS/RTP/SAVPF 111 126\r\nc=IN IP4 127.0.0.1\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
                          a=candidate:1 1 udp 2130706431 127.0.0.1 40000 typ host\r\na=ice-ufrag:abcdefgh\r\n\
                          a=ice-pwd:0123456789abcdefghijklmn\r\na=fingerprint:sha-256 FP\r\na=setup:active\r\na=mid:audio\r\n\
                          a=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
                          a=fmtp:111 maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;sprop-maxcapturerate=16000;useinbandfec=1\r\n\
                          a=rtpmap:126 telephone-event/8000\r\na=maxptime:20\r\na=ptime:20\r\na=ssrc:77 cname:bridge\r\n";
            let answer = answer.replace("FP", &["AB"; 32].join(":"));
            (200, json!({"success": true, "callId": "x", "sessionId": "y", "sdpAnswer": answer}).to_string())
        }
        line if line.starts_with("GET /api/sessions/") => {
            (200, json!({"state": "connecting", "peer": {"datagramsSent": 9}}).to_string())
        }
        _ => (200, "{}".to_owned()),
    });
    let (code, output) = doctor(&["--url", &format!("http://{}", server.address())], &HERE);
    assert_eq!(code, FAILED, "{output}");
    assert!(step(&output, "answer").starts_with("ok "), "{output}");
    let failed = step(&output, "stun");
    assert!(failed.starts_with("FAILED") && failed.contains("UDP") && failed.contains("has sent 9"), "{output}");
    assert!(step(&output, "ice").starts_with("not reached"), "{output}");
    assert!(server.asked().iter().any(|asked| asked.line().starts_with("DELETE /api/sessions/doctor-")), "hung up");
}

#[test]
fn an_address_that_is_none_of_this_machines_is_refused_and_one_that_the_bridge_must_not_use_is_told() {
    let server = bridge("22820-22829", &[("BRIDGE_AGENT", "builtin")]);
    let url = format!("http://{}", server.address());
    let (code, output) = doctor(&["--url", &url, "--relay-ip", "198.41.0.4"], &HERE);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("--relay-ip 198.41.0.4 is no address of this machine"), "{output}");

    // A bridge with a public address: callers on private ones are refused, but for those of a bridge for this host alone.
    let public = HttpServer::start(|asked: &Asked| match asked.line() {
        "POST /api/sessions" => {
            (400, json!({"error": "sdpOffer cannot be answered", "code": "offer_no_candidate"}).to_string())
        }
        _ => (200, "{}".to_owned()),
    });
    let (code, output) = doctor(&["--url", &format!("http://{}", public.address())], &HERE);
    assert_eq!(code, FAILED, "{output}");
    let failed = step(&output, "offer");
    assert!(failed.contains("offer_no_candidate") && failed.contains("BRIDGE_ALLOW_PRIVATE=1"), "{output}");
}
