//! Calls against the real binary over real sockets: many from one relay port, answers applied late, every fixture.
//!
//! Each test's server has media ports of its own below the kernel's ephemeral range: tests run side by side, and a relay
//! on a port that the bridge counts as its own would be refused.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use voice_media_bridge::peer::sdp::lint::{Context, lint};

use crate::pump::Pump;
use crate::relay::CallKey;
use crate::relay::record::Record;
use crate::relay::script::Script;
use crate::support::server::Server;
use crate::voice::{decode, share_at, silence, speech, voiced_time};

/// How long a test waits for what takes a fraction of a second on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const SECOND: Duration = Duration::from_secs(1);

/// The real server with the built-in agent, on these media ports of loopback.
pub(crate) fn start(io: &str, media_ports: &str) -> Server {
    start_with(&[("BRIDGE_IO", io), ("BRIDGE_MEDIA_PORTS", media_ports), ("BRIDGE_AGENT", "builtin")])
}

/// The real server with these settings, its media on loopback.
pub(crate) fn start_with(settings: &[(&str, &str)]) -> Server {
    Server::start(&[&[("BRIDGE_MEDIA_IP", "127.0.0.1"), ("BRIDGE_ALLOW_PRIVATE", "1")], settings].concat())
}

/// What a webhook posts. No greeting, so that all the voice a caller hears is the echo of their own.
pub(crate) fn session_request(id: &str, offer: &str) -> Value {
    json!({"callId": id, "sdpOffer": offer, "from": "15550100", "config": {"greeting": ""}})
}

/// Posts a call of the relay and returns its answer, not yet applied.
pub(crate) fn post(server: &Server, pump: &Pump, id: &str, script: Script) -> (CallKey, String) {
    let (key, offer) = pump.with(move |relay, now| relay.offer(now, script));
    let response = server.http().post("/api/sessions", &session_request(id, &offer));
    assert_eq!(response.status, 200, "{}", response.body);
    (key, response.json()["sdpAnswer"].as_str().expect("an answer").to_owned())
}

/// Gives the relay its answer.
pub(crate) fn apply(pump: &Pump, key: CallKey, answer: &str) {
    let answer = answer.to_owned();
    pump.with(move |relay, now| relay.apply_answer(now, key, &answer)).expect("an answer that the relay can read");
}

/// Waits until the call is connected and this many of the bridge's packets have come, and returns what was seen.
pub(crate) fn heard(pump: &Pump, key: CallKey, packets: usize) -> Record {
    pump.wait_for("the bridge to be heard", PATIENCE, move |relay, _| {
        let record = relay.record(key).expect("the test removes no call that it waits for");
        (record.connected.is_some() && record.received.len() >= packets).then(|| record.clone())
    })
}

/// Asks again and again until `f` has something to return.
#[track_caller]
pub(crate) fn poll_until<R>(what: &str, mut f: impl FnMut() -> Result<R, String>) -> R {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match f() {
            Ok(found) => return found,
            Err(state) => assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}: {state}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A fixture's text.
pub(crate) fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sdp").join(name);
    std::fs::read_to_string(path).expect(name)
}

/// Voices far enough apart in pitch that one is never taken for the next.
const PITCHES: usize = 10;

fn pitch_hz(call: usize) -> f64 {
    100.0 + 17.0 * (call % PITCHES) as f64
}

