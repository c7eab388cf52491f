//! Datagrams that are odd, or too many.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use voice_media_bridge::driver::{Kind, PAYLOAD_MAX, Window};
use voice_media_bridge::io::{Input, Output};

use crate::harness::{LOOPBACK, Script, World, beside_others, kinds, socket};

#[test]
fn empty_and_oversized_datagrams_are_counted_and_dropped() {
    let _guard = beside_others();
    for kind in kinds() {
        let mut world = World::new();
        let mut lengths = Vec::new();
        let far = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        world.run(kind, |script, _, input| match input {
            Input::Timeout => script.say(Output::BindUdp { socket: socket(0, 1), address: LOOPBACK }),
            Input::UdpBound { port, .. } => {
                for len in [0, 1, PAYLOAD_MAX, PAYLOAD_MAX + 1, 65_507, 0, 3] {
                    far.send_to(&vec![7; len], (LOOPBACK, *port)).unwrap();
                }
            }
            Input::Datagram(datagram) => {
                assert!(datagram.payload.iter().all(|byte| *byte == 7));
                assert_eq!(datagram.from, far.local_addr().unwrap());
                lengths.push(datagram.payload.len());
                if datagram.payload.len() == 3 {
                    script.say(Output::Exit);
                }
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(lengths, [1, PAYLOAD_MAX, 3], "{kind:?}");
        assert_eq!(world.counters.value("datagrams_empty"), Some(2), "{kind:?}");
        assert_eq!(world.counters.value("datagrams_truncated"), Some(2), "{kind:?}");
    }
}

#[test]
fn the_kernel_says_when_a_datagram_came_in() {
    let _guard = beside_others();
    for kind in kinds() {
        let mut world = World::new();
        let far = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        let mut sent = None;
        world.run(kind, |script, now, input| match input {
            Input::Timeout => script.say(Output::BindUdp { socket: socket(0, 1), address: LOOPBACK }),
            Input::UdpBound { port, .. } => {
                // The kernel switches stamping on in the background, once per host.
                thread::sleep(Duration::from_millis(50));
                let before = Instant::now();
                far.send_to(b"x", (LOOPBACK, *port)).unwrap();
                sent = Some((before, Instant::now()));
                thread::sleep(Duration::from_millis(30));
            }
            Input::Datagram(datagram) => {
                let (before, after) = sent.unwrap();
                assert!(datagram.received <= now);
                // The two clocks are read one after the other: a little slack.
                let slack = Duration::from_millis(5);
                assert!(
                    datagram.received + slack >= before && datagram.received <= after + slack,
                    "{kind:?}: received {:?} after it was sent",
                    datagram.received.duration_since(before)
                );
                script.say(Output::Exit);
            }
            other => panic!("{other:?}"),
        });
    }
}

#[test]
fn datagrams_wait_in_their_sockets_when_buffers_are_short() {
    // A ring takes 32 datagrams of a socket at once, so it takes many sockets to use up its buffers.
    const SOCKETS: u32 = 64;
    const EACH: u32 = 40;
    let _guard = beside_others();
    for kind in kinds() {
        let mut world = World::new();
        let far = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        let (mut ports, mut next, mut left) = (Vec::new(), [0; SOCKETS as usize], SOCKETS * EACH);
        world.run(kind, |script, _, input| match input {
            Input::Timeout => {
                (0..SOCKETS)
                    .for_each(|slot| script.say(Output::BindUdp { socket: socket(slot, 1), address: LOOPBACK }));
            }
            Input::UdpBound { port, .. } => {
                ports.push(*port);
                if ports.len() == SOCKETS as usize {
                    for n in 0..EACH {
                        for port in &ports {
                            far.send_to(&n.to_be_bytes(), (LOOPBACK, *port)).unwrap();
                        }
                    }
                }
            }
            Input::Datagram(datagram) => {
                let expected = &mut next[datagram.socket.slot as usize];
                assert_eq!(datagram.payload, u32::to_be_bytes(*expected), "{kind:?}");
                *expected += 1;
                left -= 1;
                if left == 0 {
                    script.say(Output::Exit);
                }
            }
            other => panic!("{other:?}"),
        });
        let short = world.counters.value("receive_buffers_short").unwrap();
        assert!(kind == Kind::Epoll || short > 0, "{kind:?} was meant to run short");
    }
}

#[test]
fn a_turn_takes_a_bounded_number_of_datagrams_before_its_deadline() {
    const SOCKETS: u32 = 64;
    const EACH: u32 = 40;
    let _guard = beside_others();
    for kind in kinds() {
        let mut world = World::new();
        let far = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        let (mut ports, mut left, mut turn, mut longest) = (Vec::new(), SOCKETS * EACH, 0, 0);
        world.run(kind, |script, now, input| match input {
            Input::Timeout if ports.is_empty() => {
                (0..SOCKETS)
                    .for_each(|slot| script.say(Output::BindUdp { socket: socket(slot, 1), address: LOOPBACK }));
            }
            Input::UdpBound { port, .. } => {
                ports.push(*port);
                if ports.len() == SOCKETS as usize {
                    for port in ports.repeat(EACH as usize) {
                        far.send_to(b"x", (LOOPBACK, port)).unwrap();
                    }
                    // Due in this turn and in every turn to come.
                    script.deadline.at = Some(now);
                }
            }
            Input::Datagram(_) => {
                turn += 1;
                left -= 1;
            }
            Input::Timeout => {
                longest = longest.max(std::mem::take(&mut turn));
                if left == 0 {
                    script.say(Output::Exit);
                }
            }
            other => panic!("{other:?}"),
        });
        assert!(longest <= 256, "{kind:?}: {longest} datagrams in one turn");
    }
}

#[test]
fn a_turn_whose_inputs_are_dear_is_cut_short_by_its_time() {
    const ALL: u32 = 100;
    let _guard = beside_others();
    for kind in kinds() {
        let mut world = World::new();
        let far = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        let (mut left, mut turn, mut longest) = (ALL, 0, 0);
        world.run(kind, |script, now, input| match input {
            Input::Timeout if left == ALL && turn == 0 && script.deadline.at.is_none() => {
                script.say(Output::BindUdp { socket: socket(0, 1), address: LOOPBACK });
            }
            Input::UdpBound { port, .. } => {
                (0..ALL).for_each(|_| assert_eq!(far.send_to(b"x", (LOOPBACK, *port)).unwrap(), 1));
                script.deadline.at = Some(now);
            }
            Input::Datagram(_) => {
                // What a step of a handshake may take, and more than a turn may.
                thread::sleep(Duration::from_millis(1));
                turn += 1;
                left -= 1;
            }
            Input::Timeout => {
                longest = longest.max(std::mem::take(&mut turn));
                if left == 0 {
                    script.say(Output::Exit);
                }
            }
            other => panic!("{other:?}"),
        });
        assert!((1..=16).contains(&longest), "{kind:?}: {longest} dear datagrams in one turn");
    }
}

#[test]
fn a_busy_loop_keeps_a_window_and_loses_nothing_by_it() {
    let _guard = beside_others();
    for kind in kinds() {
        let mut world = World::new();
        world.window = Window { max: Duration::from_millis(5), busy_from: 0.0, busy_full: 0.01 };
        let counters = Arc::clone(&world.counters);
        let windows = move || counters.value("windows").unwrap();
        let mut expected = 0_u32;
        let send = |script: &mut Script, to: SocketAddr, n: u32| {
            script.say(Output::Send { socket: socket(0, 1), to, payload: n.to_be_bytes().to_vec() });
        };
        world.run(kind, |script, _, input| match input {
            Input::Timeout if expected == 0 => script.say(Output::BindUdp { socket: socket(0, 1), address: LOOPBACK }),
            Input::UdpBound { port, .. } => send(script, SocketAddr::new(LOOPBACK, *port), 0),
            // It sends to itself, one datagram a turn, and works for most of the time.
            Input::Datagram(datagram) => {
                assert_eq!(datagram.payload, expected.to_be_bytes());
                expected += 1;
                thread::sleep(Duration::from_micros(1_500));
                if windows() > 20 {
                    script.say(Output::Exit);
                } else {
                    send(script, datagram.from, expected);
                }
            }
            Input::Timeout => {}
            other => panic!("{other:?}"),
        });
    }
}

#[test]
fn a_flood_on_one_socket_delays_no_deadline_and_no_other_socket() {
    let _guard = beside_others();
    for kind in kinds() {
        let mut world = World::new();
        let flooding = Arc::new(AtomicBool::new(true));
        let mut flooders = Vec::new();
        let (mut ports, mut deadlines, mut flooded, mut answered) = ([0; 2], 0, 0, 0);
        world.run(kind, |script, now, input| match input {
            Input::Timeout if ports == [0; 2] => {
                (0..2).for_each(|slot| script.say(Output::BindUdp { socket: socket(slot, 1), address: LOOPBACK }));
                script.deadline.at = Some(now + Duration::from_secs(30));
            }
            Input::UdpBound { socket: key, port } => {
                ports[key.slot as usize] = *port;
                if key.slot == 1 {
                    for _ in 0..2 {
                        let (flooding, to) = (Arc::clone(&flooding), SocketAddr::new(LOOPBACK, ports[0]));
                        flooders.push(thread::spawn(move || {
                            let far = UdpSocket::bind((LOOPBACK, 0)).unwrap();
                            while flooding.load(Ordering::Relaxed) {
                                let _ = far.send_to(&[0; 200], to);
                            }
                        }));
                    }
                    script.deadline.at = Some(now);
                }
            }
            Input::Datagram(datagram) if datagram.socket.slot == 0 => flooded += 1,
            Input::Datagram(_) => answered += 1,
            // A deadline is due in every turn, and each sends a datagram to the quiet socket.
            Input::Timeout => {
                script.deadline.at = Some(now);
                deadlines += u32::from(flooded > 0);
                let to = SocketAddr::new(LOOPBACK, ports[1]);
                script.say(Output::Send { socket: socket(1, 1), to, payload: b"quiet".to_vec() });
                if deadlines > 200 && flooded > 5_000 && answered > 200 {
                    script.say(Output::Exit);
                }
            }
            other => panic!("{other:?}"),
        });
        flooding.store(false, Ordering::Relaxed);
        for flooder in flooders {
            flooder.join().unwrap();
        }
    }
}
