//! The product's own loops, io_uring and epoll, on real sockets: an echo on 100 of them.
//!
//! `cargo bench --bench drivers`; `-- uring 5000` runs one at so many packets a second for a tracer of system calls, `-- uring
//! saturated` as fast as it goes. Both take turns, round by round; the figures are medians over the rounds. A packet here is
//! one that came and went again. On loopback a send also pays for the receiver's half of the network.

mod echo;
mod load;

use std::time::Duration;

use echo::{Run, measure};
use load::Pace;
use voice_media_bridge::config::IoChoice;
use voice_media_bridge::driver::{Kind, probe};

#[path = "../rig/report.rs"]
#[allow(dead_code, reason = "a bench uses a part of it")]
mod report;

const ROUNDS: usize = 5;
/// Packets a second of 100 calls, and of 20.
const PACES: [(&str, Pace); 3] =
    [("1000 packets/s", Pace::Paced(1_000)), ("5000 packets/s", Pace::Paced(5_000)), ("saturated", Pace::Saturated)];

/// What this host allows, the production one first.
fn kinds() -> Vec<(&'static str, Kind)> {
    let chosen = probe(IoChoice::Auto).expect("some loop runs");
    let uring = (chosen.kind != Kind::Epoll).then_some(("uring", chosen.kind));
    uring.into_iter().chain([("epoll", Kind::Epoll)]).collect()
}

fn median(runs: &[Run], figure: impl Fn(&Run) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let kinds = kinds();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [name, pace] = &arguments[..] {
        let pace = pace.parse().map_or(Pace::Saturated, Pace::Paced);
        let (_, kind) =
            kinds.iter().find(|(known, _)| known == name).expect("uring or epoll, where the host allows it");
        let run = measure(*kind, pace, Duration::from_secs(2));
        println!("{} packets, {} turns", run.packets, run.turns);
        return;
    }
    let columns = &["cpu us/packet", "packets/turn", "rtt p50 us", "rtt p99 us", "packets/s", "lost"];
    let mut table = report::Table::new("drivers", "echo on 100 sockets", columns);
    for (pace_name, pace) in PACES {
        let time = Duration::from_millis(700);
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); kinds.len()];
        for _ in 0..ROUNDS {
            for ((_, kind), runs) in kinds.iter().zip(&mut runs) {
                runs.push(measure(*kind, pace, time));
            }
        }
        for ((name, _), runs) in kinds.iter().zip(&runs) {
            let row = [
                median(runs, Run::cpu_us_per_packet),
                median(runs, Run::packets_per_turn),
                median(runs, |run| run.echoed.p50_us as f64),
                median(runs, |run| run.echoed.p99_us as f64),
                median(runs, |run| run.echoed.packets as f64 / time.as_secs_f64()),
                runs.iter().map(|run| run.echoed.lost as f64).sum(),
            ];
            table.row(format!("{name}, {pace_name}"), row);
        }
    }
    table.finish();
}
