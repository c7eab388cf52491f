//! Calls that come by Meta's webhook: which are open at Meta, and how each is taken through its life there.
//!
//! [`crate::whatsapp::signalling`] decides what is asked of Meta and when; this file opens and ends calls for it, carries its
//! questions to the Graph API's threads, and notes in the journal what must be ended at Meta after a crash. A call here and its
//! line at Meta are two things: the line may outlive the call (its end is still to be told), and an orphan of an earlier
//! process never had one.

mod graph;
mod record;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::call_id::{CallId, CallNumber, LogId};
use crate::close_reason::CloseReason;
use crate::config::{Config, Secret};
use crate::io::{Node, Output};
use crate::messages::{Message, Note, RequestId, StartMedia, ToWorker};
use crate::stats::Stage;
use crate::whatsapp::journal::Alive;
use crate::whatsapp::seen::{Kind, Novelty, Seen};
use crate::whatsapp::signalling::{Signalling, Step};
use crate::whatsapp::webhook::{CallEvent, CallEventKind, Termination};
use crate::whatsapp::{CallPolicy, Settings};

use super::Control;
use super::calls::{Call, Phase};
use super::session_request::{SessionRequest, SessionTemplate};
use super::timers::Timer;

pub(super) use record::MetaRecord;

/// A connect webhook that is older is of a call that nobody waits for any more: Meta gives a business 30 to 60 s.
const CONNECT_AGE_MAX: Duration = Duration::from_secs(60);
/// A call that an earlier process has left alive longer ago is over by any timer of Meta's, and of its users.
const ORPHAN_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Meta's webhook, where it is served.
#[derive(Debug)]
pub(super) struct Meta {
    /// By Meta's id of them.
    numbers: BTreeMap<String, Number>,
    pub(super) app_secrets: Vec<Secret>,
    pub(super) verify_token: Secret,
    seen: Seen,
    /// Calls that Meta may believe alive, by our key of them.
    lines: BTreeMap<u64, Line>,
    by_call: HashMap<CallId, u64>,
    keys_made: u64,
    /// Questions under way.
    asks: BTreeMap<RequestId, graph::Ask>,
    /// The number that is probed next, and what is known of the way to the Graph API.
    probes: graph::Probes,
    /// Calls of an earlier process whose number is not in the settings: it may come back with them.
    stranded: Vec<(u64, String)>,
    /// Bytes that were handed to the forwarder and not given back.
    pub(super) forwarding: Forwarding,
}

/// What waits to be passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarding {
    pub(super) parcels: usize,
    pub(super) bytes: usize,
}

/// A number of the business.
#[derive(Clone, Debug)]
struct Number {
    name: String,
    token: Secret,
    calls: CallPolicy,
    template: SessionTemplate,
}

/// A call at Meta.
#[derive(Debug)]
struct Line {
    id: CallId,
    log_id: LogId,
    /// The call here, while there is one.
    call: Option<CallNumber>,
    phone_number_id: String,
    /// What the Graph API is asked with, should the number be gone from the settings.
    token: Secret,
    signalling: Signalling,
    /// The question under way.
    ask: Option<RequestId>,
    timer: Option<Instant>,
    arrived: Instant,
    record: MetaRecord,
}

/// Reads the settings of every number. The error names the number and the field.
fn numbers(settings: &Settings, config: &Config) -> Result<BTreeMap<String, Number>, String> {
    let number = |number: &crate::whatsapp::Number| {
        let named = |error: String| format!("the number {:?}: {error}", number.name);
        let mut template = SessionTemplate::parse(&number.config, config).map_err(named)?;
        // Meta says when audio may flow: at the 200 of `accept`.
        template.start_media = StartMedia::Manual;
        let token = number.access_token.clone();
        let found = Number { name: number.name.clone(), token, calls: number.calls, template };
        Ok((number.phone_number_id.clone(), found))
    };
    settings.numbers.iter().map(number).collect()
}

/// Checks the sessions' settings of every number: what control is given must pass.
pub fn check_numbers(settings: &Settings, config: &Config) -> Result<(), String> {
    numbers(settings, config).map(drop)
}

impl Meta {
    /// The settings must have passed [`check_numbers`].
    pub(super) fn new(settings: Settings, config: &Config) -> Self {
        Self {
            numbers: numbers(&settings, config).expect("control's owner has checked the numbers"),
            app_secrets: settings.app_secrets,
            verify_token: settings.verify_token,
            seen: Seen::default(),
            lines: BTreeMap::new(),
            by_call: HashMap::new(),
            keys_made: 0,
            asks: BTreeMap::new(),
            probes: graph::Probes::default(),
            stranded: Vec::new(),
            forwarding: Forwarding::default(),
        }
    }

