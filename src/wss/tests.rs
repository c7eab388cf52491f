//! Sessions of the client with a server in memory: every step, every way to fail, and hostile bytes.

use std::time::{Duration, Instant};

use super::testing::{Identity, Server, entropy};
use super::*;

const HEADERS: &[(&str, &str)] = &[("Authorization", "Bearer sk-secret")];

fn request(host: &str) -> Request<'_> {
    Request { host, port: 443, path: "/v1/realtime?model=m", headers: HEADERS }
}

/// A client and what it told.
struct Rig {
    client: Client,
    now: Instant,
    events: Vec<Event>,
    written: Vec<u8>,
}

impl Rig {
    fn new(tls: Option<&Tls>) -> Self {
        let now = Instant::now();
        let client = Client::new(now, &request("localhost"), tls, entropy).unwrap();
        Self { client, now, events: vec![], written: vec![] }
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.client.handle_received(self.now, &mut bytes);
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
        while let Some(bytes) = self.client.poll_write() {
            self.written.extend_from_slice(&bytes);
            self.client.handle_written(bytes);
        }
    }

    /// Carries bytes both ways, in pieces of `piece` bytes, until there are none.
    fn run(&mut self, server: &mut Server, piece: usize) {
        for _ in 0..1000 {
            self.drain();
            let (up, down) = (std::mem::take(&mut self.written), server.poll_write());
            if up.is_empty() && down.is_empty() {
                return;
            }
            up.chunks(piece).for_each(|bytes| server.handle(bytes));
            down.chunks(piece).for_each(|bytes| self.receive(bytes));
        }
        panic!("client and server never come to rest");
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_timeout(self.now);
        self.drain();
    }

    fn texts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
            .into_iter()
            .map(|event| match event {
                Event::Text(text) => text.to_string(),
                other => format!("{other:?}"),
            })
            .collect()
    }
}

/// A client with an open, plain WebSocket.
fn open() -> (Rig, Server) {
    let (mut rig, mut server) = (Rig::new(None), Server::plain());
    rig.run(&mut server, usize::MAX);
    assert_eq!(std::mem::take(&mut rig.events), [Event::Upgraded]);
    (rig, server)
}

fn failed(step: Step, text: &str) -> Event {
    Event::Failed { step, text: text.into() }
}

#[test]
fn messages_pass_both_ways_whatever_the_pieces() {
    let identity = Identity::until(2099);
    let tls = Tls::with_roots([identity.der.clone()]).unwrap();
    let long = "x".repeat(70_000);
    for secure in [false, true] {
        for piece in [1, 2, 3, 7, 1000, usize::MAX] {
            let mut rig = Rig::new(secure.then_some(&tls));
            let mut server = if secure { Server::secure(&identity) } else { Server::plain() };
            // The server's own collector takes a request in single bytes for an attack.
            rig.run(&mut server, piece.max(200));
            server.send("a");
            server.send_fragment("b", true, false);
            server.send_ping();
            server.send_fragment("", false, false);
            server.send_fragment("c", false, true);
            server.send(&long);
            server.send_binary(&[1, 2, 3]);
            rig.client.send(|out| out.extend_from_slice(b"up"));
            rig.client.send(|out| out.extend_from_slice(long.as_bytes()));
            rig.run(&mut server, piece);
            let start = if secure { vec![Event::TlsDone, Event::Upgraded] } else { vec![Event::Upgraded] };
            assert_eq!(rig.events[..start.len()], start);
            rig.events.drain(..start.len());
            assert_eq!(rig.texts(), ["a", "bc", &long, "Binary(3)"], "secure {secure}, pieces of {piece}");
            assert_eq!(server.received, ["up", &long]);
            assert_eq!(server.pongs, 1);
            assert_eq!(server.alpn(), secure.then_some(&b"http/1.1"[..]), "h2 was on offer, too");
            let head = server.head();
            assert!(head.starts_with("/v1/realtime?model=m\n") && head.contains("authorization: Bearer sk-secret"));
            assert!(!head.to_lowercase().contains("openai-beta") && !head.to_lowercase().contains("extensions"));
        }
    }
}

#[test]
fn an_answer_may_come_byte_by_byte() {
    let (mut rig, mut server) = (Rig::new(None), Server::plain());
    rig.drain();
    server.handle(&std::mem::take(&mut rig.written));
    server.send("at once");
    server.poll_write().chunks(1).for_each(|byte| rig.receive(byte));
    assert_eq!(rig.events.remove(0), Event::Upgraded);
    assert_eq!(rig.texts(), ["at once"]);
}

