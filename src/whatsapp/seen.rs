//! Which events of which calls have come: webhooks come again, late, and out of order.
//!
//! It keeps hashes, since call ids are personal data. Events are told apart by call and kind: by the call alone, a terminate
//! would pass for its connect come again.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;

use crate::call_id::CallId;

/// Most events remembered: two of each call of eight numbers at Meta's limit of 1,000 calls at once. About 2 MiB.
pub const EVENTS_MAX: usize = 16_384;
/// How long an event is remembered. Meta sends again within minutes what was not answered with 200, and later what is too old to be
/// taken for a new call by its timestamp.
pub const TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// What an event is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// It is new.
    New,
    /// It has come before.
    Repeated,
    /// A connect of a call of which a terminate has come already.
    Over,
}

/// The kinds of events that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `connect`.
    Connect,
    /// `terminate`.
    Terminate,
}

/// The first half of a SHA-256: no two calls of a lifetime share it.
type Key = ([u8; 16], Kind);

/// What has come, bounded in number and in time.
#[derive(Debug, Default)]
pub struct Seen {
    /// Each with the number of its place in `order`.
    events: HashMap<Key, u64>,
    /// Oldest first. What was forgotten stands here until its turn.
    order: VecDeque<(Instant, Key, u64)>,
    next: u64,
}

impl Seen {
    /// Notes an event and says what it is. One that comes again is remembered from its first time on, not anew.
    pub fn note(&mut self, now: Instant, call: &CallId, kind: Kind) -> Novelty {
        self.expire(now);
        let key = key(call, kind);
        if self.events.contains_key(&key) {
            return Novelty::Repeated;
        }
        let is_over = kind == Kind::Connect && self.events.contains_key(&(key.0, Kind::Terminate));
        self.events.insert(key, self.next);
        self.order.push_back((now, key, self.next));
        self.next += 1;
        if is_over { Novelty::Over } else { Novelty::New }
    }

    /// Whether an event has come, as far as is remembered.
    pub fn has(&self, call: &CallId, kind: Kind) -> bool {
        self.events.contains_key(&key(call, kind))
    }

    /// Forgets that a connect came: it could not be taken, and Meta was asked to send it again.
    pub fn forget(&mut self, call: &CallId, kind: Kind) {
        self.events.remove(&key(call, kind));
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, key, number)) = self.order.front() {
            let is_old = now.saturating_duration_since(*at) >= TIME_MAX;
            if !is_old && self.order.len() < EVENTS_MAX {
                break;
            }
            // One that was forgotten and came again stands further behind.
            if self.events.get(key) == Some(number) {
                self.events.remove(key);
            }
            self.order.pop_front();
        }
    }
}

fn key(call: &CallId, kind: Kind) -> Key {
    let digest = digest::digest(&digest::SHA256, call.expose().as_bytes());
    let (half, _) = digest.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
    (*half, kind)
}

#[cfg(test)]
mod tests {
    use super::Kind::{Connect, Terminate};
    use super::Novelty::{New, Over, Repeated};
    use super::*;

    fn call(number: usize) -> CallId {
        CallId::new(&format!("wacid.{number}")).unwrap()
    }

    #[test]
    fn an_event_is_new_once() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        assert_eq!(seen.note(now, &call(1), Connect), New);
        assert_eq!(seen.note(now, &call(1), Connect), Repeated);
        assert_eq!(seen.note(now, &call(2), Connect), New);
        assert_eq!(seen.note(now, &call(1), Terminate), New, "of the same call, and no repetition");
        assert_eq!(seen.note(now, &call(1), Terminate), Repeated);
        assert_eq!(seen.note(now, &call(1), Connect), Repeated, "not over: it was taken when it came");
    }

    #[test]
    fn a_connect_behind_its_terminate_is_over_and_then_a_repetition() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        assert_eq!(seen.note(now, &call(1), Terminate), New);
        assert_eq!(seen.note(now, &call(1), Connect), Over);
        assert_eq!(seen.note(now, &call(1), Connect), Repeated);
        assert_eq!(seen.note(now, &call(2), Connect), New);
    }

    #[test]
    fn what_is_forgotten_may_come_again() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        seen.note(now, &call(1), Connect);
        seen.forget(&call(1), Terminate);
        assert_eq!(seen.note(now, &call(1), Connect), Repeated);
        seen.forget(&call(1), Connect);
        assert_eq!(seen.note(now, &call(1), Connect), New);
        seen.note(now, &call(1), Terminate);
        seen.forget(&call(1), Connect);
        assert_eq!(seen.note(now, &call(1), Connect), Over);
    }

    #[test]
    fn events_are_remembered_for_an_hour_from_their_first_time() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        seen.note(start, &call(1), Terminate);
        let before = start + TIME_MAX.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(seen.note(before, &call(1), Terminate), Repeated);
        assert_eq!(seen.note(before, &call(1), Connect), Over);
        assert_eq!(seen.note(start + TIME_MAX, &call(1), Terminate), New);
        assert_eq!(seen.note(start + TIME_MAX, &call(1), Connect), Repeated, "it came later");
    }

    #[test]
    fn the_oldest_makes_room_for_the_newest() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        for number in 0..EVENTS_MAX {
            assert_eq!(seen.note(now, &call(number), Connect), New);
        }
        assert_eq!(seen.note(now, &call(EVENTS_MAX - 1), Connect), Repeated);
        assert_eq!(seen.note(now, &call(EVENTS_MAX), Connect), New);
        assert_eq!(seen.note(now, &call(EVENTS_MAX), Connect), Repeated);
        assert_eq!(seen.note(now, &call(2), Connect), Repeated, "a repetition makes no room");
        assert_eq!(seen.note(now, &call(0), Connect), New, "the first was the oldest");
    }

    #[test]
    fn an_event_forgotten_and_come_again_keeps_its_new_place() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let later = start + TIME_MAX / 2;
        seen.note(start, &call(1), Connect);
        seen.forget(&call(1), Connect);
        seen.note(later, &call(1), Connect);
        assert_eq!(
            seen.note(start + TIME_MAX, &call(1), Connect),
            Repeated,
            "the place of its first time counts no more"
        );
        assert_eq!(seen.note(later + TIME_MAX, &call(1), Connect), New);
    }

    #[test]
    fn events_that_are_forgotten_again_and_again_take_no_room() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        for _ in 0..3 * EVENTS_MAX {
            assert_eq!(seen.note(now, &call(1), Connect), New);
            seen.forget(&call(1), Connect);
        }
        assert!(seen.order.len() <= EVENTS_MAX && seen.events.is_empty());
    }

    #[test]
    fn it_never_holds_more_than_it_may() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        for number in 0..2 * EVENTS_MAX {
            seen.note(now, &call(number), Connect);
            assert!(seen.order.len() <= EVENTS_MAX && seen.events.len() <= EVENTS_MAX);
        }
    }
}
