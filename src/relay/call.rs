//! One call of the relay: an ice-lite, controlled, passive endpoint that is deaf until its answer is applied and dumb
//! until it has heard RTP.
//!
//! This file must not know which datagrams are whose: the relay tells calls apart.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::crypto::Fingerprint;
use str0m::ice::StunMessage;
use str0m::media::{MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite, Ssrc};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc};

use super::Datagram;
use super::answer::{Answer, AnswerError};
use super::crypto::Crypto;
use super::offer::Offer;
use super::packet::Kind;
use super::record::{Detail, Event as Seen, Received, Record, Sent};
use super::rng::Rng;
use super::script::{Fate, Packet, Player, Script};
use super::stun::Check;

/// Streams that a call may open; WhatsApp allows one, the rest is to be seen in the record.
const STREAMS_MAX: usize = 4;

/// The least time between two runs of one call's timers, so that time always advances.
const STEP_MIN: Duration = Duration::from_millis(1);

/// How the relay treats the other side's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conduct {
    /// As it should.
    #[default]
    Normal,
    /// Leaves checks unanswered, so that consent runs out; media flows.
    IgnoresChecks,
    /// Neither takes nor sends anything, as if the host were gone. Beats that fall in this time are lost.
    Gone,
}

/// The call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) offer: Offer,
    pub(super) record: Record,
    pub(super) conduct: Conduct,
    pub(super) player: Player,
    crypto: Crypto,
    rtc: Rtc,
    mid: Mid,
    detail: Detail,
    /// What happened and was not told yet; stays empty with [`Detail::Lists`].
    pub(super) events: VecDeque<Seen>,
    /// When the kernel took in the datagram at hand.
    arrived: Instant,
    /// Datagrams of packets that are late.
    late: VecDeque<(Instant, Datagram)>,
    deadline: Instant,
}

impl Call {
    pub(super) fn new(
        now: Instant,
        offer: Offer,
        script: Script,
        detail: Detail,
        crypto: &Crypto,
        rng: &mut Rng,
    ) -> Self {
        let credentials = IceCreds { ufrag: offer.ufrag.clone(), pass: offer.password.clone() };
        let mut rtc = crypto.rtc_config(credentials).set_ice_lite(true).build(now);
        rtc.handle_input(Input::Timeout(now)).expect("a new Rtc takes the time");
        rtc.add_local_candidate(
            Candidate::host(offer.address, "udp").expect("a socket's address is a valid candidate"),
        );
        let mid = Mid::from("audio");
        let mut direct = rtc.direct_api();
        direct.set_ice_controlling(false);
        direct.declare_media(mid, MediaKind::Audio);
        direct.declare_stream_tx(offer.ssrc.into(), None, mid, None);
        Self {
            record: Record::new(now),
            conduct: Conduct::Normal,
            player: Player::new(script, rng),
            crypto: crypto.clone(),
            rtc,
            mid,
            detail,
            events: VecDeque::new(),
            arrived: now,
            late: VecDeque::new(),
            deadline: now,
            offer,
        }
    }

    /// Takes the answer: from now on checks are answered.
    pub(super) fn apply_answer(&mut self, now: Instant, text: &str) -> Result<(), AnswerError> {
        if self.record.answered.is_some() {
            return Err(AnswerError::SecondAnswer);
        }
        let answer = Answer::parse(text)?;
        let own = self.rtc.direct_api().local_dtls_fingerprint().bytes.clone();
        for (line, echoed) in [
            ("a=ice-ufrag:", answer.ufrag == self.offer.ufrag),
            ("a=ice-pwd:", answer.password == self.offer.password),
            ("a=fingerprint:", answer.fingerprint == own),
        ] {
            if echoed {
                return Err(AnswerError::Echoed(line));
            }
        }
        self.record.answered = Some(now);
        let mut direct = self.rtc.direct_api();
        direct.set_remote_ice_credentials(IceCreds { ufrag: answer.ufrag, pass: answer.password });
        direct.set_remote_fingerprint(Fingerprint { hash_func: "sha-256".into(), bytes: answer.fingerprint });
        direct.start_dtls(false).expect("a passive start sends nothing that could fail");
        Ok(())
    }

