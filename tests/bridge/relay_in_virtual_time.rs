//! The relay against a client on a virtual clock and network: no socket, no thread, no waiting.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::rtp::RtpPacket;

use crate::relay::answer::AnswerError;
use crate::relay::call::Conduct;
use crate::relay::packet::Kind;
use crate::relay::record::Record;
use crate::relay::script::{self, Fate, Script};
use crate::relay::stun::Check;
use crate::relay::{CallKey, Datagram, Relay};
use crate::support::crypto::Crypto;
use crate::support::rng::Rng;
use crate::support::rtc_client::{Habits, RtcClient};

/// One way through the network.
const LATENCY: Duration = Duration::from_millis(20);

/// Steps of one run: a timer that is always due would otherwise hang the test.
const STEPS_MAX: usize = 100_000;

/// A datagram under way: when it arrives, its number, whether it goes to the relay, and its bytes.
type Flight = (Instant, u64, bool, Vec<u8>);

/// A client and a relay joined by a network that only delays. The relay is `127.0.0.1:3480`.
struct World {
    now: Instant,
    start: Instant,
    relay: Relay,
    client: RtcClient,
    call: CallKey,
    offer: String,
    local: SocketAddr,
    /// Datagrams under way.
    wire: BinaryHeap<Reverse<Flight>>,
    sent: u64,
    /// Datagrams that the relay sent, and how many of them were RTP and RTCP.
    to_client: u64,
    rtp_to_client: u64,
    rtcp_to_client: u64,
    last_check: Option<Vec<u8>>,
    last_rtp_to_relay: Option<Vec<u8>>,
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
        Self {
            now,
            start: now,
            relay,
            client,
            call,
            offer,
            local,
            wire: BinaryHeap::new(),
            sent: 0,
            to_client: 0,
            rtp_to_client: 0,
            rtcp_to_client: 0,
            last_check: None,
            last_rtp_to_relay: None,
        }
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
        for _ in 0..STEPS_MAX {
            while let Some(Datagram { to, payload }) = self.relay.poll_transmit() {
                assert_eq!(to, self.local);
                self.carry(false, payload);
            }
            while let Some((to, payload)) = self.client.poll_transmit() {
                assert_eq!(to, relay_address());
                self.carry(true, payload);
            }
            let arrival = self.wire.peek().map(|Reverse((at, ..))| *at);
            let timers = [Some(self.client.poll_timeout()), self.relay.poll_timeout(), arrival];
            let next = timers.into_iter().flatten().min().unwrap();
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
        panic!("time stands still");
    }

    fn carry(&mut self, to_relay: bool, payload: Vec<u8>) {
        self.sent += 1;
        let kind = Kind::of(&payload);
        match (to_relay, kind) {
            (true, Kind::Rtp { .. }) => self.last_rtp_to_relay = Some(payload.clone()),
            (true, _) if Check::parse(&payload).is_some() => self.last_check = Some(payload.clone()),
            (true, _) => {}
            (false, _) => {
                self.to_client += 1;
                self.rtp_to_client += u64::from(matches!(kind, Kind::Rtp { .. }));
                self.rtcp_to_client += u64::from(kind == Kind::Rtcp);
            }
        }
        self.wire.push(Reverse((self.now + LATENCY, self.sent, to_relay, payload)));
    }
}

fn frame(byte: u8) -> Arc<[u8]> {
    Arc::from([byte; 40])
}

const SECOND: Duration = Duration::from_secs(1);

/// Everything the client received, as (first payload byte, sequence number, RTP time), counted from the first.
fn heard(world: &World) -> Vec<(u8, u64, u32)> {
    let packets = &world.client.received;
    let (seq, time) = (*packets[0].seq_no, packets[0].header.timestamp);
    let from_first = |p: &RtpPacket| (p.payload[0], *p.seq_no - seq, p.header.timestamp.wrapping_sub(time));
    packets.iter().map(from_first).collect()
}

fn relays_words() -> Script {
    Script::repeated([frame(1), frame(2), frame(3)])
}

