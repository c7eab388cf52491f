//! The session object: what `session.created` shows and `session.update` changes.
//!
//! As strict as the real service: an unknown key, a missing `type` or another audio format is refused by name, so that
//! a client which works here does not fail there. Turn detection is obeyed. Everything else that is valid is kept and
//! shown, and is without effect: there is no model that could follow instructions, call tools or choose a voice.

use serde_json::{Map, Value, json};

use super::events::{Fault, short};
use super::vad::VadSettings;

/// `silence_duration_ms` when the client names none: the documented default.
const SILENCE_MS: u64 = 500;

/// `prefix_padding_ms` when the client names none: the documented default.
const PREFIX_MS: u64 = 300;

/// Longest silence or prefix a client can ask for, in milliseconds. More is a mistake of units.
const TURN_MS_MAX: u64 = 10_000;

const SESSION_KEYS: &[&str] = &[
    "type",
    "model",
    "instructions",
    "output_modalities",
    "audio",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "max_output_tokens",
    "include",
    "truncation",
    "tracing",
    "prompt",
];
const INPUT_KEYS: &[&str] = &["format", "noise_reduction", "transcription", "turn_detection"];
const OUTPUT_KEYS: &[&str] = &["format", "voice", "speed"];
const SERVER_VAD_KEYS: &[&str] = &[
    "type",
    "threshold",
    "prefix_padding_ms",
    "silence_duration_ms",
    "idle_timeout_ms",
    "create_response",
    "interrupt_response",
];
const SEMANTIC_VAD_KEYS: &[&str] = &["type", "eagerness", "create_response", "interrupt_response"];

/// How turns are found, from `session.audio.input.turn_detection`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TurnDetection {
    /// What the detector needs.
    pub(super) vad: VadSettings,
    /// How much of what came before speech belongs to it, in milliseconds.
    pub(super) prefix_ms: u64,
    /// Whether a turn's end is answered.
    pub(super) create_response: bool,
    /// Whether a turn's start cancels the response in progress.
    pub(super) interrupt_response: bool,
}

/// One session's settings.
#[derive(Debug)]
pub(super) struct Settings {
    session: Value,
    turn_detection: Option<TurnDetection>,
}

impl Settings {
    /// What a session begins with.
    pub(super) fn new(session_id: &str, model: &str) -> Self {
        let format = json!({ "type": "audio/pcm", "rate": 24_000 });
        let vad = json!({ "type": "server_vad" });
        let (turn_detection, shown) = parse_turn_detection(&vad).expect("a type alone is enough");
        let session = json!({
            "type": "realtime",
            "object": "realtime.session",
            "id": session_id,
            "model": model,
            "output_modalities": ["audio"],
            "instructions": "Greet the caller, then say back what the caller says.",
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "truncation": "auto",
            "tracing": null,
            "include": null,
            "audio": {
                "input": {
                    "format": format,
                    "noise_reduction": null,
                    "transcription": null,
                    "turn_detection": shown,
                },
                "output": { "format": format, "voice": "marin", "speed": 1.0 },
            },
        });
        Self { session, turn_detection }
    }

    /// The session as events show it.
    pub(super) fn shown(&self) -> &Value {
        &self.session
    }

    /// How turns are found; `None` when the client decides.
    pub(super) fn turn_detection(&self) -> Option<TurnDetection> {
        self.turn_detection
    }

    /// Whether the client wants to read what the caller said.
    pub(super) fn wants_transcription(&self) -> bool {
        !self.session["audio"]["input"]["transcription"].is_null()
    }

