//! Control: the HTTP session API, placement of calls on workers, and the metrics text.
//!
//! One machine on one thread. It accepts connections only as it can take them, answers what it knows at once, asks
//! workers for what they know, and bounds every wait. It numbers calls for the workers, and knows them by the webhook's
//! id; an id that was seen is a name for one call, so that a webhook may repeat itself.
//!
//! This module must not know how a call works: reports pass through it as plain data.

mod agent_check;
mod answer;
mod calls;
mod connections;
mod drain;
mod end_log;
mod events;
mod forward;
mod gate;
mod gather;
mod handover;
mod json;
mod latency;
mod log_limit;
mod meta;
mod page;
mod placement;
mod reload;
mod route;
mod session_request;
mod sessions;
mod supervision;
mod timers;
mod webhook;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call_id::CallNumber;
use crate::config::Config;
use crate::http::{Event, Response};
use crate::io::{Deadline, Door, Entropy, Input, Machine, Node, Output};
use crate::messages::{FromWorker, Message, RequestId, ToWorker};
use crate::stats::{BuildInfo, ControlStats, CounterReader, MetaStats, ProcessReader, Recorder};
use crate::tls::Acceptor;
use crate::whatsapp::{self, graph};

use agent_check::AgentCheck;
use answer::Refusal;
use calls::Calls;
use connections::{Connections, Exchange, Ticket};
use drain::{Life, Successor};
use gate::{Gate, secrets_match};
use gather::Gather;
use handover::Handover;
use log_limit::LogLimit;
use page::Page;
use supervision::Supervision;
use timers::{Timer, Timers};
use wire::News;

use meta::Meta;
pub use meta::check_numbers;

/// A worker answers within this time or the request that needs it is refused. A turn of a worker's loop is well below
/// 20 ms; one that takes seconds is stuck.
const WORKER_TIME_MAX: Duration = Duration::from_secs(2);
/// `?wait=connected` waits this long: the limit that ends a call which does not connect.
const WAIT_TIME_MAX: Duration = Duration::from_secs(30);

/// What control is made of.
#[derive(Debug)]
pub struct ControlConfig {
    /// The settings.
    pub config: Arc<Config>,
    /// What `/metrics` says is running.
    pub build: BuildInfo,
    /// What makes the API speak TLS.
    pub tls: Option<Acceptor>,
    /// Session ids come from here.
    pub entropy: Entropy,
    /// What the drivers count, for `/metrics`.
    pub driver_counters: CounterReader,
    /// What the process uses, for `/metrics`.
    pub process: ProcessReader,
    /// How often a watchdog wants to know that all loops turn; `None`: there is none.
    pub alive_every: Option<Duration>,
    /// The numbers whose calls are taken from Meta's webhook; checked by [`check_numbers`]. `None`: there is no such webhook.
    pub whatsapp: Option<whatsapp::Settings>,
    /// What an earlier process has noted and not removed ([`crate::messages::Note::Put`]): calls that Meta may believe alive.
    pub notes: Vec<(u64, String)>,
    /// Seconds since 1970, to tell how old a webhook is.
    pub unix_sec: fn() -> u64,
}

/// The control plane.
#[derive(Debug)]
pub struct Control {
    config: Arc<Config>,
    build: BuildInfo,
    /// What new connections speak TLS with.
    tls: Option<Acceptor>,
    entropy: Entropy,
    driver_counters: CounterReader,
    process: ProcessReader,
    started: Instant,
    gate: Gate,
    page: Option<Page>,
    /// Where connections are accepted.
    doors: Vec<Door>,
    connections: Connections,
    calls: Calls,
    gathers: std::collections::BTreeMap<RequestId, Gather>,
    requests_asked: u64,
    timers: Timers,
    stats: ControlStats,
    recorder: Recorder,
    refusals_logged: LogLimit,
    agent_check: AgentCheck,
    supervision: Supervision,
    life: Life,
    successor: Successor,
    handover: Handover,
    /// Meta's webhook, where it is served.
    meta: Option<Meta>,
    unix_sec: fn() -> u64,
    outputs: VecDeque<Output<Message>>,
}

