//! Words of the user to a bounded configuration.
//!
//! [`Flags`] is what was typed or found in the environment; [`Config`] is what the program runs on: parsed, checked,
//! every limit inside its range. A wrong word is an error that names the variable and the way out. Limits that are not
//! settings stand beside the code they protect.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

mod drain;
mod events;
mod instance;
mod secrets;
mod tls;
mod whatsapp;

use secrets::Plain;

pub use drain::{Drain, DrainFlags};
pub use events::{Events, EventsUrl};
pub use instance::{Instance, InstanceFlags, Pair};
pub use secrets::{
    ReadFile, SECRET_FILE_BYTES_MAX, SecretFlags, SecretSource, SecretSources, TOKENS_MAX, first_token, secret_of_file,
    tokens_of_file,
};
pub use tls::{TlsFiles, TlsFlags};
pub use whatsapp::{WEBHOOK_PATH, WhatsApp, WhatsAppFlags};

/// A secret: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text of a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, to be used and not to be shown.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

/// Which driver runs the loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum IoChoice {
    /// io_uring where the kernel allows it, else epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// Who talks to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum AgentChoice {
    /// The model when a key or a URL is set, else the built-in agent.
    #[default]
    Auto,
    /// The model.
    Openai,
    /// The agent inside this process.
    Builtin,
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// What the user said, by flag or by environment.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Address and port of the HTTP API. Beyond loopback a token is required
    #[arg(
        long,
        env = "BRIDGE_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:8080",
        help_heading = "HTTP API"
    )]
    pub listen: SocketAddr,
    /// Changes the port of --listen alone
    #[arg(long, env = "PORT", value_name = "PORT", help_heading = "HTTP API")]
    pub port: Option<u16>,
    /// Token that requests must carry: `Authorization: Bearer TOKEN`, or `/k/TOKEN/api/...`. Several, separated by commas:
    /// any of them opens
    #[arg(long, env = "BRIDGE_API_TOKEN", value_name = "TOKEN", hide_env_values = true, help_heading = "HTTP API")]
    pub api_token: Option<Secret>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would become the help's text")]
    pub secrets: SecretFlags,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would become the help's text")]
    pub tls: TlsFlags,
    /// Do not serve the page at `GET /`
    #[arg(long, env = "BRIDGE_NO_PAGE", value_parser = BoolishValueParser::new(), help_heading = "HTTP API")]
    pub no_page: bool,

    /// Address that answers advertise to callers. Default: the one the default route uses
    #[arg(long, env = "BRIDGE_MEDIA_IP", value_name = "IP", help_heading = "Media")]
    pub media_ip: Option<IpAddr>,
    /// UDP ports for media, one per call
    #[arg(
        long,
        env = "BRIDGE_MEDIA_PORTS",
        value_name = "FIRST-LAST",
        default_value = "40000-41999",
        help_heading = "Media"
    )]
    pub media_ports: String,
    /// Send media to private and loopback addresses too. Default: only when the media address is such a one
    #[arg(long, env = "BRIDGE_ALLOW_PRIVATE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new(), help_heading = "Media")]
    pub allow_private: Option<bool>,
    /// Wait this long after the caller is connected before media starts, where a webhook cannot say when
    #[arg(long, env = "BRIDGE_START_DELAY_MS", value_name = "MS", default_value_t = 0, help_heading = "Media")]
    pub start_delay_ms: u32,
    /// Opus encoder complexity, 0 (cheapest) to 10: one number, or lowest-highest to follow the load of each core
    #[arg(
        long,
        env = "BRIDGE_OPUS_COMPLEXITY",
        value_name = "N|MIN-MAX",
        default_value = "0-5",
        help_heading = "Media"
    )]
    pub opus_complexity: String,

    /// Who talks to the caller
    #[arg(long, env = "BRIDGE_AGENT", value_enum, default_value_t, help_heading = "Model")]
    pub agent: AgentChoice,
    /// Where the realtime model is. Default: wss://api.openai.com/v1/realtime
    #[arg(long, env = "OPENAI_REALTIME_URL", value_name = "URL", help_heading = "Model")]
    pub realtime_url: Option<String>,
    /// Which model a call gets that names none
    #[arg(long, env = "OPENAI_REALTIME_MODEL", value_name = "MODEL", default_value = DEFAULT_MODEL, help_heading = "Model")]
    pub realtime_model: String,
    /// The model's API key
    #[arg(long, env = "OPENAI_API_KEY", value_name = "KEY", hide_env_values = true, help_heading = "Model")]
    pub api_key: Option<Secret>,
    /// Organisation the key belongs to
    #[arg(long, env = "OPENAI_ORG_ID", value_name = "ID", help_heading = "Model")]
    pub org_id: Option<String>,
    /// Project the key belongs to
    #[arg(long, env = "OPENAI_PROJECT_ID", value_name = "ID", help_heading = "Model")]
    pub project_id: Option<String>,
    /// Allow `ws://` to a model beyond loopback: the key and the audio then travel in clear
    #[arg(long, env = "BRIDGE_ALLOW_PLAINTEXT_MODEL", value_parser = BoolishValueParser::new(), help_heading = "Model")]
    pub allow_plaintext_model: bool,

    /// Post a JSON event here when a call has ended, with its counters and latencies
    #[arg(long, env = "BRIDGE_EVENTS_URL", value_name = "URL", hide_env_values = true, help_heading = "Events")]
    pub events_url: Option<String>,
    /// Token that events carry: `Authorization: Bearer TOKEN`
    #[arg(long, env = "BRIDGE_EVENTS_TOKEN", value_name = "TOKEN", hide_env_values = true, help_heading = "Events")]
    pub events_token: Option<Secret>,
    /// Allow `http://` to a receiver of events or webhooks beyond loopback: call ids, the token and what people write then
    /// travel in clear
    #[arg(long, env = "BRIDGE_ALLOW_PLAINTEXT_EVENTS", value_parser = BoolishValueParser::new(), help_heading = "Events")]
    pub allow_plaintext_events: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment would become the help's text")]
    pub whatsapp: WhatsAppFlags,

    /// Worker threads, one per core. Default: number of cores
    #[arg(long, env = "BRIDGE_WORKERS", value_name = "N", help_heading = "Capacity")]
    pub workers: Option<u16>,
    /// Which kernel interface moves packets
    #[arg(long, env = "BRIDGE_IO", value_enum, default_value_t, help_heading = "Capacity")]
    pub io: IoChoice,
    /// A core this busy takes no more calls: they go to another, or are refused with 503. 100: no such limit
    #[arg(
        long,
        env = "BRIDGE_ADMIT_BUSY_PERCENT",
        value_name = "PERCENT",
        default_value_t = 80,
        help_heading = "Capacity"
    )]
    pub admit_busy_percent: u8,
    /// A busy core lets packets gather for up to this long before it wakes, in microseconds. 0: never
    #[arg(long, env = "BRIDGE_IO_WINDOW_US", value_name = "US", default_value_t = 500, help_heading = "Capacity")]
    pub io_window_us: u32,
    /// Calls at once, whatever the load; more are refused with 503. Default: 400 per worker, at most one per media port
    #[arg(long, env = "BRIDGE_MAX_CALLS", value_name = "N", help_heading = "Capacity")]
    pub max_calls: Option<u32>,
    /// Longest call, in seconds
    #[arg(
        long,
        env = "BRIDGE_MAX_DURATION_SEC",
        value_name = "SEC",
        default_value_t = 3600,
        help_heading = "Capacity"
    )]
    pub max_duration_sec: u32,

    /// How the process leaves.
    #[command(flatten)]
    pub drain: DrainFlags,
    /// One of two.
    #[command(flatten)]
    pub instance: InstanceFlags,

    /// Log filter: error, warn, info, debug, trace, or `module=level,...`
    #[arg(long, env = "BRIDGE_LOG", value_name = "FILTER", default_value = "info", help_heading = "Logs")]
    pub log: String,
    /// Shape of log lines
    #[arg(long, env = "BRIDGE_LOG_FORMAT", value_enum, default_value_t, help_heading = "Logs")]
    pub log_format: LogFormat,
}

