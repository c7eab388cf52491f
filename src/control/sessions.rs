//! The session API: from a routed request to calls, and from what workers say to answers.

use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};

use crate::call_id::{CallId, CallNumber};
use crate::close_reason::CloseReason;
use crate::http::{Head, Method, Request, Response};
use crate::io::Door;
use crate::messages::{CallReport, OpenCall, OpenRefusal, ToWorker};
use crate::peer::sdp::Offer;
use crate::stats::{PackedStages, Stage, Stages};

use super::answer::{Refusal, json_response};
use super::calls::{Call, Phase};
use super::connections::Ticket;
use super::drain::draining;
use super::end_log::log_end;
use super::gather::worker_silent;
use super::latency::latency_form;
use super::meta::MetaRecord;
use super::route::{self, Resource};
use super::session_request::{self, SessionRequest};
use super::timers::Timer;
use super::{Control, WAIT_TIME_MAX, WORKER_TIME_MAX, json, placement};

/// When a full server is worth asking again, in seconds.
const FULL_RETRY_SEC: u32 = 5;
/// When a server whose cores are at their limit is: its load is known anew some times a second.
const OVERLOADED_RETRY_SEC: u32 = 2;

impl Control {
    /// Serves a request: answers it, refuses it, or leaves it waiting for a worker.
    pub(super) fn serve(&mut self, now: Instant, ticket: Ticket, request: &Request) {
        if let Err(refusal) = self.try_serve(now, ticket, request) {
            self.refuse(now, ticket, &refusal);
        }
    }

    fn try_serve(&mut self, now: Instant, ticket: Ticket, request: &Request) -> Result<(), Refusal> {
        let head = &request.head;
        let (path_token, resource) = route::resource(head);
        let resource = resource?;
        let exchange = self.connections.exchange(ticket).expect("the request was just read");
        exchange.route = resource.label();
        if let Resource::Session(call) | Resource::Activate(call) | Resource::SessionLatency(call) = &resource {
            exchange.call = Some(call.log_id());
        }
        if resource == Resource::Page && (path_token.is_some() || self.page.is_none()) {
            return Err(Refusal::new(404, "not_found", "The page is not served here."));
        }
        let by_other = self.connections.door(ticket.stream) == Some(Door::Local);
        if !resource.is_open() && !by_other {
            self.gate.admit(head, path_token)?;
        }
        resource.check(&head.method)?;
        if by_other {
            self.check_is_here(&resource, request)?;
        } else if self.is_for_other(ticket, &resource, request) {
            return self.forward(now, ticket, request);
        }
        self.serve_here(now, ticket, request)
    }

    /// Serves a request that may be served, by this instance.
    pub(super) fn serve_here(&mut self, now: Instant, ticket: Ticket, request: &Request) -> Result<(), Refusal> {
        let head = &request.head;
        let (_, resource) = route::resource(head);
        match (resource?, &head.method) {
            (Resource::Page, _) => {
                let response = self.page.as_ref().expect("checked above").response();
                self.answer(now, ticket, response);
            }
            (Resource::Health, _) => {
                let body = json::health(self.calls.live());
                self.answer(now, ticket, json_response(200, body));
            }
            (Resource::Ready, _) => {
                self.place(now)?;
                self.answer(now, ticket, json_response(200, json::ready()));
            }
            (Resource::Metrics, _) => self.metrics(now, ticket),
            (Resource::Workers, _) => {
                let body = self.workers(now);
                self.answer(now, ticket, json_response(200, body));
            }
            (Resource::Sessions, Method::Post) => self.create(now, ticket, &request.body, None)?,
            (Resource::Sessions, _) => self.list(now, ticket),
            (Resource::Session(call), Method::Put) => self.create(now, ticket, &request.body, Some(&call))?,
            (Resource::Session(call), Method::Delete) => {
                if !self.hang_up(&call) {
                    return Err(unknown_session());
                }
                self.answer(now, ticket, json_response(200, json::success()));
            }
            (Resource::Session(call), _) => self.show(now, ticket, &call, waits_for_connected(head)?)?,
            (Resource::Activate(call), _) => self.activate(now, ticket, &call)?,
            (Resource::SessionLatency(call), _) => self.call_latency(now, ticket, &call, latency_form(head)?)?,
            (Resource::Latency, _) => self.latency(now, ticket, latency_form(head)?),
            (Resource::Drain, method) => {
                if *method == Method::Post {
                    self.asked_to_drain(now, ticket, request)?;
                }
                self.answer_drain(now, ticket);
            }
            (Resource::BridgeStop, _) => self.bridge_stop(now, ticket, &request.body)?,
            (Resource::Webhook, Method::Post) => self.webhook(now, ticket, request)?,
            (Resource::Webhook, _) => self.verify_webhook(now, ticket, head)?,
        }
        Ok(())
    }

