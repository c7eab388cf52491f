//! One connection: requests out of bytes one after the other, responses into bytes, and the deadlines between.
//!
//! One request is answered at a time, in order. While it is, further bytes wait in a bounded buffer and then with the
//! kernel. A response is whole with the kernel before the next request is looked at, so at most one is unwritten.

use std::collections::VecDeque;
use std::time::Instant;

use super::body::{Bodies, Gathering};
use super::framing::Framing;
use super::head::{Head, Method, Scan};
use super::{
    BODY_TIME_MAX, DRAIN_BYTES_MAX, DRAIN_TIME_MAX, HEAD_TIME_MAX, IDLE_TIME_MAX, PIPELINE_BYTES_MAX, Problem, Request,
    Response, WRITE_TIME_MAX,
};

/// An input buffer that grew beyond this is given back once it is empty.
const INPUT_KEPT_BYTES_MAX: usize = 16 * 1024;

/// What a connection wants or has.
#[derive(Debug)]
pub enum Event {
    /// A request, whole. Answer it with [`Connection::respond`].
    Request(Box<Request>),
    /// A request that is in error. Answer it too; the connection closes after it.
    Bad(Problem),
    /// The response was written whole: its bytes are with the other end's kernel or on their way.
    Answered,
    /// Write these bytes, and tell [`Connection::written`] when they are.
    Write(Vec<u8>),
    /// Read, or stop reading.
    Read(bool),
    /// Send the end of our side.
    Shutdown,
    /// Close. The last event.
    Close,
}

/// A server's side of a connection.
#[derive(Debug)]
pub struct Connection {
    bodies: Bodies,
    input: Input,
    state: State,
    events: VecDeque<Event>,
    reading: bool,
    peer_ended: bool,
    unwritten: u32,
}

#[derive(Debug)]
enum State {
    /// Waits for a head. `first`: no request was read yet. `begun`: its first byte was seen.
    Head {
        scan: Scan,
        first: bool,
        begun: bool,
        skipped_line: bool,
        until: Instant,
    },
    /// Waits for the rest of a body.
    Body {
        head: Box<Head>,
        body: Box<Gathering>,
        until: Instant,
    },
    /// Waits for the owner's answer.
    Answering {
        minor: u8,
        keep_alive: bool,
        without_body: bool,
    },
    /// Waits for the response to be written.
    Writing {
        last: bool,
        until: Instant,
    },
    /// The last response is written and our side is ended: waits for the other end's.
    Draining {
        left: usize,
        until: Instant,
    },
    Closed,
}

impl Connection {
    /// A connection that was just accepted, and is being read.
    pub fn new(now: Instant) -> Self {
        Self::with_bodies(now, Bodies::default())
    }

    /// The same, taking other bodies than the usual ones.
    pub fn with_bodies(now: Instant, bodies: Bodies) -> Self {
        Self {
            bodies,
            input: Input::default(),
            state: State::Head {
                scan: Scan::default(),
                first: true,
                begun: false,
                skipped_line: false,
                until: now + HEAD_TIME_MAX,
            },
            events: VecDeque::new(),
            reading: true,
            peer_ended: false,
            unwritten: 0,
        }
    }

    /// Answers a connection that has asked nothing yet, and closes it.
    pub fn refuse(&mut self, now: Instant, response: Response) {
        self.state = State::Answering { minor: 1, keep_alive: false, without_body: false };
        self.respond(now, response);
    }

    /// Bytes came.
    pub fn received(&mut self, now: Instant, bytes: &[u8]) {
        match &mut self.state {
            State::Closed | State::Writing { last: true, .. } => {}
            State::Draining { left, .. } => {
                *left = left.saturating_sub(bytes.len());
                if *left == 0 {
                    self.close();
                }
            }
            _ => {
                self.input.push(bytes);
                self.advance(now);
                let waits = matches!(self.state, State::Answering { .. } | State::Writing { .. });
                if waits && self.reading && self.input.rest().len() >= PIPELINE_BYTES_MAX {
                    self.read(false);
                }
            }
        }
    }

    /// The other end sends no more. What it has asked is still answered.
    pub fn ended(&mut self, now: Instant) {
        self.peer_ended = true;
        match self.state {
            State::Head { .. } | State::Body { .. } => self.advance(now),
            State::Draining { .. } => self.close(),
            State::Answering { .. } | State::Writing { .. } | State::Closed => {}
        }
    }

    /// The bytes of one [`Event::Write`] were written.
    pub fn written(&mut self, now: Instant) {
        self.unwritten = self.unwritten.saturating_sub(1);
        let State::Writing { last, .. } = self.state else { return };
        if self.unwritten > 0 {
            return;
        }
        self.events.push_back(Event::Answered);
        if last {
            self.state = State::Draining { left: DRAIN_BYTES_MAX, until: now + DRAIN_TIME_MAX };
            if self.peer_ended {
                self.close();
            }
            return;
        }
        let until = now + IDLE_TIME_MAX;
        self.state = State::Head { scan: Scan::default(), first: false, begun: false, skipped_line: false, until };
        self.advance(now);
        let closed = matches!(self.state, State::Closed);
        if !self.reading && !closed && self.input.rest().len() < PIPELINE_BYTES_MAX {
            self.read(true);
        }
    }

    /// Answers the request that was handed out.
    pub fn respond(&mut self, now: Instant, response: Response) {
        let State::Answering { minor, keep_alive, without_body } = self.state else {
            panic!("a response needs a request that waits for one");
        };
        let last = !keep_alive || response.close || (self.peer_ended && self.input.rest().is_empty());
        self.write(response.encode(minor, !last, without_body));
        self.state = State::Writing { last, until: now + WRITE_TIME_MAX };
        if last {
            self.events.push_back(Event::Shutdown);
            self.input = Input::default();
            if !self.reading {
                self.read(true);
            }
        }
    }

