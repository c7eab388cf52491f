//! The whole bridge on virtual time: control, one worker, the built-in agent and a relay, with a network that only delays.
//!
//! Every machine is the real one; only the driver is played here, by the contract in `io`. A test asks over HTTP as a
//! webhook would, and looks at what the relay recorded. What this world cannot show: loss on the agent's side, real
//! kernels, two workers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::Value;
use voice_media_bridge::agent::AgentConfig;
use voice_media_bridge::builtin::{BuiltinAgent, BuiltinOptions};
use voice_media_bridge::call::CallConfig;
use voice_media_bridge::config::{Config, Flags};
use voice_media_bridge::control::{Control, ControlConfig};
use voice_media_bridge::io::{Datagram, Door, Entropy, Fault, Input, Machine, Node, Output, SocketKey, StreamKey};
use voice_media_bridge::messages::{Message, Resolved};
use voice_media_bridge::peer::identity::Identity;
use voice_media_bridge::peer::sdp::Policy;
use voice_media_bridge::stats::{BuildInfo, CounterReader, ProcessReader};
use voice_media_bridge::worker::{LoadSettings, Worker, WorkerConfig};

use crate::relay::Relay;

/// One way between the bridge and the relay.
pub(crate) const UDP_DELAY: Duration = Duration::from_millis(20);
/// One way on a stream or between machines.
const LOCAL_DELAY: Duration = Duration::from_micros(100);
/// Where media sockets are.
pub(crate) const BRIDGE_IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where the relay is.
const RELAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3480);
/// Inputs that one step may cause before the test is wrong.
const STEPS_MAX: u64 = 20_000_000;

/// The machines, and the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Control,
    Worker,
    Agent,
    Relay,
    /// An HTTP client of the test.
    Outside,
}

/// What the machines are called, in the order in which they are drained.
const NAMES: [&str; 3] = ["control", "worker", "agent"];

/// An input on its way.
enum Event {
    Datagram { from: SocketAddr, to: SocketAddr, payload: Vec<u8> },
    UdpBound { socket: SocketKey, port: u16 },
    UdpClosed { socket: SocketKey },
    Accepted { stream: StreamKey },
    Connected { stream: StreamKey },
    Failed { stream: StreamKey, fault: Fault },
    Received { stream: StreamKey, bytes: Vec<u8> },
    Ended { stream: StreamKey },
    Written { stream: StreamKey, len: usize, buffer: Vec<u8> },
    Closed { stream: StreamKey },
    Message(Message),
    Stop,
}

/// One end of a stream.
type End = (Place, StreamKey);

/// What an HTTP client of the test got.
#[derive(Default)]
struct Client {
    received: Vec<u8>,
    ended: bool,
}

/// The world.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) relay: Relay,
    control: Control,
    worker: Worker,
    agent: BuiltinAgent,
    deadlines: [Option<Instant>; 3],
    events: BinaryHeap<Reverse<(Instant, u64)>>,
    pending: HashMap<u64, (Place, Event)>,
    order: u64,
    ports: HashMap<u16, SocketKey>,
    port_of: HashMap<SocketKey, u16>,
    next_port: u16,
    accepts: HashMap<Place, VecDeque<StreamKey>>,
    peers: HashMap<End, End>,
    clients: HashMap<u32, Client>,
    exited: Vec<&'static str>,
    /// Whether new connections to the agent are refused.
    pub(crate) agent_is_down: bool,
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

fn entropy(buffer: &mut [u8]) {
    aws_lc_rs::rand::fill(buffer).expect("the system has random numbers");
}

