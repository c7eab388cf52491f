//! Meta's sentences, made fit for logs and for the API: one bounded line that names nobody.

/// Longest text kept of what Meta says, in bytes: a title and its details fit.
pub(super) const TEXT_BYTES_MAX: usize = 256;
/// As many digits in a row are a phone number, or an id that leads to one. Codes have six.
const NUMBER_DIGITS_MIN: usize = 7;
/// Words of this length that hold digits or signs are no language: tokens, ids, passwords.
const OPAQUE_CHARS_MIN: usize = 20;

/// One line without control characters or marks that reorder text, phone numbers, call ids or tokens, cut to
/// [`TEXT_BYTES_MAX`].
pub(super) fn clean(text: &str) -> String {
    let mut line = String::new();
    for part in text.split(is_odd).filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        push_part(&mut line, part);
        if line.len() > TEXT_BYTES_MAX {
            break;
        }
    }
    mask_written_numbers(&mut line);
    if line.len() > TEXT_BYTES_MAX {
        let room = TEXT_BYTES_MAX - '…'.len_utf8();
        let end = (0..=room).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}

/// What Meta's several texts on one error say together: the last often says more, and often the same again.
pub(super) fn joined(texts: [&str; 2]) -> String {
    let [first, second] = texts.map(str::trim);
    match (first.is_empty(), second.is_empty() || first.contains(second)) {
        (false, true) => clean(first),
        (true, _) => clean(second),
        (false, false) => clean(&format!("{}: {second}", first.trim_end_matches(['.', ':']))),
    }
}

fn is_odd(c: char) -> bool {
    c.is_control()
        || c.is_whitespace()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn push_part(line: &mut String, part: &str) {
    for word in part.split_inclusive(|c: char| !is_word(c)) {
        let end = word.find(|c: char| !is_word(c)).unwrap_or(word.len());
        let (word, rest) = word.split_at(end);
        line.push_str(if tells_too_much(word) { "(hidden)" } else { word });
        line.push_str(rest);
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-' | '.')
}

fn tells_too_much(word: &str) -> bool {
    let digits = word.split(|c: char| !c.is_numeric()).map(|run| run.chars().count()).max().unwrap_or(0);
    let opaque = word.chars().count() >= OPAQUE_CHARS_MIN
        && word.chars().any(|c| c.is_numeric() || matches!(c, '+' | '/' | '='));
    digits >= NUMBER_DIGITS_MIN || opaque || ["wacid.", "wamid."].iter().any(|prefix| word.starts_with(prefix))
}

/// A number as people write it: `+`, then digits with single spaces, hyphens or parentheses between them.
fn mask_written_numbers(line: &mut String) {
    let mut from = 0;
    while let Some(at) = line[from..].find('+').map(|at| from + at) {
        let tail = &line[at + 1..];
        let end = tail.find(|c: char| !(c.is_ascii_digit() || " -.()".contains(c))).unwrap_or(tail.len());
        let number = tail[..end].trim_end_matches([' ', '-', '.', '(']);
        let digits = number.bytes().filter(u8::is_ascii_digit).count();
        let end = at + 1 + number.len();
        if digits >= NUMBER_DIGITS_MIN {
            line.replace_range(at..end, "(hidden)");
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_one_bounded_line() {
        assert_eq!(clean("a\r\nb\t\u{1b}[31mc \u{202e}d\u{200b}e"), "a b [31mc d e");
        assert_eq!(clean(" \n "), "");
        for text in ["é".repeat(1000), "x ".repeat(1000), "x".repeat(300), "…".repeat(86)] {
            let text = clean(&text);
            assert!(text.len() <= TEXT_BYTES_MAX && text.ends_with('…'), "{} bytes", text.len());
        }
        assert_eq!(clean(&"x".repeat(TEXT_BYTES_MAX)).len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn numbers_ids_and_tokens_are_hidden_and_codes_are_not() {
        for (text, shown) in [
            ("to 16505551234 failed", "to (hidden) failed"),
            ("to +16505551234, failed", "to (hidden), failed"),
            ("+1 650 555-1234 failed", "(hidden) failed"),
            ("+1 (650) 555-1234.", "(hidden)."),
            ("(16505551234)", "((hidden))"),
            ("٠١٢٣٤٥٦٧", "(hidden)"),
            ("call wacid.HBgL is gone", "call (hidden) is gone"),
            ("Malformed access token EAAGm0PX4ZCpsBAKZA9xyz", "Malformed access token (hidden)"),
            ("a=ice-pwd:4cQ1xYz0/1234+abcdEFgh==", "a=ice-pwd:(hidden)"),
            ("(#138008) SDP, port 40012", "(#138008) SDP, port 40012"),
            ("at 203.0.113.49 + 20 s", "at 203.0.113.49 + 20 s"),
            ("internationalisation/telecommunication", "(hidden)"),
            ("uncharacteristically long-winded.", "uncharacteristically long-winded."),
        ] {
            assert_eq!(clean(text), shown);
        }
    }

    #[test]
    fn a_number_cut_by_the_bound_is_still_hidden() {
        for pad in 0..TEXT_BYTES_MAX {
            let text = clean(&format!("{} +1 650 555 1234 and 16505551234", "x".repeat(pad)));
            assert!(!text.contains("555"), "{text}");
        }
    }

    #[test]
    fn two_texts_say_each_thing_once() {
        assert_eq!(joined(["Call failed.", "No media."]), "Call failed: No media.");
        assert_eq!(joined(["Call failed", "failed"]), "Call failed");
        assert_eq!(joined(["", "No media"]), "No media");
        assert_eq!(joined(["Call failed", ""]), "Call failed");
        assert_eq!(joined(["", ""]), "");
    }
}
