//! Every order in which things can happen to a call, up to a depth, and what must hold in all of them.
//!
//! Meta's side is a few lines here: what it has been told and what it has said. States that were seen are not looked into
//! again, so that the depth is what counts and not the number of orders.

use std::collections::HashSet;

use super::*;

/// So many things happen to a call: enough for a `pre_accept`, an `accept` and an end of either side, with a lost answer in
/// between.
const DEPTH: usize = 8;
/// So many answers and timeouts settle any call whose end is known.
const STEPS_TO_SETTLE_MAX: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Answered,
    Connected,
    Replied(Said),
    Terminated,
    Ended(CloseReason),
    /// Time passes up to what is due.
    Due,
    /// Time passes, and nothing is due.
    Later,
}

/// What Meta answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Said {
    Done,
    Unclear,
    Busy,
    Refused,
    Gone,
    NotAllowed,
    Duplicate,
}

impl Said {
    const ALL: [Self; 7] =
        [Self::Done, Self::Unclear, Self::Busy, Self::Refused, Self::Gone, Self::NotAllowed, Self::Duplicate];

    fn reply(self) -> Reply {
        match self {
            Self::Done => Reply::Done,
            Self::Unclear => unclear(),
            Self::Busy => busy(),
            Self::Refused => refused(),
            Self::Gone => refused_with(500, 138_007, None),
            Self::NotAllowed => refused_with(400, 131_055, None),
            Self::Duplicate => refused_with(400, 138_003, None),
        }
    }
}

/// A call and what the world knows of it.
#[expect(clippy::struct_excessive_bools, reason = "facts that come in any order")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    signalling: Signalling,
    now: Instant,
    answered: bool,
    connected: bool,
    /// Meta has said that the call is over.
    terminated: bool,
    /// It is over here.
    ended: bool,
    under_way: Option<Action>,
    accepted: bool,
    /// `accept` may be done: its answer was lost.
    maybe_accepted: bool,
    /// Whether it is done depends on what Meta means by its answer.
    perhaps_accepted: bool,
    /// Meta has called it a duplicate: somebody else may have it.
    duplicate: bool,
    activated: bool,
    hung_up: bool,
    /// Words of the end that were asked, and those that were refused.
    asked_to_end: Vec<Action>,
    refused_to_end: Vec<Action>,
    /// Meta has taken the end, or has said that there is no call.
    told: bool,
    settled: bool,
}

impl World {
    fn new(now: Instant) -> Self {
        Self {
            signalling: Signalling::begin(now),
            now,
            answered: false,
            connected: false,
            terminated: false,
            ended: false,
            under_way: None,
            accepted: false,
            maybe_accepted: false,
            perhaps_accepted: false,
            duplicate: false,
            activated: false,
            hung_up: false,
            asked_to_end: Vec::new(),
            refused_to_end: Vec::new(),
            told: false,
            settled: false,
        }
    }

