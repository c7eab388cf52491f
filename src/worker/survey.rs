//! Questions about all calls of a worker, answered a few calls a turn, so that no beat waits for them.
//!
//! While a survey is under way calls come and go. One that ends before it was visited is still in its sums, and none is
//! counted twice, since a counter that seems to fall looks like a restart to Prometheus.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::{Slot, add_report};
use crate::call::Call;
use crate::io::Deadline;
use crate::messages::{CallReport, RequestId};
use crate::slab::Slab;
use crate::stats::{Recorder, Stage, WorkerStats};

/// Calls listed per turn. Each is a report and a pass over its histograms, about 10 µs: a turn stays below 0.1 ms.
const LISTED_PER_TURN: u32 = 8;
/// Calls counted per turn: additions, but over memory that is not in the cache, about 1 µs each.
const COUNTED_PER_TURN: u32 = 64;
/// Stages read per turn, once calls are counted: each is two copies of 20 KiB, about 30 µs.
const STAGES_PER_TURN: usize = 2;
/// Surveys that wait. Control has fewer under way (128); what is beyond them it has given up.
const SURVEYS_MAX: usize = 256;

/// Something asked of all calls.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) request: RequestId,
    asked: Instant,
    /// The slot to be visited next.
    next: u32,
    /// Stages that are to be read.
    stages: &'static [Stage],
    pub(super) found: Found,
}

#[derive(Debug)]
pub(super) enum Found {
    Calls(Vec<CallReport>),
    Sums(Box<WorkerStats>),
}

/// The surveys under way, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Surveys(VecDeque<Survey>);

impl Surveys {
    /// Begins one: nothing is visited before the next [`Surveys::step`].
    pub(super) fn ask(&mut self, now: Instant, request: RequestId, found: Found) {
        if self.0.len() >= SURVEYS_MAX {
            self.0.pop_front();
        }
        let stages = match found {
            Found::Calls(_) => &[],
            Found::Sums(_) => Stage::ALL,
        };
        self.0.push_back(Survey { request, asked: now, next: 0, stages, found });
    }

    /// Visits the next few calls for the oldest, or reads the next few stages; returns it once it is whole.
    pub(super) fn step(&mut self, now: Instant, calls: &Slab<Slot>, recorder: &Recorder) -> Option<Survey> {
        let survey = self.0.front_mut()?;
        let most = match survey.found {
            Found::Calls(_) => LISTED_PER_TURN,
            Found::Sums(_) => COUNTED_PER_TURN,
        };
        let slots = calls.slots();
        let end = slots.min(survey.next.saturating_add(most));
        for slot in survey.next..end {
            let Some(Slot::Live(call)) = calls.generation(slot).and_then(|generation| calls.get(slot, generation))
            else {
                continue;
            };
            match &mut survey.found {
                Found::Calls(reports) => reports.push(reported(call, now)),
                Found::Sums(sums) => count(call, now, sums),
            }
        }
        // Calls first: a turn that has visited some reads no stages.
        if survey.next == end
            && let Found::Sums(sums) = &mut survey.found
        {
            let (these, rest) = survey.stages.split_at(survey.stages.len().min(STAGES_PER_TURN));
            for stage in these {
                recorder.read(*stage, &mut sums.stages, &mut sums.recent);
            }
            survey.stages = rest;
        }
        survey.next = end;
        if end < slots || !survey.stages.is_empty() { None } else { self.0.pop_front() }
    }

    /// A call has ended and this is its last report. Sums begun before were begun without it.
    pub(super) fn ended(&mut self, slot: u32, report: &CallReport) {
        for survey in self.0.iter_mut().filter(|survey| survey.next <= slot) {
            if let Found::Sums(sums) = &mut survey.found {
                add_report(sums, report);
            }
        }
    }

    /// Due at once while a survey is under way: each turn does a piece.
    pub(super) fn deadline(&self) -> Deadline {
        self.0.front().map_or(Deadline::NEVER, |survey| Deadline::at(survey.asked, "survey"))
    }
}

/// A call's report with its percentiles; one that cannot give it is shown empty and goes on: its own next step will show
/// what is wrong.
pub(super) fn reported(call: &Call, now: Instant) -> CallReport {
    catch_unwind(AssertUnwindSafe(|| call.report(now))).unwrap_or_else(|_| CallReport::empty(call.number()))
}

fn count(call: &Call, now: Instant, sums: &mut WorkerStats) {
    let counted = catch_unwind(AssertUnwindSafe(|| (call.counters(now), call.gauges())));
    if let Ok((report, gauges)) = counted {
        add_report(sums, &report);
        sums.gauges.add(&gauges);
    }
}
