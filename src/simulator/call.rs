//! One call as Meta has it: what was asked of it, what that came to, and when what happened.
//!
//! Questions go in, grants and refusals come out. It must not know HTTP, sockets, or who decides that a time is up.

use std::time::{Duration, Instant};

use crate::relay::CallKey;
use crate::relay::record::Record;

use super::graph::{Action, Ask, Refusal};
use super::phone::Ear;
use super::scenario::Graph;
use super::sdp::{self, Offered};

/// A greeting, or words and the pause after them, take less than this: from then on an answer is missed.
const ANSWER_TIME: Duration = Duration::from_secs(12);

/// Notes kept of one call.
const NOTES_MAX: usize = 8;

/// Where it is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody was told yet.
    Quiet,
    /// The bridge was told, and the user sees "calling".
    Calling,
    /// `pre_accept` is done.
    Ringing,
    /// `accept` is done.
    Up,
    /// It is over.
    Over,
}

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ender {
    /// The user, who had enough.
    User,
    /// The bridge, by `reject` or `terminate`.
    Bridge,
    /// Meta's client, for want of an answer or of media.
    Client,
    /// The simulator, whose patience was at an end.
    Simulator,
}

/// When what happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// The connect webhook was handed out.
    pub(super) told: Option<Instant>,
    /// It was answered with 200.
    pub(super) acknowledged: Option<Instant>,
    /// The first `pre_accept` came, whatever became of it.
    pub(super) pre_accept: Option<Instant>,
    /// One was granted.
    pub(super) pre_accepted: Option<Instant>,
    /// The answer was applied.
    pub(super) applied: Option<Instant>,
    /// DTLS was connected.
    pub(super) connected: Option<Instant>,
    /// The first `accept` came, whatever became of it.
    pub(super) accept: Option<Instant>,
    /// One was granted.
    pub(super) accepted: Option<Instant>,
    /// The first RTP packet came.
    pub(super) media: Option<Instant>,
    /// The first after `accept` was granted.
    pub(super) audio: Option<Instant>,
    /// The first voice was heard.
    pub(super) voice: Option<Instant>,
    /// The caller spoke.
    pub(super) spoke: Option<Instant>,
    /// A voice was heard after that.
    pub(super) heard_back: Option<Instant>,
    /// It was over.
    pub(super) ended: Option<Instant>,
    /// The terminate webhook was answered with 200.
    pub(super) end_acknowledged: Option<Instant>,
    /// The last RTP packet came.
    pub(super) last_media: Option<Instant>,
}

/// How often what was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Requests of any kind.
    pub(super) asked: u32,
    /// Requests that were not looked at.
    pub(super) faults: u32,
    /// Requests for what was done already, without a reason to ask again.
    pub(super) repeated: u32,
    /// `reject` and `terminate`.
    pub(super) endings: u32,
    /// Those of them that came when it was over.
    pub(super) endings_late: u32,
    /// RTP packets before `accept` was granted.
    pub(super) early_packets: u64,
}

/// What a question came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granted {
    /// The phone rings.
    Rings,
    /// The call is up.
    Up,
    /// It is over.
    Over,
    /// It was so already.
    Again,
}

/// A call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: String,
    /// The caller's number, digits.
    pub(super) from: String,
    /// Its number in its run.
    pub(super) number: usize,
    pub(super) key: CallKey,
    pub(super) offer: String,
    offered: Offered,
    pub(super) phase: Phase,
    pub(super) times: Times,
    pub(super) counts: Counts,
    pub(super) ender: Option<Ender>,
    /// Meta's code, where its client ended it.
    pub(super) failure: Option<u32>,
    pub(super) notes: Vec<String>,
    pub(super) ear: Ear,
    /// How like what the caller said something is that was heard afterwards, once the call is over.
    pub(super) said_back: Option<f64>,
    /// What the relay saw of it, once it is over.
    pub(super) record: Option<Record>,
    /// The longest time without an RTP packet between the first and the end.
    pub(super) gap: Duration,
    /// The longest time without RTP and RTCP, from the first RTP packet to the end.
    pub(super) quiet: Duration,
    /// The SDP that was granted.
    answer: Option<String>,
    /// Whether the bridge may not know that `accept` is done.
    is_unclear: bool,
}

