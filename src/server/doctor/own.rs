//! A bridge for one call: the settings of this environment, and nothing that others would notice.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::config::Secret;
use crate::driver::children::Child;
use crate::driver::fetch::Client;
use crate::driver::system;
use crate::driver::tools::{self, Interrupts};

use super::{ANSWER_TIME_MAX, Halt, LOOK_AGAIN, drawn};

/// How long it may take to start.
const START_TIME_MAX: Duration = Duration::from_secs(20);

/// What it does not take over: where it listens and who may come in are its own, it is nobody's service, and it tells
/// nobody of the call. Without a number it asks nothing of Meta, and there is no journal; what goes with a number would then be
/// in the way.
const NOT_TAKEN_OVER: [&str; 24] = [
    "PORT",
    "BRIDGE_API_TOKEN_FILE",
    "BRIDGE_TLS_CERT",
    "BRIDGE_TLS_KEY",
    "BRIDGE_EVENTS_URL",
    "BRIDGE_EVENTS_TOKEN",
    "BRIDGE_EVENTS_TOKEN_FILE",
    "BRIDGE_AGENT_CHECK_LISTEN",
    "BRIDGE_INSTANCE",
    "WHATSAPP_PHONE_NUMBER_ID",
    "BRIDGE_WHATSAPP_NUMBERS",
    "WHATSAPP_APP_SECRET",
    "WHATSAPP_APP_SECRET_FILE",
    "WHATSAPP_VERIFY_TOKEN",
    "WHATSAPP_VERIFY_TOKEN_FILE",
    "WHATSAPP_ACCESS_TOKEN",
    "WHATSAPP_ACCESS_TOKEN_FILE",
    "BRIDGE_WEBHOOK_FORWARD_URL",
    "BRIDGE_GRAPH_URL",
    "BRIDGE_STATE_DIR",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
];

/// A running one; gone when dropped.
pub(super) struct Own {
    pub(super) url: String,
    pub(super) client: Client,
    _child: Child,
}

impl Own {
    /// Starts it on a free port of loopback, with a token of its own, and waits until it answers.
    pub(super) fn start(interrupts: &Interrupts) -> Result<Self, Halt> {
        let port = tools::free_loopback_port().map_err(|error| Halt::Broken(format!("no free port: {error}")))?;
        let (address, token) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), drawn());
        let own = [
            ("BRIDGE_LISTEN", address.to_string()),
            ("BRIDGE_API_TOKEN", token.clone()),
            // The caller is on this machine, whatever address the bridge advertises.
            ("BRIDGE_ALLOW_PRIVATE", "1".to_owned()),
            ("BRIDGE_LOG", "warn".to_owned()),
        ];
        let own = own.into_iter().map(|(name, value)| (name, Some(value)));
        let changes: Vec<(&str, Option<String>)> = own.chain(NOT_TAKEN_OVER.map(|name| (name, None))).collect();
        let mut child = Child::start_alike(&["serve".to_owned()], &changes)
            .map_err(|error| Halt::Broken(format!("a bridge cannot be started: {error}")))?;
        let url = format!("http://{address}");
        let client = Client::new(&url, Some(&Secret::new(token)), ANSWER_TIME_MAX)
            .map_err(|error| Halt::Broken(error.to_string()))?;
        let end = system::now() + START_TIME_MAX;
        while !client.get("/health").is_ok_and(|answer| answer.status == 200) {
            if child.has_ended() || system::now() > end {
                let said = child.stderr();
                return Err(Halt::Broken(format!("a bridge was started for this call and ended: {}", said.trim())));
            }
            if interrupts.wait(LOOK_AGAIN) {
                return Err(Halt::interrupted());
            }
        }
        Ok(Self { url, client, _child: child })
    }
}
