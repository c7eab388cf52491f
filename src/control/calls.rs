//! What control knows of calls: by the webhook's id, by our number, and by the worker that has them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::call_id::{CallId, CallNumber, LogId};
use crate::io::StreamKey;
use crate::messages::{CallReport, LoadReport};
use crate::stats::PackedStages;

use super::connections::Ticket;
use super::json::SessionView;
use super::meta::MetaRecord;
use super::placement::Place;
use super::timers::{Timer, Timers};

/// Ended calls remembered: an hour of a busy server. With metadata at its maximum they hold 57 MB, usually 18, of which
/// packed histograms are 3 kB a call.
pub(super) const ENDED_CALLS_MAX: usize = 4096;
/// How long an ended call is remembered: long enough for a webhook's late `terminate` and for an operator to look.
pub(super) const ENDED_TIME_MAX: Duration = Duration::from_secs(3600);

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) log_id: LogId,
    pub(super) session_id: String,
    pub(super) worker: u16,
    /// SHA-256 of its offer.
    pub(super) offer_hash: [u8; 32],
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) opened: Instant,
    pub(super) phase: Phase,
    /// How long its first request took, once that is answered.
    pub(super) setup: Option<Duration>,
    /// DTLS is up.
    pub(super) connected: bool,
    /// Its end was asked for: its id may be given to a new call.
    pub(super) closing: bool,
    /// Requests that wait for it to connect or end.
    pub(super) waiting: Vec<Ticket>,
    /// What is known of it at Meta, where its webhook came here.
    pub(super) meta: Option<Box<MetaRecord>>,
}

/// Where a call is, as far as requests see.
#[derive(Debug)]
pub(super) enum Phase {
    /// The worker has not answered; these requests wait for it.
    Opening { until: Instant, waiting: Vec<Ticket> },
    /// Answered with this SDP.
    Live { answer: String },
    /// Over; this is its last report, and these are its latencies.
    Ended { report: Box<CallReport>, latency: PackedStages, forget_at: Instant },
}

impl Call {
    pub(super) fn view<'a>(&'a self, report: &'a CallReport) -> SessionView<'a> {
        SessionView::new(self, report)
    }

    /// Our key of the call at Meta, where its webhook came here.
    pub(super) fn line(&self) -> Option<u64> {
        self.meta.as_ref().map(|record| record.key())
    }

    /// Whether it has not ended.
    pub(super) fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Ended { .. })
    }

    /// Whether its id is taken: a POST of it means this call.
    pub(super) fn holds_its_id(&self) -> bool {
        !self.closing && self.is_live()
    }
}

#[derive(Debug)]
pub(super) struct Calls {
    by_number: BTreeMap<CallNumber, Call>,
    /// The latest call of each id.
    by_id: HashMap<CallId, CallNumber>,
    /// Ended calls, the oldest first.
    ended: BTreeSet<(Instant, CallNumber)>,
    /// What is known of each worker.
    places: Vec<Place>,
    opened: u64,
}

impl Calls {
    pub(super) fn new(workers: u16) -> Self {
        Self {
            by_number: BTreeMap::new(),
            by_id: HashMap::new(),
            ended: BTreeSet::new(),
            places: (0..workers).map(|_| Place::default()).collect(),
            opened: 0,
        }
    }

    /// Calls being opened or live.
    pub(super) fn live(&self) -> u32 {
        self.places.iter().map(|place| place.calls).sum()
    }

    /// What is known of each worker.
    pub(super) fn places_mut(&mut self) -> &mut [Place] {
        &mut self.places
    }

    /// A worker tells its load.
    pub(super) fn loaded(&mut self, worker: u16, report: LoadReport) {
        if let Some(place) = self.places.get_mut(usize::from(worker)) {
            place.report = Some(report);
        }
    }

    /// A number never used before.
    pub(super) fn next_number(&mut self) -> CallNumber {
        self.opened += 1;
        CallNumber(self.opened)
    }

    /// A call is being opened; an ended one of the same id is forgotten.
    pub(super) fn insert(&mut self, number: CallNumber, call: Call, timers: &mut Timers) {
        self.places[usize::from(call.worker)].add(call.opened);
        if let Some(old) = self.by_id.insert(call.id.clone(), number) {
            self.forget_ended(old, timers);
        }
        self.by_number.insert(number, call);
    }

    pub(super) fn by_number(&self, number: CallNumber) -> Option<&Call> {
        self.by_number.get(&number)
    }

    pub(super) fn by_number_mut(&mut self, number: CallNumber) -> Option<&mut Call> {
        self.by_number.get_mut(&number)
    }

    /// The latest call of an id, live or ended.
    pub(super) fn by_id(&self, id: &CallId) -> Option<CallNumber> {
        self.by_id.get(id).copied()
    }

    /// The same, whole.
    pub(super) fn latest(&self, id: &CallId) -> Option<&Call> {
        self.by_number(self.by_id(id)?)
    }

    /// The call never came to be.
    pub(super) fn remove(&mut self, number: CallNumber) -> Option<Call> {
        let call = self.by_number.remove(&number)?;
        if !matches!(call.phase, Phase::Ended { .. }) {
            self.places[usize::from(call.worker)].remove();
        }
        if self.by_id.get(&call.id) == Some(&number) {
            self.by_id.remove(&call.id);
        }
        Some(call)
    }

    /// The call is over. It is remembered while it is the latest of its id; returns its phase until now.
    pub(super) fn end(
        &mut self,
        now: Instant,
        report: Box<CallReport>,
        latency: PackedStages,
        timers: &mut Timers,
    ) -> Option<Phase> {
        let number = report.call;
        let call = self.by_number.get_mut(&number)?;
        if matches!(call.phase, Phase::Ended { .. }) {
            return None;
        }
        self.places[usize::from(call.worker)].remove();
        let forget_at = now + ENDED_TIME_MAX;
        let phase = std::mem::replace(&mut call.phase, Phase::Ended { report, latency, forget_at });
        let is_latest = self.by_id.get(&call.id) == Some(&number);
        self.ended.insert((forget_at, number));
        timers.arm(forget_at, Timer::Forget(number));
        if !is_latest {
            self.forget_ended(number, timers);
        } else if self.ended.len() > ENDED_CALLS_MAX {
            let oldest = self.ended.first().expect("more than the maximum are here").1;
            self.forget_ended(oldest, timers);
        }
        Some(phase)
    }

    /// An ended call's time is over.
    pub(super) fn forget(&mut self, number: CallNumber) {
        if let Some(Phase::Ended { forget_at, .. }) = self.by_number.get(&number).map(|call| &call.phase) {
            self.ended.remove(&(*forget_at, number));
            self.remove(number);
        }
    }

    fn forget_ended(&mut self, number: CallNumber, timers: &mut Timers) {
        if let Some(Phase::Ended { forget_at, .. }) = self.by_number.get(&number).map(|call| &call.phase) {
            timers.disarm(*forget_at, Timer::Forget(number));
            self.forget(number);
        }
    }

    /// The request on this connection no longer waits for the call.
    pub(super) fn forget_waiter(&mut self, number: Option<CallNumber>, stream: StreamKey) {
        if let Some(call) = number.and_then(|number| self.by_number.get_mut(&number)) {
            call.waiting.retain(|ticket| ticket.stream != stream);
        }
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> (usize, usize, usize) {
        (self.by_number.len(), self.by_id.len(), self.ended.len())
    }
}
