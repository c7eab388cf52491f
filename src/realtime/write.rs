//! What is said to the model, written from templates into a buffer that is appended to.

use std::fmt::Write as _;
use std::io::Write as _;

use super::{Json, SAMPLE_RATE, SessionSettings, pcm};

/// A JSON string with its quotes.
struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self.0).expect("any str is a JSON string"))
    }
}

macro_rules! put {
    ($out:expr, $($template:tt)*) => {
        write!($out, $($template)*).expect("a Vec takes everything")
    };
}

/// `input_audio_buffer.append`: at most 15 MiB of base64, which is minutes.
pub fn append(out: &mut Vec<u8>, pcm: &[i16]) {
    const HEAD: &[u8] = br#"{"type":"input_audio_buffer.append","audio":""#;
    const TAIL: &[u8] = br#""}"#;
    out.reserve(HEAD.len() + TAIL.len() + (pcm.len() * 2).div_ceil(3) * 4);
    out.extend_from_slice(HEAD);
    pcm::encode(out, pcm);
    out.extend_from_slice(TAIL);
}

/// `session.update` with all that a call wants of the model.
///
/// Turn detection is sent even where nobody asked: the service's own default for the silence that ends a turn is given as
/// 500 ms in one place and 200 ms in another.
pub fn session_update(out: &mut Vec<u8>, settings: &SessionSettings) {
    put!(
        out,
        r#"{{"type":"session.update","session":{{"type":"realtime","output_modalities":["audio"],"audio":{{"input":{{"format":{{"type":"audio/pcm","rate":{SAMPLE_RATE}}},"turn_detection":"#
    );
    match &settings.turn_detection {
        Some(Json(text)) => put!(out, "{text}"),
        None => put!(
            out,
            r#"{{"type":"server_vad","threshold":0.5,"prefix_padding_ms":300,"silence_duration_ms":500,"create_response":true,"interrupt_response":true}}"#
        ),
    }
    if let Some(transcription) = &settings.transcription {
        put!(out, r#","transcription":{}"#, transcription_with_language(transcription, settings.language.as_deref()));
    }
    put!(out, r#"}},"output":{{"format":{{"type":"audio/pcm","rate":{SAMPLE_RATE}}}"#);
    if let Some(voice) = &settings.voice {
        put!(out, r#","voice":{}"#, Quoted(voice));
    }
    put!(out, "}}}}");
    let language = settings.language.as_deref().map(|language| {
        format!("The caller's language is {language} (BCP 47). Speak it, unless the caller speaks another.")
    });
    let instructions: Vec<&str> = settings.instructions.as_deref().into_iter().chain(language.as_deref()).collect();
    if !instructions.is_empty() {
        put!(out, r#","instructions":{}"#, Quoted(&instructions.join("\n\n")));
    }
    if let Some(Json(tools)) = &settings.tools {
        put!(out, r#","tools":{tools},"tool_choice":"auto""#);
    }
    put!(out, "}}}}");
}

/// Whether speech of the caller interrupts the model, and whether the service replies to it by itself, as the settings'
/// turn detection says. Both are so unless they are said not to be; without turn detection neither is.
pub fn turn_flags(settings: &SessionSettings) -> (bool, bool) {
    #[derive(serde::Deserialize)]
    struct TurnDetection {
        #[serde(default)]
        interrupt_response: Option<bool>,
        #[serde(default)]
        create_response: Option<bool>,
    }
    match settings.turn_detection.as_ref().map(|Json(text)| serde_json::from_str::<Option<TurnDetection>>(text)) {
        None | Some(Err(_)) => (true, true),
        Some(Ok(None)) => (false, false),
        Some(Ok(Some(turns))) => (turns.interrupt_response.unwrap_or(true), turns.create_response.unwrap_or(true)),
    }
}

/// Adds the caller's language (its first subtag: ISO 639-1, as the field wants it) where the transcription names none.
fn transcription_with_language(Json(text): &Json, language: Option<&str>) -> String {
    let subtag = language.and_then(|language| language.split('-').next()).filter(|subtag| subtag.len() == 2);
    let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    match (subtag, object) {
        (Some(subtag), Ok(mut object)) if !object.contains_key("language") && !object.contains_key("languages") => {
            object.insert("language".into(), subtag.to_ascii_lowercase().into());
            serde_json::Value::Object(object).to_string()
        }
        _ => text.clone(),
    }
}

/// An event beside audio and settings. `id` is ours: the server names it in the error that the event causes, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent<'a> {
    /// `response.create`: the model shall speak.
    Create {
        /// Ours.
        id: u32,
        /// In place of the session's instructions, for this response.
        instructions: Option<&'a str>,
    },
    /// `response.cancel`.
    Cancel {
        /// Ours.
        id: u32,
        /// Which; the one under way when empty.
        response: &'a str,
    },
    /// `conversation.item.truncate`: the caller heard this much of the item.
    Truncate {
        /// Ours.
        id: u32,
        /// Which item.
        item: &'a str,
        /// How much was heard.
        audio_end_ms: u32,
    },
    /// `conversation.item.delete`: the caller heard nothing of it.
    Delete {
        /// Ours.
        id: u32,
        /// Which item.
        item: &'a str,
    },
    /// `conversation.item.create` of a function's output.
    FunctionOutput {
        /// Which call.
        call: &'a str,
        /// Its output.
        output: &'a str,
    },
    /// `conversation.item.create` of words of the user.
    UserText {
        /// The words.
        text: &'a str,
    },
}

impl ClientEvent<'_> {
    /// Appends the event's JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Create { id, instructions: None } => {
                put!(out, r#"{{"type":"response.create","event_id":"create_{id}"}}"#);
            }
            Self::Create { id, instructions: Some(text) } => put!(
                out,
                r#"{{"type":"response.create","event_id":"create_{id}","response":{{"instructions":{}}}}}"#,
                Quoted(text)
            ),
            Self::Cancel { id, response: "" } => {
                put!(out, r#"{{"type":"response.cancel","event_id":"cancel_{id}"}}"#);
            }
            Self::Cancel { id, response } => {
                put!(
                    out,
                    r#"{{"type":"response.cancel","event_id":"cancel_{id}","response_id":{}}}"#,
                    Quoted(response)
                );
            }
            Self::Truncate { id, item, audio_end_ms } => put!(
                out,
                r#"{{"type":"conversation.item.truncate","event_id":"truncate_{id}","item_id":{},"content_index":0,"audio_end_ms":{audio_end_ms}}}"#,
                Quoted(item)
            ),
            Self::Delete { id, item } => put!(
                out,
                r#"{{"type":"conversation.item.delete","event_id":"delete_{id}","item_id":{}}}"#,
                Quoted(item)
            ),
            Self::FunctionOutput { call, output } => put!(
                out,
                r#"{{"type":"conversation.item.create","item":{{"type":"function_call_output","call_id":{},"output":{}}}}}"#,
                Quoted(call),
                Quoted(output)
            ),
            Self::UserText { text } => put!(
                out,
                r#"{{"type":"conversation.item.create","item":{{"type":"message","role":"user","content":[{{"type":"input_text","text":{}}}]}}}}"#,
                Quoted(text)
            ),
        }
    }
}

/// The path of a session with this model: the configured one with `model=…` in its query. A path that names a model keeps
/// it: some servers are set up under a name of their own, and refuse others.
pub fn path_with_model(path: &str, model: &str) -> String {
    let query = path.split_once('?').map(|(_, query)| query);
    if query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("model="))) {
        return path.to_owned();
    }
    let separator = match query {
        None => "?",
        Some("") => "",
        Some(_) => "&",
    };
    let mut result = format!("{path}{separator}model=");
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            result.push(char::from(byte));
        } else {
            write!(result, "%{byte:02X}").expect("a String takes everything");
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        write(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    const NASTY: &str = "a\"b\\c\n\u{1}\u{2028}é😀</script>";

    #[test]
    fn an_append_holds_the_samples() {
        assert_eq!(
            written(|out| append(out, &[1, -2, 300])),
            json!({"type": "input_audio_buffer.append", "audio": "AQD+/ywB"})
        );
        assert_eq!(written(|out| append(out, &[])), json!({"type": "input_audio_buffer.append", "audio": ""}));
    }

    #[test]
    fn an_append_reserves_exactly_what_it_writes() {
        let mut out = Vec::new();
        append(&mut out, &[0; 480]);
        assert_eq!((out.len(), out.capacity()), (1327, 1327));
    }

    #[test]
    fn the_plainest_session_says_format_and_turn_detection() {
        assert_eq!(
            written(|out| session_update(out, &SessionSettings::default())),
            json!({"type": "session.update", "session": {
                "type": "realtime",
                "output_modalities": ["audio"],
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000},
                        "turn_detection": {
                            "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500,
                            "create_response": true, "interrupt_response": true,
                        },
                    },
                    "output": {"format": {"type": "audio/pcm", "rate": 24000}},
                },
            }})
        );
    }

    #[test]
    fn a_full_session_carries_all_that_was_asked_for() {
        let settings = SessionSettings {
            model: "gpt-realtime-2.1".into(),
            voice: Some("marin".into()),
            instructions: Some(NASTY.into()),
            language: Some("pt-BR".into()),
            tools: Some(Json(r#"[{"type":"function","name":"f"}]"#.into())),
            turn_detection: Some(Json("null".into())),
            transcription: Some(Json(r#"{"model":"gpt-transcribe"}"#.into())),
            ..SessionSettings::default()
        };
        let session = &written(|out| session_update(out, &settings))["session"];
        assert_eq!(session["audio"]["output"]["voice"], "marin");
        assert_eq!(session["audio"]["input"]["turn_detection"], Value::Null);
        assert_eq!(session["audio"]["input"]["transcription"], json!({"model": "gpt-transcribe", "language": "pt"}));
        assert_eq!(session["tools"], json!([{"type": "function", "name": "f"}]));
        assert_eq!(session["tool_choice"], "auto");
        let instructions = session["instructions"].as_str().unwrap();
        assert!(instructions.starts_with(NASTY) && instructions.contains("\n\nThe caller's language is pt-BR"));
        assert!(session.get("model").is_none(), "it is named in the URL and never changes");
    }

    #[test]
    fn turn_detection_says_who_interrupts_and_who_replies() {
        let flags = |text: Option<&str>| {
            let turn_detection = text.map(|text| Json(text.into()));
            turn_flags(&SessionSettings { turn_detection, ..SessionSettings::default() })
        };
        assert_eq!(flags(None), (true, true));
        assert_eq!(flags(Some("null")), (false, false));
        assert_eq!(flags(Some(r#"{"type":"semantic_vad","eagerness":"low"}"#)), (true, true));
        assert_eq!(flags(Some(r#"{"interrupt_response":false,"create_response":null}"#)), (false, true));
        assert_eq!(flags(Some(r#"{"create_response":false}"#)), (true, false));
    }

    #[test]
    fn a_language_is_added_to_a_transcription_that_names_none() {
        let with = |text: &str, language| transcription_with_language(&Json(text.into()), language);
        assert_eq!(with("{}", Some("DE-at")), r#"{"language":"de"}"#);
        for kept in [r#"{"language":"en"}"#, r#"{"languages":["en"]}"#, "null"] {
            assert_eq!(with(kept, Some("de")), kept);
        }
        assert_eq!(with("{}", Some("gsw-CH")), "{}", "not an ISO 639-1 code");
        assert_eq!(with("{}", None), "{}");
    }

    #[test]
    fn every_other_event_is_valid_json_whatever_its_texts() {
        let event = |event: ClientEvent<'_>| written(|out| event.write(out));
        assert_eq!(
            event(ClientEvent::Create { id: 1, instructions: None }),
            json!({"type": "response.create", "event_id": "create_1"})
        );
        assert_eq!(
            event(ClientEvent::Create { id: 2, instructions: Some(NASTY) }),
            json!({"type": "response.create", "event_id": "create_2", "response": {"instructions": NASTY}})
        );
        assert_eq!(
            event(ClientEvent::Cancel { id: 3, response: "" }),
            json!({"type": "response.cancel", "event_id": "cancel_3"})
        );
        assert_eq!(
            event(ClientEvent::Cancel { id: 4, response: NASTY }),
            json!({"type": "response.cancel", "event_id": "cancel_4", "response_id": NASTY})
        );
        assert_eq!(
            event(ClientEvent::Truncate { id: 5, item: NASTY, audio_end_ms: u32::MAX }),
            json!({"type": "conversation.item.truncate", "event_id": "truncate_5", "item_id": NASTY,
                "content_index": 0, "audio_end_ms": u32::MAX})
        );
        assert_eq!(
            event(ClientEvent::Delete { id: 6, item: NASTY }),
            json!({"type": "conversation.item.delete", "event_id": "delete_6", "item_id": NASTY})
        );
        assert_eq!(
            event(ClientEvent::FunctionOutput { call: NASTY, output: NASTY }),
            json!({"type": "conversation.item.create",
                "item": {"type": "function_call_output", "call_id": NASTY, "output": NASTY}})
        );
        assert_eq!(
            event(ClientEvent::UserText { text: NASTY }),
            json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user",
                "content": [{"type": "input_text", "text": NASTY}]}})
        );
    }

    #[test]
    fn the_model_is_named_in_the_query_once() {
        assert_eq!(path_with_model("/v1/realtime", "gpt-realtime-2.1"), "/v1/realtime?model=gpt-realtime-2.1");
        assert_eq!(path_with_model("/r?a=b", "m"), "/r?a=b&model=m");
        assert_eq!(path_with_model("/r?", "m"), "/r?model=m");
        assert_eq!(path_with_model("/r?model=mine&x=1", "m"), "/r?model=mine&x=1");
        assert_eq!(path_with_model("/r", "a b/ü&c"), "/r?model=a%20b%2F%C3%BC%26c");
    }
}
