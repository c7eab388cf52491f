//! What a codec takes, told by a part of its work: reading a thread's clock is a system call, and an eighth of the frames says
//! as much about their mean as all do.

use crate::io::Stopwatch;

/// One frame of this many is measured, and counts for all of them.
const EVERY: u64 = 8;

/// The time that some repeated work takes.
#[derive(Debug)]
pub(super) struct Meter {
    stopwatch: Option<Stopwatch>,
    done: u64,
    ns: u64,
}

impl Meter {
    /// A meter that measures nothing.
    pub(super) const fn off() -> Self {
        Self { stopwatch: None, done: 0, ns: 0 }
    }

    /// A meter that reads this.
    pub(super) const fn by(stopwatch: Stopwatch) -> Self {
        Self { stopwatch: Some(stopwatch), ..Self::off() }
    }

    /// What all of the work has taken, in nanoseconds.
    pub(super) const fn ns(&self) -> u64 {
        self.ns
    }

    /// Work begins; to be handed to [`Meter::end`].
    pub(super) fn begin(&mut self) -> Option<u64> {
        let stopwatch = self.stopwatch?;
        self.done += 1;
        (self.done % EVERY == 1).then(stopwatch)
    }

    /// Work has ended.
    pub(super) fn end(&mut self, begun: Option<u64>) {
        if let (Some(stopwatch), Some(begun)) = (self.stopwatch, begun) {
            self.ns += stopwatch().saturating_sub(begun) * EVERY;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_part_of_the_work_counts_for_all_of_it_and_reads_the_clock_as_rarely() {
        static READS: AtomicU64 = AtomicU64::new(0);
        let mut meter = Meter::by(|| READS.fetch_add(1, Ordering::Relaxed) * 50);
        for _ in 0..80 {
            let begun = meter.begin();
            meter.end(begun);
        }
        assert_eq!((meter.ns(), READS.load(Ordering::Relaxed)), (80 * 50, 20));
        let mut off = Meter::off();
        let begun = off.begin();
        off.end(begun);
        assert_eq!(off.ns(), 0);
    }
}
