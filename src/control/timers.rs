//! What control waits for, by time.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::call_id::CallNumber;
use crate::io::StreamKey;
use crate::messages::RequestId;

/// What happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A connection's own deadline.
    Connection(StreamKey),
    /// Workers have not answered a question.
    Gather(RequestId),
    /// A worker has not answered an offer.
    Opening(CallNumber),
    /// A request has waited for its call to connect.
    Waiter(StreamKey),
    /// An ended call has been remembered long enough.
    Forget(CallNumber),
    /// Connections may be accepted again.
    Accept,
    /// An agent-check was answered, and does not close.
    AgentCheck(StreamKey),
    /// The service manager's line may be told again.
    Status,
    /// A watchdog wants to know that all loops turn.
    Alive,
    /// The other instance has not answered.
    Ask(StreamKey),
    /// The other instance is asked again to hand over.
    TakeOver,
    /// The time that a drain leaves to calls is over.
    DrainOver,
    /// The log shall say how a drain goes.
    DrainLog,
    /// Workers have not stopped.
    Stop,
    /// What a call waits for at Meta is due.
    Meta(u64),
    /// A connection to the Graph API shall be used again.
    GraphProbe,
}

impl Timer {
    const fn reason(self) -> &'static str {
        match self {
            Self::Connection(_) => "http",
            Self::Gather(_) => "workers",
            Self::Opening(_) => "opening",
            Self::Waiter(_) => "wait",
            Self::Forget(_) => "forget",
            Self::Accept => "accept",
            Self::AgentCheck(_) => "agent-check",
            Self::Status => "status",
            Self::Alive => "watchdog",
            Self::Ask(_) | Self::TakeOver => "other instance",
            Self::DrainOver | Self::DrainLog => "drain",
            Self::Stop => "stop",
            Self::Meta(_) => "meta",
            Self::GraphProbe => "graph",
        }
    }
}

/// Timers in the order of their time. Whoever arms one disarms it: there are no more than things that wait.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Timer)>);

impl Timers {
    pub(super) fn arm(&mut self, at: Instant, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(super) fn disarm(&mut self, at: Instant, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// Takes the first timer whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<Timer> {
        let (at, _) = self.0.first()?;
        if *at > now { None } else { self.0.pop_first().map(|(_, timer)| timer) }
    }

    pub(super) fn next(&self) -> Option<(Instant, &'static str)> {
        self.0.first().map(|(at, timer)| (*at, timer.reason()))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
