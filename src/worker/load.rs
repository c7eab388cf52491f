//! How loaded this core is, and how much effort its encoders may make.
//!
//! Every [`SAMPLE`] the time that the thread has run is compared with the time that has passed. Effort follows in steps: down
//! as soon as the core fills up or frames are late, up again only when the core would have room for it, and has had for a
//! while. A call shows in the load only seconds after it was taken, when the model talks; so a burst of them takes effort down
//! ahead. What another call would cost is learnt from those there are. Time and the thread's own clock are arguments; this
//! file must not know what a call is.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::audio::relative_cost;
use crate::call::CodecTime;
use crate::io::Stopwatch;
use crate::messages::LoadReport;

/// How often the load is measured: ten beats of a call, so that one turn more or less shifts it by little.
pub(super) const SAMPLE: Duration = Duration::from_millis(200);

/// The weight of a new sample: half of a change shows after 0.3 s, nearly all after one.
const NEW: f64 = 0.35;

/// Above this share effort goes down a step; a core this full makes frames wait for each other.
const BUSY_DOWN: f64 = 0.80;

/// Above this one it goes to its lowest at once: a step a sample would be too slow.
const BUSY_FLOOR: f64 = 0.93;

/// Effort goes up a step only if the core would then be no fuller than this. Far enough below [`BUSY_DOWN`] that the step does
/// not undo itself.
const BUSY_UP: f64 = 0.62;

/// And only after that has held for so long: a pause of the model lasts some seconds.
const UP_AFTER: Duration = Duration::from_secs(5);

/// Samples between two steps down: what a step saves shows in the next ones.
const DOWN_EVERY: u32 = 2;

/// Frames later than this, in the 99th percentile, take effort down: a tenth of a beat.
const LATE_US: u64 = 2_000;

/// Frames later than this for [`STARVED_AFTER`] samples mean that the core is not ours: half a beat.
const STARVED_US: u64 = 10_000;
const STARVED_AFTER: u32 = 10;

/// Fewer frames than this say nothing about a 99th percentile that would be worth acting upon.
const FRAMES_MIN: u64 = 100;

/// What a call is taken to cost before any was seen, and the bounds of what is learnt: both sides talking at complexity 0 cost
/// 0.4 to 0.6 % of a core.
const CALL_COST: f64 = 0.006;
const CALL_COST_MIN: f64 = 0.002;
const CALL_COST_MAX: f64 = 0.02;

/// Calls from which their mean is believed.
const CALLS_MIN: u32 = 5;

/// Samples after which a call shows in the load: two seconds.
const YOUNG: usize = 10;

/// Complexities that differ in cost, the dearest first.
const STEPS: [u8; 5] = [10, 7, 5, 3, 0];

/// What a worker may do with its core.
#[derive(Clone, Debug)]
pub struct LoadSettings {
    /// Complexity of the encoders: lowest and highest. The same twice: fixed.
    pub complexity: RangeInclusive<u8>,
    /// Time that the worker's thread has run, in nanoseconds.
    pub thread_time: Stopwatch,
    /// Of that, in the kernel.
    pub kernel_time: Stopwatch,
}

impl LoadSettings {
    /// One complexity for ever, and nothing measured: for tests and benches on virtual time.
    pub const fn fixed(complexity: u8) -> Self {
        Self { complexity: complexity..=complexity, thread_time: || 0, kernel_time: || 0 }
    }
}

/// The load of one core.
#[derive(Debug)]
pub(super) struct Load {
    settings: LoadSettings,
    /// The complexities to choose from, the highest first.
    steps: Vec<u8>,
    step: usize,
    sampled_at: Option<Instant>,
    thread_ns: u64,
    codec: CodecTime,
    busy: f64,
    encode: f64,
    call_cost: f64,
    /// Calls there were at the last samples, in a ring.
    calls: [u32; YOUNG],
    samples: usize,
    lateness: Lateness,
    since_down: u32,
    room_since: Option<Instant>,
    starved: u32,
    /// The last report said that nothing is left to be said.
    quiet: bool,
}

impl Load {
    pub(super) fn new(settings: LoadSettings) -> Self {
        let (floor, ceiling) = (*settings.complexity.start(), *settings.complexity.end());
        let mut steps = vec![ceiling];
        steps.extend(STEPS.into_iter().filter(|step| *step < ceiling && *step > floor));
        steps.extend((floor < ceiling).then_some(floor));
        Self {
            settings,
            steps,
            step: 0,
            sampled_at: None,
            thread_ns: 0,
            codec: CodecTime::default(),
            busy: 0.0,
            encode: 0.0,
            call_cost: CALL_COST,
            calls: [0; YOUNG],
            samples: 0,
            lateness: Lateness::default(),
            since_down: 0,
            room_since: None,
            starved: 0,
            quiet: true,
        }
    }

