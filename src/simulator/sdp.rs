//! What Meta takes as an answer, rule by rule, each with its code and with how sure it is that Meta has it.
//!
//! Its own reading, on purpose: the parser and the linter of the code under test must not judge that code's writing. The
//! rules behind Meta's 138008 are unpublished: these are strict ones that agree with all that is documented and with every
//! answer that is known to have been taken. A rule, and whether Meta refuses by it, are two things; a mark is the rule's.
//! It must not know calls or HTTP.

use super::Certainty;
use super::Certainty::{Documented, Inferred, Seen};

/// An answer longer than this is refused unread.
const BYTES_MAX: usize = 64 * 1024;

/// A rule for answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Meta's error code.
    pub code: u32,
    /// Meta's `error_subcode`.
    pub subcode: Option<u32>,
    /// How sure it is that an answer must be so. That Meta refuses any other, with this code, is inferred unless seen.
    pub certainty: Certainty,
    /// What an answer must be, as a sentence.
    pub text: &'static str,
}

const fn rule(code: u32, certainty: Certainty, text: &'static str) -> Rule {
    Rule { code, subcode: None, certainty, text }
}

/// Meta's code for an answer that is not valid.
pub(super) const INVALID: u32 = 138_008;

const LONG: Rule = rule(INVALID, Inferred, "An answer is no longer than 64 KiB.");
const LINE_ENDS: Rule = rule(INVALID, Documented, "Every line ends with CR LF, the last one too.");
const LINES: Rule = rule(INVALID, Inferred, "Every line is a lower-case letter, an equals sign and a value.");
const ORDER: Rule = rule(INVALID, Inferred, "Lines stand in the order of RFC 8866: v o s c t a, under m: c a.");
// Meta refused such an answer. It had other faults as well, and this one is the likeliest cause.
const PLACE_OF_C: Rule = rule(INVALID, Inferred, "c= stands before t= or under m=, never between t= and m=.");
const VERSION: Rule =
    rule(INVALID, Inferred, "The lines v=0, o= with six parts, s= and t= with two numbers are there.");
const MEDIA: Rule = rule(INVALID, Documented, "There is exactly one m= line, and it is audio with a port above 0.");
const PROTOCOL: Rule = rule(INVALID, Inferred, "The media's protocol is UDP/TLS/RTP/SAVPF.");
const PAYLOAD_TYPES: Rule = rule(INVALID, Documented, "Each payload type was offered, and none stands twice.");
const OPUS: Rule =
    rule(INVALID, Documented, "Opus is accepted: its payload type as offered, with rtpmap opus/48000/2.");
const BUNDLE: Rule = rule(INVALID, Inferred, "a=group:BUNDLE and a=mid name the offer's mid.");
const NO_FINGERPRINT: Rule = rule(100, Documented, "The answer has a fingerprint.");
const FINGERPRINTS: Rule = Rule {
    code: 100,
    subcode: Some(2_494_010),
    certainty: Seen,
    text: "There is exactly one fingerprint, and it is sha-256.",
};
const FINGERPRINT: Rule = rule(INVALID, Inferred, "A sha-256 fingerprint is 32 bytes, two hexadecimal digits each.");
const FINGERPRINT_OWN: Rule = rule(INVALID, Inferred, "The fingerprint is the answerer's own, not the offer's.");
const SETUP: Rule = rule(INVALID, Documented, "a=setup is there once, and is active: the relay opens no DTLS.");
const CREDENTIALS: Rule =
    rule(INVALID, Inferred, "a=ice-ufrag (4 characters or more) and a=ice-pwd (22) are there once.");
const CREDENTIALS_OWN: Rule = rule(INVALID, Inferred, "ICE credentials are the answerer's own, not the offer's.");
const PTIME: Rule = rule(INVALID, Documented, "a=ptime, where there is one, is 20, and a=maxptime at least that.");
const ONE_SSRC: Rule = rule(INVALID, Documented, "At most one SSRC is announced.");
const RTCP_MUX: Rule = rule(INVALID, Inferred, "a=rtcp-mux is there.");
const DIRECTION: Rule = rule(INVALID, Inferred, "Media goes both ways: a=sendrecv, or no direction at all.");
const CANDIDATES: Rule = rule(INVALID, Inferred, "Candidates, where there are any, are whole lines of RFC 8839.");

