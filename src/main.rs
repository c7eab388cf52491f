//! The command line: what to run, on which settings, and how it says that it cannot.

#[path = "main/manual.rs"]
mod manual;

use std::io::{ErrorKind, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};
use voice_media_bridge::capacity::flags::CapacityFlags;
use voice_media_bridge::check::Origin;
use voice_media_bridge::check::flags::CheckFlags;
use voice_media_bridge::config::{Config, Flags, LogFormat, SECRET_FILE_BYTES_MAX, Secret};
use voice_media_bridge::doctor::flags::DoctorFlags;
use voice_media_bridge::driver::fetch::Client;
use voice_media_bridge::driver::{files, installed, system, terminal, tools};
use voice_media_bridge::latency;
use voice_media_bridge::load::flags::LoadFlags;
use voice_media_bridge::server;
use voice_media_bridge::server::check::Depth;
use voice_media_bridge::server::doctor::Told;
use voice_media_bridge::simulator::flags::{DemoFlags, SimulateFlags};
use voice_media_bridge::simulator::{self, SimulatorEvent};
use voice_media_bridge::top;

/// Joins WhatsApp Business voice calls (WebRTC, Opus) to a realtime speech model
///
/// It takes Meta's webhook itself and answers through the Graph API (WhatsApp, below); or a webhook posts WhatsApp's SDP offer to
/// POST /api/sessions and gets the answer. The caller then talks with the model. Without an API key a built-in agent answers: it
/// greets the caller and plays their words back.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true, max_term_width = 100)]
#[command(after_help = "Every flag can be set by the environment variable that its help names.\n\
    See it work: voice-media-bridge demo. Talk with it: run without arguments, open http://127.0.0.1:8080/\n\
    and press Call.")]
struct Cli {
    #[command(subcommand)]
    command: Option<Task>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Task {
    /// Run the bridge; the same as no command
    Serve(Box<Flags>),
    /// Print the effective settings, secrets hidden, and test them: each failure with what to do about it
    #[command(after_help = CHECK_HELP)]
    CheckConfig(Box<CheckFlags>),
    /// Run the built-in agent alone: a realtime server to point bridges and tests at
    Agent(AgentFlags),
    /// Drive a server with simulated WhatsApp calls, and measure what callers would hear
    #[command(after_help = LOAD_HELP)]
    Load(Box<LoadFlags>),
    /// Find out how many calls this machine holds, and what one costs
    #[command(after_help = CAPACITY_HELP)]
    Capacity(Box<CapacityFlags>),
    /// Place a call to a bridge through the real network stack, and say which step failed
    #[command(after_help = DOCTOR_HELP)]
    Doctor(Box<DoctorArgs>),
    /// Play Meta's side of WhatsApp calls to a bridge, scenario by scenario, and say what did not hold
    #[command(after_help = SIMULATE_HELP)]
    SimulateWhatsapp(Box<SimulateFlags>),
    /// See it work: a simulated WhatsApp, a bridge and the built-in agent on this machine, and one call
    #[command(after_help = DEMO_HELP)]
    Demo(DemoFlags),
    /// Show the live calls of a running bridge in this terminal
    #[command(after_help = "Keys: q quit, s sort by the next column, arrows and PgUp/PgDn scroll, p pause.\n\n\
        Examples:\n  \
        voice-media-bridge top\n  \
        voice-media-bridge top --url https://bridge.example --token $BRIDGE_API_TOKEN\n  \
        voice-media-bridge top --once | grep connecting      # one look, for scripts\n\n\
        Calls are named as in logs: printf %s \"$CALL_ID\" | sha256sum | cut -c1-12")]
    Top(TopFlags),
    /// Print the latencies of a running bridge, or of one of its calls
    #[command(after_help = "Examples:\n  \
        voice-media-bridge latency                           # all calls since the bridge's start\n  \
        voice-media-bridge latency --call wacid.HBg...       # one call, live or of the last hour\n  \
        voice-media-bridge latency --format hgrm > all.hgrm  # to plot: hdrhistogram.org\n  \
        voice-media-bridge latency --format log > all.hlog   # for HdrHistogram's log tools")]
    Latency(LatencyFlags),
    /// Print the manual page, in roff: voice-media-bridge man > systemd/voice-media-bridge.1
    #[command(hide = true)]
    Man,
}

