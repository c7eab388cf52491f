//! One script on every driver: the same inputs in the same order, and the ones that the contract promises.
//!
//! Each step waits for the input before it, so that the order is the contract's and not the scheduler's.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use voice_media_bridge::driver::Kind;
use voice_media_bridge::io::{Deadline, Door, Input, Node, Output};

use crate::harness::{LOOPBACK, Message, Script, World, beside_others, kinds, socket, stream};

/// One port, so that a second socket finds the share exhausted.
const PORTS: [u16; 3] = [20_001, 20_002, 20_003];

const BIG: usize = 3_000_000;

/// What came in, without what differs from run to run.
fn line(input: &Input<'_, Message>) -> String {
    match input {
        Input::Datagram(datagram) => {
            format!("Datagram {:?} {}", datagram.socket, String::from_utf8_lossy(datagram.payload))
        }
        Input::UdpBound { socket, .. } => format!("UdpBound {socket:?}"),
        Input::Accepted { stream, door, peer } => {
            format!("Accepted {stream:?} {door:?} {:?}", peer.map(|peer| peer.ip()))
        }
        Input::Received { stream, bytes } => format!("Received {stream:?} {}", String::from_utf8_lossy(bytes)),
        Input::Written { stream, len, buffer } => {
            assert!(buffer.is_empty() && buffer.capacity() >= *len);
            format!("Written {stream:?} {len}")
        }
        Input::UdpRefused { fault, .. } | Input::SendFailed { fault, .. } | Input::Failed { fault, .. } => {
            let words = format!("{input:?}");
            let end = words.find(", fault").unwrap_or(words.len());
            format!("{} }} errno {}", &words[..end], fault.errno)
        }
        other => format!("{other:?}"),
    }
}

