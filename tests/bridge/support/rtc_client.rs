//! A plain WebRTC client that answers the relay's offers as WhatsApp demands: full ICE, controlling, DTLS client.
//!
//! It exists to test the relay by, so it shares no code with the server. Sans-IO, like the relay.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::media::{MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite, Ssrc};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc};

use super::crypto::{Crypto, PT_OPUS};

/// How the client differs from a well-behaved one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Habits {
    /// Takes the controlled role, which is the relay's.
    pub(crate) controlled: bool,
    /// Announces a fingerprint that is not its certificate's.
    pub(crate) wrong_fingerprint: bool,
    /// Never sends audio.
    pub(crate) mute: bool,
}

/// The client.
#[derive(Debug)]
pub(crate) struct RtcClient {
    rtc: Rtc,
    answer: String,
    local: SocketAddr,
    ssrc: Ssrc,
    habits: Habits,
    outbox: VecDeque<(SocketAddr, Vec<u8>)>,
    deadline: Instant,
    /// The instant and number of the next audio frame, once connected.
    next_frame: Option<(Instant, u64)>,
    /// What is said, again and again; empty: frames that hold their number.
    words: Vec<Arc<[u8]>>,
    /// The number of the frame with which they begin.
    words_from: u64,
    /// When DTLS was connected.
    pub(crate) connected: Option<Instant>,
    /// When the other side closed.
    pub(crate) closed: Option<Instant>,
    /// When ICE lost its pair.
    pub(crate) disconnected: Option<Instant>,
    /// What str0m refused with.
    pub(crate) errors: Vec<String>,
    /// RTP received.
    pub(crate) received: Vec<RtpPacket>,
}

const FRAME: Duration = Duration::from_millis(20);

/// The least time between two runs of the timers, so that time always advances.
const STEP_MIN: Duration = Duration::from_millis(1);

