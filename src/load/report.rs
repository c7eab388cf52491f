//! What a load run found: the JSON report, the table for people, the bounds it is held to, and its doubts about itself.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::stats::{Histogram, Percentiles};

/// Own lateness, 99th percentile, from which what is measured is partly the load itself: a tenth of a frame.
const OWN_LATE_US_MAX: u64 = 2_000;

/// Own busy share from which the load's thread queues work of its own.
const OWN_BUSY_MAX: f64 = 0.7;

/// Deviations of arrival that are counted, in microseconds.
const DEVIATIONS_US: [u64; 8] = [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000];

/// A run, in numbers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How long it took, from the first call to the last hang-up.
    pub seconds: f64,
    /// Whether a signal ended it early.
    pub interrupted: bool,
    /// Why it ended without running, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Calls and how they came up.
    pub calls: Calls,
    /// RTP of all calls.
    pub packets: Packets,
    /// From one packet of a call to the next on arrival: how far from what their RTP times say, 20 ms as a rule.
    pub interarrival: Interarrival,
    /// Round trips of marked bursts.
    pub echo: Echo,
    /// What the load itself took.
    pub own: Own,
    /// What makes the numbers doubtful.
    pub warnings: Vec<String>,
    /// What was asked for, and whether it was met.
    pub bounds: Vec<Bound>,
    /// Every bound was met and at least one call was connected.
    pub passed: bool,
}

/// Calls and how they came up.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Calls {
    /// Requests that were over: answered, refused or failed.
    pub asked: u64,
    /// Answered with an answer that the relay took.
    pub answered: u64,
    /// DTLS up.
    pub connected: u64,
    /// Most that were connected at once.
    pub connected_max: u64,
    /// Not answered, or with something that is no answer.
    pub refused: u64,
    /// Answered, and not connected in time.
    pub never_connected: u64,
    /// Closed by the server while the caller was there.
    pub ended_by_server: u64,
    /// Hang-ups that were not answered with 200.
    pub hangups_failed: u64,
    /// From the moment a request was due to its answer, of those that were answered.
    pub answer: Option<Percentiles>,
    /// From the answer's being applied to DTLS.
    pub connect: Option<Percentiles>,
    /// From DTLS to the first RTP packet.
    pub first_media: Option<Percentiles>,
    /// Refusals by what was said.
    pub refusals: Vec<Refusal>,
    /// How long refusals took, those answered by the server.
    pub refusal: Option<Percentiles>,
}

/// Refusals of one kind.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Status and code, or what went wrong instead.
    pub what: String,
    /// How many.
    pub count: u64,
    /// How long they took.
    pub took: Option<Percentiles>,
}

/// RTP of all calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Packets {
    /// Sent to the server.
    pub sent: u64,
    /// Received from it, each once.
    pub received: u64,
    /// Gaps in their sequence numbers.
    pub lost: u64,
    /// Came again.
    pub duplicates: u64,
    /// Came behind a newer one.
    pub late: u64,
    /// Could not be believed.
    pub undecryptable: u64,
    /// Datagrams of no call: the last words of those that were hung up, as a rule.
    pub strays: u64,
}

impl Packets {
    /// Lost of those that should have come, in percent; `None` when none should.
    pub fn loss_percent(&self) -> Option<f64> {
        let all = self.received + self.lost;
        (all > 0).then(|| 100.0 * self.lost as f64 / all as f64)
    }

    pub(super) fn add(&mut self, other: &Self) {
        let Self { sent, received, lost, duplicates, late, undecryptable, strays } = other;
        self.sent += sent;
        self.received += received;
        self.lost += lost;
        self.duplicates += duplicates;
        self.late += late;
        self.undecryptable += undecryptable;
        self.strays += strays;
    }
}

/// Deviation on arrival, absolute.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interarrival {
    /// In five numbers.
    pub deviation: Option<Percentiles>,
    /// Microseconds, and how many deviations were at most that.
    pub at_most: Vec<(u64, u64)>,
}

impl Interarrival {
    pub(super) fn of(histogram: &Histogram) -> Self {
        let deviation = histogram.percentiles();
        let at_most = if deviation.is_some() { &DEVIATIONS_US[..] } else { &[] };
        Self { deviation, at_most: at_most.iter().map(|us| (*us, histogram.count_at_most(*us))).collect() }
    }
}

