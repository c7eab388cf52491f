//! The life of one call at Meta: `pre_accept` with our answer at once, `accept` when media is up, audio from its 200; and an
//! end that Meta hears of, whatever fails.
//!
//! Our own end of the call and Meta's are two things, and each may come first. This machine joins them: it asks Meta, says
//! what control must do, and is done when Meta knows that the call is over and the call is over here. It must not know how
//! requests travel, what media is, or why a call ended beyond its [`CloseReason`].
//!
//! Two rules stand above all: audio flows only when Meta has said that the call is accepted, and no phone rings on because of
//! us. So whatever is in doubt is ended at Meta in both ways that there are.

mod ending;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::close_reason::CloseReason;

use super::graph::{Action, Refused, Reply, Retry};
use ending::Ending;

/// Meta grants 30 to 60 s from the connect webhook to `accept`, then the call counts as not answered. We count on the less.
pub const ACCEPT_TIME_MAX: Duration = Duration::from_secs(30);
/// How long `pre_accept` is tried for, from the moment our answer is there. It is only recommended: what is left belongs to
/// `accept`, and is room for two lost attempts.
pub const PRE_ACCEPT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long media is waited for after `pre_accept`. DTLS tries again after 1, 2 and 4 s; who has no path then gets none, and the
/// user, who hears it ring meanwhile, should not wait for what will not come. `accept` is worth trying all the same: Meta may
/// apply our answer only then, and its 20 s to the first media begin then.
pub const ACCEPT_WAIT_MAX: Duration = Duration::from_secs(8);
/// How long media is waited for once a call is accepted without: its user hears nothing meanwhile. Meta's own limit is 20 s from
/// there; that we are the first to end it keeps the user from sitting it out, and the log from blaming Meta.
pub const SILENT_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest time that one attempt may take. The Graph API answers within a second; a lost one must leave room for another.
pub const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(5);
/// Shorter than this, an attempt is not worth its while: a connection has to be made first where none is warm.
pub const ATTEMPT_TIME_MIN: Duration = Duration::from_millis(500);
/// How long an answer may be late beyond its attempt's time before it counts as lost: requests wait their turn at the client.
pub const REPLY_LATE_MAX: Duration = Duration::from_secs(10);
/// Between attempts: twice as long each time, from the first to the last of these.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signalling {
    begun: Instant,
    phase: Phase,
    /// Handed out by the next [`Self::poll`].
    to_ask: Option<Question>,
    /// Asked, and not answered yet.
    asked: Option<Question>,
    /// Questions that were given up; their answers may still come.
    lost: u32,
    hang_up: HangUp,
    activate: bool,
    /// The call is over here.
    over_here: bool,
    pre_accept: Outcome,
    accept: Outcome,
    /// Attempts of what is being tried, for its waits.
    attempts: u32,
    /// When something is to be done without being told.
    due: Option<Instant>,
    gave_up: bool,
    timings: Timings,
}

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Our answer is not there yet.
    Answering,
    /// `pre_accept` is asked, or waits to be asked again.
    PreAccepting { until: Instant },
    /// It is done; media is not up yet.
    Connecting,
    /// `accept` is asked, or waits to be asked again.
    Accepting,
    /// It is done.
    Accepted,
    /// To be ended, when the question under way is answered.
    Leaving { grace: Duration },
    /// Meta is being told.
    Ending(Ending),
    /// Meta knows; our own end is awaited.
    Told,
    /// Both are over, and it is to be said.
    Settling,
    /// It has been said.
    Settled,
}

/// Whether [`Step::HangUp`] was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum HangUp {
    No,
    ToSay(CloseReason),
    /// It was, or need not be.
    Said,
}

