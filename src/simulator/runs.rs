//! Scenarios as they run: when their calls begin, which webhooks are sent and again, and when all is over.

use std::time::{Duration, Instant};

use crate::http::client::{ClientRequest, target};
use crate::load::requests::{Done, Request};
use crate::relay::script::Script;

use super::call::{Call, Ender, Phase};
use super::expect::{self, Delivered, View, shown};
use super::phone::Ear;
use super::report::ScenarioReport;
use super::scenario::{Calls, Expect, Scenario, Signature};
use super::signature;
use super::webhooks::{self, CallText, Ending, Shape};
use super::{Due, Place, Simulator, SimulatorEvent, Target};

/// How long calls of a burst take to come.
const BURST: Duration = Duration::from_secs(2);

/// How long after all is over what must not come may still come.
const SETTLE: Duration = Duration::from_millis(1_500);

/// How long a scenario may take. The longest of them talk for some 30 s.
const PATIENCE: Duration = Duration::from_secs(90);

/// Sendings of one webhook; Meta goes on for days, and no scenario does.
const SENDINGS_MAX: u32 = 4;

/// Until a webhook is sent again; doubles each time.
const SEND_AGAIN: Duration = Duration::from_secs(1);

/// A gap in the audio that is worth a note.
const GAP_NOTED: Duration = Duration::from_secs(5);

/// Notes of one scenario.
const NOTES_MAX: usize = 16;

/// A scenario that runs.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) scenario: &'static Scenario,
    pub(super) begun: Instant,
    pub(super) calls: Vec<Call>,
    /// Calls that it will have.
    size: usize,
    delivered: Vec<Delivered>,
    /// Requests to do something, those included that were refused or belong to no call.
    pub(super) posts: u64,
    /// Webhooks that were not sent, or not answered yet.
    pub(super) undelivered: usize,
    /// When it is judged.
    judged_at: Option<Instant>,
    notes: Vec<String>,
}

/// A webhook.
#[derive(Debug)]
pub(super) struct Delivery {
    run: usize,
    /// The calls it is about.
    calls: Vec<usize>,
    event: Event,
    bytes: Vec<u8>,
    sendings: u32,
}

/// What a webhook says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Connect,
    Terminate,
    Message,
    /// A verification: whether with the right token, and its challenge.
    Verify(bool, String),
}

impl Event {
    fn label(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Terminate => "terminate",
            Self::Message => "message",
            Self::Verify(true, _) => "verification",
            Self::Verify(false, _) => "verification with a wrong token",
        }
    }
}

impl Simulator {
    /// Begins scenarios, where there is room, and ends those that are over.
    pub(super) fn tick_runs(&mut self, now: Instant) {
        for number in self.runs.keys().copied().collect::<Vec<_>>() {
            let run = self.runs.get_mut(&number).expect("it was there a moment ago");
            let over = run.calls.len() == run.size && run.calls.iter().all(|call| call.phase == Phase::Over);
            if !over && now >= run.begun + PATIENCE {
                let is_open = |call: &&mut Call| call.phase != Phase::Over;
                let text = format!("a call was still there after {} s, and was given up", PATIENCE.as_secs());
                let note = |call: &mut Call| {
                    call.note(text.clone());
                    call.number
                };
                let open: Vec<usize> = run.calls.iter_mut().filter(is_open).map(note).collect();
                for call in open {
                    self.end_call(now, (number, call), Ender::Simulator, None);
                }
                continue;
            }
            if over && run.undelivered == 0 {
                let at = *run.judged_at.get_or_insert(now + SETTLE);
                if at <= now {
                    self.end_run(number, now);
                }
            }
        }
        while self.runs.len() < self.config.at_once
            && let Some(scenario) = self.waiting.pop_front()
        {
            self.begin_run(now, scenario);
        }
        if self.runs.is_empty() && (self.is_stopping || !self.config.serve) {
            self.finish(None);
        }
    }

