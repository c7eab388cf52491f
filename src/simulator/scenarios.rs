//! The scenarios, one after the other. A new one is an entry here.

use super::Certainty::{Documented, Inferred, Seen};
use super::scenario::{
    Accepting, Act, After, Applies, Calls, Cue, Expect, Fault, GRAPH, Graph, RELAY, RelayManners, Scenario, Signature,
    Step, WEBHOOKS, Webhooks, plain,
};

const fn step(cue: Cue, after_ms: u64, act: Act) -> Step {
    Step { cue, after: After::Ms(after_ms), act }
}

/// The user hangs up after `--seconds`, or after so many.
const fn hang_up_after(seconds: u64) -> Step {
    Step { cue: Cue::Up, after: After::Talk(seconds), act: Act::HangUp }
}

/// Hears the greeting, speaks, hears the answer, hangs up.
const TALK: &[Step] = &[step(Cue::Lull(1), 200, Act::Say), step(Cue::Lull(2), 500, Act::HangUp), hang_up_after(25)];

/// Hears a voice, and hangs up.
const LISTEN: &[Step] = &[step(Cue::Voice(1), 1_500, Act::HangUp), hang_up_after(15)];

/// What holds for every call that comes up, whatever is in its way.
const LIVE: &[Expect] = &[
    Expect::WebhookAnswered,
    Expect::PreAccepted,
    Expect::Accepted,
    Expect::SilentBeforeAccept,
    Expect::Heard,
    Expect::OneStream,
    Expect::NothingLost,
    Expect::OneCall,
    Expect::NotTerminated,
];

/// The same, and media does not pause.
const STEADY: &[Expect] = &[
    Expect::WebhookAnswered,
    Expect::PreAccepted,
    Expect::Accepted,
    Expect::SilentBeforeAccept,
    Expect::Heard,
    Expect::KeptSending(30),
    Expect::OneStream,
    Expect::NothingLost,
    Expect::OneCall,
    Expect::NotTerminated,
];

/// A webhook that is taken and comes to nothing.
const NOTHING: &[Expect] = &[Expect::WebhookAnswered, Expect::NoCall];

