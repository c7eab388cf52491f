//! What a window shows of what bridges answer.

use serde_json::{Value, json};

use super::*;

const WIDE: usize = 120;

fn session(number: u64) -> Value {
    json!({
        "callId": format!("wacid.{number}"), "worker": number % 2, "state": "active", "durationMs": number * 61_000,
        "uplink": {"packets": 1000 + number, "lost": number}, "downlink": {"packets": 500},
        "latency": [
            {"stage": "uplink", "count": 9, "p99Us": 400 * number},
            {"stage": "tick_late", "count": 9, "p99Us": 310},
            {"stage": "response", "count": 1, "p99Us": 1_250_000}],
    })
}

fn sessions(count: u64) -> String {
    let all: Vec<Value> = (1..=count).map(session).collect();
    json!({"count": all.len(), "sessions": all}).to_string()
}

fn workers(count: u64) -> String {
    let worker = |worker: u64| {
        json!({"worker": worker, "calls": 6, "busyRatio": 0.42, "tickLateP99Us": 310, "complexity": 5,
               "admits": worker == 0})
    };
    json!({"callsMax": 200, "workers": (0..count).map(worker).collect::<Vec<_>>()}).to_string()
}

fn latency(uptime_ms: u64, count: u64, slow: u64) -> String {
    let buckets = [(256, count - slow), (4096, count - slow), (8192, count)];
    json!({"uptimeMs": uptime_ms, "stages": [
        {"stage": "tick_late", "count": count, "p99Us": 256, "maxUs": 9_000, "buckets": buckets}]})
    .to_string()
}

/// A screen of a bridge that has said this.
fn seeing(calls: u64) -> Top {
    let mut top = Top::new("http://127.0.0.1:8080/k/canary-token");
    top.news(Ok(Snapshot::of(&sessions(calls), Some(&workers(2)), Some(&latency(3_723_000, 1000, 0)))));
    top
}

