//! Whether a server can be reached, step by step: its name, a connection, TLS with its certificate verified, and, only where
//! a login is given, a WebSocket session, which is closed as soon as it stands.
//!
//! Without a login not one byte of a request is sent.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::driver::{resolver, system};
use crate::tls::Tls;
use crate::wss::{Client, Event, Request, Step};

/// How long each step may take.
const STEP_TIME_MAX: Duration = Duration::from_secs(5);

/// How long one address may take to answer, so that several can be tried within a step.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// Addresses tried.
const ADDRESSES_MAX: usize = 4;

/// A server.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Name or address, without brackets.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// TLS, or `None` for plain TCP.
    pub tls: Option<&'a Tls>,
    /// The session to be opened, if one is.
    pub login: Option<&'a Login<'a>>,
}

/// What a WebSocket session is opened with.
#[derive(Clone, Debug)]
pub struct Login<'a> {
    /// Path and query.
    pub path: &'a str,
    /// Headers; their values are secrets.
    pub headers: Vec<(&'static str, &'a str)>,
}

/// A step on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The name has an address.
    Dns,
    /// One of them takes connections.
    Tcp,
    /// The handshake, and the certificate.
    Tls,
    /// The server opens a session: with its status when it gives another than 101.
    Session {
        /// The status.
        status: Option<u16>,
    },
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Which.
    pub stage: Stage,
    /// How long it took.
    pub took: Duration,
    /// What was found, or why it failed. The first message of a session, if it is about that. May quote the server.
    pub outcome: Result<String, String>,
}

/// Goes as far as it gets: all steps but the last one succeeded.
pub fn reach(target: &Target<'_>) -> Vec<Reach> {
    let mut steps = Vec::new();
    let mut took = Took(Instant::now());
    let looked_up = look_up(target.host, target.port);
    let found = looked_up.as_ref().map(|all| list(all)).map_err(Clone::clone);
    steps.push(Reach { stage: Stage::Dns, took: took.take(), outcome: found });
    let Ok(addresses) = looked_up else { return steps };
    let connected = connect(&addresses);
    let found = connected.as_ref().map(|(address, _)| address.to_string()).map_err(Clone::clone);
    steps.push(Reach { stage: Stage::Tcp, took: took.take(), outcome: found });
    let Ok((_, stream)) = connected else { return steps };
    if target.tls.is_some() || target.login.is_some() {
        talk(target, stream, &mut took, &mut steps);
    }
    steps
}

struct Took(Instant);

impl Took {
    fn take(&mut self) -> Duration {
        let (now, before) = (Instant::now(), self.0);
        self.0 = now;
        now - before
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    let shown: Vec<String> = addresses.iter().take(ADDRESSES_MAX).map(|address| address.ip().to_string()).collect();
    let more = if addresses.len() > ADDRESSES_MAX { ", …" } else { "" };
    shown.join(", ") + more
}

/// On a thread of its own: the host's resolver may take far longer than anybody waits.
fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let (sender, receiver) = mpsc::channel();
    let (name, lookup) = (host.to_owned(), resolver::system_lookup());
    thread::spawn(move || sender.send(lookup(&name, port)));
    match receiver.recv_timeout(STEP_TIME_MAX) {
        Ok(Ok(addresses)) if addresses.is_empty() => Err("the name has no address".into()),
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(format!("the name is not found: {error}")),
        Err(_) => Err(format!("no answer about the name within {} s", STEP_TIME_MAX.as_secs())),
    }
}

