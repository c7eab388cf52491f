//! The file of phone numbers: TOML to what each number needs, checked.
//!
//! A key that is not known is refused by name, because one that is silently ignored is worse than an error. What `config`
//! may hold is the session API's concern: here it becomes the JSON that the API takes. It must not know of files or secrets.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::CallPolicy;
use super::webhook::is_number_id;

/// Longest file, in bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Most numbers.
pub const NUMBERS_MAX: usize = 256;
/// Longest `config` of a number as JSON, in bytes: prompt, greeting and tools of the session API fit.
pub const CONFIG_BYTES_MAX: usize = 128 * 1024;
/// Longest name, in characters: it is a metric label.
pub const NAME_CHARS_MAX: usize = 64;
/// Longest path, in bytes: Linux takes no longer ones.
const PATH_BYTES_MAX: usize = 4096;
/// As many digits in a row are a phone number, which no log or metric may show.
const PHONE_DIGITS_MIN: usize = 7;

/// A number as the file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Meta's id of it.
    pub phone_number_id: String,
    /// What logs call it: the file's `name`, or a part of the id that is no phone number.
    pub name: String,
    /// Where its access token is; `None`: that of the process.
    pub access_token_file: Option<PathBuf>,
    /// Where the secret of its app is; `None`: that of the process.
    pub app_secret_file: Option<PathBuf>,
    /// What becomes of its calls.
    pub calls: CallPolicy,
    /// The `config` of its sessions, the file's own `[config]` below it: JSON, an object.
    pub config: String,
}

