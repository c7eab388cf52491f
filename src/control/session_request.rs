//! What a session request asks for: every field checked, every error naming its field and the way out.
//!
//! Top-level fields that are not known are let pass, because webhooks grow; unknown fields in `config` are refused,
//! because a setting that is silently ignored is worse than an error. `null` means absent, except where the model's
//! protocol gives it a meaning (`turnDetection`, `transcription`: off).

use std::collections::BTreeMap;

use crate::call_id::{CALL_ID_BYTES_MAX, CallId};
use crate::config::{Config, current_model};
use crate::messages::StartMedia;
use crate::realtime::{Greeting, Json, SessionSettings};

use super::answer::Refusal;
use super::json::{self, Object, Value};

/// Longest offer; WhatsApp's are about 1 KiB, browsers' below 10.
const OFFER_BYTES_MAX: usize = 64 * 1024;
/// Longest system prompt: about 8,000 tokens.
const INSTRUCTIONS_BYTES_MAX: usize = 32 * 1024;
/// Longest greeting: some minutes of speech.
const GREETING_BYTES_MAX: usize = 4 * 1024;
const MODEL_BYTES_MAX: usize = 128;
const VOICE_BYTES_MAX: usize = 64;
/// BCP 47 tags with every subtag stay below (RFC 5646 section 4.4.1 counts 35).
const LANGUAGE_BYTES_MAX: usize = 35;
const TOOLS_MAX: usize = 64;
/// Metadata is remembered with ended calls: 16 entries of at most 576 bytes.
const METADATA_MAX: usize = 16;
const METADATA_NAME_BYTES_MAX: usize = 64;
const METADATA_VALUE_BYTES_MAX: usize = 512;
/// Shortest maximum duration, in seconds.
const DURATION_SEC_MIN: u64 = 10;

/// A session request that can be tried.
#[derive(Debug)]
pub(super) struct SessionRequest {
    pub(super) call: CallId,
    pub(super) offer: String,
    pub(super) template: SessionTemplate,
}

/// What a session is to be, whoever calls: the `config` of a request, or of a number.
#[derive(Clone, Debug)]
pub(super) struct SessionTemplate {
    pub(super) settings: SessionSettings,
    pub(super) start_media: StartMedia,
    pub(super) duration_sec_max: u32,
    pub(super) metadata: BTreeMap<String, String>,
    /// Whether it named a retired model, which was replaced.
    pub(super) model_was_retired: bool,
}

impl SessionRequest {
    /// Reads the body of `POST /api/sessions`, or of `PUT` with the id of its path.
    pub(super) fn parse(body: &[u8], path_call: Option<&CallId>, config: &Config) -> Result<Self, Refusal> {
        let body = object(body)?;
        let named = |name| body.get(name).and_then(Value::string).filter(|text| !text.is_empty());
        let body_call = named("callId");
        let path_text = path_call.map(|call| call.expose().to_owned());
        let (Some(call), Some(offer)) = (body_call.clone().or(path_text), named("sdpOffer")) else {
            return Err(Refusal::new(400, "missing_field", "Missing callId or sdpOffer"));
        };
        if path_call.is_some_and(|path| path.expose() != call) {
            return Err(Refusal::field(
                "callId in the body differs from the one in the path. Leave it out of the body.",
            ));
        }
        if path_call.is_some() && body_call.is_none() && body.get("callId").is_some_and(|call| !call.is_null()) {
            return Err(Refusal::field("callId must be a string that is not empty."));
        }
        let call = call_id(&call)?;
        if offer.len() > OFFER_BYTES_MAX {
            let error = "sdpOffer is longer than 64 KiB. WhatsApp's offers are about 1 KiB.";
            return Err(Refusal::new(413, "offer_too_large", error));
        }
        for name in ["from", "to"] {
            string(&body, name, name, 256)?;
        }
        let none = json::parse(b"{}").expect("an empty object is JSON");
        let settings = match body.get("config").filter(|config| !config.is_null()) {
            Some(value) => value.object().ok_or_else(|| Refusal::field("config must be an object."))?,
            None => none,
        };
        Ok(Self { call, offer, template: SessionTemplate::read(&settings, config)? })
    }
}

