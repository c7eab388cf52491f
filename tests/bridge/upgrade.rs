//! An upgrade as a user does it: the other instance is started on the same listening socket, takes over, and the first one
//! leaves when its last call has ended. Real processes, real sockets, calls and clients all the while.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::pump::Pump;
use crate::relay::CallKey;
use crate::relay::script::Script;
use crate::server_calls::{PATIENCE, apply, heard, poll_until, session_request};
use crate::support::http_client::HttpClient;
use crate::support::pair::Manager;
use crate::support::process::Process;
use crate::support::server::free_address;
use crate::voice::silence;

const SECOND: Duration = Duration::from_secs(1);

/// Calls that last through an upgrade.
const LASTING: usize = 10;
/// Clients that open, look at and end calls all the time; every other one on a connection that it keeps.
const CLIENTS: usize = 3;

/// A beat that a busy machine comes too late for is left out, as on any other day; this much RTP time would be heard.
const HOLE_TICKS_MAX: u32 = 48_000;

/// Tests with load run one after the other.
static LOAD: Mutex<()> = Mutex::new(());

/// Two instances on these media ports. Calls are taken however busy the machine is: it runs all of this test.
fn manager(name: &str, io: &str, media_ports: &str) -> Manager {
    let settings = [
        ("BRIDGE_IO", io),
        ("BRIDGE_MEDIA_PORTS", media_ports),
        ("BRIDGE_MEDIA_IP", "127.0.0.1"),
        ("BRIDGE_ALLOW_PRIVATE", "1"),
        ("BRIDGE_AGENT", "builtin"),
        ("BRIDGE_ADMIT_BUSY_PERCENT", "100"),
    ];
    Manager::new(name, &settings)
}

/// What became of all requests.
#[derive(Debug, Default)]
struct Tally {
    requests: usize,
    calls: usize,
    failures: Vec<String>,
    slowest: (Duration, String),
}

/// An HTTP client that counts; where it keeps its connection, it uses it until the server says that it closes it.
struct Client<'a> {
    address: SocketAddr,
    keeps: bool,
    kept: Option<BufReader<TcpStream>>,
    tally: &'a Mutex<Tally>,
}

impl<'a> Client<'a> {
    fn new(address: SocketAddr, keeps: bool, tally: &'a Mutex<Tally>) -> Self {
        Self { address, keeps, kept: None, tally }
    }