/// Marked bursts.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Echo {
    /// Calls that sent them.
    pub probes: u64,
    /// Bursts sent.
    pub sent: u64,
    /// Bursts that came back.
    pub heard: u64,
    /// Bursts that did not within four seconds.
    pub missed: u64,
    /// From the first packet handed to the kernel to the first packet with sound taken in by it.
    pub round_trip: Option<Percentiles>,
}

/// What the load itself took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Own {
    /// CPU of its thread, seconds.
    pub cpu_seconds: f64,
    /// Milliseconds of CPU per second and connected call.
    pub cpu_ms_per_call_second: f64,
    /// Share of the busiest second.
    pub busy_max: f64,
    /// From when a packet was due to when it was handed to the kernel.
    pub late: Option<Percentiles>,
    /// Datagrams that its socket dropped for want of room: they look like the server's loss.
    pub socket_drops: Option<u64>,
    /// Whether the above is good enough to believe the rest.
    pub trusted: bool,
}

impl Own {
    /// What is wrong with the load itself, in sentences.
    pub(super) fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if let Some(late) = self.late.filter(|late| late.p99_us > OWN_LATE_US_MAX) {
            let ms = late.p99_us as f64 / 1000.0;
            doubts.push(format!("the load's own packets left {ms:.1} ms late (p99; 2 ms are good): jitter and round trips below are partly its own. Give it a core of its own, or drive fewer calls."));
        }
        if self.busy_max > OWN_BUSY_MAX {
            let percent = self.busy_max * 100.0;
            doubts.push(format!("the load's thread was busy {percent:.0} % of a second (70 % are good): the limit found is its own. Split the calls over several loads."));
        }
        if let Some(drops) = self.socket_drops.filter(|drops| *drops > 0) {
            doubts.push(format!("the load's own socket dropped {drops} datagrams: they count as lost below. Raise net.core.rmem_max (sysctl), or run it with CAP_NET_ADMIN."));
        }
        doubts
    }
}

/// A bound that was asked for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bound {
    /// Its flag.
    pub flag: &'static str,
    /// What is allowed.
    pub limit: f64,
    /// What was measured; `None`: nothing was, which does not meet a bound.
    pub measured: Option<f64>,
    /// Whether it was met.
    pub met: bool,
}

/// The bounds a run is held to; `None` asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Milliseconds.
    pub answer_p99_ms: Option<f64>,
    /// Milliseconds.
    pub connect_p99_ms: Option<f64>,
    /// Percent.
    pub loss_percent: Option<f64>,
    /// Milliseconds of deviation.
    pub interarrival_p99_ms: Option<f64>,
    /// Milliseconds.
    pub echo_p50_ms: Option<f64>,
    /// Milliseconds.
    pub echo_p99_ms: Option<f64>,
    /// Percent of all calls.
    pub refused_percent: Option<f64>,
    /// Milliseconds; met when nothing was refused.
    pub refusal_p99_ms: Option<f64>,
}

impl Bounds {
    /// Holds a report to the bounds, in the order of the flags.
    fn judge(&self, report: &Report) -> Vec<Bound> {
        let p99 = |percentiles: &Option<Percentiles>| percentiles.map(|p| p.p99_us as f64 / 1000.0);
        let calls = &report.calls;
        let refused = (calls.asked > 0).then(|| 100.0 * calls.refused as f64 / calls.asked as f64);
        let refusal = if calls.refused == 0 { Some(0.0) } else { p99(&calls.refusal) };
        [
            ("--max-answer-p99-ms", self.answer_p99_ms, p99(&calls.answer)),
            ("--max-connect-p99-ms", self.connect_p99_ms, p99(&calls.connect)),
            ("--max-loss-percent", self.loss_percent, report.packets.loss_percent()),
            ("--max-interarrival-p99-ms", self.interarrival_p99_ms, p99(&report.interarrival.deviation)),
            ("--max-echo-p50-ms", self.echo_p50_ms, report.echo.round_trip.map(|p| p.p50_us as f64 / 1000.0)),
            ("--max-echo-p99-ms", self.echo_p99_ms, p99(&report.echo.round_trip)),
            ("--max-refused-percent", self.refused_percent, refused),
            ("--max-refusal-p99-ms", self.refusal_p99_ms, refusal),
        ]
        .into_iter()
        .filter_map(|(flag, limit, measured)| {
            let limit = limit?;
            Some(Bound { flag, limit, measured, met: measured.is_some_and(|measured| measured <= limit) })
        })
        .collect()
    }
}

