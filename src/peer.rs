//! The WebRTC leg of a call: ICE, DTLS, SRTP and RTP with one peer, over str0m's direct API in RTP mode.
//!
//! Datagrams and time go in; datagrams and [`PeerEvent`]s come out into a lent sink. It promises: our own credentials
//! for each call; the role that the offer leaves us (controlling towards an ICE-lite peer, controlled towards a
//! browser); DTLS only after ICE has a path; nothing but STUN is looked at from a source that ICE has not validated; no
//! bad packet ends a call. It must not know what the audio is, nor that there is a model.

pub mod dtmf;
pub mod identity;
pub mod sdp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::format::{Codec, FormatParams};
use str0m::ice::IceCreds;
use str0m::media::{Frequency, MediaKind, Mid, Pt};
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite, Ssrc};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use tracing::{debug, trace};

use crate::close_reason::CloseReason;
use crate::io::Entropy;
use dtmf::Dtmf;
use identity::{Identity, sha256_fingerprint};
use sdp::{AnswerParams, Offer, Setup, write_answer};

/// First wait between STUN checks. The default (250 ms, doubling to 3 s) loses a relay that applies the answer late.
const STUN_RTO_FIRST: Duration = Duration::from_millis(100);
/// Longest wait between STUN checks: a relay is found within this of applying the answer.
const STUN_RTO_MAX: Duration = Duration::from_millis(500);
/// Checks of a pair before it is given up: about 29 s, longer than a relay takes to apply an answer. The same number is
/// the consent limit (RFC 7675 allows 30 s).
const STUN_RETRANSMITS_MAX: usize = 60;
/// The stack may ask to be called again at once; it never needs that sooner than this.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// SSRCs that a peer may send from at a time. One is announced; a relay may rewrite it, a caller's leg may reconnect. The
/// number in a packet is believed before the packet is: so the newest unknown one takes the place of the oldest that is
/// not being heard, and no forged number can keep a real one out for good.
const SSRCS_MAX: usize = 4;
/// Sender and receiver reports: often enough for a peer that wants to see RTCP in silence (WhatsApp: 30 s).
const RTCP_INTERVAL: Duration = Duration::from_secs(5);

crate::report! {
    /// What passed between the peer and us.
    PeerReport {
        /// Datagrams received.
        datagrams_received,
        /// Bytes received.
        bytes_received,
        /// Datagrams dropped: the source is not validated by ICE.
        datagrams_unvalidated,
        /// Datagrams that are no STUN, DTLS or RTP, or that the WebRTC stack refused.
        datagrams_refused,
        /// RTP packets delivered by the WebRTC stack: decrypted, not replayed.
        rtp_received,
        /// Datagrams sent.
        datagrams_sent,
        /// Bytes sent.
        bytes_sent,
        /// Errors of the WebRTC stack that it survived, those of single datagrams excluded.
        errors,
        /// DTMF digits heard.
        dtmf_digits,
    }
}

/// What the peer leg tells the call.
#[derive(Debug)]
pub enum PeerEvent {
    /// ICE has a path; DTLS starts.
    PathFound,
    /// DTLS is up: media may flow.
    Connected,
    /// What follows comes from another SSRC: its sequence and time begin anew.
    NewStream,
    /// An Opus packet.
    Audio {
        /// Extended sequence number.
        seq: u64,
        /// Extended RTP time, 48 kHz.
        rtp_time: u64,
        /// Opus.
        payload: Arc<[u8]>,
    },
    /// A telephone-event packet took this place in the audio's sequence.
    AudioGap {
        /// Extended sequence number.
        seq: u64,
    },
    /// A key was pressed.
    Digit(char),
    /// The leg is over.
    Closed(CloseReason, String),
}

/// Takes what the peer leg puts out.
pub trait PeerSink {
    /// A datagram to be sent from the call's socket.
    fn transmit(&mut self, to: SocketAddr, payload: Vec<u8>);
    /// Something happened.
    fn event(&mut self, event: PeerEvent);
}