impl World {
    /// A world whose bridge runs on these flags.
    pub(crate) fn new(flags: &[&str]) -> Self {
        let line = Line::try_parse_from([&["bridge", "--workers", "1", "--allow-private"], flags].concat());
        let config = Config::from_flags(line.expect("flags that clap takes").flags, 1).expect("a valid configuration");
        let now = Instant::now();
        let entropy: Entropy = entropy;
        let agent = AgentConfig {
            host: "127.0.0.1".into(),
            port: 8765,
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
                start_delay: config.start_delay,
                opus_complexity: 0,
                entropy,
                stopwatch: || 0,
            },
            media_ip: BRIDGE_IP,
            loopback_listener: true,
            policy: Policy {
                allow_private: true,
                own_listener: Some(config.listen),
                own_media_ports: config.media_ports.clone(),
                own_media_ip: BRIDGE_IP,
            },
            load: LoadSettings::fixed(0),
        });
        let build = BuildInfo { version: "test", io: "world", opus: "" };
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
                whatsapp: None,
                notes: Vec::new(),
                unix_sec: || 0,
            },
        );
        let mut world = Self {
            now,
            relay: Relay::new(RELAY, 7),
            control,
            worker,
            agent: BuiltinAgent::new(BuiltinOptions { echo: false }),
            deadlines: [None; 3],
            events: BinaryHeap::new(),
            pending: HashMap::new(),
            order: 0,
            ports: HashMap::new(),
            port_of: HashMap::new(),
            next_port: 40_000,
            accepts: HashMap::new(),
            peers: HashMap::new(),
            clients: HashMap::new(),
            exited: Vec::new(),
            agent_is_down: false,
        };
        world.drain_all();
        world
    }

    /// Lets this much time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut steps = 0;
        while let Some(next) = self.next_at().filter(|next| *next <= until) {
            self.step(next);
            steps += 1;
            assert!(steps < STEPS_MAX, "the world does not come to rest: {:?}", self.deadlines);
        }
        self.now = until;
    }

    /// Lets time pass until this holds, at most so long.
    #[track_caller]
    pub(crate) fn run_until(&mut self, what: &str, most: Duration, mut holds: impl FnMut(&mut Self) -> bool) {
        let until = self.now + most;
        while !holds(self) {
            let next = self.next_at().filter(|next| *next <= until);
            let Some(next) = next else { panic!("{what}: not within {most:?}") };
            self.step(next);
        }
    }

    /// One HTTP request, answered; no time passes but what the answer takes (at most a second).
    #[track_caller]
    pub(crate) fn http(&mut self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let client = self.request(method, path, body);
        self.run_until("an answer", Duration::from_secs(1), |world| world.answer(client).is_some());
        self.answer(client).expect("it was there a moment ago")
    }

    /// Begins an HTTP request; [`World::answer`] has what comes of it.
    pub(crate) fn request(&mut self, method: &str, path: &str, body: Option<&Value>) -> u32 {
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let number = self.clients.len() as u32;
        self.clients.insert(number, Client::default());
        let outside = (Place::Outside, StreamKey { slot: number, generation: 0 });
        let control = self.accept(Place::Control).expect("control accepts connections");
        self.join(outside, (Place::Control, control));
        self.push(LOCAL_DELAY, Place::Control, Event::Accepted { stream: control });
        let bytes = [head.as_bytes(), body.as_bytes()].concat();
        self.push(LOCAL_DELAY, Place::Control, Event::Received { stream: control, bytes });
        number
    }

    /// The status and body of an answer, once it is whole.
    pub(crate) fn answer(&self, client: u32) -> Option<(u16, Value)> {
        let client = self.clients.get(&client).filter(|client| client.ended)?;
        let text = String::from_utf8_lossy(&client.received);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))))
    }

    /// Asks the bridge to end, as a signal does.
    pub(crate) fn stop(&mut self) {
        self.push(Duration::ZERO, Place::Control, Event::Stop);
    }

    /// Which machines are done for good.
    pub(crate) fn exited(&self) -> &[&'static str] {
        &self.exited
    }

    /// Media sockets open now.
    pub(crate) fn open_ports(&self) -> usize {
        self.ports.len()
    }

    /// Stream ends open now, those of the test's clients excluded.
    pub(crate) fn open_streams(&self) -> usize {
        self.peers.keys().filter(|(place, _)| *place == Place::Worker).count()
    }

    /// Sends a datagram to a media port of the bridge as if from `from`.
    pub(crate) fn inject(&mut self, from: SocketAddr, port: u16, payload: &[u8]) {
        let event = Event::Datagram { from, to: SocketAddr::new(BRIDGE_IP, port), payload: payload.to_vec() };
        self.push(Duration::ZERO, Place::Worker, event);
    }

    fn next_at(&self) -> Option<Instant> {
        let event = self.events.peek().map(|Reverse((at, _))| *at);
        self.deadlines.into_iter().flatten().chain(event).chain(self.relay.poll_timeout()).min()
    }

    fn step(&mut self, at: Instant) {
        self.now = self.now.max(at);
        while let Some(Reverse((due, order))) = self.events.peek().copied().filter(|Reverse((due, _))| *due <= self.now)
        {
            self.events.pop();
            let _ = due;
            let (place, event) = self.pending.remove(&order).expect("each event is taken once");
            self.deliver(place, event);
        }
        for (index, place) in [Place::Control, Place::Worker, Place::Agent].into_iter().enumerate() {
            if self.deadlines[index].is_some_and(|deadline| deadline <= self.now) {
                self.input(place, Input::Timeout);
            }
        }
        if self.relay.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
            self.relay.handle_timeout(self.now);
        }
        self.drain_all();
    }

    fn push(&mut self, delay: Duration, place: Place, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now + delay, self.order)));
        self.pending.insert(self.order, (place, event));
    }

    fn input(&mut self, place: Place, input: Input<'_, Message>) {
        match place {
            Place::Control => self.control.handle_input(self.now, input),
            Place::Worker => self.worker.handle_input(self.now, input),
            Place::Agent => self.agent.handle_input(self.now, input),
            Place::Relay | Place::Outside => unreachable!("these are no machines"),
        }
    }

    fn deliver(&mut self, place: Place, event: Event) {
        let now = self.now;
        match (place, event) {
            (Place::Relay, Event::Datagram { from, payload, .. }) => self.relay.handle_datagram(now, from, &payload),
            (Place::Outside, Event::Received { stream, bytes }) => {
                self.clients.entry(stream.slot).or_default().received.extend(bytes);
            }
            (Place::Outside, Event::Ended { stream }) => {
                self.clients.entry(stream.slot).or_default().ended = true;
                self.part((Place::Outside, stream));
            }
            (Place::Outside | Place::Relay, _) => {}
            (_, Event::Datagram { from, to, payload }) => {
                if let Some(socket) = self.ports.get(&to.port()).copied() {
                    let datagram = Datagram { socket, from, payload: &payload, received: now };
                    self.input(place, Input::Datagram(datagram));
                }
            }
            (_, Event::Received { stream, bytes }) => {
                if self.peers.contains_key(&(place, stream)) {
                    self.input(place, Input::Received { stream, bytes: &bytes });
                }
            }
            (_, Event::UdpBound { socket, port }) => self.input(place, Input::UdpBound { socket, port }),
            (_, Event::UdpClosed { socket }) => self.input(place, Input::UdpClosed { socket }),
            (_, Event::Accepted { stream }) => {
                let peer = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000)));
                self.input(place, Input::Accepted { stream, door: Door::Api, peer });
            }
            (_, Event::Connected { stream }) => self.input(place, Input::Connected { stream }),
            (_, Event::Failed { stream, fault }) => self.input(place, Input::Failed { stream, fault }),
            (_, Event::Ended { stream }) => {
                if self.peers.contains_key(&(place, stream)) {
                    self.input(place, Input::Ended { stream });
                }
            }
            (_, Event::Written { stream, len, buffer }) => self.input(place, Input::Written { stream, len, buffer }),
            (_, Event::Closed { stream }) => self.input(place, Input::Closed { stream }),
            (_, Event::Message(message)) => self.input(place, Input::Message(message)),
            (_, Event::Stop) => self.input(place, Input::Stop),
        }
    }

    fn drain_all(&mut self) {
        for (index, place) in [Place::Control, Place::Worker, Place::Agent].into_iter().enumerate() {
            if self.exited.contains(&NAMES[index]) {
                continue;
            }
            loop {
                let output = match place {
                    Place::Control => self.control.poll_output(),
                    Place::Worker => self.worker.poll_output(),
                    _ => self.agent.poll_output(),
                };
                match output {
                    Output::Timeout(deadline) => {
                        self.deadlines[index] = deadline.at;
                        break;
                    }
                    Output::Exit => {
                        self.exited.push(NAMES[index]);
                        self.deadlines[index] = None;
                        break;
                    }
                    output => self.output(place, output),
                }
            }
            if !self.exited.contains(&NAMES[index]) {
                self.input(place, Input::Submitted);
            }
        }
        while let Some(datagram) = self.relay.poll_transmit() {
            let event = Event::Datagram { from: RELAY, to: datagram.to, payload: datagram.payload };
            self.push(UDP_DELAY, Place::Worker, event);
        }
    }

    fn output(&mut self, place: Place, output: Output<Message>) {
        match output {
            Output::BindUdp { socket, .. } => {
                self.next_port += 1;
                self.ports.insert(self.next_port, socket);
                self.port_of.insert(socket, self.next_port);
                self.push(Duration::ZERO, place, Event::UdpBound { socket, port: self.next_port });
            }
            Output::Send { socket, to, payload } => {
                let from = SocketAddr::new(BRIDGE_IP, self.port_of[&socket]);
                if to == RELAY {
                    self.push(UDP_DELAY, Place::Relay, Event::Datagram { from, to, payload });
                }
            }
            Output::CloseUdp { socket } => {
                let port = self.port_of.remove(&socket).expect("a socket is closed once");
                self.ports.remove(&port);
                self.push(LOCAL_DELAY, place, Event::UdpClosed { socket });
            }
            Output::Accept { stream, .. } => self.accepts.entry(place).or_default().push_back(stream),
            Output::Connect { stream, .. } => match self.accept(Place::Agent).filter(|_| !self.agent_is_down) {
                Some(other) => {
                    self.join((place, stream), (Place::Agent, other));
                    self.push(LOCAL_DELAY, Place::Agent, Event::Accepted { stream: other });
                    self.push(LOCAL_DELAY, place, Event::Connected { stream });
                }
                None => self.push(LOCAL_DELAY, place, Event::Failed { stream, fault: Fault { errno: 111 } }),
            },
            Output::Write { stream, bytes } => {
                let len = bytes.len();
                if let Some((other, key)) = self.peers.get(&(place, stream)).copied() {
                    self.push(LOCAL_DELAY, other, Event::Received { stream: key, bytes });
                }
                self.push(LOCAL_DELAY, place, Event::Written { stream, len, buffer: Vec::new() });
            }
            // No service manager listens here, and no Meta.
            Output::Read { .. }
            | Output::Message { to: Node::Supervisor | Node::Graph | Node::Forwarder | Node::Journal, .. } => {}
            Output::Shutdown { stream } => {
                if let Some((other, key)) = self.peers.get(&(place, stream)).copied() {
                    self.push(LOCAL_DELAY, other, Event::Ended { stream: key });
                }
            }
            Output::Close { stream } => {
                if let Some((other, key)) = self.part((place, stream)) {
                    self.push(LOCAL_DELAY, other, Event::Ended { stream: key });
                }
                self.push(LOCAL_DELAY, place, Event::Closed { stream });
            }
            Output::Message { to: Node::Control, message } => {
                self.push(LOCAL_DELAY, Place::Control, Event::Message(message));
            }
            Output::Message { to: Node::Worker(_), message } => {
                self.push(LOCAL_DELAY, Place::Worker, Event::Message(message));
            }
            Output::Message { to: Node::Resolver, message } => {
                let Message::Resolve(resolve) = message else { panic!("the resolver was sent {message:?}") };
                let address = SocketAddr::new(resolve.host.parse().expect("an address"), resolve.port);
                let resolved = Resolved { call: resolve.call, outcome: Ok(Arc::from([address])) };
                self.push(LOCAL_DELAY, Place::Worker, Event::Message(Message::Resolved(resolved)));
            }
            Output::Message { to: Node::Events, .. } => panic!("nobody listens to events here"),
            // One machine has one bridge here.
            Output::Withdraw { .. } | Output::CloseDoor { .. } | Output::ConnectLocal { .. } => {
                unreachable!("there is no other instance")
            }
            Output::Exit | Output::Timeout(_) => unreachable!("taken by the loop"),
        }
    }

    fn accept(&mut self, place: Place) -> Option<StreamKey> {
        self.accepts.get_mut(&place)?.pop_front()
    }

    fn join(&mut self, a: End, b: End) {
        self.peers.insert(a, b);
        self.peers.insert(b, a);
    }

    fn part(&mut self, end: End) -> Option<End> {
        let other = self.peers.remove(&end)?;
        Some(other)
    }
}
