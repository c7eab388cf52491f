//! Each rule, seen to be content and seen to object: a machine as it should be, and one thing changed at a time.

use std::io::ErrorKind;
use std::time::Duration;

use clap::Parser;

use super::*;
use crate::config::Flags;
use crate::driver::inspect::{Clock, Folder, Limit, Stage};
use crate::messages::GraphReply;
use crate::whatsapp::graph::{self, Reply};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

/// A bridge for others with a model, and this changed.
fn config(arguments: &[&str]) -> Config {
    let usual = ["bridge", "--listen=0.0.0.0:8080", "--api-token=0123456789abcdef", "--api-key=sk-test"];
    let flags = Cli::try_parse_from([&usual[..], arguments].concat()).unwrap_or_else(|error| panic!("{error}")).flags;
    Config::from_flags(flags, 2).unwrap()
}

fn step(stage: Stage, outcome: Result<&str, &str>) -> Reach {
    let outcome = outcome.map(str::to_owned).map_err(str::to_owned);
    Reach { stage, took: Duration::from_millis(12), outcome }
}

/// A machine as it should be.
fn facts() -> Facts {
    let public = IpAddr::from([198, 41, 0, 4]);
    Facts {
        host: Host {
            kernel: "6.1.0-18-amd64".into(),
            descriptors: Some(Limit { soft: 1_024, hard: 524_288 }),
            locked_memory: Some(Limit { soft: 8 << 20, hard: 8 << 20 }),
            buffer_bytes_max: [Some(212_992); 2],
            ephemeral_ports: Some(32_768..=60_999),
            reserved_ports: vec![8_080..=8_080, 40_000..=41_999],
            cores: 2,
            pinning_refused: None,
            cpu_quota: None,
            governors: vec![("performance".into(), "acpi-cpufreq".into())],
            clock: Some(Clock::Synchronised),
            stop_timeout: None,
            default_route_ip: Some(public),
        },
        uring: Ok(true),
        rings: Some(Ok(())),
        secrets: vec![SecretFact {
            name: "secret_api_key",
            variable: "OPENAI_API_KEY",
            source: SecretSource::File("/etc/key".into()),
            mode: Some(0o100_600),
            is_typed: false,
        }],
        tls: None,
        tls_key_mode: None,
        tls_key_is_roots: false,
        api_port: ApiPort::Free,
        media_ports: MediaPorts { free: 2_000, ..MediaPorts::default() },
        media_ip: public,
        media_is_local: true,
        model: vec![
            step(Stage::Dns, Ok("198.41.0.9")),
            step(Stage::Tcp, Ok("198.41.0.9:443")),
            step(Stage::Tls, Ok("certificate verified")),
        ],
        events: Vec::new(),
        whatsapp: None,
    }
}

/// The verdict of one rule.
fn verdict(name: &str, config: &Config, facts: &Facts) -> Option<Check> {
    judge(config, facts).into_iter().find(|check| check.name == name)
}

#[track_caller]
fn expect(name: &str, config: &Config, facts: &Facts, outcome: Outcome, said: &[&str]) {
    let check = verdict(name, config, facts).unwrap_or_else(|| panic!("nothing is said about {name}"));
    assert_eq!(check.outcome, outcome, "{check:?}");
    assert_eq!(check.advice.is_none(), outcome == Outcome::Ok, "advice is for those who need it: {check:?}");
    let all = format!("{} -> {}", check.found, check.advice.unwrap_or_default());
    assert!(!all.contains('\n'), "{all}");
    for words in said {
        assert!(all.contains(words), "{words:?} is not in {all:?}");
    }
}

#[test]
fn a_machine_as_it_should_be_gets_no_advice() {
    let checks = judge(&config(&[]), &facts());
    assert!(checks.len() > 12, "{checks:?}");
    assert!(checks.iter().all(|check| check.outcome == Outcome::Ok && check.advice.is_none()), "{checks:#?}");
    let report = Report::new(Vec::new(), checks);
    assert!(report.passes(true) && report.to_string().ends_with("\nok\n"), "{report}");
}