#[test]
fn media_flows_both_ways_and_the_relay_speaks_second() {
    let mut world = World::new(relays_words(), Habits::default());
    world.answer();
    world.run_until(3 * SECOND);

    let record = world.record();
    assert_eq!(record.connect_time(), Some(5 * LATENCY), "a check, a nomination with the ClientHello, two flights");
    let first = record.first_media().unwrap();
    assert!(record.sent.iter().all(|packet| packet.at >= first), "silent until it has heard RTP");
    assert_eq!(record.sent[0].at, first);
    assert_eq!(record.ssrcs, [world.client.ssrc()]);
    assert_eq!(record.sources, [world.local]);
    let frames: Vec<_> =
        record.received.iter().map(|p| u32::from_be_bytes((&p.payload[..]).try_into().unwrap())).collect();
    assert_eq!(frames, (0..frames.len() as u32).collect::<Vec<_>>());
    assert!(frames.len() > 140);
    assert!(record.received.windows(2).all(|pair| pair[1].at - pair[0].at == script::FRAME));
    assert_eq!((record.undecryptable, record.duplicates, record.errors), (0, 0, 0));

    let heard = heard(&world);
    assert!(heard.len() > 140);
    for (n, packet) in heard.iter().enumerate() {
        assert_eq!(*packet, ([1, 2, 3][n % 3], n as u64, n as u32 * 960));
    }
    assert_eq!(world.client.errors, Vec::<String>::new());
}

#[test]
fn a_caller_whose_other_side_stays_mute_is_never_heard_and_would_hang_up() {
    let mut world = World::new(relays_words(), Habits { mute: true, ..Habits::default() });
    world.answer();
    world.run_until(20 * SECOND);
    assert!(world.record().connected.is_some());
    assert!(!world.record().media_came_late(world.now), "20 s are allowed");
    world.run_until(21 * SECOND);
    assert!(world.record().media_came_late(world.now));
    assert_eq!(world.record().sent, []);
    assert!(world.client.received.is_empty());
    assert_eq!(world.rtcp_to_client, 0, "RTCP would be speaking, too");
}

#[test]
fn an_answer_that_is_applied_late_connects_within_a_second_and_checks_before_it_go_unanswered() {
    for late in [1, 5, 25] {
        let mut world = World::new(relays_words(), Habits::default());
        world.run_until(late * SECOND);
        assert_eq!(world.to_client, 0, "nothing is answered before the answer");
        assert!(world.record().checks.before_answer > 0);
        assert_eq!(world.record().first_check_after_offer(), Some(LATENCY));
        world.answer();
        world.run_until((late + 1) * SECOND);
        let record = world.record();
        let connect_time = record.connect_time().expect("connected within a second");
        assert!(connect_time < SECOND, "{late} s late: {connect_time:?}");
        assert!(record.first_media().is_some());
        assert!(!record.checks.aggressive);
        assert!(record.checks.first_after_answer.unwrap() - world.start > late * SECOND);
    }
}

#[test]
fn a_check_in_the_relays_role_is_answered_with_a_role_conflict_and_the_other_side_yields() {
    let mut world = World::new(relays_words(), Habits { controlled: true, ..Habits::default() });
    world.answer();
    world.run_until(SECOND);
    let record = world.record();
    assert_eq!(record.checks.role_conflicts, 1);
    assert!(record.connected.is_some(), "str0m's client switches to controlling on 487");
    assert!(record.checks.after_answer > 1);
}

#[test]
fn unanswered_checks_end_the_other_sides_consent_while_media_flows_on() {
    let mut world = World::new(relays_words(), Habits::default());
    world.answer();
    world.run_until(2 * SECOND);
    world.relay.set_conduct(world.call, Conduct::IgnoresChecks);
    world.run_until(40 * SECOND);
    let lost = world.client.disconnected.expect("consent is lost") - world.start;
    assert!((25 * SECOND..35 * SECOND).contains(&lost), "{lost:?}");
    let checks = &world.record().checks;
    assert!(checks.ignored > 50 && checks.consent >= checks.ignored, "{checks:?}");
    assert!(world.record().received.last().unwrap().at > world.start + 39 * SECOND, "media flows on");
}