impl Control {
    /// Control as it starts: its first outputs ask for connections.
    pub fn new(now: Instant, parts: ControlConfig) -> Self {
        let ControlConfig {
            config,
            build,
            tls,
            entropy,
            driver_counters,
            process,
            alive_every,
            whatsapp,
            notes,
            unix_sec,
        } = parts;
        let stats = ControlStats {
            calls_max: config.calls_max.into(),
            retired_models: config.model_was_retired.is_some().into(),
            tls_not_after_sec: tls.as_ref().and_then(|tls| Some(tls.certificate()?.not_after_sec)),
            meta: if whatsapp.is_some() { MetaStats::served(graph::labels()) } else { MetaStats::default() },
            ..ControlStats::default()
        };
        let mut control = Self {
            gate: Gate::new(&config.api_tokens),
            page: config.page.then(Page::new),
            calls: Calls::new(config.workers),
            doors: doors(&config),
            connections: Connections::new(whatsapp.is_some()),
            gathers: std::collections::BTreeMap::new(),
            requests_asked: 0,
            timers: Timers::default(),
            stats,
            recorder: Recorder::new(),
            refusals_logged: LogLimit::new(now),
            agent_check: AgentCheck::default(),
            supervision: Supervision::new(alive_every),
            life: Life::Serving,
            successor: Successor::None,
            handover: Handover::new(config.workers, config.pair.is_some()),
            meta: whatsapp.map(|settings| Meta::new(settings, &config)),
            unix_sec,
            outputs: VecDeque::new(),
            started: now,
            config,
            build,
            tls,
            entropy,
            driver_counters,
            process,
        };
        control.arm_accepts();
        control.ask_for_life(now);
        control.begin_start();
        control.end_orphans(now, notes);
        control.probe_all(now);
        control
    }

    /// A number for a question, never used before.
    fn request_id(&mut self) -> RequestId {
        self.requests_asked += 1;
        RequestId(self.requests_asked)
    }

    fn tell(&mut self, worker: u16, message: ToWorker) {
        self.outputs.push_back(Output::Message { to: Node::Worker(worker), message: Message::ToWorker(message) });
    }

    fn arm_accepts(&mut self) {
        for door in Door::ALL {
            while self.doors.contains(&door)
                && self.accepts_at(door)
                && let Some(stream) = self.connections.offer(door)
            {
                self.outputs.push_back(Output::Accept { stream, door });
            }
        }
    }

    /// Takes what a connection has to say until it has no more, and sets its timer.
    fn pump(&mut self, now: Instant, stream: crate::io::StreamKey) {
        while let Some(event) = self.connections.poll(now, stream) {
            match event {
                Event::Request(request) => {
                    let ticket = self.connections.begin(stream, Exchange::new(now, request.head.method.label()));
                    self.serve(now, ticket, &request);
                }
                Event::Bad(problem) => {
                    let ticket = self.connections.begin(stream, Exchange::new(now, "none"));
                    let refusal = Refusal::new(problem.status, problem.code, problem.text);
                    let refusal = match problem.retry_after_sec() {
                        None => refusal,
                        Some(seconds) => refusal.retry_after(seconds),
                    };
                    self.refuse(now, ticket, &refusal);
                }
                Event::Answered => {
                    if let Some(exchange) = self.connections.end(stream)
                        && let Some(call) = exchange.opened_call
                    {
                        self.set_up(call, now.saturating_duration_since(exchange.read_at));
                    }
                }
                Event::Write(bytes) => self.outputs.push_back(Output::Write { stream, bytes }),
                Event::Read(on) => self.outputs.push_back(Output::Read { stream, on }),
                Event::Shutdown => self.outputs.push_back(Output::Shutdown { stream }),
                Event::Close => self.close(stream),
            }
        }
        self.connections.rearm(stream, &mut self.timers);
    }

