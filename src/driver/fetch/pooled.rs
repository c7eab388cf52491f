//! Requests of many threads to one server, over connections that stay open between them: each costs one round trip.
//!
//! A name is looked up where a connection is made, and not, as ureq would, before each request. A connection that the server
//! closes just when a request goes out costs no failure: the request is repeated, once, on a connection of its own.

use std::cell::Cell;
use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport};

use super::{FetchError, base_config, check_scheme, words};
use crate::tls;

/// How long a connection may be idle and still be used. Servers close theirs when they like, which is seen in time; a firewall
/// that forgets one says nothing, and a request into it is lost. The shortest memory that is known of is four minutes.
const IDLE_TIME_MAX: Duration = Duration::from_secs(120);

/// Longest answer taken, in bytes. An answer of the Graph API is a few hundred.
pub const ANSWER_BYTES_MAX: u64 = 64 << 10;

thread_local! {
    /// Whether the request of this thread had to connect. ureq does not say, but connects on the thread that asks.
    static CONNECTED: Cell<bool> = const { Cell::new(false) };
}

/// A request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What goes behind the URL of the server: empty, or with `/` in front.
    pub path: &'a str,
    /// Headers; their values may be secrets.
    pub headers: &'a [(&'static str, &'a str)],
    /// A POST of this; `None`: a GET.
    pub body: Option<&'a [u8]>,
    /// The answer included.
    pub time_max: Duration,
}

/// An answer: any status is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Retry-After`, where it is a number of seconds.
    pub retry_after_sec: Option<u64>,
    /// The whole body.
    pub body: String,
}

impl fmt::Debug for Answer {
    /// Bodies may hold call ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.status, self.body.len())
    }
}

/// What a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Connections that were made for it.
    pub connections: u64,
    /// Whether it was sent again because the server had closed its connection.
    pub is_repeated: bool,
}

/// Asks one server. Shared by threads.
#[derive(Clone, Debug)]
pub struct Pooled {
    agent: ureq::Agent,
    /// Keeps no connection.
    fresh: ureq::Agent,
    base: String,
}

impl Pooled {
    /// Asks below this URL, and keeps so many idle connections to it.
    pub fn new(url: &str, idle_max: usize) -> Result<Self, FetchError> {
        let roots = if url.starts_with("https://") { tls::machine_roots() } else { Vec::new() };
        Self::with_roots(url, idle_max, &roots)
    }

    /// Trusts these authorities, each in DER, or the bundled ones when there are none.
    pub fn with_roots(url: &str, idle_max: usize, roots: &[Vec<u8>]) -> Result<Self, FetchError> {
        Self::with_lookup(url, idle_max, roots, &(Arc::new(DefaultResolver::default()) as _))
    }

    fn with_lookup(
        url: &str,
        idle_max: usize,
        roots: &[Vec<u8>],
        lookup: &Arc<dyn Resolver>,
    ) -> Result<Self, FetchError> {
        check_scheme(url)?;
        let agent = |idle_max| {
            let config = base_config(roots)
                .max_idle_connections(idle_max)
                .max_idle_connections_per_host(idle_max)
                .max_idle_age(IDLE_TIME_MAX)
                .build();
            let dial = Dial { lookup: Arc::clone(lookup), connector: DefaultConnector::default() };
            ureq::Agent::with_parts(config, dial, NoLookup)
        };
        Ok(Self { agent: agent(idle_max), fresh: agent(0), base: url.to_owned() })
    }

    /// Asks, and waits for the answer.
    ///
    /// Where a connection that was open already ends without an answer, the request is sent once more on a new one. Whether
    /// the server had read it cannot be known in HTTP/1.1; most often it had closed the connection as idle, and the request
    /// came too late. Browsers repeat there whatever the method is. Whoever asks is told by [`Effort::is_repeated`], and must bear
    /// that the server may have done it twice: a webhook may come twice, and of a call it is known what "again" is answered.
    pub fn ask(&self, request: &Request<'_>) -> (Result<Answer, FetchError>, Effort) {
        let end = Instant::now() + request.time_max;
        let mut effort = Effort::default();
        let mut outcome = attempt(&self.agent, &self.base, request, request.time_max, &mut effort);
        if effort.connections == 0
            && let Err(Failure { error, answered: false }) = &outcome
            && is_closed(error)
        {
            effort.is_repeated = true;
            let left = end.saturating_duration_since(Instant::now());
            outcome = attempt(&self.fresh, &self.base, request, left, &mut effort);
        }
        let failed = |failure: Failure| words(&self.base, &failure.error, request.time_max, ANSWER_BYTES_MAX);
        (outcome.map_err(failed), effort)
    }
}

/// Why there is no answer.
struct Failure {
    error: ureq::Error,
    /// Whether one had begun.
    answered: bool,
}

