//! What the model says, read without a tree and, for audio, without a copy.
//!
//! An event is read in one pass into its few fields of interest; nested objects are skipped over and kept as text, and read
//! only for the types that need them. A field of an unexpected kind counts as absent, so that an event is not lost to a
//! field nobody asked for.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// One event from the model. Texts are borrowed from the message unless they hold escapes.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerEvent<'a> {
    /// `session.created`: the session stands, with defaults.
    SessionCreated {
        /// The model that answers; empty when it does not say.
        model: Cow<'a, str>,
    },
    /// `session.updated`: our settings are in force.
    SessionUpdated,
    /// `input_audio_buffer.speech_started`: the caller began to speak.
    SpeechStarted,
    /// `input_audio_buffer.speech_stopped`: the caller ended.
    SpeechStopped,
    /// `response.created`, whoever asked for it.
    ResponseCreated {
        /// Id of the response.
        response: Cow<'a, str>,
    },
    /// `response.output_audio.delta` (beta: `response.audio.delta`).
    AudioDelta {
        /// Id of the response; empty when the server leaves it out.
        response: Cow<'a, str>,
        /// Id of the item that the audio belongs to.
        item: Cow<'a, str>,
        /// Base64 of PCM16, of any length.
        delta: Cow<'a, str>,
    },
    /// `response.output_audio.done` (beta: `response.audio.done`): no more audio for this item.
    AudioDone {
        /// Id of the item.
        item: Cow<'a, str>,
    },
    /// `response.output_item.done` of a completed function call.
    FunctionCall {
        /// Id of the response.
        response: Cow<'a, str>,
        /// What the output has to name.
        call: Cow<'a, str>,
        /// Name of the function.
        name: Cow<'a, str>,
    },
    /// `response.done`: nothing more is generated. Playing may go on.
    ResponseDone {
        /// Id of the response.
        response: Cow<'a, str>,
        /// How it ended.
        status: ResponseStatus,
        /// More on a failed or incomplete one, in the server's words.
        detail: String,
    },
    /// `error`.
    Error(ApiError<'a>),
    /// An event of the schema that nothing here depends on.
    Other,
    /// An event that the schema does not have.
    Unknown,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseStatus {
    /// As it should.
    Completed,
    /// The caller spoke over it, or we cancelled it.
    Cancelled,
    /// Something failed: rate limit, quota, the service.
    Failed,
    /// Cut short: token limit or content filter.
    Incomplete,
}

/// The `error` event. Texts are empty when absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiError<'a> {
    /// Kind, e.g. `invalid_request_error`. Some compatible servers put the code here.
    pub kind: Cow<'a, str>,
    /// Code, e.g. `session_expired`.
    pub code: Cow<'a, str>,
    /// In words.
    pub message: Cow<'a, str>,
    /// Our event that caused it, when the server knows.
    pub event: Cow<'a, str>,
}

impl ApiError<'_> {
    /// Whether kind or code is this word.
    pub fn is(&self, code: &str) -> bool {
        self.code == code || self.kind == code
    }

    /// Whether the error says no more than that something had happened already, which races of two clocks make normal:
    /// the codes are those captured from the service.
    pub fn is_benign(&self) -> bool {
        const CODES: [&str; 3] = [
            "conversation_already_has_active_response",
            "response_cancel_not_active",
            "input_audio_buffer_commit_empty",
        ];
        const SENTENCES: [&str; 2] = ["already shorter than", "Only model output audio messages can be truncated"];
        CODES.iter().any(|code| self.is(code)) || SENTENCES.iter().any(|words| self.message.contains(words))
    }
}

impl fmt::Display for ApiError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = if self.code.is_empty() { &self.kind } else { &self.code };
        match (code.is_empty(), self.message.is_empty()) {
            (true, true) => f.write_str("an error without words"),
            (false, true) => f.write_str(code),
            (true, false) => f.write_str(&self.message),
            (false, false) => write!(f, "{code}: {}", self.message),
        }
    }
}

