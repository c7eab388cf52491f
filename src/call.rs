//! One call: two legs, the audio between them, and the rules by which it lives and ends.
//!
//! The legs never see each other. Caller to model: RTP from [`Peer`] through [`Uplink`] into [`Agent`]. Model to caller:
//! audio from [`Agent`] into [`Downlink`], whose beat goes out through [`Peer`]. The call decides when media starts, when
//! the model greets, what a barge-in flushes, and which deadline ends it. It must not know which socket or stream its
//! bytes travel on: that is the worker's.

pub mod downlink;
mod goodbye;
mod marks;
mod meter;
pub mod uplink;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use crate::agent::{Agent, AgentConfig, AgentEvent, AgentOutput, AgentSink, Attempt};
use crate::audio::EncoderSettings;
use crate::call_id::{CallNumber, LogId};
use crate::close_reason::CloseReason;
use crate::io::{Deadline, Entropy, Fault, Stopwatch};
use crate::messages::{CallReport, CallState, GOODBYE_TIME_MAX, OpenCall, OpenRefusal, StartMedia};
use crate::peer::identity::Identity;
use crate::peer::{Peer, PeerEvent, PeerSink};
use crate::playout::ItemId;
use crate::stats::{Gauges, Stage, Stages};
use downlink::{Downlink, OWN_ITEM, Push};
use marks::Marks;
use uplink::Uplink;

/// ICE and DTLS must be done this long after the answer. WhatsApp gives up after 30 to 60 s.
const CONNECT_SEC_MAX: u64 = 30;
/// A connected peer that sends nothing at all for this long is gone: the same limit that WhatsApp sets us.
const PEER_SILENT_SEC_MAX: u64 = 30;
/// The greeting waits for the caller's first packet, so that no word is lost on a path that is still opening; but not
/// longer than this, for a caller who is silent by DTX from the start.
const GREETING_WAIT: Duration = Duration::from_secs(2);

/// What all calls of a worker share.
#[derive(Clone, Debug)]
pub struct CallConfig {
    /// Who we are to peers.
    pub identity: Identity,
    /// Where the model is.
    pub agent: Arc<AgentConfig>,
    /// Delay between DTLS and media for `startMedia: auto`.
    pub start_delay: Duration,
    /// Encoder complexity, 0 to 10.
    pub opus_complexity: u8,
    /// Source of random numbers.
    pub entropy: Entropy,
    /// Measures what the codec takes: the time that the thread has run.
    pub stopwatch: Stopwatch,
}

/// What the codec has taken, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodecTime {
    /// Frames towards the caller.
    pub encode_ns: u64,
    /// Packets from the caller, concealment included.
    pub decode_ns: u64,
}

/// Takes what a call puts out.
pub trait CallSink {
    /// A datagram from the call's socket.
    fn send(&mut self, to: SocketAddr, payload: Vec<u8>);
    /// The model's host is to be looked up.
    fn resolve(&mut self, host: &Arc<str>, port: u16);
    /// A connection to the model is to be opened.
    fn connect(&mut self, attempt: Attempt, to: SocketAddr);
    /// Bytes for the model.
    fn write(&mut self, attempt: Attempt, bytes: Vec<u8>);
    /// A connection to the model is no longer wanted.
    fn close_stream(&mut self, attempt: Attempt);
    /// The call measured this, and keeps it too.
    fn measured(&mut self, stage: Stage, latency: Duration);
}

/// Something that happened to a connection with the model.
#[derive(Debug)]
pub enum StreamEvent<'a> {
    /// It stands.
    Connected,
    /// Bytes came.
    Received(&'a [u8]),
    /// The model sends no more.
    Ended,
    /// It failed.
    Failed(Fault),
    /// A buffer was written and comes back.
    Written(usize, Vec<u8>),
}