/// The WebRTC side of one call.
#[derive(Debug)]
pub struct Peer {
    rtc: Rtc,
    /// The advertised address: the stack discards checks that are not addressed to it, also behind 1:1 NAT.
    local: SocketAddr,
    controlling: bool,
    dtls_active: bool,
    remotes: Vec<SocketAddr>,
    /// Those of them that no check has gone to, until [`Peer::begin_checks`].
    unchecked: Vec<Candidate>,
    /// Where DTLS and media go; set by the first such datagram.
    selected: Option<SocketAddr>,
    state: State,
    mid: Mid,
    opus_pt: Pt,
    event_pt: Option<Pt>,
    ssrc: Ssrc,
    remote_ssrcs: Vec<Ssrc>,
    /// The SSRC whose packets are played: each has its own sequence.
    current_ssrc: Option<Ssrc>,
    seq: u64,
    dtmf: Dtmf,
    /// What the stack last found wrong with a datagram: an alert of the peer, when DTLS does not come up.
    last_error: String,
    last_accepted: Instant,
    next_timeout: Instant,
    report: PeerReport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    ExpectPath,
    ExpectDtls,
    Up,
    Closed,
}

/// Why no peer leg could be made of an offer. These are faults of ours: offers are judged before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerError(pub String);

impl Peer {
    /// Makes the leg for an offer and the answer to it. `remotes` are the offer's candidates that may be used, all of
    /// `local`'s address family. The first check leaves with [`Peer::begin_checks`].
    pub fn answer(
        now: Instant,
        identity: &Identity,
        offer: &Offer,
        remotes: Vec<SocketAddr>,
        local: SocketAddr,
        entropy: Entropy,
    ) -> Result<(Self, String), PeerError> {
        let fault = |what: &str, error: &dyn std::fmt::Display| PeerError(format!("{what}: {error}"));
        let mut random = Random(entropy);
        let (ufrag, pwd) = (random.ice_chars(8), random.ice_chars(24));
        let ssrc = Ssrc::from(random.u32() | 1);

        let mut config = RtcConfig::new()
            .set_crypto_provider(identity.crypto.clone())
            .set_dtls_cert(identity.certificate.clone())
            .set_local_ice_credentials(IceCreds { ufrag: ufrag.clone(), pass: pwd.clone() })
            .clear_codecs()
            .clear_extension_map()
            .set_stats_interval(None)
            .set_rtcp_report_interval_audio(RTCP_INTERVAL)
            .set_rtp_mode(true);
        let opus_pt = Pt::from(offer.opus.payload_type);
        let event_pt = offer.telephone_event.as_ref().map(|event| Pt::from(event.payload_type));
        let codecs = config.codec_config();
        codecs.add_config(opus_pt, None, Codec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2), FormatParams::default());
        if let Some(pt) = event_pt {
            codecs.add_config(pt, None, Codec::Tele, Frequency::EIGHT_KHZ, None, FormatParams::default());
        }
        config.set_initial_stun_rto(STUN_RTO_FIRST);
        config.set_max_stun_rto(STUN_RTO_MAX);
        config.set_max_stun_retransmits(STUN_RETRANSMITS_MAX);

