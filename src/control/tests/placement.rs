//! Calls go where there is room, and nowhere when there is none.

use super::*;
use crate::messages::LoadReport;

fn load(world: &mut World, worker: u16, busy: f64) {
    let report =
        LoadReport { calls: 50, busy, busy_at_floor: busy, call_cost: 0.01, complexity: 3, ..LoadReport::default() };
    world.from(worker, FromWorker::Load(report));
}

#[test]
fn calls_go_to_the_core_with_the_most_room() {
    let mut world = World::new();
    load(&mut world, 0, 0.6);
    load(&mut world, 1, 0.2);
    for id in ["a", "b", "c"] {
        assert_eq!(world.post(id).status, 200);
    }
    let workers = world.ask("GET", "/api/workers", "").json;
    assert_eq!(workers["callsMax"], 800);
    let calls: Vec<_> = workers["workers"].as_array().unwrap().iter().map(|worker| worker["calls"].clone()).collect();
    assert_eq!(calls, [json!(0), json!(3)]);
    assert_eq!(workers["workers"][0]["busyRatio"], 0.6);
    assert_eq!(workers["workers"][0]["complexity"], 3);
    assert_eq!(workers["workers"][0]["admits"], true);
}

#[test]
fn a_server_whose_cores_are_at_their_limit_refuses_at_once_and_is_not_ready() {
    let mut world = World::new();
    load(&mut world, 0, 0.85);
    load(&mut world, 1, 0.9);
    world.prompt = false;
    let answer = world.post("a");
    assert_eq!((answer.status, answer.code()), (503, "overloaded"));
    assert!(answer.header("Retry-After").is_some());
    assert!(world.mail.is_empty(), "no worker is asked");
    assert_eq!(world.ask("GET", "/ready", "").status, 503);
    assert_eq!(world.ask("GET", "/api/workers", "").json["workers"][0]["admits"], false);
    load(&mut world, 0, 0.5);
    assert_eq!(world.ask("GET", "/ready", "").status, 200);
    let metrics = world.ask("GET", "/health", "").status;
    assert_eq!(metrics, 200, "alive all the time");
}

#[test]
fn a_repeated_post_of_a_call_is_answered_though_there_is_no_room_for_another() {
    let mut world = World::new();
    assert_eq!(world.post("a").status, 200);
    load(&mut world, 0, 0.95);
    load(&mut world, 1, 0.95);
    assert_eq!(world.post("a").status, 200);
    assert_eq!(world.post("b").status, 503);
}

#[test]
fn a_burst_is_taken_only_as_far_as_what_its_calls_will_cost() {
    let mut world = World::new();
    load(&mut world, 0, 0.7);
    load(&mut world, 1, 0.75);
    let taken = (0..50).filter(|n| world.post(&format!("call-{n}")).status == 200).count();
    assert!((13..=15).contains(&taken), "15 hundredths of a core are left, not {taken}");
    load(&mut world, 0, 0.7);
    assert_eq!(world.post("later").status, 503, "the young ones are still counted");
}

#[test]
fn the_limit_can_be_lifted() {
    let mut world = World::with(&["--admit-busy-percent", "100"]);
    load(&mut world, 0, 1.0);
    load(&mut world, 1, 1.0);
    assert_eq!(world.post("a").status, 200);
}
