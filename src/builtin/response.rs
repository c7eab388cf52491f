//! One response: the chain of events from `response.created` to `response.done`, and the audio in between.
//!
//! Audio comes in bursts, as the real service's does: [`DELTA_SAMPLES`] every [`DELTA_EVERY`] is ten times faster than
//! it plays. It is not sent all at once, so that a response can be interrupted while it is being generated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::events::{Audio, Events};
use super::items::Items;
use super::vad::SAMPLES_PER_MS;

/// Samples of a delta: 200 ms.
pub(super) const DELTA_SAMPLES: usize = 200 * SAMPLES_PER_MS as usize;

/// Time between two deltas.
pub(super) const DELTA_EVERY: Duration = Duration::from_millis(20);

/// What a response says.
#[derive(Debug)]
pub(super) enum Speech {
    /// This audio, and then it is done.
    Words {
        /// 24 kHz mono PCM.
        audio: Arc<[i16]>,
        /// What the transcript says.
        transcript: &'static str,
    },
    /// Whatever comes in, as it comes; it ends by cancellation alone.
    Echo,
}

/// What a client may ask of one response.
#[derive(Debug, Default)]
pub(super) struct ResponseWishes {
    /// `conversation: "none"`: outside the conversation.
    pub(super) detached: bool,
    /// Given back in `response.created` and `response.done`.
    pub(super) metadata: Value,
}

/// How a response ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// All was said.
    Completed,
    /// The caller spoke.
    TurnDetected,
    /// The client cancelled it.
    ClientCancelled,
}

/// A response that is being generated.
#[derive(Debug)]
pub(super) struct Response {
    id: String,
    item_id: String,
    speech: Speech,
    sent: u64,
    next_at: Instant,
    wishes: ResponseWishes,
    voice: Value,
    heard_ms: u64,
    previous: Value,
}

impl Response {
    /// Starts a response and says so. `heard_ms` is the caller's audio that it answers, for the bill.
    pub(super) fn begin(
        now: Instant,
        speech: Speech,
        wishes: ResponseWishes,
        voice: Value,
        heard_ms: u64,
        items: &mut Items,
        events: &mut Events,
    ) -> Self {
        let (id, item_id) = (events.id("resp"), events.id("item"));
        let response =
            Self { id, item_id, speech, sent: 0, next_at: now, wishes, voice, heard_ms, previous: items.last() };
        events.push("response.created", &json!({ "response": response.shown("in_progress", &[]) }));
        let item = response.item("in_progress", &json!([]));
        response.push("response.output_item.added", json!({ "output_index": 0, "item": item }), events);
        if !response.wishes.detached {
            let fields = json!({ "previous_item_id": response.previous, "item": item });
            items.add(&response.item_id, true);
            events.push("conversation.item.added", &fields);
        }
        let part = json!({ "type": "audio", "transcript": "" });
        response.push_part("response.content_part.added", json!({ "part": part }), events);
        response
    }

    /// Its id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether the caller's speech may end it.
    pub(super) fn is_in_conversation(&self) -> bool {
        !self.wishes.detached
    }

    /// When it has more to say; an echo never has, by itself.
    pub(super) fn next_at(&self) -> Option<Instant> {
        matches!(self.speech, Speech::Words { .. }).then_some(self.next_at)
    }

    /// Sends the next delta; true when that was the last.
    pub(super) fn say(&mut self, now: Instant, items: &mut Items, events: &mut Events) -> bool {
        let Speech::Words { audio, .. } = &self.speech else { return false };
        let rest = &audio[self.sent as usize..];
        let now_said = &rest[..rest.len().min(DELTA_SAMPLES)];
        let is_last = now_said.len() == rest.len();
        if !now_said.is_empty() {
            events.push_delta(&self.id, &self.item_id, Audio::Samples(now_said));
        }
        self.count(now_said.len() as u64, items);
        self.next_at = now + DELTA_EVERY;
        is_last
    }

