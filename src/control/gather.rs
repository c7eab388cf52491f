//! Questions to workers: who still has to answer, and for how long.

use std::time::Instant;

use crate::call_id::CallNumber;
use crate::messages::{CallReport, RequestId, ToWorker};
use crate::stats::{self, Stage, Stages, WorkerStats};

use super::answer::{Refusal, json_response, response};
use super::calls::Phase;
use super::connections::Ticket;
use super::latency::Form;
use super::timers::Timer;
use super::{Control, WORKER_TIME_MAX, json};

/// Questions under way at once: workers answer within some turns of their loops, and each may hold the histograms of a
/// process (400 kB).
const GATHERS_MAX: usize = 128;

/// A question under way.
#[derive(Debug)]
pub(super) struct Gather {
    ticket: Ticket,
    until: Instant,
    missing: Vec<u16>,
    question: Question,
}

#[derive(Debug)]
enum Question {
    Describe(CallNumber),
    List(Vec<CallReport>),
    CallLatency(CallNumber, Form),
    Metrics(Box<WorkerStats>),
    Latency(Box<WorkerStats>, Form),
}

impl Control {
    /// Answers with a report on this call, from its worker where it lives.
    pub(super) fn describe(&mut self, now: Instant, ticket: Ticket, number: CallNumber) {
        let Some(call) = self.calls.by_number(number) else {
            return self.refuse(now, ticket, &super::sessions::unknown_session());
        };
        if let Phase::Ended { report, .. } = &call.phase {
            let body = call.view(report).bytes();
            return self.answer(now, ticket, json_response(200, body));
        }
        let worker = call.worker;
        self.ask(now, ticket, vec![worker], Question::Describe(number));
    }

    pub(super) fn list(&mut self, now: Instant, ticket: Ticket) {
        self.ask(now, ticket, self.present_workers(), Question::List(Vec::new()));
    }

    pub(super) fn metrics(&mut self, now: Instant, ticket: Ticket) {
        self.ask(now, ticket, self.present_workers(), Question::Metrics(Box::default()));
    }

    /// Answers with the latencies of this call, from its worker where it lives.
    pub(super) fn call_latency_of(&mut self, now: Instant, ticket: Ticket, number: CallNumber, form: Form) {
        let Some(call) = self.calls.by_number(number) else {
            return self.refuse(now, ticket, &super::sessions::unknown_session());
        };
        if let Phase::Ended { latency, .. } = &call.phase {
            let response = self.call_latency_response(now, call, &latency.unpack(), form);
            return self.answer(now, ticket, response);
        }
        let worker = call.worker;
        self.ask(now, ticket, vec![worker], Question::CallLatency(number, form));
    }

    pub(super) fn latency(&mut self, now: Instant, ticket: Ticket, form: Form) {
        self.ask(now, ticket, self.present_workers(), Question::Latency(Box::default(), form));
    }

    fn ask(&mut self, now: Instant, ticket: Ticket, workers: Vec<u16>, question: Question) {
        if self.gathers.len() >= GATHERS_MAX {
            let refusal = Refusal::new(503, "busy", "Too many questions are under way. Try again.").retry_after(1);
            return self.refuse(now, ticket, &refusal);
        }
        let id = self.request_id();
        for &worker in &workers {
            self.tell(
                worker,
                match &question {
                    Question::Describe(call) => ToWorker::Describe(id, *call),
                    Question::List(_) => ToWorker::List(id),
                    Question::CallLatency(call, _) => ToWorker::Latency(id, *call),
                    Question::Metrics(_) | Question::Latency(..) => ToWorker::Stats(id),
                },
            );
        }
        let until = now + WORKER_TIME_MAX;
        self.timers.arm(until, Timer::Gather(id));
        self.gathers.insert(id, Gather { ticket, until, missing: workers, question });
        self.finish_if_whole(now, id);
    }

    pub(super) fn described(&mut self, now: Instant, id: RequestId, report: Option<&CallReport>) {
        let Some(gather) = self.gathers.remove(&id) else { return };
        self.timers.disarm(gather.until, Timer::Gather(id));
        let Question::Describe(number) = gather.question else { return };
        match (self.calls.by_number(number), report) {
            (Some(call), Some(report)) if !matches!(call.phase, Phase::Ended { .. }) => {
                let body = call.view(report).bytes();
                self.answer(now, gather.ticket, json_response(200, body));
            }
            (Some(call), None) if !matches!(call.phase, Phase::Ended { .. }) => {
                self.refuse(now, gather.ticket, &call_unknown_to_its_worker());
            }
            // It ended meanwhile, or is forgotten.
            _ => self.describe(now, gather.ticket, number),
        }
    }

    pub(super) fn listed(&mut self, now: Instant, worker: u16, id: RequestId, reports: Vec<CallReport>) {
        let Some(gather) = self.gathers.get_mut(&id) else { return };
        if let Question::List(all) = &mut gather.question {
            all.extend(reports);
            gather.missing.retain(|other| *other != worker);
            self.finish_if_whole(now, id);
        }
    }

