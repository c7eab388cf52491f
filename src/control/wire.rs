//! One connection from the kernel's bytes to HTTP: nothing between, or TLS.
//!
//! What HTTP writes becomes ciphertext here, and what the driver says was written is accounted back to the response that it
//! held; writes of TLS itself (the handshake, alerts) are nobody's. What HTTP ends, TLS ends first: a close_notify goes out,
//! and the other end gets a moment to answer it, so that no client takes an end of ours for a cut cable.
//!
//! The handshake has no clock of its own: it and the first request's head together are bounded by
//! [`crate::http::HEAD_TIME_MAX`]. Neither [`crate::http`] nor the rest of control knows which kind a connection is.

use std::collections::VecDeque;
use std::time::Instant;

use crate::http::{Bodies, Connection, DRAIN_BYTES_MAX, DRAIN_TIME_MAX, Event, Response};
use crate::tls::{Acceptor, ServerSession};

/// What bytes brought to light beside requests.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    None,
    /// The handshake is done.
    Secured { resumed: bool },
    /// TLS failed, in words; the connection ends.
    Failed { handshaking: bool, why: String },
    /// It is no TLS but plain HTTP. From here on it is plain, to be refused in words that its sender can read.
    NotTls,
}

/// A connection's two layers.
#[derive(Debug)]
pub(super) struct Wire {
    http: Connection,
    tls: Option<Box<Secure>>,
}

/// TLS between the two.
#[derive(Debug)]
struct Secure {
    session: ServerSession,
    /// What the driver is to do, before what HTTP wants next.
    events: VecDeque<Event>,
    /// For each write that the driver has, how many of HTTP's it holds.
    unwritten: VecDeque<u32>,
    /// Writes of HTTP that wait for the handshake: a connection that is refused unasked.
    held: u32,
    state: State,
    /// Whether a byte has come.
    begun: bool,
    /// Whether the other end ended TLS or the stream.
    peer_ended: bool,
    /// Whether it ended the stream: nobody waits for a word of ours.
    stream_ended: bool,
}

#[derive(Debug)]
enum State {
    Open,
    /// Our side ends as soon as the handshake allows.
    Ending,
    /// Our side is ended, and HTTP waits for the other.
    Ended,
    /// HTTP is done, or TLS failed. The other end may take leave; closing with unread bytes would send a reset.
    Leaving {
        left: usize,
        until: Instant,
    },
    Closed,
}

impl Wire {
    /// A connection that was just accepted; with TLS where there is somebody to accept it.
    pub(super) fn new(now: Instant, acceptor: Option<&Acceptor>, bodies: Bodies) -> Self {
        let secure = |acceptor| {
            Box::new(Secure {
                session: ServerSession::new(acceptor),
                events: VecDeque::new(),
                unwritten: VecDeque::new(),
                held: 0,
                state: State::Open,
                begun: false,
                peer_ended: false,
                stream_ended: false,
            })
        };
        Self { http: Connection::with_bodies(now, bodies), tls: acceptor.map(secure) }
    }

    /// Bytes came.
    pub(super) fn received(&mut self, now: Instant, bytes: &[u8]) -> News {
        let Some(tls) = &mut self.tls else {
            self.http.received(now, bytes);
            return News::None;
        };
        match &mut tls.state {
            State::Closed => return News::None,
            State::Leaving { left, .. } => {
                *left = left.saturating_sub(bytes.len());
                if *left == 0 {
                    tls.close();
                }
                return News::None;
            }
            State::Open | State::Ending | State::Ended => {}
        }
        // A record of TLS begins with a byte below 0x80 that is no letter, a request with a method.
        let looks_plain = bytes.first().is_some_and(u8::is_ascii_alphabetic);
        if !std::mem::replace(&mut tls.begun, true) && looks_plain {
            if tls.held > 0 {
                tls.close(); // being refused already, in words that are lost now
                return News::None;
            }
            self.tls = None;
            return News::NotTls;
        }
        tls.open(now, bytes, &mut self.http)
    }

    /// The other end sends no more.
    pub(super) fn ended(&mut self, now: Instant) {
        let Some(tls) = &mut self.tls else { return self.http.ended(now) };
        tls.stream_ended = true;
        if tls.session.is_handshaking() || matches!(tls.state, State::Leaving { .. }) {
            tls.close();
        } else if !std::mem::replace(&mut tls.peer_ended, true) {
            // Without the end of TLS before it, the stream may have been cut. HTTP's framing tells whether a request was.
            self.http.ended(now);
        }
    }

