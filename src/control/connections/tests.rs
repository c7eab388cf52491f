//! What long bodies hold of the table's budget.

use super::*;
use crate::http::BODY_BYTES_MAX;
use crate::tls::testing::Identity;
use crate::tls::{ClientSession, Tls};

/// The longest body, beyond the usual.
const HELD: usize = WEBHOOK_BODY_BYTES_MAX - BODY_BYTES_MAX;

fn post(path: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

struct Table {
    connections: Connections,
    timers: Timers,
    now: Instant,
}

impl Table {
    fn new(webhook: bool) -> Self {
        Self { connections: Connections::new(webhook), timers: Timers::default(), now: Instant::now() }
    }

    fn open(&mut self, tls: Option<&Acceptor>) -> StreamKey {
        let stream = self.connections.offer(Door::Api).unwrap();
        assert_eq!(self.connections.accepted(self.now, stream, tls), None);
        stream
    }

    fn send(&mut self, stream: StreamKey, bytes: &[u8]) {
        self.connections.received(self.now, stream, bytes);
    }

    /// What the connection has to say: bad requests by their status, whole ones by the length of their body.
    fn pump(&mut self, stream: StreamKey) -> Vec<(u16, usize)> {
        let mut said = Vec::new();
        while let Some(event) = self.connections.poll(self.now, stream) {
            match event {
                Event::Request(request) => said.push((200, request.body.len())),
                Event::Bad(problem) => said.push((problem.status, 0)),
                _ => {}
            }
        }
        said
    }

    fn left(&self) -> usize {
        self.connections.bodies.budget.left()
    }
}

#[test]
fn long_bodies_are_taken_at_the_webhook_alone_and_only_where_it_is_served() {
    let webhook = "/webhooks/whatsapp";
    for (served, path, length, status) in [
        (true, webhook, WEBHOOK_BODY_BYTES_MAX, 200),
        (true, webhook, WEBHOOK_BODY_BYTES_MAX + 1, 413),
        (true, "/webhooks/whatsapp/", BODY_BYTES_MAX + 1, 413),
        (true, "/k/token/webhooks/whatsapp", BODY_BYTES_MAX + 1, 413),
        (true, "/api/sessions", BODY_BYTES_MAX + 1, 413),
        (true, "/api/sessions", BODY_BYTES_MAX, 200),
        (false, webhook, BODY_BYTES_MAX + 1, 413),
        (false, webhook, BODY_BYTES_MAX, 200),
    ] {
        let mut table = Table::new(served);
        let stream = table.open(None);
        table.send(stream, &post(path, length));
        table.send(stream, &vec![b' '; length]);
        let read = if status == 200 { length } else { 0 };
        assert_eq!(table.pump(stream), [(status, read)], "{length} bytes to {path}, webhook served: {served}");
    }
}

#[test]
fn all_connections_share_one_budget_for_long_bodies() {
    let mut table = Table::new(true);
    let streams: Vec<_> = (0..40).map(|_| table.open(None)).collect();
    let mut refused = 0;
    for &stream in &streams {
        table.send(stream, &post("/webhooks/whatsapp", WEBHOOK_BODY_BYTES_MAX));
        refused += table.pump(stream).iter().filter(|(status, _)| *status == 503).count();
    }
    assert_eq!(streams.len() - refused, LONG_BODIES_BYTES_MAX / HELD, "as many as there is room for");
    assert!(table.left() < HELD);
    let stream = table.open(None);
    table.send(stream, &post("/webhooks/whatsapp", 2000));
    table.send(stream, &[b' '; 2000]);
    assert_eq!(table.pump(stream), [(200, 2000)], "an ordinary webhook needs no room");
}

#[test]
fn the_budget_is_whole_again_however_connections_end() {
    type End = fn(&mut Table, StreamKey);
    let ends: [(&str, End); 6] = [
        ("the driver lost it", |table, stream| _ = table.connections.close(stream, &mut table.timers)),
        ("closed, and its key returned", |table, stream| {
            table.connections.close(stream, &mut table.timers);
            table.connections.closed(stream);
        }),
        ("the client ended it", |table, stream| table.connections.ended(table.now, stream)),
        ("its time is over", |table, stream| {
            table.now += crate::http::BODY_TIME_MAX;
            table.connections.timed_out(table.now, stream);
        }),
        ("the request was taken", |table, stream| {
            table.send(stream, &vec![b' '; WEBHOOK_BODY_BYTES_MAX]);
            assert_eq!(table.pump(stream), [(200, WEBHOOK_BODY_BYTES_MAX)]);
        }),
        ("the table is gone", |table, _| {
            let budget = table.connections.bodies.budget.clone();
            table.connections = Connections::new(true);
            table.connections.bodies.budget = budget;
        }),
    ];
    for (what, end) in ends {
        let mut table = Table::new(true);
        let stream = table.open(None);
        table.send(stream, &post("/webhooks/whatsapp", WEBHOOK_BODY_BYTES_MAX));
        assert_eq!(table.left(), LONG_BODIES_BYTES_MAX - HELD, "{what}");
        end(&mut table, stream);
        table.pump(stream);
        assert_eq!(table.left(), LONG_BODIES_BYTES_MAX, "{what}");
    }
}

#[test]
fn a_connection_of_tls_that_fails_gives_its_room_back() {
    let identity = Identity::until(2100);
    let mut table = Table::new(true);
    let stream = table.open(Some(&identity.acceptor()));
    let mut client = session(&identity.client());
    let mut to_server = Vec::new();
    client.seal(&post("/webhooks/whatsapp", WEBHOOK_BODY_BYTES_MAX), &mut to_server);
    for _ in 0..4 {
        table.send(stream, &std::mem::take(&mut to_server));
        while let Some(event) = table.connections.poll(table.now, stream) {
            if let Event::Write(bytes) = event {
                client.open(&bytes, &mut Vec::new()).unwrap();
            }
        }
        client.seal(&[], &mut to_server);
    }
    assert_eq!(table.left(), LONG_BODIES_BYTES_MAX - HELD);
    table.send(stream, b"\x17\x03\x03\x00\x10no record of TLS");
    table.pump(stream);
    assert_eq!(table.left(), LONG_BODIES_BYTES_MAX - HELD, "HTTP beneath still stands");
    table.connections.close(stream, &mut table.timers);
    assert_eq!(table.left(), LONG_BODIES_BYTES_MAX);
}

fn session(tls: &Tls) -> ClientSession {
    ClientSession::new(tls, "localhost").unwrap()
}
