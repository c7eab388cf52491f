//! A bridge that does all right, or one thing wrong, against the simulator in virtual time: no socket, no thread, no waiting.
//!
//! It is as small as a bridge can be, so that what the simulator says of it is what the simulator sees.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use voice_media_bridge::io::{Datagram, Door, Input, Machine, Output, StreamKey};
use voice_media_bridge::simulator::report::Report;
use voice_media_bridge::simulator::{Account, Simulator, SimulatorConfig, SimulatorEvent, Target, Told, scenarios};

use crate::relay::packet::Kind;
use crate::support::crypto::Crypto;
use crate::support::rtc_client::{Habits, RtcClient};
use crate::voice::{silence, speech};

/// One way through the network.
const LATENCY: Duration = Duration::from_millis(2);

/// Steps of one run: a timer that is always due would otherwise hang the test.
const STEPS_MAX: usize = 5_000_000;

/// How long media is waited for before `accept`.
const CONNECT_WAIT: Duration = Duration::from_secs(7);

/// Until a request that failed is made again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long a call may be without media before it is given up.
const MEDIA_WAIT: Duration = Duration::from_secs(15);

/// Quiet after which it says back what it has heard.
const PAUSE: Duration = Duration::from_millis(600);

/// Longest packet that is only the sign of somebody who is silent.
const SIGN_BYTES_MAX: usize = 2;

const SECRET: &str = "an-app-secret";

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Answers webhooks only after so long.
    SlowAnswer(Duration),
    /// Takes every webhook, however it is signed.
    Unsigned,
    /// Gives any challenge back.
    AnyToken,
    /// Takes each connect for a new call.
    NoMemory,
    /// Takes calls that are over, or long past.
    NoClock,
    /// Speaks before it has accepted.
    Early,
    /// Never speaks.
    Mute,
    /// Answers the first webhook with 500, and then all is well.
    Stumbles,
    /// Changes its SSRC in mid-call.
    ChangesSsrc,
    /// Loses one packet of ten.
    Loses,
    /// Speaks once, and then no more.
    FallsSilent,
    /// Speaks once, and then nothing at all comes from it.
    GoesDead,
    /// Never accepts.
    Undecided,
    /// Accepts at once, media or not.
    Hasty,
    /// Accepts with another SDP.
    OtherAnswer,
    /// Answers `a=setup:passive`.
    Passive,
    /// Ends calls that the user has ended.
    Terminates,
    /// Goes on sending after the user has hung up.
    DeafToTerminate,
    /// Lets a call be that cannot be.
    LetsRing,
    /// Hears nothing: speaks whatever the caller says.
    Deaf,
    /// Takes what is no call for one.
    AnswersMessages,
    /// Takes calls that are over, and asks for them in words that cannot be read.
    Unreadable,
    /// Ends each call five seconds after it was accepted.
    Impatient,
}

/// One call of the bridge.
struct Call {
    client: RtcClient,
    local: SocketAddr,
    relay: SocketAddr,
    answer: String,
    has_spoken: bool,
    accepted: Option<Instant>,
    is_accepting: bool,
    accept_by: Option<Instant>,
    give_up_at: Instant,
    is_over: bool,
    spoken_until: Option<Instant>,
    has_answered: bool,
    is_dead: bool,
}

/// Something under way or to be done.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Coming {
    ToRelay(SocketAddr, Vec<u8>),
    ToClient(SocketAddr, SocketAddr, Vec<u8>),
    Answer(StreamKey, String),
    Ask(String, &'static str),
}

/// The bridge, the simulator, and what is between.
pub(crate) struct World {
    now: Instant,
    start: Instant,
    simulator: Simulator,
    events: Rc<std::cell::RefCell<Vec<SimulatorEvent>>>,
    fault: Fault,
    relay: SocketAddr,
    coming: BinaryHeap<Reverse<(Instant, u64, Coming)>>,
    sent: u64,
    offered: VecDeque<StreamKey>,
    /// What was asked on each of the simulator's connections.
    asked: HashMap<StreamKey, (String, &'static str)>,
    calls: HashMap<String, Call>,
    over: HashSet<String>,
    crypto: Crypto,
    voice: Vec<Arc<[u8]>>,
    /// Whether it says back what it hears.
    says_back: bool,
    webhooks: u32,
    packets: u64,
    /// When the simulator is told to stop.
    pub(crate) stop_after: Option<Duration>,
    /// Terminate webhooks: status and code.
    pub(crate) endings: Vec<(String, Option<u64>)>,
    is_exited: bool,
    deadline: Option<Instant>,
}

/// What a caller says: 3 s of a tone whose loudness no other has.
fn words() -> Vec<i16> {
    let loudness = |tenth: usize| f64::from(((tenth * 7_919 + 13) % 97) as u32) / 97.0;
    (0..72_000).map(|n| (12_000.0 * loudness(n / 2_400) * (n as f64 * 0.1).sin()) as i16).collect()
}

fn unix_sec() -> u64 {
    1_790_000_000
}

impl World {
    /// A simulator that runs these scenarios against a bridge with this fault.
    pub(crate) fn new(names: &[&str], fault: Fault) -> Self {
        Self::made(names, fault, false)
    }

