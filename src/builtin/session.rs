//! One session: client events in, server events out, as the GA Realtime API defines them.
//!
//! It hears the caller, finds turns, and says back what was said; before anything was said, it greets. Bytes, sockets
//! and other sessions are none of its business.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64_simd::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Mode;
use super::events::{Events, Fault, short};
use super::greeting::GREETING_TEXT;
use super::hearing::Hearing;
use super::items::{Items, announce};
use super::response::{Finish, Response, ResponseWishes, Speech};
use super::settings::{Settings, invalid, object};
use super::vad::{SAMPLES_PER_MS, Turn};

/// Transcript of what the caller said: it is played back, not understood.
const WORDS_TRANSCRIPT: &str = "(your words)";

/// Shortest audio that can be committed, in milliseconds, as the real service has it.
const COMMIT_MS_MIN: u64 = 100;

/// Longest `event_id` of a client that is given back in errors, in bytes, as the real service has it.
const EVENT_ID_BYTES_MAX: usize = 512;

/// The client events that are served, with the fields each may have besides `type` and `event_id`.
const CLIENT_EVENTS: &[(&str, &[&str])] = &[
    ("session.update", &["session"]),
    ("input_audio_buffer.append", &["audio"]),
    ("input_audio_buffer.commit", &[]),
    ("input_audio_buffer.clear", &[]),
    ("conversation.item.create", &["item", "previous_item_id"]),
    ("conversation.item.truncate", &["item_id", "content_index", "audio_end_ms"]),
    ("conversation.item.delete", &["item_id"]),
    ("response.create", &["response"]),
    ("response.cancel", &["response_id"]),
];

const RESPONSE_KEYS: &[&str] = &[
    "audio",
    "conversation",
    "input",
    "instructions",
    "max_output_tokens",
    "metadata",
    "output_modalities",
    "parallel_tool_calls",
    "prompt",
    "reasoning",
    "tool_choice",
    "tools",
];

/// The fields that decide what a client event is. The rest is looked at by type, so that appends, which are many, are
/// parsed once and copied never.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    event_id: Option<&'a RawValue>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
}

/// A turn that has begun.
#[derive(Debug)]
struct OpenTurn {
    /// The item it will become.
    item_id: String,
    /// Position of its first frame of speech.
    from: u64,
}

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    settings: Settings,
    events: Events,
    items: Items,
    hearing: Hearing,
    turn: Option<OpenTurn>,
    /// The caller's last words.
    words: Option<Arc<[i16]>>,
    greeting: Arc<[i16]>,
    response: Option<Response>,
    mode: Mode,
    /// Where in a period of talk and silence this session begins, 0 to 1.
    place: f64,
    /// When it talks next by itself.
    talk_at: Option<Instant>,
    bytes: Vec<u8>,
    samples: Vec<i16>,
}

impl Session {
    /// Starts a session and says so. `place`, 0 to 1, keeps sessions that talk by themselves from talking all
    /// at once.
    pub(super) fn new(mut events: Events, model: &str, greeting: Arc<[i16]>, mode: Mode, place: f64) -> Self {
        let settings = Settings::new(&events.id("sess"), model);
        let hearing = Hearing::new(settings.turn_detection().map(|turns| turns.vad));
        events.push("session.created", &json!({ "session": settings.shown() }));
        Self {
            settings,
            events,
            items: Items::default(),
            hearing,
            turn: None,
            words: None,
            greeting,
            response: None,
            mode,
            place,
            talk_at: None,
            bytes: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Takes the events that are to be sent.
    pub(super) fn drain_events(&mut self) -> impl Iterator<Item = String> {
        self.events.drain()
    }

    /// When there is more to say.
    pub(super) fn next_at(&self) -> Option<Instant> {
        match &self.response {
            Some(response) => response.next_at(),
            None => self.talk_at,
        }
    }

    /// Says what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.next_at().is_none_or(|at| at > now) {
            return;
        }
        if let (None, Some(at), Mode::Talk(percent)) = (&self.response, self.talk_at, self.mode) {
            // What was missed, since a client did not read, is not made up for.
            self.talk_at = Some((at + self.period(percent)).max(now));
            let speech = Speech::Words { audio: self.greeting.clone(), transcript: GREETING_TEXT };
            self.begin(now, speech, ResponseWishes::default(), 0);
        }
        self.say(now);
    }

