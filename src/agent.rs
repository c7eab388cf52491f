//! The model leg of one call: a connection to the model, the ladder of steps up to a live session, and its turns.
//!
//! It is a machine without a socket: what came is handed over with the time, what is to be done is taken by
//! [`Agent::poll_output`], and what the call must know is written into a sink that it lends. Reading from the model never
//! pauses, because the news that the caller spoke comes behind the audio it interrupts.
//!
//! Promises:
//!
//! * Audio of an item comes in order and in whole samples; after [`AgentEvent::SpeechStarted`], or a refusal, nothing more
//!   comes of what was under way.
//! * [`AgentEvent::Closed`] comes at most once, and no event after it. It does not come when the call asked for the end.
//! * Every attempt that was asked to connect is asked to close, once.
//! * Memory is bounded whatever the other end sends.
//!
//! It must not know the WebRTC leg, files or threads, and it never logs what was said.

mod dial;
mod early;
mod items;
mod keypad;
mod ladder;
#[cfg(test)]
mod tests;
mod tools;
mod turns;
mod voice;
mod words;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call_id::LogId;
use crate::close_reason::CloseReason;
use crate::config::Secret;
use crate::io::{Deadline, Entropy, Fault};
pub use crate::playout::ItemId;
use crate::realtime::{self, ClientEvent, PcmDecoder, SessionSettings};
use crate::wss;

use dial::Dial;
use early::EarlyAudio;
use items::Items;
use keypad::Keypad;
use tools::Tools;
use turns::Turns;

/// From the start to a live session, everything included. A caller who hears nothing for longer has hung up.
pub const LADDER_WAIT: Duration = Duration::from_secs(15);
/// Bytes that may be unwritten: 15 s of audio. A model that takes nothing for so long is not listening.
pub const UNWRITTEN_BYTES_MAX: usize = 1 << 20;
/// How long the end of a connection may take to be polite.
pub const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Errors logged of one session; the rest are counted only, so that the other end cannot fill the log.
const WARNINGS_MAX: u32 = 20;

crate::report! {
    /// What passed between the model and us.
    AgentReport {
        /// Appends sent.
        appends,
        /// Audio deltas received.
        deltas,
        /// Audio deltas dropped, because the caller had spoken over them or the playout was full.
        deltas_late,
        /// Bytes received.
        bytes_received,
        /// Bytes sent.
        bytes_sent,
        /// Responses the model finished.
        responses,
        /// Responses that failed or were incomplete.
        responses_failed,
        /// Barge-ins: the caller spoke over the model.
        barge_ins,
        /// Truncations sent.
        truncations,
        /// Items deleted because nothing of them was heard.
        deletions,
        /// Items cut short because the playout was full.
        items_refused,
        /// Function calls answered.
        function_calls,
        /// Error events that were harmless.
        errors_benign,
        /// Error events that were not.
        errors,
        /// Events of unknown type.
        unknown_events,
        /// Messages that were no event, or audio that was none.
        malformed_events,
        /// Audio dropped before the session was ready, milliseconds.
        early_dropped_ms,
    }
}

/// Where the model is and how to be let in. Shared by all calls.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Host name, or an address without brackets.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// Path and query; the model is added to the query unless one is named there.
    pub path: String,
    /// TLS, or `None` for `ws://`.
    pub tls: Option<wss::Tls>,
    /// `Authorization: Bearer`.
    pub api_key: Option<Secret>,
    /// `OpenAI-Organization`.
    pub org_id: Option<String>,
    /// `OpenAI-Project`.
    pub project_id: Option<String>,
    /// Where masks and nonces come from.
    pub entropy: Entropy,
}

/// One try to connect to one address. Numbers count from zero per agent and are not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attempt(pub u8);

/// What the call has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEvent<'a> {
    /// The session is live.
    Ready,
    /// Audio to be played: at most about 130 ms at a time, 24 kHz mono.
    Audio {
        /// The item it belongs to.
        item: ItemId,
        /// Its samples, never empty.
        pcm: &'a [i16],
    },
    /// No more audio comes for this item.
    ItemDone {
        /// Which.
        item: ItemId,
    },
    /// The caller speaks: flush the playout, then call [`Agent::truncate`] for each item that was in it. Does not come
    /// where the session says that speech shall not interrupt.
    SpeechStarted,
    /// The caller has ended.
    SpeechStopped,
    /// The model has nothing more to say for now. Playing may go on for long.
    ResponseDone,
    /// The leg is at its end.
    Closed {
        /// Why.
        reason: CloseReason,
        /// In words, one bounded line without secrets: what failed at which step.
        detail: String,
    },
}

