//! The Prometheus text of what was counted: exposition format 0.0.4, base units, one HELP and TYPE per family.
//!
//! Names of the reports' counters stand in [`names`]; the rest is named here. Series that never happened are shown as
//! zero where their labels are known, so that a rate over them is defined from the start.

mod names;

use std::fmt::{self, Display, Write};
use std::sync::Arc;

use super::{Stage, WorkerStats};
use crate::close_reason::CloseReason;
use crate::messages::{CallState, LoadReport};

/// Names the running program.
#[derive(Clone, Debug)]
pub struct BuildInfo {
    /// Package version.
    pub version: &'static str,
    /// Driver in use, `uring` or `epoll`.
    pub io: &'static str,
}

/// Reads counters that live elsewhere, by name. The default has none.
#[derive(Clone)]
pub struct CounterReader(Arc<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>);

impl CounterReader {
    /// A reader that asks this.
    pub fn new(read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The counters now.
    pub fn read(&self) -> Vec<(&'static str, u64)> {
        (self.0)()
    }
}

impl Default for CounterReader {
    fn default() -> Self {
        Self::new(Vec::new)
    }
}

impl fmt::Debug for CounterReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.read()).finish()
    }
}

/// What control counted.
#[derive(Clone, Debug, Default)]
pub struct ControlStats {
    /// HTTP requests by route label and status.
    pub requests: std::collections::BTreeMap<(&'static str, u16), u64>,
    /// HTTP connections open now.
    pub connections: u64,
    /// HTTP connections accepted since the start.
    pub connections_accepted: u64,
    /// Retired model names replaced.
    pub retired_models: u64,
    /// Calls refused, by error code.
    pub refused: std::collections::BTreeMap<&'static str, u64>,
    /// Calls at once allowed.
    pub calls_max: u64,
    /// Seconds since the start.
    pub uptime_sec: f64,
    /// What the drivers counted.
    pub driver: Vec<(&'static str, u64)>,
    /// The workers by their index.
    pub workers: Vec<WorkerLoad>,
}

/// One worker as control sees it.
#[derive(Clone, Debug, Default)]
pub struct WorkerLoad {
    /// Calls placed there and not over.
    pub calls: u32,
    /// Whether it takes another call.
    pub admits: bool,
    /// What it last said of its load.
    pub report: LoadReport,
}

/// Upper bounds of the stages' buckets with the text of their label: from a packet's microseconds to a turn's seconds.
/// The two digits of the histograms are finer than any step here.
const BUCKETS_US: [(u64, &str); 18] = [
    (50, "0.00005"),
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (20_000, "0.02"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
];

/// Writes all metrics in Prometheus' text format 0.0.4.
pub fn render(build: &BuildInfo, control: &ControlStats, workers: &WorkerStats) -> String {
    let mut text = Text(String::with_capacity(32 * 1024));

    text.family("build_info", "gauge", "What is running: version and the driver that moves packets.");
    text.sample("build_info", &[("version", build.version), ("io", build.io)], 1);
    text.single("uptime_seconds", "gauge", "Time since the start.", control.uptime_sec);

    text.family("calls", "gauge", "Live calls by state.");
    for (state, count) in CallState::LIVE.iter().zip(workers.live) {
        text.sample("calls", &[("state", state.label())], count);
    }
    text.single("calls_limit", "gauge", "Calls at once allowed.", control.calls_max);
    text.single("calls_opened_total", "counter", "Calls that a worker took.", workers.opened);
    text.family("calls_ended_total", "counter", "Calls that ended, by reason and by who is to blame.");
    for (index, reason) in CloseReason::ALL.iter().enumerate() {
        let count = workers.ended.get(index).copied().unwrap_or(0);
        text.sample("calls_ended_total", &[("reason", reason.label()), ("blame", reason.blame().label())], count);
    }
    text.family("calls_refused_total", "counter", "Session requests that were refused, by the error code answered.");
    for (code, count) in &control.refused {
        text.sample("calls_refused_total", &[("code", code)], count);
    }
    let help = "Calls that a fault of this program ended; each is also in calls_ended_total.";
    text.single("call_panics_total", "counter", help, workers.panics);
    let help = "Retired model names replaced by the default.";
    text.single("retired_models_total", "counter", help, control.retired_models);

    let help = "Datagrams that belonged to no live call.";
    text.single("stray_datagrams_total", "counter", help, workers.stray_datagrams);
    let help = "Datagrams that the kernel did not take.";
    text.single("send_failures_total", "counter", help, workers.send_failures);
    for (name, count) in &control.driver {
        let help = format!("Counted by the drivers of all loops: {}.", name.replace('_', " "));
        text.single(&format!("driver_{name}_total"), "counter", &help, *count);
    }
    text.report("peer", names::PEER, workers.peer.counters());
    text.report("uplink", names::UPLINK, workers.uplink.counters());
    text.report("downlink", names::DOWNLINK, workers.downlink.counters());
    text.report("agent", names::AGENT, workers.agent.counters());

    worker_loads(&mut text, &control.workers);
    stages(&mut text, workers);

    text.family("http_requests_total", "counter", "HTTP requests answered, by route and status.");
    for ((route, status), count) in &control.requests {
        text.sample("http_requests_total", &[("route", route), ("code", &status.to_string())], count);
    }
    text.single("http_connections", "gauge", "HTTP connections open.", control.connections);
    let help = "HTTP connections accepted.";
    text.single("http_connections_accepted_total", "counter", help, control.connections_accepted);
    text.0
}

fn worker_loads(text: &mut Text, workers: &[WorkerLoad]) {
    let numbered = || workers.iter().enumerate().map(|(index, load)| (index.to_string(), load));
    text.family("worker_calls", "gauge", "Calls by worker, those being opened included.");
    for (worker, load) in numbered() {
        text.sample("worker_calls", &[("worker", &worker)], load.calls);
    }
    text.family("worker_busy_ratio", "gauge", "Share of the time in which a worker ran, over about the last second.");
    for (worker, load) in numbered() {
        text.sample("worker_busy_ratio", &[("worker", &worker)], load.report.busy);
    }
    text.family("worker_admits", "gauge", "Whether a worker takes another call.");
    for (worker, load) in numbered() {
        text.sample("worker_admits", &[("worker", &worker)], u8::from(load.admits));
    }
    text.family("worker_encoder_complexity", "gauge", "Complexity of a worker's Opus encoders now.");
    for (worker, load) in numbered() {
        text.sample("worker_encoder_complexity", &[("worker", &worker)], load.report.complexity);
    }
    let help = "CPU time of a worker's thread: decoding, encoding, the kernel on its behalf, and all else.";
    text.family("worker_cpu_seconds_total", "counter", help);
    for (worker, load) in numbered() {
        let LoadReport { thread_ns, kernel_ns, encode_ns, decode_ns, .. } = load.report;
        let other_ns = thread_ns.saturating_sub(kernel_ns + encode_ns + decode_ns);
        for (part, ns) in
            [("decode", decode_ns), ("encode", encode_ns), ("user_other", other_ns), ("kernel", kernel_ns)]
        {
            text.sample("worker_cpu_seconds_total", &[("worker", &worker), ("part", part)], ns as f64 / 1e9);
        }
    }
}

fn stages(text: &mut Text, workers: &WorkerStats) {
    let mut help = String::from("Latency of the stages of the path.");
    for stage in Stage::ALL {
        let _ = write!(help, " {}: {}.", stage.label(), stage.help());
    }
    text.family("stage_duration_seconds", "histogram", &help);
    for stage in Stage::ALL {
        let histogram = workers.stages.get(*stage);
        let label = ("stage", stage.label());
        for (us, le) in BUCKETS_US {
            let count = histogram.count_at_most(us);
            text.sample("stage_duration_seconds_bucket", &[label, ("le", le)], count);
        }
        text.sample("stage_duration_seconds_bucket", &[label, ("le", "+Inf")], histogram.count());
        text.sample("stage_duration_seconds_sum", &[label], histogram.sum_us() as f64 / 1e6);
        text.sample("stage_duration_seconds_count", &[label], histogram.count());
    }
}

/// The text so far.
struct Text(String);

impl Text {
    /// Opens a family. `help` contains neither line ends nor backslashes.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let prefix = names::PREFIX;
        let _ = writeln!(self.0, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.0, "{}{name}", names::PREFIX);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{open}{label}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    /// A family of one sample without labels.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The counters of a report. One without a name of its own is shown under that of its field: a number that is
    /// missing is worse than one that is badly explained.
    fn report(&mut self, leg: &str, table: names::Table, counters: impl Iterator<Item = (&'static str, u64)>) {
        for (field, count) in counters {
            let row = table.iter().find(|row| row.field == field);
            let (stem, is_ms) = field.strip_suffix("_ms").map_or((field, false), |stem| (stem, true));
            let name = match row {
                Some(row) => format!("{}_total", row.name),
                None if is_ms => format!("{leg}_{stem}_seconds_total"),
                None => format!("{leg}_{field}_total"),
            };
            let help = row.map_or_else(|| format!("{leg}: {}.", field.replace('_', " ")), |row| row.help.to_owned());
            if is_ms {
                self.single(&name, "counter", &help, count as f64 / 1e3);
            } else {
                self.single(&name, "counter", &help, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    fn filled() -> String {
        let build = BuildInfo { version: "1.2.3", io: "uring" };
        let mut control = ControlStats { connections: 3, calls_max: 200, uptime_sec: 12.5, ..ControlStats::default() };
        control.driver = vec![("datagrams_truncated", 9)];
        let report = LoadReport { busy: 0.5, complexity: 3, thread_ns: 10_000_000_000, ..LoadReport::default() };
        let report = LoadReport { kernel_ns: 1_000_000_000, encode_ns: 6_000_000_000, ..report };
        control.workers = vec![WorkerLoad::default(), WorkerLoad { calls: 7, admits: true, report }];
        control.requests.insert(("/api/sessions/{callId}", 200), 7);
        control.requests.insert(("none", 400), 1);
        control.refused.insert("full", 2);
        let mut workers = WorkerStats { live: [1, 2, 3, 4], opened: 10, ..WorkerStats::default() };
        workers.ended = vec![5; CloseReason::ALL.len()];
        workers.uplink.appended_ms = 1_500;
        workers.peer.rtp_received = 42;
        for us in [40, 90, 3_000, 45_000_000] {
            workers.stages.record(Stage::Setup, Duration::from_micros(us));
        }
        render(&build, &control, &workers)
    }

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|other| other == format!("voice_media_bridge_{line}"))
    }

    #[test]
    fn counts_appear_under_their_names_in_base_units() {
        let text = filled();
        for line in [
            "build_info{version=\"1.2.3\",io=\"uring\"} 1",
            "uptime_seconds 12.5",
            "driver_datagrams_truncated_total 9",
            "calls{state=\"held\"} 3",
            "worker_calls{worker=\"1\"} 7",
            "worker_busy_ratio{worker=\"1\"} 0.5",
            "worker_admits{worker=\"0\"} 0",
            "worker_encoder_complexity{worker=\"1\"} 3",
            "worker_cpu_seconds_total{worker=\"1\",part=\"encode\"} 6",
            "worker_cpu_seconds_total{worker=\"1\",part=\"user_other\"} 3",
            "calls_ended_total{reason=\"ice_timeout\",blame=\"peer\"} 5",
            "calls_refused_total{code=\"full\"} 2",
            "http_requests_total{route=\"/api/sessions/{callId}\",code=\"200\"} 7",
            "uplink_appended_seconds_total 1.5",
            "peer_rtp_received_packets_total 42",
            "stage_duration_seconds_bucket{stage=\"setup\",le=\"0.00005\"} 1",
            "stage_duration_seconds_bucket{stage=\"setup\",le=\"0.0001\"} 2",
            "stage_duration_seconds_bucket{stage=\"setup\",le=\"0.0025\"} 2",
            "stage_duration_seconds_bucket{stage=\"setup\",le=\"0.005\"} 3",
            "stage_duration_seconds_bucket{stage=\"setup\",le=\"30\"} 3",
            "stage_duration_seconds_bucket{stage=\"setup\",le=\"+Inf\"} 4",
            "stage_duration_seconds_count{stage=\"setup\"} 4",
            "stage_duration_seconds_count{stage=\"uplink\"} 0",
        ] {
            assert!(has(&text, line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn every_family_is_explained_once_and_keeps_to_the_conventions() {
        let text = filled();
        let mut families = HashSet::new();
        let mut current = ("", "");
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(families.insert(name) && help.ends_with('.'), "{line}");
                assert!(name.starts_with("voice_media_bridge_") && !help.contains('\\'), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                current = kind.split_once(' ').unwrap();
                assert_eq!(current.1 == "counter", current.0.ends_with("_total"), "{line}");
                assert!(!current.0.contains("_ms") && !current.0.contains("milli"), "{line}");
            } else {
                assert!(line.starts_with(current.0), "{line} is not of the family {current:?}");
                assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn buckets_rise_and_end_with_all() {
        let text = filled();
        let mut last = 0;
        for line in text.lines().filter(|line| line.contains("_bucket{stage=\"setup\"")) {
            let count: u64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
            assert!(count >= last, "{line}");
            last = count;
        }
        assert_eq!(last, 4);
        assert!(BUCKETS_US.iter().all(|(us, le)| (le.parse::<f64>().unwrap() * 1e6).round() as u64 == *us));
    }

    #[test]
    fn every_counter_of_the_reports_has_a_name_of_its_own() {
        let workers = WorkerStats::default();
        let missing = |table: names::Table, counters: Vec<(&'static str, u64)>| -> Vec<&str> {
            let known = |field: &str| table.iter().any(|row| row.field == field);
            counters.into_iter().map(|(field, _)| field).filter(|field| !known(field)).collect()
        };
        let none: Vec<&str> = Vec::new();
        assert_eq!(missing(names::PEER, workers.peer.counters().collect()), none);
        assert_eq!(missing(names::UPLINK, workers.uplink.counters().collect()), none);
        assert_eq!(missing(names::DOWNLINK, workers.downlink.counters().collect()), none);
        assert_eq!(missing(names::AGENT, workers.agent.counters().collect()), none);
    }

    #[test]
    fn promtool_finds_nothing_to_mend_where_it_is_installed() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let Ok(mut child) = promtool.spawn() else { return };
        child.stdin.take().unwrap().write_all(filled().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()), "");
    }
}