    /// The same with an agent that is known to say a caller's words back, and a caller who says some.
    pub(crate) fn saying_back(names: &[&str], fault: Fault) -> Self {
        Self::made(names, fault, true)
    }

    /// The same with callers who talk so long at the most.
    pub(crate) fn talking(names: &[&str], fault: Fault, talk: Duration) -> Self {
        Self::made_with(names, fault, false, Some(talk))
    }

    fn made(names: &[&str], fault: Fault, says_back: bool) -> Self {
        Self::made_with(names, fault, says_back, None)
    }

    fn made_with(names: &[&str], fault: Fault, says_back: bool, talk: Option<Duration>) -> Self {
        let relay: SocketAddr = "127.0.0.1:3480".parse().expect("an address");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let config = SimulatorConfig {
            webhook: Target {
                server: "127.0.0.1:8080".parse().expect("an address"),
                tls: None,
                authority: "bridge".to_owned(),
                path: "/webhooks/whatsapp".to_owned(),
            },
            relay_ip: relay.ip(),
            account: Account {
                phone_number_id: "1001".to_owned(),
                access_token: "an-access-token".to_owned(),
                app_secret: SECRET.to_owned(),
                verify_token: "a-verify-token".to_owned(),
            },
            scenarios: scenarios::find(&names).expect("they are there"),
            serve: false,
            at_once: 1,
            burst: 6,
            talk,
            says_back,
            record: true,
            speech: if says_back { words() } else { vec![0; 24_000] },
            seed: 7,
            unix_sec,
        };
        let events: Rc<std::cell::RefCell<Vec<SimulatorEvent>>> = Rc::default();
        let sink = {
            let events = Rc::clone(&events);
            Box::new(move |event| events.borrow_mut().push(event))
        };
        let now = Instant::now();
        // A voice of 2 s, and a pause that a phone hears as its end.
        let hears = says_back && fault != Fault::Deaf;
        let pause = Duration::from_secs(if hears { 60 } else { 2 });
        let voice = [speech(Duration::from_secs(2), 150.0), silence(pause)].concat();
        let mut world = Self {
            now,
            start: now,
            simulator: Simulator::new(config, sink).expect("a simulator"),
            events,
            fault,
            relay,
            coming: BinaryHeap::new(),
            sent: 0,
            offered: VecDeque::new(),
            asked: HashMap::new(),
            calls: HashMap::new(),
            over: HashSet::new(),
            crypto: Crypto::new(),
            voice,
            says_back: hears,
            webhooks: 0,
            packets: 0,
            stop_after: None,
            endings: Vec::new(),
            is_exited: false,
            deadline: None,
        };
        world.drain();
        world
    }

    /// Runs it to its end: the report, all that was told, and recordings by their name and length.
    pub(crate) fn run(&mut self) -> (Report, Vec<Told>, Vec<(String, usize)>) {
        for _ in 0..STEPS_MAX {
            if self.is_exited {
                return self.outcome();
            }
            self.step();
        }
        panic!("time stands still at {:?}", self.now - self.start);
    }

    fn outcome(&mut self) -> (Report, Vec<Told>, Vec<(String, usize)>) {
        let (mut told, mut recordings, mut report) = (Vec::new(), Vec::new(), None);
        for event in self.events.borrow_mut().drain(..) {
            match event {
                SimulatorEvent::Told(one) => told.push(one),
                SimulatorEvent::Recording(name, samples) => recordings.push((name, samples.len())),
                SimulatorEvent::Finished(finished) => report = Some(*finished),
                SimulatorEvent::Scenario(_) => {}
            }
        }
        (report.expect("the last event"), told, recordings)
    }

