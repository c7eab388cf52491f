//! The end of the process.

use super::*;

#[test]
fn a_stop_ends_calls_answers_those_who_wait_and_exits() {
    let mut world = World::new();
    world.post("a");
    world.post("b");
    let waits = world.begin("GET", &format!("{}?wait=connected", path("a")), "", "");
    world.prompt = false;
    world.input(Input::Stop);
    let ready = world.ask("GET", "/ready", "");
    assert_eq!((ready.status, ready.code(), ready.header("Connection")), (503, "stopping", Some("close")));
    let refused = world.post("c");
    assert_eq!((refused.status, refused.code()), (503, "stopping"));
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
    let mut world = World::new();
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
    let mut world = World::new();
    world.prompt = false;
    world.input(Input::Stop);
    world.wait(Duration::from_millis(2_999));
    assert!(!world.exited);
    world.wait(Duration::from_millis(1));
    assert!(world.exited);
}

#[test]
fn a_second_stop_means_at_once() {
    let mut world = World::new();
    world.prompt = false;
    world.input(Input::Stop);
    world.input(Input::Stop);
    assert!(world.exited);
    world.input(Input::Stop);
    world.prompt = true;
    world.run();
}

#[test]
fn questions_to_a_worker_that_has_stopped_are_answered_without_it() {
    let mut world = World::new();
    world.post("a");
    world.prompt = false;
    world.input(Input::Stop);
    let list = world.begin("GET", "/api/sessions", "", "");
    let metrics = world.begin("GET", "/metrics", "", "");
    let one = world.begin("GET", &path("a"), "", "");
    // Worker 1 stops before it reads the questions; worker 0 answers all.
    world.mail.retain(|(worker, message)| *worker == 0 && !matches!(message, ToWorker::Stop));
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
