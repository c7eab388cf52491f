//! Gathers what `check-config` judges: looks at this host, and beyond it unless told not to.

use std::time::Duration;

use crate::check::{Facts, Origin, Report, SecretFact, WhatsAppFacts, judge, settings};
use crate::config::{Config, EventsUrl, IoChoice, SecretSource, SecretSources, Upstream, WhatsApp};
use crate::driver::fetch::{Answer, Request};
use crate::driver::inspect::{self, Login, Reach, Target};
use crate::driver::{self, try_rings, try_uring};
use crate::messages::GraphReply;
use crate::realtime;
use crate::tls::Tls;
use crate::whatsapp::graph::{self, Reply};
use crate::whatsapp::{CallPolicy, Number, Settings};

use super::{media_ip, numbers, reload};

/// How long Meta may take to answer about one number.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

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
        whatsapp: whatsapp(config, depth)?,
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
    config.events.as_ref().map_or_else(|| Ok(Vec::new()), |events| way(&events.url))
}

/// The way to a server, which is asked for nothing.
fn way(url: &EventsUrl) -> Result<Vec<Reach>, String> {
    let place = url.place();
    let tls = if place.tls { Some(Tls::new()?) } else { None };
    Ok(inspect::reach(&Target { host: &place.host, port: place.port, tls: tls.as_ref(), login: None }))
}

fn whatsapp(config: &Config, depth: Depth) -> Result<Option<WhatsAppFacts>, String> {
    let Some(settings) = &config.whatsapp else { return Ok(None) };
    let loaded = numbers::load(config);
    let goes_out = depth != Depth::Offline;
    let graph = if goes_out { way(&settings.graph_url)? } else { Vec::new() };
    let is_reached = graph.last().is_some_and(|step| step.outcome.is_ok());
    let asked = match &loaded {
        Ok(Some(numbers)) if depth == Depth::Session && is_reached => ask(settings, &numbers.numbers)?,
        _ => Vec::new(),
    };
    let forward = match &settings.forward_url {
        Some(url) if goes_out => way(url)?,
        _ => Vec::new(),
    };
    let names = |numbers: Settings| numbers.numbers.into_iter().map(|number| number.name).collect();
    let secret_files = numbers::secret_files(settings);
    Ok(Some(WhatsAppFacts {
        numbers: loaded.map(|numbers| numbers.map_or_else(Vec::new, names)),
        secret_files: secret_files.into_iter().map(|path| (path.clone(), inspect::mode(&path))).collect(),
        graph,
        asked,
        forward,
        state: config.state_dir.as_deref().map(inspect::folder),
    }))
}

/// What Meta says of each number whose calls are ours; nothing is changed by it.
fn ask(settings: &WhatsApp, numbers: &[Number]) -> Result<Vec<(String, Reply)>, String> {
    let client = driver::graph::client(&settings.graph_url.expose()).map_err(|error| error.to_string())?;
    let ours = numbers.iter().filter(|number| number.calls != CallPolicy::Ignore);
    let asked = ours.map(|number| {
        let bearer = format!("Bearer {}", number.access_token.expose());
        let headers = [("Authorization", bearer.as_str())];
        let path = graph::probe_path(&number.phone_number_id);
        let request = Request { path: &path, headers: &headers, body: None, time_max: ANSWER_TIME_MAX };
        let reply = |Answer { status, retry_after_sec, body }| GraphReply { status, retry_after_sec, body };
        let outcome = client.ask(&request).0.map(reply).map_err(|error| error.to_string());
        (number.name.clone(), graph::read_probe(&outcome))
    });
    Ok(asked.collect())
}
