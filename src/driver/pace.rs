//! How long a busy loop lets work gather before it wakes: the collection window.
//!
//! Each wake costs a pass through the scheduler and the network stack, whatever it finds. A loop with little to do wakes for
//! every packet, so that nothing waits. A busy one wakes at most once a window: packets and deadlines that fall into it are
//! served together, each later by less than the window. Time is an argument. This file must not know what wakes a loop.

use std::time::{Duration, Instant};

/// When a loop keeps a window, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// The longest; zero: none.
    pub max: Duration,
    /// Up to this share of time run there is no window: the core has time to spare, and the packet has not.
    pub busy_from: f64,
    /// From this share on the window has its full length.
    pub busy_full: f64,
}

impl Window {
    /// No window.
    pub const NONE: Self = Self { max: Duration::ZERO, busy_from: 1.0, busy_full: 1.0 };

    /// For a worker. A loop at its limit never sleeps anyway, so the window matters between these shares.
    pub const fn of_worker(max: Duration) -> Self {
        Self { max, busy_from: 0.25, busy_full: 0.60 }
    }

    /// For the other ends that come with the bridge: with more than a few calls, each packet that wakes them would cost the
    /// bridge that sends it, which no network does. A fortieth of a frame.
    pub const fn of_tool() -> Self {
        Self { max: Duration::from_micros(500), busy_from: 0.02, busy_full: 0.08 }
    }
}

/// How long the loop is watched before the window is set anew: some beats of a call, so that one burst decides nothing.
const WATCH: Duration = Duration::from_millis(100);

/// The share of time that the loop's thread runs, and the window that follows from it.
#[derive(Debug)]
pub(super) struct Pace {
    setting: Window,
    window: Duration,
    /// When the loop began to be watched, and what its thread had run by then.
    since: Instant,
    ran: Duration,
    woke: Instant,
}

impl Pace {
    /// A loop that begins now.
    pub(super) fn new(now: Instant, setting: Window) -> Self {
        Self { setting, window: Duration::ZERO, since: now, ran: Duration::ZERO, woke: now }
    }

    /// The loop woke.
    pub(super) fn woke(&mut self, now: Instant) {
        self.woke = now;
    }

    /// The loop has done its work and is about to sleep; returns for how long it should, whatever comes meanwhile. `run` tells
    /// what the thread has run since its start: what a ring does while it is entered is work too, and no turn sees it.
    pub(super) fn rests(&mut self, now: Instant, run: impl FnOnce() -> Duration) -> Duration {
        let Window { max, busy_from, busy_full } = self.setting;
        if max.is_zero() {
            return Duration::ZERO;
        }
        let watched = now.saturating_duration_since(self.since);
        if watched >= WATCH {
            let ran = run();
            let busy = ran.saturating_sub(self.ran).as_secs_f64() / watched.as_secs_f64();
            let share = ((busy - busy_from) / (busy_full - busy_from)).clamp(0.0, 1.0);
            // Half of the way at once, so that it does not swing between two lengths.
            self.window = (self.window + max.mul_f64(share)) / 2;
            (self.since, self.ran) = (now, ran);
        }
        (self.woke + self.window).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_micros(500);
    const TURN: Duration = Duration::from_millis(1);

    /// Runs turns of a millisecond, of which this share is work that a turn sees and this share all that the thread runs;
    /// returns the last rest.
    fn rest_at(seen: f64, busy: f64) -> Duration {
        let mut now = Instant::now();
        let mut pace = Pace::new(now, Window::of_worker(WINDOW));
        let (mut rest, mut ran) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..3000 {
            pace.woke(now);
            ran += TURN.mul_f64(busy);
            rest = pace.rests(now + TURN.mul_f64(seen), || ran);
            now += TURN;
        }
        rest
    }

    #[test]
    fn an_idle_loop_has_no_window_and_a_busy_one_grows_it_to_the_bound() {
        assert_eq!(rest_at(0.01, 0.05), Duration::ZERO);
        assert_eq!(rest_at(0.01, 0.25), Duration::ZERO);
        let (some, more) = (rest_at(0.01, 0.35), rest_at(0.01, 0.9));
        assert!(Duration::ZERO < some && some < more, "{some:?} and {more:?}");
        assert!(more <= WINDOW && more > WINDOW * 9 / 10, "{more:?}");
    }

    #[test]
    fn a_turn_that_was_longer_than_the_window_needs_no_rest() {
        assert_eq!(rest_at(0.6, 0.9), Duration::ZERO);
    }

    #[test]
    fn a_window_of_zero_is_none() {
        let now = Instant::now();
        let mut pace = Pace::new(now, Window::NONE);
        for ms in 0..1000 {
            pace.woke(now + TURN * ms);
            assert_eq!(pace.rests(now + TURN * ms + TURN, || TURN * ms), Duration::ZERO);
        }
    }
}
