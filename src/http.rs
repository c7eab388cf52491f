//! An HTTP/1.1 server connection over bytes (RFC 9112), without socket, thread or clock.
//!
//! Bytes and the time go in, [`Event`]s come out. The rule of this module is that a request has one reading or none:
//! whatever two parsers could read in two ways is answered 400 and the connection closed, so that no proxy in front of
//! us can be talked into another view of where a request ends. That judgement is made on the raw bytes here;
//! `httparse` then only cuts the lines up.
//!
//! Every buffer and every wait has its maximum below. Where a request is in error the owner writes the answer
//! ([`Event::Bad`] says what to say), and the connection then closes in the order that lets the client read it.
//!
//! This module must not know what is served.

mod body;
mod chunked;
pub mod client;
mod connection;
mod framing;
mod head;
mod response;
mod target;

#[cfg(test)]
mod body_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use body::{Bodies, BodyMax, Budget};
pub use connection::{Connection, Event};
pub use head::{Head, Method};
pub use response::Response;
pub use target::Target;

/// Longest request line. The longest of ours (a token, a call id of 256 bytes all percent-encoded) stays below 2 KiB.
pub const REQUEST_LINE_BYTES_MAX: usize = 8 * 1024;
/// Longest head, request line included: what browsers send stays below 4 KiB.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header lines: browsers behind proxies send about 30.
pub const HEADERS_MAX: usize = 64;
/// Longest body, unless the owner takes longer ones ([`Bodies`]): an offer of 64 KiB with its line ends escaped, and 32 KiB of instructions, with room.
pub const BODY_BYTES_MAX: usize = 128 * 1024;
/// Chunk extensions and trailers of one body together. Nobody who means well sends any.
pub const CHUNK_EXTRA_BYTES_MAX: usize = 16 * 1024;
/// Bytes of later requests held while one is answered; beyond it the connection is not read. One head fits.
pub const PIPELINE_BYTES_MAX: usize = HEAD_BYTES_MAX;
/// A head must be whole this long after its first byte (after the connection stands, for the first).
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// A body must be whole this long after its head.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// A response must be taken by the other end this long after it was written.
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// A connection without a request is kept this long.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(15);
/// After the last response, what still comes is read and thrown away this long, and no more than
/// [`DRAIN_BYTES_MAX`]: closing with unread bytes sends a reset, which can destroy the response on its way.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);
/// See [`DRAIN_TIME_MAX`]. More than the longest body that any owner takes, for the client that does not look up while it
/// sends. They are read and thrown away, never held.
pub const DRAIN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A request, whole.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its head.
    pub head: Head,
    /// Its body, at most [`BODY_BYTES_MAX`] or what the owner's [`Bodies`] say, chunking undone.
    pub body: Vec<u8>,
    /// What covers a long body; goes back when the request and its clones are dropped.
    #[expect(dead_code, reason = "held to be dropped with the body")]
    share: Option<Arc<body::Share>>,
}

/// What is wrong with a request. After it the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status to answer.
    pub status: u16,
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people. Never quotes the request.
    pub text: &'static str,
}

impl Problem {
    /// When the same request may pass, in seconds; `None` where the fault is its own. What is in its way by then has come
    /// whole or is given up.
    pub fn retry_after_sec(&self) -> Option<u32> {
        (self.status == 503).then_some(BODY_TIME_MAX.as_secs() as u32)
    }

    const fn bad(text: &'static str) -> Self {
        Self { status: 400, code: "bad_request", text }
    }

    const fn framing(text: &'static str) -> Self {
        Self { status: 400, code: "bad_framing", text }
    }
}

/// RFC 9110 section 5.6.2, `tchar`.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 section 5.5, `field-content`: visible bytes, obs-text, space and tab.
fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
