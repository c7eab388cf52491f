//! Who speaks when: at most one response at a time, and what the caller spoke over stays silent.
//!
//! The service makes responses by itself when the caller stops speaking, and refuses a second one while one is under way. So
//! ours wait their turn; one that crosses a response of the service on the wire is refused, and waits again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::items::NAME_BYTES_MAX;
use crate::io::Deadline;

/// Requests that wait. Plain ones are all the same to the model, so there is at most one, and one greeting.
const WAITING_MAX: usize = 4;
/// Responses remembered as silenced: their last deltas may be on the way.
const SILENCED_MAX: usize = 8;
/// A request that is neither answered nor refused for this long is forgotten, so that others may follow.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A response that we want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Whatever the model has to say.
    Plain,
    /// With these instructions in place of the session's.
    Instructed(String),
}

#[derive(Debug)]
struct Asked {
    id: u32,
    request: Request,
    until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The response under way.
    active: Option<Box<str>>,
    /// Sent; its response is not yet there.
    asked: Option<Asked>,
    /// Sent, and taken for the one under way. A refusal may still say that it is not.
    answered: Option<Asked>,
    waiting: VecDeque<Request>,
    caller_speaks: bool,
    /// The response that comes next was spoken over before it began.
    cancel_next: bool,
    silenced: VecDeque<Box<str>>,
}

impl Turns {
    pub(super) fn want(&mut self, request: Request) {
        if self.waiting.len() < WAITING_MAX && !self.waiting.contains(&request) {
            self.waiting.push_back(request);
        }
    }

    /// The request to send now, if its turn has come; it gets the number `id`.
    pub(super) fn poll(&mut self, now: Instant, id: u32) -> Option<Request> {
        if self.active.is_some() || self.asked.is_some() || self.caller_speaks {
            return None;
        }
        let request = self.waiting.pop_front()?;
        self.asked = Some(Asked { id, request: request.clone(), until: now + ANSWER_WAIT });
        Some(request)
    }

    /// A response began. True: it is to be cancelled.
    pub(super) fn handle_created(&mut self, response: &str) -> bool {
        self.active = Some(bounded(response).into());
        if self.asked.is_some() {
            self.answered = self.asked.take();
        }
        let cancel = std::mem::take(&mut self.cancel_next);
        if cancel {
            self.silence(response);
        }
        cancel
    }

    /// A response is done.
    pub(super) fn handle_done(&mut self, response: &str) {
        if self.active.as_deref().is_some_and(|active| active == bounded(response) || response.is_empty()) {
            self.active = None;
            self.answered = None;
        }
    }

    /// The service refused a request because another response is under way. `event` names the request, or nothing.
    pub(super) fn handle_busy(&mut self, event: &str) {
        let names = |asked: &mut Asked| event == format!("create_{}", asked.id);
        if let Some(asked) = self.asked.take_if(|asked| event.is_empty() || names(asked)) {
            // Spoken over meanwhile: the caller gets a reply, and that is not this one.
            if !std::mem::take(&mut self.cancel_next) {
                self.waiting.push_front(asked.request);
            }
        } else if let Some(asked) = self.answered.take_if(|asked| names(asked)) {
            self.waiting.push_front(asked.request);
        }
        self.waiting.truncate(WAITING_MAX);
    }

    /// The service refused a request for another reason: it is not tried again.
    pub(super) fn handle_refused(&mut self, event: &str) {
        if self.asked.take_if(|asked| event == format!("create_{}", asked.id)).is_some() {
            self.cancel_next = false;
        }
    }

    /// The caller began to speak. What is under way is silent from now on. `replies` says that the service answers the
    /// caller by itself: then whatever waits would only be a second answer.
    pub(super) fn handle_speech_started(&mut self, replies: bool) {
        self.caller_speaks = true;
        self.cancel_next = self.asked.is_some();
        if replies {
            self.waiting.clear();
        }
        if let Some(active) = self.active.clone() {
            self.silence(&active);
        }
    }

    pub(super) fn handle_speech_stopped(&mut self) {
        self.caller_speaks = false;
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.asked.take_if(|asked| now >= asked.until).is_some() {
            self.cancel_next = false;
        }
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.asked.as_ref().map_or(Deadline::NEVER, |asked| Deadline::at(asked.until, "response awaited"))
    }

    /// Whether this response is under way.
    pub(super) fn is_active(&self, response: &str) -> bool {
        self.active.as_deref() == Some(response)
    }

    /// Whether any response is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.active.is_some()
    }

    /// Drops what still comes of this response.
    pub(super) fn silence(&mut self, response: &str) {
        if response.is_empty() || self.is_silenced(response) {
            return;
        }
        if self.silenced.len() == SILENCED_MAX {
            self.silenced.pop_front();
        }
        self.silenced.push_back(bounded(response).into());
    }

    pub(super) fn is_silenced(&self, response: &str) -> bool {
        self.silenced.iter().any(|silenced| **silenced == *bounded(response))
    }
}

