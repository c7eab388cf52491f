//! The flags of `voice-media-bridge load`, and what they mean.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::report::Bounds;
use super::{CALLS_MAX, LoadConfig, Talk};
use crate::tls::{ClientSession, Tls};

/// What was typed.
#[derive(Args, Clone, Debug)]
pub struct LoadFlags {
    /// The server, as its webhook knows it: http(s)://HOST:PORT, with a path if its API has one in front
    #[arg(long, env = "BRIDGE_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// Token for `Authorization: Bearer`, where the server wants one; of several the first
    #[arg(long, env = "BRIDGE_API_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// File with the token; of several the first
    #[arg(long, env = "BRIDGE_API_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Trust the certificates in this file (PEM) and no others. Default: what this machine trusts
    #[arg(long, env = "BRIDGE_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Calls at once
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub calls: usize,
    /// New calls a second until all are there
    #[arg(long, value_name = "CALLS_PER_SEC", default_value_t = 5.0)]
    pub rate: f64,
    /// Seconds to hold them after the last was asked for
    #[arg(long, value_name = "SEC", default_value_t = 10.0)]
    pub duration: f64,
    /// Calls a second that are hung up and replaced by new ones meanwhile
    #[arg(long, value_name = "PER_SEC", default_value_t = 0.0)]
    pub churn: f64,
    /// Ask with PUT, the call id in the path, for balancers that read it only there
    #[arg(long)]
    pub put: bool,
    /// How much of the time callers talk: `always`, or a share from 0 to 1 (the rest is DTX)
    #[arg(long, value_name = "SHARE|always", default_value = "always")]
    pub speech: Talk,
    /// Measure the round trip of marked bursts; the model must be an echo (`voice-media-bridge agent --echo`)
    #[arg(long)]
    pub echo: bool,
    /// Calls that send the bursts, with --echo; they are silent otherwise
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub probes: usize,
    /// Address that the simulated relay listens on and offers; the server must reach it
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub relay_ip: IpAddr,
    /// Write the report as JSON; `-` is standard output, and the table then goes to standard error
    #[arg(long, value_name = "FILE")]
    pub json: Option<String>,
    /// Fail when the 99th percentile of answers to POST is above this
    #[arg(long, value_name = "MS", help_heading = "Bounds (exit code 3 when one is missed)")]
    pub max_answer_p99_ms: Option<f64>,
    /// Fail when the 99th percentile from the answer to DTLS is above this
    #[arg(long, value_name = "MS", help_heading = "Bounds (exit code 3 when one is missed)")]
    pub max_connect_p99_ms: Option<f64>,
    /// Fail when more of the server's packets are missing than this
    #[arg(long, value_name = "PERCENT", help_heading = "Bounds (exit code 3 when one is missed)")]
    pub max_loss_percent: Option<f64>,
    /// Fail when the 99th percentile of arrivals off their beat is above this
    #[arg(long, value_name = "MS", help_heading = "Bounds (exit code 3 when one is missed)")]
    pub max_interarrival_p99_ms: Option<f64>,
    /// Fail when the median round trip is above this; needs --echo
    #[arg(long, value_name = "MS", requires = "echo", help_heading = "Bounds (exit code 3 when one is missed)")]
    pub max_echo_p50_ms: Option<f64>,
    /// Fail when the 99th percentile of round trips is above this; needs --echo
    #[arg(long, value_name = "MS", requires = "echo", help_heading = "Bounds (exit code 3 when one is missed)")]
    pub max_echo_p99_ms: Option<f64>,
    /// Fail when more calls than this are refused
    #[arg(long, value_name = "PERCENT", help_heading = "Bounds (exit code 3 when one is missed)")]
    pub max_refused_percent: Option<f64>,
    /// Fail when the 99th percentile of refusals is above this
    #[arg(long, value_name = "MS", help_heading = "Bounds (exit code 3 when one is missed)")]
    pub max_refusal_p99_ms: Option<f64>,
}

/// Where a server is, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// Whether it is https.
    pub is_tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Host and port as they were written.
    pub authority: String,
    /// The path without its last slash.
    pub path: String,
}

impl ServerUrl {
    /// Parses `http(s)://HOST[:PORT][/PATH]`; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fail = |problem: &str| Err(format!("--url {problem}; write http://HOST:PORT or https://HOST:PORT"));
        let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return fail("starts with neither http:// nor https://"),
        };
        if text.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) || text.contains(['#', '?', '@', '"']) {
            return fail("has a character that does not belong there");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((host, port)) => (host, port.strip_prefix(':')),
                None => return fail("has a [ without ]"),
            },
            None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let Ok(port) = port.unwrap_or(if is_tls { "443" } else { "80" }).parse() else {
            return fail("has a port that is no number");
        };
        if host.is_empty() {
            return fail("names no host");
        }
        Ok(Self {
            is_tls,
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            path: path.trim_end_matches('/').to_owned(),
        })
    }
}