    fn received(&mut self, now: Instant, stream: crate::io::StreamKey, bytes: &[u8]) {
        match self.connections.received(now, stream, bytes) {
            News::None => {}
            News::Secured { resumed } => self.stats.handshakes.secured(resumed),
            News::Failed { handshaking, why } => {
                self.stats.handshakes.failed += u64::from(handshaking);
                if let Some(unsaid) = self.refusals_logged.take(now) {
                    tracing::info!(why, handshaking, unsaid, "TLS with a client failed");
                }
            }
            News::NotTls => {
                self.stats.handshakes.plain += 1;
                let ticket = self.connections.refuse_unasked(now, stream);
                let text = "This port speaks TLS: use https://";
                self.refuse(now, ticket, &Refusal::new(400, "tls_required", text));
            }
        }
    }

    fn close(&mut self, stream: crate::io::StreamKey) {
        if !self.connections.is_held(stream) {
            return;
        }
        if let Some(exchange) = self.connections.close(stream, &mut self.timers) {
            self.calls.forget_waiter(exchange.waits_for, stream);
            if let Some(until) = exchange.waits_until {
                self.timers.disarm(until, Timer::Waiter(stream));
            }
        }
        self.outputs.push_back(Output::Close { stream });
    }

    /// Answers a request, if its connection still stands.
    fn answer(&mut self, now: Instant, ticket: Ticket, mut response: Response) {
        response.close |= self.is_leaving();
        let status = response.status;
        let Some(exchange) = self.connections.respond(now, ticket, response) else { return };
        *self.stats.requests.entry((exchange.route, status)).or_default() += 1;
        let us = now.saturating_duration_since(exchange.read_at).as_micros() as u64;
        let call = exchange.call.map(tracing::field::display);
        tracing::debug!(method = exchange.method, route = exchange.route, status, us, call, "request");
        self.calls.forget_waiter(exchange.waits_for.take(), ticket.stream);
        if let Some(until) = exchange.waits_until.take() {
            self.timers.disarm(until, Timer::Waiter(ticket.stream));
        }
    }

    /// Refuses a request.
    fn refuse(&mut self, now: Instant, ticket: Ticket, refusal: &Refusal) {
        if let Some(exchange) = self.connections.exchange(ticket)
            && let Some(unsaid) = self.refusals_logged.take(now)
        {
            let call = exchange.call.map(tracing::field::display);
            let (route, status, code) = (exchange.route, refusal.status, refusal.code);
            tracing::info!(route, status, code, call, unsaid, "request refused");
        }
        self.answer(now, ticket, refusal.response());
    }

    fn timers_due(&mut self, now: Instant) {
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Connection(stream) => self.connections.timed_out(now, stream),
                Timer::Gather(id) => self.gather_timed_out(now, id),
                Timer::Opening(call) => self.opening_timed_out(now, call),
                Timer::Waiter(stream) => self.wait_timed_out(now, stream),
                Timer::Forget(call) => self.calls.forget(call),
                Timer::Accept => self.connections.accept_again(),
                Timer::AgentCheck(stream) => self.agent_is_done(stream),
                Timer::Status => self.status_due(),
                Timer::Alive => self.ask_for_life(now),
                Timer::Ask(stream) => self.ask_timed_out(now, stream),
                Timer::TakeOver => self.ask_to_hand_over(now),
                Timer::DrainOver => self.drain_over(now),
                Timer::DrainLog => self.log_drain(now),
                Timer::Stop => self.stop_timed_out(),
                Timer::Meta(key) => self.meta_due(now, key),
                Timer::GraphProbe => self.probe_some(now),
            }
        }
    }

    fn worker_says(&mut self, now: Instant, worker: u16, event: FromWorker) {
        self.worker_started(now, worker);
        match event {
            FromWorker::Answered { call, answer } => self.call_answered(now, call, answer),
            FromWorker::Refused { call, why } => self.call_refused(now, call, &why),
            FromWorker::Connected(call) => self.call_connected(now, call),
            FromWorker::Ended(report, stages) => self.call_ended(now, report, *stages),
            FromWorker::Described(id, report) => self.described(now, id, report.as_deref()),
            FromWorker::Listed(id, reports) => self.listed(now, worker, id, reports),
            FromWorker::Latency(id, stages) => self.measured(now, id, stages.map(|stages| *stages)),
            FromWorker::Stats(id, stats) => self.counted(now, worker, id, &stats),
            FromWorker::Load(report) => self.calls.loaded(worker, report),
            FromWorker::Stopped => {
                self.worker_stopped(worker);
                self.worker_turns(worker);
                self.gone(now, worker);
            }
            FromWorker::Pong => self.worker_turns(worker),
        }
    }

    /// The log word for a call.
    fn log_id(&self, call: CallNumber) -> Option<crate::call_id::LogId> {
        self.calls.by_number(call).map(|call| call.log_id)
    }
}