    /// The worker that takes another call.
    pub(super) fn place(&mut self, now: Instant) -> Result<u16, Refusal> {
        if self.is_leaving() {
            return Err(draining());
        }
        if self.calls.live() >= self.config.calls_max {
            let error = format!("All {} calls are taken (BRIDGE_MAX_CALLS).", self.config.calls_max);
            return Err(Refusal::new(503, "full", error).retry_after(FULL_RETRY_SEC));
        }
        placement::choose(self.calls.places_mut(), now, self.config.admit_busy).ok_or_else(|| {
            let error = "Every core is at its limit (BRIDGE_ADMIT_BUSY_PERCENT). Use another server, or try again.";
            Refusal::new(503, "overloaded", error).retry_after(OVERLOADED_RETRY_SEC)
        })
    }

    /// `GET /api/workers`.
    fn workers(&mut self, now: Instant) -> Vec<u8> {
        let (calls_max, admit_busy) = (self.config.calls_max, self.config.admit_busy);
        let open = !self.is_leaving() && self.calls.live() < calls_max;
        let views = self.calls.places_mut().iter_mut().enumerate().map(|(worker, place)| {
            let report = place.report.unwrap_or_default();
            json::WorkerView {
                worker,
                calls: place.calls,
                busy_ratio: (report.busy * 1e4).round() / 1e4,
                tick_late_p99_us: report.tick_late_p99_us,
                complexity: place.report.map_or(*self.config.opus_complexity.end(), |report| report.complexity),
                admits: open && place.admits(now, admit_busy),
            }
        });
        json::workers(calls_max, &views.collect::<Vec<_>>())
    }

    /// POST and PUT of a session; refusals are counted by their code.
    fn create(&mut self, now: Instant, ticket: Ticket, body: &[u8], path: Option<&CallId>) -> Result<(), Refusal> {
        let outcome = self.open(now, ticket, body, path);
        if let Err(refusal) = &outcome {
            *self.stats.refused.entry(refusal.code).or_default() += 1;
        }
        outcome
    }

    fn open(&mut self, now: Instant, ticket: Ticket, body: &[u8], path: Option<&CallId>) -> Result<(), Refusal> {
        let request = SessionRequest::parse(body, path, &self.config)?;
        let log_id = request.call.log_id();
        if let Some(exchange) = self.connections.exchange(ticket) {
            exchange.call = Some(log_id);
        }
        if let Some(number) = self.calls.by_id(&request.call)
            && let Some(call) = self.calls.by_number_mut(number)
            && call.holds_its_id()
        {
            if call.offer_hash != offer_hash(&request.offer) {
                let error =
                    "callId is in use by a call with another sdpOffer. End that call first, or use a new callId.";
                return Err(Refusal::new(409, "conflict", error));
            }
            if let Phase::Opening { waiting, .. } = &mut call.phase {
                waiting.push(ticket);
            } else {
                let response = opened(call);
                self.answer(now, ticket, response);
            }
            return Ok(());
        }

        self.open_call(now, request, vec![ticket], None).map(drop)
    }

