//! What is read of a body, and what of it is somebody else's.

mod hostile;

use serde_json::{Value, json};

use super::samples::{
    BUSINESS, CALL, NUMBER, OTHER_CALL, USER, body, calls, change, connect, failed, messages, sdp, statuses, terminate,
};
use super::*;

fn read(body: &Value) -> Delivery {
    parse(body.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

/// What is read of a body with a change of these calls.
fn read_calls(of: &[Value]) -> Delivery {
    read(&body(&[change("calls", &calls(of))]))
}

/// A JSON object with some members replaced, or removed by `null`.
fn with(mut object: Value, members: Value) -> Value {
    let Value::Object(members) = members else { panic!("members are an object") };
    for (name, value) in members {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(&name)),
            value => object[name] = value,
        }
    }
    object
}

/// How many events, whether there is anything else, how many are unusable.
fn counts(delivery: &Delivery) -> (usize, bool, usize) {
    (delivery.events.len(), delivery.has_others, delivery.unusable)
}

fn offer_of(event: &CallEvent) -> &str {
    match &event.kind {
        CallEventKind::Connect { offer } => &offer.0,
        CallEventKind::Terminate(_) => panic!("a terminate"),
    }
}

fn termination_of(event: &CallEvent) -> &Termination {
    match &event.kind {
        CallEventKind::Terminate(termination) => termination,
        CallEventKind::Connect { .. } => panic!("a connect"),
    }
}

fn the_error() -> MetaError {
    let text = "Call media not received: No media was received by the client of (hidden)".into();
    MetaError { code: 138_021, text }
}

#[test]
fn a_users_call_is_read_with_its_offer_as_it_was_sent() {
    let delivery = read_calls(&[connect(CALL)]);
    assert_eq!(counts(&delivery), (1, false, 0));
    let event = &delivery.events[0];
    assert_eq!((&*event.phone_number_id, event.call.expose()), (NUMBER, CALL));
    assert_eq!(event.timestamp_sec, Some(1_760_681_513));
    assert_eq!(offer_of(event), sdp());
    assert!(offer_of(event).contains("\r\n"));
    assert_eq!(delivery.senders, [hash(USER)]);
}

#[test]
fn an_end_is_read_with_each_error_once() {
    let delivery = read(&body(&[change("calls", &failed(CALL))]));
    assert_eq!(counts(&delivery), (1, false, 0));
    let expected = Termination { status: Some("FAILED".into()), duration_sec: Some(20), errors: vec![the_error()] };
    assert_eq!(*termination_of(&delivery.events[0]), expected);
}

#[test]
fn errors_are_found_in_either_place_and_both_count_where_they_differ() {
    let elsewhere = json!([{"code": 138_019, "title": "Setup failed"}]);
    let only_beside = with(calls(&[with(terminate(CALL), json!({"errors": null}))]), json!({"errors": elsewhere}));
    let delivery = read(&body(&[change("calls", &only_beside)]));
    let beside = MetaError { code: 138_019, text: "Setup failed".into() };
    assert_eq!(termination_of(&delivery.events[0]).errors, std::slice::from_ref(&beside));
    let both = with(calls(&[terminate(CALL)]), json!({"errors": elsewhere}));
    let delivery = read(&body(&[change("calls", &both)]));
    assert_eq!(termination_of(&delivery.events[0]).errors, [the_error(), beside]);
}

#[test]
fn errors_beside_several_calls_belong_to_none_of_them() {
    let list = [terminate(CALL), with(terminate(OTHER_CALL), json!({"errors": null}))];
    let two = with(calls(&list), json!({"errors": [{"code": 138_019, "title": "Setup failed"}]}));
    let delivery = read(&body(&[change("calls", &two)]));
    assert_eq!(termination_of(&delivery.events[0]).errors, [the_error()]);
    assert_eq!(termination_of(&delivery.events[1]).errors, []);
}

#[test]
fn the_message_says_more_than_the_title_and_the_details_are_added() {
    let errors = json!([
        {"code": 1, "title": "Title", "message": "Message", "error_data": {"details": "Details"}},
        {"code": 2, "title": "Title", "message": " ", "error_data": {"details": "Title"}},
        {"code": 3, "title": "Title"},
    ]);
    let delivery = read_calls(&[with(terminate(CALL), json!({ "errors": errors }))]);
    let texts: Vec<_> = termination_of(&delivery.events[0]).errors.iter().map(|error| &*error.text).collect();
    assert_eq!(texts, ["Message: Details", "Title", "Title"]);
}