    /// The bytes of one [`Event::Write`] were written.
    pub(super) fn written(&mut self, now: Instant) {
        let responses = match &mut self.tls {
            None => 1,
            Some(tls) => tls.unwritten.pop_front().unwrap_or(0),
        };
        (0..responses).for_each(|_| self.http.written(now));
    }

    /// Answers the request that was handed out.
    pub(super) fn respond(&mut self, now: Instant, response: Response) {
        self.http.respond(now, response);
    }

    /// Answers a connection that has asked nothing, and closes it.
    pub(super) fn refuse(&mut self, now: Instant, response: Response) {
        self.http.refuse(now, response);
    }

    /// When [`Wire::timed_out`] wants to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.tls {
            Some(tls) => match tls.state {
                State::Leaving { until, .. } => Some(until),
                State::Closed => None,
                State::Open | State::Ending | State::Ended => self.http.deadline(),
            },
            None => self.http.deadline(),
        }
    }

    /// The time is `now`; without effect before the deadline.
    pub(super) fn timed_out(&mut self, now: Instant) {
        match &mut self.tls {
            Some(tls) if matches!(tls.state, State::Leaving { until, .. } if until <= now) => tls.close(),
            _ => self.http.timed_out(now),
        }
    }

    /// The next event, oldest first.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Event> {
        let Some(tls) = &mut self.tls else { return self.http.poll() };
        loop {
            if let Some(event) = tls.events.pop_front() {
                return Some(event);
            }
            let event = self.http.poll()?;
            match (&tls.state, event) {
                // Nobody hears it any more.
                (State::Leaving { .. } | State::Closed, _) => {}
                (_, Event::Write(bytes)) => tls.write(&bytes),
                (_, Event::Shutdown) => tls.end(),
                (_, Event::Close) => tls.leave(now),
                (_, event) => return Some(event),
            }
        }
    }

    /// Whether a request is being read, answered or written: not idle, not closing.
    pub(super) fn is_busy(&self) -> bool {
        self.http.is_busy()
    }
}

impl Secure {
    fn open(&mut self, now: Instant, bytes: &[u8], http: &mut Connection) -> News {
        let handshaking = self.session.is_handshaking();
        let mut plain = Vec::new();
        let opened = self.session.open(bytes, &mut plain);
        self.flush();
        if !plain.is_empty() {
            http.received(now, &plain);
        }
        let secured = handshaking && !self.session.is_handshaking();
        match opened {
            Err(why) => {
                if !matches!(self.state, State::Ended) {
                    self.events.push_back(Event::Shutdown);
                }
                self.linger(now);
                return News::Failed { handshaking, why };
            }
            Ok(true) if !std::mem::replace(&mut self.peer_ended, true) => http.ended(now),
            Ok(_) => {}
        }
        if secured && matches!(self.state, State::Ending) {
            self.end();
        }
        if secured { News::Secured { resumed: self.session.is_resumed() } } else { News::None }
    }

    /// Encrypts a response; before the handshake is done it waits for that.
    fn write(&mut self, bytes: &[u8]) {
        self.held += 1;
        let mut sealed = Vec::with_capacity(bytes.len() + 256);
        self.session.seal(bytes, &mut sealed);
        self.emit(sealed);
    }

    /// Writes what TLS has to say, and with it what the end of the handshake has set free.
    fn flush(&mut self) {
        let mut sealed = Vec::new();
        self.session.seal(&[], &mut sealed);
        self.emit(sealed);
    }

    fn emit(&mut self, sealed: Vec<u8>) {
        if !sealed.is_empty() {
            let responses = if self.session.is_handshaking() { 0 } else { std::mem::take(&mut self.held) };
            self.unwritten.push_back(responses);
            self.events.push_back(Event::Write(sealed));
        }
    }

    /// Ends our side, after what waits for the handshake.
    fn end(&mut self) {
        if self.session.is_handshaking() {
            self.state = State::Ending;
            return;
        }
        self.session.close();
        self.flush();
        self.events.push_back(Event::Shutdown);
        self.state = State::Ended;
    }

    /// HTTP is done: says so, unless it was said or there is nobody to hear it.
    fn leave(&mut self, now: Instant) {
        if self.session.is_handshaking() || self.stream_ended || matches!(self.state, State::Ended) {
            return self.close();
        }
        self.end();
        self.linger(now);
    }

    fn linger(&mut self, now: Instant) {
        self.state = State::Leaving { left: DRAIN_BYTES_MAX, until: now + DRAIN_TIME_MAX };
    }

    fn close(&mut self) {
        if !matches!(self.state, State::Closed) {
            self.state = State::Closed;
            self.events.push_back(Event::Close);
        }
    }
}

#[cfg(test)]
mod tests;
