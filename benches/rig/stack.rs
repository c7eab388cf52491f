//! What the WebRTC stack alone takes of the same packets: two bare str0m instances, set up as a call sets up its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::format::{Codec, FormatParams};
use str0m::media::{Frequency, MediaKind, Mid};
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::rtp::{RtpWrite, Ssrc};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};

use super::meter::Meter;
use voice_media_bridge::relay::crypto::Crypto;

const OURS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 40_001);
const THEIRS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3_481);
const PT_OPUS: u8 = 111;
const OUR_SSRC: u32 = 1;
const THEIR_SSRC: u32 = 2;
const FRAME: Duration = Duration::from_millis(20);
/// Timers other than a packet's are served this long before it, unmetered.
const EVE: Duration = Duration::from_millis(1);
/// Within so many milliseconds the two are connected.
const SETUP_MS_MAX: u32 = 5_000;

/// A connected pair; our side is metered, each way by its own meter.
pub(crate) struct Stack {
    now: Instant,
    ours: Rtc,
    theirs: Rtc,
    frame: u32,
}

/// One packet each way.
pub(crate) struct Cost {
    pub(crate) send: u64,
    pub(crate) receive: u64,
    /// Whether a report or a check left with our packet.
    pub(crate) mixed: bool,
}

impl Stack {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let ((ours, our_creds), (theirs, their_creds)) = (side(now, OURS), side(now, THEIRS));
        let mut stack = Self { now, ours, theirs, frame: 0 };
        let [our_print, their_print] =
            [&mut stack.ours, &mut stack.theirs].map(|rtc| rtc.direct_api().local_dtls_fingerprint().to_string());
        join(&mut stack.ours, true, (&their_creds, THEIRS), &their_print);
        join(&mut stack.theirs, false, (&our_creds, OURS), &our_print);
        let mut connected = 0;
        for _ in 0..SETUP_MS_MAX {
            stack.now += EVE;
            connected += stack.exchange();
            if connected == 2 {
                return stack;
            }
        }
        panic!("the pair does not connect")
    }

    /// One frame: a packet of ours, and one of theirs taken.
    pub(crate) fn step(&mut self, payload: &Arc<[u8]>, sends: Meter, receives: Meter) -> Cost {
        self.now += FRAME.saturating_sub(EVE);
        self.exchange();
        self.now += EVE;
        self.frame += 1;
        let (now, frame, bytes) = (self.now, self.frame, &**payload);
        let (ours, theirs) = (&mut self.ours, &mut self.theirs);
        let (mut datagram, mut sent) = (None, 0);
        // The payload is copied, as it is out of the encoder's buffer.
        let send = sends(&mut || {
            let write = RtpWrite::new(PT_OPUS.into(), u64::from(frame).into(), frame * 960, now, bytes);
            let mut api = ours.direct_api();
            api.stream_tx(&Ssrc::from(OUR_SSRC)).expect("declared at the start").write_rtp(write);
            ours.handle_input(Input::Timeout(now)).expect("time passes");
            drain(ours, &mut |bytes| {
                sent += 1;
                datagram = Some(bytes);
            });
        });
        let datagram = datagram.expect("a packet leaves");
        let contents = DatagramRecv::try_from(&datagram[..]).expect("SRTP");
        let receive = Receive { proto: Protocol::Udp, source: OURS, destination: THEIRS, contents };
        theirs.handle_input(Input::Receive(now, receive)).expect("it is taken");
        drain(theirs, &mut |_| {});

        let write = RtpWrite::new(PT_OPUS.into(), u64::from(frame).into(), frame * 960, now, bytes);
        theirs.direct_api().stream_tx(&Ssrc::from(THEIR_SSRC)).expect("declared at the start").write_rtp(write);
        theirs.handle_input(Input::Timeout(now)).expect("time passes");
        let mut datagram = None;
        drain(theirs, &mut |bytes| datagram = Some(bytes));
        let datagram = datagram.expect("a packet leaves");
        let mut heard = 0;
        let receive = receives(&mut || {
            let contents = DatagramRecv::try_from(&datagram[..]).expect("SRTP");
            let input =
                Input::Receive(now, Receive { proto: Protocol::Udp, source: THEIRS, destination: OURS, contents });
            assert!(ours.accepts(&input), "it is theirs");
            ours.handle_input(input).expect("it is taken");
            heard += drain(ours, &mut |_| {});
        });
        assert_eq!(heard, 1, "the packet is heard");
        Cost { send, receive, mixed: sent > 1 }
    }

    /// Serves timers and carries datagrams until there are none; how many sides came up.
    fn exchange(&mut self) -> u32 {
        let now = self.now;
        let mut connected = 0;
        let (mut to_theirs, mut to_ours) = (Vec::new(), Vec::new());
        for rtc in [&mut self.ours, &mut self.theirs] {
            rtc.handle_input(Input::Timeout(now)).expect("time passes");
        }
        loop {
            connected += settle(&mut self.ours, &mut to_theirs);
            connected += settle(&mut self.theirs, &mut to_ours);
            if to_theirs.is_empty() && to_ours.is_empty() {
                return connected;
            }
            let ways = [(&mut self.theirs, OURS, THEIRS, &mut to_theirs), (&mut self.ours, THEIRS, OURS, &mut to_ours)];
            for (rtc, source, destination, datagrams) in ways {
                for bytes in datagrams.drain(..) {
                    let receive =
                        Receive::new(Protocol::Udp, source, destination, &bytes).expect("a datagram of str0m");
                    rtc.handle_input(Input::Receive(now, receive)).expect("it is taken");
                }
            }
        }
    }
}

