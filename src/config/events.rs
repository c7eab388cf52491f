//! Where events are posted, and the check that it is a place to post personal data to.

use std::fmt;

use super::{ConfigError, RealtimeUrl, Secret};

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// Where.
    pub url: EventsUrl,
    /// `Authorization: Bearer`.
    pub token: Option<Secret>,
}

/// A parsed `http://` or `https://` URL. Prints without its query, where such URLs carry secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct EventsUrl(RealtimeUrl);

impl EventsUrl {
    /// Parses a URL; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => RealtimeUrl::after_scheme(true, rest).map(Self),
            (_, Some(rest)) => RealtimeUrl::after_scheme(false, rest).map(Self),
            _ => Err("must start with https:// or http://".into()),
        }
    }

    /// The whole URL, query included: to be used and not to be shown.
    pub fn expose(&self) -> String {
        let scheme = if self.0.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.0.short_authority(), self.0.path)
    }

    /// Host, port and whether it is TLS: to be reached, not to be shown.
    pub fn place(&self) -> &RealtimeUrl {
        &self.0
    }

    /// Scheme, host and port.
    pub fn server(&self) -> String {
        let scheme = if self.0.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.0.authority())
    }
}

impl fmt::Display for EventsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, query) = match self.0.path.split_once('?') {
            Some((path, _)) => (path, "?(hidden)"),
            None => (self.0.path.as_str(), ""),
        };
        write!(f, "{}{path}{query}", self.server())
    }
}

impl fmt::Debug for EventsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Checks what the user said of events.
pub(super) fn events(
    url: Option<&str>,
    token: Option<Secret>,
    allow_plaintext: bool,
) -> Result<Option<Events>, ConfigError> {
    let fail = |setting, problem: String| Err(ConfigError { setting, problem });
    let setting = "BRIDGE_EVENTS_URL (--events-url)";
    let Some(url) = url.filter(|url| !url.is_empty()) else {
        return match token {
            None => Ok(None),
            Some(_) => fail(
                setting,
                "is needed where a token for events is set (BRIDGE_EVENTS_TOKEN): no event is sent without it".into(),
            ),
        };
    };
    let url = EventsUrl::parse(url).map_err(|problem| ConfigError { setting, problem })?;
    if !url.0.tls && !url.0.is_loopback() && !allow_plaintext {
        let problem = "is http:// beyond loopback: call ids and the token would travel in clear. \
                       Use https://, or set BRIDGE_ALLOW_PLAINTEXT_EVENTS=1";
        return fail(setting, problem.into());
    }
    Ok(Some(Events { url, token }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_prints_without_its_query() {
        let url = EventsUrl::parse("https://hooks.example/calls?key=canary").unwrap();
        assert_eq!(format!("{url} {url:?}"), ["https://hooks.example:443/calls?(hidden)"; 2].join(" "));
        assert_eq!(url.expose(), "https://hooks.example/calls?key=canary", "a default port is in no Host header");
        assert_eq!(EventsUrl::parse("http://[::1]:443").unwrap().expose(), "http://[::1]:443/");
        assert_eq!(EventsUrl::parse("http://[::1]:9").unwrap().to_string(), "http://[::1]:9/");
    }

    #[test]
    fn what_would_travel_in_clear_needs_permission() {
        let secret = || Some(Secret::new("token"));
        for url in ["http://127.0.0.1:9/", "http://localhost/", "http://[::1]/", "https://hooks.example/"] {
            assert!(events(Some(url), secret(), false).unwrap().is_some(), "{url}");
        }
        let error = events(Some("http://hooks.example/"), None, false).unwrap_err();
        assert!(error.problem.contains("BRIDGE_ALLOW_PLAINTEXT_EVENTS=1"), "{error}");
        assert!(events(Some("http://hooks.example/"), None, true).unwrap().is_some());
    }

    #[test]
    fn nonsense_is_refused_by_the_name_of_its_setting() {
        for (url, token, setting) in [
            (Some("ws://127.0.0.1/"), None, "BRIDGE_EVENTS_URL"),
            (Some("https://user:pass@hooks.example/"), None, "BRIDGE_EVENTS_URL"),
            (Some("https:///"), None, "BRIDGE_EVENTS_URL"),
            (None, Some("token"), "BRIDGE_EVENTS_URL"),
        ] {
            let error = events(url, token.map(Secret::new), false).expect_err("nonsense was taken");
            assert!(error.setting.starts_with(setting), "{url:?} blamed {error}");
        }
        assert_eq!(events(Some(""), None, false), Ok(None));
    }
}
