//! The simulator against a bridge of a few lines, in virtual time: every scenario holds for one that does all right, and each
//! fault is found by the check that is there for it.

use crate::fake_bridge::{Fault, World};

/// The checks that did not hold, of one scenario.
fn failed(name: &str, fault: Fault) -> Vec<String> {
    let (report, ..) = World::new(&[name], fault).run();
    let [scenario] = &report.scenarios[..] else { panic!("one scenario: {report:?}") };
    assert_eq!(report.passed, scenario.held && report.strays.is_empty());
    scenario.checks.iter().filter(|check| !check.held).map(|check| format!("{}: {}", check.text, check.seen)).collect()
}

#[test]
fn every_scenario_holds_for_a_bridge_that_does_all_right() {
    let (report, told, recordings) = World::new(&["all"], Fault::None).run();
    for scenario in &report.scenarios {
        let lines = told.iter().filter(|told| told.scenario == scenario.name).map(ToString::to_string);
        assert!(scenario.held, "{scenario}\n{}", lines.collect::<Vec<_>>().join("\n"));
    }
    assert!(report.passed && report.strays.is_empty() && report.held == report.scenarios.len(), "{report}");
    let (_, samples) = recordings.iter().find(|(name, _)| name == "happy-1").expect("it was recorded");
    assert!(*samples > 24_000, "{samples}");
}

#[test]
fn a_good_call_is_timed_from_its_webhook_to_its_end() {
    let (report, told, _) = World::new(&["happy"], Fault::None).run();
    let call = &report.scenarios[0].calls[0];
    let own = call.own_ms.expect("all of it was seen");
    assert!(call.pre_accept_ms < call.connected_ms && call.connected_ms <= call.accept_ms, "{call:?}");
    assert!(call.accept_ms <= call.accepted_ms && call.accepted_ms < call.ended_ms, "{call:?}");
    assert!(own.iter().all(|ms| (0.0..30.0).contains(ms)), "{own:?}");
    assert_eq!((call.ended_by, call.failure, call.ssrcs, call.lost), (Some("user"), None, 1, 0));
    let lines: Vec<String> = told.iter().map(|one| format!("{} {}", one.who, one.text)).collect();
    let place =
        |said: &str| lines.iter().position(|line| line.contains(said)).unwrap_or_else(|| panic!("{said}: {lines:#?}"));
    let order = [
        "connect",
        "pre_accept",
        "applies",
        "are connected",
        " accept,",
        "first audio",
        "speaks",
        "hangs up",
        "terminate",
    ];
    let places: Vec<usize> = order.iter().map(|said| place(said)).collect();
    assert!(places.is_sorted(), "{lines:#?}");
}

