//! Webhooks that wait to be passed on: which may go, and when to try again.
//!
//! Those of one sender keep their order: the next goes when the one before it is taken or given up. Those of different
//! senders do not wait for each other. One that is about anybody waits for all before it, and all behind it wait for it.
//! Time is an argument; the threads and the posting are the parent's.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::messages::Parcel;

/// Posts under way at once. A receiver takes one in some 100 ms, so this is 80 a second: more than a busy number has.
pub(super) const LANES: usize = 8;

/// Webhooks that wait or are under way. Control stops taking such webhooks from Meta long before, by their number and their
/// bytes, so that none is lost: this bounds what it cannot see.
const PARCELS_MAX: usize = 8192;

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
    /// What it waits for: webhooks of the same senders that came earlier, each counted as often as they share one, and the one
    /// before it that is about anybody. For such a one itself: all that came earlier.
    ahead: usize,
    /// The last one before it that is about anybody.
    behind: Option<Number>,
}

/// What waits, and what is under way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Number, Waiting>,
    /// Whose webhooks wait, in their order.
    lines: HashMap<u64, VecDeque<Number>>,
    /// Those about anybody, in their order.
    of_all: VecDeque<Number>,
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
        if self.waiting.len() >= PARCELS_MAX {
            return false;
        }
        let number = Number(self.next);
        self.next += 1;
        let behind = self.of_all.back().copied();
        let mut ahead = usize::from(behind.is_some());
        if is_of_all(&parcel) {
            ahead = self.waiting.len();
            self.of_all.push_back(number);
        } else {
            for sender in senders(&parcel) {
                let line = self.lines.entry(sender).or_default();
                ahead += usize::from(!line.is_empty());
                line.push_back(number);
            }
        }
        if ahead == 0 {
            self.ready.insert(number);
        }
        self.waiting.insert(number, Waiting { parcel: Arc::new(parcel), came: now, failures: 0, ahead, behind });
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
        let freed: Vec<Number> = if is_of_all(&gone.parcel) {
            debug_assert_eq!(self.of_all.front(), Some(&number), "it has waited for all before it");
            self.of_all.pop_front();
            // One about anybody waits for all before it, and is among these by that.
            let waits =
                |(_, waiting): &(&Number, &Waiting)| waiting.behind == Some(number) || is_of_all(&waiting.parcel);
            self.waiting.iter().filter(waits).map(|(number, _)| *number).collect()
        } else {
            self.of_all.iter().copied().filter(|other| *other > number).collect()
        };
        for other in freed {
            self.one_less(other);
        }
        if is_of_all(&gone.parcel) {
            return;
        }
        for sender in senders(&gone.parcel) {
            let Some(line) = self.lines.get_mut(&sender) else { continue };
            debug_assert_eq!(line.front(), Some(&number), "only the first of a line goes");
            line.pop_front();
            let Some(next) = line.front().copied() else {
                self.lines.remove(&sender);
                continue;
            };
            self.one_less(next);
        }
    }

    /// It waits for one less.
    fn one_less(&mut self, number: Number) {
        if let Some(waiting) = self.waiting.get_mut(&number) {
            waiting.ahead -= 1;
            if waiting.ahead == 0 {
                self.ready.insert(number);
            }
        }
    }

    /// When to look again; `None`: when something comes or is answered.
    pub(super) fn next(&self) -> Option<Instant> {
        self.resting.first().map(|(at, _)| *at).filter(|_| self.under_way.len() < LANES)
    }
}

/// Whether it is about more people than are told apart.
fn is_of_all(parcel: &Parcel) -> bool {
    parcel.senders.contains(&Parcel::ANYBODY)
}

