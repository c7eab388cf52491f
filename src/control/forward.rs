//! Requests to the other instance, over its Unix socket: plain HTTP/1.1, one request a connection, bounded in number and in
//! time. [`super::handover`] says which requests go there, and what follows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::http::client::{Answer, AnswerReader, ClientRequest, target};
use crate::http::{Method, Request, Response};
use crate::io::{Fault, Output, StreamKey};

use super::answer::{Refusal, response};
use super::connections::Ticket;
use super::handover::{Other, opens};
use super::route;
use super::timers::Timer;
use super::{Control, WAIT_TIME_MAX, WORKER_TIME_MAX};

/// Requests at once: on a machine full of calls, what comes about them within the time of one answer, and webhooks that wait
/// for calls to connect. Each holds a request of at most 128 KiB three times (as it came, as it is sent, to be sent again) and
/// two descriptors.
const ASKS_MAX: usize = 256;
/// The other one has this long to answer: as long as its workers have, and the way.
pub(super) const ASK_TIME_MAX: Duration = WORKER_TIME_MAX.saturating_add(Duration::from_secs(1));
/// For `Host`: nobody looks at it.
pub(super) const HOST: &str = "localhost";
/// Says that a request was passed on, for logs and captures.
pub(super) const FORWARDED: (&str, &str) = ("Bridge-Forwarded", "1");
/// When a request that could not be passed on is worth repeating, in seconds.
const RETRY_SEC: u32 = 1;

/// `ENOENT` and `ECONNREFUSED`: there is no socket, or nobody holds it open any more.
const GONE: [i32; 2] = [2, 111];

/// Questions under way, by their connections.
#[derive(Debug, Default)]
pub(super) struct Asks(BTreeMap<StreamKey, Ask>);

impl Asks {
    /// Whether call events wait for the other one's word: they were taken from Meta.
    pub(super) fn any_webhook(&self) -> bool {
        self.0.values().any(|ask| matches!(ask.purpose, Purpose::Webhook { .. }))
    }
}

#[derive(Debug)]
struct Ask {
    purpose: Purpose,
    /// The request; kept to be sent again.
    bytes: Vec<u8>,
    reader: AnswerReader,
    until: Instant,
    connected: bool,
    /// Whether this is the second time.
    repeated: bool,
}

/// What a question is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The other one shall hand over.
    TakeOver,
    /// Call events that it may have acted on; asked so often before.
    Webhook { events: super::webhook::Events, asked: u8 },
    /// A client's request.
    Request { ticket: Ticket, request: Box<Request> },
}

/// What came of a question.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Answer),
    /// There is no other instance any more.
    Nobody,
    /// It is there and does not answer, or not in words that can be understood.
    Silent,
}

impl Control {
    /// Passes a client's request on.
    pub(super) fn forward(&mut self, now: Instant, ticket: Ticket, request: &Request) -> Result<(), Refusal> {
        if self.asks_are_full() {
            let text = "Too many requests wait for the other instance on this machine. Try again.";
            return Err(Refusal::new(503, "other_busy", text).retry_after(RETRY_SEC));
        }
        let head = &request.head;
        // A token in the path has done its work.
        let skip = if head.target.segments.first().is_some_and(|first| first == "k") { 2 } else { 0 };
        let segments = head.target.segments.iter().skip(skip).map(String::as_str);
        let target = target(segments, &head.target.query);
        // The answer to HEAD would have a length and no body; what is answered here to HEAD has none in any case.
        let method = if head.method == Method::Head { "GET" } else { head.method.label() };
        let body = std::str::from_utf8(&request.body).unwrap_or_default();
        let json = (!body.is_empty()).then_some(body);
        let header = Some(FORWARDED);
        let bytes = ClientRequest { method, target: &target, host: HOST, token: None, json, header }.encode();
        let waits = head.target.query.iter().any(|(name, _)| name == "wait");
        let time_max = if waits { WAIT_TIME_MAX + ASK_TIME_MAX } else { ASK_TIME_MAX };
        self.ask_other(now, bytes, Purpose::Request { ticket, request: Box::new(request.clone()) }, time_max);
        Ok(())
    }

    /// Sends a request to the other instance.
    pub(super) fn ask_other(&mut self, now: Instant, bytes: Vec<u8>, purpose: Purpose, time_max: Duration) {
        let until = now + time_max;
        self.send_ask(Ask {
            purpose,
            bytes,
            reader: AnswerReader::default(),
            until,
            connected: false,
            repeated: false,
        });
    }

