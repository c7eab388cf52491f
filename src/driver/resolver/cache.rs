//! Which names are known, for how long, and who waits for which.
//!
//! Sans-IO: time is an argument, and look-ups are done by the caller. An address is fresh for [`FRESH`]; after that it is
//! looked up again, and while that fails or takes long the old one serves for up to [`STALE`]: a name server's outage
//! ends no call. A failure is remembered for [`FAILED`], so that a burst of calls asks once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call_id::CallNumber;

/// How long addresses are used without asking again.
pub(super) const FRESH: Duration = Duration::from_secs(60);
/// How long addresses serve when asking again fails.
pub(super) const STALE: Duration = Duration::from_secs(600);
/// How long a failure is answered without asking again.
pub(super) const FAILED: Duration = Duration::from_secs(2);
/// How long a question waits for a look-up when there are old addresses to fall back on.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Names remembered. Names come from the configuration, a handful; the bound is against a mistake.
pub(super) const NAMES_MAX: usize = 64;
/// Look-ups at once, each a thread.
pub(super) const LOOKUPS_MAX: usize = 8;
/// Questions that wait for one look-up: more calls than a host can hold.
pub(super) const WAITING_MAX: usize = 4096;
/// Addresses of one name that are kept; a caller tries few of them.
pub(super) const ADDRESSES_MAX: usize = 16;

/// What is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) worker: u16,
    pub(super) call: CallNumber,
}

/// Addresses in the order to try, or why there are none.
pub(super) type Outcome = Result<Arc<[SocketAddr]>, String>;

/// An outcome and who waits for it.
pub(super) type Answer = (Asker, Outcome);

/// What follows from a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The answer is known.
    Known(Outcome),
    /// A look-up is under way already.
    Waits,
    /// The caller must look the name up, and say what it [`Cache::found`].
    LookUp,
}

#[derive(Default)]
struct Entry {
    addresses: Option<(Arc<[SocketAddr]>, Instant)>,
    failure: Option<(String, Instant)>,
    /// Since when a look-up is under way.
    looking: Option<Instant>,
    waiting: Vec<Asker>,
}

impl Entry {
    fn known(&self, now: Instant) -> Option<Outcome> {
        if let Some(fresh) = self.addresses_within(now, FRESH) {
            return Some(Ok(fresh));
        }
        let (reason, since) = self.failure.as_ref()?;
        (now.saturating_duration_since(*since) < FAILED)
            .then(|| self.addresses_within(now, STALE).ok_or_else(|| reason.clone()))
    }

    fn addresses_within(&self, now: Instant, age: Duration) -> Option<Arc<[SocketAddr]>> {
        let (addresses, since) = self.addresses.as_ref()?;
        (now.saturating_duration_since(*since) < age).then(|| Arc::clone(addresses))
    }

    /// When those who wait get old addresses instead.
    fn late_at(&self) -> Option<Instant> {
        if self.waiting.is_empty() || self.addresses.is_none() {
            return None;
        }
        Some(self.looking? + PATIENCE)
    }

    fn last_change(&self) -> Option<Instant> {
        let addresses = self.addresses.as_ref().map(|(_, at)| *at);
        addresses.max(self.failure.as_ref().map(|(_, at)| *at))
    }
}

