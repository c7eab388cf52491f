//! Whole calls on virtual time: a webhook's request, WhatsApp's relay, the bridge, the built-in agent.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::relay::CallKey;
use crate::relay::call::Conduct;
use crate::relay::script::Script;
use crate::voice::{decode, share_at, silence, speech, voiced, voiced_time};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const FRAME: Duration = Duration::from_millis(20);

/// What the deployed webhook sends.
fn webhook_body(id: &str, offer: &str) -> Value {
    json!({
        "callId": id,
        "sdpOffer": offer,
        "from": "15550100",
        "config": {"voice": "alloy", "instructions": "Answer in one sentence.", "model": "gpt-4o-realtime-preview"}
    })
}

/// Posts an offer whose caller will say this, and applies the answer at once.
pub(crate) fn call(world: &mut World, id: &str, script: Script) -> CallKey {
    let (key, answer) = post(world, id, script, &json!({}));
    world.relay.apply_answer(world.now, key, &answer).expect("an answer that the relay can read");
    key
}

pub(crate) fn post(world: &mut World, id: &str, script: Script, config: &Value) -> (CallKey, String) {
    let (key, offer) = world.relay.offer(world.now, script);
    let mut body = webhook_body(id, &offer);
    for (name, value) in config.as_object().expect("an object") {
        body["config"][name] = value.clone();
    }
    let (status, answer) = world.http("POST", "/api/sessions", Some(&body));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["success"], true);
    assert_eq!(answer["callId"], id);
    (key, answer["sdpAnswer"].as_str().expect("an answer").to_owned())
}

pub(crate) fn session(world: &mut World, id: &str) -> Value {
    let (status, session) = world.http("GET", &format!("/api/sessions/{id}"), None);
    assert_eq!(status, 200, "{session}");
    session
}

#[track_caller]
pub(crate) fn ended(world: &mut World, id: &str, most: Duration) -> String {
    let end = world.now + most;
    loop {
        let session = session(world, id);
        if let Some(reason) = session["closeReason"].as_str() {
            return reason.to_owned();
        }
        assert!(world.now < end, "not ended within {most:?}: {session}");
        world.run(SECOND / 10);
    }
}

#[track_caller]
pub(crate) fn nothing_is_left(world: &mut World) {
    world.run(2 * SECOND);
    assert_eq!(world.open_ports(), 0, "sockets are left");
    assert_eq!(world.open_streams(), 0, "streams are left");
    let (_, list) = world.http("GET", "/api/sessions", None);
    assert_eq!(list["count"], 0);
}

#[test]
fn a_caller_is_answered_greeted_and_hears_their_own_words_back() {
    let mut world = World::new(&[]);
    let mut words = silence(5 * SECOND);
    words.extend(speech(2 * SECOND, 180.0));
    words.extend(silence(6 * SECOND));
    let key = call(&mut world, "wacid.words", Script::once(words));
    world.run(13 * SECOND);

    let record = world.relay.record(key).unwrap().clone();
    assert!(record.connect_time().unwrap() < Duration::from_millis(400), "{:?}", record.connect_time());
    assert_eq!(record.ssrcs.len(), 1, "one SSRC");
    assert_eq!(record.sources.len(), 1, "one path");
    assert_eq!((record.checks.role_conflicts, record.checks.aggressive, record.undecryptable), (0, false, 0));
    let first = record.first_media().unwrap() - record.connected.unwrap();
    assert!(first < Duration::from_millis(100), "the bridge speaks first: {first:?}");

    let heard = decode(&record.received);
    let second = |n: usize| n * 24_000;
    let (greeting, reply) = (&heard[..second(5)], &heard[second(7)..]);
    assert!(voiced_time(greeting) > SECOND, "the greeting is {:?} long", voiced_time(greeting));
    let length = voiced_time(reply);
    assert!((1_800..2_600).contains(&length.as_millis()), "the reply is {length:?} long");
    // The measure has its control in the same run: the greeting is another voice.
    let (own, other) = (share_at(reply, 180.0), share_at(greeting, 180.0));
    assert!(own > 0.2 && own > 5.0 * other, "{own} of the reply is at the caller's pitch, {other} of the greeting");

    let session = session(&mut world, "wacid.words");
    assert_eq!(session["state"], "active");
    assert_eq!(session["uplink"]["lost"], 0);
    for stage in ["uplink", "jitter_wait", "downlink", "tick_late", "response", "connect"] {
        let stages = session["latency"].as_array().unwrap();
        assert!(stages.iter().any(|each| each["stage"] == stage), "{stage} was not measured: {stages:?}");
    }
}

