//! Latency histograms and counters of calls and workers.
//!
//! A stage is a stretch of the path a packet or a turn takes (the table in the crate's documentation). Each call records
//! its own; a worker merges them, as calls end and for every report. Values are microseconds. This file must not know
//! where the values come from.

mod prometheus;

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use hdrhistogram::Histogram as Hdr;
use serde::Serialize;

use crate::agent::AgentReport;
use crate::call::downlink::DownlinkReport;
use crate::call::uplink::UplinkReport;
use crate::close_reason::CloseReason;
use crate::messages::CallState;
use crate::peer::PeerReport;

pub use prometheus::{BuildInfo, ControlStats, CounterReader, WorkerLoad, render};

/// Longest latency told apart, in microseconds: a minute. Longer ones count as this.
pub const LATENCY_US_MAX: u64 = 60_000_000;

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $help:literal;)*) => {
        /// A stretch of the path whose time is measured.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Stage {
            $($(#[$doc])* $name,)*
        }

        impl Stage {
            /// Every stage, in the order of the path.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word in metrics and in the API.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// From where to where, for the metrics' help text.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help,)* }
            }
        }
    };
}

stages! {
    /// RTP packet received by the kernel, to its append handed to the kernel.
    Uplink = "uplink", "RTP packet received by the kernel, to its append handed to the kernel";
    /// RTP packet inserted, to its decoding.
    JitterWait = "jitter_wait", "RTP packet inserted into the jitter buffer, to its decoding";
    /// First delta of a reply read, to its first RTP packet handed to the kernel.
    Downlink = "downlink", "First delta of a reply read, to its first RTP packet handed to the kernel";
    /// A paced frame's due time, to its packet handed to the kernel.
    TickLate = "tick_late", "Due time of a paced frame, to its packet handed to the kernel";
    /// The model says the caller stopped speaking, to the first RTP packet of the reply.
    Response = "response", "Model says the caller stopped speaking, to the first RTP packet of the reply";
    /// The model says the caller started speaking, to the last RTP packet of the old reply being behind us.
    BargeIn = "barge_in", "Model says the caller started speaking, to the last RTP packet of the old reply";
    /// Session request read, to its answer written.
    Setup = "setup", "Session request read, to its answer written";
    /// Answer written, to DTLS connected.
    Connect = "connect", "Answer written, to DTLS connected";
    /// One pass of a worker's loop, waiting excluded.
    Turn = "turn", "One pass of a worker's loop, waiting excluded";
}

/// A latency histogram: two significant digits up to [`LATENCY_US_MAX`]. Recording allocates nothing.
#[derive(Clone)]
pub struct Histogram(Hdr<u32>);

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self(
            Hdr::new_with_bounds(1, LATENCY_US_MAX, 2)
                .expect("bounds and digits are constants that hdrhistogram takes"),
        )
    }

    /// Records one latency; beyond the range it counts as the range's end.
    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
        self.0.saturating_record(us.clamp(1, LATENCY_US_MAX));
    }

    /// Adds all values of another.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The sum of all values in microseconds, exact to the histogram's two digits.
    pub fn sum_us(&self) -> u64 {
        self.0.iter_recorded().map(|step| step.value_iterated_to() * step.count_since_last_iteration()).sum()
    }

    /// How many values are at most this many microseconds.
    pub fn count_at_most(&self, us: u64) -> u64 {
        self.0.count_between(0, us)
    }

    /// The percentiles that the API shows; `None` when nothing was recorded.
    pub fn percentiles(&self) -> Option<Percentiles> {
        (!self.0.is_empty()).then(|| Percentiles {
            count: self.0.len(),
            p50_us: self.0.value_at_quantile(0.5),
            p90_us: self.0.value_at_quantile(0.9),
            p99_us: self.0.value_at_quantile(0.99),
            max_us: self.0.max(),
        })
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram({:?})", self.percentiles())
    }
}

