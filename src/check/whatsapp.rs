//! Rules about WhatsApp: its numbers, the way to Meta's Graph API, who gets the other webhooks, and the journal's folder.

use std::path::PathBuf;

use crate::config::{Config, WhatsApp};
use crate::driver::inspect::{Folder, Reach, Stage};
use crate::whatsapp::graph::Reply;

use super::Check;
use super::network::shown;
use super::secrets::OTHERS;

/// What was seen of WhatsApp, where it is configured.
#[derive(Clone, Debug)]
pub struct WhatsAppFacts {
    /// What its numbers are called, or why they cannot be used.
    pub numbers: Result<Vec<String>, String>,
    /// The secrets of single numbers, with the permissions of their files.
    pub secret_files: Vec<(PathBuf, Option<u32>)>,
    /// The way to the Graph API.
    pub graph: Vec<Reach>,
    /// What it said of each number, where it was asked.
    pub asked: Vec<(String, Reply)>,
    /// The way to the receiver of webhooks.
    pub forward: Vec<Reach>,
    /// The journal's folder.
    pub state: Option<Folder>,
}

pub(super) fn whatsapp(config: &Config, facts: Option<&WhatsAppFacts>) -> Vec<Check> {
    let (Some(settings), Some(facts)) = (&config.whatsapp, facts) else { return Vec::new() };
    let mut checks = vec![numbers(&facts.numbers)];
    checks.extend(secret_files(&facts.secret_files));
    checks.extend(facts.graph.iter().map(|step| graph(settings, step)));
    checks.extend(facts.asked.iter().map(|(name, reply)| number(name, reply)));
    checks.extend(forward(settings, &facts.forward));
    checks.push(state(config, facts.state.as_ref()));
    checks
}

fn numbers(found: &Result<Vec<String>, String>) -> Check {
    let name = "whatsapp_numbers";
    match found {
        Ok(names) if names.len() == 1 => Check::ok(name, format!("1 number: {}", names[0])),
        Ok(names) => Check::ok(name, format!("{} numbers: {}", names.len(), names.join(", "))),
        Err(why) => Check::fail(
            name,
            why,
            "correct what it names. A bridge that runs goes on with the numbers that it has, until SIGHUP finds better ones",
        ),
    }
}

fn secret_files(files: &[(PathBuf, Option<u32>)]) -> Option<Check> {
    let open = files.iter().find_map(|(path, mode)| Some((path, mode.filter(|mode| mode & OTHERS != 0)?)));
    let (path, mode) = open?;
    Some(Check::warn(
        "whatsapp_secrets",
        format!("every user can read {}, which a number names as its secret ({:o})", path.display(), mode & 0o777),
        format!("chmod 0640 {0} && chgrp voice-media-bridge {0}", path.display()),
    ))
}

fn graph(settings: &WhatsApp, step: &Reach) -> Check {
    let (host, port, ms) = (&settings.graph_url.place().host, settings.graph_url.place().port, step.took.as_millis());
    let (name, advice) = match step.stage {
        Stage::Dns => (
            "graph_dns",
            format!(
                "`getent hosts {host}` must print an address: see /etc/resolv.conf, and let UDP and TCP 53 out to its servers; \
                 BRIDGE_GRAPH_URL names the host"
            ),
        ),
        Stage::Tcp => (
            "graph_tcp",
            format!("`nc -vz {host} {port}` must succeed: let TCP {port} out (firewall, security group, route)"),
        ),
        Stage::Tls | Stage::Session { .. } => (
            "graph_tls",
            "see that `date` is right and the package ca-certificates installed; the authority of a proxy that opens TLS \
             belongs in /usr/local/share/ca-certificates (then update-ca-certificates)"
                .to_owned(),
        ),
    };
    match &step.outcome {
        Ok(found) => Check::ok(name, format!("{host}: {found} ({ms} ms)")),
        Err(why) => Check::fail(name, format!("{host}: {}; no call can be answered", shown(why)), advice),
    }
}

/// What Meta says of a number and its token.
fn number(number: &str, reply: &Reply) -> Check {
    let name = "graph_number";
    match reply {
        Reply::Done => Check::ok(name, format!("{number}: Meta knows it, and takes its token")),
        Reply::Refused(refused) => Check::fail(
            name,
            format!("{number}: Meta refuses: {} (code {})", shown(&refused.error.text), refused.error.code),
            refused.meaning.advice,
        ),
        Reply::Unclear(why) => Check::fail(
            name,
            format!("{number}: no answer that can be read: {}", shown(why)),
            "BRIDGE_GRAPH_URL and BRIDGE_GRAPH_VERSION must name Meta's Graph API; at https://metastatus.com Meta says whether it \
             is up",
        ),
    }
}

fn forward(settings: &WhatsApp, steps: &[Reach]) -> Option<Check> {
    let (name, server) = ("webhook_forward", settings.forward_url.as_ref()?.server());
    let last = steps.last()?;
    Some(match &last.outcome {
        Ok(_) => Check::ok(name, format!("{server} takes connections")),
        Err(why) => {
            let advice = match last.stage {
                Stage::Dns => "see the name in BRIDGE_WEBHOOK_FORWARD_URL, and /etc/resolv.conf",
                Stage::Tcp => {
                    "start the receiver, and let this machine connect to it; webhooks wait for it for ten minutes, and are then \
                     given up"
                }
                Stage::Tls | Stage::Session { .. } => {
                    "its certificate must be from an authority of this machine (/usr/local/share/ca-certificates)"
                }
            };
            Check::warn(name, format!("{server} cannot be reached: {}", shown(why)), advice)
        }
    })
}

fn state(config: &Config, found: Option<&Folder>) -> Check {
    let name = "state_dir";
    let (Some(path), Some(found)) = (&config.state_dir, found) else {
        return Check::warn(
            name,
            "there is no journal: calls that are up in a crash are left to Meta's timers, and their callers to silence",
            "set BRIDGE_STATE_DIR to a folder that only the bridge may write to, as the units do (/var/lib/voice-media-bridge)",
        );
    };
    let path = path.display();
    match found {
        Folder::Writable => Check::ok(name, format!("{path} keeps what must outlive a crash")),
        Folder::Missing => Check::ok(name, format!("{path} is made at the start")),
        Folder::Refused(why) => Check::fail(
            name,
            format!("{path} cannot be written to: {why}"),
            format!(
                "BRIDGE_STATE_DIR must be a folder of the bridge's user: chown voice-media-bridge {path} && chmod 0700 {path}"
            ),
        ),
    }
}