const LOAD_HELP: &str = "\
Examples:
  Fifty callers who talk all the time, for a minute:
    voice-media-bridge load --calls 50 --duration 60
  Round trips. First an echo as the model and a bridge that uses it, then the load:
    voice-media-bridge agent --echo
    OPENAI_REALTIME_URL=ws://127.0.0.1:8765/v1/realtime voice-media-bridge
    voice-media-bridge load --calls 50 --echo --max-echo-p50-ms 15 --max-loss-percent 0
  A normal conversation (the caller talks 40 % of the time), calls coming and going at 5 a second:
    voice-media-bridge load --calls 200 --speech 0.4 --churn 5 --max-answer-p99-ms 20
  Another server with the same API, its report for a script:
    voice-media-bridge load --url http://10.0.0.5:8080 --relay-ip 10.0.0.9 --json report.json
  Over TLS, with a certificate of an authority of your own:
    voice-media-bridge load --url https://bridge.internal:8443 --ca ca.pem --relay-ip 10.0.0.9
Ctrl-C hangs up and reports. Exit codes: 0 all is well, 1 it could not run, 3 a bound was missed
or nothing connected. Callers talk and listen as WhatsApp's do; the bridge must be allowed to reach
them (BRIDGE_ALLOW_PRIVATE=1 for private addresses).";

const CHECK_HELP: &str = "\
It changes nothing, sends no request to the model, and reads the same variables as the bridge:
those of this shell, or with --installed those of the service. Limits are this shell's.

