//! `voice-media-bridge capacity` as a user runs it, with numbers so small that any machine holds them.

use std::process::Command;

use serde_json::Value;

use crate::server_calls::{PATIENCE, poll_until};
use crate::support::process::Process;

fn start(arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voice-media-bridge"));
    Process::start(command.env_clear().arg("capacity").args(arguments))
}

/// One step of three calls, a second long, bounded so that it cannot but hold: what is measured is not this test's.
const SMALL: [&str; 8] = ["--max-calls", "3", "--step-sec", "1", "--settle-sec", "1", "--bound-tick-p99-ms", "10000"];

#[test]
fn a_search_starts_its_own_bridge_and_tells_calls_and_their_cost() {
    for talk in ["both", "conversation"] {
        let path = format!("{}/capacity-{talk}.json", env!("CARGO_TARGET_TMPDIR"));
        let mut process = start(&[&SMALL[..], &["--talk", talk, "--complexity", "0", "--json", &path]].concat());
        poll_until("its end", || process.try_wait().map(|_| ()).ok_or_else(|| process.output()));
        let (status, output) = process.terminate(PATIENCE);
        assert!(status.success(), "{output}");
        assert!(output.contains("At most 3 numbers of calls") && output.contains("at least 3 calls"), "{output}");
        let report: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("a report")).expect("JSON");
        assert_eq!(report["calls"], 3, "{report}");
        assert!(report["lowerBound"].as_str().is_some_and(|why| why.contains("--max-calls")), "{report}");
        let step = &report["steps"][0];
        assert_eq!((&step["connected"], &step["downlinkLost"]), (&3.into(), &0.into()), "{report}");
        let encode = step["cpuMs"].as_array().and_then(|parts| parts.iter().find(|part| part[0] == "encode"));
        assert!(encode.is_some_and(|part| part[1].as_f64() > Some(0.0)), "{report}");
        assert!(step["tickLateP99Ms"].as_f64() > Some(0.0) && step["memoryBytes"].as_f64() > Some(1e6), "{report}");
    }
}

#[test]
fn an_interrupted_search_ends_with_what_it_has_and_leaves_nothing_behind() {
    let process = start(&["--step-sec", "600"]);
    poll_until("its bridge", || process.output().contains("calls  tick").then_some(()).ok_or_else(|| process.output()));
    let id = process.id().to_string();
    let children = || {
        let all = std::fs::read_dir("/proc").expect("a list of processes").filter_map(Result::ok);
        let stat = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        // The fourth field, the second behind the name in parentheses, is the parent.
        let is_child = |stat: &String| {
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)) == Some(id.as_str())
        };
        stat.filter(is_child).count()
    };
    poll_until("its children", || if children() >= 2 { Ok(()) } else { Err(process.output()) });
    let (status, output) = process.terminate(PATIENCE);
    assert_eq!(status.code(), Some(3), "{output}");
    assert!(output.contains("interrupted") && output.contains("No number of calls held"), "{output}");
    assert_eq!(children(), 0);
}

#[test]
fn a_setting_that_the_bridge_does_not_take_is_said_in_its_words() {
    let mut process = start(&[&SMALL[..], &["--complexity", "11"]].concat());
    poll_until("its end", || process.try_wait().map(|_| ()).ok_or_else(|| process.output()));
    let (status, output) = process.terminate(PATIENCE);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("the bridge ended: error: BRIDGE_OPUS_COMPLEXITY"), "{output}");
}
