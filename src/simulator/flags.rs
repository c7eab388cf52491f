//! The flags of `voice-media-bridge simulate-whatsapp` and `demo`, and what they mean.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::graph::OUTCOMES;
use super::scenarios::{self, SCENARIOS};
use super::sdp::RULES;
use super::{AT_ONCE_MAX, Account, CALLS_MAX, SimulatorConfig, Target};
use crate::tls::{ClientSession, Tls};

/// What both sides know where nobody says otherwise. They open nothing.
const PHONE_NUMBER_ID: &str = "100000000000001";
const APP_SECRET: &str = "00112233445566778899aabbccddeeff";
const VERIFY_TOKEN: &str = "simulated-verify-token";
const ACCESS_TOKEN: &str = "simulated-access-token";

/// Seconds that callers may be told to talk.
const TALK_SEC: std::ops::RangeInclusive<f64> = 1.0..=60.0;

/// What was typed.
#[derive(Args, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct SimulateFlags {
    /// The bridge's webhook
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/webhooks/whatsapp")]
    pub webhook: String,
    /// Where the simulated Graph API listens
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8099")]
    pub listen: SocketAddr,
    /// Where the simulated relay listens; the bridge must reach it. Port 0: a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub relay: SocketAddr,
    /// Scenario to run, or `all`; may be given several times. Default: happy, with --serve none
    #[arg(long, value_name = "NAME")]
    pub scenario: Vec<String>,
    /// Stay until Ctrl-C, and run what is asked for: POST /simulator/calls with {"scenario": NAME} where the Graph API
    /// listens; GET /simulator/report tells what came of it
    #[arg(long)]
    pub serve: bool,
    /// Scenarios at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub at_once: usize,
    /// Calls of `burst`
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub calls: usize,
    /// How long callers talk at the most, where a scenario leaves that open; an answer that it cuts off is not checked
    #[arg(long, value_name = "SEC")]
    pub seconds: Option<f64>,
    /// What callers say: WAV, 16-bit mono of 8, 16, 24 or 48 kHz, a minute at most. Default: a sentence of this program's
    #[arg(long, value_name = "FILE")]
    pub speech: Option<PathBuf>,
    /// Keep what each caller hears in this folder, which exists: one WAV a call
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Write the report as JSON; `-` is standard output, and the table then goes to standard error
    #[arg(long, value_name = "FILE")]
    pub json: Option<String>,
    /// For everything that is drawn: the same seed, the same ids. Default: another one each time
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Show what happens as it happens
    #[arg(long, short)]
    pub verbose: bool,
    /// List the scenarios, and the rules that answers are held to, each with how sure it is; runs nothing
    #[arg(long)]
    pub list: bool,
    /// Trust the certificates in this file (PEM) and no others, where the webhook is https. Default: what this machine trusts
    #[arg(long, env = "BRIDGE_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Send to public addresses as well. A stranger's webhook is no place for this
    #[arg(long)]
    pub allow_remote: bool,
    /// What both sides know.
    #[command(flatten)]
    pub account: AccountFlags,
}

/// What the bridge and Meta know of each other: the bridge's own variables.
#[derive(Args, Clone)]
#[command(next_help_heading = "What both sides know (default: made up, and printed at the start)")]
pub struct AccountFlags {
    /// Signs webhooks
    #[arg(long, env = "WHATSAPP_APP_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub app_secret: Option<String>,
    /// Shown when the webhook is verified
    #[arg(long, env = "WHATSAPP_VERIFY_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub verify_token: Option<String>,
    /// Asks the Graph API
    #[arg(long, env = "WHATSAPP_ACCESS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub access_token: Option<String>,
    /// The number's id
    #[arg(long, env = "WHATSAPP_PHONE_NUMBER_ID", hide_env_values = true, value_name = "ID")]
    pub phone_number_id: Option<String>,
}

/// The flags of `demo`.
#[derive(Args, Clone)]
pub struct DemoFlags {
    /// How long the caller stays at the most: 20 to 60
    #[arg(long, value_name = "SEC", default_value_t = 25.0)]
    pub seconds: f64,
    /// Print the report and the call's record as JSON; what happens is told on standard error
    #[arg(long)]
    pub json: bool,
    /// Keep what the caller hears: WAV
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Show the bridge's log as well, at the end
    #[arg(long)]
    pub log: bool,
}

