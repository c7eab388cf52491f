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
        let separator = if error.text.is_empty() { "" } else { " " };
        error.text = format!("{}{separator}(fbtrace_id {trace})", error.text);
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "it stands for what the client brings")]
    fn reply(status: u16, body: &str) -> Result<GraphReply, String> {
        Ok(GraphReply { status, retry_after_sec: None, body: body.to_owned() })
    }

    fn read_error(status: u16, error: &Value) -> Refused {
        match read(&reply(status, &json!({ "error": error }).to_string())) {
            Reply::Refused(refused) => refused,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_are_as_meta_documents_them() {
        let call = CallId::new("wacid.HBgL\"=").unwrap();
        let answer = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\n";
        for action in Action::ALL {
            let (path, body) = request("106540352242922", &call, action, Some(answer));
            assert_eq!(path, "/106540352242922/calls");
            let mut expected =
                json!({"messaging_product": "whatsapp", "call_id": "wacid.HBgL\"=", "action": action.label()});
            if matches!(action, Action::PreAccept | Action::Accept) {
                expected["session"] = json!({"sdp_type": "answer", "sdp": answer});
            }
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
        }
        let (_, body) = request("1", &CallId::new("c").unwrap(), Action::Reject, None);
        assert_eq!(body, r#"{"messaging_product":"whatsapp","call_id":"c","action":"reject"}"#);
        assert_eq!(probe_path("106540352242922"), "/106540352242922?fields=id");
    }

    #[test]
    fn pre_accept_and_accept_carry_the_same_bytes() {
        let call = CallId::new("wacid.HBgL").unwrap();
        let answer = "v=0\r\na=\u{e9}\"\\/\u{2028}\r\n";
        let [pre_accept, accept] = [Action::PreAccept, Action::Accept].map(|action| {
            let (_, body) = request("1", &call, action, Some(answer));
            body.replace(action.label(), "")
        });
        assert_eq!(pre_accept, accept);
    }

    #[test]
    fn only_a_200_that_says_so_is_done() {
        assert_eq!(read(&reply(200, r#"{"messaging_product":"whatsapp","success":true}"#)), Reply::Done);
        assert_eq!(read(&reply(201, r#"{"success":true,"new":[1]}"#)), Reply::Done);
        for body in [
            "",
            "{}",
            "ok",
            "<html>Welcome to the hotel</html>",
            r#"{"success":false}"#,
            r#"{"success":"true"}"#,
            "[true]",
        ] {
            assert_eq!(
                read(&reply(200, body)),
                Reply::Unclear("status 200 without the word that it is done".into()),
                "{body}"
            );
        }
        assert_eq!(read_error(200, &json!({"code": 138_008})).meaning.label, "sdp_invalid");
    }

    #[test]
    fn a_probe_is_good_when_it_names_the_number() {
        assert_eq!(read_probe(&reply(200, r#"{"id":"106540352242922"}"#)), Reply::Done);
        assert!(matches!(read_probe(&reply(200, "{}")), Reply::Unclear(_)));
        let Reply::Refused(refused) = read_probe(&reply(401, r#"{"error":{"code":190}}"#)) else { panic!("refused") };
        assert_eq!(refused.meaning.label, "access_token_invalid");
    }

    #[test]
    fn an_error_is_read_with_its_code_words_and_meaning() {
        let refused = read_error(
            400,
            &json!({
                "message": "(#138008) SDP Validation error",
                "type": "OAuthException",
                "code": 138_008,
                "error_data": {"messaging_product": "whatsapp", "details": "Provided SDP is invalid"},
                "fbtrace_id": "AbC-1_dEf",
            }),
        );
        assert_eq!(refused.error.code, 138_008);
        assert_eq!(
            refused.error.text,
            "(#138008) SDP Validation error: Provided SDP is invalid (fbtrace_id AbC-1_dEf)"
        );
        assert_eq!((refused.meaning.label, refused.meaning.retry), ("sdp_invalid", Retry::No));
        let refused =
            read_error(400, &json!({"code": 100, "error_subcode": 2_494_010, "message": "Invalid parameter"}));
        assert_eq!((refused.subcode, refused.meaning.label), (Some(2_494_010), "fingerprint_not_sha256"));
        let refused = read_error(400, &json!({"code": "100", "error_subcode": "33"}));
        assert_eq!(refused.meaning.label, "unknown_phone_number_id");
    }

    #[test]
    fn what_is_not_known_counts_by_its_status() {
        for (status, error, label) in [
            (500, json!({"code": 999_999}), "http_server_error"),
            (429, json!({"code": 999_999}), "http_too_many_requests"),
            (400, json!({"code": 999_999}), "unknown"),
            (401, json!({"message": "who are you"}), "http_unauthorized"),
            (503, json!({}), "http_server_error"),
            (200, json!({}), "unknown"),
            (299, json!({"message": "no"}), "unknown"),
        ] {
            assert_eq!(read_error(status, &error).meaning.label, label, "{status} {error}");
        }
        for (status, label, retry) in [
            (301, "unknown", Retry::No),
            (400, "unknown", Retry::No),
            (401, "http_unauthorized", Retry::No),
            (403, "http_forbidden", Retry::No),
            (404, "http_not_found", Retry::No),
            (408, "http_timeout", Retry::Later),
            (429, "http_too_many_requests", Retry::Later),
        ] {
            for body in ["", "<html>", r#"{"error":"no"}"#, r#"{"error":null}"#, "\u{0}"] {
                let Reply::Refused(refused) = read(&reply(status, body)) else { panic!("{status}") };
                assert_eq!((refused.meaning.label, refused.meaning.retry), (label, retry), "{status} {body:?}");
                assert_eq!(refused.error, MetaError { code: status.into(), text: format!("status {status}") });
            }
        }
    }

    #[test]
    fn no_answer_and_a_servers_failure_without_words_are_unclear() {
        for status in [500, 502, 503, 504, 599] {
            for body in ["", "<html>Bad gateway</html>", r#"{"error":7}"#] {
                assert!(matches!(read(&reply(status, body)), Reply::Unclear(_)), "{status} {body}");
            }
        }
        let outcome = Err("graph.example did not answer 16505550101\r\nin time".to_owned());
        assert_eq!(read(&outcome), Reply::Unclear("graph.example did not answer (hidden) in time".into()));
    }

    #[test]
    fn words_of_metas_are_bounded_and_name_nobody() {
        let refused = read_error(
            400,
            &json!({
                "code": 131_030,
                "message": format!("Recipient 16505550101 of wacid.HBgL\r\n\u{1b}[31m {}", "x".repeat(100_000)),
                "error_data": {"details": "16505550101"},
                "fbtrace_id": "A".repeat(100_000),
            }),
        );
        let text = &refused.error.text;
        assert!(text.starts_with("Recipient (hidden) of (hidden) [31m xxx") && text.len() < 320, "{text}");
        let refused = read_error(400, &json!({"code": 1, "message": "m", "fbtrace_id": "a b\r\n"}));
        assert_eq!(refused.error.text, "m");
    }

    #[test]
    fn a_wait_that_meta_asks_for_is_bounded() {
        for (sec, expected) in [(Some(0), 0), (Some(7), 7), (Some(300), 300), (Some(301), 300), (Some(u64::MAX), 300)] {
            for body in ["", r#"{"error":{"code":4}}"#] {
                let outcome = Ok(GraphReply { status: 429, retry_after_sec: sec, body: body.into() });
                let Reply::Refused(refused) = read(&outcome) else { panic!("refused") };
                assert_eq!(refused.retry_after, Some(Duration::from_secs(expected)));
            }
        }
        assert_eq!(read_error(429, &json!({"code": 4})).retry_after, None);
    }

    #[test]
    fn every_label_is_listed_for_metrics() {
        let labels: Vec<_> = labels().collect();
        for code in 138_000..=138_023 {
            assert!(meaning(code).is_none_or(|meaning| labels.contains(&meaning.label)));
        }
        for label in ["unknown", "http_server_error", "permission_missing", "fingerprint_not_sha256"] {
            assert!(labels.contains(&label));
        }
        assert_eq!(meaning(138_021).map(|meaning| meaning.label), Some("no_media_received"));
        assert_eq!(meaning(7_777_777), None);
    }

    #[test]
    fn damaged_answers_never_panic() {
        let body = json!({"error": {"code": 100, "error_subcode": 33, "message": "m", "error_data": {"details": "d"}}});
        let body = body.to_string();
        for at in 0..body.len() {
            for byte in 0..=255 {
                let mut bytes = body.clone().into_bytes();
                bytes[at] = byte;
                read(&reply(400, &String::from_utf8_lossy(&bytes)));
            }
            read(&reply(500, &body[..at]));
        }
        let deep = "{\"error\":".repeat(100_000) + &"}".repeat(100_000);
        read(&reply(400, &deep));
        read(&reply(200, &format!("{{\"success\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000))));
    }
}
