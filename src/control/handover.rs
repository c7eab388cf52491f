//! Two instances on one machine: how the new one takes over from the old, and who answers for which call meanwhile.
//!
//! Both hold the same listening socket, and each listens on a Unix socket of its own ([`Door::Local`]). The new one, once
//! its workers turn, asks the old one to drain and names itself as its successor. The old one stops accepting and says so;
//! only then does the new one accept: what arrives between waits in the socket's queue. The old one goes on
//! serving the connections it has until their clients have gone.
//!
//! A call stays where it was opened, and clients know one address. So whoever gets a request about a call that may be with the
//! other passes it on. A request that came through the local door is never passed on again, and needs no token: the
//! socket's folder is its lock, and the other instance has checked the token.
//!
//! # Who answers
//!
//! A call id may be reused, and only the new one opens calls: what it knows of an id is always the latest.
//!
//! | at | request | what is known here | what is done |
//! |---|---|---|---|
//! | new | any about an id | live or ended | answered here |
//! | new | POST, PUT | nothing | the old one is asked with it; 404: opened here |
//! | new | any other | nothing | the old one is asked; 404: answered here, as unknown |
//! | old | POST, PUT | live, its end not asked for | answered here: the same answer, or 409 |
//! | old | POST, PUT | else | the new one is asked with it, and opens it |
//! | old | any other | live | answered here |
//! | old | any other | ended, or nothing | the new one is asked; 404: answered here |
//! | old, through its local door | POST, PUT | not live | 404 `not_here`: a server that drains opens nothing |
//! | either, through its local door | any other | nothing | 404 `not_here`; also `/bridge/stop`, which else has no 404 |
//!
//! When the other one is asked:
//!
//! | it | what is done |
//! |---|---|
//! | answers anything but 404 | passed on as it is |
//! | is gone: nobody listens on its socket | so are its calls. Answered here, as if there had never been one |
//! | breaks off (it may just have exited) | asked once more: every one of these requests may be repeated |
//! | is silent, or breaks off again | 504 `other_silent`: it may have the call. Opening a second one, or saying that it is unknown, would be wrong; a retry is not, here and not at another server (504 and no 503: a balancer takes those elsewhere) |
//! | has been silent for [`SILENT_TIME_MAX`] | the same, but calls are opened here: who hangs that long has no caller left |
//! | is asked too much at once | 503 `other_busy` |
//!
//! An instance that is silent when it shall hand over is asked for [`TAKE_OVER_TIME_MAX`]; then the new one serves beside
//! it, as if there were none. Of two that start at once, `a` goes first.

use std::time::{Duration, Instant};

use crate::call_id::CallId;
use crate::config::Instance;
use crate::http::client::{Answer, ClientRequest};
use crate::http::{Method, Request};
use crate::io::{Door, Output};
use crate::messages::{Notice, ToWorker};

use super::Control;
use super::answer::Refusal;
use super::connections::Ticket;
use super::drain::Successor;
use super::forward::{Asks, Outcome, Purpose};
use super::json;
use super::route::Resource;
use super::session_request::{self, SessionRequest};
use super::timers::Timer;

/// How long an instance that is there and does not hand over is asked to. It answers within a turn, or hangs.
pub(super) const TAKE_OVER_TIME_MAX: Duration = Duration::from_secs(5);
/// The time between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// The same once this one serves beside the other.
const ASK_SELDOM: Duration = Duration::from_secs(2);
/// Another one that has answered nothing for this long is given up: calls are opened here. A watchdog ends it before.
const SILENT_TIME_MAX: Duration = Duration::from_secs(30);
/// Names the one that takes over.
const SUCCESSOR: &str = "Bridge-Successor";

/// The start of this instance, and what it knows of the other.
#[derive(Debug)]
pub(super) struct Handover {
    /// Workers that have not been heard of.
    starting: Vec<u16>,
    /// Whether the service manager was told that this process serves.
    told_ready: bool,
    pub(super) other: Other,
    /// When to give up asking the other to hand over.
    until: Option<Instant>,
    /// Since when it has answered nothing that it was asked.
    silent_since: Option<Instant>,
    pub(super) asks: Asks,
}

