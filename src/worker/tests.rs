//! What no whole call can show: a fault of ours inside one call, and the other call beside it.

use std::sync::Arc;

use super::*;
use crate::agent::AgentConfig;
use crate::call_id::CallId;
use crate::messages::{RequestId, StartChecks, StartMedia};
use crate::peer::identity::Identity;
use crate::peer::sdp::Offer;
use crate::realtime::SessionSettings;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn entropy(buffer: &mut [u8]) {
    buffer.iter_mut().enumerate().for_each(|(n, byte)| *byte = n as u8);
}

fn worker() -> Worker {
    worker_with(LoadSettings::fixed(0))
}

fn worker_with(load: LoadSettings) -> Worker {
    let agent = AgentConfig {
        host: "127.0.0.1".into(),
        port: 1,
        path: "/".into(),
        tls: None,
        api_key: None,
        org_id: None,
        project_id: None,
        entropy,
    };
    Worker::new(WorkerConfig {
        index: 0,
        call: CallConfig {
            identity: Identity::generate().unwrap(),
            agent: Arc::new(agent),
            start_delay: Duration::ZERO,
            opus_complexity: 0,
            entropy,
            stopwatch: || 0,
        },
        media_ip: LOOPBACK,
        loopback_listener: true,
        policy: Policy {
            allow_private: true,
            own_listener: None,
            own_media_ports: 40_000..=40_001,
            own_media_ip: LOOPBACK,
        },
        load,
    })
}

/// Takes a call and opens its socket.
fn open(worker: &mut Worker, now: Instant, number: u64) -> CallKey {
    open_with(worker, now, number, StartChecks::AtOnce)
}

fn open_with(worker: &mut Worker, now: Instant, number: u64, start_checks: StartChecks) -> CallKey {
    let offer = include_str!("../../tests/fixtures/sdp/offer-live-2026-10-02.sdp").replace("203.0.113.49", "127.0.0.1");
    let open = OpenCall {
        call: CallNumber(number),
        log_id: CallId::new("wacid.test").unwrap().log_id(),
        offer: Offer::parse(&offer).unwrap(),
        session: SessionSettings::default(),
        start_checks,
        start_media: StartMedia::Auto,
        duration_sec_max: 60,
    };
    worker.handle_input(now, Input::Message(Message::ToWorker(ToWorker::Open(Box::new(open)))));
    let key = worker.by_number[&CallNumber(number)];
    worker.handle_input(now, Input::UdpBound { socket: key.socket(), port: 40_000 });
    assert!(worker.call(key).is_some(), "answered");
    key
}

/// The address of the socket that is opened for an offer with these two candidates, by a worker that advertises
/// 198.41.0.4.
fn advertised(candidates: [&str; 2], loopback_listener: bool) -> IpAddr {
    let mut worker = worker();
    let public = IpAddr::from([198, 41, 0, 4]);
    worker.config.media_ip = public;
    worker.config.loopback_listener = loopback_listener;
    worker.config.policy = Policy { allow_private: false, own_media_ip: public, ..worker.config.policy.clone() };
    let offer = include_str!("../../tests/fixtures/sdp/offer-live-2026-10-02.sdp")
        .replace("203.0.113.49", candidates[0])
        .replace("2001:0db8:f312:131:face:b00c:0:699c", candidates[1]);
    let open = OpenCall {
        call: CallNumber(1),
        log_id: CallId::new("wacid.test").unwrap().log_id(),
        offer: Offer::parse(&offer).unwrap(),
        session: SessionSettings::default(),
        start_checks: StartChecks::AtOnce,
        start_media: StartMedia::Auto,
        duration_sec_max: 60,
    };
    worker.take(open);
    match worker.poll_output() {
        Output::BindUdp { address, .. } => address,
        other => panic!("not a socket: {other:?}"),
    }
}

#[test]
fn a_caller_on_this_host_gets_a_loopback_candidate_whatever_else_its_offer_names_that_nobody_can_use() {
    let (media, v4, v6) = (IpAddr::from([198, 41, 0, 4]), IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into());
    for (candidates, loopback_listener, expected) in [
        (["127.0.0.1", "2001:db8::1"], true, v4),
        (["127.0.0.1", "fe80::1"], true, v4),
        (["127.0.0.1", "::1"], true, v4),
        (["203.0.113.9", "::1"], true, v6),
        (["127.0.0.1", "2001:db8::1"], false, media),
        (["127.0.0.1", "2a03:2880::1"], true, media),
        (["10.0.0.9", "::1"], true, media),
        (["203.0.113.9", "2001:db8::1"], true, media),
    ] {
        assert_eq!(advertised(candidates, loopback_listener), expected, "{candidates:?} {loopback_listener}");
    }
}

fn live(worker: &Worker) -> usize {
    worker.calls.iter().filter(|(_, _, slot)| matches!(slot, Slot::Live(_))).count()
}

