//! A media relay as WhatsApp's, for tests: ice-lite, one UDP port for many calls, deaf to a call until its answer is
//! applied, dumb until it has heard RTP.
//!
//! [`Relay`] is the machine: datagrams, answers and the time go in; datagrams come out. It owns no socket, thread or
//! clock, so that a test can run it on virtual time. [`pump::Pump`] runs it on a real socket.
//!
//! It judges the code under test and so shares none of it: SDP is written and read here, the rest is str0m's.

pub(crate) mod answer;
pub(crate) mod call;
pub(crate) mod offer;
mod packet;
pub(crate) mod pump;
pub(crate) mod record;
pub(crate) mod script;
mod stun;

#[cfg(test)]
mod real_sockets;
#[cfg(test)]
mod virtual_time;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::crypto::Crypto;
use crate::support::rng::Rng;
use answer::AnswerError;
use call::{Call, Conduct};
use offer::Offer;
use record::Record;
use script::Script;
use stun::Check;

/// Names a call of one relay; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallKey(u64);

/// A datagram to be sent from the relay's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// To whom.
    pub(crate) to: SocketAddr,
    /// What.
    pub(crate) payload: Vec<u8>,
}

/// Many calls behind one port.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    crypto: Crypto,
    rng: Rng,
    calls: HashMap<CallKey, Entry>,
    calls_made: u64,
    by_ufrag: HashMap<String, CallKey>,
    by_source: HashMap<SocketAddr, CallKey>,
    deadlines: BTreeSet<(Instant, CallKey)>,
    outbox: VecDeque<Datagram>,
    strays: u64,
}

#[derive(Debug)]
struct Entry {
    call: Box<Call>,
    /// Where it stands in `deadlines`.
    deadline: Instant,
}

impl Relay {
    /// A relay whose offers name `address`. The seed decides names and numbers, not keys of DTLS.
    pub(crate) fn new(address: SocketAddr, seed: u64) -> Self {
        Self {
            address,
            crypto: Crypto::new(),
            rng: Rng::new(seed),
            calls: HashMap::new(),
            calls_made: 0,
            by_ufrag: HashMap::new(),
            by_source: HashMap::new(),
            deadlines: BTreeSet::new(),
            outbox: VecDeque::new(),
            strays: 0,
        }
    }

    /// Begins a call: its key and the offer's text. The caller will say `script` once the other side has spoken.
    pub(crate) fn offer(&mut self, now: Instant, script: Script) -> (CallKey, String) {
        let offer = Offer::draw(self.address, self.crypto.fingerprint(), &mut self.rng);
        let (key, text) = (CallKey(self.calls_made), offer.to_string());
        self.calls_made += 1;
        self.by_ufrag.insert(offer.ufrag.clone(), key);
        let call = Call::new(now, offer, script, &self.crypto, &mut self.rng);
        self.deadlines.insert((now, key));
        self.calls.insert(key, Entry { call: Box::new(call), deadline: now });
        (key, text)
    }

    /// Takes the answer of a call. Until then its checks go unanswered, as with WhatsApp.
    pub(crate) fn apply_answer(&mut self, now: Instant, key: CallKey, answer: &str) -> Result<(), AnswerError> {
        self.with_call(key, |call, _| call.apply_answer(now, answer)).unwrap_or(Err(AnswerError::UnknownCall))
    }

    /// Takes a datagram that came to the relay's port.
    pub(crate) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, payload: &[u8]) {
        let check = Check::parse(payload);
        let key = match check {
            // A port may serve a second call after the first: what a check says goes before what is known of its source.
            Some(check) => self.by_ufrag.get(check.local_ufrag),
            None => self.by_source.get(&from),
        };
        let Some(key) = key.copied() else {
            self.strays += 1;
            return;
        };
        let vouched = self.with_call(key, |call, out| {
            if let Some(check) = check {
                return call.handle_check(now, from, payload, check, out);
            }
            call.handle_datagram(now, from, payload, out);
            false
        });
        if vouched == Some(true) {
            self.by_source.insert(from, key);
        }
    }

    /// Does all that is due by now.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&due);
            self.with_call(due.1, |call, out| call.handle_timeout(now, out));
        }
    }

    /// The next datagram to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<Datagram> {
        self.outbox.pop_front()
    }

    /// When [`Self::handle_timeout`] is next needed.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Says something else from now on. RTP time goes on meanwhile.
    pub(crate) fn play(&mut self, now: Instant, key: CallKey, script: Script) {
        self.with_call(key, |call, _| call.player.play(now, script));
    }

    /// Presses a key (RFC 4733 event 0 to 15) for this long, instead of the audio.
    pub(crate) fn press(&mut self, now: Instant, key: CallKey, event: u8, duration: Duration) {
        self.with_call(key, |call, _| call.player.press(now, event, duration));
    }

    /// Changes how the relay behaves towards a call's other side.
    pub(crate) fn set_conduct(&mut self, key: CallKey, conduct: Conduct) {
        self.with_call(key, |call, _| call.conduct = conduct);
    }

    /// The caller hangs up: RTCP BYE and DTLS close_notify.
    pub(crate) fn hang_up(&mut self, now: Instant, key: CallKey) {
        self.with_call(key, |call, out| call.hang_up(now, out));
    }

    /// What was seen of a call.
    pub(crate) fn record(&self, key: CallKey) -> Option<&Record> {
        self.calls.get(&key).map(|entry| &entry.call.record)
    }

    /// Forgets a call and gives back what was seen of it.
    pub(crate) fn remove(&mut self, key: CallKey) -> Option<Record> {
        let Entry { call, deadline } = self.calls.remove(&key)?;
        self.deadlines.remove(&(deadline, key));
        self.by_ufrag.remove(&call.offer.ufrag);
        self.by_source.retain(|_, other| *other != key);
        Some(call.record)
    }

    /// Datagrams that belonged to no call.
    pub(crate) fn strays(&self) -> u64 {
        self.strays
    }

    /// Runs `f` on a call and puts it back in its place among the deadlines.
    fn with_call<R>(&mut self, key: CallKey, f: impl FnOnce(&mut Call, &mut VecDeque<Datagram>) -> R) -> Option<R> {
        let Entry { call, deadline } = self.calls.get_mut(&key)?;
        let result = f(call, &mut self.outbox);
        self.deadlines.remove(&(*deadline, key));
        *deadline = call.poll_timeout();
        self.deadlines.insert((*deadline, key));
        Some(result)
    }
}
