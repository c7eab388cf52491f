//! Control and one worker with one caller, driven by hand on virtual time: the driver, the relay's network and the model
//! are played here, and one input at a time can be put on the watch.
//!
//! What is timed is `handle_input` and the `poll_output`s that drain it. The caller's relay, the model's side and what a
//! driver says afterwards ([`Input::Submitted`], [`Input::Written`]) are not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
use voice_media_bridge::io::{Datagram, Entropy, Input, Machine, Node, Output, SocketKey, StreamKey};
use voice_media_bridge::messages::{FromWorker, Message, Resolved, ToWorker};
use voice_media_bridge::peer::identity::Identity;
use voice_media_bridge::peer::sdp::Policy;
use voice_media_bridge::stats::{BuildInfo, CounterReader};
use voice_media_bridge::worker::{LoadSettings, Worker, WorkerConfig};

use crate::relay::Relay;
use crate::relay::script::Script;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const RELAY: SocketAddr = SocketAddr::new(LOCALHOST, 3480);
const MEDIA: SocketAddr = SocketAddr::new(LOCALHOST, 40_000);
const MODEL: SocketAddr = SocketAddr::new(LOCALHOST, 8765);
/// From a beat of the worker to where the relay's packets arrive, and on to the next beat.
const HALF_FRAME: Duration = Duration::from_millis(10);
/// The second half, parted where timers other than the beat's are served.
const BEFORE_BEAT: Duration = Duration::from_millis(9);
const EVE: Duration = Duration::from_millis(1);
/// Steps of half a frame within which a call is up and greeted: 5 s.
const SETUP_STEPS_MAX: u32 = 500;
/// The model says something this often, as a real one does: a silent one would be taken for dead after 20 s.
const PONG_EVERY: u32 = 250;
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

/// A text frame of a server: not masked.
pub(crate) fn text_frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    let mut bytes = vec![0x81];
    if length < 126 {
        bytes.push(length as u8);
    } else {
        bytes.push(126);
        bytes.extend(length.to_be_bytes());
    }
    bytes.extend(text.as_bytes());
    bytes
}

/// RFC 7983 and RFC 5761: whether a datagram is RTP.
fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [0x80..0xc0, kind, ..] if !(192..=223).contains(kind))
}

/// Hands over one input and drains what comes of it; how long that took.
fn timed<M: Machine>(
    machine: &mut M,
    now: Instant,
    input: Input<'_, M::Message>,
    out: &mut Vec<Output<M::Message>>,
) -> Duration {
    let start = Instant::now();
    machine.handle_input(now, input);
    loop {
        match machine.poll_output() {
            Output::Timeout(_) => return start.elapsed(),
            output => out.push(output),
        }
    }
}

/// What a posted offer came to.
pub(crate) struct Posted {
    pub(crate) call: CallNumber,
    pub(crate) answer: String,
    /// Time of control and worker together.
    pub(crate) whole: Duration,
    /// The worker's part of it.
    pub(crate) worker: Duration,
}

/// What one input of the worker came to.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) took: Duration,
    /// Writes to the model.
    pub(crate) writes: u32,
    /// RTP packets to the caller.
    pub(crate) rtp_sent: u32,
}

/// The bridge and its surroundings.
pub(crate) struct Bridge {
    pub(crate) now: Instant,
    control: Control,
    worker: Worker,
    pub(crate) relay: Relay,
    accepts: Vec<StreamKey>,
    posts: u32,
    socket: Option<SocketKey>,
    model: Option<StreamKey>,
    /// Writes that the model has taken.
    model_heard: u32,
    connected: bool,
    steps: u32,
    out: Vec<Output<Message>>,
}

impl Bridge {
    pub(crate) fn new(opus_complexity: u8) -> Self {
        let flags = ["bridge", "--workers", "1", "--allow-private", "--max-duration-sec", "86400"];
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
        let build = BuildInfo { version: "bench", io: "bench" };
        let control = Control::new(
            now,
            ControlConfig { config: Arc::new(config), build, entropy, driver_counters: CounterReader::default() },
        );
        let mut bridge = Self {
            now,
            control,
            worker,
            relay: Relay::new(RELAY, 7),
            accepts: Vec::new(),
            posts: 0,
            socket: None,
            model: None,
            model_heard: 0,
            connected: false,
            steps: 0,
            out: Vec::with_capacity(64),
        };
        bridge.control(Input::Timeout);
        bridge
    }

    /// A bridge in a call whose caller says this: connected, the model's session live, media flowing, now at a beat.
    pub(crate) fn in_call(opus_complexity: u8, script: Script) -> Self {
        let mut bridge = Self::new(opus_complexity);
        let (key, offer) = bridge.relay.offer(bridge.now, script);
        let posted = bridge.post(&offer);
        bridge.relay.apply_answer(bridge.now, key, &posted.answer).expect("an answer that the relay can read");
        // Past the greeting, which the model leaves without a reply, and on to a beat.
        for step in 1.. {
            assert!(step < SETUP_STEPS_MAX, "the call is not up");
            bridge.now += HALF_FRAME;
            bridge.hear_relay();
            let done = bridge.worker(Input::Timeout);
            bridge.relay.handle_timeout(bridge.now);
            if bridge.connected && bridge.model_heard > 2 && done.rtp_sent == 1 && step > SETUP_STEPS_MAX / 2 {
                return bridge;
            }
        }
        unreachable!("the loop ends by returning or by panic")
    }

