//! What SIGHUP brings: another certificate, other tokens. New connections and new requests see them; calls, and the
//! connections that stand, go on as they are. What cannot be used is said and changes nothing.

use crate::messages::{Notice, Reloaded};

use super::Control;
use super::gate::Gate;

impl Control {
    pub(super) fn reloaded(&mut self, reloaded: Reloaded) {
        let Reloaded { tls, api_tokens, whatsapp: _ } = reloaded;
        let (mut used, mut failed) = (0, 0);
        match tls {
            Some(Ok(acceptor)) => {
                used += 1;
                self.stats.tls_not_after_sec = acceptor.certificate().map(|certificate| certificate.not_after_sec);
                self.tls = Some(acceptor);
                tracing::info!("the certificate was read again: new connections get it");
            }
            Some(Err(problem)) => {
                failed += 1;
                tracing::error!("the certificate was not reloaded, the old one stays in use: {problem}");
            }
            None => {}
        }
        match api_tokens {
            Some(Ok(tokens)) => {
                used += 1;
                self.gate = Gate::new(&tokens);
                tracing::info!(tokens = tokens.len(), "the API's tokens were read again: requests need one of them");
            }
            Some(Err(problem)) => {
                failed += 1;
                tracing::error!("the API's tokens were not reloaded, the old ones stay in use: {problem}");
            }
            None => {}
        }
        // Read it is by now; a service manager that has asked for it waits to hear of both, in this order.
        // One that does not serve yet must not say that it does.
        if self.handover.is_ready() {
            self.notify(Notice::Reloading);
            self.notify(Notice::Ready);
        }
        let reloads = &mut self.stats.reloads;
        match (used, failed) {
            (0, 0) => {
                reloads.nothing += 1;
                tracing::info!(
                    "SIGHUP: there is nothing to read again; it is for the files of BRIDGE_TLS_CERT, BRIDGE_TLS_KEY and \
                     BRIDGE_API_TOKEN_FILE, other settings need a restart"
                );
            }
            (_, 0) => reloads.ok += 1,
            _ => reloads.failed += 1,
        }
    }
}
