//! What SIGHUP brings: another certificate, other tokens, other phone numbers. New connections and new requests see them; calls, and the
//! connections that stand, go on as they are. What cannot be used is said and changes nothing.

use std::time::Instant;

use crate::messages::{Notice, Reloaded};
use crate::whatsapp;

use super::Control;
use super::gate::Gate;

impl Control {
    pub(super) fn reloaded(&mut self, now: Instant, reloaded: Reloaded) {
        let Reloaded { tls, api_tokens, whatsapp } = reloaded;
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
        match whatsapp.map(|settings| self.reload_numbers(settings)) {
            Some(Ok(numbers)) => {
                used += 1;
                self.end_stranded(now);
                self.probe_all(now);
                tracing::info!(numbers, "WhatsApp's numbers and secrets were read again: calls from now on see them");
            }
            Some(Err(problem)) => {
                failed += 1;
                tracing::error!("WhatsApp's numbers were not reloaded, the old ones stay in use: {problem}");
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
                    "SIGHUP: there is nothing to read again; it is for the files of BRIDGE_TLS_CERT, BRIDGE_TLS_KEY, \
                     BRIDGE_API_TOKEN_FILE, BRIDGE_WHATSAPP_NUMBERS and the files of WhatsApp's secrets, other settings need a \
                     restart"
                );
            }
            (_, 0) => reloads.ok += 1,
            _ => reloads.failed += 1,
        }
    }

    fn reload_numbers(&mut self, settings: Result<whatsapp::Settings, String>) -> Result<usize, String> {
        let meta = self.meta.as_mut().ok_or("WhatsApp is not configured; a restart is needed")?;
        meta.reload(settings?, &self.config)
    }
}