/// The model that calls get which name none.
pub const DEFAULT_MODEL: &str = "gpt-realtime-2.1";
/// Where OpenAI's realtime model is.
pub const DEFAULT_REALTIME_URL: &str = "wss://api.openai.com/v1/realtime";
/// Calls a worker takes unless told otherwise, whatever its load says: more than one core carries at the least effort with
/// callers and model mostly silent. The load is what refuses calls before that.
pub const CALLS_PER_WORKER: u32 = 400;
/// The longest collection window: a quarter of a beat, which is what frames may be late by it.
const IO_WINDOW_US_MAX: u32 = 5_000;

/// What the program runs on.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the HTTP API.
    pub listen: SocketAddr,
    /// Tokens of the HTTP API, any of which opens it; empty: none is asked for.
    pub api_tokens: Vec<Secret>,
    /// What the HTTP API speaks TLS with; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Where each secret came from.
    pub secret_sources: SecretSources,
    /// Whether `GET /` serves the page.
    pub page: bool,
    /// Advertised address; `None`: to be found by the driver at start.
    pub media_ip: Option<IpAddr>,
    /// UDP ports of calls.
    pub media_ports: RangeInclusive<u16>,
    /// Whether private remote candidates are used; `None`: when the advertised address is private.
    pub allow_private: Option<bool>,
    /// Delay between DTLS and media for `startMedia: auto`.
    pub start_delay: Duration,
    /// Encoder complexity, lowest and highest, 0 to 10; the same twice is fixed.
    pub opus_complexity: RangeInclusive<u8>,
    /// A core takes calls up to this share of its time, above 0; `None`: however busy it is.
    pub admit_busy: Option<f64>,
    /// The longest collection window; zero: none.
    pub io_window: Duration,
    /// Where calls are answered from.
    pub upstream: Upstream,
    /// Model of calls that name none; never a retired name.
    pub model: String,
    /// Whether the environment named a retired model, which was replaced.
    pub model_was_retired: Option<String>,
    /// Where events go; `None`: nowhere.
    pub events: Option<Events>,
    /// Meta's webhook and the way to its Graph API; `None`: there is no such webhook.
    pub whatsapp: Option<WhatsApp>,
    /// The folder of what must outlive a crash; `None`: nothing does.
    pub state_dir: Option<PathBuf>,
    /// Number of workers, at least one.
    pub workers: u16,
    /// Driver.
    pub io: IoChoice,
    /// Calls at once.
    pub calls_max: u32,
    /// Longest call in seconds.
    pub duration_sec_max: u32,
    /// How the process leaves.
    pub drain: Drain,
    /// Which of two instances on this machine this is; `None`: there is one.
    pub pair: Option<Pair>,
    /// Log filter.
    pub log: String,
    /// Log shape.
    pub log_format: LogFormat,
}

