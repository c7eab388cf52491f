//! Bodies for tests, laid out as Meta's, with numbers of the range that is kept free for fiction.

use serde_json::{Value, json};

/// Meta's id of the business's number.
pub(crate) const NUMBER: &str = "106540352242922";
/// Ids as Meta makes them: base64 that decodes to both numbers.
pub(crate) const CALL: &str =
    "wacid.HBgLMTY1MDU1NTAxMDEVAgASGCA2RkE3N0M2MTk1RTlGNjM4RTM3MTlGNkM4Q0QzMTQ3NRwYCzE2NTA1NTUwMTAyFQIAAA==";
pub(crate) const OTHER_CALL: &str =
    "wacid.HBgLMTY1MDU1NTAxMDMVAgASGCAwMUQ4RTQyNTlBN0MzRjE2QjI4RDkwNUU3NEMxQUYzNhwYCzE2NTA1NTUwMTAyFQIAAA==";
/// The caller.
pub(crate) const USER: &str = "16505550101";
/// The business.
pub(crate) const BUSINESS: &str = "16505550102";

/// A live offer.
pub(crate) fn sdp() -> String {
    let path = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/sdp/offer-live-2026-10-02.sdp"].join("/");
    std::fs::read_to_string(path).expect("the fixtures are part of the repository")
}

pub(crate) fn connect(call: &str) -> Value {
    json!({
        "id": call,
        "from": USER,
        "to": BUSINESS,
        "event": "connect",
        "timestamp": "1760681513",
        "direction": "USER_INITIATED",
        "session": {"sdp_type": "offer", "sdp": sdp()},
    })
}

pub(crate) fn error() -> Value {
    json!({
        "code": 138_021,
        "title": "Call media not received",
        "message": "Call media not received",
        "error_data": {"details": "No media was received by the client of 16505550101"},
    })
}

/// As seen live.
pub(crate) fn terminate(call: &str) -> Value {
    json!({
        "id": call,
        "from": USER,
        "to": BUSINESS,
        "event": "terminate",
        "timestamp": "1760681533",
        "direction": "USER_INITIATED",
        "start_time": "1760681513",
        "end_time": "1760681533",
        "duration": 20,
        "status": "FAILED",
        "errors": [error()],
    })
}

/// The value of a change of calls.
pub(crate) fn calls(calls: &[Value]) -> Value {
    json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": BUSINESS, "phone_number_id": NUMBER},
        "contacts": [{"profile": {"name": "A. User"}, "wa_id": USER}],
        "calls": calls,
    })
}

/// As seen live: the error beside the call, too.
pub(crate) fn failed(call: &str) -> Value {
    let mut value = calls(&[terminate(call)]);
    value["errors"] = json!([error()]);
    value
}

pub(crate) fn messages() -> Value {
    json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": BUSINESS, "phone_number_id": NUMBER},
        "contacts": [{"profile": {"name": "A. User"}, "wa_id": USER}],
        "messages": [{
            "from": USER,
            "id": "wamid.HBgLMTY1MDU1NTAxMDEVAgASGBQzQTdB",
            "timestamp": "1760681500",
            "type": "text",
            "text": {"body": "\u{e4}\u{f6}\u{e5} \u{1f600}"},
        }],
    })
}

pub(crate) fn statuses() -> Value {
    json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": BUSINESS, "phone_number_id": NUMBER},
        "statuses": [{
            "id": "wamid.HBgLMTY1MDU1NTAxMDQVAgARGBI5QTND",
            "status": "delivered",
            "timestamp": "1760681501",
            "recipient_id": "16505550104",
        }],
    })
}

pub(crate) fn change(field: &str, value: &Value) -> Value {
    json!({"field": field, "value": value})
}

/// A body of one entry.
pub(crate) fn body(changes: &[Value]) -> Value {
    json!({"object": "whatsapp_business_account", "entry": [{"id": "102290129340398", "changes": changes}]})
}
