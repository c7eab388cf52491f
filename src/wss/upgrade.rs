//! From an open connection to a WebSocket: the HTTP request, and the answer to it (RFC 6455, section 4.1).
//!
//! The answer's head is collected whole before tungstenite sees it, because its own collector takes many small reads for
//! an attack. The body of a refusal is collected too, since it says why.

use std::time::Instant;

use tungstenite::error::Error;
use tungstenite::handshake::client::{ClientHandshake, Response};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::http;
use tungstenite::protocol::{WebSocket, WebSocketConfig};

use super::memory::MemoryStream;
use super::{BODY_BYTES_MAX, BODY_WAIT, BUFFER_BYTES, HEAD_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::io::Entropy;

/// What is asked of the server.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Host name or address, without brackets.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Path and query, starting with `/`.
    pub path: &'a str,
    /// Headers beyond those of the upgrade. Values with control characters are refused.
    pub headers: &'a [(&'static str, &'a str)],
}

impl Request<'_> {
    /// The request as tungstenite wants it, or what is wrong with it. Never quotes a header's value: it may be a secret.
    pub(super) fn build(&self, tls: bool, entropy: Entropy) -> Result<http::Request<()>, String> {
        let (scheme, usual_port) = if tls { ("wss", 443) } else { ("ws", 80) };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_owned() };
        let authority = if self.port == usual_port { host } else { format!("{host}:{}", self.port) };
        let mut nonce = [0; 16];
        entropy(&mut nonce);
        let mut request = http::Request::builder()
            .uri(format!("{scheme}://{authority}{}", self.path))
            .header("Host", &authority)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", base64_simd::STANDARD.encode_to_string(nonce))
            .body(())
            .map_err(|error| format!("host or path cannot be put into a request: {error}"))?;
        for &(name, value) in self.headers {
            let value = http::HeaderValue::from_str(value)
                .map_err(|_| format!("the value of {name} has a character that no header can carry"))?;
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }
}

/// An upgrade whose answer is awaited.
pub(super) struct Upgrade {
    handshake: Option<MidHandshake<ClientHandshake<MemoryStream>>>,
    head: Vec<u8>,
}

/// How an upgrade goes on.
pub(super) enum Answer {
    /// The head is not complete.
    Incomplete,
    /// The WebSocket is open. Its stream may hold messages already.
    Open(Box<WebSocket<MemoryStream>>),
    /// Another status than 101; the body is on its way.
    Refused(Refusal),
    /// Not an answer to an upgrade.
    Invalid(String),
}

impl Upgrade {
    /// Writes the request to `out`.
    pub(super) fn start(request: http::Request<()>, out: &mut Vec<u8>) -> Result<Self, String> {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0) // the stream is memory: whatever is written is written at once
            .max_write_buffer_size(BUFFER_BYTES)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        match tungstenite::client::client_with_config(request, MemoryStream::default(), Some(config)) {
            Err(HandshakeError::Interrupted(mut handshake)) => {
                out.append(handshake.get_mut().get_mut().outgoing());
                Ok(Self { handshake: Some(handshake), head: Vec::new() })
            }
            Err(HandshakeError::Failure(error)) => Err(error.to_string()),
            Ok(_) => unreachable!("nothing was received that could have completed it"),
        }
    }

    /// Takes bytes of the answer.
    pub(super) fn handle(&mut self, now: Instant, bytes: &[u8]) -> Answer {
        let searched = self.head.len().saturating_sub(3);
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head[searched..].windows(4).position(|four| four == b"\r\n\r\n") else {
            if self.head.len() > HEAD_BYTES_MAX {
                return Answer::Invalid(format!("its answer has a head of more than {HEAD_BYTES_MAX} bytes"));
            }
            return Answer::Incomplete;
        };
        let body_at = searched + end + 4;
        let mut handshake = self.handshake.take().expect("an answer is taken once");
        handshake.get_mut().get_mut().feed(&self.head);
        match handshake.handshake() {
            Ok((socket, _)) => Answer::Open(Box::new(socket)),
            Err(HandshakeError::Failure(Error::Http(response))) => {
                Answer::Refused(Refusal::new(now, &response, &self.head[body_at..]))
            }
            Err(HandshakeError::Failure(error)) => Answer::Invalid(format!("not an answer to an upgrade: {error}")),
            Err(HandshakeError::Interrupted(_)) => {
                Answer::Invalid("not an answer to an upgrade: its head is odd".into())
            }
        }
    }
}