#[test]
fn each_rule_about_the_machine_objects_to_one_thing_and_says_what_to_do() {
    let no_uring =
        || NoUring { why: "kernel.io_uring_disabled is 2".into(), cure: "sysctl kernel.io_uring_disabled=0".into() };
    let change = |change: &dyn Fn(&mut Facts)| {
        let mut facts = facts();
        change(&mut facts);
        facts
    };
    let plain = config(&[]);
    let refused = change(&|facts| facts.uring = Err(no_uring()));
    let words = ["io_uring_disabled is 2", "sysctl kernel.io_uring_disabled=0"];
    expect("io_uring", &plain, &refused, Outcome::Warn, &[&words[..], &["four system calls a packet"]].concat());
    expect("io_uring", &config(&["--io=uring"]), &refused, Outcome::Fail, &words);
    expect("io_uring", &config(&["--io=epoll"]), &refused, Outcome::Ok, &["as asked for"]);
    expect("io_uring", &config(&["--io=epoll"]), &facts(), Outcome::Ok, &["works here too"]);

    let tight =
        change(&|facts| facts.rings = Some(Err(NoUring { why: "too little memory".into(), cure: String::new() })));
    expect(
        "locked_memory",
        &plain,
        &tight,
        Outcome::Fail,
        &["4 loops", "limit 8192 KiB", "LimitMEMLOCK=1M", "ulimit -l 1024"],
    );
    assert_eq!(verdict("locked_memory", &plain, &change(&|facts| facts.rings = None)), None, "no ring is made");

    let quota = change(&|facts| facts.host.cpu_quota = Some(1.5));
    expect("cores", &plain, &quota, Outcome::Warn, &["1.5 cores", "CPUQuota=200%", "BRIDGE_WORKERS=1"]);
    expect("cores", &config(&["--workers=1"]), &quota, Outcome::Ok, &["1 workers"]);
    expect(
        "cores",
        &config(&["--workers=4"]),
        &facts(),
        Outcome::Warn,
        &["4 workers share 2 cores", "BRIDGE_WORKERS=2"],
    );
    let unpinned = change(&|facts| facts.host.pinning_refused = Some("EPERM".into()));
    expect("cores", &plain, &unpinned, Outcome::Warn, &["EPERM", "sched_setaffinity"]);

    let governor =
        |governor: &str, driver: &str| change(&|facts| facts.host.governors = vec![(governor.into(), driver.into())]);
    expect(
        "governor",
        &plain,
        &governor("powersave", "acpi-cpufreq"),
        Outcome::Warn,
        &["cpupower frequency-set -g performance"],
    );
    expect("governor", &plain, &governor("powersave", "intel_pstate"), Outcome::Ok, &[]);
    assert_eq!(verdict("governor", &plain, &change(&|facts| facts.host.governors.clear())), None);

    let few = |hard| change(&|facts| facts.host.descriptors = Some(Limit { soft: 1_024, hard }));
    expect(
        "descriptors",
        &plain,
        &few(3_000),
        Outcome::Warn,
        &["800 calls", "enough for 348", "LimitNOFILE=4096", "BRIDGE_MAX_CALLS=348"],
    );
    expect("descriptors", &plain, &few(1_024), Outcome::Fail, &["LimitNOFILE=4096"]);
    expect("descriptors", &config(&["--max-calls=300"]), &few(3_000), Outcome::Ok, &[]);

    for (limits, setting) in [([Some(65_536), Some(212_992)], "rmem_max"), ([Some(212_992), Some(65_536)], "wmem_max")]
    {
        let small = change(&|facts| facts.host.buffer_bytes_max = limits);
        expect(
            "udp_buffers",
            &plain,
            &small,
            Outcome::Warn,
            &[&format!("sysctl -w net.core.{setting}=212992"), "131072"],
        );
    }
    assert_eq!(verdict("udp_buffers", &plain, &change(&|facts| facts.host.buffer_bytes_max = [None; 2])), None);

    let stops_after = |sec| change(&|facts| facts.host.stop_timeout = Some(Duration::from_secs(sec)));
    let said = ["600 s", "90 s", "TimeoutStopSec=630", "BRIDGE_DRAIN_SEC=80"];
    expect("drain", &plain, &stops_after(90), Outcome::Warn, &said);
    expect("drain", &plain, &stops_after(660), Outcome::Ok, &[]);
    expect("drain", &config(&["--drain-sec=60"]), &stops_after(90), Outcome::Ok, &[]);
    assert_eq!(verdict("drain", &plain, &facts()), None, "no systemd here");

    let adrift = change(&|facts| facts.host.clock = Some(Clock::Adrift));
    expect("clock", &plain, &adrift, Outcome::Warn, &["timedatectl set-ntp true"]);
    assert_eq!(verdict("clock", &plain, &change(&|facts| facts.host.clock = None)), None, "nobody says");
}

