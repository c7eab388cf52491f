//! Text to lines for the linter: reads anything, and says what is wrong with its form.

use super::{Findings, LINT_LINES_MAX, Rule};

/// An `a=` line.
#[derive(Clone, Copy)]
struct Attribute<'a> {
    /// Whether it stands behind an m-line.
    of_media: bool,
    name: &'a str,
    value: &'a str,
}

/// The lines of a session description that are judged.
#[derive(Default)]
pub(super) struct Document<'a> {
    /// Value of each `m=` line.
    pub(super) media: Vec<&'a str>,
    /// Value of the last `c=` line: the one that counts for a single m-line.
    pub(super) connection: Option<&'a str>,
    attributes: Vec<Attribute<'a>>,
}

/// The letters of each level in the order that RFC 8866 gives them.
const SESSION_ORDER: &[u8] = b"vosiuepcbtrzka";
const MEDIA_ORDER: &[u8] = b"micbka";
/// Letters that may come more than once in a level.
const REPEATABLE: &[u8] = b"epbtra";

impl<'a> Document<'a> {
    /// Reads all lines; reports those that are out of form or out of order.
    pub(super) fn read(text: &'a str, findings: &mut Findings) -> Self {
        let mut document = Self::default();
        let mut order = SESSION_ORDER;
        let mut reached: Option<usize> = None;
        let mut seen = [false; 256];
        for (number, raw) in (1..).zip(text.split_inclusive('\n')) {
            if number > LINT_LINES_MAX {
                findings.error(Rule::Size, format!("more than {LINT_LINES_MAX} lines"));
                break;
            }
            let line = raw.trim_end_matches(['\r', '\n']);
            if raw.strip_suffix("\r\n") != Some(line) {
                findings.error(Rule::LineEnds, format!("line {number} does not end in CRLF"));
            }
            let [kind, b'=', ..] = *line.as_bytes() else {
                findings.error(Rule::Grammar, format!("line {number} is not `letter=value`"));
                continue;
            };
            if !line.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
                findings.error(Rule::Grammar, format!("line {number} is not printable ASCII"));
            }
            let value = line[2..].trim_end_matches(' ');
            if value.is_empty() {
                findings.error(Rule::Grammar, format!("line {number} has no value"));
            }
            if kind == b'm' {
                document.media.push(value);
                (order, reached) = (MEDIA_ORDER, Some(0));
                continue;
            }
            let letter = char::from(kind);
            match order.iter().position(|known| *known == kind) {
                None => findings.error(Rule::Grammar, format!("line {number}: {letter}= has no place here")),
                Some(rank) => match reached {
                    Some(before) if rank < before => {
                        let before = char::from(order[before]);
                        findings.error(Rule::Grammar, format!("line {number}: {letter}= after {before}="));
                    }
                    Some(before) if rank == before && !REPEATABLE.contains(&kind) => {
                        findings.error(Rule::Grammar, format!("line {number}: a second {letter}="));
                    }
                    _ => reached = Some(rank),
                },
            }
            seen[usize::from(kind)] = true;
            document.take(kind, value, number, findings);
        }
        for kind in b"vost" {
            if !seen[usize::from(*kind)] {
                findings.error(Rule::Grammar, format!("{}= is missing", char::from(*kind)));
            }
        }
        document
    }

    /// Keeps or judges the value of a line.
    fn take(&mut self, kind: u8, value: &'a str, number: usize, findings: &mut Findings) {
        let well_formed = match kind {
            b'v' => value == "0",
            b'o' => is_origin(value),
            b't' => value == "0 0",
            b'c' => {
                self.connection = Some(value);
                true
            }
            b'a' => {
                let (name, value) = value.split_once(':').unwrap_or((value, ""));
                let of_media = !self.media.is_empty();
                self.attributes.push(Attribute { of_media, name, value: value.trim_matches(' ') });
                !name.is_empty()
            }
            _ => true,
        };
        if !well_formed {
            findings.error(Rule::Grammar, format!("line {number}: the value of {}= is malformed", char::from(kind)));
        }
    }

    /// Values of all attributes of that name, at any level.
    pub(super) fn all<'d>(&'d self, name: &'d str) -> impl Iterator<Item = &'a str> + 'd {
        self.attributes.iter().filter(move |attribute| attribute.name == name).map(|attribute| attribute.value)
    }

    /// Values of all attributes of that name before the m-line.
    pub(super) fn of_session<'d>(&'d self, name: &'d str) -> impl Iterator<Item = &'a str> + 'd {
        self.attributes.iter().filter(move |attribute| !attribute.of_media && attribute.name == name).map(|a| a.value)
    }

    /// Values of all attributes of that name behind the m-line.
    pub(super) fn of_media<'d>(&'d self, name: &'d str) -> impl Iterator<Item = &'a str> + 'd {
        self.attributes.iter().filter(move |attribute| attribute.of_media && attribute.name == name).map(|a| a.value)
    }

    /// The first value of that name behind the m-line; when there is none, the first before it.
    pub(super) fn first(&self, name: &str) -> Option<&'a str> {
        self.of_media(name).next().or_else(|| self.of_session(name).next())
    }

    /// Whether there is such an attribute.
    pub(super) fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// What the first `payload-type text` of that name behind the m-line says of this payload type.
    pub(super) fn of_payload_type(&self, name: &str, payload_type: u8) -> Option<&'a str> {
        let payload_type = payload_type.to_string();
        self.of_media(name).find_map(|value| {
            let (of, text) = value.split_once(' ')?;
            (of == payload_type).then(|| text.trim_matches(' '))
        })
    }
}

/// `username session-id version IN IP4|IP6 address`, the session id below 2^63 (RFC 8829, section 5.2.1).
fn is_origin(value: &str) -> bool {
    match value.split(' ').collect::<Vec<_>>()[..] {
        [user, id, version, "IN", "IP4" | "IP6", address] => {
            let numbers = id.parse::<i64>().is_ok_and(|id| id >= 0) && version.parse::<u64>().is_ok();
            numbers && !user.is_empty() && !address.is_empty()
        }
        _ => false,
    }
}
