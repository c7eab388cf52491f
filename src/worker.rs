//! The data plane of one core: its calls, their sockets and streams, and when each of them next wants to run.
//!
//! A call lives and dies here. The worker maps sockets and streams to calls, keeps the queue of deadlines, and stands
//! between a call and everything else: a call that panics is counted and ends alone. It must not know how a call works.

mod links;
mod load;
mod survey;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tracing::{debug, error, info};

use crate::call::{Call, CallConfig, CodecTime, StreamEvent};
use crate::call_id::CallNumber;
use crate::close_reason::CloseReason;
use crate::io::{Datagram, Deadline, Fault, Input, Machine, Node, Output, StreamKey};
use crate::messages::{
    CallReport, CallState, Ending, FromWorker, Message, OpenCall, OpenRefusal, Resolved, StartChecks, ToWorker,
};
use crate::peer::sdp::Policy;
use crate::slab::Slab;
use crate::stats::{Recorder, Stage, Stages, WorkerStats};
use links::{CallKey, Links, Out};
use load::Load;
use survey::{Found, Surveys, reported};
use timers::Timers;

pub use load::LoadSettings;

/// Beats of calls are spread by this step over the 20 ms: 20 ms times the golden ratio, so that any number of calls in
/// neighbouring slots lands about evenly.
const PHASE_STEP_US: u64 = 12_361;
const FRAME_US: u64 = 20_000;

/// Calls whose deadlines are served in one turn. Each may encode, 150 µs; what they send reaches the kernel at the turn's end,
/// so more of them would make the first wait for the last.
const DUE_PER_TURN: u32 = 4;

/// What a worker is told at its start.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Its index.
    pub index: u16,
    /// What its calls share.
    pub call: CallConfig,
    /// The advertised address.
    pub media_ip: IpAddr,
    /// Whether the HTTP API listens on loopback only: offers from loopback then get a loopback candidate.
    pub loopback_listener: bool,
    /// Which remote candidates may be used.
    pub policy: Policy,
    /// What the worker may do with its core.
    pub load: LoadSettings,
}

/// The calls of one core.
pub struct Worker {
    config: WorkerConfig,
    calls: Slab<Slot>,
    by_number: HashMap<CallNumber, CallKey>,
    links: Links,
    timers: Timers,
    outputs: VecDeque<Output<Message>>,
    /// Calls with marks that the next submit closes.
    marked: Vec<CallKey>,
    /// When this pass of the loop began.
    woke_at: Option<Instant>,
    /// Deadlines that this turn still serves.
    due_left: u32,
    load: Load,
    /// What the codecs of ended calls have taken.
    codec_ended: CodecTime,
    /// What ended calls and the worker itself have counted.
    totals: WorkerStats,
    /// What live and ended calls and the worker itself have measured.
    recorder: Recorder,
    surveys: Surveys,
    stopping: bool,
    stopped: bool,
}

enum Slot {
    /// Waits for its socket.
    Binding(Box<Binding>),
    Live(Box<Call>),
    /// Waits for its socket to be closed.
    Closing,
}

/// A call whose socket is being opened.
struct Binding {
    open: OpenCall,
    /// What the answer will advertise.
    address: IpAddr,
    /// `activate` came already.
    activated: bool,
}