#[test]
fn each_rule_about_ports_objects_to_one_thing_and_says_what_to_do() {
    let plain = config(&[]);
    let port = |found: ApiPort| Facts { api_port: found, ..facts() };
    let healthy = r#"{"status":"healthy","service":"voice-media-bridge","activeCalls":3}"#;
    let running = port(ApiPort::Held(Ok(healthy.into())));
    expect("api_port", &plain, &running, Outcome::Ok, &["a voice-media-bridge runs there with 3 calls"]);
    for (found, said) in [
        (ApiPort::Held(Ok("<html>".into())), "is no bridge"),
        (ApiPort::Held(Err("it did not answer".into())), "it did not answer"),
    ] {
        expect(
            "api_port",
            &plain,
            &port(found),
            Outcome::Fail,
            &[said, "0.0.0.0:8080", "ss -ltnp 'sport = 8080'", "BRIDGE_LISTEN"],
        );
    }
    for (kind, said) in [
        (ErrorKind::PermissionDenied, "voice-media-bridge.socket"),
        (ErrorKind::AddrNotAvailable, "ip -brief address"),
        (ErrorKind::Other, "odd"),
    ] {
        expect("api_port", &plain, &port(ApiPort::Refused(kind, "odd".into())), Outcome::Fail, &[said]);
    }

    let busy = |free, busy| Facts {
        media_ports: MediaPorts { free, busy, busy_first: vec![40_000], refused: None },
        ..facts()
    };
    expect("media_ports", &plain, &busy(1_990, 10), Outcome::Ok, &["10 of UDP 40000-41999 are busy (40000, …)"]);
    expect("media_ports", &plain, &busy(100, 1_900), Outcome::Warn, &["100 are left for 800 calls", "ss -lunp"]);
    expect("media_ports", &plain, &busy(0, 2_000), Outcome::Fail, &["ss -lunp", "ip_local_reserved_ports=40000-41999"]);
    let in_use = Facts { api_port: running.api_port, ..busy(0, 2_000) };
    expect("media_ports", &plain, &in_use, Outcome::Ok, &["a bridge has calls"]);
    let none = MediaPorts { refused: Some("EACCES".into()), ..MediaPorts::default() };
    expect("media_ports", &plain, &Facts { media_ports: none, ..facts() }, Outcome::Fail, &["EACCES"]);

    let mut open = facts();
    open.host.reserved_ports = vec![8_080..=8_080];
    let line = "sysctl -w net.ipv4.ip_local_reserved_ports=8080-8080,40000-41999";
    expect("ephemeral_ports", &plain, &open, Outcome::Warn, &["32768-60999", line, "/etc/sysctl.d/"]);
    expect("ephemeral_ports", &config(&["--media-ports=20000-21999"]), &open, Outcome::Ok, &[]);
    open.host.ephemeral_ports = None;
    assert_eq!(verdict("ephemeral_ports", &plain, &open), None);
}

#[test]
fn an_address_that_callers_do_not_reach_is_told_from_one_behind_a_nat() {
    let plain = config(&[]);
    let at = |media_ip: [u8; 4], default_route: Option<[u8; 4]>| {
        let mut facts = facts();
        facts.media_ip = media_ip.into();
        facts.media_is_local = default_route == Some(media_ip);
        facts.host.default_route_ip = default_route.map(Into::into);
        facts
    };
    let (public, private) = ([198, 41, 0, 4], [10, 0, 0, 5]);
    let set = "set BRIDGE_MEDIA_IP to the address that callers reach";
    expect("media_address", &plain, &at(private, Some(private)), Outcome::Warn, &["only a private network", set]);
    expect("media_address", &plain, &at([127, 0, 0, 1], None), Outcome::Fail, &["no default route", set]);
    for (ip, said) in
        [([127, 0, 0, 1], "own machine"), ([203, 0, 113, 10], "documentation"), ([169, 254, 1, 1], "link-local")]
    {
        let media = format!("--media-ip={}", IpAddr::from(ip));
        expect("media_address", &config(&[&media]), &at(ip, Some(public)), Outcome::Fail, &[said, set]);
    }
    let media = config(&["--media-ip=198.41.0.4"]);
    expect("media_address", &media, &at(public, Some(private)), Outcome::Ok, &["1:1 NAT must hand on UDP 40000-41999"]);
    expect(
        "media_address",
        &media,
        &at(public, Some([198, 41, 0, 9])),
        Outcome::Warn,
        &["198.41.0.9 in public itself"],
    );
    expect("media_address", &media, &at(public, None), Outcome::Warn, &["ip route"]);
    let mut local = config(&[]);
    local.listen = "127.0.0.1:8080".parse().unwrap();
    expect("media_address", &local, &at(private, Some(private)), Outcome::Ok, &["callers on this host"]);
}