    /// Posts an offer as the webhook does, over a connection of its own, up to the bytes of the HTTP answer.
    pub(crate) fn post(&mut self, offer: &str) -> Posted {
        let stream = self.accepts.pop().expect("control accepts connections");
        self.control(Input::Accepted { stream, peer: SocketAddr::new(LOCALHOST, 50_000) });
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

        let mut out = Vec::new();
        let received = Input::Received { stream, bytes: request.as_bytes() };
        let mut control = timed(&mut self.control, self.now, received, &mut out);
        let open = take(&mut out, |output| match output {
            Output::Message { to: Node::Worker(0), message } => Ok(message),
            other => Err(other),
        });
        let Message::ToWorker(ToWorker::Open(call)) = &open else { panic!("{open:?}") };
        let call = call.call;
        let mut worker = timed(&mut self.worker, self.now, Input::Message(open), &mut out);
        let socket = take(&mut out, |output| match output {
            Output::BindUdp { socket, .. } => Ok(socket),
            other => Err(other),
        });
        self.socket = Some(socket);
        let bound = Input::UdpBound { socket, port: MEDIA.port() };
        worker += timed(&mut self.worker, self.now, bound, &mut self.out);
        let answered = take(&mut self.out, |output| match output {
            Output::Message { to: Node::Control, message } => Ok(message),
            other => Err(other),
        });
        control += timed(&mut self.control, self.now, Input::Message(answered), &mut out);
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
        self.settle(Duration::ZERO);
        Posted { call, answer, whole: control + worker, worker }
    }

    /// Ends a call, and lets control forget it in time.
    pub(crate) fn hang_up(&mut self, call: CallNumber) {
        self.worker(Input::Message(Message::ToWorker(ToWorker::Hangup(call, CloseReason::Hangup))));
        self.now += Duration::from_secs(10);
        self.control(Input::Timeout);
    }

    /// From a beat to half a frame later, with the relay's packets on their way; how the RTP packet fared, if one came.
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

    /// Bytes of the model.
    pub(crate) fn hear_model(&mut self, bytes: &[u8]) -> Done {
        let stream = self.model.expect("the model is connected");
        self.worker(Input::Received { stream, bytes })
    }

    fn hear_relay(&mut self) -> Option<Done> {
        let mut rtp = None;
        while let Some(datagram) = self.relay.poll_transmit() {
            let socket = self.socket.expect("a call has a socket");
            let input = Datagram { socket, from: RELAY, payload: &datagram.payload, received: self.now };
            let done = self.worker(Input::Datagram(input));
            if is_rtp(&datagram.payload) {
                rtp = Some(done);
            }
        }
        rtp
    }

    fn worker(&mut self, input: Input<'_, Message>) -> Done {
        let took = timed(&mut self.worker, self.now, input, &mut self.out);
        self.settle(took)
    }

    /// Does what the worker put out, and what comes of that.
    fn settle(&mut self, took: Duration) -> Done {
        let mut done = Done { took, ..Done::default() };
        self.worker.handle_input(self.now, Input::Submitted);
        while !self.out.is_empty() {
            for output in std::mem::take(&mut self.out) {
                match output {
                    Output::Send { payload, .. } => {
                        done.rtp_sent += u32::from(is_rtp(&payload));
                        self.relay.handle_datagram(self.now, MEDIA, &payload);
                    }
                    Output::Write { stream, mut bytes } => {
                        done.writes += 1;
                        let len = bytes.len();
                        bytes.clear();
                        self.follow(Input::Written { stream, len, buffer: bytes });
                        self.play_model(stream);
                    }
                    Output::Message { to: Node::Resolver, message: Message::Resolve(resolve) } if self.posts == 1 => {
                        let outcome = Ok(Arc::from([MODEL]));
                        self.follow(Input::Message(Message::Resolved(Resolved { call: resolve.call, outcome })));
                    }
                    Output::Message { to: Node::Control, message } => {
                        self.connected |=
                            matches!(message, Message::FromWorker { event: FromWorker::Connected(_), .. });
                        self.control(Input::Message(message));
                    }
                    Output::Connect { stream, .. } => {
                        self.model = Some(stream);
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

    /// An input of the worker that nobody times.
    fn follow(&mut self, input: Input<'_, Message>) {
        timed(&mut self.worker, self.now, input, &mut self.out);
    }

    /// The model's first words: it takes the upgrade, then the session; the rest it hears in silence.
    fn play_model(&mut self, stream: StreamKey) {
        self.model_heard += 1;
        let bytes = match self.model_heard {
            1 => [UPGRADED, &text_frame(r#"{"type":"session.created"}"#)].concat(),
            2 => text_frame(r#"{"type":"session.updated"}"#),
            _ => return,
        };
        self.follow(Input::Received { stream, bytes: &bytes });
    }

    fn control(&mut self, input: Input<'_, Message>) {
        let mut out = Vec::new();
        timed(&mut self.control, self.now, input, &mut out);
        for output in out {
            match output {
                Output::Accept { stream } => self.accepts.push(stream),
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