    /// What can happen next.
    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let due = self.signalling.poll_timeout();
        let mut may = |condition: bool, event| events.extend(condition.then_some(event));
        may(!self.answered, Event::Answered);
        may(!self.connected, Event::Connected);
        may(!self.terminated, Event::Terminated);
        for reason in [CloseReason::Hangup, CloseReason::PeerClosed] {
            may(!self.ended, Event::Ended(reason));
        }
        for said in Said::ALL {
            may(self.under_way.is_some(), Event::Replied(said));
        }
        may(due.is_some(), Event::Due);
        may(due.is_some_and(|due| due > self.now + LATER), Event::Later);
        events
    }

    fn happens(&mut self, event: Event) {
        let mut accepting = false;
        match event {
            Event::Answered => {
                self.answered = true;
                self.signalling.answered(self.now);
            }
            Event::Connected => {
                self.connected = true;
                self.signalling.connected(self.now);
            }
            Event::Terminated => {
                self.terminated = true;
                self.signalling.terminated(self.now, true);
            }
            Event::Ended(reason) => {
                self.ended = true;
                self.signalling.ended(self.now, reason);
            }
            Event::Replied(said) => {
                let action = self.under_way.take().expect("a question is under way");
                accepting = self.take(action, said);
                self.signalling.replied(self.now, self.now, &said.reply());
            }
            Event::Due => {
                self.now = self.signalling.poll_timeout().expect("something is due");
                self.maybe_accepted |= self.under_way.take() == Some(Action::Accept);
                self.signalling.handle_timeout(self.now);
                let due = self.signalling.poll_timeout();
                assert!(due.is_none_or(|due| due > self.now), "due again at once");
            }
            Event::Later => {
                self.now += LATER;
                self.signalling.handle_timeout(self.now);
            }
        }
        while let Some(step) = self.signalling.poll() {
            self.does(&step, accepting);
        }
    }

    /// What Meta means by it; says whether it may be what starts audio.
    fn take(&mut self, action: Action, said: Said) -> bool {
        self.told |= said == Said::Gone;
        self.duplicate |= said == Said::Duplicate;
        match (action, said) {
            (Action::Accept, Said::Done) => self.accepted = true,
            (Action::Accept, Said::NotAllowed | Said::Duplicate) => {
                self.perhaps_accepted = true;
                return true;
            }
            (Action::Accept, Said::Unclear) => self.maybe_accepted = true,
            (Action::Reject | Action::Terminate, Said::Done) => self.told = true,
            (Action::Reject | Action::Terminate, Said::Refused | Said::NotAllowed | Said::Duplicate) => {
                self.refused_to_end.push(action);
            }
            _ => {}
        }
        action == Action::Accept && said == Said::Done
    }

    /// What must hold of each step.
    fn does(&mut self, step: &Step, accepting: bool) {
        assert!(!self.settled, "nothing follows what is settled");
        match step {
            Step::Ask { action, time_max } => {
                assert!(self.under_way.is_none(), "one question at a time");
                assert!(!self.terminated, "Meta has said that the call is over");
                assert!(!self.told, "Meta knows");
                assert!(*time_max >= ATTEMPT_TIME_MIN && *time_max <= ATTEMPT_TIME_MAX);
                match action {
                    Action::PreAccept | Action::Accept => {
                        assert!(self.answered && !self.ended && !self.hung_up && !self.activated);
                        assert!(self.now + *time_max <= self.start() + ACCEPT_TIME_MAX, "beyond Meta's patience");
                    }
                    Action::Reject | Action::Terminate => {
                        assert!(self.ended || self.hung_up, "an end that nobody asked for");
                        let accepted = self.accepted || self.maybe_accepted || self.activated;
                        if self.asked_to_end.is_empty() && accepted == self.perhaps_accepted.max(accepted) {
                            assert_eq!(*action == Action::Terminate, accepted, "the word that fits comes first");
                        }
                        assert!(!self.refused_to_end.contains(action), "refused for good");
                        self.asked_to_end.push(*action);
                    }
                }
                self.under_way = Some(*action);
            }
            Step::Activate => {
                assert!(accepting, "audio starts with Meta's word on accept");
                assert!(!self.activated && !self.ended && !self.terminated && !self.hung_up);
                self.activated = true;
            }
            Step::HangUp(_) => {
                assert!(!self.hung_up && !self.ended, "ended already");
                self.hung_up = true;
            }
            Step::Settled => {
                assert!(self.ended, "the call is still there");
                let both_refused = self.refused_to_end.len() == 2;
                let reject_refused = self.duplicate && self.refused_to_end == [Action::Reject];
                let known = self.terminated || self.told || both_refused || reject_refused || self.signalling.gave_up();
                assert!(known, "it may ring on");
                assert!(!self.told || !self.signalling.gave_up(), "Meta knows");
                self.settled = true;
            }
        }
    }

    fn start(&self) -> Instant {
        self.signalling.begun
    }

    /// Whatever Meta answers from here on, and if it does not: a call that is over is settled within bounds, and Meta was told.
    fn assert_it_can_be_settled(&self) {
        let answers = Said::ALL.into_iter().map(Some).chain([None]);
        for said in answers {
            let mut world = self.clone();
            if !world.ended {
                world.happens(Event::Ended(CloseReason::Hangup));
            }
            for _ in 0..STEPS_TO_SETTLE_MAX {
                match (world.settled, said) {
                    (true, _) => break,
                    (false, Some(said)) if world.under_way.is_some() => world.happens(Event::Replied(said)),
                    _ => world.happens(Event::Due),
                }
            }
            assert!(world.settled, "with {said:?} it is never settled: {world:?}");
            assert!(world.terminated || world.told || !world.asked_to_end.is_empty(), "Meta was not told: {world:?}");
        }
    }
}

/// What led to a failure: said when there is one.
struct Path(Vec<Event>);

impl Drop for Path {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?}", self.0);
        }
    }
}

/// Between two deadlines of a call.
const LATER: Duration = Duration::from_millis(4600);

#[test]
fn in_every_order_of_things_no_phone_rings_on_and_no_audio_comes_too_early() {
    let mut seen = HashSet::new();
    let mut layer = vec![(World::new(Instant::now()), Path(Vec::new()))];
    let (mut activated, mut gave_up, mut settled) = (0, 0, 0);
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for (world, path) in layer {
            for event in world.events() {
                let mut after = world.clone();
                let path = Path([&path.0[..], &[event]].concat());
                after.happens(event);
                if seen.insert(after.clone()) {
                    activated += usize::from(after.activated);
                    gave_up += usize::from(after.signalling.gave_up());
                    settled += usize::from(after.settled);
                    after.assert_it_can_be_settled();
                    next.push((after, path));
                }
            }
        }
        layer = next;
    }
    assert!(
        seen.len() > 50_000 && activated > 1000 && gave_up > 1000 && settled > 10_000,
        "too little was seen: {} states, {activated} activated, {gave_up} given up, {settled} settled",
        seen.len()
    );
}