#[test]
fn the_way_to_the_model_ends_at_a_step_with_its_way_out() {
    let plain = config(&[]);
    let ends = |stage, why| Facts { model: vec![step(stage, Err(why))], ..facts() };
    let session = |status| Stage::Session { status };
    for (name, facts, said) in [
        ("model_dns", ends(Stage::Dns, "not found"), "getent hosts api.openai.com"),
        ("model_tcp", ends(Stage::Tcp, "refused"), "nc -vz api.openai.com 443"),
        ("model_tls", ends(Stage::Tls, "expired"), "ca-certificates"),
        ("model_session", ends(session(Some(401)), "{}"), "the key is refused"),
        ("model_session", ends(session(Some(403)), "{}"), "not allowed"),
        ("model_session", ends(session(Some(404)), "{}"), "OPENAI_REALTIME_MODEL"),
        ("model_session", ends(session(Some(429)), "{}"), "out of quota"),
        ("model_session", ends(session(None), "ended"), "Realtime protocol"),
    ] {
        expect(name, &plain, &facts, Outcome::Fail, &[said, "api.openai.com"]);
    }
    let says = |message| Facts { model: vec![step(session(None), Ok(message))], ..facts() };
    let created = r#"{"type":"session.created","session":{"model":"gpt-realtime"}}"#;
    expect("model_session", &plain, &says(created), Outcome::Ok, &["the key is taken, the model is gpt-realtime"]);
    let error = r#"{"type":"error","error":{"message":"No such\nmodel"}}"#;
    expect("model_session", &plain, &says(error), Outcome::Fail, &["No suchmodel", "billing"]);
    expect("model_session", &plain, &says("hello"), Outcome::Fail, &["no realtime session"]);
    let builtin = config(&["--agent=builtin"]);
    expect("model", &builtin, &Facts { model: Vec::new(), ..facts() }, Outcome::Ok, &["built-in agent"]);
    expect(
        "model",
        &config(&["--realtime-model=gpt-5-realtime"]),
        &facts(),
        Outcome::Warn,
        &["gpt-5-realtime is retired"],
    );
    assert_eq!(verdict("model", &plain, &facts()), None);
}

#[test]
fn a_secret_that_others_can_read_is_a_warning_and_its_source_is_told() {
    let plain = config(&[]);
    let found = |source, mode, is_typed| {
        let fact = SecretFact { name: "secret_api_key", variable: "OPENAI_API_KEY", source, mode, is_typed };
        Facts { secrets: vec![fact], ..facts() }
    };
    let file = || SecretSource::File("/etc/key".into());
    expect(
        "secret_api_key",
        &plain,
        &found(file(), Some(0o100_640), false),
        Outcome::Ok,
        &["OPENAI_API_KEY is in /etc/key"],
    );
    expect(
        "secret_api_key",
        &plain,
        &found(file(), Some(0o100_644), false),
        Outcome::Warn,
        &["(644)", "chmod 0600 /etc/key"],
    );
    expect("secret_api_key", &plain, &found(SecretSource::Setting, None, false), Outcome::Ok, &["in the environment"]);
    expect(
        "secret_api_key",
        &plain,
        &found(SecretSource::Setting, None, true),
        Outcome::Warn,
        &["(ps)", "OPENAI_API_KEY_FILE"],
    );
    assert_eq!(verdict("secret_api_key", &plain, &found(SecretSource::Nowhere, None, false)), None);
}

