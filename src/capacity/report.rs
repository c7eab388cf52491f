//! What the steps measured and what follows from it: a row each, the number of calls, what one costs, and every doubt.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::scrape::Scrape;

/// The parts into which a worker's CPU time is split, as the metric's label names them.
pub const PARTS: [&str; 4] = ["decode", "encode", "user_other", "kernel"];

/// Share of a core from which the model's process queues work of its own.
const AGENT_BUSY_MAX: f64 = 0.85;

/// One number of calls, held for a while. What is `None` was not told by the bridge.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Calls asked for.
    pub calls: usize,
    /// Seconds between the two readings of the metrics.
    pub seconds: f64,
    /// Calls that were connected.
    pub connected: u64,
    /// How late paced frames were handed to the kernel, milliseconds.
    pub tick_late_p50_ms: Option<f64>,
    /// The same, 99th percentile.
    pub tick_late_p99_ms: Option<f64>,
    /// Packets of callers that did not reach the bridge in time.
    pub uplink_lost: Option<f64>,
    /// Packets of the bridge that did not reach the callers.
    pub downlink_lost: u64,
    /// Beats that the bridge skipped.
    pub skipped_beats: Option<f64>,
    /// CPU of the workers, milliseconds per second and call, by part.
    pub cpu_ms: Vec<(&'static str, Option<f64>)>,
    /// CPU of the whole bridge, milliseconds per second and call.
    pub cpu_ms_process: Option<f64>,
    /// Share of its core that a worker was busy.
    pub worker_busy: Option<f64>,
    /// Complexity of the encoders at the end, the lowest of the workers.
    pub complexity: Option<f64>,
    /// Resident memory of the bridge at the end, bytes.
    pub memory_bytes: Option<f64>,
    /// Share of a core that the model's process was busy.
    pub agent_busy: Option<f64>,
    /// Share of the busiest second that the load's thread was busy.
    pub load_busy: Option<f64>,
    /// What did not hold, in sentences; empty: the step held.
    pub failures: Vec<String>,
    /// What makes the step doubtful, in sentences.
    pub doubts: Vec<String>,
}

/// What a process was seen to use, at two times.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU seconds in between.
    pub cpu_seconds: Option<f64>,
    /// Resident bytes at the end.
    pub memory_bytes: Option<f64>,
}

/// Everything that one step left behind.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// Calls asked for.
    pub calls: usize,
    /// Workers of the bridge.
    pub workers: u16,
    /// The bridge's metrics before and after.
    pub before: &'a Scrape,
    /// See `before`.
    pub after: &'a Scrape,
    /// Seconds between them.
    pub seconds: f64,
    /// The bridge's process.
    pub bridge: Usage,
    /// The model's process.
    pub agent: Usage,
    /// The load's JSON report.
    pub load: &'a Value,
}

impl Step {
    /// Judges a step.
    pub fn of(evidence: &Evidence<'_>, bound_ms: f64) -> Self {
        let Evidence { calls, workers, before, after, seconds, bridge, agent, load } = *evidence;
        let rose = |name, label| after.since(before, name, label);
        let late = after.tick_late_since(before);
        let quantile = |share| late.as_ref().and_then(|late| late.quantile_us(share)).map(|us| us / 1000.0);
        let connected = load["calls"]["connected"].as_u64().unwrap_or(0);
        let per_call = |cpu: f64| 1000.0 * cpu / seconds / connected.max(1) as f64;
        let part = |name| (name, rose("worker_cpu_seconds_total", Some(("part", name))).map(per_call));
        let worker_busy = rose("worker_cpu_seconds_total", None).map(|cpu| cpu / seconds / f64::from(workers));
        let step = Self {
            calls,
            seconds,
            connected,
            tick_late_p50_ms: quantile(0.5),
            tick_late_p99_ms: quantile(0.99),
            uplink_lost: rose("uplink_lost_packets_total", None),
            downlink_lost: load["packets"]["lost"].as_u64().unwrap_or(0),
            skipped_beats: rose("downlink_skipped_beats_total", None),
            cpu_ms: PARTS.map(part).into(),
            cpu_ms_process: bridge.cpu_seconds.map(per_call),
            worker_busy,
            complexity: after.sum("worker_encoder_complexity", None).map(|sum| sum / f64::from(workers)),
            memory_bytes: after.sum("process_resident_memory_bytes", None).or(bridge.memory_bytes),
            agent_busy: agent.cpu_seconds.map(|cpu| cpu / seconds),
            load_busy: load["own"]["busyMax"].as_f64(),
            failures: Vec::new(),
            doubts: Vec::new(),
        };
        Self { failures: step.failures(bound_ms, load), doubts: step.doubts(load), ..step }
    }

