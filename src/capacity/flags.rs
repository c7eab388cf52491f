//! The flags of `voice-media-bridge capacity`, and what they mean.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::search::Search;

/// Calls that a search goes up to at most: beyond it one load is the bottleneck on any machine known.
const CALLS_MAX: usize = 5_000;

/// Workers at most; more than any machine that this was tried on has cores.
const WORKERS_MAX: u16 = 256;

/// The first number of calls tried, for each worker: a quarter of what a core holds.
const START_PER_WORKER: usize = 25;

/// New calls a second while a step ramps up: quick, and not so quick that answering them disturbs what it settles to.
const RATES: (f64, f64) = (5.0, 50.0);

/// Who talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TalkMode {
    /// Both sides all the time: the most that a call can cost.
    Both,
    /// The caller 40 % of the time and the model 40 %: a normal conversation.
    Conversation,
}

/// What was typed.
#[derive(Args, Clone, Debug)]
pub struct CapacityFlags {
    /// Who talks: `both` all the time, or a `conversation` in which each side talks 40 % of it
    #[arg(long, value_enum, default_value_t = TalkMode::Both)]
    pub talk: TalkMode,
    /// Complexity of the bridge's Opus encoders: 0 to 10, or a range such as 0-5 within which it follows the load
    #[arg(long, value_name = "N|LOW-HIGH", default_value = "5")]
    pub complexity: String,
    /// Workers of the bridge, one core each
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub workers: u16,
    /// Which kernel interface moves the bridge's packets: auto, uring or epoll
    #[arg(long, value_parser = ["auto", "uring", "epoll"], default_value = "auto")]
    pub io: String,
    /// A number of calls holds when the 99th percentile of tick lateness is at most this, and no packet is lost
    #[arg(long, value_name = "MS", default_value_t = 2.0)]
    pub bound_tick_p99_ms: f64,
    /// Seconds that each number of calls is measured
    #[arg(long, value_name = "SEC", default_value_t = 10.0)]
    pub step_sec: f64,
    /// Seconds that it settles before that, once all calls are asked for
    #[arg(long, value_name = "SEC", default_value_t = 4.0)]
    pub settle_sec: f64,
    /// Calls to go up to. Default: 500 for each worker
    #[arg(long, value_name = "N")]
    pub max_calls: Option<usize>,
    /// Write the report as JSON; `-` is standard output, and the table then goes to standard error
    #[arg(long, value_name = "FILE")]
    pub json: Option<String>,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Settings of the bridge: variables and values.
    pub bridge: Vec<(&'static str, String)>,
    /// The model's arguments, but for where it listens.
    pub agent: Vec<String>,
    /// How much callers talk, as `load` takes it.
    pub speech: &'static str,
    /// Workers of the bridge.
    pub workers: u16,
    /// Milliseconds.
    pub bound_tick_p99_ms: f64,
    /// How long a number of calls is measured.
    pub measured: Duration,
    /// How long it settles before that.
    pub settled: Duration,
    /// Where it begins and ends.
    pub search: Search,
    /// All of it in words.
    pub question: String,
}

impl CapacityFlags {
    /// Checks what was typed.
    pub fn plan(&self) -> Result<Plan, String> {
        let within = |flag: &str, value: f64, least: f64, most: f64| {
            if (least..=most).contains(&value) {
                return Ok(value);
            }
            Err(format!("{flag} must be from {least} to {most}, not {value}"))
        };
        let workers = within("--workers", self.workers.into(), 1.0, WORKERS_MAX.into())? as u16;
        let most = self.max_calls.unwrap_or((500 * usize::from(workers)).min(CALLS_MAX));
        within("--max-calls", most as f64, 1.0, CALLS_MAX as f64)?;
        let bound_tick_p99_ms = within("--bound-tick-p99-ms", self.bound_tick_p99_ms, 0.01, 10_000.0)?;
        let measured = within("--step-sec", self.step_sec, 1.0, 3_600.0)?;
        let settled = within("--settle-sec", self.settle_sec, 0.5, 600.0)?;
        let complexity = &self.complexity;
        if complexity.is_empty() || !complexity.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return Err(format!("--complexity must be 0 to 10 or a range such as 0-5, not {complexity:?}"));
        }
        let (speech, agent, talk) = match self.talk {
            TalkMode::Both => ("always", vec!["--echo".to_owned()], "both sides talk all the time"),
            TalkMode::Conversation => {
                ("0.4", vec!["--talk-percent".to_owned(), "40".to_owned()], "each side talks 40 % of the time")
            }
        };
        Ok(Plan {
            bridge: vec![
                ("BRIDGE_WORKERS", workers.to_string()),
                ("BRIDGE_IO", self.io.clone()),
                ("BRIDGE_OPUS_COMPLEXITY", complexity.clone()),
                // The search finds the edge: the bridge must not step back from it by itself.
                ("BRIDGE_ADMIT_BUSY_PERCENT", "100".to_owned()),
                ("BRIDGE_MAX_CALLS", (most + 8).to_string()),
            ],
            agent,
            speech,
            workers,
            bound_tick_p99_ms,
            measured: Duration::from_secs_f64(measured),
            settled: Duration::from_secs_f64(settled),
            search: Search::new(START_PER_WORKER * usize::from(workers), most),
            question: format!("{talk}, complexity {complexity}, {workers} worker(s), io {}", self.io),
        })
    }
}

