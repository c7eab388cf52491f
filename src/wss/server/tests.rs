use tungstenite::{Bytes, Message};

use super::testing::{Seen, TestClient};
use super::*;

fn pass(client: &mut TestClient, server: &mut ServerConnection, step: usize) -> (Vec<ServerEvent>, Vec<Seen>) {
    let (mut events, mut seen) = (Vec::new(), Vec::new());
    loop {
        let up = client.take();
        for bytes in up.chunks(step) {
            server.feed(bytes);
            events.extend(std::iter::from_fn(|| server.poll()));
        }
        let down = std::mem::take(server.outgoing());
        // Tungstenite's client takes an upgrade's response for an attack when it comes in single bytes.
        let step = if client.response.is_some() { step } else { down.len().max(1) };
        for bytes in down.chunks(step) {
            seen.extend(client.feed(bytes));
        }
        if up.is_empty() && down.is_empty() {
            return (events, seen);
        }
    }
}

fn texts(events: &[ServerEvent]) -> Vec<&str> {
    events.iter().filter_map(|event| if let ServerEvent::Text(text) = event { Some(&**text) } else { None }).collect()
}

fn open(headers: &[(&'static str, &str)], step: usize) -> (TestClient, ServerConnection, Upgrade) {
    let (mut client, mut server) = (TestClient::new(headers), ServerConnection::new("realtime"));
    let (mut events, _) = pass(&mut client, &mut server, step);
    let Some(ServerEvent::Upgraded(upgrade)) = events.pop() else { panic!("no upgrade: {events:?}") };
    assert!(events.is_empty());
    (client, server, upgrade)
}

#[test]
fn an_upgrade_and_messages_pass_whole_or_byte_by_byte() {
    for step in [1, 7, 100_000] {
        let (mut client, mut server, upgrade) = open(&[("x-test", "1")], step);
        assert_eq!((upgrade.target(), upgrade.header("X-Test")), ("/v1/realtime?model=test", Some("1")));
        let long = "long ".repeat(20_000);
        client.send_text("short");
        client.send_text(&long);
        server.send_text("back".into());
        let (events, seen) = pass(&mut client, &mut server, step);
        assert_eq!(texts(&events), ["short", &long]);
        assert_eq!(seen, [Seen::Text("back".into())]);
    }
}

#[test]
fn an_offered_subprotocol_is_chosen_and_another_is_not() {
    for (offer, chosen) in [("realtime, openai-insecure-api-key.x", Some("realtime")), ("other", None)] {
        let mut server = ServerConnection::new("realtime");
        let request = "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        server.feed(format!("{request}Sec-WebSocket-Protocol: {offer}\r\n\r\n").as_bytes());
        assert!(matches!(server.poll(), Some(ServerEvent::Upgraded(_))));
        let response = String::from_utf8(std::mem::take(server.outgoing())).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        // The key and its answer of RFC 6455 section 1.3.
        assert!(response.contains(": s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
        assert_eq!(response.contains("sec-websocket-protocol: realtime\r\n"), chosen.is_some(), "{response}");
    }
}

#[test]
fn what_is_no_upgrade_is_refused_in_http() {
    let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "426"),
        ("POST / HTTP/1.1\r\nHost: h\r\n\r\n", "400"),
        ("\r\n\r\n", "400"),
        ("GET / HTTP/1.1\n\nGET / HTTP/1.1\r\n\r\n", "400"),
        ("\u{0}\u{1}\r\n\r\n", "400"),
        (&long, "431"),
        (&format!("{long}\r\n\r\n"), "431"),
    ] {
        let mut server = ServerConnection::new("realtime");
        server.feed(request.as_bytes());
        assert!(matches!(server.poll(), Some(ServerEvent::Over(Over::Refused(_)))), "{request:?}");
        assert!(server.poll().is_none());
        let response = String::from_utf8(std::mem::take(server.outgoing())).unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?} gave {response}");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}

#[test]
fn a_message_beyond_the_bound_is_told_and_ends_the_connection() {
    let (mut client, mut server, _) = open(&[], 100_000);
    client.send_text(&"x".repeat(MESSAGE_BYTES_MAX));
    assert_eq!(texts(&pass(&mut client, &mut server, 65_536).0)[0].len(), MESSAGE_BYTES_MAX);
    client.send_text(&"x".repeat(MESSAGE_BYTES_MAX + 1));
    server.feed(&client.take()[..100]);
    assert!(matches!(server.poll(), Some(ServerEvent::Over(Over::Failed(_)))));
    let seen = client.feed(&std::mem::take(server.outgoing()));
    assert!(matches!(&seen[..], [Seen::Close(1009, _)]), "{seen:?}");
}

#[test]
fn a_binary_message_is_told_and_a_ping_is_answered() {
    let (mut client, mut server, _) = open(&[], 100_000);
    client.send(Message::Binary(Bytes::from_static(b"\0\xff")));
    client.send(Message::Ping(Bytes::from_static(b"alive?")));
    server.feed(&client.take());
    assert!(matches!(server.poll(), Some(ServerEvent::Binary)));
    assert!(server.poll().is_none());
    // FIN and opcode 10, six bytes, unmasked (RFC 6455 section 5.5.3).
    assert_eq!(server.outgoing().as_slice(), b"\x8a\x06alive?");
}

#[test]
fn either_side_can_close() {
    let (mut client, mut server, _) = open(&[], 100_000);
    client.close();
    let up = client.take();
    server.feed(&up);
    assert!(matches!(server.poll(), Some(ServerEvent::Over(Over::Closed))));
    assert_eq!(server.outgoing()[0], 0x88, "no close frame in reply");

    let (mut client, mut server, _) = open(&[], 100_000);
    server.close(4000, &"é".repeat(100));
    server.send_text("too late".into());
    let (events, seen) = pass(&mut client, &mut server, 100_000);
    assert!(matches!(&events[..], [ServerEvent::Over(Over::Closed)]), "{events:?}");
    assert_eq!(seen, [Seen::Close(4000, "é".repeat(61))]);
}

#[test]
fn a_client_that_leaves_without_a_word_ends_the_connection() {
    let (_, mut server, _) = open(&[], 100_000);
    server.end();
    assert!(matches!(server.poll(), Some(ServerEvent::Over(Over::Closed))));
    assert!(server.poll().is_none());
}

#[test]
fn mutated_bytes_never_panic_and_end_within_bounds() {
    let (mut client, server, _) = open(&[], 100_000);
    drop(server);
    for text in ["{\"type\":\"session.update\"}", "abc", ""] {
        client.send_text(text);
    }
    client.send(Message::Ping(Bytes::from_static(b"p")));
    client.close();
    let frames = client.take();
    let head = TestClient::new(&[]).take();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 32) as usize
    };
    let (mut upgraded, mut messages) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = if round % 4 == 0 { head.clone() } else { frames.clone() };
        for _ in 0..=next() % 3 {
            let at = next() % bytes.len();
            match next() % 3 {
                0 => bytes[at] = next() as u8,
                1 => bytes.truncate(at + 1),
                _ => bytes.insert(at, next() as u8),
            }
        }
        let mut server = ServerConnection::new("realtime");
        if round % 4 != 0 {
            server.feed(&head);
            assert!(matches!(server.poll(), Some(ServerEvent::Upgraded(_))));
        }
        server.feed(&bytes);
        let mut events: Vec<_> = std::iter::from_fn(|| server.poll()).take(100).collect();
        server.end();
        events.extend(std::iter::from_fn(|| server.poll()).take(100));
        assert!(events.len() < 100 && server.outgoing().len() < 1_000);
        upgraded += usize::from(matches!(events.first(), Some(ServerEvent::Upgraded(_))));
        messages += texts(&events).len();
    }
    // Most mutations leave something that still parses: the loop tests more than the first check.
    assert!(upgraded > 100 && messages > 5_000, "{upgraded} {messages}");
}
