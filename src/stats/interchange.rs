//! Histograms in HdrHistogram's own forms, which its tools read: percentile text, the interval log, and packed bytes.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Counter;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer, V2Serializer};

use super::histogram::Histogram;
use super::{Stage, Stages};

/// Lines per halving of what is left above, in percentile text: HdrHistogram's own default.
const TICKS_PER_HALF_DISTANCE: u32 = 5;
/// Values are microseconds; both texts show milliseconds where they are meant for people.
const US_PER_MS: f64 = 1_000.0;

/// Percentile text (`.hgrm`) of the stages that were recorded, values in milliseconds: what HdrHistogram's
/// `outputPercentileDistribution` prints, and its plotter reads.
pub fn percentile_text<C: Counter>(stages: &Stages<C>) -> String {
    let mut text = String::new();
    for (stage, histogram) in stages.recorded() {
        // Writing to a string does not fail.
        let _ = percentile_block(&mut text, stage, histogram);
    }
    text
}

fn percentile_block<C: Counter>(text: &mut String, stage: Stage, histogram: &Histogram<C>) -> std::fmt::Result {
    let hdr = &histogram.0;
    let ms = |us: u64| us as f64 / US_PER_MS;
    let separator = if text.is_empty() { "" } else { "\n" };
    writeln!(text, "{separator}# stage: {}", stage.label())?;
    writeln!(text, "# values in milliseconds: {}", stage.help())?;
    writeln!(text, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut seen = 0;
    for step in hdr.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        seen += step.count_since_last_iteration();
        let (value, quantile) = (ms(step.value_iterated_to()), step.quantile_iterated_to());
        write!(text, "{value:>12.3} {quantile:>14.12} {seen:>10}")?;
        if quantile < 1.0 {
            writeln!(text, " {:>14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(text)?;
        }
    }
    let (mean, deviation) = (hdr.mean() / US_PER_MS, hdr.stdev() / US_PER_MS);
    writeln!(text, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
    writeln!(text, "#[Max     = {:>12.3}, Total count    = {:>12}]", ms(hdr.max()), hdr.len())?;
    writeln!(text, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", hdr.buckets(), sub_buckets(hdr.sigfig()))
}

/// Twice what the digits tell apart, as a power of two.
fn sub_buckets(digits: u8) -> u64 {
    (2 * 10_u64.pow(digits.into())).next_power_of_two()
}

/// The interval log, version 1.3: one compressed histogram of microseconds per stage that was recorded, tagged with it.
/// The interval begins with the process, `start_sec` after the epoch where that is known, and lasts until now.
pub fn interval_log<C: Counter>(stages: &Stages<C>, start_sec: Option<f64>, uptime: Duration) -> Vec<u8> {
    let mut log = b"#[Histogram log format version 1.3]\n".to_vec();
    if let Some(start_sec) = start_sec {
        log.extend_from_slice(format!("#[StartTime: {start_sec:.3} (seconds since epoch)]\n").as_bytes());
    }
    log.extend_from_slice(b"#[Values in microseconds, Interval_Max in milliseconds; Tag is the stage]\n");
    log.extend_from_slice(
        b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
    );
    let written = "histograms of this range can be packed, and memory takes all that is written";
    let mut packer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .with_max_value_divisor(US_PER_MS)
        .begin_log_with(&mut log, &mut packer)
        .expect(written);
    for (stage, histogram) in stages.recorded() {
        writer.write_histogram(&histogram.0, Duration::ZERO, uptime, Tag::new(stage.label())).expect(written);
    }
    log
}

/// The histograms of an ended call, packed: some hundred bytes each. Runs of zeros go, which is most of what there is to
/// gain; deflating the rest would take a hundred times as long.
#[derive(Clone, Debug, Default)]
pub struct PackedStages(Box<[(Stage, Box<[u8]>)]>);

impl PackedStages {
    /// Packs what was recorded.
    pub fn pack(stages: &Stages) -> Self {
        let mut packer = V2Serializer::new();
        let pack = |(stage, histogram): (Stage, &Histogram)| {
            let mut bytes = Vec::new();
            packer.serialize(&histogram.0, &mut bytes).expect("histograms of this range can be packed");
            (stage, bytes.into_boxed_slice())
        };
        Self(stages.recorded().map(pack).collect())
    }

    /// As they were.
    pub fn unpack(&self) -> Stages {
        let (mut stages, mut unpacker) = (Stages::new(), Deserializer::new());
        for (stage, bytes) in &self.0 {
            let hdr = unpacker.deserialize(&mut &bytes[..]).expect("packed by us, and never outside of this process");
            stages.insert(*stage, Histogram(hdr));
        }
        stages
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes.len() + size_of::<(Stage, Box<[u8]>)>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram as Hdr;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    /// A call of ten minutes with spread-out latencies.
    fn busy() -> Stages {
        let mut stages = Stages::new();
        stages.prepare_call();
        let mut state = 1_u64;
        for _ in 0..30_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let us = 100 + (state >> 54) + if state >> 58 == 0 { state >> 45 } else { 0 };
            for stage in [Stage::Uplink, Stage::JitterWait, Stage::TickLate] {
                stages.record(stage, Duration::from_micros(us));
            }
        }
        (0..60).for_each(|n| stages.record(Stage::Response, Duration::from_millis(300 + 17 * n)));
        stages
    }

    fn counts<C: Counter>(hdr: &Hdr<C>) -> Vec<(u64, u64)> {
        hdr.iter_recorded().map(|step| (step.value_iterated_to(), step.count_since_last_iteration())).collect()
    }

    #[test]
    fn a_packed_call_is_small_and_comes_back_as_it_was() {
        let stages = busy();
        let packed = PackedStages::pack(&stages);
        assert!(packed.bytes() < 4_096, "{} bytes", packed.bytes());
        let unpacked = packed.unpack();
        for stage in Stage::ALL {
            let (before, after) = (stages.get(*stage), unpacked.get(*stage));
            assert_eq!(before.map(|h| counts(&h.0)), after.map(|h| counts(&h.0)), "{stage:?}");
            assert_eq!(before.map(Histogram::percentiles), after.map(Histogram::percentiles), "{stage:?}");
        }
    }

    #[test]
    fn the_log_is_read_back_by_its_own_reader() {
        let stages = busy();
        let log = interval_log(&stages, Some(1_764_075_600.25), Duration::from_millis(90_500));
        let text = String::from_utf8(log.clone()).unwrap();
        assert!(text.starts_with("#[Histogram log format version 1.3]\n"), "{text}");
        assert!(text.contains("\n#[StartTime: 1764075600.250 (seconds since epoch)]\n"), "{text}");
        let mut tags = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            let LogEntry::Interval(interval) = entry.expect("every line is read") else { continue };
            let tag = interval.tag().expect("a tag").as_str().to_owned();
            let stage = Stage::ALL.iter().find(|stage| stage.label() == tag).expect("a stage");
            let bytes = base64_simd::STANDARD.decode_to_vec(interval.encoded_histogram()).unwrap();
            let read: Hdr<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
            let written = &stages.get(*stage).unwrap().0;
            assert_eq!(counts(&read), counts(written), "{tag}");
            assert_eq!(interval.duration(), Duration::from_millis(90_500));
            assert!((interval.max() - written.max() as f64 / 1e3).abs() < 0.001, "{} ms", interval.max());
            tags.push(tag);
        }
        assert_eq!(tags, ["uplink", "jitter_wait", "tick_late", "response"]);
    }

    #[test]
    fn percentile_text_is_what_hdrhistogram_prints() {
        let mut stages = Stages::<u64>::new();
        (1..=4).for_each(|ms| stages.record(Stage::Setup, Duration::from_millis(ms)));
        stages.record(Stage::Turn, Duration::from_micros(40));
        let expected = "\
# stage: setup
# values in milliseconds: Session request read, to its answer written
       Value     Percentile TotalCount 1/(1-Percentile)

       1.003 0.000000000000          1           1.00
       1.003 0.100000000000          1           1.11
       1.003 0.200000000000          1           1.25
       2.007 0.300000000000          2           1.43
       2.007 0.400000000000          2           1.67
       2.007 0.500000000000          2           2.00
       3.007 0.550000000000          3           2.22
       3.007 0.600000000000          3           2.50
       3.007 0.650000000000          3           2.86
       3.007 0.700000000000          3           3.33
       4.015 0.750000000000          4           4.00
       4.015 1.000000000000          4
#[Mean    =        2.503, StdDeviation   =        1.120]
#[Max     =        4.015, Total count    =            4]
#[Buckets =           19, SubBuckets     =          256]

# stage: turn
";
        let text = percentile_text(&stages);
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("SubBuckets     =          256]\n"), "{text}");
    }
}
