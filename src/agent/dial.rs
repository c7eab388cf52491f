//! Which address to connect to next: happy eyeballs over a list (RFC 8305, section 5).

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Attempt;
use crate::io::{Deadline, Fault};

/// Addresses tried at most: a name with more is a mistake or an attack, and eight take 2 s to be tried.
pub(super) const ATTEMPTS_MAX: usize = 8;
/// The next address is tried after this long without an answer (RFC 8305's recommended value).
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(super) struct Dial {
    addresses: Vec<SocketAddr>,
    /// One for each address tried so far.
    tries: Vec<Try>,
    next_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Try {
    Connecting,
    Failed(Fault),
    Over,
}

impl Dial {
    pub(super) fn new(addresses: &[SocketAddr]) -> Self {
        Self { addresses: addresses.iter().copied().take(ATTEMPTS_MAX).collect(), ..Self::default() }
    }

    /// Takes up the next address, if there is one.
    pub(super) fn start(&mut self, now: Instant) -> Option<(Attempt, SocketAddr)> {
        let index = self.tries.len();
        let address = *self.addresses.get(index)?;
        self.tries.push(Try::Connecting);
        self.next_at = (index + 1 < self.addresses.len()).then_some(now + ATTEMPT_DELAY);
        Some((Attempt(index as u8), address))
    }

    /// Notes a failure. False when this attempt was not under way.
    pub(super) fn fail(&mut self, attempt: Attempt, fault: Fault) -> bool {
        match self.tries.get_mut(usize::from(attempt.0)) {
            Some(state @ Try::Connecting) => *state = Try::Failed(fault),
            _ => return false,
        }
        true
    }

    /// Ends the race, for `winner` or for nobody; the attempts that are still under way are handed to `close`.
    pub(super) fn end(&mut self, winner: Option<Attempt>, mut close: impl FnMut(Attempt)) {
        self.next_at = None;
        for (state, index) in self.tries.iter_mut().zip(0..) {
            if *state == Try::Connecting {
                *state = Try::Over;
                if winner != Some(Attempt(index)) {
                    close(Attempt(index));
                }
            }
        }
    }

    /// Whether this attempt is under way.
    pub(super) fn is_connecting(&self, attempt: Attempt) -> bool {
        self.tries.get(usize::from(attempt.0)) == Some(&Try::Connecting)
    }

    /// Whether no attempt is under way and none is left.
    pub(super) fn is_lost(&self) -> bool {
        self.tries.len() == self.addresses.len() && self.tries.iter().all(|state| *state != Try::Connecting)
    }

    /// Whether it is time for the next address.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next_at.is_some_and(|at| now >= at)
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.next_at.map_or(Deadline::NEVER, |at| Deadline::at(at, "next address"))
    }

    /// Each address with what became of it.
    pub(super) fn summary(&self) -> String {
        let mut text = String::new();
        for (address, state) in self.addresses.iter().zip(&self.tries) {
            let separator = if text.is_empty() { "" } else { "; " };
            match state {
                Try::Failed(fault) => write!(text, "{separator}{address}: {fault}"),
                Try::Connecting | Try::Over => write!(text, "{separator}{address}: no answer"),
            }
            .expect("a String takes everything");
        }
        text
    }
}
