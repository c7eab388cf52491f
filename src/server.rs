//! Puts the machines together and runs them: which threads there are, what each is told, and how the process ends.
//!
//! Control runs on the calling thread, unpinned; each worker on a core of its own; the resolver, the sender of events, what
//! WhatsApp needs, the signals and, when no model is configured, the built-in agent on threads beside them. This file decides
//! and connects; it must not do any of their work.

pub mod capacity;
pub mod check;
pub mod demo;
pub mod doctor;
mod doors;
pub mod load;
mod numbers;
pub mod reload;
pub mod simulate;
mod whatsapp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tracing::{error, info, warn};

use crate::agent::AgentConfig;
use crate::audio;
use crate::builtin::{BuiltinAgent, BuiltinOptions};
use crate::call::CallConfig;
use crate::config::{Config, Events, IoChoice, Upstream, is_private};
use crate::control::{Control, ControlConfig};
use crate::driver::mail::mailboxes;
use crate::driver::ports::shares;
use crate::driver::process::{self, ProcessUsage};
use crate::driver::threads::{Threads, listen};
use crate::driver::{self, Counters, Kind, Setup, Window, outbound, resolver, signals, supervisor, system};
use crate::io::Door;
use crate::messages::Message;
use crate::peer::identity::Identity;
use crate::peer::sdp::Policy;
use crate::stats::{BuildInfo, CounterReader, ProcessReader, ProcessStats};
use crate::tls::Tls;
use crate::worker::{LoadSettings, Worker, WorkerConfig};

