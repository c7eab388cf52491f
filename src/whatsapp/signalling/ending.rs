//! How Meta is told that a call is over: which of the two words, which then, how often and when.

use std::time::Duration;

use super::super::graph::{Action, Reply, Retry};
use super::{retry_after, wait_before};

/// How long Meta may take to say by itself that the user has hung up, before we say that the call is over.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// Most attempts. With the waits below they cover half a minute: a restart of a proxy, a short outage. Beyond, Meta's own timers
/// end the call: 20 s to the first media, 30 s without.
pub(super) const ATTEMPTS_MAX: u32 = 5;
const WAIT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(16));
/// After a crash many calls are to be ended, the network may not be up, and nobody waits: the attempts cover two and a half minutes.
const ORPHAN_WAIT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(80));
/// What Meta is told, and how far that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ending {
    action: Action,
    /// What is tried when Meta refuses the first word: it believes the call to be elsewhere than we do.
    other: Option<Action>,
    waits: (Duration, Duration),
    attempts: u32,
    /// Whether one of the words was refused for a reason that says nothing of the call: the token, a permission.
    is_doubtful: bool,
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: Meta knows.
    Told,
    /// Nothing: Meta cannot be told.
    GiveUp,
    /// [`Ending::action`], after a while.
    Ask { wait: Duration },
}

impl Ending {
    const fn new(action: Action, other: Option<Action>) -> Self {
        Self { action, other, waits: WAIT, attempts: 0, is_doubtful: false }
    }

    /// Of a call that was accepted, or may have been.
    pub(super) const fn of_accepted() -> Self {
        Self::new(Action::Terminate, Some(Action::Reject))
    }

    /// Of a call that was not accepted.
    pub(super) const fn of_ringing() -> Self {
        Self::new(Action::Reject, Some(Action::Terminate))
    }

    /// Of a call that must not be cut off where it is accepted.
    pub(super) const fn only_reject() -> Self {
        Self::new(Action::Reject, None)
    }

    /// Of a call of which nobody knows how far it was.
    pub(super) const fn orphan() -> Self {
        Self { waits: ORPHAN_WAIT, ..Self::of_accepted() }
    }

    pub(super) const fn action(self) -> Action {
        self.action
    }

    pub(super) fn replied(&mut self, reply: &Reply) -> Next {
        self.attempts += 1;
        match reply {
            Reply::Done => Next::Told,
            Reply::Refused(refused) if refused.call_is_gone() => Next::Told,
            Reply::Refused(refused) if refused.meaning.retry == Retry::No => {
                self.is_doubtful |= !refused.call_may_be_gone();
                match self.other.take() {
                    Some(other) => {
                        self.action = other;
                        Next::Ask { wait: Duration::ZERO }
                    }
                    None if self.is_doubtful => Next::GiveUp,
                    None => Next::Told,
                }
            }
            _ if self.attempts >= ATTEMPTS_MAX => Next::GiveUp,
            _ => Next::Ask { wait: wait_before(self.attempts - 1, self.waits).max(retry_after(reply)) },
        }
    }
}
