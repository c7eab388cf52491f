//! The Prometheus text of what was counted: exposition format 0.0.4, base units, one HELP and TYPE per family.
//!
//! Names of the reports' counters stand in [`names`]; the rest is named here. Series that never happened are shown as
//! zero where their labels are known, so that a rate over them is defined from the start.

mod names;
mod whatsapp;

pub use whatsapp::MetaStats;

use std::fmt::{self, Display, Write};
use std::sync::Arc;

use super::{RECENT, Stage, WorkerStats};
use crate::agent::Step;
use crate::close_reason::CloseReason;
use crate::messages::{CallState, LoadReport};

/// Names the running program.
#[derive(Clone, Debug)]
pub struct BuildInfo {
    /// Package version.
    pub version: &'static str,
    /// Driver in use, `uring` or `epoll`.
    pub io: &'static str,
    /// The codec library, as it names itself.
    pub opus: &'static str,
}

/// Reads what lives elsewhere. The default reads nothing.
#[derive(Clone)]
pub struct Reader<T>(Arc<dyn Fn() -> T + Send + Sync>);

/// Reads counters, by name.
pub type CounterReader = Reader<Vec<(&'static str, u64)>>;

/// Reads what the process uses.
pub type ProcessReader = Reader<ProcessStats>;

impl<T> Reader<T> {
    /// A reader that asks this.
    pub fn new(read: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// What is so now.
    pub fn read(&self) -> T {
        (self.0)()
    }
}

impl<T: Default + 'static> Default for Reader<T> {
    fn default() -> Self {
        Self::new(T::default)
    }
}

impl<T: fmt::Debug> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

/// What the process uses, as its host tells. What it does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessStats {
    /// Processor time of all threads, user and system.
    pub cpu_sec: Option<f64>,
    /// Memory that is in RAM.
    pub resident_bytes: Option<u64>,
    /// Addresses in use.
    pub virtual_bytes: Option<u64>,
    /// Descriptors open.
    pub open_fds: Option<u64>,
    /// The limit on them.
    pub max_fds: Option<u64>,
    /// When it started, in seconds since 1970.
    pub start_sec: Option<f64>,
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
    /// TLS handshakes of clients, by their outcome.
    pub handshakes: Handshakes,
    /// When the API's certificate ends, in seconds since 1970; `None` where it speaks no TLS.
    pub tls_not_after_sec: Option<u64>,
    /// SIGHUPs, by what came of them.
    pub reloads: Reloads,
    /// Retired model names replaced.
    pub retired_models: u64,
    /// Calls refused, by error code.
    pub refused: std::collections::BTreeMap<&'static str, u64>,
    /// Calls by Meta's webhook.
    pub meta: MetaStats,
    /// Calls at once allowed.
    pub calls_max: u64,
    /// No new calls are taken, for good.
    pub draining: bool,
    /// Seconds since the start.
    pub uptime_sec: f64,
    /// What the drivers counted.
    pub driver: Vec<(&'static str, u64)>,
    /// The workers by their index.
    pub workers: Vec<WorkerLoad>,
    /// What the process uses.
    pub process: ProcessStats,
}

/// TLS handshakes, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// Done, with a certificate.
    pub full: u64,
    /// Done, on an earlier session.
    pub resumed: u64,
    /// Failed.
    pub failed: u64,
    /// None: plain HTTP came.
    pub plain: u64,
}

impl Handshakes {
    /// One is done.
    pub fn secured(&mut self, resumed: bool) {
        if resumed {
            self.resumed += 1;
        } else {
            self.full += 1;
        }
    }
}