fn attempt(
    agent: &ureq::Agent,
    base: &str,
    request: &Request<'_>,
    time_max: Duration,
    effort: &mut Effort,
) -> Result<Answer, Failure> {
    let Request { path, headers, body, time_max: _ } = *request;
    let url = format!("{base}{path}");
    CONNECTED.set(false);
    let answered = if let Some(body) = body {
        let post = headers.iter().fold(agent.post(url), |post, (name, value)| post.header(*name, *value));
        post.config().timeout_global(Some(time_max)).build().send(body)
    } else {
        let get = headers.iter().fold(agent.get(url), |get, (name, value)| get.header(*name, *value));
        get.config().timeout_global(Some(time_max)).build().call()
    };
    effort.connections += u64::from(CONNECTED.get());
    let mut response = answered.map_err(|error| Failure { error, answered: false })?;
    let retry_after = response.headers().get("Retry-After").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string();
    let body = body.map_err(|error| Failure { error, answered: true })?;
    Ok(Answer { status: response.status().as_u16(), retry_after_sec: retry_after, body })
}

/// Whether the connection ended, which is what becomes of one that the server has closed.
fn is_closed(error: &ureq::Error) -> bool {
    let ureq::Error::Io(error) = error else { return false };
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
    )
}

/// Looks up nothing: requests over an open connection need no address.
#[derive(Debug)]
struct NoLookup;

impl Resolver for NoLookup {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

/// Looks up a name and connects.
#[derive(Debug)]
struct Dial {
    lookup: Arc<dyn Resolver>,
    connector: DefaultConnector,
}

impl Connector<()> for Dial {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<()>) -> Result<Option<Self::Out>, ureq::Error> {
        CONNECTED.set(true);
        let begun = Instant::now();
        let addrs = self.lookup.resolve(details.uri, details.config, details.timeout)?;
        let mut timeout = details.timeout;
        if !timeout.after.is_not_happening() {
            timeout.after = timeout.after.saturating_sub(begun.elapsed()).into();
        }
        let details = ConnectionDetails {
            addrs,
            timeout,
            now: (details.current_time)(),
            uri: details.uri,
            config: details.config,
            request_level: details.request_level,
            resolver: details.resolver,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        self.connector.connect(&details, chained)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::testing::{Asked, Server, Told, answer};
    use super::*;
    use crate::tls::testing::Identity;

    const PATIENCE: Duration = Duration::from_secs(20);
    const PLAIN: [(&str, &str); 1] = [("Authorization", "Bearer canary")];

    fn post(body: &[u8]) -> Request<'_> {
        Request { path: "/canary/calls", headers: &PLAIN, body: Some(body), time_max: PATIENCE }
    }

    fn said(asked: &Asked) -> Told {
        Told::Answer(answer(200, "", &String::from_utf8(asked.body.clone()).unwrap()))
    }

    #[test]
    fn requests_one_after_the_other_share_one_connection() {
        let server = Server::plain(said);
        let client = Pooled::new(&server.url(), 4).unwrap();
        for n in 0..20 {
            let body = n.to_string();
            let (answer, effort) = client.ask(&post(body.as_bytes()));
            assert_eq!(answer.unwrap().body, body);
            assert_eq!(effort, Effort { connections: u64::from(n == 0), is_repeated: false });
        }
        assert_eq!(server.connections(), 1);
    }

    /// Counts what is looked up.
    #[derive(Debug, Default)]
    struct Counted(AtomicUsize, DefaultResolver);

    impl Resolver for Counted {
        fn resolve(
            &self,
            uri: &Uri,
            config: &Config,
            timeout: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, ureq::Error> {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.resolve(uri, config, timeout)
        }
    }

    #[test]
    fn a_name_is_looked_up_for_a_connection_and_not_for_a_request() {
        let server = Server::plain(said);
        let counted = Arc::<Counted>::default();
        let lookup: Arc<dyn Resolver> = Arc::clone(&counted) as _;
        let url = format!("http://localhost:{}", server.address.port());
        let client = Pooled::with_lookup(&url, 4, &[], &lookup).unwrap();
        for _ in 0..5 {
            client.ask(&post(b"x")).0.unwrap();
        }
        assert_eq!((server.connections(), counted.0.load(Ordering::SeqCst)), (1, 1));
    }