/// A text, or nothing when the value is of another kind.
#[derive(Default)]
struct Word<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Word<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyVisitor;

        impl<'de> Visitor<'de> for AnyVisitor {
            type Value = Word<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Word(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Word(Cow::Owned(text.to_owned())))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Word::default())
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Word::default())
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Word::default())
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Word::default())
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Word::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Word::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Word::default())
            }
        }

        deserializer.deserialize_any(AnyVisitor)
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Word<'a>,
    #[serde(borrow, default)]
    response_id: Word<'a>,
    #[serde(borrow, default)]
    item_id: Word<'a>,
    #[serde(borrow, default)]
    delta: Word<'a>,
    #[serde(borrow, default)]
    session: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    item: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Session<'a> {
    #[serde(borrow)]
    model: Word<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Response<'a> {
    #[serde(borrow)]
    id: Word<'a>,
    #[serde(borrow)]
    status: Word<'a>,
    #[serde(borrow)]
    status_details: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusDetails<'a> {
    #[serde(borrow)]
    reason: Word<'a>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Item<'a> {
    #[serde(rename = "type", borrow)]
    kind: Word<'a>,
    #[serde(borrow)]
    status: Word<'a>,
    #[serde(borrow)]
    call_id: Word<'a>,
    #[serde(borrow)]
    name: Word<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorObject<'a> {
    #[serde(rename = "type", borrow)]
    kind: Word<'a>,
    #[serde(borrow)]
    code: Word<'a>,
    #[serde(borrow)]
    message: Word<'a>,
    #[serde(borrow)]
    event_id: Word<'a>,
}

impl<'a> From<ErrorObject<'a>> for ApiError<'a> {
    fn from(object: ErrorObject<'a>) -> Self {
        Self { kind: object.kind.0, code: object.code.0, message: object.message.0, event: object.event_id.0 }
    }
}

/// A nested object, or nothing when it is absent or of another shape.
fn nested<'a, T: Deserialize<'a> + Default>(raw: Option<&'a RawValue>) -> T {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

impl<'a> ServerEvent<'a> {
    /// Reads one message. `None`: it is not a JSON object with one of each field that is read.
    pub fn parse(text: &'a str) -> Option<Self> {
        let event: Envelope<'a> = serde_json::from_str(text).ok()?;
        Some(match event.kind.0.as_ref() {
            "response.output_audio.delta" | "response.audio.delta" => {
                Self::AudioDelta { response: event.response_id.0, item: event.item_id.0, delta: event.delta.0 }
            }
            "response.output_audio.done" | "response.audio.done" => Self::AudioDone { item: event.item_id.0 },
            "input_audio_buffer.speech_started" => Self::SpeechStarted,
            "input_audio_buffer.speech_stopped" => Self::SpeechStopped,
            "session.created" => Self::SessionCreated { model: nested::<Session>(event.session).model.0 },
            "session.updated" => Self::SessionUpdated,
            "response.created" => Self::ResponseCreated { response: nested::<Response>(event.response).id.0 },
            // The guide has `response.cancelled`, the schema and all captures have `response.done`: take both.
            "response.done" | "response.cancelled" => response_done(&event),
            "response.output_item.done" => {
                let item: Item = nested(event.item);
                // One that was cut short has no usable arguments.
                if item.kind.0 != "function_call" || item.call_id.0.is_empty() || item.status.0 == "incomplete" {
                    return Some(Self::Other);
                }
                Self::FunctionCall { response: event.response_id.0, call: item.call_id.0, name: item.name.0 }
            }
            "error" => Self::Error(nested::<ErrorObject>(event.error).into()),
            other if is_of_the_schema(other) => Self::Other,
            _ => Self::Unknown,
        })
    }
}

fn response_done<'a>(event: &Envelope<'a>) -> ServerEvent<'a> {
    let response: Response = nested(event.response);
    let status = match response.status.0.as_ref() {
        "failed" => ResponseStatus::Failed,
        "incomplete" => ResponseStatus::Incomplete,
        "cancelled" => ResponseStatus::Cancelled,
        _ if event.kind.0 == "response.cancelled" => ResponseStatus::Cancelled,
        _ => ResponseStatus::Completed,
    };
    let detail = match status {
        ResponseStatus::Completed | ResponseStatus::Cancelled => String::new(),
        ResponseStatus::Failed | ResponseStatus::Incomplete => {
            let details: StatusDetails = nested(response.status_details);
            match details.error {
                Some(_) => ApiError::from(nested::<ErrorObject>(details.error)).to_string(),
                None if details.reason.0.is_empty() => "no reason given".into(),
                None => details.reason.0.into_owned(),
            }
        }
    };
    let id = if response.id.0.is_empty() { event.response_id.0.clone() } else { response.id.0 };
    ServerEvent::ResponseDone { response: id, status, detail }
}

