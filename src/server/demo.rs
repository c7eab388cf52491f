//! Everything at once: a simulated WhatsApp in this process, a bridge with the built-in agent as a child of it, and one call,
//! told as it happens.
//!
//! All of it is on loopback, and gone afterwards.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::Secret;
use crate::driver::children::Child;
use crate::driver::fetch::Client;
use crate::driver::threads::listen;
use crate::driver::tools::{Regularly, TemporaryFolder};
use crate::driver::{process, system, tools};
use crate::http::client::target;
use crate::simulator::flags::{AccountFlags, DemoFlags};
use crate::simulator::report::{CallReport, Report, ScenarioReport};
use crate::simulator::{Account, Check, SimulatorConfig, SimulatorEvent, Target, Told, scenarios, wav};

use super::simulate;

/// How long the bridge may take to start.
const START_TIME_MAX: Duration = Duration::from_secs(20);

/// How often it is looked whether it is up.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long an answer of its API may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// The bridge's media ports: apart from the relay's.
const MEDIA_PORTS: &str = "21000-21999";

/// Where the bridge takes webhooks.
const WEBHOOK_PATH: &str = "/webhooks/whatsapp";

/// Seconds that the caller may be told to stay at the most: greeting, words and answer take some 15.
const STAY_SEC: std::ops::RangeInclusive<f64> = 20.0..=60.0;

/// How often the bridge is asked for the call's record meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Every so many of those looks a change of the packets alone is shown.
const LOOKS_OF_PACKETS: u32 = 8;

/// What of the call is not in the audio that the bridge has handed on, at the most: begin and end, in milliseconds.
const APPENDED_LESS_MAX_MS: f64 = 1_000.0;

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Whether everything held.
    pub passed: bool,
    report: Report,
    record: Value,
    checks: Vec<Check>,
}

impl Outcome {
    /// For programs.
    pub fn to_json(&self) -> String {
        let report: Value = serde_json::from_str(&self.report.to_json()).expect("it was made a moment ago");
        let whole = json!({ "passed": self.passed, "report": report, "record": self.record, "checks": self.checks });
        serde_json::to_string_pretty(&whole).expect("numbers and strings are JSON") + "\n"
    }
}

/// Runs it. `tell` gets each line. Errors say what could not be set up and what to do.
pub fn run(flags: &DemoFlags, tell: impl Fn(&str) + Clone + Send + 'static) -> Result<Outcome, String> {
    if !STAY_SEC.contains(&flags.seconds) {
        let (least, most) = (STAY_SEC.start(), STAY_SEC.end());
        return Err(format!(
            "--seconds must be from {least} to {most}, not {}: the greeting, the caller's words and the answer to them take \
             some 15",
            flags.seconds
        ));
    }
    let (listener, graph) = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .map_err(|error| format!("no free port on loopback for the Graph API: {error}"))?;
    let account = account()?;
    let bridge = Bridge::start(graph, &account)?;
    tell("A simulated WhatsApp, a bridge and the built-in agent, all on this machine. A caller dials.");
    tell("");
    let server = bridge.address;
    let config = SimulatorConfig {
        webhook: Target { server, tls: None, authority: server.to_string(), path: WEBHOOK_PATH.to_owned() },
        relay_ip: Ipv4Addr::LOCALHOST.into(),
        account,
        scenarios: scenarios::find(&["happy"])?,
        serve: false,
        at_once: 1,
        burst: 1,
        talk: Some(Duration::from_secs_f64(flags.seconds)),
        says_back: true,
        record: flags.record.is_some(),
        speech: simulate::speech(None)?,
        seed: simulate::seed(),
        unix_sec: || process::unix_sec() as u64,
    };
    let begun = Arc::new(OnceLock::new());
    let watch = bridge.watch(Arc::clone(&begun), tell.clone())?;
    let (say, file) = (tell.clone(), flags.record.clone());
    let sink = move |event: &SimulatorEvent| match event {
        SimulatorEvent::Told(told) => {
            begun.get_or_init(|| system::now().checked_sub(told.at).unwrap_or_else(system::now));
            say(&line(told));
        }
        SimulatorEvent::Recording(_, samples) => keep(file.as_ref(), samples, &say),
        SimulatorEvent::Scenario(report) => say(&summary(report)),
        SimulatorEvent::Finished(_) => {}
    };
    let report = simulate::run_machine(config, (listener.into(), graph), simulate::RELAY_PORTS, sink)?;
    drop(watch);
    if let Some(error) = &report.error {
        return Err(error.clone());
    }
    let call = report.scenarios.first().and_then(|scenario| scenario.calls.first());
    let record = call.map_or(Value::Null, |call| bridge.record(&call.id));
    let checks = call.map_or_else(Vec::new, |call| checks(call, &record));
    tell("The call's record, as the bridge's API tells it (GET /api/sessions/ID):");
    for line in record_lines(&record) {
        tell(&line);
    }
    tell("");
    tell("What the record must say of a call that was heard and answered:");
    for check in &checks {
        tell(&check.to_string());
    }
    let passed = report.passed && !checks.is_empty() && checks.iter().all(|check| check.held);
    tell("");
    tell(match (passed, report.interrupted) {
        (true, _) => "It works: every check above held.",
        (false, true) => "Interrupted: nothing can be said.",
        (false, false) => "Something did not hold: see the lines marked NOT above.",
    });
    if flags.log {
        tell("");
        tell("The bridge's log:");
        tell(bridge.child.stderr().trim_end());
    }
    Ok(Outcome { passed, report, record, checks })
}

