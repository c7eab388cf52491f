//! The relay on its socket and thread, against clients on theirs.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pump::Pump;
use crate::relay::script::Script;
use crate::support::crypto::Crypto;
use crate::support::rtc_client::{Habits, RtcClient};

/// How long a test waits for what takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client with its socket.
struct Caller {
    socket: UdpSocket,
    client: RtcClient,
}

impl Caller {
    fn new(offer: &str, crypto: &Crypto) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let local = socket.local_addr().unwrap();
        Self { socket, client: RtcClient::new(Instant::now(), local, offer, crypto, Habits::default()) }
    }

    fn turn(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            self.client.handle_datagram(Instant::now(), from, &buffer[..len]);
        }
        self.client.handle_timeout(Instant::now());
        while let Some((to, payload)) = self.client.poll_transmit() {
            self.socket.send_to(&payload, to).unwrap();
        }
    }
}

#[test]
fn fifty_calls_behind_one_port_connect_and_each_hears_its_own_caller() {
    const CALLS: usize = 50;
    const HEARD: usize = 25;
    let pump = Pump::start(11).unwrap();
    let crypto = Crypto::new();
    let mut calls = Vec::new();
    for call in 0..CALLS {
        let frame: Arc<[u8]> = Arc::from([call as u8; 40]);
        let (key, offer) = pump.with(|relay, now| relay.offer(now, Script::repeated([frame])));
        assert!(offer.contains(&format!("m=audio {} ", pump.address().port())), "one port for all");
        let caller = Caller::new(&offer, &crypto);
        let answer = caller.client.answer().to_owned();
        pump.with(move |relay, now| relay.apply_answer(now, key, &answer)).unwrap();
        calls.push((key, caller));
    }
    let deadline = Instant::now() + PATIENCE;
    while calls.iter().any(|(_, caller)| caller.client.received.len() < HEARD) {
        assert!(Instant::now() < deadline, "not every call was heard");
        for (_, caller) in &mut calls {
            caller.turn();
        }
        std::thread::sleep(Duration::from_millis(1)); // the clients share this thread: their beat needs no more
    }
    for (call, (key, caller)) in calls.into_iter().enumerate() {
        let record = pump.with(move |relay, _| relay.remove(key)).unwrap();
        assert_eq!(record.sources, [caller.socket.local_addr().unwrap()]);
        assert_eq!(record.ssrcs, [caller.client.ssrc()]);
        assert_eq!((record.undecryptable, record.errors, record.duplicates), (0, 0, 0));
        assert!(record.received.is_sorted_by_key(|packet| packet.seq), "as it was sent");
        assert!(caller.client.received.iter().all(|packet| packet.payload[..] == [call as u8; 40]));
        assert_eq!(caller.client.errors, Vec::<String>::new());
    }
    // Each client still sends: what comes for calls that are over belongs to nobody.
    assert_eq!(pump.with(|relay, _| relay.poll_timeout()), None);
}

#[test]
fn waiting_for_what_never_comes_ends_with_its_name() {
    let pump = Pump::start(2).unwrap();
    assert_eq!(pump.wait_for("a number", PATIENCE, |relay, _| Some(relay.strays())), 0);
    let waiting = std::panic::AssertUnwindSafe(|| pump.wait_for("godot", Duration::ZERO, |_, _| None::<()>));
    let message = std::panic::catch_unwind(waiting).unwrap_err();
    assert!(message.downcast_ref::<String>().unwrap().contains("godot"));
}

#[test]
fn a_pump_ends_with_its_handle() {
    let pump = Pump::start(1).unwrap();
    let address = pump.address();
    drop(pump);
    UdpSocket::bind(address).expect("the port is free again");
}