Examples:
  Of the installed service:           sudo voice-media-bridge check-config --installed
  Before a start:                     voice-media-bridge check-config
  Whether the key is taken (opens and closes a session; no audio, no answer is asked for;
  asks Meta for each of WhatsApp's numbers with its token, which changes nothing):
                                      voice-media-bridge check-config --deep
  For a deployment, without network:  voice-media-bridge check-config --offline --strict --json
Exit codes: 0 a bridge can start on this, 1 it cannot (or, with --strict, there is a warning).";

const DOCTOR_HELP: &str = "\
The caller is on this machine, laid out as WhatsApp's relay. The call is a real one: a model is
billed for its seconds, and a receiver of events is told of its end. Where no bridge listens at a
--url of this machine, one is started for the call, with the settings of this environment on a
free port, and without events.

Examples:
  The installed service:      sudo voice-media-bridge doctor --installed
  A bridge on this machine:   voice-media-bridge doctor
  Another one, from outside:  voice-media-bridge doctor --url https://bridge.example --token TOKEN
  For a script:               voice-media-bridge doctor --json --no-start
Exit codes: 0 every step is well, 1 it could not run, 3 a step failed.";

const CAPACITY_HELP: &str = "\
It starts a bridge, a model and a load of its own on loopback ports, and tries more and more calls
until ticks come too late or packets are lost. Nothing else should run meanwhile: what it measures
is this machine.

Examples:
  Both sides talk all the time, complexity 5:
    voice-media-bridge capacity
  A normal conversation, effort that follows load:
    voice-media-bridge capacity --talk conversation --complexity 0-5
  Two workers, on epoll, for a script:
    voice-media-bridge capacity --workers 2 --io epoll --json -
Exit codes: 0 a number was found, 1 it could not run, 3 not even the smallest number of calls
held.";

const SIMULATE_HELP: &str = "\
Webhooks, Graph API, media relay and callers, on one machine and without an account. Answers are
held to every rule that is known; what is inferred and not documented is marked so (--list).

Examples:
  A bridge and its simulated WhatsApp, in two terminals (it prints the variables that a bridge
  needs; these are the defaults):
    BRIDGE_GRAPH_URL=http://127.0.0.1:8099 WHATSAPP_PHONE_NUMBER_ID=100000000000001 \\
      WHATSAPP_ACCESS_TOKEN=simulated-access-token WHATSAPP_VERIFY_TOKEN=simulated-verify-token \\
      WHATSAPP_APP_SECRET=00112233445566778899aabbccddeeff voice-media-bridge
    voice-media-bridge simulate-whatsapp
  Everything, four scenarios at once:
    voice-media-bridge simulate-whatsapp --scenario all --at-once 4
  Two hundred calls within two seconds:
    voice-media-bridge simulate-whatsapp --scenario burst --calls 200
  At your own pace, a call at a time:
    voice-media-bridge simulate-whatsapp --serve --verbose
    curl http://127.0.0.1:8099/simulator/calls -d '{\"scenario\": \"dtmf\"}'
  A recording of yours as the caller, and what it hears:
    voice-media-bridge simulate-whatsapp --speech me.wav --record /tmp --verbose
  Another bridge, its report for a script:
    voice-media-bridge simulate-whatsapp --webhook http://10.0.0.5:3000/webhook \\
      --listen 10.0.0.9:8099 --relay 10.0.0.9:0 --json report.json
Ctrl-C hangs up and reports. Exit codes: 0 everything held, 1 it could not run, 3 something did
not hold. It sends to this machine and to private networks alone, unless told otherwise.";

const DEMO_HELP: &str = "\
It needs no account, no key and no network: everything runs on loopback, and is gone afterwards.

Examples:
  See a call, from the webhook to the hang-up:  voice-media-bridge demo
  Hear it:                                      voice-media-bridge demo --record heard.wav
  For a script:                                 voice-media-bridge demo --json
Exit codes: 0 the call was as it should be, 1 it could not run, 3 something did not hold.";

/// What a command ends with when it ran and what it measured is not as it should be.
const BOUND_MISSED: u8 = 3;

/// A running bridge.
#[derive(Args)]
struct BridgeFlags {
    /// Where the bridge's API is
    #[arg(long, env = "BRIDGE_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The API's token, where it has one; of several the first
    #[arg(long, env = "BRIDGE_API_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<Secret>,
    /// File with the API's token; of several the first
    #[arg(long, env = "BRIDGE_API_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust the certificates in this file (PEM) and no others. Default: what this machine trusts
    #[arg(long, env = "BRIDGE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl BridgeFlags {
    fn client(&self) -> Result<Client, String> {
        let token = tools::api_token(self.token.as_ref(), self.token_file.as_deref())?;
        let client = match &self.ca {
            Some(path) => Client::with_roots(&self.url, token.as_ref(), ANSWER_TIME_MAX, &tools::authorities(path)?),
            None => Client::new(&self.url, token.as_ref(), ANSWER_TIME_MAX),
        };
        client.map_err(|error| format!("{error} (--url)"))
    }
}

#[derive(Args)]
struct DoctorArgs {
    #[command(flatten)]
    bridge: BridgeFlags,
    #[command(flatten)]
    flags: DoctorFlags,
}

#[derive(Args)]
struct TopFlags {
    #[command(flatten)]
    bridge: BridgeFlags,
    /// Print one look and end: for scripts, and where there is no terminal
    #[arg(long)]
    once: bool,
    /// Time between two looks, in seconds
    #[arg(long, value_name = "SEC", default_value = "1", value_parser = interval)]
    interval: Duration,
}

#[derive(Args)]
struct LatencyFlags {
    #[command(flatten)]
    bridge: BridgeFlags,
    /// The webhook's id of a call. Default: all calls since the bridge's start
    #[arg(long, value_name = "ID")]
    call: Option<String>,
    /// table; json: percentiles and buckets; hgrm: HdrHistogram's percentiles, to plot; log: its interval log, compressed
    #[arg(long, value_parser = ["table", "json", "hgrm", "log"], default_value = "table", hide_possible_values = true)]
    format: String,
}

/// A bridge answers within milliseconds, or refuses after the 2 s that it waits for its workers.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Args)]
struct AgentFlags {
    /// Where to listen
    #[arg(long, env = "BRIDGE_AGENT_LISTEN", value_name = "ADDR:PORT", default_value = "127.0.0.1:8765")]
    listen: SocketAddr,
    /// Return every append at once instead of taking turns: for measuring latency
    #[arg(long)]
    echo: bool,
    /// Talk this share of the time, in bursts of some seconds, whatever the caller says: for load
    #[arg(long, value_name = "1-100", conflicts_with = "echo", value_parser = clap::value_parser!(u8).range(1..=100))]
    talk_percent: Option<u8>,
    /// Log filter: error, warn, info, debug, trace, or `module=level,...`
    #[arg(long, env = "BRIDGE_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// Shape of log lines
    #[arg(long, env = "BRIDGE_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

fn main() -> ExitCode {
    if let Err(error) = installed::adopt(&["check-config", "doctor"]) {
        eprintln!("error: the installed service's settings cannot be used (--installed): {error}");
        return ExitCode::FAILURE;
    }
    let matches = without_empty_variables(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let outcome = match cli.command {
        None => serve(cli.flags),
        Some(Task::Serve(flags)) => serve(*flags),
        Some(Task::CheckConfig(flags)) => match check_config(*flags, &origins(&matches, "check-config")) {
            Ok(code) => return code,
            Err(problem) => Err(problem),
        },
        Some(Task::Agent(flags)) => agent(&flags),
        Some(Task::Load(flags)) => match load(&flags) {
            Ok(code) => return code,
            Err(problem) => Err(problem),
        },
        Some(Task::Capacity(flags)) => match capacity(&flags) {
            Ok(code) => return code,
            Err(problem) => Err(problem),
        },
        Some(Task::Doctor(args)) => match doctor(&args) {
            Ok(code) => return code,
            Err(problem) => Err(problem),
        },
        Some(Task::SimulateWhatsapp(flags)) => match simulate(&flags) {
            Ok(code) => return code,
            Err(problem) => Err(problem),
        },
        Some(Task::Demo(flags)) => match demo(&flags) {
            Ok(code) => return code,
            Err(problem) => Err(problem),
        },
        Some(Task::Top(flags)) => show_top(&flags),
        Some(Task::Latency(flags)) => show_latency(&flags),
        Some(Task::Man) => show_manual(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// A variable that is set to nothing counts as not set: compose files and unit files write `PORT=`.
fn without_empty_variables(command: Command) -> Command {
    let clear = |arg: Arg| match arg.get_env().and_then(|name| name.to_str()) {
        Some(name) if system::variable_is_empty(name) => arg.env(None),
        _ => arg,
    };
    command.mut_args(clear).mut_subcommands(|subcommand| subcommand.mut_args(clear))
}

fn serve(flags: Flags) -> Result<(), String> {
    let config = effective(flags)?;
    start_log(&config.log, config.log_format)?;
    server::run(config)
}

/// Where each setting of a command came from.
fn origins(matches: &ArgMatches, command: &str) -> Vec<Origin> {
    let Some(given) = matches.subcommand_matches(command) else { return Vec::new() };
    let cli = Cli::command();
    let command = cli.find_subcommand(command).expect("its matches are there");
    let origin = |arg: &Arg| {
        let set_by = match given.value_source(arg.get_id().as_str()) {
            Some(ValueSource::CommandLine) => arg.get_long().map(|flag| format!("--{flag}")),
            Some(ValueSource::EnvVariable) => Some("environment".to_owned()),
            _ => None,
        };
        let heading = arg.get_help_heading().unwrap_or("Others").to_owned();
        Some(Origin { variable: arg.get_env()?.to_str()?.to_owned(), heading, set_by })
    };
    command.get_arguments().filter_map(origin).collect()
}

fn check_config(flags: CheckFlags, origins: &[Origin]) -> Result<ExitCode, String> {
    let CheckFlags { settings, installed: _, deep, offline, strict, json } = flags;
    let config = effective(settings)?;
    check_filter(&config.log)?;
    let depth = match (offline, deep) {
        (true, _) => Depth::Offline,
        (false, false) => Depth::Reach,
        (false, true) => Depth::Session,
    };
    let report = server::check::run(&config, origins, depth)?;
    print(&if json { report.to_json() } else { report.to_string() })?;
    Ok(if report.passes(strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn agent(flags: &AgentFlags) -> Result<(), String> {
    start_log(&flags.log, flags.log_format)?;
    server::run_agent(flags.listen, flags.echo, flags.talk_percent)
}

fn load(flags: &LoadFlags) -> Result<ExitCode, String> {
    let in_place = std::io::stderr().is_terminal();
    let report = server::load::run(flags, move |progress| {
        // Who reads this no longer still gets the report.
        let _ = if in_place {
            write!(std::io::stderr(), "\r{progress}\x1b[K") // back to the start, and clear what is left of a longer line
        } else {
            writeln!(std::io::stderr(), "{progress}")
        };
    })?;
    if in_place {
        let _ = writeln!(std::io::stderr());
    }
    hand_out(&report.to_string(), &report.to_json(), flags.json.as_deref())?;
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(BOUND_MISSED) })
}

fn capacity(flags: &CapacityFlags) -> Result<ExitCode, String> {
    let json_alone = flags.json.as_deref() == Some("-");
    let report = server::capacity::run(flags, &mut |line| {
        let _ = if json_alone { writeln!(std::io::stderr(), "{line}") } else { writeln!(std::io::stdout(), "{line}") };
    })?;
    hand_out(&format!("\n{report}"), &report.to_json(), flags.json.as_deref())?;
    Ok(if report.calls.is_some() { ExitCode::SUCCESS } else { ExitCode::from(BOUND_MISSED) })
}

/// Tells each step when it is over, and on a terminal which one is under way.
fn doctor(args: &DoctorArgs) -> Result<ExitCode, String> {
    let (json, in_place) = (args.flags.json, !args.flags.json && std::io::stdout().is_terminal());
    let mut tell = |told: Told<'_>| {
        let (back, line) = match told {
            Told::Begins(name) if in_place => {
                let _ = write!(std::io::stdout(), "...          {}", name.word());
                let _ = std::io::stdout().flush();
                return;
            }
            Told::Begins(_) => return,
            Told::Note(text) => ("\r\x1b[K", text.to_owned()),
            Told::Ended(step) => ("\r\x1b[K", step.to_string()),
        };
        // A reader that has seen enough, such as `head`, ends nothing: the call is still to be hung up.
        let _ = match (json, in_place) {
            (true, _) => writeln!(std::io::stderr(), "{line}"),
            (false, true) => writeln!(std::io::stdout(), "{back}{line}"),
            (false, false) => writeln!(std::io::stdout(), "{line}"),
        };
    };
    let DoctorArgs { bridge, flags } = args;
    let report = server::doctor::run(flags, &bridge.url, &bridge.client()?, bridge.ca.as_deref(), &mut tell)?;
    print(&if json { report.to_json() } else { format!("{report}\n") })?;
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(BOUND_MISSED) })
}

/// Shows each scenario when it is over, and with --verbose what happens in it.
fn simulate(flags: &SimulateFlags) -> Result<ExitCode, String> {
    if flags.list {
        print(&simulator::flags::list())?;
        return Ok(ExitCode::SUCCESS);
    }
    let (json_alone, verbose) = (flags.json.as_deref() == Some("-"), flags.verbose);
    // A reader that has seen enough, such as `head`, ends nothing: calls are still to be hung up.
    let show = move |text: &str| {
        let _ = if json_alone { write!(std::io::stderr(), "{text}") } else { write!(std::io::stdout(), "{text}") };
    };
    let tell = move |event: &SimulatorEvent| match event {
        SimulatorEvent::Told(told) if verbose => show(&format!("{told}\n")),
        SimulatorEvent::Scenario(report) => show(&format!("{report}\n")),
        _ => {}
    };
    let report = server::simulate::run(flags, |text| _ = writeln!(std::io::stderr(), "{text}"), tell)?;
    hand_out(&report.to_string(), &report.to_json(), flags.json.as_deref())?;
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(BOUND_MISSED) })
}

fn demo(flags: &DemoFlags) -> Result<ExitCode, String> {
    let json = flags.json;
    let outcome = server::demo::run(flags, move |line| {
        let _ = if json { writeln!(std::io::stderr(), "{line}") } else { writeln!(std::io::stdout(), "{line}") };
    })?;
    if json {
        print(&outcome.to_json())?;
    }
    Ok(if outcome.passed { ExitCode::SUCCESS } else { ExitCode::from(BOUND_MISSED) })
}

/// Prints a report, and its JSON where it was asked for: `-` is standard output, which then has nothing else.
fn hand_out(text: &str, json: &str, to: Option<&str>) -> Result<(), String> {
    match to {
        Some("-") => {
            let _ = write!(std::io::stderr(), "{text}");
            print(&format!("{json}\n"))
        }
        Some(path) => {
            print(text)?;
            tools::write_file(path, json).map_err(|error| format!("cannot write --json {path}: {error}"))
        }
        None => print(text),
    }
}

fn show_top(flags: &TopFlags) -> Result<(), String> {
    let client = flags.bridge.client()?;
    let mut top = top::Top::new(&flags.bridge.url);
    if flags.once || !std::io::stdout().is_terminal() {
        terminal::Screen::news(&mut top, Ok(top::ask(&client)?));
        return print(&top.plain());
    }
    terminal::run(&mut top, flags.interval, move || top::ask(&client))
        .map_err(|error| format!("the terminal cannot be used: {error}; --once needs none"))
}

fn show_latency(flags: &LatencyFlags) -> Result<(), String> {
    print(&latency::report(&flags.bridge.client()?, flags.call.as_deref(), &flags.format)?)
}

fn show_manual() -> Result<(), String> {
    // Not of what main has parsed: an empty variable takes its option's name out of that one.
    print(&manual::page(Cli::command()).map_err(|error| format!("the page cannot be made: {error}"))?)
}

/// Prints what may be long: a reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> Result<(), String> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("the output cannot be written: {error}")),
        _ => Ok(()),
    }
}

/// A tenth of a second to an hour.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "must be 0.1 to 3600 seconds".to_owned())
}

fn effective(flags: Flags) -> Result<Config, String> {
    let cores = u16::try_from(system::cores().len()).unwrap_or(u16::MAX);
    let read = |path: &Path| files::read(path, SECRET_FILE_BYTES_MAX);
    Config::from_flags_and_files(flags, cores, &read).map_err(|error| error.to_string())
}

fn check_filter(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter).map_err(|error| format!("BRIDGE_LOG (--log) is not a log filter: {error}"))
}

fn start_log(filter: &str, format: LogFormat) -> Result<(), String> {
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let filter = check_filter(filter)?;
    tracing_subscriber::registry().with(filter).with(lines.with_filter(filter_fn(is_harmless))).init();
    Ok(())
}

/// The WebRTC stack shows its ICE credentials at TRACE, whatever the user's filter says of it.
fn is_harmless(line: &Metadata<'_>) -> bool {
    let stack = ["is", "str0m", "str0m_proto", "dimpl", "sctp_proto"];
    let module = line.target().split("::").next().unwrap_or_default();
    *line.level() < Level::TRACE || !stack.contains(&module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
