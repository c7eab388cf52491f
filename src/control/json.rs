//! JSON in and out: the only file of control that names serde_json.
//!
//! Incoming text is read twice: once whole, to refuse what readers differ about (an object with the same key twice at
//! any depth, lone surrogates, text that is not UTF-8, nesting beyond serde_json's 128 levels), and then field by field
//! on the text itself, so that what is handed on to the model is what was sent.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Serialize;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::close_reason::CloseReason;
use crate::messages::CallReport;
use crate::stats::StageDistribution;

use super::calls::Call;
use super::meta::MetaRecord;

/// An object's members in the order sent.
#[derive(Debug)]
pub(super) struct Object<'a>(Vec<(String, &'a RawValue)>);

/// A value, as its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a>(&'a RawValue);

/// Parses a body that must be an object. The error is a sentence for its sender.
pub(super) fn parse(body: &[u8]) -> Result<Object<'_>, String> {
    serde_json::from_slice::<Sound>(body).map_err(|error| format!("The body is not valid JSON: {error}."))?;
    serde_json::from_slice(body).map_err(|_| "The body must be a JSON object.".to_owned())
}

impl<'a> Object<'a> {
    pub(super) fn get(&self, name: &str) -> Option<Value<'a>> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| Value(value))
    }

    pub(super) fn members(&self) -> impl ExactSizeIterator<Item = (&str, Value<'a>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), Value(value)))
    }
}

impl<'a> Value<'a> {
    /// The value's text as it was sent.
    pub(super) fn text(self) -> &'a str {
        self.0.get()
    }

    pub(super) fn is_null(self) -> bool {
        self.text() == "null"
    }

    pub(super) fn string(self) -> Option<String> {
        serde_json::from_str(self.text()).ok()
    }

    pub(super) fn integer(self) -> Option<u64> {
        serde_json::from_str(self.text()).ok()
    }

    pub(super) fn object(self) -> Option<Object<'a>> {
        serde_json::from_str(self.text()).ok()
    }

    pub(super) fn array(self) -> Option<Vec<Value<'a>>> {
        serde_json::from_str::<Vec<&RawValue>>(self.text()).ok().map(|items| items.into_iter().map(Value).collect())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Object)
    }
}

/// Any JSON that has one reading. Keeps nothing.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SoundVisitor)
    }
}

struct SoundVisitor;

impl<'de> Visitor<'de> for SoundVisitor {
    type Value = Sound;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sound, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, Sound)) = map.next_entry::<String, Sound>()? {
            if !names.insert(name) {
                return Err(de::Error::custom("an object has the same key twice"));
            }
        }
        Ok(Sound)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Sound, A::Error> {
        while let Some(Sound) = seq.next_element()? {}
        Ok(Sound)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_str<E>(self, _: &str) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_unit<E>(self) -> Result<Sound, E> {
        Ok(Sound)
    }
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs of numbers, strings and maps with string keys always serialise")
}

pub(super) fn refusal(error: &str, code: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct View<'a> {
        error: &'a str,
        code: &'a str,
    }
    bytes(&View { error, code })
}

pub(super) fn success() -> Vec<u8> {
    br#"{"success":true}"#.to_vec()
}

pub(super) fn ready() -> Vec<u8> {
    br#"{"status":"ready"}"#.to_vec()
}

pub(super) fn health(active_calls: u32) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct View {
        status: &'static str,
        service: &'static str,
        active_calls: u32,
    }
    bytes(&View { status: "healthy", service: "voice-media-bridge", active_calls })
}

/// The answer to an offer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OpenedView<'a> {
    pub(super) success: bool,
    pub(super) call_id: &'a str,
    pub(super) session_id: &'a str,
    pub(super) sdp_answer: &'a str,
}

impl OpenedView<'_> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        bytes(self)
    }
}

/// One call.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionView<'a> {
    pub(super) call_id: &'a str,
    pub(super) session_id: &'a str,
    pub(super) worker: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    close_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close_blame: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) metadata: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    whatsapp: Option<&'a MetaRecord>,
    #[serde(flatten)]
    report: &'a CallReport,
}