/// The other instance, as far as this one knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// Nobody, or nobody any more.
    Absent,
    /// Perhaps: it has still to be asked to hand over. Until then this one does not accept.
    Unasked,
    /// It has handed over to this one, and drains.
    Old,
    /// It has taken over from this one.
    New,
}

impl Handover {
    pub(super) fn new(workers: u16, pair: bool) -> Self {
        Self {
            starting: (0..workers).collect(),
            told_ready: false,
            other: if pair { Other::Unasked } else { Other::Absent },
            until: None,
            silent_since: None,
            asks: Asks::default(),
        }
    }

    /// Whether this instance serves, and has said so.
    pub(super) fn is_ready(&self) -> bool {
        self.told_ready
    }
}

impl Control {
    /// Asks all workers for a sign of life, unless a watchdog has them asked: the process serves when each has given one.
    pub(super) fn begin_start(&mut self) {
        if !self.supervision.is_watched() {
            (0..self.config.workers).for_each(|worker| self.tell(worker, ToWorker::Ping));
        }
    }

    /// A worker's loop runs.
    pub(super) fn worker_started(&mut self, now: Instant, worker: u16) {
        // One that is being stopped takes nothing over: the other would drain for nobody.
        if self.handover.starting.is_empty() || self.is_leaving() {
            return;
        }
        self.handover.starting.retain(|other| *other != worker);
        if self.handover.starting.is_empty() {
            if self.handover.other == Other::Unasked {
                self.handover.until = Some(now + TAKE_OVER_TIME_MAX);
                self.ask_to_hand_over(now);
            } else {
                self.tell_ready();
            }
        }
    }

    /// Which doors this instance accepts at: with a successor, and before it has taken over, only the other's.
    pub(super) fn accepts_at(&self, door: Door) -> bool {
        door == Door::Local || self.successor == Successor::None && self.handover.other != Other::Unasked
    }

    fn tell_ready(&mut self) {
        if !std::mem::replace(&mut self.handover.told_ready, true) {
            self.notify(Notice::Ready);
        }
    }

    pub(super) fn ask_to_hand_over(&mut self, now: Instant) {
        if self.is_leaving() {
            return;
        }
        let Some(pair) = &self.config.pair else { return };
        let (method, target, host) = ("POST", "/api/drain", super::forward::HOST);
        let header = Some((SUCCESSOR, pair.own.name()));
        let bytes = ClientRequest { method, target, host, token: None, json: Some(""), header }.encode();
        self.ask_other(now, bytes, Purpose::TakeOver, super::forward::ASK_TIME_MAX);
    }

    /// The other one was asked to hand over.
    pub(super) fn asked_to_hand_over(&mut self, now: Instant, outcome: &Outcome) {
        let Some(pair) = &self.config.pair else { return };
        let (own, other) = (pair.own, pair.own.other().name());
        self.handover.other = match outcome {
            Outcome::Answered(Answer { status: 200, .. }) => {
                tracing::info!(other, "took over from the other instance, which drains; calls of its own stay with it");
                Other::Old
            }
            Outcome::Nobody => Other::Absent,
            // It starts as well.
            Outcome::Answered(Answer { status: 409, .. }) if own == Instance::A => Other::Absent,
            _ if self.handover.until.is_some_and(|until| now < until) => {
                self.timers.arm(now + ASK_AGAIN, Timer::TakeOver);
                return;
            }
            Outcome::Answered(_) | Outcome::Silent => {
                if !self.handover.told_ready {
                    tracing::warn!(
                        other,
                        "the other instance is there and does not hand over: both serve, and a repeated request may open a \
                         call twice. Stop the other one"
                    );
                }
                // It may still come to itself, and drain by what it was asked: its calls must then be known to be there.
                self.timers.arm(now + ASK_SELDOM, Timer::TakeOver);
                Other::Absent
            }
        };
        self.tell_ready();
    }

