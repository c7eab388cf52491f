//! Everything at once: a simulated WhatsApp in this process, a bridge with the built-in agent as a child of it, and one call,
//! told as it happens.
//!
//! All of it is on loopback, and gone afterwards.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Secret;
use crate::driver::children::Child;
use crate::driver::fetch::Client;
use crate::driver::threads::listen;
use crate::driver::tools::TemporaryFolder;
use crate::driver::{process, system, tools};
use crate::http::client::target;
use crate::simulator::flags::{AccountFlags, DemoFlags};
use crate::simulator::report::{Report, ScenarioReport};
use crate::simulator::{Account, SimulatorConfig, SimulatorEvent, Target, Told, scenarios, wav};

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

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Whether everything held.
    pub passed: bool,
    report: Report,
    record: Value,
}

impl Outcome {
    /// For programs.
    pub fn to_json(&self) -> String {
        let report: Value = serde_json::from_str(&self.report.to_json()).expect("it was made a moment ago");
        let whole = json!({ "passed": self.passed, "report": report, "record": self.record });
        serde_json::to_string_pretty(&whole).expect("numbers and strings are JSON") + "\n"
    }
}

/// Runs it. `tell` gets each line. Errors say what could not be set up and what to do.
pub fn run(flags: &DemoFlags, tell: impl Fn(&str) + Clone + 'static) -> Result<Outcome, String> {
    if !(1.0..=60.0).contains(&flags.seconds) {
        return Err(format!("--seconds must be from 1 to 60, not {}", flags.seconds));
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
    let (say, file) = (tell.clone(), flags.record.clone());
    let sink = move |event: &SimulatorEvent| match event {
        SimulatorEvent::Told(told) => say(&line(told)),
        SimulatorEvent::Recording(_, samples) => keep(file.as_ref(), samples, &say),
        SimulatorEvent::Scenario(report) => say(&summary(report)),
        SimulatorEvent::Finished(_) => {}
    };
    let report = simulate::run_machine(config, (listener.into(), graph), simulate::RELAY_PORTS, sink)?;
    if let Some(error) = &report.error {
        return Err(error.clone());
    }
    let id = report.scenarios.first().and_then(|scenario| scenario.calls.first()).map(|call| call.id.clone());
    let record = id.map_or(Value::Null, |id| bridge.record(&id));
    tell("The call's record, as the bridge's API tells it (GET /api/sessions/ID):");
    for line in record_lines(&record) {
        tell(&line);
    }
    let passed = report.passed && !record.is_null();
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
    Ok(Outcome { passed, report, record })
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

/// A record's fields, one a line.
fn record_lines(record: &Value) -> Vec<String> {
    let mut fields = Vec::new();
    collect("", record, &mut fields);
    let is_shown = |name: &str| !name.contains('.') || name.starts_with("whatsapp.") || SHOWN.contains(&name);
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
    client: Client,
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
        Ok(Self { child, client, address, _folder: folder })
    }

    /// What its API tells of a call.
    fn record(&self, id: &str) -> Value {
        let answer = self.client.get(&target(["api", "sessions", id], &[]));
        let body = answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.body);
        body.and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_shown_field_by_field_and_fits_into_a_terminal() {
        let record = json!({
            "state": "ended", "none": null, "long": "x".repeat(99),
            "whatsapp": {"terminate": {"durationSec": 5}}, "uplink": {"lost": 0, "late": 7},
        });
        let lines = record_lines(&record);
        let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1..], [["state", "ended"], ["uplink.lost", "0"], ["whatsapp.terminate.durationSec", "5"]]);
        assert!(lines.iter().all(|line| line.len() <= 100), "{lines:?}");
        assert_eq!(record_lines(&json!({})), ["  the bridge knows nothing of the call"]);
    }
}