fn script(kind: Kind, port: u16) -> Vec<String> {
    let mut log: Vec<String> = Vec::new();
    let mut world = World::new();
    let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let here = listener.local_addr().unwrap();
    world.doors.push((Door::Api, listener.into()));
    world.ports = Some(port..=port);
    let folder = std::env::temp_dir().join(format!("driver-agreement-{}-{port}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [local, far_local, nowhere] = ["local", "far", "nowhere"].map(|name| folder.join(name));
    world.doors.push((Door::Local, UnixListener::bind(&local).unwrap().into()));
    let far_unix = UnixListener::bind(&far_local).unwrap();
    let stopper = world.sender.stopper();

    let echo = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    let echo_at = echo.local_addr().unwrap();
    let far = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let far_at = far.local_addr().unwrap();
    let nobody = TcpListener::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap();

    let mut step = 0;
    let mut buffered = String::new();
    let mut react = |script: &mut Script, now: Instant, input: &Input<'_, Message>| {
        // Bytes of a stream may come in pieces.
        if let Input::Received { bytes, .. } = input {
            buffered += &String::from_utf8_lossy(bytes);
            if !buffered.ends_with('.') {
                return;
            }
            buffered.clear();
        }
        log.push(line(input));
        let mut say = |output| script.say(output);
        step += 1;
        match step {
            // Datagrams.
            1 => say(Output::BindUdp { socket: socket(0, 1), address: LOOPBACK }),
            2 => {
                let echo = echo.try_clone().unwrap();
                thread::spawn(move || {
                    let mut buffer = [0; 64];
                    for _ in 0..2 {
                        let (len, from) = echo.recv_from(&mut buffer).unwrap();
                        echo.send_to(&buffer[..len], from).unwrap();
                    }
                });
                say(Output::Send { socket: socket(0, 1), to: echo_at, payload: b"ping".to_vec() });
            }
            3 => say(Output::Send { socket: socket(0, 1), to: echo_at, payload: b"pong".to_vec() }),
            // The share has one port only.
            4 => say(Output::BindUdp { socket: socket(1, 1), address: Ipv4Addr::new(203, 0, 113, 9).into() }),
            5 => say(Output::CloseUdp { socket: socket(1, 1) }),
            6 => {
                let payload = vec![0; 70_000];
                say(Output::Send { socket: socket(0, 1), to: echo_at, payload });
            }
            7 => {
                let to = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 9));
                say(Output::Send { socket: socket(0, 1), to, payload: b"wrong family".to_vec() });
            }
            8 => say(Output::CloseUdp { socket: socket(0, 1) }),
            // The port rests.
            9 => say(Output::BindUdp { socket: socket(0, 2), address: LOOPBACK }),
            10 => say(Output::CloseUdp { socket: socket(0, 2) }),
            // An accepted stream: a half-close each way.
            11 => {
                say(Output::Accept { stream: stream(0, 1), door: Door::Api });
                thread::spawn(move || {
                    let mut peer = TcpStream::connect(here).unwrap();
                    peer.write_all(b"hello.").unwrap();
                    let mut answer = String::new();
                    peer.read_to_string(&mut answer).unwrap();
                    peer.write_all(format!("{answer} and bye.").as_bytes()).unwrap();
                    peer.shutdown(Shutdown::Write).unwrap();
                    // Until the machine closes.
                    peer.read_to_string(&mut answer).unwrap();
                });
            }
            12 => {}
            13 => {
                say(Output::Write { stream: stream(0, 1), bytes: b"well".to_vec() });
                say(Output::Write { stream: stream(0, 1), bytes: Vec::new() });
                say(Output::Write { stream: stream(0, 1), bytes: b" met".to_vec() });
                say(Output::Shutdown { stream: stream(0, 1) });
            }
            14..=17 => {}
            18 => say(Output::Close { stream: stream(0, 1) }),
            // A connection that is refused.
            19 => say(Output::Connect { stream: stream(0, 2), to: nobody }),
            20 => say(Output::Close { stream: stream(0, 2) }),
            // A connection that stands: more than the kernel takes at once.
            21 => {
                let far = far.try_clone().unwrap();
                thread::spawn(move || {
                    let (mut peer, _) = far.accept().unwrap();
                    let mut bytes = vec![0; BIG * 2];
                    peer.read_exact(&mut bytes).unwrap();
                    assert!(bytes[..BIG].iter().all(|byte| *byte == 1) && bytes[BIG..].iter().all(|byte| *byte == 2));
                    peer.write_all(b"got it.").unwrap();
                });
                say(Output::Connect { stream: stream(0, 3), to: far_at });
                say(Output::Write { stream: stream(0, 3), bytes: vec![1; BIG] });
                say(Output::Write { stream: stream(0, 3), bytes: vec![2; BIG] });
            }
            22..=25 => {}
            26 => say(Output::Close { stream: stream(0, 3) }),
            // Keys that are taken back before anything came of them.
            27 => {
                say(Output::Accept { stream: stream(0, 4), door: Door::Api });
                say(Output::Close { stream: stream(0, 4) });
            }
            28 => {
                say(Output::Connect { stream: stream(0, 5), to: far_at });
                say(Output::Close { stream: stream(0, 5) });
            }
            // A peer that resets: it goes with our bytes unread.
            29 => {
                let far = far.try_clone().unwrap();
                thread::spawn(move || {
                    loop {
                        // The connection of the step before may still be in the backlog.
                        let (mut peer, _) = far.accept().unwrap();
                        if peer.read(&mut [0]).is_ok_and(|len| len > 0) {
                            return;
                        }
                    }
                });
                say(Output::Connect { stream: stream(0, 6), to: far_at });
            }
            30 => say(Output::Write { stream: stream(0, 6), bytes: b"unread".to_vec() }),
            31 => {}
            32 => say(Output::Close { stream: stream(0, 6) }),
            // A deadline, messages in order, and two requests to end.
            33 => script.deadline = Deadline::at(now + Duration::from_millis(5), "script"),
            34 => {
                script.deadline = Deadline::NEVER;
                (1..=3).for_each(|message| script.say(Output::Message { to: Node::Control, message }));
            }
            35 | 36 => {}
            37 => {
                stopper.stop();
                stopper.stop();
            }
            38 => {}
            // A Unix door, with a half-close each way.
            39 => {
                say(Output::Accept { stream: stream(0, 7), door: Door::Local });
                let local = local.clone();
                thread::spawn(move || {
                    let mut peer = UnixStream::connect(local).unwrap();
                    peer.write_all(b"knock.").unwrap();
                    let mut answer = String::new();
                    peer.read_to_string(&mut answer).unwrap();
                    peer.write_all(format!("{answer}.").as_bytes()).unwrap();
                });
            }
            40 => {}
            41 => {
                say(Output::Write { stream: stream(0, 7), bytes: b"come in".to_vec() });
                say(Output::Shutdown { stream: stream(0, 7) });
            }
            42 | 43 => {}
            44 => say(Output::Close { stream: stream(0, 7) }),
            // A connection to a Unix socket, and to one that is not there.
            45 => {
                let far = far_unix.try_clone().unwrap();
                thread::spawn(move || {
                    let (mut peer, _) = far.accept().unwrap();
                    let mut bytes = vec![0; BIG];
                    peer.read_exact(&mut bytes).unwrap();
                    peer.write_all(b"got it.").unwrap();
                });
                say(Output::ConnectLocal { stream: stream(0, 8), path: far_local.clone() });
                say(Output::Write { stream: stream(0, 8), bytes: vec![1; BIG] });
            }
            46..=48 => {}
            49 => say(Output::Close { stream: stream(0, 8) }),
            50 => say(Output::ConnectLocal { stream: stream(0, 9), path: nowhere.clone() }),
            51 => say(Output::Close { stream: stream(0, 9) }),
            // Offers that are withdrawn: each key comes back once.
            52 => {
                for slot in 0..2 {
                    say(Output::Accept { stream: stream(slot, 10), door: Door::Api });
                }
                for slot in 0..2 {
                    say(Output::Withdraw { stream: stream(slot, 10) });
                }
            }
            53 => {}
            // A door that this machine does not have.
            54 => {
                say(Output::Accept { stream: stream(0, 11), door: Door::AgentCheck });
                say(Output::Withdraw { stream: stream(0, 11) });
            }
            // A listener that is closed, with a key offered at it.
            55 => {
                say(Output::Accept { stream: stream(0, 12), door: Door::Api });
                say(Output::CloseDoor { door: Door::Api });
            }
            56 => {
                TcpStream::connect(here).expect_err("nobody listens any more");
                say(Output::CloseDoor { door: Door::Api });
                say(Output::Exit);
            }
            _ => unreachable!("the machine has exited"),
        }
    };
    world.run(kind, &mut react);
    std::fs::remove_dir_all(&folder).unwrap();
    log
}