    /// The encoders' complexity now.
    pub(super) fn complexity(&self) -> u8 {
        self.steps[self.step]
    }

    /// A frame was handed to the kernel this late.
    pub(super) fn frame_late(&mut self, late: Duration) {
        self.lateness.record(late);
    }

    /// When [`Load::sample`] is due, if it is to be called with nothing else to do.
    pub(super) fn due(&self, calls: u32) -> Option<Instant> {
        let wanted = calls > 0 || !self.quiet;
        self.sampled_at.filter(|_| wanted).map(|at| at + SAMPLE)
    }

    /// Measures, if it is time. `codec` is asked for what all calls' codecs have taken since the worker's start.
    pub(super) fn sample(&mut self, now: Instant, calls: u32, codec: impl FnOnce() -> CodecTime) -> Option<LoadReport> {
        let since = *self.sampled_at.get_or_insert_with(|| {
            self.thread_ns = (self.settings.thread_time)();
            now
        });
        let passed = now.saturating_duration_since(since);
        if passed < SAMPLE || (calls == 0 && self.quiet) {
            return None;
        }
        self.sampled_at = Some(now);
        let share = |ns: u64| (ns as f64 / passed.as_nanos() as f64).min(1.0);
        let thread_ns = (self.settings.thread_time)();
        let codec = codec();
        let busy = share(thread_ns.saturating_sub(self.thread_ns));
        let encode = share(codec.encode_ns.saturating_sub(self.codec.encode_ns));
        // A worker that had nothing to measure for a while does not let the past weigh.
        let weight = if passed > SAMPLE * 10 { 1.0 } else { NEW };
        self.busy += (busy - self.busy) * weight;
        self.encode += (encode - self.encode) * weight;
        (self.thread_ns, self.codec) = (thread_ns, codec);

        let tick_late_p99_us = self.lateness.p99_us();
        // To be acted upon; with few frames it is the worst of them.
        let p99_us = if self.lateness.frames() >= FRAMES_MIN { tick_late_p99_us } else { 0 };
        self.lateness.turn();
        self.starved = if p99_us >= STARVED_US { self.starved.saturating_add(1) } else { 0 };
        let settled = self.calls.iter().copied().min().unwrap_or(0).min(calls);
        self.calls[self.samples % YOUNG] = calls;
        self.samples += 1;
        self.step_effort(now, p99_us, self.expected(calls, settled));
        if calls >= CALLS_MIN {
            let mean = (self.busy_at_floor() / f64::from(calls)).clamp(CALL_COST_MIN, CALL_COST_MAX);
            self.call_cost += (mean - self.call_cost) * NEW;
        }
        self.quiet = calls == 0 && self.busy < 0.01;
        if self.quiet {
            (self.busy, self.encode) = (0.0, 0.0);
        }
        Some(LoadReport {
            calls,
            busy: self.busy,
            busy_at_floor: self.busy_at_floor(),
            call_cost: self.call_cost,
            tick_late_p99_us,
            starved: self.starved >= STARVED_AFTER,
            complexity: self.complexity(),
            thread_ns,
            kernel_ns: (self.settings.kernel_time)(),
            encode_ns: codec.encode_ns,
            decode_ns: codec.decode_ns,
        })
    }

    /// What the core's load would be at the lowest effort.
    fn busy_at_floor(&self) -> f64 {
        (self.busy + self.encode_change(self.steps.len() - 1)).max(0.0)
    }

    /// What encoding would take more than now at another step; less than zero is less.
    fn encode_change(&self, step: usize) -> f64 {
        self.encode * (relative_cost(self.steps[step]) / relative_cost(self.complexity()) - 1.0)
    }

    /// What the load will be at this effort once the young calls are as dear as the settled ones.
    fn expected(&self, calls: u32, settled: u32) -> f64 {
        let floor = relative_cost(self.steps[self.steps.len() - 1]);
        let unknown = self.call_cost * relative_cost(self.complexity()) / floor;
        let mean =
            if settled >= CALLS_MIN { (self.busy / f64::from(settled)).clamp(CALL_COST_MIN, unknown) } else { unknown };
        self.busy.max(mean * f64::from(calls))
    }

