//! The way up to a live session, each way to fail on it, and the way down.

use std::time::Duration;

use super::rig::{KEY, Rig, Told, config, settings};
use crate::agent::dial::{ATTEMPT_DELAY, ATTEMPTS_MAX};
use crate::agent::{Agent, AgentOutput, Attempt, CLOSE_WAIT, LADDER_WAIT, State, UNWRITTEN_BYTES_MAX};
use crate::close_reason::CloseReason;
use crate::realtime::{Greeting, Json, SessionSettings};
use crate::wss::Tls;
use crate::wss::testing::{Identity, Server};

const CREATED: &str = r#"{"type":"session.created","session":{"model":"gpt-realtime-2.1"}}"#;
const UPDATED: &str = r#"{"type":"session.updated","session":{}}"#;
/// Takes a session up to some step.
type Climb = fn(&mut Rig);

const ADDRESSES: [&str; 3] = ["[2001:db8::1]:443", "192.0.2.1:443", "192.0.2.2:443"];

#[test]
fn each_step_awaits_the_one_before() {
    let identity = Identity::until(2099);
    let tls = Tls::with_roots([identity.der.clone()]).unwrap();
    let mut rig = Rig::with(config(Some(tls)), settings(), Server::secure(&identity));
    assert_eq!(rig.agent.state, State::ExpectAddresses);
    assert_eq!(rig.agent.poll_output(), Some(AgentOutput::Resolve { host: "localhost".into(), port: 443 }));
    assert!(rig.agent.poll_output().is_none());
    rig.resolve(&ADDRESSES[1..2]);
    assert_eq!(rig.agent.state, State::ExpectTcp);
    rig.agent.handle_connected(rig.now, Attempt(0), &mut rig.told);
    assert_eq!(rig.agent.state, State::ExpectTls);
    rig.run();
    assert_eq!(rig.agent.state, State::ExpectSession);
    assert!(rig.sent().is_empty(), "nothing is said before session.created");
    rig.model(CREATED);
    assert_eq!(rig.agent.state, State::ExpectUpdated);
    assert_eq!(rig.sent_types(), ["session.update"]);
    assert!(!rig.agent.is_live() && rig.take().is_empty());
    rig.model(UPDATED);
    assert!(rig.agent.is_live());
    assert_eq!(rig.take(), [Told::Ready]);
    rig.agent.append(rig.now, &[0; 480]);
    assert_eq!(rig.sent_types(), ["input_audio_buffer.append"]);
}

#[test]
fn the_request_names_model_key_organisation_and_project_and_never_the_beta() {
    let mut rig = Rig::new(settings());
    rig.connect();
    let head = rig.server.head();
    assert!(head.starts_with("/v1/realtime?model=gpt-realtime-2.1\n"), "{head}");
    let bearer = format!("authorization: Bearer {KEY}");
    for header in [&bearer, "openai-organization: org-1", "openai-project: proj_1"] {
        assert!(head.contains(header), "{head}");
    }
    assert!(!head.to_lowercase().contains("openai-beta"));
}

#[test]
fn the_whole_way_works_in_single_bytes() {
    let identity = Identity::until(2099);
    let tls = Tls::with_roots([identity.der.clone()]).unwrap();
    let mut rig = Rig::with(config(Some(tls)), settings(), Server::secure(&identity));
    rig.resolve(&ADDRESSES[..1]);
    rig.agent.handle_connected(rig.now, Attempt(0), &mut rig.told);
    let mut script = [CREATED, UPDATED].into_iter();
    while !rig.agent.is_live() {
        while let Some(output) = rig.agent.poll_output() {
            if let AgentOutput::Write { bytes, .. } = output {
                rig.server.handle(&bytes);
            }
        }
        let mut down = rig.server.poll_write();
        if down.is_empty() {
            rig.server.send(script.next().expect("two messages make it live"));
            down = rig.server.poll_write();
        }
        for byte in &down {
            rig.agent.handle_received(rig.now, Attempt(0), std::slice::from_ref(byte), &mut rig.told);
        }
    }
    assert_eq!(rig.take(), [Told::Ready]);
}