#[test]
fn every_entry_change_and_call_is_read_in_its_order() {
    let first = json!({"id": "1", "changes": [
        change("calls", &calls(&[connect("a"), terminate("b")])),
        change("calls", &calls(&[connect("c")])),
    ]});
    let second = json!({"id": "2", "changes": [
        change("messages", &messages()),
        change("calls", &calls(&[terminate("d"), connect("e"), connect("f")])),
    ]});
    let delivery = read(&json!({"object": "whatsapp_business_account", "entry": [first, second]}));
    let ids: Vec<_> = delivery.events.iter().map(|event| event.call.expose()).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(counts(&delivery), (6, true, 0));
}

#[test]
fn calls_of_several_numbers_keep_theirs() {
    let other = with(calls(&[connect(OTHER_CALL)]), json!({"metadata": {"phone_number_id": "7"}}));
    let delivery = read(&body(&[change("calls", &calls(&[connect(CALL)])), change("calls", &other)]));
    let numbers: Vec<_> = delivery.events.iter().map(|event| &*event.phone_number_id).collect();
    assert_eq!(numbers, [NUMBER, "7"]);
}

#[test]
fn what_may_be_missing_or_more_changes_nothing() {
    for members in [
        json!({"from": null}),
        json!({"from": null, "to": null, "direction": null, "timestamp": null}),
        json!({"from": 5, "to": [1], "timestamp": 1_760_681_513}),
        json!({"from": null, "from_user_id": "US.13491208655302741918", "from_parent_user_id": "US.ENT.1"}),
        json!({"deeplink_payload": "x", "cta_payload": {"a": [1]}, "biz_opaque_callback_data": "y", "new": {"id": "z"}}),
    ] {
        let delivery = read_calls(&[with(connect(CALL), members.clone())]);
        assert_eq!(counts(&delivery), (1, false, 0), "{members}");
    }
    let more = with(
        body(&[with(change("calls", &calls(&[connect(CALL)])), json!({"new": 1}))]),
        json!({"new": {"entry": []}}),
    );
    assert_eq!(counts(&read(&more)), (1, false, 0));
    let no_object = with(body(&[change("calls", &calls(&[connect(CALL)]))]), json!({"object": null}));
    assert_eq!(counts(&read(&no_object)), (1, false, 0));
}

#[test]
fn times_are_strings_or_numbers_and_others_are_absent() {
    for (value, sec) in [
        (json!("1760681513"), Some(1_760_681_513)),
        (json!(1_760_681_513), Some(1_760_681_513)),
        (json!("-1"), None),
        (json!("soon"), None),
        (json!(1.5), None),
        (json!([1]), None),
    ] {
        let delivery = read_calls(&[with(terminate(CALL), json!({"timestamp": value, "duration": value}))]);
        assert_eq!(delivery.events[0].timestamp_sec, sec, "{value}");
        assert_eq!(termination_of(&delivery.events[0]).duration_sec, sec, "{value}");
    }
}

#[test]
fn events_without_what_they_need_are_counted_and_those_beside_them_are_read() {
    for (broken, unusable) in [
        (with(connect(CALL), json!({"session": null})), 1),
        (with(connect(CALL), json!({"session": "v=0"})), 1),
        (with(connect(CALL), json!({"session": {"sdp_type": "answer", "sdp": "v=0"}})), 1),
        (with(connect(CALL), json!({"session": {"sdp_type": "offer"}})), 1),
        (with(connect(CALL), json!({"session": {"sdp_type": "offer", "sdp": ""}})), 1),
        (with(connect(CALL), json!({"session": {"sdp_type": "offer", "sdp": 1}})), 1),
        (with(connect(CALL), json!({"session": {"sdp": "v=0"}})), 1),
        (with(connect(CALL), json!({"id": null})), 1),
        (with(connect(CALL), json!({"id": ""})), 1),
        (with(connect(CALL), json!({"id": 7})), 1),
        (with(connect(CALL), json!({"id": "a\nb"})), 1),
        (with(terminate(CALL), json!({"id": "x".repeat(257)})), 1),
        (json!(null), 1),
        (json!([connect(CALL)]), 1),
        (json!("connect"), 1),
    ] {
        let delivery = read_calls(&[connect("before"), broken.clone(), connect("behind")]);
        assert_eq!(counts(&delivery), (2, false, unusable), "{broken}");
    }
    for metadata in [json!(null), json!({}), json!({"phone_number_id": "../me"}), json!({"phone_number_id": 7})] {
        let value = with(calls(&[connect(CALL), terminate(CALL)]), json!({"metadata": metadata}));
        assert_eq!(counts(&read(&body(&[change("calls", &value)]))), (0, false, 2), "{metadata}");
    }
}

