//! Calls by Meta's webhook: what comes in, what the Graph API is asked and when, and what is left when things go wrong.

use aws_lc_rs::hmac;

use super::*;
use crate::config::{EventsUrl, Secret, WhatsApp};
use crate::messages::{Forwarded, GraphAnswer, GraphReply, Reloaded};
use crate::whatsapp::{CallPolicy, Number};

mod deliveries;
mod failures;
mod lives;
mod pairs;

const APP_SECRET: &str = "an-app-secret";
const NUMBER: &str = "106540352242922";
/// A number whose calls are rejected.
const CLOSED: &str = "106540352242923";
/// A number that somebody else serves.
const IGNORED: &str = "106540352242924";

fn settings() -> Settings {
    let number = |id: &str, name: &str, calls, config: &str| Number {
        phone_number_id: id.to_owned(),
        name: name.to_owned(),
        access_token: Secret::new(format!("token of {name}")),
        calls,
        config: config.to_owned(),
    };
    Settings {
        numbers: vec![
            number(NUMBER, "front desk", CallPolicy::Answer, r#"{"voice":"marin","instructions":"Be brief."}"#),
            number(CLOSED, "closed", CallPolicy::Reject, "{}"),
            number(IGNORED, "ignored", CallPolicy::Ignore, "{}"),
        ],
        app_secrets: vec![Secret::new("another-app's"), Secret::new(APP_SECRET)],
        verify_token: Secret::new("verify-me"),
    }
}

fn config_with(words: &[&str], forward_url: Option<&str>) -> Config {
    let whatsapp = WhatsApp {
        app_secret: Some(Secret::new(APP_SECRET)),
        verify_token: Secret::new("verify-me"),
        access_token: None,
        phone_number_id: None,
        numbers_file: None,
        graph_url: EventsUrl::parse("https://graph.example/v24.0").unwrap(),
        forward_url: forward_url.map(|url| EventsUrl::parse(url).unwrap()),
    };
    Config { whatsapp: Some(whatsapp), ..config(words) }
}

impl World {
    fn whatsapp() -> Self {
        Self::whatsapp_with(&[], None, BTreeMap::new())
    }

    /// With a receiver of other webhooks, and what an earlier process has left.
    fn whatsapp_with(words: &[&str], forward_url: Option<&str>, journal: BTreeMap<u64, String>) -> Self {
        let mut world = Self::made(config_with(words, forward_url), None, None, Some(settings()), journal);
        world.prompt = true;
        world.run();
        world.told.clear();
        // The probes that warm connections.
        world.graph.retain(|ask| ask.body.is_some());
        world
    }

    fn deliver(&mut self, body: &str) -> Answer {
        let signature = format!("X-Hub-Signature-256: {}\r\n", sign(APP_SECRET, body));
        self.ask_with("POST", "/webhooks/whatsapp", &signature, body)
    }

    /// What is asked of Meta next: the action, and the call it is about.
    fn asked_of_meta(&mut self) -> Vec<String> {
        let action = |ask: &GraphAsk| body_of(ask)["action"].as_str().unwrap().to_owned();
        self.graph.iter().filter(|ask| ask.body.is_some()).map(action).collect()
    }

    /// The oldest question is answered.
    fn graph_says(&mut self, status: u16, body: &str) -> GraphAsk {
        self.graph_outcome(Ok(GraphReply { status, retry_after_sec: None, body: body.to_owned() }))
    }

    fn graph_ok(&mut self) -> GraphAsk {
        self.graph_says(200, r#"{"messaging_product":"whatsapp","success":true}"#)
    }

    fn graph_refuses(&mut self, code: i64) -> GraphAsk {
        let body = json!({ "error": { "message": "no", "type": "OAuthException", "code": code, "fbtrace_id": "A" } });
        self.graph_says(400, &body.to_string())
    }

    fn graph_outcome(&mut self, outcome: Result<GraphReply, String>) -> GraphAsk {
        let ask = self.graph.pop_front().expect("something was asked");
        let answer = GraphAnswer { id: ask.id, begun: self.now, ended: self.now, is_repeated: false, outcome };
        self.input(Input::Message(Message::GraphAnswered(answer)));
        ask
    }

    /// What the API shows of the call at Meta.
    fn record(&mut self, id: &str) -> Value {
        self.ask("GET", &path(id), "").json["whatsapp"].clone()
    }

    fn metric(&mut self, line: &str) -> Option<u64> {
        let text = self.ask("GET", "/metrics", "").text;
        let value = |found: &str| found.strip_prefix(&format!("voice_media_bridge_{line} "))?.parse().ok();
        text.lines().find_map(value)
    }

    /// A call that Meta has taken: audio flows.
    fn accepted(&mut self, id: &str) -> u64 {
        self.deliver(&connect(id));
        self.graph_ok();
        let call = self.opened.last().expect("the call was opened").call.0;
        self.connect_call(call);
        self.graph_ok();
        call
    }
}

fn sign(secret: &str, body: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body.as_bytes());
    tag.as_ref().iter().fold("sha256=".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn body_of(ask: &GraphAsk) -> Value {
    serde_json::from_str(&ask.body.as_ref().expect("a POST").0).unwrap()
}

fn calls(number: &str, calls: &Value) -> Value {
    json!({ "field": "calls", "value": {
        "messaging_product": "whatsapp",
        "metadata": { "display_phone_number": "15550783881", "phone_number_id": number },
        "calls": calls,
    } })
}

fn webhook(changes: &[Value]) -> String {
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": "366634483210360", "changes": changes }] })
        .to_string()
}

fn connect_event(id: &str) -> Value {
    json!({
        "id": id, "from": "16505551234", "to": "15550783881", "event": "connect", "direction": "USER_INITIATED",
        "timestamp": UNIX_SEC.to_string(), "session": { "sdp_type": "offer", "sdp": OFFER },
    })
}

fn connect(id: &str) -> String {
    webhook(&[calls(NUMBER, &json!([connect_event(id)]))])
}

fn terminate_event(id: &str) -> Value {
    json!({
        "id": id, "from": "16505551234", "to": "15550783881", "event": "terminate", "direction": "USER_INITIATED",
        "timestamp": UNIX_SEC.to_string(), "status": "COMPLETED", "duration": 20,
    })
}

fn terminate(id: &str) -> String {
    webhook(&[calls(NUMBER, &json!([terminate_event(id)]))])
}
