//! From nothing to a live session, step by step, and back.

use std::time::Instant;

use super::{Agent, AgentEvent, AgentOutput, AgentSink, Attempt, CLOSE_WAIT, State, words};
use crate::close_reason::CloseReason;
use crate::realtime;
use crate::wss::{Client, Event, Request, Step};

/// Samples per append of the audio from before the session: the service reads it piece by piece.
const EARLY_APPEND_SAMPLES: usize = 100 * realtime::SAMPLES_PER_MS;

impl Agent {
    /// Connects to the next address, if one is left.
    pub(super) fn start_attempt(&mut self, now: Instant) {
        if let Some((attempt, to)) = self.dial.start(now) {
            self.outputs.push_back(AgentOutput::Connect { attempt, to });
        }
    }

    /// The first attempt is connected: the others are called off, and TLS or the upgrade begins on it.
    pub(super) fn begin_client(&mut self, now: Instant, attempt: Attempt, sink: &mut dyn AgentSink) {
        let outputs = &mut self.outputs;
        self.dial.end(Some(attempt), |attempt| outputs.push_back(AgentOutput::Close { attempt }));
        self.link = Some(attempt);
        let config = &*self.config;
        self.state = if config.tls.is_some() { State::ExpectTls } else { State::ExpectUpgrade };
        let bearer = config.api_key.as_ref().map(|key| format!("Bearer {}", key.expose()));
        let headers: Vec<(&'static str, &str)> = [
            ("Authorization", bearer.as_deref()),
            ("OpenAI-Organization", config.org_id.as_deref()),
            ("OpenAI-Project", config.project_id.as_deref()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
        let path = realtime::path_with_model(&config.path, &self.settings.model);
        let request = Request { host: &config.host, port: config.port, path: &path, headers: &headers };
        match Client::new(now, &request, config.tls.as_ref(), config.entropy) {
            Ok(client) => self.client = Some(Box::new(client)),
            Err(why) => self.end_at_step(now, &why, sink),
        }
    }

    /// Takes what the client has to tell.
    pub(super) fn handle_client_events(&mut self, now: Instant, sink: &mut dyn AgentSink) {
        while let Some(event) = self.client.as_mut().and_then(|client| client.poll_event()) {
            match (self.state, event) {
                (State::ExpectTls, Event::TlsDone) => self.state = State::ExpectUpgrade,
                (State::ExpectUpgrade, Event::Upgraded) => self.state = State::ExpectSession,
                (State::Closing { .. }, Event::Closed { .. } | Event::Failed { .. }) => self.finish(),
                (State::Closing { .. } | State::Closed, _) | (_, Event::TlsDone | Event::Upgraded) => {}
                (_, Event::Text(text)) => self.handle_message(now, &text, sink),
                (_, Event::Binary(_)) => self.report.unknown_events += 1,
                (_, Event::Failed { step, text }) => self.handle_failure(now, step, &text, sink),
                (State::Live, Event::Closed { code, reason }) => {
                    let detail = format!("the model closed the session: {}", close_words(code, &reason));
                    self.end(now, CloseReason::AgentClosed, &detail, sink);
                }
                (_, Event::Closed { code, reason }) => {
                    let detail =
                        format!("the model closed before the session was ready: {}", close_words(code, &reason));
                    self.end(now, CloseReason::AgentSession, &detail, sink);
                }
            }
        }
        // What answered this may be more than what is read.
        self.check_unwritten(now);
    }

    fn handle_failure(&mut self, now: Instant, step: Step, text: &str, sink: &mut dyn AgentSink) {
        match step {
            Step::Http { status: Some(status) } => {
                let separator = if text.is_empty() { "" } else { ": " };
                self.end(now, CloseReason::AgentHttp, &format!("HTTP {status}{separator}{text}"), sink);
            }
            Step::Protocol => {
                self.end(now, CloseReason::AgentSession, &format!("the model broke the protocol: {text}"), sink);
            }
            Step::Tls | Step::Http { status: None } | Step::Silent => self.end_at_step(now, text, sink),
        }
    }

    /// Ends the leg for the reason that belongs to the step it is at.
    pub(super) fn end_at_step(&mut self, now: Instant, why: &str, sink: &mut dyn AgentSink) {
        let host = &self.config.host;
        let (reason, detail) = match self.state {
            State::ExpectAddresses => (CloseReason::AgentDns, format!("looking up {host}: {why}")),
            State::ExpectTcp => {
                (CloseReason::AgentTcp, format!("connecting to {host}: {why} ({})", self.dial.summary()))
            }
            State::ExpectTls => (CloseReason::AgentTls, format!("TLS with {host}: {why}")),
            State::ExpectUpgrade => (CloseReason::AgentHttp, format!("WebSocket upgrade at {host}: {why}")),
            State::ExpectSession => (CloseReason::AgentSession, format!("waiting for session.created: {why}")),
            State::ExpectUpdated => (CloseReason::AgentSession, format!("waiting for session.updated: {why}")),
            State::Live | State::Closing { .. } | State::Closed => (CloseReason::AgentClosed, why.to_owned()),
        };
        self.end(now, reason, &detail, sink);
    }

    /// The end, told to the call. The detail may hold words of the other end: they are cleaned here.
    pub(super) fn end(&mut self, now: Instant, reason: CloseReason, detail: &str, sink: &mut dyn AgentSink) {
        if matches!(self.state, State::Closing { .. } | State::Closed) {
            return;
        }
        let detail = words::clean(detail, self.config.api_key.as_ref());
        self.wind_up(now);
        sink.agent_event(now, AgentEvent::Closed { reason, detail });
    }

    /// Says goodbye where somebody is there to hear it, and closes everything else.
    pub(super) fn wind_up(&mut self, now: Instant) {
        match &mut self.client {
            Some(client) if client.is_open() => {
                client.close();
                self.state = State::Closing { until: now + CLOSE_WAIT };
            }
            _ => self.finish(),
        }
    }

    /// Closes everything, and lets go of what is not needed for the report.
    pub(super) fn finish(&mut self) {
        if let Some(write) = self.poll_write() {
            self.outputs.push_back(write);
        }
        let outputs = &mut self.outputs;
        self.dial.end(None, |attempt| outputs.push_back(AgentOutput::Close { attempt }));
        if let Some(attempt) = self.link.take() {
            outputs.push_back(AgentOutput::Close { attempt });
        }
        self.client = None;
        self.early.take();
        self.state = State::Closed;
    }

    /// `session.created` came: our settings go out.
    pub(super) fn handle_session_created(&mut self, now: Instant, model: &str) {
        self.state = State::ExpectUpdated;
        let settings = &self.settings;
        if let Some(client) = &mut self.client {
            client.send(|out| realtime::session_update(out, settings));
        }
        self.check_unwritten(now);
        if !model.is_empty() {
            self.settings.model = words::clean(model, None);
        }
        (self.settings.instructions, self.settings.tools) = (None, None); // sent, and may be long
    }

    /// `session.updated` came: audio may flow.
    pub(super) fn handle_session_updated(&mut self, now: Instant, sink: &mut dyn AgentSink) {
        self.state = State::Live;
        let ms = now.saturating_duration_since(self.opened).as_millis() as u64;
        tracing::info!(call = %self.log_id, model = %self.settings.model, ms, "model session is live");
        for piece in self.early.take().chunks(EARLY_APPEND_SAMPLES) {
            self.send_audio(now, piece);
        }
        sink.agent_event(now, AgentEvent::Ready);
        self.handle_keypad(now);
        self.ask(now);
    }
}

fn close_words(code: u16, reason: &str) -> String {
    match (code, reason) {
        (1006, _) => "the connection ended without a close frame".into(),
        (1005, _) => "no code given".into(),
        (code, "") => format!("code {code}"),
        (code, reason) => format!("{code} {reason}"),
    }
}