    /// Any answer but 200, and none, is a failure. Nothing is tried twice.
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let begun = Instant::now();
        let outcome = self.exchange(method, path, &if body.is_null() { String::new() } else { body.to_string() });
        let took = begun.elapsed();
        let mut tally = self.tally.lock().expect("nothing panics while it is held");
        tally.requests += 1;
        // Such a request waits for its call, not for the server.
        if took > tally.slowest.0 && !path.contains("wait=") {
            let shown = path.split('/').take(3).collect::<Vec<_>>().join("/");
            tally.slowest = (took, format!("{method} {shown}"));
        }
        match outcome {
            Ok((200, body)) => Some(body),
            other => {
                tally.failures.push(format!("{method} {path}, after {took:?}: {other:?}"));
                None
            }
        }
    }

    fn exchange(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
        let mut stream = if let Some(stream) = self.kept.take() {
            stream
        } else {
            let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
            stream.set_read_timeout(Some(2 * PATIENCE))?;
            BufReader::new(stream)
        };
        let close = if self.keeps { "" } else { "Connection: close\r\n" };
        let (host, length) = (self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{close}Content-Length: {length}\r\n\r\n");
        stream.get_mut().write_all((head + body).as_bytes())?;
        let broken = || Error::from(ErrorKind::UnexpectedEof);
        let (mut status, mut length, mut closes) = (0, 0, false);
        for first in [true].into_iter().chain(std::iter::repeat(false)) {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let line = line.strip_suffix("\r\n").ok_or_else(broken)?;
            if first {
                status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(broken)?;
            } else if let Some((name, value)) = line.split_once(": ") {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.parse().map_err(|_| broken())?,
                    "connection" => closes = value == "close",
                    _ => {}
                }
            } else {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        self.kept = Some(stream).filter(|_| self.keeps && !closes);
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}

/// Opens calls, looks at them and ends them until told to stop. Each offer is posted twice at once.
fn open_and_end_calls(number: usize, address: SocketAddr, pump: &Pump, tally: &Mutex<Tally>, stop: &AtomicBool) {
    let mut client = Client::new(address, number.is_multiple_of(2), tally);
    let mut other = Client::new(address, !number.is_multiple_of(2), tally);
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("wacid.{number}.{round}");
        let (key, offer) = pump.with(|relay, now| relay.offer(now, Script::repeated(silence(SECOND))));
        let body = session_request(&id, &offer);
        let path = format!("/api/sessions/{id}");
        let (first, again) = std::thread::scope(|scope| {
            let again = scope.spawn(|| other.ask("PUT", &path, &body));
            (client.ask("POST", "/api/sessions", &body), again.join().expect("nothing panics"))
        });
        let (Some(first), Some(again)) = (first, again) else { return };
        tally.lock().expect("nothing panics while it is held").calls += 1;
        assert_eq!(first, again, "one offer, one answer");
        apply(pump, key, first["sdpAnswer"].as_str().expect("an answer"));
        let connected = client.ask("GET", &format!("{path}?wait=connected"), &Value::Null);
        assert!(connected.is_none_or(|session| session["connectedMs"].is_u64()), "not connected");
        heard(pump, key, 10);
        other.ask("GET", &path, &Value::Null);
        client.ask("DELETE", &path, &Value::Null);
        pump.wait_for("the caller to be told", PATIENCE, move |relay, _| relay.record(key)?.closed);
        pump.with(move |relay, _| relay.remove(key));
    }
}

/// A call that lasts through an upgrade.
struct Lasting {
    id: String,
    key: CallKey,
    request: Value,
    answer: Value,
}

/// Asks after one call and posts it again, all the time, on one connection or on ever new ones: whoever has it answers.
fn look_at(call: &Lasting, mut client: Client<'_>, stop: &AtomicBool) {
    let path = format!("/api/sessions/{}", call.id);
    while !stop.load(Ordering::Relaxed) {
        if let Some(session) = client.ask("GET", &path, &Value::Null) {
            assert_eq!(session["sessionId"], call.answer["sessionId"]);
        }
        if let Some(again) = client.ask("POST", "/api/sessions", &call.request) {
            assert_eq!(again, call.answer, "one offer, one answer");
        }
    }
}

/// Calls that last: each is posted and heard.
fn begin_lasting(manager: &Manager, pump: &Pump, name: &str, count: usize) -> Vec<Lasting> {
    let begin = |number| {
        let id = format!("wacid.{name}.{number}");
        let (key, offer) = pump.with(|relay, now| relay.offer(now, Script::repeated(silence(SECOND))));
        let request = session_request(&id, &offer);
        let response = manager.http().post("/api/sessions", &request);
        assert_eq!(response.status, 200, "{}", response.body);
        let answer = response.json();
        apply(pump, key, answer["sdpAnswer"].as_str().expect("an answer"));
        Lasting { id, key, request, answer }
    };
    let calls: Vec<_> = (0..count).map(begin).collect();
    for call in &calls {
        heard(pump, call.key, 10);
    }
    calls
}

/// Ends calls, and proves that until then no packet of them was missing, in either direction. Returns how many beats were
/// left out.
fn end_lasting(http: &HttpClient, pump: &Pump, calls: Vec<Lasting>) -> u32 {
    let mut left_out = 0;
    for Lasting { id, key, .. } in calls {
        let path = format!("/api/sessions/{id}");
        let sent = pump.with(move |relay, _| relay.record(key).expect("not removed").rtp_sent());
        poll_until("what was sent to be heard", || {
            let session = http.get(&path).json();
            let heard = |name| session["uplink"][name].as_u64().expect("a count");
            if heard("packets") + heard("late") >= sent { Ok(()) } else { Err(format!("{sent} of {session}")) }
        });
        let record = pump.with(move |relay, _| relay.record(key).expect("not removed").clone());
        assert_eq!(record.closed, None, "{id} was cut");
        for pair in record.received.windows(2) {
            assert_eq!(pair[1].seq, pair[0].seq.wrapping_add(1), "{id} lacks a packet");
            let hole = pair[1].timestamp.wrapping_sub(pair[0].timestamp) - 960;
            assert!(hole < HOLE_TICKS_MAX, "{id} was silent");
            left_out += hole / 960;
        }
        assert_eq!(http.delete(&path).status, 200);
        pump.wait_for("the caller to be told", PATIENCE, move |relay, _| relay.record(key)?.closed);
    }
    left_out
}

/// Ends the load, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The calls that an instance has opened, by what its log calls them.
fn opened(log: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains("call opened"));
    lines.map(|line| line.split("call=").nth(1).expect("a name").split(' ').next().unwrap_or_default().into()).collect()
}