    /// Whether it held.
    pub fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    fn failures(&self, bound_ms: f64, load: &Value) -> Vec<String> {
        let mut failures = Vec::new();
        match self.tick_late_p99_ms {
            Some(ms) if ms > bound_ms => failures.push(format!("ticks {ms:.2} ms late (p99; {bound_ms} ms allowed)")),
            Some(_) => {}
            None => failures.push("the bridge does not tell how late its ticks are".into()),
        }
        let uplink = self.uplink_lost.unwrap_or(0.0);
        if uplink > 0.0 || self.downlink_lost > 0 {
            failures.push(format!("lost {uplink:.0} packets towards the bridge, {} from it", self.downlink_lost));
        }
        let refused = load["calls"]["refused"].as_u64().unwrap_or(0);
        if refused > 0 {
            let what = load["calls"]["refusals"][0]["what"].as_str().unwrap_or("?");
            failures.push(format!("{refused} calls refused: {what}"));
        } else if self.connected < self.calls as u64 {
            failures.push(format!("only {} calls connected", self.connected));
        }
        failures
    }

    fn doubts(&self, load: &Value) -> Vec<String> {
        let said = load["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut doubts: Vec<String> = said.map(str::to_owned).collect();
        if let Some(busy) = self.agent_busy.filter(|busy| *busy > AGENT_BUSY_MAX) {
            doubts.push(format!(
                "the model's process was busy {:.0} % of a core: it may have been the limit",
                busy * 100.0
            ));
        }
        doubts
    }
}

/// The whole search.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was asked for, in words.
    pub question: String,
    /// Workers of the bridge.
    pub workers: u16,
    /// Bound on the 99th percentile of tick lateness, milliseconds.
    pub bound_tick_p99_ms: f64,
    /// Calls that held, the largest number; `None`: not one.
    pub calls: Option<usize>,
    /// Of that, for each worker.
    pub calls_per_worker: Option<f64>,
    /// The same brought up to a worker that is busy all the time: what the cost alone would allow.
    pub calls_per_busy_core: Option<f64>,
    /// Memory that a call added to the idle bridge, bytes.
    pub memory_bytes_per_call: Option<f64>,
    /// Whether more may be possible, and why.
    pub lower_bound: Option<String>,
    /// Whether a signal ended it early.
    pub interrupted: bool,
    /// What was tried, in that order.
    pub steps: Vec<Step>,
}

impl Report {
    /// Draws the conclusions. `idle_bytes` is the bridge's memory before the first call; `is_open` whether nothing was
    /// found that does not hold; `shares_cores` whether load and model had no cores of their own.
    pub fn of(
        question: String,
        workers: u16,
        bound_tick_p99_ms: f64,
        steps: Vec<Step>,
        idle_bytes: Option<f64>,
        is_open: bool,
        shares_cores: bool,
    ) -> Self {
        let best = steps.iter().filter(|step| step.holds()).max_by_key(|step| step.calls);
        let calls = best.map(|step| step.calls);
        let memory = best.and_then(|step| Some((step.memory_bytes? - idle_bytes?) / step.calls as f64));
        let refused = steps.iter().any(|step| step.failures.iter().any(|failure| failure.contains("refused")));
        let doubtful = steps.iter().any(|step| !step.holds() && !step.doubts.is_empty());
        let why = if is_open && !steps.is_empty() {
            Some("everything up to --max-calls held: raise it")
        } else if refused {
            Some("the bridge refused calls before the bound was reached: its admission or --max-calls was the limit")
        } else if shares_cores {
            Some("load and model shared the bridge's cores: there are no others")
        } else if doubtful {
            Some("where it did not hold, the load or the model was short of CPU itself")
        } else {
            None
        };
        Self {
            question,
            workers,
            bound_tick_p99_ms,
            calls,
            calls_per_worker: calls.map(|calls| calls as f64 / f64::from(workers)),
            calls_per_busy_core: best.and_then(|step| Some(step.calls as f64 / f64::from(workers) / step.worker_busy?)),
            memory_bytes_per_call: memory.filter(|bytes| *bytes > 0.0),
            lower_bound: why.map(str::to_owned),
            interrupted: false,
            steps,
        }
    }

