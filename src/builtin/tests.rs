//! Sessions on the plain machine: a client in tungstenite's client role, a clock that only tests move, and no driver.

use std::collections::HashMap;

use base64_simd::STANDARD;
use serde_json::{Value, json};

use super::testing::{Random, noise, silence, tone};
use super::*;
use crate::wss::server::MESSAGE_BYTES_MAX;
use crate::wss::server::testing::{Seen, TestClient};

/// One agent and its clients.
struct World {
    agent: BuiltinAgent,
    now: Instant,
    clients: HashMap<StreamKey, Client>,
    offered: Option<StreamKey>,
    exited: bool,
    deadline: Deadline,
    /// Whether writes are reported as done at once.
    writes_pass: bool,
}

struct Client {
    socket: TestClient,
    events: Vec<Value>,
    closed: Option<(u16, String)>,
    pings: usize,
    is_open: bool,
    held_back: usize,
}

fn accepted(stream: StreamKey) -> Input<'static, Message> {
    Input::Accepted { stream, door: Door::Api, peer: "127.0.0.1:5000".parse().ok() }
}

impl World {
    fn new(options: BuiltinOptions) -> Self {
        Self::of(BuiltinAgent::new(options))
    }

    fn of(agent: BuiltinAgent) -> Self {
        let mut world = Self {
            agent,
            now: Instant::now(),
            clients: HashMap::new(),
            offered: None,
            exited: false,
            deadline: Deadline::NEVER,
            writes_pass: true,
        };
        world.drain();
        world
    }