/// A name cut to the bound: hostile ones are not worth an error of their own.
fn bounded(name: &str) -> &str {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(turns: &mut Turns, id: u32) -> bool {
        turns.poll(Instant::now(), id) == Some(Request::Plain)
    }

    #[test]
    fn a_request_waits_for_the_response_under_way() {
        let mut turns = Turns::default();
        turns.handle_created("a");
        turns.want(Request::Plain);
        turns.want(Request::Plain);
        assert!(!plain(&mut turns, 1));
        turns.handle_done("other");
        assert!(!plain(&mut turns, 1));
        turns.handle_done("a");
        assert!(plain(&mut turns, 1));
        assert!(!plain(&mut turns, 2), "two plain requests are one, and it is under way");
    }

    #[test]
    fn a_request_that_crossed_a_response_is_sent_again_after_it() {
        let mut turns = Turns::default();
        turns.want(Request::Plain);
        assert!(plain(&mut turns, 1));
        // Both orders: the refusal before and after the response it collided with is announced.
        turns.handle_busy("create_1");
        turns.handle_created("theirs");
        assert!(!plain(&mut turns, 2));
        turns.handle_done("theirs");
        assert!(plain(&mut turns, 2));
        turns.handle_created("theirs too");
        turns.handle_busy("create_2");
        turns.handle_done("theirs too");
        assert!(plain(&mut turns, 3));
        turns.handle_created("ours");
        turns.handle_done("ours");
        turns.handle_busy("create_3");
        turns.handle_busy("");
        assert!(!plain(&mut turns, 4), "it was answered");
    }

    #[test]
    fn a_refusal_without_a_name_is_that_of_the_request_under_way() {
        let mut turns = Turns::default();
        turns.want(Request::Plain);
        assert!(plain(&mut turns, 1));
        turns.handle_busy("");
        assert!(plain(&mut turns, 2));
    }

    #[test]
    fn a_request_refused_for_good_makes_room() {
        let mut turns = Turns::default();
        turns.want(Request::Plain);
        assert!(plain(&mut turns, 1));
        turns.want(Request::Plain);
        turns.handle_refused("truncate_1");
        assert!(!plain(&mut turns, 2));
        turns.handle_refused("create_1");
        assert!(plain(&mut turns, 2));
    }

    #[test]
    fn a_request_without_any_answer_is_forgotten() {
        let now = Instant::now();
        let mut turns = Turns::default();
        turns.want(Request::Plain);
        assert!(turns.poll(now, 1).is_some());
        turns.want(Request::Plain);
        turns.handle_timeout(now + ANSWER_WAIT / 2);
        assert!(!plain(&mut turns, 2));
        turns.handle_timeout(now + ANSWER_WAIT);
        assert!(plain(&mut turns, 2));
    }

    #[test]
    fn nothing_is_asked_for_while_the_caller_speaks() {
        let mut turns = Turns::default();
        turns.want(Request::Plain);
        turns.handle_speech_started(true);
        turns.want(Request::Plain);
        assert!(!plain(&mut turns, 1));
        turns.handle_speech_stopped();
        assert!(plain(&mut turns, 1));
        assert!(!plain(&mut turns, 2), "what waited when the caller began is covered by the reply");
    }

    #[test]
    fn what_waits_stays_when_the_service_does_not_reply_by_itself() {
        let mut turns = Turns::default();
        turns.want(Request::Plain);
        turns.handle_speech_started(false);
        turns.handle_speech_stopped();
        assert!(plain(&mut turns, 1));
    }

    #[test]
    fn a_response_spoken_over_before_it_began_is_cancelled_when_it_begins() {
        let mut turns = Turns::default();
        turns.want(Request::Plain);
        assert!(plain(&mut turns, 1));
        turns.handle_speech_started(true);
        assert!(turns.handle_created("a") && turns.is_silenced("a"));
        turns.handle_done("a");
        assert!(!turns.handle_created("b") && !turns.is_silenced("b"));
    }

    #[test]
    fn a_request_spoken_over_and_then_refused_is_not_sent_again() {
        let mut turns = Turns::default();
        turns.want(Request::Plain);
        assert!(plain(&mut turns, 1));
        turns.handle_speech_started(true);
        turns.handle_busy("create_1");
        turns.handle_speech_stopped();
        assert!(!plain(&mut turns, 2));
        assert!(!turns.handle_created("the reply"));
    }

    #[test]
    fn memory_stays_bounded_whatever_the_names() {
        let mut turns = Turns::default();
        for index in 0..1000 {
            turns.handle_created(&format!("{index}{}", "é".repeat(10_000)));
            turns.handle_speech_started(false);
            turns.want(Request::Instructed(index.to_string()));
        }
        assert_eq!((turns.silenced.len(), turns.waiting.len()), (SILENCED_MAX, WAITING_MAX));
        assert!(turns.silenced.iter().all(|name| name.len() <= NAME_BYTES_MAX));
    }
}