/// What the bridge must have seen of a call in which the caller has spoken and the agent has said it back.
fn checks(call: &CallReport, record: &Value) -> Vec<Check> {
    let number = |pointer: &str| record.pointer(pointer).and_then(Value::as_f64);
    let check = |text: &str, held: bool, seen: String| Check { text: text.to_owned(), held, seen };
    let counted = |text: &str, pointer: &str, is_good: &dyn Fn(f64) -> bool| match number(pointer) {
        Some(value) => check(text, is_good(value), value.to_string()),
        None => check(text, false, "the record does not say".to_owned()),
    };
    let up_ms = call.ended_ms.zip(call.accepted_ms).map_or(f64::INFINITY, |(ended, accepted)| ended - accepted);
    let state = record.pointer("/whatsapp/state").and_then(Value::as_str).unwrap_or_default();
    vec![
        counted("the caller's packets come: uplink.packets", "/uplink/packets", &|packets| packets > 0.0),
        counted("and all of them: uplink.lost", "/uplink/lost", &|lost| lost == 0.0),
        counted("the agent gets the whole call: uplink.appendedMs", "/uplink/appendedMs", &|appended| {
            appended + APPENDED_LESS_MAX_MS >= up_ms
        }),
        counted("the agent greets and answers: agent.responses", "/agent/responses", &|responses| responses >= 2.0),
        counted("the caller gets what it says: downlink.playedMs", "/downlink/playedMs", &|played| played > 0.0),
        check("Meta knows how the call ended: whatsapp.state", state == "settled", state.to_owned()),
    ]
}

/// What is shown of a record while the call lasts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Look {
    /// The call's state, Meta's side of it, the agent's responses.
    words: String,
    /// Packets from the caller and to the caller.
    packets: String,
}

impl Look {
    fn at(record: &Value) -> Self {
        let word = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
        let number = |pointer: &str| record.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        Self {
            words: format!(
                "state {}, whatsapp {}, responses {}",
                word("/state"),
                word("/whatsapp/state"),
                number("/agent/responses")
            ),
            packets: format!("packets in {}, out {}", number("/uplink/packets"), number("/downlink/packets")),
        }
    }
}

/// Drawn for this one time: the bridge listens on loopback, where others may try.
fn account() -> Result<Account, String> {
    let flags = |secret: &dyn Fn() -> String| AccountFlags {
        app_secret: Some(secret()),
        verify_token: Some(secret()),
        access_token: Some(secret()),
        phone_number_id: None,
    };
    flags(&drawn).account().map(|(account, _)| account)
}

fn drawn() -> String {
    let mut bytes = [0; 16];
    system::entropy(&mut bytes);
    bytes.map(|byte| format!("{byte:02x}")).concat()
}

/// A line of what happens.
fn line(Told { at, who, text, .. }: &Told) -> String {
    format!("{:>8.3} s  {who:<17}{text}", at.as_secs_f64())
}

/// What was checked, under what happened.
fn summary(report: &ScenarioReport) -> String {
    format!("\n{report}")
}