#[test]
fn each_fault_is_found_by_its_check() {
    let second = std::time::Duration::from_secs(1);
    for (scenario, fault, said) in [
        ("happy", Fault::SlowAnswer(2 * second), "answered 200 within 1 s: 200 only after"),
        ("happy", Fault::Early, "no audio is sent before accept is done"),
        ("happy", Fault::Mute, "hears a voice: none was heard"),
        ("happy", Fault::FallsSilent, "a voice begins after the caller has spoken: none was heard"),
        ("happy", Fault::ChangesSsrc, "audio is one stream: one SSRC: 2 SSRCs came"),
        ("happy", Fault::Loses, "no packet is lost on the way"),
        ("happy", Fault::Stumbles, "each webhook is answered 200 within 1 s: it was answered 500"),
        ("happy", Fault::Undecided, "accept comes, with the same answer: it never came"),
        ("happy", Fault::Hasty, "media is connected before accept is asked"),
        ("happy", Fault::OtherAnswer, "accept comes, with the same answer: it was refused"),
        ("happy", Fault::Passive, "with an answer that Meta takes: it was refused"),
        ("happy", Fault::Terminates, "is not ended again: the bridge asked to end it, too"),
        ("silence-25s", Fault::Impatient, "is not ended again: the bridge ended it before the user"),
        ("user-hangs-up", Fault::DeafToTerminate, "audio stops within 1 s of the terminate webhook: it went on"),
        ("duplicate-connect", Fault::NoMemory, "nothing is asked twice"),
        ("terminate-first", Fault::NoClock, "nothing is asked of the Graph API"),
        ("stale-connect", Fault::NoClock, "nothing is asked of the Graph API"),
        ("terminate-first", Fault::Unreadable, "nothing is asked of the Graph API: 2 requests, where there is no call"),
        ("other-events", Fault::AnswersMessages, "nothing is asked of the Graph API: "),
        ("bad-signature", Fault::Unsigned, "each webhook is refused with 401 or 403: it was answered 200"),
        ("verification", Fault::AnyToken, "for the right token alone"),
        ("no-udp", Fault::LetsRing, "the bridge ends the call at Meta within 40 s: Meta's client gave up before"),
        ("bad-answer", Fault::LetsRing, "the bridge ends the call at Meta within 10 s: Meta's client gave up before"),
    ] {
        let failed = failed(scenario, fault);
        assert!(failed.iter().any(|check| check.contains(said)), "{scenario} {fault:?}: {failed:#?}");
    }
}

#[test]
fn a_webhook_that_is_not_answered_200_is_sent_again_and_the_call_goes_on() {
    let (report, told, _) = World::new(&["happy"], Fault::Stumbles).run();
    let missed: Vec<&str> =
        report.scenarios[0].checks.iter().filter(|check| !check.held).map(|check| check.text.as_str()).collect();
    assert_eq!(missed, ["each webhook is answered 200 within 1 s"]);
    let sent: Vec<f64> =
        told.iter().filter(|told| told.text == "webhook: connect").map(|told| told.at.as_secs_f64()).collect();
    assert!(sent.len() == 2 && (1.0..1.1).contains(&(sent[1] - sent[0])), "{sent:?}");
}

#[test]
fn what_is_asked_of_a_call_that_is_over_is_refused_and_nobody_waits_for_it() {
    let (report, told, _) = World::new(&["terminate-first"], Fault::NoClock).run();
    let refusal = "400 code 100: The call has ended: nothing can be done with it any more.";
    assert!(told.iter().any(|told| told.text == refusal), "{told:#?}");
    assert!(report.scenarios[0].seconds < 10.0 && report.scenarios[0].calls[0].ended_by.is_none(), "{report:?}");
}

#[test]
fn a_voice_that_is_no_answer_is_found_where_the_agent_is_known_to_say_words_back() {
    let checks = |fault| {
        let (mut report, ..) = World::saying_back(&["happy"], fault).run();
        report.scenarios.remove(0).checks
    };
    let missed = |fault| checks(fault).into_iter().filter(|check| !check.held).collect::<Vec<_>>();
    assert_eq!(missed(Fault::None), []);
    let [deaf] = &missed(Fault::Deaf)[..] else { panic!("one check: {:?}", missed(Fault::Deaf)) };
    assert!(deaf.text.contains("says back") && deaf.seen.contains("something else"), "{deaf:?}");
    let back = checks(Fault::None).into_iter().find(|check| check.text.contains("says back")).expect("it is judged");
    assert!(back.seen.ends_with("% alike"), "{back:?}");
}

#[test]
fn a_call_that_is_cut_short_by_hand_is_not_held_to_what_could_not_come() {
    let run = |fault, seconds| World::talking(&["happy"], fault, std::time::Duration::from_secs(seconds)).run().0;
    for seconds in [1, 4] {
        let report = run(Fault::None, seconds);
        assert!(report.passed && report.scenarios[0].notes[0].contains("--seconds"), "{seconds}: {report:?}");
    }
    assert!(run(Fault::None, 20).scenarios[0].notes.is_empty());
    assert!(!run(Fault::FallsSilent, 20).passed, "there was time for an answer");
}