impl SessionTemplate {
    /// Reads a `config` from its JSON text. The error is a sentence that names the field.
    pub(super) fn parse(text: &str, config: &Config) -> Result<Self, String> {
        let settings = object(text.as_bytes()).map_err(|refusal| refusal.error)?;
        Self::read(&settings, config).map_err(|refusal| refusal.error)
    }

    fn read(settings: &Object<'_>, config: &Config) -> Result<Self, Refusal> {
        const KNOWN: &str = "model, voice, instructions, language, greeting, tools, turnDetection, transcription, \
                             metadata, startMedia, maxDurationSec";
        for (name, _) in settings.members() {
            if name != "to" && !KNOWN.split(", ").any(|known| known == name) {
                let shown: String = name.chars().take(64).collect();
                let error = format!("config.{shown} is not known. Known are: {KNOWN}.");
                return Err(Refusal::new(400, "unknown_field", error));
            }
        }
        let (model, model_was_retired) = model(settings, config)?;
        let voice = filled(settings, "voice", "config.voice", VOICE_BYTES_MAX)?;
        if voice.as_ref().is_some_and(|voice| voice.chars().any(char::is_control)) {
            return Err(Refusal::field("config.voice must not contain control characters."));
        }
        Ok(Self {
            settings: SessionSettings {
                model,
                voice,
                instructions: filled(settings, "instructions", "config.instructions", INSTRUCTIONS_BYTES_MAX)?,
                language: language(settings)?,
                greeting: greeting(settings)?,
                tools: tools(settings)?,
                turn_detection: object_or_null(settings, "turnDetection")?,
                transcription: object_or_null(settings, "transcription")?,
            },
            start_media: start_media(settings)?,
            duration_sec_max: duration(settings, config.duration_sec_max)?,
            metadata: metadata(settings)?,
            model_was_retired,
        })
    }
}

/// The body as an object; an empty body counts as `{}`, so that the error names what is missing.
pub(super) fn object(body: &[u8]) -> Result<Object<'_>, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    json::parse(body).map_err(|error| Refusal::new(400, "bad_json", error))
}

/// A call id of a body.
pub(super) fn call_id(text: &str) -> Result<CallId, Refusal> {
    let error = || Refusal::field(format!("callId must be 1 to {CALL_ID_BYTES_MAX} bytes without control characters."));
    CallId::new(text).ok_or_else(error)
}

fn string(object: &Object<'_>, name: &str, shown: &str, bytes_max: usize) -> Result<Option<String>, Refusal> {
    let Some(value) = object.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let text = value.string().ok_or_else(|| Refusal::field(format!("{shown} must be a string.")))?;
    if text.len() > bytes_max {
        return Err(Refusal::field(format!("{shown} must be at most {bytes_max} bytes; it has {}.", text.len())));
    }
    Ok(Some(text))
}

/// As [`string`], where an empty one means absent.
fn filled(object: &Object<'_>, name: &str, shown: &str, bytes_max: usize) -> Result<Option<String>, Refusal> {
    Ok(string(object, name, shown, bytes_max)?.filter(|text| !text.is_empty()))
}

fn model(settings: &Object<'_>, config: &Config) -> Result<(String, bool), Refusal> {
    let Some(name) = filled(settings, "model", "config.model", MODEL_BYTES_MAX)? else {
        return Ok((config.model.clone(), false));
    };
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:/@".contains(&byte)) {
        return Err(Refusal::field("config.model must be a model's name: letters, digits and -._:/@."));
    }
    match current_model(&name) {
        (name, None) => Ok((name, false)),
        // The operator's own choice stands above the built-in default.
        (_, Some(_)) => Ok((config.model.clone(), true)),
    }
}