/// Each sender once.
fn senders(parcel: &Parcel) -> BTreeSet<u64> {
    parcel.senders.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWAY: Option<u16> = Some(503);

    fn parcel(senders: &[u64], body: &str) -> Parcel {
        Parcel {
            senders: senders.to_vec(),
            signature: String::new(),
            content_type: String::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn body(parcel: &Parcel) -> String {
        String::from_utf8(parcel.body.clone()).unwrap()
    }

    /// All that may go now.
    fn begun(queue: &mut Queue, now: Instant) -> Vec<(Number, String)> {
        std::iter::from_fn(|| queue.begin(now)).map(|(number, parcel)| (number, body(&parcel))).collect()
    }

    fn bodies(begun: &[(Number, String)]) -> Vec<&str> {
        begun.iter().map(|(_, body)| body.as_str()).collect()
    }

    #[test]
    fn one_sender_keeps_its_order_and_others_do_not_wait_for_it() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (senders, body) in [(&[1][..], "1a"), (&[1], "1b"), (&[2], "2a"), (&[], "-"), (&[], "-")] {
            assert!(queue.push(now, parcel(senders, body)));
        }
        let first = begun(&mut queue, now);
        assert_eq!(bodies(&first), ["1a", "2a", "-", "-"]);
        assert_eq!(queue.attempted(now, first[0].0, Some(200)), Some((Verdict::Taken, 2)));
        let next = begun(&mut queue, now);
        assert_eq!(bodies(&next), ["1b"]);
        for (number, _) in first[1..].iter().chain(&next) {
            assert_eq!(queue.attempted(now, *number, Some(204)).unwrap().0, Verdict::Taken);
            assert_eq!(queue.attempted(now, *number, Some(204)), None, "it is gone");
        }
        assert_eq!((queue.len(), queue.next(), queue.lines.len()), (0, None, 0));
    }

    #[test]
    fn one_of_several_senders_waits_for_all_of_them() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (senders, body) in [(&[1][..], "1"), (&[2], "2"), (&[2, 1, 1], "both"), (&[2], "2 again")] {
            queue.push(now, parcel(senders, body));
        }
        let first = begun(&mut queue, now);
        assert_eq!(bodies(&first), ["1", "2"]);
        queue.attempted(now, first[0].0, Some(200));
        assert_eq!(begun(&mut queue, now), []);
        queue.attempted(now, first[1].0, Some(200));
        let both = begun(&mut queue, now);
        assert_eq!(bodies(&both), ["both"]);
        queue.attempted(now, both[0].0, Some(200));
        assert_eq!(bodies(&begun(&mut queue, now)), ["2 again"]);
    }

    #[test]
    fn one_about_anybody_waits_for_all_and_all_wait_for_it() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let of_all = [7, Parcel::ANYBODY];
        for (senders, body) in [(&[1][..], "1"), (&[2], "2"), (&of_all, "all"), (&of_all, "again"), (&[3], "3")] {
            queue.push(now, parcel(senders, body));
        }
        let first = begun(&mut queue, now);
        assert_eq!(bodies(&first), ["1", "2"]);
        queue.attempted(now, first[0].0, Some(200));
        assert_eq!(begun(&mut queue, now), []);
        queue.attempted(now, first[1].0, Some(404));
        for body in ["all", "again", "3"] {
            let next = begun(&mut queue, now);
            assert_eq!(bodies(&next), [body]);
            queue.attempted(now, next[0].0, Some(200));
        }
        assert_eq!((queue.len(), queue.of_all.len(), queue.lines.len()), (0, 0, 0));
    }

    #[test]
    fn a_receiver_that_is_away_is_tried_for_ten_minutes_and_its_sender_waits() {
        for away in [None, Some(408), Some(425), Some(429), Some(500), Some(503)] {
            let (mut queue, start) = (Queue::default(), Instant::now());
            queue.push(start, parcel(&[1], "1"));
            queue.push(start, parcel(&[1], "behind"));
            let (mut now, mut attempts) = (start, 0);
            let given_up = loop {
                let begun = begun(&mut queue, now);
                assert_eq!(bodies(&begun), ["1"], "{away:?}");
                attempts += 1;
                let (verdict, bytes) = queue.attempted(now, begun[0].0, away).unwrap();
                assert_eq!(bytes, 1);
                if verdict == Verdict::GivenUp {
                    break now;
                }
                assert_eq!(verdict, Verdict::PutOff);
                let again = queue.next().unwrap();
                assert_eq!(
                    super::tests::begun(&mut queue, now.max(again.checked_sub(Duration::from_millis(1)).unwrap())),
                    []
                );
                now = again;
            };
            let tried = given_up - start;
            assert!((AGE_MAX..AGE_MAX + BACKOFF[5]).contains(&tried) && attempts > 20, "{tried:?}, {attempts} times");
            // The next one is as old, and has its one attempt.
            let behind = begun(&mut queue, given_up);
            assert_eq!(bodies(&behind), ["behind"]);
            assert_eq!(queue.attempted(given_up, behind[0].0, away).unwrap().0, Verdict::GivenUp);
            assert_eq!(queue.len(), 0);
        }
    }

    #[test]
    fn a_refusal_is_final() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for status in [100, 302, 400, 401, 404, 413] {
            queue.push(now, parcel(&[1], "x"));
            let (number, _) = queue.begin(now).unwrap();
            assert_eq!(queue.attempted(now, number, Some(status)).unwrap().0, Verdict::GivenUp, "{status}");
        }
    }

    #[test]
    fn posts_under_way_and_webhooks_that_wait_are_bounded() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        (0..PARCELS_MAX).for_each(|n| assert!(queue.push(now, parcel(&[n as u64 + 1], "x"))));
        assert!(!queue.push(now, parcel(&[], "too many")));
        let first = begun(&mut queue, now);
        assert_eq!(first.len(), LANES);
        queue.attempted(now, first[0].0, AWAY);
        assert!(!queue.push(now, parcel(&[], "too many")), "one that rests waits too");
        assert_eq!(begun(&mut queue, now).len(), 1, "and leaves its lane to others");
        assert_eq!(queue.next(), None, "with all lanes taken there is nothing to look for");
        queue.attempted(now, first[1].0, Some(200));
        assert!(queue.push(now, parcel(&[], "fits")));
        assert_eq!(queue.next(), Some(now + BACKOFF[0]));
    }

    /// A receiver of moods, many senders, many lanes: whatever happens, each sender's webhooks are taken in their order,
    /// and each is taken or given up, once.
    #[test]
    fn whatever_fails_order_is_kept_and_nothing_is_lost_or_doubled() {
        for seed in 1..=200_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut random = move |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) % below
            };
            let (mut queue, mut now) = (Queue::default(), Instant::now());
            let (mut pushed, mut under_way, mut ends) = (Vec::new(), Vec::new(), BTreeSet::new());
            let mut taken: Vec<usize> = Vec::new();
            while pushed.len() < 60 || queue.len() > 0 {
                if pushed.len() < 60 && random(3) == 0 {
                    // 0 is anybody.
                    let senders: Vec<u64> = (0..random(4)).map(|_| random(9)).collect();
                    let pushing = parcel(&senders, &pushed.len().to_string());
                    assert!(queue.push(now, pushing));
                    pushed.push(senders);
                }
                while let Some((number, parcel)) = queue.begin(now) {
                    let which: usize = body(&parcel).parse().unwrap();
                    let is_of_all = |which: usize| pushed[which].contains(&Parcel::ANYBODY);
                    let shared = |other: &(Number, usize)| {
                        let same = pushed[other.1].iter().any(|s| pushed[which].contains(s));
                        same || is_of_all(which) || is_of_all(other.1)
                    };
                    assert!(!under_way.iter().any(shared), "two of one sender are under way");
                    under_way.push((number, which));
                    assert!(under_way.len() <= LANES);
                }
                if under_way.is_empty() {
                    if let Some(next) = queue.next() {
                        now = now.max(next);
                    } else {
                        assert!(queue.len() == 0, "what waits goes some time");
                    }
                    continue;
                }
                now += Duration::from_millis(random(40_000));
                let (number, which) = under_way.swap_remove(random(under_way.len() as u64) as usize);
                let status = [Some(200), None, AWAY, Some(404), Some(200), AWAY][random(6) as usize];
                match queue.attempted(now, number, status).unwrap().0 {
                    Verdict::Taken => taken.push(which),
                    Verdict::PutOff => continue,
                    Verdict::GivenUp => {}
                }
                assert!(ends.insert(which), "{which} ended twice");
            }
            assert_eq!(ends.len(), 60, "seed {seed}");
            for sender in 0..9 {
                let is_of = |which: &&usize| pushed[**which].contains(&sender) || pushed[**which].contains(&0);
                let of_sender = taken.iter().filter(is_of);
                assert!(of_sender.is_sorted(), "seed {seed}: sender {sender} is out of order");
            }
        }
    }
}
