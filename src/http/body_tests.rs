//! Bodies longer than the usual: who may send them, what they hold together, and that it comes back.

use super::tests::Wire;
use super::*;

/// Longest body below `/long`.
const LONG: usize = 1024 * 1024;
/// Room for one such body and a bit.
const BUDGET: usize = LONG;
/// What the longest holds of it.
const HELD: usize = LONG - BODY_BYTES_MAX;

fn bodies() -> Bodies {
    let max = |head: &Head| {
        let long = BodyMax { bytes: LONG, too_long: "longer than a mebibyte" };
        if head.target.segments == ["long"] { long } else { BodyMax::DEFAULT }
    };
    Bodies { max, budget: Budget::new(BUDGET) }
}

fn head(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n")
}

fn chunked(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
}

fn chunk(bytes: usize) -> String {
    format!("{bytes:x}\r\n{}\r\n", "x".repeat(bytes))
}

#[test]
fn a_path_may_take_more_than_the_others_and_holds_to_the_byte() {
    for (path, length, status) in [
        ("/long", LONG, "200"),
        ("/long", LONG + 1, "413"),
        ("/longer", BODY_BYTES_MAX, "200"),
        ("/longer", BODY_BYTES_MAX + 1, "413"),
        ("/", BODY_BYTES_MAX + 1, "413"),
    ] {
        for text in [head(path, length) + &"x".repeat(length), chunked(path) + &chunk(length) + "0\r\n\r\n"] {
            for piece in [1000, 64 * 1024, usize::MAX] {
                let mut wire = Wire::taking(bodies());
                wire.slow_owner = true;
                text.as_bytes().chunks(piece.min(text.len())).for_each(|bytes| _ = wire.send(bytes));
                if status == "200" {
                    assert_eq!(wire.requests[0].body.len(), length, "{path}");
                    wire.answer();
                    wire.run();
                }
                assert_eq!(wire.statuses(), [status], "{length} bytes to {path} in pieces of {piece}");
            }
        }
    }
    let mut wire = Wire::taking(bodies());
    wire.send(head("/long", LONG + 1));
    assert_eq!(wire.problems[0].text, "longer than a mebibyte");
}

#[test]
fn a_long_body_that_finds_no_room_is_told_so_before_it_is_sent() {
    let bodies = bodies();
    let mut first = Wire::taking(bodies.clone());
    first.send(head("/long", LONG));
    assert_eq!(bodies.budget.left(), BUDGET - HELD);

    let waits = head("/long", LONG).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let mut second = Wire::taking(bodies.clone());
    second.send(waits);
    assert_eq!(second.statuses(), ["503"], "neither read nor asked for");
    assert_eq!(second.problems[0].retry_after_sec(), Some(10), "by then the first is whole or given up");
    assert!(second.shut, "what follows is no request");

    let mut small = Wire::taking(bodies.clone());
    small.send(head("/long", BODY_BYTES_MAX) + &"x".repeat(BODY_BYTES_MAX));
    assert_eq!(small.statuses(), ["200"], "what is not long needs no room");

    first.send("x".repeat(LONG));
    assert_eq!(first.statuses(), ["200"]);
    first.requests.clear();
    let mut third = Wire::taking(bodies);
    third.send(head("/long", LONG) + &"x".repeat(LONG));
    assert_eq!(third.statuses(), ["200"], "there is room again");
}

#[test]
fn a_client_that_sends_all_of_a_refused_body_can_read_why() {
    let mut wire = Wire::taking(Bodies { budget: Budget::new(0), ..bodies() });
    wire.send(head("/long", LONG)).send("x".repeat(LONG));
    assert_eq!((wire.statuses(), wire.closed), (vec!["503"], false), "drained, not reset");
}