impl LoadFlags {
    /// Checks what was typed. `server` is where `url` is found, and `tls` what an https one is spoken to with; run id and
    /// seed are drawn by the caller.
    pub fn config(
        &self,
        url: &ServerUrl,
        server: SocketAddr,
        tls: Option<Tls>,
        run_id: String,
        seed: u64,
    ) -> Result<LoadConfig, String> {
        let within = |flag: &str, value: f64, least: f64, most: f64| {
            if (least..=most).contains(&value) {
                return Ok(value);
            }
            Err(format!("{flag} must be from {least} to {most}, not {value}"))
        };
        if !(1..=CALLS_MAX).contains(&self.calls) {
            return Err(format!("--calls must be from 1 to {CALLS_MAX}; split more over several loads"));
        }
        if self.token.as_ref().is_some_and(|token| token.bytes().any(|byte| !(b'!'..=b'~').contains(&byte))) {
            return Err("--token must be printable, without spaces".into());
        }
        if server.ip().is_loopback() != self.relay_ip.is_loopback() {
            let ip = self.relay_ip;
            return Err(format!(
                "--relay-ip {ip} and the server {server} cannot reach each other: one is this machine's loopback, the \
                 other is not. Give --relay-ip an address of this machine that the server reaches"
            ));
        }
        if let Some(tls) = &tls {
            ClientSession::new(tls, &url.host).map_err(|problem| format!("--url cannot be used for TLS: {problem}"))?;
        }
        Ok(LoadConfig {
            server,
            tls: tls.map(|tls| (tls, url.host.clone())),
            authority: url.authority.clone(),
            path_prefix: url.path.clone(),
            token: self.token.clone(),
            calls: self.calls,
            calls_per_second: within("--rate", self.rate, 0.01, 1_000.0)?,
            duration: Duration::from_secs_f64(within("--duration", self.duration, 0.0, 604_800.0)?),
            churn_per_second: within("--churn", self.churn, 0.0, 1_000.0)?,
            put: self.put,
            talk: self.speech,
            probes: if self.echo { self.probes } else { 0 },
            relay_ip: self.relay_ip,
            run_id,
            seed,
            bounds: Bounds {
                answer_p99_ms: self.max_answer_p99_ms,
                connect_p99_ms: self.max_connect_p99_ms,
                loss_percent: self.max_loss_percent,
                interarrival_p99_ms: self.max_interarrival_p99_ms,
                echo_p50_ms: self.max_echo_p50_ms,
                echo_p99_ms: self.max_echo_p99_ms,
                refused_percent: self.max_refused_percent,
                refusal_p99_ms: self.max_refusal_p99_ms,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        flags: LoadFlags,
    }

    fn config(args: &[&str]) -> Result<LoadConfig, String> {
        let flags = Cli::try_parse_from([&["load"], args].concat()).map_err(|error| error.to_string())?.flags;
        let url = ServerUrl::parse(&flags.url)?;
        let server = SocketAddr::new(url.host.parse().unwrap(), url.port);
        flags.config(&url, server, None, "run".into(), 1)
    }

    #[test]
    fn urls_are_taken_apart_or_said_to_be_wrong() {
        let url = ServerUrl::parse("http://[::1]:90/k/token/").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.authority.as_str()), ("::1", 90, "[::1]:90"));
        assert_eq!(url.path, "/k/token");
        let secure = ServerUrl::parse("https://bridge.example/k/token").unwrap();
        assert_eq!((secure.is_tls, secure.port, url.is_tls), (true, 443, false));
        let bare = ServerUrl::parse("http://bridge").unwrap();
        assert_eq!((bare.host.as_str(), bare.port, bare.path.as_str()), ("bridge", 80, ""));
        for (wrong, said) in [
            ("ftp://a", "neither"),
            ("127.0.0.1:8080", "http://"),
            ("http://:80", "no host"),
            ("http://a:port", "port"),
            ("http://a b", "character"),
            ("http://[::1", "without ]"),
            ("http://a/\r\nX: y", "character"),
        ] {
            let error = ServerUrl::parse(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn flags_become_a_configuration() {
        let config = config(&["--calls", "7", "--speech", "0.4", "--echo", "--max-loss-percent", "0"]).unwrap();
        assert_eq!((config.calls, config.probes, config.talk), (7, 2, Talk::Share(0.4)));
        assert_eq!(config.bounds, Bounds { loss_percent: Some(0.0), ..Bounds::default() });
        assert_eq!(config.server.to_string(), "127.0.0.1:8080");
    }

    #[test]
    fn a_flag_that_cannot_work_is_named_with_the_way_out() {
        for (args, said) in [
            (&["--calls", "0"][..], "--calls must be from 1"),
            (&["--rate", "0"], "--rate must be from 0.01"),
            (&["--duration=-1"], "--duration"),
            (&["--churn", "NaN"], "--churn"),
            (&["--relay-ip", "10.0.0.1"], "cannot reach each other"),
            (&["--token", "a b"], "--token"),
            (&["--max-echo-p50-ms", "5"], "--echo"),
            (&["--speech", "40"], "0 to 1"),
        ] {
            let error = config(args).unwrap_err();
            assert!(error.contains(said), "{args:?}: {error}");
        }
    }
}