    fn step_effort(&mut self, now: Instant, p99_us: u64, expected: f64) {
        self.since_down = self.since_down.saturating_add(1);
        let last = self.steps.len() - 1;
        if expected >= BUSY_FLOOR {
            self.room_since = None;
            self.go_to(last);
        } else if expected >= BUSY_DOWN || p99_us >= LATE_US {
            self.room_since = None;
            if self.step < last && self.since_down >= DOWN_EVERY {
                self.go_to(self.step + 1);
            }
        } else if self.step > 0 && self.busy + self.encode_change(self.step - 1) <= BUSY_UP {
            let since = *self.room_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= UP_AFTER {
                self.room_since = None;
                self.go_to(self.step - 1);
            }
        } else {
            self.room_since = None;
        }
    }

    /// Takes the estimates along, so that the next decision does not wait for the averages.
    fn go_to(&mut self, step: usize) {
        if step == self.step {
            return;
        }
        let change = self.encode_change(step);
        self.busy = (self.busy + change).clamp(0.0, 1.0);
        self.encode = (self.encode + change).max(0.0);
        self.step = step;
        self.since_down = 0;
    }
}

/// How late frames were over the last samples, in steps of half an octave of microseconds.
#[derive(Debug)]
struct Lateness {
    samples: [[u32; Self::STEPS]; Self::SAMPLES],
    at: usize,
}

impl Default for Lateness {
    fn default() -> Self {
        Self { samples: [[0; Self::STEPS]; Self::SAMPLES], at: 0 }
    }
}

impl Lateness {
    /// Samples remembered: a second and a half.
    const SAMPLES: usize = 8;
    /// Up to 16 s; what is later counts as this.
    const STEPS: usize = 24 * 2;

