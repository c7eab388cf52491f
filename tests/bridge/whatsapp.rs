//! Meta's webhook on the real server: numbers that are read again, and an end that Meta hears of.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::server_calls::{PATIENCE, start_with};
use crate::support::http_client::Response;
use crate::support::http_server::HttpServer;
use crate::support::server::Server;

const NUMBER: &str = "106540352242922";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OFFER: &str = include_str!("../fixtures/sdp/offer-live-2026-10-02.sdp");

/// Meta's Graph API, which grants everything.
fn graph() -> HttpServer {
    HttpServer::start(|asked| {
        let is_probe = asked.line().starts_with("GET ");
        (200, if is_probe { json!({ "id": NUMBER }) } else { json!({ "success": true }) }.to_string())
    })
}

/// What has been asked about calls: the action and the call.
fn actions(graph: &HttpServer) -> Vec<(String, String)> {
    let bodies = graph.asked().into_iter().filter_map(|asked| serde_json::from_str::<Value>(&asked.body).ok());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    bodies.map(|body| (text(&body["action"]), text(&body["call_id"]))).collect()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn folder(name: &str) -> String {
    let folder = format!("{}/whatsapp-{name}", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn connect(server: &Server, call: &str) -> Response {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let event = json!({
        "id": call, "from": "15550100", "to": "15550199", "event": "connect", "direction": "USER_INITIATED",
        "timestamp": now.to_string(),
        "session": { "sdp_type": "offer", "sdp": OFFER.replace("203.0.113.49", "127.0.0.1") },
    });
    let value = json!({ "metadata": { "phone_number_id": NUMBER }, "calls": [event] });
    let change = json!({ "field": "calls", "value": value });
    let body =
        json!({ "object": "whatsapp_business_account", "entry": [{ "id": "1", "changes": [change] }] }).to_string();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), body.as_bytes());
    let signature = tag.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let request = format!(
        "POST /webhooks/whatsapp HTTP/1.1\r\nHost: bridge.example\r\nX-Hub-Signature-256: sha256={signature}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let answer = server.http().exchange(request.as_bytes()).expect("an answer");
    Response::parse(&answer, false).expect("HTTP")
}

#[test]
fn the_numbers_are_read_again_on_sighup_and_what_cannot_be_used_changes_nothing() {
    let (graph, folder) = (graph(), folder("reload"));
    let file = format!("{folder}/numbers.toml");
    let number = |more: &str| format!("[[number]]\nphone_number_id = \"{NUMBER}\"\nname = \"front desk\"\n{more}");
    std::fs::write(&file, number("")).expect("a file");
    let server = start_with(&[
        ("BRIDGE_WHATSAPP_NUMBERS", &file),
        ("BRIDGE_GRAPH_URL", &format!("http://{}", graph.address())),
        ("BRIDGE_STATE_DIR", &folder),
        ("BRIDGE_MEDIA_PORTS", "24240-24249"),
        ("WHATSAPP_ACCESS_TOKEN", "an-access-token"),
        ("WHATSAPP_APP_SECRET", SECRET),
        ("WHATSAPP_VERIFY_TOKEN", "a-verify-token"),
    ]);
    let again = |said: &str| {
        let before = server.log().matches(said).count();
        let sent = Command::new("sh").args(["-c", &format!("kill -HUP {}", server.id())]).status();
        assert!(sent.expect("there is a shell").success(), "the process is ours");
        wait_for(said, || server.log().matches(said).count() > before);
    };
    let asked = |call: &str| actions(&graph).into_iter().find(|(_, other)| other == call).map(|(action, _)| action);
    let first_action = |call: &str| {
        assert_eq!(connect(&server, call).status, 200);
        wait_for(call, || asked(call).is_some());
        asked(call)
    };
    assert_eq!(first_action("wacid.one").as_deref(), Some("pre_accept"));

    std::fs::write(&file, number("calls = \"reject\"\n")).expect("a file");
    again("were read again");
    assert_eq!(first_action("wacid.two").as_deref(), Some("reject"));

    std::fs::write(&file, number("[number.config]\nvoise = \"marin\"\n")).expect("a file");
    again("were not reloaded");
    assert!(server.log().contains("voise"), "{}", server.log());
    assert_eq!(first_action("wacid.three").as_deref(), Some("reject"), "what was in use before still is");
}

#[test]
fn a_server_that_is_stopped_tells_meta_of_each_call_and_leaves_an_empty_journal() {
    let (graph, folder) = (graph(), folder("stop"));
    let server = start_with(&[
        ("WHATSAPP_PHONE_NUMBER_ID", NUMBER),
        ("BRIDGE_GRAPH_URL", &format!("http://{}", graph.address())),
        ("BRIDGE_STATE_DIR", &folder),
        ("BRIDGE_MEDIA_PORTS", "24250-24259"),
        ("WHATSAPP_ACCESS_TOKEN", "an-access-token"),
        ("WHATSAPP_APP_SECRET", SECRET),
        ("WHATSAPP_VERIFY_TOKEN", "a-verify-token"),
        ("BRIDGE_DRAIN_SEC", "0"),
    ]);
    let calls = ["wacid.a", "wacid.b", "wacid.c"];
    for call in calls {
        assert_eq!(connect(&server, call).status, 200);
    }
    let journal = format!("{folder}/whatsapp-calls.journal");
    let held = || std::fs::read_to_string(&journal).unwrap_or_default();
    wait_for("all are noted", || calls.iter().all(|call| held().contains(call)));
    wait_for("all ring", || actions(&graph).iter().filter(|(action, _)| action == "pre_accept").count() == calls.len());
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    for call in calls {
        let last = actions(&graph).into_iter().rfind(|(_, other)| other == call).map(|(action, _)| action);
        assert_eq!(last.as_deref(), Some("reject"), "{call}: it was not accepted yet\n{log}");
    }
    assert_eq!(held(), "");
}
