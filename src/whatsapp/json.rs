//! JSON of Meta's, read piece by piece on its own text: what cannot be read spoils its own piece and nothing beside it.
//!
//! Members that nobody asks for are skipped, however deep: skipping does not recurse, and what is asked for is a few levels
//! deep. A member that is asked for and stands twice makes its object unreadable, since readers differ about which counts.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The members asked for; `null` counts as absent.
pub(super) struct Members<'a, const N: usize> {
    /// In the order asked for.
    pub(super) found: [Option<&'a RawValue>; N],
    /// Whether there is any that was not asked for.
    pub(super) has_others: bool,
}

/// The members of an object; `None` where the text is none, or cannot be read.
pub(super) fn members<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Option<Members<'a, N>> {
    serde_json::Deserializer::from_str(text).deserialize_map(MembersVisitor(names)).ok()
}

/// Hands over each element of an array; says whether it was one.
pub(super) fn each<'a>(array: &'a RawValue, act: impl FnMut(&'a RawValue)) -> bool {
    serde_json::Deserializer::from_str(array.get()).deserialize_seq(EachVisitor(act)).is_ok()
}

/// A string.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// An integer, written as a number or as a string.
pub(super) fn integer(value: &RawValue) -> Option<i64> {
    match text(value) {
        Some(text) => text.parse().ok(),
        None => value.get().parse().ok(),
    }
}

struct MembersVisitor<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for MembersVisitor<'_, N> {
    type Value = Members<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        let mut members = Members { found: [None; N], has_others: false };
        let mut stood = [false; N];
        while let Some(Name(name)) = map.next_key()? {
            let Some(at) = self.0.iter().position(|asked| *asked == name) else {
                members.has_others = true;
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if std::mem::replace(&mut stood[at], true) {
                return Err(serde::de::Error::custom("the same member twice"));
            }
            members.found[at] = map.next_value::<Option<&RawValue>>()?;
        }
        Ok(members)
    }
}

struct EachVisitor<F>(F);

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for EachVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element()? {
            (self.0)(element);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn members_are_found_by_name_whatever_stands_beside_them() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let text = format!(r#"{{"x":{deep},"b":[1, 2],"\u0061":"t","c":null,"x":1}}"#);
        let members = members(&text, ["a", "b", "c", "d"]).unwrap();
        assert_eq!(members.found.map(|value| value.map(RawValue::get)), [Some("\"t\""), Some("[1, 2]"), None, None]);
        assert!(members.has_others);
        assert!(!self::members(r#"{"a":1}"#, ["a"]).unwrap().has_others);
    }

    #[test]
    fn what_is_no_object_or_has_a_member_twice_is_not_read() {
        for text in ["[1]", "1", "null", "\"a\"", r#"{"a":1,"a":1}"#, r#"{"a":null,"\u0061":1}"#, r#"{"\ud800":1}"#] {
            assert!(members(text, ["a"]).is_none(), "{text}");
        }
    }

    #[test]
    fn an_array_hands_over_its_elements_and_nothing_else_does() {
        let mut seen = Vec::new();
        assert!(each(raw(r#"[1, {"a" : 2}, null]"#), |element| seen.push(element.get())));
        assert_eq!(seen, ["1", r#"{"a" : 2}"#, "null"]);
        for text in ["{}", "1", "\"a\"", "true"] {
            assert!(!each(raw(text), |_| panic!("{text}")));
        }
    }

    #[test]
    fn strings_and_integers_are_what_they_say_and_nothing_else() {
        assert_eq!(text(raw(r#""a\nb""#)).as_deref(), Some("a\nb"));
        assert_eq!(text(raw(r#""\ud800""#)), None);
        assert_eq!(text(raw("1")), None);
        for (json, value) in [("138021", Some(138_021)), ("\"138021\"", Some(138_021)), ("-1", Some(-1))] {
            assert_eq!(integer(raw(json)), value);
        }
        for json in ["1.5", "1e3", "\"\"", "\" 1\"", "null", "[1]", "99999999999999999999", "true"] {
            assert_eq!(integer(raw(json)), None, "{json}");
        }
    }
}
