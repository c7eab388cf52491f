//! Histograms by stage: those of a call, and those of a worker with what is recent.

use std::time::{Duration, Instant};

use hdrhistogram::Counter;
use serde::Serialize;

use super::Stage;
use super::histogram::{Distribution, Grain, Histogram, Percentiles};

/// How long recent latencies are gathered before they become older ones: the interval at which Prometheus asks as a rule,
/// so that an answer, which covers one to two of these, misses nothing since the one before.
pub const RECENT: Duration = Duration::from_secs(15);

/// What a call measures of itself, and how finely. Some come with every packet and are worth 1 %; the others come with
/// every turn of the conversation, or once. Together 36 KiB.
const OF_A_CALL: [(Stage, Grain); 7] = [
    (Stage::Uplink, Grain::Fine),
    (Stage::JitterWait, Grain::Fine),
    (Stage::TickLate, Grain::Fine),
    (Stage::Downlink, Grain::Coarse),
    (Stage::Response, Grain::Coarse),
    (Stage::BargeIn, Grain::Coarse),
    (Stage::Connect, Grain::Coarse),
];

/// One histogram per stage; those that do not exist take no memory.
#[derive(Clone, Debug)]
pub struct Stages<C: Counter = u32>([Option<Box<Histogram<C>>>; Stage::ALL.len()]);

impl Stages {
    /// Makes the histograms of a call that do not exist, so that recording allocates nothing from now on.
    pub fn prepare_call(&mut self) {
        for (stage, grain) in OF_A_CALL {
            self.0[stage as usize].get_or_insert_with(|| Box::new(Histogram::with_grain(grain)));
        }
    }
}

impl<C: Counter> Stages<C> {
    /// Nothing recorded yet.
    pub fn new() -> Self {
        Self(std::array::from_fn(|_| None))
    }

    /// All histograms, finely, so that recording never allocates.
    fn prepared() -> Self {
        Self(std::array::from_fn(|_| Some(Box::default())))
    }

    /// One stage's histogram, if it was recorded.
    pub fn get(&self, stage: Stage) -> Option<&Histogram<C>> {
        self.0[stage as usize].as_deref().filter(|histogram| histogram.count() > 0)
    }

    /// Records one latency. Allocates only where the stage's histogram was not made before.
    pub fn record(&mut self, stage: Stage, latency: Duration) {
        self.0[stage as usize].get_or_insert_default().record(latency);
    }

    /// Puts a histogram in its place.
    pub(super) fn insert(&mut self, stage: Stage, histogram: Histogram<C>) {
        self.0[stage as usize] = Some(Box::new(histogram));
    }

    /// Adds all values of others.
    pub fn merge(&mut self, other: &Self) {
        for stage in Stage::ALL {
            self.add(*stage, other);
        }
    }

    /// Adds all values that others have of one stage.
    fn add(&mut self, stage: Stage, other: &Self) {
        if let Some(theirs) = other.get(stage) {
            self.0[stage as usize].get_or_insert_default().merge(theirs);
        }
    }

    fn clear(&mut self) {
        self.0.iter_mut().flatten().filter(|histogram| histogram.count() > 0).for_each(|histogram| histogram.clear());
    }

    /// The stages that were recorded, in the order of the path.
    pub fn recorded(&self) -> impl Iterator<Item = (Stage, &Histogram<C>)> {
        Stage::ALL.iter().filter_map(|stage| Some((*stage, self.get(*stage)?)))
    }

    /// The percentiles of the stages that were recorded, in the order of the path.
    pub fn percentiles(&self) -> Vec<StageLatency> {
        let latency = |(stage, histogram): (Stage, &Histogram<C>)| {
            histogram.percentiles().map(|percentiles| StageLatency { stage, percentiles })
        };
        self.recorded().filter_map(latency).collect()
    }

    /// The shapes of the stages that were recorded, in the order of the path.
    pub fn distributions(&self) -> Vec<StageDistribution> {
        let shape = |(stage, histogram): (Stage, &Histogram<C>)| {
            histogram.distribution().map(|distribution| StageDistribution { stage, distribution })
        };
        self.recorded().filter_map(shape).collect()
    }
}

impl<C: Counter> Default for Stages<C> {
    fn default() -> Self {
        Self::new()
    }
}

/// One stage's percentiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageLatency {
    /// Which.
    pub stage: Stage,
    /// In microseconds.
    #[serde(flatten)]
    pub percentiles: Percentiles,
}

/// One stage's shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageDistribution {
    /// Which.
    pub stage: Stage,
    /// In microseconds.
    #[serde(flatten)]
    pub distribution: Distribution,
}

/// The latencies of everything that one machine does, since its start and lately. Recording touches one histogram, and
/// the rest is sorted out every [`RECENT`].
#[derive(Clone, Debug)]
pub struct Recorder {
    older: Stages<u64>,
    previous: Stages<u64>,
    current: Stages<u64>,
    /// When `current` was begun; `None` before the first rotation.
    begun: Option<Instant>,
}