#[test]
fn a_refusal_tells_status_and_body() {
    let answers: [(&str, &str, u16); 5] = [
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 7\r\n\r\nno key!", "no key!", 401),
        ("HTTP/1.1 429 Too Many\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "abc", 429),
        ("HTTP/1.1 301 Moved\r\nLocation: https://evil.test\r\nContent-Length: 0\r\n\r\n", "", 301),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", 200),
        ("HTTP/1.1 503 Busy\r\nContent-Length: 99999999999999999999999\r\n\r\nlater", "later", 503),
    ];
    for (answer, body, status) in answers {
        for piece in [1, 5, usize::MAX] {
            let mut rig = Rig::new(None);
            answer.as_bytes().chunks(piece).for_each(|bytes| rig.receive(bytes));
            if rig.events.is_empty() {
                rig.client.handle_ended();
                rig.drain();
            }
            assert_eq!(rig.events, [failed(Step::Http { status: Some(status) }, body)], "{answer:?} by {piece}");
        }
    }
}

#[test]
fn a_refusal_with_an_endless_or_missing_body_is_told_all_the_same() {
    let mut rig = Rig::new(None);
    rig.receive(b"HTTP/1.1 500 Oops\r\n\r\n");
    (0..10).for_each(|_| rig.receive(&[b'x'; 1000]));
    assert_eq!(rig.events, [failed(Step::Http { status: Some(500) }, &"x".repeat(BODY_BYTES_MAX))]);

    let mut rig = Rig::new(None);
    rig.receive(b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\nhalf a bo");
    assert_eq!(rig.client.deadline(), crate::io::Deadline::at(rig.now + BODY_WAIT, "refusal body"));
    rig.pass(Duration::from_millis(999));
    assert!(rig.events.is_empty());
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.events, [failed(Step::Http { status: Some(401) }, "half a bo")]);
}

#[test]
fn what_is_no_answer_to_an_upgrade_is_an_error() {
    let accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n";
    let bad = [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(),
        format!("{accept}Upgrade: websocket\r\n\r\n"),
        format!("{accept}Upgrade: websocket\r\nSec-WebSocket-Accept: AAAA\r\n\r\n"),
        format!("{accept}Upgrade: h2c\r\n\r\n"),
        "\0".repeat(HEAD_BYTES_MAX + 1),
    ];
    for answer in bad {
        let mut rig = Rig::new(None);
        answer.as_bytes().chunks(100).for_each(|bytes| rig.receive(bytes));
        assert!(
            matches!(&rig.events[..], [Event::Failed { step: Step::Http { status: None }, .. }]),
            "{:?} to {answer:.60}",
            rig.events
        );
    }
}

#[test]
fn an_end_before_the_upgrade_names_the_step() {
    let identity = Identity::until(2099);
    let tls = Tls::with_roots([identity.der]).unwrap();
    for (tls, step) in [(None, Step::Http { status: None }), (Some(&tls), Step::Tls)] {
        let mut rig = Rig::new(tls);
        rig.client.handle_ended();
        rig.client.handle_ended();
        rig.drain();
        assert!(matches!(&rig.events[..], [Event::Failed { step: at, .. }] if *at == step), "{:?}", rig.events);
    }
}

#[test]
fn certificates_that_do_not_hold_are_refused_in_words() {
    let good = Identity::until(2099);
    let refused = |identity: &Identity, roots: &Identity, host: &str| {
        let tls = Tls::with_roots([roots.der.clone()]).unwrap();
        let client = Client::new(Instant::now(), &request(host), Some(&tls), entropy).unwrap();
        let mut rig = Rig { client, ..Rig::new(None) };
        rig.run(&mut Server::secure(identity), usize::MAX);
        match &rig.events[..] {
            [Event::Failed { step: Step::Tls, text }] => text.clone(),
            other => panic!("{other:?}"),
        }
    };
    let old = Identity::until(2020);
    assert!(refused(&old, &old, "localhost").contains("has expired"));
    assert!(refused(&good, &old, "localhost").contains("does not trust"));
    assert_eq!(refused(&good, &good, "elsewhere.test"), "the certificate is not for elsewhere.test");
}

#[test]
fn a_server_without_tls_is_told_apart() {
    let tls = Tls::new().unwrap();
    let mut rig = Rig::new(Some(&tls));
    rig.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(
        matches!(&rig.events[..], [Event::Failed { step: Step::Tls, text }] if text.contains("does not speak TLS")),
        "{:?}",
        rig.events
    );
}

#[test]
fn changed_bytes_under_tls_end_the_connection() {
    let identity = Identity::until(2099);
    let tls = Tls::with_roots([identity.der.clone()]).unwrap();
    let (mut rig, mut server) = (Rig::new(Some(&tls)), Server::secure(&identity));
    rig.run(&mut server, usize::MAX);
    server.send("text");
    let mut sealed = server.poll_write();
    *sealed.last_mut().unwrap() ^= 1;
    rig.events.clear();
    rig.receive(&sealed);
    assert!(matches!(&rig.events[..], [Event::Failed { step: Step::Tls, .. }]), "{:?}", rig.events);
}

#[test]
fn a_frame_that_is_too_long_is_refused_by_its_header() {
    let (mut rig, mut server) = open();
    let length = (MESSAGE_BYTES_MAX as u64 + 1).to_be_bytes();
    server.send_raw(&[&[0x81, 127][..], &length, &[b'x'; 1000]].concat());
    rig.run(&mut server, usize::MAX);
    let text = format!("a message of more than {MESSAGE_BYTES_MAX} bytes");
    assert_eq!(rig.events, [failed(Step::Protocol, &text)]);
    assert_eq!(server.closed, Some(1009));
}

#[test]
fn a_message_in_too_many_frames_is_refused() {
    let (mut rig, mut server) = open();
    let mib = "x".repeat(1 << 20);
    server.send_fragment(&mib, true, false);
    (0..3).for_each(|_| server.send_fragment(&mib, false, false));
    rig.run(&mut server, usize::MAX);
    assert!(rig.events.is_empty());
    server.send_fragment("x", false, true);
    rig.run(&mut server, usize::MAX);
    assert!(matches!(&rig.events[..], [Event::Failed { step: Step::Protocol, .. }]), "{:?}", rig.events);
    assert_eq!(server.closed, Some(1009));
}

#[test]
fn the_longest_message_allowed_passes() {
    let (mut rig, mut server) = open();
    let text = "x".repeat(MESSAGE_BYTES_MAX);
    server.send(&text);
    rig.run(&mut server, usize::MAX);
    assert_eq!(rig.texts(), [text]);
}

#[test]
fn broken_frames_end_the_connection() {
    for (bytes, code) in [
        (&[0x83, 0][..], 1002),            // reserved opcode
        (&[0xc1, 0], 1002),                // compressed, which was not agreed
        (&[0x81, 0x80, 1, 2, 3, 4], 1002), // masked
        (&[0x80, 0], 1002),                // continues nothing
        (&[0x09, 0], 1002),                // fragmented ping
        (&[0x81, 2, 0xff, 0xff], 1007),    // not UTF-8
        (&[0x89, 126, 0, 126], 1002),      // ping of 126 bytes, once they are there
    ] {
        let (mut rig, mut server) = open();
        server.send_raw(bytes);
        server.send_raw(&[0; 126]);
        rig.run(&mut server, usize::MAX);
        assert!(matches!(&rig.events[..], [Event::Failed { step: Step::Protocol, .. }]), "{bytes:?}: {:?}", rig.events);
        assert_eq!(server.closed, Some(code), "{bytes:?}");
    }
}

#[test]
fn a_close_of_the_server_is_answered_and_told_after_what_came_before() {
    let (mut rig, mut server) = open();
    server.send("last words");
    server.close(1001, "Your session hit the maximum duration of 60 minutes.");
    rig.run(&mut server, usize::MAX);
    assert_eq!(rig.texts()[0], "last words");
    assert_eq!(server.closed, Some(1001));

    let (mut rig, mut server) = open();
    server.close(4000, "x");
    rig.run(&mut server, usize::MAX);
    assert_eq!(rig.events, [Event::Closed { code: 4000, reason: "x".into() }]);
    rig.client.send(|_| panic!("nothing can be sent any more"));
    assert!(rig.client.poll_write().is_none());
}

#[test]
fn an_end_without_a_close_frame_is_told_as_1006() {
    let (mut rig, mut server) = open();
    server.send("last words");
    let bytes = server.poll_write();
    rig.receive(&bytes);
    rig.client.handle_ended();
    rig.drain();
    assert_eq!(rig.events[1..], [Event::Closed { code: 1006, reason: String::new() }]);
}

#[test]
fn our_close_is_answered() {
    let (mut rig, mut server) = open();
    rig.client.close();
    assert!(!rig.client.is_open());
    rig.run(&mut server, usize::MAX);
    assert_eq!(server.closed, Some(1000));
    assert_eq!(rig.events, [Event::Closed { code: 1000, reason: String::new() }]);
}

#[test]
fn the_end_of_tls_is_said_after_the_close_frame() {
    let identity = Identity::until(2099);
    let tls = Tls::with_roots([identity.der.clone()]).unwrap();
    let (mut rig, mut server) = (Rig::new(Some(&tls)), Server::secure(&identity));
    rig.run(&mut server, usize::MAX);
    server.close(1000, "");
    rig.run(&mut server, usize::MAX);
    assert_eq!(server.closed, Some(1000));
    assert!(server.is_tls_closed());
}

#[test]
fn we_ping_and_take_silence_for_the_end() {
    let (mut rig, mut server) = open();
    assert_eq!(rig.client.deadline(), crate::io::Deadline::at(rig.now + PING_EVERY, "ping"));
    rig.pass(PING_EVERY / 2);
    rig.run(&mut server, usize::MAX);
    assert_eq!(server.pings, 0);
    for pings in 1..4 {
        rig.pass(PING_EVERY);
        rig.run(&mut server, usize::MAX);
        assert_eq!((server.pings, rig.events.len()), (pings, 0));
    }
    rig.pass(PING_EVERY);
    assert!(rig.events.is_empty());
    rig.pass(PING_EVERY);
    assert_eq!(rig.events, [failed(Step::Silent, "not one byte, nor an answer to a ping, for 20 s")]);
    assert_eq!(rig.client.deadline(), crate::io::Deadline::NEVER);
}

#[test]
fn a_million_tiny_fragments_are_one_message() {
    let (mut rig, mut server) = open();
    server.send_raw(&[0x01, 1, b'a']);
    (0..1000).for_each(|_| server.send_raw(&[0x00, 0].repeat(1000)));
    server.send_raw(&[0x80, 1, b'b']);
    rig.run(&mut server, usize::MAX);
    assert_eq!(rig.texts(), ["ab"]);
}

#[test]
fn mutated_bytes_never_panic_and_end_at_most_once() {
    let (mut rig, mut server) = (Rig::new(None), Server::plain());
    rig.drain();
    server.handle(&std::mem::take(&mut rig.written));
    let head_len = server.poll_write().len();
    server.send("some text");
    server.send_ping();
    server.send_fragment("one", true, false);
    server.send_fragment("two", false, true);
    server.close(1000, "bye");
    let frames = server.poll_write();
    assert!(head_len > 100);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    let mut ends = 0;
    for _ in 0..3000 {
        // The nonce differs each time, so each run needs the answer to its own request.
        let (mut rig, mut server) = (Rig::new(None), Server::plain());
        rig.drain();
        server.handle(&std::mem::take(&mut rig.written));
        let mut bytes = [server.poll_write(), frames.clone()].concat();
        for _ in 0..=next() % 4 {
            let at = next() % bytes.len();
            match next() % 3 {
                0 => bytes[at] ^= 1 << (next() % 8),
                1 => bytes[at] = next() as u8,
                _ => bytes.truncate(at + 1),
            }
        }
        let piece = 1 + next() % bytes.len();
        bytes.chunks(piece).for_each(|bytes| rig.receive(bytes));
        rig.client.handle_ended();
        rig.drain();
        let last = rig.events.iter().filter(|event| matches!(event, Event::Failed { .. } | Event::Closed { .. }));
        ends += last.count();
        assert!(matches!(rig.events.last(), Some(Event::Failed { .. } | Event::Closed { .. })), "{:?}", rig.events);
    }
    assert_eq!(ends, 3000);
}

#[test]
fn a_written_buffer_is_used_again() {
    let (mut rig, _server) = open();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        rig.client.send(|out| out.extend_from_slice(&[b'x'; 1300]));
        let buffer = rig.client.poll_write().unwrap();
        seen.insert(buffer.as_ptr());
        rig.client.handle_written(buffer);
    }
    assert!(seen.len() <= 3, "{} buffers", seen.len());
}

#[test]
fn traces_of_third_parties_are_compiled_out() {
    // tungstenite traces requests with their headers, and frames with their payload.
    assert!(log::STATIC_MAX_LEVEL < log::LevelFilter::Trace);
}