/// Runs the bridge until a signal ends it. Errors say what could not be set up and what to do.
pub fn run(config: Config) -> Result<(), String> {
    let config = Arc::new(config);
    let chosen = driver::probe(config.io)?;
    info!("{}", chosen.line);
    if let Err(error) = system::raise_descriptor_limit() {
        warn!(%error, "the limit of open files could not be raised; each call needs two");
    }
    let tls = config.tls.as_ref().map(reload::read_tls).transpose()?;
    if let Some(acceptor) = &tls {
        reload::warn_of(acceptor);
    }
    let manager = supervisor::Manager::from_env()?;
    let doors = doors::open(&config)?;
    let address = doors.api;
    let media_ip = media_ip(&config);
    if let Some(name) = &config.model_was_retired {
        warn!(retired = %name, model = %config.model, "OPENAI_REALTIME_MODEL names a retired model: the default is used");
    }

    let boxes = mailboxes::<Message>(config.workers).map_err(|error| format!("no mailboxes: {error}"))?;
    let threads = Threads::new(boxes.stopper.clone());
    let call = CallConfig {
        identity: Identity::generate()?,
        agent: Arc::new(agent_config(&config, chosen.kind, &threads)?),
        start_delay: config.start_delay,
        opus_complexity: *config.opus_complexity.end(),
        entropy: system::entropy,
        stopwatch: system::thread_time,
    };
    let load = LoadSettings {
        complexity: config.opus_complexity.clone(),
        thread_time: system::thread_time,
        kernel_time: system::thread_kernel_time,
    };
    if config.media_ip.is_none() && is_private(media_ip) && !address.ip().is_loopback() {
        warn!(
            "answers advertise {media_ip}, which only a private network reaches; set BRIDGE_MEDIA_IP to what callers reach"
        );
    }
    let policy = Policy {
        allow_private: config.allow_private.unwrap_or(is_private(media_ip)),
        own_listener: Some(address),
        own_media_ports: config.media_ports.clone(),
        own_media_ip: media_ip,
    };
    let mut counters = Vec::new();
    let cores = system::cores();
    let ports = shares(&config.media_ports, config.workers);
    for (index, (endpoint, ports)) in (0..config.workers).zip(boxes.workers.into_iter().zip(ports)) {
        let worker = WorkerConfig {
            index,
            call: call.clone(),
            media_ip,
            loopback_listener: address.ip().is_loopback(),
            policy: policy.clone(),
            load: load.clone(),
        };
        let mut setup = Setup::new(format!("worker-{index}"), endpoint.inbox, endpoint.routes);
        setup.ports = Some(ports);
        setup.window = Window::of_worker(config.io_window);
        counters.push(Arc::clone(&setup.counters));
        // One core each; workers beyond the number of cores share them.
        setup.core = cores.get(usize::from(index) % cores.len().max(1)).copied();
        let spawned = threads.spawn(chosen.kind, setup, move || Worker::new(worker));
        spawned.map_err(|error| format!("no thread for a worker: {error}"))?;
    }
    let _resolver = resolver::spawn(boxes.resolver, resolver::system_lookup())
        .map_err(|error| format!("no thread for the resolver: {error}"))?;
    let events_counters = Arc::new(Counters::default());
    counters.push(Arc::clone(&events_counters));
    let events = match &config.events {
        Some(events) => Some(outbound::spawn(boxes.events, poster(events)?, events_counters)),
        None => None,
    };
    let events = events.transpose().map_err(|error| format!("no thread for events: {error}"))?;
    let mailboxes = whatsapp::Mailboxes { graph: boxes.graph, forwarder: boxes.forwarder, journal: boxes.journal };
    let (whatsapp, known) = whatsapp::start(&config, mailboxes, &mut counters)?.unzip();
    let (reloader, to_control) = (reload::Reloader::of(&config), boxes.to_control);
    let reload = move || {
        if to_control.send(Message::Reload(Box::new(reloader.read()))).is_err() {
            error!("control takes no messages now: what SIGHUP has read is lost; send it again");
        }
    };
    let _signals = signals::forward_with_reload(boxes.stopper, reload)
        .map_err(|error| format!("no thread for signals: {error}"))?;

    let mut setup = Setup::new("control", boxes.control.inbox, boxes.control.routes);
    setup.first = true;
    setup.doors = doors.listeners;
    counters.push(Arc::clone(&setup.counters));
    announce(&config, address, media_ip);
    if let Some(known) = &known {
        whatsapp::announce(&config, known, address);
    }
    let (settings, notes) = known.map(|known| (known.settings, known.notes)).unzip();
    let control = ControlConfig {
        build: BuildInfo {
            version: env!("CARGO_PKG_VERSION"),
            io: kind_label(chosen.kind),
            opus: audio::library_version(),
        },
        tls,
        entropy: system::entropy,
        driver_counters: CounterReader::new(move || Counters::sum(&counters)),
        process: process_reader(process::unix_sec()),
        // Twice before its patience ends, and once for a worker that is late.
        alive_every: manager.as_ref().and_then(supervisor::Manager::watchdog).map(|patience| patience / 3),
        whatsapp: settings,
        notes: notes.unwrap_or_default(),
        unix_sec: || process::unix_sec() as u64,
        config,
    };
    // Without a manager its mailbox goes, and what control says to nobody is nowhere kept.
    let (endpoint, told) = (boxes.supervisor, "no thread for the service manager");
    let supervisor = manager.map(|manager| supervisor::spawn(endpoint, manager)).transpose();
    let supervisor = supervisor.map_err(|error| format!("{told}: {error}"))?;
    let ended = driver::run(chosen.kind, Control::new(system::now(), control), setup);
    if let Some(events) = events {
        // Control is gone, and with it the only way to this thread: it sends what it has, for a bounded time.
        let _ = events.join();
    }
    if let Some(whatsapp) = whatsapp {
        whatsapp.finish();
    }
    if let Some(supervisor) = supervisor {
        let _ = supervisor.join();
    }
    drop(doors.file);
    threads.outcome()?;
    ended.map_err(|error| format!("the control loop failed: {error}"))
}

/// What posts events to their receiver.
fn poster(events: &Events) -> Result<outbound::Post, String> {
    outbound::poster(events).map_err(|error| format!("BRIDGE_EVENTS_URL (--events-url): {error}"))
}