/// Where the model is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// The agent inside this process, on a loopback port of its own.
    Builtin,
    /// A realtime server.
    Url {
        /// Where.
        url: RealtimeUrl,
        /// `Authorization: Bearer`.
        api_key: Option<Secret>,
        /// `OpenAI-Organization`.
        org_id: Option<String>,
        /// `OpenAI-Project`.
        project_id: Option<String>,
    },
}

/// A parsed `ws://` or `wss://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealtimeUrl {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query as given, at least `/`.
    pub path: String,
}

impl RealtimeUrl {
    /// Parses a URL; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match (text.strip_prefix("wss://"), text.strip_prefix("ws://")) {
            (Some(rest), _) => Self::after_scheme(true, rest),
            (_, Some(rest)) => Self::after_scheme(false, rest),
            _ => Err("must start with wss:// or ws://".into()),
        }
    }

    /// Parses what follows the scheme, which says whether it is TLS.
    fn after_scheme(tls: bool, rest: &str) -> Result<Self, String> {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err("must not carry a user or password; keys and tokens have settings of their own".into());
        }
        if rest.contains('#') || rest.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err("must not contain spaces, control characters or a #fragment".into());
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or("has a [ without ]")?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err("names no host".into());
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_| format!("has a port that is not a number: {port:?}"))?,
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { tls, host: host.to_owned(), port, path })
    }

    /// Host and port, as URLs write them.
    fn authority(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{open}{}{close}:{}", self.host, self.port)
    }

    /// The same, without the port where it is the scheme's own.
    fn short_authority(&self) -> String {
        let own = if self.tls { 443 } else { 80 };
        let authority = self.authority();
        match authority.rsplit_once(':') {
            Some((host, _)) if self.port == own => host.to_owned(),
            _ => authority,
        }
    }

    /// Whether the host is this machine's loopback.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for RealtimeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// A setting that cannot be used: which, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The variable and the flag.
    pub setting: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.setting, self.problem)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Checks what the user said, where no file is named. `cores` is the number of CPUs this process may use.
    pub fn from_flags(flags: Flags, cores: u16) -> Result<Self, ConfigError> {
        Self::from_flags_and_files(flags, cores, &|_| Ok(None))
    }

    /// Checks what the user said and the files that hold secrets of theirs.
    pub fn from_flags_and_files(mut flags: Flags, cores: u16, read: ReadFile<'_>) -> Result<Self, ConfigError> {
        let fail = |setting, problem: String| Err(ConfigError { setting, problem });
        let mut listen = flags.listen;
        if let Some(port) = flags.port {
            listen.set_port(port);
        }
        let plain = Plain {
            api_token: flags.api_token,
            api_key: flags.api_key,
            events_token: flags.events_token,
            whatsapp_app_secret: flags.whatsapp.app_secret.take(),
            whatsapp_verify_token: flags.whatsapp.verify_token.take(),
            whatsapp_access_token: flags.whatsapp.access_token.take(),
        };
        let mut secrets = secrets::secrets(&flags.secrets, plain, read)?;
        if secrets.api_tokens.is_empty() && !listen.ip().is_loopback() {
            let problem =
                format!("is needed to listen on {listen}, beyond loopback; make one with: openssl rand -hex 32");
            return fail("BRIDGE_API_TOKEN (--api-token)", problem);
        }

        let tls = tls::tls(flags.tls)?;
        let media_ports = parse_ports(&flags.media_ports)
            .map_err(|problem| ConfigError { setting: "BRIDGE_MEDIA_PORTS (--media-ports)", problem })?;
        let media_ports = flags.instance.share(media_ports)?;
        if let Some(ip) = flags.media_ip
            && (ip.is_unspecified() || ip.is_multicast())
        {
            let problem = format!("must be the address that callers reach, not {ip}");
            return fail("BRIDGE_MEDIA_IP (--media-ip)", problem);
        }
        let opus_complexity = parse_complexity(&flags.opus_complexity)
            .map_err(|problem| ConfigError { setting: "BRIDGE_OPUS_COMPLEXITY (--opus-complexity)", problem })?;
        if !(10..=100).contains(&flags.admit_busy_percent) {
            let problem = "must be 10 to 100; 100 takes calls however busy the cores are".into();
            return fail("BRIDGE_ADMIT_BUSY_PERCENT (--admit-busy-percent)", problem);
        }
        if flags.io_window_us > IO_WINDOW_US_MAX {
            let problem = format!("must be 0 to {IO_WINDOW_US_MAX}: frames may be late by as much");
            return fail("BRIDGE_IO_WINDOW_US (--io-window-us)", problem);
        }
        if flags.start_delay_ms > 15_000 {
            let problem = "must be at most 15000: WhatsApp hangs up after 20 s without media, DTLS included".into();
            return fail("BRIDGE_START_DELAY_MS (--start-delay-ms)", problem);
        }

        let upstream = upstream(
            flags.agent,
            flags.realtime_url.as_deref(),
            secrets.api_key.take(),
            flags.org_id.filter(|id| !id.is_empty()),
            flags.project_id.filter(|id| !id.is_empty()),
            flags.allow_plaintext_model,
        )?;
        let (model, model_was_retired) = current_model(&flags.realtime_model);
        let plaintext = flags.allow_plaintext_events;
        let events = events::events(flags.events_url.as_deref(), secrets.events_token.take(), plaintext)?;
        let state_dir = flags.whatsapp.state_dir()?;
        let credentials = flags.secrets.credentials_directory.as_deref();
        let whatsapp = flags.whatsapp.checked(&mut secrets, credentials, listen, plaintext)?;

        let ports = u32::from(*media_ports.end()) - u32::from(*media_ports.start()) + 1;
        let workers = flags.workers.unwrap_or(cores).max(1);
        if flags.workers == Some(0) || workers > 256 || u32::from(workers) > ports {
            let problem = "must be 1 to 256, and at most the number of media ports".into();
            return fail("BRIDGE_WORKERS (--workers)", problem);
        }
        let calls_max = flags.max_calls.unwrap_or((CALLS_PER_WORKER * u32::from(workers)).min(ports));
        if calls_max == 0 || calls_max > ports {
            let problem = format!("must be 1 to {ports}, the number of media ports (BRIDGE_MEDIA_PORTS)");
            return fail("BRIDGE_MAX_CALLS (--max-calls)", problem);
        }
        if !(10..=86_400).contains(&flags.max_duration_sec) {
            return fail("BRIDGE_MAX_DURATION_SEC (--max-duration-sec)", "must be 10 to 86400".into());
        }

        Ok(Self {
            listen,
            api_tokens: secrets.api_tokens,
            tls,
            secret_sources: secrets.sources,
            page: !flags.no_page,
            media_ip: flags.media_ip,
            media_ports,
            allow_private: flags.allow_private,
            start_delay: Duration::from_millis(flags.start_delay_ms.into()),
            opus_complexity,
            admit_busy: Some(f64::from(flags.admit_busy_percent) / 100.0).filter(|share| *share < 1.0),
            io_window: Duration::from_micros(flags.io_window_us.into()),
            upstream,
            model,
            model_was_retired,
            events,
            whatsapp,
            state_dir,
            workers,
            io: flags.io,
            calls_max,
            duration_sec_max: flags.max_duration_sec,
            drain: flags.drain.checked()?,
            pair: flags.instance.checked()?,
            log: flags.log,
            log_format: flags.log_format,
        })
    }
}

