//! Bodies of webhooks, as Meta writes them: escaped, with all that is around a call.
//!
//! It makes texts and must not know when they are sent, or what becomes of them.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Account;

/// The number that callers dial: of the range for fiction.
const DISPLAY_NUMBER: &str = "15550100000";

/// Where Meta explains its errors; part of each.
const ERRORS_HREF: &str = "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/";

/// How the calls of a body are described.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shape {
    /// Without `from`: the caller is known by a user name.
    pub(super) without_from: bool,
    /// With fields that nobody has heard of.
    pub(super) with_unknown: bool,
}

/// How a call ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending {
    /// When it was accepted, in Unix seconds.
    pub(super) start_sec: Option<u64>,
    /// Why it failed: code and sentence.
    pub(super) error: Option<(u32, &'static str)>,
}

/// A call in a webhook.
#[derive(Clone, Debug)]
pub(super) struct CallText<'a> {
    pub(super) id: &'a str,
    /// Digits.
    pub(super) from: &'a str,
    pub(super) unix_sec: u64,
}

impl CallText<'_> {
    fn base(&self, shape: Shape, event: &str) -> Value {
        let mut call = json!({
            "id": self.id,
            "from": self.from,
            "from_user_id": user_id(self.from),
            "to": DISPLAY_NUMBER,
            "event": event,
            "timestamp": self.unix_sec.to_string(),
            "direction": "USER_INITIATED",
        });
        if shape.without_from {
            call.as_object_mut().expect("made above").remove("from");
        }
        if shape.with_unknown {
            call["connection_hints"] = json!({ "nested": [1, 2.5, null, { "deep": true }] });
            call["priority"] = json!(7);
        }
        call
    }

    /// The `value` of a connect event.
    pub(super) fn connect(&self, account: &Account, shape: Shape, offer: &str) -> Value {
        let mut call = self.base(shape, "connect");
        call["session"] = json!({ "sdp_type": "offer", "sdp": offer });
        let mut value = value(account, &[call]);
        let mut contact =
            json!({ "profile": { "name": "Zoë Señor/a" }, "wa_id": self.from, "user_id": user_id(self.from) });
        if shape.without_from {
            contact.as_object_mut().expect("made above").remove("wa_id");
        }
        value["contacts"] = json!([contact]);
        if shape.with_unknown {
            value["unheard_of"] = json!("a string that nobody expects");
        }
        value
    }

    /// The `value` of a terminate event.
    pub(super) fn terminate(&self, account: &Account, shape: Shape, ending: &Ending) -> Value {
        let mut call = self.base(shape, "terminate");
        let errors = ending.error.map(|(code, details)| {
            let title = super::graph::title(code);
            json!([{ "code": code, "title": title, "message": title, "href": ERRORS_HREF, "error_data": { "details": details } }])
        });
        if let Some(start) = ending.start_sec {
            call["start_time"] = json!(start.to_string());
            call["end_time"] = json!(self.unix_sec.to_string());
            call["duration"] = json!(self.unix_sec.saturating_sub(start));
        }
        call["status"] = json!(if errors.is_some() || ending.start_sec.is_none() { "FAILED" } else { "COMPLETED" });
        if let Some(errors) = &errors {
            call["errors"] = errors.clone();
        }
        let mut value = value(account, &[call]);
        if let Some(errors) = errors {
            value["errors"] = errors;
        }
        value
    }
}

/// Meta's id of a user for this business. Since April 2026 it stands beside every number, and in its place where the user is
/// known by a user name. The country is that of the number, here always the same.
fn user_id(from: &str) -> String {
    let digits = from.bytes().fold(1_u64, |sum, digit| sum.wrapping_mul(31).wrapping_add(digit.into()));
    format!("US.{digits}")
}

fn value(account: &Account, calls: &[Value]) -> Value {
    json!({
        "messaging_product": "whatsapp",
        "metadata": {
            "display_phone_number": DISPLAY_NUMBER,
            "phone_number_id": account.phone_number_id,
        },
        "calls": calls,
    })
}

/// Puts the calls of several values into one, as Meta does when they come close together.
pub(super) fn merged(values: &[Value]) -> Value {
    let all = |name: &str| -> Vec<Value> {
        values.iter().filter_map(|value| value[name].as_array()).flatten().cloned().collect()
    };
    let mut merged = values[0].clone();
    merged["calls"] = json!(all("calls"));
    merged["contacts"] = json!(all("contacts"));
    merged
}

