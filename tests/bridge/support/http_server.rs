//! A small HTTP/1.1 server that answers as a test tells it: what the bridge and its commands speak to.
//!
//! It shares no code with the product. One request for each connection; gone when dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a read or a write may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the server was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The request line and the header fields, names in lower case.
    pub(crate) head: Vec<String>,
    pub(crate) body: String,
}

impl Asked {
    /// Method and target.
    pub(crate) fn line(&self) -> &str {
        self.head[0].trim_end_matches(" HTTP/1.1")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct HttpServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Listens on a free port of loopback; `answer` gives a status and a body.
    pub(crate) fn start(answer: impl FnMut(&Asked) -> (u16, String) + Send + 'static) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), answer)
    }

    /// The same at this address.
    pub(crate) fn start_at(
        address: SocketAddr,
        mut answer: impl FnMut(&Asked) -> (u16, String) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        let address = listener.local_addr().expect("it is bound");
        let (asked, over) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::spawn({
            let (all, over) = (Arc::clone(&asked), Arc::clone(&over));
            move || {
                for stream in listener.incoming() {
                    let stream = stream.expect("a listener of loopback does not fail");
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    serve(stream, &all, &mut answer);
                }
            }
        });
        Self { address, asked, over, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("its holders cannot panic").clone()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the server panicked");
    }
}

/// Answers the request of one connection; one that brings none is nobody's fault.
fn serve(mut stream: TcpStream, all: &Mutex<Vec<Asked>>, answer: &mut impl FnMut(&Asked) -> (u16, String)) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    let mut reader = BufReader::new(stream.try_clone().expect("a descriptor is free"));
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.is_empty() {
            return;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(match line.split_once(": ") {
                Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
                None => line.to_owned(),
            }),
        }
    }
    let mut asked = Asked { head, body: String::new() };
    let length = asked.header("content-length").map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    asked.body = String::from_utf8(body).expect("JSON is UTF-8");
    let (status, body) = answer(&asked);
    all.lock().expect("its holders cannot panic").push(asked);
    let response =
        format!("HTTP/1.1 {status} As told\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // The client may have lost its patience.
    let _ = stream.write_all(response.as_bytes());
}