#[test]
fn checks_wait_to_be_told_where_somebody_will_say_so_and_begin_once() {
    let checks = |outputs: &[Output<Message>]| outputs.iter().filter(|out| matches!(out, Output::Send { .. })).count();
    let (mut worker, now) = (worker(), Instant::now());
    open_with(&mut worker, now, 1, StartChecks::WhenTold);
    assert_eq!(checks(&drain(&mut worker, now)), 0);
    let later = now + Duration::from_secs(3);
    worker.handle_input(later, Input::Timeout);
    assert_eq!(checks(&drain(&mut worker, later)), 0);
    let begin = || Input::Message(Message::ToWorker(ToWorker::BeginChecks(CallNumber(1))));
    worker.handle_input(later, begin());
    assert_eq!(checks(&drain(&mut worker, later)), 1);
    worker.handle_input(later, begin());
    assert_eq!(checks(&drain(&mut worker, later)), 0, "it has begun");

    let mut worker = self::worker();
    open(&mut worker, now, 1);
    assert_eq!(checks(&drain(&mut worker, now)), 1, "who is told nothing begins at once");
}

#[test]
fn a_call_that_panics_is_counted_and_ends_alone() {
    let (mut worker, now) = (worker(), Instant::now());
    let (faulty, other) = (open(&mut worker, now, 1), open(&mut worker, now, 2));
    worker.outputs.clear();

    worker.with_call(now, faulty, |_, _| panic!("forced by a test"));

    let (mut closed, mut ended) = (Vec::new(), Vec::new());
    loop {
        match worker.poll_output() {
            Output::CloseUdp { socket } => closed.push(CallKey::of(socket)),
            Output::Message { message: Message::FromWorker { event: FromWorker::Ended(report, _), .. }, .. } => {
                ended.push((report.call, report.close));
            }
            Output::Timeout(_) => break,
            _ => {}
        }
    }
    assert_eq!(closed, [faulty]);
    assert_eq!(ended, [(CallNumber(1), Some(CloseReason::InternalError))]);
    assert_eq!((worker.totals.panics, live(&worker)), (1, 1));
    assert!(worker.call(other).is_some_and(|call| call.end().is_none()), "the other call goes on");
    worker.handle_input(now, Input::UdpClosed { socket: faulty.socket() });
    assert_eq!(worker.calls.len(), 1, "the slot is given back");
}

/// Takes everything the worker puts out, as a driver does.
fn drain(worker: &mut Worker, now: Instant) -> Vec<Output<Message>> {
    let mut outputs = Vec::new();
    loop {
        match worker.poll_output() {
            Output::Timeout(_) => break,
            output => outputs.push(output),
        }
    }
    worker.handle_input(now, Input::Submitted);
    outputs
}

#[test]
fn a_turn_serves_a_few_calls_and_the_next_one_goes_on() {
    let (mut worker, mut now) = (worker(), Instant::now());
    for number in 0..10 {
        open(&mut worker, now, number);
    }
    drain(&mut worker, now);
    // All of them send their next check at the same time.
    now += Duration::from_secs(1);
    let mut turns = Vec::new();
    while turns.iter().sum::<usize>() < 10 {
        worker.handle_input(now, Input::Timeout);
        let mut senders: Vec<_> = drain(&mut worker, now)
            .iter()
            .filter_map(|output| if let Output::Send { socket, .. } = output { Some(socket.slot) } else { None })
            .collect();
        senders.dedup();
        assert!(!senders.is_empty() && senders.len() <= DUE_PER_TURN as usize, "{senders:?}");
        turns.push(senders.len());
    }
    assert_eq!(turns, [4, 4, 2]);
}

#[test]
fn encoders_follow_the_load_of_their_core_and_control_is_told() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static RUN_NS: AtomicU64 = AtomicU64::new(0);
    let load = LoadSettings { complexity: 0..=5, thread_time: || RUN_NS.load(Ordering::Relaxed), kernel_time: || 0 };
    let (mut worker, mut now) = (worker_with(load), Instant::now());
    let key = open(&mut worker, now, 1);
    assert_eq!(worker.call(key).map(Call::complexity), Some(5));
    let mut told = Vec::new();
    for _ in 0..20 {
        now += load::SAMPLE;
        // All of the time that has passed.
        RUN_NS.fetch_add(load::SAMPLE.as_nanos() as u64, Ordering::Relaxed);
        worker.handle_input(now, Input::Timeout);
        told.extend(drain(&mut worker, now).into_iter().filter_map(|output| match output {
            Output::Message { message: Message::FromWorker { event: FromWorker::Load(report), .. }, .. } => {
                Some(report)
            }
            _ => None,
        }));
    }
    assert_eq!(worker.call(key).map(Call::complexity), Some(0));
    let last = told.last().expect("control is told");
    assert!(last.complexity == 0 && last.busy > 0.99 && last.calls == 1, "{last:?}");
    let late = open(&mut worker, now, 2);
    assert_eq!(worker.call(late).map(Call::complexity), Some(0), "a new call begins as the others go on");
}

