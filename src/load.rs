//! Simulated callers against any server with `POST /api/sessions`: how many it carries, and how well.
//!
//! [`Load`] is a [`Machine`] for the ordinary drivers: one relay port for all calls ([`crate::relay`]), a pool of HTTP
//! connections, timers. Callers' words are encoded once and shared, so a call costs what its packets cost. It measures
//! from outside, as WhatsApp would see it, and itself as well: a load that is late or busy measures itself, and says so.
//!
//! It ramps calls up, holds them, lets them come and go if asked to, hangs all of them up, and then hands a
//! [`report::Report`] to its owner. It must not know the bridge: what it asks and reads is the HTTP contract and RTP.

pub(crate) mod call;
mod echo;
pub mod flags;
pub mod report;
pub(crate) mod requests;
pub(crate) mod tally;
#[cfg(test)]
mod tests;
pub(crate) mod voices;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::http::client::{Answer, ClientRequest};
use crate::io::{Datagram, Deadline, Input, Machine, Output, SocketKey};
use crate::relay::record::{Detail, Event};
use crate::relay::rng::Rng;
use crate::relay::{CallKey, Relay};
use crate::tls::Tls;

use call::{Call, State};
use report::{Bounds, Progress, Report};
use requests::{Done, Request, Requests};
use tally::Tally;
pub use voices::Talk;
use voices::{Voices, burst_at};

/// Calls of one run: beyond it one thread is the bottleneck on any machine known.
pub const CALLS_MAX: usize = 5_000;

/// How often what is overdue is looked for.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(1);

/// How long hanging up may take in all.
const END_TIME_MAX: Duration = Duration::from_secs(15);

/// The relay's one socket.
const SOCKET: SocketKey = SocketKey { slot: 0, generation: 0 };

/// What the machine may ask of its host, given to it as functions: it owns no clock.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// CPU time of the calling thread.
    pub thread_cpu: fn() -> Duration,
    /// Datagrams that the socket on this local port has dropped; `None` where the host does not tell.
    pub socket_drops: fn(u16) -> Option<u64>,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// The server's API.
    pub server: SocketAddr,
    /// Where it speaks TLS: with what, and the name that its certificate must be for.
    pub tls: Option<(Tls, String)>,
    /// For `Host`.
    pub authority: String,
    /// What stands before `/api/sessions`; empty as a rule.
    pub path_prefix: String,
    /// For `Authorization: Bearer`.
    pub token: Option<String>,
    /// Calls at once, 1 to [`CALLS_MAX`].
    pub calls: usize,
    /// New calls a second while it ramps, above zero.
    pub calls_per_second: f64,
    /// How long they are held after the last was asked for.
    pub duration: Duration,
    /// Calls a second that are hung up and replaced meanwhile.
    pub churn_per_second: f64,
    /// Whether calls are asked for with PUT, the id in the path, and not with POST.
    pub put: bool,
    /// How much callers talk.
    pub talk: Talk,
    /// Calls that send bursts and time their echo instead.
    pub probes: usize,
    /// Where the relay listens, and what its offers name.
    pub relay_ip: IpAddr,
    /// Makes call ids of this run different from all others'.
    pub run_id: String,
    /// For everything that is drawn.
    pub seed: u64,
    /// What the run is held to.
    pub bounds: Bounds,
}

/// What the machine tells while it runs.
#[derive(Debug)]
pub enum LoadEvent {
    /// Once a second.
    Progress(Progress),
    /// Once, at the end.
    Finished(Box<Report>),
}

/// Where it tells it.
pub type Sink = Box<dyn FnMut(LoadEvent)>;

/// Which request it was.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Post(CallKey),
    Delete(CallKey),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// The relay's port is asked for.
    Binding,
    /// Calls are asked for, the next at `next`.
    Ramping {
        next: Instant,
    },
    /// All are asked for; the next is replaced at `replace`.
    Holding {
        until: Instant,
        replace: Option<Instant>,
    },
    /// Hung up; the answers are awaited.
    Ending {
        until: Instant,
    },
    Over,
}

/// The machine.
pub struct Load {
    config: LoadConfig,
    host: Host,
    sink: Sink,
    voices: Voices,
    rng: Rng,
    /// `None` before the port is known.
    relay: Option<Relay>,
    port: u16,
    requests: Requests<Asked>,
    calls: HashMap<CallKey, Call>,
    /// Oldest first.
    order: VecDeque<CallKey>,
    asked_for: usize,
    tally: Tally,
    phase: Phase,
    start: Option<Instant>,
    housekeeping: Option<Instant>,
    progress_at: Option<Instant>,
    /// Of packets that were queued and not submitted yet: when they were due.
    unsubmitted: Vec<Instant>,
    /// The same for bursts: call and pitch.
    bursts: Vec<(CallKey, usize)>,
    outputs: VecDeque<Output<()>>,
}

