//! Gathers what `check-config` judges: looks at this host, and beyond it unless told not to.

use crate::check::{Facts, Origin, Report, SecretFact, judge, settings};
use crate::config::{Config, IoChoice, SecretSource, SecretSources, Upstream};
use crate::driver::inspect::{self, Login, Reach, Target};
use crate::driver::{try_rings, try_uring};
use crate::realtime;
use crate::tls::Tls;

use super::{media_ip, reload};

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// This machine alone.
    Offline,
    /// Who must be reached is connected to, and asked for nothing.
    Reach,
    /// A session is opened at the model, with the key, and closed.
    Session,
}

/// Looks and judges. The error is one of ours, not a verdict.
pub fn run(config: &Config, origins: &[Origin], depth: Depth) -> Result<Report, String> {
    let uring = try_uring();
    let wants_rings = uring.is_ok() && config.io != IoChoice::Epoll;
    let media_ip = media_ip(config);
    let facts = Facts {
        host: inspect::host(),
        rings: wants_rings.then(|| try_rings(config.workers + crate::check::LOOPS_BESIDES)),
        uring,
        secrets: secrets(&config.secret_sources, origins),
        tls: config.tls.as_ref().map(|files| reload::read_tls(files).map(|pair| reload::warnings(&pair))),
        tls_key_is_roots: config.tls.as_ref().is_some_and(|files| inspect::is_roots_alone(&files.key)),
        tls_key_mode: config.tls.as_ref().and_then(|files| inspect::mode(&files.key)),
        api_port: inspect::api_port(config.listen, config.tls.is_some()),
        media_ports: inspect::media_ports(&config.media_ports, media_ip),
        media_ip,
        media_is_local: inspect::is_local_address(media_ip),
        model: if depth == Depth::Offline { Vec::new() } else { model(config, depth)? },
        events: if depth == Depth::Offline { Vec::new() } else { events(config)? },
    };
    Ok(Report::new(settings(config, origins), judge(config, &facts)))
}

fn secrets(sources: &SecretSources, origins: &[Origin]) -> Vec<SecretFact> {
    let SecretSources {
        api_token,
        api_key,
        events_token,
        whatsapp_app_secret,
        whatsapp_verify_token,
        whatsapp_access_token,
    } = sources;
    let fact = |name, variable: &'static str, source: &SecretSource| SecretFact {
        name,
        variable,
        source: source.clone(),
        mode: source.file().and_then(inspect::mode),
        is_typed: origins.iter().any(|origin| {
            origin.variable == variable && origin.set_by.as_deref().is_some_and(|by| by.starts_with("--"))
        }),
    };
    vec![
        fact("secret_api_token", "BRIDGE_API_TOKEN", api_token),
        fact("secret_api_key", "OPENAI_API_KEY", api_key),
        fact("secret_events_token", "BRIDGE_EVENTS_TOKEN", events_token),
        fact("secret_whatsapp_app_secret", "WHATSAPP_APP_SECRET", whatsapp_app_secret),
        fact("secret_whatsapp_verify_token", "WHATSAPP_VERIFY_TOKEN", whatsapp_verify_token),
        fact("secret_whatsapp_access_token", "WHATSAPP_ACCESS_TOKEN", whatsapp_access_token),
    ]
}

fn model(config: &Config, depth: Depth) -> Result<Vec<Reach>, String> {
    let Upstream::Url { url, api_key, org_id, project_id } = &config.upstream else { return Ok(Vec::new()) };
    let tls = if url.tls { Some(Tls::new()?) } else { None };
    let path = realtime::path_with_model(&url.path, &config.model);
    let bearer = api_key.as_ref().map(|key| format!("Bearer {}", key.expose()));
    let headers = [
        ("Authorization", bearer.as_deref()),
        ("OpenAI-Organization", org_id.as_deref()),
        ("OpenAI-Project", project_id.as_deref()),
    ];
    let headers = headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let login = (depth == Depth::Session).then_some(Login { path: &path, headers });
    Ok(inspect::reach(&Target { host: &url.host, port: url.port, tls: tls.as_ref(), login: login.as_ref() }))
}

fn events(config: &Config) -> Result<Vec<Reach>, String> {
    let Some(events) = &config.events else { return Ok(Vec::new()) };
    let place = events.url.place();
    let tls = if place.tls { Some(Tls::new()?) } else { None };
    Ok(inspect::reach(&Target { host: &place.host, port: place.port, tls: tls.as_ref(), login: None }))
}
