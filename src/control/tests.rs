//! Sessions on the plain machine: raw HTTP bytes on one side, scripted workers on the other, time as an argument.

mod agent_check;
mod api;
mod contract;
mod drain;
mod fields;
mod gate;
mod handover;
mod latency;
mod placement;
mod reload;
mod server;
mod stop;
mod supervision;
mod whatsapp;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};

use super::{Control, ControlConfig};
use crate::call_id::CallNumber;
use crate::close_reason::CloseReason;
use crate::config::{Config, Flags};
use crate::io::{Door, Fault, Input, Machine, Node, Output, StreamKey};
use crate::messages::{
    CallReport, CallState, Ending, Event, FromWorker, GraphAsk, Message, Note, Notice, OpenCall, OpenRefusal, Parcel,
    ToWorker,
};
use crate::stats::{BuildInfo, CounterReader, ProcessReader, Stages, WorkerStats};
use crate::tls::Acceptor;
use crate::whatsapp::Settings;

const OFFER: &str = include_str!("../../tests/fixtures/sdp/offer-live-2026-10-02.sdp");
/// The time by the wall clock.
const UNIX_SEC: u64 = 1_790_000_000;
const ANSWER: &str = "v=0\r\no=- 9 9 IN IP4 198.51.100.7\r\n";
/// As WhatsApp makes them: base64, and it decodes to phone numbers.
const ID: &str = "wacid.HBgLMTY1MDU1NTEyMzQVAgASGCA+ab/cd==";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

fn config(words: &[&str]) -> Config {
    let line = Line::try_parse_from([&["bridge", "--workers", "2"], words].concat()).expect("words that clap takes");
    Config::from_flags(line.flags, 2).expect("a configuration that holds")
}

/// Control between clients and workers.
#[expect(clippy::struct_excessive_bools, reason = "switches that tests turn, each by its name")]
struct World {
    control: Control,
    now: Instant,
    offered: VecDeque<StreamKey>,
    offered_agents: VecDeque<StreamKey>,
    offered_locals: VecDeque<StreamKey>,
    /// Connections that stand, for the next requests.
    kept: Vec<StreamKey>,
    /// Connections to the other instance that were asked for, and to where.
    dialled: VecDeque<(StreamKey, PathBuf)>,
    /// Offered keys that were taken back.
    withdrawn: usize,
    /// One of them gets a connection in time.
    keeps_one_withdrawn: bool,
    clients: HashMap<StreamKey, Client>,
    /// What workers were told and have not done, in order.
    mail: VecDeque<(u16, ToWorker)>,
    calls: BTreeMap<CallNumber, (u16, CallReport)>,
    opened: Vec<OpenCall>,
    told: Vec<String>,
    /// Workers do what they are told at once.
    prompt: bool,
    /// Clients' kernels take what is written at once.
    takes: bool,
    refusal: Option<OpenRefusal>,
    /// What the world was told.
    events: Vec<Event>,
    /// What the service manager was told.
    notices: Vec<Notice>,
    /// What the Graph API was asked and has not answered.
    graph: VecDeque<GraphAsk>,
    /// What the journal holds.
    journal: BTreeMap<u64, String>,
    /// What was passed on.
    parcels: Vec<Parcel>,
    /// What every call has measured.
    stages: Stages,
    /// What every worker has measured.
    worker_stages: Stages<u64>,
    exited: bool,
}

#[derive(Default)]
struct Client {
    out: String,
    unwritten: usize,
    shut: bool,
    closed: bool,
}

/// One response, read as a client reads it.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    text: String,
    json: Value,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    fn error(&self) -> &str {
        self.json["error"].as_str().unwrap_or_default()
    }
}

fn report(call: CallNumber) -> CallReport {
    CallReport {
        call,
        state: CallState::Connecting,
        close: None,
        close_detail: None,
        duration_ms: 1_234,
        connected_ms: None,
        connect_us: None,
        peer: crate::peer::PeerReport::default(),
        uplink: crate::call::uplink::UplinkReport::default(),
        downlink: crate::call::downlink::DownlinkReport::default(),
        agent: crate::agent::AgentReport::default(),
        latency: Vec::new(),
    }
}

