//! A call's life at Meta, told as it goes: at which millisecond what happens, and what is done then.

mod ends;
mod model;
mod retries;

use super::*;
use crate::messages::GraphReply;
use crate::whatsapp::graph;

/// A call in a time of its own, counted in milliseconds from its webhook.
struct Call {
    signalling: Signalling,
    start: Instant,
    now_ms: u64,
    /// When the question under way was asked.
    asked_ms: u64,
}

impl Call {
    fn of(make: fn(Instant) -> Signalling) -> Self {
        let start = Instant::now();
        Self { signalling: make(start), start, now_ms: 0, asked_ms: 0 }
    }

    /// A connect webhook has come.
    fn new() -> Self {
        Self::of(Signalling::begin)
    }

    /// One whose `pre_accept` is done after 100 ms.
    fn ringing() -> Self {
        let mut call = Self::new();
        call.answered(0);
        assert_eq!(call.steps(), ["pre_accept"]);
        call.replied(100, &Reply::Done);
        assert_eq!(call.steps(), NOTHING);
        call
    }

    /// One that is accepted after 300 ms.
    fn accepted() -> Self {
        let mut call = Self::ringing();
        call.connected(200);
        assert_eq!(call.steps(), ["accept"]);
        call.replied(300, &Reply::Done);
        assert_eq!(call.steps(), ["activate"]);
        call
    }

    fn time(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// It becomes this late, and nothing was due before.
    fn at(&mut self, ms: u64) -> Instant {
        let now = self.time(ms);
        assert!(self.signalling.poll_timeout().is_none_or(|due| due >= now), "something was due before {ms} ms");
        self.now_ms = ms;
        now
    }

    fn answered(&mut self, ms: u64) {
        let now = self.at(ms);
        self.signalling.answered(now);
    }

    fn connected(&mut self, ms: u64) {
        let now = self.at(ms);
        self.signalling.connected(now);
    }

    fn replied(&mut self, ms: u64, reply: &Reply) {
        let (now, begun) = (self.at(ms), self.time(self.asked_ms));
        self.signalling.replied(now, begun, reply);
    }

    fn ended(&mut self, ms: u64, reason: CloseReason) {
        let now = self.at(ms);
        self.signalling.ended(now, reason);
    }

    fn terminated(&mut self, ms: u64, failed: bool) {
        let now = self.at(ms);
        self.signalling.terminated(now, failed);
    }

    /// Something is due at this time and not before; it is done.
    fn due(&mut self, ms: u64) {
        assert_eq!(self.due_ms(), Some(ms));
        let before = self.time(ms).checked_sub(Duration::from_nanos(1)).unwrap();
        self.signalling.handle_timeout(before);
        assert_eq!((self.steps().len(), self.due_ms()), (0, Some(ms)), "too early is no time");
        let now = self.at(ms);
        self.signalling.handle_timeout(now);
    }

    fn due_ms(&self) -> Option<u64> {
        let due = self.signalling.poll_timeout()?;
        Some(due.saturating_duration_since(self.start).as_millis() as u64)
    }

    /// What is to be done now, in words.
    fn steps(&mut self) -> Vec<String> {
        self.steps_with_times().into_iter().map(|(step, _)| step).collect()
    }

    fn steps_with_times(&mut self) -> Vec<(String, u64)> {
        let mut steps = Vec::new();
        while let Some(step) = self.signalling.poll() {
            steps.push(match step {
                Step::Ask { action, time_max } => {
                    self.asked_ms = self.now_ms;
                    (action.label().to_owned(), time_max.as_millis() as u64)
                }
                Step::Activate => ("activate".to_owned(), 0),
                Step::HangUp(reason) => (format!("hang up: {reason}"), 0),
                Step::Settled => ("settled".to_owned(), 0),
            });
        }
        steps
    }

    fn state(&self) -> &'static str {
        self.signalling.state()
    }

