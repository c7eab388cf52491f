//! One simulated call, as the load keeps it: where it is in its life, and what its packets say one by one.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::audio::CodecError;
use crate::http::client::Answer;
use crate::relay::record::Received;

use super::echo::Ear;

/// How long an answered call may take to connect; WhatsApp's client gives up after 20 s without media.
pub(super) const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);

/// Bytes of a server's words that are shown.
const WORDS_BYTES_MAX: usize = 80;

/// RTP ticks of a second.
const TICKS_PER_SECOND: u64 = 48_000;

/// Where a call is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its request is under way.
    Asked,
    /// Its answer was applied.
    Answered(Instant),
    /// DTLS is up.
    Connected(Instant),
}

/// What one packet told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// From DTLS to this packet, if it is the call's first.
    pub(crate) first: Option<Duration>,
    /// How far its arrival is from the beat of the one before it, if it follows that.
    pub(crate) deviation: Option<Duration>,
    /// The round trip of a burst.
    pub(crate) round_trip: Option<Duration>,
}

/// A call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) state: State,
    pub(crate) is_closed: bool,
    /// It is to be hung up, or the hang-up is under way.
    pub(crate) is_leaving: bool,
    /// A probe call's.
    pub(super) ear: Option<Box<Ear>>,
    last: Option<(Instant, u16, u32)>,
}

impl Call {
    /// A call that is asked for.
    pub(crate) fn new(id: String, is_probe: bool) -> Result<Self, CodecError> {
        let ear = if is_probe { Some(Box::new(Ear::new()?)) } else { None };
        Ok(Self { id, state: State::Asked, is_closed: false, is_leaving: false, ear, last: None })
    }

    pub(super) fn is_probe(&self) -> bool {
        self.ear.is_some()
    }

    /// Takes an RTP packet.
    pub(crate) fn hear(&mut self, packet: &Received) -> Heard {
        let first = match (self.last, self.state) {
            (None, State::Connected(at)) => Some(packet.at.saturating_duration_since(at)),
            _ => None,
        };
        let deviation = self.last.filter(|(_, seq, _)| seq.wrapping_add(1) == packet.seq).map(|(at, _, timestamp)| {
            let ticks = u64::from(packet.timestamp.wrapping_sub(timestamp));
            let meant = Duration::from_nanos(ticks * 1_000_000_000 / TICKS_PER_SECOND);
            packet.at.saturating_duration_since(at).abs_diff(meant)
        });
        // One that comes late changes nothing: the beat is that of the newest.
        if self.last.is_none_or(|(_, seq, _)| (packet.seq.wrapping_sub(seq) as i16) > 0) {
            self.last = Some((packet.at, packet.seq, packet.timestamp));
        }
        let round_trip = self.ear.as_mut().and_then(|ear| ear.hear(packet.at, &packet.payload));
        Heard { first, deviation, round_trip }
    }
}

/// The SDP of a 200, or what the server said instead.
pub(crate) fn answer_of(answer: &Answer) -> Result<String, String> {
    /// What answers and refusals carry.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        #[serde(rename = "sdpAnswer")]
        sdp_answer: Option<String>,
        code: Option<String>,
        error: Option<String>,
    }
    let body = serde_json::from_slice::<Body>(&answer.body);
    match (answer.status, body) {
        (200, Ok(Body { sdp_answer: Some(sdp), .. })) => Ok(sdp),
        (200, Ok(_)) => Err("200 without sdpAnswer".into()),
        (200, Err(_)) => Err("200 with a body that is not the JSON of an answer".into()),
        (status, Ok(Body { code: Some(words), .. } | Body { error: Some(words), .. })) => {
            Err(format!("{status} {}", shown(&words)))
        }
        (status, _) => Err(status.to_string()),
    }
}

/// A server's words, fit for a line of text.
fn shown(words: &str) -> String {
    words
        .chars()
        .filter(|c| !c.is_control())
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= WORDS_BYTES_MAX).then_some(c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.into(), keep_alive: true }
    }

    #[test]
    fn an_answer_is_its_sdp_and_a_refusal_its_status_and_code() {
        assert_eq!(answer_of(&answer(200, r#"{"success":true,"sdpAnswer":"v=0"}"#)), Ok("v=0".into()));
        for (status, body, said) in [
            (200, "{}", "200 without sdpAnswer"),
            (200, "<html>", "200 with a body that is not the JSON of an answer"),
            (200, r#"{"sdpAnswer":5}"#, "200 with a body that is not the JSON of an answer"),
            (503, r#"{"error":"It is full.","code":"full"}"#, "503 full"),
            (400, r#"{"error":"Missing callId or sdpOffer"}"#, "400 Missing callId or sdpOffer"),
            (502, "<html>", "502"),
        ] {
            assert_eq!(answer_of(&answer(status, body)), Err(said.to_owned()));
        }
        let long = format!(r#"{{"code":"{}\u0007"}}"#, "x".repeat(1000));
        assert_eq!(answer_of(&answer(500, &long)).unwrap_err().len(), 84);
    }

    #[test]
    fn arrivals_are_held_against_rtp_time_and_only_between_neighbours() {
        let start = Instant::now();
        let mut call = Call::new("a".into(), false).unwrap();
        call.state = State::Connected(start);
        let mut hear = |ms, seq: u16, timestamp| {
            let at = start + Duration::from_millis(ms);
            call.hear(&Received { at, seq, timestamp, ssrc: 1, pt: 111, marker: false, payload: [0].into() })
        };
        let ms = Duration::from_millis;
        assert_eq!(hear(30, 65_535, u32::MAX - 959), Heard { first: Some(ms(30)), ..Heard::default() });
        assert_eq!(hear(53, 0, 0).deviation, Some(ms(3)));
        assert_eq!(hear(70, 1, 960).deviation, Some(ms(3)));
        assert_eq!(hear(110, 2, 2_880).deviation, Some(ms(0)), "a pause is none");
        assert_eq!(hear(170, 5, 5_760).deviation, None, "two are missing between");
        assert_eq!(hear(171, 3, 3_840).deviation, None, "late");
        assert_eq!(hear(191, 6, 6_720).deviation, Some(ms(1)));
    }
}