#[test]
fn whatever_is_no_call_event_of_a_users_call_is_somebody_elses() {
    let business = json!({"direction": "BUSINESS_INITIATED"});
    for changes in [
        vec![change("messages", &messages())],
        vec![change("messages", &statuses())],
        vec![change("account_update", &json!({"event": "VERIFIED_ACCOUNT"}))],
        vec![change(
            "calls",
            &with(calls(&[]), json!({"calls": null, "statuses": [{"type": "call", "status": "RINGING"}]})),
        )],
        vec![change("calls", &calls(&[with(connect(CALL), business.clone())]))],
        vec![change("calls", &calls(&[with(terminate(CALL), business.clone())]))],
        vec![change("calls", &calls(&[with(connect(CALL), json!({"direction": 1}))]))],
        vec![change("calls", &calls(&[with(connect(CALL), json!({"event": "call_recording_available"}))]))],
        vec![change("calls", &calls(&[with(connect(CALL), json!({"event": null}))]))],
        vec![change("calls", &calls(&[with(connect(CALL), json!({"event": "Connect"}))]))],
        vec![change("calls", &with(calls(&[]), json!({"recordings": [1]})))],
        vec![change("calls", &json!({"calls": {"id": CALL}}))],
        vec![change("calls", &json!("calls"))],
        vec![json!({"field": "calls"})],
        vec![json!({"value": calls(&[])})],
        vec![json!(7)],
        vec![change("new_field", &calls(&[connect(CALL)]))],
    ] {
        let delivery = read(&body(&changes));
        assert_eq!(counts(&delivery), (0, true, 0), "{changes:?}");
        let mut beside = changes.clone();
        beside.push(change("calls", &calls(&[connect(CALL)])));
        assert_eq!(counts(&read(&body(&beside))), (1, true, 0), "{changes:?}");
    }
    for whole in [
        json!({}),
        json!({"entry": {}}),
        json!({"entry": [1]}),
        json!({"entry": [{"id": "1"}]}),
        json!({"entry": [{"changes": 1}]}),
        with(body(&[change("calls", &calls(&[connect(CALL)]))]), json!({"object": "page"})),
        with(body(&[change("calls", &calls(&[connect(CALL)]))]), json!({"object": 1})),
    ] {
        assert_eq!(counts(&read(&whole)), (0, true, 0), "{whole}");
    }
    assert_eq!(counts(&read_calls(&[connect(CALL), terminate(CALL)])), (2, false, 0), "nothing else is there");
}

#[test]
fn senders_are_those_whom_things_are_about_each_once() {
    let delivery = read(&body(&[
        change("messages", &messages()),
        change("messages", &statuses()),
        change("calls", &calls(&[connect(CALL), with(terminate(OTHER_CALL), json!({"from": null}))])),
    ]));
    assert_eq!(delivery.senders, [USER, "16505550104", OTHER_CALL].map(hash));
    for (value, whom) in [
        (json!({"metadata": {"phone_number_id": NUMBER}}), NUMBER),
        (json!({"metadata": {"phone_number_id": NUMBER}, "messages": [{}]}), NUMBER),
        (json!({"messages": [{"id": "wamid.1"}]}), "wamid.1"),
        (json!({"messages": [{"from_user_id": "US.1", "id": "wamid.1"}]}), "US.1"),
        (json!({"event": "DISABLED_UPDATE"}), "102290129340398"),
    ] {
        assert_eq!(read(&body(&[change("other", &value)])).senders, [hash(whom)], "{value}");
    }
    let business = with(connect(CALL), json!({"direction": "BUSINESS_INITIATED", "from": BUSINESS, "to": USER}));
    assert_eq!(read_calls(&[business]).senders, [hash(USER)], "the user, whoever began");
    assert_eq!(read(&json!({})).senders.len(), 1, "whatever comes keeps its order");
    assert_eq!(read(&json!({"object": "page", "entry": []})).senders, read(&json!({})).senders);
}