    /// Takes a check. Whether its sender has proved to be this call's other side.
    pub(super) fn handle_check(
        &mut self,
        now: Instant,
        from: SocketAddr,
        payload: &[u8],
        check: Check<'_>,
        out: &mut VecDeque<Datagram>,
    ) -> bool {
        let checks = &mut self.record.checks;
        checks.aggressive |= checks.first.is_none() && check.use_candidate;
        checks.first.get_or_insert(now);
        checks.last = Some(now);
        checks.nominating += u64::from(check.use_candidate);
        if self.record.answered.is_none() {
            checks.before_answer += 1;
            return false;
        }
        checks.after_answer += 1;
        checks.first_after_answer.get_or_insert(now);
        checks.consent += u64::from(self.record.connected.is_some());
        if self.conduct != Conduct::Normal {
            checks.ignored += 1;
            return false;
        }
        let Ok(receive) = Receive::new(Protocol::Udp, from, self.offer.address, payload) else {
            checks.refused += 1;
            return false;
        };
        let input = Input::Receive(now, receive);
        if !self.rtc.accepts(&input) {
            checks.refused += 1;
            return false;
        }
        if check.controlled {
            // str0m would yield to the higher tie-breaker; a lite agent never takes the controlling role.
            checks.role_conflicts += 1;
            out.extend(self.role_conflict(payload).map(|payload| Datagram { to: from, payload }));
            return false;
        }
        self.record.heard_from(from);
        self.feed(now, input, out);
        true
    }