    /// The other instance, or a person, asks this one to drain.
    pub(super) fn asked_to_drain(&mut self, now: Instant, ticket: Ticket, request: &Request) -> Result<(), Refusal> {
        let by_other = self.connections.door(ticket.stream) == Some(Door::Local)
            && matches!(request.head.header("bridge-successor"), Ok(Some(_)));
        if !by_other {
            self.begin_drain(now, Successor::None);
            return Ok(());
        }
        if self.handover.other == Other::Unasked {
            return Err(Refusal::new(409, "starting", "This instance is only starting: it has nothing to hand over."));
        }
        self.handover.other = Other::New;
        self.begin_drain(now, Successor::Known);
        for stream in self.connections.offered_at(Door::Api) {
            self.outputs.push_back(Output::Withdraw { stream });
        }
        // Unlike the API's socket, this one is each instance's own, on a port that they share: what still came to it would
        // not be answered.
        self.outputs.push_back(Output::CloseDoor { door: Door::AgentCheck });
        Ok(())
    }

    /// Whether the last clients may still come on the connections they have. After a hand-over they are told to close them
    /// with their next answer, and whoever asks nothing more is closed on before long: so no request meets a closed door.
    pub(super) fn waits_for_clients(&self) -> bool {
        self.successor == Successor::Known && self.connections.any_at(Door::Api)
    }

    /// The other one has answered, or has not. True where it has been silent for so long that calls are opened without it.
    pub(super) fn note_silence(&mut self, now: Instant, silent: bool) -> bool {
        if !silent {
            self.handover.silent_since = None;
            return false;
        }
        let since = *self.handover.silent_since.get_or_insert(now);
        now.saturating_duration_since(since) >= SILENT_TIME_MAX
    }

    /// Whether the other one has to be asked first about what this request is about.
    pub(super) fn is_for_other(&mut self, ticket: Ticket, resource: &Resource, request: &Request) -> bool {
        if matches!(self.handover.other, Other::Absent | Other::Unasked) {
            return false;
        }
        let Some(id) = self.subject(resource, request) else { return false };
        if let Some(exchange) = self.connections.exchange(ticket) {
            exchange.call = Some(id.log_id());
        }
        match self.handover.other {
            Other::Old => self.calls.by_id(&id).is_none(),
            Other::New if opens(resource, &request.head.method) => !self.holds(&id),
            Other::New => !self.is_live(&id),
            Other::Absent | Other::Unasked => false,
        }
    }

    /// Refuses a request of the other instance for a call that is not here.
    pub(super) fn check_is_here(&self, resource: &Resource, request: &Request) -> Result<(), Refusal> {
        let Some(id) = self.subject(resource, request) else { return Ok(()) };
        let here = if opens(resource, &request.head.method) {
            // One that has not taken over opens nothing for the other, which serves until then.
            self.holds(&id) || !self.is_leaving() && self.handover.other != Other::Unasked
        } else {
            self.calls.by_id(&id).is_some()
        };
        if here { Ok(()) } else { Err(Refusal::new(404, "not_here", "This instance does not know the call.")) }
    }

    /// The call that a request is about; `None` for requests about none, and for those that are refused anyway.
    fn subject(&self, resource: &Resource, request: &Request) -> Option<CallId> {
        let body = &request.body;
        match resource {
            Resource::Session(id) if request.head.method == Method::Put => {
                SessionRequest::parse(body, Some(id), &self.config).ok().map(|request| request.call)
            }
            Resource::Session(id) | Resource::Activate(id) | Resource::SessionLatency(id) => Some(id.clone()),
            Resource::Sessions if request.head.method == Method::Post => {
                SessionRequest::parse(body, None, &self.config).ok().map(|request| request.call)
            }
            Resource::BridgeStop => {
                let body = session_request::object(body).ok()?;
                let id = body.get("callId").and_then(json::Value::string)?;
                session_request::call_id(&id).ok()
            }
            _ => None,
        }
    }

    /// Whether a POST of this id means a call that is here.
    fn holds(&self, id: &CallId) -> bool {
        self.calls.latest(id).is_some_and(super::calls::Call::holds_its_id)
    }

    fn is_live(&self, id: &CallId) -> bool {
        self.calls.latest(id).is_some_and(super::calls::Call::is_live)
    }
}

/// Whether a request opens a call where there is none.
pub(super) fn opens(resource: &Resource, method: &Method) -> bool {
    matches!((resource, method), (Resource::Sessions, Method::Post) | (Resource::Session(_), Method::Put))
}