/// One call.
pub struct Call {
    number: CallNumber,
    log_id: LogId,
    peer: Peer,
    agent: Agent,
    uplink: Uplink,
    downlink: Downlink,
    state: CallState,
    start_media: StartMedia,
    start_delay: Duration,
    activated: bool,
    greeted: bool,
    heard: bool,
    answered_at: Instant,
    connected_at: Option<Instant>,
    /// Media starts here once DTLS is up and nothing else holds it.
    media_at: Option<Instant>,
    greeting_at: Option<Instant>,
    /// The call ends here, for this reason; a caller who hears us is told first.
    over_at: Instant,
    over_reason: CloseReason,
    goodbye: Goodbye,
    end: Option<End>,
    stages: Stages,
    marks: Marks,
    peer_events: VecDeque<PeerEvent>,
    follow_ups: Vec<FollowUp>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: CloseReason,
    /// More, in words; empty when the reason says all.
    pub detail: String,
    /// When.
    pub at: Instant,
}

/// How far the goodbye is that a caller hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goodbye {
    Unsaid,
    /// The next packet is silence, so that what was playing fades instead of breaking off; then the tones are queued.
    Due,
    /// The call ends with its last packet.
    Playing,
}

/// What an event of the model makes the call do once the agent has returned.
#[derive(Debug)]
enum FollowUp {
    Truncate(ItemId, u32),
    Refuse(ItemId),
    Close(CloseReason, String),
}

impl Call {
    /// Answers an offer and begins to open the model's session. `local` is the advertised address with the socket's port;
    /// `phase` (0 to 20 ms) spreads the beats of calls.
    pub fn open(
        now: Instant,
        config: &CallConfig,
        open: OpenCall,
        remotes: Vec<SocketAddr>,
        local: SocketAddr,
        phase: Duration,
        sink: &mut dyn CallSink,
    ) -> Result<(Self, String), OpenRefusal> {
        let opus = &open.offer.opus.params;
        let encoder = EncoderSettings::for_peer(
            opus.max_average_bitrate,
            opus.max_playback_rate,
            opus.use_inband_fec,
            config.opus_complexity,
        );
        let internal = |error: &dyn std::fmt::Display| OpenRefusal::Internal(error.to_string());
        let uplink = Uplink::new().map_err(|error| internal(&error))?.timed_by(config.stopwatch);
        let downlink = Downlink::new(encoder, phase, random_rtp_time(config.entropy))
            .map_err(|error| internal(&error))?
            .timed_by(config.stopwatch);
        let (peer, answer) = Peer::answer(now, &config.identity, &open.offer, remotes, local, config.entropy)
            .map_err(|error| OpenRefusal::Internal(error.0))?;
        let mut call = Self {
            number: open.call,
            log_id: open.log_id,
            peer,
            agent: Agent::new(now, open.log_id, config.agent.clone(), open.session),
            uplink,
            downlink,
            state: CallState::Connecting,
            start_media: open.start_media,
            start_delay: config.start_delay,
            activated: false,
            greeted: false,
            heard: false,
            answered_at: now,
            connected_at: None,
            media_at: None,
            greeting_at: None,
            over_at: now + Duration::from_secs(open.duration_sec_max.into()),
            over_reason: CloseReason::MaxDuration,
            goodbye: Goodbye::Unsaid,
            end: None,
            stages: Stages::new(),
            marks: Marks::default(),
            peer_events: VecDeque::with_capacity(4),
            follow_ups: Vec::new(),
        };
        call.pump_agent(now, sink);
        Ok((call, answer))
    }

    /// Looks for a path to the caller from now on.
    pub fn begin_checks(&mut self, now: Instant, sink: &mut dyn CallSink) {
        let mut out = PeerOut { sink, events: &mut self.peer_events };
        self.peer.begin_checks(now, &mut out);
        self.pump(now, now, sink);
    }

