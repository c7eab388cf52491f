//! The life of one call at Meta: `pre_accept` with our answer at once, `accept` when media is up, audio from its 200; and an
//! end that Meta hears of, whatever fails.

use std::time::{Duration, Instant};

use crate::close_reason::CloseReason;

use super::graph::{Action, Reply};

/// One call.
#[derive(Debug)]
pub struct Signalling {}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask Meta; [`Signalling::replied`] must follow. There is never more than one question under way.
    Ask {
        /// What.
        action: Action,
        /// The answer included.
        time_max: Duration,
    },
    /// `accept` is done: audio may start.
    Activate,
    /// End the call here, for this reason; [`Signalling::ended`] follows.
    HangUp(CloseReason),
    /// Meta knows that the call is over, or can do nothing more about it: the journal may forget it.
    Settled,
}

/// When what happened, from the webhook's arrival on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// `pre_accept` was handed to the client.
    pub pre_accept_sent: Option<Duration>,
    /// It was answered with 200.
    pub pre_accepted: Option<Duration>,
    /// Media was up.
    pub connected: Option<Duration>,
    /// `accept` was handed to the client.
    pub accept_sent: Option<Duration>,
    /// It was answered with 200, or counts so.
    pub accepted: Option<Duration>,
}

impl Signalling {
    /// A connect webhook came at `now`.
    pub fn begin(now: Instant) -> Self {
        let _ = now;
        todo!()
    }

    /// A call that Meta may believe alive and that nobody here knows any more: it is only to be ended there.
    pub fn orphan(now: Instant) -> Self {
        let _ = now;
        todo!()
    }

    /// A call that is not taken: it is only to be rejected.
    pub fn refuse(now: Instant) -> Self {
        let _ = now;
        todo!()
    }

    /// Our answer to the offer is there.
    pub fn answered(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// Media is up.
    pub fn connected(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// Meta has answered what was asked, between these two times.
    pub fn replied(&mut self, now: Instant, begun: Instant, reply: &Reply) {
        let _ = (now, begun, reply);
        todo!()
    }

    /// The call is over here, for this reason.
    pub fn ended(&mut self, now: Instant, reason: CloseReason) {
        let _ = (now, reason);
        todo!()
    }

    /// A terminate webhook came.
    pub fn terminated(&mut self, now: Instant, failed: bool) {
        let _ = (now, failed);
        todo!()
    }

    /// The time is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Step> {
        todo!()
    }

    /// When [`Self::handle_timeout`] is next needed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// Whether Meta could not be told of the end.
    pub fn gave_up(&self) -> bool {
        todo!()
    }

    /// When what happened.
    pub fn timings(&self) -> Timings {
        todo!()
    }

    /// Where it is, as the API shows it: `pre_accepting`, `connecting`, `accepting`, `accepted`, `ending`, `settled`, ...
    pub fn state(&self) -> &'static str {
        todo!()
    }
}