/// A histogram in five numbers, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// Values recorded.
    pub count: u64,
    /// Median.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Largest.
    pub max_us: u64,
}

/// One histogram per stage; those never recorded take no memory.
#[derive(Clone, Debug, Default)]
pub struct Stages([Option<Box<Histogram>>; Stage::ALL.len()]);

impl Stages {
    /// Empty histograms for all stages.
    pub fn new() -> Self {
        Self::default()
    }

    /// One stage's histogram.
    pub fn get(&self, stage: Stage) -> &Histogram {
        static EMPTY: LazyLock<Histogram> = LazyLock::new(Histogram::new);
        self.0[stage as usize].as_deref().unwrap_or(&EMPTY)
    }

    /// Records one latency. The first of a stage allocates its histogram, the others nothing.
    pub fn record(&mut self, stage: Stage, latency: Duration) {
        self.0[stage as usize].get_or_insert_default().record(latency);
    }

    /// Adds all values of others.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            if let Some(theirs) = theirs {
                mine.get_or_insert_default().merge(theirs);
            }
        }
    }

    /// The percentiles of the stages that were recorded, in the order of the path.
    pub fn percentiles(&self) -> Vec<StageLatency> {
        let latency = |stage: &Stage| {
            let percentiles = self.0[*stage as usize].as_ref()?.percentiles()?;
            Some(StageLatency { stage: *stage, percentiles })
        };
        Stage::ALL.iter().filter_map(latency).collect()
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

/// What one worker counted, or the sum of several.
#[derive(Clone, Debug, Default)]
pub struct WorkerStats {
    /// Live calls by state, in the order of [`CallState::LIVE`].
    pub live: [u64; CallState::LIVE.len()],
    /// Calls taken since the start.
    pub opened: u64,
    /// Calls ended since the start, in the order of [`CloseReason::ALL`].
    pub ended: Vec<u64>,
    /// Calls that panicked; each is also in `ended`.
    pub panics: u64,
    /// Datagrams that belonged to no live call.
    pub stray_datagrams: u64,
    /// Sends that the kernel refused.
    pub send_failures: u64,
    /// Sums over live and ended calls.
    pub peer: PeerReport,
    /// Sums over live and ended calls.
    pub uplink: UplinkReport,
    /// Sums over live and ended calls.
    pub downlink: DownlinkReport,
    /// Sums over live and ended calls.
    pub agent: AgentReport,
    /// Over live and ended calls.
    pub stages: Stages,
}

impl WorkerStats {
    /// Adds what another worker counted.
    pub fn merge(&mut self, other: &Self) {
        self.live.iter_mut().zip(other.live).for_each(|(mine, theirs)| *mine += theirs);
        self.opened += other.opened;
        self.ended.resize(CloseReason::ALL.len(), 0);
        self.ended.iter_mut().zip(&other.ended).for_each(|(mine, theirs)| *mine += theirs);
        self.panics += other.panics;
        self.stray_datagrams += other.stray_datagrams;
        self.send_failures += other.send_failures;
        self.peer.add(&other.peer);
        self.uplink.add(&other.uplink);
        self.downlink.add(&other.downlink);
        self.agent.add(&other.agent);
        self.stages.merge(&other.stages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_clamps_merges_and_reports() {
        let mut a = Histogram::new();
        assert!(a.percentiles().is_none());
        (1..=100).for_each(|ms| a.record(Duration::from_millis(ms)));
        a.record(Duration::from_secs(3600));
        a.record(Duration::ZERO);
        let mut b = Histogram::new();
        b.merge(&a);
        let p = b.percentiles().unwrap();
        assert_eq!(p.count, 102);
        assert!((49_000..=52_000).contains(&p.p50_us), "{p:?}");
        assert!(p.max_us >= LATENCY_US_MAX, "{p:?}");
        assert_eq!(b.count_at_most(10_500), 11);
    }
}