    /// Other numbers, secrets and sessions from now on; calls that are up keep what they were opened with.
    pub(super) fn reload(&mut self, settings: Settings, config: &Config) -> Result<usize, String> {
        self.numbers = numbers(&settings, config)?;
        self.app_secrets = settings.app_secrets;
        self.verify_token = settings.verify_token;
        Ok(self.numbers.len())
    }

    /// Whether events of this number are ours to act on.
    pub(super) fn serves(&self, phone_number_id: &str) -> bool {
        self.numbers.get(phone_number_id).is_some_and(|number| number.calls != CallPolicy::Ignore)
    }

    /// Whether this number is in the settings.
    pub(super) fn has(&self, phone_number_id: &str) -> bool {
        self.numbers.contains_key(phone_number_id)
    }

    /// Calls that Meta may believe alive.
    pub(super) fn alive(&self) -> usize {
        self.lines.len()
    }

    /// Whether a call of this id is alive at Meta because of this process.
    pub(super) fn knows(&self, id: &CallId) -> bool {
        self.by_call.contains_key(id)
    }

    /// Whether an event has not come before. Notes it.
    pub(super) fn is_news(&mut self, now: Instant, event: &CallEvent) -> Novelty {
        self.seen.note(now, &event.call, kind(event))
    }

    /// An event that could not be taken: Meta was asked to send it again.
    pub(super) fn not_taken(&mut self, event: &CallEvent) {
        self.seen.forget(&event.call, kind(event));
    }

    fn token(&self, line: &Line) -> Secret {
        self.numbers.get(&line.phone_number_id).map_or_else(|| line.token.clone(), |number| number.token.clone())
    }
}

fn kind(event: &CallEvent) -> Kind {
    match event.kind {
        CallEventKind::Connect { .. } => Kind::Connect,
        CallEventKind::Terminate(_) => Kind::Terminate,
    }
}

impl Control {
    /// Other numbers are known: those that an earlier process had may be among them again.
    pub(super) fn end_stranded(&mut self, now: Instant) {
        let stranded = self.meta.as_mut().map(|meta| std::mem::take(&mut meta.stranded)).unwrap_or_default();
        self.end_orphans(now, stranded);
    }

    /// Ends at Meta what an earlier process has left alive there.
    pub(super) fn end_orphans(&mut self, now: Instant, notes: Vec<(u64, String)>) {
        let now_sec = (self.unix_sec)();
        let Some(meta) = &mut self.meta else { return };
        meta.keys_made = notes.iter().map(|(key, _)| *key).max().unwrap_or_default().max(meta.keys_made);
        let mut begun = Vec::new();
        for (key, text) in notes {
            let is_old = |alive: &Alive| now_sec.saturating_sub(alive.since_sec) > ORPHAN_AGE_MAX.as_secs();
            let Some(alive) = Alive::decode(&text).filter(|alive| !is_old(alive)) else {
                tracing::warn!(
                    "an earlier process has noted something that is too old, or in no known form: it is forgotten"
                );
                self.outputs
                    .push_back(Output::Message { to: Node::Journal, message: Message::Note(Note::Remove(key)) });
                continue;
            };
            let Some(number) = meta.numbers.get(&alive.phone_number_id) else {
                tracing::warn!(
                    call = %alive.call.log_id(),
                    "an earlier process has left a call alive at Meta whose number is not in the settings: it is ended when \
                     they have it again, within a day"
                );
                meta.stranded.push((key, text));
                continue;
            };
            // Its webhooks may come again: it is not to be opened a second time.
            meta.seen.note(now, &alive.call, Kind::Connect);
            meta.seen.note(now, &alive.call, Kind::Terminate);
            let (name, token) = (number.name.clone(), number.token.clone());
            let line = Line {
                log_id: alive.call.log_id(),
                id: alive.call.clone(),
                call: None,
                record: MetaRecord::new(key, &name, &alive.phone_number_id),
                phone_number_id: alive.phone_number_id.clone(),
                token,
                signalling: Signalling::orphan(now),
                ask: None,
                timer: None,
                arrived: now,
            };
            meta.by_call.insert(alive.call.clone(), key);
            meta.lines.insert(key, line);
            begun.push(key);
        }
        if !begun.is_empty() {
            tracing::warn!(
                calls = begun.len(),
                "an earlier process has left calls alive at Meta: they are ended there"
            );
            self.stats.meta.orphans += begun.len() as u64;
        }
        for key in begun {
            self.follow(now, key);
        }
    }

    /// Acts on a call event of a number that is served, which has not come before.
    pub(super) fn call_event(&mut self, now: Instant, event: CallEvent) {
        match event.kind {
            CallEventKind::Connect { offer } => {
                self.connect(now, event.call, event.phone_number_id, event.timestamp_sec, offer.0);
            }
            CallEventKind::Terminate(termination) => self.terminate(now, &event.call, &termination),
        }
    }

