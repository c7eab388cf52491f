//! The same echo on tokio-uring and on the product's two loops, in turns.
//!
//! `cargo run --release --manifest-path benches/compare/Cargo.toml`; `-- uring|epoll|tokio-uring 5000` runs one at so
//! many packets a second for a tracer of system calls. tokio-uring gets what suits it best: a task per socket with one
//! receive under way, since more of them wake each other.

#[path = "../../drivers/echo.rs"]
mod echo;
#[path = "../../drivers/load.rs"]
mod load;
#[allow(dead_code)]
#[path = "../../rig/report.rs"]
mod report;

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use echo::{Run, SOCKETS, measure};
use load::{Pace, thread_cpu_nanos};
use voice_media_bridge::config::IoChoice;
use voice_media_bridge::driver::{Kind, probe, system};

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_millis(700);
const PACES: [(&str, Pace); 3] = [
    ("1000 packets/s", Pace::Paced(1_000)),
    ("5000 packets/s", Pace::Paced(5_000)),
    ("saturated", Pace::Saturated),
];

/// The echo on tokio-uring, kept on the same core.
fn tokio_uring(pace: Pace, time: Duration) -> Run {
    let (ready, ports) = sync_channel(1);
    let (done, outcome) = sync_channel(1);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    thread::spawn(move || {
        if let Some(core) = system::cores().first() {
            system::pin_to(*core).expect("a core of ours");
        }
        tokio_uring::start(async move {
            let packets = Rc::new(Cell::new(0_u64));
            let mut addresses = Vec::new();
            for _ in 0..SOCKETS {
                let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let socket = std::net::UdpSocket::bind(any).expect("a port");
                addresses.push(socket.local_addr().expect("its address"));
                let socket = tokio_uring::net::UdpSocket::from_std(socket);
                let packets = Rc::clone(&packets);
                tokio_uring::spawn(async move {
                    let mut buffer = vec![0_u8; 2048];
                    loop {
                        let (received, mut taken) = socket.recv_from(buffer).await;
                        let Ok((len, from)) = received else { return };
                        taken.truncate(len);
                        let (_, mut sent) = socket.send_to(taken, from).await;
                        sent.resize(2048, 0);
                        buffer = sent;
                        packets.set(packets.get() + 1);
                    }
                });
            }
            let start = thread_cpu_nanos();
            ready.send(addresses).expect("the far side waits");
            // What ends it is one more packet, to a socket of its own: nothing polls meanwhile.
            while !stopped.load(Ordering::Relaxed) {
                tokio_uring_sleep().await;
            }
            // Turns are not to be seen from here.
            done.send((thread_cpu_nanos() - start, packets.get())).expect("the far side waits");
        });
    });
    let ports: Vec<SocketAddr> = ports.recv().expect("sockets open");
    let echoed = load::echo(&ports, pace, time);
    stop.store(true, Ordering::Relaxed);
    let (cpu, packets) = outcome.recv().expect("the loop ends");
    Run { echoed, cpu, packets, turns: u64::MAX }
}

/// Wakes a few times a second: dear enough to end by, too cheap to be seen.
async fn tokio_uring_sleep() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn median(runs: &[Run], figure: impl Fn(&Run) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn run(name: &str, pace: Pace, time: Duration) -> Run {
    match name {
        "tokio-uring" => tokio_uring(pace, time),
        "epoll" => measure(Kind::Epoll, pace, time),
        _ => measure(probe(IoChoice::Uring).expect("io_uring is allowed here").kind, pace, time),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, pace] = &arguments[..] {
        let pace = pace.parse().map_or(Pace::Saturated, Pace::Paced);
        let run = run(name, pace, Duration::from_secs(2));
        println!("{} packets", run.packets);
        return;
    }
    let columns = &["cpu us/packet", "of epoll's", "rtt p50 us", "rtt p99 us", "packets/s"];
    let mut table = report::Table::new("compare", "echo on 100 sockets, three loops", columns);
    for (pace_name, pace) in PACES {
        const NAMES: [&str; 3] = ["uring", "epoll", "tokio-uring"];
        let mut runs: [Vec<Run>; 3] = Default::default();
        for _ in 0..ROUNDS {
            for (name, runs) in NAMES.iter().zip(&mut runs) {
                runs.push(run(name, pace, TIME));
            }
        }
        for (name, mine) in NAMES.iter().zip(&runs) {
            // Pairs of the same round, so that the machine's moods fall on both.
            let mut ratios: Vec<f64> =
                mine.iter().zip(&runs[1]).map(|(a, b)| a.cpu_us_per_packet() / b.cpu_us_per_packet()).collect();
            ratios.sort_by(f64::total_cmp);
            let row = [
                median(mine, Run::cpu_us_per_packet),
                ratios[ROUNDS / 2],
                median(mine, |run| run.echoed.p50_us as f64),
                median(mine, |run| run.echoed.p99_us as f64),
                median(mine, |run| run.echoed.packets as f64 / TIME.as_secs_f64()),
            ];
            table.row(format!("{name}, {pace_name}"), row);
        }
    }
    table.finish();
}
