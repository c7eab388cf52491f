//! Requests of many threads to one server, over connections that stay open between them: each costs one round trip.
//!
//! A name is looked up where a connection is made, and not, as ureq would, before each request. A connection that the server
//! closes just when a request goes out costs no failure: the request is repeated, once, on a connection of its own.

use std::cell::Cell;
use std::fmt;
use std::io::ErrorKind;
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
        check_scheme(url)?;
        let agent = |idle_max| {
            let config = base_config(roots)
                .max_idle_connections(idle_max)
                .max_idle_connections_per_host(idle_max)
                .max_idle_age(IDLE_TIME_MAX)
                .build();
            ureq::Agent::with_parts(config, Dial::default(), NoLookup)
        };
        Ok(Self { agent: agent(idle_max), fresh: agent(0), base: url.to_owned() })
    }

    /// Asks, and waits for the answer.
    ///
    /// Where a connection that was open already ends without an answer, the request is sent once more on a new one. Whether
    /// the server had read it cannot be known in HTTP/1.1; most often it had closed the connection as idle, and the request
    /// came too late. Browsers repeat there whatever the method is. What is asked here bears it: whoever asks repeats
    /// what was not answered anyway, as the far side of a call must hear of its end, and a webhook may come twice.
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
    let answered = match body {
        Some(body) => {
            let mut request = agent.post(url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.config().timeout_global(Some(time_max)).build().send(body)
        }
        None => {
            let mut request = agent.get(url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.config().timeout_global(Some(time_max)).build().call()
        }
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
#[derive(Debug, Default)]
struct Dial {
    lookup: DefaultResolver,
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
