//! What `check-config` concludes: facts in, verdicts with advice out.
//!
//! Each rule is a function of the settings and of what was seen, so that each is shown both ways by a test. A verdict says
//! what was found; one that is not good says what to do, as a command or a setting. This module looks at nothing itself.

pub mod flags;
mod host;
mod network;
mod report;
mod secrets;
mod settings;
#[cfg(test)]
mod tests;
mod whatsapp;

use std::net::IpAddr;

use serde::Serialize;

use crate::config::{Config, SecretSource};
use crate::driver::NoUring;
use crate::driver::inspect::{ApiPort, Host, MediaPorts, Reach};

pub use host::LOOPS_BESIDES;
pub use report::Report;
pub use settings::{Origin, Setting, settings};
pub use whatsapp::WhatsAppFacts;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, at a price.
    Warn,
    /// Calls cannot be carried so.
    Fail,
}

/// One verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do about it; always there unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Ok, found: found.into(), advice: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

/// What was seen. What was not looked at is `None` or empty, and nothing is said about it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The machine.
    pub host: Host,
    /// Whether io_uring works, and if so whether with registered descriptors.
    pub uring: Result<bool, NoUring>,
    /// Whether all loops can have their rings at once.
    pub rings: Option<Result<(), NoUring>>,
    /// Who holds secrets, and how well.
    pub secrets: Vec<SecretFact>,
    /// The certificate and key of the API, where it has them: what clients will complain about, or why it cannot be used.
    pub tls: Option<Result<Vec<String>, String>>,
    /// The permissions of its key.
    pub tls_key_mode: Option<u32>,
    /// Whether root alone can read the TLS key.
    pub tls_key_is_roots: bool,
    /// The port of the API.
    pub api_port: ApiPort,
    /// The ports of calls.
    pub media_ports: MediaPorts,
    /// The address that answers will advertise.
    pub media_ip: IpAddr,
    /// Whether it is one of this machine.
    pub media_is_local: bool,
    /// The way to the model.
    pub model: Vec<Reach>,
    /// The way to the receiver of events.
    pub events: Vec<Reach>,
    /// What belongs to WhatsApp, where it is configured.
    pub whatsapp: Option<WhatsAppFacts>,
}

/// A secret, without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFact {
    /// What its check is called.
    pub name: &'static str,
    /// Its variable.
    pub variable: &'static str,
    /// Where it came from.
    pub source: SecretSource,
    /// The permissions of its file.
    pub mode: Option<u32>,
    /// Whether it stands on the command line.
    pub is_typed: bool,
}

/// Judges them, in the order in which a start would meet them.
pub fn judge(config: &Config, facts: &Facts) -> Vec<Check> {
    let one = [
        Some(host::io_uring(config.io, &facts.uring, &facts.host.kernel)),
        host::locked_memory(config.workers, facts.rings.as_ref(), facts.host.locked_memory),
        Some(host::cores(config.workers, &facts.host)),
        host::governor(&facts.host.governors),
        host::descriptors(config.calls_max, facts.host.descriptors),
        host::udp_buffers(facts.host.buffer_bytes_max),
        Some(network::api_port(config, &facts.api_port)),
        Some(network::media_ports(config, facts)),
        network::ephemeral_ports(&config.media_ports, &facts.host),
        Some(network::media_address(config, facts)),
        Some(secrets::tls_files(config, facts)),
        host::clock(facts.host.clock),
        host::drain(config.drain.time_max, facts.host.stop_timeout),
        network::model_name(config),
    ];
    let mut checks: Vec<Check> = one.into_iter().flatten().collect();
    checks.extend(facts.secrets.iter().filter_map(secrets::secret));
    checks.extend(network::model(config, &facts.model));
    checks.extend(network::events(config, &facts.events));
    checks.extend(whatsapp::whatsapp(config, facts.whatsapp.as_ref()));
    checks
}
