//! A live session: what the model says becomes events, and who may speak is kept straight.

use std::time::Instant;

use super::items::Item;
use super::tools::OUTPUT;
use super::turns::Request;
use super::{Agent, AgentEvent, AgentSink, Greet, ItemId, State, words};
use crate::close_reason::CloseReason;
use crate::realtime::{ApiError, ClientEvent, Greeting, ResponseStatus, ServerEvent};

impl Agent {
    /// Takes one message of the model.
    pub(super) fn handle_message(&mut self, now: Instant, text: &str, sink: &mut dyn AgentSink) {
        let Some(event) = ServerEvent::parse(text) else {
            self.report.malformed_events += 1;
            return;
        };
        match (self.state, event) {
            (State::ExpectSession, ServerEvent::SessionCreated { model }) => self.handle_session_created(now, &model),
            (State::ExpectUpdated, ServerEvent::SessionUpdated) => self.handle_session_updated(now, sink),
            (State::ExpectSession | State::ExpectUpdated, ServerEvent::Error(error)) => {
                let detail = format!("the model refused the session: {error}");
                self.end(now, CloseReason::AgentSession, &detail, sink);
            }
            (_, ServerEvent::Unknown) => self.report.unknown_events += 1,
            (State::Live, event) => {
                self.handle_live(now, &event, sink);
                self.ask(now);
            }
            _ => {}
        }
    }

    fn handle_live(&mut self, now: Instant, event: &ServerEvent<'_>, sink: &mut dyn AgentSink) {
        match event {
            ServerEvent::AudioDelta { response, item, delta } => {
                self.handle_delta(now, response, item, delta, sink);
            }
            ServerEvent::AudioDone { item } => {
                if let Some(item) = self.items.by_name(item)
                    && !std::mem::replace(&mut item.done, true)
                    && !item.silenced
                {
                    sink.agent_event(now, AgentEvent::ItemDone { item: item.id });
                }
            }
            ServerEvent::SpeechStarted => self.handle_speech_started(now, sink),
            ServerEvent::SpeechStopped => {
                self.turns.handle_speech_stopped();
                sink.agent_event(now, AgentEvent::SpeechStopped);
            }
            ServerEvent::ResponseCreated { response } => {
                if self.turns.handle_created(response) {
                    let id = self.number();
                    self.send(now, ClientEvent::Cancel { id, response });
                }
            }
            ServerEvent::FunctionCall { response, call, .. } => {
                self.tools.handle_call(response, call);
            }
            ServerEvent::ResponseDone { response, status, detail } => {
                self.handle_response_done(now, response, *status, detail);
                sink.agent_event(now, AgentEvent::ResponseDone);
            }
            ServerEvent::Error(error) => self.handle_error(now, error, sink),
            ServerEvent::SessionCreated { .. }
            | ServerEvent::SessionUpdated
            | ServerEvent::Other
            | ServerEvent::Unknown => {}
        }
    }

    fn handle_delta(&mut self, now: Instant, response: &str, item: &str, delta: &str, sink: &mut dyn AgentSink) {
        self.report.deltas += 1;
        let silenced = self.turns.is_silenced(response);
        let Some(item) = self.items.enter(item, response) else {
            self.report.malformed_events += 1;
            return;
        };
        item.silenced |= silenced;
        if item.silenced {
            self.report.deltas_late += 1;
            return;
        }
        let (id, samples) = (item.id, &mut item.samples);
        let decoded = self.pcm.decode(&mut item.odd, delta, |pcm| {
            *samples += pcm.len() as u64;
            sink.agent_event(now, AgentEvent::Audio { item: id, pcm });
        });
        if decoded.is_err() {
            self.report.malformed_events += 1;
        }
    }

    fn handle_speech_started(&mut self, now: Instant, sink: &mut dyn AgentSink) {
        self.tools.handle_speech();
        self.greet = Greet::Over;
        if !self.interrupts {
            return;
        }
        self.barged_in = false;
        if self.turns.is_busy() {
            self.count_barge_in();
        }
        self.turns.handle_speech_started(self.replies);
        self.items.silence_all();
        sink.agent_event(now, AgentEvent::SpeechStarted);
    }