    /// Opens a call of an id that is free. `waiting` are the requests that its answer goes to.
    pub(super) fn open_call(
        &mut self,
        now: Instant,
        request: SessionRequest,
        waiting: Vec<Ticket>,
        meta: Option<Box<MetaRecord>>,
    ) -> Result<CallNumber, Refusal> {
        let SessionRequest { call: id, offer: offer_text, template } = request;
        let log_id = id.log_id();
        let worker = self.place(now)?;
        let offer = Offer::parse(&offer_text)
            .map_err(|error| Refusal::new(400, error.code(), format!("sdpOffer cannot be answered: {error}")))?;
        if template.model_was_retired {
            self.stats.retired_models += 1;
            if let Some(unsaid) = self.refusals_logged.take(now) {
                let model = &self.config.model;
                tracing::warn!(call = %log_id, model, unsaid, "the request names a retired model; the default is used");
            }
        }
        let number = self.calls.next_number();
        let until = now + WORKER_TIME_MAX;
        let call = Call {
            id,
            log_id,
            session_id: self.session_id(),
            worker,
            offer_hash: offer_hash(&offer_text),
            metadata: template.metadata,
            opened: now,
            setup: None,
            phase: Phase::Opening { until, waiting },
            connected: false,
            closing: false,
            waiting: Vec::new(),
            meta,
        };
        let (model, calls) = (&template.settings.model, self.calls.live() + 1);
        tracing::info!(call = %log_id, number = number.0, worker, model, calls, "call opened");
        self.calls.insert(number, call, &mut self.timers);
        self.timers.arm(until, Timer::Opening(number));
        let open = OpenCall {
            call: number,
            log_id,
            offer,
            session: template.settings,
            start_media: template.start_media,
            duration_sec_max: template.duration_sec_max,
        };
        self.tell(worker, ToWorker::Open(Box::new(open)));
        Ok(number)
    }

    /// 128 unpredictable bits, in hexadecimal.
    fn session_id(&self) -> String {
        let mut bytes = [0; 16];
        (self.entropy)(&mut bytes);
        format!("{:032x}", u128::from_be_bytes(bytes))
    }

    fn show(&mut self, now: Instant, ticket: Ticket, id: &CallId, wait: bool) -> Result<(), Refusal> {
        let number = self.calls.by_id(id).ok_or_else(unknown_session)?;
        let call = self.calls.by_number_mut(number).ok_or_else(unknown_session)?;
        if !wait || call.connected || matches!(call.phase, Phase::Ended { .. }) {
            self.describe(now, ticket, number);
            return Ok(());
        }
        call.waiting.push(ticket);
        let until = now + WAIT_TIME_MAX;
        if let Some(exchange) = self.connections.exchange(ticket) {
            exchange.waits_for = Some(number);
            exchange.waits_until = Some(until);
        }
        self.timers.arm(until, Timer::Waiter(ticket.stream));
        Ok(())
    }

    /// Ends the wait of this connection's request, and returns what it waited for.
    fn stop_waiting(&mut self, ticket: Ticket) -> Option<CallNumber> {
        let exchange = self.connections.exchange(ticket)?;
        let (number, until) = (exchange.waits_for.take(), exchange.waits_until.take());
        if let Some(until) = until {
            self.timers.disarm(until, Timer::Waiter(ticket.stream));
        }
        self.calls.forget_waiter(number, ticket.stream);
        number
    }

    /// The call did not connect while a request waited: it learns the state as it is.
    pub(super) fn wait_timed_out(&mut self, now: Instant, stream: crate::io::StreamKey) {
        if let Some(ticket) = self.connections.ticket(stream)
            && let Some(number) = self.stop_waiting(ticket)
        {
            self.describe(now, ticket, number);
        }
    }

    fn activate(&mut self, now: Instant, ticket: Ticket, id: &CallId) -> Result<(), Refusal> {
        let number = self.calls.by_id(id).ok_or_else(unknown_session)?;
        let call = self.calls.by_number(number).ok_or_else(unknown_session)?;
        if let Phase::Ended { report, .. } = &call.phase {
            let reason = report.close.map_or("ended", |reason| reason.label());
            return Err(Refusal::new(409, "ended", format!("The call is over ({reason}).")));
        }
        if call.meta.is_some() {
            let error = "The call came by Meta's webhook: it is activated when Meta has taken accept.";
            return Err(Refusal::new(409, "by_webhook", error));
        }
        let worker = call.worker;
        self.tell(worker, ToWorker::Activate(number));
        self.answer(now, ticket, json_response(200, json::success()));
        Ok(())
    }

