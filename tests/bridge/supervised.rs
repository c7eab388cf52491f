//! What a service manager hears of the process: readiness, what remains, the end with the patience it takes, proof of life.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::pump::Pump;
use crate::relay::script::Script;
use crate::server_calls::{PATIENCE, apply, heard, post, start_with};
use crate::voice::silence;

/// Reads what the process says until this is said; returns all that came before.
#[track_caller]
fn until(notices: &UnixDatagram, said: impl Fn(&str) -> bool) -> Vec<String> {
    let (mut all, mut buffer, deadline) = (Vec::new(), [0; 512], Instant::now() + PATIENCE);
    loop {
        assert!(Instant::now() < deadline, "not said within {PATIENCE:?}: {all:?}");
        if let Ok(len) = notices.recv(&mut buffer) {
            all.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
            if all.last().is_some_and(|last| said(last)) {
                return all;
            }
        }
    }
}

#[test]
fn a_service_manager_hears_what_remains_and_that_all_loops_turn() {
    let path = std::env::temp_dir().join(format!("supervised-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let notices = UnixDatagram::bind(&path).expect("a socket of ours");
    notices.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket takes a timeout");
    let server = start_with(&[
        ("BRIDGE_AGENT", "builtin"),
        ("BRIDGE_MEDIA_PORTS", "21880-21889"),
        ("BRIDGE_DRAIN_SEC", "60"),
        ("NOTIFY_SOCKET", path.to_str().expect("UTF-8")),
        ("WATCHDOG_USEC", "1000000"),
    ]);
    until(&notices, |said| said == "READY=1");
    until(&notices, |said| said == "WATCHDOG=1");
    let pump = Pump::start(73).expect("a relay");
    let (key, answer) = post(&server, &pump, "wacid.counts", Script::repeated(silence(Duration::from_secs(1))));
    apply(&pump, key, &answer);
    heard(&pump, key, 10);
    until(&notices, |said| said == "STATUS=1 call");
    server.signal();
    until(&notices, |said| said == "STOPPING=1\nEXTEND_TIMEOUT_USEC=80000000");
    let counts =
        |said: &str| said.starts_with("STATUS=draining: 1 call remains, at most ") && said.ends_with(" s more");
    let first = until(&notices, counts).pop();
    let then = until(&notices, counts);
    assert_ne!(first.as_ref(), then.last(), "it counts down");
    until(&notices, |said| said == "WATCHDOG=1");
    assert_eq!(server.http().delete("/api/sessions/wacid.counts").status, 200);
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    let _ = std::fs::remove_file(path);
}
