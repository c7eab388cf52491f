//! Meta's side of WhatsApp calls on one machine: webhooks, Graph API, relay and callers, for tests, demos and other
//! people's bridges.
//!
//! [`Simulator`] is a [`Machine`] for the ordinary drivers: an HTTP server that is the Graph API, an HTTP client that posts
//! webhooks, one UDP socket that is the relay ([`crate::relay`]), and what callers say and hear. It runs scenarios
//! ([`scenarios`]), holds the bridge to what each expects, and hands a [`report::Report`] to its owner.
//!
//! It judges the bridge, and so shares no reading of SDP and no signature with it: what it checks it reads itself. Whatever
//! Meta's behaviour is only inferred from, it says so ([`Certainty`]).

mod call;
mod echo;
mod expect;
pub mod flags;
mod graph;
mod life;
pub mod phone;
pub mod report;
mod runs;
pub mod scenario;
pub mod scenarios;
pub mod sdp;
mod served;
mod service;
mod signature;
pub mod wav;
mod webhooks;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::http::{Method, Request as HttpRequest};
use crate::io::{Datagram, Deadline, Input, Machine, Output, SocketKey, StreamKey};
use crate::load::requests::Requests;
use crate::relay::record::Detail;
use crate::relay::rng::Rng;
use crate::relay::{CallKey, Relay};
use crate::tls::Tls;

pub use expect::Check;
use graph::{Asked, Refusal};
use phone::Words;
use report::{Report, ScenarioReport};
use runs::{Delivery, Run};
use scenario::{Act, Scenario};
use served::{Served, Ticket};

/// Calls of one burst: beyond it one thread is the bottleneck.
pub const CALLS_MAX: usize = 1_000;

/// Scenarios at once: each has calls of its own.
pub const AT_ONCE_MAX: usize = 64;

/// How often what is overdue is looked for.
const TICK: Duration = Duration::from_millis(50);

/// The relay's one socket.
const SOCKET: SocketKey = SocketKey { slot: 0, generation: 0 };

/// Kinds of stray requests that are told.
const STRAYS_MAX: usize = 16;

/// How sure it is that Meta behaves so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Meta's documentation says so.
    Documented,
    /// It was seen on a live number.
    Seen,
    /// It follows from what is known, or is the stricter of two guesses.
    Inferred,
}

impl Certainty {
    /// The word for reports.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Documented => "documented",
            Self::Seen => "seen live",
            Self::Inferred => "inferred",
        }
    }
}

/// What the bridge and Meta know of each other.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The number's id, digits.
    pub phone_number_id: String,
    /// What asks the Graph API.
    pub access_token: String,
    /// What signs webhooks.
    pub app_secret: String,
    /// What is shown when the webhook is verified.
    pub verify_token: String,
}

impl fmt::Debug for Account {
    /// Secrets are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.phone_number_id)
    }
}

/// Where webhooks go.
#[derive(Clone, Debug)]
pub struct Target {
    /// The bridge.
    pub server: SocketAddr,
    /// Where it speaks TLS: with what, and the name that its certificate must be for.
    pub tls: Option<(Tls, String)>,
    /// For `Host`.
    pub authority: String,
    /// The path.
    pub path: String,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct SimulatorConfig {
    /// Where webhooks go.
    pub webhook: Target,
    /// Where the relay listens, and what its offers name.
    pub relay_ip: IpAddr,
    /// What both sides know.
    pub account: Account,
    /// What is run, in this order.
    pub scenarios: Vec<&'static Scenario>,
    /// Whether it stays when they are over, and runs what is asked for.
    pub serve: bool,
    /// So many of them at once, 1 to [`AT_ONCE_MAX`].
    pub at_once: usize,
    /// Calls of a burst, 1 to [`CALLS_MAX`].
    pub burst: usize,
    /// How long callers talk, where a scenario leaves that open; `None`: as long as the scenario says.
    pub talk: Option<Duration>,
    /// Whether the agent is known to say a caller's words back, as the built-in one does: then that is checked as well.
    pub says_back: bool,
    /// Whether what callers hear is kept.
    pub record: bool,
    /// What callers say: 24 kHz mono.
    pub speech: Vec<i16>,
    /// For everything that is drawn.
    pub seed: u64,
    /// The wall clock, in Unix seconds: webhooks carry it.
    pub unix_sec: fn() -> u64,
}

/// Something that happened in a call, to be shown as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The scenario.
    pub scenario: &'static str,
    /// The call's number in it, from 0.
    pub call: usize,
    /// How long after the scenario began.
    pub at: Duration,
    /// Who does something to whom.
    pub who: &'static str,
    /// What.
    pub text: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, call, at, who, text } = self;
        let call = if *call == 0 { String::new() } else { format!(" {}", call + 1) };
        write!(f, "{:>8.3} s  {:<22}{who:<17}{text}", at.as_secs_f64(), format!("{scenario}{call}"))
    }
}

