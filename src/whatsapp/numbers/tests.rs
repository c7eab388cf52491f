//! What the file of numbers may hold, and how it is refused.

use super::*;

fn entries(text: &str) -> Vec<Entry> {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn config(entry: &Entry) -> Value {
    serde_json::from_str(&entry.config).unwrap()
}

const ONE: &str = "[[number]]\nphone_number_id = \"106540352242922\"\n";

#[test]
fn a_number_needs_no_more_than_its_id() {
    let [entry] = &entries(ONE)[..] else { panic!("one number") };
    let expected = Entry {
        phone_number_id: "106540352242922".into(),
        name: "number-242922".into(),
        access_token_file: None,
        app_secret_file: None,
        calls: CallPolicy::Answer,
        config: "{}".into(),
    };
    assert_eq!(*entry, expected);
    assert_eq!(entries("number = [{phone_number_id = '7'}]")[0].name, "number-7");
}

#[test]
fn everything_that_a_number_may_have_is_read() {
    let text = r#"
[config]                      # of every number
voice = "marin"
maxDurationSec = 600

[[number]]
phone_number_id = "106540352242922"
name = "front desk"
access_token_file = "/etc/voice-media-bridge/credentials/whatsapp-token-2"
app_secret_file = "/etc/voice-media-bridge/credentials/whatsapp-secret-2"
calls = "answer"
[number.config]
instructions = """
Be brief.
Be kind."""
greeting = "Muraho"
[number.config.turnDetection]
type = "server_vad"
threshold = 0.5
[[number.config.tools]]
type = "function"
name = "transfer"
strict = true

[[number]]
phone_number_id = "7"
calls = "reject"

[[number]]
phone_number_id = "8"
calls = "ignore"
"#;
    let entries = entries(text);
    assert_eq!(entries.iter().map(|entry| &*entry.name).collect::<Vec<_>>(), ["front desk", "number-7", "number-8"]);
    assert_eq!(
        entries.iter().map(|entry| entry.calls).collect::<Vec<_>>(),
        [CallPolicy::Answer, CallPolicy::Reject, CallPolicy::Ignore]
    );
    let token = entries[0].access_token_file.as_ref().unwrap();
    assert_eq!(token.to_str(), Some("/etc/voice-media-bridge/credentials/whatsapp-token-2"));
    let secret = entries[0].app_secret_file.as_ref().unwrap();
    assert_eq!(secret.to_str(), Some("/etc/voice-media-bridge/credentials/whatsapp-secret-2"));
    let expected = serde_json::json!({
        "voice": "marin",
        "maxDurationSec": 600,
        "instructions": "Be brief.\nBe kind.",
        "greeting": "Muraho",
        "turnDetection": {"type": "server_vad", "threshold": 0.5},
        "tools": [{"type": "function", "name": "transfer", "strict": true}],
    });
    assert_eq!(config(&entries[0]), expected);
    assert_eq!(config(&entries[1]), serde_json::json!({"voice": "marin", "maxDurationSec": 600}));
}

#[test]
fn a_numbers_own_config_stands_above_the_files_and_replaces_what_is_nested() {
    let text = format!(
        "[config]\nvoice = 'marin'\nlanguage = 'en'\nmetadata = {{a = '1', b = '2'}}\ntools = [1, 2]\n{ONE}[number.config]\n\
         voice = 'cedar'\nmetadata = {{b = '3'}}\ntools = []"
    );
    let expected = serde_json::json!({"voice": "cedar", "language": "en", "metadata": {"b": "3"}, "tools": []});
    assert_eq!(config(&entries(&text)[0]), expected);
}

#[test]
fn what_cannot_be_used_is_refused_by_name_and_line() {
    let of_one = |rest: &str| format!("{ONE}{rest}");
    let many: String =
        (0..=NUMBERS_MAX).fold(String::new(), |text, id| text + &format!("[[number]]\nphone_number_id = '{id}'\n"));
    let long = "x".repeat(CONFIG_BYTES_MAX);
    for (text, said) in [
        (String::new(), &["names no number", "[[number]]"][..]),
        ("number = []".into(), &["names no number"]),
        ("number = 1".into(), &["line 1", "number must be [[number]]"]),
        ("\n[number]\nphone_number_id = '1'".into(), &["line 2", "[[number]]"]),
        ("number = ['1']".into(), &["line 1", "[[number]]"]),
        (many, &["257 numbers", "256 are the most"]),
        ("[[number]]\nname = 'a'".into(), &["line 1", "no phone_number_id"]),
        ("\n\n[[number]]\nphone_number_id = 1".into(), &["line 4", "number.phone_number_id", "32 digits"]),
        ("[[number]]\nphone_number_id = ''".into(), &["line 2", "number.phone_number_id"]),
        ("[[number]]\nphone_number_id = '+16505551234'".into(), &["line 2", "not the phone number"]),
        ("[[number]]\nphone_number_id = '../1'".into(), &["number.phone_number_id"]),
        ("[[number]]\nphone_number_id = '١٢'".into(), &["number.phone_number_id"]),
        (format!("[[number]]\nphone_number_id = '{}'", "1".repeat(33)), &["number.phone_number_id"]),
        (format!("{ONE}\n{ONE}"), &["same phone_number_id", "line 1", "line 4"]),
        (of_one("[[number]]\nphone_number_id = '9106540352242922'"), &["\"number-242922\"", "line 3", "own name"]),
        (of_one("name = 'a'\n[[number]]\nphone_number_id = '7'\nname = 'a'"), &["\"a\"", "line 1", "line 4"]),
        (of_one("colour = 'red'"), &["line 3", "number.colour is not known", "phone_number_id, name"]),
        (of_one("[extra]"), &["line 3", "extra is not known", "config, number"]),
        (of_one("name = ''"), &["line 3", "number.name", "64 visible"]),
        (of_one("name = ' a'"), &["number.name"]),
        (of_one("name = 1"), &["number.name"]),
        (of_one("name = \"a\\nb\""), &["number.name"]),
        (of_one("name = \"a\\u200bb\""), &["number.name"]),
        (of_one(&format!("name = '{}'", "x".repeat(65))), &["number.name"]),
        (of_one("name = '16505551234'"), &["line 3", "number.name", "phone number"]),
        (of_one("name = 'desk +1 (650) 555-1234'"), &["number.name", "phone number"]),
        (of_one("name = 'desk 650.555.1234'"), &["number.name", "phone number"]),
        (of_one("access_token_file = ''"), &["line 3", "number.access_token_file", "path"]),
        (of_one("app_secret_file = 1"), &["line 3", "number.app_secret_file", "path"]),
        (of_one("app_secret_file = \"a\\u0000\""), &["number.app_secret_file"]),
        (of_one("calls = 'refuse'"), &["line 3", "number.calls", "\"reject\""]),
        (of_one("calls = true"), &["number.calls"]),
        (of_one("config = 1"), &["line 3", "number.config must be a table"]),
        (format!("config = []\n{ONE}"), &["line 1", "config must be a table"]),
        (of_one("[number.config]\n\nvoice = 2026-11-25"), &["line 5", "number.config.voice", "a date or time"]),
        (of_one("[number.config]\na = {b = [0, inf]}"), &["line 4", "number.config.a.b[1]", "JSON does not have"]),
        (format!("[config]\na = nan\n{ONE}"), &["line 2", "config.a ", "JSON does not have"]),
        (format!("[config]\na = 1e999\n{ONE}"), &["line 2", "config.a ", "JSON does not have"]),
        (format!("[config]\na = 9223372036854775808\n{ONE}"), &["line 2", "config.a", "64 bits"]),
        (of_one(&format!("[number.config]\ninstructions = '{long}'")), &["line 1", "bytes of JSON", "131072"]),
        (of_one("name = 'a'\nname = 'b'"), &["not valid TOML", "line 4"]),
        (of_one("name = "), &["not valid TOML", "line 3"]),
        (of_one("[[number"), &["not valid TOML", "line 3"]),
        ("#".repeat(FILE_BYTES_MAX + 1), &["1048577 bytes"]),
    ] {
        let error = parse(&text).expect_err(&text[..text.len().min(200)]);
        assert!(said.iter().all(|word| error.contains(word)), "{said:?} is not in: {error}");
        assert!(error.len() < 400 && !error.contains('\n'), "{error}");
        assert!(!error.contains("555"), "{error}");
    }
}

#[test]
fn names_with_few_digits_are_fine() {
    for name in ["desk 1", "24/7", "2026-11", "Büro 3. Stock", "line 123456", &"x".repeat(NAME_CHARS_MAX)] {
        assert_eq!(entries(&format!("{ONE}name = '{name}'"))[0].name, *name);
    }
}

#[test]
fn integers_of_every_base_are_what_they_say() {
    let text = format!("{ONE}config = {{a = 0x10, b = 0o17, c = 0b11, d = -1_000, e = -0.5, f = 9223372036854775807}}");
    let expected = serde_json::json!({"a": 16, "b": 15, "c": 3, "d": -1000, "e": -0.5, "f": i64::MAX});
    assert_eq!(config(&entries(&text)[0]), expected);
}

#[test]
fn files_that_are_deep_or_damaged_are_survived() {
    for deep in [
        format!("[config]\na = {}{}\n{ONE}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("[config]\na = {}1{}\n{ONE}", "{a=".repeat(100_000), "}".repeat(100_000)),
        format!("[config]\na{} = 1\n{ONE}", ".a".repeat(100_000)),
        format!("[config{}]\nb = 1\n{ONE}", ".a".repeat(100_000)),
    ] {
        assert!(parse(&deep).is_err());
    }
    let text = format!(
        "[config]\nvoice = \"marin\"\n{ONE}name = 'desk'\ncalls = 'reject'\n[number.config]\na = [1.5, {{b = true}}]\n"
    );
    entries(&text);
    for at in 0..text.len() {
        let _ = parse(&text[..at]);
        for byte in 0..=127 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = byte;
            if let Ok(entries) = parse(str::from_utf8(&bytes).unwrap()) {
                for entry in entries {
                    assert!(is_number_id(&entry.phone_number_id) && !looks_like_a_phone_number(&entry.name));
                    assert!(config(&entry).is_object());
                }
            }
        }
    }
}
