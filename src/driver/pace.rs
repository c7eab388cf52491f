//! How long a busy loop lets work gather before it wakes: the collection window.
//!
//! Each wake costs a pass through the scheduler and the network stack, whatever it finds. A loop with little to do wakes for
//! every packet, so that nothing waits. A busy one wakes at most once a window: packets and deadlines that fall into it are
//! served together, each later by less than the window. Time is an argument. This file must not know what wakes a loop.

use std::time::{Duration, Instant};

/// Below this share of time awake there is no window: the core has time to spare, and the packet has not.
const BUSY_FROM: f64 = 0.25;

/// From this share on the window has its full length. A loop at its limit never sleeps anyway, so the window matters between.
const BUSY_FULL: f64 = 0.60;

/// How long the loop is watched before the window is set anew: some beats of a call, so that one burst decides nothing.
const WATCH: Duration = Duration::from_millis(100);

/// The share of time awake, and the window that follows from it.
#[derive(Debug)]
pub(super) struct Pace {
    window_max: Duration,
    window: Duration,
    /// When the loop began to be watched.
    since: Instant,
    awake: Duration,
    woke: Instant,
}

impl Pace {
    /// A loop that begins now. A window of zero is none.
    pub(super) fn new(now: Instant, window_max: Duration) -> Self {
        Self { window_max, window: Duration::ZERO, since: now, awake: Duration::ZERO, woke: now }
    }

    /// The loop woke.
    pub(super) fn woke(&mut self, now: Instant) {
        self.woke = now;
    }

    /// The loop has done its work and is about to sleep; returns for how long it should, whatever comes meanwhile.
    pub(super) fn rests(&mut self, now: Instant) -> Duration {
        self.awake += now.saturating_duration_since(self.woke);
        let watched = now.saturating_duration_since(self.since);
        if watched >= WATCH {
            let busy = self.awake.as_secs_f64() / watched.as_secs_f64();
            let share = ((busy - BUSY_FROM) / (BUSY_FULL - BUSY_FROM)).clamp(0.0, 1.0);
            // Half of the way at once, so that it does not swing between two lengths.
            self.window = (self.window + self.window_max.mul_f64(share)) / 2;
            (self.since, self.awake) = (now, Duration::ZERO);
        }
        (self.woke + self.window).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_micros(500);
    const TURN: Duration = Duration::from_millis(1);

    /// Runs turns of a millisecond, of which this share is work; returns the last rest.
    fn rest_at(busy: f64) -> Duration {
        let mut now = Instant::now();
        let mut pace = Pace::new(now, WINDOW);
        let mut rest = Duration::ZERO;
        for _ in 0..3000 {
            pace.woke(now);
            rest = pace.rests(now + TURN.mul_f64(busy));
            now += TURN;
        }
        rest
    }

    #[test]
    fn an_idle_loop_has_no_window_and_a_busy_one_grows_it_to_the_bound() {
        assert_eq!(rest_at(0.05), Duration::ZERO);
        assert_eq!(rest_at(0.25), Duration::ZERO);
        let (some, more) = (rest_at(0.3), rest_at(0.35));
        assert!(Duration::ZERO < some + WINDOW.mul_f64(0.3) && some < WINDOW, "{some:?}");
        assert!(more <= WINDOW, "{more:?}");
    }

    #[test]
    fn a_turn_that_was_longer_than_the_window_needs_no_rest() {
        assert_eq!(rest_at(0.9), Duration::ZERO);
    }

    #[test]
    fn two_wakes_of_a_busy_loop_are_a_window_apart() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now, WINDOW);
        // Turns of 60 us, 16 of which fill a millisecond: nearly always awake.
        let work = Duration::from_micros(60);
        for _ in 0..20_000 {
            pace.woke(now);
            let rest = pace.rests(now + work);
            now += work + rest.min(Duration::from_micros(3));
        }
        pace.woke(now);
        let rest = pace.rests(now + work);
        assert!(rest + work <= WINDOW && rest + work > WINDOW * 9 / 10, "{rest:?}");
    }

    #[test]
    fn a_window_of_zero_is_none() {
        let now = Instant::now();
        let mut pace = Pace::new(now, Duration::ZERO);
        for ms in 0..1000 {
            pace.woke(now + TURN * ms);
            assert_eq!(pace.rests(now + TURN * ms + TURN), Duration::ZERO);
        }
    }
}
