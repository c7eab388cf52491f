//! One connection of the built-in agent: a WebSocket, the session behind it, and the limits on both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::io::{Deadline, StreamKey};
use crate::wss::server::{Over, ServerConnection, ServerEvent, Upgrade};

use super::Mode;
use super::events::{Events, Fault, short};
use super::session::Session;

/// Unwritten bytes at which a response waits to be generated further: about 4 s of its audio. A client that reads on
/// time never has as many before it.
const UNWRITTEN_BYTES_PAUSE: usize = 256 * 1024;

/// Unwritten bytes at which a connection is closed: a client that asks and does not read. Above two answers to a message
/// of the largest size.
const UNWRITTEN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Time for the upgrade.
const UPGRADE_MAX: Duration = Duration::from_secs(10);

/// Silence after which a client is asked whether it lives.
const PING_AFTER: Duration = Duration::from_secs(60);

/// Silence after which it is taken for dead.
const QUIET_MAX: Duration = Duration::from_secs(120);

/// Time for the other end to read our close and to close, too.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// The WebSocket subprotocol that browser clients offer.
const SUBPROTOCOL: &str = "realtime";

/// The model's name when the client asks for none.
const MODEL: &str = "builtin";

/// Close code and reason of the real service for clients of the beta API.
const BETA_CLOSED: (u16, &str) = (4000, "invalid_request_error.beta_api_shape_disabled");

#[derive(Debug)]
enum Phase {
    ExpectUpgrade {
        until: Instant,
    },
    Live(Box<Session>),
    /// A close frame was sent; the client's is awaited.
    Closing {
        until: Instant,
    },
    /// All is said, and the end of our side sent; the other end's is awaited.
    Lingering {
        until: Instant,
    },
    /// Nothing is worth waiting for.
    Finished,
}

/// One client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: StreamKey,
    mode: Mode,
    greeting: Arc<[i16]>,
    socket: ServerConnection,
    phase: Phase,
    /// Bytes given to the driver and not written yet.
    unwritten: usize,
    heard: Instant,
    is_pinged: bool,
    /// The other end sends no more.
    is_ended: bool,
    wants_shutdown: bool,
}

impl Connection {
    /// A connection that was just accepted.
    pub(super) fn new(now: Instant, stream: StreamKey, mode: Mode, greeting: Arc<[i16]>) -> Self {
        Self {
            stream,
            mode,
            greeting,
            socket: ServerConnection::new(SUBPROTOCOL),
            phase: Phase::ExpectUpgrade { until: now + UPGRADE_MAX },
            unwritten: 0,
            heard: now,
            is_pinged: false,
            is_ended: false,
            wants_shutdown: false,
        }
    }

    /// Bytes came.
    pub(super) fn received(&mut self, now: Instant, bytes: &[u8]) {
        self.heard = now;
        self.is_pinged = false;
        if matches!(self.phase, Phase::ExpectUpgrade { .. } | Phase::Live(_) | Phase::Closing { .. }) {
            self.socket.feed(bytes);
            self.pump(now);
        }
    }

    /// The other end sends no more.
    pub(super) fn ended(&mut self, now: Instant) {
        self.is_ended = true;
        self.socket.end();
        self.pump(now);
        if !matches!(self.phase, Phase::Lingering { .. } | Phase::Finished) {
            self.linger(now);
        }
        self.finish_when_flushed();
    }

    /// So many bytes were written.
    pub(super) fn written(&mut self, len: usize) {
        self.unwritten -= len;
        self.finish_when_flushed();
    }

