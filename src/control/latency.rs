//! Latencies over HTTP: of the process and of one call, as JSON to be plotted or in HdrHistogram's own forms.

use std::time::{Duration, Instant};

use crate::call_id::{CallId, CallNumber};
use crate::http::{Head, Response};
use crate::stats::{Count, Stage, Stages, interval_log, percentile_text};

use super::Control;
use super::answer::{Refusal, json_response, response};
use super::calls::Call;
use super::connections::Ticket;
use super::json::LatencyView;
use super::sessions::unknown_session;

/// How latencies are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Percentiles and buckets.
    Json,
    /// HdrHistogram's percentile text.
    Hgrm,
    /// HdrHistogram's interval log.
    Log,
}

/// `?format=`.
pub(super) fn latency_form(head: &Head) -> Result<Form, Refusal> {
    let format = head.target.query.iter().find(|(name, _)| name == "format");
    match format.map_or("json", |(_, value)| value.as_str()) {
        "json" => Ok(Form::Json),
        "hgrm" => Ok(Form::Hgrm),
        "log" => Ok(Form::Log),
        _ => Err(Refusal::field("format must be json, hgrm or log.")),
    }
}

impl Control {
    /// A call's first request was answered after this time.
    pub(super) fn set_up(&mut self, call: CallNumber, took: Duration) {
        self.recorder.record(Stage::Setup, took);
        if let Some(call) = self.calls.by_number_mut(call) {
            call.setup = Some(took);
        }
    }

    pub(super) fn call_latency(
        &mut self,
        now: Instant,
        ticket: Ticket,
        id: &CallId,
        form: Form,
    ) -> Result<(), Refusal> {
        let number = self.calls.by_id(id).ok_or_else(unknown_session)?;
        self.call_latency_of(now, ticket, number, form);
        Ok(())
    }

    pub(super) fn call_latency_response(&self, now: Instant, call: &Call, stages: &Stages, form: Form) -> Response {
        self.latency_response(now, Some(call.id.expose()), stages, form)
    }

    pub(super) fn latency_response<C: Count>(
        &self,
        now: Instant,
        call_id: Option<&str>,
        stages: &Stages<C>,
        form: Form,
    ) -> Response {
        let uptime = now.saturating_duration_since(self.started);
        let text = |body: Vec<u8>| response(200, "text/plain; charset=utf-8", body);
        match form {
            Form::Json => {
                let uptime_ms = uptime.as_millis() as u64;
                json_response(200, LatencyView { call_id, uptime_ms, stages: stages.distributions() }.bytes())
            }
            Form::Hgrm => text(percentile_text(stages).into_bytes()),
            Form::Log => text(interval_log(stages, self.process.read().start_sec, uptime)),
        }
    }
}