#[test]
fn a_pause_in_the_audio_is_noted_and_half_a_minute_of_nothing_ends_the_call() {
    let (report, ..) = World::new(&["silence-25s"], Fault::FallsSilent).run();
    let [noted] = &report.scenarios[0].notes[..] else { panic!("{report:?}") };
    assert!(report.passed && noted.starts_with("no audio (RTP) came for 24"), "{noted}");
    let mut world = World::talking(&["happy"], Fault::GoesDead, std::time::Duration::from_secs(60));
    let (report, ..) = world.run();
    assert_eq!(world.endings, [("FAILED".to_owned(), Some(138_022))]);
    let check = report.scenarios[0].checks.iter().find(|check| check.text == "no 30 s pass without RTP or RTCP");
    assert!(check.is_some_and(|check| !check.held && check.seen.starts_with("nothing came for 30")), "{check:?}");
}

#[test]
fn what_is_asked_for_no_call_lets_no_run_pass() {
    let (report, ..) = World::new(&["batch"], Fault::AnswersMessages).run();
    assert!(report.scenarios[0].held && report.strays.len() == 1 && !report.passed, "{report}");
    assert!(report.verdict().contains("1 of 1 held, but something was asked that belongs to no call"), "{report}");
}

#[test]
fn metas_client_gives_up_as_it_does_and_says_so_in_the_webhook() {
    for (scenario, fault, ending) in [
        ("happy", Fault::None, ("COMPLETED", None)),
        ("happy", Fault::Undecided, ("FAILED", None)),
        ("happy", Fault::Mute, ("FAILED", Some(138_021))),
        ("no-udp", Fault::LetsRing, ("FAILED", Some(138_020))),
        ("silence-25s", Fault::Impatient, ("COMPLETED", None)),
    ] {
        let mut world = World::new(&[scenario], fault);
        let (report, ..) = world.run();
        let endings: Vec<(&str, Option<u64>)> = world.endings.iter().map(|(s, code)| (s.as_str(), *code)).collect();
        assert_eq!(endings, [ending], "{scenario} {fault:?}");
        let call = &report.scenarios[0].calls[0];
        let seconds = (call.ended_ms.unwrap() - call.accepted_ms.unwrap_or_default()) / 1000.0;
        match (fault, ending.1) {
            (Fault::Undecided, _) => assert!((44.0..46.0).contains(&seconds), "rings so long: {seconds}"),
            (_, Some(_)) => assert!((20.0..20.2).contains(&seconds), "waits so long for media: {seconds}"),
            _ => {}
        }
    }
}

#[test]
fn an_interrupted_run_hangs_up_what_it_began_and_begins_nothing_more() {
    let mut world = World::new(&["burst", "happy"], Fault::None);
    world.stop_after = Some(std::time::Duration::from_millis(1_100));
    let (report, told, _) = world.run();
    let [burst] = &report.scenarios[..] else { panic!("{report:?}") };
    assert!(report.interrupted && !report.passed, "{report}");
    assert_eq!((burst.calls.len(), burst.calls[0].ended_by), (4, Some("simulator")), "of six, within two seconds");
    let connects = told.iter().filter(|told| told.text == "webhook: connect").map(|told| told.call);
    let known: std::collections::BTreeSet<usize> = connects.collect();
    assert_eq!((known.len(), world.endings.len()), (3, 2 * 3), "each that was told of, twice as in every burst");
}

#[test]
fn the_same_seed_makes_the_same_run() {
    let run = || {
        let (report, ..) = World::new(&["burst"], Fault::None).run();
        report.scenarios[0].calls.iter().map(|call| (call.id.clone(), call.pre_accept_ms.is_some())).collect::<Vec<_>>()
    };
    let (one, two) = (run(), run());
    assert_eq!(one, two);
    assert_eq!(one.len(), 6);
}