/// Takes events. Called while the agent is borrowed: what needs the agent itself is done after the handler returns.
pub trait AgentSink {
    /// Takes one event.
    fn agent_event(&mut self, now: Instant, event: AgentEvent<'_>);
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum AgentOutput {
    /// Look this host up; answered by [`Agent::handle_resolved`].
    Resolve {
        /// Host name or address.
        host: Arc<str>,
        /// The port that the addresses shall carry.
        port: u16,
    },
    /// Connect.
    Connect {
        /// The number of the attempt.
        attempt: Attempt,
        /// To where.
        to: SocketAddr,
    },
    /// Write these bytes, after earlier ones; the buffer comes back by [`Agent::handle_written`].
    Write {
        /// On which connection.
        attempt: Attempt,
        /// What.
        bytes: Vec<u8>,
    },
    /// Close, connected or not. Nothing is expected of it any more.
    Close {
        /// Which.
        attempt: Attempt,
    },
}

/// A state, named for what it awaits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    ExpectAddresses,
    ExpectTcp,
    ExpectTls,
    ExpectUpgrade,
    /// `session.created`.
    ExpectSession,
    /// `session.updated`.
    ExpectUpdated,
    Live,
    /// A close frame is out: the other end answers it, or time runs out.
    Closing {
        until: Instant,
    },
    Closed,
}

/// How far the connection to the model is, as metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The host is being looked up.
    Resolving,
    /// TCP.
    Connecting,
    /// TLS.
    Tls,
    /// The WebSocket upgrade.
    Upgrade,
    /// Open; the session is being set up.
    Session,
    /// Audio flows.
    Live,
    /// A goodbye is under way.
    Closing,
}

impl Step {
    /// Every step, in their order.
    pub const ALL: [Self; 7] =
        [Self::Resolving, Self::Connecting, Self::Tls, Self::Upgrade, Self::Session, Self::Live, Self::Closing];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Resolving => "resolving",
            Self::Connecting => "connecting",
            Self::Tls => "tls",
            Self::Upgrade => "upgrade",
            Self::Session => "session",
            Self::Live => "live",
            Self::Closing => "closing",
        }
    }
}

/// The model leg of one call.
pub struct Agent {
    /// What its log lines call the call.
    log_id: LogId,
    config: Arc<AgentConfig>,
    settings: SessionSettings,
    state: State,
    opened: Instant,
    outputs: VecDeque<AgentOutput>,
    dial: Dial,
    /// The attempt that won, while its connection is ours to close.
    link: Option<Attempt>,
    client: Option<Box<wss::Client>>,
    /// Bytes handed out and not yet written.
    unwritten: usize,
    /// When too much was unwritten: the end of this leg, at the next timeout.
    stalled: Option<Instant>,
    early: EarlyAudio,
    pcm: PcmDecoder,
    items: Items,
    turns: Turns,
    tools: Tools,
    keypad: Keypad,
    /// Number of the next event of ours that an error can name.
    next_event: u32,
    /// Whether the caller is there for a greeting.
    greet: Greet,
    /// Whether speech of the caller interrupts, and whether the service replies to it by itself.
    interrupts: bool,
    replies: bool,
    /// Whether the present speech of the caller was counted as a barge-in.
    barged_in: bool,
    warnings_left: u32,
    report: AgentReport,
}

/// Where the greeting stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greet {
    /// The caller's media is not up.
    Unwanted,
    /// Wanted as soon as the session is live.
    Wanted,
    /// Asked for, or pointless because the caller spoke first.
    Over,
}

impl Agent {
    /// A leg that begins by looking up its host.
    pub fn new(now: Instant, log_id: LogId, config: Arc<AgentConfig>, settings: SessionSettings) -> Self {
        let resolve = AgentOutput::Resolve { host: Arc::clone(&config.host), port: config.port };
        let (interrupts, replies) = realtime::turn_flags(&settings);
        Self {
            log_id,
            config,
            settings,
            state: State::ExpectAddresses,
            opened: now,
            outputs: VecDeque::from([resolve]),
            dial: Dial::default(),
            link: None,
            client: None,
            unwritten: 0,
            stalled: None,
            early: EarlyAudio::default(),
            pcm: PcmDecoder::new(),
            items: Items::default(),
            turns: Turns::default(),
            tools: Tools::default(),
            keypad: Keypad::default(),
            next_event: 0,
            greet: Greet::Unwanted,
            interrupts,
            replies,
            barged_in: false,
            warnings_left: WARNINGS_MAX,
            report: AgentReport::default(),
        }
    }

