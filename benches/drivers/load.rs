//! The far side of an echo: packets out on a beat or as fast as they come back, and what the echo's thread paid for them.
//!
//! It runs on a thread of its own, beside the loop that is measured. Shared with the package that holds what is only compared,
//! so it names nothing but the standard library and `nix`.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// A packet of 20 ms of speech with its RTP and SRTP parts: 172 bytes, as much as 64 kbit/s makes.
pub(crate) const PACKET_BYTES: usize = 172;
/// How many of them are under way in a saturated loop, over all sockets.
const WINDOW: usize = 256;
/// A loopback loses nothing but where a buffer is full; the far side goes on after this long without an answer.
const PATIENCE: Duration = Duration::from_millis(50);

/// How packets are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// So many packets a second, spread evenly over the sockets and over time.
    Paced(u32),
    /// A new packet for each that comes back, a window of them under way.
    Saturated,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Echoed {
    /// Packets that came back.
    pub(crate) packets: u64,
    /// Packets that did not.
    pub(crate) lost: u64,
    /// Round trips in microseconds.
    pub(crate) p50_us: u64,
    /// The same.
    pub(crate) p99_us: u64,
}

/// Sends to these ports for some time and takes what comes back.
pub(crate) fn echo(to: &[SocketAddr], pace: Pace, time: Duration) -> Echoed {
    let far = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (start, mut sent, mut back, mut lost) = (Instant::now(), 0_u64, 0_u64, 0);
    let mut trips: Vec<u64> = Vec::with_capacity(1 << 20);
    let mut buffer = [0_u8; 2048];
    let send = |n: u64| {
        let mut packet = [0_u8; PACKET_BYTES];
        packet[..8].copy_from_slice(&(start.elapsed().as_nanos() as u64).to_be_bytes());
        far.send_to(&packet, to[n as usize % to.len()]).expect("loopback takes it");
    };
    let mut heard = start;
    while start.elapsed() < time {
        let wait = match pace {
            Pace::Paced(rate) => {
                let every = Duration::from_secs(1) / rate;
                while start + every * (sent as u32) <= Instant::now() {
                    send(sent);
                    sent += 1;
                }
                (start + every * (sent as u32)).saturating_duration_since(Instant::now())
            }
            Pace::Saturated => {
                if heard.elapsed() > PATIENCE {
                    heard = Instant::now();
                    lost += sent - back;
                    sent = back;
                }
                while sent - back < WINDOW as u64 {
                    send(sent);
                    sent += 1;
                }
                PATIENCE
            }
        };
        far.set_read_timeout(Some(wait.max(Duration::from_micros(1)))).expect("a timeout that is not zero");
        match far.recv_from(&mut buffer) {
            Ok((PACKET_BYTES, _)) => {
                back += 1;
                heard = Instant::now();
                let at = u64::from_be_bytes(buffer[..8].try_into().expect("eight bytes"));
                if trips.len() < trips.capacity() {
                    trips.push((start.elapsed().as_nanos() as u64 - at) / 1_000);
                }
            }
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(error) => panic!("{error}"),
        }
    }
    if let Pace::Paced(_) = pace {
        lost = sent.saturating_sub(back);
    }
    trips.sort_unstable();
    let at = |quantile: f64| trips.get((trips.len() as f64 * quantile) as usize).copied().unwrap_or(0);
    Echoed { packets: trips.len() as u64, lost, p50_us: at(0.5), p99_us: at(0.99) }
}

/// Processor time that the calling thread has had, in nanoseconds.
pub(crate) fn thread_cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