    /// Applies the `session` of a `session.update`: all of it, or none and the first fault found.
    pub(super) fn update(&mut self, patch: &Value) -> Result<(), Fault> {
        let patch = object(patch, "session", SESSION_KEYS)?;
        match patch.get("type") {
            None => return Err(Fault::missing("session.type")),
            Some(kind) if kind == "realtime" => {}
            Some(_) => return Err(invalid("session.type", "must be 'realtime'")),
        }
        if patch.get("output_modalities").is_some_and(|modalities| *modalities != json!(["audio"])) {
            return Err(invalid("session.output_modalities", "must be [\"audio\"]: the built-in agent only speaks"));
        }
        if patch.get("instructions").is_some_and(|text| !text.is_string()) {
            return Err(invalid("session.instructions", "must be a string"));
        }
        let audio = match patch.get("audio") {
            Some(audio) => object(audio, "session.audio", &["input", "output"])?,
            None => &Map::new(),
        };
        let input = match audio.get("input") {
            Some(input) => object(input, "session.audio.input", INPUT_KEYS)?,
            None => &Map::new(),
        };
        let output = match audio.get("output") {
            Some(output) => object(output, "session.audio.output", OUTPUT_KEYS)?,
            None => &Map::new(),
        };
        for (side, name) in [(input, "session.audio.input.format"), (output, "session.audio.output.format")] {
            let Some(format) = side.get("format") else { continue };
            let format = object(format, name, &["type", "rate"])?;
            let rate = format.get("rate").is_none_or(|rate| *rate == 24_000);
            if format.get("type").is_none_or(|kind| kind != "audio/pcm") || !rate {
                return Err(invalid(name, "must be {\"type\":\"audio/pcm\",\"rate\":24000}"));
            }
        }
        let turn_detection = input.get("turn_detection").map(parse_turn_detection).transpose()?;

        // The model is chosen by the URL and never changes; the formats can only be what they are.
        for (key, value) in patch.iter().filter(|(key, _)| !["type", "model", "audio"].contains(&key.as_str())) {
            self.session[key] = value.clone();
        }
        for (side, changes) in [("input", input), ("output", output)] {
            for (key, value) in changes.iter().filter(|(key, _)| *key != "format") {
                self.session["audio"][side][key] = value.clone();
            }
        }
        if let Some((turn_detection, shown)) = turn_detection {
            self.turn_detection = turn_detection;
            self.session["audio"]["input"]["turn_detection"] = shown;
        }
        Ok(())
    }
}

/// The settings and how the session shows them: with the defaults filled in.
fn parse_turn_detection(value: &Value) -> Result<(Option<TurnDetection>, Value), Fault> {
    const AT: &str = "session.audio.input.turn_detection";
    if value.is_null() {
        return Ok((None, Value::Null));
    }
    let semantic = value.get("type").is_some_and(|kind| kind == "semantic_vad");
    let given = object(value, AT, if semantic { SEMANTIC_VAD_KEYS } else { SERVER_VAD_KEYS })?;
    match given.get("type") {
        None => return Err(Fault::missing("session.audio.input.turn_detection.type")),
        Some(kind) if semantic || kind == "server_vad" => {}
        Some(_) => return Err(invalid(&format!("{AT}.type"), "must be 'server_vad' or 'semantic_vad'")),
    }
    let ms = |key: &str, default| match given.get(key) {
        None => Ok(default),
        Some(value) => value
            .as_u64()
            .filter(|ms| *ms <= TURN_MS_MAX)
            .ok_or_else(|| invalid(&format!("{AT}.{key}"), &format!("must be an integer of 0 to {TURN_MS_MAX}"))),
    };
    let flag = |key: &str| match given.get(key) {
        None => Ok(true),
        Some(value) => value.as_bool().ok_or_else(|| invalid(&format!("{AT}.{key}"), "must be true or false")),
    };
    let threshold = match given.get("threshold") {
        None => 0.5,
        Some(value) => value
            .as_f64()
            .filter(|threshold| (0.0..=1.0).contains(threshold))
            .ok_or_else(|| invalid(&format!("{AT}.threshold"), "must be a number of 0 to 1"))?,
    };
    let silence_ms = ms("silence_duration_ms", SILENCE_MS)?;
    let prefix_ms = ms("prefix_padding_ms", PREFIX_MS)?;
    let create_response = flag("create_response")?;
    let interrupt_response = flag("interrupt_response")?;
    let mut shown = if semantic {
        json!({ "type": "semantic_vad", "eagerness": "auto" })
    } else {
        json!({
            "type": "server_vad",
            "threshold": threshold,
            "prefix_padding_ms": prefix_ms,
            "silence_duration_ms": silence_ms,
            "idle_timeout_ms": null,
        })
    };
    shown["create_response"] = create_response.into();
    shown["interrupt_response"] = interrupt_response.into();
    for (key, value) in given {
        shown[key] = value.clone();
    }
    let vad = VadSettings { threshold, silence_ms };
    Ok((Some(TurnDetection { vad, prefix_ms, create_response, interrupt_response }), shown))
}

/// The value as an object that has none but these keys.
pub(super) fn object<'a>(value: &'a Value, at: &str, keys: &[&str]) -> Result<&'a Map<String, Value>, Fault> {
    let Some(object) = value.as_object() else {
        return Err(Fault::of(at, "invalid_type", format!("Invalid type for '{at}': expected an object.")));
    };
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        None => Ok(object),
        Some(key) => {
            let param = format!("{at}.{}", short(key));
            let message = format!("Unknown parameter: '{param}'.");
            Err(Fault::of(param, "unknown_parameter", message))
        }
    }
}

