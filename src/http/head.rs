//! The head of a request: where it ends, whether it has one reading, and what it says.
//!
//! [`Scan`] walks the raw bytes once, however they are cut up, and refuses what parsers differ about. [`Head::parse`]
//! then names the parts. The other side's heads
//! are read in [`super::client`].

use super::framing::{self, Framing};
use super::target::{self, Target};
use super::{HEAD_BYTES_MAX, HEADERS_MAX, Problem, REQUEST_LINE_BYTES_MAX, is_token_byte, is_value_byte};

/// Longest method name looked at: the registered ones end at 17.
const METHOD_BYTES_MAX: usize = 32;

/// Finds the end of a head, remembering how far it has looked.
#[derive(Debug, Default)]
pub(super) struct Scan {
    position: usize,
    line_start: usize,
    lines: usize,
}

impl Scan {
    /// Looks at what is new in `input`, which begins with the head. Returns the length of the head once it is whole,
    /// its empty line included.
    pub(super) fn advance(&mut self, input: &[u8]) -> Result<Option<usize>, Problem> {
        while let Some(&byte) = input.get(self.position) {
            let at = self.position;
            let after_cr = at > 0 && input[at - 1] == b'\r';
            match byte {
                0 => return Err(Problem::bad("The head contains a NUL byte.")),
                b'\n' if !after_cr => return Err(Problem::framing("A line ends with LF alone; lines end with CR LF.")),
                b'\n' => {
                    if at - self.line_start == 1 {
                        return match self.lines {
                            0 => Err(Problem::bad("The request line is empty.")),
                            _ => Ok(Some(at + 1)),
                        };
                    }
                    self.lines += 1;
                    self.line_start = at + 1;
                    if self.lines > 1 + HEADERS_MAX {
                        let text = "There are more than 64 header lines.";
                        return Err(Problem { status: 431, code: "too_many_headers", text });
                    }
                }
                _ if after_cr => return Err(Problem::framing("The head contains a CR without LF.")),
                b' ' | b'\t' if at == self.line_start => {
                    return Err(Problem::framing("A line of the head begins with white space (folding is obsolete)."));
                }
                _ => {}
            }
            self.position += 1;
            if self.lines == 0 && self.position >= REQUEST_LINE_BYTES_MAX {
                let text = "The request line is longer than 8 KiB.";
                return Err(Problem { status: 414, code: "uri_too_long", text });
            }
            if self.position >= HEAD_BYTES_MAX {
                let text = "The head is longer than 16 KiB.";
                return Err(Problem { status: 431, code: "head_too_large", text });
            }
        }
        Ok(None)
    }

    /// Whether nothing of the head was seen yet.
    pub(super) fn is_new(&self) -> bool {
        self.position == 0
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Read, but for the body.
    Head,
    /// Act.
    Post,
    /// Put in place.
    Put,
    /// Take away.
    Delete,
    /// Any other; methods are case-sensitive.
    Other,
}

impl Method {
    fn parse(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }

    /// The name; `other` for those that are not served, so that logs and metrics stay bounded.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Other => "other",
        }
    }
}

/// The head of a request that has one reading.
#[derive(Clone, Debug)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub target: Target,
    /// The authority it was sent to, in lower case: from the target where that carries one, else from `Host`. Absent
    /// only in HTTP/1.0.
    pub host: Option<String>,
    /// 0 or 1, of HTTP/1.x.
    pub(super) minor: u8,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// Parses a whole head that [`Scan`] let pass.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let line_end = bytes.iter().position(|&byte| byte == b'\r').expect("the scan ended at an empty line");
        judge_request_line(&bytes[..line_end])?;
        let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut slots);
        match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(Problem::framing("The head ends in more than one place.")),
            Err(httparse::Error::HeaderName) => {
                return Err(Problem::framing("A header name is empty, or is not followed by its colon at once."));
            }
            Err(_) => return Err(Problem::bad("The head contains a byte that does not belong there.")),
        }
        let (Some(method), Some(path), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Problem::bad("The request line is not complete."));
        };
        let mut headers = Vec::with_capacity(parsed.headers.len());
        for header in parsed.headers.iter() {
            if !header.name.bytes().all(is_token_byte) || !header.value.iter().copied().all(is_value_byte) {
                return Err(Problem::bad("A header contains a byte that does not belong there."));
            }
            headers.push((header.name.to_ascii_lowercase(), header.value.trim_ascii().to_vec()));
        }

        let (target, authority) = target::parse(path)?;
        let host = host(&headers, minor)?;
        let framing = framing::judge(&headers, minor)?;
        let keep_alive = keep_alive(&headers, minor);
        Ok(Self {
            method: Method::parse(method),
            target,
            host: authority.or(host),
            minor,
            framing,
            keep_alive,
            headers,
        })
    }

    /// The value of a header that may come once, by its name in lower case. Twice, or not text: `Err`.
    pub fn header(&self, name: &str) -> Result<Option<&str>, Repeated> {
        single(&self.headers, name).map_err(|()| Repeated)?.map_or(Ok(None), |value| {
            let text = std::str::from_utf8(value).map_err(|_| Repeated)?;
            Ok(Some(text))
        })
    }
}

/// A header that may come once comes more than once, or is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated;

/// The request line is `method SP target SP version`, with nothing else that could be read as a space.
fn judge_request_line(line: &[u8]) -> Result<(), Problem> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Problem::bad("The request line is not METHOD TARGET VERSION with one space between."));
    };
    if method.is_empty() || method.len() > METHOD_BYTES_MAX || !method.iter().copied().all(is_token_byte) {
        return Err(Problem::bad("The method is not a name."));
    }
    if target.is_empty() {
        return Err(Problem::bad("The request line names no target."));
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            let text = "Only HTTP/1.1 and HTTP/1.0 are spoken here.";
            Err(Problem { status: 505, code: "http_version", text })
        }
        _ => Err(Problem::bad("The request line does not end with an HTTP version.")),
    }
}

/// The one value of a header, or an error when there are several.
pub(super) fn single<'a>(headers: &'a [(String, Vec<u8>)], name: &str) -> Result<Option<&'a [u8]>, ()> {
    let mut values = headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_slice());
    let first = values.next();
    if values.next().is_some() { Err(()) } else { Ok(first) }
}

/// RFC 9112 section 3.2: exactly one `Host` in HTTP/1.1, at most one in 1.0, and a valid one.
fn host(headers: &[(String, Vec<u8>)], minor: u8) -> Result<Option<String>, Problem> {
    let value = single(headers, "host").map_err(|()| Problem::bad("There is more than one Host header."))?;
    match value {
        None if minor == 0 => Ok(None),
        None => Err(Problem::bad("The Host header is missing.")),
        Some(value) => match target::authority(value) {
            Some(host) => Ok(Some(host)),
            None => Err(Problem::bad("The Host header is not a host name or address with an optional port.")),
        },
    }
}

/// RFC 9112 section 9.3. `close` wins over `keep-alive`.
pub(super) fn keep_alive(headers: &[(String, Vec<u8>)], minor: u8) -> bool {
    let options = || {
        let values = headers.iter().filter(|(name, _)| name == "connection").map(|(_, value)| value);
        values.flat_map(|value| value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
    };
    let says = |word: &[u8]| options().any(|option| option.eq_ignore_ascii_case(word));
    !says(b"close") && (minor == 1 || says(b"keep-alive"))
}