    fn connect(&mut self, now: Instant, id: CallId, phone_number_id: String, at_sec: Option<u64>, offer: String) {
        let log_id = id.log_id();
        // It may have waited for the other instance's word, and its terminate not.
        if self.meta.as_ref().is_some_and(|meta| meta.seen.has(&id, Kind::Terminate)) {
            tracing::info!(call = %log_id, "a call was over before it could be taken");
            return self.count_event("connect", "over");
        }
        let age_sec = at_sec.map(|at| (self.unix_sec)().saturating_sub(at));
        if age_sec.is_some_and(|age| age > CONNECT_AGE_MAX.as_secs()) {
            tracing::warn!(
                call = %log_id,
                age_sec,
                "a connect webhook came too late, and the call is left alone; if all do, this machine's clock is wrong"
            );
            return self.count_event("connect", "stale");
        }
        if self.calls.latest(&id).is_some_and(Call::holds_its_id) {
            tracing::info!(call = %log_id, "a connect webhook of a call that the session API has opened: nothing is done");
            return self.count_event("connect", "elsewhere");
        }
        let Some(meta) = &mut self.meta else { return };
        let Some(number) = meta.numbers.get(&phone_number_id).cloned() else { return };
        meta.keys_made += 1;
        let key = meta.keys_made;
        let record = MetaRecord::new(key, &number.name, &phone_number_id);
        let line = Line {
            log_id,
            id: id.clone(),
            call: None,
            phone_number_id: phone_number_id.clone(),
            token: number.token,
            signalling: Signalling::begin(now),
            ask: None,
            timer: None,
            arrived: now,
            record: record.clone(),
        };
        meta.by_call.insert(id.clone(), key);
        meta.lines.insert(key, line);
        let alive = Alive { call: id.clone(), phone_number_id, since_sec: (self.unix_sec)() };
        let note = Note::Put(key, alive.encode());
        self.outputs.push_back(Output::Message { to: Node::Journal, message: Message::Note(note) });
        tracing::info!(call = %log_id, phone_number = number.name, age_sec, "WhatsApp call");
        *self.stats.meta.numbers.entry(number.name.clone()).or_default() += 1;
        let opened = if number.calls == CallPolicy::Reject {
            self.count_event("connect", "rejected");
            Err(None)
        } else {
            let request = SessionRequest { call: id, offer, template: number.template };
            self.open_call(now, request, Vec::new(), Some(Box::new(record))).map_err(Some)
        };
        let Some(line) = self.line_mut(key) else { return };
        match opened {
            Ok(call) => {
                line.call = Some(call);
                self.count_event("connect", "opened");
            }
            Err(refusal) => {
                line.signalling = Signalling::refuse(now);
                if let Some(refusal) = refusal {
                    tracing::warn!(call = %log_id, code = refusal.code, "a WhatsApp call is not taken: {}", refusal.error);
                    *self.stats.refused.entry(refusal.code).or_default() += 1;
                    self.count_event("connect", "refused");
                }
            }
        }
        self.follow(now, key);
    }

    fn terminate(&mut self, now: Instant, id: &CallId, termination: &Termination) {
        let key = self.meta.as_ref().and_then(|meta| meta.by_call.get(id).copied());
        if let Some(line) = key.and_then(|key| self.line_mut(key)) {
            let (key, log_id) = (line.record.key(), line.log_id);
            let failed = line.record.ended_by_meta(termination);
            line.signalling.terminated(now, failed);
            let error = termination.errors.first();
            tracing::info!(
                call = %log_id,
                status = termination.status.as_deref(),
                duration_sec = termination.duration_sec,
                code = error.map(|error| error.code),
                error = error.map(|error| error.text.as_str()),
                "Meta says that the call is over"
            );
            self.count_event("terminate", "ended");
            return self.follow(now, key);
        }
        // One that the session API has opened, or that this process has ended itself.
        let number = self.calls.by_id(id);
        let Some(call) = number.and_then(|number| self.calls.by_number_mut(number)) else {
            return self.count_event("terminate", "unknown");
        };
        if let Some(record) = &mut call.meta {
            record.ended_by_meta(termination);
        }
        if call.holds_its_id() {
            call.closing = true;
            let (worker, number) = (call.worker, number.expect("the call was found by it"));
            self.tell(worker, ToWorker::Hangup(number, CloseReason::Terminated));
        }
        self.count_event("terminate", "ended");
    }

    pub(super) fn count_event(&mut self, event: &'static str, outcome: &'static str) {
        *self.stats.meta.events.entry((event, outcome)).or_default() += 1;
    }

    /// Our answer to the offer of a call is there.
    pub(super) fn meta_answered(&mut self, now: Instant, number: CallNumber) {
        self.with_line(now, number, |line| line.signalling.answered(now));
    }