/// What is known of something that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outcome {
    /// It is not done.
    No,
    /// It may be done: an answer was lost.
    Maybe,
    /// It is done.
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Question {
    action: Action,
    at: Instant,
    time_max: Duration,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask Meta; [`Signalling::replied`] must follow. There is never more than one question under way.
    Ask {
        /// What.
        action: Action,
        /// The answer included.
        time_max: Duration,
    },
    /// `accept` is done: audio may start.
    Activate,
    /// End the call here, for this reason; [`Signalling::ended`] follows.
    HangUp(CloseReason),
    /// Meta knows that the call is over, or can do nothing more about it: the journal may forget it. The last step.
    Settled,
}

/// When what happened, from the webhook's arrival on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timings {
    /// `pre_accept` was handed to the client, for the first time.
    pub pre_accept_sent: Option<Duration>,
    /// It was answered with 200, or counts so.
    pub pre_accepted: Option<Duration>,
    /// Media was up.
    pub connected: Option<Duration>,
    /// `accept` was handed to the client, for the first time.
    pub accept_sent: Option<Duration>,
    /// It was answered with 200, or counts so.
    pub accepted: Option<Duration>,
}

impl Signalling {
    /// A connect webhook came at `now`.
    pub fn begin(now: Instant) -> Self {
        Self {
            begun: now,
            phase: Phase::Answering,
            to_ask: None,
            asked: None,
            lost: 0,
            hang_up: HangUp::No,
            activate: false,
            over_here: false,
            pre_accept: Outcome::No,
            accept: Outcome::No,
            attempts: 0,
            due: Some(now + ACCEPT_TIME_MAX),
            gave_up: false,
            timings: Timings::default(),
        }
    }

    /// A call that Meta may believe alive and that nobody here knows any more: it is only to be ended there.
    pub fn orphan(now: Instant) -> Self {
        Self::only_ending(now, Ending::orphan())
    }

    /// A call that is not taken: it is only to be rejected.
    pub fn refuse(now: Instant) -> Self {
        Self::only_ending(now, Ending::only_reject())
    }

    fn only_ending(now: Instant, ending: Ending) -> Self {
        let mut call = Self { over_here: true, hang_up: HangUp::Said, due: None, ..Self::begin(now) };
        call.enter_ending(now, ending, Duration::ZERO);
        call
    }

    /// Our answer to the offer is there.
    pub fn answered(&mut self, now: Instant) {
        if self.phase == Phase::Answering {
            self.phase = Phase::PreAccepting { until: (now + PRE_ACCEPT_TIME_MAX).min(self.accept_until()) };
            self.try_pre_accept(now);
        }
    }

    /// Media is up.
    pub fn connected(&mut self, now: Instant) {
        if self.timings.connected.is_some() {
            return;
        }
        self.timings.connected = Some(self.since_begun(now));
        match self.phase {
            Phase::Connecting => self.enter_accepting(now),
            Phase::Accepted => self.due = None,
            // Waiting to try again: that media is up shows that Meta has our answer.
            Phase::PreAccepting { .. } if self.is_silent() => self.enter_accepting(now),
            _ => {}
        }
    }

    /// What was asked was sent twice, and Meta may have done it before it was asked again. To be said before [`Self::replied`].
    pub fn repeated(&mut self) {
        let outcome = match self.asked.map(|question| question.action) {
            Some(Action::PreAccept) => &mut self.pre_accept,
            Some(Action::Accept) => &mut self.accept,
            Some(Action::Reject | Action::Terminate) | None => return,
        };
        if *outcome == Outcome::No {
            *outcome = Outcome::Maybe;
        }
    }

    /// Meta has answered what was asked, between these two times.
    pub fn replied(&mut self, now: Instant, begun: Instant, reply: &Reply) {
        let Some(question) = self.asked else {
            self.lost = self.lost.saturating_sub(1);
            return;
        };
        if self.lost > 0 && begun < question.at {
            self.lost -= 1;
            return;
        }
        self.asked = None;
        let sent = match question.action {
            Action::PreAccept => Some(&mut self.timings.pre_accept_sent),
            Action::Accept => Some(&mut self.timings.accept_sent),
            Action::Reject | Action::Terminate => None,
        };
        if let Some(sent) = sent {
            sent.get_or_insert(begun.saturating_duration_since(self.begun));
        }
        self.take_reply(now, question.action, reply);
    }