    /// Begins nothing more, and hangs up what there is.
    pub(super) fn interrupt(&mut self, now: Instant) {
        self.is_stopping = true;
        // Who serves is ended so and not otherwise.
        self.report.interrupted = !self.config.serve || !self.runs.is_empty() || !self.waiting.is_empty();
        self.waiting.clear();
        let mut open = Vec::new();
        for (number, run) in &mut self.runs {
            run.size = run.calls.len();
            open.extend(run.calls.iter().filter(|call| call.phase != Phase::Over).map(|call| (*number, call.number)));
        }
        for place in open {
            self.end_call(now, place, Ender::Simulator, None);
        }
        // Before the relay's port is known there is no beat that would find nothing left.
        if self.relay.is_none() {
            self.finish(None);
        }
    }

    fn begin_run(&mut self, now: Instant, scenario: &'static Scenario) {
        let number = self.runs_begun;
        self.runs_begun += 1;
        let size = match scenario.calls {
            Calls::Some(size) => usize::from(size),
            Calls::Burst => self.config.burst,
        };
        let run = Run {
            scenario,
            begun: now,
            calls: Vec::new(),
            size,
            delivered: Vec::new(),
            posts: 0,
            undelivered: 0,
            judged_at: None,
            notes: Vec::new(),
        };
        self.runs.insert(number, run);
        let spread = if scenario.calls == Calls::Burst { BURST } else { Duration::ZERO };
        for call in 0..size {
            let share = call as f64 / size as f64;
            self.at(now + spread.mul_f64(share), Due::Call((number, call)));
        }
        if scenario.webhooks.message {
            let value = webhooks::message(&self.config.account, (self.config.unix_sec)());
            let body = webhooks::body(&[vec![("messages", value)]]);
            self.post(now, number, Vec::new(), Event::Message, &body, Duration::ZERO);
        }
        if scenario.webhooks.verification {
            for right in [true, false] {
                self.verify(now, number, right);
            }
        }
    }

    /// A call begins: somebody dials.
    pub(super) fn begin_call(&mut self, now: Instant, (run, number): Place) {
        let is_wanted = |run: &&Run| run.calls.len() < run.size;
        let Some(scenario) = self.runs.get(&run).filter(is_wanted).map(|run| run.scenario) else { return };
        let script = if scenario.relay.phone_sends { self.words.listen() } else { Script::silent() };
        let from = format!("1555010{:04}", 1000 + number);
        let id = self.draw_id(&from);
        let offer = self.relay().offer(now, script);
        let key = offer.0;
        // Without memory for a decoder there is no simulator either.
        let ear = Ear::new(self.config.record).expect("a decoder takes some kilobytes");
        let mut call = Call::new(number, (id.clone(), from), offer, ear);
        if scenario.webhooks.is_over {
            call.phase = Phase::Over;
        }
        self.by_id.insert(id, (run, number));
        self.by_key.insert(key, (run, number));
        let run_of = self.runs.get_mut(&run).expect("looked up above");
        run_of.calls.push(call);
        let (made, size) = (run_of.calls.len(), run_of.size);
        if scenario.webhooks.together {
            if made == size {
                self.announce_together(now, run);
            }
        } else {
            self.announce(now, (run, number));
        }
    }

    /// An id laid out as Meta's: in base64, with the caller's number in clear.
    fn draw_id(&mut self, from: &str) -> String {
        let mut bytes = vec![0x1c, 0x18, from.len() as u8];
        bytes.extend(from.as_bytes());
        bytes.extend([0x15, 0x02, 0x00, 0x12, 0x18, 0x20]);
        let drawn = format!("{:016X}{:016X}", self.rng.next_u64(), self.rng.next_u64());
        bytes.extend(drawn.as_bytes());
        format!("wacid.{}", base64_simd::STANDARD.encode_to_string(&bytes))
    }

