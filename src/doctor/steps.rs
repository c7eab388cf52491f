//! The steps of a call, and how they are told.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A step, in the order of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// The name of the API's host has an address.
    Dns,
    /// It takes connections.
    Tcp,
    /// TLS, where the URL says so.
    Tls,
    /// The token opens the API.
    Token,
    /// The bridge takes calls.
    Ready,
    /// The offer is answered.
    Offer,
    /// The answer is one that WhatsApp takes.
    Answer,
    /// A connectivity check comes: UDP from the bridge to the caller.
    Stun,
    /// ICE has its pair: UDP both ways.
    Ice,
    /// The DTLS handshake.
    Dtls,
    /// The first RTP packet of the bridge.
    Media,
    /// The model is heard.
    Voice,
    /// The caller is heard by the model.
    Speech,
    /// RTP both ways, without loss, for some seconds.
    Flow,
    /// Packets come on their beat.
    Timing,
    /// The call is hung up, and the caller told.
    Hangup,
    /// The bridge remembers the call, and how it ended.
    Record,
}

impl Name {
    /// All of them, in order.
    pub const ALL: [Self; 17] = [
        Self::Dns,
        Self::Tcp,
        Self::Tls,
        Self::Token,
        Self::Ready,
        Self::Offer,
        Self::Answer,
        Self::Stun,
        Self::Ice,
        Self::Dtls,
        Self::Media,
        Self::Voice,
        Self::Speech,
        Self::Flow,
        Self::Timing,
        Self::Hangup,
        Self::Record,
    ];

    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Token => "token",
            Self::Ready => "ready",
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::Stun => "stun",
            Self::Ice => "ice",
            Self::Dtls => "dtls",
            Self::Media => "media",
            Self::Voice => "voice",
            Self::Speech => "speech",
            Self::Flow => "flow",
            Self::Timing => "timing",
            Self::Hangup => "hangup",
            Self::Record => "record",
        }
    }
}

/// Why a step failed, as far as can be told, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What was seen.
    pub found: String,
    /// The likely cause.
    pub cause: String,
    /// What to do.
    pub advice: String,
}

impl Failure {
    /// All three.
    pub fn new(found: impl Into<String>, cause: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { found: found.into(), cause: cause.into(), advice: advice.into() }
    }
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it should; what was seen.
    Ok(String),
    /// Not as it should.
    Failed(Failure),
    /// One before it failed.
    NotReached,
}

/// A step that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub name: Name,
    /// How long it took; zero where it was not reached.
    pub took: Duration,
    /// How it ended.
    pub ended: Ended,
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct View<'a> {
            name: Name,
            outcome: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            took_ms: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            found: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cause: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            advice: Option<&'a str>,
        }
        let took_ms = Some(self.took.as_secs_f64() * 1e3);
        let view = match &self.ended {
            Ended::Ok(found) => {
                View { name: self.name, outcome: "ok", took_ms, found: Some(found), cause: None, advice: None }
            }
            Ended::Failed(Failure { found, cause, advice }) => View {
                name: self.name,
                outcome: "failed",
                took_ms,
                found: Some(found),
                cause: Some(cause),
                advice: Some(advice),
            },
            Ended::NotReached => {
                View { name: self.name, outcome: "not reached", took_ms: None, found: None, cause: None, advice: None }
            }
        };
        view.serialize(serializer)
    }
}

impl fmt::Display for Step {
    /// One line, and two more for one that failed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, ms) = (self.name.word(), self.took.as_secs_f64() * 1e3);
        match &self.ended {
            Ended::Ok(found) => write!(f, "ok           {name:<7} {ms:>8.1} ms  {found}"),
            Ended::Failed(Failure { found, cause, advice }) => {
                writeln!(f, "FAILED       {name:<7} {ms:>8.1} ms  {found}")?;
                writeln!(f, "{:13}likely: {cause}", "")?;
                write!(f, "{:13}-> {advice}", "")
            }
            Ended::NotReached => write!(f, "not reached  {name}"),
        }
    }
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether every step ended as it should.
    pub passed: bool,
    /// What was said before the first step: which bridge, which caller.
    pub notes: Vec<String>,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Report {
    /// As JSON, on lines.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and lists of them always serialise") + "\n"
    }
}

impl fmt::Display for Report {
    /// The last line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.steps.iter().find(|step| matches!(step.ended, Ended::Failed(_))) {
            None => write!(f, "The call went well: every step ended as it should."),
            Some(step) => write!(f, "The call failed at the step: {}.", step.name.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_to_people_and_to_machines() {
        let took = Duration::from_micros(12_340);
        let ok = Step { name: Name::Dns, took, ended: Ended::Ok("127.0.0.1".into()) };
        assert_eq!(ok.to_string(), "ok           dns         12.3 ms  127.0.0.1");
        let failure = Failure::new("401", "another token", "give --token");
        let failed = Step { name: Name::Token, took, ended: Ended::Failed(failure) };
        let text =
            "FAILED       token       12.3 ms  401\n             likely: another token\n             -> give --token";
        assert_eq!(failed.to_string(), text);
        let later = Step { name: Name::Ready, took: Duration::ZERO, ended: Ended::NotReached };
        assert_eq!(later.to_string(), "not reached  ready");
        let report = Report { passed: false, notes: Vec::new(), steps: vec![ok, failed, later] };
        assert_eq!(report.to_string(), "The call failed at the step: token.");
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!((&json["steps"][0]["tookMs"], &json["steps"][0]["outcome"]), (&12.34.into(), &"ok".into()));
        assert_eq!(
            (&json["steps"][1]["cause"], &json["steps"][2]["outcome"]),
            (&"another token".into(), &"not reached".into())
        );
        assert!(json["steps"][2]["tookMs"].is_null());
    }

    #[test]
    fn every_step_has_a_word_of_its_own_in_the_order_of_the_call() {
        assert!(Name::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        for name in Name::ALL {
            assert_eq!(serde_json::to_value(name).unwrap(), name.word());
        }
    }
}
