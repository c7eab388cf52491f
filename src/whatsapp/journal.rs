//! One line for each call that Meta believes alive: what it takes to end it there after a crash.
//!
//! A line holds a call id, which is personal data: who keeps it keeps it for itself alone. It must not know of files.

use serde::{Deserialize, Serialize};

use crate::call_id::{CALL_ID_BYTES_MAX, CallId};

use super::webhook::is_number_id;

/// Longest line, in bytes: a call id whose every byte is escaped, and room for the rest.
pub const LINE_BYTES_MAX: usize = 6 * CALL_ID_BYTES_MAX + 256;

/// A call that Meta believes alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alive {
    /// The call.
    pub call: CallId,
    /// Meta's id of the business's number.
    pub phone_number_id: String,
    /// When its webhook came: seconds since 1970.
    pub since_sec: u64,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    call: String,
    number: String,
    since: u64,
}

impl Alive {
    /// As one line of JSON, without its end.
    pub fn encode(&self) -> String {
        let (call, number) = (self.call.expose().to_owned(), self.phone_number_id.clone());
        serde_json::to_string(&Line { call, number, since: self.since_sec }).expect("strings and a number serialise")
    }

    /// Of such a line; `None` where it is none: cut by a crash, damaged, or of another program.
    pub fn decode(line: &str) -> Option<Self> {
        if line.len() > LINE_BYTES_MAX || !line.starts_with('{') {
            return None;
        }
        let Line { call, number, since } = serde_json::from_str(line).ok()?;
        let call = CallId::new(&call)?;
        is_number_id(&number).then_some(Self { call, phone_number_id: number, since_sec: since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(call: &str) -> Alive {
        let call = CallId::new(call).unwrap();
        Alive { call, phone_number_id: "106540352242922".into(), since_sec: 1_760_681_513 }
    }

    #[test]
    fn a_call_comes_back_as_it_was() {
        let longest = "\"".repeat(CALL_ID_BYTES_MAX);
        for call in ["wacid.HBgLMTY1MDU1NTEyMzQ=", "a\"\\b", "é…\u{2028}", &longest] {
            let line = alive(call).encode();
            assert!(line.len() <= LINE_BYTES_MAX && !line.contains('\n'));
            assert_eq!(Alive::decode(&line), Some(alive(call)));
        }
    }

    #[test]
    fn a_line_that_is_cut_is_none() {
        let line = alive("wacid.HBgL").encode();
        for end in (0..line.len()).filter(|end| line.is_char_boundary(*end)) {
            assert_eq!(Alive::decode(&line[..end]), None);
        }
    }

    #[test]
    fn what_is_no_such_line_is_none() {
        for line in [
            "",
            "{}",
            "null",
            r#"["wacid.x","106540352242922",1]"#,
            r#"{"call":"wacid.x","number":"106540352242922"}"#,
            r#"{"call":"","number":"106540352242922","since":1}"#,
            r#"{"call":"a\nb","number":"106540352242922","since":1}"#,
            r#"{"call":"wacid.x","number":"../me","since":1}"#,
            r#"{"call":"wacid.x","number":"","since":1}"#,
            r#"{"call":"wacid.x","number":"106540352242922","since":-1}"#,
            r#"{"call":"wacid.x","number":"106540352242922","since":1.5}"#,
            r#"{"call":"wacid.x","number":"106540352242922","since":99999999999999999999}"#,
            r#"{"call":"wacid.x","call":"wacid.y","number":"106540352242922","since":1}"#,
            r#"{"call":"wacid.x","number":"106540352242922","since":1,"more":1}"#,
            r#"{"call":"wacid.x","number":"106540352242922","since":1}{}"#,
            r#"{"call":"\ud800","number":"106540352242922","since":1}"#,
        ] {
            assert_eq!(Alive::decode(line), None, "{line}");
        }
        let long = "x".repeat(CALL_ID_BYTES_MAX + 1);
        assert_eq!(Alive::decode(&format!(r#"{{"call":"{long}","number":"1","since":1}}"#)), None);
        let padded = format!(r#"{{"call":"wacid.x","number":"1","since":1{}}}"#, " ".repeat(LINE_BYTES_MAX));
        assert_eq!(Alive::decode(&padded), None);
    }

    #[test]
    fn damaged_lines_never_panic_and_never_name_what_is_no_number() {
        let line = alive("wacid.HBgLMTY1MDU1NTEyMzQ=").encode();
        for at in 0..line.len() {
            for byte in 0..=255 {
                let mut bytes = line.clone().into_bytes();
                bytes[at] = byte;
                if let Some(alive) = Alive::decode(&String::from_utf8_lossy(&bytes)) {
                    assert!(is_number_id(&alive.phone_number_id));
                }
            }
        }
    }

    #[test]
    fn a_call_never_prints_itself() {
        assert!(!format!("{:?}", alive("wacid.HBgL")).contains("HBgL"));
    }
}