#[test]
fn a_relay_that_is_gone_neither_takes_nor_sends_and_sees_the_gap_afterwards() {
    let mut world = World::new(relays_words(), Habits::default());
    world.answer();
    world.run_until(2 * SECOND);
    world.relay.set_conduct(world.call, Conduct::Gone);
    world.run_until(3 * SECOND);
    let heard = world.client.received.len();
    world.run_until(31 * SECOND);
    assert_eq!(world.client.received.len(), heard);
    assert!(!world.record().media_broke_off(world.now), "30 s are allowed");
    world.relay.set_conduct(world.call, Conduct::Normal);
    world.run_until(32 * SECOND);
    let gap = world.record().longest_gap(world.now);
    assert!((28 * SECOND..30 * SECOND).contains(&gap), "{gap:?}");
    assert!(world.client.received.len() > heard);
    world.relay.set_conduct(world.call, Conduct::Gone);
    world.run_until(63 * SECOND);
    assert!(world.record().media_broke_off(world.now));
}

#[test]
fn hanging_up_closes_the_other_side() {
    let mut world = World::new(relays_words(), Habits::default());
    world.answer();
    world.run_until(SECOND);
    let (now, call) = (world.now, world.call);
    world.relay.hang_up(now, call);
    world.run_until(2 * SECOND);
    assert_eq!(world.client.closed, Some(now + LATENCY));
    let heard = world.client.received.len();
    world.run_until(3 * SECOND);
    assert_eq!(world.client.received.len(), heard, "silent afterwards");
}

#[test]
fn the_other_sides_close_is_recorded() {
    let mut world = World::new(relays_words(), Habits::default());
    world.answer();
    world.run_until(SECOND);
    world.client.close(world.now);
    let closed = world.now + LATENCY;
    world.run_until(2 * SECOND);
    assert_eq!(world.record().closed, Some(closed));
}

#[test]
fn a_certificate_that_the_answer_did_not_announce_is_refused() {
    let mut world = World::new(relays_words(), Habits { wrong_fingerprint: true, ..Habits::default() });
    world.answer();
    world.run_until(2 * SECOND);
    let record = world.record();
    assert_eq!((record.connected, record.received.len()), (None, 0));
    assert!(record.closed.is_some());
}

#[test]
fn packets_are_lost_doubled_and_late_by_plan() {
    let fate = |packet| match packet {
        3 => Fate::Lost,
        5 => Fate::Doubled,
        7 => Fate::Late(Duration::from_millis(50)),
        _ => Fate::Arrives,
    };
    let mut world = World::new(relays_words().with_fate(fate), Habits::default());
    world.answer();
    world.run_until(SECOND);
    let order: Vec<_> = heard(&world).iter().map(|(_, seq, _)| *seq).take(12).collect();
    assert_eq!(order, [0, 1, 2, 4, 5, 6, 8, 9, 7, 10, 11, 12]);
    world.relay.play(world.now, world.call, Script::silent());
    world.run_until(2 * SECOND);
    let sent = world.record().sent.len();
    assert_eq!(world.rtp_to_client, sent as u64 - 1 + 1, "the lost one is not on the wire, the double twice");
    assert_eq!(world.client.received.len(), sent - 1, "and str0m drops the double");
}

#[test]
fn keys_and_another_script_follow_in_the_same_stream() {
    let mut world = World::new(Script::once([frame(1)]), Habits::default());
    world.answer();
    world.run_until(SECOND);
    assert_eq!(world.client.received.len(), 1);
    let (now, call) = (world.now, world.call);
    world.relay.press(now, call, 7, 2 * script::FRAME);
    world.run_until(2 * SECOND);
    let now = world.now;
    world.relay.play(now, call, Script::once([frame(9)]));
    world.run_until(3 * SECOND);
    let seen: Vec<_> = world.client.received.iter().map(|p| (*p.header.payload_type, p.payload[0])).collect();
    assert_eq!(seen, [(111, 1), (126, 7), (126, 7), (126, 7), (126, 7), (111, 9)]);
    let packets = heard(&world);
    assert!(packets.iter().enumerate().all(|(n, (_, seq, _))| *seq == n as u64), "one sequence");
    let sent = &world.record().sent;
    assert_eq!(packets[5].2 / 48, (sent[5].at - sent[0].at).as_millis() as u32, "RTP time is real time");
}

