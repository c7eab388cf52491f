//! How Meta is told of an end.

use super::*;

/// Reasons for which Meta is told at once.
const AT_ONCE: [CloseReason; 6] = [
    CloseReason::Hangup,
    CloseReason::ServerStopping,
    CloseReason::IceLost,
    CloseReason::PeerSilent,
    CloseReason::AgentClosed,
    CloseReason::MaxDuration,
];

#[test]
fn an_end_of_ours_is_a_reject_while_it_rings_and_a_terminate_from_accept_on() {
    for reason in AT_ONCE {
        let mut call = Call::new();
        call.ended(10, reason);
        assert_eq!((call.steps(), call.state()), (vec!["reject".to_owned()], "ending"));
        call.replied(100, &Reply::Done);
        assert_eq!(call.steps(), ["settled"]);
        call.assert_settled();

        let mut call = Call::ringing();
        call.ended(500, reason);
        assert_eq!(call.steps(), ["reject"]);
        call.replied(600, &Reply::Done);
        assert_eq!(call.steps(), ["settled"]);
        call.assert_settled();

        let mut call = Call::accepted();
        call.ended(500, reason);
        assert_eq!(call.steps(), ["terminate"]);
        call.replied(600, &Reply::Done);
        assert_eq!(call.steps(), ["settled"]);
        assert!(!call.signalling.gave_up());
        call.assert_settled();
    }
}

#[test]
fn a_peer_that_closes_is_given_a_moment_to_say_at_meta_that_it_hung_up() {
    let mut call = Call::accepted();
    call.ended(5000, CloseReason::PeerClosed);
    assert_eq!(call.steps(), NOTHING);
    call.terminated(6900, false);
    assert_eq!(call.steps(), ["settled"], "no request for what Meta knows, and no second hang-up");
    call.assert_settled();

    let mut call = Call::accepted();
    call.ended(5000, CloseReason::PeerClosed);
    call.due(7000);
    assert_eq!(call.steps(), ["terminate"]);
    call.replied(7100, &Reply::Done);
    assert_eq!(call.steps(), ["settled"]);

    let mut call = Call::ringing();
    call.ended(5000, CloseReason::PeerClosed);
    call.due(7000);
    assert_eq!(call.steps(), ["reject"], "it was never accepted");
}

#[test]
fn a_terminate_that_comes_while_meta_is_being_told_settles_it() {
    let mut call = Call::accepted();
    call.ended(500, CloseReason::Hangup);
    assert_eq!(call.steps(), ["terminate"]);
    call.terminated(550, false);
    assert_eq!(call.steps(), ["settled"]);
    call.assert_settled();
}

#[test]
fn an_end_while_a_question_is_under_way_waits_for_its_answer() {
    for (reply, then) in [
        (Reply::Done, "terminate"),
        (unclear(), "terminate"),
        (refused(), "reject"),
        (busy(), "reject"),
        (refused_with(400, 131_055, None), "terminate"),
    ] {
        let mut call = Call::ringing();
        call.connected(200);
        assert_eq!(call.steps(), ["accept"]);
        call.ended(250, CloseReason::Hangup);
        assert_eq!((call.steps().len(), call.state()), (0, "ending"));
        call.replied(300, &reply);
        assert_eq!(call.steps(), [then], "{reply:?}");
    }
    for reply in [Reply::Done, unclear(), refused(), busy()] {
        let mut call = Call::new();
        call.answered(0);
        assert_eq!(call.steps(), ["pre_accept"]);
        call.ended(50, CloseReason::IceTimeout);
        assert_eq!(call.steps(), NOTHING);
        call.replied(100, &reply);
        assert_eq!(call.steps(), ["reject"], "{reply:?}");
    }
}

#[test]
fn an_answer_that_says_that_the_call_is_gone_needs_no_reject() {
    let mut call = Call::ringing();
    call.connected(200);
    assert_eq!(call.steps(), ["accept"]);
    call.ended(250, CloseReason::Hangup);
    call.replied(300, &refused_with(500, 138_007, None));
    assert_eq!(call.steps(), ["settled"]);
    call.assert_settled();
}

#[test]
fn a_peer_that_closes_while_a_question_is_under_way_is_given_its_moment_after_the_answer() {
    let mut call = Call::ringing();
    call.connected(200);
    assert_eq!(call.steps(), ["accept"]);
    call.ended(250, CloseReason::PeerClosed);
    call.replied(300, &Reply::Done);
    assert_eq!(call.steps(), NOTHING);
    call.due(2300);
    assert_eq!(call.steps(), ["terminate"]);
}