impl Load {
    /// A load that has not begun. `recording` is speech, 24 kHz mono; encoding it takes a fraction of a second.
    pub fn new(config: LoadConfig, host: Host, recording: &[i16], sink: Sink) -> Result<Self, String> {
        let mut rng = Rng::new(config.seed);
        let voices = Voices::new(recording, config.talk, &mut rng).map_err(|error| format!("no voices: {error}"))?;
        let bind = Output::BindUdp { socket: SOCKET, address: config.relay_ip };
        Ok(Self {
            requests: Requests::new(config.server, config.tls.clone()),
            config,
            host,
            sink,
            voices,
            rng,
            relay: None,
            port: 0,
            calls: HashMap::new(),
            order: VecDeque::new(),
            asked_for: 0,
            tally: Tally::default(),
            phase: Phase::Binding,
            start: None,
            housekeeping: None,
            progress_at: None,
            unsubmitted: Vec::new(),
            bursts: Vec::new(),
            outputs: [bind].into(),
        })
    }

    fn bound(&mut self, now: Instant, port: u16) {
        let address = SocketAddr::new(self.config.relay_ip, port);
        self.port = port;
        self.relay = Some(Relay::new(address, self.rng.next_u64()).with_detail(Detail::Events));
        self.phase = Phase::Ramping { next: now };
        self.start = Some(now);
        self.housekeeping = Some(now + HOUSEKEEPING);
        self.progress_at = Some(now + PROGRESS);
        self.tally.begin((self.host.thread_cpu)(), now);
        self.advance(now);
    }

    /// Asks for the calls that are due.
    fn advance(&mut self, now: Instant) {
        loop {
            match self.phase {
                Phase::Ramping { next } if next <= now => {
                    self.ask(next, now);
                    self.phase = if self.asked_for == self.config.calls {
                        let replace = self.next_replacement(next);
                        Phase::Holding { until: next + self.config.duration, replace }
                    } else {
                        Phase::Ramping { next: next + Duration::from_secs_f64(1.0 / self.config.calls_per_second) }
                    };
                }
                Phase::Holding { until, .. } if until <= now => self.end(now),
                Phase::Holding { until, replace: Some(replace) } if replace <= now => {
                    if let Some(oldest) = self.order.front().copied() {
                        self.hang_up(now, oldest);
                    }
                    self.ask(replace, now);
                    self.phase = Phase::Holding { until, replace: self.next_replacement(replace) };
                }
                // Every call was refused or has ended: there is nothing to hold.
                Phase::Holding { replace: None, .. } if self.calls.is_empty() => self.end(now),
                Phase::Ending { until } if until <= now || self.requests.pending() == 0 => return self.finish(now),
                Phase::Binding | Phase::Ramping { .. } | Phase::Holding { .. } | Phase::Ending { .. } | Phase::Over => {
                    return;
                }
            }
        }
    }

    fn next_replacement(&self, after: Instant) -> Option<Instant> {
        let churn = self.config.churn_per_second;
        (churn > 0.0).then(|| after + Duration::from_secs_f64(1.0 / churn))
    }

    /// Asks for one more call, which was due at `due`.
    fn ask(&mut self, due: Instant, now: Instant) {
        let relay = self.relay.as_mut().expect("calls are asked for once the port is known");
        let number = self.asked_for;
        self.asked_for += 1;
        let probes = self.calls.values().filter(|call| call.is_probe()).count();
        let is_probe = probes < self.config.probes;
        let script = if is_probe { self.voices.probe() } else { self.voices.caller(&mut self.rng) };
        let (key, offer) = relay.offer(now, script);
        let id = format!("load-{}-{number}", self.config.run_id);
        let body = serde_json::json!({ "callId": id, "sdpOffer": offer }).to_string();
        let target = format!("{}/api/sessions", self.config.path_prefix);
        let bytes = if self.config.put {
            self.request("PUT", &format!("{target}/{id}"), Some(&body))
        } else {
            self.request("POST", &target, Some(&body))
        };
        match Call::new(id, is_probe) {
            Ok(call) => {
                self.tally.probes += u64::from(is_probe);
                self.calls.insert(key, call);
                self.order.push_back(key);
                self.requests.send(Request { what: Asked::Post(key), due, bytes });
            }
            Err(error) => {
                self.tally.error.get_or_insert_with(|| format!("no decoder for a probe call: {error}"));
                self.end(now);
            }
        }
    }

