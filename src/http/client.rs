//! The other side of HTTP/1.1: requests to bytes, bytes to answers, for tools that drive a server and for a server that
//! passes requests on.
//!
//! As bounded and as sceptical as the server's side: an answer has one reading or is an error, and says so in a sentence.
//! No socket, no clock, one request at a time on a connection.

use super::framing::{self, Framing};
use super::head::{keep_alive, single};
use super::{BODY_BYTES_MAX, BodyMax, HEAD_BYTES_MAX, HEADERS_MAX, chunked};

/// A request to be sent.
#[derive(Clone, Copy, Debug)]
pub struct ClientRequest<'a> {
    /// Such as `POST`.
    pub method: &'a str,
    /// Path and query, percent-encoded.
    pub target: &'a str,
    /// The authority for `Host`.
    pub host: &'a str,
    /// For `Authorization: Bearer`.
    pub token: Option<&'a str>,
    /// A body of JSON.
    pub json: Option<&'a str>,
    /// One header more.
    pub header: Option<(&'a str, &'a str)>,
}

impl ClientRequest<'_> {
    /// The bytes. A control character in one of the texts would be another request: the owner has none there.
    pub fn encode(&self) -> Vec<u8> {
        let Self { method, target, host, token, json, header } = *self;
        let (name, value) = header.unwrap_or_default();
        let texts = [method, target, host, token.unwrap_or_default(), name, value];
        assert!(!texts.iter().any(|text| text.bytes().any(|byte| byte.is_ascii_control())), "checked by the owner");
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n");
        if let Some(token) = token {
            text.extend(["Authorization: Bearer ", token, "\r\n"]);
        }
        if header.is_some() {
            text.extend([name, ": ", value, "\r\n"]);
        }
        if let Some(json) = json {
            let length = json.len().to_string();
            text.extend(["Content-Type: application/json\r\nContent-Length: ", &length, "\r\n"]);
        }
        text.extend(["\r\n", json.unwrap_or_default()]);
        text.into_bytes()
    }
}

/// A path of these segments with this query, percent-encoded: what [`super::Target`] was read from, or a like one.
pub fn target<'a>(segments: impl IntoIterator<Item = &'a str>, query: &[(String, String)]) -> String {
    let mut text = String::new();
    for segment in segments {
        text.push('/');
        encode_into(&mut text, segment);
    }
    for (index, (name, value)) in query.iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        encode_into(&mut text, name);
        text.push('=');
        encode_into(&mut text, value);
    }
    text
}

/// Encodes all but what has no meaning anywhere (RFC 3986, unreserved).
fn encode_into(text: &mut String, part: &str) {
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.extend(['%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
}

fn hex(nibble: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(nibble)])
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// What kind of body it is.
    pub content_type: Option<String>,
    /// When to ask again.
    pub retry_after: Option<String>,
    /// The body, chunking undone.
    pub body: Vec<u8>,
    /// Whether the connection can carry another request.
    pub keep_alive: bool,
}

/// Why what came is no answer; a sentence for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer(pub &'static str);

/// Reads the answers of one connection, one after the other.
#[derive(Debug, Default)]
pub struct AnswerReader {
    input: Vec<u8>,
    head: Option<Head>,
    body: Vec<u8>,
}

#[derive(Debug)]
struct Head {
    status: u16,
    content_type: Option<String>,
    retry_after: Option<String>,
    framing: Body,
    keep_alive: bool,
}

#[derive(Debug)]
enum Body {
    Length(usize),
    Chunked(chunked::Decoder),
    /// All that comes until the other end closes.
    UntilEnd,
}

