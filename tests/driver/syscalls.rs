//! A measurement: an echo machine for `strace -c -f` to count the system calls per packet of.
//!
//! `strace -f -c -o counts target/release/deps/driver-… syscalls --ignored --nocapture`, with `ECHO_IO=uring|epoll`.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use voice_media_bridge::driver::Kind;
use voice_media_bridge::io::{Input, Output};

use crate::harness::{LOOPBACK, World, kinds, socket};

const SOCKETS: u32 = 100;
const ROUNDS: u32 = 100;

#[test]
#[ignore = "a measurement, to be run under strace"]
fn echo_100_sockets_at_50_packets_a_second() {
    let wanted = std::env::var("ECHO_IO").unwrap_or_default();
    let kind = *kinds().iter().rev().find(|kind| (**kind == Kind::Epoll) == (wanted == "epoll")).unwrap();
    let mut world = World::new();
    let (mut ports, mut left) = (Vec::new(), SOCKETS * ROUNDS);
    world.run(kind, |script, _, input| match input {
        Input::Timeout => {
            (0..SOCKETS).for_each(|slot| script.say(Output::BindUdp { socket: socket(slot, 1), address: LOOPBACK }));
        }
        Input::UdpBound { port, .. } => {
            ports.push(*port);
            if ports.len() == SOCKETS as usize {
                let ports = std::mem::take(&mut ports);
                // Arrivals spread evenly: one packet every 200 µs.
                thread::Builder::new()
                    .name("far".into())
                    .spawn(move || {
                        let far = UdpSocket::bind((LOOPBACK, 0)).unwrap();
                        for _ in 0..ROUNDS {
                            for port in &ports {
                                far.send_to(&[0; 172], SocketAddr::new(LOOPBACK, *port)).unwrap();
                                thread::sleep(Duration::from_micros(140));
                            }
                        }
                    })
                    .unwrap();
            }
        }
        Input::Datagram(datagram) => {
            let payload = datagram.payload.to_vec();
            script.say(Output::Send { socket: datagram.socket, to: datagram.from, payload });
            left -= 1;
            if left == 0 {
                script.say(Output::Exit);
            }
        }
        other => panic!("{other:?}"),
    });
    println!("{kind:?}: {} packets", SOCKETS * ROUNDS);
}