#[test]
fn packets_towards_the_caller_keep_an_exact_beat_from_the_first_on() {
    let mut world = World::new(&[]);
    let key = call(&mut world, "wacid.beat", Script::repeated(silence(SECOND)));
    world.run(10 * SECOND);
    let received = &world.relay.record(key).unwrap().received;
    assert!(received.len() > 480, "{}", received.len());
    for pair in received.windows(2) {
        assert_eq!(pair[1].seq, pair[0].seq.wrapping_add(1));
        assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(960));
        assert_eq!(pair[1].at - pair[0].at, FRAME);
    }
}

#[test]
fn speaking_over_the_greeting_stops_it_at_once() {
    let mut world = World::new(&[]);
    let mut words = silence(SECOND);
    words.extend(speech(2 * SECOND, 150.0));
    words.extend(silence(3 * SECOND));
    let key = call(&mut world, "wacid.barge", Script::once(words));
    world.run(3 * SECOND);
    let heard = voiced(&decode(&world.relay.record(key).unwrap().received));
    let last = heard.iter().rposition(|voiced| *voiced).expect("the greeting was heard");
    // The caller speaks from second 1 on; the agent wants 100 ms of it; the wire takes 20 ms each way. What follows is silence.
    assert!((30..75).contains(&last), "the greeting was heard until {last} frames in");
    let session = session(&mut world, "wacid.barge");
    assert_eq!(session["agent"]["bargeIns"], 1, "{session}");
    assert!(session["downlink"]["flushedMs"].as_u64().unwrap() > 500, "{session}");
    assert_eq!(session["agent"]["truncations"], 1);
}

#[test]
fn a_relay_that_applies_the_answer_late_is_connected_within_a_second_of_it() {
    for late in [1, 5, 25] {
        let mut world = World::new(&[]);
        let (key, answer) = post(&mut world, "wacid.late", Script::repeated(silence(SECOND)), &json!({}));
        world.run(late * SECOND);
        world.relay.apply_answer(world.now, key, &answer).unwrap();
        world.run(2 * SECOND);
        let record = world.relay.record(key).unwrap();
        let time = record.connect_time().expect("connected");
        assert!(time < SECOND, "answer applied after {late} s: connected {time:?} later");
        assert!(
            record.first_check_after_offer().unwrap() < Duration::from_millis(50),
            "the first check leaves at once"
        );
    }
}

#[test]
fn fifty_calls_from_one_relay_port_are_all_connected_and_heard() {
    let mut world = World::new(&[]);
    let keys: Vec<_> = (0..50)
        .map(|n| call(&mut world, &format!("wacid.{n}"), Script::repeated(speech(SECOND, 120.0 + f64::from(n)))))
        .collect();
    world.run(5 * SECOND);
    for key in keys {
        let record = world.relay.record(key).unwrap();
        assert!(record.connected.is_some());
        assert!(record.received.len() > 200, "{} packets", record.received.len());
    }
    let (_, list) = world.http("GET", "/api/sessions", None);
    assert_eq!(list["count"], 50);
    for session in list["sessions"].as_array().unwrap() {
        assert_eq!(session["state"], "active");
        assert!(session["uplink"]["packets"].as_u64().unwrap() > 200, "{session}");
    }
}

#[test]
fn a_manual_start_keeps_silent_until_activate() {
    let mut world = World::new(&[]);
    let config = json!({"startMedia": "manual"});
    let (key, answer) = post(&mut world, "wacid.manual", Script::repeated(silence(SECOND)), &config);
    world.relay.apply_answer(world.now, key, &answer).unwrap();
    let waiting = world.request("GET", "/api/sessions/wacid.manual?wait=connected", None);
    world.run(3 * SECOND);
    let (status, session) = world.answer(waiting).expect("answered once media is up");
    assert_eq!((status, &session["state"]), (200, &json!("held")), "{session}");
    assert!(world.relay.record(key).unwrap().received.is_empty(), "media before activate");
    let (status, _) = world.http("POST", "/api/sessions/wacid.manual/activate", Some(&json!({})));
    assert_eq!(status, 200);
    world.run(SECOND);
    assert!(world.relay.record(key).unwrap().received.len() > 40);
}

#[test]
fn a_caller_who_was_let_in_by_activate_is_greeted_at_once_though_they_have_sent_nothing() {
    let mut world = World::new(&[]);
    let config = json!({"startMedia": "manual"});
    let (key, answer) = post(&mut world, "wacid.quiet", Script::silent(), &config);
    world.relay.apply_answer(world.now, key, &answer).unwrap();
    world.run(3 * SECOND);
    assert_eq!(world.http("POST", "/api/sessions/wacid.quiet/activate", Some(&json!({}))).0, 200);
    world.run(SECOND);
    let session = session(&mut world, "wacid.quiet");
    assert!(session["downlink"]["playedMs"].as_u64().unwrap() > 500, "{session}");
}

