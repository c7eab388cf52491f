//! Events that wait to be posted: how many, in which order, and when to try again.
//!
//! One is under way at a time, so that a receiver gets them in the order they happened. Time is an argument; the
//! threads and the posting are the parent's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call_id::LogId;

/// Events that wait. An event is some 3 KB and at most 12, so this is 12 MB: what a server of 200 calls a minute tells
/// in five minutes. A receiver that is away for longer misses the latest; the metrics say how many.
pub(super) const EVENTS_MAX: usize = 1024;
/// How long to wait after each failed attempt. The last of them is half a minute after the first: a receiver that
/// restarts is back by then, and one that is gone must not hold up those behind for ever.
const BACKOFF: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];

/// An event as it is posted.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) log_id: LogId,
    pub(super) body: Arc<[u8]>,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Sent,
    /// It is tried again.
    PutOff,
    GivenUp,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The first is the one that is tried.
    waiting: VecDeque<Parcel>,
    /// Failed attempts of the first.
    failures: usize,
    under_way: bool,
    not_before: Option<Instant>,
}

impl Queue {
    /// Puts an event behind the others; false when there are too many.
    pub(super) fn push(&mut self, parcel: Parcel) -> bool {
        let fits = self.waiting.len() < EVENTS_MAX;
        if fits {
            self.waiting.push_back(parcel);
        }
        fits
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The event to be posted now, if one is; [`Queue::attempted`] must follow.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Parcel> {
        if self.under_way || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        let parcel = self.waiting.front()?.clone();
        self.under_way = true;
        Some(parcel)
    }

    /// The event under way was answered with this status, or not at all (`None`). `None` when none was under way.
    pub(super) fn attempted(&mut self, now: Instant, status: Option<u16>) -> Option<(LogId, Verdict)> {
        if !std::mem::take(&mut self.under_way) {
            return None;
        }
        let verdict = match status {
            Some(200..=299) => Verdict::Sent,
            // The receiver is away, or says that it may do better later.
            None | Some(429 | 500..) if self.failures < BACKOFF.len() => Verdict::PutOff,
            _ => Verdict::GivenUp,
        };
        if verdict == Verdict::PutOff {
            self.not_before = Some(now + BACKOFF[self.failures]);
            self.failures += 1;
            return Some((self.waiting.front()?.log_id, verdict));
        }
        (self.failures, self.not_before) = (0, None);
        Some((self.waiting.pop_front()?.log_id, verdict))
    }

    /// When to look again; `None`: when something comes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.under_way && !self.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(n: usize) -> Parcel {
        Parcel { log_id: LogId::default(), body: n.to_string().into_bytes().into() }
    }

    fn begun(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.begin(now).map(|parcel| String::from_utf8(parcel.body.to_vec()).unwrap())
    }

    fn verdict(queue: &mut Queue, now: Instant, status: Option<u16>) -> Verdict {
        queue.attempted(now, status).expect("one is under way").1
    }

    #[test]
    fn events_go_one_after_the_other_in_order() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        (0..3).for_each(|n| assert!(queue.push(parcel(n))));
        for n in 0..3 {
            assert_eq!(begun(&mut queue, now), Some(n.to_string()));
            assert_eq!(begun(&mut queue, now), None, "one at a time");
            assert_eq!(verdict(&mut queue, now, Some(204)), Verdict::Sent);
        }
        assert_eq!((begun(&mut queue, now), queue.len(), queue.next()), (None, 0, None));
        assert_eq!(queue.attempted(now, Some(200)), None);
    }

    #[test]
    fn a_receiver_that_is_away_is_tried_for_half_a_minute_and_the_next_begins_anew() {
        for away in [None, Some(429), Some(500), Some(503)] {
            let (mut queue, start) = (Queue::default(), Instant::now());
            (0..2).for_each(|n| assert!(queue.push(parcel(n))));
            let mut now = start;
            for seconds in [1, 2, 4, 8, 16] {
                assert_eq!(begun(&mut queue, now).as_deref(), Some("0"));
                assert_eq!(verdict(&mut queue, now, away), Verdict::PutOff);
                let again = now + Duration::from_secs(seconds);
                assert_eq!(queue.next(), Some(again), "{away:?}");
                now += Duration::from_secs(seconds).saturating_sub(Duration::from_millis(1));
                assert_eq!(begun(&mut queue, now), None);
                now = again;
            }
            assert_eq!(begun(&mut queue, now).as_deref(), Some("0"));
            assert_eq!(verdict(&mut queue, now, away), Verdict::GivenUp);
            assert_eq!(now - start, Duration::from_secs(31));
            assert_eq!(begun(&mut queue, now).as_deref(), Some("1"));
            assert_eq!(verdict(&mut queue, now, away), Verdict::PutOff);
        }
    }

    #[test]
    fn a_refusal_is_final() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for status in [301, 400, 401, 404, 413] {
            queue.push(parcel(0));
            begun(&mut queue, now).unwrap();
            assert_eq!(verdict(&mut queue, now, Some(status)), Verdict::GivenUp, "{status}");
            assert_eq!(queue.len(), 0);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        (0..EVENTS_MAX).for_each(|n| assert!(queue.push(parcel(n))));
        assert!(!queue.push(parcel(EVENTS_MAX)));
        begun(&mut queue, now).unwrap();
        assert!(!queue.push(parcel(EVENTS_MAX)), "the one under way is kept for another attempt");
        queue.attempted(now, Some(200));
        assert!(queue.push(parcel(EVENTS_MAX)));
    }
}