/// Whether the schema has an event of this name, under its GA or its beta name, beyond those that are acted on.
fn is_of_the_schema(kind: &str) -> bool {
    const AREAS: [(&str, &[&str]); 6] = [
        (
            "conversation.",
            &[
                "created",
                "item.added",
                "item.done",
                "item.created",
                "item.retrieved",
                "item.deleted",
                "item.truncated",
                "item.input_audio_transcription.delta",
                "item.input_audio_transcription.completed",
                "item.input_audio_transcription.segment",
                "item.input_audio_transcription.failed",
            ],
        ),
        ("input_audio_buffer.", &["committed", "cleared", "timeout_triggered", "dtmf_event_received"]),
        ("output_audio_buffer.", &["started", "stopped", "cleared"]),
        (
            "response.",
            &[
                "output_item.added",
                "content_part.added",
                "content_part.done",
                "output_audio_transcript.delta",
                "output_audio_transcript.done",
                "audio_transcript.delta",
                "audio_transcript.done",
                "output_text.delta",
                "output_text.done",
                "text.delta",
                "text.done",
                "function_call_arguments.delta",
                "function_call_arguments.done",
                "mcp_call_arguments.delta",
                "mcp_call_arguments.done",
                "mcp_call.in_progress",
                "mcp_call.completed",
                "mcp_call.failed",
            ],
        ),
        ("mcp_list_tools.", &["in_progress", "completed", "failed"]),
        ("rate_limits.", &["updated"]),
    ];
    AREAS.iter().any(|(area, names)| kind.strip_prefix(area).is_some_and(|name| names.contains(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audio_delta_is_read_without_a_copy() {
        for kind in ["response.output_audio.delta", "response.audio.delta"] {
            let text = format!(
                r#"{{"type":"{kind}","event_id":"event_1","response_id":"resp_1","item_id":"item_1","output_index":0,"content_index":0,"delta":"AAAA"}}"#
            );
            let Some(ServerEvent::AudioDelta { response, item, delta }) = ServerEvent::parse(&text) else {
                panic!("{text}")
            };
            assert!(matches!(
                (response, item, delta),
                (Cow::Borrowed("resp_1"), Cow::Borrowed("item_1"), Cow::Borrowed("AAAA"))
            ));
        }
    }

    #[test]
    fn a_slash_that_was_escaped_is_still_base64() {
        let text = r#"{"delta":"AA\/A","item_id":"i","type":"response.output_audio.delta"}"#;
        let Some(ServerEvent::AudioDelta { response, delta, .. }) = ServerEvent::parse(text) else { panic!() };
        assert_eq!((response.as_ref(), delta.as_ref()), ("", "AA/A"));
    }

    #[test]
    fn events_are_told_apart_by_name() {
        fn other(text: &str) -> ServerEvent<'_> {
            ServerEvent::parse(text).unwrap()
        }
        assert_eq!(
            other(
                r#"{"type":"session.created","event_id":"e","session":{"id":"sess_1","model":"gpt-realtime-2.1","tools":[{"a":{}}]}}"#
            ),
            ServerEvent::SessionCreated { model: "gpt-realtime-2.1".into() }
        );
        assert_eq!(other(r#"{"type":"session.updated","session":{}}"#), ServerEvent::SessionUpdated);
        assert_eq!(
            other(r#"{"type":"input_audio_buffer.speech_started","audio_start_ms":12,"item_id":"i"}"#),
            ServerEvent::SpeechStarted
        );
        assert_eq!(
            other(r#"{"type":"response.created","response":{"id":"resp_9","status":"in_progress"}}"#),
            ServerEvent::ResponseCreated { response: "resp_9".into() }
        );
        for known in ["rate_limits.updated", "response.output_audio_transcript.delta", "conversation.item.truncated"] {
            assert!(other(&format!(r#"{{"type":"{known}"}}"#)) == ServerEvent::Other, "{known}");
        }
        for unknown in ["ping", "response.", "response.output_audio.deltas", "", "rate_limits.updated.x"] {
            assert!(other(&format!(r#"{{"type":"{unknown}"}}"#)) == ServerEvent::Unknown, "{unknown}");
        }
    }

    #[test]
    fn a_response_ends_in_four_ways_and_says_why() {
        let done = |status: &str| {
            let text = format!(r#"{{"type":"response.done","response":{{"id":"r","output":[],{status}}}}}"#);
            let Some(ServerEvent::ResponseDone { response, status, detail }) = ServerEvent::parse(&text) else {
                panic!("{text}")
            };
            assert_eq!(response, "r");
            (status, detail)
        };
        assert_eq!(done(r#""status":"completed""#), (ResponseStatus::Completed, String::new()));
        assert_eq!(
            done(r#""status":"cancelled","status_details":{"type":"cancelled","reason":"turn_detected"}"#),
            (ResponseStatus::Cancelled, String::new())
        );
        assert_eq!(
            done(
                r#""status":"failed","status_details":{"type":"failed","error":{"type":"server_error","code":"rate_limit_exceeded","message":"Slow down."}}"#
            ),
            (ResponseStatus::Failed, "rate_limit_exceeded: Slow down.".into())
        );
        assert_eq!(
            done(r#""status":"incomplete","status_details":{"reason":"max_output_tokens"}"#),
            (ResponseStatus::Incomplete, "max_output_tokens".into())
        );
        assert_eq!(done(r#""status":"failed","status_details":7"#).1, "no reason given");
    }

    #[test]
    fn only_a_complete_function_call_is_one() {
        let item = |item: &str| {
            ServerEvent::parse(&format!(r#"{{"type":"response.output_item.done","response_id":"r","item":{item}}}"#))
                .map(
                    |event| matches!(event, ServerEvent::FunctionCall { call, name, .. } if call == "c" && name == "f"),
                )
                .unwrap()
        };
        assert!(item(
            r#"{"type":"function_call","status":"completed","call_id":"c","name":"f","arguments":"{\"a\":1}"}"#
        ));
        assert!(item(r#"{"type":"function_call","call_id":"c","name":"f"}"#));
        assert!(!item(r#"{"type":"function_call","status":"incomplete","call_id":"c","name":"f"}"#));
        assert!(!item(r#"{"type":"function_call","name":"f"}"#));
        assert!(!item(r#"{"type":"message","call_id":"c","name":"f"}"#));
        assert!(!item("null"));
    }

    #[test]
    fn harmless_errors_are_known_by_code_or_by_sentence() {
        let error = |text: &str| {
            let text = format!(r#"{{"type":"error","event_id":null,"error":{text}}}"#);
            let Some(ServerEvent::Error(error)) = ServerEvent::parse(&text) else { panic!("{text}") };
            (error.is_benign(), error.to_string())
        };
        assert!(error(r#"{"code":"response_cancel_not_active","message":"m"}"#).0);
        assert!(error(r#"{"type":"conversation_already_has_active_response"}"#).0);
        assert!(error(r#"{"message":"Audio content of 9800ms is already shorter than 11579ms","event_id":null}"#).0);
        assert!(
            error(
                r#"{"code":"unsupported_content_type","message":"Only model output audio messages can be truncated"}"#
            )
            .0
        );
        assert_eq!(
            error(r#"{"type":"invalid_request_error","code":"session_expired","message":"60 minutes."}"#),
            (false, "session_expired: 60 minutes.".into())
        );
        assert_eq!(error(r#"{"type":"server_error","code":null,"message":"m"}"#), (false, "server_error: m".into()));
        assert_eq!(error("[]"), (false, "an error without words".into()));
    }

    #[test]
    fn a_field_of_another_kind_counts_as_absent() {
        for odd in ["null", "1", "-1", "1.5", "true", "[1,[2]]", r#"{"a":{"b":[]}}"#] {
            let text =
                format!(r#"{{"type":"response.output_audio.done","item_id":{odd},"delta":{odd},"error":{odd}}}"#);
            assert_eq!(ServerEvent::parse(&text), Some(ServerEvent::AudioDone { item: "".into() }), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_event_is_none() {
        for bad in ["", "null", "[]", "{}", "\"error\"", r#"{"type":"error""#, r#"{"type":"a","type":"b"}"#] {
            assert_eq!(ServerEvent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn depth_is_skipped_over_and_not_recursed_into() {
        for field in ["x", "delta", "error"] {
            let deep = format!(r#"{{"type":"error","{field}":{}{}}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
            assert_eq!(ServerEvent::parse(&deep), Some(ServerEvent::Error(ApiError::default())), "{field}");
        }
    }
}