impl Report {
    /// Draws the conclusions: bounds, doubts, and whether all is well.
    pub(super) fn concluded(mut self, bounds: &Bounds) -> Self {
        let mut doubts = self.own.doubts();
        self.own.trusted = doubts.is_empty();
        if self.echo.probes > 0 && self.echo.heard == 0 && self.calls.connected > 0 {
            doubts.push(
                "no burst came back: is the model behind the server an echo (voice-media-bridge agent --echo)?".into(),
            );
        }
        self.warnings = doubts;
        self.bounds = bounds.judge(&self);
        self.passed = self.error.is_none() && self.calls.connected > 0 && self.bounds.iter().all(|bound| bound.met);
        self
    }

    /// The report for scripts.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data with names")
    }

    /// What was not met, a sentence each.
    pub fn failures(&self) -> Vec<String> {
        let mut failures: Vec<String> = self.error.iter().cloned().collect();
        if self.error.is_none() && self.calls.connected == 0 {
            let why = self.calls.refusals.first().map_or("no answer was waited for", |refusal| refusal.what.as_str());
            failures.push(format!("no call was connected: {why}"));
        }
        for bound in self.bounds.iter().filter(|bound| !bound.met) {
            let measured = bound.measured.map_or("nothing was measured".to_owned(), |m| format!("it was {m:.2}"));
            failures.push(format!("{} {} was missed: {measured}", bound.flag, bound.limit));
        }
        failures
    }
}

/// Percentiles in milliseconds, for the table.
fn row(f: &mut fmt::Formatter<'_>, name: &str, percentiles: Option<&Percentiles>) -> fmt::Result {
    let Some(p) = percentiles else { return Ok(()) };
    let ms = |us: u64| us as f64 / 1000.0;
    let [p50, p90, p99, max] = [p.p50_us, p.p90_us, p.p99_us, p.max_us].map(ms);
    writeln!(f, "  {name:<24}{:>9}{p50:>10.2}{p90:>10.2}{p99:>10.2}{max:>10.2}", p.count)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, packets, own, echo, .. } = self;
        let early = if self.interrupted { ", interrupted" } else { "" };
        writeln!(
            f,
            "{} calls asked for, {} connected ({} at once at most), {} refused; {:.1} s{early}",
            calls.asked, calls.connected, calls.connected_max, calls.refused, self.seconds
        )?;
        writeln!(f, "\n  milliseconds{:>21}{:>10}{:>10}{:>10}{:>10}", "count", "p50", "p90", "p99", "max")?;
        row(f, "answer", calls.answer.as_ref())?;
        row(f, "connect", calls.connect.as_ref())?;
        row(f, "first media", calls.first_media.as_ref())?;
        row(f, "refusal", calls.refusal.as_ref())?;
        row(f, "arrival off the beat", self.interarrival.deviation.as_ref())?;
        row(f, "echo round trip", echo.round_trip.as_ref())?;
        row(f, "own packets late", own.late.as_ref())?;
        let loss = packets.loss_percent().map_or("-".to_owned(), |percent| format!("{percent:.3} %"));
        writeln!(
            f,
            "\n  packets: {} sent, {} received, {} lost ({loss}), {} late, {} twice, {} not decrypted, {} of no call",
            packets.sent,
            packets.received,
            packets.lost,
            packets.late,
            packets.duplicates,
            packets.undecryptable,
            packets.strays
        )?;
        if echo.probes > 0 {
            writeln!(
                f,
                "  echo: {} probe calls, {} bursts sent, {} heard, {} missed",
                echo.probes, echo.sent, echo.heard, echo.missed
            )?;
        }
        for (count, what) in [
            (calls.never_connected, "answered and never connected"),
            (calls.ended_by_server, "ended by the server"),
            (calls.hangups_failed, "hang-ups not answered with 200"),
        ] {
            if count > 0 {
                writeln!(f, "  calls: {count} {what}")?;
            }
        }
        for refusal in &calls.refusals {
            writeln!(f, "  refused: {} times: {}", refusal.count, refusal.what)?;
        }
        writeln!(
            f,
            "  the load itself: {:.2} ms CPU per call-second, busiest second {:.0} %",
            own.cpu_ms_per_call_second,
            own.busy_max * 100.0
        )?;
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        for bound in self.bounds.iter().filter(|bound| bound.met) {
            writeln!(f, "met: {} {} ({:.2})", bound.flag, bound.limit, bound.measured.unwrap_or_default())?;
        }
        for failure in self.failures() {
            writeln!(f, "FAILED: {failure}")?;
        }
        Ok(())
    }
}

