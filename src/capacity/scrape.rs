//! A bridge's metrics, read twice: what happened in between.
//!
//! Reads Prometheus' text format 0.0.4 as far as a bridge writes it, and the buckets of `GET /api/latency`, which are
//! finer. What cannot be read is not there.

use serde_json::Value;

/// What every name begins with.
const PREFIX: &str = "voice_media_bridge_";

/// Metrics at one time.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    samples: Vec<Sample>,
    /// Buckets of the stage `tick_late`, finer than those of the metrics; `None` where the bridge does not have them.
    tick_late: Option<Buckets>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// Upper bounds in microseconds with how many values were at most that, rising.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets(Vec<(f64, u64)>);

impl Scrape {
    /// Reads the text of `/metrics` and, where there is one, the JSON of `/api/latency`.
    pub fn parse(metrics: &str, latency: Option<&str>) -> Self {
        let samples = metrics.lines().filter_map(sample).collect();
        Self { samples, tick_late: latency.and_then(tick_late) }
    }

    /// The sum of a metric's samples with this label; `None` where there are none. `name` is without the bridge's prefix,
    /// or whole if it is one of the process.
    pub fn sum(&self, name: &str, label: Option<(&str, &str)>) -> Option<f64> {
        let whole = if name.starts_with("process_") { name.to_owned() } else { format!("{PREFIX}{name}") };
        let has = |sample: &&Sample| {
            sample.name == whole
                && label.is_none_or(|(key, value)| sample.labels.iter().any(|(k, v)| k == key && v == value))
        };
        let mut found = self.samples.iter().filter(has).peekable();
        found.peek()?;
        Some(found.map(|sample| sample.value).sum())
    }

    /// By how much a counter rose since an earlier scrape.
    pub fn since(&self, earlier: &Self, name: &str, label: Option<(&str, &str)>) -> Option<f64> {
        let now = self.sum(name, label)?;
        Some(now - earlier.sum(name, label).unwrap_or(0.0))
    }

    /// How late paced frames were since an earlier scrape.
    pub fn tick_late_since(&self, earlier: &Self) -> Option<Buckets> {
        if let Some(now) = &self.tick_late {
            return Some(now.since(earlier.tick_late.as_ref().unwrap_or(&Buckets::default())));
        }
        let now = self.stage("tick_late")?;
        Some(now.since(&earlier.stage("tick_late").unwrap_or_default()))
    }

    fn stage(&self, stage: &str) -> Option<Buckets> {
        let name = format!("{PREFIX}stage_duration_seconds_bucket");
        let of_stage = |sample: &&Sample| {
            sample.name == name && sample.labels.iter().any(|(key, value)| key == "stage" && value == stage)
        };
        let bucket = |sample: &Sample| {
            let (_, le) = sample.labels.iter().find(|(key, _)| key == "le")?;
            let seconds = if le == "+Inf" { f64::INFINITY } else { le.parse::<f64>().ok()? };
            Some((seconds * 1e6, sample.value as u64))
        };
        let buckets: Vec<_> = self.samples.iter().filter(of_stage).filter_map(bucket).collect();
        (!buckets.is_empty()).then_some(Buckets(buckets))
    }
}

impl Buckets {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// The value below which this share lies, interpolated within its bucket; `None` without values. Beyond the last
    /// bound it is that bound.
    pub fn quantile_us(&self, share: f64) -> Option<f64> {
        let wanted = share * self.count() as f64;
        let at = self.0.iter().position(|(_, count)| *count > 0 && *count as f64 >= wanted)?;
        let (above, count) = self.0[at];
        let (below, before) = if at == 0 { (0.0, 0) } else { self.0[at - 1] };
        if above.is_infinite() {
            return Some(below);
        }
        let part = (wanted - before as f64) / (count - before).max(1) as f64;
        Some(below + (above - below) * part.clamp(0.0, 1.0))
    }

    /// What came since earlier buckets, which may begin or end elsewhere.
    fn since(&self, earlier: &Self) -> Self {
        let before =
            |bound: f64| earlier.0.iter().rev().find(|(other, _)| *other <= bound).map_or(0, |(_, count)| *count);
        Self(self.0.iter().map(|(bound, count)| (*bound, count.saturating_sub(before(*bound)))).collect())
    }
}