/// All names.
pub(super) struct Cache {
    names: HashMap<Name, Entry>,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { names: HashMap::new() }
    }

    /// A question. An address in text is its own answer.
    pub(super) fn ask(&mut self, now: Instant, name: &Name, asker: Asker) -> Asked {
        let literal = name.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&name.host);
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Asked::Known(Ok([SocketAddr::new(ip, name.port)].into()));
        }
        let looking = self.names.values().filter(|entry| entry.looking.is_some()).count();
        if !self.names.contains_key(name) {
            self.make_room();
        }
        let entry = self.names.entry(name.clone()).or_default();
        if let Some(outcome) = entry.known(now) {
            return Asked::Known(outcome);
        }
        let busy = |entry: &Entry| {
            let fallback = entry.addresses_within(now, STALE);
            Asked::Known(fallback.ok_or_else(|| "too many names are being looked up".to_owned()))
        };
        match entry.looking {
            Some(_) if entry.waiting.len() >= WAITING_MAX => busy(entry),
            Some(_) => {
                entry.waiting.push(asker);
                Asked::Waits
            }
            None if looking >= LOOKUPS_MAX => busy(entry),
            None => {
                entry.looking = Some(now);
                entry.waiting.push(asker);
                Asked::LookUp
            }
        }
    }

    /// A look-up is over; whom to tell.
    pub(super) fn found(&mut self, now: Instant, name: &Name, found: Result<Vec<SocketAddr>, String>) -> Vec<Answer> {
        let Some(entry) = self.names.get_mut(name) else { return Vec::new() };
        entry.looking = None;
        let outcome = match found.map(|addresses| in_order(&addresses)) {
            Ok(addresses) if !addresses.is_empty() => {
                entry.addresses = Some((Arc::clone(&addresses), now));
                entry.failure = None;
                Ok(addresses)
            }
            empty => {
                let reason = empty.err().unwrap_or_else(|| "the name has no address".into());
                entry.failure = Some((reason.clone(), now));
                entry.addresses_within(now, STALE).ok_or(reason)
            }
        };
        entry.waiting.drain(..).map(|asker| (asker, outcome.clone())).collect()
    }

    /// Those whose look-up takes too long, with the old addresses they get instead.
    pub(super) fn late(&mut self, now: Instant) -> Vec<Answer> {
        let late = |entry: &&mut Entry| entry.late_at().is_some_and(|at| at <= now);
        let mut answers = Vec::new();
        for entry in self.names.values_mut().filter(late) {
            if let Some(addresses) = entry.addresses_within(now, STALE) {
                answers.extend(entry.waiting.drain(..).map(|asker| (asker, Ok(Arc::clone(&addresses)))));
            } else {
                // Too old to serve: they wait for the look-up like everybody who had none.
                entry.addresses = None;
            }
        }
        answers
    }

    /// When [`Cache::late`] has something to say.
    pub(super) fn next_late(&self) -> Option<Instant> {
        self.names.values().filter_map(Entry::late_at).min()
    }

    /// Forgets the name that changed longest ago, if there is no room for another.
    fn make_room(&mut self) {
        if self.names.len() < NAMES_MAX {
            return;
        }
        let idle = self.names.iter().filter(|(_, entry)| entry.looking.is_none());
        if let Some(oldest) = idle.min_by_key(|(_, entry)| entry.last_change()).map(|(name, _)| name.clone()) {
            self.names.remove(&oldest);
        }
    }
}