    /// What the deployed webhook calls on `terminate`. It cannot tell what is left to end, so unknown ids are fine.
    fn bridge_stop(&mut self, now: Instant, ticket: Ticket, body: &[u8]) -> Result<(), Refusal> {
        let body = session_request::object(body)?;
        let Some(id) = body.get("callId").and_then(json::Value::string).filter(|id| !id.is_empty()) else {
            return Err(Refusal::new(400, "missing_field", "Missing callId"));
        };
        let id = session_request::call_id(&id)?;
        if let Some(exchange) = self.connections.exchange(ticket) {
            exchange.call = Some(id.log_id());
        }
        self.hang_up(&id);
        self.answer(now, ticket, json_response(200, json::success()));
        Ok(())
    }

    /// Ends the call of an id; false where none is known.
    fn hang_up(&mut self, id: &CallId) -> bool {
        let Some(number) = self.calls.by_id(id) else { return false };
        let Some(call) = self.calls.by_number_mut(number) else { return false };
        if call.holds_its_id() {
            call.closing = true;
            let worker = call.worker;
            self.tell(worker, ToWorker::Hangup(number, CloseReason::Hangup));
        }
        true
    }

    fn refuse_all(&mut self, now: Instant, tickets: Vec<Ticket>, refusal: &Refusal) {
        for ticket in tickets {
            self.refuse(now, ticket, refusal);
        }
    }

    /// A worker has answered an offer.
    pub(super) fn call_answered(&mut self, now: Instant, number: CallNumber, answer: String) {
        let Some(call) = self.calls.by_number_mut(number) else { return };
        if !matches!(call.phase, Phase::Opening { .. }) {
            return;
        }
        let us = now.saturating_duration_since(call.opened).as_micros() as u64;
        tracing::info!(call = %call.log_id, number = number.0, us, "call answered");
        let Phase::Opening { until, waiting } = std::mem::replace(&mut call.phase, Phase::Live { answer }) else {
            unreachable!("checked above")
        };
        let response = opened(call);
        self.timers.disarm(until, Timer::Opening(number));
        for (index, ticket) in waiting.into_iter().enumerate() {
            if let Some(exchange) = self.connections.exchange(ticket) {
                exchange.opened_call = (index == 0).then_some(number);
            }
            self.answer(now, ticket, response.clone());
        }
        self.meta_answered(now, number);
    }

    /// A worker does not take a call.
    pub(super) fn call_refused(&mut self, now: Instant, number: CallNumber, why: &OpenRefusal) {
        let Some(call) = self.calls.remove(number) else { return };
        let refusal = match why {
            OpenRefusal::NoPort(detail) => {
                let error = format!("No media port could be opened: {detail}");
                Refusal::new(503, "no_port", error).retry_after(FULL_RETRY_SEC)
            }
            OpenRefusal::Offer { code, text } => {
                Refusal::new(400, code, format!("sdpOffer cannot be answered: {text}"))
            }
            OpenRefusal::Stopping => draining(),
            OpenRefusal::Internal(detail) => {
                tracing::error!(call = %call.log_id, detail, "a call could not be opened");
                Refusal::new(500, "internal", "Failed to create session")
            }
        };
        tracing::info!(call = %call.log_id, number = number.0, code = refusal.code, "call refused by its worker");
        *self.stats.refused.entry(refusal.code).or_default() += 1;
        if let Phase::Opening { until, waiting } = call.phase {
            self.timers.disarm(until, Timer::Opening(number));
            self.refuse_all(now, waiting, &refusal);
        }
        self.refuse_all(now, call.waiting, &unknown_session());
        self.meta_ended(now, call.meta.as_deref().map(MetaRecord::key), CloseReason::InternalError);
    }