#[test]
fn the_settings_go_out_once() {
    let asked = SessionSettings {
        voice: Some("cedar".into()),
        instructions: Some("Be brief.".into()),
        tools: Some(Json(r#"[{"type":"function","name":"f"}]"#.into())),
        ..settings()
    };
    let mut rig = Rig::new(asked);
    rig.connect();
    rig.model(CREATED);
    rig.model(CREATED);
    let sent = rig.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["session"]["instructions"], "Be brief.");
    assert_eq!(sent[0]["session"]["audio"]["output"]["voice"], "cedar");
}

#[test]
fn a_slow_address_does_not_hold_up_the_next() {
    let mut rig = Rig::new(settings());
    rig.resolve(&ADDRESSES);
    assert_eq!(rig.connects.len(), 1);
    rig.pass(Duration::from_millis(249));
    assert_eq!(rig.connects.len(), 1);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.connects.len(), 2);
    rig.connected(Attempt(1));
    assert_eq!(rig.closes, [Attempt(0)], "the slow one is called off");
    rig.connected(Attempt(0));
    rig.pass(ATTEMPT_DELAY);
    assert_eq!((rig.connects.len(), rig.link()), (2, Attempt(1)), "the third is not tried");
    rig.agent.close(rig.now);
    rig.run();
    rig.assert_closed();
}

#[test]
fn a_refused_address_is_followed_by_the_next_at_once() {
    let mut rig = Rig::new(settings());
    rig.resolve(&ADDRESSES);
    rig.failed(Attempt(0), 101);
    assert_eq!((rig.connects.len(), &rig.closes[..]), (2, &[Attempt(0)][..]));
    rig.failed(Attempt(0), 101);
    rig.failed(Attempt(7), 101);
    assert_eq!(rig.connects.len(), 2, "a failure counts once");
    rig.failed(Attempt(1), 111);
    rig.failed(Attempt(2), 113);
    let (reason, detail) = rig.end();
    assert_eq!(reason, CloseReason::AgentTcp);
    for part in ["[2001:db8::1]:443: Network is unreachable", "192.0.2.1:443: Connection refused", "No route to host"] {
        assert!(detail.contains(part), "{detail}");
    }
    rig.assert_closed();
}

#[test]
fn of_many_addresses_only_the_first_few_are_tried() {
    let many: Vec<String> = (1..=50).map(|host| format!("192.0.2.{host}:443")).collect();
    let mut rig = Rig::new(settings());
    rig.resolve(&many.iter().map(String::as_str).collect::<Vec<_>>());
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.connects.len(), ATTEMPTS_MAX);
    rig.pass(LADDER_WAIT);
    let (reason, detail) = rig.end();
    assert_eq!(reason, CloseReason::AgentTcp);
    assert!(detail.contains("no answer within 15 s"), "{detail}");
    rig.assert_closed();
}

#[test]
fn a_name_without_an_address_ends_the_call() {
    let mut rig = Rig::new(settings());
    rig.agent.handle_resolved(rig.now, Err("no such host".into()), &mut rig.told);
    assert_eq!(rig.end(), (CloseReason::AgentDns, "localhost cannot be looked up: no such host".into()));
    rig.assert_closed();
    let mut rig = Rig::new(settings());
    rig.resolve(&[]);
    assert_eq!(rig.end().0, CloseReason::AgentDns);
    rig.resolve(&ADDRESSES);
    assert!(rig.connects.is_empty(), "an answer that comes too late is ignored");
}

#[test]
fn a_step_that_never_comes_is_named() {
    let identity = Identity::until(2099);
    let tls = Tls::with_roots([identity.der.clone()]).unwrap();
    let steps: [(Climb, CloseReason, &str); 6] = [
        (|_| {}, CloseReason::AgentDns, "looking up localhost"),
        (|rig| rig.resolve(&ADDRESSES[..1]), CloseReason::AgentTcp, "connecting to localhost"),
        (
            |rig| {
                rig.resolve(&ADDRESSES[..1]);
                rig.reads = false;
                rig.connected(Attempt(0));
            },
            CloseReason::AgentTls,
            "TLS with localhost",
        ),
        (
            |rig| {
                rig.resolve(&ADDRESSES[..1]);
                rig.agent.handle_connected(rig.now, Attempt(0), &mut rig.told);
                while rig.agent.state == State::ExpectTls {
                    while let Some(output) = rig.agent.poll_output() {
                        let AgentOutput::Write { bytes, .. } = output else { continue };
                        rig.server.handle(&bytes);
                    }
                    let down = rig.server.poll_write();
                    rig.agent.handle_received(rig.now, Attempt(0), &down, &mut rig.told);
                }
                rig.reads = false;
            },
            CloseReason::AgentHttp,
            "WebSocket upgrade at localhost",
        ),
        (Rig::connect, CloseReason::AgentSession, "waiting for session.created"),
        (
            |rig| {
                rig.connect();
                rig.model(CREATED);
            },
            CloseReason::AgentSession,
            "waiting for session.updated",
        ),
    ];
    for (climb, reason, step) in steps {
        let mut rig = Rig::with(config(Some(tls.clone())), settings(), Server::secure(&identity));
        rig.run();
        climb(&mut rig);
        assert!(!rig.agent.deadline().reason.is_empty());
        rig.pass(Duration::from_millis(14_999));
        assert!(rig.take().is_empty(), "{step}");
        rig.pass(Duration::from_millis(1));
        let (at, detail) = rig.end();
        assert_eq!(at, reason, "{detail}");
        assert!(detail.starts_with(step) && detail.contains("no answer within 15 s"), "{detail}");
        rig.assert_closed();
    }
}