    /// Takes a datagram that the kernel received at `received`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        received: Instant,
        from: SocketAddr,
        payload: &[u8],
        sink: &mut dyn CallSink,
    ) {
        let mut out = PeerOut { sink, events: &mut self.peer_events };
        self.peer.handle_datagram(now, from, payload, &mut out);
        self.pump(now, received, sink);
    }

    /// Takes the addresses of the model's host.
    pub fn handle_resolved(
        &mut self,
        now: Instant,
        outcome: Result<Arc<[SocketAddr]>, String>,
        sink: &mut dyn CallSink,
    ) {
        self.with_agent(now, sink, |agent, out| agent.handle_resolved(now, outcome, out));
    }

    /// Takes what happened to a connection with the model.
    pub fn handle_stream(&mut self, now: Instant, attempt: Attempt, event: StreamEvent<'_>, sink: &mut dyn CallSink) {
        self.with_agent(now, sink, |agent, out| match event {
            StreamEvent::Connected => agent.handle_connected(now, attempt, out),
            StreamEvent::Received(bytes) => agent.handle_received(now, attempt, bytes, out),
            StreamEvent::Ended => agent.handle_ended(now, attempt, out),
            StreamEvent::Failed(fault) => agent.handle_failed(now, attempt, fault, out),
            StreamEvent::Written(len, buffer) => agent.handle_written(attempt, len, buffer),
        });
    }

    /// Lets time pass: runs whatever is due.
    pub fn handle_timeout(&mut self, now: Instant, sink: &mut dyn CallSink) {
        let due = |deadline: Deadline| deadline.at.is_some_and(|at| at <= now);
        if self.media_at.is_some_and(|at| at <= now) {
            self.start_media(now);
        }
        // The beat first: it is what a caller hears when it is late.
        if due(self.downlink.deadline()) {
            self.beat(now, sink);
        }
        if self.peer.next_timeout() <= now {
            self.peer.handle_timeout(now, &mut PeerOut { sink, events: &mut self.peer_events });
        }
        if due(self.agent.deadline()) {
            self.with_agent(now, sink, |agent, out| agent.handle_timeout(now, out));
        }
        if self.greeting_at.is_some_and(|at| at <= now) {
            self.greet(now);
        }
        self.check_limits(now, sink);
        self.pump(now, now, sink);
    }

    /// The next time this call wants to run.
    pub fn deadline(&self) -> Deadline {
        let limit = match self.connected_at {
            None => self.answered_at + Duration::from_secs(CONNECT_SEC_MAX),
            Some(_) => self.peer.last_accepted() + Duration::from_secs(PEER_SILENT_SEC_MAX),
        };
        let optional = |at: Option<Instant>, reason| at.map_or(Deadline::NEVER, |at| Deadline::at(at, reason));
        Deadline::at(self.peer.next_timeout(), "peer")
            .min(self.downlink.deadline())
            .min(self.uplink.deadline())
            .min(self.agent.deadline())
            .min(optional(self.media_at, "media start"))
            .min(optional(self.greeting_at, "greeting"))
            .min(Deadline::at(limit.min(self.over_at), "limit"))
    }

    /// Media may start, whatever the webhook asked for.
    pub fn activate(&mut self, now: Instant, sink: &mut dyn CallSink) {
        self.activated = true;
        if self.state == CallState::Held {
            self.media_at = Some(now);
            self.handle_timeout(now, sink);
        }
    }

    /// Ends the call with two tones, so that its caller knows that it is over and not broken. The model is left, and what
    /// waits of its audio is dropped. A caller who does not hear us yet is left at once.
    pub fn say_goodbye(&mut self, now: Instant, reason: CloseReason, sink: &mut dyn CallSink) {
        if self.goodbye != Goodbye::Unsaid {
            return;
        }
        if self.state != CallState::Active {
            return self.finish(now, reason, String::new());
        }
        self.goodbye = Goodbye::Due;
        (self.over_at, self.over_reason) = (now + GOODBYE_TIME_MAX, reason);
        (self.greeting_at, self.greeted) = (None, true);
        self.downlink.flush(|_| {});
        // Tones need no more, and all calls of a core may say goodbye at once.
        self.downlink.set_complexity(0);
        self.marks.leave();
        self.agent.close(now);
        self.pump_agent(now, sink);
    }

    /// Ends the call: goodbyes to both sides. The worker closes socket and streams.
    pub fn hangup(&mut self, now: Instant, reason: CloseReason, detail: String, sink: &mut dyn CallSink) {
        self.finish(now, reason, detail);
        self.peer.close(now, &mut PeerOut { sink, events: &mut self.peer_events });
        self.agent.close(now);
        self.pump_agent(now, sink);
    }

    /// How the call ended, once it has. The worker then hangs up.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// All that this call put out so far was handed to the kernel at `now`; `record` is told what that measured.
    pub fn submitted(&mut self, now: Instant, record: &mut dyn FnMut(Stage, Duration)) {
        let stages = &mut self.stages;
        self.marks.submitted(now, |stage, latency| {
            stages.record(stage, latency);
            record(stage, latency);
        });
    }

    /// Encodes with this complexity from the next frame on.
    pub fn set_complexity(&mut self, complexity: u8) {
        self.downlink.set_complexity(complexity);
    }

    /// The complexity that the next frame is encoded with.
    pub fn complexity(&self) -> u8 {
        self.downlink.complexity()
    }

    /// What the codec has taken so far.
    pub fn codec_time(&self) -> CodecTime {
        CodecTime { encode_ns: self.downlink.encode_ns(), decode_ns: self.uplink.decode_ns() }
    }

    /// Whether [`Call::submitted`] has something to measure.
    pub fn awaits_submit(&self) -> bool {
        self.marks.pending()
    }

    /// Its number.
    pub fn number(&self) -> CallNumber {
        self.number
    }

    /// What logs call it.
    pub fn log_id(&self) -> LogId {
        self.log_id
    }

    /// Whether DTLS is up, or was.
    pub fn is_connected(&self) -> bool {
        self.connected_at.is_some()
    }

    /// Where it is in its life.
    pub fn state(&self) -> CallState {
        if self.end.is_some() { CallState::Ended } else { self.state }
    }

    /// Its latencies.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Its latencies, for good: for a call that has ended.
    pub fn take_stages(&mut self) -> Stages {
        std::mem::take(&mut self.stages)
    }

    /// Everything the API shows of it.
    pub fn report(&self, now: Instant) -> CallReport {
        CallReport { latency: self.stages.percentiles(), ..self.counters(now) }
    }

    /// The same without percentiles: those cost a pass over the histograms.
    pub fn counters(&self, now: Instant) -> CallReport {
        let until = self.end.as_ref().map_or(now, |end| end.at);
        let millis = |from: Instant| until.saturating_duration_since(from).as_millis() as u64;
        let detail = |end: &End| (!end.detail.is_empty()).then(|| end.detail.clone());
        CallReport {
            call: self.number,
            state: self.state(),
            close: self.end.as_ref().map(|end| end.reason),
            close_detail: self.end.as_ref().and_then(detail),
            duration_ms: millis(self.answered_at),
            connected_ms: self.connected_at.map(millis),
            connect_us: self.connected_at.map(|at| (at - self.answered_at).as_micros() as u64),
            peer: self.peer.report(),
            uplink: self.uplink.report(),
            downlink: self.downlink.report(),
            agent: self.agent.report(),
            latency: Vec::new(),
        }
    }

    /// What is so now and is summed over calls.
    pub fn gauges(&self) -> Gauges {
        let mut gauges = Gauges {
            playout_queued_ms: self.downlink.queued_ms(),
            jitter_packets: self.uplink.waiting_packets() as u64,
            model_unwritten_bytes: self.agent.unwritten_bytes() as u64,
            ..Gauges::default()
        };
        if let Some(live) = CallState::LIVE.iter().position(|state| *state == self.state()) {
            gauges.live[live] = 1;
        }
        if let Some(step) = self.agent.step() {
            gauges.model[step as usize] = 1;
        }
        gauges
    }

    /// Moves everything on until nothing is left to do at this time.
    fn pump(&mut self, now: Instant, received: Instant, sink: &mut dyn CallSink) {
        while let Some(event) = self.peer_events.pop_front() {
            match event {
                PeerEvent::PathFound => self.state = CallState::Securing,
                PeerEvent::Connected => self.connected(now, sink),
                PeerEvent::Audio { seq, rtp_time, payload } => {
                    self.heard = true;
                    self.uplink.insert_packet(now, received, seq, rtp_time, payload);
                }
                PeerEvent::NewStream => self.uplink.restart(),
                PeerEvent::AudioGap { seq } => self.uplink.insert_event(now, seq),
                PeerEvent::Digit(digit) => self.agent.digit(now, digit),
                PeerEvent::Closed(reason, detail) => self.finish(now, reason, detail),
            }
        }
        let live = self.agent.is_live();
        let (agent, marks, stages) = (&mut self.agent, &mut self.marks, &mut self.stages);
        self.uplink.poll(now, &mut |frame| {
            agent.append(now, frame.pcm);
            if let Some(received) = frame.received {
                stages.record(Stage::JitterWait, frame.waited);
                sink.measured(Stage::JitterWait, frame.waited);
                // What waits for the model's session to open says nothing about our own path.
                if live {
                    marks.appended(received);
                }
            }
        });
        if self.heard && self.greeting_at.is_some() {
            self.greet(now);
        }
        self.pump_agent(now, sink);
    }

    fn connected(&mut self, now: Instant, sink: &mut dyn CallSink) {
        self.connected_at = Some(now);
        self.state = CallState::Held;
        let took = now.saturating_duration_since(self.answered_at);
        self.stages.prepare_call();
        self.stages.record(Stage::Connect, took);
        sink.measured(Stage::Connect, took);
        if self.activated {
            self.media_at = Some(now);
        } else if self.start_media == StartMedia::Auto {
            self.media_at = Some(now + self.start_delay);
        }
        if self.media_at.is_some_and(|at| at <= now) {
            self.start_media(now);
        }
        info!(call = %self.log_id, ms = (now - self.answered_at).as_millis() as u64, "caller connected");
    }

    /// The caller hears us from now on: WhatsApp waits for our first packet before it sends its own.
    fn start_media(&mut self, now: Instant) {
        self.media_at = None;
        self.state = CallState::Active;
        // Each activation has come a way of its own, over the network; media that starts by itself does so when a handshake ends,
        // and many of those may end together.
        if self.activated {
            self.downlink.start_soon(now);
        } else {
            self.downlink.start(now);
        }
        // Whoever activates a call has been told that its caller hears us.
        let hears = self.heard || self.activated;
        self.greeting_at = Some(if hears { now } else { now + GREETING_WAIT });
    }

    fn greet(&mut self, now: Instant) {
        self.greeting_at = None;
        if !self.greeted {
            self.greeted = true;
            self.agent.greet(now);
        }
    }

    fn beat(&mut self, now: Instant, sink: &mut dyn CallSink) {
        let Some(beat) = self.downlink.beat(now) else { return };
        self.marks.sent(&beat);
        let said = beat.item == Some(OWN_ITEM) && beat.last_of_item;
        let mut out = PeerOut { sink, events: &mut self.peer_events };
        self.peer.send_audio(now, beat.payload, beat.rtp_time, beat.marker, &mut out);
        if self.goodbye == Goodbye::Due {
            self.goodbye = Goodbye::Playing;
            self.downlink.push_own(goodbye::tones());
        } else if said {
            self.finish(now, self.over_reason, String::new());
        }
    }

    fn check_limits(&mut self, now: Instant, sink: &mut dyn CallSink) {
        let passed = |from: Instant, sec: u64| now.saturating_duration_since(from) >= Duration::from_secs(sec);
        if self.connected_at.is_none() && passed(self.answered_at, CONNECT_SEC_MAX) {
            let (reason, mut detail) = if self.peer.has_path() {
                let detail = format!("a path was found, but DTLS was not up {CONNECT_SEC_MAX} s after the answer");
                (CloseReason::DtlsTimeout, detail)
            } else {
                let detail = format!(
                    "no check was answered within {CONNECT_SEC_MAX} s of the answer: was it given to the caller's side, \
                     and is UDP open both ways?"
                );
                (CloseReason::IceTimeout, detail)
            };
            if !self.peer.last_error().is_empty() {
                detail = format!("{detail}; last error: {}", self.peer.last_error());
            }
            self.finish(now, reason, detail);
        } else if self.connected_at.is_some() && passed(self.peer.last_accepted(), PEER_SILENT_SEC_MAX) {
            self.finish(now, CloseReason::PeerSilent, format!("no packet for {PEER_SILENT_SEC_MAX} s"));
        } else if now >= self.over_at {
            match self.goodbye {
                Goodbye::Unsaid => self.say_goodbye(now, self.over_reason, sink),
                Goodbye::Due | Goodbye::Playing => self.finish(now, self.over_reason, String::new()),
            }
        }
    }

    fn finish(&mut self, now: Instant, reason: CloseReason, detail: String) {
        if self.end.is_none() {
            self.end = Some(End { reason, detail, at: now });
            self.media_at = None;
            self.greeting_at = None;
        }
    }

    /// Lets the agent handle something, then does what its events ask for and hands on what it put out.
    fn with_agent(
        &mut self,
        now: Instant,
        sink: &mut dyn CallSink,
        handle: impl FnOnce(&mut Agent, &mut AgentOut<'_>),
    ) {
        let mut out =
            AgentOut { downlink: &mut self.downlink, marks: &mut self.marks, follow_ups: &mut self.follow_ups };
        handle(&mut self.agent, &mut out);
        while let Some(follow_up) = self.follow_ups.pop() {
            match follow_up {
                FollowUp::Truncate(item, played_ms) => self.agent.truncate(now, item, played_ms),
                FollowUp::Refuse(item) => self.agent.refuse_item(now, item),
                FollowUp::Close(reason, detail) => self.finish(now, reason, detail),
            }
        }
        self.pump_agent(now, sink);
    }

    fn pump_agent(&mut self, _now: Instant, sink: &mut dyn CallSink) {
        while let Some(output) = self.agent.poll_output() {
            match output {
                AgentOutput::Resolve { host, port } => sink.resolve(&host, port),
                AgentOutput::Connect { attempt, to } => sink.connect(attempt, to),
                AgentOutput::Write { attempt, bytes } => sink.write(attempt, bytes),
                AgentOutput::Close { attempt } => sink.close_stream(attempt),
            }
        }
    }
}