    /// Takes anything else from an address that a check has vouched for. The kernel took it in at `arrived`.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        arrived: Instant,
        from: SocketAddr,
        payload: &[u8],
        out: &mut VecDeque<Datagram>,
    ) {
        if self.conduct == Conduct::Gone {
            return;
        }
        let Ok(receive) = Receive::new(Protocol::Udp, from, self.offer.address, payload) else {
            self.record.errors += 1;
            return;
        };
        let kind = Kind::of(payload);
        let mut seen = false;
        match kind {
            Kind::Rtp { ssrc, seq } => {
                self.expect_stream(ssrc.into());
                seen = self.record.has_heard(ssrc, seq);
            }
            Kind::Rtcp => self.record.heard_rtcp(now),
            Kind::Other => {}
        }
        self.arrived = arrived;
        let delivered = self.record.rtp_heard();
        self.feed(now, Input::Receive(now, receive), out);
        if matches!(kind, Kind::Rtp { .. }) && self.record.rtp_heard() == delivered {
            let count = if seen { &mut self.record.duplicates } else { &mut self.record.undecryptable };
            *count += 1;
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Datagram>) {
        if self.deadline <= now {
            self.feed(now, Input::Timeout(now), out);
        }
        while let Some(packets) = self.player.poll(now) {
            for packet in packets {
                self.send(now, packet, out);
            }
        }
        while self.late.front().is_some_and(|(at, _)| *at <= now) {
            out.extend(self.late.pop_front().map(|(_, datagram)| datagram));
        }
    }

    /// When there is next something to do.
    pub(super) fn poll_timeout(&self) -> Instant {
        let late = self.late.front().map(|(at, _)| *at);
        [self.player.due(), late].into_iter().flatten().fold(self.deadline, Instant::min)
    }

    /// Closes: RTCP BYE and DTLS close_notify leave, and then nothing more.
    pub(super) fn hang_up(&mut self, now: Instant, out: &mut VecDeque<Datagram>) {
        if self.rtc.close().is_err() {
            self.record.errors += 1;
        }
        self.feed(now, Input::Timeout(now), out);
    }

    fn expect_stream(&mut self, ssrc: Ssrc) {
        let mut direct = self.rtc.direct_api();
        if direct.stream_rx(&ssrc).is_none() && self.record.ssrcs.len() < STREAMS_MAX {
            direct.expect_stream_rx(ssrc, None, self.mid, None);
        }
    }

    fn feed(&mut self, now: Instant, input: Input<'_>, out: &mut VecDeque<Datagram>) {
        self.feed_with_fate(now, input, Fate::Arrives, out);
    }

    fn feed_with_fate(&mut self, now: Instant, input: Input<'_>, fate: Fate, out: &mut VecDeque<Datagram>) {
        if self.rtc.handle_input(input).is_err() {
            self.record.errors += 1;
        }
        self.drain(now, fate, out);
    }

    /// Sends one packet of the script and lets the network do to it what it does.
    fn send(&mut self, now: Instant, packet: Packet, out: &mut VecDeque<Datagram>) {
        let Packet { due, position, pt, seq, timestamp, marker, payload, fate } = packet;
        let sent = Sent { due, position, at: now, seq: seq as u16, timestamp, pt };
        self.record.sent_rtp();
        match self.detail {
            Detail::Lists => self.record.keep_sent(sent),
            Detail::Events => self.events.push_back(Seen::Sent(sent)),
        }
        let write = RtpWrite::new(pt.into(), seq.into(), timestamp, now, payload).marker(marker);
        let mut direct = self.rtc.direct_api();
        direct.stream_tx(&self.offer.ssrc.into()).expect("declared when the call was made").write_rtp(write);
        // What is written leaves when time moves on, even by nothing.
        self.feed_with_fate(now, Input::Timeout(now), fate, out);
    }

    /// Takes all that str0m has to say. `fate` is that of the RTP packet which was just written, if any was.
    fn drain(&mut self, now: Instant, fate: Fate, out: &mut VecDeque<Datagram>) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.deadline = at.max(now + STEP_MIN);
                    return;
                }
                Ok(Output::Transmit(transmit)) => {
                    let datagram = Datagram { to: transmit.destination, payload: transmit.contents.into() };
                    self.transmit(now, datagram, fate, out);
                }
                Ok(Output::Event(event)) => self.handle_event(now, event),
                Err(_) => {
                    self.record.errors += 1;
                    self.closed(now);
                    self.deadline = now + STEP_MIN;
                    return;
                }
            }
        }
    }

    fn transmit(&mut self, now: Instant, datagram: Datagram, fate: Fate, out: &mut VecDeque<Datagram>) {
        let kind = Kind::of(&datagram.payload);
        let silent = kind == Kind::Rtcp && self.record.rtp_heard() == 0;
        if silent || self.conduct == Conduct::Gone {
            return;
        }
        match fate {
            _ if !matches!(kind, Kind::Rtp { .. }) => out.push_back(datagram),
            Fate::Arrives => out.push_back(datagram),
            Fate::Lost => {}
            Fate::Doubled => out.extend([datagram.clone(), datagram]),
            Fate::Late(by) => {
                let at = now + by;
                let position = self.late.partition_point(|(other, _)| *other <= at);
                self.late.insert(position, (at, datagram));
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::IceConnectionStateChange(state) if state.is_connected() => {
                self.record.nominated.get_or_insert(now);
            }
            Event::Connected => {
                self.record.connected.get_or_insert(now);
                self.tell(Seen::Connected);
            }
            Event::Closed => self.closed(now),
            Event::RtpPacket(packet) => self.handle_rtp(packet),
            _ => {}
        }
    }

    fn closed(&mut self, now: Instant) {
        if self.record.closed.is_none() {
            self.record.closed = Some(now);
            self.tell(Seen::Closed);
        }
    }

    fn tell(&mut self, event: Seen) {
        if self.detail == Detail::Events {
            self.events.push_back(event);
        }
    }

    fn handle_rtp(&mut self, packet: RtpPacket) {
        let RtpPacket { header, payload, timestamp, .. } = packet;
        self.player.start(timestamp);
        let received = Received {
            at: self.arrived,
            seq: header.sequence_number,
            timestamp: header.timestamp,
            ssrc: *header.ssrc,
            pt: *header.payload_type,
            marker: header.marker,
            payload,
        };
        self.record.heard_rtp(&received);
        match self.detail {
            Detail::Lists => self.record.keep_received(received),
            Detail::Events => self.events.push_back(Seen::Received(received)),
        }
    }

    /// The answer to a check in our own role: 487, RFC 8445 section 7.3.1.1.
    fn role_conflict(&self, request: &[u8]) -> Option<Vec<u8>> {
        let transaction = StunMessage::parse(request).ok()?.trans_id();
        let hmac = |key: &[u8], parts: &[&[u8]]| self.crypto.provider.sha1_hmac_provider.sha1_hmac(key, parts);
        let mut payload = vec![0; 256];
        let reply = StunMessage::binding_role_conflict_reply(transaction);
        let len = reply.to_bytes(Some(self.offer.password.as_bytes()), &mut payload, hmac).ok()?;
        payload.truncate(len);
        Some(payload)
    }
}