/// Every scenario, in the order in which `all` runs them.
pub static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "happy",
        about: "a call as it should be: it greets, the caller speaks, it answers, the user hangs up",
        steps: TALK,
        expect: &[
            Expect::WebhookAnswered,
            Expect::PreAccepted,
            Expect::ConnectedFirst,
            Expect::Accepted,
            Expect::SilentBeforeAccept,
            Expect::Heard,
            Expect::HeardBack,
            Expect::KeptSending(30),
            Expect::OneStream,
            Expect::NothingLost,
            Expect::OneCall,
            Expect::NotTerminated,
        ],
        ..plain(Documented)
    },
    Scenario {
        name: "late-accept",
        about: "the relay applies the answer 5 s late: ICE and DTLS wait so long",
        relay: RelayManners { applies: Applies::After(5_000), ..RELAY },
        steps: LISTEN,
        expect: LIVE,
        ..plain(Inferred)
    },
    Scenario {
        name: "applied-with-accept",
        about: "the relay applies the answer only with accept: a bridge that waits for media first waits in vain",
        relay: RelayManners { applies: Applies::WithAccept, ..RELAY },
        steps: LISTEN,
        expect: LIVE,
        ..plain(Inferred)
    },
    Scenario {
        name: "slow-graph",
        about: "the Graph API takes 1.5 s over each answer",
        graph: Graph { delay_ms: 1_500, ..GRAPH },
        steps: LISTEN,
        expect: LIVE,
        ..plain(Inferred)
    },
    Scenario {
        name: "duplicate-connect",
        about: "the connect webhook comes four times, the last one in mid-call",
        webhooks: Webhooks { connect_ms: &[0, 5, 400, 2_500], ..WEBHOOKS },
        steps: &[step(Cue::Up, 4_000, Act::HangUp)],
        expect: LIVE,
        ..plain(Documented)
    },
    Scenario {
        name: "duplicate-terminate",
        about: "the terminate webhook comes three times",
        webhooks: Webhooks { terminate_ms: &[0, 20, 500], ..WEBHOOKS },
        steps: LISTEN,
        expect: LIVE,
        ..plain(Documented)
    },
    Scenario {
        name: "terminate-first",
        about: "the terminate webhook comes 300 ms before its connect: there is no call to be taken",
        webhooks: Webhooks { is_over: true, terminate_before_ms: Some(300), ..WEBHOOKS },
        expect: NOTHING,
        ..plain(Documented)
    },
    Scenario {
        name: "gives-up",
        about: "the user hangs up a second after it rings",
        relay: RelayManners { applies: Applies::After(5_000), ..RELAY },
        steps: &[step(Cue::Rings, 1_000, Act::HangUp)],
        expect: &[Expect::WebhookAnswered, Expect::PreAccepted, Expect::OneCall, Expect::NotTerminated],
        ..plain(Inferred)
    },
    Scenario {
        name: "no-udp",
        about: "the relay never answers a check: the bridge must end the call, and not let it ring or be silent",
        relay: RelayManners { applies: Applies::Never, ..RELAY },
        expect: &[Expect::WebhookAnswered, Expect::PreAccepted, Expect::OneCall, Expect::EndedByBridge(40)],
        ..plain(Inferred)
    },
    Scenario {
        name: "bad-answer",
        about: "the Graph API refuses every answer with 138008: the bridge must end the call, not let it ring",
        graph: Graph { refuses_answers: true, ..GRAPH },
        expect: &[Expect::WebhookAnswered, Expect::EndedByBridge(10)],
        ..plain(Seen)
    },
    Scenario {
        name: "graph-down",
        about: "the Graph API answers the first four requests of a call with 503",
        graph: Graph { first: &[Fault::Down; 4], ..GRAPH },
        steps: LISTEN,
        expect: LIVE,
        ..plain(Inferred)
    },
    Scenario {
        name: "rate-limited",
        about: "the first request of a call is answered 429 (138005), to be asked again after 1 s",
        steps: LISTEN,
        graph: Graph { first: &[Fault::RateLimited], ..GRAPH },
        expect: LIVE,
        ..plain(Inferred)
    },
    Scenario {
        name: "already-accepted",
        about: "accept is answered 131055 after a good pre_accept: the call is up",
        graph: Graph { accept: Accepting::AsIfAgain, ..GRAPH },
        steps: LISTEN,
        expect: LIVE,
        ..plain(Seen)
    },
    Scenario {
        name: "unclear-accept",
        about: "accept is done, but the connection is cut before its answer",
        graph: Graph { accept: Accepting::Cut, ..GRAPH },
        steps: LISTEN,
        expect: LIVE,
        ..plain(Inferred)
    },
    Scenario {
        name: "dtmf",
        about: "the caller presses 1 2 3 # in mid-call; only that audio goes on is checked here",
        steps: &[
            step(Cue::Voice(1), 500, Act::Press(&[1, 2, 3, 11])),
            step(Cue::Voice(1), 4_000, Act::HangUp),
            hang_up_after(15),
        ],
        expect: STEADY,
        ..plain(Documented)
    },
    Scenario {
        name: "silence-25s",
        about: "the caller is silent for 25 s: the bridge's media must not stop",
        steps: &[step(Cue::Up, 25_000, Act::HangUp)],
        expect: STEADY,
        ..plain(Documented)
    },
    Scenario {
        name: "no-media-from-user",
        about: "nothing at all comes from the caller's phone",
        relay: RelayManners { phone_sends: false, ..RELAY },
        steps: &[step(Cue::Up, 8_000, Act::HangUp)],
        expect: STEADY,
        ..plain(Inferred)
    },
    Scenario {
        name: "user-hangs-up",
        about: "the user hangs up, and only the webhook says so: the relay says no goodbye",
        relay: RelayManners { bye: false, ..RELAY },
        steps: LISTEN,
        expect: &[
            Expect::WebhookAnswered,
            Expect::PreAccepted,
            Expect::Accepted,
            Expect::Heard,
            Expect::OneCall,
            Expect::NotTerminated,
            Expect::StoppedSending,
        ],
        ..plain(Inferred)
    },
    Scenario {
        name: "bridge-hangs-up",
        about: "the call lasts until the bridge ends it within 60 s; by hand, and none of `all`",
        is_by_hand: true,
        expect: &[
            Expect::WebhookAnswered,
            Expect::PreAccepted,
            Expect::Accepted,
            Expect::OneCall,
            Expect::EndedByBridge(60),
        ],
        ..plain(Documented)
    },
    Scenario {
        name: "reconnect",
        about: "nothing comes from the caller's phone for 8 s, then the caller speaks on",
        steps: &[step(Cue::Up, 500, Act::Vanish), step(Cue::Up, 8_500, Act::Say), step(Cue::Up, 16_000, Act::HangUp)],
        expect: &[
            Expect::WebhookAnswered,
            Expect::PreAccepted,
            Expect::Accepted,
            Expect::SilentBeforeAccept,
            Expect::HeardBack,
            Expect::KeptSending(30),
            Expect::OneStream,
            Expect::NothingLost,
            Expect::OneCall,
            Expect::NotTerminated,
        ],
        ..plain(Documented)
    },
    Scenario {
        name: "missing-from",
        about: "the connect webhook has no `from`: the caller has a user name",
        webhooks: Webhooks { without_from: true, ..WEBHOOKS },
        steps: LISTEN,
        expect: LIVE,
        ..plain(Documented)
    },
    Scenario {
        name: "unknown-fields",
        about: "the connect webhook has fields that nobody has heard of",
        webhooks: Webhooks { with_unknown: true, ..WEBHOOKS },
        steps: LISTEN,
        expect: LIVE,
        ..plain(Inferred)
    },
    Scenario {
        name: "batch",
        about: "four calls in one body of several entries and changes, with others' events between them",
        calls: Calls::Some(4),
        webhooks: Webhooks { together: true, ..WEBHOOKS },
        steps: LISTEN,
        expect: LIVE,
        ..plain(Inferred)
    },
    Scenario {
        name: "other-events",
        about: "a message's webhook: answered 200, and no call",
        calls: Calls::Some(0),
        webhooks: Webhooks { message: true, ..WEBHOOKS },
        expect: NOTHING,
        ..plain(Documented)
    },
    Scenario {
        name: "bad-signature",
        about: "connect webhooks with one bit of the signature flipped, and with none: both refused, no call",
        webhooks: Webhooks { signature: Signature::Bad, is_over: true, connect_ms: &[0, 200], ..WEBHOOKS },
        expect: &[Expect::WebhookRefused, Expect::NoCall],
        ..plain(Documented)
    },
    Scenario {
        name: "verification",
        about: "the webhook is verified with the right token, and with a wrong one",
        calls: Calls::Some(0),
        webhooks: Webhooks { verification: true, ..WEBHOOKS },
        expect: &[Expect::Verified],
        ..plain(Documented)
    },
    Scenario {
        name: "stale-connect",
        about: "a connect webhook that is ten minutes old: nobody waits any more",
        webhooks: Webhooks { is_over: true, age_sec: 600, ..WEBHOOKS },
        expect: NOTHING,
        ..plain(Documented)
    },
    Scenario {
        name: "burst",
        about: "--calls N within 2 s, their webhooks duplicated and shuffled: each exactly one call, none lost",
        calls: Calls::Burst,
        webhooks: Webhooks { connect_ms: &[0, 100], terminate_ms: &[0, 100], shuffle_ms: 400, ..WEBHOOKS },
        steps: LISTEN,
        // Not that no packet is lost: hundreds of calls at once show how much a machine carries, which is `capacity`'s.
        expect: &[
            Expect::WebhookAnswered,
            Expect::PreAccepted,
            Expect::Accepted,
            Expect::SilentBeforeAccept,
            Expect::Heard,
            Expect::OneStream,
            Expect::OneCall,
            Expect::NotTerminated,
        ],
        ..plain(Inferred)
    },
];