    fn input(&mut self, input: Input<'_, Message>) {
        self.agent.handle_input(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.agent.poll_output() {
                Output::Accept { stream, .. } => assert_eq!(self.offered.replace(stream), None, "two accepts at once"),
                Output::Write { stream, bytes } => {
                    let client = self.clients.get_mut(&stream).expect("written to a client");
                    for seen in client.socket.feed(&bytes) {
                        match seen {
                            Seen::Text(text) => client.events.push(serde_json::from_str(&text).unwrap()),
                            Seen::Ping => client.pings += 1,
                            Seen::Close(code, reason) => client.closed = Some((code, reason)),
                        }
                    }
                    let len = bytes.len();
                    if self.writes_pass {
                        self.agent.handle_input(self.now, Input::Written { stream, len, buffer: Vec::new() });
                    } else {
                        client.held_back += len;
                    }
                }
                Output::Shutdown { .. } => {}
                Output::Close { stream } => {
                    if let Some(client) = self.clients.get_mut(&stream) {
                        client.is_open = false;
                    }
                    if self.offered == Some(stream) {
                        self.offered = None;
                    }
                    self.agent.handle_input(self.now, Input::Closed { stream });
                }
                Output::Exit => self.exited = true,
                Output::Timeout(deadline) => {
                    self.deadline = deadline;
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Lets a client connect and upgrade.
    fn connect(&mut self, headers: &[(&'static str, &str)]) -> StreamKey {
        let stream = self.offered.take().expect("the agent accepts");
        let client = Client {
            socket: TestClient::new(headers),
            events: Vec::new(),
            closed: None,
            pings: 0,
            is_open: true,
            held_back: 0,
        };
        self.clients.insert(stream, client);
        self.input(accepted(stream));
        self.flush(stream);
        stream
    }

    fn flush(&mut self, stream: StreamKey) {
        let bytes = self.clients.get_mut(&stream).unwrap().socket.take();
        if !bytes.is_empty() {
            self.input(Input::Received { stream, bytes: &bytes });
        }
    }

    fn send_text(&mut self, stream: StreamKey, text: &str) {
        self.clients.get_mut(&stream).unwrap().socket.send_text(text);
        self.flush(stream);
    }

    fn send(&mut self, stream: StreamKey, event: &Value) {
        self.send_text(stream, &event.to_string());
    }

    /// Appends audio in pieces of 20 ms, as it would come in real time.
    fn speak(&mut self, stream: StreamKey, samples: &[i16]) {
        for piece in samples.chunks(480) {
            self.send(stream, &append(piece));
            self.pass(Duration::from_millis(20));
        }
    }

    /// Lets time pass, with every deadline on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100_000 {
            let Some(at) = self.deadline.at.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
        panic!("the agent asks to be called without end: {:?}", self.deadline);
    }

    /// The events since the last call.
    fn heard(&mut self, stream: StreamKey) -> Vec<Value> {
        std::mem::take(&mut self.clients.get_mut(&stream).unwrap().events)
    }
}

fn append(samples: &[i16]) -> Value {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    json!({ "type": "input_audio_buffer.append", "audio": STANDARD.encode_to_string(bytes) })
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    kinds.dedup();
    kinds
}

fn one<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    let mut found = events.iter().filter(|event| event["type"] == kind);
    let event = found.next().unwrap_or_else(|| panic!("no {kind} in {:?}", kinds(events)));
    assert!(found.next().is_none(), "several {kind}");
    event
}

fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event["type"] == kind).count()
}

fn audio(events: &[Value]) -> Vec<i16> {
    let deltas = events.iter().filter(|event| event["type"] == "response.output_audio.delta");
    let bytes = deltas.flat_map(|event| STANDARD.decode_to_vec(event["delta"].as_str().unwrap()).unwrap());
    bytes.collect::<Vec<_>>().chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

fn code(event: &Value) -> &str {
    event["error"]["code"].as_str().unwrap_or_else(|| panic!("{event} is no error"))
}

const WHOLE_CHAIN: [&str; 12] = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.delta",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
];

#[test]
fn a_session_begins_with_its_settings_and_a_greeting_on_request() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    let events = world.heard(client);
    let session = &one(&events, "session.created")["session"];
    assert_eq!((&session["type"], &session["model"]), (&json!("realtime"), &json!("test")));
    world.pass(Duration::from_secs(5));
    assert_eq!(world.heard(client), Vec::<Value>::new(), "it speaks unasked");

    world.send(
        client,
        &json!({ "type": "response.create", "response": { "instructions": "Say hello", "metadata": { "a": "b" } } }),
    );
    world.pass(Duration::from_secs(1));
    let events = world.heard(client);
    assert_eq!(kinds(&events), WHOLE_CHAIN);
    assert_eq!(audio(&events), greeting::greeting()[..]);
    let done = &one(&events, "response.done")["response"];
    assert_eq!((&done["status"], &done["metadata"]["a"]), (&json!("completed"), &json!("b")));
    // 4.08 s at a token per 50 ms.
    assert_eq!(done["usage"]["output_tokens"], 82);
    assert_eq!(one(&events, "response.output_audio_transcript.done")["transcript"], greeting::GREETING_TEXT);
}

#[test]
fn audio_comes_in_bursts_faster_than_it_plays() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    world.send(client, &json!({ "type": "response.create" }));
    assert_eq!(audio(&world.heard(client)).len(), response::DELTA_SAMPLES, "the first delta waits for nothing");
    world.pass(Duration::from_millis(199));
    let events = world.heard(client);
    assert_eq!(audio(&events).len(), 9 * response::DELTA_SAMPLES, "200 ms every 20 ms");
    assert_eq!(count(&events, "response.done"), 0);
}

#[test]
fn the_callers_words_come_back_sample_by_sample() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    world.heard(client);
    // 1.5 s of quiet, two syllables with a gap, and silence: what a caller's line carries.
    let speech = [noise(300, -22.0), silence(120), tone(340, -25.0)].concat();
    let line = [noise(1_500, -62.0), speech.clone(), noise(1_000, -62.0)].concat();
    world.speak(client, &line);
    world.pass(Duration::from_secs(2));
    let events = world.heard(client);
    let whole: Vec<_> = [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    .into_iter()
    .chain(WHOLE_CHAIN)
    .collect();
    assert_eq!(kinds(&events), whole);
    let started = one(&events, "input_audio_buffer.speech_started");
    let stopped = one(&events, "input_audio_buffer.speech_stopped");
    // Started at 1,500 less 300 of padding; stopped 500 after the last word.
    assert_eq!((&started["audio_start_ms"], &stopped["audio_end_ms"]), (&json!(1_200), &json!(2_760)));
    let committed = one(&events, "input_audio_buffer.committed");
    assert_eq!(started["item_id"], committed["item_id"]);
    assert_eq!(events[3]["item"]["id"], committed["item_id"]);
    let back = audio(&events);
    let at = (1_500 - 100) * 24;
    assert_eq!(back, line[at..at + (100 + 760 + 200) * 24]);
    assert_eq!(one(&events, "response.output_audio_transcript.done")["transcript"], "(your words)");
    let usage = &one(&events, "response.done")["response"]["usage"];
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(11), &json!(22)));
}