impl World {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(words: &[&str]) -> Self {
        Self::started(words, None, None)
    }

    /// With a watchdog that wants to be told this often.
    fn watched(alive_every: Duration) -> Self {
        Self::started(&[], Some(alive_every), None)
    }

    /// With TLS.
    fn secure(words: &[&str], tls: Acceptor) -> Self {
        Self::started(words, None, Some(tls))
    }

    fn started(words: &[&str], alive_every: Option<Duration>, tls: Option<Acceptor>) -> Self {
        let mut world = Self::unstarted(words, alive_every, tls);
        world.prompt = true;
        world.run();
        world.told.clear();
        world
    }

    /// With workers that have not done what they were told.
    fn unstarted(words: &[&str], alive_every: Option<Duration>, tls: Option<Acceptor>) -> Self {
        Self::made(config(words), alive_every, tls, None, BTreeMap::new())
    }

    fn made(
        config: Config,
        alive_every: Option<Duration>,
        tls: Option<Acceptor>,
        whatsapp: Option<Settings>,
        journal: BTreeMap<u64, String>,
    ) -> Self {
        let now = Instant::now();
        let entropy = |bytes: &mut [u8]| bytes.fill(0xab);
        let build = BuildInfo { version: "1.2.3", io: "sim", opus: "" };
        let control = Control::new(
            now,
            ControlConfig {
                config: Arc::new(config),
                build,
                tls,
                entropy,
                driver_counters: CounterReader::default(),
                process: ProcessReader::default(),
                alive_every,
                whatsapp,
                notes: journal.clone().into_iter().collect(),
                unix_sec: || UNIX_SEC,
            },
        );
        let mut world = Self {
            control,
            now,
            offered: VecDeque::new(),
            offered_agents: VecDeque::new(),
            offered_locals: VecDeque::new(),
            kept: Vec::new(),
            dialled: VecDeque::new(),
            withdrawn: 0,
            keeps_one_withdrawn: false,
            clients: HashMap::new(),
            mail: VecDeque::new(),
            calls: BTreeMap::new(),
            opened: Vec::new(),
            told: Vec::new(),
            prompt: false,
            takes: true,
            refusal: None,
            events: Vec::new(),
            notices: Vec::new(),
            graph: VecDeque::new(),
            journal,
            parcels: Vec::new(),
            stages: Stages::new(),
            worker_stages: Stages::new(),
            exited: false,
        };
        world.run();
        world
    }

    fn input(&mut self, input: Input<'_, Message>) {
        self.control.handle_input(self.now, input);
        self.run();
    }

