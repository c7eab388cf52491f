//! A response and its bytes.

use std::borrow::Cow;

/// What is answered. Always with `Content-Length`, never chunked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// `Content-Type`; like other headers, this program's own or checked by it.
    pub content_type: Cow<'static, str>,
    /// Other headers. Values come from this program, never from a request.
    pub headers: Vec<(&'static str, String)>,
    /// Body; left out towards HEAD, but counted.
    pub body: Vec<u8>,
    /// Whether the connection closes after it, whatever the request asked for.
    pub close: bool,
}

impl Response {
    /// A response without other headers.
    pub fn new(status: u16, content_type: impl Into<Cow<'static, str>>, body: Vec<u8>) -> Self {
        Self { status, content_type: content_type.into(), headers: Vec::new(), body, close: false }
    }

    /// The same with one header more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The bytes. `minor` is the request's; `keep_alive` whether another request may follow.
    pub(super) fn encode(self, minor: u8, keep_alive: bool, without_body: bool) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len()
        );
        for (name, value) in &self.headers {
            assert!(!value.bytes().any(|byte| byte.is_ascii_control()), "header values are this program's own");
            head.extend([name, ": ", value, "\r\n"]);
        }
        if !keep_alive {
            head.push_str("Connection: close\r\n");
        } else if minor == 0 {
            head.push_str("Connection: keep-alive\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !without_body {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