impl Recorder {
    /// Nothing recorded yet.
    pub fn new() -> Self {
        Self { older: Stages::prepared(), previous: Stages::prepared(), current: Stages::prepared(), begun: None }
    }

    /// Records one latency. Allocates nothing.
    pub fn record(&mut self, stage: Stage, latency: Duration) {
        self.current.record(stage, latency);
    }

    /// Lets time pass: what is no longer recent is put away.
    pub fn rotate(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(*self.begun.get_or_insert(now));
        if passed < RECENT {
            return;
        }
        self.begun = Some(now);
        self.put_previous_away();
        if passed >= 2 * RECENT {
            self.put_previous_away();
        }
    }

    fn put_previous_away(&mut self) {
        self.older.merge(&self.previous);
        self.previous.clear();
        std::mem::swap(&mut self.previous, &mut self.current);
    }

    /// Adds one stage: all that was recorded of it, and what was in the last one to two [`RECENT`].
    pub fn read(&self, stage: Stage, total: &mut Stages<u64>, recent: &mut Stages<u64>) {
        total.add(stage, &self.older);
        for part in [&self.previous, &self.current] {
            total.add(stage, part);
            recent.add(stage, part);
        }
    }

    /// Adds all stages.
    pub fn read_all(&self, total: &mut Stages<u64>, recent: &mut Stages<u64>) {
        for stage in Stage::ALL {
            self.read(*stage, total, recent);
        }
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calls_histograms_stay_small_and_exist_before_packets_flow() {
        let mut stages = Stages::new();
        stages.prepare_call();
        let bytes = |stages: &Stages| -> usize {
            stages.0.iter().flatten().map(|histogram| histogram.0.distinct_values() * 4 + size_of::<Histogram>()).sum()
        };
        let before = bytes(&stages);
        assert!((36_000..38_000).contains(&before), "{before} bytes");
        for (stage, _) in OF_A_CALL {
            stages.record(stage, Duration::from_secs(3_600));
            stages.record(stage, Duration::ZERO);
        }
        assert_eq!((bytes(&stages), stages.recorded().count()), (before, 7), "nothing was made or grew");
    }

    #[test]
    fn percentiles_of_all_stages_are_those_of_each() {
        let mut stages = Stages::new();
        stages.prepare_call();
        (1..=1000).for_each(|us| stages.record(Stage::TickLate, Duration::from_micros(us)));
        stages.record(Stage::Response, Duration::from_millis(700));
        let [late, response] = stages.percentiles()[..] else { panic!("{:?}", stages.percentiles()) };
        assert_eq!((late.stage, response.stage), (Stage::TickLate, Stage::Response), "in the order of the path");
        let hdr = &stages.get(Stage::TickLate).unwrap().0;
        let expected = [0.5, 0.9, 0.99].map(|quantile| hdr.value_at_quantile(quantile));
        let late = late.percentiles;
        assert_eq!([late.p50_us, late.p90_us, late.p99_us], expected);
        assert!((657_000..=743_000).contains(&response.percentiles.p50_us), "{response:?}");
    }

    #[test]
    fn what_is_recent_passes_and_the_total_keeps_all() {
        let start = Instant::now();
        let mut recorder = Recorder::new();
        recorder.rotate(start);
        let at = |recorder: &mut Recorder, sec: u64, values: u64| {
            recorder.rotate(start + Duration::from_secs(sec));
            (0..values).for_each(|_| recorder.record(Stage::Turn, Duration::from_micros(100)));
            let (mut total, mut recent) = (Stages::new(), Stages::new());
            recorder.read(Stage::Turn, &mut total, &mut recent);
            let count = |stages: Stages<u64>| stages.get(Stage::Turn).map_or(0, Histogram::count);
            (count(recent), count(total))
        };
        assert_eq!(at(&mut recorder, 1, 10), (10, 10));
        assert_eq!(at(&mut recorder, 14, 10), (20, 20));
        assert_eq!(at(&mut recorder, 15, 1), (21, 21), "the first 15 s are still recent");
        assert_eq!(at(&mut recorder, 29, 1), (22, 22));
        assert_eq!(at(&mut recorder, 31, 1), (3, 23), "they are not any more");
        assert_eq!(at(&mut recorder, 100, 0), (0, 23), "nothing happened for long");
        let (mut total, mut recent) = (Stages::new(), Stages::new());
        for _ in 0..2 {
            recorder.record(Stage::Turn, Duration::ZERO);
            recorder.read(Stage::Turn, &mut total, &mut recent);
        }
        let count = |stages: &Stages<u64>| stages.get(Stage::Turn).map_or(0, Histogram::count);
        assert_eq!((count(&recent), count(&total)), (1 + 2, 24 + 25), "what is read is added to what is there");
    }
}
