//! The request target: path segments, query, and the authority of absolute forms (RFC 3986, RFC 9112 section 3.2).

use super::Problem;

/// Path and query, percent-decoded.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// The path, split at `/` first and decoded after: a decoded segment may contain `/`. `/` has no segments.
    pub segments: Vec<String>,
    /// The query's `name=value` pairs in order.
    pub query: Vec<(String, String)>,
}

impl std::fmt::Debug for Target {
    /// Paths carry call ids and tokens: only the shape is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({} segments, {} query pairs)", self.segments.len(), self.query.len())
    }
}

/// Parses a target of origin form, absolute form, or `*`. Returns the authority where the target carries one.
pub(super) fn parse(text: &str) -> Result<(Target, Option<String>), Problem> {
    if text.starts_with('/') {
        return Ok((path_and_query(text)?, None));
    }
    let scheme = |name: &str| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let Some(rest) = ["http://", "https://"].iter().find(|name| scheme(name)).map(|name| &text[name.len()..]) else {
        return Err(Problem::bad("The target must be a path that begins with /, or an http URL."));
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let host = authority(&rest.as_bytes()[..end]).ok_or(Problem::bad("The target's host is not valid."))?;
    let target = match &rest[end..] {
        path if path.starts_with('/') => path_and_query(path)?,
        query => path_and_query(&format!("/{query}"))?,
    };
    Ok((target, Some(host)))
}

fn path_and_query(text: &str) -> Result<Target, Problem> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let segments = match path {
        "/" => Vec::new(),
        _ => path.split('/').skip(1).map(segment).collect::<Result<_, _>>()?,
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query = pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name, b"/?", true)?, decode(value, b"/?=", true)?))
        })
        .collect::<Result<_, Problem>>()?;
    Ok(Target { segments, query })
}

/// One path segment. Dot segments are refused: a proxy may have taken them out, or may yet, and see another path.
fn segment(text: &str) -> Result<String, Problem> {
    let decoded = decode(text, b"", false)?;
    if decoded == "." || decoded == ".." {
        return Err(Problem::bad("The path contains a . or .. segment."));
    }
    Ok(decoded)
}

/// Undoes percent-encoding; other bytes must be `pchar` of RFC 3986 or in `also`. `form`: `+` stands for a space.
fn decode(text: &str, also: &[u8], form: bool) -> Result<String, Problem> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (Some(high), Some(low)) = (hex(bytes.next()), hex(bytes.next())) else {
                    return Err(Problem::bad(
                        "The target contains a % that is not followed by two hexadecimal digits.",
                    ));
                };
                (high * 16 + low) as u8
            }
            b'+' if form => b' ',
            _ if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) || also.contains(&byte) => byte,
            _ => return Err(Problem::bad("The target contains a character that must be percent-encoded.")),
        });
    }
    String::from_utf8(decoded).map_err(|_| Problem::bad("The target is not UTF-8 once decoded."))
}

/// `host [":" port]` in lower case, or `None` where it is not one. No user information.
pub(super) fn authority(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']')? + 1;
        (&text[..end], &text[end..])
    } else {
        text.split_at(text.find(':').unwrap_or(text.len()))
    };
    let name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
    let host_is_sound = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(name_byte),
    };
    let port_is_sound = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    (host_is_sound && port_is_sound).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(text: &str) -> Vec<String> {
        parse(text).unwrap().0.segments
    }

    #[test]
    fn a_path_is_split_before_it_is_decoded() {
        assert_eq!(segments("/api/sessions/wacid.A%2FB%2b=%3D"), ["api", "sessions", "wacid.A/B+=="]);
        assert_eq!(segments("/api/sessions/a+b"), ["api", "sessions", "a+b"]);
        assert!(segments("/").is_empty());
        assert_eq!(segments("//api/"), ["", "api", ""]);
    }

    #[test]
    fn a_query_is_pairs() {
        let (target, _) = parse("/x?wait=connected&a+b=%26&flag&&u=http://h/?").unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let want = [pair("wait", "connected"), pair("a b", "&"), pair("flag", ""), pair("u", "http://h/?")];
        assert_eq!(target.query, want);
    }

    #[test]
    fn an_absolute_form_names_its_host() {
        let (target, host) = parse("HTTP://Bridge.Example:8080/health?x").unwrap();
        assert_eq!((target.segments[0].as_str(), host.as_deref()), ("health", Some("bridge.example:8080")));
        assert_eq!(parse("http://h?x=1").unwrap().0.query.len(), 1);
        assert!(parse("http://h").unwrap().0.segments.is_empty());
    }

    #[test]
    fn targets_that_can_be_read_in_two_ways_are_refused() {
        for bad in [
            "*",
            "h:443",
            "api/sessions",
            "ftp://h/",
            "http://",
            "http:///x",
            "http://u@h/",
            "http://h:x/",
            "/a/../b",
            "/./a",
            "/%2e%2e/a",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/a#b",
            "/a\\b",
            "/a\"b",
            "/a<b",
            "/%ff",
            "/%c0%af",
            "/a?b=%g0",
            "/\u{e9}",
        ] {
            assert!(parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn authorities_are_checked() {
        for good in ["h", "Bridge.example:8080", "127.0.0.1", "[::1]:80", "a_b"] {
            assert_eq!(authority(good.as_bytes()), Some(good.to_ascii_lowercase()));
        }
        for bad in ["", ":80", "h:", "h:65536", "h:+1", "u@h", "[::1", "[x]", "[::1]x", "a b", "h/", "h\u{e9}", "::1"] {
            assert_eq!(authority(bad.as_bytes()), None, "{bad:?} was taken");
        }
    }
}
