//! The Graph API's calls endpoint: requests out, answers in, and what each error means.
//!
//! It writes and reads text. It must not know how requests travel, nor when one is tried again.

use std::time::Duration;

use serde::Serialize;

use crate::call_id::CallId;
use crate::messages::GraphReply;

use super::errors::{self, OfCall, Row};
use super::json::{integer, members, text};
use super::webhook::{MetaError, meta_error};
use super::words;

/// Longest `Retry-After` that is kept: what ends a call may wait so long, and nothing waits longer.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(5 * 60);
/// Meta's name of an answer, for its support: so many characters of it are kept.
const TRACE_CHARS_MAX: usize = 40;

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

    /// Whether our answer goes along.
    const fn carries_answer(self) -> bool {
        matches!(self, Self::PreAccept | Self::Accept)
    }
}

/// Path and JSON of a request. `answer` goes with [`Action::PreAccept`] and [`Action::Accept`], byte for byte the same in
/// both; the others leave it out.
pub fn request(phone_number_id: &str, call: &CallId, action: Action, answer: Option<&str>) -> (String, String) {
    #[derive(Serialize)]
    struct Request<'a> {
        messaging_product: &'static str,
        call_id: &'a str,
        action: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<Session<'a>>,
    }
    #[derive(Serialize)]
    struct Session<'a> {
        sdp_type: &'static str,
        sdp: &'a str,
    }
    let session = answer.filter(|_| action.carries_answer()).map(|sdp| Session { sdp_type: "answer", sdp });
    let request = Request { messaging_product: "whatsapp", call_id: call.expose(), action: action.label(), session };
    let body = serde_json::to_string(&request).expect("plain structs of strings always serialise");
    (format!("/{phone_number_id}/calls"), body)
}

/// Path of a request that changes nothing and needs the same rights: keeps a connection warm and shows whether the token works.
pub fn probe_path(phone_number_id: &str) -> String {
    format!("/{phone_number_id}?fields=id")
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
    /// When it may be tried again at the earliest, where Meta says so: at most [`RETRY_AFTER_MAX`].
    pub retry_after: Option<Duration>,
}

impl Refused {
    /// Whether it says that there is no such call at Meta, or none any more.
    pub(super) fn call_is_gone(&self) -> bool {
        self.of_call() == OfCall::Gone
    }

    /// Whether it can be read so.
    pub(super) fn call_may_be_gone(&self) -> bool {
        self.of_call() != OfCall::Nothing
    }

    fn of_call(&self) -> OfCall {
        errors::of_code(self.error.code, self.subcode).map_or(OfCall::Nothing, |row| row.of_call)
    }
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

/// Reads an answer to [`request`]. A 200 that does not say `"success":true` is unclear: it may be a proxy's, and a call
/// must not be taken for accepted on its word.
pub fn read(outcome: &Result<GraphReply, String>) -> Reply {
    read_with(outcome, |body| {
        let success = members(body, ["success"]).and_then(|body| body.found[0]);
        success.is_some_and(|success| success.get() == "true")
    })
}

/// Reads an answer to [`probe_path`]: a 200 with an id is good.
pub fn read_probe(outcome: &Result<GraphReply, String>) -> Reply {
    read_with(outcome, |body| members(body, ["id"]).is_some_and(|body| body.found[0].is_some()))
}

fn read_with(outcome: &Result<GraphReply, String>, is_done: impl Fn(&str) -> bool) -> Reply {
    let reply = match outcome {
        Ok(reply) => reply,
        Err(why) => return Reply::Unclear(words::clean(why)),
    };
    let status = reply.status;
    let retry_after = reply.retry_after_sec.map(|sec| Duration::from_secs(sec).min(RETRY_AFTER_MAX));
    let error = members(&reply.body, ["error"]).and_then(|body| body.found[0]);
    if let Some((row, error, subcode)) = error.and_then(|error| graph_error(status, error.get())) {
        return Reply::Refused(Refused { error, subcode, meaning: &row.meaning, retry_after });
    }
    match status {
        200..=299 if is_done(&reply.body) => Reply::Done,
        200..=299 => Reply::Unclear(format!("status {status} without the word that it is done")),
        500.. => Reply::Unclear(format!("status {status} without an error that can be read")),
        _ => {
            let error = MetaError { code: status.into(), text: format!("status {status}") };
            Reply::Refused(Refused { error, subcode: None, meaning: &errors::of_status(status).meaning, retry_after })
        }
    }
}

/// An error of the Graph API: its row, its words and its subcode. One without code counts by the status.
fn graph_error(status: u16, error: &str) -> Option<(&'static Row, MetaError, Option<i64>)> {
    let [subcode, trace] = members(error, ["error_subcode", "fbtrace_id"])?.found;
    let subcode = subcode.and_then(integer);
    let (row, mut error) = if let Some(error) = meta_error(error) {
        (errors::of_code(error.code, subcode), error)
    } else {
        let message = members(error, ["message"])?.found[0].and_then(text).unwrap_or_default();
        (None, MetaError { code: status.into(), text: words::clean(&message) })
    };
    let row = row.unwrap_or_else(|| errors::of_status(status));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if let Some(trace) = trace.and_then(text).filter(|trace| !trace.is_empty() && trace.chars().all(is_plain)) {
        let trace: String = trace.chars().take(TRACE_CHARS_MAX).collect();
        error.text = format!("{} (fbtrace_id {trace})", error.text).trim_start().to_owned();
    }
    Some((row, error, subcode))
}

/// What is known of an error of a terminate webhook.
pub fn meaning(code: i64) -> Option<&'static Meaning> {
    errors::of_code(code, None).map(|row| &row.meaning)
}

/// The label of every error that is told apart, so that metrics show those that never happened as zero.
pub fn labels() -> impl Iterator<Item = &'static str> {
    errors::all().map(|row| row.meaning.label)
}