    /// It is settled, and nothing follows whatever comes.
    fn assert_settled(&mut self) {
        assert_eq!((self.state(), self.due_ms()), ("settled", None));
        let mut later = self.signalling.clone();
        let now = self.time(self.now_ms + 1000);
        later.answered(now);
        later.connected(now);
        later.replied(now, now, &Reply::Done);
        later.ended(now, CloseReason::Hangup);
        later.terminated(now, true);
        later.handle_timeout(now);
        assert_eq!((later.poll(), later.poll_timeout(), later.state()), (None, None, "settled"));
    }
}

const NOTHING: [&str; 0] = [];

fn unclear() -> Reply {
    Reply::Unclear("no answer".into())
}

/// As the Graph API would say it.
fn refused_with(status: u16, code: i64, retry_after_sec: Option<u64>) -> Reply {
    let body = format!(r#"{{"error":{{"message":"No","code":{code}}}}}"#);
    graph::read(&Ok(GraphReply { status, retry_after_sec, body }))
}

/// For good: Meta does not take our SDP.
fn refused() -> Reply {
    refused_with(400, 138_008, None)
}

/// For now.
fn busy() -> Reply {
    refused_with(429, 138_005, None)
}

#[test]
fn a_call_is_pre_accepted_at_once_accepted_when_media_is_up_and_speaks_from_then_on() {
    let mut call = Call::new();
    assert_eq!((call.steps().len(), call.state()), (0, "answering"));
    call.answered(2);
    assert_eq!((call.steps_with_times(), call.state()), (vec![("pre_accept".into(), 5000)], "pre_accepting"));
    call.replied(102, &Reply::Done);
    assert_eq!((call.steps().len(), call.state()), (0, "connecting"));
    call.connected(302);
    assert_eq!((call.steps_with_times(), call.state()), (vec![("accept".into(), 5000)], "accepting"));
    call.replied(402, &Reply::Done);
    assert_eq!((call.steps(), call.state()), (vec!["activate".to_owned()], "accepted"));
    assert_eq!(call.due_ms(), None, "nothing is left to do until it ends");
    let ms = |ms| Some(Duration::from_millis(ms));
    assert_eq!(
        call.signalling.timings(),
        Timings {
            pre_accept_sent: ms(2),
            pre_accepted: ms(102),
            connected: ms(302),
            accept_sent: ms(302),
            accepted: ms(402)
        }
    );
}

#[test]
fn media_that_is_up_before_pre_accept_is_answered_waits_for_the_answer() {
    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.connected(50);
    assert_eq!(call.steps(), NOTHING);
    call.replied(100, &Reply::Done);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(150, &Reply::Done);
    assert_eq!(call.steps(), ["activate"]);
}

#[test]
fn media_that_does_not_come_up_is_not_waited_for_without_end() {
    let mut call = Call::ringing();
    call.due(100 + 8000);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(8200, &Reply::Done);
    assert_eq!(call.steps(), ["activate"]);
    call.connected(9000);
    assert_eq!((call.steps().len(), call.state()), (0, "accepted"));
    assert_eq!(call.signalling.timings().connected, Some(Duration::from_secs(9)));
    assert_eq!(call.due_ms(), None, "nothing is left to do until it ends");
}

#[test]
fn a_call_that_is_accepted_and_stays_without_media_is_ended_before_meta_ends_it() {
    let mut call = Call::ringing();
    call.due(8100);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(8200, &Reply::Done);
    assert_eq!(call.steps(), ["activate"]);
    call.due(18_200);
    assert_eq!(call.steps(), ["hang up: ice_timeout", "terminate"]);
    call.replied(18_300, &Reply::Done);
    call.ended(18_301, CloseReason::IceTimeout);
    assert_eq!(call.steps(), ["settled"]);
    call.assert_settled();
}

#[test]
fn a_late_answer_leaves_no_more_wait_for_media_than_there_is_time() {
    let mut call = Call::new();
    call.answered(19_000);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(20_000, &Reply::Done);
    call.due(25_000);
    assert_eq!(call.steps_with_times(), [("accept".into(), 5000)], "the rest of the 30 s");
}

#[test]
fn an_answer_that_does_not_come_ends_the_call_before_meta_does() {
    let mut call = Call::new();
    call.due(30_000);
    assert_eq!(call.steps(), ["hang up: accept_failed", "reject"]);
    call.answered(30_001);
    assert_eq!(call.steps(), NOTHING);
}

#[test]
fn an_answer_that_comes_too_late_to_be_taken_is_not_sent() {
    let mut call = Call::new();
    call.answered(29_500);
    assert_eq!(call.steps_with_times(), [("pre_accept".into(), 500)], "the least time that an attempt may have");
    let mut call = Call::new();
    call.answered(29_501);
    assert_eq!(call.steps(), ["hang up: accept_failed", "reject"]);
}

#[test]
fn repetitions_change_nothing() {
    let mut call = Call::accepted();
    call.answered(400);
    call.connected(400);
    call.replied(400, &Reply::Done);
    call.replied(400, &refused());
    assert_eq!((call.steps().len(), call.state()), (0, "accepted"));
    assert_eq!(call.signalling.timings().connected, Some(Duration::from_millis(200)));
}

#[test]
fn a_terminate_ends_the_call_here_and_nothing_more_is_asked() {
    for (failed, hang_up) in [(false, "hang up: terminated"), (true, "hang up: meta_failed")] {
        let mut call = Call::accepted();
        call.terminated(5000, failed);
        assert_eq!((call.steps(), call.state()), (vec![hang_up.to_owned()], "ending"));
        call.terminated(5001, !failed);
        assert_eq!(call.steps(), NOTHING, "it is said once");
        call.ended(5002, CloseReason::Terminated);
        assert_eq!(call.steps(), ["settled"]);
        call.assert_settled();
    }
}

#[test]
fn a_terminate_before_our_answer_or_while_it_rings_is_the_end() {
    let mut call = Call::new();
    call.terminated(10, false);
    assert_eq!(call.steps(), ["hang up: terminated"]);
    call.answered(20);
    assert_eq!(call.steps(), NOTHING, "no pre_accept for a call that is over");
    call.ended(30, CloseReason::Terminated);
    assert_eq!(call.steps(), ["settled"]);
    call.assert_settled();

    let mut call = Call::ringing();
    call.terminated(500, false);
    assert_eq!(call.steps(), ["hang up: terminated"]);
    call.connected(600);
    assert_eq!(call.steps(), NOTHING, "no accept for a call that is over");
    assert_eq!(call.due_ms(), None);
}

#[test]
fn an_answer_of_metas_behind_its_terminate_counts_no_more() {
    for reply in [Reply::Done, refused(), busy(), unclear()] {
        let mut call = Call::ringing();
        call.connected(200);
        assert_eq!(call.steps(), ["accept"]);
        call.terminated(250, false);
        assert_eq!(call.steps(), ["hang up: terminated"]);
        call.replied(300, &reply);
        assert_eq!((call.steps().len(), call.due_ms()), (0, None));
        call.ended(310, CloseReason::Terminated);
        assert_eq!(call.steps(), ["settled"]);
        call.assert_settled();
    }
}

#[test]
fn what_was_to_be_done_and_is_overtaken_by_the_end_is_not_done() {
    let mut call = Call::ringing();
    call.connected(200);
    call.terminated(200, false);
    assert_eq!(call.steps(), ["hang up: terminated"], "accept was not asked yet");

    let mut call = Call::ringing();
    call.connected(200);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(300, &Reply::Done);
    call.terminated(300, false);
    assert_eq!(call.steps(), ["hang up: terminated"], "audio must not start any more");

    let mut call = Call::ringing();
    call.connected(200);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(300, &Reply::Done);
    call.ended(300, CloseReason::Hangup);
    assert_eq!(call.steps(), ["terminate"]);

    let mut call = Call::ringing();
    call.connected(200);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(300, &refused());
    call.ended(300, CloseReason::Hangup);
    assert_eq!(call.steps(), ["reject"], "it is hung up already");
}