    /// The media of a call is up.
    pub(super) fn meta_connected(&mut self, now: Instant, number: CallNumber) {
        self.with_line(now, number, |line| line.signalling.connected(now));
    }

    /// The call of a line is over here, or never came to be.
    pub(super) fn meta_ended(&mut self, now: Instant, key: Option<u64>, reason: CloseReason) {
        let Some(key) = key else { return };
        if let Some(line) = self.line_mut(key) {
            line.signalling.ended(now, reason);
            self.follow(now, key);
        }
    }

    /// A call waits at Meta, and the time has come.
    pub(super) fn meta_due(&mut self, now: Instant, key: u64) {
        let Some(line) = self.line_mut(key) else { return };
        line.timer = None;
        line.signalling.handle_timeout(now);
        self.follow(now, key);
    }

    fn with_line(&mut self, now: Instant, number: CallNumber, change: impl FnOnce(&mut Line)) {
        let Some(key) = self.calls.by_number(number).and_then(Call::line) else { return };
        if let Some(line) = self.line_mut(key) {
            change(line);
            self.follow(now, key);
        }
    }

    fn line_mut(&mut self, key: u64) -> Option<&mut Line> {
        self.meta.as_mut()?.lines.get_mut(&key)
    }

    /// Does what a call's signalling wants, until it wants nothing more.
    fn follow(&mut self, now: Instant, key: u64) {
        while let Some(step) = self.line_mut(key).and_then(|line| line.signalling.poll()) {
            match step {
                Step::Ask { action, time_max } => self.ask_graph(now, key, action, time_max),
                Step::Activate => self.tell_line(key, ToWorker::Activate),
                Step::HangUp(reason) => self.hang_up_line(now, key, reason),
                Step::Settled => return self.settle(key),
            }
        }
        self.update_record(key);
        let Some(line) = self.line_mut(key) else { return };
        let (before, after) = (line.timer, line.signalling.poll_timeout());
        line.timer = after;
        if before != after {
            if let Some(at) = before {
                self.timers.disarm(at, Timer::Meta(key));
            }
            if let Some(at) = after {
                self.timers.arm(at, Timer::Meta(key));
            }
        }
    }

    /// Tells the worker of a line's call something, while there is one.
    fn tell_line(&mut self, key: u64, message: fn(CallNumber) -> ToWorker) {
        let Some(number) = self.line_mut(key).and_then(|line| line.call) else { return };
        if let Some(call) = self.calls.by_number(number) {
            self.tell(call.worker, message(number));
        }
    }

    fn hang_up_line(&mut self, now: Instant, key: u64, reason: CloseReason) {
        let Some(line) = self.line_mut(key) else { return };
        let call = line.call.and_then(|number| Some((number, self.calls.by_number_mut(number)?)));
        match call {
            Some((number, call)) if call.is_live() => {
                call.closing = true;
                let worker = call.worker;
                self.tell(worker, ToWorker::Hangup(number, reason));
            }
            // There is none, or none any more.
            _ => {
                if let Some(line) = self.line_mut(key) {
                    line.signalling.ended(now, reason);
                }
            }
        }
    }

    /// Meta knows of the end.
    fn settle(&mut self, key: u64) {
        self.update_record(key);
        let Some(meta) = &mut self.meta else { return };
        let Some(line) = meta.lines.remove(&key) else { return };
        meta.by_call.remove(&line.id);
        if let Some(at) = line.timer {
            self.timers.disarm(at, Timer::Meta(key));
        }
        self.outputs.push_back(Output::Message { to: Node::Journal, message: Message::Note(Note::Remove(key)) });
        if line.signalling.gave_up() {
            tracing::error!(call = %line.log_id, "Meta could not be told that the call is over: it is left to Meta's timers");
            self.stats.meta.given_up += 1;
        } else {
            tracing::debug!(call = %line.log_id, "the call is over at Meta");
        }
    }

    /// Brings what the API shows of a call up to date.
    fn update_record(&mut self, key: u64) {
        let Some(line) = self.line_mut(key) else { return };
        line.record.update(&line.signalling);
        let (record, number) = (line.record.clone(), line.call);
        if let Some(call) = number.and_then(|number| self.calls.by_number_mut(number)) {
            call.meta = Some(Box::new(record));
        }
    }

    /// Whether something is still to be told to Meta.
    pub(super) fn meta_waits(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| !meta.lines.is_empty()) || self.handover.asks.any_webhook()
    }

    /// The answer that Meta is to be given for a call, the same bytes each time.
    fn answer_of(&self, number: Option<CallNumber>) -> Option<&str> {
        match &self.calls.by_number(number?)?.phase {
            Phase::Live { answer } => Some(answer),
            Phase::Opening { .. } | Phase::Ended { .. } => None,
        }
    }

    fn record_stage(&mut self, stage: Stage, took: Duration) {
        self.recorder.record(stage, took);
    }
}