#[test]
fn every_way_a_call_ends_has_its_reason_and_leaves_nothing_behind() {
    type Act = fn(&mut World, CallKey);
    let cases: [(&str, &[&str], Act, &str); 5] = [
        (
            "hang-up by the API",
            &[],
            |world, _| {
                assert_eq!(world.http("DELETE", "/api/sessions/wacid.end", None).0, 200);
            },
            "hangup",
        ),
        ("hang-up by the relay", &[], |world, key| world.relay.hang_up(world.now, key), "peer_closed"),
        ("a relay that is gone", &[], |world, key| world.relay.set_conduct(key, Conduct::Gone), "ice_lost"),
        (
            "a relay that ignores checks",
            &[],
            |world, key| world.relay.set_conduct(key, Conduct::IgnoresChecks),
            "ice_lost",
        ),
        ("the longest duration", &["--max-duration-sec", "10"], |_, _| {}, "max_duration"),
    ];
    for (what, flags, act, reason) in cases {
        let mut world = World::new(flags);
        let key = call(&mut world, "wacid.end", Script::repeated(silence(SECOND)));
        world.run(3 * SECOND);
        act(&mut world, key);
        assert_eq!(ended(&mut world, "wacid.end", 40 * SECOND), reason, "{what}");
        nothing_is_left(&mut world);
    }
}

#[test]
fn an_answer_that_is_never_applied_ends_the_call_after_thirty_seconds() {
    let mut world = World::new(&[]);
    post(&mut world, "wacid.never", Script::silent(), &json!({}));
    world.run(29 * SECOND);
    assert_eq!(session(&mut world, "wacid.never")["state"], "connecting");
    assert_eq!(ended(&mut world, "wacid.never", 2 * SECOND), "ice_timeout");
    nothing_is_left(&mut world);
}

#[test]
fn a_model_that_cannot_be_reached_ends_the_call_and_says_at_which_step() {
    let mut world = World::new(&[]);
    world.agent_is_down = true;
    call(&mut world, "wacid.down", Script::silent());
    assert_eq!(ended(&mut world, "wacid.down", 20 * SECOND), "agent_tcp");
    let session = session(&mut world, "wacid.down");
    assert!(session["closeDetail"].as_str().unwrap().contains("refused"), "{session}");
    nothing_is_left(&mut world);
}

#[test]
fn the_deployed_webhook_may_repeat_itself_and_stop_by_its_old_route() {
    let mut world = World::new(&[]);
    let (_, offer) = world.relay.offer(world.now, Script::silent());
    let body = webhook_body("wacid.twice", &offer);
    let (_, first) = world.http("POST", "/api/sessions", Some(&body));
    let (status, second) = world.http("POST", "/api/sessions", Some(&body));
    assert_eq!((status, &first["sdpAnswer"]), (200, &second["sdpAnswer"]));
    assert_eq!(world.open_ports(), 1, "no second call");
    let (status, _) = world.http("POST", "/bridge/stop", Some(&json!({"callId": "wacid.twice"})));
    assert_eq!(status, 200);
    assert_eq!(ended(&mut world, "wacid.twice", SECOND), "hangup");
    assert_eq!(world.http("POST", "/bridge/stop", Some(&json!({"callId": "wacid.twice"}))).0, 200);
    assert_eq!(world.http("DELETE", "/api/sessions/wacid.twice", None).0, 200);
    assert_eq!(world.http("DELETE", "/api/sessions/wacid.unknown", None).0, 404);
}

#[test]
fn junk_on_a_media_port_changes_nothing() {
    let mut world = World::new(&[]);
    let key = call(&mut world, "wacid.junk", Script::repeated(silence(SECOND)));
    let port = 40_001;
    let relay = world.relay.record(key).map(|_| SocketAddr::from(([127, 0, 0, 1], 3480))).unwrap();
    let stranger = SocketAddr::from(([127, 0, 0, 1], 6666));
    // A ClientHello with no cipher, an alert, RTP, RTCP, STUN, noise: from a stranger in every state, from the relay's
    // own address once SRTP is up.
    let hello = [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0][..], &[0; 30]].concat();
    let alert = vec![21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40];
    let rtp = [&[0x80, 111, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9][..], &[7; 40]].concat();
    let rtcp = [&[0x80, 200, 0, 6, 0, 0, 0, 9][..], &[0; 20]].concat();
    let stun = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[5; 12]].concat();
    let junk = [hello, alert, rtp, rtcp, stun, vec![], vec![0xff; 1400]];
    for _ in 0..200 {
        for bytes in &junk {
            world.inject(stranger, port, bytes);
        }
        world.run(Duration::from_millis(5));
    }
    assert!(world.relay.record(key).unwrap().connected.is_some());
    for _ in 0..1000 {
        for bytes in &junk {
            world.inject(relay, port, bytes);
        }
        world.run(Duration::from_millis(1));
    }
    world.run(3 * SECOND);
    let session = session(&mut world, "wacid.junk");
    assert_eq!(session["state"], "active", "{session}");
    // The stranger's alert, RTP, RTCP and check; the rest is no packet of any protocol spoken here.
    assert_eq!(session["peer"]["datagramsUnvalidated"], 800, "{session}");
    assert_eq!(session["uplink"]["late"], 0);
    assert_eq!(world.relay.strays(), 0, "nothing was sent anywhere else");
}