    #[test]
    fn what_is_asked_arrives_and_what_is_said_comes_back() {
        let server = Server::plain(|asked| match asked.nth {
            0 => {
                assert!(asked.head.starts_with("POST /canary/calls HTTP/1.1\r\n"), "{}", asked.head);
                assert!(asked.head.to_lowercase().contains("authorization: bearer canary\r\n"), "{}", asked.head);
                Told::Answer(answer(429, "Retry-After: 7\r\n", "slower"))
            }
            1 => {
                assert!(
                    asked.head.starts_with("GET /1?fields=id HTTP/1.1\r\n") && asked.body.is_empty(),
                    "{}",
                    asked.head
                );
                Told::Answer(answer(503, "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n", ""))
            }
            _ => Told::Answer(answer(302, "Location: /else\r\n", "")),
        });
        let client = Pooled::new(&server.url(), 4).unwrap();
        let answer = client.ask(&post(b"{}")).0.unwrap();
        assert_eq!((answer.status, answer.retry_after_sec, answer.body.as_str()), (429, Some(7), "slower"));
        let get = Request { path: "/1?fields=id", headers: &PLAIN, body: None, time_max: PATIENCE };
        let answer = client.ask(&get).0.unwrap();
        assert_eq!((answer.status, answer.retry_after_sec), (503, None));
        assert_eq!(client.ask(&post(b"{}")).0.unwrap().status, 302, "no redirect is followed");
    }

    #[test]
    fn a_connection_that_was_closed_meanwhile_costs_no_failure() {
        // Closed when idle, which is seen before the next request; and just when that is under way, which is not.
        for closing in [true, false] {
            let server = Server::plain(move |asked| match (asked.connection, asked.nth) {
                (0, 0) if closing => Told::Last(answer(200, "", "first")),
                (0, 0) => Told::Answer(answer(200, "", "first")),
                (0, _) => Told::Close,
                _ => said(asked),
            });
            let client = Pooled::new(&server.url(), 4).unwrap();
            assert_eq!(client.ask(&post(b"1")).0.unwrap().body, "first");
            let (answer, effort) = client.ask(&post(b"2"));
            assert_eq!((answer.unwrap().body.as_str(), effort.connections), ("2", 1), "{closing}");
            assert!(closing || effort.is_repeated);
        }
    }

    #[test]
    fn what_a_new_connection_does_not_answer_is_not_repeated() {
        let server = Server::plain(|_| Told::Close);
        let client = Pooled::new(&server.url(), 4).unwrap();
        let (answer, effort) = client.ask(&post(b"1"));
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("failed") && !error.contains("canary"), "{error}");
        assert_eq!(effort, Effort { connections: 1, is_repeated: false });
    }

    #[test]
    fn an_answer_that_is_cut_off_is_not_asked_for_again() {
        let cut = || b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort".to_vec();
        let server = Server::plain(move |asked| match asked.nth {
            0 => Told::Answer(answer(200, "", "")),
            _ => Told::Last(cut()),
        });
        let client = Pooled::new(&server.url(), 4).unwrap();
        client.ask(&post(b"1")).0.unwrap();
        let (answer, effort) = client.ask(&post(b"2"));
        answer.unwrap_err();
        assert_eq!(effort, Effort::default(), "the server had taken it");
    }

    #[test]
    fn errors_say_what_happened_and_show_neither_path_nor_token() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let server = Server::plain(|asked| match asked.body.as_slice() {
            b"long" => Told::Answer(answer(200, "", &"x".repeat(ANSWER_BYTES_MAX as usize + 1))),
            b"nonsense" => Told::Last(b"SSH-2.0-canary\r\n\r\n".to_vec()),
            _ => Told::Hang,
        });
        let short = Duration::from_millis(50);
        for (url, body, time_max, words) in [
            (format!("http://{free}"), "", PATIENCE, "connection refused"),
            (server.url(), "", short, "did not answer within 50ms"),
            (server.url(), "long", PATIENCE, "longer than 64 KiB"),
            (server.url(), "nonsense", PATIENCE, "does not speak HTTP"),
        ] {
            let client = Pooled::new(&url, 4).unwrap();
            let error = client.ask(&Request { time_max, ..post(body.as_bytes()) }).0.unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("canary"), "{words}: {error}");
        }
        let whole = Pooled::new(&server.url(), 4).unwrap();
        let two_lines = [("Authorization", "Bearer canary\r\nHost: other")];
        let error = whole.ask(&Request { headers: &two_lines, ..post(b"") }).0.unwrap_err().to_string();
        assert!(error.contains("token") && !error.contains("canary"), "{error}");
        assert!(Pooled::new("ftp://127.0.0.1", 4).is_err());
    }

    #[test]
    fn tls_is_verified_and_its_connections_stay_open_too() {
        let identity = Identity::until(2100);
        let der = identity.der.clone();
        let server = Server::tls(identity, said);
        let url = format!("https://localhost:{}", server.address.port());
        let trusting = Pooled::with_roots(&url, 4, &[der]).unwrap();
        for n in 0..5 {
            let (answer, effort) = trusting.ask(&post(b"over TLS"));
            assert_eq!((answer.unwrap().body.as_str(), effort.connections), ("over TLS", u64::from(n == 0)));
        }
        assert_eq!(server.connections(), 1);
        let error = Pooled::with_roots(&url, 4, &[]).unwrap().ask(&post(b"")).0.unwrap_err().to_string();
        assert!(error.contains("does not trust"), "{error}");
    }
}
