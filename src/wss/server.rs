//! The server's end of a WebSocket connection (RFC 6455) over bytes: HTTP upgrade, messages, close.
//!
//! Bytes go in by [`ServerConnection::feed`], events come out of [`ServerConnection::poll`], and whatever has to be
//! written gathers in [`ServerConnection::outgoing`]. What the peer can make us hold is bounded by
//! [`HEAD_BYTES_MAX`], [`MESSAGE_BYTES_MAX`] and the bytes of one feed. TLS, sockets, time and the meaning of the
//! messages are none of its business.

use tungstenite::error::ProtocolError;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Bytes, Error, Message, Utf8Bytes, WebSocket};

use super::memory::MemoryStream;

#[cfg(test)]
pub(crate) mod testing;

/// Longest HTTP head of an upgrade request, in bytes. A browser's is below 2 KiB; cookies may double it.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Longest message taken, in bytes. A realtime append of 20 ms is 1.3 KiB, a long system prompt some 100 KiB.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Read buffer per connection, in bytes: three appends of 20 ms. Larger messages grow it while they last.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Bytes of a close reason that fit into a control frame beside the code (RFC 6455 section 5.5).
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// The text of one message, valid UTF-8.
pub type Text = Utf8Bytes;

/// What a connection has to tell.
#[derive(Debug)]
pub enum ServerEvent {
    /// The upgrade is done; messages may be sent from now on.
    Upgraded(Upgrade),
    /// A text message came.
    Text(Text),
    /// A binary message came; its content is dropped.
    Binary,
    /// The connection is over: write what is in [`ServerConnection::outgoing`], then close it. Comes once, and last.
    Over(Over),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// Both sides said close, or the peer left.
    Closed,
    /// The request was no upgrade that can be served; it was answered in HTTP.
    Refused(String),
    /// The peer broke the protocol or a bound; it was told so in a close frame.
    Failed(String),
}

/// The request that became this connection.
#[derive(Debug)]
pub struct Upgrade(Request);

impl Upgrade {
    /// Path and query as the client sent them.
    pub fn target(&self) -> &str {
        self.0.uri().path_and_query().map_or("/", |target| target.as_str())
    }

    /// The first header of this name, whatever its case, if it is plain text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }
}

/// One connection of a client.
#[derive(Debug)]
pub struct ServerConnection {
    state: State,
    /// What is to be written: tungstenite's own output is moved here, so that it outlives the WebSocket.
    outgoing: Vec<u8>,
    subprotocol: &'static str,
}

#[derive(Debug)]
enum State {
    /// Gathers the head of the request. Tungstenite would read it itself, but gives up on clients that send it in
    /// many small pieces.
    ExpectHead {
        head: Vec<u8>,
        /// How much of it was searched for its end.
        searched: usize,
    },
    Open(Box<WebSocket<MemoryStream>>),
    Over,
}

impl ServerConnection {
    /// A connection that was just accepted. If the client offers this subprotocol, it is chosen: browsers fail a
    /// connection whose offer goes unanswered.
    pub fn new(subprotocol: &'static str) -> Self {
        Self { state: State::ExpectHead { head: Vec::new(), searched: 0 }, outgoing: Vec::new(), subprotocol }
    }