/// Lets one turn pass; what the worker told control in it.
fn turn(worker: &mut Worker, now: Instant) -> Vec<FromWorker> {
    worker.handle_input(now, Input::Timeout);
    let mut told = Vec::new();
    loop {
        match worker.poll_output() {
            Output::Message { message: Message::FromWorker { event, .. }, .. } => told.push(event),
            Output::Timeout(_) => break,
            _ => {}
        }
    }
    worker.handle_input(now, Input::Submitted);
    told
}

fn ask(worker: &mut Worker, now: Instant, question: ToWorker) {
    worker.handle_input(now, Input::Message(Message::ToWorker(question)));
}

/// Lets turns pass until the worker tells its sums; how many those were.
fn sums(worker: &mut Worker, now: Instant) -> (WorkerStats, usize) {
    for turns in 1..=20 {
        for event in turn(worker, now) {
            if let FromWorker::Stats(_, stats) = event {
                return (*stats, turns);
            }
        }
    }
    panic!("not counted within 20 turns")
}

#[test]
fn calls_are_listed_a_few_a_turn_and_the_answer_has_all() {
    let (mut worker, now) = (worker(), Instant::now());
    for number in 0..20 {
        open(&mut worker, now, number);
    }
    turn(&mut worker, now);
    ask(&mut worker, now, ToWorker::List(RequestId(7)));
    for _ in 0..2 {
        assert!(turn(&mut worker, now).is_empty(), "8 of 20 calls a turn");
        let Output::Timeout(deadline) = worker.poll_output() else { panic!("drained above") };
        assert_eq!((deadline.at, deadline.reason), (Some(now), "survey"), "the next turn comes at once");
    }
    let told = turn(&mut worker, now);
    let [FromWorker::Listed(RequestId(7), reports)] = &told[..] else { panic!("{told:?}") };
    let numbers: Vec<u64> = reports.iter().map(|report| report.call.0).collect();
    assert_eq!(numbers, (0..20).collect::<Vec<u64>>());
    let Output::Timeout(deadline) = worker.poll_output() else { panic!("drained above") };
    assert_ne!(deadline.reason, "survey");
}

#[test]
fn a_call_that_ends_while_calls_are_counted_is_counted_once() {
    let (mut worker, now) = (worker(), Instant::now());
    for number in 0..100 {
        open(&mut worker, now, number);
    }
    turn(&mut worker, now);
    ask(&mut worker, now, ToWorker::Stats(RequestId(1)));
    let (before, turns) = sums(&mut worker, now);
    assert_eq!(turns, 2 + Stage::ALL.len().div_ceil(2), "64 calls a turn, then 2 stages a turn");
    assert_eq!((before.gauges.live[0], before.gauges.model[0], before.opened), (100, 100, 100));
    assert!(before.peer.datagrams_sent >= 100, "each call has sent its first check");
    assert!(before.stages.get(Stage::Turn).is_some() && before.recent.get(Stage::Turn).is_some());

    ask(&mut worker, now, ToWorker::Stats(RequestId(2)));
    assert!(turn(&mut worker, now).is_empty());
    for visited_or_not in [3, 97] {
        ask(&mut worker, now, ToWorker::Hangup(CallNumber(visited_or_not), CloseReason::Hangup));
    }
    let (meanwhile, _) = sums(&mut worker, now);
    assert_eq!(meanwhile.peer.datagrams_sent, before.peer.datagrams_sent);
    ask(&mut worker, now, ToWorker::Stats(RequestId(3)));
    let (after, _) = sums(&mut worker, now);
    assert_eq!(after.peer.datagrams_sent, before.peer.datagrams_sent);
    assert_eq!((after.gauges.live[0], after.ended.iter().sum::<u64>()), (98, 2));
}

#[test]
fn a_worker_without_calls_answers_when_it_is_asked_whether_it_turns() {
    let (mut worker, now) = (worker(), Instant::now());
    turn(&mut worker, now);
    let Output::Timeout(deadline) = worker.poll_output() else { panic!("drained above") };
    assert_eq!(deadline, Deadline::NEVER, "it sleeps");
    ask(&mut worker, now, ToWorker::Ping);
    let told = turn(&mut worker, now);
    assert!(matches!(told[..], [FromWorker::Pong]), "{told:?}");
}

#[test]
fn a_call_that_is_ended_twice_is_told_of_once() {
    let (mut worker, now) = (worker(), Instant::now());
    open(&mut worker, now, 1);
    turn(&mut worker, now);
    ask(&mut worker, now, ToWorker::Stop(Ending::Goodbye));
    ask(&mut worker, now, ToWorker::Stop(Ending::AtOnce));
    let told = turn(&mut worker, now);
    let [FromWorker::Ended(report, _)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(report.close, Some(CloseReason::ServerStopping));
}

#[test]
fn questions_that_nobody_waits_for_do_not_pile_up() {
    let (mut worker, now) = (worker(), Instant::now());
    (0..1_000).for_each(|request| ask(&mut worker, now, ToWorker::List(RequestId(request))));
    let answered = std::iter::from_fn(|| Some(turn(&mut worker, now).len()).filter(|told| *told > 0)).count();
    assert_eq!(answered, 256, "the newest");
}