#[test]
fn a_word_that_meta_refuses_is_followed_by_the_other() {
    let gone = refused_with(400, 100, None);
    for (accepted, words) in [(false, ["reject", "terminate"]), (true, ["terminate", "reject"])] {
        let mut call = if accepted { Call::accepted() } else { Call::ringing() };
        call.ended(500, CloseReason::Hangup);
        assert_eq!(call.steps(), [words[0]]);
        call.replied(600, &gone);
        assert_eq!(call.steps(), [words[1]]);
        call.replied(700, &gone);
        assert_eq!(call.steps(), ["settled"]);
        assert!(!call.signalling.gave_up(), "two parameters that are invalid: the call is not there");
        call.assert_settled();
    }
}

#[test]
fn refusals_that_say_nothing_of_the_call_leave_a_doubt() {
    let (gone, token) = (refused_with(400, 100, None), refused_with(401, 190, None));
    for replies in [[&token, &token], [&token, &gone], [&gone, &token]] {
        let mut call = Call::accepted();
        call.ended(500, CloseReason::Hangup);
        for (reply, word) in replies.iter().zip(["terminate", "reject"]) {
            assert_eq!(call.steps(), [word]);
            call.replied(600, reply);
        }
        assert_eq!(call.steps(), ["settled"]);
        assert!(call.signalling.gave_up());
        call.assert_settled();
    }
}

#[test]
fn meta_is_told_again_until_it_answers_or_nothing_more_can_be_done() {
    let mut call = Call::accepted();
    call.ended(1000, CloseReason::Hangup);
    let mut at = 1000;
    for wait in [2000, 4000, 8000, 16_000] {
        assert_eq!(call.steps_with_times(), [("terminate".into(), 5000)]);
        call.replied(at + 100, &unclear());
        assert_eq!(call.steps(), NOTHING);
        at += 100 + wait;
        call.due(at);
    }
    assert_eq!(call.steps(), ["terminate"], "the fifth");
    call.replied(at + 100, &busy());
    assert_eq!(call.steps(), ["settled"]);
    assert!(call.signalling.gave_up());
    call.assert_settled();
}

#[test]
fn a_wait_that_meta_asks_for_is_kept_when_telling_it() {
    let mut call = Call::accepted();
    call.ended(1000, CloseReason::Hangup);
    assert_eq!(call.steps(), ["terminate"]);
    call.replied(1100, &refused_with(429, 4, Some(45)));
    call.due(46_100);
    assert_eq!(call.steps(), ["terminate"]);
    call.replied(46_200, &Reply::Done);
    assert_eq!(call.steps(), ["settled"]);
    assert!(!call.signalling.gave_up());
}

#[test]
fn an_orphan_is_terminated_or_rejected_with_longer_waits() {
    let mut call = Call::of(Signalling::orphan);
    assert_eq!(call.state(), "ending");
    let mut at = 0;
    for wait in [10_000, 20_000, 40_000, 80_000] {
        assert_eq!(call.steps(), ["terminate"]);
        call.replied(at + 100, &unclear());
        at += 100 + wait;
        call.due(at);
    }
    assert_eq!(call.steps(), ["terminate"]);
    call.replied(at + 100, &refused_with(400, 100, None));
    assert_eq!(call.steps(), ["reject"], "it was still ringing");
    call.replied(at + 200, &Reply::Done);
    assert_eq!(call.steps(), ["settled"]);
    assert!(!call.signalling.gave_up());
    call.assert_settled();

    let mut call = Call::of(Signalling::orphan);
    assert_eq!(call.steps(), ["terminate"]);
    call.terminated(50, false);
    assert_eq!(call.steps(), ["settled"], "nobody is here to be hung up");
    call.assert_settled();
}

#[test]
fn a_call_that_is_not_taken_is_rejected_and_nothing_else() {
    for reply in [Reply::Done, refused_with(400, 100, None)] {
        let mut call = Call::of(Signalling::refuse);
        assert_eq!(call.steps(), ["reject"]);
        call.replied(100, &reply);
        assert_eq!(call.steps(), ["settled"]);
        assert!(!call.signalling.gave_up());
        call.assert_settled();
    }
    let mut call = Call::of(Signalling::refuse);
    assert_eq!(call.steps(), ["reject"]);
    call.replied(100, &unclear());
    call.due(2100);
    assert_eq!(call.steps(), ["reject"]);
    call.replied(2200, &refused_with(401, 190, None));
    assert_eq!(call.steps(), ["settled"]);
    assert!(call.signalling.gave_up());
}