/// Reads the file. The error is a phrase that goes behind the file's name.
pub fn parse(text: &str) -> Result<Vec<Entry>, String> {
    if text.len() > FILE_BYTES_MAX {
        return Err(format!("has {} bytes; {FILE_BYTES_MAX} are the most", text.len()));
    }
    let file = File(text);
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(text.len(), |span| span.start);
        format!("is not valid TOML in line {}: {}", file.line(at), error.message())
    })?;
    let table = table.get_ref();
    file.only(table, "", &["config", "number"])?;
    let shared = match member(table, "config") {
        Some(config) => file.object(config, "config")?,
        None => Map::new(),
    };
    let numbers = match member(table, "number") {
        Some(numbers) => numbers.get_ref().as_array().ok_or_else(|| file.at(numbers, "number must be [[number]]"))?,
        None => return Err("names no number: add [[number]] with its phone_number_id".into()),
    };
    match numbers.len() {
        0 => return Err("names no number: add [[number]] with its phone_number_id".into()),
        1..=NUMBERS_MAX => {}
        n => return Err(format!("names {n} numbers; {NUMBERS_MAX} are the most")),
    }
    let mut entries = Vec::new();
    let (mut ids, mut names) = (HashMap::new(), HashMap::new());
    for number in numbers {
        let entry = file.entry(number, &shared)?;
        let line = file.line(number.span().start);
        if let Some(other) = ids.insert(entry.phone_number_id.clone(), line) {
            return Err(format!("has the same phone_number_id in the [[number]] of line {other} and of line {line}"));
        }
        if let Some(other) = names.insert(entry.name.clone(), line) {
            let name = &entry.name;
            return Err(format!(
                "has the name {name:?} in the [[number]] of line {other} and of line {line}: give each its own name"
            ));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// The text, to say in which line something is.
#[derive(Clone, Copy)]
struct File<'a>(&'a str);

type At<'a> = Spanned<DeValue<'a>>;

impl File<'_> {
    /// Counted from 1.
    fn line(self, at: usize) -> usize {
        let before = self.0.as_bytes().get(..at).unwrap_or(self.0.as_bytes());
        before.split(|byte| *byte == b'\n').count()
    }

    fn at(self, value: &At<'_>, problem: &str) -> String {
        format!("has an error in line {}: {problem}", self.line(value.span().start))
    }

    /// Refuses keys that are not known; `prefix` is what stands before them.
    fn only(self, table: &DeTable<'_>, prefix: &str, known: &[&str]) -> Result<(), String> {
        match table.keys().find(|key| !known.contains(&key.get_ref().as_ref())) {
            None => Ok(()),
            Some(key) => Err(format!(
                "has an error in line {}: {prefix}{} is not known. Known are: {}",
                self.line(key.span().start),
                shown(key.get_ref()),
                known.join(", ")
            )),
        }
    }

    fn entry(self, number: &At<'_>, shared: &Map<String, Value>) -> Result<Entry, String> {
        const KNOWN: &[&str] = &["phone_number_id", "name", "access_token_file", "app_secret_file", "calls", "config"];
        let table = number.get_ref().as_table().ok_or_else(|| self.at(number, "number must be [[number]]"))?;
        self.only(table, "number.", KNOWN)?;
        let id = member(table, "phone_number_id")
            .ok_or_else(|| self.at(number, "this [[number]] has no phone_number_id"))?;
        let phone_number_id = id.get_ref().as_str().filter(|id| is_number_id(id)).ok_or_else(|| {
            self.at(id, "number.phone_number_id must be a string of 1 to 32 digits: Meta's id, not the phone number")
        })?;
        let name = match member(table, "name") {
            Some(name) => self.name(name)?,
            None => name_of_id(phone_number_id),
        };
        let mut config = shared.clone();
        if let Some(own) = member(table, "config") {
            config.extend(self.object(own, "number.config")?);
        }
        let config = Value::Object(config).to_string();
        if config.len() > CONFIG_BYTES_MAX {
            let problem = format!("the config of this [[number]] has {} bytes of JSON", config.len());
            return Err(self.at(number, &format!("{problem}; {CONFIG_BYTES_MAX} are the most")));
        }
        Ok(Entry {
            phone_number_id: phone_number_id.to_owned(),
            name,
            access_token_file: self.path(table, "access_token_file")?,
            app_secret_file: self.path(table, "app_secret_file")?,
            calls: self.calls(table)?,
            config,
        })
    }

    fn name(self, name: &At<'_>) -> Result<String, String> {
        let text = name.get_ref().as_str().unwrap_or_default();
        let fits = (1..=NAME_CHARS_MAX).contains(&text.chars().count());
        if !fits || text.trim() != text || text.chars().any(is_invisible) {
            let rule = format!("number.name must be a string of 1 to {NAME_CHARS_MAX} visible characters");
            return Err(self.at(name, &rule));
        }
        if looks_like_a_phone_number(text) {
            return Err(self.at(name, "number.name must not hold a phone number: logs and metrics show it"));
        }
        Ok(text.to_owned())
    }

    fn path(self, table: &DeTable<'_>, key: &str) -> Result<Option<PathBuf>, String> {
        let Some(path) = member(table, key) else { return Ok(None) };
        let text = path.get_ref().as_str().unwrap_or_default();
        if !(1..=PATH_BYTES_MAX).contains(&text.len()) || text.chars().any(char::is_control) {
            return Err(self.at(path, &format!("number.{key} must be the path of a file")));
        }
        Ok(Some(text.into()))
    }

    fn calls(self, table: &DeTable<'_>) -> Result<CallPolicy, String> {
        let Some(calls) = member(table, "calls") else { return Ok(CallPolicy::default()) };
        match calls.get_ref().as_str() {
            Some("answer") => Ok(CallPolicy::Answer),
            Some("reject") => Ok(CallPolicy::Reject),
            Some("ignore") => Ok(CallPolicy::Ignore),
            _ => Err(self.at(calls, "number.calls must be \"answer\", \"reject\" or \"ignore\"")),
        }
    }

    /// A table as a JSON object.
    fn object(self, value: &At<'_>, path: &str) -> Result<Map<String, Value>, String> {
        let table = value.get_ref().as_table().ok_or_else(|| self.at(value, &format!("{path} must be a table")))?;
        let member = |(key, value): (&Spanned<_>, _)| {
            let key: &str = AsRef::<str>::as_ref(key.get_ref());
            Ok((key.to_owned(), self.json(value, &format!("{path}.{}", shown(key)))?))
        };
        table.iter().map(member).collect()
    }

    /// A value as JSON. TOML's nesting is bounded by its parser, at 80 levels.
    fn json(self, value: &At<'_>, path: &str) -> Result<Value, String> {
        let no_json = |what| Err(self.at(value, &format!("{path} is {what}, which JSON does not have")));
        match value.get_ref() {
            DeValue::String(text) => Ok(Value::String(text.to_string())),
            DeValue::Boolean(truth) => Ok(Value::Bool(*truth)),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Ok(integer.into()),
                Err(_) => Err(self.at(value, &format!("{path} must be an integer of 64 bits"))),
            },
            DeValue::Float(float) => {
                let float = float.as_str().parse().ok().and_then(serde_json::Number::from_f64);
                float.map_or_else(|| no_json("a number without an end or no number"), |float| Ok(Value::Number(float)))
            }
            DeValue::Datetime(_) => no_json("a date or time"),
            DeValue::Array(items) => {
                let item = |(index, item): (usize, _)| self.json(item, &format!("{path}[{index}]"));
                items.iter().enumerate().map(item).collect::<Result<_, _>>().map(Value::Array)
            }
            DeValue::Table(_) => self.object(value, path).map(Value::Object),
        }
    }
}

fn member<'t, 'a>(table: &'t DeTable<'a>, name: &str) -> Option<&'t At<'a>> {
    table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
}

/// A key in an error.
fn shown(key: &str) -> String {
    key.chars().filter(|c| !is_invisible(*c)).take(64).collect()
}

/// Its end is enough to tell numbers apart, and leads nowhere.
fn name_of_id(id: &str) -> String {
    format!("number-{}", &id[id.len().saturating_sub(PHONE_DIGITS_MIN - 1)..])
}

fn is_invisible(c: char) -> bool {
    c.is_control()
        || c.is_whitespace() && c != ' '
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Digits in a row, as people write them: with spaces, hyphens, points, slashes and parentheses between them.
fn looks_like_a_phone_number(text: &str) -> bool {
    let mut run = 0;
    text.chars().any(|c| {
        match c {
            _ if c.is_numeric() => run += 1,
            ' ' | '-' | '.' | '/' | '(' | ')' => {}
            _ => run = 0,
        }
        run >= PHONE_DIGITS_MIN
    })
}