/// Every rule, in the order in which an answer is held to them.
pub static RULES: [&Rule; 23] = [
    &LONG,
    &LINE_ENDS,
    &LINES,
    &ORDER,
    &PLACE_OF_C,
    &VERSION,
    &MEDIA,
    &PROTOCOL,
    &PAYLOAD_TYPES,
    &OPUS,
    &BUNDLE,
    &NO_FINGERPRINT,
    &FINGERPRINTS,
    &FINGERPRINT,
    &FINGERPRINT_OWN,
    &SETUP,
    &CREDENTIALS,
    &CREDENTIALS_OWN,
    &PTIME,
    &ONE_SSRC,
    &RTCP_MUX,
    &DIRECTION,
    &CANDIDATES,
];

/// What an answer is held against: of the offer of its call.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Offered {
    payload_types: Vec<String>,
    opus: String,
    mid: String,
    ufrag: String,
    password: String,
    fingerprint: String,
}

impl std::fmt::Debug for Offered {
    /// Credentials are not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Offered({:?}, mid {:?})", self.payload_types, self.mid)
    }
}

impl Offered {
    /// Reads an offer of this program's own. `None` where it is not one.
    pub(super) fn of(offer: &str) -> Option<Self> {
        let lines: Vec<&str> = offer.lines().collect();
        let value = |prefix: &str| lines.iter().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
        let opus = lines.iter().find_map(|line| line.strip_prefix("a=rtpmap:")?.strip_suffix(" opus/48000/2"))?;
        Some(Self {
            payload_types: value("m=audio ")?.split(' ').skip(2).map(str::to_owned).collect(),
            opus: opus.to_owned(),
            mid: value("a=mid:")?,
            ufrag: value("a=ice-ufrag:")?,
            password: value("a=ice-pwd:")?,
            fingerprint: value("a=fingerprint:")?.split_once(' ')?.1.to_ascii_uppercase(),
        })
    }
}

/// Holds an answer to every rule; the first that it breaks.
pub(super) fn judge(answer: &str, offered: &Offered) -> Result<(), &'static Rule> {
    let lines = lines(answer)?;
    judge_order(&lines)?;
    judge_media(&lines, offered)?;
    judge_identity(&lines, offered)?;
    judge_attributes(&lines)
}

/// What is said of an answer that claims to be lite.
pub(super) const LITE: &str =
    "the answer has a=ice-lite: Meta took one such [seen live], but the relay is lite, and two that are never meet";

/// Whether an answer claims to be lite. Meta takes it: one was connected, by a stack that sent checks all the same.
pub(super) fn is_lite(answer: &str) -> bool {
    answer.lines().any(|line| line == "a=ice-lite")
}

fn hold(holds: bool, rule: &'static Rule) -> Result<(), &'static Rule> {
    if holds { Ok(()) } else { Err(rule) }
}

/// A line: its letter and its value.
type Line<'a> = (char, &'a str);

fn lines(answer: &str) -> Result<Vec<Line<'_>>, &'static Rule> {
    hold(answer.len() <= BYTES_MAX, &LONG)?;
    let body = answer.strip_suffix("\r\n").ok_or(&LINE_ENDS)?;
    let parse = |line| {
        let (letter, value) = str::split_once(line, '=').ok_or(&LINES)?;
        match letter.as_bytes() {
            [letter @ b'a'..=b'z'] if !value.is_empty() => Ok((char::from(*letter), value)),
            _ => Err(&LINES),
        }
    };
    let lines: Vec<&str> = body.split("\r\n").collect();
    hold(!lines.iter().any(|line| line.contains(['\r', '\n', '\0'])), &LINE_ENDS)?;
    lines.into_iter().map(parse).collect()
}

