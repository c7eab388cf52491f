//! Which events of which calls have come: webhooks come again, late, and out of order.

use std::time::Instant;

use crate::call_id::CallId;

/// What an event is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// It is new.
    New,
    /// It has come before.
    Repeated,
    /// A connect of a call of which a terminate has come already.
    Over,
}

/// The kinds of events that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `connect`.
    Connect,
    /// `terminate`.
    Terminate,
}

/// What has come, bounded in number and in time.
#[derive(Debug, Default)]
pub struct Seen {}

impl Seen {
    /// Notes an event and says what it is.
    pub fn note(&mut self, now: Instant, call: &CallId, kind: Kind) -> Novelty {
        let _ = (now, call, kind);
        todo!()
    }

    /// Forgets that a connect came: it could not be taken, and Meta was asked to send it again.
    pub fn forget(&mut self, call: &CallId, kind: Kind) {
        let _ = (call, kind);
        todo!()
    }
}
