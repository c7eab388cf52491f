//! Closing gives everything back: descriptors, ports, slots; and nothing of an old owner reaches a new one.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use voice_media_bridge::driver::Kind;
use voice_media_bridge::io::{Door, Input, Output};

use crate::harness::{LOOPBACK, World, alone, beside_others, kinds, socket, stream};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Opens and closes a socket and a connection to itself, over and over. Returns what was open in the middle.
fn cycles(kind: Kind, first_port: u16, count: u32) -> usize {
    // Ports rest for 10 s, so each cycle has its own; one is for the socket that stays.
    let ports = first_port..=first_port + count as u16;
    let mut world = World::new();
    let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let here = listener.local_addr().unwrap();
    world.doors.push((Door::Api, listener.into()));
    world.ports = Some(ports);
    let (mut cycle, mut open, mut port_now, mut middle) = (0, 0, 0, 0);
    // One socket receives all the while, as the other calls of a worker do.
    let elder = socket(9, 1);
    world.run(kind, |script, _, input| {
        let begin = |script: &mut crate::harness::Script, generation| {
            script.say(Output::BindUdp { socket: socket(0, generation), address: LOOPBACK });
            script.say(Output::Accept { stream: stream(0, generation), door: Door::Api });
            script.say(Output::Connect { stream: stream(1, generation), to: here });
        };
        let mut closed = false;
        match input {
            Input::Timeout => script.say(Output::BindUdp { socket: elder, address: LOOPBACK }),
            Input::UdpBound { socket, .. } if *socket == elder => begin(script, 1),
            Input::UdpBound { socket, port } => {
                (open, port_now) = (open + 1, *port);
                let to = SocketAddr::new(LOOPBACK, *port);
                script.say(Output::Send { socket: *socket, to, payload: b"to myself".to_vec() });
            }
            Input::Datagram(datagram) => script.say(Output::CloseUdp { socket: datagram.socket }),
            Input::Accepted { stream, .. } => {
                open += 1;
                script.say(Output::Write { stream: *stream, bytes: b"x".to_vec() });
            }
            Input::Connected { .. } => open += 1,
            Input::Received { stream, .. } => script.say(Output::Close { stream: *stream }),
            Input::Ended { stream } | Input::Failed { stream, .. } => script.say(Output::Close { stream: *stream }),
            Input::UdpClosed { socket } if *socket == elder => script.say(Output::Exit),
            Input::UdpClosed { .. } => {
                UdpSocket::bind((LOOPBACK, port_now)).expect("a closed socket is off its port");
                closed = true;
            }
            Input::Closed { .. } => closed = true,
            Input::Written { .. } => {}
            other => panic!("{other:?} in cycle {cycle}"),
        }
        if closed {
            open -= 1;
            if open == 0 {
                cycle += 1;
                if cycle == count / 2 {
                    middle = open_descriptors();
                }
                if cycle == count {
                    script.say(Output::CloseUdp { socket: elder });
                } else {
                    begin(script, cycle + 1);
                }
            }
        }
    });
    middle
}

#[test]
fn a_thousand_calls_leave_no_descriptor_and_no_port_behind() {
    let _guard = alone();
    for (kind, first_port) in kinds().into_iter().zip([21_000, 22_100, 23_200]) {
        cycles(kind, first_port + 1001, 4);
        let before = open_descriptors();
        let middle = cycles(kind, first_port, 1000);
        assert_eq!(open_descriptors(), before, "{kind:?}");
        assert!(middle < before + 16, "{kind:?}: {middle} descriptors after half the calls, {before} before");
        for port in first_port..first_port + 1001 {
            UdpSocket::bind((LOOPBACK, port)).unwrap_or_else(|error| panic!("{kind:?}, port {port}: {error}"));
        }
    }
}

#[test]
fn nothing_of_an_old_generation_reaches_a_slots_next_owner() {
    let _guard = beside_others();
    for (kind, first_port) in kinds().into_iter().zip([24_300, 24_600, 24_900]) {
        let generations = 200;
        let mut world = World::new();
        world.ports = Some(first_port..=first_port + 250);
        let far = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        let (mut generation, mut closing, mut datagrams) = (1, false, 0);
        world.run(kind, |script, _, input| match input {
            Input::Timeout => script.say(Output::BindUdp { socket: socket(0, 1), address: LOOPBACK }),
            Input::UdpBound { socket, port } => {
                assert_eq!(socket.generation, generation);
                for _ in 0..20 {
                    far.send_to(&generation.to_be_bytes(), (LOOPBACK, *port)).unwrap();
                }
                closing = false;
            }
            Input::Datagram(datagram) => {
                assert_eq!(datagram.payload, datagram.socket.generation.to_be_bytes());
                assert_eq!(datagram.socket.generation, generation);
                datagrams += 1;
                if !closing {
                    // More are under way, and one that cannot be sent: its failure must not come late either.
                    closing = true;
                    let to = SocketAddr::new(LOOPBACK, 9);
                    script.say(Output::Send { socket: datagram.socket, to, payload: vec![0; 70_000] });
                    script.say(Output::CloseUdp { socket: datagram.socket });
                }
            }
            Input::SendFailed { socket, .. } => assert_eq!(socket.generation, generation),
            Input::UdpClosed { socket: key } => {
                assert_eq!(key.generation, generation);
                generation += 1;
                if generation > generations {
                    script.say(Output::Exit);
                } else {
                    script.say(Output::BindUdp { socket: socket(0, generation), address: LOOPBACK });
                }
            }
            other => panic!("{other:?}"),
        });
        assert!(datagrams >= generations, "{kind:?}");
    }
}

#[test]
fn accepting_goes_on_when_descriptors_are_there_again() {
    let _guard = alone();
    let limits = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    for kind in kinds() {
        let mut world = World::new();
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let here = listener.local_addr().unwrap();
        world.doors.push((Door::Api, listener.into()));
        let counters = std::sync::Arc::clone(&world.counters);
        let delayed = move || counters.value("accepts_delayed").unwrap();
        let mut peer = None;
        world.run(kind, |script, now, input| match input {
            Input::Timeout if peer.is_none() => {
                peer = Some(TcpStream::connect(here).unwrap());
                let highest = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
                let open = (0..=highest).find(|fd| !std::path::Path::new(&format!("/proc/self/fd/{fd}")).exists());
                setrlimit(Resource::RLIMIT_NOFILE, open.unwrap(), limits.1).unwrap();
                script.say(Output::Accept { stream: stream(0, 1), door: Door::Api });
                script.deadline.at = Some(now + Duration::from_millis(1));
            }
            Input::Timeout if delayed() > 0 => {
                setrlimit(Resource::RLIMIT_NOFILE, limits.0, limits.1).unwrap();
                script.deadline.at = None;
            }
            Input::Timeout => script.deadline.at = Some(now + Duration::from_millis(1)),
            Input::Accepted { .. } => {
                assert!(delayed() > 0, "{kind:?} found a descriptor where there was none");
                script.say(Output::Exit);
            }
            other => panic!("{other:?}"),
        });
        setrlimit(Resource::RLIMIT_NOFILE, limits.0, limits.1).unwrap();
    }
}