fn fifty_calls_at_once(io: &str, media_ports: &str) {
    const CALLS: usize = 50;
    /// Five seconds: the caller speaks until 1.5 s, the agent answers after half a second of silence.
    const PACKETS: usize = 250;
    let spoken = Duration::from_millis(1200);
    let words: Vec<Vec<Arc<[u8]>>> = (0..PITCHES)
        .map(|voice| [silence(SECOND * 3 / 10), speech(spoken, pitch_hz(voice)), silence(10 * SECOND)].concat())
        .collect();
    let server = start(io, media_ports);
    let pump = Pump::start(50).expect("a relay");
    let keys: Vec<CallKey> = std::thread::scope(|scope| {
        let begin = |call: usize| {
            let (server, pump, script) = (&server, &pump, Script::once(words[call % PITCHES].iter().cloned()));
            scope.spawn(move || {
                let (key, answer) = post(server, pump, &format!("wacid.{call}"), script);
                apply(pump, key, &answer);
                key
            })
        };
        let threads: Vec<_> = (0..CALLS).map(begin).collect();
        threads.into_iter().map(|thread| thread.join().expect("the call was answered")).collect()
    });

    let records: Vec<Record> = keys.into_iter().map(|key| heard(&pump, key, PACKETS)).collect();
    for (call, record) in records.iter().enumerate() {
        assert_eq!((record.ssrcs.len(), record.sources.len()), (1, 1), "one SSRC, one source");
        assert_eq!((record.undecryptable, record.errors, record.duplicates), (0, 0, 0));
        // What the agent says back is what the bridge has heard on this very call.
        let pcm = decode(&record.received);
        let length = voiced_time(&pcm);
        assert!(length > spoken / 2 && length < 2 * spoken, "call {call}: {length:?} of voice");
        let (own, other) = (share_at(&pcm, pitch_hz(call)), share_at(&pcm, pitch_hz(call + 1)));
        // A beat that a busy machine lost breaks the phase, which costs the measure half its height and more.
        assert!(own > 0.05 && own > 20.0 * other, "call {call}: {own} at its own pitch, {other} at the next one's");
    }
    let distinct = |of: fn(&Record) -> String| records.iter().map(of).collect::<BTreeSet<_>>().len();
    assert_eq!(distinct(|record| record.ssrcs[0].to_string()), CALLS);
    assert_eq!(distinct(|record| record.sources[0].to_string()), CALLS);

    let list = server.http().get("/api/sessions").json();
    assert_eq!(list["count"], CALLS);
    for session in list["sessions"].as_array().expect("a list") {
        assert_eq!(session["state"], "active", "{session}");
        assert!(session["uplink"]["packets"].as_u64().expect("a count") > 100, "{session}");
    }
    let mut times: Vec<Duration> = records.iter().filter_map(Record::connect_time).collect();
    times.sort_unstable();
    println!("{io}: {CALLS} calls connected in {:?} (median), {:?} (most)", times[CALLS / 2], times[CALLS - 1]);
    let (status, log) = server.stop();
    assert!(status.success(), "{status}:\n{log}");
}

#[test]
fn fifty_calls_at_once_from_one_relay_port_hear_their_own_voice_on_uring() {
    fifty_calls_at_once("uring", "21000-21199");
}

#[test]
fn fifty_calls_at_once_from_one_relay_port_hear_their_own_voice_on_epoll() {
    fifty_calls_at_once("epoll", "21200-21399");
}

#[test]
fn a_relay_that_applies_the_answer_late_is_connected_within_a_second_of_it() {
    let server = start("auto", "21400-21449");
    let pump = Pump::start(7).expect("a relay");
    let voice = silence(SECOND);
    std::thread::scope(|scope| {
        for late in [1, 5] {
            let (server, pump, script) = (&server, &pump, Script::repeated(voice.iter().cloned()));
            scope.spawn(move || {
                let (key, answer) = post(server, pump, &format!("wacid.late{late}"), script);
                std::thread::sleep(late * SECOND); // what is tested, not what is waited for
                apply(pump, key, &answer);
                let record = heard(pump, key, 10);
                let time = record.connect_time().expect("connected");
                println!("answer applied {late} s late: connected {time:?} later");
                assert!(time < SECOND, "answer applied {late} s late: connected {time:?} later");
                // They go on all the while, and the first did not wait for anything.
                assert!(record.checks.before_answer > u64::from(late), "{:?}", record.checks);
                assert!(record.first_check_after_offer().expect("checks") < SECOND / 2);
                assert_eq!((record.ssrcs.len(), record.sources.len()), (1, 1));
            });
        }
    });
}

