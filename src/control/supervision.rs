//! What the service manager is told: a line on what this process does, and the proof that all of its loops turn.
//!
//! The proof is sent by control itself, and only when every worker has answered since the last one: workers without calls
//! sleep, so they are asked. A worker that hangs takes the proof away, and the watchdog ends a process that would go on
//! answering for calls that nobody carries. Where no watchdog is, nobody is asked.

use std::time::{Duration, Instant};

use crate::io::{Node, Output};
use crate::messages::{Message, Notice, ToWorker};

use super::Control;
use super::timers::Timer;

/// The line is told at most this often: hundreds of calls may begin and end within a second.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// What was told, and who has still to answer.
#[derive(Debug)]
pub(super) struct Supervision {
    /// How often a proof of life is wanted; `None`: there is no watchdog.
    alive_every: Option<Duration>,
    /// Workers that were asked and have not answered.
    silent: Vec<u16>,
    /// Calls, and the seconds that are left to them, as told last; and when.
    told: Option<((u32, Option<u64>), Instant)>,
    /// Whether a timer waits for the line to be looked at again.
    looks_again: bool,
}

impl Supervision {
    pub(super) fn new(alive_every: Option<Duration>) -> Self {
        Self { alive_every, silent: Vec::new(), told: None, looks_again: false }
    }

    /// Whether workers are asked whether they turn.
    pub(super) fn is_watched(&self) -> bool {
        self.alive_every.is_some()
    }
}

impl Control {
    pub(super) fn notify(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Message { to: Node::Supervisor, message: Message::Notify(notice) });
    }

    /// Asks all workers whether they turn, where a watchdog wants to know.
    pub(super) fn ask_for_life(&mut self, now: Instant) {
        let Some(every) = self.supervision.alive_every else { return };
        self.timers.arm(now + every, Timer::Alive);
        let silent = &self.supervision.silent;
        if !silent.is_empty() {
            tracing::error!(
                workers = ?silent,
                sec = every.as_secs_f64(),
                "these workers do not turn; a watchdog that waits for them ends the process (WatchdogSec)"
            );
            return;
        }
        let workers = self.present_workers();
        for &worker in &workers {
            self.tell(worker, ToWorker::Ping);
        }
        if workers.is_empty() {
            self.notify(Notice::Alive);
        }
        self.supervision.silent = workers;
    }

    /// A worker turns, or is done for good.
    pub(super) fn worker_turns(&mut self, worker: u16) {
        let silent = &mut self.supervision.silent;
        let before = silent.len();
        silent.retain(|other| *other != worker);
        if before > 0 && silent.is_empty() {
            self.notify(Notice::Alive);
        }
    }

    /// Tells the line when it has changed, and not sooner than it may.
    pub(super) fn tell_status(&mut self, now: Instant) {
        let state = (self.calls.live(), self.seconds_left(now));
        let told = self.supervision.told;
        let mut may = told.map_or(now, |(_, at)| at + STATUS_EVERY);
        let mut changed = told.is_none_or(|(told, _)| told != state);
        if changed && now >= may {
            self.notify(Notice::Status(sentence(state)));
            self.supervision.told = Some((state, now));
            (changed, may) = (false, now + STATUS_EVERY);
        }
        // What is left to calls becomes less by itself.
        let changes = state.1.is_some_and(|left| left > 0);
        if (changed || changes) && !self.supervision.looks_again {
            self.supervision.looks_again = true;
            self.timers.arm(may.max(now), Timer::Status);
        }
    }

    /// The line may be told again; it is when this turn ends, if it has changed.
    pub(super) fn status_due(&mut self) {
        self.supervision.looks_again = false;
    }
}

fn sentence((calls, seconds_left): (u32, Option<u64>)) -> String {
    let noun = if calls == 1 { "call" } else { "calls" };
    match seconds_left {
        None => format!("{calls} {noun}"),
        Some(0) => format!("stopping: {calls} {noun} {} now", if calls == 1 { "ends" } else { "end" }),
        Some(left) => {
            let verb = if calls == 1 { "remains" } else { "remain" };
            format!("draining: {calls} {noun} {verb}, at most {left} s more")
        }
    }
}
