//! The end of the process, in one direction: serving, draining, stopping, done.
//!
//! A signal or `POST /api/drain` begins a drain: no new calls, while those that live go on with all that belongs to them.
//! When the last has ended, workers stop and the process exits. At the bound the rest hear a goodbye first. A second signal
//! ends calls at once, a third waits for nobody. What is begun is never taken back: whoever was told
//! that this server goes has gone elsewhere.

use std::time::{Duration, Instant};

use crate::messages::{Ending, GOODBYE_TIME_MAX, Notice, ToWorker};

use super::answer::{Refusal, json_response};
use super::connections::Ticket;
use super::timers::Timer;
use super::{Control, Output, json};

/// Workers get this long to end their calls, beyond the time of a goodbye.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);
/// How often the log says how a drain goes.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// When a server that drains is worth asking again, in seconds: whoever asks shall be with another long before.
const RETRY_SEC: u32 = 5;

/// How far the end of the process is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Life {
    Serving,
    Draining(Drain),
    /// Workers end their calls; `left` have not said `Stopped`.
    Stopping {
        left: Vec<u16>,
        ending: Ending,
        /// Nobody is waited for beyond this.
        until: Instant,
    },
    Done,
}

/// A drain under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drain {
    since: Instant,
    /// The calls that are left then are ended.
    until: Instant,
    log_at: Instant,
    /// Whether a signal has come; a drain may be asked for by request.
    signalled: bool,
}

/// Who takes the calls that are refused here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Successor {
    /// Nobody on this machine: connections are still accepted, since a balancer asks `/ready`.
    None,
    /// Another instance, which accepts on the same listener.
    Known,
}

impl Control {
    /// Whether no new calls are taken, for good.
    pub(super) fn is_leaving(&self) -> bool {
        self.life != Life::Serving
    }

    /// SIGTERM or SIGINT.
    pub(super) fn signalled(&mut self, now: Instant) {
        let was_asked = self.is_leaving();
        self.begin_drain(now, Successor::None);
        match &mut self.life {
            Life::Draining(drain) if !drain.signalled => {
                drain.signalled = true;
                if was_asked {
                    tracing::info!("a signal while draining already; a second one ends calls at once");
                }
            }
            Life::Serving | Life::Draining(_) | Life::Stopping { ending: Ending::Goodbye, .. } => {
                tracing::warn!(calls = self.calls.live(), "a second signal: calls are ended at once");
                self.stop(now, Ending::AtOnce);
            }
            // A loop that fails asks twice within a turn: the others' calls are still hung up.
            Life::Stopping { ending: Ending::AtOnce, until, .. } if *until == now + STOP_TIME_MAX => {}
            Life::Stopping { ending: Ending::AtOnce, .. } | Life::Done => {
                tracing::warn!("a third signal: nobody is waited for");
                self.exit();
            }
        }
    }

    /// No new calls from here on. Without effect when that is so already, but that a successor may have come.
    pub(super) fn begin_drain(&mut self, now: Instant, successor: Successor) {
        if successor == Successor::Known {
            self.successor = successor;
        }
        if self.is_leaving() {
            return;
        }
        let time_max = self.config.drain.time_max;
        let drain = Drain { since: now, until: now + time_max, log_at: now + LOG_EVERY, signalled: false };
        tracing::info!(
            calls = self.calls.live(),
            sec_max = time_max.as_secs(),
            ?successor,
            "draining: new calls are refused, those that live go on (BRIDGE_DRAIN_SEC); a second signal ends them at once"
        );
        self.life = Life::Draining(drain);
        self.notify(Notice::Stopping { within: time_max + GOODBYE_TIME_MAX + STOP_TIME_MAX });
        self.timers.arm(drain.until, Timer::DrainOver);
        self.timers.arm(drain.log_at, Timer::DrainLog);
    }

    /// The time for calls to end by themselves is over.
    pub(super) fn drain_over(&mut self, now: Instant) {
        let calls = self.calls.live();
        if calls > 0 {
            tracing::warn!(
                calls,
                "the drain's time is over (BRIDGE_DRAIN_SEC): these calls hear a goodbye and are ended"
            );
            self.stop(now, Ending::Goodbye);
        }
    }