    /// The host was looked up: addresses in the order to try, or the reason there is none.
    pub fn handle_resolved(
        &mut self,
        now: Instant,
        outcome: Result<Arc<[SocketAddr]>, String>,
        sink: &mut dyn AgentSink,
    ) {
        if self.state != State::ExpectAddresses {
            return;
        }
        match outcome {
            Ok(addresses) if !addresses.is_empty() => {
                self.dial = Dial::new(&addresses);
                self.state = State::ExpectTcp;
                self.start_attempt(now);
            }
            Ok(_) => self.end(now, CloseReason::AgentDns, &format!("{} has no address", self.config.host), sink),
            Err(why) => {
                let detail = format!("{} cannot be looked up: {why}", self.config.host);
                self.end(now, CloseReason::AgentDns, &detail, sink);
            }
        }
    }

    /// An attempt is connected.
    pub fn handle_connected(&mut self, now: Instant, attempt: Attempt, sink: &mut dyn AgentSink) {
        if self.state == State::ExpectTcp && self.dial.is_connecting(attempt) {
            self.begin_client(now, attempt, sink);
        }
    }

    /// Bytes came.
    pub fn handle_received(&mut self, now: Instant, attempt: Attempt, mut bytes: &[u8], sink: &mut dyn AgentSink) {
        if self.link != Some(attempt) {
            return;
        }
        self.report.bytes_received += bytes.len() as u64;
        while !bytes.is_empty()
            && let Some(client) = &mut self.client
        {
            client.handle_received(now, &mut bytes);
            self.handle_client_events(now, sink);
        }
    }

    /// The other end sends no more.
    pub fn handle_ended(&mut self, now: Instant, attempt: Attempt, sink: &mut dyn AgentSink) {
        if self.link != Some(attempt) {
            return;
        }
        if let Some(client) = &mut self.client {
            client.handle_ended();
        }
        self.handle_client_events(now, sink);
        if let State::Closing { .. } = self.state {
            self.finish();
        }
    }

    /// Connecting, reading or writing failed.
    pub fn handle_failed(&mut self, now: Instant, attempt: Attempt, fault: Fault, sink: &mut dyn AgentSink) {
        if self.link == Some(attempt) {
            // Nothing can be written any more, not even a goodbye.
            self.client = None;
            self.end_at_step(now, &format!("the connection failed: {fault}"), sink);
            if let State::Closing { .. } = self.state {
                self.finish();
            }
        } else if self.dial.fail(attempt, fault) {
            self.outputs.push_back(AgentOutput::Close { attempt });
            self.start_attempt(now);
            if self.dial.is_lost() {
                let detail = format!("no connection to {}: {}", self.config.host, self.dial.summary());
                self.end(now, CloseReason::AgentTcp, &detail, sink);
            }
        }
    }

    /// A buffer of `len` bytes was written whole, and comes back.
    pub fn handle_written(&mut self, attempt: Attempt, len: usize, buffer: Vec<u8>) {
        if self.link == Some(attempt) {
            self.unwritten = self.unwritten.saturating_sub(len);
            if let Some(client) = &mut self.client {
                client.handle_written(buffer);
            }
        }
    }

    /// The deadline has passed. Harmless at any time.
    pub fn handle_timeout(&mut self, now: Instant, sink: &mut dyn AgentSink) {
        match self.state {
            State::Closed => return,
            State::Closing { until } => {
                if now >= until {
                    self.finish();
                }
                return;
            }
            State::Live => {}
            _ if now >= self.opened + LADDER_WAIT => {
                let detail = format!("no answer within {} s", LADDER_WAIT.as_secs());
                return self.end_at_step(now, &detail, sink);
            }
            State::ExpectTcp if self.dial.is_due(now) => self.start_attempt(now),
            _ => {}
        }
        if self.stalled.is_some() {
            let detail = format!("the model stopped reading: {UNWRITTEN_BYTES_MAX} bytes are unwritten");
            self.client = None;
            return self.end(now, CloseReason::AgentSession, &detail, sink);
        }
        if let Some(client) = &mut self.client {
            client.handle_timeout(now);
            self.handle_client_events(now, sink);
        }
        if self.state == State::Live {
            self.turns.handle_timeout(now);
            self.handle_keypad(now);
            self.ask(now);
        }
    }

