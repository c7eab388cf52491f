//! Who may ask: the tokens, and where there is none, the defence against web pages.
//!
//! With tokens, they alone decide. Without one the listener is on loopback, where a browser on the same machine carries
//! any page's requests. So without a token the request must be addressed to an IP address or to `localhost` (a page
//! whose name was rebound to 127.0.0.1 still sends its own name), and must not say that another page sent it. Programs
//! such as the webhook send neither `Origin` nor `Sec-Fetch-Site`.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};

use crate::config::Secret;
use crate::http::Head;

use super::answer::Refusal;

/// The API's lock. Holds only the tokens' hashes.
pub(super) struct Gate(Vec<Digest>);

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gate({} tokens)", self.0.len())
    }
}

impl Gate {
    pub(super) fn new(tokens: &[Secret]) -> Self {
        Self(tokens.iter().map(|token| hash(token.expose())).collect())
    }

    /// Lets a request pass or says why not. `path_token` is the one of the `/k/<token>/…` form, which then decides.
    pub(super) fn admit(&self, head: &Head, path_token: Option<&str>) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return same_site(head);
        }
        // Hashes of both sides are compared, in constant time, with all tokens whichever it is: neither bytes nor length
        // nor place of a token show in the time.
        let is_one = |shown: Digest| {
            let same = |token: &Digest| verify_slices_are_equal(shown.as_ref(), token.as_ref()).is_ok();
            self.0.iter().fold(false, |found, token| found | same(token))
        };
        if path_token.or_else(|| bearer(head)).map(hash).is_some_and(is_one) {
            return Ok(());
        }
        let text = "The token is missing or wrong. Send it as `Authorization: Bearer TOKEN`, or call /k/TOKEN/api/...";
        Err(Refusal::new(401, "unauthorized", text).with("WWW-Authenticate", "Bearer"))
    }
}

/// Whether two secrets are the same, in a time that tells neither bytes nor length.
pub(super) fn secrets_match(shown: &str, secret: &str) -> bool {
    verify_slices_are_equal(hash(shown).as_ref(), hash(secret).as_ref()).is_ok()
}

fn hash(token: &str) -> Digest {
    digest(&SHA256, token.as_bytes())
}

fn bearer(head: &Head) -> Option<&str> {
    let (scheme, token) = head.header("authorization").ok()??.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn same_site(head: &Head) -> Result<(), Refusal> {
    let host = head.host.as_deref();
    if let Some(host) = host
        && !is_local_name(host)
    {
        let text = "Without BRIDGE_API_TOKEN the API answers only to localhost or an IP address in the Host header. \
                    Use one, or set BRIDGE_API_TOKEN.";
        return Err(Refusal::new(403, "host_refused", text));
    }
    let origin = head.header("origin");
    let site = head.header("sec-fetch-site");
    let own_origin = match (origin, host) {
        (Ok(None), _) => true,
        (Ok(Some(origin)), Some(host)) => {
            let stripped = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            stripped.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
        }
        _ => false,
    };
    let own_site = matches!(site, Ok(None | Some("same-origin" | "none")));
    if own_origin && own_site {
        return Ok(());
    }
    let text = "Without BRIDGE_API_TOKEN the API refuses requests that other web pages send. Set BRIDGE_API_TOKEN.";
    Err(Refusal::new(403, "cross_site", text))
}

/// `localhost` or an IP address, with or without port: no name that a resolver could point elsewhere.
fn is_local_name(authority: &str) -> bool {
    if authority.starts_with('[') {
        return true; // the parser let only an IPv6 address stand in brackets
    }
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok()
}
