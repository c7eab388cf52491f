//! An echo on the product's own loop: a machine that sends back what comes, on as many sockets as there are calls.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use voice_media_bridge::driver::mail::{Routes, mailbox};
use voice_media_bridge::driver::{Kind, Setup, run};
use voice_media_bridge::io::{Deadline, Input, Machine, Output, SocketKey};

use super::load::{Echoed, Pace, echo, thread_cpu_nanos};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// One socket a call.
pub(crate) const SOCKETS: u32 = 100;

/// What one run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) echoed: Echoed,
    /// Processor time of the loop's thread, kernel included.
    pub(crate) cpu: u64,
    /// Packets that the loop saw.
    pub(crate) packets: u64,
    /// Turns of the loop.
    pub(crate) turns: u64,
}

impl Run {
    pub(crate) fn cpu_us_per_packet(&self) -> f64 {
        self.cpu as f64 / 1_000.0 / self.packets as f64
    }

    pub(crate) fn packets_per_turn(&self) -> f64 {
        self.packets as f64 / self.turns as f64
    }
}

/// Sends back what comes.
struct Echo {
    out: std::collections::VecDeque<Output<()>>,
    ports: Vec<SocketAddr>,
    ready: SyncSender<Vec<SocketAddr>>,
    packets: u64,
    turns: u64,
    cpu_start: u64,
    done: SyncSender<(u64, u64, u64)>,
}

impl Machine for Echo {
    type Message = ();

    fn handle_input(&mut self, _: Instant, input: Input<'_, ()>) {
        match input {
            Input::Timeout if self.ports.is_empty() && self.out.is_empty() && self.turns == 0 => {
                let bind = |slot| Output::BindUdp { socket: SocketKey { slot, generation: 1 }, address: LOOPBACK };
                self.out.extend((0..SOCKETS).map(bind));
            }
            Input::UdpBound { port, .. } => {
                self.ports.push(SocketAddr::new(LOOPBACK, port));
                if self.ports.len() == SOCKETS as usize {
                    self.cpu_start = thread_cpu_nanos();
                    self.ready.send(self.ports.clone()).expect("the far side waits");
                }
            }
            Input::Datagram(datagram) => {
                self.packets += 1;
                let payload = datagram.payload.to_vec();
                self.out.push_back(Output::Send { socket: datagram.socket, to: datagram.from, payload });
            }
            Input::Submitted => self.turns += 1,
            Input::Stop => {
                let cpu = thread_cpu_nanos() - self.cpu_start;
                self.done.send((cpu, self.packets, self.turns)).expect("the far side waits");
                self.out.push_back(Output::Exit);
            }
            _ => {}
        }
    }

    fn poll_output(&mut self) -> Output<()> {
        self.out.pop_front().unwrap_or(Output::Timeout(Deadline::NEVER))
    }
}

/// Runs an echo of this kind for some time under this load. The loop is kept on the first core, the load on what is left.
pub(crate) fn measure(kind: Kind, pace: Pace, time: Duration) -> Run {
    let (ready, ports): (_, Receiver<Vec<SocketAddr>>) = sync_channel(1);
    let (done, outcome) = sync_channel(1);
    let (sender, inbox) = mailbox().expect("a mailbox");
    let stopper = sender.stopper();
    let mut setup = Setup::new("echo", inbox, Routes::new());
    setup.core = voice_media_bridge::driver::system::cores().first().copied();
    let looping = thread::spawn(move || {
        let echo = Echo {
            out: std::collections::VecDeque::new(),
            ports: Vec::new(),
            ready,
            packets: 0,
            turns: 0,
            cpu_start: 0,
            done,
        };
        run(kind, echo, setup).expect("the loop runs");
    });
    let ports = ports.recv().expect("sockets open");
    let echoed = echo(&ports, pace, time);
    stopper.stop();
    let (cpu, packets, turns) = outcome.recv().expect("the loop ends");
    looping.join().expect("the loop ends");
    drop(sender);
    Run { echoed, cpu, packets, turns }
}