        let mut rtc = config.build(now);
        // An instance that sees no time first takes its whole life for overdue.
        rtc.handle_input(Input::Timeout(now)).map_err(|error| fault("first timeout", &error))?;
        let host = Candidate::host(local, Protocol::Udp).map_err(|error| fault("media address", &error))?;
        rtc.add_local_candidate(host).ok_or_else(|| PeerError("media address was refused".into()))?;
        let controlling = offer.ice_lite;
        let dtls_active = offer.setup != Setup::Active;
        let mid = Mid::from(offer.mid.as_deref().unwrap_or("0"));
        let mut remote_ssrcs = Vec::with_capacity(SSRCS_MAX);
        {
            let mut api = rtc.direct_api();
            api.set_ice_controlling(controlling);
            api.set_remote_ice_credentials(IceCreds { ufrag: offer.ice.ufrag.clone(), pass: offer.ice.pwd.clone() });
            api.set_remote_fingerprint(sha256_fingerprint(&offer.fingerprint));
            api.declare_media(mid, MediaKind::Audio);
            api.declare_stream_tx(ssrc, None, mid, None);
            if let Some(ssrc) = offer.ssrc.map(Ssrc::from) {
                api.expect_stream_rx(ssrc, None, mid, None);
                remote_ssrcs.push(ssrc);
            }
        }
        let candidate = |remote: &SocketAddr| Candidate::host(*remote, Protocol::Udp);
        let unchecked = remotes.iter().map(candidate).collect::<Result<Vec<_>, _>>();
        let unchecked = unchecked.map_err(|error| fault("candidate", &error))?;
        if !dtls_active {
            rtc.direct_api().start_dtls(false).map_err(|error| fault("DTLS", &error))?;
        }