/// The peer leg's outputs: datagrams go straight on, events wait until the leg has returned.
struct PeerOut<'a> {
    sink: &'a mut dyn CallSink,
    events: &'a mut VecDeque<PeerEvent>,
}

impl PeerSink for PeerOut<'_> {
    fn transmit(&mut self, to: SocketAddr, payload: Vec<u8>) {
        self.sink.send(to, payload);
    }

    fn event(&mut self, event: PeerEvent) {
        self.events.push_back(event);
    }
}

/// The agent's events, taken in order: audio queues and barge-in flushes at once, since both lend from the agent's buffers
/// and a flush must not take what comes behind it.
struct AgentOut<'a> {
    downlink: &'a mut Downlink,
    marks: &'a mut Marks,
    follow_ups: &'a mut Vec<FollowUp>,
}

impl AgentSink for AgentOut<'_> {
    fn agent_event(&mut self, now: Instant, event: AgentEvent<'_>) {
        match event {
            AgentEvent::Audio { item, pcm } => {
                // What comes while another item plays waits for that, not for us.
                if self.downlink.queued_ms() == 0 {
                    self.marks.delta(item, now);
                }
                // `Closed` is what is left of an item that was flushed or refused already.
                if self.downlink.push(item, pcm) == Push::Full {
                    self.follow_ups.push(FollowUp::Refuse(item));
                }
            }
            AgentEvent::ItemDone { item } => self.downlink.end_item(item),
            AgentEvent::SpeechStarted => {
                let follow_ups = &mut *self.follow_ups;
                let flushed = self.downlink.flush(|unheard| follow_ups.push(FollowUp::Truncate(unheard, 0)));
                if let Some(flushed) = flushed {
                    self.marks.barge_in(now);
                    self.follow_ups.push(FollowUp::Truncate(flushed.item, flushed.played_ms));
                }
            }
            AgentEvent::SpeechStopped => self.marks.speech_stopped(now),
            AgentEvent::Ready | AgentEvent::ResponseDone => {}
            AgentEvent::Closed { reason, detail } => self.follow_ups.push(FollowUp::Close(reason, detail)),
        }
    }
}

/// RFC 3550: RTP time starts at a random number.
fn random_rtp_time(entropy: Entropy) -> u32 {
    let mut bytes = [0; 4];
    entropy(&mut bytes);
    u32::from_be_bytes(bytes)
}
