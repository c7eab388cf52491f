//! What HAProxy is told, and that those who ask cannot hold anything.

use super::*;
use crate::messages::LoadReport;

fn world(words: &[&str]) -> World {
    World::with(&[&["--agent-check-listen", "127.0.0.1:0"], words].concat())
}

/// Connects where agents are answered.
fn connect(world: &mut World) -> StreamKey {
    let stream = world.offered_agents.pop_front().expect("an accept is armed");
    world.clients.insert(stream, Client::default());
    world.input(Input::Accepted { stream, door: Door::AgentCheck, peer: None });
    stream
}

/// The line, as a client reads it that then closes.
fn line(world: &mut World) -> String {
    let stream = connect(world);
    let client = &world.clients[&stream];
    assert!(client.shut && !client.closed, "answered in the same turn, and our side is ended");
    let line = client.out.clone();
    world.input(Input::Ended { stream });
    assert!(world.clients[&stream].closed);
    line
}

fn loaded(world: &mut World, worker: u16, busy_at_floor: f64) {
    let report = LoadReport { busy: busy_at_floor, busy_at_floor, call_cost: 0.01, ..LoadReport::default() };
    world.from(worker, FromWorker::Load(report));
}

#[test]
fn the_weight_is_the_smaller_of_free_calls_and_room_on_the_cores() {
    let mut world = world(&["--max-calls", "4", "--admit-busy-percent", "80"]);
    assert_eq!(line(&mut world), "ready up 100%\n");
    world.post("a");
    assert_eq!(line(&mut world), "ready up 75%\n");
    world.wait(Duration::from_secs(4)); // by then the call shows in its core's load
    loaded(&mut world, 0, 0.64);
    loaded(&mut world, 1, 0.4);
    assert_eq!(line(&mut world), "ready up 35%\n", "20 % of one core's room is left and 50 % of the other's");
    for id in ["b", "c", "d"] {
        world.post(id);
    }
    assert_eq!(line(&mut world), "ready up 1%\n", "full, and not down: its calls' requests must reach it");
    loaded(&mut world, 0, 0.95);
    loaded(&mut world, 1, 0.95);
    world.end_call(1, CloseReason::Hangup);
    assert_eq!(line(&mut world), "ready up 1%\n");
    loaded(&mut world, 0, 0.0);
    loaded(&mut world, 1, 0.0);
    assert_eq!(line(&mut world), "ready up 25%\n");
}

#[test]
fn a_bridge_that_drains_says_so_until_its_end() {
    let mut world = world(&["--drain-sec", "10"]);
    world.post("a");
    world.input(Input::Stop);
    assert_eq!(line(&mut world), "drain\n");
    world.prompt = false;
    world.wait(Duration::from_secs(10));
    assert_eq!(line(&mut world), "drain\n", "while workers stop");
}

#[test]
fn whoever_neither_reads_nor_closes_is_closed_on_and_more_than_some_never_wait() {
    let mut world = world(&[]);
    world.takes = false;
    let slow = connect(&mut world);
    world.send(slow, [b'x'; 4096]);
    world.wait(Duration::from_millis(999));
    assert!(!world.clients[&slow].closed);
    world.wait(Duration::from_millis(1));
    assert!(world.clients[&slow].closed);

    let many: Vec<StreamKey> = (0..100).map(|_| connect(&mut world)).collect();
    assert_eq!(many.iter().filter(|stream| !world.clients[stream].closed).count(), 64);
    assert!(world.clients[&many[35]].closed && !world.clients[&many[36]].closed, "the oldest are closed on");
    world.fail(many[99]);
    assert!(world.clients[&many[99]].closed);
    world.wait(Duration::from_secs(1));
    assert!(many.iter().all(|stream| world.clients[stream].closed));
    assert_eq!(world.control.timers.len(), 0);
    assert_eq!(world.ask("GET", "/health", "").status, 200, "the API is not touched");
}

#[test]
fn without_the_setting_nobody_is_accepted_there() {
    assert!(World::new().offered_agents.is_empty());
}
