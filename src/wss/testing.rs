//! The other end, for tests: a WebSocket server in memory, plain or with TLS.

use std::io::Read;

use rustls::ServerConnection;
use tungstenite::error::Error;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::{Bytes, Message, ServerHandshake, WebSocket};

use super::memory::MemoryStream;
pub(crate) use crate::tls::testing::Identity;

/// The system's entropy, as production passes it.
pub(crate) fn entropy(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the system has entropy");
}

enum State {
    Handshake(Option<Box<MidHandshake<ServerHandshake<MemoryStream, Capture>>>>),
    Open(Box<WebSocket<MemoryStream>>),
    Over,
}

/// Keeps the request's head.
struct Capture(std::sync::mpsc::Sender<String>);

impl tungstenite::handshake::server::Callback for Capture {
    fn on_request(
        self,
        request: &Request,
        response: Response,
    ) -> Result<Response, tungstenite::handshake::server::ErrorResponse> {
        let headers: Vec<_> =
            request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        self.0.send(format!("{}\n{}", request.uri(), headers.join("\n"))).unwrap();
        Ok(response)
    }
}

/// One connection's other end.
pub(crate) struct Server {
    state: State,
    tls: Option<ServerConnection>,
    head: std::sync::mpsc::Receiver<String>,
    /// Text messages received and not yet taken.
    pub(crate) received: Vec<String>,
    /// Pings received.
    pub(crate) pings: usize,
    /// Pongs received.
    pub(crate) pongs: usize,
    /// The close frame received.
    pub(crate) closed: Option<u16>,
    out: Vec<u8>,
}

impl Server {
    pub(crate) fn plain() -> Self {
        let (sender, head) = std::sync::mpsc::channel();
        let state = match tungstenite::accept_hdr(MemoryStream::default(), Capture(sender)) {
            Err(HandshakeError::Interrupted(handshake)) => State::Handshake(Some(Box::new(handshake))),
            _ => unreachable!("nothing was received"),
        };
        Self { state, tls: None, head, received: vec![], pings: 0, pongs: 0, closed: None, out: vec![] }
    }

    pub(crate) fn secure(identity: &Identity) -> Self {
        let mut tls = identity.accept();
        tls.set_buffer_limit(None);
        Self { tls: Some(tls), ..Self::plain() }
    }

    /// Path and headers of the request.
    pub(crate) fn head(&self) -> String {
        self.head.try_recv().expect("a request came")
    }

    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.tls.as_ref().and_then(|tls| tls.alpn_protocol())
    }

    /// Whether the client said the end of TLS.
    pub(crate) fn is_tls_closed(&mut self) -> bool {
        self.tls.as_mut().is_some_and(|tls| matches!(tls.reader().read(&mut [0]), Ok(0)))
    }

    /// Takes bytes of the client.
    pub(crate) fn handle(&mut self, mut bytes: &[u8]) {
        let mut plain = Vec::new();
        match &mut self.tls {
            None => plain.extend_from_slice(bytes),
            Some(tls) => {
                while !bytes.is_empty() {
                    if tls.read_tls(&mut bytes).unwrap() == 0 || tls.process_new_packets().is_err() {
                        break;
                    }
                    _ = tls.reader().read_to_end(&mut plain); // ends in WouldBlock
                }
            }
        }
        if plain.is_empty() {
            return;
        }
        match &mut self.state {
            State::Handshake(handshake) => {
                let mut now = handshake.take().unwrap();
                now.get_mut().get_mut().feed(&plain);
                match now.handshake() {
                    Ok(mut socket) => {
                        self.out.append(socket.get_mut().outgoing());
                        self.state = State::Open(Box::new(socket));
                    }
                    Err(HandshakeError::Interrupted(later)) => *handshake = Some(Box::new(later)),
                    Err(HandshakeError::Failure(error)) => panic!("the client's request is refused: {error}"),
                }
            }
            State::Open(socket) => socket.get_mut().feed(&plain),
            State::Over => {}
        }
        self.read();
    }

    fn read(&mut self) {
        while let State::Open(socket) = &mut self.state {
            let read = socket.read();
            self.out.append(socket.get_mut().outgoing());
            match read {
                Ok(Message::Text(text)) => self.received.push(text.to_string()),
                Ok(Message::Ping(_)) => self.pings += 1,
                Ok(Message::Pong(_)) => self.pongs += 1,
                Ok(Message::Close(frame)) => {
                    self.closed = Some(frame.map_or(1005, |frame| frame.code.into()));
                    _ = socket.flush();
                    self.out.append(socket.get_mut().outgoing());
                    self.state = State::Over;
                }
                Ok(other) => panic!("a client that sends {other:?}"),
                Err(Error::Io(_)) => return,
                Err(error) => panic!("a client that breaks the protocol: {error}"),
            }
        }
    }

    fn frame(&mut self, message: Message) {
        let State::Open(socket) = &mut self.state else { panic!("not open") };
        socket.send(message).unwrap();
        self.out.append(socket.get_mut().outgoing());
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.frame(Message::text(text));
    }

    pub(crate) fn send_binary(&mut self, bytes: &[u8]) {
        self.frame(Message::binary(bytes.to_vec()));
    }

    pub(crate) fn send_ping(&mut self) {
        self.frame(Message::Ping(Bytes::from_static(b"are you there")));
    }

    /// One frame of a text message that goes on.
    pub(crate) fn send_fragment(&mut self, text: &str, first: bool, last: bool) {
        let opcode = OpCode::Data(if first { Data::Text } else { Data::Continue });
        self.frame(Message::Frame(Frame::message(text.to_owned(), opcode, last)));
    }

    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        let State::Open(socket) = &mut self.state else { panic!("not open") };
        _ = socket.close(Some(CloseFrame { code: code.into(), reason: reason.to_owned().into() }));
        self.out.append(socket.get_mut().outgoing());
    }

    /// Bytes as they are, below the WebSocket.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// What goes to the client.
    pub(crate) fn poll_write(&mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.out);
        if let Some(tls) = &mut self.tls {
            if !out.is_empty() {
                std::io::Write::write_all(&mut tls.writer(), &out).unwrap();
                out.clear();
            }
            while tls.wants_write() {
                tls.write_tls(&mut out).unwrap();
            }
        }
        out
    }
}
