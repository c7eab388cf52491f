//! Two instances on one machine: each event reaches the one that has the call.

use super::*;

fn folder() -> [String; 4] {
    ["--instance", "b", "--handover-dir", "/run/pair"].map(str::to_owned)
}

/// The new one of two, which has taken over.
fn new_one() -> World {
    let words = folder();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut world = World::whatsapp_with(&words, None, BTreeMap::new());
    let (stream, _) = world.dialled.pop_front().expect("the other is asked to hand over");
    world.input(Input::Connected { stream });
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    world.send(stream, answer);
    world.graph.clear();
    world
}

/// The question to the other instance, and its connection.
fn question(world: &mut World) -> (StreamKey, String) {
    let (stream, _) = world.dialled.pop_front().expect("the other is asked");
    world.input(Input::Connected { stream });
    let text = std::mem::take(&mut world.clients.get_mut(&stream).unwrap().out);
    (stream, text)
}

fn says(world: &mut World, stream: StreamKey, body: &str) {
    world.send(stream, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
}

#[test]
fn events_of_unknown_calls_are_shown_to_the_other_first_and_what_it_has_not_done_is_done_here() {
    let mut world = new_one();
    let both = webhook(&[calls(NUMBER, &json!([terminate_event("wacid.theirs"), connect_event("wacid.ours")]))]);
    assert_eq!(world.deliver(&both).status, 200, "Meta does not wait for it");
    assert_eq!(world.opened.len(), 0);
    let (stream, text) = question(&mut world);
    assert!(text.starts_with("POST /webhooks/whatsapp HTTP/1.1\r\n") && text.ends_with(&both), "{text}");
    says(&mut world, stream, r#"{"done":[0]}"#);
    assert_eq!(world.opened.len(), 1);
    // What is known here is nobody else's.
    world.deliver(&terminate("wacid.ours"));
    assert!(world.dialled.is_empty());
    assert_eq!(world.journal.len(), 0);
}

#[test]
fn a_terminate_that_overtakes_its_connect_on_the_way_to_the_other_is_not_forgotten() {
    let mut world = new_one();
    world.deliver(&connect(ID));
    let (first, _) = question(&mut world);
    world.deliver(&terminate(ID));
    let (second, _) = question(&mut world);
    says(&mut world, second, r#"{"done":[]}"#);
    says(&mut world, first, r#"{"done":[]}"#);
    assert_eq!((world.opened.len(), world.graph.len(), world.journal.len()), (0, 0, 0));
}

#[test]
fn a_process_that_ends_waits_for_the_others_word_on_what_it_has_taken_from_meta() {
    let mut world = new_one();
    world.deliver(&connect(ID));
    let (stream, _) = question(&mut world);
    world.input(Input::Stop);
    world.input(Input::Stop);
    assert!(!world.exited);
    says(&mut world, stream, r#"{"done":[0]}"#);
    assert!(world.exited);
}

#[test]
fn an_instance_that_is_gone_or_silent_keeps_no_phone_ringing() {
    for gone in [true, false] {
        let mut world = new_one();
        world.deliver(&connect(ID));
        let (stream, _) = world.dialled.pop_front().expect("the other is asked");
        if gone {
            world.input(Input::Failed { stream, fault: Fault { errno: 111 } });
        } else {
            world.input(Input::Connected { stream });
            world.wait(Duration::from_secs(4));
        }
        assert_eq!(world.opened.len(), 1, "gone: {gone}");
    }
}

#[test]
fn what_the_other_shows_is_done_where_the_call_is_known_and_said_so() {
    let mut world = new_one();
    world.deliver(&connect(ID));
    let (stream, _) = question(&mut world);
    says(&mut world, stream, r#"{"done":[]}"#);
    // Its own turn to be the old one.
    let local = world.offered_locals.pop_front().expect("an accept is armed");
    world.clients.insert(local, Client::default());
    world.input(Input::Accepted { stream: local, door: Door::Local, peer: None });
    let drain = "POST /api/drain HTTP/1.1\r\nHost: localhost\r\nBridge-Successor: a\r\nContent-Length: 0\r\n\r\n";
    world.send(local, drain);
    world.clients.get_mut(&local).unwrap().out.clear();
    let body = webhook(&[calls(NUMBER, &json!([connect_event("wacid.new"), terminate_event(ID), connect_event(ID)]))]);
    let local = world.offered_locals.pop_front().expect("an accept is armed");
    world.clients.insert(local, Client::default());
    world.input(Input::Accepted { stream: local, door: Door::Local, peer: None });
    // Unsigned: the one that shows it has checked that.
    let head = "POST /webhooks/whatsapp HTTP/1.1\r\nHost: localhost\r\nBridge-Forwarded: 1\r\n";
    world.send(local, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
    let answer = world.answer(local);
    assert_eq!((answer.status, answer.json["done"].clone()), (200, json!([1, 2])));
    assert_eq!((world.opened.len(), world.journal.len()), (1, 0), "it has ended the one and opened none");
}

#[test]
fn an_old_instance_stays_for_what_is_to_be_passed_on_while_the_new_one_serves() {
    let words = folder();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut world = World::whatsapp_with(&words, Some("http://127.0.0.1:9/hook"), BTreeMap::new());
    let (stream, _) = world.dialled.pop_front().expect("the other is asked to hand over");
    world.input(Input::Connected { stream });
    says(&mut world, stream, "{}");
    let message = json!({ "field": "messages", "value": { "messages": [{ "from": "16505551234", "id": "wamid.1" }] } });
    let body = webhook(&[message]);
    assert_eq!(world.deliver(&body).status, 200);
    let local = world.offered_locals.pop_front().expect("an accept is armed");
    world.clients.insert(local, Client::default());
    world.input(Input::Accepted { stream: local, door: Door::Local, peer: None });
    let drain = "POST /api/drain HTTP/1.1\r\nHost: localhost\r\nBridge-Successor: a\r\nContent-Length: 0\r\n\r\n";
    world.send(local, drain);
    world.wait(Duration::from_secs(60));
    assert!(!world.exited);
    world.input(Input::Message(Message::Forwarded(Forwarded { bytes: body.len(), taken: true })));
    assert!(world.exited);
}