#[test]
fn a_stopping_bridge_ends_its_calls_and_exits() {
    let mut world = World::new(&["--drain-sec", "0"]);
    let key = call(&mut world, "wacid.stop", Script::repeated(silence(SECOND)));
    world.run(3 * SECOND);
    world.stop();
    world.run(3 * SECOND);
    assert_eq!(world.exited(), ["worker", "control"]);
    assert!(world.relay.record(key).unwrap().closed.is_some(), "the relay was told");
    assert_eq!(world.open_ports(), 0);
}

#[test]
fn keys_that_the_caller_presses_reach_the_model_as_words() {
    let mut world = World::new(&[]);
    let key = call(&mut world, "wacid.keys", Script::repeated(silence(SECOND)));
    world.run(6 * SECOND);
    for digit in [4, 2] {
        world.relay.press(world.now, key, digit, Duration::from_millis(200));
        world.run(SECOND / 2);
    }
    world.run(3 * SECOND);
    let session = session(&mut world, "wacid.keys");
    assert_eq!(session["peer"]["dtmfDigits"], 2, "{session}");
    assert!(session["uplink"]["events"].as_u64().unwrap() >= 20, "{session}");
    assert_eq!(session["uplink"]["lost"], 0, "keys leave no gap in the audio: {session}");
}

#[test]
fn a_call_hung_up_while_its_socket_is_opened_has_ended_by_hangup() {
    let mut world = World::new(&[]);
    let (_, offer) = world.relay.offer(world.now, Script::silent());
    let posted = world.request("POST", "/api/sessions", Some(&webhook_body("wacid.early", &offer)));
    let deleted = world.request("DELETE", "/api/sessions/wacid.early", None);
    world.run(SECOND);
    assert_eq!(world.answer(deleted).unwrap().0, 200);
    let (status, refusal) = world.answer(posted).unwrap();
    assert_ne!((status, &refusal["code"]), (503, &json!("draining")), "{refusal}");
    assert_eq!(world.http("DELETE", "/api/sessions/wacid.early", None).0, 200);
    let (_, metrics) = world.http("GET", "/metrics", None);
    assert!(metrics.as_str().unwrap().contains("calls_ended_total{reason=\"hangup\",blame=\"nobody\"} 1"));
    nothing_is_left(&mut world);
}

#[test]
fn a_call_can_be_looked_at_and_activated_while_its_socket_is_opened() {
    let mut world = World::new(&[]);
    let (key, offer) = world.relay.offer(world.now, Script::silent());
    let mut body = webhook_body("wacid.soon", &offer);
    body["config"]["startMedia"] = json!("manual");
    let posted = world.request("POST", "/api/sessions", Some(&body));
    let looked = world.request("GET", "/api/sessions/wacid.soon", None);
    let activated = world.request("POST", "/api/sessions/wacid.soon/activate", Some(&json!({})));
    world.run(SECOND / 10);
    assert_eq!(world.answer(looked).unwrap().0, 200, "{:?}", world.answer(looked));
    assert_eq!(world.answer(activated).unwrap().0, 200);
    let (_, answer) = world.answer(posted).unwrap();
    world.relay.apply_answer(world.now, key, answer["sdpAnswer"].as_str().unwrap()).unwrap();
    world.run(SECOND);
    assert!(!world.relay.record(key).unwrap().received.is_empty(), "media starts without another activate");
}

#[test]
fn a_relay_with_another_certificate_than_its_offer_named_ends_the_call() {
    let mut world = World::new(&[]);
    let (key, offer) = world.relay.offer(world.now, Script::silent());
    let at = offer.find("a=fingerprint:sha-256 ").unwrap() + "a=fingerprint:sha-256 ".len();
    let digit = if &offer[at..=at] == "0" { "1" } else { "0" };
    let forged = format!("{}{digit}{}", &offer[..at], &offer[at + 1..]);
    let (_, answer) = world.http("POST", "/api/sessions", Some(&webhook_body("wacid.forged", &forged)));
    world.relay.apply_answer(world.now, key, answer["sdpAnswer"].as_str().unwrap()).unwrap();
    assert_eq!(ended(&mut world, "wacid.forged", SECOND), "dtls_failed");
    assert!(world.relay.record(key).unwrap().received.is_empty());
    nothing_is_left(&mut world);
}