impl AnswerReader {
    /// Takes bytes; the answer, once it is whole. More bytes than one answer are an error: nothing more was asked.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Option<Answer>, NoAnswer> {
        self.input.extend_from_slice(bytes);
        while self.head.is_none() {
            if !self.read_head()? {
                return Ok(None);
            }
        }
        let head = self.head.as_mut().expect("it was read above");
        let whole = match &mut head.framing {
            Body::Length(length) => {
                self.body.append(&mut self.input);
                if self.body.len() > *length {
                    return Err(NoAnswer("the answer is longer than its Content-Length"));
                }
                self.body.len() == *length
            }
            Body::Chunked(decoder) => {
                let (taken, whole) =
                    decoder.advance(&self.input, &mut self.body).map_err(|problem| NoAnswer(problem.text))?;
                self.input.drain(..taken);
                if whole && !self.input.is_empty() {
                    return Err(NoAnswer("something follows the last chunk of the answer"));
                }
                whole
            }
            Body::UntilEnd => {
                self.body.append(&mut self.input);
                if self.body.len() > BODY_BYTES_MAX {
                    return Err(NoAnswer("the body is longer than 128 KiB"));
                }
                false
            }
        };
        Ok(if whole { self.take() } else { None })
    }

    /// The other end sends no more: an answer without a length is whole now.
    pub fn end(&mut self) -> Result<Option<Answer>, NoAnswer> {
        match &self.head {
            Some(Head { framing: Body::UntilEnd, .. }) => Ok(self.take()),
            None if self.input.is_empty() => Ok(None),
            _ => Err(NoAnswer("the connection ended in the middle of the answer")),
        }
    }

    /// Whether nothing has come since the last answer.
    pub fn is_fresh(&self) -> bool {
        self.head.is_none() && self.input.is_empty()
    }

    fn take(&mut self) -> Option<Answer> {
        let Head { status, content_type, retry_after, keep_alive, .. } = self.head.take()?;
        Some(Answer { status, content_type, retry_after, body: std::mem::take(&mut self.body), keep_alive })
    }

    /// Reads a head, if it is whole; true when there was one, which may have been an interim one (1xx).
    fn read_head(&mut self) -> Result<bool, NoAnswer> {
        let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut slots);
        let length = match parsed.parse(&self.input) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if self.input.len() > HEAD_BYTES_MAX => {
                return Err(NoAnswer("the head of the answer is longer than 16 KiB"));
            }
            Ok(httparse::Status::Partial) => return Ok(false),
            Err(_) => return Err(NoAnswer("what came is not HTTP/1.1")),
        };
        let (Some(status), Some(minor)) = (parsed.code, parsed.version) else {
            return Err(NoAnswer("what came is not HTTP/1.1"));
        };
        let headers: Vec<(String, Vec<u8>)> =
            parsed.headers.iter().map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec())).collect();
        self.input.drain(..length);
        if status == 101 {
            return Err(NoAnswer("the server switches protocols, which nobody asked for"));
        }
        if status < 200 {
            return Ok(true);
        }
        let says = |name| single(&headers, name).map_or(true, |value| value.is_some());
        let framed = says("content-length") || says("transfer-encoding");
        let (framing, keep_alive) = if matches!(status, 204 | 304) {
            (Body::Length(0), keep_alive(&headers, minor))
        } else if framed {
            let framing = framing::judge(&headers, minor).and_then(|framing| framing.within(BodyMax::DEFAULT));
            let framing = framing.map_err(|problem| NoAnswer(problem.text))?;
            let framing = match framing {
                Framing::Length(length) => Body::Length(length),
                Framing::Chunked => Body::Chunked(chunked::Decoder::default()),
            };
            (framing, keep_alive(&headers, minor))
        } else {
            (Body::UntilEnd, false)
        };
        let (content_type, retry_after) = (plain(&headers, "content-type"), plain(&headers, "retry-after"));
        self.head = Some(Head { status, content_type, retry_after, framing, keep_alive });
        Ok(true)
    }
}