    fn step(&mut self) {
        let arrival = self.coming.peek().map(|Reverse((at, ..))| *at);
        let clients = self.calls.values().flat_map(|call| {
            let is_waited_for = !call.is_over && call.client.connected.is_none();
            let own = [call.accept_by, Some(call.give_up_at).filter(|_| is_waited_for)];
            own.into_iter().flatten().filter(|_| !call.is_over).chain([call.client.poll_timeout()])
        });
        let next = clients.chain(arrival).chain(self.deadline).min().expect("something is always due");
        self.now = self.now.max(next);
        while self.coming.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
            let Reverse((_, _, coming)) = self.coming.pop().expect("looked at above");
            self.arrives(coming);
        }
        if self.stop_after.is_some_and(|after| self.start + after <= self.now) {
            self.stop_after = None;
            self.simulator.handle_input(self.now, Input::Stop);
        }
        if self.deadline.is_some_and(|at| at <= self.now) {
            self.simulator.handle_input(self.now, Input::Timeout);
        }
        self.drain();
        self.tend_calls();
    }

    fn arrives(&mut self, coming: Coming) {
        let now = self.now;
        match coming {
            Coming::ToRelay(from, payload) => {
                let socket = voice_media_bridge::io::SocketKey { slot: 0, generation: 0 };
                let datagram = Datagram { socket, from, payload: &payload, received: now };
                self.simulator.handle_input(now, Input::Datagram(datagram));
            }
            Coming::ToClient(from, to, payload) => {
                if let Some(call) = self.calls.values_mut().find(|call| call.local == to) {
                    call.client.handle_datagram(now, from, &payload);
                }
            }
            Coming::Answer(stream, answer) => {
                self.simulator.handle_input(now, Input::Received { stream, bytes: answer.as_bytes() });
            }
            Coming::Ask(id, action) => self.ask(&id, action),
        }
        self.drain();
    }

    fn later(&mut self, after: Duration, coming: Coming) {
        self.sent += 1;
        self.coming.push(Reverse((self.now + after, self.sent, coming)));
    }

    /// Takes all that the simulator wants done.
    fn drain(&mut self) {
        loop {
            match self.simulator.poll_output() {
                Output::BindUdp { socket, .. } => {
                    self.simulator.handle_input(self.now, Input::UdpBound { socket, port: self.relay.port() });
                }
                Output::Send { to, payload, .. } => {
                    let relay = self.relay;
                    self.later(LATENCY, Coming::ToClient(relay, to, payload));
                }
                Output::Accept { stream, .. } => self.offered.push_back(stream),
                Output::Connect { stream, .. } => self.simulator.handle_input(self.now, Input::Connected { stream }),
                Output::Write { stream, bytes } => {
                    let len = bytes.len();
                    let text = String::from_utf8(bytes).expect("HTTP with bodies of ASCII");
                    match self.asked.remove(&stream) {
                        Some((id, action)) => {
                            let buffer = Vec::new();
                            self.simulator.handle_input(self.now, Input::Written { stream, len, buffer });
                            self.replied(&id, action, &text);
                            self.simulator.handle_input(self.now, Input::Ended { stream });
                        }
                        None => self.take_webhook(stream, &text),
                    }
                }
                Output::Close { stream } => {
                    if let Some((id, action)) = self.asked.remove(&stream) {
                        self.later(ASK_AGAIN, Coming::Ask(id, action));
                    }
                    self.simulator.handle_input(self.now, Input::Closed { stream });
                }
                Output::Timeout(deadline) => return self.deadline = deadline.at,
                Output::Exit => return self.is_exited = true,
                _ => {}
            }
        }
    }

    fn take_webhook(&mut self, stream: StreamKey, text: &str) {
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole request");
        let (status, answer) = if head.starts_with("GET ") { self.verify(head) } else { self.take_post(head, body) };
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        let after = if let Fault::SlowAnswer(after) = self.fault { after } else { LATENCY };
        self.later(after, Coming::Answer(stream, text));
    }

    fn verify(&self, head: &str) -> (u16, String) {
        let value = |name: &str| {
            let (_, rest) = head.split_once(&format!("{name}="))?;
            rest.split(['&', ' ']).next().map(str::to_owned)
        };
        let is_right = value("hub.verify_token").as_deref() == Some("a-verify-token");
        match value("hub.challenge").filter(|_| is_right || self.fault == Fault::AnyToken) {
            Some(challenge) => (200, challenge),
            None => (403, String::new()),
        }
    }