/// Reloads, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// All that could be read again is in use.
    pub ok: u64,
    /// Something could not be used: what was in use before still is.
    pub failed: u64,
    /// There was nothing to read again.
    pub nothing: u64,
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
    let mut text = Text { text: String::with_capacity(48 * 1024), prefix: names::PREFIX };

    text.family(
        "build_info",
        "gauge",
        "What is running: version, the driver that moves packets, and the codec library.",
    );
    text.sample("build_info", &[("version", build.version), ("io", build.io), ("opus", build.opus)], 1);
    text.single("uptime_seconds", "gauge", "Time since the start.", control.uptime_sec);

    text.family("calls", "gauge", "Live calls by state.");
    for (state, count) in CallState::LIVE.iter().zip(workers.gauges.live) {
        text.sample("calls", &[("state", state.label())], count);
    }
    text.single("calls_limit", "gauge", "Calls at once allowed.", control.calls_max);
    let help = "Whether the server drains: it takes no new calls and ends with the last one.";
    text.single("draining", "gauge", help, u8::from(control.draining));
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
    text.family("agent_connections", "gauge", "Connections to the model, by how far they are.");
    for (step, count) in Step::ALL.iter().zip(workers.gauges.model) {
        text.sample("agent_connections", &[("state", step.label())], count);
    }
    let queued_sec = workers.gauges.playout_queued_ms as f64 / 1e3;
    text.single(
        "playout_queued_seconds",
        "gauge",
        "Audio of the model that waits to be played, all calls.",
        queued_sec,
    );
    let help = "Packets that wait in jitter buffers behind a gap, all calls.";
    text.single("jitter_waiting_packets", "gauge", help, workers.gauges.jitter_packets);
    let help = "Bytes for the model that the kernel has not taken, all calls.";
    text.single("agent_unwritten_bytes", "gauge", help, workers.gauges.model_unwritten_bytes);

    stages(&mut text, workers);
    recent(&mut text, workers);

    text.family("http_requests_total", "counter", "HTTP requests answered, by route and status.");
    for ((route, status), count) in &control.requests {
        text.sample("http_requests_total", &[("route", route), ("code", &status.to_string())], count);
    }
    text.single("http_connections", "gauge", "HTTP connections open.", control.connections);
    let help = "HTTP connections accepted.";
    text.single("http_connections_accepted_total", "counter", help, control.connections_accepted);
    tls(&mut text, control);
    if control.meta.is_served {
        whatsapp::write(&mut text, &control.meta);
    }
    process(&mut text, &control.process);
    text.text
}

fn tls(text: &mut Text, control: &ControlStats) {
    let Handshakes { full, resumed, failed, plain } = control.handshakes;
    text.family("tls_handshakes_total", "counter", "TLS handshakes of clients of the API; plain: HTTP came instead.");
    for (outcome, count) in [("full", full), ("resumed", resumed), ("failed", failed), ("plain", plain)] {
        text.sample("tls_handshakes_total", &[("outcome", outcome)], count);
    }
    let help = "When the API's certificate ends, since 1970.";
    text.optional("tls_certificate_not_after_seconds", "gauge", help, control.tls_not_after_sec);
    let Reloads { ok, failed, nothing } = control.reloads;
    text.family("reloads_total", "counter", "Certificates and tokens read again on SIGHUP.");
    for (outcome, count) in [("ok", ok), ("failed", failed), ("nothing", nothing)] {
        text.sample("reloads_total", &[("outcome", outcome)], count);
    }
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
        let (count, sum_us) = histogram.map_or((0, 0), |histogram| (histogram.count(), histogram.sum_us()));
        let label = ("stage", stage.label());
        for (us, le) in BUCKETS_US {
            let count = histogram.map_or(0, |histogram| histogram.count_at_most(us));
            text.sample("stage_duration_seconds_bucket", &[label, ("le", le)], count);
        }
        text.sample("stage_duration_seconds_bucket", &[label, ("le", "+Inf")], count);
        text.sample("stage_duration_seconds_sum", &[label], sum_us as f64 / 1e6);
        text.sample("stage_duration_seconds_count", &[label], count);
    }
}

/// Quantiles that are shown of what is recent, with the text of their label.
const QUANTILES: [(f64, &str); 5] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99"), (0.999, "0.999"), (1.0, "1")];

/// A summary, as client libraries have it: quantiles of a sliding window, sum and count since the start. A stage that
/// was not recorded lately has no quantiles: a zero would be taken for a good one.
fn recent(text: &mut Text, workers: &WorkerStats) {
    let help = format!(
        "Latency of the stages of the path over the last {} to {} s; sum and count since the start.",
        RECENT.as_secs(),
        2 * RECENT.as_secs()
    );
    text.family("stage_latency_seconds", "summary", &help);
    for stage in Stage::ALL {
        let label = ("stage", stage.label());
        if let Some(histogram) = workers.recent.get(*stage) {
            let values = histogram.at_quantiles(QUANTILES.map(|(quantile, _)| quantile));
            for ((_, quantile), us) in QUANTILES.into_iter().zip(values) {
                text.sample("stage_latency_seconds", &[label, ("quantile", quantile)], us as f64 / 1e6);
            }
        }
        let total = workers.stages.get(*stage);
        let (count, sum_us) = total.map_or((0, 0), |histogram| (histogram.count(), histogram.sum_us()));
        text.sample("stage_latency_seconds_sum", &[label], sum_us as f64 / 1e6);
        text.sample("stage_latency_seconds_count", &[label], count);
    }
}

