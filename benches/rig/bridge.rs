//! Control and one worker with its callers, driven by hand on virtual time: the driver, the relay's network and the model
//! are played here.
//!
//! What is metered is `handle_input` and the `poll_output`s that drain it. The callers' relay and the model's side are not;
//! nor is what a driver says afterwards ([`Input::Submitted`], [`Input::Written`]), but in [`Bridge::batch`], which meters
//! all that a worker does in some stretch of time.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};
use voice_media_bridge::agent::AgentConfig;
use voice_media_bridge::call::CallConfig;
use voice_media_bridge::call_id::CallNumber;
use voice_media_bridge::close_reason::CloseReason;
use voice_media_bridge::config::{Config, Flags};
use voice_media_bridge::control::{Control, ControlConfig};
use voice_media_bridge::io::{Datagram, Door, Entropy, Input, Machine, Node, Output, SocketKey, StreamKey};
use voice_media_bridge::messages::{FromWorker, Message, Resolved, ToWorker};
use voice_media_bridge::peer::identity::Identity;
use voice_media_bridge::peer::sdp::Policy;
use voice_media_bridge::stats::{BuildInfo, CounterReader, ProcessReader};
use voice_media_bridge::whatsapp::Settings;
use voice_media_bridge::worker::{LoadSettings, Worker, WorkerConfig};

use super::meter::{Meter, unmetered};
use super::sound::text_frame;
use voice_media_bridge::relay::Relay;
use voice_media_bridge::relay::script::Script;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const RELAY: SocketAddr = SocketAddr::new(LOCALHOST, 3480);
/// The first call's media port; the others follow.
const MEDIA_PORT: u16 = 40_000;
const MODEL: SocketAddr = SocketAddr::new(LOCALHOST, 8765);
/// From a beat of the worker to where the relay's packets arrive, and on to the next beat.
const HALF_FRAME: Duration = Duration::from_millis(10);
/// The second half, parted where timers other than the beat's are served.
const BEFORE_BEAT: Duration = Duration::from_millis(9);
const EVE: Duration = Duration::from_millis(1);
/// How finely time passes for many calls: what falls into one such piece is one turn of the loop.
const TURN: Duration = Duration::from_micros(250);
/// Within this, calls are up and greeted.
const SETUP_MAX: Duration = Duration::from_secs(6);
/// The model says something this often, as a real one does: a silent one would be taken for dead after 20 s.
const PONG_EVERY: u32 = 250;
/// Turns in which a worker has told what it is asked about all calls, 8 of them a turn.
const SURVEY_TURNS_MAX: u32 = 200;
/// A pong, not masked.
const PONG: &[u8] = &[0x8a, 0];

/// The answer to an upgrade whose nonce is of zeros.
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

/// Random, but for nonces, which are of zeros: their answers are then known.
fn entropy(buffer: &mut [u8]) {
    if buffer.len() == 16 {
        return buffer.fill(0);
    }
    aws_lc_rs::rand::fill(buffer).expect("the system has random numbers");
}

/// RFC 7983 and RFC 5761: whether a datagram is RTP.
fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [0x80..0xc0, kind, ..] if !(192..=223).contains(kind))
}

/// Hands over one input and drains what comes of it.
fn feed<M: Machine>(machine: &mut M, now: Instant, input: Input<'_, M::Message>, out: &mut Vec<Output<M::Message>>) {
    machine.handle_input(now, input);
    loop {
        match machine.poll_output() {
            Output::Timeout(_) => return,
            output => out.push(output),
        }
    }
}

/// The same, metered.
fn metered<M: Machine>(
    meter: Meter,
    machine: &mut M,
    now: Instant,
    input: Input<'_, M::Message>,
    out: &mut Vec<Output<M::Message>>,
) -> u64 {
    let mut input = Some(input);
    meter(&mut || {
        if let Some(input) = input.take() {
            feed(machine, now, input, out);
        }
    })
}

/// What a posted offer came to.
pub(crate) struct Posted {
    pub(crate) call: CallNumber,
    pub(crate) answer: String,
    /// Control's part of the cost.
    pub(crate) control: u64,
    /// The worker's part of it.
    pub(crate) worker: u64,
}

/// A call that was opened, and what it cost.
struct Opened {
    call: CallNumber,
    control: u64,
    worker: u64,
    /// What control has put out.
    out: Vec<Output<Message>>,
}

