//! HTTP requests of commands and helper threads: blocking, bounded in time and size, and failing in words.
//!
//! Any status is an answer; an error is that there was none. Redirects are not followed, since a token would not go
//! along, and proxies of the environment are not used. Errors name the server and never the path, which may hold a call
//! id. This file and those below it are the only ones that name ureq, and no loop may call them.

mod pooled;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

use crate::config::Secret;
use crate::tls;

pub use pooled::{ANSWER_BYTES_MAX, Answer, Effort, Pooled, Request};

/// Longest answer taken, in bytes. A list of 4096 calls, the longest that the API gives, is about 10 MB.
pub const BODY_BYTES_MAX: u64 = 16 << 20;

/// What a server said.
#[derive(Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The status.
    pub status: u16,
    /// The whole body.
    pub body: String,
}

impl fmt::Debug for Fetched {
    /// Bodies hold call ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetched({}, {} bytes)", self.status, self.body.len())
    }
}

/// Why there is no answer, in a sentence that names the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError(String);

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FetchError {}

/// GET, once. `token` goes along as `Authorization: Bearer`.
pub fn get(url: &str, token: Option<&Secret>, timeout: Duration) -> Result<Fetched, FetchError> {
    Client::new(url, token, timeout)?.get("")
}

/// Asks one server, on connections that are kept open.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    bearer: Option<Secret>,
    timeout: Duration,
}

impl Client {
    /// A client of what lies below this URL. Each request, its answer included, may take `timeout`.
    pub fn new(url: &str, token: Option<&Secret>, timeout: Duration) -> Result<Self, FetchError> {
        let roots = if url.starts_with("https://") { tls::machine_roots() } else { Vec::new() };
        Self::with_roots(url, token, timeout, &roots)
    }

    /// Trusts these authorities, each in DER, or the bundled ones when there are none.
    pub fn with_roots(
        url: &str,
        token: Option<&Secret>,
        timeout: Duration,
        roots: &[Vec<u8>],
    ) -> Result<Self, FetchError> {
        check_scheme(url)?;
        let config = base_config(roots).timeout_global(Some(timeout)).build();
        let bearer = token.map(|token| Secret::new(format!("Bearer {}", token.expose())));
        Ok(Self { agent: config.into(), base: url.trim_end_matches('/').to_owned(), bearer, timeout })
    }

    /// GET of the client's URL with `path` behind it, which is empty or starts with `/`.
    pub fn get(&self, path: &str) -> Result<Fetched, FetchError> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(bearer) = &self.bearer {
            request = request.header("Authorization", bearer.expose());
        }
        self.finish(request.call())
    }

    /// POST of JSON to the client's URL.
    pub fn post_json(&self, body: &[u8]) -> Result<Fetched, FetchError> {
        let mut request = self.agent.post(&self.base).content_type("application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header("Authorization", bearer.expose());
        }
        self.finish(request.send(body))
    }

    /// POST of JSON to the client's URL with `path` behind it.
    pub fn post(&self, path: &str, json: &str) -> Result<Fetched, FetchError> {
        let mut request = self.agent.post(format!("{}{path}", self.base)).content_type("application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header("Authorization", bearer.expose());
        }
        self.finish(request.send(json))
    }

    /// DELETE of the client's URL with `path` behind it.
    pub fn delete(&self, path: &str) -> Result<Fetched, FetchError> {
        let mut request = self.agent.delete(format!("{}{path}", self.base));
        if let Some(bearer) = &self.bearer {
            request = request.header("Authorization", bearer.expose());
        }
        self.finish(request.call())
    }

    fn finish(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Fetched, FetchError> {
        let read = |mut response: ureq::http::Response<ureq::Body>| {
            let body = response.body_mut().with_config().limit(BODY_BYTES_MAX).lossy_utf8(true).read_to_string()?;
            Ok(Fetched { status: response.status().as_u16(), body })
        };
        answer.and_then(read).map_err(|error| words(&self.base, &error, self.timeout, BODY_BYTES_MAX))
    }
}

fn check_scheme(url: &str) -> Result<(), FetchError> {
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok(());
    }
    Err(FetchError("the URL must start with http:// or https://".into()))
}

/// What all requests have in common. Trusts these authorities, each in DER, or the bundled ones when there are none.
fn base_config(roots: &[Vec<u8>]) -> ConfigBuilder<AgentScope> {
    let roots = match roots {
        [] => RootCerts::WebPki,
        _ => roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>().into(),
    };
    let policy = TlsConfig::builder().unversioned_rustls_crypto_provider(tls::provider()).root_certs(roots).build();
    ureq::Agent::config_builder()
        .tls_config(policy)
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("voice-media-bridge/", env!("CARGO_PKG_VERSION")))
}

