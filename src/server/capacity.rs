//! Runs a capacity search: a bridge and a model of its own as child processes, a load for each number of calls, and the
//! bridge's metrics before and after.

use std::time::Duration;

use serde_json::Value;

use crate::capacity::flags::{CapacityFlags, Plan};
use crate::capacity::report::{Evidence, HEAD, Report, Step, Usage};
use crate::capacity::scrape::Scrape;
use crate::driver::children::Child;
use crate::driver::fetch::Client;
use crate::driver::system;
use crate::driver::tools::{self, Interrupts};

/// How long a child may take to start, and a load to hang up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a child is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long the bridge may take to tell its metrics.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Media ports below those that the kernel gives to others. A closed one rests for a while: steps need several times the
/// calls.
const MEDIA_PORTS: &str = "10000-31999";

/// How far above the bound a step still counts as close to it, and is tried again: another guest of the host, or a job of
/// the machine's own, is enough for one bad second.
const CLOSE: f64 = 4.0;

/// The bridge, its model, and where they may run.
struct Rig {
    plan: Plan,
    bridge: Child,
    agent: Child,
    /// Cores of the load; empty: anywhere.
    others: Vec<usize>,
    url: String,
    client: Client,
    interrupts: Interrupts,
}

/// Why a step has no result.
enum Broken {
    Interrupted,
    Failed(String),
}

/// Runs it. `say` gets the announcement and a row for each step.
pub fn run(flags: &CapacityFlags, say: &mut dyn FnMut(&str)) -> Result<Report, String> {
    let plan = flags.plan()?;
    let cores = system::cores();
    let workers = usize::from(plan.workers);
    // What is not the bridge has cores of its own, where there are any.
    let (own, others) = if cores.len() > workers { cores.split_at(workers) } else { (&[][..], &[][..]) };
    say(&plan.announcement());
    say(&match (own, others) {
        ([], _) => {
            format!("The bridge, its model and the load share {} core(s): the result is a lower bound.", cores.len())
        }
        _ => format!("The bridge runs on core(s) {own:?}, model and load on {others:?}."),
    });
    let mut rig = Rig::start(plan, own, others)?;
    let idle = rig.bridge.memory_bytes();
    say(HEAD);
    let mut search = rig.plan.search.clone();
    let (mut steps, mut interrupted) = (Vec::new(), false);
    while let Some(calls) = search.next() {
        match rig.step(calls, say, &mut steps) {
            Ok(holds) => search.record(calls, holds),
            Err(Broken::Interrupted) => {
                interrupted = true;
                break;
            }
            Err(Broken::Failed(why)) => return Err(why),
        }
    }
    let Plan { question, workers, bound_tick_p99_ms, .. } = rig.plan;
    let is_open = search.is_open() && !interrupted;
    let report = Report::of(question, workers, bound_tick_p99_ms, steps, idle, is_open, others.is_empty());
    Ok(Report { interrupted, ..report })
}

