//! Bodies made to hurt: nothing panics, work stays bounded, and errors quote nothing.

use super::*;

/// Reads a body and holds what came of it to every promise.
fn survives(bytes: &[u8]) -> Option<Delivery> {
    match parse(bytes) {
        Ok(delivery) => {
            assert!(delivery.events.len() <= EVENTS_MAX);
            assert!((1..=SENDERS_MAX + 1).contains(&delivery.senders.len()));
            for event in &delivery.events {
                assert!(is_number_id(&event.phone_number_id));
                if let CallEventKind::Terminate(termination) = &event.kind {
                    assert!(termination.errors.len() <= ERRORS_MAX);
                    assert!(termination.errors.iter().all(|error| error.text.len() <= 256));
                }
            }
            Some(delivery)
        }
        Err(error) => {
            assert!(error.len() < 120 && error.ends_with('.') && error.is_ascii(), "{error}");
            assert!(!error.contains("canary"), "{error}");
            None
        }
    }
}

/// A body with something of everything, its offer cut short: that is only one more text.
fn rich() -> String {
    let session = json!({"sdp_type": "offer", "sdp": "v=0\r\n"});
    body(&[
        change("calls", &calls(&[with(connect(CALL), json!({ "session": session }))])),
        change("calls", &failed(OTHER_CALL)),
        change("messages", &messages()),
        change("messages", &statuses()),
    ])
    .to_string()
}

#[test]
fn every_truncation_is_refused() {
    let text = rich();
    assert!(survives(text.as_bytes()).is_some());
    for end in 0..text.len() {
        assert!(survives(&text.as_bytes()[..end]).is_none(), "{end} bytes");
    }
}

#[test]
fn every_changed_byte_is_survived() {
    let text = rich();
    for at in 0..text.len() {
        for byte in [0, b'"', b'\\', b'}', 0xff] {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = byte;
            survives(&bytes);
        }
        let mut bytes = text.clone().into_bytes();
        bytes.remove(at);
        survives(&bytes);
    }
}

#[test]
fn mutated_bodies_are_survived() {
    const WORDS: &[&str] = &[
        "null",
        "true",
        "-0",
        "1e400",
        "0.1",
        "NaN",
        "[]",
        "{}",
        "\"\"",
        "\\ud800",
        "\\u0000",
        "\"id\":",
        "\"calls\":",
        "\"event\":\"connect\",",
        "\"field\":\"calls\",",
        "99999999999999999999",
        "é",
        "\u{2028}",
        "\u{feff}",
        "]}",
        "},{",
    ];
    let text = rich();
    // A small xorshift generator, so that a failure repeats.
    let mut state = 0x5d9_a1f0c_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..10_000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..=below(3) {
            let at = below(bytes.len());
            let end = (at + 1 + below(12)).min(bytes.len());
            match below(5) {
                0 => bytes[at] ^= 1 << below(8),
                1 => drop(bytes.drain(at..end)),
                2 => drop(bytes.splice(at..at, WORDS[below(WORDS.len())].bytes())),
                3 => drop(bytes.splice(at..end, WORDS[below(WORDS.len())].bytes())),
                _ => {
                    let copied = bytes[at..end].to_vec();
                    let to = below(bytes.len());
                    drop(bytes.splice(to..to, copied));
                }
            }
        }
        if survives(&bytes).is_some() { taken += 1 } else { refused += 1 }
    }
    assert!(
        taken > 1000 && refused > 1000,
        "the mutations are too weak or too strong: {taken} taken, {refused} refused"
    );
}

