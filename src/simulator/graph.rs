//! The Graph API as the calling API uses it: what is asked, what is refused and how that reads.
//!
//! Requests in, questions or refusals out. It must not know which calls there are; what an answer's SDP must be stands in
//! [`super::sdp`].

use serde_json::{Value, json};

use crate::http::{Method, Request, Response};

use super::{Account, Certainty};

/// Longest `biz_opaque_callback_data`.
const OPAQUE_BYTES_MAX: usize = 512;

/// The first version of the Graph API that has calls.
const VERSION_MIN: u32 = 17;

/// What is asked of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    PreAccept,
    Accept,
    Reject,
    Terminate,
}

impl Action {
    /// The API's word.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::PreAccept => "pre_accept",
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Terminate => "terminate",
        }
    }

    const ALL: [Self; 4] = [Self::PreAccept, Self::Accept, Self::Reject, Self::Terminate];
}

/// A request that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Whether the number is there.
    Number,
    /// Something of a call.
    Call(Ask),
}

/// A question about a call.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) call: String,
    pub(super) action: Action,
    /// With [`Action::PreAccept`] and [`Action::Accept`].
    pub(super) sdp: String,
}

impl std::fmt::Debug for Ask {
    /// Ids decode to phone numbers, and SDP carries keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ask({}, SDP of {} bytes)", self.action.label(), self.sdp.len())
    }
}

/// A refusal in Meta's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: u32,
    pub(super) subcode: Option<u32>,
    /// Why, in a sentence.
    pub(super) details: String,
    /// Seconds.
    pub(super) retry_after: Option<u32>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: u32, details: impl Into<String>) -> Self {
        Self { status, code, subcode: None, details: details.into(), retry_after: None }
    }

    /// The parameter is not as it must be.
    pub(super) fn parameter(details: impl Into<String>) -> Self {
        Self::new(400, 100, details)
    }

    /// The API is down for the moment.
    pub(super) fn unavailable() -> Self {
        Self::new(503, 2, "The service is temporarily unavailable.")
    }

    /// Too much was asked.
    pub(super) fn rate_limited(retry_after: u32) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(429, 138_005, "Too many requests for this number.") }
    }

    /// In a few words, for reports.
    pub(super) fn summary(&self) -> String {
        let subcode = self.subcode.map_or(String::new(), |subcode| format!("/{subcode}"));
        format!("{} code {}{subcode}: {}", self.status, self.code, self.details)
    }

    /// The answer. `trace` is what Meta's support asks for.
    pub(super) fn response(&self, trace: &str) -> Response {
        let Self { status, code, subcode, details, retry_after } = self;
        let kind = if *subcode == Some(33) { "GraphMethodException" } else { "OAuthException" };
        let mut error = json!({
            "message": format!("(#{code}) {}", title(*code)),
            "type": kind,
            "code": code,
            "error_data": { "messaging_product": "whatsapp", "details": details },
            "fbtrace_id": trace,
        });
        if let Some(subcode) = subcode {
            error["error_subcode"] = json!(subcode);
        }
        let response = response(*status, &json!({ "error": error }));
        match retry_after {
            Some(seconds) => response.with("Retry-After", seconds.to_string()),
            None => response,
        }
    }
}

/// What a code is called. Titles are Meta's where they are known.
pub(super) fn title(code: u32) -> &'static str {
    match code {
        2 => "Service temporarily unavailable",
        100 => "Invalid parameter",
        190 => "Invalid OAuth access token",
        131_055 => "Action not allowed",
        138_003 => "Duplicate call",
        138_005 => "Rate limit reached",
        138_008 => "SDP Validation error",
        138_020 => "Relay connection failed",
        138_021 => "No media received by the client",
        138_022 => "Media transmit timeout",
        _ => "Unknown error",
    }
}

/// Refusals and endings apart from an answer's SDP: the code, how sure it is that Meta has it so, and when it comes.
pub(super) const OUTCOMES: [(&str, Certainty, &str); 12] = [
    ("100", Certainty::Inferred, "Anything is asked of a call that is over, or of none."),
    ("100", Certainty::Inferred, "An accepted call is rejected instead of terminated."),
    ("138008", Certainty::Inferred, "accept's SDP is not pre_accept's. That they must be equal is documented."),
    ("138003", Certainty::Inferred, "pre_accept is asked of an accepted call."),
    ("131055", Certainty::Seen, "accept is asked again of an accepted call."),
    ("190", Certainty::Documented, "The token is not the account's."),
    ("138005", Certainty::Documented, "Too much is asked: 429. That Retry-After comes along is inferred."),
    ("2", Certainty::Inferred, "The API is down: 503."),
    ("none", Certainty::Inferred, "Nobody has accepted for 45 s: the caller gives up. Documented are 30 to 60 s."),
    ("138020", Certainty::Inferred, "Nothing was connected at the relay within 20 s of accept."),
    ("138021", Certainty::Documented, "Connected, and no media came within 20 s of accept."),
    ("138022", Certainty::Inferred, "No packet came for 30 s in mid-call. The time is documented, the code is not."),
];

