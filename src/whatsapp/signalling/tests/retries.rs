//! What fails on the way up: tried again, passed over, or the end.

use super::*;

#[test]
fn a_refusal_for_good_ends_the_call_here_and_at_meta() {
    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(100, &refused());
    assert_eq!((call.steps(), call.state()), (vec!["hang up: accept_failed".into(), "reject".to_owned()], "ending"));
    call.ended(110, CloseReason::AcceptFailed);
    assert_eq!(call.steps(), NOTHING);
    call.replied(200, &Reply::Done);
    assert_eq!(call.steps(), ["settled"]);
    call.assert_settled();

    let mut call = Call::ringing();
    call.connected(200);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(300, &refused());
    assert_eq!(call.steps(), ["hang up: accept_failed", "reject"]);
    call.replied(400, &Reply::Done);
    assert_eq!(call.steps(), NOTHING, "settled only when the call is over here, too");
    call.ended(500, CloseReason::AcceptFailed);
    assert_eq!(call.steps(), ["settled"]);
    call.assert_settled();
}

#[test]
fn a_refusal_that_says_that_the_call_is_gone_needs_no_reject() {
    let mut call = Call::ringing();
    call.connected(200);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(300, &refused_with(500, 138_007, None));
    assert_eq!(call.steps(), ["hang up: accept_failed"]);
    call.ended(400, CloseReason::AcceptFailed);
    assert_eq!(call.steps(), ["settled"]);
}

#[test]
fn what_fails_for_now_is_tried_again_with_growing_waits() {
    for fails in [unclear(), busy(), refused_with(500, 131_000, None)] {
        let mut call = Call::new();
        call.answered(0);
        let mut at = 0;
        for wait in [250, 500, 1000, 2000, 4000] {
            assert_eq!(call.steps(), ["pre_accept"]);
            call.replied(at + 100, &fails);
            at += 100 + wait;
            call.due(at);
        }
        assert_eq!(call.steps_with_times(), [("pre_accept".into(), 10_000 - at)], "what is left of its 10 s");
        call.replied(at + 100, &fails);
        assert_eq!(call.steps(), ["accept"], "pre_accept is only recommended");
        call.replied(at + 200, &Reply::Done);
        assert_eq!(call.steps(), ["activate"]);
    }
}

#[test]
fn accept_is_tried_again_until_the_30_seconds_are_over() {
    for (fails, last) in [(unclear(), "terminate"), (busy(), "reject")] {
        let mut call = Call::ringing();
        call.connected(200);
        let mut at = 200;
        for wait in [250, 500, 1000, 2000, 4000, 4000, 4000, 4000, 4000, 4000] {
            assert_eq!(call.steps_with_times(), [("accept".into(), (30_000 - at).min(5000))]);
            call.replied(at + 100, &fails);
            at += 100 + wait;
            call.due(at);
        }
        assert_eq!(call.steps_with_times(), [("accept".into(), 30_000 - at)]);
        call.replied(at + 100, &fails);
        assert_eq!(call.steps(), ["hang up: accept_failed", last]);
    }
}

#[test]
fn a_wait_that_meta_asks_for_is_kept_where_there_is_time() {
    let later = |sec| refused_with(429, 138_005, Some(sec));
    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(100, &later(3));
    call.due(3100);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(3200, &later(15));
    call.due(18_200);
    assert_eq!(call.steps(), ["accept"], "no time for pre_accept is left then");
    call.replied(18_300, &later(20));
    assert_eq!(call.steps(), ["hang up: accept_failed", "reject"], "no time for accept is left then");

    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(100, &later(30));
    assert_eq!(call.steps(), ["hang up: accept_failed", "reject"]);
}

#[test]
fn an_accept_that_is_not_allowed_after_a_good_pre_accept_counts_as_done() {
    let not_allowed = refused_with(400, 131_055, None);
    let mut call = Call::ringing();
    call.connected(200);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(300, &not_allowed);
    assert_eq!((call.steps(), call.state()), (vec!["activate".to_owned()], "accepted"));
    assert_eq!(call.signalling.timings().accepted, Some(Duration::from_millis(300)));
    call.ended(400, CloseReason::Hangup);
    assert_eq!(call.steps(), ["terminate"]);

    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(100, &not_allowed);
    assert_eq!(call.steps(), ["hang up: accept_failed", "reject"], "of pre_accept it is a refusal");
}

#[test]
fn an_accept_that_is_not_allowed_without_a_pre_accept_is_refused() {
    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(100, &refused_with(429, 4, Some(12)));
    call.due(12_100);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(12_200, &refused_with(400, 131_055, None));
    assert_eq!(call.steps(), ["hang up: accept_failed", "reject"]);
}