/// RFC 8866 section 5 and 9. Letters that may come again stand at the same place.
fn judge_order(lines: &[Line<'_>]) -> Result<(), &'static Rule> {
    const SESSION: &str = "vosiuepcbtrzka";
    const MEDIA: &str = "icbka";
    const AGAIN: &str = "epbtra";
    let media = lines.iter().position(|(letter, _)| *letter == 'm').unwrap_or(lines.len());
    let (session, rest) = lines.split_at(media);
    let mut connected = false;
    let mut sections = vec![(session, SESSION)];
    sections.extend(rest.split(|(letter, _)| *letter == 'm').skip(1).map(|section| (section, MEDIA)));
    for (section, order) in sections {
        let mut last = None;
        for (letter, _) in section {
            let place = order.find(*letter).ok_or(&ORDER)?;
            let follows = last.is_none_or(|last| place > last || (place == last && AGAIN.contains(*letter)));
            hold(follows, if *letter == 'c' { &PLACE_OF_C } else { &ORDER })?;
            connected |= *letter == 'c';
            last = Some(place);
        }
    }
    hold(connected, &PLACE_OF_C)?;
    let one = |wanted: char| session.iter().find(|(letter, _)| *letter == wanted).map(|(_, value)| *value);
    let numbers =
        |value: &str| value.split(' ').count() == 2 && value.split(' ').all(|part| part.parse::<u64>().is_ok());
    let is_whole = one('v') == Some("0")
        && one('o').is_some_and(|value| value.split(' ').count() == 6)
        && one('s').is_some()
        && one('t').is_some_and(numbers);
    hold(is_whole, &VERSION)
}

fn judge_media(lines: &[Line<'_>], offered: &Offered) -> Result<(), &'static Rule> {
    let mut media = lines.iter().filter(|(letter, _)| *letter == 'm').map(|(_, value)| value);
    let (Some(media), None) = (media.next(), media.next()) else { return Err(&MEDIA) };
    let mut words = media.split(' ');
    hold(words.next() == Some("audio"), &MEDIA)?;
    hold(words.next().and_then(|port| port.parse::<u16>().ok()).is_some_and(|port| port > 0), &MEDIA)?;
    hold(words.next() == Some("UDP/TLS/RTP/SAVPF"), &PROTOCOL)?;
    let types: Vec<&str> = words.collect();
    let is_once = |wanted: &&str| types.iter().filter(|other| *other == wanted).count() == 1;
    hold(types.iter().all(|pt| offered.payload_types.iter().any(|known| known == pt) && is_once(pt)), &PAYLOAD_TYPES)?;
    let is_opus = |value: &str| {
        let rest = value.strip_prefix(offered.opus.as_str()).and_then(|rest| rest.strip_prefix(' '));
        rest.is_some_and(|codec| codec.eq_ignore_ascii_case("opus/48000/2"))
    };
    hold(types.contains(&offered.opus.as_str()) && values(lines, "rtpmap:").any(is_opus), &OPUS)?;
    let group = only(lines, "group:").and_then(|group| group.strip_prefix("BUNDLE "));
    hold(group == Some(&offered.mid) && only(lines, "mid:") == Some(&offered.mid), &BUNDLE)
}

fn judge_identity(lines: &[Line<'_>], offered: &Offered) -> Result<(), &'static Rule> {
    let mut fingerprints = values(lines, "fingerprint:");
    let fingerprint = fingerprints.next().ok_or(&NO_FINGERPRINT)?;
    let (hash, digits) = fingerprint.split_once(' ').ok_or(&FINGERPRINTS)?;
    hold(fingerprints.next().is_none() && hash.eq_ignore_ascii_case("sha-256"), &FINGERPRINTS)?;
    let is_byte = |byte: &str| byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
    hold(digits.split(':').count() == 32 && digits.split(':').all(is_byte), &FINGERPRINT)?;
    hold(!digits.eq_ignore_ascii_case(&offered.fingerprint), &FINGERPRINT_OWN)?;
    hold(only(lines, "setup:") == Some("active"), &SETUP)?;
    // `=` is in none of the grammar's letters, but Meta's own passwords have it.
    let is_credential = |value: &str, least: usize| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        (least..=256).contains(&value.len()) && value.bytes().all(is_letter)
    };
    let (Some(ufrag), Some(password)) = (only(lines, "ice-ufrag:"), only(lines, "ice-pwd:")) else {
        return Err(&CREDENTIALS);
    };
    hold(is_credential(ufrag, 4) && is_credential(password, 22), &CREDENTIALS)?;
    hold(ufrag != offered.ufrag && password != offered.password, &CREDENTIALS_OWN)
}

fn judge_attributes(lines: &[Line<'_>]) -> Result<(), &'static Rule> {
    let at_least_20 = |value: &str| value.parse::<u32>().is_ok_and(|ms| ms >= 20);
    hold(values(lines, "ptime:").all(|ms| ms == "20") && values(lines, "maxptime:").all(at_least_20), &PTIME)?;
    let mut ssrcs: Vec<&str> = values(lines, "ssrc:").filter_map(|value| value.split(' ').next()).collect();
    ssrcs.dedup();
    hold(ssrcs.len() <= 1 && values(lines, "ssrc-group:").next().is_none(), &ONE_SSRC)?;
    hold(has(lines, "rtcp-mux"), &RTCP_MUX)?;
    hold(!["sendonly", "recvonly", "inactive"].iter().any(|direction| has(lines, direction)), &DIRECTION)?;
    hold(values(lines, "candidate:").all(is_candidate), &CANDIDATES)
}

/// RFC 8839 section 5.1: foundation, component, transport, priority, address, port, `typ` and its type.
fn is_candidate(value: &str) -> bool {
    match value.split(' ').collect::<Vec<_>>()[..] {
        [_, component, _, priority, _, port, "typ", kind, ..] => {
            component.parse::<u16>().is_ok()
                && priority.parse::<u32>().is_ok()
                && port.parse::<u16>().is_ok()
                && ["host", "srflx", "prflx", "relay"].contains(&kind)
        }
        _ => false,
    }
}

/// The values of an attribute, wherever it stands.
fn values<'a>(lines: &[Line<'a>], name: &'static str) -> impl Iterator<Item = &'a str> {
    lines.iter().filter(|(letter, _)| *letter == 'a').filter_map(move |(_, value)| value.strip_prefix(name))
}

/// The value of an attribute that stands once.
fn only<'a>(lines: &[Line<'a>], name: &'static str) -> Option<&'a str> {
    let mut values = values(lines, name);
    let first = values.next();
    if values.next().is_some() { None } else { first }
}

fn has(lines: &[Line<'_>], name: &str) -> bool {
    lines.contains(&('a', name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> String {
        let path = format!("{}/tests/fixtures/sdp/{name}.sdp", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).expect(name)
    }

    fn offered(name: &str) -> Offered {
        Offered::of(&fixture(name)).expect("an offer")
    }

    #[test]
    fn answers_that_meta_is_known_to_take_are_taken() {
        for (answer, offer) in [
            ("answer-metadoc-uic", "offer-metadoc-uic"),
            ("answer-accepted-2025-10-17", "offer-live-2025-10-17"),
            ("proposed-answer", "offer-live-2026-10-02"),
            // Its offer is not published; this one is of the same source and of the same month.
            ("answer-accepted-dtls-connected-2025-10-23", "offer-live-2025-10-17"),
        ] {
            assert_eq!(judge(&fixture(answer), &offered(offer)), Ok(()), "{answer}");
            assert_eq!(is_lite(&fixture(answer)), answer.contains("dtls-connected"), "{answer}");
        }
    }

    #[test]
    fn answers_that_meta_is_known_to_refuse_are_refused_with_its_codes() {
        let live = offered("offer-live-2025-10-17");
        let judged = |name: &str| judge(&fixture(name), &live).expect_err(name);
        let three = judged("negative-answer-three-fingerprints");
        assert_eq!((three.code, three.subcode), (100, Some(2_494_010)));
        assert_eq!(judged("negative-answer-seed-432"), &PLACE_OF_C);
        assert_eq!(judged("negative-answer-seed-echoed-credentials").code, INVALID);
    }

    #[test]
    fn each_rule_is_broken_by_one_change() {
        let (good, offered) = (fixture("proposed-answer"), offered("offer-live-2026-10-02"));
        let offer = fixture("offer-live-2026-10-02");
        let line = |text: &str, prefix: &str| {
            let line = text.lines().find(|line| line.starts_with(prefix)).expect(prefix);
            format!("{line}\r\n")
        };
        let of_offer = |prefix: &str| good.replace(&line(&good, prefix), &line(&offer, prefix));
        let without = |prefix: &str| good.replace(&line(&good, prefix), "");
        let plus = |more: &str| format!("{good}{more}\r\n");
        for (answer, rule) in [
            (format!("{good}a={}\r\n", "x".repeat(BYTES_MAX)), &LONG),
            (good.replace("\r\n", "\n"), &LINE_ENDS),
            (good.trim_end().to_owned(), &LINE_ENDS),
            (plus("A=x"), &LINES),
            (plus("a="), &LINES),
            (good.replace("s=-\r\nt=0 0\r\n", "t=0 0\r\ns=-\r\n"), &ORDER),
            (good.replace("t=0 0\r\n", "t=0 0\r\nc=IN IP4 198.51.100.7\r\n"), &PLACE_OF_C),
            (without("c="), &PLACE_OF_C),
            (good.replace("v=0", "v=1"), &VERSION),
            (without("t="), &VERSION),
            (good.replace("m=audio 40000", "m=audio 0"), &MEDIA),
            (good.replace("m=audio", "m=video"), &MEDIA),
            (plus("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 198.51.100.7"), &MEDIA),
            (good.replace("UDP/TLS/RTP/SAVPF", "RTP/SAVP"), &PROTOCOL),
            (good.replace("SAVPF 111 126", "SAVPF 111 126 96"), &PAYLOAD_TYPES),
            (good.replace("SAVPF 111 126", "SAVPF 111 111"), &PAYLOAD_TYPES),
            (good.replace("SAVPF 111 126", "SAVPF 126"), &OPUS),
            (good.replace("opus/48000/2", "opus/48000"), &OPUS),
            (good.replace("a=mid:audio", "a=mid:0"), &BUNDLE),
            (good.replace("BUNDLE audio", "BUNDLE 0"), &BUNDLE),
            (without("a=fingerprint:"), &NO_FINGERPRINT),
            (good.replace("sha-256", "sha-512"), &FINGERPRINTS),
            (good.replace("00:11:22", "00:11"), &FINGERPRINT),
            (good.replace("00:11:22", "00:11:2x"), &FINGERPRINT),
            (of_offer("a=fingerprint:"), &FINGERPRINT_OWN),
            (good.replace("a=setup:active", "a=setup:passive"), &SETUP),
            (without("a=ice-ufrag:"), &CREDENTIALS),
            (good.replace("kLmN0pQrStUvWxYz12345678", "short"), &CREDENTIALS),
            (of_offer("a=ice-ufrag:"), &CREDENTIALS_OWN),
            (of_offer("a=ice-pwd:"), &CREDENTIALS_OWN),
            (good.replace("a=ptime:20", "a=ptime:40"), &PTIME),
            (good.replace("a=maxptime:20", "a=maxptime:10"), &PTIME),
            (plus("a=ssrc:7 cname:another"), &ONE_SSRC),
            (without("a=rtcp-mux"), &RTCP_MUX),
            (good.replace("a=sendrecv", "a=recvonly"), &DIRECTION),
            (good.replace("typ host", "host"), &CANDIDATES),
        ] {
            assert_eq!(judge(&answer, &offered), Err(rule), "{answer:.800}");
        }
        let unbroken = without("a=candidate:").replace("sha-256", "SHA-256");
        assert_eq!(judge(&unbroken, &offered), Ok(()), "candidates are optional, and the hash's name has no case");
    }

    #[test]
    fn every_rule_is_listed_once_and_says_itself_in_a_sentence() {
        for (place, rule) in RULES.iter().enumerate() {
            assert!(!RULES[..place].contains(rule), "{}", rule.text);
            assert!(rule.text.ends_with('.') && rule.text.len() < 120, "{}", rule.text);
        }
    }
}