fn connect(addresses: &[SocketAddr]) -> Result<(SocketAddr, TcpStream), String> {
    let mut failures = Vec::new();
    for address in addresses.iter().take(ADDRESSES_MAX) {
        match TcpStream::connect_timeout(address, CONNECT_TIME_MAX) {
            Ok(stream) => return Ok((*address, stream)),
            Err(error) if error.kind() == ErrorKind::TimedOut => failures.push(format!("{address}: no answer")),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(failures.join("; "))
}

/// TLS, and the session where there is a login.
fn talk(target: &Target<'_>, mut stream: TcpStream, took: &mut Took, steps: &mut Vec<Reach>) {
    let Target { host, port, tls, login } = *target;
    let mut stage = if tls.is_some() { Stage::Tls } else { Stage::Session { status: None } };
    let mut end = |stage, took: Duration, outcome| steps.push(Reach { stage, took, outcome });
    let nothing = Login { path: "/", headers: Vec::new() };
    let Login { path, headers } = login.unwrap_or(&nothing);
    let request = Request { host, port, path, headers };
    let mut client = match Client::new(Instant::now(), &request, tls, system::entropy) {
        Ok(client) => client,
        Err(why) => return end(stage, took.take(), Err(why)),
    };
    let until = Instant::now() + STEP_TIME_MAX * if login.is_some() { 2 } else { 1 };
    let mut buffer = [0; 16 << 10];
    loop {
        if let Err(error) = send(&mut client, &mut stream) {
            return end(stage, took.take(), Err(error.to_string()));
        }
        let left = until.saturating_duration_since(Instant::now());
        let len =
            match if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { read(&mut stream, left, &mut buffer) } {
                Ok(len) => len,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return end(stage, took.take(), Err(format!("no answer within {} s", STEP_TIME_MAX.as_secs())));
                }
                Err(error) => return end(stage, took.take(), Err(error.to_string())),
            };
        let mut came = &buffer[..len];
        if came.is_empty() {
            client.handle_ended();
        }
        loop {
            while let Some(event) = client.poll_event() {
                match event {
                    Event::TlsDone => {
                        end(stage, took.take(), Ok("certificate verified".into()));
                        // The request that waits in the client is never sent.
                        if login.is_none() {
                            return;
                        }
                        stage = Stage::Session { status: None };
                    }
                    Event::Upgraded | Event::Binary(_) => {}
                    Event::Text(text) => {
                        end(stage, took.take(), Ok(text.to_string()));
                        client.close();
                        // A courtesy: the session is over either way when the connection is.
                        let _ = send(&mut client, &mut stream);
                        return;
                    }
                    Event::Failed { step, text } => {
                        if let Step::Http { status } = step {
                            stage = Stage::Session { status };
                        }
                        return end(stage, took.take(), Err(text));
                    }
                    Event::Closed { code, reason } => {
                        return end(stage, took.take(), Err(format!("closed by the server: {code} {reason}")));
                    }
                }
            }
            if came.is_empty() {
                break;
            }
            client.handle_received(Instant::now(), &mut came);
        }
    }
}

fn send(client: &mut Client, stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_write_timeout(Some(STEP_TIME_MAX))?;
    while let Some(bytes) = client.poll_write() {
        stream.write_all(&bytes)?;
    }
    Ok(())
}

fn read(stream: &mut TcpStream, left: Duration, buffer: &mut [u8]) -> std::io::Result<usize> {
    stream.set_read_timeout(Some(left))?;
    stream.read(buffer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::wss::testing::Identity;

    fn stages(target: &Target<'_>) -> Vec<(Stage, Result<String, String>)> {
        reach(target).into_iter().map(|step| (step.stage, step.outcome)).collect()
    }

    #[test]
    fn a_name_without_address_and_a_port_without_listener_are_told_apart() {
        let target = Target { host: "nowhere.invalid", port: 443, tls: None, login: None };
        assert!(matches!(&stages(&target)[..], [(Stage::Dns, Err(_))]));
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let target = Target { host: "127.0.0.1", port: free.port(), tls: None, login: None };
        let found = stages(&target);
        assert!(matches!(&found[..], [(Stage::Dns, Ok(_)), (Stage::Tcp, Err(_))]), "{found:?}");
        assert!(found[1].1.as_ref().is_err_and(|why| why.contains("refused")), "{found:?}");
    }

    #[test]
    fn the_certificate_is_verified_and_nothing_is_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let identity = Identity::until(2100);
        let trusting = Tls::with_roots([identity.der.clone()]).unwrap();
        let server = thread::spawn(move || {
            let mut asked = Vec::new();
            for _ in 0..2 {
                let (mut socket, _) = listener.accept().unwrap();
                let mut tls = identity.accept();
                let _ = rustls::Stream::new(&mut tls, &mut socket).read_to_end(&mut asked);
            }
            asked
        });
        let target = Target { host: "localhost", port, tls: Some(&trusting), login: None };
        let found = stages(&target);
        assert_eq!(found.last(), Some(&(Stage::Tls, Ok("certificate verified".into()))), "{found:?}");
        let strange = Tls::with_roots([]).unwrap();
        let found = stages(&Target { tls: Some(&strange), ..target });
        let (stage, outcome) = found.last().unwrap();
        assert!(*stage == Stage::Tls && outcome.as_ref().is_err_and(|why| why.contains("not trust")), "{found:?}");
        assert_eq!(server.join().unwrap(), b"");
    }

    #[test]
    fn a_session_is_opened_only_with_a_login_and_a_refusal_has_its_status() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut asked = vec![0; 4096];
            let len = socket.read(&mut asked).unwrap();
            socket.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}").unwrap();
            String::from_utf8_lossy(&asked[..len]).into_owned()
        });
        let login = Login { path: "/v1/realtime", headers: vec![("Authorization", "Bearer key")] };
        let found = stages(&Target { host: "127.0.0.1", port, tls: None, login: Some(&login) });
        assert_eq!(found.last(), Some(&(Stage::Session { status: Some(401) }, Err("{}".into()))));
        assert!(server.join().unwrap().to_lowercase().contains("authorization: bearer key"));
    }
}