    /// Takes bytes that the client sent. Call [`ServerConnection::poll`] until it has no more, before feeding again.
    pub fn feed(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::ExpectHead { head, .. } => head.extend_from_slice(bytes),
            State::Open(socket) => socket.get_mut().feed(bytes),
            State::Over => {}
        }
    }

    /// The client will send no more.
    pub fn end(&mut self) {
        match &mut self.state {
            State::ExpectHead { .. } => self.state = State::Over,
            State::Open(socket) => socket.get_mut().end(),
            State::Over => {}
        }
    }

    /// What happened next, if anything. May add to [`ServerConnection::outgoing`].
    pub fn poll(&mut self) -> Option<ServerEvent> {
        let event = match &mut self.state {
            State::ExpectHead { .. } => self.poll_head(),
            State::Open(socket) => {
                let event = next_message(socket);
                self.outgoing.append(socket.get_mut().outgoing());
                event
            }
            State::Over => None,
        };
        if matches!(event, Some(ServerEvent::Over(_))) {
            self.state = State::Over;
        }
        event
    }

    /// Sends a text message. Without effect unless the connection is open.
    pub fn send_text(&mut self, text: String) {
        self.write(Message::text(text));
    }

    /// Sends a ping; any client answers it, so silence after it tells of a dead connection.
    pub fn send_ping(&mut self) {
        self.write(Message::Ping(Bytes::new()));
    }

    /// Starts to close: sends a close frame. [`ServerEvent::Over`] comes when the client has answered it.
    pub fn close(&mut self, code: u16, reason: &str) {
        let State::Open(socket) = &mut self.state else { return };
        close(socket, code, reason);
        self.outgoing.append(socket.get_mut().outgoing());
    }

    /// What waits to be written. The caller takes it away.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }

    fn write(&mut self, message: Message) {
        let State::Open(socket) = &mut self.state else { return };
        // Fails only after a close frame has passed either way, and then nobody waits for the message.
        let _ = socket.send(message);
        self.outgoing.append(socket.get_mut().outgoing());
    }

    fn poll_head(&mut self) -> Option<ServerEvent> {
        let State::ExpectHead { head, searched } = &mut self.state else { return None };
        let from = searched.saturating_sub(3);
        let end = head[from..].windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| from + at + 4);
        *searched = head.len();
        if end.unwrap_or(head.len()) > HEAD_BYTES_MAX {
            return Some(self.refuse("431 Request Header Fields Too Large", "the request head is too long"));
        }
        let end = end?;
        let head = std::mem::take(head);
        let (head, tail) = head.split_at(end);
        let request = match Request::try_parse(head) {
            Ok(Some((size, request))) if size == head.len() => request,
            Ok(_) => return Some(self.refuse("400 Bad Request", "the request's head ends in an odd place")),
            Err(error) => return Some(self.refuse("400 Bad Request", &error.to_string())),
        };
        let mut response = match create_response(&request) {
            Ok(response) => response,
            Err(error) => return Some(self.refuse("426 Upgrade Required", &error.to_string())),
        };
        if offers(&request, self.subprotocol) {
            let value = self.subprotocol.parse().expect("subprotocols are constants without control characters");
            response.headers_mut().insert("sec-websocket-protocol", value);
        }
        write_response(&mut self.outgoing, &response).expect("a response of plain headers can be written to memory");
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let mut stream = MemoryStream::default();
        stream.feed(tail);
        self.state = State::Open(Box::new(WebSocket::from_raw_socket(stream, Role::Server, Some(config))));
        Some(ServerEvent::Upgraded(Upgrade(request)))
    }

    fn refuse(&mut self, status: &str, why: &str) -> ServerEvent {
        let body = format!("This server speaks WebSocket only: {why}.\n");
        let upgrade =
            if status.starts_with("426") { "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" } else { "" };
        let length = body.len();
        self.outgoing.extend_from_slice(
            format!(
                "HTTP/1.1 {status}\r\n{upgrade}Content-Type: text/plain\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{body}"
            )
            .as_bytes(),
        );
        ServerEvent::Over(Over::Refused(why.to_owned()))
    }
}

fn offers(request: &Request, subprotocol: &str) -> bool {
    let offers = request.headers().get_all("sec-websocket-protocol");
    offers.iter().filter_map(|offer| offer.to_str().ok()).any(|offer| offer.split(',').any(|p| p.trim() == subprotocol))
}

fn next_message(socket: &mut WebSocket<MemoryStream>) -> Option<ServerEvent> {
    loop {
        let over = match socket.read() {
            Ok(Message::Text(text)) => return Some(ServerEvent::Text(text)),
            Ok(Message::Binary(_)) => return Some(ServerEvent::Binary),
            // Tungstenite answers pings and closes on the next read.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_)) => continue,
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(
                Error::ConnectionClosed
                | Error::AlreadyClosed
                | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
            ) => Over::Closed,
            Err(error) => {
                let code = match error {
                    Error::Capacity(_) => CloseCode::Size,
                    Error::Utf8(_) => CloseCode::Invalid,
                    _ => CloseCode::Protocol,
                };
                let why = error.to_string();
                close(socket, code.into(), &why);
                Over::Failed(why)
            }
        };
        return Some(ServerEvent::Over(over));
    }
}

fn close(socket: &mut WebSocket<MemoryStream>, code: u16, reason: &str) {
    let mut end = reason.len().min(CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason[..end];
    // Fails only when the close handshake has been made already.
    let _ = socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
}

#[cfg(test)]
mod tests;