/// Runs the built-in agent alone until a signal ends it.
pub fn run_agent(address: SocketAddr, echo: bool, talk_percent: Option<u8>) -> Result<(), String> {
    let chosen = driver::probe(IoChoice::Auto)?;
    let (listener, address) = listen(address).map_err(|error| cannot_listen(address, &error))?;
    let boxes = mailboxes::<Message>(0).map_err(|error| format!("no mailbox: {error}"))?;
    let _signals = signals::forward(boxes.stopper).map_err(|error| format!("no thread for signals: {error}"))?;
    let (agent, mode) = match talk_percent {
        Some(percent) => (BuiltinAgent::talking(percent), "talks, and does not listen"),
        None if echo => (BuiltinAgent::new(BuiltinOptions { echo }), "returns each append at once"),
        None => (BuiltinAgent::new(BuiltinOptions { echo }), "greets, and says back what it hears"),
    };
    info!("the built-in agent listens on ws://{address}/v1/realtime; it {mode}");
    let mut setup = Setup::new("agent", boxes.control.inbox, boxes.control.routes);
    setup.doors.push((Door::Api, listener.into()));
    setup.window = Window::of_tool();
    driver::run(chosen.kind, agent, setup).map_err(|error| format!("the agent's loop failed: {error}"))
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> String {
    format!("cannot listen on {address} (BRIDGE_LISTEN or PORT; --listen or --port): {error}")
}

/// What `/metrics` tells of the process, which started at `start_sec`.
fn process_reader(start_sec: f64) -> ProcessReader {
    ProcessReader::new(move || {
        let ProcessUsage { cpu_sec, resident_bytes, virtual_bytes, open_fds, max_fds } = process::usage();
        ProcessStats { cpu_sec, resident_bytes, virtual_bytes, open_fds, max_fds, start_sec: Some(start_sec) }
    })
}

fn kind_label(kind: Kind) -> &'static str {
    match kind {
        Kind::Uring { .. } => "uring",
        Kind::Epoll => "epoll",
    }
}

/// The address that answers advertise.
fn media_ip(config: &Config) -> IpAddr {
    config.media_ip.or_else(system::default_route_ip).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Where calls are answered from; starts the built-in agent if it is to be that.
fn agent_config(config: &Config, kind: Kind, threads: &Threads) -> Result<AgentConfig, String> {
    match &config.upstream {
        Upstream::Builtin => {
            let port = spawn_builtin(kind, threads)?;
            Ok(AgentConfig {
                host: Ipv4Addr::LOCALHOST.to_string().into(),
                port,
                path: "/v1/realtime".to_owned(),
                tls: None,
                api_key: None,
                org_id: None,
                project_id: None,
                entropy: system::entropy,
            })
        }
        Upstream::Url { url, api_key, org_id, project_id } => Ok(AgentConfig {
            host: url.host.as_str().into(),
            port: url.port,
            path: url.path.clone(),
            tls: if url.tls { Some(Tls::new()?) } else { None },
            api_key: api_key.clone(),
            org_id: org_id.clone(),
            project_id: project_id.clone(),
            entropy: system::entropy,
        }),
    }
}

/// The built-in agent, on a free loopback port and a thread of its own; it ends with the process.
fn spawn_builtin(kind: Kind, threads: &Threads) -> Result<u16, String> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (listener, address) = listen(any).map_err(|error| format!("no port for the built-in agent: {error}"))?;
    let boxes = mailboxes::<Message>(0).map_err(|error| format!("no mailbox: {error}"))?;
    let mut setup = Setup::new("builtin-agent", boxes.control.inbox, boxes.control.routes);
    setup.doors.push((Door::Api, listener.into()));
    threads
        .spawn(kind, setup, || BuiltinAgent::new(BuiltinOptions { echo: false }))
        .map_err(|error| format!("no thread for the built-in agent: {error}"))?;
    Ok(address.port())
}

fn announce(config: &Config, address: SocketAddr, media_ip: IpAddr) {
    info!(
        "media {media_ip}, UDP {}-{}; {} workers, {} calls at most",
        config.media_ports.start(),
        config.media_ports.end(),
        config.workers,
        config.calls_max
    );
    match &config.upstream {
        Upstream::Builtin => info!("the built-in agent answers calls; set OPENAI_API_KEY for the model"),
        Upstream::Url { url, .. } => info!("{} at {} answers calls", config.model, url.host),
    }
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    if config.page {
        let host = if address.ip().is_unspecified() { media_ip } else { address.ip() };
        let page = SocketAddr::new(host, address.port());
        info!("listening on {address}; call it from a browser: {scheme}://{page}/");
    } else {
        info!("listening on {address} ({scheme})");
    }
}