    pub(super) fn counted(&mut self, now: Instant, worker: u16, id: RequestId, stats: &WorkerStats) {
        let Some(gather) = self.gathers.get_mut(&id) else { return };
        if let Question::Metrics(sum) | Question::Latency(sum, _) = &mut gather.question {
            sum.merge(stats);
            gather.missing.retain(|other| *other != worker);
            self.finish_if_whole(now, id);
        }
    }

    /// A worker has told the histograms of a call.
    pub(super) fn measured(&mut self, now: Instant, id: RequestId, stages: Option<Stages>) {
        let Some(gather) = self.gathers.remove(&id) else { return };
        self.timers.disarm(gather.until, Timer::Gather(id));
        let Question::CallLatency(number, form) = gather.question else { return };
        match (self.calls.by_number(number), stages) {
            (Some(call), Some(mut stages)) if !matches!(call.phase, Phase::Ended { .. }) => {
                call.setup.into_iter().for_each(|setup| stages.record(Stage::Setup, setup));
                let response = self.call_latency_response(now, call, &stages, form);
                self.answer(now, gather.ticket, response);
            }
            (Some(call), None) if !matches!(call.phase, Phase::Ended { .. }) => {
                self.refuse(now, gather.ticket, &call_unknown_to_its_worker());
            }
            // It ended meanwhile, or is forgotten.
            _ => self.call_latency_of(now, gather.ticket, number, form),
        }
    }

    /// A worker is done for good: nobody waits for it.
    pub(super) fn gone(&mut self, now: Instant, worker: u16) {
        for gather in self.gathers.values_mut() {
            gather.missing.retain(|other| *other != worker);
        }
        let whole: Vec<_> =
            self.gathers.iter().filter(|(_, gather)| gather.missing.is_empty()).map(|(id, _)| *id).collect();
        for id in whole {
            self.finish_if_whole(now, id);
        }
    }

    pub(super) fn gather_timed_out(&mut self, now: Instant, id: RequestId) {
        let Some(gather) = self.gathers.remove(&id) else { return };
        tracing::warn!(workers = ?gather.missing, "workers did not answer");
        self.refuse(now, gather.ticket, &worker_silent(&gather.missing));
    }

    fn finish_if_whole(&mut self, now: Instant, id: RequestId) {
        if self.gathers.get(&id).is_none_or(|gather| !gather.missing.is_empty()) {
            return;
        }
        let Some(gather) = self.gathers.remove(&id) else { return };
        self.timers.disarm(gather.until, Timer::Gather(id));
        match gather.question {
            Question::Describe(number) if self.has_ended(number) => self.describe(now, gather.ticket, number),
            Question::CallLatency(number, form) if self.has_ended(number) => {
                self.call_latency_of(now, gather.ticket, number, form);
            }
            // The worker stopped before it could tell of the call.
            Question::Describe(_) | Question::CallLatency(..) => {
                self.refuse(now, gather.ticket, &super::drain::draining());
            }
            Question::List(reports) => {
                // A call may have ended since it was visited.
                let live = reports.iter().filter(|report| !self.has_ended(report.call));
                let views: Vec<_> =
                    live.filter_map(|report| Some(self.calls.by_number(report.call)?.view(report))).collect();
                let body = json::sessions(&views);
                self.answer(now, gather.ticket, json_response(200, body));
            }
            Question::Latency(mut sum, form) => {
                self.recorder.read_all(&mut sum.stages, &mut sum.recent);
                let response = self.latency_response(now, None, &sum.stages, form);
                self.answer(now, gather.ticket, response);
            }
            Question::Metrics(mut sum) => {
                self.recorder.rotate(now);
                self.recorder.read_all(&mut sum.stages, &mut sum.recent);
                self.stats.connections = self.connections.count() as u64;
                self.stats.uptime_sec = now.saturating_duration_since(self.started).as_secs_f64();
                self.stats.driver = self.driver_counters.read();
                self.stats.workers = self.worker_stats(now);
                self.stats.process = self.process.read();
                self.stats.draining = self.is_leaving();
                if let Some(meta) = &self.meta {
                    self.stats.meta.alive = meta.alive() as u64;
                    self.stats.meta.forward_waiting = meta.forwarding.parcels as u64;
                }
                let text = stats::render(&self.build, &self.stats, &sum);
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                self.answer(now, gather.ticket, response(200, kind, text.into_bytes()));
            }
        }
    }

    fn worker_stats(&mut self, now: Instant) -> Vec<stats::WorkerLoad> {
        let admit_busy = self.config.admit_busy;
        let load = |place: &mut super::placement::Place| stats::WorkerLoad {
            calls: place.calls,
            admits: place.admits(now, admit_busy),
            report: place.report.unwrap_or_default(),
        };
        self.calls.places_mut().iter_mut().map(load).collect()
    }

    fn has_ended(&self, number: CallNumber) -> bool {
        self.calls.by_number(number).is_some_and(|call| matches!(call.phase, Phase::Ended { .. }))
    }
}

fn call_unknown_to_its_worker() -> Refusal {
    Refusal::new(500, "internal", "The call's worker does not know the call.")
}

/// 503: these workers did not answer in time.
pub(super) fn worker_silent(workers: &[u16]) -> Refusal {
    let error = format!("Worker {workers:?} did not answer within {} s.", WORKER_TIME_MAX.as_secs());
    Refusal::new(503, "worker_silent", error).retry_after(1)
}