#[test]
fn silence_and_steady_noise_are_not_answered() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    world.heard(client);
    world.speak(
        client,
        &[silence(3_000), noise(8_000, -48.0), silence(2_000), tone(40, -10.0), silence(1_000)].concat(),
    );
    assert_eq!(world.heard(client), Vec::<Value>::new());
}

#[test]
fn speech_cancels_the_response_being_generated() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    world.heard(client);
    world.send(client, &json!({ "type": "response.create" }));
    world.speak(client, &tone(200, -20.0));
    let events = world.heard(client);
    let order = kinds(&events);
    let started = order.iter().position(|kind| *kind == "input_audio_buffer.speech_started").unwrap();
    assert_eq!(order[started + 1], "response.output_audio.done", "{order:?}");
    let done = &one(&events, "response.done")["response"];
    assert_eq!(done["status"], "cancelled");
    assert_eq!(done["status_details"], json!({ "type": "cancelled", "reason": "turn_detected" }));
    assert_eq!(done["output"][0]["status"], "incomplete");
    assert!(audio(&events).len() < greeting::greeting().len() / 2);
    let said_ms = audio(&events).len() / 24;
    let item = one(&events, "response.done")["response"]["output"][0]["id"].clone();

    // The client tells what was really heard of it.
    let truncate = |end: usize| json!({ "type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": end });
    world.send(client, &truncate(said_ms + 500));
    world.send(client, &truncate(120));
    let events = world.heard(client);
    assert_eq!(kinds(&events), ["conversation.item.truncated", "error", "conversation.item.truncated"]);
    assert_eq!((&events[0]["audio_end_ms"], &events[2]["audio_end_ms"]), (&json!(said_ms), &json!(120)));

    // And the words that interrupted are answered.
    world.speak(client, &silence(700));
    world.pass(Duration::from_secs(1));
    assert_eq!(one(&world.heard(client), "response.done")["response"]["status"], "completed");
}

#[test]
fn speech_after_the_response_was_generated_cancels_nothing() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    world.send(client, &json!({ "type": "response.create" }));
    world.pass(Duration::from_secs(1));
    world.heard(client);
    world.speak(client, &tone(200, -20.0));
    assert_eq!(kinds(&world.heard(client)), ["input_audio_buffer.speech_started"]);
}

#[test]
fn speech_cancels_nothing_when_the_session_forbids_it() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    let input = json!({ "turn_detection": { "type": "server_vad", "interrupt_response": false } });
    world.send(
        client,
        &json!({ "type": "session.update", "session": { "type": "realtime", "audio": { "input": input } } }),
    );
    world.send(client, &json!({ "type": "response.create" }));
    world.speak(client, &tone(200, -20.0));
    let events = world.heard(client);
    assert_eq!(kinds(&events).last(), Some(&"response.output_audio.delta"), "it is still being generated");
    one(&events, "input_audio_buffer.speech_started");
    world.send(client, &json!({ "type": "response.create" }));
    assert_eq!(code(&world.heard(client)[0]), "conversation_already_has_active_response");
    world.pass(Duration::from_secs(1));
    assert_eq!(one(&world.heard(client), "response.done")["response"]["status"], "completed");
}

#[test]
fn turn_detection_is_the_sessions() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    let with = |turns: Value| json!({ "type": "session.update", "session": { "type": "realtime", "audio": { "input": { "turn_detection": turns } } } });
    let word = [silence(200), tone(300, -20.0), silence(400)].concat();

    world.send(client, &with(json!({ "type": "server_vad", "silence_duration_ms": 300, "create_response": false })));
    world.heard(client);
    world.speak(client, &word);
    let events = world.heard(client);
    assert_eq!(*kinds(&events).last().unwrap(), "conversation.item.done", "answered without being asked");
    assert_eq!(one(&events, "input_audio_buffer.speech_stopped")["audio_end_ms"], 800);

    // Off: the client commits and asks.
    world.send(client, &with(Value::Null));
    world.speak(client, &word);
    world.send(client, &json!({ "type": "input_audio_buffer.clear" }));
    world.send(client, &json!({ "type": "input_audio_buffer.commit" }));
    let events = world.heard(client);
    assert_eq!(kinds(&events), ["session.updated", "input_audio_buffer.cleared", "error"]);
    assert_eq!(code(&events[2]), "input_audio_buffer_commit_empty");
    world.speak(client, &word);
    world.send(client, &json!({ "type": "input_audio_buffer.commit" }));
    world.send(client, &json!({ "type": "response.create" }));
    world.pass(Duration::from_secs(1));
    let events = world.heard(client);
    assert_eq!(
        kinds(&events)[..3],
        ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    );
    assert_eq!(audio(&events), word);
}

