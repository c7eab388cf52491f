//! A media relay as WhatsApp's, for tests and load: ice-lite, one UDP port for many calls, deaf to a call until its
//! answer is applied, dumb until it has heard RTP.
//!
//! [`Relay`] is the machine: datagrams, answers and the time go in; datagrams come out. It owns no socket, thread or
//! clock, so that a test can run it on virtual time and load on a driver.
//!
//! It judges the bridge and so shares none of it: SDP is written and read here, the rest is str0m's. What it saw of a
//! call is a [`record::Record`]; how much of that is kept is the owner's choice ([`record::Detail`]).

pub mod answer;
pub mod call;
pub mod crypto;
mod flow;
pub mod offer;
pub mod packet;
pub mod record;
pub mod rng;
pub mod script;
pub mod stun;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use answer::AnswerError;
use call::{Call, Conduct};
use crypto::Crypto;
use offer::Offer;
use record::{Detail, Event, Record};
use rng::Rng;
use script::Script;
use stun::Check;

/// Names a call of one relay; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey(u64);

/// A datagram to be sent from the relay's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// To whom.
    pub to: SocketAddr,
    /// What.
    pub payload: Vec<u8>,
}

/// Many calls behind one port.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    crypto: Crypto,
    rng: Rng,
    calls: HashMap<CallKey, Entry>,
    calls_made: u64,
    by_ufrag: HashMap<String, CallKey>,
    by_source: HashMap<SocketAddr, CallKey>,
    deadlines: BTreeSet<(Instant, CallKey)>,
    outbox: VecDeque<Datagram>,
    detail: Detail,
    events: VecDeque<(CallKey, Event)>,
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
    pub fn new(address: SocketAddr, seed: u64) -> Self {
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
            detail: Detail::Lists,
            events: VecDeque::new(),
            strays: 0,
        }
    }

    /// The same, keeping this much of each call. With [`Detail::Events`] its owner drains [`Self::poll_event`].
    #[must_use]
    pub fn with_detail(self, detail: Detail) -> Self {
        Self { detail, ..self }
    }

    /// Begins a call: its key and the offer's text. The caller will say `script` once the other side has spoken.
    pub fn offer(&mut self, now: Instant, script: Script) -> (CallKey, String) {
        let offer = Offer::draw(self.address, self.crypto.fingerprint(), &mut self.rng);
        let (key, text) = (CallKey(self.calls_made), offer.to_string());
        self.calls_made += 1;
        self.by_ufrag.insert(offer.ufrag.clone(), key);
        let call = Call::new(now, offer, script, self.detail, &self.crypto, &mut self.rng);
        self.deadlines.insert((now, key));
        self.calls.insert(key, Entry { call: Box::new(call), deadline: now });
        (key, text)
    }

    /// Takes the answer of a call. Until then its checks go unanswered, as with WhatsApp.
    pub fn apply_answer(&mut self, now: Instant, key: CallKey, answer: &str) -> Result<(), AnswerError> {
        self.with_call(key, |call, _| call.apply_answer(now, answer)).unwrap_or(Err(AnswerError::UnknownCall))
    }

    /// Takes a datagram that came to the relay's port.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, payload: &[u8]) {
        self.handle_arrival(now, now, from, payload);
    }

    /// The same, for a datagram that the kernel took in at `arrived`, some time before now.
    pub fn handle_arrival(&mut self, now: Instant, arrived: Instant, from: SocketAddr, payload: &[u8]) {
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
            call.handle_datagram(now, arrived, from, payload, out);
            false
        });
        if vouched == Some(true) {
            self.by_source.insert(from, key);
        }
    }

    /// Does all that is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&due);
            self.with_call(due.1, |call, out| call.handle_timeout(now, out));
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Datagram> {
        self.outbox.pop_front()
    }

    /// The next thing that happened in a call; none ever with [`Detail::Lists`].
    pub fn poll_event(&mut self) -> Option<(CallKey, Event)> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is next needed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Says something else from now on. RTP time goes on meanwhile.
    pub fn play(&mut self, now: Instant, key: CallKey, script: Script) {
        self.with_call(key, |call, _| call.player.play(now, script));
    }

    /// Presses a key (RFC 4733 event 0 to 15) for this long, instead of the audio.
    pub fn press(&mut self, now: Instant, key: CallKey, event: u8, duration: Duration) {
        self.with_call(key, |call, _| call.player.press(now, event, duration));
    }

    /// Changes how the relay behaves towards a call's other side.
    pub fn set_conduct(&mut self, key: CallKey, conduct: Conduct) {
        self.with_call(key, |call, _| call.conduct = conduct);
    }

    /// The caller hangs up: RTCP BYE and DTLS close_notify.
    pub fn hang_up(&mut self, now: Instant, key: CallKey) {
        self.with_call(key, |call, out| call.hang_up(now, out));
    }

    /// What was seen of a call.
    pub fn record(&self, key: CallKey) -> Option<&Record> {
        self.calls.get(&key).map(|entry| &entry.call.record)
    }

    /// Forgets a call and gives back what was seen of it.
    pub fn remove(&mut self, key: CallKey) -> Option<Record> {
        let Entry { call, deadline } = self.calls.remove(&key)?;
        self.deadlines.remove(&(deadline, key));
        self.by_ufrag.remove(&call.offer.ufrag);
        self.by_source.retain(|_, other| *other != key);
        Some(call.record)
    }

    /// Datagrams that belonged to no call.
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// Runs `f` on a call and puts it back in its place among the deadlines.
    fn with_call<R>(&mut self, key: CallKey, f: impl FnOnce(&mut Call, &mut VecDeque<Datagram>) -> R) -> Option<R> {
        let Entry { call, deadline } = self.calls.get_mut(&key)?;
        let result = f(call, &mut self.outbox);
        self.events.extend(call.events.drain(..).map(|event| (key, event)));
        self.deadlines.remove(&(*deadline, key));
        *deadline = call.poll_timeout();
        self.deadlines.insert((*deadline, key));
        Some(result)
    }
}
