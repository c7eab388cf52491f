//! Text of an offer to sections of attributes: the only place that splits an offer into lines.
//!
//! Promises bounded work: each byte is looked at a constant number of times, and every count has a maximum. Knows the
//! form `letter=value` and where sections begin, and no attribute by name.

use std::str::FromStr;

use super::offer_error::{OfferError, excerpt};

/// Largest offer read, in bytes. WhatsApp's are about 1 KiB, a browser's with video about 8 KiB.
pub const OFFER_BYTES_MAX: usize = 64 * 1024;
/// Most lines read. A browser's audio offer has 40 to 80.
pub const OFFER_LINES_MAX: usize = 512;
/// Most m-lines read, so that the error can say what is too much; only one is ever answered.
pub const OFFER_MEDIA_MAX: usize = 4;
/// Most attributes in one section. It also bounds candidates and formats; a host with many interfaces gathers about 40.
pub const OFFER_ATTRIBUTES_MAX: usize = 128;

/// One `a=` line.
#[derive(Clone, Copy)]
pub(super) struct Attribute<'a> {
    /// Line number, from 1.
    pub(super) line: u32,
    /// What stands before the colon.
    pub(super) name: &'a str,
    /// What stands behind it, without spaces at the ends; empty for a flag.
    pub(super) value: &'a str,
}

/// What stands between two m-lines.
pub(super) struct Section<'a> {
    /// Line number of the `m=` line; 1 for the session section.
    pub(super) line: u32,
    /// The value of the `m=` line; empty for the session section.
    pub(super) media: &'a str,
    /// In the order of the text.
    pub(super) attributes: Vec<Attribute<'a>>,
}

impl<'a> Section<'a> {
    /// All attributes of one name.
    pub(super) fn all(&self, name: &'static str) -> impl Iterator<Item = &Attribute<'a>> {
        self.attributes.iter().filter(move |attribute| attribute.name == name)
    }

    /// The attribute of that name. Saying it twice with different values leaves open which is meant: an error.
    pub(super) fn one(&self, name: &'static str) -> Result<Option<&Attribute<'a>>, OfferError> {
        let first = self.all(name).next();
        if let Some(first) = first
            && let Some(other) = self.all(name).find(|other| other.value != first.value)
        {
            let problem = "contradicts an earlier line of the same name; send one";
            return Err(OfferError::Attribute { line: other.line, attribute: name, problem });
        }
        Ok(first)
    }
}

/// A session description, split.
pub(super) struct Description<'a> {
    /// Lines before the first `m=`.
    pub(super) session: Section<'a>,
    /// One section for each `m=`.
    pub(super) media: Vec<Section<'a>>,
}

impl<'a> Description<'a> {
    /// Splits a text whose lines end in CRLF or LF, the last one perhaps in nothing.
    pub(super) fn read(text: &'a str) -> Result<Self, OfferError> {
        if text.len() > OFFER_BYTES_MAX {
            return Err(OfferError::TooLarge { bytes: text.len() });
        }
        let mut session = Section { line: 1, media: "", attributes: Vec::new() };
        let mut media: Vec<Section<'a>> = Vec::new();
        for (number, raw) in (1..).zip(text.lines()) {
            if number as usize > OFFER_LINES_MAX {
                return Err(OfferError::TooManyLines);
            }
            let line = raw.strip_suffix('\r').unwrap_or(raw);
            if number == 1 && line.trim_end_matches(' ') != "v=0" {
                return Err(not_an_offer(text));
            }
            if line.is_empty() {
                continue;
            }
            let (kind, value) = split(line).map_err(|problem| OfferError::NotSdp { line: number, problem })?;
            match kind {
                b'm' if media.len() == OFFER_MEDIA_MAX => return Err(OfferError::TooManyMedia { line: number }),
                b'm' => media.push(Section { line: number, media: value, attributes: Vec::new() }),
                b'a' => {
                    let section = media.last_mut().unwrap_or(&mut session);
                    if section.attributes.len() == OFFER_ATTRIBUTES_MAX {
                        return Err(OfferError::TooManyAttributes { line: number });
                    }
                    let (name, value) = value.split_once(':').unwrap_or((value, ""));
                    section.attributes.push(Attribute { line: number, name, value: value.trim_matches(' ') });
                }
                _ => {} // timing, bandwidth, connection: with ICE, none of them says anything we use
            }
        }
        if text.is_empty() { Err(not_an_offer(text)) } else { Ok(Self { session, media }) }
    }
}

/// A line's letter and value.
fn split(line: &str) -> Result<(u8, &str), &'static str> {
    // A lone CR or a NUL means different things to different readers, so nothing that holds one is read.
    if line.contains(char::is_control) {
        return Err("holds a control character; lines end in CRLF or LF and hold plain text");
    }
    match line.as_bytes() {
        [kind @ b'a'..=b'z', b'=', ..] => Ok((*kind, line[2..].trim_end_matches(' '))),
        _ => Err("is not of the form `letter=value`"),
    }
}

/// A decimal number as SDP writes it: digits without a sign or leading zeros.
pub(super) fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    digits.then(|| text.parse().ok()).flatten()
}

/// The first line is not `v=0`: says so, and guesses the usual cause.
fn not_an_offer(text: &str) -> OfferError {
    let problem = if text.starts_with("v=0\\") {
        "carries its line ends as the characters \\r\\n; decode the JSON string once more"
    } else if excerpt(text).trim_start().starts_with('{') {
        "is JSON, not SDP; send the value of its \"sdp\" field"
    } else {
        "is not `v=0`, with which every session description starts"
    };
    OfferError::NotSdp { line: 1, problem }
}