#[test]
fn a_response_is_cancelled_on_request_and_only_then() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    world.heard(client);
    let cancel = json!({ "type": "response.cancel", "event_id": "mine" });
    world.send(client, &cancel);
    let events = world.heard(client);
    assert_eq!((code(&events[0]), &events[0]["error"]["event_id"]), ("response_cancel_not_active", &json!("mine")));
    world.send(client, &json!({ "type": "response.create", "response": { "conversation": "none" } }));
    world.send(client, &json!({ "type": "response.cancel", "response_id": "another" }));
    assert_eq!(code(world.heard(client).last().unwrap()), "response_cancel_not_active");
    world.speak(client, &tone(120, -20.0));
    assert_eq!(count(&world.heard(client), "response.done"), 0, "a response outside the conversation was interrupted");
    world.send(client, &cancel);
    let events = world.heard(client);
    let done = &one(&events, "response.done")["response"];
    assert_eq!(
        (&done["status_details"]["reason"], &done["conversation_id"]),
        (&json!("client_cancelled"), &Value::Null)
    );
    assert_eq!(count(&events, "conversation.item.done"), 0);
}

#[test]
fn a_wanted_transcription_fails_openly() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    let input = json!({ "transcription": { "model": "gpt-transcribe" } });
    world.send(
        client,
        &json!({ "type": "session.update", "session": { "type": "realtime", "audio": { "input": input } } }),
    );
    world.speak(client, &[tone(200, -20.0), silence(600)].concat());
    let events = world.heard(client);
    let failed = one(&events, "conversation.item.input_audio_transcription.failed");
    assert_eq!(failed["item_id"], one(&events, "input_audio_buffer.committed")["item_id"]);
}

#[test]
fn echo_returns_each_append_at_once_in_one_response() {
    let mut world = World::new(BuiltinOptions { echo: true });
    let client = world.connect(&[]);
    world.heard(client);
    let line = tone(2_000, -20.0);
    world.send(client, &append(&line[..480]));
    assert_eq!(
        kinds(&world.heard(client)),
        [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio.delta"
        ]
    );
    for piece in line[480..].chunks(480) {
        world.send(client, &append(piece));
        let events = world.heard(client);
        assert_eq!((kinds(&events), audio(&events)), (vec!["response.output_audio.delta"], piece.to_vec()));
    }
    world.send(client, &json!({ "type": "response.create" }));
    assert_eq!(code(&world.heard(client)[0]), "conversation_already_has_active_response");
    world.send(client, &json!({ "type": "response.cancel" }));
    assert_eq!(one(&world.heard(client), "response.done")["response"]["usage"]["output_tokens"], 40);
}

#[test]
fn a_talking_agent_talks_its_share_of_the_time_faster_than_real_time_whatever_it_hears() {
    for percent in [40, 100] {
        let mut world = World::of(BuiltinAgent::talking(percent));
        let client = world.connect(&[]);
        world.heard(client);
        world.pass(Duration::from_secs(60));
        assert!(world.heard(client).is_empty(), "nobody is there to talk to yet");
        world.send(client, &append(&tone(20, -20.0)));
        let (mut said, mut listened) = (Duration::ZERO, 0);
        for _ in 0..300 {
            world.speak(client, &tone(1_000, -20.0));
            let events = world.heard(client);
            assert_eq!(count(&events, "input_audio_buffer.speech_started"), 0);
            let burst = Duration::from_millis(audio(&events).len() as u64 / 24);
            said += burst;
            listened += usize::from(burst.is_zero());
        }
        let share = said.as_secs_f64() / 300.0 * 100.0;
        assert!((share - f64::from(percent)).abs() < 3.0, "{percent} %: {share}");
        assert!(listened > 150, "a burst of 4 s takes half a second to come: {listened}");
    }
}