/// A field whose value cannot be taken.
pub(super) fn invalid(param: &str, must: &str) -> Fault {
    Fault::of(param, "invalid_value", format!("Invalid value: '{param}' {must}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new("sess_1", "m")
    }

    #[test]
    fn only_what_is_named_changes() {
        let mut settings = settings();
        settings
            .update(&json!({ "type": "realtime", "instructions": "Be kind.", "model": "other", "audio": {
                "input": { "turn_detection": { "type": "server_vad", "silence_duration_ms": 700 } },
                "output": { "voice": "cedar" },
            }}))
            .unwrap();
        let shown = settings.shown();
        assert_eq!((&shown["instructions"], &shown["model"]), (&json!("Be kind."), &json!("m")));
        assert_eq!(
            shown["audio"]["output"],
            json!({ "format": { "type": "audio/pcm", "rate": 24_000 }, "voice": "cedar", "speed": 1.0 })
        );
        assert_eq!(shown["audio"]["input"]["turn_detection"]["threshold"], 0.5);
        let turns = settings.turn_detection().unwrap();
        assert_eq!((turns.vad.silence_ms, turns.prefix_ms, turns.create_response), (700, 300, true));
        settings.update(&json!({ "type": "realtime" })).unwrap();
        assert_eq!(settings.turn_detection().unwrap().vad.silence_ms, 700);
    }

    #[test]
    fn turn_detection_can_be_semantic_or_off() {
        let mut settings = settings();
        let with = |turns: Value| json!({ "type": "realtime", "audio": { "input": { "turn_detection": turns } } });
        settings
            .update(&with(json!({ "type": "semantic_vad", "eagerness": "low", "create_response": false })))
            .unwrap();
        assert!(!settings.turn_detection().unwrap().create_response);
        let shown =
            json!({ "type": "semantic_vad", "eagerness": "low", "create_response": false, "interrupt_response": true });
        assert_eq!(settings.shown()["audio"]["input"]["turn_detection"], shown);
        settings.update(&with(Value::Null)).unwrap();
        assert_eq!(settings.turn_detection(), None);
    }

    #[test]
    fn every_fault_names_its_field_and_changes_nothing() {
        let turns = |turns: Value| json!({ "type": "realtime", "audio": { "input": { "turn_detection": turns } } });
        for (patch, code, param) in [
            (json!([]), "invalid_type", "session"),
            (json!({}), "missing_required_parameter", "session.type"),
            (json!({ "type": "transcription" }), "invalid_value", "session.type"),
            (json!({ "type": "realtime", "temperature": 1 }), "unknown_parameter", "session.temperature"),
            (json!({ "type": "realtime", "audio": 1 }), "invalid_type", "session.audio"),
            (json!({ "type": "realtime", "audio": { "x": 1 } }), "unknown_parameter", "session.audio.x"),
            (json!({ "type": "realtime", "instructions": 1 }), "invalid_value", "session.instructions"),
            (
                json!({ "type": "realtime", "output_modalities": ["text"] }),
                "invalid_value",
                "session.output_modalities",
            ),
            (
                json!({ "type": "realtime", "audio": { "input": { "format": { "type": "audio/pcmu" } } } }),
                "invalid_value",
                "session.audio.input.format",
            ),
            (
                json!({ "type": "realtime", "audio": { "output": { "format": { "type": "audio/pcm", "rate": 16_000 } } } }),
                "invalid_value",
                "session.audio.output.format",
            ),
            (turns(json!({})), "missing_required_parameter", "session.audio.input.turn_detection.type"),
            (turns(json!({ "type": "x" })), "invalid_value", "session.audio.input.turn_detection.type"),
            (
                turns(json!({ "type": "server_vad", "eagerness": "low" })),
                "unknown_parameter",
                "session.audio.input.turn_detection.eagerness",
            ),
            (
                turns(json!({ "type": "server_vad", "threshold": 1.5 })),
                "invalid_value",
                "session.audio.input.turn_detection.threshold",
            ),
            (
                turns(json!({ "type": "server_vad", "silence_duration_ms": 10_001 })),
                "invalid_value",
                "session.audio.input.turn_detection.silence_duration_ms",
            ),
            (
                turns(json!({ "type": "server_vad", "prefix_padding_ms": -1 })),
                "invalid_value",
                "session.audio.input.turn_detection.prefix_padding_ms",
            ),
            (
                turns(json!({ "type": "server_vad", "create_response": "no" })),
                "invalid_value",
                "session.audio.input.turn_detection.create_response",
            ),
        ] {
            let mut settings = settings();
            let before = settings.shown().clone();
            let fault = settings.update(&patch).expect_err(&format!("{patch} was taken"));
            assert_eq!((fault.code, fault.param.as_deref()), (code, Some(param)), "{patch}");
            assert_eq!(*settings.shown(), before);
        }
    }
}