impl fmt::Display for Config {
    /// One setting a line, under the name of its variable; secrets hidden.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let automatic = |text: Option<String>| text.unwrap_or_else(|| "(automatic)".to_owned());
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<26} {value}");
        line("BRIDGE_LISTEN", &self.listen)?;
        line("BRIDGE_API_TOKEN", &self.secret_sources.api_token)?;
        if self.api_tokens.len() > 1 {
            line("", &format!("{} tokens", self.api_tokens.len()))?;
        }
        if let Some(TlsFiles { certificate, key }) = &self.tls {
            line("BRIDGE_TLS_CERT", &certificate.display())?;
            line("BRIDGE_TLS_KEY", &key.display())?;
        }
        line("BRIDGE_NO_PAGE", &!self.page)?;
        line("BRIDGE_MEDIA_IP", &automatic(self.media_ip.map(|ip| ip.to_string())))?;
        line("BRIDGE_MEDIA_PORTS", &format!("{}-{}", self.media_ports.start(), self.media_ports.end()))?;
        line("BRIDGE_ALLOW_PRIVATE", &automatic(self.allow_private.map(|allow| allow.to_string())))?;
        line("BRIDGE_START_DELAY_MS", &self.start_delay.as_millis())?;
        let (low, high) = (self.opus_complexity.start(), self.opus_complexity.end());
        line("BRIDGE_OPUS_COMPLEXITY", &if low == high { low.to_string() } else { format!("{low}-{high}") })?;
        match &self.upstream {
            Upstream::Builtin => line("BRIDGE_AGENT", &"builtin")?,
            Upstream::Url { url, api_key: _, org_id, project_id } => {
                let none = "(none)";
                line("BRIDGE_AGENT", &"openai")?;
                line("OPENAI_REALTIME_URL", &url)?;
                line("OPENAI_REALTIME_MODEL", &self.model)?;
                line("OPENAI_API_KEY", &self.secret_sources.api_key)?;
                line("OPENAI_ORG_ID", &org_id.as_deref().unwrap_or(none))?;
                line("OPENAI_PROJECT_ID", &project_id.as_deref().unwrap_or(none))?;
            }
        }
        if let Some(Events { url, token: _ }) = &self.events {
            line("BRIDGE_EVENTS_URL", &url)?;
            line("BRIDGE_EVENTS_TOKEN", &self.secret_sources.events_token)?;
        }
        if let Some(whatsapp) = &self.whatsapp {
            let sources = &self.secret_sources;
            if let Some(id) = &whatsapp.phone_number_id {
                line("WHATSAPP_PHONE_NUMBER_ID", id)?;
            }
            if let Some(file) = &whatsapp.numbers_file {
                line("BRIDGE_WHATSAPP_NUMBERS", &file.display())?;
            }
            line("WHATSAPP_APP_SECRET", &sources.whatsapp_app_secret)?;
            line("WHATSAPP_VERIFY_TOKEN", &sources.whatsapp_verify_token)?;
            line("WHATSAPP_ACCESS_TOKEN", &sources.whatsapp_access_token)?;
            let (server, version) = whatsapp.graph();
            line("BRIDGE_GRAPH_URL", &server)?;
            line("BRIDGE_GRAPH_VERSION", &version)?;
            if let Some(url) = &whatsapp.forward_url {
                line("BRIDGE_WEBHOOK_FORWARD_URL", url)?;
            }
            match &self.state_dir {
                Some(folder) => line("BRIDGE_STATE_DIR", &folder.display())?,
                None => line("BRIDGE_STATE_DIR", &"(none)")?,
            }
        }
        line("BRIDGE_WORKERS", &self.workers)?;
        line("BRIDGE_IO", &format!("{:?}", self.io).to_lowercase())?;
        line("BRIDGE_IO_WINDOW_US", &self.io_window.as_micros())?;
        line("BRIDGE_ADMIT_BUSY_PERCENT", &self.admit_busy.map_or(100.0, |share| (share * 100.0).round()))?;
        line("BRIDGE_MAX_CALLS", &self.calls_max)?;
        line("BRIDGE_MAX_DURATION_SEC", &self.duration_sec_max)?;
        line("BRIDGE_DRAIN_SEC", &self.drain.time_max.as_secs())?;
        if let Some(address) = self.drain.agent_check_listen {
            line("BRIDGE_AGENT_CHECK_LISTEN", &address)?;
        }
        if let Some(pair) = &self.pair {
            line("BRIDGE_INSTANCE", &pair.own.name())?;
            line("BRIDGE_HANDOVER_DIR", &pair.dir.display())?;
        }
        line("BRIDGE_LOG", &self.log)?;
        line("BRIDGE_LOG_FORMAT", &format!("{:?}", self.log_format).to_lowercase())
    }
}