#[test]
fn what_is_not_allowed_after_a_lost_answer_is_done_for_accept_and_refused_for_pre_accept() {
    let not_allowed = refused_with(400, 131_055, None);
    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(100, &refused_with(429, 4, Some(12)));
    call.due(12_100);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(12_200, &unclear());
    call.due(12_450);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(12_500, &not_allowed);
    assert_eq!(call.steps(), ["activate"], "the first was taken");

    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(100, &unclear());
    call.due(350);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(400, &not_allowed);
    assert_eq!(call.steps(), ["hang up: accept_failed", "reject"], "the number's calls are set to SIP");
}

#[test]
fn a_duplicate_after_a_lost_answer_is_our_own() {
    let duplicate = refused_with(400, 138_003, None);
    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(100, &unclear());
    call.due(350);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(400, &duplicate);
    assert_eq!((call.steps().len(), call.state()), (0, "connecting"));
    call.connected(500);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(600, &unclear());
    call.due(850);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(900, &duplicate);
    assert_eq!(call.steps(), ["activate"]);
    let timings = call.signalling.timings();
    assert_eq!(timings.pre_accept_sent, Some(Duration::ZERO), "the first counts");
    assert_eq!(timings.accept_sent, Some(Duration::from_millis(500)), "the first counts");
}

#[test]
fn a_duplicate_of_somebody_elses_call_is_not_cut_off() {
    let duplicate = refused_with(400, 138_003, None);
    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(100, &duplicate);
    assert_eq!(call.steps(), ["hang up: accept_failed", "reject"], "it must not ring on");
    call.ended(110, CloseReason::AcceptFailed);
    call.replied(200, &duplicate);
    assert_eq!(call.steps(), ["settled"], "no terminate: it would end what the other has accepted");
    assert!(!call.signalling.gave_up());
}

#[test]
fn a_duplicate_after_a_lost_pre_accept_may_be_our_own_and_is_ended_in_both_ways() {
    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.due(15_000);
    assert_eq!(call.steps(), ["accept"]);
    call.replied(15_100, &refused_with(400, 138_003, None));
    assert_eq!(call.steps(), ["hang up: accept_failed", "reject"]);
    call.replied(15_200, &refused_with(400, 100, None));
    assert_eq!(call.steps(), ["terminate"]);
}

#[test]
fn media_that_is_up_shows_that_pre_accept_was_taken() {
    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.connected(2000);
    assert_eq!(call.steps(), NOTHING);
    call.replied(5000, &unclear());
    assert_eq!(call.steps(), ["accept"], "and not pre_accept again");
    call.replied(5100, &refused_with(400, 131_055, None));
    assert_eq!(call.steps(), ["activate"], "as after a good pre_accept");

    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.replied(5000, &unclear());
    call.connected(5100);
    assert_eq!(call.steps(), ["accept"], "in the wait before the next attempt");
}

#[test]
fn a_refusal_is_a_refusal_unless_an_answer_was_lost_and_media_is_up() {
    for (lost, connected) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut call = Call::new();
        call.answered(0);
        assert_eq!(call.steps(), ["pre_accept"]);
        if lost {
            call.replied(100, &unclear());
            call.due(350);
            assert_eq!(call.steps(), ["pre_accept"]);
        }
        if connected {
            call.connected(360);
        }
        call.replied(400, &refused());
        let expected: &[&str] = if lost && connected { &["accept"] } else { &["hang up: accept_failed", "reject"] };
        assert_eq!(call.steps(), expected);
    }
}

#[test]
fn a_reply_that_never_comes_counts_as_lost_and_is_not_mistaken_for_the_next() {
    let mut call = Call::new();
    call.answered(0);
    assert_eq!(call.steps(), ["pre_accept"]);
    call.due(5000 + 10_000);
    assert_eq!(call.steps(), ["accept"], "the time for pre_accept is over");
    let (now, begun) = (call.at(15_100), call.time(3));
    call.signalling.replied(now, begun, &Reply::Done);
    assert_eq!((call.steps().len(), call.state()), (0, "accepting"), "that was pre_accept's");
    call.replied(15_200, &Reply::Done);
    assert_eq!(call.steps(), ["activate"]);
}

#[test]
fn an_end_that_waits_for_a_reply_does_not_wait_without_end() {
    let mut call = Call::ringing();
    call.connected(200);
    assert_eq!(call.steps(), ["accept"]);
    call.ended(250, CloseReason::Hangup);
    assert_eq!(call.steps(), NOTHING);
    call.due(200 + 5000 + 10_000);
    assert_eq!(call.steps(), ["terminate"], "it may have been accepted");
    call.due(15_200 + 15_000);
    call.due(30_200 + 2000);
    assert_eq!(call.steps(), ["terminate"]);
}
