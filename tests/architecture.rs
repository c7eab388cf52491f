//! The shape of the code, held by a test: which module may import which, where each third-party crate is named, and that
//! the clock, sockets and threads are named in `driver` alone.
//!
//! It reads the sources as text. That is enough, since imports are written out; what it cannot see is a path that a macro
//! of another crate makes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules each module may name. What is not listed is forbidden. Words shared by all come first. The legs and what
/// they are made of know nothing above them; `call`, `messages` and `stats` know each other, since a report of a call is
/// what a worker tells and what metrics sum.
const MODULES: &[(&str, &[&str])] = &[
    ("io", &[]),
    ("report", &[]),
    ("slab", &[]),
    ("call_id", &[]),
    ("close_reason", &[]),
    ("whatsapp", &["call_id", "close_reason", "config", "messages"]),
    ("config", &[]),
    ("audio", &[]),
    ("jitter", &[]),
    ("playout", &["audio"]),
    ("tls", &[]),
    ("wss", &["config", "io", "tls"]),
    ("realtime", &["playout"]),
    ("peer", &["close_reason", "config", "io", "report"]),
    ("agent", &["call_id", "close_reason", "config", "io", "playout", "realtime", "report", "wss"]),
    (
        "call",
        &[
            "agent",
            "audio",
            "call_id",
            "close_reason",
            "io",
            "jitter",
            "messages",
            "peer",
            "playout",
            "realtime",
            "report",
            "stats",
        ],
    ),
    ("stats", &["agent", "call", "close_reason", "messages", "peer", "report"]),
    (
        "messages",
        &["agent", "call", "call_id", "close_reason", "config", "peer", "realtime", "stats", "tls", "whatsapp"],
    ),
    ("worker", &["agent", "audio", "call", "call_id", "close_reason", "io", "messages", "peer", "slab", "stats"]),
    ("http", &[]),
    ("relay", &[]),
    ("capacity", &[]),
    ("load", &["audio", "http", "io", "relay", "slab", "stats", "tls"]),
    // It judges the bridge: none of what it reads may be read by the bridge's own code.
    ("simulator", &["audio", "http", "io", "load", "relay", "slab", "tls"]),
    (
        "control",
        &[
            "call_id",
            "close_reason",
            "config",
            "http",
            "io",
            "messages",
            "peer",
            "realtime",
            "slab",
            "stats",
            "tls",
            "whatsapp",
        ],
    ),
    ("builtin", &["io", "messages", "slab", "wss"]),
    // tls: one provider and one policy of trust for all that this process asks. wss: `inspect` tries a model's server the
    // way a call reaches it.
    ("driver", &["call_id", "config", "io", "messages", "tls", "wss"]),
    (
        "server",
        &[
            "agent",
            "audio",
            "builtin",
            "call",
            "capacity",
            "check",
            "config",
            "control",
            "doctor",
            "driver",
            "http",
            "io",
            "load",
            "messages",
            "peer",
            "realtime",
            "simulator",
            "stats",
            "tls",
            "whatsapp",
            "worker",
            "wss",
        ],
    ),
    // check: it judges what `driver::inspect` saw; peer: media addresses by the rules for a call's candidates; whatsapp: what
    // Meta's answers mean.
    ("check", &["config", "driver", "peer", "whatsapp"]),
    // doctor: its caller is made of the load's parts; driver: the steps of `driver::inspect::reach`.
    ("doctor", &["audio", "driver", "io", "load", "relay", "stats"]),
    ("latency", &["driver"]),
    ("top", &["call_id", "driver", "latency"]),
    ("main", &["check", "config", "doctor", "driver", "capacity", "latency", "load", "server", "simulator", "top"]),
];

/// Where each third-party crate may be named: a module, or one file of it.
const CRATES: &[(&str, &[&str])] = &[
    ("str0m", &["peer", "relay"]),
    ("dimpl", &["peer/identity", "relay/crypto"]),
    ("rustls", &["tls"]),
    ("rustls_native_certs", &["tls"]),
    ("webpki_roots", &["tls"]),
    ("x509_cert", &["tls"]),
    ("tungstenite", &["wss"]),
    ("httparse", &["http"]),
    (
        "serde_json",
        &[
            "realtime",
            "control",
            "builtin",
            "capacity",
            "check",
            "doctor",
            "latency",
            "load",
            "server/capacity",
            "server/demo",
            "server/doctor",
            "simulator",
            "top",
            "whatsapp",
        ],
    ),
    ("toml", &["whatsapp/numbers"]),
    ("base64_simd", &["realtime", "control", "builtin", "simulator", "wss"]),
    ("opusic_sys", &["audio"]),
    ("hdrhistogram", &["stats"]),
    ("io_uring", &["driver"]),
    ("mio", &["driver"]),
    ("nix", &["driver"]),
    ("libc", &["driver"]),
    ("rustix", &["driver/system"]),
    ("signal_hook", &["driver"]),
    ("sd_listen_fds", &["driver/activation"]),
    ("clap", &["capacity/flags", "check/flags", "config", "doctor/flags", "load/flags", "main", "simulator/flags"]),
    ("clap_mangen", &["main/manual"]),
    ("ureq", &["driver/fetch"]),
    ("crossterm", &["driver/terminal"]),
    ("tracing_subscriber", &["main"]),
    ("aws_lc_rs", &["call_id", "control", "driver", "simulator/signature", "whatsapp"]),
];

