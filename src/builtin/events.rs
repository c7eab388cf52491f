//! Writes server events: JSON in the GA shape of the Realtime API, each with its `event_id`.
//!
//! Ids count up within a connection and carry its number, so that they are unique and the same in every run. This file
//! knows no event's meaning.

use base64_simd::STANDARD;
use serde_json::{Value, json};

/// A client event that cannot be served. The session goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// OpenAI's code for it.
    pub(super) code: &'static str,
    /// What is wrong, in words.
    pub(super) message: String,
    /// Which field.
    pub(super) param: Option<String>,
}

impl Fault {
    /// A fault of the event as a whole.
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None }
    }

    /// A fault of one field.
    pub(super) fn of(param: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: Some(param.into()) }
    }

    /// A field that must be there is not.
    pub(super) fn missing(param: &str) -> Self {
        Self::of(param, "missing_required_parameter", format!("Missing required parameter: '{param}'."))
    }
}

/// Events that wait to be sent, in order, and the source of ids.
#[derive(Debug)]
pub(super) struct Events {
    queue: Vec<String>,
    connection: String,
    ids: u64,
}

impl Events {
    /// `connection` tells this connection's ids from those of others.
    pub(super) fn new(connection: String) -> Self {
        Self { queue: Vec::new(), connection, ids: 0 }
    }

    /// An id that was not used before, such as `item_3x1_00042`.
    pub(super) fn id(&mut self, kind: &str) -> String {
        self.ids += 1;
        format!("{kind}_{}_{:05}", self.connection, self.ids)
    }

    /// Queues an event of this type with these fields.
    pub(super) fn push(&mut self, kind: &str, fields: &Value) {
        let id = self.id("event");
        let fields = fields.to_string();
        let rest = fields.strip_prefix('{').expect("fields are an object");
        let comma = if rest == "}" { "" } else { "," };
        self.queue.push(format!(r#"{{"type":"{kind}","event_id":"{id}"{comma}{rest}"#));
    }

    /// Queues `response.output_audio.delta`; `base64` writes the audio.
    pub(super) fn push_delta(&mut self, response_id: &str, item_id: &str, audio: Audio<'_>) {
        let id = self.id("event");
        let mut text = format!(
            r#"{{"type":"response.output_audio.delta","event_id":"{id}","response_id":"{response_id}","item_id":"{item_id}","output_index":0,"content_index":0,"delta":""#
        );
        match audio {
            Audio::Base64(base64) => text.push_str(base64),
            Audio::Samples(samples) => {
                let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                STANDARD.encode_append(&bytes, &mut text);
            }
        }
        text.push_str("\"}");
        self.queue.push(text);
    }

    /// Queues an `error` event. `client_event_id` is the id of the event that caused it.
    pub(super) fn push_fault(&mut self, fault: &Fault, client_event_id: Option<&str>) {
        let Fault { code, message, param } = fault;
        let error = json!({
            "type": "invalid_request_error",
            "code": code,
            "message": message,
            "param": param,
            "event_id": client_event_id,
        });
        self.push("error", &json!({ "error": error }));
    }

    /// Takes all events that wait.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = String> {
        self.queue.drain(..)
    }
}

/// Audio of a delta: 24 kHz mono PCM.
#[derive(Clone, Copy, Debug)]
pub(super) enum Audio<'a> {
    /// Samples to be encoded.
    Samples(&'a [i16]),
    /// Base64 that was found valid.
    Base64(&'a str),
}

/// A client's word, cut so that it can be repeated in a message.
pub(super) fn short(word: &str) -> &str {
    match word.char_indices().nth(64) {
        Some((end, _)) => &word[..end],
        None => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_json_that_begins_with_its_type_and_has_an_id_of_its_own() {
        let mut events = Events::new("3x1".into());
        events.push("input_audio_buffer.cleared", &json!({}));
        events.push("conversation.item.deleted", &json!({ "item_id": "i\"1" }));
        events.push_delta("resp_1", "item_1", Audio::Samples(&[0, 1, -2]));
        events.push_delta("resp_1", "item_1", Audio::Base64("AAABAP7/"));
        events.push_fault(&Fault::missing("session.type"), Some("mine"));
        let events: Vec<_> = events.drain().collect();
        assert!(events.iter().all(|event| event.starts_with(r#"{"type":""#)));
        let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let ids: Vec<_> = events.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
        assert_eq!(
            ids,
            ["event_3x1_00001", "event_3x1_00002", "event_3x1_00003", "event_3x1_00004", "event_3x1_00005"]
        );
        assert_eq!(events[1]["item_id"], "i\"1");
        assert_eq!((&events[2]["delta"], &events[3]["delta"]), (&json!("AAABAP7/"), &json!("AAABAP7/")));
        assert_eq!(
            (&events[4]["error"]["param"], &events[4]["error"]["event_id"]),
            (&json!("session.type"), &json!("mine"))
        );
    }

    #[test]
    fn words_are_cut_between_characters() {
        assert_eq!(short("plain"), "plain");
        assert_eq!(short(&"é".repeat(100)), "é".repeat(64));
    }
}
