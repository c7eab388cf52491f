//! Names of calls: the caller's own id, which is personal data, and the short names we use instead.
//!
//! A WhatsApp call id decodes to both phone numbers. So it is a type whose `Debug` and `Display` show a hash; the text
//! itself is only had by asking for it, for answers to the party that sent it.

use std::fmt;

/// Longest call id taken, in bytes. WhatsApp's are about 90.
pub const CALL_ID_BYTES_MAX: usize = 256;

/// The id under which the webhook knows a call. Prints as its [`LogId`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(String);

impl CallId {
    /// Takes an id of 1 to [`CALL_ID_BYTES_MAX`] bytes without control characters.
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= CALL_ID_BYTES_MAX;
        (fits && !text.chars().any(char::is_control)).then(|| Self(text.to_owned()))
    }

    /// The id itself: only for answers to the one who sent it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What logs say instead.
    pub fn log_id(&self) -> LogId {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.0.as_bytes());
        let mut short = [0; 6];
        short.copy_from_slice(&digest.as_ref()[..6]);
        LogId(short)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.log_id().fmt(f)
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({self})")
    }
}

/// The first 12 hex digits of the SHA-256 of a call id: `printf %s "$ID" | sha256sum | cut -c1-12`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct LogId([u8; 6]);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Our own number of a call, never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallNumber(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_id_never_prints_itself() {
        let id = CallId::new("wacid.HBgLMTY1MDU1NTEyMzQ=").unwrap();
        assert_eq!(format!("{id} {id:?}"), "6248b1702d80 CallId(6248b1702d80)");
        assert_eq!(id.expose(), "wacid.HBgLMTY1MDU1NTEyMzQ=");
    }

    #[test]
    fn ids_that_are_empty_too_long_or_carry_control_characters_are_refused() {
        assert!(CallId::new("").is_none());
        assert!(CallId::new("a\r\nb").is_none());
        assert!(CallId::new(&"x".repeat(CALL_ID_BYTES_MAX)).is_some());
        assert!(CallId::new(&"x".repeat(CALL_ID_BYTES_MAX + 1)).is_none());
    }
}
