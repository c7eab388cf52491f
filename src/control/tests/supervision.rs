//! What the service manager is told, and when it is not told that all is well.

use super::*;

const EVERY: Duration = Duration::from_secs(5);

fn statuses(world: &mut World) -> Vec<String> {
    let notices = world.notices.drain(..);
    notices.filter_map(|notice| if let Notice::Status(line) = notice { Some(line) } else { None }).collect()
}

fn lives(world: &mut World) -> usize {
    let before = world.notices.len();
    world.notices.retain(|notice| *notice != Notice::Alive);
    before - world.notices.len()
}

#[test]
fn the_line_says_how_many_calls_are_up_at_most_once_a_second() {
    let mut world = World::new();
    world.post("a");
    assert_eq!(statuses(&mut world), ["0 calls"], "at the first input");
    for id in ["b", "c", "d"] {
        world.post(id);
    }
    world.wait(Duration::from_millis(999));
    assert!(world.notices.is_empty(), "{:?}", world.notices);
    world.wait(Duration::from_millis(1));
    assert_eq!(statuses(&mut world), ["4 calls"]);
    world.wait(EVERY);
    assert!(world.notices.is_empty(), "nothing has changed: {:?}", world.notices);
    for call in 1..=3 {
        world.end_call(call, CloseReason::Hangup);
    }
    world.wait(EVERY);
    assert_eq!(statuses(&mut world).last().map(String::as_str), Some("1 call"));
}

#[test]
fn a_drain_says_stopping_once_and_counts_down() {
    let mut world = World::with(&["--drain-sec", "240"]);
    world.post("a");
    world.post("b");
    world.wait(EVERY);
    world.notices.clear();
    world.input(Input::Stop);
    assert_eq!(
        world.notices,
        [
            Notice::Stopping { within: Duration::from_secs(245) },
            Notice::Status("draining: 2 calls remain, at most 240 s more".into()),
        ]
    );
    world.ask("POST", "/api/drain", "");
    world.notices.clear();
    world.wait(Duration::from_secs(60));
    let said = statuses(&mut world);
    assert_eq!(said.len(), 60, "once a second");
    assert_eq!(said.last().unwrap(), "draining: 2 calls remain, at most 180 s more");
    world.end_call(1, CloseReason::Hangup);
    world.wait(Duration::from_secs(2));
    assert_eq!(statuses(&mut world).last().unwrap(), "draining: 1 call remains, at most 178 s more");
    world.prompt = false;
    world.wait(Duration::from_secs(179));
    assert_eq!(statuses(&mut world).last().unwrap(), "stopping: 1 call ends now");
}

#[test]
fn without_a_watchdog_no_worker_is_asked() {
    let mut world = World::new();
    world.wait(Duration::from_secs(600));
    assert_eq!((lives(&mut world), world.told.len()), (0, 0));
}

#[test]
fn the_proof_of_life_comes_once_every_worker_has_turned() {
    let mut world = World::watched(EVERY);
    world.wait(Duration::ZERO);
    assert_eq!(lives(&mut world), 1, "at the start");
    world.wait(10 * EVERY);
    assert_eq!(lives(&mut world), 10);

    world.prompt = false;
    world.wait(EVERY);
    assert_eq!(world.mail.len(), 2);
    world.mail.clear();
    world.from(0, FromWorker::Pong);
    world.run();
    assert_eq!(lives(&mut world), 0, "one of two");
    world.from(0, FromWorker::Pong);
    world.run();
    assert_eq!(lives(&mut world), 0, "the same one again");
    world.from(1, FromWorker::Pong);
    world.run();
    assert_eq!(lives(&mut world), 1);
}

#[test]
fn a_worker_that_does_not_turn_takes_the_proof_of_life_away_and_is_named() {
    let mut world = World::watched(EVERY);
    world.wait(Duration::ZERO);
    world.notices.clear();
    let log = super::gate::log_of(|| {
        world.prompt = false;
        for _ in 0..5 {
            world.wait(EVERY);
            world.mail.retain(|(worker, _)| *worker != 0);
            world.from(0, FromWorker::Pong);
            world.run();
        }
    });
    assert_eq!(lives(&mut world), 0);
    assert_eq!(world.mail.len(), 1, "its mailbox is not filled with questions");
    assert!(log.contains("ERROR") && log.contains("workers=[1]"), "{log}");
    world.prompt = true;
    world.run();
    assert_eq!(lives(&mut world), 1, "it turns again");
    world.wait(EVERY);
    assert_eq!(lives(&mut world), 1);
}

#[test]
fn workers_that_have_stopped_are_not_waited_for() {
    let mut world = World::watched(EVERY);
    world.wait(Duration::ZERO);
    world.post("a");
    world.prompt = false;
    world.input(Input::Stop);
    world.input(Input::Stop);
    world.wait(Duration::from_secs(1));
    world.mail.clear();
    world.notices.clear();
    world.from(0, FromWorker::Stopped);
    world.wait(Duration::from_millis(1_900));
    assert!(!world.exited);
    assert_eq!(lives(&mut world), 0);
}
