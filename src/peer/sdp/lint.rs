//! The answer linter: holds an answer to what WhatsApp's validator and relay are known to want, and to our own promises.
//!
//! It reads text with code of its own and shares nothing with the writer or the offer's parser, so that one misreading
//! cannot hide in both. Stricter than WhatsApp: answers that were accepted in the field may fail it. An error is a
//! reason not to send the answer; a warning is something that WhatsApp takes and that we do not write.

mod document;
mod media;
mod transport;

use std::fmt;

use document::Document;

/// Longest text judged, in bytes.
pub const LINT_BYTES_MAX: usize = 64 * 1024;
/// Most lines judged.
pub const LINT_LINES_MAX: usize = 512;
/// Most findings reported for one answer: past that, the text is no answer.
pub const FINDINGS_MAX: usize = 64;

/// What else is known when an answer is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context<'a> {
    /// The offer that it answers. Without it, nothing is said about what was copied, echoed or not offered.
    pub offer: Option<&'a str>,
    /// Whether private and loopback addresses may stand in it, as on a test machine.
    pub allow_private: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// WhatsApp takes it, yet we do not write it.
    Warning,
    /// Refused, or media would not flow.
    Error,
}

/// What an answer is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// At most [`LINT_BYTES_MAX`] bytes and [`LINT_LINES_MAX`] lines.
    Size,
    /// Every line ends in CRLF, the last one too.
    LineEnds,
    /// Lines are `letter=value`, in the order of RFC 8866, section 5.
    Grammar,
    /// Exactly one m-line, for audio, on a port.
    OneMedia,
    /// The profile of the offer, over DTLS.
    Profile,
    /// One `c=` for the audio line; it and the port name one of the candidates.
    Connection,
    /// No address that only a private network or this host reaches.
    PrivateAddress,
    /// One host candidate for each family, UDP, component 1.
    Candidate,
    /// A full ICE agent.
    IceLite,
    /// All candidates are in the answer.
    Trickle,
    /// One ufrag and one pwd of RFC 8839's form.
    IceCredentials,
    /// The credentials are ours and not the offerer's.
    EchoedCredentials,
    /// Exactly one fingerprint.
    FingerprintCount,
    /// It is by sha-256 and well-formed.
    Fingerprint,
    /// It is ours and not the offerer's.
    EchoedFingerprint,
    /// `active`, or `passive` towards an offer that is active.
    Setup,
    /// No keys in the SDP.
    Sdes,
    /// The mid of the offer.
    Mid,
    /// A BUNDLE group if, and only if, it was offered.
    Bundle,
    /// `rtcp-mux`.
    RtcpMux,
    /// `sendrecv`.
    Direction,
    /// Payload types that were offered, each once, with nothing said about others.
    PayloadTypes,
    /// Opus 48000/2, telephone-event/8000, and nothing else.
    Codec,
    /// `fmtp` as offered.
    Fmtp,
    /// No feedback: error when it was not offered, warning when it was.
    RtcpFeedback,
    /// No header extension: error when it was not offered, warning when it was.
    Extmap,
    /// `ptime:20`, and `maxptime:20` if a maximum was offered. A missing `ptime` is a warning.
    PacketTime,
    /// Exactly one SSRC, with a cname.
    Ssrc,
    /// At most one stream with one track.
    Msid,
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which rule it breaks.
    pub rule: Rule,
    /// What is wrong, in words; never holds credentials.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {:?}: {}", self.rule, self.text)
    }
}

/// Judges an answer. No finding means that all rules hold.
pub fn lint(answer: &str, context: Context<'_>) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    if answer.len() > LINT_BYTES_MAX || context.offer.is_some_and(|offer| offer.len() > LINT_BYTES_MAX) {
        findings.error(Rule::Size, format!("the answer or its offer has more than {LINT_BYTES_MAX} bytes"));
        return findings.0;
    }
    let offer = context.offer.map(|offer| Document::read(offer, &mut Findings(Vec::new())));
    let document = Document::read(answer, &mut findings);
    transport::judge(&document, offer.as_ref(), context.allow_private, &mut findings);
    media::judge(&document, offer.as_ref(), &mut findings);
    findings.0
}

/// Collects findings, up to a bound.
struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, rule: Rule, text: impl Into<String>) {
        self.push(Severity::Error, rule, text.into());
    }

    fn warning(&mut self, rule: Rule, text: impl Into<String>) {
        self.push(Severity::Warning, rule, text.into());
    }

    fn push(&mut self, severity: Severity, rule: Rule, text: String) {
        if self.0.len() < FINDINGS_MAX {
            self.0.push(Finding { severity, rule, text });
        }
    }
}