/// Replaces a retired model name by the default; the second value is the name that was replaced.
///
/// `gpt-4o-realtime-preview*` no longer exists and `gpt-5-realtime` never did, yet the deployed webhook sends them.
pub fn current_model(name: &str) -> (String, Option<String>) {
    let retired = name.starts_with("gpt-4o-realtime-preview")
        || name.starts_with("gpt-4o-mini-realtime-preview")
        || name == "gpt-5-realtime";
    match name {
        "" => (DEFAULT_MODEL.to_owned(), None),
        _ if retired => (DEFAULT_MODEL.to_owned(), Some(name.to_owned())),
        _ => (name.to_owned(), None),
    }
}

/// Whether an address is one that only a private network or this host reaches.
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_private_v4(ip),
            None => ip.is_loopback() || (ip.segments()[0] & 0xfe00) == 0xfc00,
        },
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    ip.is_loopback() || ip.is_private() || (a == 100 && (64..128).contains(&b))
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let form = "must be FIRST-LAST, two ports of 1024 to 65535 such as 40000-41999";
    let (first, last) = text.split_once('-').ok_or(form)?;
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port >= 1024).ok_or(form);
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("{form}; {first} is above {last}"));
    }
    Ok(first..=last)
}

fn parse_complexity(text: &str) -> Result<RangeInclusive<u8>, String> {
    let form = "must be 0 to 10, or two such numbers as in 0-5";
    let number = |text: &str| text.trim().parse::<u8>().ok().filter(|number| *number <= 10).ok_or(form);
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (number(low)?, number(high)?),
        None => (number(text)?, number(text)?),
    };
    if low > high {
        return Err(format!("{form}; {low} is above {high}"));
    }
    Ok(low..=high)
}