fn keep(file: Option<&PathBuf>, samples: &[i16], say: &impl Fn(&str)) {
    let Some(file) = file else { return };
    let name = file.display().to_string();
    match tools::write_file(&name, wav::write(samples)) {
        Ok(()) => say(&format!("What the caller heard is in {name}.")),
        Err(error) => say(&format!("cannot write --record {name}: {error}")),
    }
}

/// What is shown of a record besides its own words and Meta's side.
const SHOWN: [&str; 7] = [
    "uplink.packets",
    "uplink.lost",
    "uplink.appendedMs",
    "downlink.packets",
    "downlink.playedMs",
    "agent.responses",
    "agent.bargeIns",
];

/// A record's fields, one a line; Meta's side of the call comes first.
fn record_lines(record: &Value) -> Vec<String> {
    let mut fields = Vec::new();
    collect("", record, &mut fields);
    let is_shown = |name: &str| !name.contains('.') || name.starts_with("whatsapp.") || SHOWN.contains(&name);
    fields.sort_by_key(|(name, _)| !name.starts_with("whatsapp."));
    let shown = fields.into_iter().filter(|(name, _)| is_shown(name));
    let mut lines: Vec<String> = shown.map(|(name, value)| format!("  {name:<34} {}", shortened(&value))).collect();
    if lines.is_empty() {
        lines.push("  the bridge knows nothing of the call".to_owned());
    }
    lines
}

/// The values of a record; names of those within others are joined by dots.
fn collect(name: &str, value: &Value, fields: &mut Vec<(String, String)>) {
    match value {
        Value::Object(within) => {
            for (field, value) in within {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                collect(&name, value, fields);
            }
        }
        Value::Null | Value::Array(_) => {}
        Value::String(text) => fields.push((name.to_owned(), text.clone())),
        other => fields.push((name.to_owned(), other.to_string())),
    }
}

/// A value that fits into its line.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

/// The bridge; gone when dropped, with its folder.
struct Bridge {
    child: Child,
    client: Arc<Client>,
    address: SocketAddr,
    /// Behind the child: a folder is removed once nobody writes to it.
    _folder: TemporaryFolder,
}

impl Bridge {
    fn start(graph: SocketAddr, account: &Account) -> Result<Self, String> {
        let port = tools::free_loopback_port().map_err(|error| format!("no free port on loopback: {error}"))?;
        let (address, token) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), drawn());
        let folder = TemporaryFolder::create(&format!("voice-media-bridge-demo-{}", drawn()))
            .map_err(|error| format!("no temporary folder: {error}"))?;
        let environment = [
            ("BRIDGE_LISTEN", address.to_string()),
            ("BRIDGE_API_TOKEN", token.clone()),
            ("BRIDGE_AGENT", "builtin".to_owned()),
            ("BRIDGE_MEDIA_IP", Ipv4Addr::LOCALHOST.to_string()),
            ("BRIDGE_MEDIA_PORTS", MEDIA_PORTS.to_owned()),
            ("BRIDGE_ALLOW_PRIVATE", "1".to_owned()),
            ("BRIDGE_WORKERS", "1".to_owned()),
            ("BRIDGE_DRAIN_SEC", "0".to_owned()),
            ("BRIDGE_STATE_DIR", folder.path().display().to_string()),
            ("BRIDGE_GRAPH_URL", format!("http://{graph}")),
            ("WHATSAPP_APP_SECRET", account.app_secret.clone()),
            ("WHATSAPP_VERIFY_TOKEN", account.verify_token.clone()),
            ("WHATSAPP_ACCESS_TOKEN", account.access_token.clone()),
            ("WHATSAPP_PHONE_NUMBER_ID", account.phone_number_id.clone()),
        ];
        let mut child = Child::start(&["serve".to_owned()], &environment, &[])
            .map_err(|error| format!("a bridge cannot be started: {error}"))?;
        let client = Client::new(&format!("http://{address}"), Some(&Secret::new(token)), ANSWER_TIME_MAX)
            .map_err(|error| error.to_string())?;
        let interrupts = tools::Interrupts::catch().map_err(|error| format!("no thread for signals: {error}"))?;
        let end = system::now() + START_TIME_MAX;
        while !client.get("/health").is_ok_and(|answer| answer.status == 200) {
            if child.has_ended() || system::now() > end {
                return Err(format!("the bridge did not start: {}", child.stderr().trim()));
            }
            if interrupts.wait(LOOK_AGAIN) {
                return Err("interrupted".to_owned());
            }
        }
        Ok(Self { child, client: Arc::new(client), address, _folder: folder })
    }

    /// What its API tells of a call.
    fn record(&self, id: &str) -> Value {
        asked(&self.client, &["api", "sessions", id])
    }

    /// Shows what changes in the record of its one call, until that is over or this is dropped.
    fn watch(&self, begun: Arc<OnceLock<Instant>>, tell: impl Fn(&str) + Send + 'static) -> Result<Regularly, String> {
        let client = Arc::clone(&self.client);
        let (mut id, mut last, mut looks) = (None, Look::default(), 0);
        let look = move || {
            if id.is_none() {
                let list = asked(&client, &["api", "sessions"]);
                id = list.pointer("/sessions/0/callId").and_then(Value::as_str).map(str::to_owned);
            }
            let (Some(id), Some(begun)) = (&id, begun.get()) else { return };
            let record = asked(&client, &["api", "sessions", id]);
            let now = Look::at(&record);
            looks += 1;
            if now.words == last.words && (now.packets == last.packets || looks < LOOKS_OF_PACKETS) {
                return;
            }
            let (at, who) = (system::now().saturating_duration_since(*begun), "bridge's record");
            let text =
                if now.words == last.words { now.packets.clone() } else { format!("{}, {}", now.words, now.packets) };
            let told = Told { scenario: "", call: 0, at, who, text };
            tell(&line(&told));
            (last, looks) = (now, 0);
        };
        Regularly::begin(LOOK_INTERVAL, look).map_err(|error| format!("no thread for the call's record: {error}"))
    }
}

