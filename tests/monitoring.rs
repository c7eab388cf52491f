//! The dashboard and the alert rules speak of metrics that exist, with labels and values that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use voice_media_bridge::close_reason::CloseReason;
use voice_media_bridge::driver::Counters;
use voice_media_bridge::stats::{
    BuildInfo, ControlStats, MetaStats, ProcessStats, Stage, WorkerLoad, WorkerStats, render,
};

/// Labels whose values are not all known beforehand, or are not ours.
const OPEN_LABELS: &[&str] = &["instance", "job", "code", "worker"];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ansible/files").join(name)
}

fn dashboard() -> Value {
    let text = fs::read_to_string(file("grafana/voice-media-bridge.json")).expect("the dashboard is there");
    serde_json::from_str(&text).expect("the dashboard is JSON")
}

fn rules() -> String {
    let text = fs::read_to_string(file("prometheus/voice-media-bridge.rules.yml")).expect("the rules are there");
    text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// The metrics of a process in which everything has happened.
fn metrics() -> String {
    let build = BuildInfo { version: "1", io: "uring", opus: "1" };
    let mut control = ControlStats { driver: Counters::default().snapshot(), ..ControlStats::default() };
    control.process = ProcessStats {
        cpu_sec: Some(1.0),
        resident_bytes: Some(1),
        virtual_bytes: Some(1),
        open_fds: Some(1),
        max_fds: Some(1),
        start_sec: Some(1.0),
    };
    control.workers = vec![WorkerLoad::default()];
    control.meta = MetaStats::served(voice_media_bridge::whatsapp::graph::labels());
    control.tls_not_after_sec = Some(1);
    control.requests.insert(("/health", 200), 1);
    control.refused.insert("full", 1);
    let mut workers = WorkerStats { ended: vec![1; CloseReason::ALL.len()], ..WorkerStats::default() };
    for stage in Stage::ALL {
        workers.stages.record(*stage, Duration::from_millis(1));
        workers.recent.record(*stage, Duration::from_millis(1));
    }
    render(&build, &control, &workers)
}

/// Names of samples.
fn known() -> BTreeSet<String> {
    let text = metrics();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let name = |line: &str| line[..line.find(['{', ' ']).expect("a sample has a value")].to_owned();
    samples.map(name).collect()
}

/// Metrics named in an expression, each with its matchers (`label="value"` and the like), if it has some.
fn named(expression: &str) -> Vec<(String, String)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for prefix in ["voice_media_bridge_", "process_"] {
        for (at, _) in expression.match_indices(prefix) {
            if expression[..at].ends_with(is_word) {
                continue;
            }
            let rest = &expression[at..];
            let (name, rest) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
            let matchers = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
            found.push((name.to_owned(), matchers.to_owned()));
        }
    }
    found
}

/// What is wrong with the metrics that an expression names.
fn unknown(expression: &str) -> Vec<String> {
    let (known, text) = (known(), metrics());
    let mut wrong = Vec::new();
    for (name, matchers) in named(expression) {
        if !known.contains(&name) {
            wrong.push(format!("there is no metric {name}"));
        }
        for matcher in matchers.split(',').filter(|matcher| !matcher.is_empty()) {
            let at = matcher.find(['=', '!']).expect("a matcher has an operator");
            let (label, value) = (&matcher[..at], matcher[at..].trim_start_matches(['=', '!', '~']).trim_matches('"'));
            if OPEN_LABELS.contains(&label) {
                continue;
            }
            for value in value.split('|') {
                let pair = format!("{label}=\"{value}\"");
                if !text.lines().any(|line| line.starts_with(&format!("{name}{{")) && line.contains(&pair)) {
                    wrong.push(format!("{name} has no {pair}"));
                }
            }
        }
    }
    wrong
}

/// All texts of a kind in a JSON value, wherever they are.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == key => found.push(text),
                    member => texts(member, key, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, key, found)),
        _ => {}
    }
}

#[test]
fn every_metric_of_the_dashboard_exists() {
    let dashboard = dashboard();
    let mut expressions = Vec::new();
    texts(&dashboard, "expr", &mut expressions);
    texts(&dashboard, "definition", &mut expressions);
    assert!(expressions.len() > 30, "{expressions:?}");
    for expression in expressions {
        assert!(!named(expression).is_empty(), "{expression} names nothing");
        assert_eq!(unknown(expression), Vec::<String>::new(), "{expression}");
    }
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_overlap() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let number = |panel: &Value, field: &str| panel["gridPos"][field].as_u64().expect("a place on the grid");
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        assert!(!panel["title"].as_str().unwrap_or_default().is_empty(), "{panel}");
        assert!(number(panel, "x") + number(panel, "w") <= 24, "{panel}");
        for y in 0..number(panel, "h") {
            for x in 0..number(panel, "w") {
                assert!(taken.insert((number(panel, "x") + x, number(panel, "y") + y)), "{panel}");
            }
        }
    }
}

#[test]
fn every_metric_of_the_alert_rules_exists() {
    let rules = rules();
    assert!(named(&rules).len() > 20);
    assert_eq!(unknown(&rules), Vec::<String>::new());
    for rule in rules.split("- alert: ").skip(1) {
        for part in ["expr:", "severity:", "summary:", "description:"] {
            assert!(rule.contains(part), "{part} is missing in {rule}");
        }
    }
}

#[test]
fn a_metric_or_a_label_that_does_not_exist_is_found() {
    for (expression, wrong) in [
        ("rate(voice_media_bridge_call_total[5m])", "there is no metric voice_media_bridge_call_total"),
        ("process_memory", "there is no metric process_memory"),
        (
            r#"voice_media_bridge_calls{instance="a",state=~"active|idle"}"#,
            r#"voice_media_bridge_calls has no state="idle""#,
        ),
    ] {
        assert_eq!(unknown(expression), [wrong]);
    }
    assert!(unknown(r#"voice_media_bridge_calls{state!="active"} / process_open_fds"#).is_empty());
}

/// Runs promtool where it is installed; where the suite must not pass without it, it runs in the interop suite.
fn promtool(words: &[&str], name: &str) {
    let Ok(output) = Command::new("promtool").args(words).arg(file(name)).output() else { return };
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
}

#[test]
fn promtool_takes_the_rules_and_sees_the_alerts_that_should_come() {
    promtool(&["check", "rules"], "prometheus/voice-media-bridge.rules.yml");
    promtool(&["test", "rules"], "prometheus/voice-media-bridge.rules.test.yml");
}