/// A JSON answer.
fn response(status: u16, body: &Value) -> Response {
    Response::new(status, "application/json; charset=UTF-8", body.to_string().into_bytes())
}

/// The answer to an action that is done.
pub(super) fn done() -> Response {
    response(200, &json!({ "messaging_product": "whatsapp", "success": true }))
}

/// The answer about the number.
pub(super) fn number(account: &Account) -> Response {
    response(200, &json!({ "id": account.phone_number_id }))
}

/// The call that a request is about, as far as one can be found in it; for faults that come before any reading.
pub(super) fn call_of(request: &Request) -> Option<String> {
    let body: Value = serde_json::from_slice(&request.body).ok()?;
    Some(body.get("call_id")?.as_str()?.to_owned())
}

/// Reads a request.
pub(super) fn read(request: &Request, account: &Account) -> Result<Asked, Refusal> {
    let token = request.head.header("authorization").ok().flatten().and_then(|value| value.strip_prefix("Bearer "));
    if token != Some(account.access_token.as_str()) {
        return Err(Refusal::new(
            401,
            190,
            "Authorization carries no Bearer token, or one that is not this account's.",
        ));
    }
    let segments: Vec<&str> = request.head.target.segments.iter().map(String::as_str).collect();
    let unsupported = |details: &str| Refusal { subcode: Some(33), ..Refusal::parameter(details) };
    let Some((version, rest)) = segments.split_first() else { return Err(unsupported("The path is empty.")) };
    if version_of(version).is_none_or(|major| major < VERSION_MIN) {
        return Err(unsupported("The path begins with no version of the Graph API that has calls: v17.0 or later."));
    }
    let known = |number: &str| {
        let details = "The phone number id is not this account's, or its token has no right to it.";
        if number == account.phone_number_id { Ok(()) } else { Err(unsupported(details)) }
    };
    match (&request.head.method, rest) {
        (Method::Get, [number]) => known(number).map(|()| Asked::Number),
        (Method::Post, [number, "calls"]) => {
            known(number)?;
            let kind = request.head.header("content-type").ok().flatten().unwrap_or_default();
            if !kind.to_ascii_lowercase().starts_with("application/json") {
                return Err(Refusal::parameter("The Content-Type is not application/json."));
            }
            read_ask(&request.body).map(Asked::Call)
        }
        _ => Err(unsupported("This method and path are none of the calling API: POST /VERSION/NUMBER/calls.")),
    }
}

/// The major number of `v24.0`.
fn version_of(text: &str) -> Option<u32> {
    let (major, minor) = text.strip_prefix('v')?.split_once('.')?;
    minor.parse::<u32>().ok()?;
    major.parse().ok()
}