    /// A worker has not answered an offer in time: the request is refused, and the call ended should it come to be.
    pub(super) fn opening_timed_out(&mut self, now: Instant, number: CallNumber) {
        let Some(call) = self.calls.by_number_mut(number) else { return };
        let Phase::Opening { waiting, .. } = &mut call.phase else { return };
        let (waiting, worker) = (std::mem::take(waiting), call.worker);
        call.closing = true;
        tracing::error!(call = %call.log_id, number = number.0, worker, "the worker did not answer an offer");
        self.tell(worker, ToWorker::Hangup(number, CloseReason::InternalError));
        let refusal = worker_silent(&[worker]);
        *self.stats.refused.entry(refusal.code).or_default() += 1;
        self.refuse_all(now, waiting, &refusal);
        let line = self.calls.by_number(number).and_then(Call::line);
        self.meta_ended(now, line, CloseReason::InternalError);
    }

    /// DTLS is up.
    pub(super) fn call_connected(&mut self, now: Instant, number: CallNumber) {
        let Some(call) = self.calls.by_number_mut(number) else { return };
        call.connected = true;
        let waiting = std::mem::take(&mut call.waiting);
        self.release(now, number, waiting);
        self.meta_connected(now, number);
    }

    /// A call is over.
    pub(super) fn call_ended(&mut self, now: Instant, report: Box<CallReport>, mut stages: Stages) {
        let number = report.call;
        if let Some(log_id) = self.log_id(number) {
            log_end(log_id, &report);
        }
        self.tell_of_end(&report);
        let call = self.calls.by_number_mut(number);
        if let Some(setup) = call.as_ref().and_then(|call| call.setup) {
            stages.record(Stage::Setup, setup);
        }
        let waiting = call.map(|call| std::mem::take(&mut call.waiting));
        let latency = PackedStages::pack(&stages);
        let hung_up = report.close == Some(CloseReason::Hangup);
        // Taken before the call is put away: where its id has been given to another, it is forgotten at once.
        let line = self.calls.by_number(number).and_then(Call::line);
        let reason = report.close.unwrap_or(CloseReason::InternalError);
        let Some(phase) = self.calls.end(now, report, latency, &mut self.timers) else { return };
        if let Phase::Opening { until, waiting } = phase {
            self.timers.disarm(until, Timer::Opening(number));
            // Whoever hung up would not know of the call on another server, where a balancer takes what is refused with 503.
            let status = if hung_up { 409 } else { 503 };
            let ended = || Refusal::new(status, "ended", "The call was ended before it was answered.");
            let refusal = if self.is_leaving() && !hung_up { draining() } else { ended() };
            self.refuse_all(now, waiting, &refusal);
        }
        self.release(now, number, waiting.unwrap_or_default());
        self.meta_ended(now, line, reason);
    }

    /// Answers requests that have waited for the call to connect or end.
    fn release(&mut self, now: Instant, number: CallNumber, waiting: Vec<Ticket>) {
        for ticket in waiting {
            self.stop_waiting(ticket);
            self.describe(now, ticket, number);
        }
    }
}

fn offer_hash(offer: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, offer.as_bytes()).as_ref());
    hash
}

/// The answer to an offer, as often as it is posted.
fn opened(call: &Call) -> Response {
    let Phase::Live { answer } = &call.phase else { unreachable!("callers have matched an answered call") };
    let view =
        json::OpenedView { success: true, call_id: call.id.expose(), session_id: &call.session_id, sdp_answer: answer };
    json_response(200, view.bytes())
}

/// `?wait=connected`.
fn waits_for_connected(head: &Head) -> Result<bool, Refusal> {
    match head.target.query.iter().find(|(name, _)| name == "wait") {
        None => Ok(false),
        Some((_, value)) if value == "connected" => Ok(true),
        Some(_) => Err(Refusal::field("wait must be connected.")),
    }
}

/// 404, in the words that the deployed webhook knows.
pub(super) fn unknown_session() -> Refusal {
    Refusal::new(404, "not_found", "Session not found")
}
