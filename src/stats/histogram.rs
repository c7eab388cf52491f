//! One latency histogram: recorded in tens of nanoseconds without allocating, read in one pass.

use std::fmt;
use std::time::Duration;

use hdrhistogram::{Counter, Histogram as Hdr};
use serde::Serialize;

/// Longest latency told apart, in microseconds: a minute. Longer ones count as this.
pub const LATENCY_US_MAX: u64 = 60_000_000;

/// How finely values are told apart, and what a histogram with counts of 32 bits takes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Two significant digits, to 1 % of a value: 10 KiB.
    Fine,
    /// One significant digit, to 6 %: 1.5 KiB.
    Coarse,
}

/// A latency histogram up to [`LATENCY_US_MAX`], in microseconds. Recording allocates nothing. Counts of 32 bits last for
/// any call; those of a process need 64: ten thousand packets a second fill 32 in five days.
#[derive(Clone)]
pub struct Histogram<C: Counter = u32>(pub(super) Hdr<C>);

impl<C: Counter> Histogram<C> {
    /// An empty histogram of two significant digits.
    pub fn new() -> Self {
        Self::with_grain(Grain::Fine)
    }

    /// An empty histogram.
    pub fn with_grain(grain: Grain) -> Self {
        let digits = match grain {
            Grain::Fine => 2,
            Grain::Coarse => 1,
        };
        let made = Hdr::new_with_bounds(1, LATENCY_US_MAX, digits);
        Self(made.expect("bounds and digits are constants that hdrhistogram takes"))
    }

    /// Records one latency; beyond the range it counts as the range's end.
    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
        self.0.saturating_record(us.clamp(1, LATENCY_US_MAX));
    }

    /// Adds all values of another.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same range");
    }

    /// Forgets all values.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The sum of all values in microseconds, exact to the histogram's digits.
    pub fn sum_us(&self) -> u64 {
        self.0.iter_recorded().map(|step| step.value_iterated_to() * step.count_since_last_iteration()).sum()
    }

    /// How many values are at most this many microseconds.
    pub fn count_at_most(&self, us: u64) -> u64 {
        self.0.count_between(0, us)
    }

    /// The values below which these shares (0 to 1, rising) of all values lie; zeros when nothing was recorded. One pass.
    pub fn at_quantiles<const N: usize>(&self, quantiles: [f64; N]) -> [u64; N] {
        let mut values = self.0.value_at_quantiles(quantiles);
        std::array::from_fn(|_| values.next().unwrap_or(0))
    }

    /// The percentiles that the API shows; `None` when nothing was recorded.
    pub fn percentiles(&self) -> Option<Percentiles> {
        let [p50_us, p90_us, p99_us] = self.at_quantiles([0.5, 0.9, 0.99]);
        let count = self.count();
        (count > 0).then(|| Percentiles { count, p50_us, p90_us, p99_us, max_us: self.0.max() })
    }

    /// The shape, to be plotted; `None` when nothing was recorded.
    pub fn distribution(&self) -> Option<Distribution> {
        let [p50_us, p90_us, p99_us, p999_us] = self.at_quantiles([0.5, 0.9, 0.99, 0.999]);
        let (count, max_us, mean_us) = (self.count(), self.0.max(), self.0.mean().round() as u64);
        let buckets = || self.buckets();
        (count > 0).then(|| Distribution {
            count,
            p50_us,
            p90_us,
            p99_us,
            p999_us,
            max_us,
            mean_us,
            buckets: buckets(),
        })
    }

    /// How many values lie below each bound. Bounds before the first value but one, and behind the last, are left out.
    fn buckets(&self) -> Vec<(u64, u64)> {
        let mut buckets = Vec::new();
        let (mut below, mut bounds) = (0, bounds_us().peekable());
        for step in self.0.iter_recorded() {
            while let Some(bound) = bounds.next_if(|bound| *bound <= step.value_iterated_to()) {
                if below == 0 {
                    buckets.clear();
                }
                buckets.push((bound, below));
            }
            below += step.count_since_last_iteration();
        }
        buckets.extend(bounds.next().map(|bound| (bound, below)));
        buckets
    }
}

impl<C: Counter> Default for Histogram<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Counter> fmt::Debug for Histogram<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram({:?})", self.percentiles())
    }
}

/// Bounds of the buckets: three an octave, ten a decade, where histograms of either grain have steps, so that no value
/// is counted on the wrong side. Below 16 µs nothing is worth more than an octave.
fn bounds_us() -> impl Iterator<Item = u64> {
    let octaves = (0..22).flat_map(|octave| [16_u64, 20, 25].map(|sixteenths| sixteenths << octave));
    [1, 2, 4, 8].into_iter().chain(octaves).chain([16 << 22])
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

/// A histogram as it is plotted, microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Distribution {
    /// Values recorded.
    pub count: u64,
    /// Median.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p999_us: u64,
    /// Largest.
    pub max_us: u64,
    /// Mean.
    pub mean_us: u64,
    /// Upper bounds, rising, and how many values lie below each. The bounds are the same in every answer, but for those
    /// left out at both ends: before them nothing was recorded, after them nothing more.
    pub buckets: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_clamps_merges_and_reports() {
        let mut a = Histogram::<u32>::new();
        assert!(a.percentiles().is_none() && a.distribution().is_none());
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
        b.clear();
        assert_eq!((b.count(), a.count()), (0, 102));
    }

    #[test]
    fn buckets_count_each_value_once_on_its_side_of_the_bound() {
        let values: Vec<u64> = (0..4_000).map(|n: u64| 1 + n * n * n % 3_000_017).collect();
        for grain in [Grain::Fine, Grain::Coarse] {
            let mut histogram = Histogram::<u64>::with_grain(grain);
            for us in &values {
                histogram.record(Duration::from_micros(*us));
            }
            let distribution = histogram.distribution().unwrap();
            for (bound, below) in &distribution.buckets {
                assert_eq!(*below, values.iter().filter(|us| *us < bound).count() as u64, "below {bound}, {grain:?}");
            }
            let bounds: Vec<u64> = distribution.buckets.iter().map(|(bound, _)| *bound).collect();
            let expected: Vec<u64> = bounds_us().skip_while(|bound| *bound != bounds[0]).take(bounds.len()).collect();
            assert_eq!(bounds, expected, "without a gap");
            assert_eq!(distribution.buckets.last().unwrap().1, 4_000);
        }
    }

    #[test]
    fn what_lies_before_and_behind_all_values_is_left_out() {
        let mut histogram = Histogram::<u32>::new();
        histogram.record(Duration::from_micros(700));
        histogram.record(Duration::from_micros(900));
        assert_eq!(histogram.distribution().unwrap().buckets, [(640, 0), (800, 1), (1024, 2)]);
        let mut ends = Histogram::<u64>::new();
        ends.record(Duration::ZERO);
        ends.record(Duration::from_secs(3600));
        let buckets = ends.distribution().unwrap().buckets;
        assert_eq!((buckets[0], buckets[1], *buckets.last().unwrap()), ((1, 0), (2, 1), (16 << 22, 2)));
    }
}
