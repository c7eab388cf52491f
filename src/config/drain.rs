//! How the process leaves: what is said on the command line, checked.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::ConfigError;

/// The longest drain: a day, as the longest call.
const DRAIN_SEC_MAX: u32 = 86_400;

/// What the user said of draining, by flag or by environment.
#[derive(Args, Clone, Debug)]
pub struct DrainFlags {
    /// How long calls may go on after SIGTERM, SIGINT or `POST /api/drain`; the rest then hear a goodbye. 0: at once
    #[arg(long, env = "BRIDGE_DRAIN_SEC", value_name = "SEC", default_value_t = 600, help_heading = "Draining")]
    pub drain_sec: u32,
    /// Where HAProxy's agent-check is answered with the weight of this server. Tells load and nothing else
    #[arg(long, env = "BRIDGE_AGENT_CHECK_LISTEN", value_name = "ADDR:PORT", help_heading = "Draining")]
    pub agent_check_listen: Option<SocketAddr>,
}

/// How the process leaves, and how it tells a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long calls may go on once no new ones are taken.
    pub time_max: Duration,
    /// Where HAProxy's agent-check is answered; `None`: nowhere.
    pub agent_check_listen: Option<SocketAddr>,
}

impl DrainFlags {
    pub(super) fn checked(&self) -> Result<Drain, ConfigError> {
        if self.drain_sec > DRAIN_SEC_MAX {
            let problem = format!("must be 0 to {DRAIN_SEC_MAX}; 0 ends calls at once, with a goodbye");
            return Err(ConfigError { setting: "BRIDGE_DRAIN_SEC (--drain-sec)", problem });
        }
        let time_max = Duration::from_secs(self.drain_sec.into());
        Ok(Drain { time_max, agent_check_listen: self.agent_check_listen })
    }
}