/// What the bridge's API answers; null where it has nothing to say.
fn asked(client: &Client, path: &[&str]) -> Value {
    let answer = client.get(&target(path.iter().copied(), &[]));
    let body = answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.body);
    body.and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Value {
        json!({
            "state": "ended", "whatsapp": { "state": "settled" }, "agent": { "responses": 2 },
            "uplink": { "packets": 200, "lost": 0, "appendedMs": 12_500 },
            "downlink": { "packets": 600, "playedMs": 7_000 },
        })
    }

    fn call() -> CallReport {
        CallReport { accepted_ms: Some(500.0), ended_ms: Some(13_400.0), ..CallReport::default() }
    }

    #[test]
    fn a_record_must_say_that_the_call_was_heard_and_answered() {
        let missed = |record: &Value| {
            let missed = checks(&call(), record).into_iter().filter(|check| !check.held);
            missed.map(|check| check.text.split(": ").nth(1).unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(missed(&record()), Vec::<String>::new());
        assert_eq!(missed(&Value::Null).len(), 6);
        for (pointer, bad) in [
            ("/uplink/packets", json!(0)),
            ("/uplink/lost", json!(1)),
            ("/uplink/appendedMs", json!(11_800)),
            ("/agent/responses", json!(1)),
            ("/downlink/playedMs", json!(0)),
            ("/whatsapp/state", json!("accepted")),
        ] {
            let mut record = record();
            *record.pointer_mut(pointer).unwrap() = bad;
            assert_eq!(missed(&record), [pointer[1..].replace('/', ".")]);
        }
    }

    #[test]
    fn what_changes_in_a_record_is_told_apart_from_packets_that_always_do() {
        let (one, mut two) = (record(), record());
        two["uplink"]["packets"] = json!(201);
        assert_eq!(Look::at(&one).words, Look::at(&two).words);
        assert_ne!(Look::at(&one), Look::at(&two));
        two["whatsapp"]["state"] = json!("accepted");
        assert_ne!(Look::at(&one).words, Look::at(&two).words);
        assert_eq!(Look::at(&Value::Null).words, "state -, whatsapp -, responses 0");
    }

    #[test]
    fn a_record_is_shown_field_by_field_and_fits_into_a_terminal() {
        let record = json!({
            "state": "ended", "none": null, "long": "x".repeat(99),
            "whatsapp": {"terminate": {"durationSec": 5}}, "uplink": {"lost": 0, "late": 7},
        });
        let lines = record_lines(&record);
        let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[2..], [["state", "ended"], ["uplink.lost", "0"]]);
        assert_eq!(words[0], ["whatsapp.terminate.durationSec", "5"]);
        assert!(lines.iter().all(|line| line.len() <= 100), "{lines:?}");
        assert_eq!(record_lines(&json!({})), ["  the bridge knows nothing of the call"]);
    }
}