#[test]
fn a_certificate_and_its_key_are_a_pair_or_it_is_said_why_not() {
    let tls = config(&["--tls-cert=/etc/cert.pem", "--tls-key=/etc/key.pem"]);
    let found = |tls, tls_key_mode| Facts { tls: Some(tls), tls_key_mode, ..facts() };
    expect("tls_files", &tls, &found(Ok(Vec::new()), Some(0o100_640)), Outcome::Ok, &["/etc/cert.pem"]);
    expect("tls_files", &tls, &found(Ok(Vec::new()), Some(0o100_644)), Outcome::Warn, &["chmod 0640 /etc/key.pem"]);
    expect(
        "tls_files",
        &tls,
        &found(Ok(vec!["it ends soon".into()]), None),
        Outcome::Warn,
        &["it ends soon", "SIGHUP"],
    );
    let roots = Facts { tls_key_is_roots: true, ..found(Ok(Vec::new()), Some(0o100_600)) };
    expect("tls_files", &tls, &roots, Outcome::Warn, &["only root", "chgrp voice-media-bridge /etc/key.pem"]);
    let bad = found(Err("BRIDGE_TLS_KEY names another's".into()), None);
    expect("tls_files", &tls, &bad, Outcome::Fail, &["another's", "openssl x509", "/etc/cert.pem", "openssl pkey"]);
    expect("tls_files", &config(&[]), &facts(), Outcome::Ok, &["TLS belongs in front", "BRIDGE_TLS_CERT"]);
    let why = "the certificate is not for 127.0.0.1";
    let running = Facts { api_port: ApiPort::Held(Err(why.into())), ..found(Ok(Vec::new()), None) };
    expect("api_port", &tls, &running, Outcome::Ok, &["speaks TLS"]);
    expect("api_port", &config(&[]), &running, Outcome::Fail, &[why]);
}

#[test]
fn a_receiver_of_events_that_is_away_is_a_warning() {
    let events = config(&["--events-url=https://hooks.example/calls?key=canary"]);
    let found = |stage, outcome| Facts { events: vec![step(stage, outcome)], ..facts() };
    expect("events", &events, &found(Stage::Tls, Ok("verified")), Outcome::Ok, &["hooks.example"]);
    for (stage, said) in
        [(Stage::Dns, "resolv.conf"), (Stage::Tcp, "events are dropped"), (Stage::Tls, "ca-certificates")]
    {
        expect("events", &events, &found(stage, Err("away")), Outcome::Warn, &["away", said]);
    }
    assert!(!judge(&events, &found(Stage::Tcp, Err("away"))).iter().any(|check| check.found.contains("canary")));
    assert_eq!(verdict("events", &config(&[]), &facts()), None);
}

const NUMBER: [&str; 5] = [
    "--whatsapp-phone-number-id=106540352242922",
    "--whatsapp-app-secret=secret",
    "--whatsapp-verify-token=verify",
    "--whatsapp-access-token=token",
    "--state-dir=/var/lib/x",
];

/// WhatsApp as it should be.
fn whatsapp() -> WhatsAppFacts {
    WhatsAppFacts {
        numbers: Ok(vec!["sales".into(), "support".into()]),
        secret_files: vec![("/etc/sales.token".into(), Some(0o100_640))],
        graph: vec![step(Stage::Dns, Ok("198.41.0.9")), step(Stage::Tls, Ok("certificate verified"))],
        asked: vec![("sales".into(), Reply::Done)],
        forward: vec![step(Stage::Tcp, Ok("198.41.0.9:443"))],
        state: Some(Folder::Writable),
    }
}

#[test]
fn whatsapp_as_it_should_be_gets_no_advice_and_where_there_is_none_nothing_is_said() {
    let forward = config(&[&NUMBER[..], &["--webhook-forward-url=https://hooks.example/?key=canary"]].concat());
    let facts = Facts { whatsapp: Some(whatsapp()), ..facts() };
    for (name, said) in [
        ("whatsapp_numbers", "2 numbers: sales, support"),
        ("graph_dns", "graph.facebook.com"),
        ("graph_tls", "verified"),
        ("graph_number", "sales: Meta knows it"),
        ("webhook_forward", "hooks.example"),
        ("state_dir", "/var/lib/x"),
    ] {
        expect(name, &forward, &facts, Outcome::Ok, &[said]);
    }
    assert_eq!(verdict("whatsapp_secrets", &forward, &facts), None);
    assert!(!judge(&forward, &facts).iter().any(|check| check.found.contains("canary")));
    let names =
        |config: &Config, facts: &Facts| judge(config, facts).into_iter().map(|check| check.name).collect::<Vec<_>>();
    assert_eq!(names(&config(&[]), &facts), names(&config(&[]), &super::tests::facts()));
}