/// Each address once, IPv6 and IPv4 in turns, IPv6 first (RFC 8305 section 4), as many as are kept.
fn in_order(addresses: &[SocketAddr]) -> Arc<[SocketAddr]> {
    let mut once: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if !once.contains(address) && once.len() < 2 * ADDRESSES_MAX {
            once.push(*address);
        }
    }
    let (mut v6, mut v4) = (once.iter().filter(|a| a.is_ipv6()), once.iter().filter(|a| a.is_ipv4()));
    let mut turns = Vec::new();
    loop {
        let (six, four) = (v6.next(), v4.next());
        if six.or(four).is_none() || turns.len() >= ADDRESSES_MAX {
            turns.truncate(ADDRESSES_MAX);
            return turns.into();
        }
        turns.extend(six.into_iter().chain(four).copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn just_before(end: Duration) -> Duration {
        end.saturating_sub(MS)
    }

    fn name(host: &str) -> Name {
        Name { host: host.into(), port: 443 }
    }

    fn asker(call: u64) -> Asker {
        Asker { worker: 1, call: CallNumber(call) }
    }

    fn addresses(last: u8) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([192, 0, 2, last], 443))]
    }

    fn known(last: u8) -> Asked {
        Asked::Known(Ok(addresses(last).into()))
    }

    #[test]
    fn an_address_in_text_is_its_own_answer() {
        let mut cache = Cache::new();
        for (host, ip) in [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "2001:db8::7"), ("[2001:db8::7]", "2001:db8::7")]
        {
            let address = SocketAddr::new(ip.parse().unwrap(), 443);
            let asked = cache.ask(Instant::now(), &name(host), asker(1));
            assert_eq!(asked, Asked::Known(Ok([address].into())));
        }
    }

    #[test]
    fn questions_share_one_look_up_and_its_answer_stays_fresh() {
        let (mut cache, now, host) = (Cache::new(), Instant::now(), name("a.example"));
        assert_eq!(cache.ask(now, &host, asker(1)), Asked::LookUp);
        assert_eq!(cache.ask(now, &host, asker(2)), Asked::Waits);
        let told = cache.found(now, &host, Ok(addresses(1)));
        assert!(told.iter().map(|(asker, _)| asker.call.0).eq([1, 2]));
        assert_eq!(cache.ask(now + just_before(FRESH), &host, asker(3)), known(1));
        assert_eq!(cache.ask(now + FRESH, &host, asker(4)), Asked::LookUp);
    }

    #[test]
    fn old_addresses_serve_while_looking_up_fails_until_they_are_too_old() {
        let (mut cache, now, host) = (Cache::new(), Instant::now(), name("a.example"));
        cache.ask(now, &host, asker(1));
        cache.found(now, &host, Ok(addresses(1)));
        let outage = now + STALE.saturating_sub(FAILED);
        assert_eq!(cache.ask(outage, &host, asker(2)), Asked::LookUp);
        let told = cache.found(outage, &host, Err("down".into()));
        assert_eq!(told, [(asker(2), Ok(addresses(1).into()))]);
        assert_eq!(cache.ask(outage + just_before(FAILED), &host, asker(3)), known(1));
        assert_eq!(cache.ask(now + STALE, &host, asker(4)), Asked::LookUp);
        let told = cache.found(now + STALE, &host, Err("down".into()));
        assert_eq!(told, [(asker(4), Err("down".into()))]);
    }

    #[test]
    fn a_slow_look_up_is_overtaken_by_old_addresses_and_still_counts_when_it_ends() {
        let (mut cache, now, host) = (Cache::new(), Instant::now(), name("a.example"));
        cache.ask(now, &host, asker(1));
        assert_eq!(cache.next_late(), None, "nothing to fall back on, but a deadline");
        cache.found(now, &host, Ok(addresses(1)));
        let later = now + FRESH;
        assert_eq!(cache.ask(later, &host, asker(2)), Asked::LookUp);
        assert_eq!(cache.next_late(), Some(later + PATIENCE));
        assert!(cache.late(later + just_before(PATIENCE)).is_empty());
        assert_eq!(cache.late(later + PATIENCE), [(asker(2), Ok(addresses(1).into()))]);
        assert!(cache.late(later + PATIENCE).is_empty());
        assert!(cache.found(later + 5 * PATIENCE, &host, Ok(addresses(2))).is_empty());
        assert_eq!(cache.ask(later + 5 * PATIENCE, &host, asker(3)), known(2));
    }

    #[test]
    fn a_failure_is_remembered_for_a_moment() {
        let (mut cache, now, host) = (Cache::new(), Instant::now(), name("a.example"));
        cache.ask(now, &host, asker(1));
        assert_eq!(cache.found(now, &host, Ok(Vec::new())), [(asker(1), Err("the name has no address".into()))]);
        assert!(matches!(cache.ask(now + just_before(FAILED), &host, asker(2)), Asked::Known(Err(_))));
        assert_eq!(cache.ask(now + FAILED, &host, asker(3)), Asked::LookUp);
    }

    #[test]
    fn names_look_ups_and_questions_are_bounded() {
        let (mut cache, now) = (Cache::new(), Instant::now());
        for n in 0..LOOKUPS_MAX {
            assert_eq!(cache.ask(now, &name(&format!("{n}.example")), asker(0)), Asked::LookUp);
        }
        assert!(matches!(cache.ask(now, &name("one-more.example"), asker(0)), Asked::Known(Err(_))));
        for _ in 1..WAITING_MAX {
            assert_eq!(cache.ask(now, &name("0.example"), asker(0)), Asked::Waits);
        }
        assert!(matches!(cache.ask(now, &name("0.example"), asker(0)), Asked::Known(Err(_))));
        for n in 0..LOOKUPS_MAX {
            cache.found(now, &name(&format!("{n}.example")), Ok(addresses(1)));
        }
        for n in 0..10 * NAMES_MAX as u32 {
            let (host, now) = (name(&format!("{n}.later.example")), now + MS * n);
            cache.ask(now, &host, asker(0));
            cache.found(now, &host, Ok(addresses(1)));
        }
        assert!(cache.names.len() <= NAMES_MAX);
    }

    #[test]
    fn addresses_come_in_turns_each_once_and_not_too_many() {
        let four = |last| SocketAddr::from(([192, 0, 2, last], 443));
        let six = |last| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 443));
        let mixed = [four(1), four(1), four(2), four(3), six(1), six(2)];
        assert_eq!(*in_order(&mixed), [six(1), four(1), six(2), four(2), four(3)]);
        let many: Vec<SocketAddr> = (0..200).map(four).collect();
        assert_eq!(in_order(&many).len(), ADDRESSES_MAX);
    }
}
