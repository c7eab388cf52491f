//! What control listens on: the API's socket, its own or the service manager's; the socket for the other instance; the
//! agent-check's.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tracing::info;

use crate::config::{Config, Pair};
use crate::driver::local::{self, SocketFile};
use crate::driver::threads::{listen, listen_beside};
use crate::driver::{Listener, activation};
use crate::io::Door;

use super::cannot_listen;

/// Open listeners.
pub(super) struct Doors {
    /// Where the API listens.
    pub(super) api: SocketAddr,
    pub(super) listeners: Vec<(Door, Listener)>,
    /// To be kept as long as the process serves.
    pub(super) file: Option<SocketFile>,
}

/// Opens all that the settings ask for.
pub(super) fn open(config: &Config) -> Result<Doors, String> {
    let (listener, api) = match activation::listener()? {
        Some(passed) => passed_api(config, passed)?,
        None => listen(config.listen).map_err(|error| cannot_listen(config.listen, &error))?,
    };
    let mut doors = Doors { api, listeners: vec![(Door::Api, listener.into())], file: None };
    if let Some(pair) = &config.pair {
        let (listener, file) = open_local(pair)?;
        doors.listeners.push((Door::Local, listener));
        doors.file = Some(file);
    }
    if let Some(address) = config.drain.agent_check_listen {
        // The other instance has the port until it has handed over.
        let opened = if config.pair.is_some() { listen_beside(address) } else { listen(address) };
        let (listener, address) = opened.map_err(|error| {
            format!("cannot listen on {address} (BRIDGE_AGENT_CHECK_LISTEN; --agent-check-listen): {error}")
        })?;
        info!("HAProxy's agent-check is answered on {address}");
        doors.listeners.push((Door::AgentCheck, listener.into()));
    }
    Ok(doors)
}

/// A socket of the service manager is as open to others as one of our own: the same rule of tokens holds.
fn passed_api<L>(config: &Config, (listener, address): (L, SocketAddr)) -> Result<(L, SocketAddr), String> {
    if config.api_tokens.is_empty() && !address.ip().is_loopback() {
        return Err(format!(
            "the service manager's socket listens on {address}, beyond loopback: set BRIDGE_API_TOKEN, or ListenStream= to a \
             loopback address"
        ));
    }
    if address == config.listen {
        info!("the API's socket {address} is the service manager's");
    } else {
        info!("the API's socket {address} is the service manager's; BRIDGE_LISTEN ({}) is not used", config.listen);
    }
    Ok((listener, address))
}

fn open_local(pair: &Pair) -> Result<(Listener, SocketFile), String> {
    let path = pair.socket(pair.own);
    let shown = path.display();
    let (listener, file) = local::listen(&path).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => format!(
            "instance {} (BRIDGE_INSTANCE) runs already, or still drains, and listens on {shown}: {error}. Start the other \
             instance, or wait for this one to end",
            pair.own.name()
        ),
        ErrorKind::NotFound | ErrorKind::PermissionDenied => format!(
            "cannot listen on {shown}: {error}. BRIDGE_HANDOVER_DIR must be a folder that both instances may write to \
             (systemd: RuntimeDirectory=)"
        ),
        _ => format!("cannot listen on {shown} (BRIDGE_HANDOVER_DIR): {error}"),
    })?;
    Ok((listener.into(), file))
}