    /// The report for scripts.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data with names")
    }
}

/// The head of the table.
pub const HEAD: &str = "\
calls  tick late ms     lost   skip  cpu ms per call-second                        busy  cx   MB    agent load
       p50    p99    up   down      decode encode  other kernel  total process";

fn or_dash(f: &mut fmt::Formatter<'_>, width: usize, digits: usize, value: Option<f64>) -> fmt::Result {
    match value {
        Some(value) => write!(f, "{value:>width$.digits$}"),
        None => write!(f, "{:>width$}", "-"),
    }
}

impl fmt::Display for Step {
    /// A row of the table, below [`HEAD`], and what did not hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5}", self.calls)?;
        or_dash(f, 7, 2, self.tick_late_p50_ms)?;
        or_dash(f, 7, 2, self.tick_late_p99_ms)?;
        or_dash(f, 6, 0, self.uplink_lost)?;
        or_dash(f, 7, 0, Some(self.downlink_lost as f64))?;
        or_dash(f, 6, 0, self.skipped_beats)?;
        let parts: Vec<Option<f64>> = self.cpu_ms.iter().map(|(_, ms)| *ms).collect();
        for ms in &parts {
            or_dash(f, 7, 2, *ms)?;
        }
        or_dash(f, 7, 2, parts.iter().copied().sum::<Option<f64>>())?;
        or_dash(f, 8, 2, self.cpu_ms_process)?;
        let percent = |share: Option<f64>| share.map(|share| share * 100.0);
        or_dash(f, 5, 0, percent(self.worker_busy))?;
        f.write_str("%")?;
        or_dash(f, 4, 0, self.complexity)?;
        or_dash(f, 5, 0, self.memory_bytes.map(|bytes| bytes / 1e6))?;
        for share in [self.agent_busy, self.load_busy] {
            or_dash(f, 6, 0, percent(share))?;
            f.write_str("%")?;
        }
        for failure in &self.failures {
            write!(f, "\n       did not hold: {failure}")?;
        }
        for doubt in &self.doubts {
            write!(f, "\n       doubtful: {doubt}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = self.bound_tick_p99_ms;
        if self.interrupted {
            writeln!(f, "interrupted: what follows is from the steps so far")?;
        }
        let Some(calls) = self.calls else {
            return writeln!(f, "No number of calls held with ticks at most {bound} ms late (p99) and no loss.");
        };
        let (at_least, workers) = (if self.lower_bound.is_some() { "at least " } else { "" }, self.workers);
        writeln!(f, "{at_least}{calls} calls on {workers} worker(s), ticks at most {bound} ms late (p99), no loss.")?;
        if let Some(why) = &self.lower_bound {
            writeln!(f, "  a lower bound: {why}")?;
        }
        if let Some(busy) = self.calls_per_busy_core {
            writeln!(f, "  by cost alone: {busy:.0} calls per core that is busy all the time")?;
        }
        if let Some(step) = self.steps.iter().filter(|step| step.holds()).max_by_key(|step| step.calls) {
            let parts = step.cpu_ms.iter().map(|(part, ms)| match ms {
                Some(ms) => format!("{part} {ms:.2}"),
                None => format!("{part} not told"),
            });
            writeln!(f, "  CPU per call-second, ms: {}", parts.collect::<Vec<_>>().join(", "))?;
        }
        match self.memory_bytes_per_call {
            Some(bytes) => writeln!(f, "  memory per call: {:.0} KB", bytes / 1e3),
            None => writeln!(f, "  memory per call: not told"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metrics(cpu: f64, late_fast: u64, lost: u64) -> Scrape {
        let text = format!(
            "voice_media_bridge_worker_cpu_seconds_total{{worker=\"0\",part=\"encode\"}} {cpu}\n\
             voice_media_bridge_stage_duration_seconds_bucket{{stage=\"tick_late\",le=\"0.001\"}} {late_fast}\n\
             voice_media_bridge_stage_duration_seconds_bucket{{stage=\"tick_late\",le=\"0.005\"}} {}\n\
             voice_media_bridge_uplink_lost_packets_total {lost}\n",
            late_fast / 100 * 100
        );
        Scrape::parse(&text, None)
    }

    fn step(after: &Scrape, load: &Value) -> Step {
        let before = metrics(1.0, 0, 0);
        let bridge = Usage { cpu_seconds: Some(6.0), memory_bytes: Some(30e6) };
        let agent = Usage { cpu_seconds: Some(9.5), memory_bytes: None };
        let evidence = Evidence { calls: 100, workers: 1, before: &before, after, seconds: 10.0, bridge, agent, load };
        Step::of(&evidence, 2.0)
    }

    fn load() -> Value {
        json!({ "calls": { "connected": 100, "refused": 0 }, "packets": { "lost": 0 }, "own": { "busyMax": 0.3 },
                "warnings": [] })
    }

    #[test]
    fn a_step_within_its_bounds_holds_and_its_cost_is_per_call() {
        let step = step(&metrics(6.0, 1_000, 0), &load());
        assert!(step.holds(), "{:?}", step.failures);
        assert_eq!(step.cpu_ms, [("decode", None), ("encode", Some(5.0)), ("user_other", None), ("kernel", None)]);
        assert_eq!((step.cpu_ms_process, step.worker_busy), (Some(6.0), Some(0.5)));
        assert_eq!(step.memory_bytes, Some(30e6), "from the process, where the metrics do not tell");
        assert!(step.doubts[0].contains("the model's process was busy 95 %"), "{:?}", step.doubts);
        let row = step.to_string();
        assert!(row.starts_with("  100") && row.contains(" - ") && row.contains("5.00"), "{row}");
    }

    #[test]
    fn what_does_not_hold_is_said() {
        let late = Scrape::parse(
            "voice_media_bridge_stage_duration_seconds_bucket{stage=\"tick_late\",le=\"0.001\"} 10\n\
             voice_media_bridge_stage_duration_seconds_bucket{stage=\"tick_late\",le=\"0.005\"} 100\n",
            None,
        );
        assert!(step(&late, &load()).failures[0].contains("ticks 4.96 ms late"));
        assert!(step(&metrics(6.0, 1_000, 3), &load()).failures[0].contains("lost 3 packets towards the bridge"));
        assert!(step(&Scrape::default(), &load()).failures[0].contains("does not tell how late"));
        let refused = json!({ "calls": { "connected": 60, "refused": 40, "refusals": [{ "what": "503 full" }] } });
        assert!(step(&metrics(6.0, 1_000, 0), &refused).failures[0].contains("40 calls refused: 503 full"));
        let missing = json!({ "calls": { "connected": 99, "refused": 0 } });
        assert!(step(&metrics(6.0, 1_000, 0), &missing).failures[0].contains("only 99 calls connected"));
    }

    fn report(steps: Vec<Step>, is_open: bool, shares: bool) -> Report {
        Report::of("q".into(), 1, 2.0, steps, Some(10e6), is_open, shares)
    }

    #[test]
    fn the_result_is_the_largest_step_that_held_with_what_it_costs() {
        let held = Step { doubts: Vec::new(), ..step(&metrics(6.0, 1_000, 0), &load()) };
        let failed = Step { calls: 120, failures: vec!["late".into()], ..held.clone() };
        let found = report(vec![held.clone(), failed.clone()], false, false);
        assert_eq!(
            (found.calls, found.calls_per_busy_core, found.memory_bytes_per_call),
            (Some(100), Some(200.0), Some(2e5))
        );
        assert_eq!(found.lower_bound, None);
        let text = found.to_string();
        assert!(
            text.starts_with("100 calls on 1 worker(s)") && text.contains("encode 5.00, user_other not told"),
            "{text}"
        );
        assert!(report(vec![failed.clone()], false, false).to_string().contains("No number of calls held"));
    }

    #[test]
    fn a_lower_bound_is_called_one() {
        let held = Step { doubts: Vec::new(), ..step(&metrics(6.0, 1_000, 0), &load()) };
        let failed = |failure: &str, doubts: &[&str]| Step {
            calls: 120,
            failures: vec![failure.into()],
            doubts: doubts.iter().map(|doubt| (*doubt).to_owned()).collect(),
            ..held.clone()
        };
        let why = |report: Report| report.lower_bound.expect("a lower bound");
        assert!(why(report(vec![held.clone()], true, false)).contains("--max-calls"));
        assert!(
            why(report(vec![held.clone(), failed("20 calls refused: 503", &[])], false, false)).contains("refused")
        );
        assert!(why(report(vec![held.clone(), failed("late", &[])], false, true)).contains("shared"));
        assert!(why(report(vec![held.clone(), failed("late", &["busy"])], false, false)).contains("short of CPU"));
        assert!(report(vec![held], true, false).to_string().starts_with("at least 100 calls"));
    }
}