    fn announce(&mut self, now: Instant, (run, number): Place) {
        let how = self.runs[&run].scenario.webhooks;
        let call = &self.runs[&run].calls[number];
        let unix_sec = (self.config.unix_sec)().saturating_sub(how.age_sec);
        let shape = Shape { without_from: how.without_from, with_unknown: how.with_unknown };
        let text = CallText { id: &call.id, from: &call.from, unix_sec };
        let body = webhooks::body(&[vec![("calls", text.connect(&self.config.account, shape, &call.offer))]]);
        let over = text.terminate(&self.config.account, shape, &Ending::default());
        let over = webhooks::body(&[vec![("calls", over)]]);
        let mut later = Duration::ZERO;
        if let Some(before) = how.terminate_before_ms {
            self.post(now, run, vec![number], Event::Terminate, &over, Duration::ZERO);
            later = Duration::from_millis(before);
        }
        for ms in how.connect_ms {
            let after = later + Duration::from_millis(*ms) + self.shuffle(how.shuffle_ms);
            self.post(now, run, vec![number], Event::Connect, &body, after);
        }
    }

    /// All calls in one body: two in the first change, the rest in a second entry, and others' events between.
    fn announce_together(&mut self, now: Instant, run: usize) {
        let (account, unix_sec) = (&self.config.account, (self.config.unix_sec)());
        let connect = |call: &Call| {
            CallText { id: &call.id, from: &call.from, unix_sec }.connect(account, Shape::default(), &call.offer)
        };
        let values: Vec<_> = self.runs[&run].calls.iter().map(connect).collect();
        let (first, rest) = values.split_at(values.len().min(2));
        let message = webhooks::message(account, unix_sec);
        let mut entries = vec![vec![("calls", webhooks::merged(first)), ("messages", message)]];
        if !rest.is_empty() {
            entries.push(rest.iter().map(|value| ("calls", value.clone())).collect());
        }
        let (body, all) = (webhooks::body(&entries), (0..values.len()).collect());
        self.post(now, run, all, Event::Connect, &body, Duration::ZERO);
    }

    /// Tells of a call's end.
    pub(super) fn announce_end(&mut self, now: Instant, (run, number): Place) {
        let how = self.runs[&run].scenario.webhooks;
        let call = &self.runs[&run].calls[number];
        let unix_sec = (self.config.unix_sec)();
        let shape = Shape { without_from: how.without_from, with_unknown: how.with_unknown };
        let ago = |at: Instant| unix_sec.saturating_sub(now.saturating_duration_since(at).as_secs());
        let error = call.failure.map(|code| (code, "The call was ended by WhatsApp."));
        let ending = Ending { start_sec: call.times.accepted.map(ago), error };
        let text = CallText { id: &call.id, from: &call.from, unix_sec };
        let value = text.terminate(&self.config.account, shape, &ending);
        let body = webhooks::body(&[vec![("calls", value)]]);
        for ms in how.terminate_ms {
            let after = Duration::from_millis(*ms) + self.shuffle(how.shuffle_ms);
            self.post(now, run, vec![number], Event::Terminate, &body, after);
        }
    }

    fn shuffle(&mut self, ms_max: u64) -> Duration {
        Duration::from_millis(if ms_max == 0 { 0 } else { self.rng.next_u64() % ms_max })
    }

    /// Signs a body and sends it after this time.
    fn post(&mut self, now: Instant, run: usize, calls: Vec<usize>, event: Event, body: &[u8], after: Duration) {
        let sent = self.runs[&run].delivered.len() + self.runs[&run].undelivered;
        let signature = signature::sign(&self.config.account.app_secret, body);
        let signature = match (self.runs[&run].scenario.webhooks.signature, sent % 2) {
            (Signature::Good, _) => Some(signature),
            (Signature::Bad, 0) => Some(signature::flip(&signature)),
            (Signature::Bad, _) => None,
        };
        let target = &self.config.webhook;
        let request = ClientRequest {
            method: "POST",
            target: &target.path,
            host: &target.authority,
            token: None,
            json: Some(std::str::from_utf8(body).expect("bodies are escaped to ASCII")),
            header: signature.as_deref().map(|value| ("X-Hub-Signature-256", value)),
        };
        let bytes = request.encode();
        self.send_after(now + after, Delivery { run, calls, event, bytes, sendings: 0 });
    }