/// What one input of the worker came to.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) cost: u64,
    /// Writes to the model.
    pub(crate) writes: u32,
    /// RTP packets to the caller.
    pub(crate) rtp_sent: u32,
    /// Other datagrams to the caller: reports, checks.
    pub(crate) others_sent: u32,
}

/// What a stretch of time came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) cost: u64,
    /// RTP packets from the callers.
    pub(crate) rtp_received: u64,
    /// RTP packets to them.
    pub(crate) rtp_sent: u64,
    /// Writes to the model.
    pub(crate) writes: u64,
    /// Turns of the loop.
    pub(crate) turns: u64,
}

/// Bytes that come, from a caller or from a model, and when.
type Arrival = (Instant, Result<SocketKey, StreamKey>, Rc<[u8]>);

/// One call's sockets.
struct Leg {
    socket: SocketKey,
    model: Option<StreamKey>,
    /// Writes that the model has taken.
    model_heard: u32,
}

/// The bridge and its surroundings.
pub(crate) struct Bridge {
    pub(crate) now: Instant,
    /// What costs are taken by.
    pub(crate) meter: Meter,
    control: Control,
    worker: Worker,
    pub(crate) relay: Relay,
    accepts: Vec<StreamKey>,
    posts: u32,
    legs: Vec<Leg>,
    connected: usize,
    steps: u32,
    out: Vec<Output<Message>>,
}

impl Bridge {
    pub(crate) fn new(opus_complexity: u8) -> Self {
        Self::with_numbers(opus_complexity, None)
    }

    /// With Meta's webhook for these numbers.
    pub(crate) fn with_numbers(opus_complexity: u8, whatsapp: Option<Settings>) -> Self {
        let flags =
            ["bridge", "--workers", "1", "--allow-private", "--max-duration-sec", "86400", "--max-calls", "1000"];
        let line = Line::try_parse_from(flags).expect("flags that clap takes");
        let config = Config::from_flags(line.flags, 1).expect("a valid configuration");
        let entropy: Entropy = entropy;
        let agent = AgentConfig {
            host: "127.0.0.1".into(),
            port: MODEL.port(),
            path: "/v1/realtime".into(),
            tls: None,
            api_key: None,
            org_id: None,
            project_id: None,
            entropy,
        };
        let worker = Worker::new(WorkerConfig {
            index: 0,
            call: CallConfig {
                identity: Identity::generate().expect("a certificate can be made"),
                agent: Arc::new(agent),
                start_delay: Duration::ZERO,
                opus_complexity,
                entropy,
                stopwatch: || 0,
            },
            media_ip: LOCALHOST,
            loopback_listener: true,
            policy: Policy {
                allow_private: true,
                own_listener: Some(config.listen),
                own_media_ports: config.media_ports.clone(),
                own_media_ip: LOCALHOST,
            },
            load: LoadSettings::fixed(opus_complexity),
        });
        let now = Instant::now();
        let build = BuildInfo { version: "bench", io: "bench", opus: "" };
        let control = Control::new(
            now,
            ControlConfig {
                config: Arc::new(config),
                build,
                tls: None,
                entropy,
                driver_counters: CounterReader::default(),
                process: ProcessReader::default(),
                alive_every: None,
                whatsapp,
                notes: Vec::new(),
                unix_sec: || 0,
            },
        );
        let mut bridge = Self {
            now,
            meter: unmetered,
            control,
            worker,
            relay: Relay::new(RELAY, 7),
            accepts: Vec::new(),
            posts: 0,
            legs: Vec::new(),
            connected: 0,
            steps: 0,
            out: Vec::with_capacity(64),
        };
        bridge.control(Input::Timeout);
        bridge
    }

    /// A bridge in a call whose caller says this: connected, the model's session live, media flowing, now at a beat.
    pub(crate) fn in_call(opus_complexity: u8, script: Script) -> Self {
        let mut bridge = Self::in_calls(opus_complexity, [script]);
        // On to a beat.
        for _ in 0..1_000 {
            bridge.now += EVE;
            bridge.hear_relay();
            let done = bridge.worker(Input::Timeout);
            bridge.relay.handle_timeout(bridge.now);
            if done.rtp_sent == 1 {
                return bridge;
            }
        }
        panic!("no packet leaves")
    }