/// The `value` of a message from a user.
pub(super) fn message(account: &Account, unix_sec: u64) -> Value {
    let mut value = value(account, &[]);
    value.as_object_mut().expect("made above").remove("calls");
    value["contacts"] =
        json!([{ "profile": { "name": "Zoë" }, "wa_id": "15550123456", "user_id": user_id("15550123456") }]);
    value["messages"] = json!([{
        "from": "15550123456",
        "from_user_id": user_id("15550123456"),
        "id": "wamid.HBgLMTU1NTAxMjM0NTYVAgASGBQzQQA=",
        "timestamp": unix_sec.to_string(),
        "type": "text",
        "text": { "body": "Do you take calls?" },
    }]);
    value
}

/// A body of entries; each is a list of changes, a field and its value.
pub(super) fn body(entries: &[Vec<(&str, Value)>]) -> Vec<u8> {
    let entry = |changes: &Vec<(&str, Value)>| {
        let changes: Vec<Value> =
            changes.iter().map(|(field, value)| json!({ "value": value, "field": field })).collect();
        json!({ "id": "200000000000002", "changes": changes })
    };
    let entries: Vec<Value> = entries.iter().map(entry).collect();
    escaped(&json!({ "object": "whatsapp_business_account", "entry": entries }).to_string()).into_bytes()
}

/// JSON with all that is not ASCII, and every slash, escaped: Meta signs what it sends, and sends this.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + json.len() / 8);
    for c in json.chars() {
        match c {
            // Outside of strings JSON has no slash.
            '/' => text.push_str("\\/"),
            c if c.is_ascii() => text.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}"); // a String takes everything
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account {
            phone_number_id: "1001".into(),
            access_token: "token".into(),
            app_secret: "secret".into(),
            verify_token: "verify".into(),
        }
    }

    fn read(entries: &[Vec<(&str, Value)>]) -> Value {
        serde_json::from_slice(&body(entries)).unwrap()
    }

    #[test]
    fn a_body_is_escaped_and_says_the_same() {
        let call = CallText { id: "wacid.A/B=", from: "15550100001", unix_sec: 1_790_000_000 };
        let connect = call.connect(&account(), Shape::default(), "v=0\r\n");
        let text = String::from_utf8(body(&[vec![("calls", connect)]])).unwrap();
        assert!(
            text.contains("Zo\\u00eb Se\\u00f1or\\/a") && text.contains("wacid.A\\/B=") && text.is_ascii(),
            "{text}"
        );
        let read: Value = serde_json::from_str(&text).unwrap();
        let value = &read["entry"][0]["changes"][0]["value"];
        assert_eq!(value["contacts"][0]["profile"]["name"], "Zoë Señor/a");
        assert_eq!(
            (&value["calls"][0]["timestamp"], &value["calls"][0]["session"]["sdp"]),
            (&json!("1790000000"), &json!("v=0\r\n"))
        );
        assert_eq!(escaped("\"\u{1f600}\""), "\"\\ud83d\\ude00\"");
    }

    #[test]
    fn a_call_without_from_and_with_unknown_fields_is_still_one() {
        let call = CallText { id: "wacid.1", from: "15550100001", unix_sec: 5 };
        let shape = Shape { without_from: true, with_unknown: true };
        let value = call.connect(&account(), shape, "v=0");
        assert!(value["calls"][0].get("from").is_none() && value["contacts"][0].get("wa_id").is_none());
        assert!(value.get("unheard_of").is_some());
    }

    #[test]
    fn an_ending_carries_its_length_and_its_error_in_both_places() {
        let call = CallText { id: "wacid.1", from: "15550100001", unix_sec: 120 };
        let failed = Ending { start_sec: Some(100), error: Some((138_021, "No media came.")) };
        let value = call.terminate(&account(), Shape::default(), &failed);
        assert_eq!((&value["calls"][0]["duration"], &value["calls"][0]["status"]), (&json!(20), &json!("FAILED")));
        assert_eq!(value["errors"], value["calls"][0]["errors"]);
        assert_eq!(value["errors"][0]["code"], 138_021);
        let done = call.terminate(&account(), Shape::default(), &Ending { start_sec: Some(100), error: None });
        assert_eq!(done["calls"][0]["status"], "COMPLETED");
        let never = call.terminate(&account(), Shape::default(), &Ending::default());
        assert_eq!((&never["calls"][0]["status"], never["calls"][0].get("duration")), (&json!("FAILED"), None));
    }

    #[test]
    fn calls_that_come_together_keep_their_order() {
        let text = |id| CallText { id, from: "1", unix_sec: 1 }.connect(&account(), Shape::default(), "v=0");
        let read =
            read(&[vec![("calls", merged(&[text("a"), text("b")]))], vec![("messages", message(&account(), 1))]]);
        let calls = &read["entry"][0]["changes"][0]["value"]["calls"];
        assert_eq!((&calls[0]["id"], &calls[1]["id"]), (&json!("a"), &json!("b")));
        assert_eq!(read["entry"][1]["changes"][0]["field"], "messages");
    }
}
