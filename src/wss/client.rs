//! A WebSocket client over bytes: TLS where asked for, the upgrade, then messages, kept alive by pings.
//!
//! Its user hands over what came, takes events until there is none, and writes what is outgoing. After [`Event::Failed`] or
//! [`Event::Closed`] no event follows; what is outgoing then (an alert, a close frame) is a courtesy.
//!
//! It must not know what messages say, nor which connection attempt it runs on.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::ops::Deref;
use std::time::Instant;

use tungstenite::error::Error;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocket};
use tungstenite::{Bytes, Message, Utf8Bytes, http};

use super::frame::{Masks, write_text};
use super::memory::MemoryStream;
use super::upgrade::{Answer, Refusal, Request, Upgrade};
use super::{MESSAGE_BYTES_MAX, PING_EVERY};
use crate::io::{Deadline, Entropy};
use crate::tls::{ClientSession, Tls};

/// Bytes fed to TLS and WebSocket before their events are taken: bounds what is buffered in between.
const FEED_BYTES: usize = 16 << 10;
/// Buffers kept for later writes: one being filled, and as many as one turn of a driver writes.
const SPARE_BUFFERS_MAX: usize = 2;
/// Largest buffer kept, in bytes: a few appends. A burst's buffer goes back to the allocator.
const SPARE_BYTES_MAX: usize = 16 << 10;

/// The text of one message. Holds the bytes as they were received; nothing is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Utf8Bytes);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_str()
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The TLS handshake is done.
    TlsDone,
    /// The WebSocket is open.
    Upgraded,
    /// A text message came.
    Text(Text),
    /// A binary message of this many bytes came; its content is dropped.
    Binary(usize),
    /// The connection is of no use.
    Failed {
        /// What failed.
        step: Step,
        /// Why, in words. May quote the server: to be cleaned before it is logged.
        text: String,
    },
    /// The WebSocket was closed, or its connection ended.
    Closed {
        /// The code of RFC 6455, section 7.4; 1005 when none was sent, 1006 when there was no close frame.
        code: u16,
        /// The reason sent along. May be anything: to be cleaned before it is logged.
        reason: String,
    },
}

/// What a connection failed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// TLS.
    Tls,
    /// The upgrade; with the status when the server gave another than 101. The text is then its body.
    Http {
        /// The status.
        status: Option<u16>,
    },
    /// A message that breaks RFC 6455, or is longer than [`MESSAGE_BYTES_MAX`].
    Protocol,
    /// The other end no longer answers pings.
    Silent,
}

/// One connection as a client.
pub struct Client {
    state: State,
    tls: Option<ClientSession>,
    masks: Masks,
    /// Plaintext to be written.
    out: Vec<u8>,
    /// Plaintext received, for a moment; kept for its capacity.
    plain: Vec<u8>,
    spare: Vec<Vec<u8>>,
    events: VecDeque<Event>,
    ping_at: Instant,
    /// Whether a byte came since the last ping, or there was none yet.
    heard: bool,
    /// Whether the end of TLS is to be sent.
    close_tls: bool,
}

enum State {
    ExpectTls(Box<http::Request<()>>),
    ExpectUpgrade(Box<Upgrade>),
    ExpectBody(Box<Refusal>),
    Open(Box<WebSocket<MemoryStream>>),
    Over,
}

impl Client {
    /// Begins on a connection that stands. The error says what is wrong with the request or the host name.
    pub fn new(now: Instant, request: &Request<'_>, tls: Option<&Tls>, entropy: Entropy) -> Result<Self, String> {
        let built = request.build(tls.is_some(), entropy)?;
        let mut out = Vec::new();
        let session = tls.map(|tls| ClientSession::new(tls, request.host)).transpose()?;
        let state = match session {
            Some(_) => State::ExpectTls(Box::new(built)),
            None => State::ExpectUpgrade(Box::new(Upgrade::start(built, &mut out)?)),
        };
        Ok(Self {
            state,
            tls: session,
            masks: Masks::new(entropy),
            out,
            plain: Vec::new(),
            spare: Vec::new(),
            events: VecDeque::new(),
            ping_at: now + PING_EVERY,
            heard: true,
            close_tls: false,
        })
    }

    /// Takes a piece of what came from the front of `bytes`; at least one byte. The events it makes are to be taken before
    /// the next piece: that bounds what is held here.
    pub fn handle_received(&mut self, now: Instant, bytes: &mut &[u8]) {
        let (piece, rest) = bytes.split_at(bytes.len().min(FEED_BYTES));
        *bytes = rest;
        self.heard = true;
        let Some(session) = &mut self.tls else { return self.handle_plain(now, piece) };
        let mut plain = mem::take(&mut self.plain);
        let opened = session.open(piece, &mut plain);
        let secured = !session.is_handshaking();
        if opened.is_ok()
            && secured
            && let State::ExpectTls(_) = self.state
        {
            self.start_upgrade();
        }
        self.handle_plain(now, &plain);
        plain.clear();
        self.plain = plain;
        match opened {
            Ok(false) => {}
            Ok(true) => self.handle_ended(),
            Err(text) => self.fail(Step::Tls, text),
        }
    }