#[test]
fn a_connection_that_breaks_names_the_step_it_broke_at() {
    let breaks: [(Climb, CloseReason); 3] = [
        (|_| {}, CloseReason::AgentSession),
        (|rig| rig.model(CREATED), CloseReason::AgentSession),
        (
            |rig| {
                rig.model(CREATED);
                rig.model(UPDATED);
            },
            CloseReason::AgentClosed,
        ),
    ];
    for (climb, reason) in breaks {
        for ended in [false, true] {
            let mut rig = Rig::new(settings());
            rig.connect();
            climb(&mut rig);
            if ended {
                rig.agent.handle_ended(rig.now, Attempt(0), &mut rig.told);
            } else {
                rig.failed(Attempt(0), 104);
            }
            rig.run();
            let (at, detail) = rig.end();
            assert_eq!(at, reason);
            let words = if ended { "without a close frame" } else { "Connection reset" };
            assert!(detail.contains(words), "{detail}");
            rig.assert_closed();
        }
    }
}

#[test]
fn a_certificate_that_does_not_hold_is_agent_tls() {
    let identity = Identity::until(2020);
    let tls = Tls::with_roots([identity.der.clone()]).unwrap();
    let mut rig = Rig::with(config(Some(tls)), settings(), Server::secure(&identity));
    rig.connect();
    let (reason, detail) = rig.end();
    assert_eq!(reason, CloseReason::AgentTls);
    assert!(detail.contains("has expired"), "{detail}");
    rig.assert_closed();
}

#[test]
fn a_refused_upgrade_tells_status_and_body_and_never_the_key() {
    let mut rig = Rig::new(settings());
    rig.resolve(&ADDRESSES[..1]);
    rig.agent.handle_connected(rig.now, Attempt(0), &mut rig.told);
    let body = format!("{{\"error\":\n{{\"message\":\"Incorrect API key provided: {KEY}. \u{1b}[31m\"}}}}");
    let head = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n", body.len());
    rig.agent.handle_received(rig.now, Attempt(0), head.as_bytes(), &mut rig.told);
    rig.agent.handle_received(rig.now, Attempt(0), body.as_bytes(), &mut rig.told);
    assert_eq!(
        rig.end(),
        (
            CloseReason::AgentHttp,
            r#"HTTP 401: {"error": {"message":"Incorrect API key provided: (key). [31m"}}"#.into()
        )
    );
    while rig.agent.poll_output().is_some() {}
    assert!(rig.agent.is_closed());
}

