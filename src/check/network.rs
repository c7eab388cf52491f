//! Rules about ports, addresses, and whom the bridge must reach.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use serde::Deserialize;

use crate::config::{Config, Upstream, is_private};
use crate::driver::inspect::{ApiPort, Host, Reach, Stage};
use crate::peer::sdp::Policy;

use super::host::SYSCTL_FILE;
use super::{Check, Facts};

/// Characters of another server's words that are shown.
const WORDS_MAX: usize = 200;

pub(super) fn api_port(config: &Config, found: &ApiPort) -> Check {
    /// What a bridge says of itself.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Health {
        service: String,
        active_calls: u64,
    }
    let (name, listen) = ("api_port", config.listen);
    let other = |who: &str| {
        Check::fail(
            name,
            format!("{listen} is held by another program{who}"),
            format!(
                "`ss -ltnp 'sport = {}'` as root names it: stop it, or set BRIDGE_LISTEN to another port",
                listen.port()
            ),
        )
    };
    match found {
        ApiPort::Free => Check::ok(name, format!("{listen} is free")),
        ApiPort::Held(Ok(body)) => match serde_json::from_str(body) {
            Ok(Health { service, active_calls: 1 }) => {
                Check::ok(name, format!("{listen}: a {service} runs there with 1 call"))
            }
            Ok(Health { service, active_calls }) => {
                Check::ok(name, format!("{listen}: a {service} runs there with {active_calls} calls"))
            }
            Err(_) => other(", which speaks HTTP and is no bridge"),
        },
        // A certificate is for the name that clients use, and is seldom for the address that was asked here.
        ApiPort::Held(Err(why)) if config.tls.is_some() && why.contains("certificate") => {
            Check::ok(name, format!("{listen}: what runs there speaks TLS, as this bridge would ({})", shown(why)))
        }
        ApiPort::Held(Err(why)) => other(&format!(", or by a bridge that does not answer ({why})")),
        ApiPort::Refused(ErrorKind::PermissionDenied, _) => Check::fail(
            name,
            format!("{listen}: this user may not listen below port 1024"),
            "a port from 1024 in BRIDGE_LISTEN, or let systemd open it: ListenStream= in voice-media-bridge.socket",
        ),
        ApiPort::Refused(ErrorKind::AddrNotAvailable, _) => Check::fail(
            name,
            format!("{} is no address of this machine", listen.ip()),
            "BRIDGE_LISTEN must name one that `ip -brief address` shows, or 0.0.0.0 for all",
        ),
        ApiPort::Refused(_, why) => Check::fail(name, format!("cannot listen on {listen}: {why}"), "set BRIDGE_LISTEN"),
    }
}

pub(super) fn media_ports(config: &Config, facts: &Facts) -> Check {
    let (name, ports) = ("media_ports", &facts.media_ports);
    let (first, last) = (config.media_ports.start(), config.media_ports.end());
    if let Some(why) = &ports.refused {
        return Check::fail(name, format!("UDP {first}-{last} cannot be opened: {why}"), "set BRIDGE_MEDIA_PORTS");
    }
    let named: Vec<String> = ports.busy_first.iter().map(u16::to_string).collect();
    let named = named.join(", ") + if ports.busy > named.len() { ", …" } else { "" };
    let busy = format!("{} of UDP {first}-{last} are busy ({named})", ports.busy);
    let runs = matches!(&facts.api_port, ApiPort::Held(Ok(_)));
    let advice = format!(
        "`ss -lunp` as root names the programs; `sysctl -w net.ipv4.ip_local_reserved_ports={first}-{last}` keeps \
                          the kernel from giving these ports to others"
    );
    if ports.busy == 0 {
        Check::ok(name, format!("UDP {first}-{last}: all {} are free", ports.free))
    } else if runs {
        Check::ok(name, format!("{busy}, as they are where a bridge has calls"))
    } else if ports.free == 0 {
        Check::fail(name, busy, advice)
    } else if (ports.free as u64) < u64::from(config.calls_max) {
        Check::warn(name, format!("{busy}: {} are left for {} calls", ports.free, config.calls_max), advice)
    } else {
        Check::ok(name, format!("{busy}; they are passed over"))
    }
}