    /// Lets outputs, kernels and workers run until nothing more happens. Returns the next deadline.
    fn run(&mut self) -> Option<Instant> {
        for _ in 0..100_000 {
            match self.control.poll_output() {
                Output::Timeout(deadline) => {
                    if !self.prompt || self.mail.is_empty() {
                        return deadline.at;
                    }
                    self.work_one();
                }
                Output::Accept { stream, door: Door::AgentCheck } => self.offered_agents.push_back(stream),
                Output::Accept { stream, door: Door::Local } => self.offered_locals.push_back(stream),
                Output::Accept { stream, .. } => self.offered.push_back(stream),
                Output::Withdraw { stream } if std::mem::take(&mut self.keeps_one_withdrawn) => {
                    self.offered.retain(|other| *other == stream);
                }
                Output::Withdraw { stream } => {
                    self.withdrawn += 1;
                    self.offered.retain(|other| *other != stream);
                    self.control.handle_input(self.now, Input::Closed { stream });
                }
                Output::CloseDoor { door: Door::AgentCheck } => {
                    for stream in std::mem::take(&mut self.offered_agents) {
                        self.control.handle_input(self.now, Input::Closed { stream });
                    }
                }
                Output::ConnectLocal { stream, path } => {
                    self.clients.insert(stream, Client::default());
                    self.dialled.push_back((stream, path));
                }
                Output::Write { stream, bytes } => {
                    let client = self.clients.get_mut(&stream).expect("a write to a connection");
                    assert!(!client.shut && !client.closed, "a write after the end");
                    client.out.push_str(std::str::from_utf8(&bytes).unwrap());
                    client.unwritten += 1;
                    if self.takes {
                        self.take(stream);
                    }
                }
                Output::Shutdown { stream } => self.clients.get_mut(&stream).unwrap().shut = true,
                Output::Close { stream } => {
                    if let Some(client) = self.clients.get_mut(&stream) {
                        assert!(!client.closed, "closed twice");
                        client.closed = true;
                    }
                    self.control.handle_input(self.now, Input::Closed { stream });
                }
                Output::Message { to: Node::Worker(worker), message: Message::ToWorker(message) } => {
                    self.mail.push_back((worker, message));
                }
                Output::Message { to: Node::Supervisor, message: Message::Notify(notice) } => self.notices.push(notice),
                Output::Message { to: Node::Events, message: Message::Event(event) } => self.events.push(event),
                Output::Message { to: Node::Graph, message: Message::AskGraph(ask) } => self.graph.push_back(ask),
                Output::Message { to: Node::Forwarder, message: Message::Forward(parcel) } => self.parcels.push(parcel),
                Output::Message { to: Node::Journal, message: Message::Note(Note::Put(key, text)) } => {
                    assert_eq!(self.journal.insert(key, text), None, "a key is used once");
                }
                Output::Message { to: Node::Journal, message: Message::Note(Note::Remove(key)) } => {
                    assert!(self.journal.remove(&key).is_some(), "what is removed was there");
                }
                Output::Read { .. } => {}
                Output::Exit => {
                    assert!(!self.exited, "Exit twice");
                    self.exited = true;
                }
                other => panic!("control never asks for {other:?}"),
            }
        }
        panic!("control does not come to rest")
    }

    /// A client's kernel takes what was written.
    fn take(&mut self, stream: StreamKey) {
        let client = self.clients.get_mut(&stream).unwrap();
        while client.unwritten > 0 {
            client.unwritten -= 1;
            self.control.handle_input(self.now, Input::Written { stream, len: 0, buffer: Vec::new() });
        }
    }

    /// A worker does the oldest thing it was told.
    fn work_one(&mut self) {
        let (worker, message) = self.mail.pop_front().expect("something was told");
        self.told.push(format!("{worker} {}", format!("{message:?}").split('(').next().unwrap()));
        let event = match message {
            ToWorker::Open(open) => {
                let call = open.call;
                self.opened.push(*open);
                if let Some(why) = self.refusal.clone() {
                    FromWorker::Refused { call, why }
                } else {
                    self.calls.insert(call, (worker, report(call)));
                    FromWorker::Answered { call, answer: ANSWER.to_owned() }
                }
            }
            ToWorker::Hangup(call, reason) => return self.end(call, reason),
            ToWorker::Describe(id, call) => {
                FromWorker::Described(id, self.calls.get(&call).map(|(_, report)| Box::new(report.clone())))
            }
            ToWorker::List(id) => {
                let mine = self.calls.values().filter(|(at, _)| *at == worker);
                FromWorker::Listed(id, mine.map(|(_, report)| report.clone()).collect())
            }
            ToWorker::Latency(id, call) => {
                FromWorker::Latency(id, self.calls.contains_key(&call).then(|| Box::new(self.stages.clone())))
            }
            ToWorker::Stats(id) => {
                let stages = self.worker_stages.clone();
                let mut stats = WorkerStats { opened: 10, stages, ..WorkerStats::default() };
                stats.gauges.live[0] = self.calls.values().filter(|(at, _)| *at == worker).count() as u64;
                FromWorker::Stats(id, Box::new(stats))
            }
            ToWorker::Activate(_) | ToWorker::BeginChecks(_) => return,
            ToWorker::Ping => FromWorker::Pong,
            ToWorker::Stop(_) => {
                let mine: Vec<_> =
                    self.calls.iter().filter(|(_, (at, _))| *at == worker).map(|(call, _)| *call).collect();
                for call in mine {
                    self.end(call, CloseReason::ServerStopping);
                }
                FromWorker::Stopped
            }
        };
        self.from(worker, event);
    }

