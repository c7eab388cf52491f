//! A WebSocket client over bytes, for tests of the server's end: tungstenite in its client role.

use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::{ClientHandshake, Response};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::{Error, Message, WebSocket};

use crate::wss::memory::MemoryStream;

enum State {
    Upgrading(MidHandshake<ClientHandshake<MemoryStream>>),
    Open(WebSocket<MemoryStream>),
    Broken,
}

/// What a server sent, as its client sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Ping,
    /// Close code and reason; 1005 where none came.
    Close(u16, String),
}

/// A client that is fed the server's bytes.
pub(crate) struct TestClient {
    state: State,
    /// The response to the upgrade.
    pub(crate) response: Option<Response>,
}

impl TestClient {
    /// A client that asks for `/v1/realtime?model=test` with these headers besides those of the upgrade.
    pub(crate) fn new(headers: &[(&'static str, &str)]) -> Self {
        let mut request = "ws://127.0.0.1/v1/realtime?model=test".into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let mid = ClientHandshake::start(MemoryStream::default(), request, None).unwrap();
        let Err(HandshakeError::Interrupted(mid)) = mid.handshake() else { panic!("upgraded without a server") };
        Self { state: State::Upgrading(mid), response: None }
    }

    /// What the client has to say to the server.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let stream = match &mut self.state {
            State::Upgrading(mid) => mid.get_mut().get_mut(),
            State::Open(socket) => socket.get_mut(),
            State::Broken => panic!("the handshake failed"),
        };
        std::mem::take(stream.outgoing())
    }

    /// Takes bytes of the server and tells what they mean.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Seen> {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Upgrading(mut mid) => {
                mid.get_mut().get_mut().feed(bytes);
                self.state = match mid.handshake() {
                    Ok((socket, response)) => {
                        self.response = Some(response);
                        State::Open(socket)
                    }
                    Err(HandshakeError::Interrupted(mid)) => State::Upgrading(mid),
                    Err(HandshakeError::Failure(error)) => panic!("{error}"),
                };
            }
            State::Open(mut socket) => {
                socket.get_mut().feed(bytes);
                self.state = State::Open(socket);
            }
            State::Broken => panic!("the handshake failed"),
        }
        let State::Open(socket) = &mut self.state else { return Vec::new() };
        let mut seen = Vec::new();
        loop {
            match socket.read() {
                Ok(Message::Text(text)) => seen.push(Seen::Text(text.to_string())),
                Ok(Message::Ping(_)) => seen.push(Seen::Ping),
                Ok(Message::Close(frame)) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
                    seen.push(Seen::Close(code, reason));
                }
                Ok(other) => panic!("a server sent {other:?}"),
                Err(Error::Io(_)) => return seen,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Queues a message for [`TestClient::take`].
    pub(crate) fn send(&mut self, message: Message) {
        let State::Open(socket) = &mut self.state else { panic!("not open") };
        socket.send(message).unwrap();
    }

    /// Queues a text message.
    pub(crate) fn send_text(&mut self, text: &str) {
        self.send(Message::text(text));
    }

    /// Starts to close.
    pub(crate) fn close(&mut self) {
        let State::Open(socket) = &mut self.state else { panic!("not open") };
        socket.close(None).unwrap();
    }
}