        let (stream_id, track_id, cname) = (random.uuid(), random.uuid(), random.ice_chars(16));
        let answer = write_answer(
            offer,
            &AnswerParams {
                session_id: random.u64() >> 2,
                address: local,
                ufrag: &ufrag,
                pwd: &pwd,
                fingerprint: *identity.fingerprint(),
                ssrc: *ssrc,
                cname: &cname,
                stream_id: &stream_id,
                track_id: &track_id,
            },
        );
        let peer = Self {
            rtc,
            local,
            controlling,
            dtls_active,
            remotes,
            unchecked,
            selected: None,
            state: State::ExpectPath,
            mid,
            opus_pt,
            event_pt,
            ssrc,
            remote_ssrcs,
            current_ssrc: None,
            // Below 2^15, so that early losses cannot be mistaken for a wrap (RFC 3711, 3.3.1).
            seq: u64::from(random.u32() & 0x7fff),
            dtmf: Dtmf::default(),
            last_error: String::new(),
            last_accepted: now,
            next_timeout: now,
            report: PeerReport::default(),
        };
        Ok((peer, answer))
    }

    /// Looks for a path from now on. Once; again, it changes nothing.
    ///
    /// A check that comes before the other side has our answer is lost, and the next one waits: whoever knows when that is
    /// begins then.
    pub fn begin_checks(&mut self, now: Instant, sink: &mut dyn PeerSink) {
        for candidate in std::mem::take(&mut self.unchecked) {
            self.rtc.add_remote_candidate(candidate);
        }
        self.handle_timeout(now, sink);
    }

    /// Takes one datagram from the call's socket.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, payload: &[u8], sink: &mut dyn PeerSink) {
        self.report.datagrams_received += 1;
        self.report.bytes_received += payload.len() as u64;
        let Ok(contents) = DatagramRecv::try_from(payload) else {
            self.report.datagrams_refused += 1;
            return;
        };
        let input =
            Input::Receive(now, Receive { proto: Protocol::Udp, source: from, destination: self.local, contents });
        // `handle_input` itself does not ask where a packet comes from: `accepts` does (STUN by its integrity, all else by
        // a pair that a check has proved). A controlling agent that has selected its pair never moves away from it.
        let moved = self.controlling && self.selected.is_some_and(|selected| selected != from);
        if moved || !self.rtc.accepts(&input) {
            self.report.datagrams_unvalidated += 1;
            return;
        }
        self.last_accepted = now;
        self.expect_ssrc(payload);
        if let Err(error) = self.rtc.handle_input(input) {
            self.report.datagrams_refused += 1;
            trace!(%error, "datagram refused");
            if self.state != State::Up {
                self.last_error = error.to_string();
            }
        }
        self.drain(now, sink);
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant, sink: &mut dyn PeerSink) {
        if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
            trace!(%error, "WebRTC timeout failed");
            self.report.errors += 1;
        }
        self.drain(now, sink);
    }

    /// When [`Peer::handle_timeout`] is next due.
    pub fn next_timeout(&self) -> Instant {
        self.next_timeout
    }

    /// Sends one Opus packet; without effect before DTLS is up. `rtp_time` counts 48 kHz.
    pub fn send_audio(&mut self, now: Instant, payload: &[u8], rtp_time: u32, marker: bool, sink: &mut dyn PeerSink) {
        if self.state != State::Up {
            return;
        }
        let seq = self.seq.into();
        self.seq += 1;
        let write = RtpWrite::new(self.opus_pt, seq, rtp_time, now, payload).marker(marker);
        let mut api = self.rtc.direct_api();
        api.stream_tx(&self.ssrc).expect("declared when the leg was made").write_rtp(write);
        // The stack hands out what was written only after it has seen the time once more.
        self.handle_timeout(now, sink);
    }

    /// Says goodbye: RTCP BYE and DTLS close_notify.
    pub fn close(&mut self, now: Instant, sink: &mut dyn PeerSink) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        if let Err(error) = self.rtc.close() {
            debug!(%error, "the goodbye failed");
        }
        self.drain(now, sink);
    }

    /// When the last packet from a validated source came.
    pub fn last_accepted(&self) -> Instant {
        self.last_accepted
    }

    /// What the stack last found wrong with a datagram from a validated source; empty when nothing was.
    pub fn last_error(&self) -> &str {
        &self.last_error
    }

    /// Whether ICE has found a path.
    pub fn has_path(&self) -> bool {
        self.state != State::ExpectPath
    }

    /// What passed so far.
    pub fn report(&self) -> PeerReport {
        self.report
    }

    /// Announces the SSRC of an RTP packet to the stack, which drops packets of unknown ones without a word.
    fn expect_ssrc(&mut self, datagram: &[u8]) {
        let &[first, second, _, _, _, _, _, _, a, b, c, d, ..] = datagram else { return };
        // RFC 7983: 128 to 191 is RTP or RTCP; RFC 5761: RTCP has packet types 192 to 223.
        if first >> 6 != 2 || (192..=223).contains(&second) {
            return;
        }
        let ssrc = Ssrc::from(u32::from_be_bytes([a, b, c, d]));
        if self.state != State::Up || self.remote_ssrcs.contains(&ssrc) {
            return;
        }
        if self.remote_ssrcs.len() == SSRCS_MAX
            && let Some(oldest) = self.remote_ssrcs.iter().position(|known| Some(*known) != self.current_ssrc)
        {
            let oldest = self.remote_ssrcs.remove(oldest);
            self.rtc.direct_api().remove_stream_rx(oldest);
        }
        self.remote_ssrcs.push(ssrc);
        self.rtc.direct_api().expect_stream_rx(ssrc, None, self.mid, None);
    }

    fn drain(&mut self, now: Instant, sink: &mut dyn PeerSink) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => {
                    let payload = Vec::<u8>::from(transmit.contents);
                    self.select(&payload, transmit.destination);
                    self.report.datagrams_sent += 1;
                    self.report.bytes_sent += payload.len() as u64;
                    sink.transmit(transmit.destination, payload);
                }
                Ok(Output::Event(event)) => self.handle_event(event, sink),
                Ok(Output::Timeout(at)) => {
                    self.next_timeout = at.max(now + TIMEOUT_MIN);
                    break;
                }
                // An error is the end only if the stack is dead with it: a wrong certificate, or DTLS that gave up. What a
                // forged packet causes passes.
                Err(error) => {
                    if self.rtc.is_alive() {
                        trace!(%error, "WebRTC output failed");
                        self.report.errors += 1;
                    } else {
                        self.over(CloseReason::DtlsFailed, error.to_string(), sink);
                    }
                    self.next_timeout = now + TIMEOUT_MIN;
                    break;
                }
            }
        }
        if !self.rtc.is_alive() {
            self.over(CloseReason::PeerClosed, "the WebRTC stack closed".into(), sink);
        }
    }

    fn handle_event(&mut self, event: Event, sink: &mut dyn PeerSink) {
        match event {
            Event::IceConnectionStateChange(state) if state.is_connected() && self.state == State::ExpectPath => {
                self.state = State::ExpectDtls;
                if self.dtls_active
                    && let Err(error) = self.rtc.direct_api().start_dtls(true)
                {
                    self.over(CloseReason::DtlsFailed, error.to_string(), sink);
                    return;
                }
                sink.event(PeerEvent::PathFound);
            }
            // Before the first path this only says that the known candidates failed; a browser's check may still come.
            Event::IceConnectionStateChange(state) if state.is_disconnected() && self.state != State::ExpectPath => {
                self.over(CloseReason::IceLost, "the peer no longer answers checks".into(), sink);
            }
            Event::Connected if self.state == State::ExpectDtls => {
                self.state = State::Up;
                sink.event(PeerEvent::Connected);
            }
            Event::RtpPacket(packet) => self.handle_rtp(packet, sink),
            Event::Closed => self.over(CloseReason::PeerClosed, "the peer closed DTLS".into(), sink),
            _ => {}
        }
    }

    fn handle_rtp(&mut self, packet: RtpPacket, sink: &mut dyn PeerSink) {
        self.report.rtp_received += 1;
        let before = self.current_ssrc.replace(packet.header.ssrc);
        if before.is_some_and(|before| before != packet.header.ssrc) {
            // Sequence and time begin anew, those of key presses too.
            self.dtmf = Dtmf::default();
            sink.event(PeerEvent::NewStream);
        }
        let seq = *packet.seq_no;
        if Some(packet.header.payload_type) == self.event_pt {
            // The extended time of this payload type is labelled with the wrong clock: the header's is right.
            if let Some(digit) = self.dtmf.packet(packet.header.timestamp, &packet.payload) {
                self.report.dtmf_digits += 1;
                sink.event(PeerEvent::Digit(digit));
            }
            sink.event(PeerEvent::AudioGap { seq });
        } else if packet.header.payload_type == self.opus_pt {
            sink.event(PeerEvent::Audio { seq, rtp_time: packet.time.numer(), payload: packet.payload });
        }
    }

    /// Remembers where DTLS and media go, and gives up all other pairs: WhatsApp wants no switch in mid-call.
    fn select(&mut self, payload: &[u8], to: SocketAddr) {
        let is_stun = payload.first().is_some_and(|first| *first < 20);
        if is_stun || self.selected == Some(to) {
            return;
        }
        self.selected = Some(to);
        if self.controlling {
            for other in self.remotes.extract_if(.., |remote| *remote != to) {
                if let Ok(candidate) = Candidate::host(other, Protocol::Udp) {
                    self.rtc.direct_api().invalidate_candidate(&candidate);
                }
            }
        }
    }

    fn over(&mut self, reason: CloseReason, detail: String, sink: &mut dyn PeerSink) {
        if self.state != State::Closed {
            self.state = State::Closed;
            sink.event(PeerEvent::Closed(reason, detail));
        }
    }
}

/// Names and numbers that nobody shall guess.
struct Random(Entropy);

impl Random {
    fn u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.0(&mut bytes);
        u32::from_be_bytes(bytes)
    }

    fn u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// `len` characters (at most 32) of the 64 in RFC 8839's `ice-char`: six random bits each.
    fn ice_chars(&mut self, len: usize) -> String {
        const CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut bytes = [0; 32];
        self.0(&mut bytes[..len]);
        bytes[..len].iter().map(|byte| char::from(CHARS[usize::from(byte & 63)])).collect()
    }

    /// A version 4 UUID (RFC 9562).
    fn uuid(&mut self) -> String {
        let id = (u128::from(self.u64()) << 64) | u128::from(self.u64());
        let id = (id & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{id:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}
