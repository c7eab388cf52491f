//! The queue of deadlines of many calls.
//!
//! A heap with lazy removal: a call's newest entry is the one that its own record names, older ones are skipped when they
//! come up. The heap is swept when stale entries outnumber what live calls can have.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Stale entries per slot that are tolerated before a sweep.
const STALE_MAX: usize = 8;

/// Deadlines by slot.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u32)>>,
    /// The deadline in force, by slot.
    armed: Vec<Option<Instant>>,
}

impl Timers {
    /// Sets or clears a slot's deadline.
    pub(super) fn arm(&mut self, slot: u32, at: Option<Instant>) {
        let index = slot as usize;
        if self.armed.len() <= index {
            self.armed.resize(index + 1, None);
        }
        if self.armed[index] == at {
            return;
        }
        self.armed[index] = at;
        if let Some(at) = at {
            self.heap.push(Reverse((at, slot)));
            if self.heap.len() > STALE_MAX * self.armed.len() + 64 {
                self.sweep();
            }
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, slot))) = self.heap.peek() {
            if self.armed[*slot as usize] == Some(*at) {
                return Some(*at);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes a slot whose deadline has come; it is unarmed then.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, slot)) = self.heap.pop()?;
        self.armed[slot as usize] = None;
        Some(slot)
    }

    fn sweep(&mut self) {
        self.heap.clear();
        let live = self.armed.iter().enumerate().filter_map(|(slot, at)| at.map(|at| Reverse((at, slot as u32))));
        self.heap.extend(live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn slots_come_up_in_the_order_of_their_newest_deadlines() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.arm(0, Some(at(10)));
        timers.arm(1, Some(at(20)));
        timers.arm(0, Some(at(30)));
        timers.arm(2, Some(at(5)));
        timers.arm(2, None);
        assert_eq!(timers.next(), Some(at(20)));
        assert_eq!(timers.pop_due(at(19)), None);
        assert_eq!(timers.pop_due(at(40)), Some(1));
        assert_eq!(timers.pop_due(at(40)), Some(0));
        assert_eq!(timers.pop_due(at(40)), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn deadlines_that_move_all_the_time_do_not_fill_memory() {
        let start = Instant::now();
        let mut timers = Timers::default();
        for ms in 0..100_000 {
            timers.arm(0, Some(start + Duration::from_millis(1_000_000 - ms)));
        }
        assert!(timers.heap.len() < 100, "{} entries", timers.heap.len());
        assert_eq!(timers.next(), Some(start + Duration::from_millis(900_001)));
    }
}