    /// When [`Connection::timed_out`] wants to be called, and what for.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Head { until, .. }
            | State::Body { until, .. }
            | State::Writing { until, .. }
            | State::Draining { until, .. } => Some(until),
            State::Answering { .. } | State::Closed => None,
        }
    }

    /// The time is `now`; without effect before the deadline.
    pub fn timed_out(&mut self, now: Instant) {
        if self.deadline().is_none_or(|until| now < until) {
            return;
        }
        match &self.state {
            State::Head { begun: true, .. } => {
                let text = "The head did not come whole within 5 s.";
                self.bad(Problem { status: 408, code: "head_timeout", text }, false);
            }
            State::Body { .. } => {
                let text = "The body did not come whole within 10 s.";
                self.bad(Problem { status: 408, code: "body_timeout", text }, false);
            }
            _ => self.close(),
        }
    }

    /// The next event, oldest first.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether a request is being read, answered or written: not idle, not closing.
    pub fn is_busy(&self) -> bool {
        match self.state {
            State::Head { begun, .. } => begun,
            State::Body { .. } | State::Answering { .. } | State::Writing { .. } => true,
            State::Draining { .. } | State::Closed => false,
        }
    }

    /// Goes as far as the input reaches.
    fn advance(&mut self, now: Instant) {
        let outcome = loop {
            match &mut self.state {
                State::Head { .. } => match self.advance_head(now) {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(problem) => break Err((problem, false)),
                },
                State::Body { .. } => match self.advance_body() {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(failed) => break Err(failed),
                },
                _ => return,
            }
        };
        if let Err((problem, without_body)) = outcome {
            return self.bad(problem, without_body);
        }
        if self.peer_ended {
            match self.state {
                State::Head { begun: false, .. } => self.close(),
                _ => self.bad(Problem::framing("The request is cut short."), false),
            }
        }
    }

    /// True when the head is whole.
    fn advance_head(&mut self, now: Instant) -> Result<bool, Problem> {
        let State::Head { scan, first, begun, skipped_line, until } = &mut self.state else {
            unreachable!("called in this state only")
        };
        if !self.input.rest().is_empty() && !*begun {
            *begun = true;
            // The first request's clock runs since the connection stands.
            if !*first {
                *until = now + HEAD_TIME_MAX;
            }
        }
        // One empty line before a request is skipped (RFC 9112 section 2.2): old clients end a body with one too many.
        if scan.is_new() && !*skipped_line {
            match self.input.rest() {
                [b'\r', b'\n', ..] => {
                    self.input.take(2);
                    *skipped_line = true;
                    *begun = !self.input.rest().is_empty();
                }
                [b'\r'] => return Ok(false),
                _ => {}
            }
        }
        let Some(length) = scan.advance(self.input.rest())? else { return Ok(false) };
        let head = Head::parse(&self.input.rest()[..length])?;
        self.input.take(length);
        let body = Box::new(Gathering::begin(&head, &self.bodies)?);
        self.expectation(&head)?;
        self.state = State::Body { head: Box::new(head), body, until: now + BODY_TIME_MAX };
        Ok(true)
    }

    /// `Expect: 100-continue` (RFC 9110 section 10.1.1).
    fn expectation(&mut self, head: &Head) -> Result<(), Problem> {
        let unknown = Problem { status: 417, code: "expectation", text: "Only Expect: 100-continue is known." };
        match head.header("expect").map_err(|_| unknown)? {
            None => Ok(()),
            Some(_) if head.minor == 0 => Ok(()),
            Some(word) if word.eq_ignore_ascii_case("100-continue") => {
                if head.framing != Framing::Length(0) && self.input.rest().is_empty() {
                    self.write(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec());
                }
                Ok(())
            }
            Some(_) => Err(unknown),
        }
    }

    /// True when the request is whole and handed out.
    fn advance_body(&mut self) -> Result<bool, (Problem, bool)> {
        let State::Body { head, body, .. } = &mut self.state else { unreachable!("called in this state only") };
        let without_body = head.method == Method::Head;
        let (taken, whole) = body.advance(self.input.rest()).map_err(|problem| (problem, without_body))?;
        self.input.take(taken);
        if !whole {
            return Ok(false);
        }
        let answering = State::Answering { minor: head.minor, keep_alive: head.keep_alive, without_body };
        let State::Body { head, body, .. } = std::mem::replace(&mut self.state, answering) else {
            unreachable!("matched above")
        };
        let (body, share) = body.into_parts();
        self.events.push_back(Event::Request(Box::new(Request { head: *head, body, share })));
        Ok(true)
    }

    /// What was read is in error: nothing after it can be trusted to be a request.
    fn bad(&mut self, problem: Problem, without_body: bool) {
        self.input = Input::default();
        self.state = State::Answering { minor: 1, keep_alive: false, without_body };
        self.events.push_back(Event::Bad(problem));
    }

    fn write(&mut self, bytes: Vec<u8>) {
        self.unwritten += 1;
        self.events.push_back(Event::Write(bytes));
    }

    fn read(&mut self, on: bool) {
        self.reading = on;
        self.events.push_back(Event::Read(on));
    }

    fn close(&mut self) {
        self.input = Input::default();
        self.state = State::Closed;
        self.events.push_back(Event::Close);
    }
}

/// Bytes received and not yet understood.
#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    taken: usize,
}

impl Input {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn take(&mut self, n: usize) {
        self.taken += n;
        if self.taken == self.bytes.len() {
            self.taken = 0;
            self.bytes.clear();
            self.bytes.shrink_to(INPUT_KEPT_BYTES_MAX);
        }
    }
}