pub(super) fn ephemeral_ports(media: &RangeInclusive<u16>, host: &Host) -> Option<Check> {
    let name = "ephemeral_ports";
    let ephemeral = host.ephemeral_ports.as_ref()?;
    let (first, last) = (media.start(), media.end());
    let is_reserved = |port: &u16| host.reserved_ports.iter().any(|range| range.contains(port));
    if !media.clone().any(|port| ephemeral.contains(&port) && !is_reserved(&port)) {
        return Some(Check::ok(name, format!("the kernel gives none of {first}-{last} to others")));
    }
    let kept = host.reserved_ports.iter().map(|range| format!("{}-{},", range.start(), range.end()));
    let line = format!("net.ipv4.ip_local_reserved_ports={}{first}-{last}", kept.collect::<String>());
    Some(Check::warn(
        name,
        format!(
            "the kernel may give ports of {first}-{last} to others (net.ipv4.ip_local_port_range is {}-{})",
            ephemeral.start(),
            ephemeral.end()
        ),
        format!("sysctl -w {line} (and the line in {SYSCTL_FILE})"),
    ))
}

pub(super) fn media_address(config: &Config, facts: &Facts) -> Check {
    let (name, ip) = ("media_address", facts.media_ip);
    let set = config.media_ip.is_some();
    let origin = if set { "BRIDGE_MEDIA_IP" } else { "that of the default route" };
    if config.listen.ip().is_loopback() {
        return Check::ok(name, format!("{ip}, {origin}; callers on this host get a loopback address"));
    }
    let advice =
        "set BRIDGE_MEDIA_IP to the address that callers reach: the machine's public one, in a cloud the external one";
    if !set && facts.host.default_route_ip.is_none() {
        return Check::fail(name, format!("there is no default route: answers would advertise {ip}"), advice);
    }
    if ip.is_loopback() {
        return Check::fail(name, format!("answers advertise {ip}, which is each caller's own machine"), advice);
    }
    // The judgement that a call's candidates undergo, with nothing of this bridge to collide with.
    let policy = Policy {
        allow_private: true,
        own_listener: None,
        own_media_ports: RangeInclusive::new(1, 0),
        own_media_ip: ip,
    };
    if let Err(why) = policy.usable(SocketAddr::new(ip, *config.media_ports.start())) {
        return Check::fail(name, format!("answers advertise {ip}, which nobody reaches: {why}"), advice);
    }
    if is_private(ip) {
        return Check::warn(
            name,
            format!("answers advertise {ip}, {origin}, which only a private network reaches"),
            advice,
        );
    }
    if facts.media_is_local {
        return Check::ok(name, format!("{ip}, {origin}"));
    }
    let (first, last) = (config.media_ports.start(), config.media_ports.end());
    match facts.host.default_route_ip {
        Some(own) if is_private(own) => Check::ok(
            name,
            format!(
                "{ip}, {origin}; this machine is {own}, so a 1:1 NAT must hand on UDP {first}-{last}, ports unchanged"
            ),
        ),
        Some(own) => Check::warn(
            name,
            format!("answers advertise {ip}, and this machine is {own} in public itself"),
            format!("unset BRIDGE_MEDIA_IP or set it to {own}, unless {ip} is really handed on to this machine"),
        ),
        None => Check::warn(
            name,
            format!("answers advertise {ip}, which is no address of this machine, and there is no default route"),
            "`ip route` must show a default route for packets to leave",
        ),
    }
}

pub(super) fn model_name(config: &Config) -> Option<Check> {
    let retired = config.model_was_retired.as_ref()?;
    Some(Check::warn(
        "model",
        format!("{retired} is retired; {} is used", config.model),
        "set OPENAI_REALTIME_MODEL to a model that exists, or unset it",
    ))
}