/// Environment variables and their values.
pub type Variables = Vec<(&'static str, String)>;

impl AccountFlags {
    /// The account, and the variables that a bridge needs for it; given ones are not shown.
    pub fn account(&self) -> Result<(Account, Variables), String> {
        let mut variables = Vec::new();
        let mut take = |name: &'static str, flag: &str, given: &Option<String>, own: &str| {
            let value = given.as_deref().unwrap_or(own).to_owned();
            if value.is_empty() || value.bytes().any(|byte| !(b'!'..=b'~').contains(&byte)) {
                return Err(format!("{flag} ({name}) must be printable, without spaces"));
            }
            variables.push((name, if given.is_some() { "... (as given here)".to_owned() } else { value.clone() }));
            Ok(value)
        };
        let account = Account {
            phone_number_id: take(
                "WHATSAPP_PHONE_NUMBER_ID",
                "--phone-number-id",
                &self.phone_number_id,
                PHONE_NUMBER_ID,
            )?,
            access_token: take("WHATSAPP_ACCESS_TOKEN", "--access-token", &self.access_token, ACCESS_TOKEN)?,
            app_secret: take("WHATSAPP_APP_SECRET", "--app-secret", &self.app_secret, APP_SECRET)?,
            verify_token: take("WHATSAPP_VERIFY_TOKEN", "--verify-token", &self.verify_token, VERIFY_TOKEN)?,
        };
        Ok((account, variables))
    }
}

/// What is not typed: found or drawn by the caller.
#[derive(Debug)]
pub struct Surroundings {
    /// The webhook's host, as it is found.
    pub server: SocketAddr,
    /// What an https webhook is spoken to with, and the host's name.
    pub tls: Option<(Tls, String)>,
    /// The webhook's `Host`.
    pub authority: String,
    /// Its path.
    pub path: String,
    /// What callers say.
    pub speech: Vec<i16>,
    /// Used where none was typed.
    pub seed: u64,
    /// The wall clock.
    pub unix_sec: fn() -> u64,
}

impl SimulateFlags {
    /// Checks what was typed.
    pub fn config(&self, around: Surroundings) -> Result<SimulatorConfig, String> {
        let Surroundings { server, tls, authority, path, speech, seed, unix_sec } = around;
        if !self.allow_remote && !is_near(server) {
            return Err(format!(
                "--webhook is at {server}, which is neither this machine nor a private network: webhooks are for a bridge \
                 of your own. Give --allow-remote if it is one"
            ));
        }
        let default = ["happy".to_owned()];
        let is_default = self.scenario.is_empty() && !self.serve;
        let scenarios = scenarios::find(if is_default { &default } else { &self.scenario })?;
        let has_media = self.serve || scenarios.iter().any(|scenario| scenario.has_media());
        if has_media && server.ip().is_loopback() != self.relay.ip().is_loopback() {
            return Err(format!(
                "--relay {} and the webhook at {server} cannot reach each other: one is this machine's loopback, the other \
                 is not. Give --relay an address of this machine that the bridge reaches",
                self.relay
            ));
        }
        if let Some((tls, host)) = &tls {
            ClientSession::new(tls, host).map_err(|problem| format!("--webhook cannot be used for TLS: {problem}"))?;
        }
        if !(1..=CALLS_MAX).contains(&self.calls) {
            return Err(format!("--calls must be from 1 to {CALLS_MAX}"));
        }
        if !(1..=AT_ONCE_MAX).contains(&self.at_once) {
            return Err(format!("--at-once must be from 1 to {AT_ONCE_MAX}"));
        }
        if let Some(seconds) = self.seconds.filter(|seconds| !TALK_SEC.contains(seconds)) {
            return Err(format!("--seconds must be from {} to {}, not {seconds}", TALK_SEC.start(), TALK_SEC.end()));
        }
        let (account, _) = self.account.account()?;
        Ok(SimulatorConfig {
            webhook: Target { server, tls, authority, path },
            relay_ip: self.relay.ip(),
            account,
            scenarios,
            serve: self.serve,
            at_once: self.at_once,
            burst: self.calls,
            talk: self.seconds.map(Duration::from_secs_f64),
            says_back: false,
            record: self.record.is_some(),
            speech,
            seed: self.seed.unwrap_or(seed),
            unix_sec,
        })
    }
}