    /// Verifies the webhook, as Meta does when it is set up.
    fn verify(&mut self, now: Instant, run: usize, right: bool) {
        let challenge = (self.rng.next_u64() % 1_000_000_000).to_string();
        let mut token = self.config.account.verify_token.clone();
        if !right {
            token.push('x');
        }
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let query =
            [pair("hub.mode", "subscribe"), pair("hub.challenge", &challenge), pair("hub.verify_token", &token)];
        let webhook = &self.config.webhook;
        let path = format!("{}{}", webhook.path, target([], &query));
        let request = ClientRequest {
            method: "GET",
            target: &path,
            host: &webhook.authority,
            token: None,
            json: None,
            header: None,
        };
        let bytes = request.encode();
        let event = Event::Verify(right, challenge);
        self.send_after(now, Delivery { run, calls: Vec::new(), event, bytes, sendings: 0 });
    }

    fn send_after(&mut self, at: Instant, delivery: Delivery) {
        self.deliveries_made += 1;
        self.runs.get_mut(&delivery.run).expect("its owner runs").undelivered += 1;
        self.deliveries.insert(self.deliveries_made, delivery);
        self.at(at, Due::Deliver(self.deliveries_made));
    }

    /// Sends a webhook.
    pub(super) fn deliver(&mut self, now: Instant, what: u64) {
        let Some(delivery) = self.deliveries.get_mut(&what) else { return };
        let run = self.runs.get_mut(&delivery.run).expect("runs wait for their webhooks");
        let is_void = |call: &usize| {
            let call = &run.calls[*call];
            call.times.told.is_none() && call.ender == Some(Ender::Simulator)
        };
        // Interrupted before the bridge has heard of the call.
        if !delivery.calls.is_empty() && delivery.calls.iter().all(is_void) {
            run.undelivered -= 1;
            self.deliveries.remove(&what);
            return;
        }
        delivery.sendings += 1;
        let (run, calls, bytes) = (delivery.run, delivery.calls.clone(), delivery.bytes.clone());
        let text = format!("webhook: {}", delivery.event.label());
        let is_connect = delivery.event == Event::Connect;
        for number in &calls {
            let call = &mut self.runs.get_mut(&run).expect("runs wait for their webhooks").calls[*number];
            if is_connect {
                call.times.told.get_or_insert(now);
                if call.phase == Phase::Quiet {
                    call.phase = Phase::Calling;
                }
            }
            self.tell(now, (run, *number), "Meta > bridge", &text);
        }
        if calls.is_empty() {
            self.tell(now, (run, 0), "Meta > bridge", &text);
        }
        if is_connect {
            self.let_ring(now, run, &calls);
        }
        self.requests.send(Request { what, due: now, bytes });
    }

    /// A webhook was answered, or not.
    pub(super) fn delivered(&mut self, now: Instant, done: Done<u64>) {
        let Some(delivery) = self.deliveries.remove(&done.what) else { return };
        let place = (delivery.run, delivery.calls.first().copied().unwrap_or_default());
        let run = self.runs.get_mut(&delivery.run).expect("runs wait for their webhooks");
        let body = done.outcome.as_ref().map_or(&[][..], |answer| &answer.body);
        let what = match &delivery.event {
            Event::Verify(true, challenge) => expect::Delivery::Right(body == challenge.as_bytes()),
            Event::Verify(false, challenge) => expect::Delivery::Wrong(body == challenge.as_bytes()),
            _ => expect::Delivery::Event,
        };
        let outcome = done.outcome.map(|answer| answer.status);
        let text = match &outcome {
            Ok(status) => format!("{status} to the webhook, after {}", shown(done.took)),
            Err(why) => format!("no answer to the webhook: {why}"),
        };
        run.undelivered -= 1;
        self.is_heard |= outcome.is_ok();
        if outcome == Ok(200) {
            for number in &delivery.calls {
                let times = &mut run.calls[*number].times;
                match delivery.event {
                    Event::Connect => _ = times.acknowledged.get_or_insert(now),
                    Event::Terminate => _ = times.end_acknowledged.get_or_insert(now),
                    Event::Message | Event::Verify(..) => {}
                }
            }
        }
        let is_signed = run.scenario.webhooks.signature == Signature::Good;
        let again = outcome != Ok(200) && is_signed && what == expect::Delivery::Event;
        let why = outcome.as_ref().err().cloned();
        run.delivered.push(Delivered { what, outcome, took: done.took });
        self.tell(now, place, "bridge > Meta", text);
        if !again {
            return;
        }
        if delivery.sendings < SENDINGS_MAX {
            return self.send_after(now + SEND_AGAIN * 2u32.pow(delivery.sendings - 1), delivery);
        }
        if let (Some(why), false) = (why, self.is_heard || self.config.serve) {
            let Target { authority, .. } = &self.config.webhook;
            return self.finish(Some(format!("no webhook is taken at {authority} (--webhook): {why}")));
        }
        // Nobody will take a call that nobody has heard of.
        for number in delivery.calls {
            let run = self.runs.get_mut(&delivery.run).expect("it waits for its calls");
            let call = &mut run.calls[number];
            if call.times.acknowledged.is_none() && call.counts.asked == 0 {
                call.note(format!("its webhook was not answered 200, {SENDINGS_MAX} times: the call was given up"));
                self.end_call(now, (delivery.run, number), Ender::Simulator, None);
            }
        }
    }

