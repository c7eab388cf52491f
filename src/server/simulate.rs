//! Runs the simulator on this thread: the driver, the listener of the Graph API, the signals, files.

use std::cell::RefCell;
use std::fmt::Write;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::rc::Rc;

use crate::builtin;
use crate::config::IoChoice;
use crate::driver::mail::{Routes, mailbox};
use crate::driver::threads::listen;
use crate::driver::{self, Listener, Setup, Window, files, process, signals, system, tools};
use crate::io::Door;
use crate::load::flags::ServerUrl;
use crate::load::voices;
use crate::simulator::flags::{SimulateFlags, Surroundings};
use crate::simulator::report::Report;
use crate::simulator::{Simulator, SimulatorConfig, SimulatorEvent, wav};
use crate::tls::Tls;

/// Where the relay's port may be, where none is asked for: apart from the kernel's own choice, which may be one of the
/// bridge's media ports, and to those no bridge sends.
pub(super) const RELAY_PORTS: RangeInclusive<u16> = 20_000..=20_999;

/// How much faster than the built-in agent the caller speaks.
const CALLER_SPEED: f64 = 1.19;

/// Runs it until all is done or a signal ends it. `say` gets what the user reads before anything happens, `tell` what
/// happens. Errors say what could not be set up and what to do.
pub fn run(
    flags: &SimulateFlags,
    say: impl FnOnce(&str),
    mut tell: impl FnMut(&SimulatorEvent) + 'static,
) -> Result<Report, String> {
    let url = ServerUrl::parse(&flags.webhook).map_err(|error| error.replace("--url", "--webhook"))?;
    let server = tools::resolve(&url.host, url.port)
        .map_err(|error| format!("--webhook names the host {}, which is not found: {error}", url.host))?;
    let tls = match &flags.ca {
        _ if !url.is_tls => None,
        Some(path) => Some(Tls::with_roots(tools::authorities(path)?)?),
        None => Some(Tls::new()?),
    };
    let around = Surroundings {
        server,
        tls: tls.map(|tls| (tls, url.host.clone())),
        authority: url.authority.clone(),
        path: url.path.clone(),
        speech: speech(flags.speech.as_deref())?,
        seed: seed(),
        unix_sec: || process::unix_sec() as u64,
    };
    let config = flags.config(around)?;
    let (listener, graph) = listen(flags.listen)
        .map_err(|error| format!("the Graph API cannot listen on {} (--listen): {error}", flags.listen))?;
    let (_, variables) = flags.account.account()?;
    let mut text =
        format!("The Graph API listens on http://{graph}. A bridge that is to be tried needs these variables:\n");
    let _ = writeln!(text, "  BRIDGE_GRAPH_URL=http://{graph}"); // a String takes everything
    for (name, value) in variables {
        let _ = writeln!(text, "  {name}={value}");
    }
    say(&text);
    let folder = flags.record.clone();
    let ports = match flags.relay.port() {
        0 => RELAY_PORTS,
        port => port..=port,
    };
    let sink = move |event: &SimulatorEvent| {
        if let (SimulatorEvent::Recording(name, samples), Some(folder)) = (event, &folder) {
            let path = folder.join(format!("{name}.wav"));
            if let Err(error) = tools::write_file(&path.display().to_string(), wav::write(samples)) {
                eprintln!("cannot write {}: {error}", path.display());
            }
        }
        tell(event);
    };
    let report = run_machine(config, (listener.into(), graph), ports, sink)?;
    report.error.clone().map_or(Ok(report), Err)
}

/// Runs the machine with its Graph API behind this listener.
pub(super) fn run_machine(
    config: SimulatorConfig,
    (listener, _): (Listener, SocketAddr),
    ports: RangeInclusive<u16>,
    mut tell: impl FnMut(&SimulatorEvent) + 'static,
) -> Result<Report, String> {
    let chosen = driver::probe(IoChoice::Auto)?;
    let _ = system::raise_descriptor_limit(); // a pool of connections and one socket fit into any
    let (sender, inbox) = mailbox::<()>().map_err(|error| format!("no mailbox: {error}"))?;
    let _signals = signals::forward(sender.stopper()).map_err(|error| format!("no thread for signals: {error}"))?;
    let report: Rc<RefCell<Option<Report>>> = Rc::default();
    let sink = {
        let report = Rc::clone(&report);
        Box::new(move |event| {
            tell(&event);
            if let SimulatorEvent::Finished(finished) = event {
                *report.borrow_mut() = Some(*finished);
            }
        })
    };
    let simulator = Simulator::new(config, sink)?;
    let mut setup = Setup::new("simulator", inbox, Routes::new());
    setup.doors.push((Door::Api, listener));
    setup.ports = Some(ports);
    setup.window = Window::of_tool();
    driver::run(chosen.kind, simulator, setup).map_err(|error| format!("the simulator's loop failed: {error}"))?;
    let report = report.borrow_mut().take();
    report.ok_or_else(|| "the simulator ended without a report".to_owned())
}

/// What callers say.
pub(super) fn speech(path: Option<&Path>) -> Result<Vec<i16>, String> {
    // Not in the built-in agent's own voice: its greeting is this recording, and a greeting is no answer.
    let Some(path) = path else { return Ok(voices::at_speed(&builtin::recording(), CALLER_SPEED)) };
    let named = |problem: &str| format!("--speech {} {problem}", path.display());
    let file = files::read(path, wav::FILE_BYTES_MAX).map_err(|problem| named(&problem))?;
    wav::read(&file.ok_or_else(|| named("does not exist"))?).map_err(|problem| named(&problem))
}

pub(super) fn seed() -> u64 {
    let mut drawn = [0; 8];
    system::entropy(&mut drawn);
    u64::from_le_bytes(drawn)
}