    fn handle_response_done(&mut self, now: Instant, response: &str, status: ResponseStatus, detail: &str) {
        self.turns.handle_done(response);
        self.report.responses += 1;
        if let ResponseStatus::Failed | ResponseStatus::Incomplete = status {
            self.report.responses_failed += 1;
            self.warn("the model did not finish a response", detail);
        }
        let (calls, go_on) = self.tools.handle_done(response);
        for call in &calls {
            self.report.function_calls += 1;
            self.send(now, ClientEvent::FunctionOutput { call, output: OUTPUT });
        }
        // After a barge-in the caller's words get a response of their own, which knows the outputs too.
        if go_on && status == ResponseStatus::Completed {
            self.turns.want(Request::Plain);
        }
    }

    fn handle_error(&mut self, now: Instant, error: &ApiError<'_>, sink: &mut dyn AgentSink) {
        if error.is("session_expired") {
            return self.end(now, CloseReason::AgentClosed, &error.to_string(), sink);
        }
        // Not every server can truncate, and what is to be cancelled or deleted may be gone.
        let best_effort = ["truncate_", "delete_", "cancel_"].iter().any(|kind| error.event.starts_with(kind));
        if error.is("conversation_already_has_active_response") {
            self.turns.handle_busy(&error.event);
        } else {
            self.turns.handle_refused(&error.event);
        }
        if best_effort || error.is_benign() {
            self.report.errors_benign += 1;
        } else {
            self.report.errors += 1;
            self.warn("the model reports an error", &error.to_string());
        }
    }

    /// Logs words of the model, a bounded number of times.
    fn warn(&mut self, what: &'static str, words: &str) {
        if self.warnings_left > 0 {
            self.warnings_left -= 1;
            let error = words::clean(words, self.config.api_key.as_ref());
            tracing::warn!(call = %self.log_id, error, "{what}");
        }
    }

    fn count_barge_in(&mut self) {
        self.report.barge_ins += u64::from(!std::mem::replace(&mut self.barged_in, true));
    }

    /// The caller heard the first `played_ms` milliseconds of this item, and hears no more of it. What the model generated
    /// beyond that is taken from its memory of the conversation; nothing is sent for an item that was heard to its end.
    pub fn truncate(&mut self, now: Instant, item: ItemId, played_ms: u32) {
        let id = self.number();
        let Some(item) = self.items.by_id(item) else { return };
        item.silenced = true;
        let heard_all = item.done && played_ms >= item.received_ms();
        if std::mem::replace(&mut item.truncated, true) || heard_all || self.state != State::Live {
            return;
        }
        let audio_end_ms = played_ms.min(item.received_ms());
        let name = item.name.clone();
        self.count_barge_in();
        if audio_end_ms == 0 {
            self.report.deletions += 1;
            self.send(now, ClientEvent::Delete { id, item: &name });
        } else {
            self.report.truncations += 1;
            self.send(now, ClientEvent::Truncate { id, item: &name, audio_end_ms });
        }
    }

    /// The playout is full: the rest of this item is dropped and its response cancelled. Once per item.
    pub fn refuse_item(&mut self, now: Instant, item: ItemId) {
        let id = self.number();
        let Some(Item { silenced, done, response, .. }) = self.items.by_id(item) else { return };
        if std::mem::replace(silenced, true) || self.state != State::Live {
            return;
        }
        self.report.items_refused += 1;
        let (done, response) = (*done, response.clone());
        self.turns.silence(&response);
        if !done && (response.is_empty() || self.turns.is_active(&response)) {
            self.send(now, ClientEvent::Cancel { id, response: &response });
        }
    }

    /// Tells the model an entry of digits that is complete.
    pub(super) fn handle_keypad(&mut self, now: Instant) {
        if let Some(digits) = self.keypad.take(now) {
            let text = format!("(The caller pressed these keys on the phone: {digits})");
            self.send(now, ClientEvent::UserText { text: &text });
            self.turns.want(Request::Plain);
        }
    }

    /// Asks for the response whose turn it is, if any.
    pub(super) fn ask(&mut self, now: Instant) {
        if self.state != State::Live {
            return;
        }
        if self.greet == Greet::Wanted {
            self.greet = Greet::Over;
            match &self.settings.greeting {
                Greeting::Own => self.turns.want(Request::Plain),
                Greeting::Text(text) => self.turns.want(Request::Instructed(format!(
                    "Greet the caller. Say exactly this, word for word, and nothing else: {text}"
                ))),
                Greeting::None => {}
            }
        }
        let id = self.next_event.wrapping_add(1);
        match self.turns.poll(now, id) {
            None => return,
            Some(Request::Plain) => self.send(now, ClientEvent::Create { id, instructions: None }),
            Some(Request::Instructed(text)) => self.send(now, ClientEvent::Create { id, instructions: Some(&text) }),
        }
        self.next_event = id;
    }
}
