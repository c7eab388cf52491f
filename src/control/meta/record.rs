//! What the API shows of a call at Meta: where it is, how fast it got there, what went wrong, and how Meta says it ended.

use serde::Serialize;

use crate::whatsapp::graph::{Action, Refused, meaning};
use crate::whatsapp::signalling::{Signalling, Timings};
use crate::whatsapp::webhook::Termination;

/// The `whatsapp` of a session.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::control) struct MetaRecord {
    #[serde(skip)]
    key: u64,
    /// What the number is called.
    number: String,
    phone_number_id: String,
    state: &'static str,
    /// From the webhook on.
    #[serde(flatten)]
    timings: TimingsView,
    /// Requests to the Graph API.
    requests: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<GraphErrorView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminate: Option<TerminationView>,
}

/// Microseconds from the webhook on.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "units are part of the names in the API")]
struct TimingsView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_accept_sent_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_accepted_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accept_sent_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_us: Option<u64>,
}

/// What the Graph API refused last, or why it was not heard.
#[derive(Clone, Debug, Serialize)]
struct GraphErrorView {
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    label: &'static str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

/// How Meta says that the call ended.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TerminationView {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_sec: Option<u64>,
    errors: Vec<MetaErrorView>,
}

#[derive(Clone, Debug, Serialize)]
struct MetaErrorView {
    code: i64,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

impl MetaRecord {
    pub(super) fn new(key: u64, number: &str, phone_number_id: &str) -> Self {
        Self {
            key,
            number: number.to_owned(),
            phone_number_id: phone_number_id.to_owned(),
            state: "opening",
            timings: TimingsView::default(),
            requests: 0,
            last_error: None,
            terminate: None,
        }
    }

    /// Our key of the call at Meta.
    pub(in crate::control) fn key(&self) -> u64 {
        self.key
    }

    pub(super) fn update(&mut self, signalling: &Signalling) {
        let Timings { pre_accept_sent, pre_accepted, connected, accept_sent, accepted } = signalling.timings();
        let us = |time: Option<std::time::Duration>| time.map(|time| time.as_micros() as u64);
        self.state = signalling.state();
        self.timings = TimingsView {
            pre_accept_sent_us: us(pre_accept_sent),
            pre_accepted_us: us(pre_accepted),
            connected_us: us(connected),
            accept_sent_us: us(accept_sent),
            accepted_us: us(accepted),
        };
    }

    pub(super) fn asked(&mut self) {
        self.requests += 1;
    }

    pub(super) fn refused(&mut self, action: Action, refused: &Refused) {
        self.last_error = Some(GraphErrorView {
            action: action.label(),
            code: Some(refused.error.code),
            label: refused.meaning.label,
            text: refused.error.text.clone(),
            advice: Some(refused.meaning.advice),
        });
    }

    pub(super) fn not_heard(&mut self, action: Action, why: &str) {
        let action = action.label();
        self.last_error =
            Some(GraphErrorView { action, code: None, label: "unclear", text: why.to_owned(), advice: None });
    }

    /// Meta says that the call is over. True where it has failed.
    pub(super) fn ended_by_meta(&mut self, termination: &Termination) -> bool {
        let Termination { status, duration_sec, errors } = termination;
        let failed = status.as_deref() == Some("FAILED") || !errors.is_empty();
        let view = |error: &crate::whatsapp::webhook::MetaError| {
            let known = meaning(error.code);
            let (label, advice) = (known.map(|known| known.label), known.map(|known| known.advice));
            MetaErrorView { code: error.code, text: error.text.clone(), label, advice }
        };
        let errors = errors.iter().map(view).collect();
        self.terminate = Some(TerminationView { status: status.clone(), duration_sec: *duration_sec, errors });
        failed
    }
}