impl Worker {
    /// A worker without calls.
    pub fn new(config: WorkerConfig) -> Self {
        let mut totals = WorkerStats::default();
        totals.ended.resize(CloseReason::ALL.len(), 0);
        Self {
            load: Load::new(config.load.clone()),
            config,
            calls: Slab::new(),
            by_number: HashMap::new(),
            links: Links::default(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            marked: Vec::new(),
            woke_at: None,
            due_left: DUE_PER_TURN,
            codec_ended: CodecTime::default(),
            totals,
            recorder: Recorder::new(),
            surveys: Surveys::default(),
            stopping: false,
            stopped: false,
        }
    }

    fn tell(&mut self, event: FromWorker) {
        let message = Message::FromWorker { worker: self.config.index, event };
        self.outputs.push_back(Output::Message { to: Node::Control, message });
    }

    fn handle_control(&mut self, now: Instant, message: ToWorker) {
        match message {
            ToWorker::Open(open) => self.take(*open),
            ToWorker::BeginChecks(number) => {
                if let Some(&key) = self.by_number.get(&number) {
                    if let Some(Slot::Binding(binding)) = self.calls.get_mut(key.slot, key.generation) {
                        binding.open.start_checks = StartChecks::AtOnce;
                    }
                    self.with_call(now, key, |call, out| call.begin_checks(now, out));
                }
            }
            ToWorker::Activate(number) => {
                if let Some(&key) = self.by_number.get(&number) {
                    if let Some(Slot::Binding(binding)) = self.calls.get_mut(key.slot, key.generation) {
                        binding.activated = true;
                    }
                    self.with_call(now, key, |call, out| call.activate(now, out));
                }
            }
            ToWorker::Hangup(number, reason) => {
                if let Some(&key) = self.by_number.get(&number) {
                    self.hangup(now, key, reason, String::new());
                }
            }
            ToWorker::Describe(request, number) => {
                let key = self.by_number.get(&number);
                let report = key.map(|key| match self.call(*key) {
                    Some(call) => reported(call, now),
                    None => CallReport::empty(number),
                });
                self.tell(FromWorker::Described(request, report.map(Box::new)));
            }
            ToWorker::Latency(request, number) => {
                let key = self.by_number.get(&number);
                let stages = key.map(|key| self.call(*key).map(|call| call.stages().clone()).unwrap_or_default());
                self.tell(FromWorker::Latency(request, stages.map(Box::new)));
            }
            ToWorker::List(request) => self.surveys.ask(now, request, Found::Calls(Vec::new())),
            ToWorker::Stats(request) => {
                let begun = Found::Sums(Box::new(self.totals.clone()));
                self.surveys.ask(now, request, begun);
            }
            ToWorker::Ping => self.tell(FromWorker::Pong),
            ToWorker::Stop(ending) => {
                self.stopping = true;
                let all: Vec<CallKey> =
                    self.calls.iter().map(|(slot, generation, _)| CallKey { slot, generation }).collect();
                for key in all {
                    match ending {
                        Ending::Goodbye => self.say_goodbye(now, key, CloseReason::ServerStopping),
                        Ending::AtOnce => self.hangup(now, key, CloseReason::ServerStopping, String::new()),
                    }
                }
            }
        }
    }

    /// Takes a call: first of all its socket, whose port the answer names.
    fn take(&mut self, open: OpenCall) {
        if self.stopping {
            self.tell(FromWorker::Refused { call: open.call, why: OpenRefusal::Stopping });
            return;
        }
        let address = self.local_address(&open);
        let number = open.call;
        let (slot, generation) =
            self.calls.insert(Slot::Binding(Box::new(Binding { open, address, activated: false })));
        let key = CallKey { slot, generation };
        self.by_number.insert(number, key);
        self.outputs.push_back(Output::BindUdp { socket: key.socket(), address });
    }

    /// The address that the answer advertises. A caller on this host (a browser, a test) can be reached on loopback only;
    /// it gets a loopback candidate back where the API itself is for this host only. Candidates that no policy uses say
    /// nothing: an offer as WhatsApp's carries an IPv6 address beside the one that is meant.
    fn local_address(&self, open: &OpenCall) -> IpAddr {
        if !self.config.loopback_listener {
            return self.config.media_ip;
        }
        // A loopback candidate in the answer allows loopback callers, see `make`.
        let policy = Policy { allow_private: true, ..self.config.policy.clone() };
        let candidates = open.offer.candidates.iter().map(|candidate| candidate.addr);
        let usable: Vec<SocketAddr> = candidates.filter(|addr| policy.usable(*addr).is_ok()).collect();
        if usable.is_empty() || !usable.iter().all(|addr| addr.ip().is_loopback()) {
            return self.config.media_ip;
        }
        if usable.iter().any(SocketAddr::is_ipv4) { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
    }

    fn bound(&mut self, now: Instant, key: CallKey, port: u16) {
        let slot = self.calls.get_mut(key.slot, key.generation);
        let Some(slot @ Slot::Binding(_)) = slot else {
            // Hung up while the socket was being opened: its close is already on the way.
            return;
        };
        let Slot::Binding(binding) = std::mem::replace(slot, Slot::Closing) else { unreachable!("matched above") };
        let Binding { open, address, activated } = *binding;
        let (number, start_checks) = (open.call, open.start_checks);
        let made = self.make(now, key, open, SocketAddr::new(address, port));
        match made {
            Ok((mut call, answer)) => {
                self.totals.opened += 1;
                call.set_complexity(self.load.complexity());
                if let Some(slot) = self.calls.get_mut(key.slot, key.generation) {
                    *slot = Slot::Live(Box::new(call));
                }
                self.tell(FromWorker::Answered { call: number, answer });
                self.with_call(now, key, |call, out| {
                    if activated {
                        call.activate(now, out);
                    }
                    match start_checks {
                        StartChecks::AtOnce => call.begin_checks(now, out),
                        StartChecks::WhenTold => call.handle_timeout(now, out),
                    }
                });
            }
            Err(why) => self.refuse(now, key, number, why),
        }
    }

    fn make(
        &mut self,
        now: Instant,
        key: CallKey,
        open: OpenCall,
        local: SocketAddr,
    ) -> Result<(Call, String), OpenRefusal> {
        let mut policy = self.config.policy.clone();
        policy.allow_private |= local.ip().is_loopback();
        policy.own_media_ip = local.ip();
        let selected = policy
            .select(&open.offer)
            .map_err(|error| OpenRefusal::Offer { code: error.code(), text: error.to_string() })?;
        let phase = Duration::from_micros(u64::from(key.slot) * PHASE_STEP_US % FRAME_US);
        let number = open.call;
        let mut out = self.links.out(key, number, self.config.index, &mut self.outputs, &mut self.recorder);
        let config = &self.config.call;
        let made =
            catch_unwind(AssertUnwindSafe(|| Call::open(now, config, open, selected.usable, local, phase, &mut out)));
        made.unwrap_or_else(|_| {
            self.totals.panics += 1;
            Err(OpenRefusal::Internal("the call panicked while it was opened".into()))
        })
    }

    fn refuse(&mut self, now: Instant, key: CallKey, number: CallNumber, why: OpenRefusal) {
        self.by_number.remove(&number);
        self.links.abandon(now, key, &mut self.outputs);
        self.outputs.push_back(Output::CloseUdp { socket: key.socket() });
        self.tell(FromWorker::Refused { call: number, why });
    }

    fn call(&self, key: CallKey) -> Option<&Call> {
        match self.calls.get(key.slot, key.generation) {
            Some(Slot::Live(call)) => Some(call),
            _ => None,
        }
    }

    /// Lets a call do something; then ends it if it is over or has panicked, and arms its next deadline.
    fn with_call(&mut self, now: Instant, key: CallKey, act: impl FnOnce(&mut Call, &mut Out<'_>)) {
        let Some(Slot::Live(call)) = self.calls.get_mut(key.slot, key.generation) else { return };
        let (number, index) = (call.number(), self.config.index);
        let mut out = self.links.out(key, number, index, &mut self.outputs, &mut self.recorder);
        let (awaited, was_connected) = (call.awaits_submit(), call.is_connected());
        let acted = catch_unwind(AssertUnwindSafe(|| {
            act(call, &mut out);
            if let Some(end) = call.end().cloned() {
                call.hangup(now, end.reason, end.detail, &mut out);
            }
            call.deadline().at
        }));
        let Ok(deadline) = acted else {
            error!(call = %call.log_id(), "a call panicked and was ended; the others go on");
            self.totals.panics += 1;
            self.bury(now, key, Some(CloseReason::InternalError));
            return;
        };
        if call.end().is_some() {
            self.bury(now, key, None);
            return;
        }
        if !awaited && call.awaits_submit() {
            self.marked.push(key);
        }
        self.timers.arm(key.slot, deadline);
        if !was_connected && call.is_connected() {
            self.tell(FromWorker::Connected(number));
        }
    }

    /// Ends a call once its caller has heard so, or at once where there is none to hear.
    fn say_goodbye(&mut self, now: Instant, key: CallKey, reason: CloseReason) {
        match self.calls.get(key.slot, key.generation) {
            Some(Slot::Live(_)) => self.with_call(now, key, |call, out| call.say_goodbye(now, reason, out)),
            _ => self.hangup(now, key, reason, String::new()),
        }
    }

    fn hangup(&mut self, now: Instant, key: CallKey, reason: CloseReason, detail: String) {
        match self.calls.get(key.slot, key.generation) {
            Some(Slot::Live(_)) => self.with_call(now, key, |call, out| call.hangup(now, reason, detail, out)),
            Some(Slot::Binding(binding)) => {
                let number = binding.open.call;
                if let Some(slot) = self.calls.get_mut(key.slot, key.generation) {
                    *slot = Slot::Closing;
                }
                self.by_number.remove(&number);
                self.outputs.push_back(Output::CloseUdp { socket: key.socket() });
                // Counted as taken, so that what was taken is what lives and what has ended.
                self.totals.opened += 1;
                let report = CallReport {
                    state: CallState::Ended,
                    close: Some(reason),
                    close_detail: Some(detail).filter(|detail| !detail.is_empty()),
                    ..CallReport::empty(number)
                };
                self.ended(report, Stages::new());
            }
            Some(Slot::Closing) | None => {}
        }
    }

    /// Takes an ended call out: its last report goes to control, its socket and streams are closed.
    fn bury(&mut self, now: Instant, key: CallKey, panicked: Option<CloseReason>) {
        let Some(slot) = self.calls.get_mut(key.slot, key.generation) else { return };
        let Slot::Live(mut call) = std::mem::replace(slot, Slot::Closing) else { return };
        self.timers.arm(key.slot, None);
        self.by_number.remove(&call.number());
        self.links.abandon(now, key, &mut self.outputs);
        self.outputs.push_back(Output::CloseUdp { socket: key.socket() });
        // A call that panicked may panic again when it is asked or dropped: that must not reach the others either.
        let number = call.number();
        self.codec_ended = sum(self.codec_ended, call.codec_time());
        let report = catch_unwind(AssertUnwindSafe(|| {
            let (report, stages) = (call.report(now), call.take_stages());
            drop(call);
            (report, stages)
        }));
        let reason = panicked.or_else(|| report.as_ref().ok()?.0.close).unwrap_or(CloseReason::InternalError);
        let (report, stages) = report.unwrap_or_else(|_| (CallReport::empty(number), Stages::new()));
        add_report(&mut self.totals, &report);
        self.surveys.ended(key.slot, &report);
        self.ended(CallReport { state: CallState::Ended, close: Some(reason), ..report }, stages);
    }

    /// Counts an ended call and tells control.
    fn ended(&mut self, report: CallReport, stages: Stages) {
        if let Some(index) = CloseReason::ALL.iter().position(|each| Some(*each) == report.close) {
            self.totals.ended[index] += 1;
        }
        self.tell(FromWorker::Ended(Box::new(report), Box::new(stages)));
    }

    /// Does the next piece of what was asked about all calls.
    fn survey(&mut self, now: Instant) {
        self.recorder.rotate(now);
        let Some(done) = self.surveys.step(now, &self.calls, &self.recorder) else { return };
        let answer = match done.found {
            Found::Calls(reports) => FromWorker::Listed(done.request, reports),
            Found::Sums(sums) => FromWorker::Stats(done.request, sums),
        };
        self.tell(answer);
    }

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        let key = CallKey::of(datagram.socket);
        if self.call(key).is_none() {
            self.totals.stray_datagrams += 1;
            return;
        }
        self.with_call(now, key, |call, out| {
            call.handle_datagram(now, datagram.received, datagram.from, datagram.payload, out);
        });
    }

    fn handle_stream(&mut self, now: Instant, stream: StreamKey, event: StreamEvent<'_>) {
        match self.links.owner(stream) {
            Some((key, attempt)) => {
                self.with_call(now, key, |call, out| call.handle_stream(now, attempt, event, out));
            }
            None => self.links.orphan(stream, &event, &mut self.outputs),
        }
    }

    fn handle_resolved(&mut self, now: Instant, resolved: Resolved) {
        if let Some(&key) = self.by_number.get(&resolved.call) {
            self.with_call(now, key, |call, out| call.handle_resolved(now, resolved.outcome, out));
        }
    }

    fn run_due(&mut self, now: Instant) {
        while self.due_left > 0
            && let Some(slot) = self.timers.pop_due(now)
        {
            self.due_left -= 1;
            let Some(generation) = self.calls.generation(slot) else { continue };
            self.with_call(now, CallKey { slot, generation }, |call, out| call.handle_timeout(now, out));
        }
        self.links.cut_overdue(now, &mut self.outputs);
    }

    fn submitted(&mut self, now: Instant) {
        self.due_left = DUE_PER_TURN;
        for key in self.marked.drain(..) {
            if let Some(Slot::Live(call)) = self.calls.get_mut(key.slot, key.generation) {
                call.submitted(now, &mut |stage, latency| {
                    self.recorder.record(stage, latency);
                    if stage == Stage::TickLate {
                        self.load.frame_late(latency);
                    }
                });
            }
        }
        if let Some(woke_at) = self.woke_at.take() {
            self.recorder.record(Stage::Turn, now.saturating_duration_since(woke_at));
        }
        self.recorder.rotate(now);
    }

    /// Measures the load when it is time, tells control, and has the encoders follow.
    fn measure_load(&mut self, now: Instant) {
        let before = self.load.complexity();
        let (calls, ended) = (&self.calls, self.codec_ended);
        let live = |slot: &Slot| if let Slot::Live(call) = slot { call.codec_time() } else { CodecTime::default() };
        let codec = || calls.iter().map(|(_, _, slot)| live(slot)).fold(ended, sum);
        let Some(report) = self.load.sample(now, calls.len() as u32, codec) else { return };
        let complexity = report.complexity;
        if complexity != before {
            info!(
                worker = self.config.index,
                from = before,
                to = complexity,
                busy = report.busy,
                "encoders change effort"
            );
            for slot in self.calls.iter_mut() {
                if let Slot::Live(call) = slot {
                    call.set_complexity(complexity);
                }
            }
        }
        self.tell(FromWorker::Load(report));
    }

    fn udp_refused(&mut self, now: Instant, key: CallKey, fault: Fault) {
        let slot = self.calls.get_mut(key.slot, key.generation);
        if let Some(slot @ Slot::Binding(_)) = slot
            && let Slot::Binding(binding) = std::mem::replace(slot, Slot::Closing)
        {
            debug!(%fault, call = %binding.open.log_id, "no media socket");
            self.refuse(now, key, binding.open.call, OpenRefusal::NoPort(fault.to_string()));
        }
    }
}

impl Machine for Worker {
    type Message = Message;

    fn handle_input(&mut self, now: Instant, input: Input<'_, Message>) {
        if matches!(input, Input::Submitted) {
            self.submitted(now);
            return;
        }
        self.woke_at.get_or_insert(now);
        self.measure_load(now);
        let is_timeout = matches!(input, Input::Timeout);
        match input {
            Input::Datagram(datagram) => self.handle_datagram(now, datagram),
            Input::UdpBound { socket, port } => self.bound(now, CallKey::of(socket), port),
            Input::UdpRefused { socket, fault } => self.udp_refused(now, CallKey::of(socket), fault),
            Input::SendFailed { .. } => self.totals.send_failures += 1,
            Input::UdpClosed { socket } => {
                self.calls.remove(socket.slot, socket.generation);
            }
            Input::Accepted { stream, .. } => self.outputs.push_back(Output::Close { stream }),
            Input::Connected { stream } => {
                self.links.connected(stream);
                self.handle_stream(now, stream, StreamEvent::Connected);
            }
            Input::Received { stream, bytes } => self.handle_stream(now, stream, StreamEvent::Received(bytes)),
            Input::Ended { stream } => self.handle_stream(now, stream, StreamEvent::Ended),
            Input::Failed { stream, fault } => self.handle_stream(now, stream, StreamEvent::Failed(fault)),
            Input::Written { stream, len, buffer } => {
                self.handle_stream(now, stream, StreamEvent::Written(len, buffer));
            }
            Input::Closed { stream } => self.links.closed(stream),
            Input::Message(Message::ToWorker(message)) => self.handle_control(now, message),
            Input::Message(Message::Resolved(resolved)) => self.handle_resolved(now, resolved),
            // Control alone is told to stop; it tells us.
            Input::Message(_) | Input::Stop | Input::Timeout | Input::Submitted => {}
        }
        self.run_due(now);
        // At most once a turn, and behind the beats that were due.
        if is_timeout {
            self.survey(now);
        }
    }

    fn poll_output(&mut self) -> Output<Message> {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        if self.stopping && !self.stopped && self.calls.is_empty() && self.links.is_empty() {
            self.stopped = true;
            return Output::Message {
                to: Node::Control,
                message: Message::FromWorker { worker: self.config.index, event: FromWorker::Stopped },
            };
        }
        if self.stopped {
            return Output::Exit;
        }
        let calls = self.timers.next().map_or(Deadline::NEVER, |at| Deadline::at(at, "call"));
        let load = self.load.due(self.calls.len() as u32).map_or(Deadline::NEVER, |at| Deadline::at(at, "load"));
        Output::Timeout(calls.min(self.links.deadline()).min(self.surveys.deadline()).min(load))
    }
}

fn sum(a: CodecTime, b: CodecTime) -> CodecTime {
    CodecTime { encode_ns: a.encode_ns + b.encode_ns, decode_ns: a.decode_ns + b.decode_ns }
}

fn add_report(stats: &mut WorkerStats, report: &CallReport) {
    stats.peer.add(&report.peer);
    stats.uplink.add(&report.uplink);
    stats.downlink.add(&report.downlink);
    stats.agent.add(&report.agent);
}
