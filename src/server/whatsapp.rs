//! What WhatsApp needs beside control: its numbers, and the threads that ask the Graph API, pass webhooks on and keep the
//! journal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::config::{Config, Instance, WEBHOOK_PATH, WhatsApp};
use crate::driver::crew::Crew;
use crate::driver::journal::{self, Journal};
use crate::driver::mail::Endpoint;
use crate::driver::{Counters, forward, graph};
use crate::messages::Message;
use crate::whatsapp::Settings;

use super::numbers;

/// The journal's name where there is one instance.
const ONLY_INSTANCE: &str = "calls";

/// How long the end of the process waits for the last webhooks and for the journal's last line, each.
const END_TIME_MAX: Duration = Duration::from_secs(3);

/// The mailboxes of the three.
pub(super) struct Mailboxes {
    pub(super) graph: Endpoint<Message>,
    pub(super) forwarder: Endpoint<Message>,
    pub(super) journal: Endpoint<Message>,
}

/// The threads.
pub(super) struct Helpers {
    graph: Crew,
    forwarder: Option<Crew>,
    journal: Option<Crew>,
}

/// What control is to know.
pub(super) struct Known {
    pub(super) settings: Settings,
    pub(super) notes: Vec<(u64, String)>,
}

/// Reads the numbers and starts the threads, where WhatsApp is configured. Where it is not, the mailboxes go, and what is sent
/// there is nowhere kept.
pub(super) fn start(
    config: &Config,
    mailboxes: Mailboxes,
    counters: &mut Vec<Arc<Counters>>,
) -> Result<Option<(Helpers, Known)>, String> {
    let (Some(whatsapp), Some(settings)) = (&config.whatsapp, numbers::load(config)?) else { return Ok(None) };
    let mut counted = || {
        let own = Arc::new(Counters::default());
        counters.push(Arc::clone(&own));
        own
    };
    let no_thread = |error| format!("no thread for WhatsApp: {error}");
    let client =
        graph::client(&whatsapp.graph_url.expose()).map_err(|error| format!("{}: {error}", WhatsApp::GRAPH_URL))?;
    let graph = graph::spawn(mailboxes.graph, &client, counted()).map_err(no_thread)?;
    let forwarder = match &whatsapp.forward_url {
        Some(url) => {
            let post = forward::poster(&url.expose()).map_err(|error| format!("{}: {error}", WhatsApp::FORWARD_URL))?;
            Some(forward::spawn(mailboxes.forwarder, &post, counted()).map_err(no_thread)?)
        }
        None => None,
    };
    let (journal, notes) = match &config.state_dir {
        Some(folder) => {
            let instance = config.pair.as_ref().map_or(ONLY_INSTANCE, |pair| Instance::name(pair.own));
            let (journal, notes) = Journal::open(folder, instance)?;
            (Some(journal::spawn(mailboxes.journal, journal, counted()).map_err(no_thread)?), notes)
        }
        None => (None, Vec::new()),
    };
    Ok(Some((Helpers { graph, forwarder, journal }, Known { settings, notes })))
}

impl Helpers {
    /// Control is gone, and with it the only way to these threads: they do what they have begun, for a bounded time.
    pub(super) fn finish(self) {
        self.graph.finish(graph::END_TIME_MAX);
        for crew in [self.forwarder, self.journal].into_iter().flatten() {
            crew.finish(END_TIME_MAX);
        }
    }
}

/// One line for the log.
pub(super) fn announce(config: &Config, known: &Known, address: SocketAddr) {
    let Some(whatsapp) = &config.whatsapp else { return };
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let numbers = match known.settings.numbers.len() {
        1 => "1 number".to_owned(),
        many => format!("{many} numbers"),
    };
    let journal = match (&config.state_dir, known.notes.len()) {
        (None, _) => "there is no journal".to_owned(),
        (Some(folder), 0) => format!("the journal is in {}", folder.display()),
        (Some(folder), left) => {
            format!("the journal is in {}, with {left} of an earlier process to be ended at Meta", folder.display())
        }
    };
    info!(
        "WhatsApp: {numbers}; Meta's webhook is taken at {scheme}://{address}{WEBHOOK_PATH}; asks {}; {journal}",
        whatsapp.graph_url
    );
    if config.state_dir.is_none() {
        warn!("BRIDGE_STATE_DIR is not set: calls that are up in a crash are left to Meta's timers");
    }
}