#[test]
fn what_a_stranger_sends_is_counted_and_changes_nothing() {
    let mut world = World::new(relays_words(), Habits::default());
    world.answer();
    world.run_until(SECOND);
    let stranger: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let rtp = [0x80, 111, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4];
    let alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
    for datagram in [&rtp[..], &alert, &[]] {
        world.relay.handle_datagram(world.now, stranger, datagram);
    }
    assert_eq!(world.relay.strays(), 3);
    // From the right address, it is not believed: nobody else has the key.
    world.relay.handle_datagram(world.now, world.local, &rtp);
    assert_eq!(world.record().undecryptable, 1);
    // A check for this call whose integrity fails (its last 8 bytes are the fingerprint).
    let mut check = world.last_check.clone().expect("the client sends checks");
    let integrity = check.len() - 9;
    check[integrity] ^= 1;
    world.relay.handle_datagram(world.now, stranger, &check);
    assert_eq!(world.record().checks.refused, 1);
    let before = world.record().received.len();
    world.run_until(2 * SECOND);
    assert!(world.record().received.len() >= before + 49);
    assert_eq!(world.record().sources, [world.local]);
}

#[test]
fn a_packet_that_comes_twice_is_recorded_once() {
    let mut world = World::new(relays_words(), Habits::default());
    world.answer();
    world.run_until(SECOND);
    let packet = world.last_rtp_to_relay.clone().expect("the client speaks");
    world.run_until(2 * SECOND);
    let received = world.record().received.len();
    world.relay.handle_datagram(world.now, world.local, &packet);
    assert_eq!((world.record().received.len(), world.record().duplicates), (received, 1));
}

#[test]
fn an_answer_is_taken_once_and_not_with_the_offers_own_credentials() {
    let mut world = World::new(relays_words(), Habits::default());
    let (now, call) = (world.now, world.call);
    let answer = world.client.answer().to_owned();
    let unknown = world.relay.offer(now, Script::silent()).0;
    world.relay.remove(unknown).unwrap();
    assert_eq!(world.relay.apply_answer(now, unknown, &answer), Err(AnswerError::UnknownCall));
    let line = |text: &str, prefix: &str| text.lines().find(|line| line.starts_with(prefix)).unwrap().to_owned();
    for prefix in ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:"] {
        let echoed = answer.replace(&line(&answer, prefix), &line(&world.offer, prefix));
        assert!(
            matches!(world.relay.apply_answer(now, call, &echoed), Err(AnswerError::Echoed(line)) if line == prefix)
        );
    }
    world.relay.apply_answer(now, call, &answer).unwrap();
    assert_eq!(world.relay.apply_answer(now, call, &answer), Err(AnswerError::SecondAnswer));
}

#[test]
fn a_call_that_is_removed_is_forgotten_and_its_port_may_serve_another() {
    let mut world = World::new(relays_words(), Habits::default());
    world.answer();
    world.run_until(SECOND);
    let (now, local) = (world.now, world.local);
    let first = world.call;
    let record = world.relay.remove(first).unwrap();
    assert!(record.rtp_heard() > 0);
    assert!(world.relay.record(first).is_none() && world.relay.poll_timeout().is_none());
    let packet = world.last_rtp_to_relay.clone().expect("the client speaks");
    world.relay.handle_datagram(now, local, &packet);
    assert_eq!(world.relay.strays(), 1);

    let (second, offer) = world.relay.offer(now, relays_words());
    world.call = second;
    world.wire.clear();
    world.client = RtcClient::new(now, local, &offer, &Crypto::new(), Habits::default());
    world.answer();
    world.run_until(2 * SECOND);
    assert!(world.record().connected.is_some());
    assert_eq!((world.record().undecryptable, world.relay.strays()), (0, 1));
}

#[test]
fn hostile_datagrams_neither_panic_nor_break_the_call() {
    let mut world = World::new(relays_words(), Habits::default());
    world.answer();
    world.run_until(SECOND);
    let mut rng = Rng::new(3);
    let seeds = [world.last_check.clone().unwrap(), world.last_rtp_to_relay.clone().unwrap(), vec![22; 60]];
    for round in 0..20_000 {
        let mut datagram = seeds[round % seeds.len()].clone();
        for _ in 0..=rng.below(4) {
            let position = rng.below(datagram.len());
            datagram[position] = rng.next_u32() as u8;
        }
        datagram.truncate(rng.below(datagram.len() * 4).max(1));
        world.relay.handle_datagram(world.now, world.local, &datagram);
        while world.relay.poll_transmit().is_some() {}
    }
    let received = world.record().received.len();
    world.run_until(2 * SECOND);
    assert!(world.record().received.len() >= received + 49, "the call goes on");
}
