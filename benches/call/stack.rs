//! What the WebRTC stack alone takes of the same work: str0m on both ends, with next to nothing around it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use str0m::{IceCreds, Input};

use crate::relay::Relay;
use crate::relay::script::{FRAME, Script};
use crate::support::crypto::Crypto;
use crate::support::rtc_client::{Habits, RtcClient};

const RELAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3481);
const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 40_001);
/// A frame, parted where timers other than the beat's are served.
const BEFORE_BEAT: Duration = Duration::from_millis(19);
const EVE: Duration = Duration::from_millis(1);
/// Frames within which the two are connected and the relay speaks.
const SETUP_FRAMES: u32 = 100;

/// A connected pair; the client's side is timed.
pub(crate) struct Stack {
    now: Instant,
    relay: Relay,
    client: RtcClient,
}

/// One packet each way.
pub(crate) struct Cost {
    pub(crate) send: Duration,
    pub(crate) receive: Duration,
}

impl Stack {
    pub(crate) fn new(script: Script) -> Self {
        let now = Instant::now();
        let mut relay = Relay::new(RELAY, 8);
        let (key, offer) = relay.offer(now, script);
        let client = RtcClient::new(now, CLIENT, &offer, &Crypto::new(), Habits::default());
        relay.apply_answer(now, key, client.answer()).expect("an answer that the relay can read");
        let mut stack = Self { now, relay, client };
        // On whole frames only: the client's beat is then theirs.
        for _ in 0..SETUP_FRAMES {
            stack.now += FRAME;
            stack.beat();
        }
        assert!(stack.client.connected.is_some() && !stack.client.received.is_empty(), "the pair speaks");
        stack
    }

    /// One frame. Other timers are served just before it.
    pub(crate) fn step(&mut self) -> Cost {
        self.now += BEFORE_BEAT;
        self.client.handle_timeout(self.now);
        self.exchange();
        self.now += EVE;
        self.beat()
    }

    fn beat(&mut self) -> Cost {
        let start = Instant::now();
        self.client.handle_timeout(self.now);
        let send = start.elapsed();
        self.relay.handle_timeout(self.now);
        Cost { send, receive: self.exchange() }
    }

    /// Carries datagrams until there are none; the time that the client took for the last RTP packet.
    fn exchange(&mut self) -> Duration {
        let mut receive = Duration::ZERO;
        loop {
            let mut idle = true;
            while let Some((_, payload)) = self.client.poll_transmit() {
                self.relay.handle_datagram(self.now, CLIENT, &payload);
                idle = false;
            }
            while let Some(datagram) = self.relay.poll_transmit() {
                let heard = self.client.received.len();
                let start = Instant::now();
                self.client.handle_datagram(self.now, RELAY, &datagram.payload);
                let took = start.elapsed();
                if self.client.received.len() > heard {
                    receive = took;
                }
                idle = false;
            }
            if idle {
                return receive;
            }
        }
    }
}

/// Makes a connection, as each call does, and throws it away.
pub(crate) fn build(crypto: &Crypto, now: Instant) -> Duration {
    let start = Instant::now();
    let mut rtc = crypto.rtc_config(IceCreds::new()).build(now);
    rtc.handle_input(Input::Timeout(now)).expect("a new Rtc takes the time");
    start.elapsed()
}