    fn take_post(&mut self, head: &str, body: &str) -> (u16, String) {
        self.webhooks += 1;
        if self.fault == Fault::Stumbles && self.webhooks == 1 {
            return (500, String::new());
        }
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, body.as_bytes());
        let hex: Vec<String> = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let is_signed = head.contains(&format!("X-Hub-Signature-256: sha256={}", hex.concat()));
        if !is_signed && self.fault != Fault::Unsigned {
            return (401, String::new());
        }
        let body: Value = serde_json::from_str(body).expect("JSON");
        for change in body["entry"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|entry| entry["changes"].as_array().expect("a list of changes"))
        {
            if change["field"] == "messages" && self.fault == Fault::AnswersMessages {
                self.later(LATENCY, Coming::Ask("wacid.of-a-message".to_owned(), "pre_accept"));
            }
            for call in change["value"]["calls"].as_array().into_iter().flatten() {
                self.take_event(call);
            }
        }
        (200, String::new())
    }

    fn take_event(&mut self, event: &Value) {
        let id = event["id"].as_str().expect("an id").to_owned();
        if event["event"] == "terminate" {
            let code = event["errors"][0]["code"].as_u64();
            self.endings.push((event["status"].as_str().expect("a status").to_owned(), code));
            if self.fault == Fault::Terminates && !self.over.contains(&id) {
                self.later(LATENCY, Coming::Ask(id.clone(), "terminate"));
            }
            if !matches!(self.fault, Fault::NoClock | Fault::Unreadable) {
                self.over.insert(id.clone());
            }
            if self.fault != Fault::DeafToTerminate
                && let Some(call) = self.calls.get_mut(&id)
            {
                call.is_over = true;
                call.client.close(self.now);
            }
            return;
        }
        let sent: u64 = event["timestamp"].as_str().and_then(|text| text.parse().ok()).expect("a time");
        let is_past = self.over.contains(&id) || sent + 120 < unix_sec();
        if is_past && !matches!(self.fault, Fault::NoClock | Fault::Unreadable) {
            return;
        }
        if self.calls.contains_key(&id) {
            if self.fault == Fault::NoMemory {
                self.later(LATENCY, Coming::Ask(id, "pre_accept"));
            }
            return;
        }
        let offer = event["session"]["sdp"].as_str().expect("an offer");
        let local: SocketAddr = format!("127.0.0.1:{}", 40_000 + self.calls.len()).parse().expect("an address");
        let habits = Habits { mute: true, ..Habits::default() };
        let client = RtcClient::new(self.now, local, offer, &self.crypto, habits);
        let mut answer = client.answer().to_owned();
        if self.fault == Fault::Passive {
            answer = answer.replace("setup:active", "setup:passive");
        }
        let call = Call {
            client,
            local,
            relay: self.relay,
            answer,
            has_spoken: false,
            accepted: None,
            is_accepting: false,
            accept_by: None,
            give_up_at: self.now + MEDIA_WAIT,
            is_over: false,
            spoken_until: None,
            has_answered: false,
            is_dead: false,
        };
        self.calls.insert(id.clone(), call);
        self.later(LATENCY, Coming::Ask(id, "pre_accept"));
    }

    /// Asks the Graph API, on a connection of its own.
    fn ask(&mut self, id: &str, action: &'static str) {
        let call = self.calls.get(id);
        if call.is_some_and(|call| call.is_over) && action != "terminate" {
            return;
        }
        let mut answer = call.map_or_else(String::new, |call| call.answer.clone());
        if action == "accept" && self.fault == Fault::OtherAnswer {
            answer = answer.replace("s=-", "s=another");
        }
        let mut body = json!({ "messaging_product": "whatsapp", "call_id": id, "action": action });
        if self.fault == Fault::Unreadable {
            body["messaging_product"] = json!("whatever");
        }
        if action.ends_with("accept") {
            body["session"] = json!({ "sdp_type": "answer", "sdp": answer });
        }
        let body = body.to_string();
        let request = format!(
            "POST /v24.0/1001/calls HTTP/1.1\r\nHost: graph\r\nAuthorization: Bearer an-access-token\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream = self.offered.pop_front().expect("keys are offered");
        self.asked.insert(stream, (id.to_owned(), action));
        self.simulator.handle_input(self.now, Input::Accepted { stream, door: Door::Api, peer: None });
        self.simulator.handle_input(self.now, Input::Received { stream, bytes: request.as_bytes() });
    }

    fn replied(&mut self, id: &str, action: &'static str, answer: &str) {
        let is_done = answer.starts_with("HTTP/1.1 200") || action == "accept" && answer.contains("131055");
        let is_for_now = answer.starts_with("HTTP/1.1 503") || answer.starts_with("HTTP/1.1 429");
        let (now, fault) = (self.now, self.fault);
        let Some(call) = self.calls.get_mut(id) else { return };
        match action {
            _ if is_for_now => self.later(ASK_AGAIN, Coming::Ask(id.to_owned(), action)),
            "pre_accept" if is_done && call.accept_by.is_none() => {
                let wait = if fault == Fault::Hasty { Duration::ZERO } else { CONNECT_WAIT };
                call.accept_by = Some(now + wait);
                call.give_up_at = now + MEDIA_WAIT;
            }
            "accept" if is_done => _ = call.accepted.get_or_insert(now),
            "pre_accept" | "accept" if !is_done && fault != Fault::LetsRing => {
                call.is_over = true;
                self.later(LATENCY, Coming::Ask(id.to_owned(), "terminate"));
            }
            _ => {}
        }
    }

    /// What each call does by itself.
    fn tend_calls(&mut self) {
        let (now, fault) = (self.now, self.fault);
        let mut asks = Vec::new();
        let mut sends = Vec::new();
        for (id, call) in &mut self.calls {
            call.client.handle_timeout(now);
            while let Some((to, payload)) = call.client.poll_transmit() {
                if to == call.relay && !call.is_dead {
                    sends.push((call.local, payload));
                }
            }
            if call.is_over {
                continue;
            }
            let is_connected = call.client.connected.is_some();
            if fault == Fault::Early && is_connected && !call.is_accepting {
                call.client.speak(now, self.voice.clone());
            }
            let is_due = call.accept_by.is_some_and(|at| at <= now || is_connected);
            if is_due && !call.is_accepting && fault != Fault::Undecided {
                call.is_accepting = true;
                call.accept_by = None;
                // What was said too early comes before it.
                let after = if fault == Fault::Early { Duration::from_millis(100) } else { LATENCY };
                asks.push((after, id.clone(), "accept"));
            }
            if is_due && fault == Fault::Undecided {
                call.accept_by = None;
            }
            let is_brief = matches!(fault, Fault::FallsSilent | Fault::GoesDead | Fault::ChangesSsrc);
            if call.accepted.is_some() && is_connected && !call.has_spoken && fault != Fault::Mute {
                call.has_spoken = true;
                call.client.speak(now, self.voice.clone());
                call.spoken_until = Some(now + Duration::from_millis(500)).filter(|_| is_brief);
            }
            let heard = call.client.received.iter().filter(|packet| packet.payload.len() > SIGN_BYTES_MAX);
            if self.says_back
                && !call.has_answered
                && heard.clone().last().is_some_and(|last| last.timestamp + PAUSE <= now)
            {
                call.has_answered = true;
                let words = heard.map(|packet| packet.payload.clone()).collect();
                call.client.speak(now, [words, silence(Duration::from_secs(60))].concat());
            }
            if call.spoken_until.is_some_and(|at| at <= now) {
                call.spoken_until = None;
                if fault == Fault::ChangesSsrc {
                    call.client.change_ssrc();
                } else {
                    call.client.hush();
                    call.is_dead = fault == Fault::GoesDead;
                }
            }
            let is_late = !is_connected && call.give_up_at <= now;
            let is_short =
                fault == Fault::Impatient && call.accepted.is_some_and(|at| at + Duration::from_secs(5) <= now);
            if (is_late && fault != Fault::LetsRing && fault != Fault::Undecided) || is_short {
                call.is_over = true;
                call.client.close(now);
                asks.push((LATENCY, id.clone(), "terminate"));
            }
            if is_late {
                call.give_up_at = now + Duration::from_secs(3600);
            }
        }
        for (local, payload) in sends {
            self.packets += u64::from(matches!(Kind::of(&payload), Kind::Rtp { .. }));
            if fault == Fault::Loses && self.packets.is_multiple_of(10) {
                continue;
            }
            self.later(LATENCY, Coming::ToRelay(local, payload));
        }
        for (after, id, action) in asks {
            self.later(after, Coming::Ask(id, action));
        }
    }
}