fn ended(instance: Process) -> String {
    let (status, log) = instance.ended(PATIENCE);
    assert!(status.success(), "{status}:\n{log}");
    log
}

fn there_and_back_under_load(io: &str, media_ports: &str) {
    let _alone = LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    let manager = manager(&format!("load-{io}"), io, media_ports);
    let pump = Pump::start(77).expect("a relay");
    let a = manager.start("a");
    let mut lasting = begin_lasting(&manager, &pump, "first", LASTING);

    let (tally, stop) = (Mutex::new(Tally::default()), AtomicBool::new(false));
    let (mut logs, mut windows, mut left_out) = (Vec::new(), Vec::new(), 0);
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (pump, tally, stop, address) = (&pump, &tally, &stop, manager.address());
            scope.spawn(move || open_and_end_calls(number, address, pump, tally, stop));
        }
        let load = Stop(&stop);
        std::thread::sleep(2 * SECOND); // load, as is all that follows
        let mut old = a;
        for (name, new) in [("second", "b"), ("third", "a")] {
            let begun = Instant::now();
            let looked = AtomicBool::new(false);
            let (next, ready, more) = std::thread::scope(|scope| {
                let looks = Stop(&looked);
                for (call, keeps) in lasting.iter().zip([true, false]) {
                    let (client, looked) = (Client::new(manager.address(), keeps, &tally), &looked);
                    scope.spawn(move || look_at(call, client, looked));
                }
                let next = manager.start(new);
                let ready = begun.elapsed();
                let more = begin_lasting(&manager, &pump, name, LASTING);
                std::thread::sleep(2 * SECOND);
                drop(looks);
                (next, ready, more)
            });
            assert_eq!(old.try_wait(), None, "it has calls:\n{}", old.output());
            left_out += end_lasting(&manager.http(), &pump, std::mem::replace(&mut lasting, more));
            logs.push(ended(std::mem::replace(&mut old, next)));
            windows.push((ready, begun.elapsed()));
        }
        drop(load);
        left_out += end_lasting(&manager.http(), &pump, std::mem::take(&mut lasting));
        old.signal();
        logs.push(ended(old));
    });

    let tally = tally.into_inner().expect("nothing panicked while it was held");
    assert!(tally.failures.is_empty(), "{:#?}\n{}", tally.failures, logs.join("\n----\n"));
    let calls: Vec<String> = logs.iter().flat_map(|log| opened(log)).collect();
    let distinct: BTreeSet<&String> = calls.iter().collect();
    assert_eq!(calls.len(), distinct.len(), "a call was opened twice");
    assert_eq!(calls.len(), tally.calls + 3 * LASTING);
    assert!(logs.iter().all(|log| opened(log).len() > LASTING), "clients have seen all three");
    println!(
        "{io}: {} calls through two upgrades, {LASTING} at a time across each; {} requests, 0 failed, the slowest {:?} ({}); no packet \
         lost, {left_out} beats left out; ready after {:?} and {:?}, the old one gone {:?} and {:?} after the new one's start",
        calls.len(),
        tally.requests,
        tally.slowest.0,
        tally.slowest.1,
        windows[0].0,
        windows[1].0,
        windows[0].1,
        windows[1].1,
    );
}

#[test]
fn an_upgrade_there_and_back_under_load_loses_no_call_and_no_request_on_uring() {
    there_and_back_under_load("uring", "22000-22199");
}

#[test]
fn an_upgrade_there_and_back_under_load_loses_no_call_and_no_request_on_epoll() {
    there_and_back_under_load("epoll", "22200-22399");
}

#[test]
fn an_upgrade_from_one_kernel_interface_to_the_other_and_back_loses_nothing() {
    // The same socket blocks for one and does not for the other.
    let manager = manager("mixed", "uring", "22400-22439");
    let http = manager.http();
    let mut old = manager.start("a");
    for (new, io) in [("b", "epoll"), ("a", "uring"), ("b", "epoll")] {
        let next = manager.launch(new, &[("BRIDGE_IO", io)]);
        ended(std::mem::replace(&mut old, next));
        for _ in 0..20 {
            assert_eq!(http.get("/ready").status, 200);
        }
    }
}