impl<'a> SessionView<'a> {
    pub(super) fn new(call: &'a Call, report: &'a CallReport) -> Self {
        Self {
            call_id: call.id.expose(),
            session_id: &call.session_id,
            worker: call.worker,
            close_reason: report.close.map(CloseReason::label),
            close_blame: report.close.map(|reason| reason.blame().label()),
            metadata: &call.metadata,
            whatsapp: call.meta.as_deref(),
            report,
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        bytes(self)
    }
}

pub(super) fn sessions(sessions: &[SessionView<'_>]) -> Vec<u8> {
    #[derive(Serialize)]
    struct View<'a> {
        count: usize,
        sessions: &'a [SessionView<'a>],
    }
    bytes(&View { count: sessions.len(), sessions })
}

/// One worker.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkerView {
    pub(super) worker: usize,
    pub(super) calls: u32,
    pub(super) busy_ratio: f64,
    pub(super) tick_late_p99_us: u64,
    pub(super) complexity: u8,
    pub(super) admits: bool,
}

pub(super) fn workers(calls_max: u32, workers: &[WorkerView]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct View<'a> {
        calls_max: u32,
        workers: &'a [WorkerView],
    }
    bytes(&View { calls_max, workers })
}

/// Calls that are up, and once no new ones are taken, how long these may go on.
pub(super) fn drain(calls: u32, seconds_left: Option<u64>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct View {
        draining: bool,
        calls: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        seconds_left: Option<u64>,
    }
    bytes(&View { draining: seconds_left.is_some(), calls, seconds_left })
}

/// Which events of a delivery were acted on, by their places.
pub(super) fn done(events: &[usize]) -> Vec<u8> {
    bytes(&Done { done: events.to_vec() })
}

/// The same, read. What cannot be read was not done.
pub(super) fn done_events(body: &[u8]) -> Vec<usize> {
    serde_json::from_slice::<Done>(body).map(|body| body.done).unwrap_or_default()
}

#[derive(serde::Deserialize, Serialize)]
struct Done {
    done: Vec<usize>,
}

/// Latencies of the process or of one call.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LatencyView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) call_id: Option<&'a str>,
    pub(super) uptime_ms: u64,
    pub(super) stages: Vec<StageDistribution>,
}

impl LatencyView<'_> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        bytes(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_readers_differ_about_is_refused() {
        let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(deep(120).as_bytes()).is_ok());
        for bad in [
            deep(128).as_str(),
            deep(60_000).as_str(),
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":[{"t":{"a":1,"a":2}}]}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\udc00\ud800"}"#,
            r#"{"\ud800":1}"#,
            r#"{"a":NaN}"#,
            r#"{"a":1e999}"#,
            r#"{"a":01}"#,
            r#"{"a":+1}"#,
            r#"{"a":1,}"#,
            r#"{"a":1}x"#,
            r#"{"a":1}{}"#,
            r"{'a':1}",
            r"{a:1}",
            "{\"a\":\"\n\"}",
            "\u{feff}{}",
            "{",
            "[]",
            "null",
            "\"x\"",
            "",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:.60} was taken");
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(parse(b"{\"a\":\"\xc0\xaf\"}").is_err());
    }

    #[test]
    fn values_keep_the_text_they_were_sent_as() {
        let object = parse(br#" {"b":{ "z":1, "a":12345678901234567890123 },"n":null,"s":"\u00e9","i":7}"#).unwrap();
        assert_eq!(object.get("b").unwrap().text(), r#"{ "z":1, "a":12345678901234567890123 }"#);
        assert!(object.get("n").unwrap().is_null() && object.get("x").is_none());
        assert_eq!(object.get("s").unwrap().string().as_deref(), Some("\u{e9}"));
        assert_eq!((object.get("i").unwrap().integer(), object.get("s").unwrap().integer()), (Some(7), None));
    }
}
