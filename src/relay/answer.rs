//! What the relay reads of an answer, and what it refuses as WhatsApp does.
//!
//! Its own reading, on purpose: the parser of the code under test must not judge that code's writing. It reads what
//! the media path needs and is no linter of the rest.

use std::fmt;

/// An answer longer than this is refused unread.
const BYTES_MAX: usize = 64 * 1024;

/// What the media path needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The answerer's ICE username fragment.
    pub ufrag: String,
    /// The answerer's ICE password.
    pub password: String,
    /// The answerer's certificate: SHA-256, 32 bytes.
    pub fingerprint: Vec<u8>,
    /// The SSRC it announces.
    pub ssrc: Option<u32>,
}

/// Why an answer was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// No call has this key.
    UnknownCall,
    /// This call has its answer: there is no renegotiation.
    SecondAnswer,
    /// Longer than anyone's answer.
    TooLong,
    /// The named line is missing, or is there more than once.
    NotExactlyOne(&'static str),
    /// The named line does not parse.
    Malformed(&'static str),
    /// The fingerprint is not SHA-256, the only one that WhatsApp takes.
    NotSha256,
    /// `a=setup` is not `active`: the relay never opens the DTLS connection, so the call would stay silent.
    NotActive,
    /// The accepted payload types lack Opus as offered.
    NoOpus,
    /// Credentials of the offer came back as the answerer's own.
    Echoed(&'static str),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCall => write!(f, "no such call"),
            Self::SecondAnswer => write!(f, "the call already has its answer"),
            Self::TooLong => write!(f, "longer than {BYTES_MAX} bytes"),
            Self::NotExactlyOne(line) => write!(f, "not exactly one {line} line"),
            Self::Malformed(line) => write!(f, "malformed {line} line"),
            Self::NotSha256 => write!(f, "the fingerprint is not sha-256"),
            Self::NotActive => write!(f, "a=setup is not active"),
            Self::NoOpus => write!(f, "payload type 111 was not accepted"),
            Self::Echoed(line) => write!(f, "{line} is the offer's own"),
        }
    }
}

impl std::error::Error for AnswerError {}

impl Answer {
    /// Reads `text`; lines may end in LF alone.
    pub(super) fn parse(text: &str) -> Result<Self, AnswerError> {
        if text.len() > BYTES_MAX {
            return Err(AnswerError::TooLong);
        }
        let media = one(text, "m=")?.split(' ').collect::<Vec<_>>();
        if !media.starts_with(&["audio"]) || !media.iter().skip(3).any(|pt| *pt == "111") {
            return Err(AnswerError::NoOpus);
        }
        if one(text, "a=setup:")? != "active" {
            return Err(AnswerError::NotActive);
        }
        let (hash, hex) = one(text, "a=fingerprint:")?.split_once(' ').ok_or(AnswerError::NotSha256)?;
        if !hash.eq_ignore_ascii_case("sha-256") {
            return Err(AnswerError::NotSha256);
        }
        let bytes = hex.split(':').map(|byte| u8::from_str_radix(byte, 16));
        let fingerprint: Vec<u8> =
            bytes.collect::<Result<_, _>>().map_err(|_| AnswerError::Malformed("a=fingerprint:"))?;
        if fingerprint.len() != 32 {
            return Err(AnswerError::Malformed("a=fingerprint:"));
        }
        let ssrc = match lines(text, "a=ssrc:").next() {
            None => None,
            Some(line) => {
                let number = line.split(' ').next().and_then(|number| number.parse().ok());
                Some(number.ok_or(AnswerError::Malformed("a=ssrc:"))?)
            }
        };
        let (ufrag, password) = (one(text, "a=ice-ufrag:")?, one(text, "a=ice-pwd:")?);
        Ok(Self { ufrag: ufrag.into(), password: password.into(), fingerprint, ssrc })
    }
}

/// What follows `prefix` on each line that starts with it.
fn lines<'a>(text: &'a str, prefix: &'static str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.strip_prefix(prefix))
}

/// What follows `prefix` on the only line that starts with it.
fn one<'a>(text: &'a str, prefix: &'static str) -> Result<&'a str, AnswerError> {
    let mut found = lines(text, prefix);
    match (found.next(), found.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(AnswerError::NotExactlyOne(prefix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> String {
        let fingerprint = ["AB"; 32].join(":");
        format!(
            "v=0\r\nm=audio 40000 UDP/TLS/RTP/SAVPF 111 126\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
             a=fingerprint:sha-256 {fingerprint}\r\na=setup:active\r\na=ssrc:77 cname:bridge\r\n"
        )
    }

    #[test]
    fn an_answer_gives_credentials_certificate_and_stream() {
        let answer = Answer::parse(&good()).unwrap();
        assert_eq!((answer.ufrag.as_str(), answer.password.as_str()), ("abcd", "0123456789012345678901"));
        assert_eq!((answer.fingerprint, answer.ssrc), (vec![0xab; 32], Some(77)));
        assert!(Answer::parse(&good().replace("\r\n", "\n")).is_ok());
        assert_eq!(Answer::parse(&good().replace("a=ssrc", "a=nothing")).unwrap().ssrc, None);
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let good = good();
        let twice = good.clone() + "a=fingerprint:sha-384 00\r\n";
        for (text, error) in [
            (good.replace("a=setup:active", "a=setup:passive"), AnswerError::NotActive),
            (good.replace("a=ice-pwd", "a=x"), AnswerError::NotExactlyOne("a=ice-pwd:")),
            (good.replace(" 111 126", " 126"), AnswerError::NoOpus),
            (good.replace("m=audio", "m=video"), AnswerError::NoOpus),
            (good.replace("sha-256", "sha-384"), AnswerError::NotSha256),
            (good.replace("AB:AB:AB", "AB:XY:AB"), AnswerError::Malformed("a=fingerprint:")),
            (good.replace("AB:AB:AB", "AB"), AnswerError::Malformed("a=fingerprint:")),
            (good.replace("ssrc:77", "ssrc:none"), AnswerError::Malformed("a=ssrc:")),
            (twice, AnswerError::NotExactlyOne("a=fingerprint:")),
            (good.clone() + &"x".repeat(BYTES_MAX), AnswerError::TooLong),
            (String::new(), AnswerError::NotExactlyOne("m=")),
        ] {
            assert_eq!(Answer::parse(&text), Err(error), "{text:.400}");
        }
    }
}