/// What the machine tells while it runs.
#[derive(Debug)]
pub enum SimulatorEvent {
    /// Something happened.
    Told(Told),
    /// What a caller heard: a name for it, and samples at 24 kHz.
    Recording(String, Vec<i16>),
    /// A scenario is over.
    Scenario(Box<ScenarioReport>),
    /// All are; the last event.
    Finished(Box<Report>),
}

/// Where it tells it.
pub type Sink = Box<dyn FnMut(SimulatorEvent)>;

/// A call of a run: the run's number, and the call's in it.
type Place = (usize, usize);

/// Something that is done when its time comes.
#[derive(Debug)]
enum Due {
    /// The call begins.
    Call(Place),
    /// A webhook is sent.
    Deliver(u64),
    /// A request is decided on.
    Decide(Ticket, Box<Result<Asked, Refusal>>, Option<Place>),
    /// The answer is applied.
    Apply(Place),
    /// Nobody has taken the call.
    RungOut(Place),
    /// The caller does something.
    Act(Place, Act),
}

/// The machine.
pub struct Simulator {
    config: SimulatorConfig,
    sink: Sink,
    rng: Rng,
    words: Words,
    /// `None` before the port is known.
    relay: Option<Relay>,
    served: Served,
    requests: Requests<u64>,
    /// Those that are not begun.
    waiting: VecDeque<&'static Scenario>,
    runs: BTreeMap<usize, Run>,
    runs_begun: usize,
    /// Scenarios that were to be run.
    wanted: usize,
    is_stopping: bool,
    by_id: HashMap<String, Place>,
    by_key: HashMap<CallKey, Place>,
    deliveries: HashMap<u64, Delivery>,
    deliveries_made: u64,
    timers: BTreeMap<(Instant, u64), Due>,
    timers_made: u64,
    tick: Option<Instant>,
    /// Whether the webhook was ever answered, by whatever.
    is_heard: bool,
    report: Report,
    is_over: bool,
    outputs: VecDeque<Output<()>>,
}

impl Simulator {
    /// A simulator that has not begun. Encoding the speech takes a fraction of a second.
    pub fn new(config: SimulatorConfig, sink: Sink) -> Result<Self, String> {
        let words = Words::new(&config.speech).map_err(|error| format!("no voice: {error}"))?;
        let bind = Output::BindUdp { socket: SOCKET, address: config.relay_ip };
        Ok(Self {
            rng: Rng::new(config.seed),
            words,
            relay: None,
            served: Served::default(),
            requests: Requests::new(config.webhook.server, config.webhook.tls.clone()),
            waiting: config.scenarios.iter().copied().collect(),
            runs: BTreeMap::new(),
            runs_begun: 0,
            wanted: config.scenarios.len(),
            is_stopping: false,
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            deliveries: HashMap::new(),
            deliveries_made: 0,
            timers: BTreeMap::new(),
            timers_made: 0,
            tick: None,
            is_heard: false,
            report: Report::default(),
            is_over: false,
            outputs: [bind].into(),
            config,
            sink,
        })
    }

