//! HTTP requests over a bounded pool of kept connections.
//!
//! A request's time counts from when it was due, so waiting for a connection counts as well: a server that is slow cannot
//! hide behind requests that were never sent. This file must not know what the answers mean.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::http::client::{Answer, AnswerReader, NoAnswer};
use crate::io::{Fault, Output, StreamKey};
use crate::slab::Slab;
use crate::tls::{ClientSession, Tls};

/// Connections at once. A webhook with a pool has about as many; more would measure the server's accepting.
const CONNECTIONS_MAX: usize = 64;

/// How long an answer may take from when its request was due.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// A request.
#[derive(Debug)]
pub(crate) struct Request<T> {
    /// What the owner knows it by.
    pub(crate) what: T,
    /// When it was due.
    pub(crate) due: Instant,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

/// A request that is over.
#[derive(Debug)]
pub(crate) struct Done<T> {
    /// What the owner knows it by.
    pub(crate) what: T,
    /// From when it was due to its whole answer.
    pub(crate) took: Duration,
    /// The answer, or why there is none, in words.
    pub(crate) outcome: Result<Answer, String>,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Requests<T> {
    server: SocketAddr,
    /// What is spoken there, and the name that its certificate must be for; `None`: plain HTTP.
    tls: Option<(Tls, String)>,
    connections: Slab<Connection<T>>,
    /// Connections that wait for a request, the last used at the end.
    idle: Vec<StreamKey>,
    waiting: VecDeque<Request<T>>,
    done: VecDeque<Done<T>>,
    outputs: VecDeque<Output<()>>,
}

#[derive(Debug)]
struct Connection<T> {
    state: State<T>,
    tls: Option<Box<ClientSession>>,
    reader: AnswerReader,
    /// Whether it has carried an answer: the server may then close it just as it gets the next request.
    is_used: bool,
}

#[derive(Debug)]
enum State<T> {
    Connecting(Request<T>),
    Busy(Request<T>),
    Idle,
    /// Closed by us; the driver has not given the key back.
    Closing,
}

impl<T: Copy> Requests<T> {
    pub(crate) fn new(server: SocketAddr, tls: Option<(Tls, String)>) -> Self {
        Self {
            server,
            tls,
            connections: Slab::new(),
            idle: Vec::new(),
            waiting: VecDeque::new(),
            done: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Sends a request as soon as there is a connection for it. The owner bounds how many there are: one per call.
    pub(crate) fn send(&mut self, request: Request<T>) {
        self.waiting.push_back(request);
        self.dispatch();
    }

    /// The next request that is over.
    pub(crate) fn poll_done(&mut self) -> Option<Done<T>> {
        self.done.pop_front()
    }

    /// The next thing for the driver to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output<()>> {
        self.outputs.pop_front()
    }

    /// Requests that are not over.
    pub(crate) fn pending(&self) -> usize {
        let busy = |connection: &Connection<T>| matches!(connection.state, State::Connecting(_) | State::Busy(_));
        self.waiting.len() + self.connections.iter().filter(|(_, _, connection)| busy(connection)).count()
    }

    /// The connection stands. With TLS the request waits for the handshake.
    pub(crate) fn connected(&mut self, now: Instant, stream: StreamKey) {
        let Some((tls, host)) = &self.tls else { return self.ready(stream) };
        match ClientSession::new(tls, host) {
            Ok(session) => {
                let Some(connection) = self.connection(stream) else { return };
                connection.tls = Some(Box::new(session));
                self.seal(stream, &[]);
            }
            Err(why) => self.lost(now, stream, &format!("TLS with the server failed: {why}")),
        }
    }

    /// Bytes came.
    pub(crate) fn received(&mut self, now: Instant, stream: StreamKey, bytes: &[u8]) {
        let Some(connection) = self.connection(stream) else { return };
        let Some(session) = &mut connection.tls else { return self.received_plain(now, stream, bytes) };
        let was_handshaking = session.is_handshaking();
        let mut plain = Vec::new();
        let opened = session.open(bytes, &mut plain);
        let secured = was_handshaking && !session.is_handshaking();
        self.seal(stream, &[]);
        if secured {
            self.ready(stream);
        }
        if !plain.is_empty() {
            self.received_plain(now, stream, &plain);
        }
        match opened {
            Ok(false) => {}
            Ok(true) => self.ended(now, stream),
            Err(why) => self.lost(now, stream, &format!("TLS with the server failed: {why}")),
        }
    }

    /// Requests may be sent.
    fn ready(&mut self, stream: StreamKey) {
        let Some(connection) = self.connection(stream) else { return };
        match std::mem::replace(&mut connection.state, State::Idle) {
            State::Connecting(request) => self.write(stream, request),
            state => connection.state = state,
        }
    }

    fn received_plain(&mut self, now: Instant, stream: StreamKey, bytes: &[u8]) {
        let Some(connection) = self.connection(stream) else { return };
        match &connection.state {
            State::Busy(_) => {
                let outcome = connection.reader.receive(bytes);
                self.read(now, stream, outcome);
            }
            // Nothing was asked.
            State::Connecting(_) | State::Idle => self.close(stream),
            State::Closing => {}
        }
    }

    /// The other end sends no more.
    pub(crate) fn ended(&mut self, now: Instant, stream: StreamKey) {
        let Some(connection) = self.connection(stream) else { return };
        match &connection.state {
            State::Busy(_) if !connection.reader.is_fresh() => {
                let outcome = connection.reader.end();
                self.read(now, stream, outcome);
            }
            State::Busy(_) => self.lost(now, stream, "the server closed the connection without an answer"),
            State::Connecting(_) => self.lost(now, stream, "the server closed the connection during the handshake"),
            State::Idle => self.close(stream),
            State::Closing => {}
        }
    }

    /// Connecting, writing or reading failed.
    pub(crate) fn failed(&mut self, now: Instant, stream: StreamKey, fault: Fault) {
        let Some(connection) = self.connection(stream) else { return };
        let what = if matches!(connection.state, State::Connecting(_)) { "cannot connect" } else { "connection lost" };
        let why = format!("{what}: {fault}");
        self.lost(now, stream, &why);
    }

    /// The key came back.
    pub(crate) fn closed(&mut self, stream: StreamKey) {
        self.connections.remove(stream.slot, stream.generation);
        self.dispatch();
    }

    /// Gives up what has waited too long.
    pub(crate) fn give_up(&mut self, now: Instant) {
        let late = |request: &Request<T>| request.due + ANSWER_TIME_MAX <= now;
        let of_late = |(slot, generation, connection): (u32, u32, &Connection<T>)| match &connection.state {
            State::Connecting(request) | State::Busy(request) if late(request) => Some(StreamKey { slot, generation }),
            _ => None,
        };
        let streams: Vec<StreamKey> = self.connections.iter().filter_map(of_late).collect();
        for stream in streams {
            self.finish(now, stream, Err("no answer within 10 s".to_owned()), false);
        }
        while self.waiting.front().is_some_and(late) {
            let request = self.waiting.pop_front().expect("there is one in front");
            let outcome = Err("no connection was free within 10 s".to_owned());
            self.done.push_back(Done { what: request.what, took: now - request.due, outcome });
        }
    }

    /// Gives up everything at once.
    pub(crate) fn close_all(&mut self) {
        self.waiting.clear();
        let streams: Vec<StreamKey> =
            self.connections.iter().map(|(slot, generation, _)| StreamKey { slot, generation }).collect();
        for stream in streams {
            self.close(stream);
        }
    }

    fn connection(&mut self, stream: StreamKey) -> Option<&mut Connection<T>> {
        self.connections.get_mut(stream.slot, stream.generation)
    }

    /// Gives waiting requests their connections.
    fn dispatch(&mut self) {
        while !self.waiting.is_empty() {
            if let Some(stream) = self.idle.pop() {
                let request = self.waiting.pop_front().expect("it is not empty");
                self.write(stream, request);
            } else if self.connections.len() < CONNECTIONS_MAX {
                let request = self.waiting.pop_front().expect("it is not empty");
                let state = State::Connecting(request);
                let connection = Connection { state, tls: None, reader: AnswerReader::default(), is_used: false };
                let (slot, generation) = self.connections.insert(connection);
                let stream = StreamKey { slot, generation };
                self.outputs.push_back(Output::Connect { stream, to: self.server });
            } else {
                return;
            }
        }
    }

    fn write(&mut self, stream: StreamKey, request: Request<T>) {
        let bytes = request.bytes.clone();
        let connection = self.connection(stream).expect("idle and connected ones are there");
        connection.state = State::Busy(request);
        if connection.tls.is_some() {
            self.seal(stream, &bytes);
        } else {
            self.outputs.push_back(Output::Write { stream, bytes });
        }
    }

    /// Writes these bytes inside TLS, and what TLS itself has to say.
    fn seal(&mut self, stream: StreamKey, plain: &[u8]) {
        let mut bytes = Vec::new();
        if let Some(session) = self.connection(stream).and_then(|connection| connection.tls.as_mut()) {
            session.seal(plain, &mut bytes);
        }
        if !bytes.is_empty() {
            self.outputs.push_back(Output::Write { stream, bytes });
        }
    }

    fn read(&mut self, now: Instant, stream: StreamKey, outcome: Result<Option<Answer>, NoAnswer>) {
        match outcome {
            Ok(None) => {}
            Ok(Some(answer)) => {
                let keep = answer.keep_alive;
                self.finish(now, stream, Ok(answer), keep);
            }
            Err(NoAnswer(why)) => self.finish(now, stream, Err(why.to_owned()), false),
        }
    }

    /// The connection is gone. A request that met the end of a connection used before is sent again on a new one.
    fn lost(&mut self, now: Instant, stream: StreamKey, why: &str) {
        let Some(connection) = self.connection(stream) else { return };
        if connection.is_used
            && connection.reader.is_fresh()
            && let State::Busy(request) = std::mem::replace(&mut connection.state, State::Idle)
        {
            self.waiting.push_front(request);
            self.close(stream);
            return;
        }
        self.finish(now, stream, Err(why.to_owned()), false);
    }

    fn finish(&mut self, now: Instant, stream: StreamKey, outcome: Result<Answer, String>, keep: bool) {
        let Some(connection) = self.connection(stream) else { return };
        connection.is_used = true;
        match std::mem::replace(&mut connection.state, State::Idle) {
            State::Connecting(request) | State::Busy(request) => {
                let took = now.saturating_duration_since(request.due);
                self.done.push_back(Done { what: request.what, took, outcome });
            }
            State::Idle => {}
            State::Closing => connection.state = State::Closing,
        }
        if keep {
            self.idle.push(stream);
            self.dispatch();
        } else {
            self.close(stream);
        }
    }

    fn close(&mut self, stream: StreamKey) {
        let Some(connection) = self.connection(stream) else { return };
        if !matches!(connection.state, State::Closing) {
            connection.state = State::Closing;
            self.idle.retain(|idle| *idle != stream);
            self.outputs.push_back(Output::Close { stream });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::ServerSession;
    use crate::tls::testing::Identity;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

    fn pool() -> (Requests<u32>, Instant) {
        (Requests::new("127.0.0.1:80".parse().unwrap(), None), Instant::now())
    }

    fn send(pool: &mut Requests<u32>, now: Instant, what: u32) {
        pool.send(Request { what, due: now, bytes: vec![what as u8] });
    }

    fn stream(output: Option<Output<()>>) -> StreamKey {
        match output {
            Some(Output::Connect { stream, .. } | Output::Write { stream, .. } | Output::Close { stream }) => stream,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_connection_is_used_again_and_a_request_counts_from_when_it_was_due() {
        let (mut pool, now) = pool();
        send(&mut pool, now, 1);
        let first = stream(pool.poll_output());
        pool.connected(now, first);
        assert_eq!(stream(pool.poll_output()), first);
        let later = now + Duration::from_millis(7);
        pool.received(later, first, OK);
        let done = pool.poll_done().unwrap();
        assert_eq!((done.what, done.took, done.outcome.unwrap().status), (1, Duration::from_millis(7), 200));
        send(&mut pool, later, 2);
        assert!(matches!(pool.poll_output(), Some(Output::Write { stream, bytes }) if stream == first && bytes == [2]));
        assert_eq!(pool.pending(), 1);
    }

    #[test]
    fn the_pool_is_bounded_and_the_rest_waits_in_order() {
        let (mut pool, now) = pool();
        (0..CONNECTIONS_MAX as u32 + 2).for_each(|what| send(&mut pool, now, what));
        let first = stream(pool.poll_output());
        let connects = std::iter::from_fn(|| pool.poll_output()).count() + 1;
        assert_eq!(connects, CONNECTIONS_MAX);
        pool.connected(now, first);
        pool.poll_output();
        pool.received(now, first, OK);
        let next = pool.poll_output();
        assert!(matches!(next, Some(Output::Write { bytes, .. }) if bytes == [CONNECTIONS_MAX as u8]));
    }

    #[test]
    fn a_kept_connection_that_ends_under_a_request_costs_the_request_nothing() {
        let (mut pool, now) = pool();
        send(&mut pool, now, 1);
        let first = stream(pool.poll_output());
        pool.connected(now, first);
        pool.poll_output();
        pool.received(now, first, OK);
        pool.poll_done().unwrap();
        send(&mut pool, now, 2);
        pool.poll_output();
        pool.ended(now, first);
        assert_eq!(stream(pool.poll_output()), first, "closed");
        pool.closed(first);
        let second = stream(pool.poll_output());
        pool.connected(now, second);
        assert!(pool.poll_done().is_none());
        pool.poll_output();
        pool.ended(now, second);
        assert!(pool.poll_done().unwrap().outcome.unwrap_err().contains("without an answer"), "new, and so not again");
    }

    #[test]
    fn every_failure_ends_its_request_with_a_reason() {
        for (why, act) in [
            (
                "cannot connect",
                Box::new(|pool: &mut Requests<u32>, now, key| pool.failed(now, key, Fault { errno: 111 }))
                    as Box<dyn Fn(&mut Requests<u32>, Instant, StreamKey)>,
            ),
            (
                "not HTTP",
                Box::new(|pool, now, key| {
                    pool.connected(now, key);
                    pool.received(now, key, b"nonsense\r\n\r\n");
                }),
            ),
            ("no answer within", Box::new(|pool, now, _| pool.give_up(now + ANSWER_TIME_MAX))),
        ] {
            let (mut pool, now) = pool();
            send(&mut pool, now, 1);
            let key = stream(pool.poll_output());
            act(&mut pool, now, key);
            let said = pool.poll_done().expect(why).outcome.unwrap_err();
            assert!(said.contains(why), "{said:?} does not say {why:?}");
            assert_eq!(pool.pending(), 0);
        }
    }
    /// A pool whose server speaks TLS with this certificate, and the first connection to it.
    fn secure_pool(trusted: &Identity) -> (Requests<u32>, Instant, StreamKey) {
        let tls = Some((trusted.client(), "localhost".to_owned()));
        let (mut pool, now) = (Requests::new("127.0.0.1:443".parse().unwrap(), tls), Instant::now());
        send(&mut pool, now, b'a'.into());
        let key = stream(pool.poll_output());
        pool.connected(now, key);
        (pool, now, key)
    }

    /// Lets the pool and a server talk until neither has more to say; what the server read.
    fn talk(pool: &mut Requests<u32>, now: Instant, key: StreamKey, server: &mut ServerSession) -> Vec<u8> {
        let mut plain = Vec::new();
        loop {
            let mut back = Vec::new();
            while let Some(output) = pool.poll_output() {
                let Output::Write { bytes, .. } = output else { return plain };
                _ = server.open(&bytes, &mut plain);
            }
            server.seal(&[], &mut back);
            if back.is_empty() {
                return plain;
            }
            pool.received(now, key, &back);
        }
    }

    #[test]
    fn requests_go_inside_tls_where_the_server_speaks_it() {
        let identity = Identity::until(2100);
        let (mut pool, now, key) = secure_pool(&identity);
        let mut server = ServerSession::new(&identity.acceptor());
        assert_eq!(talk(&mut pool, now, key, &mut server), b"a");
        for what in [b'b', b'c'] {
            let mut answer = Vec::new();
            server.seal(OK, &mut answer);
            for byte in answer {
                pool.received(now, key, &[byte]);
            }
            assert_eq!(pool.poll_done().unwrap().outcome.unwrap().status, 200);
            send(&mut pool, now, what.into());
            assert_eq!(talk(&mut pool, now, key, &mut server), [what]);
        }
        server.close();
        talk(&mut pool, now, key, &mut server);
        pool.closed(key);
        assert!(matches!(pool.poll_output(), Some(Output::Connect { .. })), "what met the end is asked again");
    }

    #[test]
    fn tls_that_fails_ends_its_request_with_the_reason() {
        let (identity, other) = (Identity::until(2100), Identity::until(2101));
        let (mut pool, now, key) = secure_pool(&other);
        talk(&mut pool, now, key, &mut ServerSession::new(&identity.acceptor()));
        let why = pool.poll_done().unwrap().outcome.unwrap_err();
        assert!(why.contains("TLS with the server failed: the certificate of localhost"), "{why}");
        let (mut pool, now, key) = secure_pool(&other);
        pool.received(now, key, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let why = pool.poll_done().unwrap().outcome.unwrap_err();
        assert!(why.contains("does not speak TLS"), "{why}");
        let (mut pool, now, key) = secure_pool(&other);
        pool.ended(now, key);
        assert!(pool.poll_done().unwrap().outcome.unwrap_err().contains("during the handshake"));
    }
}