/// Why a request of what lies below this URL has no answer.
fn words(base: &str, error: &ureq::Error, time_max: Duration, body_bytes_max: u64) -> FetchError {
    let server = server(base);
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    FetchError(match error {
        ureq::Error::HostNotFound => format!("the name {host} has no address"),
        ureq::Error::Timeout(_) => format!("{server} did not answer within {time_max:?}"),
        ureq::Error::BodyExceedsLimit(_) if body_bytes_max < 1 << 20 => {
            format!("the answer of {server} is longer than {} KiB", body_bytes_max >> 10)
        }
        ureq::Error::BodyExceedsLimit(_) => {
            format!("the answer of {server} is longer than {} MiB", body_bytes_max >> 20)
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            "the URL or the token has characters that HTTP does not allow".into()
        }
        ureq::Error::Io(error) => match error.kind() {
            ErrorKind::ConnectionRefused => format!("nothing listens on {server} (connection refused)"),
            _ => tls::explain(error, host).unwrap_or_else(|| format!("the connection to {server} failed: {error}")),
        },
        ureq::Error::ConnectionFailed => format!("no address of {server} could be connected to"),
        ureq::Error::Protocol(error) => format!("{server} does not speak HTTP as it should: {error}"),
        _ => format!("the request to {server} failed"),
    })
}

/// Host and port of a URL: what errors may show of it.
fn server(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, server)| server)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::tls::testing::Identity;

    const PATIENCE: Duration = Duration::from_secs(10);
    const HEAD_END: &str = "\r\n\r\n";

    /// Reads one request up to and with `end`.
    fn read_until(mut stream: impl Read, end: &str) -> String {
        let mut request = String::new();
        while !request.ends_with(end) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0].into());
        }
        request
    }

    /// Answers one request, which ends like this, with these bytes; returns what it was asked.
    fn answers(end: &'static str, bytes: impl Into<Vec<u8>>) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let bytes = bytes.into();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let request = read_until(&stream, end);
            // A client that has read enough hangs up.
            let _ = stream.write_all(&bytes);
            request
        });
        (address, thread)
    }

    #[test]
    fn a_get_carries_the_token_and_returns_any_status() {
        let (address, asked) = answers(HEAD_END, "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone");
        let token = Secret::new("0123456789abcdef");
        let fetched = get(&format!("http://{address}/api/sessions"), Some(&token), PATIENCE).unwrap();
        assert_eq!((fetched.status, fetched.body.as_str()), (404, "none"));
        let asked = asked.join().unwrap();
        assert!(asked.starts_with("GET /api/sessions HTTP/1.1\r\n"), "{asked}");
        assert!(asked.to_lowercase().contains("authorization: bearer 0123456789abcdef\r\n"), "{asked}");
    }

    #[test]
    fn a_post_carries_json_and_a_redirect_is_an_answer() {
        let (address, asked) = answers("{}", "HTTP/1.1 302 Found\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n");
        let client = Client::new(&format!("http://{address}/hook?a=b"), None, PATIENCE).unwrap();
        assert_eq!(client.post_json(b"{}").unwrap().status, 302);
        let asked = asked.join().unwrap().to_lowercase();
        assert!(asked.starts_with("post /hook?a=b http/1.1\r\n"), "{asked}");
        assert!(asked.contains("content-type: application/json\r\n") && asked.ends_with("\r\n\r\n{}"), "{asked}");
    }

    #[test]
    fn an_answer_without_end_is_refused_at_the_bound() {
        let length = BODY_BYTES_MAX as usize + 1;
        let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        answer.resize(answer.len() + length, b'x');
        let (address, asked) = answers(HEAD_END, answer);
        let error = get(&format!("http://{address}/"), None, PATIENCE).unwrap_err();
        assert!(error.to_string().contains("longer than 16 MiB"), "{error}");
        asked.join().unwrap();
    }

    #[test]
    fn errors_say_what_happened_and_hide_the_path() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let (silent, short) = (silent.local_addr().map(|at| (at, silent)).unwrap(), Duration::from_millis(50));
        for (url, timeout, words) in [
            (format!("http://{free}/canary"), PATIENCE, "connection refused"),
            (format!("http://{}/canary", silent.0), short, "did not answer within 50ms"),
            ("ftp://127.0.0.1/canary".to_owned(), PATIENCE, "must start with http:// or https://"),
            (format!("http://{free}/canary canary"), PATIENCE, "characters that HTTP does not allow"),
        ] {
            let error = get(&url, None, timeout).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("canary"), "{url}: {error}");
        }
    }

    #[test]
    fn a_token_of_two_lines_is_refused_and_not_shown() {
        let token = Secret::new("canary\r\nHost: other");
        let error = get("http://127.0.0.1:9/", Some(&token), PATIENCE).unwrap_err().to_string();
        assert!(error.contains("token") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn a_certificate_is_verified_and_a_bad_one_explained() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let identity = Identity::until(2100);
        let der = identity.der.clone();
        let server = thread::spawn(move || {
            for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ""] {
                let (mut socket, _) = listener.accept().unwrap();
                let mut tls = identity.accept();
                let mut stream = rustls::Stream::new(&mut tls, &mut socket);
                if answer.is_empty() {
                    stream.read_exact(&mut [0]).unwrap_err();
                } else {
                    read_until(&mut stream, HEAD_END);
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        let url = format!("https://localhost:{port}");
        let trusting = Client::with_roots(&url, None, PATIENCE, &[der]).unwrap();
        assert_eq!(trusting.get("/health").unwrap().body, "ok");
        let error = Client::new(&url, None, PATIENCE).unwrap().get("/health").unwrap_err().to_string();
        assert!(error.contains("localhost is from an authority that this machine does not trust"), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn only_the_server_of_a_url_is_shown() {
        assert_eq!(server("https://user:canary@h.example:9/canary?x"), "h.example:9");
        assert_eq!(server("http://[::1]:8080"), "[::1]:8080");
    }
}
