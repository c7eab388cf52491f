//! A load driven by hand: its requests are read and answered here, time is an argument. Whole calls are in the end-to-end
//! tests.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::io::StreamKey;

const SECOND: Duration = Duration::from_secs(1);

/// A load, what it told, and a server that answers as it is told.
struct Rig {
    load: Load,
    now: Instant,
    told: Rc<RefCell<Vec<LoadEvent>>>,
    /// Requests that wait for an answer: the connection, the method, and what follows it.
    requests: VecDeque<(StreamKey, String)>,
    exited: bool,
}

fn config() -> LoadConfig {
    LoadConfig {
        tls: None,
        server: "127.0.0.1:80".parse().unwrap(),
        authority: "localhost".into(),
        path_prefix: String::new(),
        token: Some("secret".into()),
        calls: 3,
        calls_per_second: 2.0,
        duration: 5 * SECOND,
        churn_per_second: 0.0,
        put: false,
        talk: Talk::Always,
        probes: 1,
        relay_ip: [127, 0, 0, 1].into(),
        run_id: "run".into(),
        seed: 7,
        bounds: Bounds::default(),
    }
}

impl Rig {
    fn new(config: LoadConfig) -> Self {
        let told: Rc<RefCell<Vec<LoadEvent>>> = Rc::default();
        let sink = Rc::clone(&told);
        let host = Host { thread_cpu: || Duration::ZERO, socket_drops: |_| Some(0) };
        let load = Load::new(config, host, &vec![500; 24_000], Box::new(move |event| sink.borrow_mut().push(event)));
        let (load, now) = (load.unwrap(), Instant::now());
        let mut rig = Self { load, now, told, requests: VecDeque::new(), exited: false };
        rig.input(Input::Timeout);
        rig.input(Input::UdpBound { socket: SOCKET, port: 3480 });
        rig
    }