    /// Takes a client event. What is wrong with it becomes an `error` event.
    pub(super) fn handle_text(&mut self, now: Instant, text: &str) {
        let envelope: Envelope<'_> = match serde_json::from_str(text) {
            Ok(envelope) => envelope,
            Err(error) => {
                let message = format!("Could not parse the event: {}.", short(&error.to_string()));
                return self.events.push_fault(&Fault::new("invalid_json", message), None);
            }
        };
        if let Err(fault) = self.handle_event(now, &envelope, text) {
            let id = envelope.event_id.and_then(|id| serde_json::from_str::<String>(id.get()).ok());
            let id = id.as_deref().filter(|id| id.len() <= EVENT_ID_BYTES_MAX);
            self.events.push_fault(&fault, id);
        }
    }

    /// A binary message came: there are none in this protocol.
    pub(super) fn handle_binary(&mut self) {
        let message = "Events must be JSON in text messages; a binary one came.";
        self.events.push_fault(&Fault::new("invalid_json", message), None);
    }

    fn handle_event(&mut self, now: Instant, envelope: &Envelope<'_>, text: &str) -> Result<(), Fault> {
        let kind = envelope.kind.ok_or_else(|| Fault::missing("type"))?;
        if kind.get() == "\"input_audio_buffer.append\"" {
            return self.append(now, envelope.audio);
        }
        let event: Value = serde_json::from_str(text).expect("it has been parsed before");
        let kind = event["type"].as_str().ok_or_else(|| invalid("type", "must be a string"))?;
        let Some((kind, fields)) = CLIENT_EVENTS.iter().find(|(name, _)| *name == kind) else {
            let names: Vec<_> = CLIENT_EVENTS.iter().map(|(name, _)| format!("'{name}'")).collect();
            let message = format!("Invalid value: '{}'. Supported values are: {}.", short(kind), names.join(", "));
            return Err(Fault::of("type", "invalid_value", message));
        };
        let keys = event.as_object().expect("it has a type").keys();
        let is_known = |key: &str| key == "type" || key == "event_id" || fields.contains(&key);
        if let Some(key) = keys.map(String::as_str).find(|key| !is_known(key)) {
            let key = short(key);
            return Err(Fault::of(key, "unknown_parameter", format!("Unknown parameter: '{key}'.")));
        }
        match *kind {
            "session.update" => self.update(event.get("session")),
            "input_audio_buffer.append" => self.append(now, envelope.audio),
            "input_audio_buffer.commit" => self.commit(),
            "input_audio_buffer.clear" => {
                self.hearing.clear();
                self.turn = None;
                self.events.push("input_audio_buffer.cleared", &json!({}));
                Ok(())
            }
            "conversation.item.create" => self.items.create(&event, &mut self.events),
            "conversation.item.truncate" => self.items.truncate(&event, &mut self.events),
            "conversation.item.delete" => self.items.delete(&event, &mut self.events),
            "response.create" => self.create_response(now, event.get("response")),
            "response.cancel" => self.cancel_response(event.get("response_id")),
            _ => unreachable!("every entry of the table has its arm"),
        }
    }

    fn update(&mut self, session: Option<&Value>) -> Result<(), Fault> {
        let before = self.settings.turn_detection();
        self.settings.update(session.ok_or_else(|| Fault::missing("session"))?)?;
        let after = self.settings.turn_detection();
        if after != before {
            self.hearing.restart(after.map(|turns| turns.vad));
            self.turn = None;
        }
        self.events.push("session.updated", &json!({ "session": self.settings.shown() }));
        Ok(())
    }

    fn append(&mut self, now: Instant, audio: Option<&RawValue>) -> Result<(), Fault> {
        let raw = audio.ok_or_else(|| Fault::missing("audio"))?.get();
        let unescaped;
        let base64 = match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
            Some(inner) if !inner.contains('\\') => inner,
            // Some encoders write / as \/.
            Some(_) => {
                unescaped = serde_json::from_str::<String>(raw).expect("it has been parsed before");
                &unescaped
            }
            None => return Err(invalid("audio", "must be a string")),
        };
        self.bytes.clear();
        if STANDARD.decode_append(base64, &mut self.bytes).is_err() || !self.bytes.len().is_multiple_of(2) {
            return Err(invalid(
                "audio",
                "must be base64 of whole samples: PCM of 16 bits, little-endian, mono, 24 kHz",
            ));
        }
        let mut samples = std::mem::take(&mut self.samples);
        samples.clear();
        samples.extend(self.bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
        match self.mode {
            Mode::Echo => self.echo(now, base64, samples.len() as u64),
            Mode::Turns => self.hear(now, &samples),
            // The first that is heard says that there is a caller.
            Mode::Talk(percent) if self.talk_at.is_none() => {
                self.talk_at = Some(now + self.period(percent).mul_f64(self.place));
            }
            Mode::Talk(_) => {}
        }
        self.samples = samples;
        Ok(())
    }

    fn echo(&mut self, now: Instant, base64: &str, samples: u64) {
        if self.response.is_none() {
            self.begin(now, Speech::Echo, ResponseWishes::default(), 0);
        }
        let response = self.response.as_mut().expect("it was begun");
        response.echo(base64, samples, &mut self.items, &mut self.events);
    }

    /// From one burst of talk to the next.
    fn period(&self, percent: u8) -> Duration {
        let burst = Duration::from_millis(self.greeting.len() as u64 / SAMPLES_PER_MS);
        burst * 100 / u32::from(percent)
    }

    fn hear(&mut self, now: Instant, samples: &[i16]) {
        self.hearing.append(samples);
        let mut rest = samples;
        while !rest.is_empty() {
            let (later, turn) = self.hearing.detect(rest);
            rest = later;
            match turn {
                Some(Turn::Started { at }) => self.turn_started(at),
                Some(Turn::Stopped { speech_end, at }) => self.turn_stopped(now, speech_end, at),
                None => {}
            }
        }
        self.hearing.trim();
    }

    fn turn_started(&mut self, at: u64) {
        let turns = self.settings.turn_detection().expect("without turn detection there is no detector");
        let item_id = self.events.id("item");
        let start_ms = (at / SAMPLES_PER_MS).saturating_sub(turns.prefix_ms);
        let fields = json!({ "audio_start_ms": start_ms, "item_id": item_id });
        self.events.push("input_audio_buffer.speech_started", &fields);
        self.turn = Some(OpenTurn { item_id, from: at });
        if turns.interrupt_response
            && let Some(response) = self.response.take_if(|response| response.is_in_conversation())
        {
            response.finish(Finish::TurnDetected, &mut self.events);
        }
    }

    fn turn_stopped(&mut self, now: Instant, speech_end: u64, at: u64) {
        let turns = self.settings.turn_detection().expect("without turn detection there is no detector");
        let turn = self.turn.take().expect("a detector that stops has started");
        let fields = json!({ "audio_end_ms": at / SAMPLES_PER_MS, "item_id": turn.item_id });
        self.events.push("input_audio_buffer.speech_stopped", &fields);
        let words = self.hearing.words(turn.from, speech_end, at);
        self.commit_words(words, &turn.item_id);
        if turns.create_response
            && let Err(fault) = self.respond(now, ResponseWishes::default())
        {
            self.events.push_fault(&fault, None);
        }
    }

    fn commit(&mut self) -> Result<(), Fault> {
        let ms = self.hearing.buffered_ms();
        if ms < COMMIT_MS_MIN {
            let message = format!("The buffer holds {ms} ms of audio; a commit needs at least {COMMIT_MS_MIN} ms.");
            return Err(Fault::new("input_audio_buffer_commit_empty", message));
        }
        let words = self.hearing.take_all();
        let item_id = self.turn.take().map_or_else(|| self.events.id("item"), |turn| turn.item_id);
        self.commit_words(words, &item_id);
        Ok(())
    }

    fn commit_words(&mut self, words: Arc<[i16]>, item_id: &str) {
        self.words = Some(words);
        let previous = self.items.last();
        let fields = json!({ "item_id": item_id, "previous_item_id": previous });
        self.events.push("input_audio_buffer.committed", &fields);
        self.items.add(item_id, false);
        let item = json!({
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{ "type": "input_audio", "transcript": null }],
        });
        announce(&item, &previous, &mut self.events);
        if self.settings.wants_transcription() {
            let error = json!({
                "type": "server_error",
                "code": "transcription_unavailable",
                "message": "The built-in agent hears, but cannot write down.",
                "param": null,
            });
            let fields = json!({ "item_id": item_id, "content_index": 0, "error": error });
            self.events.push("conversation.item.input_audio_transcription.failed", &fields);
        }
    }

    fn create_response(&mut self, now: Instant, response: Option<&Value>) -> Result<(), Fault> {
        let mut wishes = ResponseWishes::default();
        if let Some(response) = response {
            let given = object(response, "response", RESPONSE_KEYS)?;
            if given.get("output_modalities").is_some_and(|modalities| *modalities != json!(["audio"])) {
                return Err(invalid(
                    "response.output_modalities",
                    "must be [\"audio\"]: the built-in agent only speaks",
                ));
            }
            wishes.detached = given.get("conversation").is_some_and(|conversation| conversation == "none");
            if let Some(metadata) = given.get("metadata").filter(|metadata| !metadata.is_null()) {
                let is_map = metadata.as_object().is_some_and(|map| map.values().all(Value::is_string));
                if !is_map {
                    return Err(invalid("response.metadata", "must be an object of strings"));
                }
                wishes.metadata = metadata.clone();
            }
        }
        self.respond(now, wishes)
    }

    /// Says back the caller's last words; before there are any, greets.
    fn respond(&mut self, now: Instant, wishes: ResponseWishes) -> Result<(), Fault> {
        if let Some(response) = &self.response {
            let message = format!("The conversation has an active response already: {}.", response.id());
            return Err(Fault::new("conversation_already_has_active_response", message));
        }
        if self.mode == Mode::Echo {
            self.begin(now, Speech::Echo, wishes, 0);
            return Ok(());
        }
        let (audio, transcript, heard) = match &self.words {
            Some(words) => (words.clone(), WORDS_TRANSCRIPT, words.len() as u64),
            None => (self.greeting.clone(), GREETING_TEXT, 0),
        };
        self.begin(now, Speech::Words { audio, transcript }, wishes, heard / SAMPLES_PER_MS);
        self.say(now);
        Ok(())
    }

    fn begin(&mut self, now: Instant, speech: Speech, wishes: ResponseWishes, heard_ms: u64) {
        let voice = self.settings.shown()["audio"]["output"]["voice"].clone();
        let (items, events) = (&mut self.items, &mut self.events);
        self.response = Some(Response::begin(now, speech, wishes, voice, heard_ms, items, events));
    }

    fn say(&mut self, now: Instant) {
        let Some(response) = &mut self.response else { return };
        if response.say(now, &mut self.items, &mut self.events)
            && let Some(response) = self.response.take()
        {
            response.finish(Finish::Completed, &mut self.events);
        }
    }

    fn cancel_response(&mut self, id: Option<&Value>) -> Result<(), Fault> {
        let is_meant = |response: &mut Response| id.is_none_or(|id| id.is_null() || id == response.id());
        let Some(response) = self.response.take_if(is_meant) else {
            return Err(Fault::new("response_cancel_not_active", "There is no active response to cancel."));
        };
        response.finish(Finish::ClientCancelled, &mut self.events);
        Ok(())
    }
}
