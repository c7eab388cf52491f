//! Function calls of the model, which nothing here carries out.
//!
//! A call without an output leaves the model waiting for it, so each gets one that says so, and then the model may speak.

use std::collections::VecDeque;

use super::items::NAME_BYTES_MAX;

/// Calls of one response that are answered; more than any model makes at once.
const CALLS_MAX: usize = 16;
/// Calls remembered, so that one announced twice is answered once.
const ANSWERED_MAX: usize = 64;
/// Rounds of calls in a row, without a word of the caller, after which the model is no longer asked to go on: one that
/// repeats its call would do so for ever, at the user's expense.
const ROUNDS_MAX: u32 = 5;

/// What each call is answered with.
pub(super) const OUTPUT: &str = r#"{"error":"No handler is configured for this function. Go on without it."}"#;

#[derive(Debug, Default)]
pub(super) struct Tools {
    /// Response and call.
    pending: Vec<(String, String)>,
    answered: VecDeque<String>,
    rounds: u32,
}

impl Tools {
    /// Notes a call. False when it is known already, or beyond the bounds.
    pub(super) fn handle_call(&mut self, response: &str, call: &str) -> bool {
        let known = self.answered.iter().any(|id| id == call);
        if known || self.pending.len() == CALLS_MAX || call.len() > NAME_BYTES_MAX || response.len() > NAME_BYTES_MAX {
            return false;
        }
        if self.answered.len() == ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(call.to_owned());
        self.pending.push((response.to_owned(), call.to_owned()));
        true
    }

    /// The calls of a response that is done now, and whether the model may be asked to go on after them.
    pub(super) fn handle_done(&mut self, response: &str) -> (Vec<String>, bool) {
        let calls: Vec<_> = self.pending.extract_if(.., |(of, _)| of == response).map(|(_, call)| call).collect();
        self.rounds += u32::from(!calls.is_empty());
        let go_on = !calls.is_empty() && self.rounds <= ROUNDS_MAX;
        (calls, go_on)
    }

    /// The caller has a say: the count of rounds begins anew.
    pub(super) fn handle_speech(&mut self) {
        self.rounds = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_answered_once_and_with_its_own_response() {
        let mut tools = Tools::default();
        assert!(tools.handle_call("r1", "a") && tools.handle_call("r2", "b") && !tools.handle_call("r1", "a"));
        assert_eq!(tools.handle_done("r1"), (vec!["a".into()], true));
        assert_eq!(tools.handle_done("r1"), (vec![], false));
        assert!(!tools.handle_call("r3", "a"), "answered already");
        assert_eq!(tools.handle_done("r2"), (vec!["b".into()], true));
    }

    #[test]
    fn a_model_that_calls_for_ever_is_not_asked_on() {
        let mut tools = Tools::default();
        for round in 0..ROUNDS_MAX + 3 {
            tools.handle_call("r", &round.to_string());
            assert_eq!(tools.handle_done("r").1, round < ROUNDS_MAX);
        }
        tools.handle_speech();
        tools.handle_call("r", "z");
        assert!(tools.handle_done("r").1);
    }

    #[test]
    fn hostile_numbers_of_calls_stay_bounded() {
        let mut tools = Tools::default();
        (0..10_000).for_each(|index| _ = tools.handle_call("never done", &index.to_string()));
        assert!(!tools.handle_call("r", &"x".repeat(NAME_BYTES_MAX + 1)));
        assert_eq!((tools.pending.len(), tools.answered.len()), (CALLS_MAX, CALLS_MAX));
    }
}