#[test]
fn one_script_gives_the_same_inputs_in_the_same_order_on_every_driver() {
    let _guard = beside_others();
    let expected = [
        "Timeout",
        "UdpBound SocketKey(0.1)",
        "Datagram SocketKey(0.1) ping",
        "Datagram SocketKey(0.1) pong",
        "UdpRefused { socket: SocketKey(1.1) } errno 98",
        "UdpClosed { socket: SocketKey(1.1) }",
        "SendFailed { socket: SocketKey(0.1) } errno 90",
        "SendFailed { socket: SocketKey(0.1) } errno 97",
        "UdpClosed { socket: SocketKey(0.1) }",
        "UdpRefused { socket: SocketKey(0.2) } errno 98",
        "UdpClosed { socket: SocketKey(0.2) }",
        "Accepted StreamKey(0.1) Api Some(127.0.0.1)",
        "Received StreamKey(0.1) hello.",
        "Written StreamKey(0.1) 4",
        "Written StreamKey(0.1) 0",
        "Written StreamKey(0.1) 4",
        "Received StreamKey(0.1) well met and bye.",
        "Ended { stream: StreamKey(0.1) }",
        "Closed { stream: StreamKey(0.1) }",
        "Failed { stream: StreamKey(0.2) } errno 111",
        "Closed { stream: StreamKey(0.2) }",
        "Connected { stream: StreamKey(0.3) }",
        "Written StreamKey(0.3) 3000000",
        "Written StreamKey(0.3) 3000000",
        "Received StreamKey(0.3) got it.",
        "Ended { stream: StreamKey(0.3) }",
        "Closed { stream: StreamKey(0.3) }",
        "Closed { stream: StreamKey(0.4) }",
        "Closed { stream: StreamKey(0.5) }",
        "Connected { stream: StreamKey(0.6) }",
        "Written StreamKey(0.6) 6",
        "Failed { stream: StreamKey(0.6) } errno 104",
        "Closed { stream: StreamKey(0.6) }",
        "Timeout",
        "Message(1)",
        "Message(2)",
        "Message(3)",
        "Stop",
        "Stop",
        "Accepted StreamKey(0.7) Local None",
        "Received StreamKey(0.7) knock.",
        "Written StreamKey(0.7) 7",
        "Received StreamKey(0.7) come in.",
        "Ended { stream: StreamKey(0.7) }",
        "Closed { stream: StreamKey(0.7) }",
        "Connected { stream: StreamKey(0.8) }",
        "Written StreamKey(0.8) 3000000",
        "Received StreamKey(0.8) got it.",
        "Ended { stream: StreamKey(0.8) }",
        "Closed { stream: StreamKey(0.8) }",
        "Failed { stream: StreamKey(0.9) } errno 2",
        "Closed { stream: StreamKey(0.9) }",
        "Closed { stream: StreamKey(0.10) }",
        "Closed { stream: StreamKey(1.10) }",
        "Closed { stream: StreamKey(0.11) }",
        "Closed { stream: StreamKey(0.12) }",
    ];
    for (kind, port) in kinds().into_iter().zip(PORTS) {
        let seen = script(kind, port);
        for (place, (seen, expected)) in seen.iter().zip(expected).enumerate() {
            assert_eq!(seen, expected, "step {} on {kind:?}", place + 1);
        }
        assert_eq!(seen.len(), expected.len(), "{kind:?}");
    }
}