    /// Says how the drain goes.
    pub(super) fn log_drain(&mut self, now: Instant) {
        let calls = self.calls.live();
        if let Life::Draining(drain) = &mut self.life {
            drain.log_at = now + LOG_EVERY;
            self.timers.arm(drain.log_at, Timer::DrainLog);
            tracing::info!(calls, sec_left = seconds(drain.until, now), "draining: these calls remain");
        }
    }

    /// Goes on once nothing is left to wait for: calls, then workers and the answers that the end of calls has caused.
    pub(super) fn go_on_leaving(&mut self, now: Instant) {
        if let Life::Draining(drain) = &self.life
            && self.calls.live() == 0
            && (now >= drain.until || !self.waits_for_clients() && !self.waits_for_receiver())
        {
            let sec = now.saturating_duration_since(drain.since).as_secs();
            tracing::info!(sec, "drained: no call is left");
            self.stop(now, Ending::AtOnce);
        }
        if let Life::Stopping { left, .. } = &self.life
            && left.is_empty()
            && !self.connections.any_busy()
            && !self.meta_waits()
        {
            tracing::info!("stopped");
            self.exit();
        }
    }

    fn stop(&mut self, now: Instant, ending: Ending) {
        let left = self.present_workers();
        match &self.life {
            Life::Draining(drain) => {
                self.timers.disarm(drain.until, Timer::DrainOver);
                self.timers.disarm(drain.log_at, Timer::DrainLog);
            }
            Life::Stopping { until, .. } => self.timers.disarm(*until, Timer::Stop),
            Life::Serving | Life::Done => {}
        }
        for &worker in &left {
            self.tell(worker, ToWorker::Stop(ending));
        }
        let goodbye = if ending == Ending::Goodbye { GOODBYE_TIME_MAX } else { Duration::ZERO };
        let until = now + goodbye + STOP_TIME_MAX;
        self.timers.arm(until, Timer::Stop);
        self.life = Life::Stopping { left, ending, until };
    }

    /// A worker has ended all of its calls.
    pub(super) fn worker_stopped(&mut self, worker: u16) {
        if let Life::Stopping { left, .. } = &mut self.life {
            left.retain(|other| *other != worker);
        }
    }

    /// Workers or answers are not done in time.
    pub(super) fn stop_timed_out(&mut self) {
        if let Life::Stopping { left, .. } = &self.life {
            tracing::warn!(workers = ?left, "exits without waiting longer for these workers, or for clients to read");
        }
        self.exit();
    }

    /// The workers that still answer.
    pub(super) fn present_workers(&self) -> Vec<u16> {
        match &self.life {
            Life::Serving | Life::Draining(_) => (0..self.config.workers).collect(),
            Life::Stopping { left, .. } => left.clone(),
            Life::Done => Vec::new(),
        }
    }

    fn exit(&mut self) {
        if self.life != Life::Done {
            self.life = Life::Done;
            self.outputs.push_back(Output::Exit);
        }
    }

    /// How long calls may still go on, in seconds; `None` while nothing ends.
    pub(super) fn seconds_left(&self, now: Instant) -> Option<u64> {
        match &self.life {
            Life::Serving => None,
            Life::Draining(drain) => Some(seconds(drain.until, now)),
            Life::Stopping { .. } | Life::Done => Some(0),
        }
    }

    /// Answers `/api/drain`.
    pub(super) fn answer_drain(&mut self, now: Instant, ticket: Ticket) {
        let body = json::drain(self.calls.live(), self.seconds_left(now));
        self.answer(now, ticket, json_response(200, body));
    }
}

/// Seconds until then, counted up: what is left is never told to be nothing before it is.
fn seconds(until: Instant, now: Instant) -> u64 {
    until.saturating_duration_since(now).as_millis().div_ceil(1000) as u64
}

/// 503: no new calls.
pub(super) fn draining() -> Refusal {
    let error = "The server is draining: it takes no new calls. Use another, or try again when it is back.";
    Refusal::new(503, "draining", error).retry_after(RETRY_SEC)
}