impl Call {
    pub(super) fn new(number: usize, (id, from): (String, String), (key, offer): (CallKey, String), ear: Ear) -> Self {
        let offered = Offered::of(&offer).expect("the relay writes whole offers");
        Self {
            id,
            from,
            number,
            key,
            offer,
            offered,
            phase: Phase::Quiet,
            times: Times::default(),
            counts: Counts::default(),
            ender: None,
            failure: None,
            notes: Vec::new(),
            ear,
            said_back: None,
            record: None,
            gap: Duration::ZERO,
            quiet: Duration::ZERO,
            answer: None,
            is_unclear: false,
        }
    }

    /// Keeps a remark for the report.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.notes.len() < NOTES_MAX && !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Counts the time since the last RTP packet.
    pub(super) fn widen_gap(&mut self, now: Instant) {
        if let Some(last) = self.times.last_media {
            self.gap = self.gap.max(now.saturating_duration_since(last));
        }
    }

    /// Whether the user hung up so early that there was no time for an answer to what the caller said, or would have.
    pub(super) fn is_cut(&self) -> bool {
        let (Some(Ender::User), Some(up), Some(ended)) = (self.ender, self.times.accepted, self.times.ended) else {
            return false;
        };
        self.times.heard_back.is_none() && ended.saturating_duration_since(self.times.spoke.unwrap_or(up)) < ANSWER_TIME
    }

    /// The answer, once one was granted.
    pub(super) fn answer(&self) -> Option<&str> {
        self.answer.as_deref()
    }

    /// From when the bridge was told.
    pub(super) fn since_told(&self, at: Option<Instant>) -> Option<Duration> {
        Some(at?.saturating_duration_since(self.times.told?))
    }

    /// Notes that something is asked, before anything is made of it.
    pub(super) fn asked(&mut self, now: Instant, action: Action) {
        self.counts.asked += 1;
        match action {
            Action::PreAccept => _ = self.times.pre_accept.get_or_insert(now),
            Action::Accept => _ = self.times.accept.get_or_insert(now),
            Action::Reject | Action::Terminate => {
                self.counts.endings += 1;
                self.counts.endings_late += u32::from(self.phase == Phase::Over);
            }
        }
    }

    /// Decides on a question.
    pub(super) fn decide(&mut self, now: Instant, ask: &Ask, graph: &Graph) -> Result<Granted, Refusal> {
        if self.phase == Phase::Over {
            return Err(Refusal::parameter("The call has ended: nothing can be done with it any more."));
        }
        match ask.action {
            Action::PreAccept => self.pre_accept(now, &ask.sdp, graph),
            Action::Accept => self.accept(now, &ask.sdp, graph),
            Action::Reject if self.phase == Phase::Up => {
                Err(Refusal::parameter("The call is accepted: it can be terminated, not rejected."))
            }
            Action::Reject | Action::Terminate => Ok(Granted::Over),
        }
    }

    fn pre_accept(&mut self, now: Instant, sdp: &str, graph: &Graph) -> Result<Granted, Refusal> {
        self.judge(sdp, graph)?;
        if self.phase == Phase::Up {
            self.counts.repeated += 1;
            return Err(Refusal::new(400, 138_003, "The call is accepted already."));
        }
        if self.answer.is_some() {
            self.counts.repeated += 1;
            return Ok(Granted::Again);
        }
        self.answer = Some(sdp.to_owned());
        self.phase = Phase::Ringing;
        self.times.pre_accepted = Some(now);
        Ok(Granted::Rings)
    }

    fn accept(&mut self, now: Instant, sdp: &str, graph: &Graph) -> Result<Granted, Refusal> {
        if self.phase == Phase::Up {
            self.counts.repeated += u32::from(!std::mem::take(&mut self.is_unclear));
            return Err(Refusal::new(400, 131_055, "The call is in progress already."));
        }
        self.judge(sdp, graph)?;
        self.answer.get_or_insert_with(|| sdp.to_owned());
        self.phase = Phase::Up;
        self.times.accepted = Some(now);
        Ok(Granted::Up)
    }

    /// The answer to the granted `accept` will not reach the bridge, or not say so.
    pub(super) fn is_left_unclear(&mut self) {
        self.is_unclear = true;
    }