/// How the run stands, once a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Calls that are asked for, answered or connected.
    pub live: usize,
    /// Calls connected now.
    pub connected: u64,
    /// Calls refused so far.
    pub refused: u64,
    /// RTP so far.
    pub packets: Packets,
    /// Median so far.
    pub echo_p50_us: Option<u64>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { elapsed, live, connected, refused, packets, echo_p50_us } = self;
        let (sent, received) = (packets.sent, packets.received);
        let seconds = elapsed.as_secs();
        write!(f, "{seconds:>4} s  {live} calls, {connected} connected, {refused} refused  ")?;
        write!(f, "packets {sent} out {received} in {} lost", packets.lost)?;
        match echo_p50_us {
            Some(us) => write!(f, "  echo p50 {:.1} ms", *us as f64 / 1000.0),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percentiles(us: u64) -> Option<Percentiles> {
        let mut histogram: Histogram = Histogram::new();
        histogram.record(Duration::from_micros(us));
        histogram.percentiles()
    }

    fn report() -> Report {
        Report {
            seconds: 10.0,
            interrupted: false,
            error: None,
            calls: Calls {
                asked: 10,
                answered: 9,
                connected: 9,
                refused: 1,
                answer: percentiles(4_000),
                ..Calls::default()
            },
            packets: Packets { sent: 100, received: 99, lost: 1, ..Packets::default() },
            interarrival: Interarrival::default(),
            echo: Echo::default(),
            own: Own::default(),
            warnings: Vec::new(),
            bounds: Vec::new(),
            passed: false,
        }
    }

    #[test]
    fn bounds_are_met_missed_or_not_measured_and_each_is_named() {
        let bounds = Bounds {
            answer_p99_ms: Some(5.0),
            loss_percent: Some(0.5),
            echo_p50_ms: Some(15.0),
            refused_percent: Some(10.0),
            ..Bounds::default()
        };
        let report = report().concluded(&bounds);
        let met: Vec<_> = report.bounds.iter().map(|bound| (bound.flag, bound.met)).collect();
        let expected = [
            ("--max-answer-p99-ms", true),
            ("--max-loss-percent", false),
            ("--max-echo-p50-ms", false),
            ("--max-refused-percent", true),
        ];
        assert_eq!(met, expected);
        assert!(!report.passed);
        let text = report.to_string();
        assert!(text.contains("FAILED: --max-loss-percent 0.5 was missed: it was 1.00"), "{text}");
        assert!(text.contains("FAILED: --max-echo-p50-ms 15 was missed: nothing was measured"), "{text}");
        assert!(super::Report { bounds: Vec::new(), ..report }.concluded(&Bounds::default()).passed);
    }

    #[test]
    fn a_run_that_connected_nothing_fails_with_the_reason() {
        let mut report = report();
        report.calls.connected = 0;
        report.calls.refusals = vec![Refusal { what: "401 unauthorized".into(), count: 9, took: None }];
        let report = report.concluded(&Bounds::default());
        assert!(!report.passed);
        assert_eq!(report.failures(), ["no call was connected: 401 unauthorized"]);
    }

    #[test]
    fn a_load_that_is_the_bottleneck_says_so() {
        let mut report = report();
        report.own = Own { late: percentiles(9_000), busy_max: 0.9, socket_drops: Some(3), ..Own::default() };
        let report = report.concluded(&Bounds::default());
        assert!(!report.own.trusted && report.warnings.len() == 3);
        let text = report.to_string();
        for said in ["left 9.", "busy 90 %", "dropped 3 datagrams"] {
            assert!(text.contains(said), "{text}");
        }
        assert!(
            Own { late: percentiles(900), busy_max: 0.5, socket_drops: Some(0), ..Own::default() }.doubts().is_empty()
        );
    }

    #[test]
    fn the_json_has_the_names_that_scripts_read() {
        let json = serde_json::to_value(report().concluded(&Bounds::default())).unwrap();
        assert_eq!(json["calls"]["connected"], 9);
        assert_eq!(json["packets"]["lost"], 1);
        assert_eq!(json["calls"]["answer"]["p99Us"].as_u64().map(|us| us / 100), Some(40));
        assert_eq!(json["own"]["trusted"], true);
        assert_eq!(json["passed"], true);
    }
}