#[test]
fn talking_sessions_do_not_all_begin_at_once() {
    let mut world = World::of(BuiltinAgent::talking(40));
    let clients = [(); 4].map(|()| world.connect(&[]));
    for client in clients {
        world.send(client, &append(&silence(20)));
        world.heard(client);
    }
    let mut begins = [None; 4];
    for tenth in 0..110 {
        world.pass(Duration::from_millis(100));
        for (client, begin) in clients.iter().zip(&mut begins) {
            if count(&world.heard(*client), "response.created") > 0 {
                begin.get_or_insert(tenth);
            }
        }
    }
    let mut begins = begins.map(|begin| begin.expect("within a period"));
    begins.sort_unstable();
    assert!(begins.windows(2).all(|pair| pair[1] - pair[0] > 5), "{begins:?}");
}

#[test]
fn the_beta_is_refused_as_the_real_service_does() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[("openai-beta", "realtime=v1")]);
    let events = world.heard(client);
    assert_eq!((events.len(), code(&events[0])), (1, "beta_api_shape_disabled"));
    let closed = (4000, "invalid_request_error.beta_api_shape_disabled".to_owned());
    assert_eq!(world.clients[&client].closed, Some(closed));
    world.flush(client);
    world.input(Input::Ended { stream: client });
    assert!(!world.clients[&client].is_open);
}

#[test]
fn wrong_events_are_told_and_the_session_goes_on() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    world.heard(client);
    let long = format!("{{\"type\":\"{}\"}}", "x".repeat(1_000));
    for (text, expected) in [
        ("", "invalid_json"),
        ("[1]", "invalid_json"),
        ("{\"type\":\"session.update\"", "invalid_json"),
        (&"[".repeat(100_000), "invalid_json"),
        ("{}", "missing_required_parameter"),
        ("{\"type\":7}", "invalid_value"),
        (&long, "invalid_value"),
        ("{\"type\":\"conversation.item.retrieve\",\"item_id\":\"x\"}", "invalid_value"),
        ("{\"type\":\"session.update\"}", "missing_required_parameter"),
        ("{\"type\":\"session.update\",\"session\":{\"type\":\"realtime\",\"temperature\":1}}", "unknown_parameter"),
        ("{\"type\":\"response.cancel\",\"junk\":1}", "unknown_parameter"),
        ("{\"type\":\"response.create\",\"response\":{\"modalities\":[\"audio\"]}}", "unknown_parameter"),
        ("{\"type\":\"response.create\",\"response\":{\"output_modalities\":[\"text\"]}}", "invalid_value"),
        ("{\"type\":\"response.create\",\"response\":{\"metadata\":{\"a\":1}}}", "invalid_value"),
        ("{\"type\":\"input_audio_buffer.append\"}", "missing_required_parameter"),
        ("{\"type\":\"input_audio_buffer.append\",\"audio\":7}", "invalid_value"),
        ("{\"type\":\"input_audio_buffer.append\",\"audio\":\"!!!!\"}", "invalid_value"),
        ("{\"type\":\"input_audio_buffer.append\",\"audio\":\"AAA\"}", "invalid_value"),
        ("{\"type\":\"input_audio_buffer.append\",\"audio\":\"AAAA\"}", "invalid_value"),
        (
            "{\"type\":\"conversation.item.truncate\",\"item_id\":\"x\",\"content_index\":0,\"audio_end_ms\":1}",
            "item_truncate_invalid_item_id",
        ),
    ] {
        world.send_text(client, text);
        let events = world.heard(client);
        assert_eq!((events.len(), code(&events[0])), (1, expected), "{}", &text[..text.len().min(100)]);
        assert!(events[0].to_string().len() < 1_000, "a client's words are repeated at length");
    }
    // The same in other words: an escaped name, escaped slashes.
    world.send_text(client, "{\"type\":\"input_audio_buffer\\u002eappend\",\"audio\":\"\\/\\/8=\"}");
    world.send_text(client, "{\"type\":\"input_audio_buffer.clear\"}");
    assert_eq!(kinds(&world.heard(client)), ["input_audio_buffer.cleared"]);
}