    fn request(&self, method: &str, target: &str, json: Option<&str>) -> Vec<u8> {
        let (host, token) = (self.config.authority.as_str(), self.config.token.as_deref());
        ClientRequest { method, target, host, token, json, header: None }.encode()
    }

    /// Takes what the requests came to.
    fn read_answers(&mut self, now: Instant) {
        while let Some(Done { what, took, outcome }) = self.requests.poll_done() {
            match what {
                Asked::Delete(key) => {
                    self.tally.hangups_failed += u64::from(!outcome.is_ok_and(|answer| answer.status == 200));
                    self.forget(key);
                }
                Asked::Post(key) => self.answered(now, key, took, outcome),
            }
        }
    }

    fn answered(&mut self, now: Instant, key: CallKey, took: Duration, outcome: Result<Answer, String>) {
        let was_answered = outcome.is_ok();
        let applied = outcome.and_then(|answer| {
            let sdp = call::answer_of(&answer)?;
            let relay = self.relay.as_mut().expect("calls are asked for once the port is known");
            relay.apply_answer(now, key, &sdp).map_err(|error| format!("an answer that WhatsApp would refuse: {error}"))
        });
        match applied {
            Ok(()) => {
                self.tally.answered(took);
                let call = self.calls.get_mut(&key).expect("a call is kept while its request is under way");
                call.state = State::Answered(now);
                if call.is_leaving {
                    self.send_hang_up(now, key);
                }
            }
            Err(why) => {
                self.tally.refused(why, took, was_answered);
                self.forget(key);
            }
        }
    }

    /// Takes what happened in calls, and hands out what the relay sends.
    fn pump(&mut self, now: Instant) {
        let Some(relay) = self.relay.as_mut() else { return };
        while let Some((key, event)) = relay.poll_event() {
            let Some(call) = self.calls.get_mut(&key) else { continue };
            match event {
                Event::Connected => {
                    if let State::Answered(at) = call.state {
                        self.tally.connected(now.saturating_duration_since(at));
                        call.state = State::Connected(now);
                    }
                }
                Event::Sent(sent) => {
                    self.unsubmitted.push(sent.due);
                    if let Some(pitch) = sent.position.and_then(burst_at).filter(|_| call.is_probe()) {
                        self.bursts.push((key, pitch));
                    }
                }
                Event::Received(packet) => {
                    let heard = call.hear(&packet);
                    self.tally.heard(&heard);
                }
                Event::Closed => call.is_closed = true,
            }
            if call.is_closed && !call.is_leaving {
                self.tally.ended(call.state);
                self.forget(key);
                return self.pump(now);
            }
        }
        while let Some(crate::relay::Datagram { to, payload }) = relay.poll_transmit() {
            self.outputs.push_back(Output::Send { socket: SOCKET, to, payload });
        }
    }

    /// What was drained is with the kernel.
    fn submitted(&mut self, now: Instant) {
        self.unsubmitted.drain(..).for_each(|due| self.tally.own_late(now.saturating_duration_since(due)));
        for (key, pitch) in self.bursts.drain(..) {
            if let Some(ear) = self.calls.get_mut(&key).and_then(|call| call.ear.as_mut()) {
                self.tally.burst(ear.sent(pitch, now));
            }
        }
    }

    fn housekeep(&mut self, now: Instant) {
        self.requests.give_up(now);
        self.read_answers(now);
        let late = |call: &Call| {
            !call.is_leaving && matches!(call.state, State::Answered(at) if at + call::CONNECT_TIME_MAX <= now)
        };
        let never: Vec<CallKey> = self.calls.iter().filter(|(_, call)| late(call)).map(|(key, _)| *key).collect();
        for key in never {
            self.tally.never_connected += 1;
            self.hang_up(now, key);
        }
        if self.progress_at.is_some_and(|at| at <= now) {
            self.progress_at = Some(now + PROGRESS);
            self.tally.second((self.host.thread_cpu)(), now);
            let progress = Progress {
                elapsed: self.start.map_or(Duration::ZERO, |start| now - start),
                live: self.calls.len(),
                connected: self.tally.connected_now,
                refused: self.tally.refusals(),
                packets: self.packets(),
                echo_p50_us: self.tally.echo_p50_us(),
            };
            (self.sink)(LoadEvent::Progress(progress));
        }
    }

    /// Packets of the calls that are over and of those that are not.
    fn packets(&self) -> report::Packets {
        let mut packets = self.tally.packets;
        if let Some(relay) = &self.relay {
            self.calls
                .keys()
                .filter_map(|key| relay.record(*key))
                .for_each(|record| packets.add(&tally::count(record)));
            packets.strays += relay.strays();
        }
        packets
    }