pub(super) fn model(config: &Config, steps: &[Reach]) -> Vec<Check> {
    let Upstream::Url { url, .. } = &config.upstream else {
        return vec![Check::ok("model", "the built-in agent answers; set OPENAI_API_KEY for the model")];
    };
    let host = &url.host;
    let check = |step: &Reach| {
        let ms = step.took.as_millis();
        let name = match step.stage {
            Stage::Dns => "model_dns",
            Stage::Tcp => "model_tcp",
            Stage::Tls => "model_tls",
            Stage::Session { .. } => "model_session",
        };
        match (&step.outcome, step.stage) {
            (Ok(message), Stage::Session { .. }) => session(name, message, ms),
            (Ok(found), _) => Check::ok(name, format!("{host}: {found} ({ms} ms)")),
            (Err(why), stage) => Check::fail(name, format!("{host}: {}", shown(why)), way_out(stage, host, url.port)),
        }
    };
    steps.iter().map(check).collect()
}

/// What the first message of a session says.
fn session(name: &'static str, message: &str, ms: u128) -> Check {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Message {
        r#type: String,
        session: Session,
        error: Problem,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Session {
        model: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Problem {
        message: String,
    }
    match serde_json::from_str::<Message>(message) {
        Ok(Message { r#type, session, .. }) if r#type == "session.created" => Check::ok(
            name,
            format!("opened and closed; the key is taken, the model is {} ({ms} ms)", shown(&session.model)),
        ),
        Ok(Message { error, .. }) if !error.message.is_empty() => Check::fail(
            name,
            format!("the model refuses the session: {}", shown(&error.message)),
            "set OPENAI_REALTIME_MODEL to a model that this key may use, and look at the account's billing",
        ),
        _ => Check::fail(
            name,
            "a WebSocket opens, but what comes is no realtime session",
            "OPENAI_REALTIME_URL must name a server of OpenAI's Realtime protocol, path included: wss://HOST/v1/realtime",
        ),
    }
}

/// What to do where the way to the model ends.
fn way_out(stage: Stage, host: &str, port: u16) -> String {
    match stage {
        Stage::Dns => format!(
            "`getent hosts {host}` must print an address: see /etc/resolv.conf, and let UDP and TCP 53 out to its servers; \
             OPENAI_REALTIME_URL names the host"
        ),
        Stage::Tcp => {
            format!("`nc -vz {host} {port}` must succeed: let TCP {port} out (firewall, security group, route)")
        }
        Stage::Tls => {
            "see that `date` is right and the package ca-certificates installed; the authority of a proxy that opens \
                       TLS belongs in /usr/local/share/ca-certificates (then update-ca-certificates)"
                .into()
        }
        Stage::Session { status: Some(401) } => {
            "the key is refused: OPENAI_API_KEY is wrong, revoked, or not of OPENAI_ORG_ID and OPENAI_PROJECT_ID".into()
        }
        Stage::Session { status: Some(403) } => {
            "the key is known and not allowed this: see the project's rights to realtime models, and the region".into()
        }
        Stage::Session { status: Some(404) } => {
            "nothing is there: see the path of OPENAI_REALTIME_URL, and OPENAI_REALTIME_MODEL".into()
        }
        Stage::Session { status: Some(429) } => "the account is out of quota: see its billing and limits".into(),
        Stage::Session { .. } => "OPENAI_REALTIME_URL must name a server of OpenAI's Realtime protocol".into(),
    }
}

pub(super) fn events(config: &Config, steps: &[Reach]) -> Option<Check> {
    let (name, server) = ("events", config.events.as_ref()?.url.server());
    let last = steps.last()?;
    Some(match &last.outcome {
        Ok(_) => Check::ok(name, format!("{server} takes connections")),
        Err(why) => {
            let advice = match last.stage {
                Stage::Dns => "see the name in BRIDGE_EVENTS_URL, and /etc/resolv.conf".into(),
                Stage::Tcp => {
                    "start the receiver, and let this machine connect to it; until then events are dropped".to_owned()
                }
                Stage::Tls | Stage::Session { .. } => {
                    "its certificate must be from an authority of this machine (/usr/local/share/ca-certificates)"
                        .into()
                }
            };
            Check::warn(name, format!("{server} cannot be reached: {}", shown(why)), advice)
        }
    })
}

/// Words of others, fit for a line of text.
pub(super) fn shown(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}