/// What every client library of Prometheus tells of its process, under the names that they all use.
fn process(text: &mut Text, process: &ProcessStats) {
    text.prefix = "process_";
    let help = "Processor time of the process, user and system.";
    text.optional("cpu_seconds_total", "counter", help, process.cpu_sec);
    text.optional("resident_memory_bytes", "gauge", "Memory of the process that is in RAM.", process.resident_bytes);
    text.optional("virtual_memory_bytes", "gauge", "Addresses that the process uses.", process.virtual_bytes);
    text.optional("open_fds", "gauge", "Descriptors that the process has open.", process.open_fds);
    text.optional("max_fds", "gauge", "Descriptors that the process may have open.", process.max_fds);
    text.optional("start_time_seconds", "gauge", "When the process started, since 1970.", process.start_sec);
}

/// The text so far.
struct Text {
    text: String,
    /// What the names that follow begin with.
    prefix: &'static str,
}

impl Text {
    /// Opens a family. `help` contains neither line ends nor backslashes.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let prefix = self.prefix;
        let _ = writeln!(self.text, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}{name}", self.prefix);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{open}{label}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    /// A family of one sample without labels.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The same of what may be unknown.
    fn optional(&mut self, name: &str, kind: &str, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.single(name, kind, help, value);
        }
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
        let build = BuildInfo { version: "1.2.3", io: "uring", opus: "libopus 1.6" };
        let mut control = ControlStats { connections: 3, calls_max: 200, uptime_sec: 12.5, ..ControlStats::default() };
        control.driver = vec![("datagrams_truncated", 9)];
        let report = LoadReport { busy: 0.5, complexity: 3, thread_ns: 10_000_000_000, ..LoadReport::default() };
        let report = LoadReport { kernel_ns: 1_000_000_000, encode_ns: 6_000_000_000, ..report };
        control.workers = vec![WorkerLoad::default(), WorkerLoad { calls: 7, admits: true, report }];
        control.requests.insert(("/api/sessions/{callId}", 200), 7);
        control.requests.insert(("none", 400), 1);
        control.refused.insert("full", 2);
        let mut workers = WorkerStats { opened: 10, ..WorkerStats::default() };
        workers.gauges.live = [1, 2, 3, 4];
        workers.ended = vec![5; CloseReason::ALL.len()];
        workers.uplink.appended_ms = 1_500;
        workers.peer.rtp_received = 42;
        for us in [40, 90, 3_000, 45_000_000] {
            workers.stages.record(Stage::Setup, Duration::from_micros(us));
            workers.recent.record(Stage::Setup, Duration::from_micros(us));
        }
        workers.gauges.model[Step::Live as usize] = 4;
        workers.gauges.playout_queued_ms = 2_500;
        control.process.resident_bytes = Some(4096);
        control.process.cpu_sec = Some(1.25);
        render(&build, &control, &workers)
    }

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|other| other == format!("voice_media_bridge_{line}"))
    }

    #[test]
    fn counts_appear_under_their_names_in_base_units() {
        let text = filled();
        for line in [
            "build_info{version=\"1.2.3\",io=\"uring\",opus=\"libopus 1.6\"} 1",
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
            "stage_latency_seconds{stage=\"setup\",quantile=\"0.5\"} 0.00009",
            "stage_latency_seconds{stage=\"setup\",quantile=\"0.99\"} 45.088767",
            "stage_latency_seconds_count{stage=\"setup\"} 4",
            "agent_connections{state=\"live\"} 4",
            "agent_connections{state=\"resolving\"} 0",
            "playout_queued_seconds 2.5",
        ] {
            assert!(has(&text, line), "{line} is missing in\n{text}");
        }
        assert!(
            text.contains("\nprocess_resident_memory_bytes 4096\n")
                && text.contains("\nprocess_cpu_seconds_total 1.25\n")
        );
        assert!(!text.contains("process_open_fds"), "what is unknown is not shown");
        assert!(!text.contains("{stage=\"uplink\",quantile"), "nor is what did not happen lately");
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
                assert!(["voice_media_bridge_", "process_"].iter().any(|prefix| name.starts_with(prefix)), "{line}");
                assert!(!help.contains('\\'), "{line}");
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