    /// How workers were told to stop, and have not done yet. They never get that mail.
    fn stops(&mut self) -> Vec<Ending> {
        let ending = |message: &ToWorker| if let ToWorker::Stop(ending) = message { Some(*ending) } else { None };
        let stops = self.mail.iter().filter_map(|(_, message)| ending(message)).collect();
        self.mail.retain(|(_, message)| ending(message).is_none());
        stops
    }

    fn from(&mut self, worker: u16, event: FromWorker) {
        self.control.handle_input(self.now, Input::Message(Message::FromWorker { worker, event }));
    }

    fn end(&mut self, call: CallNumber, reason: CloseReason) {
        if let Some((worker, mut report)) = self.calls.remove(&call) {
            report.state = CallState::Ended;
            report.close = Some(reason);
            report.close_detail = Some("in words".to_owned());
            self.from(worker, FromWorker::Ended(Box::new(report), Box::new(self.stages.clone())));
        }
    }

    fn connect_call(&mut self, call: u64) {
        let (worker, report) = self.calls.get_mut(&CallNumber(call)).expect("a live call");
        report.state = CallState::Active;
        report.connected_ms = Some(10);
        let worker = *worker;
        self.from(worker, FromWorker::Connected(CallNumber(call)));
        self.run();
    }

    fn end_call(&mut self, call: u64, reason: CloseReason) {
        self.end(CallNumber(call), reason);
        self.run();
    }

    /// A client connects, or uses a connection that was kept.
    fn client(&mut self) -> StreamKey {
        if let Some(stream) = self.kept.pop() {
            return stream;
        }
        let stream = self.offered.pop_front().expect("an accept is armed");
        self.clients.insert(stream, Client::default());
        self.input(Input::Accepted { stream, door: Door::Api, peer: "127.0.0.1:9".parse().ok() });
        stream
    }

    fn send(&mut self, stream: StreamKey, bytes: impl AsRef<[u8]>) {
        self.input(Input::Received { stream, bytes: bytes.as_ref() });
    }

    fn fail(&mut self, stream: StreamKey) {
        self.input(Input::Failed { stream, fault: Fault { errno: 104 } });
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.run().filter(|at| *at <= end) {
            assert!(at >= self.now || self.now == end, "time runs forward");
            self.now = at.max(self.now);
            self.input(Input::Timeout);
        }
        self.now = end;
    }

    /// What a client has received and not yet read.
    fn answers(&mut self, stream: StreamKey) -> Vec<Answer> {
        let out = std::mem::take(&mut self.clients.get_mut(&stream).unwrap().out);
        let mut rest = out.as_str();
        let mut answers = Vec::new();
        while !rest.is_empty() {
            let (head, after) = rest.split_once("\r\n\r\n").expect("a whole head");
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
            let length = length.parse::<usize>().unwrap().min(after.len());
            let text = &after[..length];
            rest = &after[length..];
            answers.push(Answer {
                status: head[9..12].parse().unwrap(),
                head: head.to_owned(),
                text: text.to_owned(),
                json: serde_json::from_str(text).unwrap_or_default(),
            });
        }
        answers
    }

    fn answer(&mut self, stream: StreamKey) -> Answer {
        let mut answers = self.answers(stream);
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    /// A request on a connection of its own, sent and left waiting.
    fn begin(&mut self, method: &str, path: &str, headers: &str, body: &str) -> StreamKey {
        let stream = self.client();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.send(stream, format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n{length}{headers}\r\n{body}"));
        stream
    }

    /// A request and its answer.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_with(method, path, "", body)
    }

    fn ask_with(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let stream = self.begin(method, path, headers, body);
        let answer = self.answer(stream);
        self.input(Input::Ended { stream });
        answer
    }

    /// Posts an offer for an id.
    fn post(&mut self, id: &str) -> Answer {
        self.ask("POST", "/api/sessions", &session(id, OFFER, &json!({})))
    }
}

fn session(id: &str, offer: &str, config: &Value) -> String {
    json!({ "callId": id, "sdpOffer": offer, "from": "16505551234", "config": config }).to_string()
}

/// An id as it stands in a path.
fn path(id: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    format!("/api/sessions/{}", id.bytes().map(encode).collect::<String>())
}