fn upstream(
    choice: AgentChoice,
    url: Option<&str>,
    api_key: Option<Secret>,
    org_id: Option<String>,
    project_id: Option<String>,
    allow_plaintext: bool,
) -> Result<Upstream, ConfigError> {
    let url = url.filter(|url| !url.is_empty());
    let builtin = match choice {
        AgentChoice::Builtin => true,
        AgentChoice::Openai => false,
        AgentChoice::Auto => api_key.is_none() && url.is_none(),
    };
    if builtin {
        return Ok(Upstream::Builtin);
    }
    let setting = "OPENAI_REALTIME_URL (--realtime-url)";
    let parsed =
        RealtimeUrl::parse(url.unwrap_or(DEFAULT_REALTIME_URL)).map_err(|problem| ConfigError { setting, problem })?;
    if !parsed.tls && !parsed.is_loopback() && !allow_plaintext {
        let problem = "is ws:// beyond loopback: the key and the audio would travel in clear. \
                       Use wss://, or set BRIDGE_ALLOW_PLAINTEXT_MODEL=1"
            .into();
        return Err(ConfigError { setting, problem });
    }
    if api_key.is_none() && parsed.host == "api.openai.com" {
        let problem = "is needed for api.openai.com; without a key, BRIDGE_AGENT=builtin answers calls".into();
        return Err(ConfigError { setting: "OPENAI_API_KEY (--api-key)", problem });
    }
    Ok(Upstream::Url { url: parsed, api_key, org_id, project_id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    pub(super) struct Line {
        #[command(flatten)]
        pub(super) flags: Flags,
    }

    pub(super) fn config(words: &[&str]) -> Result<Config, ConfigError> {
        let line = Line::try_parse_from([&["bridge"], words].concat()).expect("words that clap takes");
        Config::from_flags(line.flags, 2)
    }

    #[test]
    fn the_defaults_run_on_the_builtin_agent_on_loopback() {
        let config = config(&[]).unwrap();
        assert_eq!(config.upstream, Upstream::Builtin);
        assert!(config.listen.ip().is_loopback());
        assert_eq!((config.workers, config.calls_max, config.media_ports), (2, 800, 40000..=41999));
        assert_eq!((config.opus_complexity, config.admit_busy), (0..=5, Some(0.8)));
    }

    #[test]
    fn a_key_alone_selects_openai() {
        let config = config(&["--api-key", "sk-x"]).unwrap();
        let Upstream::Url { url, .. } = config.upstream else { panic!("not the model") };
        assert_eq!(url.to_string(), "wss://api.openai.com:443/v1/realtime");
    }

    #[test]
    fn a_complexity_is_one_number_or_two() {
        assert_eq!(config(&["--opus-complexity", "7"]).unwrap().opus_complexity, 7..=7);
        let config = config(&["--opus-complexity", "3-10", "--admit-busy-percent", "100"]).unwrap();
        assert_eq!((config.opus_complexity.clone(), config.admit_busy), (3..=10, None));
        assert!(config.to_string().contains("3-10"));
    }

    #[test]
    fn port_changes_the_port_alone() {
        assert_eq!(config(&["--port", "9000"]).unwrap().listen.to_string(), "127.0.0.1:9000");
    }

    #[test]
    fn every_nonsense_is_refused_by_the_name_of_its_setting() {
        for (words, setting) in [
            (&["--listen", "0.0.0.0:8080"][..], "BRIDGE_API_TOKEN"),
            (&["--api-token", "short"], "BRIDGE_API_TOKEN"),
            (&["--media-ports", "9-1"], "BRIDGE_MEDIA_PORTS"),
            (&["--media-ports", "42000-41000"], "BRIDGE_MEDIA_PORTS"),
            (&["--media-ip", "0.0.0.0"], "BRIDGE_MEDIA_IP"),
            (&["--opus-complexity", "11"], "BRIDGE_OPUS_COMPLEXITY"),
            (&["--opus-complexity", "5-0"], "BRIDGE_OPUS_COMPLEXITY"),
            (&["--opus-complexity", "low"], "BRIDGE_OPUS_COMPLEXITY"),
            (&["--admit-busy-percent", "101"], "BRIDGE_ADMIT_BUSY_PERCENT"),
            (&["--io-window-us", "5001"], "BRIDGE_IO_WINDOW_US"),
            (&["--start-delay-ms", "15001"], "BRIDGE_START_DELAY_MS"),
            (&["--realtime-url", "http://x"], "OPENAI_REALTIME_URL"),
            (&["--realtime-url", "ws://model.example/v1"], "OPENAI_REALTIME_URL"),
            (&["--agent", "openai"], "OPENAI_API_KEY"),
            (&["--api-key", "two words"], "OPENAI_API_KEY"),
            (&["--workers", "0"], "BRIDGE_WORKERS"),
            (&["--max-calls", "0"], "BRIDGE_MAX_CALLS"),
            (&["--max-calls", "5000"], "BRIDGE_MAX_CALLS"),
            (&["--max-duration-sec", "1"], "BRIDGE_MAX_DURATION_SEC"),
            (&["--drain-sec", "86401"], "BRIDGE_DRAIN_SEC"),
        ] {
            let error = config(words).expect_err(&format!("{words:?} was taken"));
            assert!(error.setting.starts_with(setting), "{words:?} blamed {error}");
        }
    }

    #[test]
    fn retired_models_become_the_default_and_are_named() {
        for name in ["gpt-4o-realtime-preview", "gpt-4o-realtime-preview-2024-12-17", "gpt-5-realtime"] {
            assert_eq!(current_model(name), (DEFAULT_MODEL.to_owned(), Some(name.to_owned())));
        }
        assert_eq!(current_model("gpt-realtime-2.1-mini"), ("gpt-realtime-2.1-mini".to_owned(), None));
    }

    #[test]
    fn secrets_do_not_print() {
        let config = config(&["--api-key", "sk-canary", "--api-token", "0123456789abcdef"]).unwrap();
        let shown = format!("{config:?}");
        assert!(!shown.contains("sk-canary") && !shown.contains("0123456789abcdef"), "{shown}");
    }

    #[test]
    fn realtime_urls_parse_or_say_why_not() {
        let url = RealtimeUrl::parse("ws://[::1]:8765/v1/realtime?x=1").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.tls), ("::1", 8765, false));
        assert_eq!(url.to_string(), "ws://[::1]:8765/v1/realtime?x=1");
        assert_eq!(RealtimeUrl::parse("wss://h").unwrap().to_string(), "wss://h:443/");
        for bad in ["", "wss://", "wss://u:p@h/", "ws://h:x/", "ws://[::1/", "wss://h/a b", "wss://h/#f"] {
            assert!(RealtimeUrl::parse(bad).is_err(), "{bad:?} was taken");
        }
    }
}
