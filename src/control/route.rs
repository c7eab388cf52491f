//! Paths to what they name, and the methods that each takes.

use crate::call_id::{CALL_ID_BYTES_MAX, CallId};
use crate::http::{Head, Method};

use super::answer::Refusal;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Page,
    Health,
    Ready,
    Metrics,
    Workers,
    Sessions,
    Session(CallId),
    Activate(CallId),
    SessionLatency(CallId),
    Latency,
    Drain,
    BridgeStop,
    Webhook,
}

impl Resource {
    /// The label in metrics and logs: never the path itself.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Page => "/",
            Self::Health => "/health",
            Self::Ready => "/ready",
            Self::Metrics => "/metrics",
            Self::Workers => "/api/workers",
            Self::Sessions => "/api/sessions",
            Self::Session(_) => "/api/sessions/{callId}",
            Self::Activate(_) => "/api/sessions/{callId}/activate",
            Self::SessionLatency(_) => "/api/sessions/{callId}/latency",
            Self::Latency => "/api/latency",
            Self::Drain => "/api/drain",
            Self::BridgeStop => "/bridge/stop",
            Self::Webhook => "/webhooks/whatsapp",
        }
    }

    /// For `Allow`.
    const fn methods(&self) -> &'static [Method] {
        match self {
            Self::Page
            | Self::Health
            | Self::Ready
            | Self::Metrics
            | Self::Workers
            | Self::Latency
            | Self::SessionLatency(_) => &[Method::Get, Method::Head],
            Self::Sessions | Self::Drain | Self::Webhook => &[Method::Get, Method::Head, Method::Post],
            Self::Session(_) => &[Method::Get, Method::Head, Method::Put, Method::Delete],
            Self::Activate(_) | Self::BridgeStop => &[Method::Post],
        }
    }

    /// Whether anybody may ask. A webhook has a lock of its own: its signature.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self, Self::Page | Self::Health | Self::Ready | Self::Webhook)
    }

    /// 405 unless the method is one of this resource's.
    pub(super) fn check(&self, method: &Method) -> Result<(), Refusal> {
        if self.methods().contains(method) {
            return Ok(());
        }
        let allowed: Vec<_> = self.methods().iter().map(Method::label).collect();
        let allowed = allowed.join(", ");
        let error = format!("{} takes {allowed}.", self.label());
        Err(Refusal::new(405, "method_not_allowed", error).with("Allow", allowed))
    }
}

/// Finds what a request names, and the token of the `/k/<token>/…` form.
pub(super) fn resource(head: &Head) -> (Option<&str>, Result<Resource, Refusal>) {
    let segments: Vec<&str> = head.target.segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        // The page is not served below a token: it would teach people to pass a token on with a link.
        ["k", token, rest @ ..] if !rest.is_empty() => (Some(token), named(rest)),
        path => (None, named(path)),
    }
}

fn named(path: &[&str]) -> Result<Resource, Refusal> {
    let id = |text: &str| {
        let error =
            format!("The call id in the path must be 1 to {CALL_ID_BYTES_MAX} bytes without control characters.");
        CallId::new(text).ok_or_else(|| Refusal::field(error))
    };
    match path {
        [] => Ok(Resource::Page),
        ["health"] => Ok(Resource::Health),
        ["ready"] => Ok(Resource::Ready),
        ["metrics"] => Ok(Resource::Metrics),
        ["api", "workers"] => Ok(Resource::Workers),
        ["api", "sessions"] => Ok(Resource::Sessions),
        ["api", "sessions", call] if !call.is_empty() => id(call).map(Resource::Session),
        ["api", "sessions", call, "activate"] if !call.is_empty() => id(call).map(Resource::Activate),
        ["api", "sessions", call, "latency"] if !call.is_empty() => id(call).map(Resource::SessionLatency),
        ["api", "latency"] => Ok(Resource::Latency),
        ["api", "drain"] => Ok(Resource::Drain),
        ["bridge", "stop"] => Ok(Resource::BridgeStop),
        ["webhooks", "whatsapp"] => Ok(Resource::Webhook),
        ["", ..] => {
            Err(Refusal::new(404, "not_found", "The path begins with //: take the / off the end of the base URL."))
        }
        ["api", "sessions", ..] => {
            let error = "No such path. A / inside a call id must be sent as %2F.";
            Err(Refusal::new(404, "not_found", error))
        }
        _ => Err(Refusal::new(404, "not_found", "No such path.")),
    }
}