#[test]
fn input_in_single_bytes_is_the_same_input() {
    let script = |step: usize| {
        let mut world = World::new(BuiltinOptions::default());
        let stream = world.offered.take().unwrap();
        let client = Client {
            socket: TestClient::new(&[]),
            events: Vec::new(),
            closed: None,
            pings: 0,
            is_open: true,
            held_back: 0,
        };
        world.clients.insert(stream, client);
        world.input(accepted(stream));
        let feed = |world: &mut World| {
            for bytes in world.clients.get_mut(&stream).unwrap().socket.take().chunks(step) {
                world.input(Input::Received { stream, bytes });
            }
        };
        feed(&mut world);
        for piece in [tone(300, -20.0), silence(700)].concat().chunks(2_000) {
            world.clients.get_mut(&stream).unwrap().socket.send_text(&append(piece).to_string());
        }
        feed(&mut world);
        world.pass(Duration::from_secs(1));
        world.heard(stream)
    };
    let whole = script(usize::MAX);
    assert_eq!(count(&whole, "response.done"), 1);
    assert_eq!(script(1), whole);
}

#[test]
fn a_message_beyond_the_bound_ends_its_connection_alone() {
    let mut world = World::new(BuiltinOptions::default());
    let (other, client) = (world.connect(&[]), world.connect(&[]));
    world.heard(other);
    world.send_text(client, &"x".repeat(MESSAGE_BYTES_MAX + 1));
    assert_eq!(world.clients[&client].closed.as_ref().map(|(code, _)| *code), Some(1009));
    world.pass(Duration::from_secs(3));
    assert!(!world.clients[&client].is_open, "it lingers for ever");
    assert_eq!(world.agent.connections(), 1);
    world.send(other, &json!({ "type": "input_audio_buffer.clear" }));
    assert_eq!(world.heard(other).len(), 1);
}

#[test]
fn a_client_that_does_not_read_slows_its_response_and_is_closed_when_it_asks_on() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    world.writes_pass = false;
    world.speak(client, &[tone(200, -20.0), silence(600)].concat());
    let say = json!({ "type": "response.create" });
    for _ in 0..30 {
        world.send(client, &say);
        world.pass(Duration::from_secs(1));
    }
    let held_back = world.clients[&client].held_back;
    assert!((256 * 1024..512 * 1024).contains(&held_back), "{held_back}");
    world.clients.get_mut(&client).unwrap().held_back = 0;
    world.input(Input::Written { stream: client, len: held_back, buffer: Vec::new() });
    world.pass(Duration::from_secs(1));
    assert_eq!(world.heard(client).last().unwrap()["type"], "response.done", "it did not go on");
    let junk = json!({ "type": "conversation.item.create", "item": { "type": "function_call_output", "call_id": "c", "output": "x".repeat(500_000) } });
    for _ in 0..5 {
        if world.clients[&client].is_open {
            world.send(client, &junk);
        }
    }
    assert!(!world.clients[&client].is_open);
    assert!(world.clients[&client].held_back <= 4 * 1024 * 1024);
}

#[test]
fn quiet_clients_are_asked_and_then_closed() {
    let mut world = World::new(BuiltinOptions::default());
    let (quiet, alive) = (world.connect(&[]), world.connect(&[]));
    world.pass(Duration::from_secs(61));
    assert_eq!((world.clients[&quiet].pings, world.clients[&alive].pings), (1, 1));
    world.flush(alive); // The pong that tungstenite's client has queued.
    world.pass(Duration::from_secs(60));
    assert_eq!((world.clients[&quiet].is_open, world.clients[&alive].is_open), (false, true));

    let silent = world.offered.take().unwrap();
    world.input(accepted(silent));
    assert_eq!(world.agent.connections(), 2);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.agent.connections(), 1, "a connection that never upgrades stays");
}

#[test]
fn keys_come_back_and_the_number_of_connections_is_bounded() {
    let mut world = World::new(BuiltinOptions::default());
    let first = world.connect(&[]);
    world.clients.get_mut(&first).unwrap().socket.close();
    world.flush(first);
    world.input(Input::Ended { stream: first });
    assert!(!world.clients[&first].is_open);
    // Bytes for the key's last life go nowhere.
    world.input(Input::Received { stream: first, bytes: b"late" });

    let mut streams = Vec::new();
    while world.offered.is_some() {
        streams.push(world.connect(&[]));
    }
    assert_eq!((streams.len(), world.agent.connections()), (CONNECTIONS_MAX, CONNECTIONS_MAX));
    assert!(streams.contains(&StreamKey { generation: first.generation + 1, ..first }));
    world.input(Input::Failed { stream: streams[5], fault: crate::io::Fault { errno: 104 } });
    let again = world.connect(&[]);
    world.input(Input::Failed { stream: streams[5], fault: crate::io::Fault { errno: 104 } });
    assert_eq!(world.agent.connections(), CONNECTIONS_MAX, "closed by a fault of the key's last life");
    assert_eq!(again, StreamKey { generation: streams[5].generation + 1, ..streams[5] });
}

