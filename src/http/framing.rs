//! Where a body ends: the judgement on `Content-Length` and `Transfer-Encoding` (RFC 9112 section 6), at its strictest.

use super::head::single;
use super::{BodyMax, Problem};

/// More digits than any length that fits 64 bits; longer ones are not a length but an attack on somebody's parser.
const LENGTH_DIGITS_MAX: usize = 18;

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes; 0 where the head says nothing.
    Length(usize),
    /// Until its last chunk.
    Chunked,
}

impl Framing {
    /// The same, unless it says that the body is longer than that.
    pub(super) fn within(self, max: BodyMax) -> Result<Self, Problem> {
        if matches!(self, Self::Length(length) if length > max.bytes) { Err(max.problem()) } else { Ok(self) }
    }
}

/// Judges the headers of a request. Names are in lower case, values trimmed.
pub(super) fn judge(headers: &[(String, Vec<u8>)], minor: u8) -> Result<Framing, Problem> {
    let length = single(headers, "content-length")
        .map_err(|()| Problem::framing("There is more than one Content-Length header."))?;
    let encoding = single(headers, "transfer-encoding")
        .map_err(|()| Problem::framing("There is more than one Transfer-Encoding header."))?;
    match (length, encoding) {
        (Some(_), Some(_)) => Err(Problem::framing("Content-Length and Transfer-Encoding exclude each other.")),
        (None, Some(_)) if minor == 0 => Err(Problem::framing("HTTP/1.0 has no Transfer-Encoding.")),
        (None, Some(encoding)) if encoding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (None, Some(_)) => Err(Problem::framing("Transfer-Encoding must be chunked and nothing else.")),
        (Some(length), None) => content_length(length).map(Framing::Length),
        (None, None) => Ok(Framing::Length(0)),
    }
}

fn content_length(value: &[u8]) -> Result<usize, Problem> {
    if value.is_empty() || value.len() > LENGTH_DIGITS_MAX || !value.iter().all(u8::is_ascii_digit) {
        return Err(Problem::framing("Content-Length must be one number in decimal digits."));
    }
    let length = value.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Ok(usize::try_from(length).unwrap_or(usize::MAX))
}