    fn bound(&mut self, now: Instant, port: u16) {
        let address = SocketAddr::new(self.config.relay_ip, port);
        self.relay = Some(Relay::new(address, self.rng.next_u64()).with_detail(Detail::Events));
        self.served.offer();
        self.tick = Some(now);
    }

    /// The relay; there is one once calls are.
    fn relay(&mut self) -> &mut Relay {
        self.relay.as_mut().expect("calls are made once the relay's port is known")
    }

    fn at(&mut self, at: Instant, due: Due) {
        self.timers_made += 1;
        self.timers.insert((at, self.timers_made), due);
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Due::Call(place) => self.begin_call(now, place),
                Due::Deliver(delivery) => self.deliver(now, delivery),
                Due::Decide(ticket, asked, place) => self.decide(now, ticket, *asked, place),
                Due::Apply(place) => self.apply(now, place),
                Due::RungOut(place) => self.rung_out(now, place),
                Due::Act(place, act) => self.act(now, place, act),
            }
        }
        if self.tick.is_some_and(|at| at <= now) {
            self.tick = Some(now + TICK);
            self.requests.give_up(now);
            self.tick_calls(now);
            self.tick_runs(now);
        }
    }

    /// Takes requests and answers, what happened in calls, and hands out what the relay sends.
    fn pump(&mut self, now: Instant) {
        while let Some((ticket, request)) = self.served.poll_request() {
            self.asked(now, ticket, &request);
        }
        while let Some(done) = self.requests.poll_done() {
            self.delivered(now, done);
        }
        while let Some((key, event)) = self.relay.as_mut().and_then(Relay::poll_event) {
            if let Some(place) = self.by_key.get(&key).copied() {
                self.seen(now, place, event);
            }
        }
        while let Some(crate::relay::Datagram { to, payload }) = self.relay.as_mut().and_then(Relay::poll_transmit) {
            self.outputs.push_back(Output::Send { socket: SOCKET, to, payload });
        }
    }

    /// A request came to the Graph API.
    fn asked(&mut self, now: Instant, ticket: Ticket, request: &HttpRequest) {
        if let Some(response) = self.service(request) {
            return self.served.respond(now, ticket, response);
        }
        let asked = graph::read(request, &self.config.account);
        let place = graph::call_of(request).and_then(|id| self.by_id.get(&id).copied());
        // Whether the number is there may be asked at any time.
        if request.head.method == Method::Post {
            self.count_post(place);
        }
        let mut delay = Duration::ZERO;
        if let Some(place) = place {
            self.note_request(now, place, &asked);
            delay = Duration::from_millis(self.runs[&place.0].scenario.graph.delay_ms);
        }
        if delay.is_zero() {
            self.decide(now, ticket, asked, place);
        } else {
            self.at(now + delay, Due::Decide(ticket, Box::new(asked), place));
        }
    }

    /// What Meta's support would ask for.
    fn trace(&mut self) -> String {
        format!("A{:016x}", self.rng.next_u64())
    }

    fn tell(&mut self, now: Instant, (run, call): Place, who: &'static str, text: impl Into<String>) {
        let Some(run) = self.runs.get(&run) else { return };
        let (scenario, at) = (run.scenario.name, now.saturating_duration_since(run.begun));
        (self.sink)(SimulatorEvent::Told(Told { scenario, call, at, who, text: text.into() }));
    }

    /// Ends, with what was found until now.
    fn finish(&mut self, error: Option<String>) {
        if self.is_over {
            return;
        }
        self.is_over = true;
        let mut report = std::mem::take(&mut self.report);
        report.error = error;
        let report = report.concluded(self.wanted);
        (self.sink)(SimulatorEvent::Finished(Box::new(report)));
        self.requests.close_all();
        self.outputs.push_back(Output::Exit);
    }

    fn deadline(&self) -> Deadline {
        let at = |at: Option<Instant>, reason| Deadline { at, reason };
        let relay = at(self.relay.as_ref().and_then(Relay::poll_timeout), "relay");
        let timer = at(self.timers.first_key_value().map(|((at, _), _)| *at), "timer");
        relay.min(timer).min(at(self.tick, "tick")).min(self.served.deadline())
    }
}

