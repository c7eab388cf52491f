//! Runs a load on this thread: the driver, the signals, the host's answers.

use std::cell::RefCell;
use std::rc::Rc;

use crate::builtin;
use crate::config::{IoChoice, Secret};
use crate::driver::mail::{Routes, mailbox};
use crate::driver::{self, Setup, Window, signals, system, tools};
use crate::load::flags::{LoadFlags, ServerUrl};
use crate::load::report::{Progress, Report};
use crate::load::{Host, Load, LoadEvent};
use crate::tls::Tls;

/// Runs it until it is done or a signal ends it. Errors say what could not be set up and what to do.
pub fn run(flags: &LoadFlags, mut progress: impl FnMut(Progress) + 'static) -> Result<Report, String> {
    let url = ServerUrl::parse(&flags.url)?;
    let server = tools::resolve(&url.host, url.port)
        .map_err(|error| format!("--url names the host {}, which is not found: {error}", url.host))?;
    let mut drawn = [0; 16];
    system::entropy(&mut drawn);
    let (id, seed) = drawn.split_at(8);
    let run_id = format!("{:016x}", u64::from_be_bytes(id.try_into().expect("eight bytes")));
    let seed = u64::from_le_bytes(seed.try_into().expect("eight bytes"));
    let tls = match &flags.ca {
        _ if !url.is_tls => None,
        Some(path) => Some(Tls::with_roots(tools::authorities(path)?)?),
        None => Some(Tls::new()?),
    };
    let token = flags.token.clone().map(Secret::new);
    let token = tools::api_token(token.as_ref(), flags.token_file.as_deref())?;
    let flags = LoadFlags { token: token.map(|token| token.expose().to_owned()), ..flags.clone() };
    let config = flags.config(&url, server, tls, run_id, seed)?;

    let chosen = driver::probe(IoChoice::Auto)?;
    let _ = system::raise_descriptor_limit(); // a pool of connections and one socket fit into any
    let (sender, inbox) = mailbox::<()>().map_err(|error| format!("no mailbox: {error}"))?;
    let _signals = signals::forward(sender.stopper()).map_err(|error| format!("no thread for signals: {error}"))?;
    let report: Rc<RefCell<Option<Report>>> = Rc::default();
    let sink = {
        let report = Rc::clone(&report);
        Box::new(move |event| match event {
            LoadEvent::Progress(now) => progress(now),
            LoadEvent::Finished(finished) => *report.borrow_mut() = Some(*finished),
        })
    };
    let host = Host { thread_cpu: tools::thread_cpu, socket_drops: tools::socket_drops };
    let load = Load::new(config, host, &builtin::recording(), sink)?;
    let mut setup = Setup::new("load", inbox, Routes::new());
    // Receive times are the kernel's, so only the load's own packets are later by the window, and that is measured.
    setup.window = Window::of_tool();
    driver::run(chosen.kind, load, setup).map_err(|error| format!("the load's loop failed: {error}"))?;
    let report = report.borrow_mut().take();
    report.ok_or_else(|| "the load ended without a report".to_owned())
}