    /// The other end sends no more.
    pub fn handle_ended(&mut self) {
        match &mut self.state {
            State::ExpectTls(_) => self.fail(Step::Tls, "the connection ended during the handshake".into()),
            State::ExpectUpgrade(_) => {
                self.fail(Step::Http { status: None }, "the connection ended before an answer to the upgrade".into());
            }
            State::ExpectBody(_) => self.refuse(),
            State::Open(socket) => socket.get_mut().end(),
            State::Over => {}
        }
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::ExpectBody(refusal) if now >= refusal.until => self.refuse(),
            State::Open(socket) if now >= self.ping_at => {
                self.ping_at = now + PING_EVERY;
                if !mem::take(&mut self.heard) {
                    let text = format!("not one byte, nor an answer to a ping, for {} s", PING_EVERY.as_secs());
                    return self.fail(Step::Silent, text);
                }
                // Fails once a close frame is out, and then no ping is needed.
                _ = socket.send(Message::Ping(Bytes::new()));
                self.out.append(socket.get_mut().outgoing());
            }
            _ => {}
        }
    }

    /// When [`Client::handle_timeout`] wants to run.
    pub fn deadline(&self) -> Deadline {
        match &self.state {
            State::ExpectBody(refusal) => Deadline::at(refusal.until, "refusal body"),
            State::Open(_) => Deadline::at(self.ping_at, "ping"),
            _ => Deadline::NEVER,
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front().or_else(|| self.read())
    }

    /// Writes one text message: what `write` appends to the buffer, which must be UTF-8. Without effect unless open.
    pub fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_open() {
            write_text(&mut self.out, &mut self.masks, write);
        }
    }

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        matches!(&self.state, State::Open(socket) if socket.can_write())
    }

    /// Begins a polite end: a close frame with code 1000. The other end's answer comes as [`Event::Closed`].
    pub fn close(&mut self) {
        self.send_close(CloseCode::Normal);
    }

    /// Plaintext bytes that wait for [`Client::poll_write`].
    pub fn outgoing_len(&self) -> usize {
        self.out.len()
    }

    /// All that is to be written now, as one buffer.
    pub fn poll_write(&mut self) -> Option<Vec<u8>> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        match &mut self.tls {
            None => mem::swap(&mut buffer, &mut self.out),
            Some(session) => {
                session.seal(&self.out, &mut buffer);
                if mem::take(&mut self.close_tls) {
                    session.close();
                    session.seal(&[], &mut buffer);
                }
                self.out.clear();
                self.out.shrink_to(SPARE_BYTES_MAX);
            }
        }
        if buffer.is_empty() {
            self.handle_written(buffer);
            return None;
        }
        Some(buffer)
    }

    /// A buffer comes back to be used again.
    pub fn handle_written(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    fn start_upgrade(&mut self) {
        let State::ExpectTls(request) = mem::replace(&mut self.state, State::Over) else { return };
        self.events.push_back(Event::TlsDone);
        match Upgrade::start(*request, &mut self.out) {
            Ok(upgrade) => self.state = State::ExpectUpgrade(Box::new(upgrade)),
            Err(text) => self.fail(Step::Http { status: None }, text),
        }
    }

    fn handle_plain(&mut self, now: Instant, plain: &[u8]) {
        if plain.is_empty() {
            return;
        }
        match &mut self.state {
            State::Open(socket) => socket.get_mut().feed(plain),
            State::ExpectUpgrade(upgrade) => match upgrade.handle(now, plain) {
                Answer::Incomplete => {}
                Answer::Open(socket) => {
                    self.state = State::Open(socket);
                    self.ping_at = now + PING_EVERY;
                    self.events.push_back(Event::Upgraded);
                }
                Answer::Refused(refusal) => {
                    let complete = refusal.is_complete();
                    self.state = State::ExpectBody(Box::new(refusal));
                    if complete {
                        self.refuse();
                    }
                }
                Answer::Invalid(text) => self.fail(Step::Http { status: None }, text),
            },
            State::ExpectBody(refusal) => {
                refusal.handle(plain);
                if refusal.is_complete() {
                    self.refuse();
                }
            }
            State::ExpectTls(_) | State::Over => {}
        }
    }

    fn read(&mut self) -> Option<Event> {
        loop {
            let State::Open(socket) = &mut self.state else { return self.events.pop_front() };
            let read = socket.read();
            self.out.append(socket.get_mut().outgoing());
            match read {
                Ok(Message::Text(text)) => return Some(Event::Text(Text(text))),
                Ok(Message::Binary(bytes)) => return Some(Event::Binary(bytes.len())),
                Ok(Message::Close(frame)) => {
                    // One more turn lets tungstenite write its answer.
                    _ = socket.flush();
                    self.out.append(socket.get_mut().outgoing());
                    let (code, reason) =
                        frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                    return Some(self.over(Event::Closed { code, reason }));
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                    return Some(self.over(Event::Closed { code: 1006, reason: String::new() }));
                }
                Err(error) => {
                    let (code, text) = match &error {
                        Error::Capacity(_) => {
                            (CloseCode::Size, format!("a message of more than {MESSAGE_BYTES_MAX} bytes"))
                        }
                        Error::Utf8(_) => (CloseCode::Invalid, "a text message that is not UTF-8".into()),
                        other => (CloseCode::Protocol, other.to_string()),
                    };
                    self.send_close(code);
                    return Some(self.over(Event::Failed { step: Step::Protocol, text }));
                }
            }
        }
    }

    fn send_close(&mut self, code: CloseCode) {
        if let State::Open(socket) = &mut self.state {
            _ = socket.close(Some(CloseFrame { code, reason: Utf8Bytes::from_static("") }));
            self.out.append(socket.get_mut().outgoing());
        }
    }

    fn refuse(&mut self) {
        if let State::ExpectBody(refusal) = &self.state {
            let (status, text) = (refusal.status, refusal.text());
            self.fail(Step::Http { status: Some(status) }, text);
        }
    }

    fn fail(&mut self, step: Step, text: String) {
        if !matches!(self.state, State::Over) {
            let event = self.over(Event::Failed { step, text });
            self.events.push_back(event);
        }
    }

    /// Nothing more is read. TLS says so after what is outgoing.
    fn over(&mut self, last: Event) -> Event {
        self.state = State::Over;
        self.close_tls = true;
        last
    }
}