    /// When [`Agent::handle_timeout`] wants to run.
    pub fn deadline(&self) -> Deadline {
        let of_client = self.client.as_ref().map_or(Deadline::NEVER, |client| client.deadline());
        let stalled = self.stalled.map_or(Deadline::NEVER, |at| Deadline::at(at, "model stopped reading"));
        let of_client = stalled.min(of_client);
        match self.state {
            State::Closed => Deadline::NEVER,
            State::Closing { until } => Deadline::at(until, "model close"),
            State::Live => of_client.min(self.turns.deadline()).min(self.keypad.deadline()),
            _ => Deadline::at(self.opened + LADDER_WAIT, "model connect").min(of_client).min(self.dial.deadline()),
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<AgentOutput> {
        self.outputs.pop_front().or_else(|| self.poll_write())
    }

    /// Hands the caller's audio to the model, or keeps it until the session is live. 24 kHz mono, any length.
    pub fn append(&mut self, now: Instant, pcm: &[i16]) {
        match self.state {
            _ if pcm.is_empty() => {}
            State::Live => self.send_audio(now, pcm),
            State::Closing { .. } | State::Closed => {}
            _ => self.early.push(pcm),
        }
    }

    /// The caller's media is up: the model may greet, as the settings say. Once; not when the caller has spoken first.
    pub fn greet(&mut self, now: Instant) {
        if self.greet == Greet::Unwanted {
            self.greet = Greet::Wanted;
            self.ask(now);
        }
    }

    /// The caller pressed a key. Digits are gathered until a pause or `#` and then told to the model as text, since it does
    /// not understand tones.
    pub fn digit(&mut self, now: Instant, key: char) {
        self.keypad.press(now, key);
    }

    /// Ends the leg politely, within [`CLOSE_WAIT`]. No event follows.
    pub fn close(&mut self, now: Instant) {
        if !matches!(self.state, State::Closing { .. } | State::Closed) {
            self.wind_up(now);
        }
    }

    /// Whether everything is over: each attempt was asked to close.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the session is live.
    pub fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// How far the connection is; `None` when it is over.
    pub fn step(&self) -> Option<Step> {
        Some(match self.state {
            State::ExpectAddresses => Step::Resolving,
            State::ExpectTcp => Step::Connecting,
            State::ExpectTls => Step::Tls,
            State::ExpectUpgrade => Step::Upgrade,
            State::ExpectSession | State::ExpectUpdated => Step::Session,
            State::Live => Step::Live,
            State::Closing { .. } => Step::Closing,
            State::Closed => return None,
        })
    }

    /// Bytes for the model that the kernel has not taken.
    pub fn unwritten_bytes(&self) -> usize {
        self.unwritten + self.client.as_ref().map_or(0, |client| client.outgoing_len())
    }

    /// What was counted so far.
    pub fn report(&self) -> AgentReport {
        AgentReport { early_dropped_ms: self.early.dropped_ms(), ..self.report }
    }

    /// Sends an event, when a session is there to take it.
    fn send(&mut self, now: Instant, event: ClientEvent<'_>) {
        if let Some(client) = &mut self.client {
            client.send(|out| event.write(out));
            self.check_unwritten(now);
        }
    }

    fn send_audio(&mut self, now: Instant, pcm: &[i16]) {
        if let (Some(client), None) = (&mut self.client, self.stalled) {
            client.send(|out| realtime::append(out, pcm));
            self.report.appends += 1;
            self.check_unwritten(now);
        }
    }

    fn check_unwritten(&mut self, now: Instant) {
        if self.unwritten_bytes() > UNWRITTEN_BYTES_MAX && self.stalled.is_none() {
            self.stalled = Some(now);
        }
    }

    fn poll_write(&mut self) -> Option<AgentOutput> {
        let (attempt, client) = (self.link?, self.client.as_mut()?);
        let bytes = client.poll_write()?;
        self.unwritten += bytes.len();
        self.report.bytes_sent += bytes.len() as u64;
        Some(AgentOutput::Write { attempt, bytes })
    }

    /// A number for an event of ours.
    fn number(&mut self) -> u32 {
        self.next_event = self.next_event.wrapping_add(1);
        self.next_event
    }
}