    fn judge(&mut self, sdp: &str, graph: &Graph) -> Result<(), Refusal> {
        if graph.refuses_answers {
            return Err(Refusal::new(
                400,
                sdp::INVALID,
                "Provided SDP is invalid (this scenario refuses every answer).",
            ));
        }
        if let Err(rule) = sdp::judge(sdp, &self.offered) {
            self.note(format!("an answer was refused: {} [{}]", rule.text, rule.certainty.label()));
            return Err(Refusal { subcode: rule.subcode, ..Refusal::new(400, rule.code, rule.text) });
        }
        if sdp::is_lite(sdp) {
            self.note(sdp::LITE);
        }
        match &self.answer {
            Some(answer) if answer != sdp => {
                self.note("a second answer was refused: it differs from the one in pre_accept");
                Err(Refusal::new(400, sdp::INVALID, "The SDP differs from the one that was pre-accepted."))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Relay;
    use crate::relay::script::Script;
    use crate::simulator::scenario::GRAPH;

    fn call() -> (Call, String) {
        let mut relay = Relay::new("127.0.0.1:3480".parse().unwrap(), 1);
        let offered = relay.offer(Instant::now(), Script::silent());
        let answer =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sdp/proposed-answer.sdp"));
        let ear = Ear::new(false).unwrap();
        (Call::new(0, ("wacid.1".into(), "1555".into()), offered, ear), answer.unwrap())
    }

    fn ask(call: &mut Call, action: Action, sdp: &str) -> Result<Granted, (u16, u32)> {
        let ask = Ask { call: call.id.clone(), action, sdp: sdp.to_owned() };
        call.asked(Instant::now(), action);
        call.decide(Instant::now(), &ask, &GRAPH).map_err(|refusal| (refusal.status, refusal.code))
    }

    #[test]
    fn a_call_is_pre_accepted_accepted_and_terminated_with_one_answer() {
        let (mut call, answer) = call();
        assert_eq!(ask(&mut call, Action::PreAccept, &answer), Ok(Granted::Rings));
        assert_eq!(ask(&mut call, Action::PreAccept, &answer), Ok(Granted::Again));
        let other = answer.replace("a=ptime:20\r\n", "");
        assert_eq!(ask(&mut call, Action::Accept, &other), Err((400, 138_008)), "it differs");
        assert_eq!(ask(&mut call, Action::Accept, &answer), Ok(Granted::Up));
        assert_eq!(ask(&mut call, Action::Accept, &answer), Err((400, 131_055)));
        assert_eq!(ask(&mut call, Action::PreAccept, &answer), Err((400, 138_003)));
        assert_eq!(ask(&mut call, Action::Reject, ""), Err((400, 100)), "too late for that");
        assert_eq!(ask(&mut call, Action::Terminate, ""), Ok(Granted::Over));
        assert_eq!((call.counts.asked, call.counts.repeated, call.counts.endings), (8, 3, 2));
        assert!(call.notes[0].contains("differs"), "{:?}", call.notes);
    }

    #[test]
    fn nothing_can_be_done_with_a_call_that_is_over_and_that_it_was_asked_is_kept() {
        let (mut call, answer) = call();
        call.phase = Phase::Over;
        for action in [Action::PreAccept, Action::Accept, Action::Reject, Action::Terminate] {
            assert_eq!(ask(&mut call, action, &answer), Err((400, 100)));
        }
        assert_eq!((call.counts.asked, call.counts.endings_late), (4, 2));
    }

    #[test]
    fn a_bad_answer_is_refused_with_its_rule_and_kept_as_a_note() {
        let (mut call, answer) = call();
        let passive = answer.replace("setup:active", "setup:passive");
        assert_eq!(ask(&mut call, Action::PreAccept, &passive), Err((400, 138_008)));
        assert_eq!((call.phase, call.answer()), (Phase::Quiet, None));
        assert!(call.notes[0].contains("setup") && call.notes[0].contains("documented"), "{:?}", call.notes);
    }

    #[test]
    fn asking_again_after_an_unclear_answer_is_no_fault() {
        let (mut call, answer) = call();
        assert_eq!(ask(&mut call, Action::Accept, &answer), Ok(Granted::Up));
        call.is_left_unclear();
        assert_eq!(ask(&mut call, Action::Accept, &answer), Err((400, 131_055)));
        assert_eq!(call.counts.repeated, 0);
        assert_eq!(ask(&mut call, Action::Accept, &answer), Err((400, 131_055)));
        assert_eq!(call.counts.repeated, 1);
    }
}
