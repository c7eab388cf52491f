//! Webhooks that wait to be passed on: which may go, and when to try again.
//!
//! Those of one sender keep their order: the next goes when the one before it is taken or given up. Those of different
//! senders do not wait for each other. Time is an argument; the threads and the posting are the parent's.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::messages::Parcel;

/// Posts under way at once. A receiver takes one in some 100 ms, so this is 80 a second: more than a busy number has.
pub(super) const LANES: usize = 8;

/// How long to wait after each failed attempt; from the last one on always as long.
const BACKOFF: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(30),
];

/// A webhook that is this old is given up when it fails once more. Meta itself would try for days, but Meta has been told that
/// it is taken; one that its receiver can never take must not hold up its sender for ever, and ten minutes is longer
/// than a restart, an upgrade or a roll-back of the receiver takes.
const AGE_MAX: Duration = Duration::from_secs(600);

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Taken,
    /// It is tried again.
    PutOff,
    GivenUp,
}

/// Which webhook: they are counted as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Number(u64);

#[derive(Debug)]
struct Waiting {
    parcel: Arc<Parcel>,
    came: Instant,
    failures: usize,
    /// Webhooks of the same senders that came earlier, each counted as often as they share one.
    ahead: usize,
}

/// What waits, and what is under way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Number, Waiting>,
    /// Whose webhooks wait, in their order.
    lines: HashMap<u64, VecDeque<Number>>,
    /// Those that may go.
    ready: BTreeSet<Number>,
    /// Those that failed, by when they may go again.
    resting: BTreeSet<(Instant, Number)>,
    under_way: BTreeSet<Number>,
    next: u64,
}

impl Queue {
    /// Takes a webhook; false when there are too many.
    pub(super) fn push(&mut self, now: Instant, parcel: Parcel) -> bool {
        if self.waiting.len() >= Parcel::WAITING_MAX {
            return false;
        }
        let number = Number(self.next);
        self.next += 1;
        let mut ahead = 0;
        for sender in senders(&parcel) {
            let line = self.lines.entry(sender).or_default();
            ahead += usize::from(!line.is_empty());
            line.push_back(number);
        }
        if ahead == 0 {
            self.ready.insert(number);
        }
        self.waiting.insert(number, Waiting { parcel: Arc::new(parcel), came: now, failures: 0, ahead });
        true
    }

    /// Webhooks that wait or are under way.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A webhook to be posted now, if one may go; [`Queue::attempted`] must follow.
    pub(super) fn begin(&mut self, now: Instant) -> Option<(Number, Arc<Parcel>)> {
        while let Some((at, number)) = self.resting.first().copied()
            && at <= now
        {
            self.resting.pop_first();
            self.ready.insert(number);
        }
        if self.under_way.len() >= LANES {
            return None;
        }
        let number = self.ready.pop_first()?;
        self.under_way.insert(number);
        Some((number, Arc::clone(&self.waiting[&number].parcel)))
    }

    /// A webhook under way was answered with this status, or not at all (`None`). The length of its body goes with the
    /// verdict; `None` when it was not under way.
    pub(super) fn attempted(&mut self, now: Instant, number: Number, status: Option<u16>) -> Option<(Verdict, usize)> {
        if !self.under_way.remove(&number) {
            return None;
        }
        let waiting = self.waiting.get_mut(&number)?;
        let bytes = waiting.parcel.body.len();
        let verdict = match status {
            Some(200..=299) => Verdict::Taken,
            // The receiver is away, or says that it may do better later.
            None | Some(408 | 425 | 429 | 500..) if now.saturating_duration_since(waiting.came) < AGE_MAX => {
                Verdict::PutOff
            }
            _ => Verdict::GivenUp,
        };
        if verdict == Verdict::PutOff {
            let rest = BACKOFF[waiting.failures.min(BACKOFF.len() - 1)];
            waiting.failures += 1;
            self.resting.insert((now + rest, number));
        } else {
            self.remove(number);
        }
        Some((verdict, bytes))
    }

    /// It is done with: the next of each of its senders may be free to go.
    fn remove(&mut self, number: Number) {
        let Some(gone) = self.waiting.remove(&number) else { return };
        for sender in senders(&gone.parcel) {
            let Some(line) = self.lines.get_mut(&sender) else { continue };
            debug_assert_eq!(line.front(), Some(&number), "only the first of a line goes");
            line.pop_front();
            let Some(next) = line.front().copied() else {
                self.lines.remove(&sender);
                continue;
            };
            if let Some(waiting) = self.waiting.get_mut(&next) {
                waiting.ahead -= 1;
                if waiting.ahead == 0 {
                    self.ready.insert(next);
                }
            }
        }
    }

    /// When to look again; `None`: when something comes or is answered.
    pub(super) fn next(&self) -> Option<Instant> {
        self.resting.first().map(|(at, _)| *at).filter(|_| self.under_way.len() < LANES)
    }
}

/// Each sender once.
fn senders(parcel: &Parcel) -> BTreeSet<u64> {
    parcel.senders.iter().copied().collect()
}