#[test]
fn senders_are_hashes_that_lead_nowhere_without_the_number() {
    let delivery = read_calls(&[connect(CALL)]);
    assert_ne!(delivery.senders, [USER.parse::<u64>().unwrap()]);
    assert_eq!(hash("abc"), 0xba78_16bf_8f01_cfea, "the first 8 bytes of SHA-256");
    assert_ne!(hash(USER), ANYBODY);
}

#[test]
fn more_senders_than_are_told_apart_are_anybody() {
    let message = |number: usize| json!({"from": number.to_string()});
    for (count, senders) in [(SENDERS_MAX, SENDERS_MAX), (SENDERS_MAX + 1, SENDERS_MAX + 1), (3000, SENDERS_MAX + 1)] {
        let list: Vec<_> = (0..count).chain(0..count).map(message).collect();
        let delivery = read(&body(&[change("messages", &json!({"messages": list}))]));
        assert_eq!(delivery.senders.len(), senders);
        assert_eq!(delivery.senders.contains(&ANYBODY), count > SENDERS_MAX);
    }
}

#[test]
fn more_events_than_are_taken_are_counted() {
    let list: Vec<_> = (0..EVENTS_MAX + 3).map(|number| terminate(&number.to_string())).collect();
    let delivery = read_calls(&list);
    assert_eq!(counts(&delivery), (EVENTS_MAX, false, 3));
    assert_eq!(delivery.events[EVENTS_MAX - 1].call.expose(), "999");
}

#[test]
fn errors_are_bounded_and_name_nobody() {
    let many: Vec<_> = (0..100).map(|code| json!({"code": code, "title": "x".repeat(10_000)})).collect();
    let delivery = read_calls(&[with(terminate(CALL), json!({"errors": many, "status": "\u{1b}[31mFAILED\r\n"}))]);
    let termination = termination_of(&delivery.events[0]);
    assert_eq!((termination.errors.len(), termination.status.as_deref()), (8, Some("[31mFAILED")));
    assert!(termination.errors.iter().all(|error| error.text.len() <= 256));
    let odd = json!([
        {"code": "138021", "message": "to 16505550101\r\nnow"},
        {"title": "no code"},
        {"code": null},
        7,
        {"code": 1, "error_data": {"details": "only details"}},
        {"code": 2, "error_data": "details"},
    ]);
    let delivery = read_calls(&[with(terminate(CALL), json!({"errors": odd}))]);
    let errors: Vec<_> =
        termination_of(&delivery.events[0]).errors.iter().map(|error| (error.code, &*error.text)).collect();
    assert_eq!(errors, [(138_021, "to (hidden) now"), (1, "only details"), (2, "")]);
    for errors in [json!(null), json!({}), json!("138021"), json!(1)] {
        let delivery = read_calls(&[with(terminate(CALL), json!({"errors": errors}))]);
        assert_eq!(termination_of(&delivery.events[0]).errors, []);
    }
}

#[test]
fn nothing_personal_is_printed() {
    let delivery = read(&body(&[change("calls", &calls(&[connect(CALL), terminate(CALL)]))]));
    let printed = format!("{delivery:?}");
    for secret in [CALL, USER, BUSINESS, "ice-pwd", "v=0"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn a_member_that_stands_twice_spoils_its_own_object_alone() {
    let twice = r#"{"id":"x","event":"terminate","event":"connect"}"#;
    let text = body(&[change("calls", &calls(&[connect(CALL), json!("HERE")]))]).to_string();
    let delivery = parse(text.replace("\"HERE\"", twice).as_bytes()).unwrap();
    assert_eq!(counts(&delivery), (1, false, 1));
    let unasked = twice.replace("event\":\"connect", "from_user_id\":\"a\",\"from_user_id\":\"b");
    let delivery = parse(text.replace("\"HERE\"", &unasked).as_bytes()).unwrap();
    assert_eq!(counts(&delivery), (2, false, 0), "a member that nobody asks for may");
    let error = parse(br#"{"entry":[],"entry":[]}"#).unwrap_err();
    assert!(error.contains("twice"), "{error}");
}