    fn record(&mut self, late: Duration) {
        let us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX).max(1);
        let octave = us.ilog2() as usize;
        // The upper half of an octave is the second of its two steps.
        let step = octave * 2 + usize::from(octave > 0 && us & (1 << (octave - 1)) != 0);
        self.samples[self.at][step.min(Self::STEPS - 1)] += 1;
    }

    /// How many frames there were.
    fn frames(&self) -> u64 {
        self.samples.iter().flatten().map(|count| u64::from(*count)).sum()
    }

    /// The upper end of the step that holds the 99th percentile; zero with no frames.
    fn p99_us(&self) -> u64 {
        let sum = |step: usize| self.samples.iter().map(|counts| u64::from(counts[step])).sum::<u64>();
        let all = self.frames();
        let mut above = all / 100;
        for step in (0..Self::STEPS).rev() {
            let here = sum(step);
            if here > above {
                let octave = step / 2;
                return (1 << octave) + ((step as u64 % 2 + 1) << octave) / 2;
            }
            above -= here;
        }
        0
    }

    /// Begins a new sample; the oldest is forgotten.
    fn turn(&mut self) {
        self.at = (self.at + 1) % Self::SAMPLES;
        self.samples[self.at] = [0; Self::STEPS];
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static RUN_NS: Cell<u64> = const { Cell::new(0) };
    }

    fn run_ns() -> u64 {
        RUN_NS.get()
    }

    /// A core on virtual time, of which calls take some share, most of it encoding.
    struct Core {
        load: Load,
        now: Instant,
        encode_ns: u64,
        calls: u32,
    }

    impl Core {
        fn new(complexity: RangeInclusive<u8>) -> Self {
            RUN_NS.set(0);
            let settings = LoadSettings { complexity, thread_time: run_ns, kernel_time: || 0 };
            let mut core = Self { load: Load::new(settings), now: Instant::now(), encode_ns: 0, calls: 100 };
            core.load.calls = [core.calls; YOUNG];
            core.step(0.0, 0.0, 0);
            core
        }

        /// One sample in which encoding at complexity 5 would take `encode` of the core and the rest `other`.
        fn step(&mut self, encode: f64, other: f64, late_us: u64) -> Option<LoadReport> {
            let ns = |share: f64| (share * SAMPLE.as_nanos() as f64) as u64;
            let encode = ns(encode * relative_cost(self.load.complexity()));
            self.encode_ns += encode;
            RUN_NS.set(RUN_NS.get() + (encode + ns(other)).min(ns(1.0)));
            (0..200).for_each(|_| self.load.frame_late(Duration::from_micros(late_us)));
            self.now += SAMPLE;
            let codec = CodecTime { encode_ns: self.encode_ns, decode_ns: 0 };
            self.load.sample(self.now, self.calls, || codec)
        }

        fn run(&mut self, samples: u32, encode: f64, other: f64, late_us: u64) -> LoadReport {
            (0..samples).filter_map(|_| self.step(encode, other, late_us)).last().expect("calls are reported")
        }
    }

    #[test]
    fn a_fixed_complexity_stays() {
        let mut core = Core::new(5..=5);
        assert_eq!(core.run(50, 0.9, 0.3, 50_000).complexity, 5);
    }

    #[test]
    fn effort_falls_as_the_core_fills_and_rises_when_there_has_been_room_for_a_while() {
        let mut core = Core::new(0..=5);
        assert_eq!(core.run(50, 0.5, 0.2, 100).complexity, 5, "70 % is room");
        let full = core.run(20, 0.7, 0.2, 100);
        assert_eq!(full.complexity, 3, "90 % at 5 is 77 % at 3: {full:?}");
        assert_eq!(core.run(60, 0.7, 0.2, 100).complexity, 3, "and stays, without swinging");
        assert_eq!(core.run(20, 1.2, 0.3, 100).complexity, 0);
        assert_eq!(core.run(10, 0.2, 0.1, 100).complexity, 0, "2 s of room are none");
        assert_eq!(core.run(90, 0.2, 0.1, 100).complexity, 5);
    }

    #[test]
    fn a_burst_of_calls_takes_effort_down_before_they_talk() {
        let mut core = Core::new(0..=5);
        core.calls = 40;
        assert_eq!(core.run(50, 0.25, 0.05, 100).complexity, 5);
        core.calls = 150;
        let report = core.step(0.25, 0.05, 100).expect("calls are reported");
        assert!(report.complexity == 0 && report.busy < 0.4, "150 calls like these are more than a core: {report:?}");
        assert_eq!(core.run(20, 0.25, 0.05, 100).complexity, 0, "not yet for sure");
        assert_eq!(core.run(60, 0.25, 0.05, 100).complexity, 5, "these are silent");
    }

    #[test]
    fn late_frames_take_effort_down_whatever_the_thread_has_run() {
        let mut core = Core::new(0..=5);
        assert_eq!(core.run(20, 0.1, 0.1, 500).complexity, 5);
        assert_eq!(core.run(20, 0.1, 0.1, 3_000).complexity, 0);
    }

    #[test]
    fn a_core_that_is_taken_by_others_is_starved_once_it_lasts() {
        let mut core = Core::new(0..=5);
        assert!(!core.run(5, 0.1, 0.1, 30_000).starved);
        assert!(core.run(20, 0.1, 0.1, 30_000).starved);
        assert!(!core.run(20, 0.1, 0.1, 100).starved);
    }

    #[test]
    fn the_load_at_the_lowest_effort_and_the_cost_of_a_call_are_known_ahead() {
        let mut core = Core::new(0..=5);
        let report = core.run(50, 0.5, 0.1, 100);
        let floor = 0.5 * relative_cost(0) + 0.1;
        assert!((report.busy - 0.6).abs() < 0.01, "{report:?}");
        assert!((report.busy_at_floor - floor).abs() < 0.01, "{report:?}");
        assert!((report.call_cost - floor / 100.0).abs() < 0.000_5, "{report:?}");
    }

    #[test]
    fn a_worker_without_calls_says_so_once_and_is_then_quiet() {
        let mut core = Core::new(0..=5);
        core.run(20, 0.3, 0.1, 100);
        core.calls = 0;
        let reports: Vec<_> = (0..50).filter_map(|_| core.step(0.0, 0.0, 0)).collect();
        let last = reports.last().expect("it says so");
        assert!(reports.len() < 25 && last.busy == 0.0 && last.calls == 0, "{reports:?}");
        assert_eq!(core.load.due(0), None);
        assert!(core.load.due(1).is_some());
    }

    #[test]
    fn the_99th_percentile_is_that_of_the_last_samples() {
        let mut lateness = Lateness::default();
        let sample = |lateness: &mut Lateness, late: &[u64]| {
            for us in late {
                (0..100).for_each(|_| lateness.record(Duration::from_micros(*us)));
            }
            let p99 = lateness.p99_us();
            lateness.turn();
            p99
        };
        assert_eq!(sample(&mut lateness, &[]), 0);
        let p99 = sample(&mut lateness, &[100, 900]);
        assert!((900..=1_024).contains(&p99), "{p99}");
        (0..Lateness::SAMPLES).for_each(|_| assert!(sample(&mut lateness, &[100]) > 0));
        assert!((100..=128).contains(&lateness.p99_us()), "{}", lateness.p99_us());
        assert_eq!(sample(&mut lateness, &[1_000_000_000; 2]), (1 << 23) + (1 << 23));
    }
}