/// Keys of the server's connections are the even ones of the driver's, those of the client's the odd ones.
fn outward(output: Output<()>, odd: u32) -> Output<()> {
    let key = |key: StreamKey| StreamKey { slot: 2 * key.slot + odd, ..key };
    match output {
        Output::Accept { stream, door } => Output::Accept { stream: key(stream), door },
        Output::Connect { stream, to } => Output::Connect { stream: key(stream), to },
        Output::Write { stream, bytes } => Output::Write { stream: key(stream), bytes },
        Output::Read { stream, on } => Output::Read { stream: key(stream), on },
        Output::Shutdown { stream } => Output::Shutdown { stream: key(stream) },
        Output::Close { stream } => Output::Close { stream: key(stream) },
        other => other,
    }
}

/// The key within its table, and whether it is the client's.
fn inward(stream: StreamKey) -> (StreamKey, bool) {
    (StreamKey { slot: stream.slot / 2, ..stream }, stream.slot % 2 == 1)
}

impl Machine for Simulator {
    type Message = ();

    fn handle_input(&mut self, now: Instant, input: Input<'_, ()>) {
        if self.is_over {
            return;
        }
        match input {
            Input::Timeout => {
                if let Some(relay) = &mut self.relay {
                    relay.handle_timeout(now);
                }
                self.served.handle_timeout(now);
            }
            Input::Datagram(Datagram { from, payload, received, .. }) => {
                if let Some(relay) = &mut self.relay {
                    relay.handle_arrival(now, received, from, payload);
                }
            }
            Input::UdpBound { port, .. } => self.bound(now, port),
            Input::UdpRefused { fault, .. } => {
                let ip = self.config.relay_ip;
                return self.finish(Some(format!("the relay cannot listen on {ip} (--relay): {fault}")));
            }
            Input::Accepted { stream, .. } => self.served.accepted(now, inward(stream).0),
            Input::Connected { stream } => self.requests.connected(now, inward(stream).0),
            Input::Received { stream, bytes } => match inward(stream) {
                (stream, true) => self.requests.received(now, stream, bytes),
                (stream, false) => self.served.received(now, stream, bytes),
            },
            Input::Ended { stream } => match inward(stream) {
                (stream, true) => self.requests.ended(now, stream),
                (stream, false) => self.served.ended(now, stream),
            },
            Input::Failed { stream, fault } => match inward(stream) {
                (stream, true) => self.requests.failed(now, stream, fault),
                (stream, false) => self.served.failed(stream),
            },
            Input::Closed { stream } => match inward(stream) {
                (stream, true) => self.requests.closed(stream),
                (stream, false) => self.served.closed(stream),
            },
            Input::Written { stream, .. } => {
                if let (stream, false) = inward(stream) {
                    self.served.written(now, stream);
                }
            }
            Input::Stop if self.is_stopping => return self.finish(None),
            Input::Stop => self.interrupt(now),
            Input::Submitted | Input::SendFailed { .. } | Input::UdpClosed { .. } | Input::Message(()) => {}
        }
        self.run_timers(now);
        self.pump(now);
    }

    fn poll_output(&mut self) -> Output<()> {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        if let Some(output) = self.served.poll_output() {
            return outward(output, 0);
        }
        match self.requests.poll_output() {
            Some(output) => outward(output, 1),
            None => Output::Timeout(self.deadline()),
        }
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator")
            .field("waiting", &self.waiting.len())
            .field("runs", &self.runs.len())
            .finish_non_exhaustive()
    }
}
