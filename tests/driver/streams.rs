//! Streams beyond the script that every driver agrees on: pausing, and connections that find no key.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use voice_media_bridge::io::{Door, Input, Node, Output};

use crate::harness::{LOOPBACK, Script, World, beside_others, kinds, stream};

#[test]
fn a_paused_stream_hands_over_what_was_under_way_at_most_and_nothing_is_lost() {
    const ALL: usize = 1_000_000;
    let _guard = beside_others();
    for kind in kinds() {
        let mut world = World::new();
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let here = listener.local_addr().unwrap();
        world.doors.push((Door::Api, listener.into()));
        let key = stream(0, 1);
        let (mut paused_in, mut inputs_paused, mut all) = (None, 0, 0);
        let writer = thread::spawn(move || {
            let mut peer = TcpStream::connect(here).unwrap();
            (0..ALL / 1000).for_each(|n| peer.write_all(&[n as u8; 1000]).unwrap());
            // Until the machine is gone.
            let _ = peer.read(&mut [0]);
        });
        world.run(kind, |script, now, input| match input {
            Input::Timeout if paused_in.is_none() => script.say(Output::Accept { stream: key, door: Door::Api }),
            Input::Timeout => {
                paused_in = None;
                script.deadline.at = None;
                script.say(Output::Read { stream: key, on: true });
            }
            Input::Accepted { .. } => {
                paused_in = Some(script.turn);
                script.deadline.at = Some(now + Duration::from_millis(100));
                script.say(Output::Read { stream: key, on: false });
            }
            Input::Received { bytes, .. } => {
                for (place, byte) in (all..).zip(*bytes) {
                    assert_eq!(*byte, (place / 1000) as u8);
                }
                all += bytes.len();
                // What was read in the turn that said so was under way; of what comes later, one read may have been.
                if paused_in.is_some_and(|turn| turn != script.turn) {
                    inputs_paused += 1;
                    assert!(inputs_paused <= 1, "{kind:?}: {inputs_paused} reads came while reading was off");
                }
                if all == ALL {
                    script.say(Output::Exit);
                }
            }
            other => panic!("{other:?}"),
        });
        writer.join().unwrap();
    }
}

#[test]
fn connections_wait_for_keys_and_get_them_in_the_order_they_were_offered() {
    let _guard = beside_others();
    for kind in kinds() {
        let mut world = World::new();
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let here = listener.local_addr().unwrap();
        world.doors.push((Door::Api, listener.into()));
        let mut peers = Vec::new();
        let mut accepted = Vec::new();
        world.run(kind, |script, now, input| match input {
            Input::Timeout if peers.is_empty() => {
                // The second key is taken back at once; the accept that it may have armed must lose no connection.
                script.say(Output::Accept { stream: stream(0, 1), door: Door::Api });
                script.say(Output::Accept { stream: stream(1, 1), door: Door::Api });
                script.say(Output::Close { stream: stream(1, 1) });
                peers = (0..3).map(|_| TcpStream::connect(here).unwrap()).collect();
            }
            Input::Closed { stream } => assert_eq!(stream.slot, 1),
            Input::Accepted { stream: key, peer, .. } => {
                accepted.push((key.slot, peer.unwrap()));
                match accepted.len() {
                    1 => script.deadline.at = Some(now + Duration::from_millis(20)),
                    3 => script.say(Output::Exit),
                    _ => {}
                }
            }
            Input::Timeout => {
                assert_eq!(accepted.len(), 1, "{kind:?} accepted without a key");
                script.deadline.at = None;
                script.say(Output::Accept { stream: stream(2, 1), door: Door::Api });
                script.say(Output::Accept { stream: stream(3, 1), door: Door::Api });
            }
            other => panic!("{other:?}"),
        });
        let expected: Vec<_> = [0, 2, 3].into_iter().zip(peers.iter().map(|peer| peer.local_addr().unwrap())).collect();
        assert_eq!(accepted, expected, "{kind:?}");
    }
}

#[test]
fn a_withdrawn_key_gets_the_connection_that_was_under_way_to_it_or_leaves_it_to_others() {
    const ROUNDS: u32 = 200;
    let _guard = beside_others();
    for kind in kinds() {
        let mut world = World::new();
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let here = listener.local_addr().unwrap();
        // Another process that holds the listener accepts what is left in the backlog.
        let others = listener.try_clone().unwrap();
        world.doors.push((Door::Api, listener.into()));
        let mut peer = None;
        let (mut mine, mut left) = (0, 0);
        world.run(kind, |script, _, input| {
            let begin = |script: &mut Script, round| {
                script.say(Output::Accept { stream: stream(0, round), door: Door::Api });
                // So that the accept is with the kernel when the connection comes.
                script.say(Output::Message { to: Node::Control, message: round });
            };
            let mut done = None;
            match input {
                Input::Timeout => begin(script, 0),
                Input::Message(round) => {
                    peer = Some(TcpStream::connect(here).unwrap());
                    script.say(Output::Withdraw { stream: stream(0, *round) });
                }
                Input::Accepted { stream, .. } => {
                    mine += 1;
                    peer = None;
                    script.say(Output::Close { stream: *stream });
                }
                Input::Closed { stream } => done = Some(stream.generation + 1),
                Input::Received { .. } | Input::Ended { .. } => {}
                other => panic!("{other:?}"),
            }
            if let Some(round) = done {
                if let Some(peer) = peer.take() {
                    left += 1;
                    let mut events = [PollFd::new(others.as_fd(), PollFlags::POLLIN)];
                    assert_eq!(poll(&mut events, 5000_u16), Ok(1), "{kind:?}: a connection was lost");
                    assert_eq!(others.accept().unwrap().1, peer.local_addr().unwrap(), "{kind:?}");
                }
                if round == ROUNDS { script.say(Output::Exit) } else { begin(script, round) }
            }
        });
        assert_eq!(mine + left, ROUNDS, "{kind:?}");
    }
}

#[test]
fn a_stream_is_closed_whatever_is_unwritten() {
    let _guard = beside_others();
    for kind in kinds() {
        let mut world = World::new();
        let far = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let to = far.local_addr().unwrap();
        world.run(kind, |script, now, input| match input {
            Input::Timeout if script.deadline.at.is_none() => {
                script.deadline.at = Some(now + Duration::from_millis(50));
                script.say(Output::Connect { stream: stream(0, 1), to });
                // More than the kernel takes from us, and nobody reads.
                script.say(Output::Write { stream: stream(0, 1), bytes: vec![0; 50_000_000] });
            }
            Input::Connected { .. } => {}
            Input::Timeout => script.say(Output::Close { stream: stream(0, 1) }),
            Input::Closed { .. } => script.say(Output::Exit),
            other => panic!("{other:?}"),
        });
        let mut bytes = Vec::new();
        let _ = far.accept().unwrap().0.read_to_end(&mut bytes);
        assert!(bytes.len() < 50_000_000, "{kind:?}");
    }
}