    /// Hangs up, once the server has answered for the call; the call is forgotten with the answer to that.
    fn hang_up(&mut self, now: Instant, key: CallKey) {
        self.order.retain(|other| *other != key);
        let Some(call) = self.calls.get_mut(&key).filter(|call| !call.is_leaving) else { return };
        call.is_leaving = true;
        if call.state != State::Asked {
            self.send_hang_up(now, key);
        }
    }

    fn send_hang_up(&mut self, now: Instant, key: CallKey) {
        let Some(call) = self.calls.get(&key) else { return };
        let target = format!("{}/api/sessions/{}", self.config.path_prefix, call.id);
        let bytes = self.request("DELETE", &target, None);
        self.requests.send(Request { what: Asked::Delete(key), due: now, bytes });
    }

    fn forget(&mut self, key: CallKey) {
        if let Some(call) = self.calls.remove(&key) {
            self.tally.over(&call);
            self.order.retain(|other| *other != key);
        }
        if let Some(record) = self.relay.as_mut().and_then(|relay| relay.remove(key)) {
            self.tally.packets.add(&tally::count(&record));
        }
    }

    fn end(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Over) {
            return;
        }
        self.phase = Phase::Ending { until: now + END_TIME_MAX };
        for key in self.order.clone() {
            self.hang_up(now, key);
        }
    }

    fn finish(&mut self, now: Instant) {
        self.phase = Phase::Over;
        self.tally.second((self.host.thread_cpu)(), now);
        let packets = self.packets();
        let drops = if self.relay.is_some() { (self.host.socket_drops)(self.port) } else { None };
        let seconds = self.start.map_or(0.0, |start| (now - start).as_secs_f64());
        let report = self.tally.report(seconds, packets, drops).concluded(&self.config.bounds);
        (self.sink)(LoadEvent::Finished(Box::new(report)));
        self.requests.close_all();
        while let Some(output) = self.requests.poll_output() {
            self.outputs.push_back(output);
        }
        self.outputs.push_back(Output::Exit);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(relay) = &mut self.relay {
            relay.handle_timeout(now);
        }
        if self.housekeeping.is_some_and(|at| at <= now) {
            self.housekeeping = Some(now + HOUSEKEEPING);
            self.housekeep(now);
        }
    }

    fn deadline(&self) -> Deadline {
        let at = |at: Option<Instant>, reason| Deadline { at, reason };
        let phase = match self.phase {
            Phase::Ramping { next } => at(Some(next), "next call"),
            Phase::Holding { until, replace } => at(Some(until), "end").min(at(replace, "replacement")),
            Phase::Ending { until } => at(Some(until), "ending"),
            Phase::Binding | Phase::Over => Deadline::NEVER,
        };
        let relay = at(self.relay.as_ref().and_then(Relay::poll_timeout), "relay");
        phase.min(relay).min(at(self.housekeeping, "housekeeping"))
    }
}

impl Machine for Load {
    type Message = ();

    fn handle_input(&mut self, now: Instant, input: Input<'_, ()>) {
        if self.phase == Phase::Over {
            return;
        }
        match input {
            Input::Submitted => return self.submitted(now),
            Input::Timeout => self.handle_timeout(now),
            Input::Datagram(Datagram { from, payload, received, .. }) => {
                if let Some(relay) = &mut self.relay {
                    relay.handle_arrival(now, received, from, payload);
                }
            }
            Input::UdpBound { port, .. } => self.bound(now, port),
            Input::UdpRefused { fault, .. } => {
                let ip = self.config.relay_ip;
                self.tally.error = Some(format!("the relay cannot listen on {ip} (--relay-ip): {fault}"));
                self.finish(now);
            }
            Input::Connected { stream } => self.requests.connected(now, stream),
            Input::Received { stream, bytes } => self.requests.received(now, stream, bytes),
            Input::Ended { stream } => self.requests.ended(now, stream),
            Input::Failed { stream, fault } => self.requests.failed(now, stream, fault),
            Input::Closed { stream } => self.requests.closed(stream),
            Input::Stop if matches!(self.phase, Phase::Ending { .. }) => self.finish(now),
            Input::Stop => {
                self.tally.interrupted = true;
                self.end(now);
            }
            Input::SendFailed { .. } => self.tally.send_failures += 1,
            Input::UdpClosed { .. } | Input::Accepted { .. } | Input::Written { .. } | Input::Message(()) => {}
        }
        self.read_answers(now);
        self.advance(now);
        self.pump(now);
    }

    fn poll_output(&mut self) -> Output<()> {
        let output = self.outputs.pop_front().or_else(|| self.requests.poll_output());
        output.unwrap_or_else(|| Output::Timeout(self.deadline()))
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").field("phase", &self.phase).field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}