/// The clock, sockets and threads, as they are written.
const WORLD: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "std::thread",
    "process::Command",
    "thread::spawn",
    "thread::sleep",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "std::fs",
    "std::env::",
    "ToSocketAddrs",
];

/// Files and folders that exist only for unit tests.
const TEST_FILES: &[&str] = &["tests", "testing", "samples"];

/// Where `unsafe` may be written.
const UNSAFE: &[&str] = &["driver/uring", "audio/libopus"];

struct Source {
    /// The path below `src`, without `.rs`.
    path: String,
    module: String,
    /// The code without comments and without its unit tests.
    code: String,
}

fn sources(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    walk(root, &mut files);
    files.sort();
    files
        .iter()
        .map(|file| {
            let path = file.strip_prefix(root).expect("below the root").with_extension("").display().to_string();
            let text = fs::read_to_string(file).expect("sources are readable");
            let module = path.split('/').next().expect("a path has a first part").to_owned();
            Source { path, module, code: production_code(&text) }
        })
        .filter(|source| source.module != "lib")
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("sources are readable") {
        let path = entry.expect("sources are readable").path();
        let is_test = path.file_stem().is_some_and(|stem| TEST_FILES.iter().any(|name| stem == *name));
        if is_test {
            continue;
        }
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// Cuts comments, and unit tests: those stand last in a file, behind `#[cfg(test)]` on a line of its own.
fn production_code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().expect("split gives at least one part");
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Words that follow `prefix::` in the code.
fn named_after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let pattern = format!("{prefix}::");
    code.match_indices(&pattern)
        .filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
        .map(|(at, _)| {
            let rest = &code[at + pattern.len()..];
            &rest[..rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())]
        })
        .collect()
}

fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::"))
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

fn below(path: &str, place: &str) -> bool {
    path == place || path.starts_with(&format!("{place}/"))
}

fn violations(sources: &[Source]) -> Vec<String> {
    let modules: BTreeMap<_, _> = MODULES.iter().copied().collect();
    let mut found = Vec::new();
    for Source { path, module, code } in sources {
        let Some(allowed) = modules.get(module.as_str()) else {
            found.push(format!("{path}: the module {module} is not in the table"));
            continue;
        };
        let own = if module == "main" { "voice_media_bridge" } else { "crate" };
        for name in named_after(code, own) {
            if name != module && !allowed.contains(&name) {
                found.push(format!("{path}: {module} must not name {name}"));
            }
        }
        for (name, places) in CRATES {
            if names_crate(code, name) && !places.iter().any(|place| below(path, place)) {
                found.push(format!("{path}: the crate {name} belongs in {places:?}"));
            }
        }
        for word in WORLD {
            if code.contains(word) && module != "driver" {
                found.push(format!("{path}: {word} belongs in driver"));
            }
        }
        let is_unsafe = ["{", "impl", "fn", "extern"].iter().any(|what| code.contains(&format!("unsafe {what}")));
        if is_unsafe && !UNSAFE.iter().any(|place| below(path, place)) {
            found.push(format!("{path}: unsafe belongs in {UNSAFE:?}"));
        }
    }
    found
}

#[test]
fn modules_name_what_the_table_allows_and_the_world_is_named_in_driver_alone() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(sources.len() > 20, "only {} files were found", sources.len());
    let found = violations(&sources);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_rule_is_seen_to_fail_when_it_is_broken() {
    let source = |path: &str, code: &str| Source {
        path: path.to_owned(),
        module: path.split('/').next().unwrap().to_owned(),
        code: production_code(code),
    };
    for (path, code, complaint) in [
        ("peer", "use crate::agent::Agent;", "peer must not name agent"),
        ("agent/dial", "use crate::peer::Peer;", "agent must not name peer"),
        ("driver/uring", "use crate::call::Call;", "driver must not name call"),
        ("jitter", "let now = Instant::now();", "Instant::now belongs in driver"),
        ("control", "let s = std::net::TcpStream::connect(a);", "TcpStream belongs in driver"),
        ("worker", "std::thread::spawn(f);", "std::thread belongs in driver"),
        ("call/uplink", "use str0m::Rtc;", "the crate str0m belongs in"),
        ("agent", "use tungstenite::Message;", "the crate tungstenite belongs in"),
        ("http", "unsafe { fast() }", "unsafe belongs in"),
        ("stranger", "", "not in the table"),
    ] {
        let found = violations(&[source(path, code)]);
        assert!(found.iter().any(|line| line.contains(complaint)), "{path}: {code}: {found:?}");
    }
    let fine = [
        source(
            "peer",
            "// Instant::now is the driver's\nuse str0m::Rtc;\n\n#[cfg(test)]\nmod tests {\n Instant::now();\n}",
        ),
        source("call", "use crate::peer::Peer;\nuse crate::agent::Agent;"),
        source("driver/epoll", "let now = Instant::now();"),
    ];
    assert_eq!(violations(&fine), Vec::<String>::new());
}