#[test]
fn what_is_no_json_object_is_refused_in_a_sentence_that_quotes_nothing() {
    for (bytes, said) in [
        (&b""[..], "not valid JSON at line 1, column 0"),
        (b" \n ", "not valid JSON at line 2"),
        (b"canary", "not valid JSON at line 1, column 1"),
        (b"\"canary\"", "must be a JSON object"),
        (b"[\"canary\"]", "must be a JSON object"),
        (b"[\"whatsapp_business_account\",[]]", "must be a JSON object"),
        (b"1", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"NaN", "not valid JSON"),
        (b"{\"entry\":NaN}", "not valid JSON"),
        (b"{\"entry\":Infinity}", "not valid JSON"),
        (b"{\"canary\":01}", "not valid JSON"),
        (b"{\"canary\":1,}", "not valid JSON"),
        (b"{'canary':1}", "not valid JSON"),
        (b"{}{}", "not valid JSON"),
        (b"{} canary", "not valid JSON"),
        (b"{\"a\":\"canary\xff\"}", "not UTF-8 after its first 12 bytes"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
        (b"{\"a\":\"\x01canary\"}", "not valid JSON"),
        (b"{\"\\ud800canary\":1}", "must be a JSON object"),
        (b"{\"object\":1,\"object\":\"canary\"}", "\"object\""),
        (b"object=whatsapp_business_account", "not valid JSON"),
    ] {
        assert!(survives(bytes).is_none());
        let error = parse(bytes).unwrap_err();
        assert!(error.contains(said), "{said:?} is not in: {error}");
    }
}

#[test]
fn lone_surrogates_spoil_the_text_that_they_stand_in_alone() {
    let text = body(&[change("calls", &calls(&[connect(CALL)]))]).to_string();
    for (from, to, expected) in [
        ("\"A. User\"", "\"\\ud800\"", (1, false, 0)),
        ("\"USER_INITIATED\"", "\"\\ud800\"", (0, true, 0)),
        ("\"v=0", "\"\\udc00v=0", (0, false, 1)),
        ("\"wacid.", "\"\\ud800wacid.", (0, false, 1)),
        ("\"16505550101\",\"id\"", "\"\\ud800\",\"id\"", (1, false, 0)),
    ] {
        assert!(text.contains(from), "{from}");
        assert_eq!(counts(&survives(text.replacen(from, to, 1).as_bytes()).unwrap()), expected, "{from}");
    }
}

#[test]
fn deep_nesting_does_no_harm_wherever_it_stands() {
    let arrays = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    let value = with(calls(&[connect(CALL), json!("HERE")]), json!({"errors": "ERRORS"}));
    let text = body(&[change("calls", &value)]).to_string();
    for deep in [&arrays, &objects] {
        for place in ["\"HERE\"", "\"ERRORS\"", "\"whatsapp\"", "\"1760681513\"", "\"offer\"", "\"USER_INITIATED\""] {
            assert!(text.contains(place));
            assert!(survives(text.replacen(place, deep, 1).as_bytes()).is_some());
        }
        assert!(survives(format!("{{\"entry\":{deep}}}").as_bytes()).is_some());
    }
    assert!(survives(arrays.as_bytes()).is_none());
    assert!(survives(objects.as_bytes()).is_some());
    assert!(survives("[".repeat(100_000).as_bytes()).is_none());
    assert!(survives("{\"a\":".repeat(20_000).as_bytes()).is_none());
}

#[test]
fn huge_arrays_and_texts_do_no_harm() {
    let numbers = format!("[{}1]", "1,".repeat(30_000));
    let empties = format!("[{}{{}}]", "{},".repeat(20_000));
    for list in [numbers, empties] {
        for text in [
            format!("{{\"entry\":{list}}}"),
            format!("{{\"entry\":[{{\"changes\":{list}}}]}}"),
            format!("{{\"entry\":[{{\"changes\":[{{\"field\":\"calls\",\"value\":{{\"calls\":{list}}}}}]}}]}}"),
            format!("{{\"entry\":[{{\"changes\":[{{\"field\":\"x\",\"value\":{{\"messages\":{list}}}}}]}}]}}"),
        ] {
            assert_eq!(survives(text.as_bytes()).unwrap().events.len(), 0);
        }
    }
    let long = json!("x".repeat(1_000_000));
    let call = with(connect(CALL), json!({"from": long, "session": {"sdp_type": "offer", "sdp": long}}));
    let delivery = read_calls(&[call]);
    assert_eq!(offer_of(&delivery.events[0]).len(), 1_000_000, "how long an offer may be is not decided here");
    let members = format!("{{{}\"a\":1}}", "\"a\":1,".repeat(100_000));
    assert!(survives(members.as_bytes()).is_some());
}