    /// Sends audio that just came in; `base64` holds this many samples.
    pub(super) fn echo(&mut self, base64: &str, samples: u64, items: &mut Items, events: &mut Events) {
        events.push_delta(&self.id, &self.item_id, Audio::Base64(base64));
        self.count(samples, items);
    }

    fn count(&mut self, samples: u64, items: &mut Items) {
        self.sent += samples;
        items.set_spoken_ms(&self.item_id, self.sent / SAMPLES_PER_MS);
    }

    /// Ends the response and says so.
    pub(super) fn finish(self, finish: Finish, events: &mut Events) {
        let complete = finish == Finish::Completed;
        let (status, item_status) = if complete { ("completed", "completed") } else { ("cancelled", "incomplete") };
        let transcript = match &self.speech {
            Speech::Words { transcript, .. } => *transcript,
            Speech::Echo => "(your words)",
        };
        self.push_part("response.output_audio.done", json!({}), events);
        self.push_part("response.output_audio_transcript.delta", json!({ "delta": transcript }), events);
        self.push_part("response.output_audio_transcript.done", json!({ "transcript": transcript }), events);
        let part = json!({ "type": "audio", "transcript": transcript });
        self.push_part("response.content_part.done", json!({ "part": part }), events);
        let item = self.item(item_status, &json!([{ "type": "output_audio", "transcript": transcript }]));
        if !self.wishes.detached {
            events.push("conversation.item.done", &json!({ "previous_item_id": self.previous, "item": item }));
        }
        self.push("response.output_item.done", json!({ "output_index": 0, "item": item }), events);
        let mut response = self.shown(status, &[item]);
        response["status_details"] = match finish {
            Finish::Completed => Value::Null,
            Finish::TurnDetected => json!({ "type": "cancelled", "reason": "turn_detected" }),
            Finish::ClientCancelled => json!({ "type": "cancelled", "reason": "client_cancelled" }),
        };
        response["usage"] = self.usage();
        events.push("response.done", &json!({ "response": response }));
    }

    /// The response object.
    fn shown(&self, status: &str, output: &[Value]) -> Value {
        json!({
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": null,
            "output": output,
            "conversation_id": if self.wishes.detached { Value::Null } else { "conv_builtin".into() },
            "output_modalities": ["audio"],
            "max_output_tokens": "inf",
            "audio": { "output": { "format": { "type": "audio/pcm", "rate": 24_000 }, "voice": self.voice } },
            "usage": null,
            "metadata": self.wishes.metadata,
        })
    }

    fn item(&self, status: &str, content: &Value) -> Value {
        json!({
            "id": self.item_id,
            "object": "realtime.item",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        })
    }

    /// Audio counts as the real service counts it: a token per 100 ms heard, one per 50 ms said.
    fn usage(&self) -> Value {
        let (input, output) = (self.heard_ms.div_ceil(100), (self.sent / SAMPLES_PER_MS).div_ceil(50));
        json!({
            "total_tokens": input + output,
            "input_tokens": input,
            "output_tokens": output,
            "input_token_details": {
                "text_tokens": 0,
                "audio_tokens": input,
                "image_tokens": 0,
                "cached_tokens": 0,
                "cached_tokens_details": { "text_tokens": 0, "audio_tokens": 0, "image_tokens": 0 },
            },
            "output_token_details": { "text_tokens": 0, "audio_tokens": output },
        })
    }

    fn push(&self, kind: &str, mut fields: Value, events: &mut Events) {
        fields["response_id"] = self.id.as_str().into();
        events.push(kind, &fields);
    }

    fn push_part(&self, kind: &str, mut fields: Value, events: &mut Events) {
        fields["item_id"] = self.item_id.as_str().into();
        fields["output_index"] = 0.into();
        fields["content_index"] = 0.into();
        self.push(kind, fields, events);
    }
}