/// A header that stands once and is plain text.
fn plain(headers: &[(String, Vec<u8>)], name: &str) -> Option<String> {
    let value = std::str::from_utf8(single(headers, name).ok()??).ok()?;
    (!value.contains(char::is_control)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to cut the bytes in two, and byte by byte: the same answer.
    fn read(bytes: &[u8]) -> Result<Option<Answer>, NoAnswer> {
        let mut reader = AnswerReader::default();
        let whole = reader.receive(bytes);
        for at in 0..bytes.len() {
            let mut reader = AnswerReader::default();
            let first = reader.receive(&bytes[..at]);
            // Where a whole answer stands before what is too much, it was read by then.
            if matches!(first, Ok(Some(_))) {
                continue;
            }
            let second = if first == Ok(None) { reader.receive(&bytes[at..]) } else { first };
            assert_eq!(second.is_err(), whole.is_err(), "cut at {at}");
            if whole.is_ok() {
                assert_eq!(second, whole, "cut at {at}");
            }
        }
        whole
    }

    fn answer(status: u16, body: &str, keep_alive: bool) -> Answer {
        Answer { status, content_type: None, retry_after: None, body: body.into(), keep_alive }
    }

    #[test]
    fn a_request_carries_what_a_server_needs_and_no_more() {
        let request = ClientRequest {
            method: "POST",
            target: "/a",
            host: "h:1",
            token: Some("t"),
            json: Some("{}"),
            header: None,
        };
        let text = "POST /a HTTP/1.1\r\nHost: h:1\r\nAccept: application/json\r\nAuthorization: Bearer t\r\n\
                    Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(request.encode()).unwrap(), text);
        let bare = ClientRequest { token: None, json: None, method: "DELETE", ..request };
        let text = "DELETE /a HTTP/1.1\r\nHost: h:1\r\nAccept: application/json\r\n\r\n";
        assert_eq!(String::from_utf8(bare.encode()).unwrap(), text);
        let marked = ClientRequest { header: Some(("Mark", "1")), ..bare };
        let text = "DELETE /a HTTP/1.1\r\nHost: h:1\r\nAccept: application/json\r\nMark: 1\r\n\r\n";
        assert_eq!(String::from_utf8(marked.encode()).unwrap(), text);
    }

    #[test]
    fn a_target_is_read_as_it_was_written() {
        let id = "wacid.HBgL+a/b=?&#%\u{e9} ";
        let query = [("wait".to_owned(), "connected".to_owned()), ("a=b&".to_owned(), "c d".to_owned())];
        let text = target(["api", "sessions", id], &query);
        assert!(text.starts_with("/api/sessions/wacid.HBgL%2Ba%2Fb%3D%3F%26%23%25%C3%A9%20?wait=connected&"), "{text}");
        let read = super::super::target::parse(&text).unwrap().0;
        assert_eq!(read.segments, ["api", "sessions", id]);
        assert_eq!(read.query, query);
    }

    #[test]
    fn what_is_to_be_passed_on_is_kept() {
        let bytes = b"HTTP/1.1 503 Busy\r\nContent-Type: text/plain\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n";
        let answer = AnswerReader::default().receive(bytes).unwrap().unwrap();
        assert_eq!((answer.content_type.as_deref(), answer.retry_after.as_deref()), (Some("text/plain"), Some("5")));
        let twice = b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\nRetry-After: 6\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(AnswerReader::default().receive(twice).unwrap().unwrap().retry_after, None);
    }

    #[test]
    fn answers_are_read_however_they_are_framed_and_cut() {
        let length = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(read(length), Ok(Some(answer(200, "hi", true))));
        let interim =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read(interim), Ok(Some(answer(503, "", false))));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n";
        assert_eq!(read(chunked), Ok(Some(answer(200, "hi!", true))));
        assert_eq!(read(b"HTTP/1.1 204 None\r\n\r\n"), Ok(Some(answer(204, "", true))));
        let mut reader = AnswerReader::default();
        assert_eq!(reader.receive(b"HTTP/1.0 200 OK\r\n\r\nall of"), Ok(None));
        assert_eq!(reader.receive(b" it"), Ok(None));
        assert_eq!(reader.end(), Ok(Some(answer(200, "all of it", false))));
    }

    #[test]
    fn a_connection_carries_one_answer_after_the_other() {
        let mut reader = AnswerReader::default();
        for body in ["a", "b"] {
            assert!(reader.is_fresh());
            let bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{body}");
            assert_eq!(reader.receive(bytes.as_bytes()), Ok(Some(answer(200, body, true))));
        }
        assert_eq!(reader.end(), Ok(None), "ended between two answers");
    }

    #[test]
    fn what_is_no_answer_is_an_error_with_its_reason() {
        for (bytes, why) in [
            (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], "not HTTP"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "longer than"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "more than one Content-Length"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "decimal"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "hexadecimal"),
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "switches protocols"),
        ] {
            let error = read(bytes).expect_err(why);
            assert!(error.0.contains(why), "{error:?} does not say {why:?}");
        }
        let mut reader = AnswerReader::default();
        assert_eq!(reader.receive(b"HTTP/1.1 200 OK\r\nContent-Le"), Ok(None));
        assert!(reader.end().is_err(), "cut off in the head");
        let endless = [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; HEAD_BYTES_MAX]].concat();
        assert!(AnswerReader::default().receive(&endless).is_err());
        let mut reader = AnswerReader::default();
        assert_eq!(reader.receive(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(None));
        assert!(reader.receive(&vec![b'x'; BODY_BYTES_MAX + 1]).is_err());
    }
}
