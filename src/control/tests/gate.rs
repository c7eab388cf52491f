//! Who may ask what, and what never shows in a log.

use std::io::Write;
use std::sync::Mutex;

use super::*;

const TOKEN: &str = "canary-token-0123456789";

#[test]
fn with_a_token_everything_but_health_ready_and_page_needs_it() {
    let mut world = World::with(&["--api-token", TOKEN]);
    let routes = [
        ("GET", "/metrics", 200),
        ("GET", "/api/sessions", 200),
        ("POST", "/api/sessions", 400),
        ("GET", "/api/sessions/x", 404),
        ("PUT", "/api/sessions/x", 400),
        ("DELETE", "/api/sessions/x", 404),
        ("POST", "/api/sessions/x/activate", 404),
        ("POST", "/bridge/stop", 400),
        ("PATCH", "/api/sessions", 405),
    ];
    for (method, path, status) in routes {
        let answer = world.ask(method, path, "");
        assert_eq!((answer.status, answer.code()), (401, "unauthorized"), "{method} {path}");
        assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
        for wrong in
            ["Bearer ", "Bearer canary-token-012345678", "Basic canary-token-0123456789", "canary-token-0123456789"]
        {
            let header = format!("Authorization: {wrong}\r\n");
            assert_eq!(world.ask_with(method, path, &header, "").status, 401, "{wrong}");
        }
        let twice = format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer x\r\n");
        assert_eq!(world.ask_with(method, path, &twice, "").status, 401);
        let right = format!("Authorization: bearer  {TOKEN}\r\n");
        assert_eq!(world.ask_with(method, path, &right, "").status, status, "{method} {path}");
        assert_eq!(world.ask(method, &format!("/k/{TOKEN}{path}"), "").status, status, "{method} {path}");
        let wrong = world.ask_with(method, &format!("/k/{TOKEN}x{path}"), &right, "");
        assert_eq!(wrong.status, 401, "a token in the path decides");
    }
    for path in ["/health", "/ready", "/"] {
        assert_eq!(world.ask("GET", path, "").status, 200, "{path}");
    }
    for path in [format!("/k/{TOKEN}"), format!("/k/{TOKEN}/"), "/k".into(), "/nowhere".into()] {
        assert_eq!(world.ask("GET", &path, "").status, 404, "{path}");
    }
}

#[test]
fn any_of_several_tokens_opens_and_no_part_of_the_list_does() {
    let tokens = ["canary-token-of-webhook", "canary-token-of-balancer", "canary-token-of-people"];
    let list = tokens.join(",");
    let mut world = World::with(&["--api-token", &list]);
    let mut ask =
        |token: &str| world.ask_with("GET", "/api/sessions", &format!("Authorization: Bearer {token}\r\n"), "").status;
    for token in tokens {
        assert_eq!(ask(token), 200, "{token}");
    }
    for wrong in [list.as_str(), &list[..list.len() - 1], "canary-token-of-webhook,", "canary-token-of-nobody"] {
        assert_eq!(ask(wrong), 401, "{wrong}");
    }
}