/// Whether an address is this machine's own or of a network that is not the internet.
fn is_near(address: SocketAddr) -> bool {
    match address.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        std::net::IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// What `--list` prints. A String takes all that is written to it.
pub fn list() -> String {
    let mut text = "Scenarios, and how sure it is that Meta behaves so:\n".to_owned();
    for scenario in SCENARIOS {
        let _ = writeln!(text, "  {:<22} {}\n    {}", scenario.name, scenario.certainty.label(), scenario.about);
    }
    text += "\nWhat an answer must be, how sure that is, and the code with which any other is refused here.\n\
             That Meta refuses it, and with this code, is inferred where it was not seen:\n";
    for rule in RULES {
        let code = match rule.subcode {
            Some(subcode) => format!("{}/{subcode}", rule.code),
            None => rule.code.to_string(),
        };
        let _ = writeln!(text, "  {code:<12} {:<11} {}", rule.certainty.label(), rule.text);
    }
    text += "\nWhat else Meta says, and how sure that is:\n";
    for (code, certainty, when) in OUTCOMES {
        let _ = writeln!(text, "  {code:<7} {:<11} {when}", certainty.label());
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        flags: SimulateFlags,
    }

    fn flags(args: &[&str]) -> SimulateFlags {
        Cli::try_parse_from([&["simulate-whatsapp"], args].concat()).map_err(|error| error.to_string()).unwrap().flags
    }

    fn config(args: &[&str], server: &str) -> Result<SimulatorConfig, String> {
        flags(args).config(Surroundings {
            server: server.parse().unwrap(),
            tls: None,
            authority: "bridge".into(),
            path: "/webhooks/whatsapp".into(),
            speech: vec![0; 480],
            seed: 7,
            unix_sec: || 0,
        })
    }

    #[test]
    fn flags_become_a_configuration() {
        let args = ["--scenario", "dtmf", "--scenario", "happy", "--seconds", "5", "--seed", "3"];
        let config = config(&args, "127.0.0.1:8080").unwrap();
        assert_eq!(config.scenarios.iter().map(|s| s.name).collect::<Vec<_>>(), ["dtmf", "happy"]);
        assert_eq!((config.talk, config.seed, config.burst), (Some(Duration::from_secs(5)), 3, 200));
        let of = |args: &[&str]| super::tests::config(args, "127.0.0.1:8080").unwrap().scenarios.len();
        assert_eq!((of(&[]), of(&["--serve"]), of(&["--serve", "--scenario", "dtmf"])), (1, 0, 1));
    }

    #[test]
    fn nothing_is_sent_to_strangers() {
        let error = config(&["--relay", "192.0.2.1:0"], "198.41.0.4:443").unwrap_err();
        assert!(error.contains("--allow-remote"), "{error}");
        assert!(config(&["--relay", "192.0.2.1:0", "--allow-remote"], "198.41.0.4:443").is_ok());
        for near in ["10.1.2.3:80", "[fd00::1]:80", "192.168.1.1:80"] {
            assert!(config(&["--relay", "10.0.0.9:0"], near).is_ok(), "{near}");
        }
    }

    #[test]
    fn where_no_call_has_media_the_relay_need_not_be_reached() {
        let far = |args: &[&str]| config(&[&["--allow-remote"], args].concat(), "198.41.0.4:443");
        for name in ["verification", "other-events", "bad-signature", "terminate-first", "stale-connect"] {
            assert!(far(&["--scenario", name]).is_ok(), "{name}");
        }
        for args in [&[][..], &["--serve"], &["--scenario", "verification", "--scenario", "no-udp"]] {
            assert!(far(args).unwrap_err().contains("cannot reach each other"), "{args:?}");
        }
    }

    #[test]
    fn a_flag_that_cannot_work_is_named_with_the_way_out() {
        for (args, said) in [
            (&["--calls", "0"][..], "--calls must be from 1"),
            (&["--at-once", "65"], "--at-once must be from 1"),
            (&["--seconds", "0.5"], "--seconds must be from 1"),
            (&["--relay", "10.0.0.1:0"], "cannot reach each other"),
            (&["--scenario", "nothing"], "--list"),
            (&["--app-secret", "a b"], "WHATSAPP_APP_SECRET"),
        ] {
            let error = config(args, "127.0.0.1:8080").unwrap_err();
            assert!(error.contains(said), "{args:?}: {error}");
        }
    }

    #[test]
    fn secrets_that_were_given_are_not_shown_and_made_up_ones_are() {
        let (account, variables) = flags(&["--app-secret", "canary"]).account.account().unwrap();
        assert_eq!(account.app_secret, "canary");
        let shown: Vec<&str> = variables.iter().map(|(_, value)| value.as_str()).collect();
        assert!(!shown.contains(&"canary") && shown.contains(&ACCESS_TOKEN), "{shown:?}");
        assert!(!format!("{account:?}").contains("canary"));
    }

    #[test]
    fn the_list_names_every_scenario_and_rule_with_how_sure_it_is() {
        let text = list();
        assert!(text.contains("happy") && text.contains("inferred") && text.contains("100/2494010"), "{text}");
        for code in ["131055", "138003", "138020", "138021", "138022", "45 s"] {
            assert!(text.contains(code), "{code}");
        }
        assert_eq!(text.lines().count(), 2 * SCENARIOS.len() + RULES.len() + OUTCOMES.len() + 6);
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