    /// The call is over here, for this reason.
    pub fn ended(&mut self, now: Instant, reason: CloseReason) {
        if std::mem::replace(&mut self.over_here, true) {
            return;
        }
        (self.hang_up, self.activate) = (HangUp::Said, false);
        // A peer that closes is most often a user who hung up: then Meta says so by itself.
        let grace = if reason == CloseReason::PeerClosed { ending::GRACE } else { Duration::ZERO };
        match self.phase {
            Phase::Told => self.phase = Phase::Settling,
            Phase::Ending(_) | Phase::Settling | Phase::Settled | Phase::Leaving { .. } => {}
            _ => self.leave(now, grace),
        }
    }

    /// A terminate webhook came.
    pub fn terminated(&mut self, _now: Instant, failed: bool) {
        self.to_ask = None;
        self.say_hang_up(if failed { CloseReason::MetaFailed } else { CloseReason::Terminated });
        self.told();
    }

    /// The time is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = None;
        if let Some(question) = self.asked.take() {
            self.lost += 1;
            self.take_reply(now, question.action, &Reply::Unclear("no answer in time".into()));
            return;
        }
        match self.phase {
            Phase::Answering => self.fail(now),
            Phase::PreAccepting { .. } => self.try_pre_accept(now),
            Phase::Connecting => self.enter_accepting(now),
            Phase::Accepting => self.try_accept(now),
            Phase::Ending(ending) => self.ask(now, ending.action(), ATTEMPT_TIME_MAX),
            Phase::Accepted => {
                self.say_hang_up(CloseReason::IceTimeout); // which step of the path failed is not known here
                self.leave(now, Duration::ZERO);
            }
            Phase::Leaving { .. } | Phase::Told | Phase::Settling | Phase::Settled => {}
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Step> {
        if let HangUp::ToSay(reason) = self.hang_up {
            self.hang_up = HangUp::Said;
            return Some(Step::HangUp(reason));
        }
        if std::mem::take(&mut self.activate) {
            return Some(Step::Activate);
        }
        if let Some(question) = self.to_ask.take() {
            self.asked = Some(question);
            return Some(Step::Ask { action: question.action, time_max: question.time_max });
        }
        if self.phase == Phase::Settling {
            self.phase = Phase::Settled;
            return Some(Step::Settled);
        }
        None
    }

    /// When [`Self::handle_timeout`] is next needed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// When what happened.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// Where it is, as the API shows it.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Answering => "answering",
            Phase::PreAccepting { .. } => "pre_accepting",
            Phase::Connecting => "connecting",
            Phase::Accepting => "accepting",
            Phase::Accepted => "accepted",
            Phase::Leaving { .. } | Phase::Ending(_) | Phase::Told => "ending",
            Phase::Settling | Phase::Settled => "settled",
        }
    }

    /// Whether it is settled although Meta could not be told: its own timers have to end the call.
    pub fn gave_up(&self) -> bool {
        self.gave_up
    }

    fn take_reply(&mut self, now: Instant, action: Action, reply: &Reply) {
        self.due = None;
        self.note_outcome(now, action, reply);
        match self.phase {
            Phase::PreAccepting { .. } => self.pre_accept_replied(now, reply),
            Phase::Accepting => self.accept_replied(now, reply),
            Phase::Leaving { grace } => match reply {
                Reply::Refused(refused) if refused.call_is_gone() => self.told(),
                _ => self.leave(now, grace),
            },
            Phase::Ending(ending) => self.end_replied(now, ending, reply),
            // Meta has said meanwhile that the call is over.
            _ => {}
        }
    }

    /// What a reply says of `pre_accept` and `accept`, whatever becomes of the call.
    fn note_outcome(&mut self, now: Instant, action: Action, reply: &Reply) {
        let at = self.since_begun(now);
        let pre_accepted = self.pre_accept == Outcome::Yes;
        let (outcome, timing) = match action {
            Action::PreAccept => (&mut self.pre_accept, &mut self.timings.pre_accepted),
            Action::Accept => (&mut self.accept, &mut self.timings.accepted),
            Action::Reject | Action::Terminate => return,
        };
        let was_lost = *outcome == Outcome::Maybe;
        *outcome = match reply {
            Reply::Done => Outcome::Yes,
            Reply::Unclear(_) => Outcome::Maybe,
            // Asked again after an answer was lost: the call that is there already is our own. (Inferred.)
            Reply::Refused(refused) if was_lost && is_duplicate(refused) => Outcome::Yes,
            // The call is in progress, and `accept` was needless. (Reported of live calls.)
            Reply::Refused(refused)
                if action == Action::Accept && is_not_allowed(refused) && (was_lost || pre_accepted) =>
            {
                Outcome::Yes
            }
            Reply::Refused(_) => return,
        };
        if *outcome == Outcome::Yes {
            timing.get_or_insert(at);
        }
    }

    fn pre_accept_replied(&mut self, now: Instant, reply: &Reply) {
        let is_connected = self.timings.connected.is_some();
        match reply {
            _ if self.pre_accept == Outcome::Yes && !is_connected => {
                self.phase = Phase::Connecting;
                let left = self.accept_until().saturating_duration_since(now);
                self.due = Some(now + ACCEPT_WAIT_MAX.min(left.saturating_sub(ATTEMPT_TIME_MAX)));
            }
            _ if self.pre_accept == Outcome::Yes => self.enter_accepting(now),
            Reply::Refused(refused) if refused.call_is_gone() => self.refused(now, refused),
            // Media is up, so Meta has our answer: an earlier reply was lost.
            _ if is_connected && self.pre_accept == Outcome::Maybe => self.enter_accepting(now),
            Reply::Refused(refused) if refused.meaning.retry == Retry::No => self.refused(now, refused),
            _ => self.try_again(now, reply),
        }
    }

    fn accept_replied(&mut self, now: Instant, reply: &Reply) {
        match reply {
            _ if self.accept == Outcome::Yes => {
                self.phase = Phase::Accepted;
                self.activate = true;
                self.due = self.timings.connected.is_none().then(|| now + SILENT_TIME_MAX);
            }
            Reply::Refused(refused) if refused.meaning.retry == Retry::No => self.refused(now, refused),
            _ => self.try_again(now, reply),
        }
    }

    fn end_replied(&mut self, now: Instant, mut ending: Ending, reply: &Reply) {
        match ending.replied(reply) {
            ending::Next::Told => self.told(),
            ending::Next::GiveUp => {
                self.gave_up = true;
                self.told();
            }
            ending::Next::Ask { wait } => self.enter_ending(now, ending, wait),
        }
    }

    fn try_pre_accept(&mut self, now: Instant) {
        let Phase::PreAccepting { until } = self.phase else { return };
        let left = until.saturating_duration_since(now);
        if left < ATTEMPT_TIME_MIN {
            self.enter_accepting(now);
        } else {
            self.ask(now, Action::PreAccept, left);
        }
    }

    fn enter_accepting(&mut self, now: Instant) {
        if self.timings.connected.is_some() && self.pre_accept == Outcome::Maybe {
            self.pre_accept = Outcome::Yes; // media is up: Meta has our answer
        }
        self.phase = Phase::Accepting;
        self.attempts = 0;
        self.try_accept(now);
    }

    fn try_accept(&mut self, now: Instant) {
        let left = self.accept_until().saturating_duration_since(now);
        if left < ATTEMPT_TIME_MIN {
            self.fail(now);
        } else {
            self.ask(now, Action::Accept, left);
        }
    }

    /// After a failure that may pass: again, where that fits into the time that is left.
    fn try_again(&mut self, now: Instant, reply: &Reply) {
        let retry_after = retry_after(reply);
        let wait = wait_before(self.attempts, RETRY_WAIT).max(retry_after);
        self.attempts += 1;
        let fits = |wait, until| now + wait + ATTEMPT_TIME_MIN <= until;
        match self.phase {
            Phase::PreAccepting { until } if !fits(wait, until) => {
                self.phase = Phase::Accepting;
                self.attempts = 0;
                if retry_after.is_zero() {
                    self.try_accept(now);
                } else if fits(retry_after, self.accept_until()) {
                    self.due = Some(now + retry_after);
                } else {
                    self.fail(now);
                }
            }
            Phase::Accepting if !fits(wait, self.accept_until()) => self.fail(now),
            _ => self.due = Some(now + wait),
        }
    }

    /// Meta has refused our answer for good.
    fn refused(&mut self, now: Instant, refused: &Refused) {
        self.say_hang_up(CloseReason::AcceptFailed);
        if refused.call_is_gone() {
            self.told();
        } else if is_duplicate(refused) && self.pre_accept != Outcome::Maybe {
            // Somebody else answers this call, if anybody does: it must not ring on, and must not be cut off either.
            self.enter_ending(now, Ending::only_reject(), Duration::ZERO);
        } else {
            self.leave(now, Duration::ZERO);
        }
    }

    /// The call could not be accepted in time.
    fn fail(&mut self, now: Instant) {
        self.say_hang_up(CloseReason::AcceptFailed);
        self.leave(now, Duration::ZERO);
    }

    /// Meta is to hear of the end: when the question under way is answered, since it cannot be taken back.
    fn leave(&mut self, now: Instant, grace: Duration) {
        self.to_ask = None;
        if self.asked.is_some() {
            self.phase = Phase::Leaving { grace };
            return;
        }
        let ending = match self.accept {
            Outcome::Yes | Outcome::Maybe => Ending::of_accepted(),
            Outcome::No => Ending::of_ringing(),
        };
        self.enter_ending(now, ending, grace);
    }

    fn enter_ending(&mut self, now: Instant, ending: Ending, wait: Duration) {
        self.phase = Phase::Ending(ending);
        if wait.is_zero() {
            self.ask(now, ending.action(), ATTEMPT_TIME_MAX);
        } else {
            self.due = Some(now + wait);
        }
    }

    /// Nothing more is to be asked.
    fn told(&mut self) {
        self.due = None;
        if !matches!(self.phase, Phase::Settling | Phase::Settled) {
            self.phase = if self.over_here { Phase::Settling } else { Phase::Told };
        }
    }

    fn say_hang_up(&mut self, reason: CloseReason) {
        if self.hang_up == HangUp::No {
            (self.hang_up, self.activate) = (HangUp::ToSay(reason), false);
        }
    }

    fn ask(&mut self, now: Instant, action: Action, time_max: Duration) {
        let time_max = time_max.min(ATTEMPT_TIME_MAX);
        self.to_ask = Some(Question { action, at: now, time_max });
        self.due = Some(now + time_max + REPLY_LATE_MAX);
    }

    fn is_silent(&self) -> bool {
        self.asked.is_none() && self.to_ask.is_none()
    }

    fn accept_until(&self) -> Instant {
        self.begun + ACCEPT_TIME_MAX
    }

    fn since_begun(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }
}

/// Meta says that the call is there already.
fn is_duplicate(refused: &Refused) -> bool {
    refused.error.code == 138_003
}

/// Meta says that this request is not allowed for the call or the number.
fn is_not_allowed(refused: &Refused) -> bool {
    refused.error.code == 131_055
}

fn retry_after(reply: &Reply) -> Duration {
    match reply {
        Reply::Refused(refused) => refused.retry_after.unwrap_or_default(),
        Reply::Done | Reply::Unclear(_) => Duration::ZERO,
    }
}

/// The wait behind so many failures: twice as long each time.
fn wait_before(failures: u32, (first, last): (Duration, Duration)) -> Duration {
    first.saturating_mul(1 << failures.min(16)).min(last)
}
