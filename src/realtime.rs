//! The GA dialect of OpenAI's Realtime API: what is said to the model, and what it says.
//!
//! Frequent events are written from templates and parsed without a tree; rare ones may cost more. What is written holds
//! only keys of the official schema, since the service refuses others. What is read may hold anything: unknown events and
//! fields are tolerated, and the beta names of audio events are understood, because compatible servers still send them.
//!
//! <https://platform.openai.com/docs/api-reference/realtime-client-events>,
//! <https://platform.openai.com/docs/api-reference/realtime-server-events>
//!
//! This module must not know of connections, time or turns. Only the files below it name serde_json and base64.

mod pcm;
mod read;
mod write;

pub use pcm::{NotAudio, PcmDecoder};
pub use read::{ApiError, ResponseStatus, ServerEvent};
pub use write::{ClientEvent, append, path_with_model, session_update, turn_flags};

/// Sample rate of audio in both directions, Hz: the only one that OpenAI takes for PCM.
pub const SAMPLE_RATE: u32 = 24_000;
/// Samples of a millisecond.
pub const SAMPLES_PER_MS: usize = SAMPLE_RATE as usize / 1000;

/// JSON text that has been parsed once and found valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(pub String);

/// How the model opens the conversation.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Greeting {
    /// In its own words.
    #[default]
    Own,
    /// With this text.
    Text(String),
    /// Not at all: it waits for the caller.
    None,
}

/// What a call wants of the model.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SessionSettings {
    /// Model name, never a retired one.
    pub model: String,
    /// Voice.
    pub voice: Option<String>,
    /// System prompt.
    pub instructions: Option<String>,
    /// Language of the caller, as BCP 47; helps the transcription and the greeting.
    pub language: Option<String>,
    /// How to open.
    pub greeting: Greeting,
    /// JSON array of tools.
    pub tools: Option<Json>,
    /// JSON object or `null`.
    pub turn_detection: Option<Json>,
    /// JSON object or `null`.
    pub transcription: Option<Json>,
}