impl Rig {
    fn start(plan: Plan, own: &[usize], others: &[usize]) -> Result<Self, String> {
        let interrupts = Interrupts::catch().map_err(|error| format!("no thread for signals: {error}"))?;
        let port = || tools::free_loopback_port().map_err(|error| format!("no free port on loopback: {error}"));
        let (model, api) = (port()?, port()?);
        let mut arguments = vec!["agent".to_owned(), "--listen".to_owned(), format!("127.0.0.1:{model}")];
        arguments.extend(plan.agent.iter().cloned());
        let mut agent = start("the model", &arguments, &[], others)?;
        wait_for("the model", &interrupts, &mut agent, |agent| agent.stderr().contains("listens on"))?;

        let url = format!("http://127.0.0.1:{api}");
        let mut environment = plan.bridge.clone();
        environment.extend([
            ("BRIDGE_LISTEN", format!("127.0.0.1:{api}")),
            ("BRIDGE_MEDIA_IP", "127.0.0.1".to_owned()),
            ("BRIDGE_MEDIA_PORTS", MEDIA_PORTS.to_owned()),
            ("BRIDGE_ALLOW_PRIVATE", "1".to_owned()),
            ("BRIDGE_AGENT", "openai".to_owned()),
            ("OPENAI_REALTIME_URL", format!("ws://127.0.0.1:{model}/v1/realtime")),
            ("BRIDGE_LOG", "warn".to_owned()),
        ]);
        let mut bridge = start("the bridge", &["serve".to_owned()], &environment, own)?;
        let client = Client::new(&url, None, ANSWER_TIME_MAX).map_err(|error| error.to_string())?;
        wait_for("the bridge", &interrupts, &mut bridge, |_| {
            client.get("/health").is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(Self { plan, bridge, agent, others: others.to_vec(), url, client, interrupts })
    }

    /// Measures a number of calls, twice if the first time was close; whether it held.
    fn step(&mut self, calls: usize, say: &mut dyn FnMut(&str), steps: &mut Vec<Step>) -> Result<bool, Broken> {
        for _ in 0..2 {
            let step = self.measure(calls)?;
            say(&step.to_string());
            let holds = step.holds();
            let close = step.tick_late_p99_ms.is_some_and(|ms| ms < CLOSE * self.plan.bound_tick_p99_ms)
                && step.connected == calls as u64;
            steps.push(step);
            if holds || !close {
                return Ok(holds);
            }
        }
        Ok(false)
    }

    fn measure(&mut self, calls: usize) -> Result<Step, Broken> {
        let duration = self.plan.settled + self.plan.measured + Duration::from_secs(1);
        let arguments = [
            "load",
            "--url",
            &self.url,
            "--calls",
            &calls.to_string(),
            "--rate",
            &Plan::rate(calls).to_string(),
            "--duration",
            &duration.as_secs_f64().to_string(),
            "--speech",
            self.plan.speech,
            "--json",
            "-",
        ];
        let mut load = start("the load", &arguments.map(str::to_owned), &[], &self.others).map_err(Broken::Failed)?;
        self.pass(&mut load, self.plan.before_measuring(calls))?;
        let (before, bridge, agent, start) =
            (self.scrape(), self.bridge.cpu_seconds(), self.agent.cpu_seconds(), system::now());
        self.pass(&mut load, self.plan.measured)?;
        let (after, seconds) = (self.scrape(), start.elapsed().as_secs_f64());
        let used = |now: Option<f64>, before: Option<f64>| Some(now? - before?);
        let bridge =
            Usage { cpu_seconds: used(self.bridge.cpu_seconds(), bridge), memory_bytes: self.bridge.memory_bytes() };
        let agent = Usage { cpu_seconds: used(self.agent.cpu_seconds(), agent), memory_bytes: None };
        self.let_end(&mut load)?;
        let report: Value = serde_json::from_str(&load.stdout())
            .map_err(|_| Broken::Failed(format!("the load gave no report: {}", last_lines(&load.stderr()))))?;
        let evidence = Evidence {
            calls,
            workers: self.plan.workers,
            before: &before,
            after: &after,
            seconds,
            bridge,
            agent,
            load: &report,
        };
        Ok(Step::of(&evidence, self.plan.bound_tick_p99_ms))
    }

    /// Lets time pass; less of it when the load is over, since all calls were refused.
    fn pass(&mut self, load: &mut Child, time: Duration) -> Result<(), Broken> {
        let end = system::now() + time;
        loop {
            let left = end.saturating_duration_since(system::now());
            if self.interrupts.wait(left.min(LOOK_AGAIN)) {
                return Err(Broken::Interrupted);
            }
            for (name, child) in [("the bridge", &mut self.bridge), ("the model", &mut self.agent)] {
                if child.has_ended() {
                    return Err(Broken::Failed(format!("{name} ended: {}", last_lines(&child.stderr()))));
                }
            }
            if left.is_zero() || load.has_ended() {
                return Ok(());
            }
        }
    }

    /// Waits until the load has hung up and reported.
    fn let_end(&self, load: &mut Child) -> Result<(), Broken> {
        let end = system::now() + PATIENCE;
        while !load.has_ended() {
            if self.interrupts.wait(LOOK_AGAIN) {
                return Err(Broken::Interrupted);
            }
            if system::now() > end {
                return Err(Broken::Failed(format!("the load does not end: {}", last_lines(&load.stderr()))));
            }
        }
        Ok(())
    }

    fn scrape(&self) -> Scrape {
        let get = |path| self.client.get(path).ok().filter(|answer| answer.status == 200).map(|answer| answer.body);
        Scrape::parse(&get("/metrics").unwrap_or_default(), get("/api/latency").as_deref())
    }
}

fn start(what: &str, arguments: &[String], environment: &[(&str, String)], cores: &[usize]) -> Result<Child, String> {
    Child::start(arguments, environment, cores).map_err(|error| format!("{what} cannot be started: {error}"))
}

/// Waits until a child is as it should be. An interrupt and a child that ends are errors.
fn wait_for(
    what: &str,
    interrupts: &Interrupts,
    child: &mut Child,
    is_so: impl Fn(&Child) -> bool,
) -> Result<(), String> {
    let end = system::now() + PATIENCE;
    while !is_so(child) {
        if child.has_ended() {
            return Err(format!("{what} ended: {}", last_lines(&child.stderr())));
        }
        if interrupts.wait(LOOK_AGAIN) {
            return Err("interrupted".to_owned());
        }
        if system::now() > end {
            return Err(format!("waited {} s for {what}: {}", PATIENCE.as_secs(), last_lines(&child.stderr())));
        }
    }
    Ok(())
}

/// The end of what a child said.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
