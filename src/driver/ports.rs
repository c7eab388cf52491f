//! The pool of local UDP ports of one loop.
//!
//! Ports go round robin, and a closed one rests before it is used again: late packets of a dead call must not reach a
//! new one. Time is an argument. This file must not know sockets.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// How long a port rests after its socket was closed or found busy: longer than a far side that missed the end of a call
/// keeps a packet under way, and short against the life of a call, so that few ports rest at once.
pub const REST: Duration = Duration::from_secs(10);

/// Ports of a range that are free, and those that rest.
#[derive(Debug)]
pub struct PortPool {
    free: VecDeque<u16>,
    resting: VecDeque<(Instant, u16)>,
    rest: Duration,
}

impl PortPool {
    /// A pool of all ports of a range. Each rests for `rest` after use.
    pub fn new(range: RangeInclusive<u16>, rest: Duration) -> Self {
        Self { free: range.filter(|port| *port != 0).collect(), resting: VecDeque::new(), rest }
    }

    /// Takes the next free port; `None` when each is in use or rests.
    pub fn take(&mut self, now: Instant) -> Option<u16> {
        while self.resting.front().is_some_and(|(until, _)| *until <= now) {
            self.free.extend(self.resting.pop_front().map(|(_, port)| port));
        }
        self.free.pop_front()
    }

    /// Gives back a port that was used, or that is busy by another program's doing: it rests first.
    pub fn rest(&mut self, port: u16, now: Instant) {
        self.resting.push_back((now + self.rest, port));
    }

    /// Gives back a port that nothing was received on: it is next.
    pub fn unused(&mut self, port: u16) {
        self.free.push_front(port);
    }
}

/// Cuts a range into one share per worker, none more than one port larger than another; shares of a range with fewer
/// ports than workers may be empty.
pub fn shares(range: &RangeInclusive<u16>, workers: u16) -> Vec<RangeInclusive<u16>> {
    let (first, len) = (u32::from(*range.start()), u32::try_from(range.len()).expect("a range of u16 has few ports"));
    let cut = |worker: u32| first + len * worker / u32::from(workers);
    (0..u32::from(workers))
        .map(|worker| match (cut(worker), cut(worker + 1)) {
            (from, to) if from == to => RangeInclusive::new(1, 0),
            (from, to) => from as u16..=(to - 1) as u16,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_rests_before_it_is_used_again() {
        let start = Instant::now();
        let mut pool = PortPool::new(5..=6, REST);
        assert_eq!((pool.take(start), pool.take(start), pool.take(start)), (Some(5), Some(6), None));
        pool.rest(5, start);
        assert_eq!(pool.take(start + REST.saturating_sub(Duration::from_nanos(1))), None);
        assert_eq!(pool.take(start + REST), Some(5));
    }

    #[test]
    fn ports_go_round_robin_and_an_unused_one_is_next() {
        let now = Instant::now();
        let mut pool = PortPool::new(5..=7, Duration::ZERO);
        let port = pool.take(now).unwrap();
        pool.rest(port, now);
        assert_eq!(pool.take(now), Some(6));
        pool.unused(6);
        assert_eq!([pool.take(now), pool.take(now), pool.take(now)], [Some(6), Some(7), Some(5)]);
    }

    #[test]
    fn shares_cover_the_range_without_overlap() {
        for (range, workers) in [(40000..=41999, 3), (0..=65535, 64), (9..=9, 4), (65535..=65535, 1), (7..=10, 4)] {
            let all: Vec<u16> = shares(&range, workers).into_iter().flatten().collect();
            assert!(all.iter().copied().eq(range.clone()), "{range:?} in {workers}");
            let sizes: Vec<usize> = shares(&range, workers).iter().map(ExactSizeIterator::len).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }
}