    fn send_ask(&mut self, ask: Ask) {
        let Some(pair) = &self.config.pair else { return };
        let stream = self.connections.dial();
        self.outputs.push_back(Output::ConnectLocal { stream, path: pair.socket(pair.own.other()) });
        self.outputs.push_back(Output::Write { stream, bytes: ask.bytes.clone() });
        self.timers.arm(ask.until, Timer::Ask(stream));
        self.handover.asks.0.insert(stream, ask);
    }

    pub(super) fn ask_connected(&mut self, stream: StreamKey) {
        if let Some(ask) = self.handover.asks.0.get_mut(&stream) {
            ask.connected = true;
        }
    }

    /// Bytes of an answer. False when the connection is no question's.
    pub(super) fn ask_received(&mut self, now: Instant, stream: StreamKey, bytes: &[u8]) -> bool {
        let Some(ask) = self.handover.asks.0.get_mut(&stream) else { return false };
        match ask.reader.receive(bytes) {
            Ok(None) => {}
            Ok(Some(answer)) => self.ask_done(now, stream, Outcome::Answered(answer)),
            Err(why) => {
                tracing::warn!(why = why.0, "the answer of the other instance cannot be read");
                self.ask_done(now, stream, Outcome::Silent);
            }
        }
        true
    }

    /// The other end has closed, or connecting, reading or writing failed.
    pub(super) fn ask_broke(&mut self, now: Instant, stream: StreamKey, fault: Option<Fault>) {
        let Some(ask) = self.handover.asks.0.get(&stream) else { return };
        if !ask.connected && fault.is_some_and(|fault| GONE.contains(&fault.errno)) {
            return self.ask_done(now, stream, Outcome::Nobody);
        }
        if ask.repeated {
            return self.ask_done(now, stream, Outcome::Silent);
        }
        let ask = self.take_ask(stream).expect("it was found above");
        self.send_ask(Ask { reader: AnswerReader::default(), connected: false, repeated: true, ..ask });
    }

    pub(super) fn ask_timed_out(&mut self, now: Instant, stream: StreamKey) {
        self.ask_done(now, stream, Outcome::Silent);
    }

    fn take_ask(&mut self, stream: StreamKey) -> Option<Ask> {
        let ask = self.handover.asks.0.remove(&stream)?;
        self.timers.disarm(ask.until, Timer::Ask(stream));
        self.close(stream);
        Some(ask)
    }

    fn note_gone(&mut self, outcome: &Outcome) {
        if matches!(outcome, Outcome::Nobody) && self.handover.other != Other::Absent {
            tracing::info!("the other instance is gone");
            self.handover.other = Other::Absent;
        }
    }

    /// Whether no more may be asked for now.
    pub(super) fn asks_are_full(&self) -> bool {
        self.handover.asks.0.len() >= ASKS_MAX
    }

    fn ask_done(&mut self, now: Instant, stream: StreamKey, outcome: Outcome) {
        let Some(ask) = self.take_ask(stream) else { return };
        let (ticket, request) = match ask.purpose {
            Purpose::TakeOver => return self.asked_to_hand_over(now, &outcome),
            Purpose::Webhook { events, asked } => {
                self.note_gone(&outcome);
                return self.other_has_acted(now, events, asked, ask.bytes, &outcome);
            }
            Purpose::Request { ticket, request } => (ticket, request),
        };
        self.note_gone(&outcome);
        // A client that has gone will repeat its request, if it still wants something.
        if self.connections.exchange(ticket).is_none() {
            return;
        }
        let given_up = self.note_silence(now, matches!(outcome, Outcome::Silent))
            && route::resource(&request.head).1.is_ok_and(|resource| opens(&resource, &request.head.method));
        match outcome {
            Outcome::Silent if given_up => {
                tracing::error!(
                    "the other instance has been silent for long: a call is opened without asking it. Stop it"
                );
                if let Err(refusal) = self.serve_here(now, ticket, &request) {
                    self.refuse(now, ticket, &refusal);
                }
            }
            Outcome::Answered(Answer { status: 404, .. }) | Outcome::Nobody => {
                if let Err(refusal) = self.serve_here(now, ticket, &request) {
                    self.refuse(now, ticket, &refusal);
                }
            }
            Outcome::Answered(answer) => self.answer(now, ticket, passed_on(answer)),
            Outcome::Silent => {
                let text = "The other instance on this machine may have this call and does not answer. Try again.";
                self.refuse(now, ticket, &Refusal::new(504, "other_silent", text).retry_after(RETRY_SEC));
            }
        }
    }
}

/// The other's answer as ours.
fn passed_on(answer: Answer) -> Response {
    let content_type = answer.content_type.unwrap_or_else(|| "application/json".to_owned());
    let response = response(answer.status, content_type, answer.body);
    match answer.retry_after {
        Some(after) => response.with("Retry-After", after),
        None => response,
    }
}
