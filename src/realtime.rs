//! The model's events.

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