    /// A scenario is over: judges it.
    fn end_run(&mut self, number: usize, now: Instant) {
        let Some(mut run) = self.runs.remove(&number) else { return };
        for call in &mut run.calls {
            self.by_id.remove(&call.id);
            self.by_key.remove(&call.key);
            call.record = self.relay.as_mut().and_then(|relay| relay.remove(call.key));
            call.said_back = call.ear.likeness();
            if let Some(samples) = call.ear.take_recording() {
                let name = format!("{}-{}", run.scenario.name, call.number + 1);
                (self.sink)(SimulatorEvent::Recording(name, samples));
            }
        }
        let view = View { calls: &run.calls, delivered: &run.delivered, posts: run.posts };
        let is_cut = self.config.talk.is_some() && run.calls.iter().any(Call::is_cut);
        if is_cut && run.scenario.expect.contains(&Expect::HeardBack) {
            run.notes.push("--seconds ended a call before the caller had an answer: that is not checked".to_owned());
        }
        let own =
            run.scenario.expect.iter().filter(|expect| !(is_cut && **expect == Expect::HeardBack)).flat_map(|expect| {
                let said_back = self.config.says_back && *expect == Expect::HeardBack;
                [Some(*expect), said_back.then_some(Expect::SaidBack)]
            });
        let checks = own.flatten().map(|expect| expect::judge(expect, &view)).collect();
        run.gather_notes();
        let took = now.saturating_duration_since(run.begun);
        let report = ScenarioReport::new(run.scenario, took, checks, &run.calls, run.notes);
        (self.sink)(SimulatorEvent::Scenario(Box::new(report.clone())));
        self.report.take(report);
    }
}

impl Run {
    fn gather_notes(&mut self) {
        let mut note = |text: String| {
            if self.notes.len() < NOTES_MAX && !self.notes.contains(&text) {
                self.notes.push(text);
            }
        };
        for call in &self.calls {
            call.notes.iter().cloned().for_each(&mut note);
            let (Some(record), times) = (&call.record, &call.times) else { continue };
            if record.checks.aggressive {
                note("its first connectivity check nominates already; Meta wants regular nomination".to_owned());
            }
            if call.gap > GAP_NOTED {
                note(format!(
                    "no audio (RTP) came for {}; WhatsApp's client bears 30 s, and counts RTCP",
                    shown(call.gap)
                ));
            }
            if record.checks.role_conflicts > 0 {
                note("its checks claim the controlled role, which is the relay's".to_owned());
            }
            if times.accept < times.connected && times.accept.is_some() {
                note("accept was asked before media was connected".to_owned());
            }
            if call.ender == Some(Ender::Bridge) && call.counts.endings > call.counts.endings_late + 1 {
                note("the bridge asked more than once to end a call".to_owned());
            }
        }
    }
}
