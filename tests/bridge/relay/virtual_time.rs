//! The relay against a client on a virtual clock and network: no socket, no thread, no waiting.

use std::collections::BinaryHeap;
use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::support::rtc_client::{Habits, RtcClient};

/// One way through the network.
const LATENCY: Duration = Duration::from_millis(20);

/// A client and a relay joined by a network that only delays. The relay is `127.0.0.1:3480`.
struct World {
    now: Instant,
    start: Instant,
    relay: Relay,
    client: RtcClient,
    call: CallKey,
    local: SocketAddr,
    /// Datagrams under way, by arrival and order of sending.
    wire: BinaryHeap<Reverse<(Instant, u64, bool, Vec<u8>)>>,
    sent: u64,
}

fn relay_address() -> SocketAddr {
    "127.0.0.1:3480".parse().unwrap()
}

impl World {
    fn new(script: Script, habits: Habits) -> Self {
        let now = Instant::now();
        let mut relay = Relay::new(relay_address(), 7);
        let (call, offer) = relay.offer(now, script);
        let local = "127.0.0.1:40000".parse().unwrap();
        let client = RtcClient::new(now, local, &offer, &Crypto::new(), habits);
        Self { now, start: now, relay, client, call, local, wire: BinaryHeap::new(), sent: 0 }
    }

    fn answer(&mut self) {
        let answer = self.client.answer().to_owned();
        self.relay.apply_answer(self.now, self.call, &answer).unwrap();
    }

    fn record(&self) -> &Record {
        self.relay.record(self.call).unwrap()
    }

    /// Runs until this long after the start, always advancing to what is due first.
    fn run_until(&mut self, elapsed: Duration) {
        let end = self.start + elapsed;
        loop {
            while let Some(Datagram { to, payload }) = self.relay.poll_transmit() {
                assert_eq!(to, self.local);
                self.carry(false, payload);
            }
            while let Some((to, payload)) = self.client.poll_transmit() {
                assert_eq!(to, relay_address());
                self.carry(true, payload);
            }
            let arrival = self.wire.peek().map(|Reverse((at, ..))| *at);
            let relay = self.relay.poll_timeout().expect("a call always has a deadline");
            let next = arrival.into_iter().chain([relay, self.client.poll_timeout()]).min().unwrap();
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            while self.wire.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
                let Reverse((_, _, to_relay, payload)) = self.wire.pop().unwrap();
                if to_relay {
                    self.relay.handle_datagram(self.now, self.local, &payload);
                } else {
                    self.client.handle_datagram(self.now, relay_address(), &payload);
                }
            }
            self.relay.handle_timeout(self.now);
            self.client.handle_timeout(self.now);
        }
    }

    fn carry(&mut self, to_relay: bool, payload: Vec<u8>) {
        self.sent += 1;
        self.wire.push(Reverse((self.now + LATENCY, self.sent, to_relay, payload)));
    }
}

fn frame(byte: u8) -> Arc<[u8]> {
    Arc::from([0xf8, 0xff, byte])
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn media_flows_both_ways_and_the_relay_speaks_second() {
    let mut world = World::new(Script::repeated([frame(1), frame(2)]), Habits::default());
    world.answer();
    world.run_until(3 * SECOND);
    let record = world.record();
    eprintln!("{:?} errors {:?}", record.checks, world.client.errors);
    eprintln!("connect {:?} nominated {:?}", record.connect_time(), record.nominated.map(|n| n - world.start));
    assert!(record.received.len() > 100, "{}", record.received.len());
    assert!(world.client.received.len() > 100);
}