#[test]
fn a_bridge_that_drains_says_how_many_calls_remain_and_its_workers_are_not_called_full() {
    let mut snapshot = Snapshot::of(&sessions(2), Some(&workers(2)), None);
    snapshot.drain = Some(serde_json::from_str(r#"{"draining":true,"calls":2,"secondsLeft":240}"#).unwrap());
    let mut top = Top::new("http://127.0.0.1:8080");
    top.news(Ok(snapshot.clone()));
    let lines = text(&mut top, WIDE, 12);
    assert!(lines[0].ends_with("2 of 200 calls  DRAINING: 2 calls remain, 240 s"), "{}", lines[0]);
    assert!(lines[1].ends_with("drains") && lines[2].ends_with("drains"), "{lines:?}");
    snapshot.drain = Some(serde_json::from_str(r#"{"draining":false,"calls":2}"#).unwrap());
    top.news(Ok(snapshot));
    assert!(text(&mut top, WIDE, 12)[0].ends_with("2 of 200 calls"));
}

fn text(top: &mut Top, columns: usize, rows: usize) -> Vec<String> {
    top.lines(columns, rows).iter().map(Line::text).collect()
}

fn name(number: u64) -> String {
    crate::call_id::CallId::new(&format!("wacid.{number}")).unwrap().log_id().to_string()
}

/// Where the list begins: below the heading.
fn rows_of_calls(lines: &[String]) -> &[String] {
    let heading = lines.iter().position(|line| line.starts_with("call ")).expect("a heading");
    &lines[heading + 1..lines.len() - 1]
}

#[test]
fn a_window_shows_the_bridge_its_workers_and_its_calls() {
    let lines = text(&mut seeing(2), WIDE, 12);
    assert_eq!(lines.len(), 12, "the window is filled");
    assert_eq!(lines[0], "voice-media-bridge top  http://127.0.0.1:8080  2 of 200 calls  up 1:02:03");
    assert_eq!(
        lines[1],
        "worker 0  ████████············  42 %     6 calls  tick late p99  310 µs  complexity  5  admits"
    );
    assert!(lines[2].starts_with("worker 1  ") && lines[2].ends_with("full"), "{}", lines[2]);
    assert_eq!(lines[3], "p99 now   uplink -  tick_late 256 µs  downlink -  response -");
    assert_eq!(
        lines[4],
        "call         state        w     ▼age       in      out  loss %   uplink  tick_late  downlink  response"
    );
    assert_eq!(
        lines[5],
        format!(
            "{} active       0     2:02     1002      500     0.1   800 µs     310 µs         -     1.2 s",
            name(2)
        )
    );
    assert!(lines[6].starts_with(&name(1)), "the youngest comes last: {lines:#?}");
    assert!(lines[11].starts_with("q quit  s sort"), "{}", lines[11]);
    assert!(!lines.concat().contains("canary"), "the token of a path is not shown");
}

#[test]
fn a_narrow_window_goes_without_what_matters_less() {
    let mut top = seeing(3);
    for columns in [80, 100] {
        let lines = text(&mut top, columns, 12);
        let widest = lines[4..].iter().map(|line| line.chars().count()).max();
        assert!(widest <= Some(columns), "{columns}: {widest:?}");
        assert!(lines[1].ends_with("admits") && lines[1].chars().count() <= columns, "{}", lines[1]);
        assert!(lines[4].contains("response") && lines[4].contains("loss %"), "{}", lines[4]);
    }
    assert!(!text(&mut top, 80, 12)[4].contains(" out "));
    for (columns, rows) in [(0, 0), (1, 1), (5, 2), (80, 3), (80, 5)] {
        assert!(text(&mut top, columns, rows).len() >= rows, "{columns} x {rows}");
    }
}

#[test]
fn the_list_scrolls_by_lines_and_pages_and_stays_within_its_ends() {
    let mut top = seeing(20);
    let shown = |top: &mut Top| {
        let lines = text(top, WIDE, 11);
        let calls = rows_of_calls(&lines);
        (1..=20).filter(|n| calls.iter().any(|line| line.starts_with(&name(*n)))).collect::<Vec<u64>>()
    };
    let all: Vec<u64> = (1..=20).collect();
    assert_eq!(shown(&mut top), all[15..], "five rows, the oldest first");
    for (key, first) in [
        (Key::Up, 15),
        (Key::Down, 14),
        (Key::PageDown, 9),
        (Key::End, 0),
        (Key::Down, 0),
        (Key::PageUp, 5),
        (Key::Home, 15),
    ] {
        assert!(top.key(key));
        assert_eq!(shown(&mut top), all[first..first + 5], "{key:?}");
    }
    top.key(Key::End);
    assert!(text(&mut top, WIDE, 11)[10].ends_with("calls 16-20 of 20"));
    top.news(Ok(Snapshot::of(&sessions(3), Some(&workers(2)), None)));
    assert_eq!(shown(&mut top), all[..3], "calls ended: the list is short again");
}

#[test]
fn s_sorts_by_the_next_column_the_most_first() {
    let mut top = seeing(3);
    let mut headings = Vec::new();
    for _ in 0..8 {
        let lines = text(&mut top, WIDE, 12);
        let marked = lines[4].split_whitespace().find_map(|word| word.strip_prefix('▼')).expect("a mark").to_owned();
        if ["age", "loss", "uplink", "in"].contains(&marked.as_str()) {
            assert!(rows_of_calls(&lines)[0].starts_with(&name(3)), "{marked}: {lines:#?}");
        }
        headings.push(marked);
        top.key(Key::Char('s'));
    }
    assert_eq!(headings, ["age", "loss", "uplink", "tick_late", "downlink", "response", "in", "out"]);
    assert!(text(&mut top, WIDE, 12)[4].contains("▼age"));
}

#[test]
fn p_holds_the_picture_and_q_ends() {
    let mut top = seeing(1);
    top.key(Key::Char('p'));
    top.news(Ok(Snapshot::of(&sessions(2), None, None)));
    top.news(Err("gone".into()));
    let lines = text(&mut top, WIDE, 12);
    assert!(lines[0].contains("1 of 200 calls") && lines[0].ends_with("PAUSED"), "{}", lines[0]);
    top.key(Key::Char('p'));
    top.news(Ok(Snapshot::of(&sessions(2), None, None)));
    assert!(text(&mut top, WIDE, 12)[0].contains("2 calls"));
    assert!(top.key(Key::Char('x')) && !top.key(Key::Char('q')));
}

#[test]
fn a_bridge_that_is_gone_is_said_so_above_what_it_last_said() {
    let mut top = Top::new("http://127.0.0.1:8080");
    assert!(text(&mut top, WIDE, 12)[1].contains("asking"));
    top.news(Err("nothing listens on 127.0.0.1:8080 (connection refused)".into()));
    let said = "no answer: nothing listens on 127.0.0.1:8080 (connection refused); trying again";
    assert_eq!(text(&mut top, WIDE, 12)[1], said);
    let mut top = seeing(1);
    top.news(Err("nothing listens on 127.0.0.1:8080 (connection refused)".into()));
    let lines = text(&mut top, WIDE, 12);
    assert_eq!(lines[1], said);
    assert!(rows_of_calls(&lines)[0].starts_with(&name(1)));
    top.news(Ok(Snapshot::of(&sessions(1), None, None)));
    assert!(!text(&mut top, WIDE, 12).concat().contains("no answer"));
}

#[test]
fn an_older_bridge_is_shown_as_far_as_it_tells() {
    let mut top = Top::new("http://127.0.0.1:8080");
    top.news(Ok(Snapshot::of(&sessions(1), None, None)));
    let lines = text(&mut top, WIDE, 12);
    assert!(lines[1].contains("no /api/workers") && lines[2].contains("no /api/latency"), "{lines:#?}");
    assert!(rows_of_calls(&lines)[0].starts_with(&name(1)));
}

#[test]
fn now_is_what_the_last_looks_brought() {
    let mut top = Top::new("http://127.0.0.1:8080");
    let mut look = |latency: String| {
        top.news(Ok(Snapshot::of(&sessions(0), None, Some(&latency))));
        text(&mut top, WIDE, 12)[2].clone()
    };
    assert!(look(latency(1_000, 1000, 0)).contains("tick_late 256 µs"));
    // Ten new ones, all slow: they are lost in the sum, and all there is of now.
    assert!(look(latency(2_000, 1010, 10)).contains("tick_late 8.2 ms"));
    for second in 3..=13 {
        look(latency(second * 1_000, 1000 + 10 * second, 10));
    }
    assert!(look(latency(14_000, 1140, 10)).contains("tick_late 256 µs"), "the slow ones are past");
    assert!(look(latency(15_000, 1140, 10)).contains("tick_late 256 µs"));
    assert!(look(latency(500, 7, 7)).contains("tick_late 256 µs"), "a new process: its own figures");
}

#[test]
fn many_workers_leave_room_for_calls() {
    let mut top = Top::new("http://127.0.0.1:8080");
    top.news(Ok(Snapshot::of(&sessions(9), Some(&workers(64)), None)));
    let lines = text(&mut top, WIDE, 24);
    assert_eq!(lines.iter().filter(|line| line.starts_with("worker ")).count(), 8);
    assert!(lines[9].contains("56 more workers"), "{}", lines[9]);
    assert!(rows_of_calls(&lines).len() >= 9);
}

#[test]
fn a_script_gets_everything_without_colours() {
    let text = seeing(30).plain();
    assert_eq!(text.lines().count(), 5 + 30, "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains("q quit"), "{text}");
    assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
}