#[test]
fn without_a_token_web_pages_of_others_are_refused() {
    let mut world = World::new();
    let mut ask = |headers: &str| {
        let stream = world.client();
        world.send(stream, format!("GET /api/sessions HTTP/1.1\r\n{headers}\r\n"));
        let answer = world.answer(stream);
        (answer.status, answer.code().to_owned())
    };
    for good in [
        "Host: localhost:8080\r\n",
        "Host: LOCALHOST\r\n",
        "Host: 127.0.0.1:8080\r\n",
        "Host: [::1]:8080\r\n",
        "Host: 192.0.2.7\r\n",
        "Host: localhost:8080\r\nOrigin: http://localhost:8080\r\nSec-Fetch-Site: same-origin\r\n",
        "Host: localhost:8080\r\nSec-Fetch-Site: none\r\n",
    ] {
        assert_eq!(ask(good).0, 200, "{good}");
    }
    for (bad, code) in [
        ("Host: evil.example\r\n", "host_refused"),
        (
            "Host: evil.example:8080\r\nOrigin: http://evil.example:8080\r\nSec-Fetch-Site: same-origin\r\n",
            "host_refused",
        ),
        ("Host: localhost.evil.example\r\n", "host_refused"),
        ("Host: 127.0.0.1.nip.io\r\n", "host_refused"),
        ("Host: localhost:8080\r\nOrigin: http://evil.example\r\n", "cross_site"),
        ("Host: localhost:8080\r\nOrigin: http://localhost:3000\r\n", "cross_site"),
        ("Host: localhost:8080\r\nOrigin: null\r\n", "cross_site"),
        ("Host: localhost:8080\r\nOrigin: \r\n", "cross_site"),
        ("Host: localhost:8080\r\nOrigin: http://localhost:8080\r\nOrigin: http://evil.example\r\n", "cross_site"),
        ("Host: localhost:8080\r\nSec-Fetch-Site: cross-site\r\n", "cross_site"),
        ("Host: localhost:8080\r\nSec-Fetch-Site: same-site\r\n", "cross_site"),
    ] {
        assert_eq!(ask(bad), (403, code.to_owned()), "{bad}");
    }
    let mut world = World::with(&["--api-token", TOKEN]);
    let stream = world.client();
    world.send(
        stream,
        format!("GET /k/{TOKEN}/api/sessions HTTP/1.1\r\nHost: bridge.example\r\nOrigin: https://x\r\n\r\n"),
    );
    assert_eq!(world.answer(stream).status, 200, "with a token, the token decides");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is logged meanwhile, from the least to the most important.
pub(super) fn log_of(run: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    // Where only one subscriber is known, tracing asks that of the thread which meets a line first, and that may be another
    // test's, which has none: the line would then be off for all. With a second one it asks both.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    let text = log.0.lock().expect("nothing panics while it is held").clone();
    String::from_utf8(text).expect("text was logged")
}

#[test]
fn logs_tell_what_happened_and_neither_ids_nor_tokens_nor_sdp() {
    let text = log_of(|| {
        let mut world = World::with(&["--api-token", TOKEN, "--max-calls", "2"]);
        let base = format!("/k/{TOKEN}");
        let config = json!({ "instructions": "canary-instructions", "metadata": { "k": "canary-metadata" } });
        let offer = OFFER.replace("a=ice-pwd:+219v9nKr3xSQIn8s+Fy8g==", "a=ice-pwd:canarypasswordcanarypass");
        assert_ne!(offer, OFFER);
        let body = session(ID, &offer, &config);
        world.ask("POST", &format!("{base}/api/sessions"), &body);
        world.ask("POST", &format!("{base}/api/sessions"), &session(ID, OFFER, &config));
        world.ask("POST", &format!("{base}/api/sessions"), &session("canary-id", "no sdp canary-sdp", &config));
        world.ask("POST", "/k/canary-token-wrong/api/sessions", &body);
        world.ask("GET", &format!("{base}{}", path(ID)), "");
        world.ask("GET", &format!("{base}/api/sessions/canary-id/canary-path"), "");
        world.ask("POST", &format!("{base}/api/sessions"), r#"{"canary-json":"#);
        let stream = world.client();
        world.send(stream, "GET /canary-bad\x01 HTTP/1.1\r\n\r\n");
        world.end_call(1, CloseReason::PeerSilent);
        world.input(Input::Stop);
    });
    let log_id = crate::call_id::CallId::new(ID).unwrap().to_string();
    for secret in ["canary", "wacid", "HBgL", "16505551234", "m=audio", "ice-pwd", TOKEN] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
    for told in ["call opened", "call answered", "call ended", "peer_silent", "request refused", "stopped", &log_id] {
        assert!(text.contains(told), "{told} is not told in\n{text}");
    }
    assert!(text.contains("route=\"/api/sessions/{callId}\" status=200"), "{text}");
}
