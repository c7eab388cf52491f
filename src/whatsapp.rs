//! Meta's side of a call: the webhooks that come, the Graph API that is asked, and the order in which it wants to be.
//!
//! Bytes, answers and the time go in; what is to be asked, started or ended comes out. It owns no socket, thread or clock, and
//! must not know of HTTP connections, workers or SDP's contents. Facts are Meta's, of its pages on the Calling API and of its
//! webhooks; what is only inferred is marked so where it is used.
//!
//! Phone numbers and call ids (which decode to two of them) are personal data: no `Debug` or `Display` here shows one.

mod errors;
pub mod graph;
pub mod journal;
mod json;
pub mod numbers;
pub mod seen;
pub mod signalling;
pub mod signature;
pub mod webhook;
mod words;

use crate::config::Secret;

/// What the bridge knows of its numbers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose calls are taken; no id twice.
    pub numbers: Vec<Number>,
    /// Any of these may have signed a webhook; at least one.
    pub app_secrets: Vec<Secret>,
    /// What Meta shows when the webhook is set up.
    pub verify_token: Secret,
}

/// A phone number of the business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    /// Meta's id of it; digits.
    pub phone_number_id: String,
    /// What logs and metrics call it.
    pub name: String,
    /// What asks the Graph API for it.
    pub access_token: Secret,
    /// What becomes of its calls.
    pub calls: CallPolicy,
    /// The `config` of its sessions: JSON, an object, as `POST /api/sessions` takes it.
    pub config: String,
}

/// What becomes of the calls of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallPolicy {
    /// They are answered.
    #[default]
    Answer,
    /// They are rejected.
    Reject,
    /// They are left to somebody else: nothing is done, and their webhooks are passed on.
    Ignore,
}