/// `name{key="value",...} number`; comments and anything else are none. A bridge's label values hold no quotes.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}')?),
        None => (series, ""),
    };
    let label = |text: &str| {
        let (key, value) = text.split_once('=')?;
        Some((key.to_owned(), value.strip_prefix('"')?.trim_end_matches('"').to_owned()))
    };
    let labels = labels.split("\",").filter(|text| !text.is_empty()).map(label).collect::<Option<_>>()?;
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

fn tick_late(json: &str) -> Option<Buckets> {
    let answer: Value = serde_json::from_str(json).ok()?;
    let stages = answer["stages"].as_array()?;
    // Without one tick the stage is not listed; there may be some later.
    let Some(stage) = stages.iter().find(|stage| stage["stage"] == "tick_late") else {
        return Some(Buckets::default());
    };
    let bucket = |pair: &Value| Some((pair[0].as_f64()?, pair[1].as_u64()?));
    stage["buckets"].as_array()?.iter().map(bucket).collect::<Option<_>>().map(Buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
# HELP voice_media_bridge_worker_cpu_seconds_total CPU time of a worker.
# TYPE voice_media_bridge_worker_cpu_seconds_total counter
voice_media_bridge_worker_cpu_seconds_total{worker=\"0\",part=\"encode\"} 1.5
voice_media_bridge_worker_cpu_seconds_total{worker=\"1\",part=\"encode\"} 0.5
voice_media_bridge_worker_cpu_seconds_total{worker=\"0\",part=\"kernel\"} 9
voice_media_bridge_uplink_lost_packets_total 4
process_resident_memory_bytes 1000000
voice_media_bridge_stage_duration_seconds_bucket{stage=\"tick_late\",le=\"0.001\"} 100
voice_media_bridge_stage_duration_seconds_bucket{stage=\"tick_late\",le=\"0.0025\"} 100
voice_media_bridge_stage_duration_seconds_bucket{stage=\"tick_late\",le=\"+Inf\"} 100
nonsense
";

    fn after() -> String {
        BEFORE
            .replace("encode\"} 1.5", "encode\"} 3.5")
            .replace("le=\"0.001\"} 100", "le=\"0.001\"} 190")
            .replace("le=\"0.0025\"} 100", "le=\"0.0025\"} 199")
            .replace("le=\"+Inf\"} 100", "le=\"+Inf\"} 200")
    }

    #[test]
    fn counters_are_summed_by_label_and_what_is_not_there_is_not_known() {
        let (before, after) = (Scrape::parse(BEFORE, None), Scrape::parse(&after(), None));
        assert_eq!(after.since(&before, "worker_cpu_seconds_total", Some(("part", "encode"))), Some(2.0));
        assert_eq!(after.since(&before, "uplink_lost_packets_total", None), Some(0.0));
        assert_eq!(after.sum("process_resident_memory_bytes", None), Some(1e6));
        assert_eq!(after.since(&before, "worker_cpu_seconds_total", Some(("part", "decode"))), None);
        assert_eq!(after.sum("no_such_metric", None), None);
    }

    #[test]
    fn quantiles_are_of_what_came_in_between() {
        let late = Scrape::parse(&after(), None).tick_late_since(&Scrape::parse(BEFORE, None)).unwrap();
        assert_eq!(late.count(), 100);
        let us = |share| late.quantile_us(share).unwrap().round() as u64;
        assert_eq!((us(0.45), us(0.9), us(0.99), us(1.0)), (500, 1_000, 2_500, 2_500));
        assert_eq!(Buckets::default().quantile_us(0.99), None);
        assert!(Scrape::parse("", None).tick_late_since(&Scrape::default()).is_none());
    }

    #[test]
    fn the_finer_buckets_of_the_latency_route_are_used_where_there_are_any() {
        let before = r#"{"stages":[{"stage":"turn","buckets":[]}]}"#;
        let after = r#"{"stages":[{"stage":"tick_late","buckets":[[1024,10],[2048,20]]}]}"#;
        let late = Scrape::parse("", Some(after)).tick_late_since(&Scrape::parse("", Some(before))).unwrap();
        assert_eq!((late.count(), late.quantile_us(0.75)), (20, Some(1_536.0)));
        let later = r#"{"stages":[{"stage":"tick_late","buckets":[[512,5],[1024,30],[2048,40]]}]}"#;
        let late = Scrape::parse("", Some(later)).tick_late_since(&Scrape::parse("", Some(after))).unwrap();
        assert_eq!((late.count(), late.quantile_us(0.25)), (20, Some(512.0)));
    }
}
