//! A thousand calls of every fate, with bad input beside them, leave nothing behind in the real process.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::pump::Pump;
use crate::relay::script::Script;
use crate::server_calls::{apply, heard, poll_until, post, session_request, start, to_loopback_sdes};
use crate::support::http_client::Response;
use crate::support::server::Server;
use crate::voice::silence;

/// Calls at once: more than either worker sees in a quiet moment, far from any limit.
const AT_ONCE: usize = 8;

/// Of this many calls one is connected to the relay.
const CONNECTED_EVERY: usize = 25;

/// Growth of resident memory over the second half, in per cent. What is remembered of an ended call is about 1.5 KB, so
/// 500 of them are under 1 MB; the rest is for the allocator's caches. A leaked call would hold an Opus encoder and
/// decoder, DTLS and rings, 50 KB at least: 25 MB over the half, more than the whole process.
const GROWTH_PERCENT_MAX: u64 = 10;

/// What the clients did, to be compared with what the server counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    opened: u64,
    hung_up: u64,
    peer_closed: u64,
    refused: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.hung_up += other.hung_up;
        self.peer_closed += other.peer_closed;
        for (code, count) in other.refused {
            *self.refused.entry(code).or_default() += count;
        }
    }

    fn refused(&mut self, response: &Response, status: u16, code: &str) {
        assert_eq!((response.status, &response.json()["code"]), (status, &json!(code)), "{}", response.body);
        *self.refused.entry(code.to_owned()).or_default() += 1;
    }
}

/// The callers.
struct Callers<'a> {
    server: &'a Server,
    pump: &'a Pump,
    next: AtomicUsize,
    tally: Tally,
}

impl Callers<'_> {
    /// Makes calls until there have been `until`, and ends them all.
    fn run(&mut self, until: usize) {
        let callers = &*self;
        let tallies: Vec<Tally> = std::thread::scope(|scope| {
            let work = || {
                let mut tally = Tally::default();
                loop {
                    let number = callers.next.fetch_add(1, Ordering::Relaxed);
                    if number >= until {
                        return tally;
                    }
                    callers.call(number, &mut tally);
                    callers.bad_input(number, &mut tally);
                }
            };
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a caller")).collect()
        });
        self.next.store(until, Ordering::Relaxed);
        for tally in tallies {
            self.tally.add(tally);
        }
    }

    /// One call from its offer to its end.
    fn call(&self, number: usize, tally: &mut Tally) {
        let (id, http) = (format!("wacid.{number}"), self.server.http());
        tally.opened += 1;
        if number % 10 == 8 {
            // The webhook is gone before it has its answer. The call is there all the same, and can be ended.
            let (key, offer) = self.pump.with(|relay, now| relay.offer(now, Script::silent()));
            let body = session_request(&id, &offer).to_string();
            self.send_and_leave(&format!(
                "POST /api/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            poll_until("a call without its webhook", || match http.delete(&format!("/api/sessions/{id}")) {
                response if response.status == 200 => Ok(()),
                response => Err(response.body),
            });
            tally.hung_up += 1;
            self.pump.with(move |relay, _| relay.remove(key));
            return;
        }
        let (key, answer) = post(self.server, self.pump, &id, Script::repeated(silence(Duration::from_millis(200))));
        if number.is_multiple_of(CONNECTED_EVERY) {
            apply(self.pump, key, &answer);
            heard(self.pump, key, 5);
        }
        if number % (2 * CONNECTED_EVERY) == CONNECTED_EVERY {
            self.pump.with(move |relay, now| relay.hang_up(now, key));
            poll_until("the relay's end of the call", || {
                let session = http.get(&format!("/api/sessions/{id}")).json();
                if session["closeReason"] == "peer_closed" { Ok(()) } else { Err(session.to_string()) }
            });
            tally.peer_closed += 1;
        } else {
            let response = if number.is_multiple_of(2) {
                http.delete(&format!("/api/sessions/{id}"))
            } else {
                self.repeat_itself(number, &id, tally);
                http.post("/bridge/stop", &json!({"callId": id}))
            };
            assert_eq!(response.status, 200, "{}", response.body);
            tally.hung_up += 1;
        }
        self.pump.with(move |relay, _| relay.remove(key));
    }

    /// The same id again, with another offer.
    fn repeat_itself(&self, number: usize, id: &str, tally: &mut Tally) {
        if number % 10 == 1 {
            let (key, other) = self.pump.with(|relay, now| relay.offer(now, Script::silent()));
            let response = self.server.http().post("/api/sessions", &session_request(id, &other));
            tally.refused(&response, 409, "conflict");
            self.pump.with(move |relay, _| relay.remove(key));
        }
    }

    /// What else comes in meanwhile.
    fn bad_input(&self, number: usize, tally: &mut Tally) {
        let http = self.server.http();
        match number % 10 {
            2 => {
                let body = r#"{"callId": "wacid.bad", "sdpOffer": "#;
                let response = http.request("POST", "/api/sessions", Some(body)).expect("an answer");
                tally.refused(&response, 400, "bad_json");
            }
            3 => {
                let response = http.post("/api/sessions", &session_request("wacid.sdes", &to_loopback_sdes()));
                tally.refused(&response, 400, "offer_sdes");
            }
            4 => tally.refused(&http.post("/api/sessions", &json!({"callId": "wacid.none"})), 400, "missing_field"),
            5 => self.send_and_leave("POST /api/sess"),
            6 => self.send_and_leave(
                "POST /api/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{\"callId\"",
            ),
            7 => {
                let request = "POST /api/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\
                               Transfer-Encoding: chunked\r\n\r\n{}";
                let reply = http.exchange(request.as_bytes()).expect("an answer");
                assert!(reply.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&reply));
            }
            9 => {
                // As much as is allowed of nothing, and a bit.
                let body = format!("{{\"callId\": \"wacid.big\", \"sdpOffer\": \"{}\"}}", "v".repeat(65 * 1024));
                let response = http.request("POST", "/api/sessions", Some(&body)).expect("an answer");
                tally.refused(&response, 413, "offer_too_large");
            }
            _ => {}
        }
    }

    fn send_and_leave(&self, bytes: &str) {
        let mut stream = TcpStream::connect(self.server.address()).expect("the server listens");
        stream.write_all(bytes.as_bytes()).expect("a small write");
    }

    /// Waits until no call is left and the process holds no more descriptors than it did; returns how many it holds. That
    /// may be fewer: connections of earlier questions close a moment after they were answered.
    fn settle(&self, descriptors_before: usize) -> usize {
        poll_until("the last call to end", || {
            let list = self.server.http().get("/api/sessions").json();
            if list["count"] == 0 { Ok(()) } else { Err(list.to_string()) }
        });
        poll_until("descriptors to be closed", || match descriptors(self.server) {
            count if count <= descriptors_before => Ok(count),
            count => Err(format!("{count} are open, {descriptors_before} were")),
        })
    }
}