#[test]
fn an_accept_that_fails_is_tried_again_later() {
    let mut world = World::new(BuiltinOptions::default());
    let stream = world.offered.unwrap();
    world.input(Input::Failed { stream, fault: crate::io::Fault { errno: 24 } });
    assert_eq!(world.offered, None, "at once: that would be a busy loop");
    world.pass(ACCEPT_AGAIN);
    assert_eq!(world.offered, Some(StreamKey { generation: 1, ..stream }));
}

#[test]
fn stopping_says_goodbye_and_exits() {
    let mut world = World::new(BuiltinOptions::default());
    let client = world.connect(&[]);
    world.input(Input::Stop);
    assert_eq!(world.clients[&client].closed, Some((1001, "the server is stopping".to_owned())));
    assert!(!world.exited && world.offered.is_none());
    world.flush(client);
    world.input(Input::Ended { stream: client });
    assert!(world.exited);

    let mut world = World::new(BuiltinOptions::default());
    let _deaf = world.connect(&[]);
    world.input(Input::Stop);
    world.pass(Duration::from_secs(3));
    assert!(world.exited, "a client that does not answer holds the process");

    let mut world = World::new(BuiltinOptions::default());
    world.connect(&[]);
    world.input(Input::Stop);
    world.input(Input::Stop);
    assert!(world.exited);
}

#[test]
fn mutated_events_never_panic_and_answers_stay_bounded() {
    let word = [tone(200, -20.0), silence(100)].concat();
    let seeds = [
        json!({ "type": "session.update", "session": { "type": "realtime", "instructions": "x", "audio": { "input": {
            "format": { "type": "audio/pcm", "rate": 24_000 }, "transcription": { "model": "m" },
            "turn_detection": { "type": "server_vad", "threshold": 0.5, "silence_duration_ms": 40, "prefix_padding_ms": 300 },
        }, "output": { "voice": "marin" } } } }),
        json!({ "type": "session.update", "session": { "type": "realtime", "audio": { "input": { "turn_detection": null } } } }),
        append(&word),
        append(&silence(100)),
        json!({ "type": "input_audio_buffer.commit" }),
        json!({ "type": "input_audio_buffer.clear", "event_id": "e" }),
        json!({ "type": "conversation.item.create", "previous_item_id": "root", "item": { "type": "message", "role": "user",
            "content": [{ "type": "input_text", "text": "hi" }] } }),
        json!({ "type": "conversation.item.truncate", "item_id": "item_0x0_00006", "content_index": 0, "audio_end_ms": 10 }),
        json!({ "type": "conversation.item.delete", "item_id": "item_0x0_00006" }),
        json!({ "type": "response.create", "response": { "metadata": { "a": "b" }, "conversation": "none" } }),
        json!({ "type": "response.cancel", "response_id": null }),
    ]
    .map(|event| event.to_string());
    for echo in [false, true] {
        let mut world = World::new(BuiltinOptions { echo });
        let client = world.connect(&[]);
        let mut random = Random::new(0x1234_5678_9abc_def1);
        let (mut errors, mut others) = (0, 0);
        for _ in 0..15_000 {
            let mut text = seeds[random.below(seeds.len())].clone().into_bytes();
            for _ in 0..random.below(3) {
                let at = random.below(text.len());
                match random.below(4) {
                    0 => text[at] = random.next() as u8,
                    1 => text.truncate(at + 1),
                    2 => text.insert(at, b"{}[]\",:0"[random.below(8)]),
                    _ => {
                        let end = (at + random.below(20)).min(text.len());
                        let piece = text[at..end].to_vec();
                        text.splice(at..at, piece);
                    }
                }
            }
            world.send_text(client, &String::from_utf8_lossy(&text));
            world.pass(Duration::from_millis(u64::from(random.next() % 30)));
            let events = world.heard(client);
            assert!(events.len() < 40, "{} events for one", events.len());
            errors += count(&events, "error");
            others += events.len() - count(&events, "error");
        }
        assert!(world.clients[&client].is_open && errors > 3_000 && others > 5_000, "{errors} {others}");
    }
}