#[test]
fn each_rule_about_whatsapp_objects_to_one_thing_and_says_what_to_do() {
    let forward = config(&[&NUMBER[..], &["--webhook-forward-url=https://hooks.example/"]].concat());
    let change = |change: &dyn Fn(&mut WhatsAppFacts)| {
        let mut changed = whatsapp();
        change(&mut changed);
        Facts { whatsapp: Some(changed), ..facts() }
    };
    let bad = change(&|facts| {
        facts.numbers = Err("BRIDGE_WHATSAPP_NUMBERS names x.toml, which has an error in line 3".into());
    });
    expect("whatsapp_numbers", &forward, &bad, Outcome::Fail, &["line 3", "SIGHUP"]);
    let open = change(&|facts| facts.secret_files[0].1 = Some(0o100_644));
    expect("whatsapp_secrets", &forward, &open, Outcome::Warn, &["(644)", "chmod 0640 /etc/sales.token"]);
    for (name, stage, said) in [
        ("graph_dns", Stage::Dns, "getent hosts graph.facebook.com"),
        ("graph_tcp", Stage::Tcp, "nc -vz graph.facebook.com 443"),
        ("graph_tls", Stage::Tls, "ca-certificates"),
    ] {
        let away = change(&|facts| facts.graph = vec![step(stage, Err("away"))]);
        expect(name, &forward, &away, Outcome::Fail, &["away", "no call can be answered", said]);
    }
    let says = |status: u16, body: &str| {
        let reply = graph::read_probe(&Ok(GraphReply { status, retry_after_sec: None, body: body.into() }));
        change(&|facts| facts.asked = vec![("sales".into(), reply.clone())])
    };
    let expired = r#"{"error":{"message":"Session has expired","type":"OAuthException","code":190}}"#;
    expect(
        "graph_number",
        &forward,
        &says(401, expired),
        Outcome::Fail,
        &["sales", "Session has expired", "190", "system user"],
    );
    expect("graph_number", &forward, &says(200, "<html>"), Outcome::Fail, &["sales", "BRIDGE_GRAPH_URL"]);
    for (stage, said) in [(Stage::Dns, "resolv.conf"), (Stage::Tcp, "ten minutes"), (Stage::Tls, "ca-certificates")] {
        let away = change(&|facts| facts.forward = vec![step(stage, Err("away"))]);
        expect("webhook_forward", &forward, &away, Outcome::Warn, &["away", said]);
    }
    let refused = change(&|facts| facts.state = Some(Folder::Refused("Permission denied".into())));
    expect(
        "state_dir",
        &forward,
        &refused,
        Outcome::Fail,
        &["Permission denied", "chown voice-media-bridge /var/lib/x"],
    );
    let missing = change(&|facts| facts.state = Some(Folder::Missing));
    expect("state_dir", &forward, &missing, Outcome::Ok, &["is made at the start"]);
    let none = Facts { whatsapp: Some(WhatsAppFacts { state: None, ..whatsapp() }), ..facts() };
    expect("state_dir", &config(&NUMBER[..4]), &none, Outcome::Warn, &["no journal", "BRIDGE_STATE_DIR"]);
}

#[test]
fn settings_stand_under_their_headings_with_whoever_set_them() {
    let origin = |variable: &str, heading: &str, set_by: Option<&str>| Origin {
        variable: variable.into(),
        heading: heading.into(),
        set_by: set_by.map(Into::into),
    };
    let origins = [
        origin("BRIDGE_LISTEN", "HTTP API", None),
        origin("PORT", "HTTP API", Some("environment")),
        origin("BRIDGE_API_TOKEN", "HTTP API", Some("--api-token")),
        origin("BRIDGE_WORKERS", "Capacity", None),
    ];
    let found = settings(&config(&["--port=9000"]), &origins);
    let get = |name: &str| found.iter().find(|setting| setting.variable == name).unwrap();
    assert_eq!(
        (get("BRIDGE_LISTEN").value.as_str(), get("BRIDGE_LISTEN").set_by.as_deref()),
        ("0.0.0.0:9000", Some("its port by environment"))
    );
    assert_eq!((get("BRIDGE_API_TOKEN").value.as_str(), get("BRIDGE_WORKERS").set_by.as_deref()), ("(hidden)", None));
    assert_eq!(get("BRIDGE_LOG").heading, "Others", "not lost");
    let check = Check::warn("clock", "adrift", "set it");
    let report = Report::new(found, vec![Check::ok("cores", "2"), check]);
    assert!(report.passes(false) && !report.passes(true));
    let text = report.to_string();
    for words in [
        "HTTP API:\nBRIDGE_LISTEN ",
        "(--api-token)\n",
        "\nwarn  clock  adrift\n             -> set it\n",
        "\nok, 1 warning\n",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!((&json["outcome"], &json["checks"][1]["advice"]), (&"warn".into(), &"set it".into()));
    assert_eq!(
        (&json["settings"][0]["variable"], &json["checks"][0]["advice"]),
        (&"BRIDGE_LISTEN".into(), &serde_json::Value::Null)
    );
}
