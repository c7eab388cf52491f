//! Words of the other end, made fit for logs and for the API.

use crate::config::Secret;

/// Longest text kept of what the other end said, in characters: an error object fits.
const CHARS_MAX: usize = 400;
/// Shortest key searched for in texts, in bytes: a shorter one is a placeholder, and might be part of any word.
const KEY_BYTES_MIN: usize = 8;

/// One line without control characters or marks that reorder text, cut to a bounded length, and without the key or
/// anything that looks like one: services quote the key they refuse.
pub(super) fn clean(text: &str, key: Option<&Secret>) -> String {
    let without_key = match key.map(Secret::expose).filter(|key| key.len() >= KEY_BYTES_MIN) {
        Some(key) => text.replace(key, "(key)"),
        None => text.to_owned(),
    };
    let mut line = String::new();
    for word in without_key.split(is_odd).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        match word.find("sk-") {
            Some(at) => {
                line.push_str(&word[..at]);
                line.push_str("(key)");
            }
            None => line.push_str(word),
        }
    }
    if let Some((end, _)) = line.char_indices().nth(CHARS_MAX) {
        line.truncate(end);
        line.push('…');
    }
    line
}

fn is_odd(c: char) -> bool {
    c.is_control() || c.is_whitespace() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_one_bounded_line() {
        assert_eq!(clean("a\r\nb\t\u{1b}[31mc \u{202e}d", None), "a b [31mc d");
        assert_eq!(clean("", None), "");
        assert_eq!(clean(&"é".repeat(1000), None).chars().count(), CHARS_MAX + 1);
    }

    #[test]
    fn a_key_is_never_quoted() {
        let key = Secret::new("top-secret");
        let text = clean(r#"{"message":"Incorrect key: top-secret, or sk-proj-****abcd."}"#, Some(&key));
        assert_eq!(text, r#"{"message":"Incorrect key: (key), or (key)"#);
        for placeholder in ["", "key"] {
            assert_eq!(clean("a key is needed", Some(&Secret::new(placeholder))), "a key is needed");
        }
    }
}
