//! The end of the process where calls are not waited for (`BRIDGE_DRAIN_SEC=0`).

use super::*;

fn world() -> World {
    World::with(&["--drain-sec", "0"])
}

#[test]
fn a_stop_ends_calls_answers_those_who_wait_and_exits() {
    let mut world = world();
    world.post("a");
    world.post("b");
    let waits = world.begin("GET", &format!("{}?wait=connected", path("a")), "", "");
    world.prompt = false;
    world.input(Input::Stop);
    let ready = world.ask("GET", "/ready", "");
    assert_eq!((ready.status, ready.code(), ready.header("Connection")), (503, "draining", Some("close")));
    let refused = world.post("c");
    assert_eq!((refused.status, refused.code()), (503, "draining"));
    assert!(refused.header("Retry-After").is_some());
    assert_eq!(world.post("a").status, 200, "a repeated post gets its answer still");
    assert_eq!(world.ask("GET", "/health", "").status, 200);
    assert!(!world.exited);
    world.prompt = true;
    world.run();
    assert!(world.exited && world.calls.is_empty());
    assert_eq!(world.answer(waits).json["closeReason"], "server_stopping");
    assert_eq!(world.run(), None, "no deadline after the end");
}

#[test]
fn answers_on_their_way_are_written_before_the_exit() {
    let mut world = world();
    world.post("a");
    let waits = world.begin("GET", &format!("{}?wait=connected", path("a")), "", "");
    world.takes = false;
    world.input(Input::Stop);
    assert!(!world.exited);
    world.take(waits);
    world.run();
    assert!(world.exited);
}

#[test]
fn workers_that_do_not_stop_are_not_waited_for_for_ever() {
    let mut world = world();
    world.prompt = false;
    world.input(Input::Stop);
    world.wait(Duration::from_millis(2_999));
    assert!(!world.exited);
    world.wait(Duration::from_millis(1));
    assert!(world.exited);
}

#[test]
fn a_loop_that_fails_in_a_drain_still_lets_the_others_hang_up() {
    let mut world = World::with(&["--drain-sec", "60"]);
    world.post("a");
    world.input(Input::Stop);
    world.wait(Duration::from_secs(1));
    world.prompt = false;
    world.input(Input::Stop);
    world.input(Input::Stop);
    assert!(!world.exited, "two at once are one: the workers have not hung up");
    world.prompt = true;
    world.run();
    assert!(world.exited && world.calls.is_empty());
}

#[test]
fn a_goodbye_has_its_time_on_top() {
    let mut world = world();
    world.post("a");
    world.prompt = false;
    world.input(Input::Stop);
    world.wait(Duration::from_millis(4_999));
    assert!(!world.exited);
    world.wait(Duration::from_millis(1));
    assert!(world.exited);
}

#[test]
fn a_second_stop_skips_the_goodbye_and_a_third_waits_for_nobody() {
    let mut world = world();
    world.post("a");
    world.prompt = false;
    world.input(Input::Stop);
    assert_eq!(world.stops(), [Ending::Goodbye; 2], "both workers");
    world.input(Input::Stop);
    assert_eq!(world.stops(), [Ending::AtOnce; 2]);
    world.wait(Duration::from_millis(2_999));
    assert!(!world.exited, "workers end their calls still");
    world.input(Input::Stop);
    assert!(world.exited);
    world.input(Input::Stop);
    world.prompt = true;
    world.run();
}

#[test]
fn questions_to_a_worker_that_has_stopped_are_answered_without_it() {
    let mut world = world();
    world.post("a");
    world.prompt = false;
    world.input(Input::Stop);
    let list = world.begin("GET", "/api/sessions", "", "");
    let metrics = world.begin("GET", "/metrics", "", "");
    let one = world.begin("GET", &path("a"), "", "");
    // Worker 1 stops before it reads the questions; worker 0 answers all.
    world.mail.retain(|(worker, message)| *worker == 0 && !matches!(message, ToWorker::Stop(_)));
    world.from(1, FromWorker::Stopped);
    world.prompt = true;
    world.run();
    assert_eq!(world.answer(list).json["count"], 1);
    assert_eq!(world.answer(metrics).status, 200);
    assert_eq!(world.answer(one).json["state"], "connecting");
    assert!(!world.exited);
    world.from(0, FromWorker::Stopped);
    world.run();
    assert!(world.exited);
}