#[test]
fn chunks_hold_room_as_they_grow_and_never_more_memory_than_they_hold() {
    let bodies = Bodies { budget: Budget::new(2 * HELD - 1), ..bodies() };
    let mut wires = [Wire::taking(bodies.clone()), Wire::taking(bodies.clone())];
    for wire in &mut wires {
        wire.send(chunked("/long"));
    }
    assert_eq!(bodies.budget.left(), 2 * HELD - 1, "nothing has come");
    let mut sent: usize = 0;
    while wires[1].problems.is_empty() {
        sent += 64 * 1024;
        for wire in &mut wires {
            wire.send(chunk(64 * 1024));
        }
        let covered = 2 * HELD - 1 - bodies.budget.left();
        assert!(covered <= 2 * HELD && covered >= sent.saturating_sub(BODY_BYTES_MAX), "{covered} after {sent}");
    }
    assert_eq!(wires[1].statuses(), ["503"]);
    assert!(sent > BODY_BYTES_MAX, "what is not long needs no room");
    assert_eq!(wires[0].problems, []);
    while sent < LONG {
        sent += 64 * 1024;
        wires[0].send(chunk(64 * 1024));
    }
    wires[0].slow_owner = true;
    wires[0].send("0\r\n\r\n");
    assert_eq!(wires[0].requests[0].body.len(), LONG);
    assert_eq!(wires[0].requests[0].body.capacity(), LONG, "not doubled beyond what is covered");
}

#[test]
fn the_room_comes_back_however_a_request_ends() {
    type End = fn(&mut Wire);
    let ends: [(&str, End); 10] = [
        ("whole and served", |wire| {
            wire.send("x".repeat(LONG / 2));
            assert_eq!(wire.requests.pop().map(|request| request.body.len()), Some(LONG));
        }),
        ("whole, with another behind it", |wire| {
            wire.send("x".repeat(LONG / 2) + "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(wire.requests.len(), 2);
            wire.requests.clear();
        }),
        ("whole, and its owner slow", |wire| {
            wire.slow_owner = true;
            wire.send("x".repeat(LONG / 2));
            let copy = wire.requests[0].clone();
            wire.requests.clear();
            assert!(copy.body.len() == LONG && wire.statuses().is_empty());
        }),
        ("whole, and the owner never looks", |wire| {
            wire.connection.received(wire.now, "x".repeat(LONG / 2).as_bytes());
            wire.connection = Connection::new(wire.now);
        }),
        ("cut short", |wire| _ = wire.end()),
        ("too slow", |wire| {
            wire.wait(BODY_TIME_MAX);
            assert_eq!(wire.statuses(), ["408"]);
        }),
        ("too slow, and the answer unread", |wire| {
            wire.slow_kernel = true;
            wire.wait(BODY_TIME_MAX).wait(WRITE_TIME_MAX);
            assert!(wire.closed);
        }),
        ("refused unasked", |wire| {
            wire.connection.refuse(wire.now, Response::new(503, "text/plain", Vec::new()));
            wire.run();
        }),
        ("its connection dropped", |wire| wire.connection = Connection::new(wire.now)),
        ("in error after it", |wire| {
            wire.send("x".repeat(LONG / 2) + "no request\r\n\r\n");
            wire.requests.clear();
            assert_eq!(wire.statuses(), ["200", "400"]);
        }),
    ];
    let chunked_ends: [(&str, End); 4] = [
        ("whole", |wire| {
            wire.send(chunk(LONG / 2)).send("0\r\n\r\n");
            assert_eq!(wire.requests.pop().map(|request| request.body.len()), Some(LONG));
        }),
        ("too long", |wire| {
            wire.send(chunk(LONG / 2 + 1));
            assert_eq!(wire.statuses(), ["413"]);
        }),
        ("in error", |wire| {
            wire.send("no size\r\n");
            assert_eq!(wire.statuses(), ["400"]);
        }),
        ("cut short", |wire| _ = wire.end()),
    ];
    let by_length = ends.map(|(what, end)| (what, head("/long", LONG) + &"x".repeat(LONG / 2), end));
    let by_chunks = chunked_ends.map(|(what, end)| (what, chunked("/long") + &chunk(LONG / 2), end));
    for (what, begin, end) in by_length.into_iter().chain(by_chunks) {
        let bodies = bodies();
        let mut wire = Wire::taking(bodies.clone());
        wire.send(begin);
        assert!(bodies.budget.left() < BUDGET, "{what}: it holds nothing");
        end(&mut wire);
        assert_eq!(bodies.budget.left(), BUDGET, "{what}");
    }
}

#[test]
fn a_copy_of_a_request_holds_its_room_on() {
    let bodies = bodies();
    let mut wire = Wire::taking(bodies.clone());
    wire.send(head("/long", LONG) + &"x".repeat(LONG));
    let copy = wire.requests[0].clone();
    wire.requests.clear();
    assert_eq!(bodies.budget.left(), BUDGET - HELD);
    drop(copy);
    assert_eq!(bodies.budget.left(), BUDGET);
}