/// Where this process accepts connections.
fn doors(config: &Config) -> Vec<Door> {
    let agent_check = config.drain.agent_check_listen.map(|_| Door::AgentCheck);
    let local = config.pair.as_ref().map(|_| Door::Local);
    [Some(Door::Api), local, agent_check].into_iter().flatten().collect()
}

impl Machine for Control {
    type Message = Message;

    fn handle_input(&mut self, now: Instant, input: Input<'_, Message>) {
        match input {
            Input::Submitted => return,
            Input::Accepted { stream, door: Door::AgentCheck, .. } => self.agent_asks(now, stream),
            Input::Accepted { stream, .. } => {
                let refused = self.connections.accepted(now, stream, self.tls.as_ref());
                self.stats.connections_accepted += 1;
                if let Some(ticket) = refused {
                    let text = "Too many connections are open. Try again, or reuse one.";
                    self.refuse(now, ticket, &Refusal::new(503, "too_many_connections", text).retry_after(1));
                }
            }
            Input::Received { stream, bytes } => {
                if !self.ask_received(now, stream, bytes) {
                    self.received(now, stream, bytes);
                }
            }
            Input::Ended { stream } => {
                self.connections.ended(now, stream);
                self.agent_is_done(stream);
                self.ask_broke(now, stream, None);
            }
            Input::Written { stream, .. } => self.connections.written(now, stream),
            Input::Failed { stream, fault } => {
                if self.connections.is_offered(stream) {
                    tracing::warn!(%fault, "a connection could not be accepted");
                    self.connections.pause_accepts(now, &mut self.timers);
                }
                self.agent_is_done(stream);
                self.ask_broke(now, stream, Some(fault));
                self.close(stream);
            }
            Input::Connected { stream } => self.ask_connected(stream),
            Input::Closed { stream } => self.connections.closed(stream),
            Input::Message(Message::FromWorker { worker, event }) => self.worker_says(now, worker, event),
            Input::Message(Message::Reload(reloaded)) => self.reloaded(now, *reloaded),
            Input::Message(Message::GraphAnswered(answer)) => self.graph_answered(now, &answer),
            Input::Message(Message::Forwarded(forwarded)) => self.forwarded(forwarded),
            Input::Stop => self.signalled(now),
            // What is due is done below. Control asks for neither datagrams nor names: nothing of the rest is ever for it.
            Input::Timeout
            | Input::Message(
                Message::ToWorker(_)
                | Message::Resolve(_)
                | Message::Resolved(_)
                | Message::Event(_)
                | Message::Notify(_)
                | Message::AskGraph(_)
                | Message::Forward(_)
                | Message::Note(_),
            )
            | Input::Datagram(_)
            | Input::UdpBound { .. }
            | Input::UdpRefused { .. }
            | Input::SendFailed { .. }
            | Input::UdpClosed { .. } => {}
        }
        self.timers_due(now);
        while let Some(stream) = self.connections.touched() {
            self.pump(now, stream);
        }
        self.arm_accepts();
        self.go_on_leaving(now);
        self.tell_status(now);
    }

    fn poll_output(&mut self) -> Output<Message> {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        Output::Timeout(match self.timers.next() {
            Some((at, reason)) if self.life != Life::Done => Deadline::at(at, reason),
            _ => Deadline::NEVER,
        })
    }
}