#[test]
fn a_new_one_that_cannot_start_leaves_the_old_one_as_it_is() {
    let manager = manager("nonsense", "auto", "22440-22459");
    let mut a = manager.start("a");
    let (status, log) = manager.launch("b", &[("BRIDGE_MEDIA_IP", "0.0.0.0")]).ended(PATIENCE);
    assert!(!status.success() && log.contains("BRIDGE_MEDIA_IP"), "{status}:\n{log}");
    assert_eq!(manager.http().get("/ready").status, 200);
    let pump = Pump::start(5).expect("a relay");
    let calls = begin_lasting(&manager, &pump, "after", 1);
    end_lasting(&manager.http(), &pump, calls);
    assert_eq!(a.try_wait(), None);
}

#[test]
fn when_the_new_one_is_killed_the_calls_of_the_old_one_go_on_and_the_next_start_finds_them() {
    let manager = manager("new-killed", "auto", "22460-22479");
    let http = manager.http();
    let pump = Pump::start(6).expect("a relay");
    let a = manager.start("a");
    let calls = begin_lasting(&manager, &pump, "old", 2);
    drop(manager.start("b"));
    for call in &calls {
        let so_far = heard(&pump, call.key, 0).received.len();
        heard(&pump, call.key, so_far + 50);
    }
    let _b = manager.start("b");
    for call in &calls {
        assert_eq!(http.get(&format!("/api/sessions/{}", call.id)).status, 200);
    }
    end_lasting(&http, &pump, calls);
    ended(a);
}

#[test]
fn when_the_old_one_is_killed_its_calls_are_unknown_and_their_ids_are_free() {
    let manager = manager("old-killed", "auto", "22480-22499");
    let http = manager.http();
    let pump = Pump::start(7).expect("a relay");
    let a = manager.start("a");
    let Lasting { id, key, .. } = begin_lasting(&manager, &pump, "old", 1).remove(0);
    let _b = manager.start("b");
    let path = format!("/api/sessions/{id}");
    assert_eq!(http.get(&path).status, 200);
    let other = json!({"callId": id, "sdpOffer": "v=0"});
    assert_eq!(http.post("/api/sessions", &other).status, 409, "it is the old one that answers");
    drop(a);
    let unknown = http.get(&path);
    assert_eq!((unknown.status, &unknown.json()["code"]), (404, &json!("not_found")));
    pump.with(move |relay, _| relay.remove(key));
    let calls = begin_lasting(&manager, &pump, "old", 1);
    assert_eq!(calls[0].id, id);
    end_lasting(&http, &pump, calls);
}

#[test]
fn an_instance_that_runs_already_says_so() {
    let manager = manager("twice", "auto", "22500-22509");
    let _a = manager.start("a");
    let (status, log) = manager.launch("a", &[]).ended(PATIENCE);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("instance a (BRIDGE_INSTANCE) runs already"), "{log}");
    assert_eq!(manager.http().get("/ready").status, 200);
}

#[test]
fn a_socket_that_cannot_be_the_apis_is_refused_with_the_cure() {
    let mut command = Command::new("/bin/sh");
    let pass_on = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" serve 3</dev/null"#;
    command.args(["-c", pass_on, env!("CARGO_BIN_EXE_voice-media-bridge")]).env_clear();
    let (status, log) = Process::start(&mut command).ended(PATIENCE);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("carries no streams") && log.contains("ListenStream="), "{log}");
}

#[test]
fn a_connection_starts_it_under_systemd_socket_activate() {
    if !Path::new("/usr/bin/systemd-socket-activate").exists() {
        return eprintln!("not tested: there is no systemd-socket-activate here");
    }
    let address = free_address();
    let mut command = Command::new("/usr/bin/systemd-socket-activate");
    command.args(["--listen", &address.to_string(), "--fdname", "api"]);
    for setting in ["BRIDGE_AGENT=builtin", "BRIDGE_MEDIA_IP=127.0.0.1", "BRIDGE_MEDIA_PORTS=22510-22519"] {
        command.args(["--setenv", setting]);
    }
    let process = Process::start(command.args([env!("CARGO_BIN_EXE_voice-media-bridge"), "serve"]));
    let http = HttpClient::new(address);
    poll_until("the bridge to be started", || {
        let response = http.request("GET", "/health", None).map_err(|error| error.to_string())?;
        if response.status == 200 { Ok(()) } else { Err(response.body) }
    });
    let (status, log) = process.terminate(PATIENCE);
    assert!(status.success() && log.contains(&format!("{address} is the service manager's")), "{status}:\n{log}");
}