/// The scenarios of these names; `all` is every one that needs no hand.
pub fn find(names: &[impl AsRef<str>]) -> Result<Vec<&'static Scenario>, String> {
    let mut found: Vec<&'static Scenario> = Vec::new();
    for name in names.iter().map(AsRef::as_ref) {
        let matching = |scenario: &&Scenario| (name == "all" && !scenario.is_by_hand) || scenario.name == name;
        let matching = SCENARIOS.iter().filter(matching);
        let before = found.len();
        found.extend(matching);
        if found.len() == before {
            return Err(format!("--scenario {name} is not known; --list shows those that are"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_every_scenario_is_held_to_something() {
        for (place, scenario) in SCENARIOS.iter().enumerate() {
            assert!(SCENARIOS[..place].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
            assert!(!scenario.expect.is_empty() && !scenario.about.is_empty(), "{}", scenario.name);
            assert!(
                scenario.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            );
        }
    }

    #[test]
    fn a_call_that_comes_up_is_hung_up_at_a_time() {
        for scenario in
            SCENARIOS.iter().filter(|scenario| scenario.expect.contains(&Expect::Accepted) && !scenario.is_by_hand)
        {
            let ends = |step: &Step| step.cue == Cue::Up && step.act == Act::HangUp;
            assert!(scenario.steps.iter().any(ends), "{}", scenario.name);
        }
    }

    #[test]
    fn scenarios_are_found_by_name() {
        let names = |names: &[&str]| find(names);
        assert_eq!(names(&["all"]).unwrap().len(), SCENARIOS.len() - 1, "all but the one by hand");
        assert!(names(&["bridge-hangs-up"]).unwrap()[0].is_by_hand);
        assert_eq!(names(&["dtmf", "happy"]).unwrap().iter().map(|s| s.name).collect::<Vec<_>>(), ["dtmf", "happy"]);
        assert!(names(&["nothing"]).unwrap_err().contains("--list"));
    }
}