    /// The deadline has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::ExpectUpgrade { until } | Phase::Closing { until } | Phase::Lingering { until } if *until <= now => {
                self.phase = Phase::Finished;
            }
            Phase::Live(_) if self.heard + QUIET_MAX <= now => self.phase = Phase::Finished,
            Phase::Live(session) => {
                if self.unwritten < UNWRITTEN_BYTES_PAUSE {
                    session.handle_timeout(now);
                }
                send(session, &mut self.socket);
                if !self.is_pinged && self.heard + PING_AFTER <= now {
                    self.is_pinged = true;
                    self.socket.send_ping();
                }
                self.check_bound();
            }
            _ => {}
        }
    }

    /// The process ends.
    pub(super) fn stop(&mut self, now: Instant) {
        match self.phase {
            Phase::ExpectUpgrade { .. } => self.phase = Phase::Finished,
            Phase::Live(_) => self.close(now, 1001, "the server is stopping"),
            Phase::Closing { .. } | Phase::Lingering { .. } | Phase::Finished => {}
        }
    }

    /// When to call [`Connection::handle_timeout`].
    pub(super) fn deadline(&self) -> Deadline {
        match &self.phase {
            Phase::ExpectUpgrade { until } => Deadline::at(*until, "upgrade"),
            Phase::Closing { until } | Phase::Lingering { until } => Deadline::at(*until, "linger"),
            Phase::Finished => Deadline::NEVER,
            Phase::Live(session) => {
                let after = if self.is_pinged { QUIET_MAX } else { PING_AFTER };
                let quiet = Deadline::at(self.heard + after, "quiet");
                // What is not written yet comes back with `written`, and with it this deadline.
                match session.next_at().filter(|_| self.unwritten < UNWRITTEN_BYTES_PAUSE) {
                    Some(at) => quiet.min(Deadline::at(at, "delta")),
                    None => quiet,
                }
            }
        }
    }

    /// Whether there is something to write.
    pub(super) fn has_output(&mut self) -> bool {
        !self.socket.outgoing().is_empty()
    }

    /// Takes what is to be written, in exchange for an empty buffer.
    pub(super) fn take_output(&mut self, empty: Vec<u8>) -> Vec<u8> {
        let bytes = std::mem::replace(self.socket.outgoing(), empty);
        self.unwritten += bytes.len();
        bytes
    }

    /// Whether the end of our side is to be sent behind what was written; true once.
    pub(super) fn wants_shutdown(&mut self) -> bool {
        std::mem::take(&mut self.wants_shutdown)
    }

    /// Whether to close now.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    fn pump(&mut self, now: Instant) {
        while let Some(event) = self.socket.poll() {
            match (event, &mut self.phase) {
                (ServerEvent::Upgraded(upgrade), _) => self.upgraded(now, &upgrade),
                (ServerEvent::Over(over), _) => {
                    if let Over::Refused(why) | Over::Failed(why) = &over {
                        tracing::debug!(slot = self.stream.slot, why, "built-in agent: a client was refused");
                    }
                    self.linger(now);
                }
                (ServerEvent::Text(text), Phase::Live(session)) => {
                    session.handle_text(now, &text);
                    send(session, &mut self.socket);
                }
                (ServerEvent::Binary, Phase::Live(session)) => {
                    session.handle_binary();
                    send(session, &mut self.socket);
                }
                // Said after our close frame: nobody listens.
                (ServerEvent::Text(_) | ServerEvent::Binary, _) => {}
            }
            self.check_bound();
            if matches!(self.phase, Phase::Finished) {
                return;
            }
        }
    }

    fn upgraded(&mut self, now: Instant, upgrade: &Upgrade) {
        let StreamKey { slot, generation } = self.stream;
        let mut events = Events::new(format!("{slot:x}x{generation:x}"));
        if upgrade.header("openai-beta").is_some() {
            let message =
                "The Realtime Beta API is gone: connect without the OpenAI-Beta header and use the GA events.";
            events.push_fault(&Fault::new("beta_api_shape_disabled", message), None);
            for event in events.drain() {
                self.socket.send_text(event);
            }
            let (code, reason) = BETA_CLOSED;
            self.close(now, code, reason);
            return;
        }
        let model = model_of(upgrade.target()).unwrap_or(MODEL);
        // Sessions take their places in a period one after the other, and evenly: by the golden ratio.
        let place = (f64::from(slot) * 0.618_034).fract();
        let mut session = Session::new(events, model, self.greeting.clone(), self.mode, place);
        send(&mut session, &mut self.socket);
        self.phase = Phase::Live(Box::new(session));
    }

    fn close(&mut self, now: Instant, code: u16, reason: &str) {
        self.socket.close(code, reason);
        self.phase = Phase::Closing { until: now + LINGER_MAX };
    }

    fn linger(&mut self, now: Instant) {
        self.wants_shutdown = true;
        self.phase = Phase::Lingering { until: now + LINGER_MAX };
    }

    fn finish_when_flushed(&mut self) {
        let flushed = self.unwritten == 0 && self.socket.outgoing().is_empty();
        if matches!(self.phase, Phase::Lingering { .. }) && self.is_ended && flushed {
            self.phase = Phase::Finished;
        }
    }

    fn check_bound(&mut self) {
        if self.unwritten + self.socket.outgoing().len() > UNWRITTEN_BYTES_MAX {
            tracing::debug!(slot = self.stream.slot, "built-in agent: a client does not read, closed");
            self.phase = Phase::Finished;
        }
    }
}

fn send(session: &mut Session, socket: &mut ServerConnection) {
    for event in session.drain_events() {
        socket.send_text(event);
    }
}

/// The `model` of a request target's query. Names need no percent-encoding; one that has it is shown as it came.
fn model_of(target: &str) -> Option<&str> {
    let (_, query) = target.split_once('?')?;
    let model = query.split('&').find_map(|pair| pair.strip_prefix("model="))?;
    Some(short(model)).filter(|model| !model.is_empty())
}