/// An answer with another status than 101, and its body as far as it has come.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) until: Instant,
    length: Option<usize>,
    chunked: bool,
    body: Vec<u8>,
}

impl Refusal {
    fn new(now: Instant, response: &Response, body: &[u8]) -> Self {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let mut refusal = Self {
            status: response.status().as_u16(),
            until: now + BODY_WAIT,
            length: header("content-length").and_then(|value| value.trim().parse().ok()),
            chunked: header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")),
            body: Vec::new(),
        };
        refusal.handle(body);
        refusal
    }

    /// Takes bytes of the body; what is too much is dropped.
    pub(super) fn handle(&mut self, bytes: &[u8]) {
        let room = BODY_BYTES_MAX - self.body.len();
        self.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn is_complete(&self) -> bool {
        self.body.len() >= self.length.unwrap_or(usize::MAX).min(BODY_BYTES_MAX)
            || (self.chunked && self.body.ends_with(b"\r\n0\r\n\r\n"))
    }

    /// The body as text.
    pub(super) fn text(&self) -> String {
        let body = if self.chunked { unchunk(&self.body) } else { self.body.clone() };
        String::from_utf8_lossy(&body).trim().to_owned()
    }
}

/// The data of a chunked body, as far as it is there and well formed (RFC 9112, section 7.1).
fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(line_end) = rest.windows(2).position(|two| two == b"\r\n") {
        let line = String::from_utf8_lossy(&rest[..line_end]);
        let Ok(size) = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16) else { break };
        if size == 0 {
            break;
        }
        rest = &rest[line_end + 2..];
        let chunk = &rest[..size.min(rest.len())];
        data.extend_from_slice(chunk);
        rest = rest.get(chunk.len() + 2..).unwrap_or_default();
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeros(_: &mut [u8]) {}

    const REQUEST: Request<'_> = Request { host: "h.test", port: 443, path: "/v1?model=m", headers: &[] };

    #[test]
    fn the_request_carries_the_headers_given_and_those_of_an_upgrade() {
        let request = Request { headers: &[("Authorization", "Bearer k")], ..REQUEST };
        let mut out = Vec::new();
        let built = request.build(true, zeros).unwrap();
        assert!(Upgrade::start(built, &mut out).is_ok());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GET /v1?model=m HTTP/1.1\r\nHost: h.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nauthorization: Bearer k\r\n\r\n"
        );
    }

    #[test]
    fn an_unusual_port_and_an_ipv6_address_show_in_the_host_header() {
        let host = |host, port, tls| {
            let request = Request { host, port, ..REQUEST }.build(tls, zeros).unwrap();
            request.headers()["host"].to_str().unwrap().to_owned()
        };
        assert_eq!(host("h.test", 443, true), "h.test");
        assert_eq!(host("h.test", 443, false), "h.test:443");
        assert_eq!(host("::1", 8080, false), "[::1]:8080");
    }

    #[test]
    fn what_cannot_be_sent_is_refused_without_quoting_the_value() {
        let with = |value| Request { headers: &[("Authorization", value)], ..REQUEST }.build(true, zeros);
        for bad in ["Bearer sk-secret\n", "Bearer sk-secret\r\nX: y", "Bearer sk-secret\0"] {
            let error = with(bad).unwrap_err();
            assert!(error.contains("Authorization") && !error.contains("sk-secret"), "{error}");
        }
        assert!(Request { host: "h test", ..REQUEST }.build(true, zeros).is_err());
        assert!(Request { path: "/a b", ..REQUEST }.build(true, zeros).is_err());
        assert!(Request { path: "/\r\nX: y", ..REQUEST }.build(true, zeros).is_err());
    }

    #[test]
    fn chunked_bodies_are_joined_and_broken_ones_end() {
        assert_eq!(unchunk(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"), b"abcde");
        assert_eq!(unchunk(b"ff\r\nabc"), b"abc");
        assert_eq!(unchunk(b"zz\r\nabc"), b"");
        assert_eq!(unchunk(b"ffffffffffffffff\r\nabc"), b"abc");
        assert_eq!(unchunk(b""), b"");
    }
}
