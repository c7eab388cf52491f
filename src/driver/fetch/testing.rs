//! A small HTTP server for tests, on loopback: it counts connections, and does with each request what it is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::tls::testing::Identity;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The request line and the headers.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Vec<u8>,
    /// Which of the server's connections, from 0.
    pub(crate) connection: usize,
    /// Which request of this connection, from 0.
    pub(crate) nth: usize,
}

/// What is done with a request.
pub(crate) enum Told {
    /// These bytes are sent, and the connection stays open.
    Answer(Vec<u8>),
    /// These bytes are sent, and the connection is closed.
    Last(Vec<u8>),
    /// The connection is closed without an answer.
    Close,
    /// Nothing is done.
    Hang,
}

/// An answer with this status and body.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

type Tell = dyn Fn(&Asked) -> Told + Send + Sync;

/// A running server; gone when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Plain HTTP.
    pub(crate) fn plain(tell: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> Self {
        Self::start(None, tell)
    }

    /// HTTP over TLS, as `localhost`.
    pub(crate) fn tls(identity: Identity, tell: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> Self {
        Self::start(Some(identity), tell)
    }

    fn start(identity: Option<Identity>, tell: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, is_over) = (Arc::clone(&connections), Arc::clone(&over));
        let tell: Arc<Tell> = Arc::new(tell);
        let thread = thread::spawn(move || {
            for socket in listener.incoming() {
                let socket = socket.unwrap();
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::SeqCst);
                let tls = identity.as_ref().map(Identity::accept);
                let tell = Arc::clone(&tell);
                thread::spawn(move || match tls {
                    Some(tls) => serve(rustls::StreamOwned::new(tls, socket), number, &*tell),
                    None => serve(socket, number, &*tell),
                });
            }
        });
        Self { address, connections, over, thread: Some(thread) }
    }

    /// Connections that were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Where it is, without TLS.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(mut stream: impl Read + Write, connection: usize, tell: &Tell) {
    for nth in 0.. {
        let Some((head, body)) = request(&mut stream) else { return };
        match tell(&Asked { head, body, connection, nth }) {
            Told::Answer(bytes) => {
                // A client that has enough hangs up.
                let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
            }
            Told::Last(bytes) => {
                let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
                return;
            }
            Told::Close => return,
            Told::Hang => {
                let _ = stream.read(&mut [0]);
                return;
            }
        }
    }
}

/// The next request: head and body; `None` where there is none.
fn request(stream: &mut impl Read) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}