/// A fixture with every address that can be sent to replaced by this port of loopback.
fn to_loopback(offer: &str, port: u16) -> String {
    let replace = |line: &str, at: &[(usize, &str)]| {
        let mut words: Vec<&str> = line.split(' ').collect();
        for (position, word) in at {
            words[*position] = word;
        }
        words.join(" ")
    };
    let (port, mut text) = (port.to_string(), String::new());
    for line in offer.split_inclusive('\n') {
        let end = line.trim_end_matches(['\r', '\n']).len();
        let (line, end) = line.split_at(end);
        let line = match line {
            _ if line.starts_with("m=") => replace(line, &[(1, &port)]),
            _ if line.starts_with("c=IN IP4") => replace(line, &[(2, "127.0.0.1")]),
            _ if line.starts_with("a=candidate:") => {
                let v6 = line.split(' ').nth(4).is_some_and(|address| address.contains(':'));
                replace(line, &[(4, if v6 { "::1" } else { "127.0.0.1" }), (5, &port)])
            }
            _ => line.to_owned(),
        };
        text.push_str(&line);
        text.push_str(end);
    }
    assert!(!text.contains("2001:") && !text.contains("203.0.113") && !text.contains("198.51.100"), "{text}");
    text
}

#[test]
fn every_acceptable_fixture_is_answered_as_whatsapp_wants_it() {
    let server = start("auto", "21450-21499");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sdp");
    let names = std::fs::read_dir(folder).expect("the fixtures").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("ASCII")).collect();
    names.retain(|name| name.starts_with("offer-") || name.starts_with("variant-"));
    names.retain(|name| name != "offer-metadoc-sdes.sdp");
    assert!(names.len() >= 7, "{names:?}");
    for name in names {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        let offer = to_loopback(&fixture(&name), socket.local_addr().expect("bound").port());
        let response = server.http().post("/api/sessions", &session_request(&name, &offer));
        assert_eq!(response.status, 200, "{name}: {}", response.body);
        let answer = response.json()["sdpAnswer"].as_str().expect("an answer").to_owned();
        let findings = lint(&answer, Context { offer: Some(&offer), allow_private: true });
        assert!(findings.is_empty(), "{name}: {findings:?}\n{answer}");

        // The checks go where the offer says, for the user that it names.
        let mut check = [0; 2048];
        let (len, from) = socket.recv_from(&mut check).expect("a check");
        let ufrag = offer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).expect("a ufrag").trim();
        let user = format!("{ufrag}:");
        assert!(check[..len].windows(user.len()).any(|window| window == user.as_bytes()), "{name}: not our check");
        assert!(answer.contains(&format!("m=audio {} ", from.port())), "{name}: {from} is not in\n{answer}");

        assert_eq!(server.http().delete(&format!("/api/sessions/{name}")).status, 200);
        poll_until("the end", || {
            let session = server.http().get(&format!("/api/sessions/{name}")).json();
            if session["closeReason"] == "hangup" { Ok(()) } else { Err(session.to_string()) }
        });
    }
}

#[test]
fn an_offer_with_keys_in_it_is_refused_with_the_setting_to_change() {
    let server = start("auto", "21500-21509");
    let offer = to_loopback_sdes();
    let response = server.http().post("/api/sessions", &session_request("wacid.sdes", &offer));
    assert_eq!((response.status, &response.json()["code"]), (400, &json!("offer_sdes")));
    assert!(response.body.contains("calling.srtp_key_exchange_protocol"), "{}", response.body);
    assert_eq!(server.http().get("/api/sessions").json()["count"], 0);
}

/// The SDES fixture; nothing listens on the discard port, and nothing may be sent to it.
pub(crate) fn to_loopback_sdes() -> String {
    to_loopback(&fixture("offer-metadoc-sdes.sdp"), 9)
}