impl RtcClient {
    /// Answers `offer` from `local`; checks leave at once.
    pub(crate) fn new(now: Instant, local: SocketAddr, offer: &str, crypto: &Crypto, habits: Habits) -> Self {
        let value = |prefix: &str| offer.lines().find_map(|line| line.strip_prefix(prefix)).expect("offers carry this");
        let candidates = offer.lines().filter_map(|line| line.strip_prefix("a=candidate:"));
        let remote: SocketAddr = candidates
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find_map(|words| format!("{}:{}", words[4], words[5]).parse().ok().filter(SocketAddr::is_ipv4))
            .expect("offers carry an IPv4 candidate");
        let remote_ssrc: u32 = value("a=ssrc:").split(' ').next().and_then(|n| n.parse().ok()).expect("a number");

        let credentials = IceCreds::new();
        let mut config = crypto.rtc_config(credentials.clone());
        config.set_initial_stun_rto(Duration::from_millis(100));
        config.set_max_stun_rto(Duration::from_millis(500));
        config.set_max_stun_retransmits(60);
        let mut rtc = config.build(now);
        rtc.handle_input(Input::Timeout(now)).expect("a new Rtc takes the time");
        rtc.add_local_candidate(Candidate::host(local, "udp").expect("a socket's address is a valid candidate"));
        let mid = Mid::from("audio");
        let mut direct = rtc.direct_api();
        let ssrc = direct.new_ssrc();
        direct.set_ice_controlling(!habits.controlled);
        direct.set_remote_ice_credentials(IceCreds {
            ufrag: value("a=ice-ufrag:").into(),
            pass: value("a=ice-pwd:").into(),
        });
        direct.set_remote_fingerprint(value("a=fingerprint:").parse().expect("a fingerprint"));
        direct.declare_media(mid, MediaKind::Audio);
        direct.expect_stream_rx(remote_ssrc.into(), None, mid, None);
        direct.declare_stream_tx(ssrc, None, mid, None);
        rtc.add_remote_candidate(Candidate::host(remote, "udp").expect("a valid candidate"));

        let IceCreds { ufrag, pass } = credentials;
        let mut fingerprint = crypto.fingerprint();
        if habits.wrong_fingerprint {
            fingerprint = format!("sha-256 {}", ["00"; 32].join(":"));
        }
        let (ip, port) = (local.ip(), local.port());
        let answer = format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE audio\r\n\
             m=audio {port} UDP/TLS/RTP/SAVPF 111 126\r\nc=IN IP4 {ip}\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{pass}\r\n\
             a=fingerprint:{fingerprint}\r\na=setup:active\r\na=mid:audio\r\na=sendrecv\r\na=rtcp-mux\r\n\
             a=rtpmap:111 opus/48000/2\r\na=rtpmap:126 telephone-event/8000\r\na=ssrc:{ssrc} cname:client\r\n"
        );
        let mut client = Self {
            rtc,
            answer,
            local,
            ssrc,
            habits,
            outbox: VecDeque::new(),
            deadline: now,
            next_frame: None,
            words: Vec::new(),
            words_from: 0,
            connected: None,
            closed: None,
            disconnected: None,
            errors: Vec::new(),
            received: Vec::new(),
        };
        client.feed(now, Input::Timeout(now));
        client
    }

    /// The answer's text.
    pub(crate) fn answer(&self) -> &str {
        &self.answer
    }

    /// The SSRC that the answer announces.
    pub(crate) fn ssrc(&self) -> u32 {
        *self.ssrc
    }

    /// Takes a datagram that came to the client's port.
    pub(crate) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, payload: &[u8]) {
        match Receive::new(Protocol::Udp, from, self.local, payload) {
            Ok(receive) => self.feed(now, Input::Receive(now, receive)),
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    /// Does all that is due by now.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline <= now {
            self.feed(now, Input::Timeout(now));
        }
        while let Some((at, frame)) = self.next_frame.filter(|(at, _)| *at <= now) {
            self.next_frame = Some((at + FRAME, frame + 1));
            let payload: Arc<[u8]> = match &self.words[..] {
                [] => Arc::from((frame as u32).to_be_bytes()),
                words => words[(frame - self.words_from) as usize % words.len()].clone(),
            };
            let write = RtpWrite::new(PT_OPUS.into(), (1000 + frame).into(), frame as u32 * 960, now, payload);
            self.rtc.direct_api().stream_tx(&self.ssrc).expect("declared at the start").write_rtp(write);
            // What is written leaves when time moves on, even by nothing.
            self.feed(now, Input::Timeout(now));
        }
    }

    /// Says this from its beginning on, again and again. It must be connected.
    pub(crate) fn speak(&mut self, now: Instant, words: Vec<Arc<[u8]>>) {
        let (_, frame) = self.next_frame.unwrap_or((now, 0));
        self.next_frame = Some((now, frame));
        (self.words, self.words_from) = (words, frame);
    }

    /// Goes on under another SSRC.
    pub(crate) fn change_ssrc(&mut self) {
        let mut direct = self.rtc.direct_api();
        // Of two streams str0m sends whichever it finds first.
        assert!(direct.remove_stream_tx(self.ssrc), "it was declared at the start");
        self.ssrc = direct.new_ssrc();
        direct.declare_stream_tx(self.ssrc, None, Mid::from("audio"), None);
    }

    /// Falls silent.
    pub(crate) fn hush(&mut self) {
        self.next_frame = None;
    }

    /// Closes the connection.
    pub(crate) fn close(&mut self, now: Instant) {
        self.next_frame = None;
        if let Err(error) = self.rtc.close() {
            self.errors.push(error.to_string());
        }
        self.drain(now);
    }

    /// The next datagram to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.outbox.pop_front()
    }

    /// When [`Self::handle_timeout`] is next needed.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next_frame.map_or(self.deadline, |(at, _)| at.min(self.deadline))
    }

    fn feed(&mut self, now: Instant, input: Input<'_>) {
        if let Err(error) = self.rtc.handle_input(input) {
            self.errors.push(error.to_string());
        }
        self.drain(now);
    }

    fn drain(&mut self, now: Instant) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.deadline = at.max(now + STEP_MIN);
                    return;
                }
                Ok(Output::Transmit(transmit)) => {
                    self.outbox.push_back((transmit.destination, transmit.contents.into()));
                }
                Ok(Output::Event(event)) => self.handle_event(now, event),
                Err(error) => {
                    self.errors.push(error.to_string());
                    self.deadline = now + STEP_MIN;
                    return;
                }
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::IceConnectionStateChange(state) if state.is_connected() => {
                if let Err(error) = self.rtc.direct_api().start_dtls(true) {
                    self.errors.push(error.to_string());
                }
            }
            Event::IceConnectionStateChange(state) if state.is_disconnected() => {
                self.disconnected.get_or_insert(now);
            }
            Event::Connected => {
                self.connected.get_or_insert(now);
                self.next_frame = Some((now, 0)).filter(|_| !self.habits.mute);
            }
            Event::Closed => {
                self.closed.get_or_insert(now);
                self.next_frame = None;
            }
            Event::RtpPacket(packet) => self.received.push(packet),
            _ => {}
        }
    }
}
