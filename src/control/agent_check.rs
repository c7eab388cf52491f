//! HAProxy's agent-check: one line on how much more may come here, to whoever connects.
//!
//! `ready up 85%` or `drain`, then the end of our side. What is said tells the load and nothing else, so nobody is asked who
//! they are. `ready` stands in front because HAProxy leaves it to the agent to take back what the agent has set: without it
//! a bridge that drained and was started again would get no calls for ever.
//!
//! The weight follows what is free: of the calls allowed, and of the room that the rule of admission leaves on all cores;
//! the smaller counts. A full server says 1 % and not `down`: requests of its calls must still reach it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::io::{Output, StreamKey};

use super::timers::Timer;
use super::{Control, placement};

/// Those who were answered and have not closed their side: a dozen balancers with several checks each. Of more, the oldest
/// is closed on.
const ANSWERED_MAX: usize = 64;
/// Whoever was answered has this long to read and to close. The line is with the kernel by then, or nobody takes it.
const ANSWERED_TIME_MAX: Duration = Duration::from_secs(1);

/// Those who were answered, the oldest first.
#[derive(Debug, Default)]
pub(super) struct AgentCheck(VecDeque<(Instant, StreamKey)>);

impl Control {
    /// Somebody has connected: says the line and ends our side. What they send is not read for its meaning: closing on
    /// unread bytes would be a reset, which may overtake the line.
    pub(super) fn agent_asks(&mut self, now: Instant, stream: StreamKey) {
        if !self.connections.accepted_apart(stream) {
            return;
        }
        while self.agent_check.0.len() >= ANSWERED_MAX
            && let Some(&(_, oldest)) = self.agent_check.0.front()
        {
            self.agent_is_done(oldest);
        }
        let line = self.agent_line(now);
        self.outputs.push_back(Output::Write { stream, bytes: line.into_bytes() });
        self.outputs.push_back(Output::Shutdown { stream });
        let until = now + ANSWERED_TIME_MAX;
        self.agent_check.0.push_back((until, stream));
        self.timers.arm(until, Timer::AgentCheck(stream));
    }

    /// An answered agent-check has closed its side, failed, or had its time. Others are left alone.
    pub(super) fn agent_is_done(&mut self, stream: StreamKey) {
        let Some(at) = self.agent_check.0.iter().position(|(_, other)| *other == stream) else { return };
        if let Some((until, stream)) = self.agent_check.0.remove(at) {
            self.timers.disarm(until, Timer::AgentCheck(stream));
            self.close(stream);
        }
    }

    fn agent_line(&mut self, now: Instant) -> String {
        if self.is_leaving() {
            return "drain\n".to_owned();
        }
        let (calls, calls_max) = (self.calls.live(), self.config.calls_max);
        let free = 1.0 - f64::from(calls) / f64::from(calls_max);
        let room = placement::room(self.calls.places_mut(), now, self.config.admit_busy);
        let percent = (free.min(room) * 100.0).round().clamp(1.0, 100.0);
        format!("ready up {percent}%\n")
    }
}