impl Plan {
    /// New calls a second while a step ramps up to so many.
    pub fn rate(calls: usize) -> f64 {
        (calls as f64 / 4.0).clamp(RATES.0, RATES.1)
    }

    /// What a step of so many calls takes before it is measured.
    pub fn before_measuring(&self, calls: usize) -> Duration {
        Duration::from_secs_f64((calls - 1) as f64 / Self::rate(calls)) + self.settled
    }

    /// What is about to happen, in words: to be shown before it does.
    pub fn announcement(&self) -> String {
        let steps = self.search.steps_max();
        let each = self.before_measuring(200) + self.measured;
        let minutes = (each.as_secs_f64() * steps as f64 / 60.0).ceil();
        format!(
            "{}\nAt most {steps} numbers of calls, about {} s each: {minutes:.0} min at most, twice that if every one is \
             close to the edge and so tried again. Ctrl-C ends it with what was found so far.",
            self.question,
            each.as_secs()
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        flags: CapacityFlags,
    }

    fn plan(args: &[&str]) -> Result<Plan, String> {
        let cli = Cli::try_parse_from([&["capacity"], args].concat()).map_err(|error| error.to_string())?;
        cli.flags.plan()
    }

    #[test]
    fn flags_become_a_plan_that_says_how_long_it_takes() {
        let plan = plan(&["--talk", "conversation", "--complexity", "0-5", "--workers", "2", "--io", "epoll"]).unwrap();
        assert_eq!((plan.speech, plan.agent.join(" ").as_str()), ("0.4", "--talk-percent 40"));
        for setting in [("BRIDGE_OPUS_COMPLEXITY", "0-5"), ("BRIDGE_IO", "epoll"), ("BRIDGE_ADMIT_BUSY_PERCENT", "100")]
        {
            assert!(plan.bridge.iter().any(|(name, value)| (*name, value.as_str()) == setting), "{setting:?}");
        }
        assert_eq!(plan.search.next(), Some(50));
        let text = plan.announcement();
        assert!(
            text.contains("40 % of the time") && text.contains("At most ") && text.contains("min at most"),
            "{text}"
        );
        assert_eq!((Plan::rate(1), Plan::rate(100), Plan::rate(1_000)), (5.0, 25.0, 50.0));
    }

    #[test]
    fn what_cannot_work_is_named() {
        for (args, said) in [
            (&["--workers", "0"][..], "--workers"),
            (&["--max-calls", "0"], "--max-calls"),
            (&["--step-sec", "0"], "--step-sec"),
            (&["--complexity", "low"], "--complexity"),
            (&["--io", "kqueue"], "uring"),
            (&["--talk", "nobody"], "conversation"),
        ] {
            let error = plan(args).unwrap_err();
            assert!(error.contains(said), "{args:?}: {error}");
        }
    }
}