#[test]
fn a_refusal_of_the_session_is_told_in_the_models_words() {
    let mut rig = Rig::new(settings());
    rig.connect();
    rig.model(CREATED);
    rig.model(r#"{"type":"error","error":{"type":"invalid_request_error","code":"unknown_parameter","message":"Unknown parameter: 'x'."}}"#);
    let (reason, detail) = rig.end();
    assert_eq!(reason, CloseReason::AgentSession);
    assert_eq!(detail, "the model refused the session: unknown_parameter: Unknown parameter: 'x'.");
    rig.assert_closed();
    assert_eq!(rig.server.closed, Some(1000), "the goodbye was polite");

    let mut rig = Rig::new(settings());
    rig.connect();
    rig.server.close(4000, "invalid_request_error.beta_api_shape_disabled");
    rig.run();
    let (reason, detail) = rig.end();
    assert_eq!(reason, CloseReason::AgentSession);
    assert!(detail.contains("4000 invalid_request_error.beta_api_shape_disabled"), "{detail}");
    rig.assert_closed();
}

#[test]
fn a_key_that_no_header_can_carry_is_told_without_the_key() {
    let bad =
        crate::agent::AgentConfig { api_key: Some(crate::config::Secret::new("sk-x\ny-0123456789")), ..config(None) };
    let mut rig = Rig::with(bad, settings(), Server::plain());
    rig.connect();
    let (reason, detail) = rig.end();
    assert_eq!(reason, CloseReason::AgentHttp);
    assert!(detail.contains("Authorization") && !detail.contains("0123456789"), "{detail}");
    rig.assert_closed();
}

#[test]
fn the_end_of_a_session_by_the_model_is_agent_closed() {
    let expired = r#"{"type":"error","error":{"type":"invalid_request_error","code":"session_expired","message":"Your session hit the maximum duration of 60 minutes."}}"#;
    let mut rig = Rig::live(settings());
    rig.server.send(expired);
    rig.server.close(1001, "Your session hit the maximum duration of 60 minutes.");
    rig.run();
    let (reason, detail) = rig.end();
    assert_eq!(reason, CloseReason::AgentClosed);
    assert!(detail.starts_with("session_expired: Your session hit"), "{detail}");
    rig.assert_closed();

    let mut rig = Rig::live(settings());
    rig.server.close(1011, "keepalive ping timeout");
    rig.run();
    assert_eq!(
        rig.end(),
        (CloseReason::AgentClosed, "the model closed the session: 1011 keepalive ping timeout".into())
    );
    rig.assert_closed();
}

#[test]
fn a_model_that_falls_silent_is_noticed() {
    let mut rig = Rig::live(settings());
    rig.reads = false;
    rig.pass(Duration::from_secs(39));
    assert!(rig.take().is_empty());
    rig.pass(Duration::from_secs(1));
    let (reason, detail) = rig.end();
    assert_eq!(reason, CloseReason::AgentClosed);
    assert!(detail.contains("for 20 s"), "{detail}");
    rig.assert_closed();
}

#[test]
fn pings_keep_a_quiet_session_alive() {
    let mut rig = Rig::live(settings());
    rig.pass(Duration::from_secs(3600));
    assert!(rig.agent.is_live() && rig.take().is_empty());
    assert_eq!(rig.server.pings, 180);
}

#[test]
fn our_end_is_polite_bounded_and_silent() {
    let mut rig = Rig::live(settings());
    rig.agent.close(rig.now);
    rig.run();
    assert_eq!(rig.server.closed, Some(1000));
    assert!(rig.agent.is_closed(), "the model answered");
    rig.assert_closed();

    let mut rig = Rig::live(settings());
    rig.reads = false;
    rig.agent.close(rig.now);
    rig.agent.append(rig.now, &[0; 480]);
    rig.run();
    assert!(!rig.agent.is_closed());
    rig.server.send(r#"{"type":"input_audio_buffer.speech_started"}"#);
    rig.run();
    rig.pass(CLOSE_WAIT);
    assert!(rig.agent.is_closed() && rig.take().is_empty());
    rig.assert_closed();
}

#[test]
fn an_end_in_mid_ladder_closes_what_was_begun() {
    let mut rig = Rig::new(settings());
    rig.agent.close(rig.now);
    rig.assert_closed();
    let mut rig = Rig::new(settings());
    rig.resolve(&ADDRESSES);
    rig.pass(ATTEMPT_DELAY);
    rig.agent.close(rig.now);
    rig.run();
    rig.connected(Attempt(0));
    rig.failed(Attempt(1), 111);
    assert_eq!(rig.closes.len(), 2);
    assert!(rig.take().is_empty());
    rig.assert_closed();
}

#[test]
fn audio_from_before_the_session_goes_first_and_its_oldest_is_dropped() {
    let mut rig = Rig::new(settings());
    (0..200).for_each(|frame| rig.agent.append(rig.now, &[frame; 480]));
    rig.connect();
    rig.model(CREATED);
    assert_eq!(rig.sent_types(), ["session.update"], "no audio before session.updated");
    rig.model(UPDATED);
    rig.agent.append(rig.now, &[777; 480]);
    let sent = rig.sent();
    let mut pcm = vec![];
    for append in &sent {
        let bytes = base64_simd::STANDARD.decode_to_vec(append["audio"].as_str().unwrap()).unwrap();
        pcm.extend(bytes.chunks(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
    }
    let expected: Vec<i16> = (50..200).chain([777]).flat_map(|frame| [frame; 480]).collect();
    assert_eq!(pcm, expected);
    assert_eq!((rig.report().early_dropped_ms, rig.report().appends), (1000, 31));
}

#[test]
fn a_model_that_stops_reading_ends_the_call() {
    let mut rig = Rig::live(settings());
    rig.reads = false;
    let mut frames = 0;
    while rig.take().is_empty() {
        rig.agent.append(rig.now, &[0; 480]);
        rig.pass(Duration::from_millis(20));
        frames += 1;
        assert!(frames < 1000);
    }
    // 15 s of audio, within a second.
    assert!((700..800).contains(&frames), "{frames}");
    assert!(rig.unread.len() <= UNWRITTEN_BYTES_MAX + 2000, "{}", rig.unread.len());

    let mut rig = Rig::live(settings());
    rig.reads = false;
    (0..2000).for_each(|_| rig.agent.append(rig.now, &[0; 480]));
    rig.pass(Duration::ZERO);
    let (reason, detail) = rig.end();
    assert_eq!(reason, CloseReason::AgentSession);
    assert!(detail.contains("the model stopped reading"), "{detail}");
    assert!(rig.unread.len() <= UNWRITTEN_BYTES_MAX + 2000, "no more than the bound is ever held");
    rig.assert_closed();
}

#[test]
fn pings_without_end_do_not_fill_memory() {
    let mut rig = Rig::live(settings());
    rig.reads = false;
    let pings = [0x89, 0].repeat(8 << 10);
    for _ in 0..1000 {
        if let Some(link) = rig.agent.link {
            rig.agent.handle_received(rig.now, link, &pings, &mut rig.told);
            rig.run();
        }
        rig.pass(Duration::ZERO);
    }
    let (reason, detail) = rig.end();
    assert_eq!(reason, CloseReason::AgentSession);
    assert!(detail.contains("stopped reading"), "{detail}");
    assert!(rig.unread.len() <= UNWRITTEN_BYTES_MAX + (1 << 17), "{}", rig.unread.len());
    assert!(rig.unread.len() > UNWRITTEN_BYTES_MAX / 2, "{}", rig.unread.len());
}

#[test]
fn a_greeting_waits_for_the_session_and_for_the_caller() {
    let greet = |greeting: Greeting, before: bool| {
        let mut rig = Rig::new(SessionSettings { greeting, ..settings() });
        rig.connect();
        rig.model(CREATED);
        rig.sent();
        if before {
            rig.agent.greet(rig.now);
            assert!(rig.sent().is_empty());
        }
        rig.model(UPDATED);
        if !before {
            assert!(rig.sent().is_empty());
            rig.agent.greet(rig.now);
        }
        rig.agent.greet(rig.now);
        rig.sent()
    };
    for before in [false, true] {
        let own = greet(Greeting::Own, before);
        assert_eq!((own.len(), &own[0]["type"], own[0].get("response")), (1, &"response.create".into(), None));
        let text = greet(Greeting::Text("Olá, \"Zé\".".into()), before);
        assert_eq!(text.len(), 1);
        assert!(text[0]["response"]["instructions"].as_str().unwrap().ends_with("Olá, \"Zé\"."));
        assert!(greet(Greeting::None, before).is_empty());
    }
}

#[test]
fn deadlines_say_what_they_are_for() {
    let mut rig = Rig::new(settings());
    let reason = |agent: &Agent| agent.deadline().reason;
    assert_eq!(reason(&rig.agent), "model connect");
    rig.resolve(&ADDRESSES);
    assert_eq!(reason(&rig.agent), "next address");
    rig.connected(Attempt(0));
    rig.model(CREATED);
    rig.model(UPDATED);
    assert_eq!(reason(&rig.agent), "ping");
    rig.agent.greet(rig.now);
    assert_eq!(reason(&rig.agent), "response awaited");
    rig.agent.digit(rig.now, '1');
    assert_eq!(reason(&rig.agent), "keypad pause");
    rig.reads = false;
    rig.agent.close(rig.now);
    assert_eq!(reason(&rig.agent), "model close");
}