    /// Gives an input and does what comes of it. Connections are made at once.
    fn input(&mut self, input: Input<'_, ()>) {
        self.load.handle_input(self.now, input);
        loop {
            match self.load.poll_output() {
                Output::Timeout(_) => return,
                Output::Exit => self.exited = true,
                Output::Connect { stream, .. } => self.load.handle_input(self.now, Input::Connected { stream }),
                Output::Close { stream } => self.load.handle_input(self.now, Input::Closed { stream }),
                Output::Write { stream, bytes } => {
                    self.requests.push_back((stream, String::from_utf8(bytes).unwrap()));
                }
                Output::BindUdp { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Lets time pass in steps, and answers every request with `answer`.
    fn run(&mut self, time: Duration, answer: impl Fn(&str) -> String) {
        for _ in 0..time.as_millis() / 50 {
            self.now += Duration::from_millis(50);
            self.input(Input::Timeout);
            while let Some((stream, request)) = self.requests.pop_front() {
                let bytes = answer(&request).into_bytes();
                self.input(Input::Received { stream, bytes: &bytes });
            }
        }
    }

    fn report(&self) -> Report {
        let told = self.told.borrow();
        let reports = told.iter().filter_map(|event| match event {
            LoadEvent::Finished(report) => Some((**report).clone()),
            LoadEvent::Progress(_) => None,
        });
        let reports: Vec<_> = reports.collect();
        assert_eq!(reports.len(), 1, "one report, at the end");
        reports.into_iter().next().unwrap()
    }
}

fn json(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// An answer to POST that the relay takes; 200 to everything else.
fn willing(request: &str) -> String {
    if !request.starts_with("POST") {
        return json(200, r#"{"success":true}"#);
    }
    let fingerprint = ["AB"; 32].join(":");
    let sdp = format!(
        "v=0\r\nm=audio 40000 UDP/TLS/RTP/SAVPF 111 126\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\na=setup:active\r\n"
    );
    json(200, &serde_json::json!({ "sdpAnswer": sdp }).to_string())
}

#[test]
fn calls_are_asked_for_at_the_rate_held_and_hung_up() {
    let mut rig = Rig::new(config());
    let seen = RefCell::new(Vec::new());
    let start = rig.now;
    let answer = |request: &str| {
        seen.borrow_mut().push(request.to_owned());
        willing(request)
    };
    rig.run(SECOND / 2, answer);
    assert_eq!(seen.borrow().len(), 2, "two a second: at the start and half a second later");
    rig.run(4 * SECOND, answer);
    assert_eq!((seen.borrow().len(), rig.exited), (3, false));
    rig.run(2 * SECOND, answer);
    assert!(rig.exited, "a second of ramp, five seconds, and it is over");
    assert!(rig.now - start < 7 * SECOND);

    let seen = seen.into_inner();
    let (first, last) = (&seen[0], &seen[5]);
    assert!(first.starts_with("POST /api/sessions HTTP/1.1\r\nHost: localhost\r\n"), "{first}");
    assert!(
        first.contains("Authorization: Bearer secret\r\n") && first.contains(r#""callId":"load-run-0""#),
        "{first}"
    );
    assert!(first.contains("a=ice-lite") && first.contains("m=audio 3480 "), "{first}");
    assert!(last.starts_with("DELETE /api/sessions/load-run-2 "), "{last}");
    let report = rig.report();
    assert_eq!((report.calls.asked, report.calls.answered, report.calls.refused), (3, 3, 0));
    assert_eq!((report.calls.connected, report.calls.hangups_failed), (0, 0));
    assert!(!report.passed && !report.interrupted, "nobody was on the other side of the media");
    assert_eq!(report.echo.probes, 1);
}

#[test]
fn with_put_the_call_id_is_in_the_path_and_the_body_is_the_same() {
    let mut rig = Rig::new(LoadConfig { put: true, calls: 1, ..config() });
    let seen = RefCell::new(Vec::new());
    rig.run(SECOND, |request| {
        seen.borrow_mut().push(request.to_owned());
        willing(&request.replacen("PUT", "POST", 1))
    });
    let first = &seen.borrow()[0];
    assert!(first.starts_with("PUT /api/sessions/load-run-0 HTTP/1.1\r\n"), "{first}");
    assert!(first.contains(r#""callId":"load-run-0""#) && first.contains("a=ice-lite"), "{first}");
    assert!(rig.load.calls.values().all(|call| matches!(call.state, State::Answered(_))), "the answer was taken");
}

#[test]
fn refusals_are_told_apart_and_when_nothing_is_left_the_run_is_over() {
    let mut rig = Rig::new(config());
    rig.run(2 * SECOND, |request| {
        if request.contains("load-run-1") {
            return json(401, "<html>");
        }
        json(503, r#"{"error":"The bridge is full.","code":"full"}"#)
    });
    assert!(rig.exited);
    let report = rig.report();
    let refusals: Vec<_> = report.calls.refusals.iter().map(|refusal| (refusal.what.as_str(), refusal.count)).collect();
    assert_eq!(refusals, [("503 full", 2), ("401", 1)]);
    assert_eq!(report.calls.refused, 3);
    assert_eq!(report.failures(), ["no call was connected: 503 full"]);
}

#[test]
fn calls_come_and_go_when_asked_to_the_oldest_first() {
    let mut rig = Rig::new(LoadConfig { churn_per_second: 1.0, ..config() });
    let seen = RefCell::new(Vec::new());
    rig.run(20 * SECOND, |request| {
        seen.borrow_mut().push(request.split(' ').take(2).collect::<Vec<_>>().join(" "));
        willing(request)
    });
    assert!(rig.exited);
    let seen = seen.into_inner();
    let posts = seen.iter().filter(|line| line.starts_with("POST")).count();
    let deletes: Vec<_> = seen.iter().filter(|line| line.starts_with("DELETE")).collect();
    assert!((7..=8).contains(&posts), "{seen:?}");
    assert_eq!(deletes.len(), posts, "each call is hung up, once");
    assert_eq!(deletes[0], "DELETE /api/sessions/load-run-0");
    assert_eq!(deletes[1], "DELETE /api/sessions/load-run-1");
}

#[test]
fn an_interrupt_hangs_up_even_what_is_not_answered_yet_and_reports() {
    let mut rig = Rig::new(config());
    let (stream, request) = rig.requests.pop_front().unwrap();
    assert!(request.starts_with("POST"));
    rig.input(Input::Stop);
    assert!(!rig.exited, "the call may come up, and has to be hung up then");
    let answer = willing(&request).into_bytes();
    rig.input(Input::Received { stream, bytes: &answer });
    let (_, request) = rig.requests.front().cloned().unwrap();
    assert!(request.starts_with("DELETE /api/sessions/load-run-0 "), "{request}");
    rig.run(SECOND / 10, willing);
    assert!(rig.exited && rig.report().interrupted);

    let mut rig = Rig::new(config());
    rig.input(Input::Stop);
    rig.input(Input::Stop);
    assert!(rig.exited, "the second one does not wait");
}

#[test]
fn a_server_that_never_answers_ends_the_run_all_the_same() {
    let mut rig = Rig::new(config());
    for _ in 0..600 {
        rig.now += Duration::from_millis(50);
        rig.input(Input::Timeout);
    }
    assert!(rig.exited);
    let report = rig.report();
    assert_eq!((report.calls.refusals[0].what.as_str(), report.calls.refusals[0].count), ("no answer within 10 s", 3));
    assert!(report.calls.refusal.is_none(), "a bound on refusals is about those that the server gave");
}

#[test]
fn a_call_that_is_answered_and_never_connects_is_counted_and_hung_up() {
    let mut rig = Rig::new(LoadConfig { duration: 60 * SECOND, calls: 1, ..config() });
    rig.run(25 * SECOND, willing);
    assert!(rig.exited, "no call is left");
    assert_eq!(rig.report().calls.never_connected, 1);
}

#[test]
fn a_relay_without_a_port_is_an_error_that_names_the_flag() {
    let told: Rc<RefCell<Vec<LoadEvent>>> = Rc::default();
    let sink = Rc::clone(&told);
    let host = Host { thread_cpu: || Duration::ZERO, socket_drops: |_| None };
    let mut load =
        Load::new(config(), host, &vec![0; 24_000], Box::new(move |event| sink.borrow_mut().push(event))).unwrap();
    load.handle_input(Instant::now(), Input::UdpRefused { socket: SOCKET, fault: crate::io::Fault { errno: 99 } });
    assert!(matches!(load.poll_output(), Output::BindUdp { .. }));
    assert!(matches!(load.poll_output(), Output::Exit));
    let told = told.borrow();
    let [LoadEvent::Finished(report)] = &told[..] else { panic!("{told:?}") };
    assert!(report.failures()[0].contains("--relay-ip"), "{:?}", report.failures());
}