/// Descriptors of the process: those in its table, and those that its rings hold, which are not in the table.
fn descriptors(server: &Server) -> usize {
    let process = format!("/proc/{}", server.id());
    let open = std::fs::read_dir(format!("{process}/fd")).expect("the process runs").flatten();
    let held = |name: &std::ffi::OsStr| {
        let info = format!("{process}/fdinfo/{}", name.to_string_lossy());
        let info = std::fs::read_to_string(info).unwrap_or_default(); // closed meanwhile
        let files = info.lines().skip_while(|line| !line.starts_with("UserFiles:")).skip(1);
        files.take_while(|line| line.starts_with(' ')).filter(|line| !line.ends_with("<none>")).count()
    };
    open.map(|entry| 1 + held(&entry.file_name())).sum()
}

/// Resident memory in KiB.
fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The samples of one family, by their labels.
fn samples<'a>(metrics: &'a str, family: &str) -> BTreeMap<&'a str, u64> {
    let of_family = |line: &'a str| {
        let rest = line.strip_prefix("voice_media_bridge_")?.strip_prefix(family)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then(|| (labels, value.parse().expect("a count")))
    };
    metrics.lines().filter_map(of_family).collect()
}

fn a_thousand_calls(io: &str, media_ports: RangeInclusive<u16>) {
    let server = start(io, &format!("{}-{}", media_ports.start(), media_ports.end()));
    let pump = Pump::start(1000).expect("a relay");
    let mut callers = Callers { server: &server, pump: &pump, next: AtomicUsize::new(0), tally: Tally::default() };
    callers.run(50);
    callers.settle(usize::MAX);
    // The connections that just asked may not be closed yet: the least of some looks is what stays open.
    let looks = (0..100).map(|_| {
        std::thread::sleep(Duration::from_millis(1));
        descriptors(&server)
    });
    let before = looks.min().expect("some looks");
    let warm = resident_kib(&server);
    callers.run(500);
    let before = callers.settle(before);
    let half = resident_kib(&server);
    callers.run(1000);
    callers.settle(before);
    let full = resident_kib(&server);
    println!("{io}: {before} descriptors before and after; resident {warm}, {half}, {full} KiB after 50, 500, 1000");
    assert!(full < half + half * GROWTH_PERCENT_MAX / 100, "resident: {half} KiB after 500 calls, {full} after 1000");

    for port in media_ports {
        poll_until("a media port", || UdpSocket::bind(("127.0.0.1", port)).map_err(|error| format!("{port}: {error}")));
    }

    let Tally { opened, hung_up, peer_closed, refused } = callers.tally;
    assert_eq!((opened, hung_up + peer_closed, peer_closed), (1000, 1000, 20));
    let metrics = server.http().get("/metrics").body;
    assert_eq!(samples(&metrics, "calls_opened_total")[""], opened);
    let ended = samples(&metrics, "calls_ended_total");
    assert_eq!(ended[r#"{reason="hangup",blame="nobody"}"#], hung_up, "{ended:?}");
    assert_eq!(ended[r#"{reason="peer_closed",blame="nobody"}"#], peer_closed, "{ended:?}");
    assert_eq!(ended.values().sum::<u64>(), opened, "{ended:?}");
    let counted = samples(&metrics, "calls_refused_total");
    let counted: BTreeMap<String, u64> = counted
        .into_iter()
        .map(|(labels, count)| (labels.trim_start_matches("{code=\"").trim_end_matches("\"}").to_owned(), count))
        .collect();
    assert_eq!(counted, refused);
    assert_eq!(samples(&metrics, "calls").values().sum::<u64>(), 0);
    assert_eq!(samples(&metrics, "call_panics_total")[""], 0);
    assert_eq!(samples(&metrics, "http_connections")[""], 1, "the one that asked");

    let (status, log) = server.stop();
    assert!(status.success(), "{status}");
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn a_thousand_calls_and_bad_input_leave_nothing_behind_on_uring() {
    a_thousand_calls("uring", 23_000..=24_999);
}

#[test]
fn a_thousand_calls_and_bad_input_leave_nothing_behind_on_epoll() {
    a_thousand_calls("epoll", 25_000..=26_999);
}