fn language(settings: &Object<'_>) -> Result<Option<String>, Refusal> {
    let language = filled(settings, "language", "config.language", LANGUAGE_BYTES_MAX)?;
    let is_tag = |tag: &str| {
        let mut subtags = tag.split('-');
        let primary = subtags.next().unwrap_or_default();
        (2..=8).contains(&primary.len())
            && primary.bytes().all(|byte| byte.is_ascii_alphabetic())
            && subtags.all(|sub| (1..=8).contains(&sub.len()) && sub.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    };
    match language {
        Some(tag) if !is_tag(&tag) => {
            Err(Refusal::field("config.language must be a BCP 47 tag such as en, pt-BR or rw (with -, not _)."))
        }
        language => Ok(language),
    }
}

fn greeting(settings: &Object<'_>) -> Result<Greeting, Refusal> {
    Ok(match string(settings, "greeting", "config.greeting", GREETING_BYTES_MAX)? {
        None => Greeting::Own,
        Some(text) if text.is_empty() => Greeting::None,
        Some(text) => Greeting::Text(text),
    })
}

fn tools(settings: &Object<'_>) -> Result<Option<Json>, Refusal> {
    let Some(value) = settings.get("tools").filter(|value| !value.is_null()) else { return Ok(None) };
    let items = value.array().ok_or_else(|| Refusal::field("config.tools must be an array."))?;
    if items.len() > TOOLS_MAX {
        return Err(Refusal::field(format!(
            "config.tools must have at most {TOOLS_MAX} items; it has {}.",
            items.len()
        )));
    }
    for (index, item) in items.iter().enumerate() {
        let kind = item.object().and_then(|tool| tool.get("type")).and_then(Value::string);
        if kind.is_none_or(|kind| kind.is_empty()) {
            let error = format!("config.tools[{index}] must be an object with a \"type\", such as \"function\".");
            return Err(Refusal::field(error));
        }
    }
    Ok(Some(Json(value.text().to_owned())))
}

fn object_or_null(settings: &Object<'_>, name: &str) -> Result<Option<Json>, Refusal> {
    let Some(value) = settings.get(name) else { return Ok(None) };
    if value.is_null() || value.object().is_some() {
        return Ok(Some(Json(value.text().to_owned())));
    }
    Err(Refusal::field(format!("config.{name} must be an object, or null to switch it off.")))
}

fn start_media(settings: &Object<'_>) -> Result<StartMedia, Refusal> {
    match string(settings, "startMedia", "config.startMedia", 64)?.as_deref() {
        None | Some("auto") => Ok(StartMedia::Auto),
        Some("manual") => Ok(StartMedia::Manual),
        Some(_) => Err(Refusal::field("config.startMedia must be \"auto\" or \"manual\".")),
    }
}

fn duration(settings: &Object<'_>, cap: u32) -> Result<u32, Refusal> {
    let Some(value) = settings.get("maxDurationSec").filter(|value| !value.is_null()) else { return Ok(cap) };
    let fits = value.integer().filter(|seconds| (DURATION_SEC_MIN..=cap.into()).contains(seconds));
    fits.and_then(|seconds| u32::try_from(seconds).ok()).ok_or_else(|| {
        Refusal::field(format!("config.maxDurationSec must be an integer of {DURATION_SEC_MIN} to {cap}, in seconds."))
    })
}

fn metadata(settings: &Object<'_>) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(value) = settings.get("metadata").filter(|value| !value.is_null()) else { return Ok(BTreeMap::new()) };
    let error = || {
        Refusal::field(format!(
            "config.metadata must be an object of at most {METADATA_MAX} strings, names at most \
             {METADATA_NAME_BYTES_MAX} and values at most {METADATA_VALUE_BYTES_MAX} bytes."
        ))
    };
    let members = value.object().ok_or_else(error)?;
    let entry = |(name, value): (&str, Value<'_>)| {
        let value = value.string().filter(|value| value.len() <= METADATA_VALUE_BYTES_MAX)?;
        (name.len() <= METADATA_NAME_BYTES_MAX).then(|| (name.to_owned(), value))
    };
    if members.members().len() > METADATA_MAX {
        return Err(error());
    }
    members.members().map(|member| entry(member).ok_or_else(error)).collect()
}