fn read_ask(body: &[u8]) -> Result<Ask, Refusal> {
    let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::parameter("The body is not JSON."))?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    if text("messaging_product") != Some("whatsapp") {
        return Err(Refusal::parameter("The parameter messaging_product is not \"whatsapp\"."));
    }
    let call = text("call_id").filter(|id| !id.is_empty());
    let call = call.ok_or_else(|| Refusal::parameter("The parameter call_id is required."))?.to_owned();
    let action = text("action").and_then(|word| Action::ALL.into_iter().find(|action| action.label() == word));
    let Some(action) = action else {
        return Err(Refusal::parameter("The parameter action is none of pre_accept, accept, reject and terminate."));
    };
    if text("biz_opaque_callback_data").is_some_and(|data| data.len() > OPAQUE_BYTES_MAX) {
        return Err(Refusal::parameter("The parameter biz_opaque_callback_data is longer than 512 bytes."));
    }
    let mut sdp = String::new();
    if matches!(action, Action::PreAccept | Action::Accept) {
        let session = body.get("session").filter(|session| session.is_object());
        let session = session.ok_or_else(|| Refusal::parameter("The parameter session is required."))?;
        if session.get("sdp_type").and_then(Value::as_str) != Some("answer") {
            return Err(Refusal::parameter("The parameter session.sdp_type is not \"answer\"."));
        }
        let Some(text) = session.get("sdp").and_then(Value::as_str) else {
            return Err(Refusal::parameter("The parameter session.sdp is required."));
        };
        text.clone_into(&mut sdp);
    }
    Ok(Ask { call, action, sdp })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::http::{Connection, Event};

    fn account() -> Account {
        Account {
            phone_number_id: "1001".into(),
            access_token: "token".into(),
            app_secret: "secret".into(),
            verify_token: "verify".into(),
        }
    }

    /// A request as the server's connection reads it.
    fn request(head: &str, body: &str) -> Request {
        let now = Instant::now();
        let mut connection = Connection::new(now);
        let bytes = format!("{head}\r\nHost: graph\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        connection.received(now, bytes.as_bytes());
        match connection.poll() {
            Some(Event::Request(request)) => *request,
            other => panic!("{other:?}"),
        }
    }

    fn post(path: &str, body: &Value) -> Request {
        let head = format!("POST {path} HTTP/1.1\r\nAuthorization: Bearer token\r\nContent-Type: application/json");
        request(&head, &body.to_string())
    }

    fn good() -> Value {
        json!({"messaging_product": "whatsapp", "call_id": "wacid.1", "action": "pre_accept",
               "session": {"sdp_type": "answer", "sdp": "v=0\r\n"}})
    }

    #[test]
    fn a_question_is_read_with_what_it_carries() {
        let asked = read(&post("/v24.0/1001/calls", &good()), &account());
        let ask = Ask { call: "wacid.1".into(), action: Action::PreAccept, sdp: "v=0\r\n".into() };
        assert_eq!(asked, Ok(Asked::Call(ask)));
        let probe = request("GET /v24.0/1001?fields=id HTTP/1.1\r\nAuthorization: Bearer token", "");
        assert_eq!(read(&probe, &account()), Ok(Asked::Number));
        assert_eq!(call_of(&post("/", &good())).as_deref(), Some("wacid.1"));
    }

    #[test]
    fn each_fault_is_refused_with_its_code_and_a_sentence() {
        let with = |name: &str, value: Value| {
            let mut body = good();
            body[name] = value;
            post("/v24.0/1001/calls", &body)
        };
        let no_type = "POST /v24.0/1001/calls HTTP/1.1\r\nAuthorization: Bearer token\r\nContent-Type: text/plain";
        let session = |kind: &str| json!({"sdp_type": kind, "sdp": "v=0"});
        for (request, code, said) in [
            (request("POST /v24.0/1001/calls HTTP/1.1\r\nAuthorization: Bearer other", "{}"), 190, "token"),
            (request("GET /v24.0/1001 HTTP/1.1", ""), 190, "Authorization"),
            (post("/v24.0/1002/calls", &good()), 100, "phone number id"),
            (post("/v16.0/1001/calls", &good()), 100, "v17.0"),
            (post("/1001/calls", &good()), 100, "version"),
            (post("/v24.0/1001/messages", &good()), 100, "calling API"),
            (request(no_type, "{}"), 100, "Content-Type"),
            (with("messaging_product", json!("sms")), 100, "messaging_product"),
            (with("call_id", json!(7)), 100, "call_id"),
            (with("action", json!("answer")), 100, "action"),
            (with("biz_opaque_callback_data", json!("x".repeat(513))), 100, "512"),
            (with("session", json!("v=0")), 100, "session is required"),
            (with("session", session("offer")), 100, "sdp_type"),
            (with("session", json!({"sdp_type": "answer"})), 100, "session.sdp"),
        ] {
            let refusal = read(&request, &account()).unwrap_err();
            assert_eq!(refusal.code, code, "{refusal:?}");
            assert!(refusal.details.contains(said) && refusal.details.ends_with('.'), "{refusal:?}");
        }
    }

    #[test]
    fn a_refusal_has_metas_shape() {
        let refusal = Refusal { subcode: Some(7), ..Refusal::rate_limited(2) };
        let response = refusal.response("Atrace");
        assert_eq!((response.status, &response.headers[..]), (429, &[("Retry-After", "2".to_owned())][..]));
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        let expected = json!({"error": {
            "message": "(#138005) Rate limit reached", "type": "OAuthException", "code": 138_005, "error_subcode": 7,
            "error_data": {"messaging_product": "whatsapp", "details": "Too many requests for this number."},
            "fbtrace_id": "Atrace"}});
        assert_eq!(body, expected);
        assert_eq!(refusal.summary(), "429 code 138005/7: Too many requests for this number.");
    }
}