/// One instance and its credentials: a call's setup with nothing around it.
fn side(now: Instant, local: SocketAddr) -> (Rtc, IceCreds) {
    let credentials = IceCreds::new();
    let mut config = RtcConfig::new()
        .set_local_ice_credentials(credentials.clone())
        .clear_codecs()
        .clear_extension_map()
        .set_stats_interval(None)
        .set_rtp_mode(true);
    let codecs = config.codec_config();
    let params = FormatParams::default();
    codecs.add_config(PT_OPUS.into(), None, Codec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2), params);
    let mut rtc = config.build(now);
    rtc.handle_input(Input::Timeout(now)).expect("a new Rtc takes the time");
    rtc.add_local_candidate(Candidate::host(local, Protocol::Udp).expect("a socket's address is a valid candidate"));
    (rtc, credentials)
}

fn join(rtc: &mut Rtc, controlling: bool, (creds, at): (&IceCreds, SocketAddr), print: &str) {
    let mid = Mid::from("audio");
    let (mine, far) = if controlling { (OUR_SSRC, THEIR_SSRC) } else { (THEIR_SSRC, OUR_SSRC) };
    let mut api = rtc.direct_api();
    api.set_ice_controlling(controlling);
    api.set_remote_ice_credentials(creds.clone());
    api.set_remote_fingerprint(print.parse().expect("a fingerprint"));
    api.declare_media(mid, MediaKind::Audio);
    api.declare_stream_tx(mine.into(), None, mid, None);
    api.expect_stream_rx(far.into(), None, mid, None);
    api.start_dtls(controlling).expect("DTLS starts");
    rtc.add_remote_candidate(Candidate::host(at, Protocol::Udp).expect("a valid candidate"));
}

/// Hands out datagrams; how many RTP packets were heard.
fn drain(rtc: &mut Rtc, send: &mut dyn FnMut(Vec<u8>)) -> u32 {
    let mut heard = 0;
    loop {
        match rtc.poll_output().expect("the stack lives") {
            Output::Transmit(transmit) => send(transmit.contents.into()),
            Output::Event(Event::RtpPacket(packet)) => {
                heard += 1;
                std::hint::black_box(packet.payload);
            }
            Output::Event(_) => {}
            Output::Timeout(_) => return heard,
        }
    }
}

/// The same while the pair connects; whether it is now.
fn settle(rtc: &mut Rtc, out: &mut Vec<Vec<u8>>) -> u32 {
    let mut connected = 0;
    loop {
        match rtc.poll_output().expect("the stack lives") {
            Output::Transmit(transmit) => out.push(transmit.contents.into()),
            Output::Event(Event::Connected) => connected += 1,
            Output::Event(_) => {}
            Output::Timeout(_) => return connected,
        }
    }
}

/// Makes a connection, as each call does, and throws it away.
pub(crate) fn build(crypto: &Crypto, now: Instant) {
    let mut rtc = crypto.rtc_config(IceCreds::new()).build(now);
    rtc.handle_input(Input::Timeout(now)).expect("a new Rtc takes the time");
}