    /// A bridge in as many calls as there are scripts, all up and past their greeting, which the model leaves without a
    /// reply.
    pub(crate) fn in_calls(opus_complexity: u8, scripts: impl IntoIterator<Item = Script>) -> Self {
        let mut bridge = Self::new(opus_complexity);
        for script in scripts {
            let (key, offer) = bridge.relay.offer(bridge.now, script);
            let posted = bridge.post(&offer);
            bridge.relay.apply_answer(bridge.now, key, &posted.answer).expect("an answer that the relay can read");
            // So that callers do not speak in unison.
            (0..7).for_each(|_| bridge.pass(EVE));
        }
        let until = bridge.now + SETUP_MAX;
        while bridge.now < until {
            bridge.pass(EVE);
        }
        assert_eq!(bridge.connected, bridge.legs.len(), "every call is up");
        assert!(bridge.legs.iter().all(|leg| leg.model_heard > 2), "every model is spoken to");
        bridge
    }

    /// Lets some time pass.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.relay.handle_timeout(self.now);
        self.hear_relay();
        self.worker(Input::Timeout);
    }

    /// Hands control a request that opens a call, and the worker what control makes of it, until control has the answer.
    fn open(&mut self, stream: StreamKey, request: &str) -> Opened {
        let (meter, now) = (self.meter, self.now);
        let mut out = Vec::new();
        let received = Input::Received { stream, bytes: request.as_bytes() };
        let mut control = metered(meter, &mut self.control, now, received, &mut out);
        let open = take(&mut out, |output| match output {
            Output::Message { to: Node::Worker(0), message } => Ok(message),
            other => Err(other),
        });
        let Message::ToWorker(ToWorker::Open(call)) = &open else { panic!("{open:?}") };
        let call = call.call;
        let mut worker = metered(meter, &mut self.worker, now, Input::Message(open), &mut out);
        let socket = take(&mut out, |output| match output {
            Output::BindUdp { socket, .. } => Ok(socket),
            other => Err(other),
        });
        let leg = socket.slot as usize;
        self.legs.resize_with(self.legs.len().max(leg + 1), || Leg { socket, model: None, model_heard: 0 });
        self.legs[leg] = Leg { socket, model: None, model_heard: 0 };
        let bound = Input::UdpBound { socket, port: MEDIA_PORT + leg as u16 };
        worker += metered(meter, &mut self.worker, now, bound, &mut self.out);
        let answered = take(&mut self.out, |output| match output {
            // Not how loaded it is, which it may say just now.
            Output::Message { to: Node::Control, message }
                if !matches!(message, Message::FromWorker { event: FromWorker::Load(_), .. }) =>
            {
                Ok(message)
            }
            other => Err(other),
        });
        control += metered(meter, &mut self.control, now, Input::Message(answered), &mut out);
        Opened { call, control, worker, out }
    }

    /// Posts an offer as the webhook does, over a connection of its own, up to the bytes of the HTTP answer.
    pub(crate) fn post(&mut self, offer: &str) -> Posted {
        let stream = self.accepts.pop().expect("control accepts connections");
        self.control(accepted(stream));
        self.posts += 1;
        let body = json!({
            "callId": format!("wacid.{}", self.posts),
            "sdpOffer": offer,
            "from": "15550100",
            "config": {"voice": "alloy", "instructions": "Answer in one sentence."}
        })
        .to_string();
        let request = format!(
            "POST /api/sessions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );

        let Opened { call, control, worker, mut out } = self.open(stream, &request);
        let bytes = take(&mut out, |output| match output {
            Output::Write { bytes, .. } => Ok(bytes),
            other => Err(other),
        });

        let text = String::from_utf8(bytes).expect("HTTP with JSON");
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole answer");
        assert!(head.starts_with("HTTP/1.1 200 "), "{text}");
        let body: Value = serde_json::from_str(body).expect("JSON");
        let answer = body["sdpAnswer"].as_str().expect("an answer").to_owned();
        self.control(Input::Written { stream, len: text.len(), buffer: Vec::new() });
        self.control(Input::Ended { stream });
        self.settle(0);
        Posted { call, answer, control, worker }
    }

    /// Delivers a webhook with the connect of one call, up to `pre_accept` on its way to the Graph API; what control and the
    /// worker spend on it.
    pub(crate) fn deliver(&mut self, body: &str, signature: &str) -> (u64, u64) {
        let stream = self.accepts.pop().expect("control accepts connections");
        self.control(accepted(stream));
        let request = format!(
            "POST /webhooks/whatsapp HTTP/1.1\r\nHost: bridge.example\r\nContent-Type: application/json\r\n\
             X-Hub-Signature-256: {signature}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let Opened { call, control, worker, mut out } = self.open(stream, &request);
        let ask = take(&mut out, |output| match output {
            Output::Message { to: Node::Graph, message: Message::AskGraph(ask) } if ask.body.is_some() => Ok(ask),
            other => Err(other),
        });
        assert!(ask.path.ends_with("/calls"), "pre_accept is asked");
        self.control(Input::Written { stream, len: 0, buffer: Vec::new() });
        self.control(Input::Ended { stream });
        self.settle(0);
        self.hang_up(call);
        (control, worker)
    }

    /// Asks control for a page of the API that it answers alone or with the worker's help; the cost and the bytes.
    pub(crate) fn get(&mut self, path: &str) -> (u64, Vec<u8>) {
        let stream = self.accepts.pop().expect("control accepts connections");
        self.control(accepted(stream));
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: close\r\n\r\n");
        let (meter, now, mut out) = (self.meter, self.now, Vec::new());
        let received = Input::Received { stream, bytes: request.as_bytes() };
        let mut cost = metered(meter, &mut self.control, now, received, &mut out);
        let mut answer = Vec::new();
        while let Some(output) = out.pop() {
            match output {
                Output::Message { to: Node::Worker(0), message } => {
                    let mut told = Vec::new();
                    cost += metered(meter, &mut self.worker, now, Input::Message(message), &mut told);
                    // What is asked about all calls is answered over some turns.
                    for _ in 0..SURVEY_TURNS_MAX {
                        for output in told.drain(..) {
                            if let Output::Message { to: Node::Control, message } = output {
                                cost += metered(meter, &mut self.control, now, Input::Message(message), &mut out);
                            }
                        }
                        if out.iter().any(|output| matches!(output, Output::Write { .. })) {
                            break;
                        }
                        self.worker.handle_input(now, Input::Submitted);
                        cost += metered(meter, &mut self.worker, now, Input::Timeout, &mut told);
                    }
                }
                Output::Write { bytes, .. } => answer = bytes,
                _ => {}
            }
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{path} is answered");
        self.control(Input::Written { stream, len: answer.len(), buffer: Vec::new() });
        self.control(Input::Ended { stream });
        (cost, answer)
    }

    /// Ends a call, and lets control forget it in time.
    pub(crate) fn hang_up(&mut self, call: CallNumber) {
        self.worker(Input::Message(Message::ToWorker(ToWorker::Hangup(call, CloseReason::Hangup))));
        self.now += Duration::from_secs(10);
        self.control(Input::Timeout);
    }

    /// From a beat to half a frame later, with the relay's packets on their way; how the RTP packet fared, if one came. For
    /// one call.
    pub(crate) fn run_to_mid_frame(&mut self) -> Option<Done> {
        self.now += HALF_FRAME;
        self.worker(Input::Timeout);
        self.steps += 1;
        if self.steps.is_multiple_of(PONG_EVERY) {
            self.hear_model(PONG);
        }
        self.hear_relay()
    }

    /// From mid-frame to the next beat, with other timers served just before it; how the beat fared.
    pub(crate) fn run_to_beat(&mut self) -> Done {
        self.now += BEFORE_BEAT;
        self.worker(Input::Timeout);
        self.now += EVE;
        let done = self.worker(Input::Timeout);
        self.relay.handle_timeout(self.now);
        done
    }

    /// Bytes of the first call's model.
    pub(crate) fn hear_model(&mut self, bytes: &[u8]) -> Done {
        let stream = self.legs[0].model.expect("the model is connected");
        self.worker(Input::Received { stream, bytes })
    }

    /// Runs all calls for some time. `model` names what each call's model says and when. The relay speaks ahead and listens
    /// afterwards, so that the worker has the processor, and its caches, to itself meanwhile.
    pub(crate) fn batch(
        &mut self,
        time: Duration,
        model: impl IntoIterator<Item = (Duration, usize, Rc<[u8]>)>,
    ) -> Batch {
        let (start, end) = (self.now, self.now + time);
        let mut inputs: Vec<Arrival> = Vec::new();
        let mut batch = Batch::default();
        while let Some(at) = self.relay.poll_timeout().filter(|at| *at < end) {
            let at = at.max(start);
            self.relay.handle_timeout(at);
            while let Some(datagram) = self.relay.poll_transmit() {
                let leg = &self.legs[usize::from(datagram.to.port() - MEDIA_PORT)];
                batch.rtp_received += u64::from(is_rtp(&datagram.payload));
                inputs.push((at, Ok(leg.socket), datagram.payload.into()));
            }
        }
        let stream = |leg: usize| self.legs[leg].model.expect("the model is connected");
        inputs.extend(model.into_iter().map(|(at, leg, bytes)| (start + at, Err(stream(leg)), bytes)));
        self.steps += 1;
        if self.steps.is_multiple_of(5) {
            inputs.extend((0..self.legs.len()).map(|leg| (start, Err(stream(leg)), PONG.into())));
        }
        inputs.sort_by_key(|(at, ..)| *at);

        // As a kernel does, what is sent is copied, and its buffer is free for the next.
        let mut sent: Vec<(Instant, u32, usize)> = Vec::with_capacity(inputs.len() * 2 + 1_024);
        let mut wire: Vec<u8> = Vec::with_capacity(sent.capacity() * 256);
        let mut written: VecDeque<(StreamKey, Vec<u8>)> = VecDeque::with_capacity(1_024);
        let mut others = Vec::with_capacity(64);
        let (worker, meter) = (&mut self.worker, self.meter);
        let (mut writes, mut turns) = (0, 0);
        batch.cost = meter(&mut || {
            let mut next = 0;
            let mut now = start;
            let mut deadline = Some(start);
            loop {
                let due = inputs.get(next).map(|(at, ..)| *at);
                let Some(at) = due.into_iter().chain(deadline).min().filter(|at| *at < end) else { break };
                let passed = at.max(now).saturating_duration_since(start).as_nanos();
                now = start + TURN * (passed / TURN.as_nanos() + 1) as u32;
                while let Some((stream, mut buffer)) = written.pop_front() {
                    let len = buffer.len();
                    buffer.clear();
                    worker.handle_input(now, Input::Written { stream, len, buffer });
                }
                while let Some((at, key, bytes)) = inputs.get(next).filter(|(at, ..)| *at <= now) {
                    next += 1;
                    match *key {
                        Ok(socket) => {
                            let datagram = Datagram { socket, from: RELAY, payload: bytes, received: *at };
                            worker.handle_input(now, Input::Datagram(datagram));
                        }
                        Err(stream) => worker.handle_input(now, Input::Received { stream, bytes }),
                    }
                }
                if deadline.is_some_and(|at| at <= now) {
                    worker.handle_input(now, Input::Timeout);
                }
                loop {
                    match worker.poll_output() {
                        Output::Timeout(next) => {
                            deadline = next.at;
                            break;
                        }
                        Output::Send { socket, payload, .. } => {
                            wire.extend_from_slice(&payload);
                            sent.push((now, socket.slot, payload.len()));
                        }
                        Output::Write { stream, bytes } => {
                            writes += 1;
                            written.push_back((stream, bytes));
                        }
                        // How loaded it is, some times a second.
                        Output::Message { message: Message::FromWorker { event: FromWorker::Load(_), .. }, .. } => {}
                        other => others.push(other),
                    }
                }
                worker.handle_input(now, Input::Submitted);
                turns += 1;
            }
        });
        (batch.writes, batch.turns) = (writes, turns);
        let mut wire = &wire[..];
        for (at, leg, len) in sent {
            let (payload, rest) = wire.split_at(len);
            wire = rest;
            batch.rtp_sent += u64::from(is_rtp(payload));
            self.relay.handle_datagram(at, SocketAddr::new(LOCALHOST, MEDIA_PORT + leg as u16), payload);
        }
        assert!(others.is_empty(), "calls go on as they are: {others:?}");
        for (stream, buffer) in written {
            self.follow(Input::Written { stream, len: buffer.len(), buffer: Vec::new() });
        }
        self.now = end;
        self.settle(0);
        batch
    }

    /// The worker as it is, all else gone.
    pub(crate) fn into_worker(self) -> Worker {
        self.worker
    }

    fn hear_relay(&mut self) -> Option<Done> {
        let mut rtp = None;
        while let Some(datagram) = self.relay.poll_transmit() {
            let socket = self.legs[usize::from(datagram.to.port() - MEDIA_PORT)].socket;
            let input = Datagram { socket, from: RELAY, payload: &datagram.payload, received: self.now };
            let done = self.worker(Input::Datagram(input));
            if is_rtp(&datagram.payload) {
                rtp = Some(done);
            }
        }
        rtp
    }

    fn worker(&mut self, input: Input<'_, Message>) -> Done {
        let cost = metered(self.meter, &mut self.worker, self.now, input, &mut self.out);
        self.settle(cost)
    }

    /// Does what the worker put out, and what comes of that.
    fn settle(&mut self, cost: u64) -> Done {
        let mut done = Done { cost, ..Done::default() };
        self.worker.handle_input(self.now, Input::Submitted);
        while !self.out.is_empty() {
            for output in std::mem::replace(&mut self.out, Vec::with_capacity(64)) {
                match output {
                    Output::Send { socket, payload, .. } => {
                        let sent = if is_rtp(&payload) { &mut done.rtp_sent } else { &mut done.others_sent };
                        *sent += 1;
                        let from = SocketAddr::new(LOCALHOST, MEDIA_PORT + socket.slot as u16);
                        self.relay.handle_datagram(self.now, from, &payload);
                    }
                    Output::Write { stream, mut bytes } => {
                        done.writes += 1;
                        let len = bytes.len();
                        bytes.clear();
                        self.follow(Input::Written { stream, len, buffer: bytes });
                        self.play_model(stream);
                    }
                    Output::Message { to: Node::Resolver, message: Message::Resolve(resolve) } => {
                        let outcome = Ok(Arc::from([MODEL]));
                        self.follow(Input::Message(Message::Resolved(Resolved { call: resolve.call, outcome })));
                    }
                    Output::Message { to: Node::Control, message } => {
                        let connected = matches!(message, Message::FromWorker { event: FromWorker::Connected(_), .. });
                        self.connected += usize::from(connected);
                        self.control(Input::Message(message));
                    }
                    Output::Connect { stream, .. } => {
                        // Calls resolve and connect in the order in which they were made.
                        if let Some(leg) = self.legs.iter_mut().find(|leg| leg.model.is_none()) {
                            leg.model = Some(stream);
                        }
                        self.follow(Input::Connected { stream });
                    }
                    Output::Close { stream } => self.follow(Input::Closed { stream }),
                    Output::CloseUdp { socket } => self.follow(Input::UdpClosed { socket }),
                    _ => {}
                }
            }
        }
        done
    }

    /// An input of the worker that nobody meters.
    fn follow(&mut self, input: Input<'_, Message>) {
        feed(&mut self.worker, self.now, input, &mut self.out);
    }

    /// The model's first words: it takes the upgrade, then the session; the rest it hears in silence.
    fn play_model(&mut self, stream: StreamKey) {
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.model == Some(stream)) else { return };
        leg.model_heard += 1;
        let bytes = match leg.model_heard {
            1 => [UPGRADED, &text_frame(r#"{"type":"session.created"}"#)].concat(),
            2 => text_frame(r#"{"type":"session.updated"}"#),
            _ => return,
        };
        self.follow(Input::Received { stream, bytes: &bytes });
    }

    fn control(&mut self, input: Input<'_, Message>) {
        let mut out = Vec::new();
        feed(&mut self.control, self.now, input, &mut out);
        for output in out {
            match output {
                Output::Accept { stream, .. } => self.accepts.push(stream),
                Output::Close { stream } => self.control(Input::Closed { stream }),
                _ => {}
            }
        }
    }
}

/// Takes the one output that `pick` wants out of the list.
fn take<T>(out: &mut Vec<Output<Message>>, pick: impl Fn(Output<Message>) -> Result<T, Output<Message>>) -> T {
    let mut picked = None;
    for output in std::mem::take(out) {
        match pick(output) {
            Ok(value) if picked.is_none() => picked = Some(value),
            Ok(_) => panic!("an output came twice"),
            Err(other) => out.push(other),
        }
    }
    picked.expect("the output comes")
}

fn accepted(stream: StreamKey) -> Input<'static, Message> {
    Input::Accepted { stream, door: Door::Api, peer: Some(SocketAddr::new(LOCALHOST, 50_000)) }
}
