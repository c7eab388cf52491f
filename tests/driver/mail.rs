//! Messages between loops and from other threads.

use std::thread;

use voice_media_bridge::driver::mail::{MESSAGES_MAX, Mailboxes, mailboxes};
use voice_media_bridge::driver::{Setup, run};
use voice_media_bridge::io::{Deadline, Input, Machine, Node, Output};

use crate::harness::{World, beside_others, kinds};

#[test]
fn a_sleeping_loop_is_woken_by_a_message_from_another_thread() {
    let _guard = beside_others();
    for kind in kinds() {
        let mut world = World::new();
        let sender = world.sender.clone();
        let mut last = 0;
        let writer = thread::spawn(move || {
            for n in 1..=500 {
                while sender.send(n).is_err() {}
                if n % 50 == 0 {
                    thread::yield_now();
                }
            }
        });
        world.run(kind, |script, _, input| {
            if let Input::Message(n) = input {
                assert_eq!(*n, last + 1);
                last = *n;
                if last == 500 {
                    script.say(Output::Exit);
                }
            }
        });
        writer.join().unwrap();
    }
}

/// Control sends a worker more than a mailbox holds and gets each back.
struct Party {
    to: Node,
    /// What is still to be said, each number once.
    unsaid: std::collections::VecDeque<u32>,
    expected: u32,
    answers: bool,
}

const ALL: u32 = 10 * MESSAGES_MAX as u32;

impl Machine for Party {
    type Message = u32;

    fn handle_input(&mut self, _: std::time::Instant, input: Input<'_, u32>) {
        if let Input::Message(n) = input {
            assert_eq!(n, self.expected);
            self.expected += 1;
            if self.answers {
                self.unsaid.push_back(n);
            }
        }
    }

    fn poll_output(&mut self) -> Output<u32> {
        match self.unsaid.pop_front() {
            Some(message) => Output::Message { to: self.to, message },
            // The worker leaves with its last answers still waiting for room.
            None if self.expected == ALL => Output::Exit,
            None => Output::Timeout(Deadline::NEVER),
        }
    }
}

#[test]
fn a_full_mailbox_loses_nothing_and_blocks_nobody() {
    let _guard = beside_others();
    for kind in kinds() {
        let Mailboxes { control, mut workers, .. } = mailboxes(1).unwrap();
        let worker = workers.remove(0);
        let other = thread::spawn(move || {
            let machine = Party { to: Node::Control, unsaid: [].into(), expected: 0, answers: true };
            run(kind, machine, Setup::new("worker", worker.inbox, worker.routes)).unwrap();
        });
        let machine = Party { to: Node::Worker(0), unsaid: (0..ALL).collect(), expected: 0, answers: false };
        run(kind, machine, Setup::new("control", control.inbox, control.routes)).unwrap();
        other.join().unwrap();
    }
}
