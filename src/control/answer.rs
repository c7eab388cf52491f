//! The shape of answers: JSON with the headers that all carry, and refusals.

use std::borrow::Cow;

use crate::http::Response;

use super::json;

/// Why a request is not done: what to say to a program, and to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) error: String,
    headers: Vec<(&'static str, String)>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, error: impl Into<String>) -> Self {
        Self { status, code, error: error.into(), headers: Vec::new() }
    }

    /// 400, for a field that is not as it must be.
    pub(super) fn field(error: impl Into<String>) -> Self {
        Self::new(400, "bad_field", error)
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// When to try again, in seconds.
    pub(super) fn retry_after(self, seconds: u32) -> Self {
        self.with("Retry-After", seconds.to_string())
    }

    pub(super) fn response(&self) -> Response {
        let mut response = json_response(self.status, json::refusal(&self.error, self.code));
        response.headers.extend(self.headers.iter().cloned());
        response
    }
}

/// A response with the headers that all carry: nothing is kept by caches, guessed by browsers or told to other sites.
pub(super) fn response(status: u16, content_type: impl Into<Cow<'static, str>>, body: Vec<u8>) -> Response {
    Response::new(status, content_type, body)
        .with("Cache-Control", "no-store")
        .with("X-Content-Type-Options", "nosniff")
        .with("Referrer-Policy", "no-referrer")
}

/// JSON.
pub(super) fn json_response(status: u16, body: Vec<u8>) -> Response {
    response(status, "application/json", body)
}
