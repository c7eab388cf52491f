//! The Graph API's calls endpoint: requests out, answers in, and what each error means.

use std::time::Duration;

use crate::call_id::CallId;
use crate::messages::GraphReply;

use super::webhook::MetaError;

/// What is asked of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Connect media while it rings.
    PreAccept,
    /// Take the call.
    Accept,
    /// Refuse it.
    Reject,
    /// End it.
    Terminate,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::PreAccept, Self::Accept, Self::Reject, Self::Terminate];

    /// The API's word, also the metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::PreAccept => "pre_accept",
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Terminate => "terminate",
        }
    }
}

/// Path and JSON of a request. `answer` goes with [`Action::PreAccept`] and [`Action::Accept`].
pub fn request(phone_number_id: &str, call: &CallId, action: Action, answer: Option<&str>) -> (String, String) {
    let _ = (phone_number_id, call, action, answer);
    todo!()
}

/// Path of a request that changes nothing and needs the same rights: keeps a connection warm and shows whether the token works.
pub fn probe_path(phone_number_id: &str) -> String {
    let _ = phone_number_id;
    todo!()
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done,
    /// It is refused, for good or for now.
    Refused(Refused),
    /// Whether it was done is not known: no answer, or none that can be read. In words.
    Unclear(String),
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Meta's code, or the status where there is none.
    pub error: MetaError,
    /// `error_subcode`.
    pub subcode: Option<i64>,
    /// What is known of it.
    pub meaning: &'static Meaning,
    /// When it may be tried again at the earliest, where Meta says so.
    pub retry_after: Option<Duration>,
}

/// What is known of an error.
#[derive(Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Word for metrics and the API.
    pub label: &'static str,
    /// What an operator reads: what it is and what to do.
    pub advice: &'static str,
    /// Whether trying again can help within the life of a call.
    pub retry: Retry,
}

/// Whether trying again helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never.
    No,
    /// After a while.
    Later,
}

/// Reads an answer.
pub fn read(outcome: &Result<GraphReply, String>) -> Reply {
    let _ = outcome;
    todo!()
}

/// What is known of an error of a terminate webhook.
pub fn meaning(code: i64) -> Option<&'static Meaning> {
    let _ = code;
    todo!()
}
