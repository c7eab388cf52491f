//! What a scenario is made of: which webhooks come, how the Graph API and the relay behave, what the callers do, and what
//! a bridge is held to.
//!
//! Words only, so that a scenario is a few lines in [`super::scenarios`]; nothing here runs.

use super::Certainty;

/// Something that happens at Meta, and what a bridge must make of it.
#[derive(Debug)]
pub struct Scenario {
    /// What `--scenario` calls it.
    pub name: &'static str,
    /// What happens, in a line.
    pub about: &'static str,
    /// How sure it is that Meta behaves so.
    pub certainty: Certainty,
    /// Whether somebody must do something to the bridge meanwhile: such a scenario is none of `all`.
    pub is_by_hand: bool,
    /// How many call.
    pub calls: Calls,
    /// How they are told to the bridge.
    pub webhooks: Webhooks,
    /// How the Graph API answers.
    pub graph: Graph,
    /// How the relay behaves.
    pub relay: RelayManners,
    /// What each caller does, and when.
    pub steps: &'static [Step],
    /// What must hold in the end.
    pub expect: &'static [Expect],
}

impl Scenario {
    /// Whether a call of it can come up, and then needs a relay.
    pub fn has_media(&self) -> bool {
        self.calls != Calls::Some(0) && !self.webhooks.is_over
    }
}

/// How many call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// So many, at once.
    Some(u16),
    /// As many as `--calls` says, within two seconds.
    Burst,
}

/// How calls are told.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a peculiarity of its own, and named where it is set")]
pub struct Webhooks {
    /// When a call's connect is sent, in milliseconds since its beginning.
    pub connect_ms: &'static [u64],
    /// When its terminate is sent, in milliseconds since its end.
    pub terminate_ms: &'static [u64],
    /// Each is put off by up to so much, in milliseconds, so that they come in any order.
    pub shuffle_ms: u64,
    /// What their signatures are like.
    pub signature: Signature,
    /// Whether Meta has no call any more when it tells of it.
    pub is_over: bool,
    /// Terminate is sent so long before connect, in milliseconds.
    pub terminate_before_ms: Option<u64>,
    /// How old the event is, in seconds.
    pub age_sec: u64,
    /// Without `from`.
    pub without_from: bool,
    /// With fields that nobody has heard of.
    pub with_unknown: bool,
    /// All calls come in one body, with others' events between them.
    pub together: bool,
    /// A user's message comes as well.
    pub message: bool,
    /// The webhook is verified, as when it is set up.
    pub verification: bool,
}

/// What a webhook's signature is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// As it should be.
    Good,
    /// The first has one bit flipped, the second none at all.
    Bad,
}

/// How the Graph API answers.
#[derive(Clone, Copy, Debug)]
pub struct Graph {
    /// How long it takes over each answer, in milliseconds.
    pub delay_ms: u64,
    /// What becomes of a call's first requests, in order.
    pub first: &'static [Fault],
    /// Every answer's SDP is refused.
    pub refuses_answers: bool,
    /// How a good `accept` is answered.
    pub accept: Accepting,
}

/// A request that is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503.
    Down,
    /// 429, and when to ask again.
    RateLimited,
}

/// How a good `accept` is answered; the call is up in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepting {
    /// With 200.
    Normally,
    /// With 131055: it is in progress already.
    AsIfAgain,
    /// Not at all: the connection is cut.
    Cut,
}

/// How the relay behaves.
#[derive(Clone, Copy, Debug)]
pub struct RelayManners {
    /// When an answer is applied.
    pub applies: Applies,
    /// Whether it says goodbye (RTCP BYE, DTLS close_notify) when the user hangs up.
    pub bye: bool,
    /// Whether the caller's phone sends anything from the start.
    pub phone_sends: bool,
}

/// When an answer is applied: checks are answered from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// So many milliseconds after it first came, in `pre_accept` as a rule.
    After(u64),
    /// Only with `accept`.
    WithAccept,
    /// Never.
    Never,
}

/// Something a caller does.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What it waits for.
    pub cue: Cue,
    /// How long after.
    pub after: After,
    /// What.
    pub act: Act,
}

/// What a step waits for; each comes once in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cue {
    /// The phone rings: `pre_accept` is done.
    Rings,
    /// The call is up: `accept` is done.
    Up,
    /// The so-manieth voice is heard.
    Voice(u8),
    /// The so-manieth voice has ended.
    Lull(u8),
}

/// How long after its cue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Milliseconds.
    Ms(u64),
    /// As long as `--seconds` says, or else so many seconds.
    Talk(u64),
}

/// What a caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Speaks.
    Say,
    /// Presses these keys (RFC 4733 events).
    Press(&'static [u8]),
    /// Is cut off from the relay: nothing comes from the phone any more.
    Vanish,
    /// Hangs up.
    HangUp,
}

/// What must hold in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Each webhook is answered 200, and soon.
    WebhookAnswered,
    /// Each webhook is refused.
    WebhookRefused,
    /// The challenge is given back for the right token and for no other.
    Verified,
    /// `pre_accept` comes, and is good.
    PreAccepted,
    /// Media is connected before `accept` is asked.
    ConnectedFirst,
    /// `accept` comes, and is good.
    Accepted,
    /// No RTP comes before `accept` is done.
    SilentBeforeAccept,
    /// The caller hears a voice.
    Heard,
    /// A voice begins after the caller has spoken. Whose and why, nobody can tell of a strange agent.
    HeardBack,
    /// What the caller said is heard again, from an agent that is known to say it back.
    SaidBack,
    /// Media, RTP or RTCP, comes without a gap of more than so many seconds.
    KeptSending(u64),
    /// One SSRC, from begin to end.
    OneStream,
    /// Hardly any packet is lost.
    NothingLost,
    /// Exactly one call: nothing is asked twice.
    OneCall,
    /// Nothing is asked of a call that is over.
    NoCall,
    /// The bridge does not end a call that the user has ended.
    NotTerminated,
    /// The bridge ends the call at Meta within so many seconds.
    EndedByBridge(u64),
    /// No media comes a second after the terminate webhook was answered.
    StoppedSending,
}

/// As Meta should be; scenarios differ from it, and each says how sure it is that Meta behaves so.
pub(super) const fn plain(certainty: Certainty) -> Scenario {
    Scenario {
        name: "",
        about: "",
        certainty,
        is_by_hand: false,
        calls: Calls::Some(1),
        webhooks: WEBHOOKS,
        graph: GRAPH,
        relay: RELAY,
        steps: &[],
        expect: &[],
    }
}

pub(super) const WEBHOOKS: Webhooks = Webhooks {
    connect_ms: &[0],
    terminate_ms: &[0],
    shuffle_ms: 0,
    signature: Signature::Good,
    is_over: false,
    terminate_before_ms: None,
    age_sec: 0,
    without_from: false,
    with_unknown: false,
    together: false,
    message: false,
    verification: false,
};

pub(super) const GRAPH: Graph = Graph { delay_ms: 0, first: &[], refuses_answers: false, accept: Accepting::Normally };

pub(super) const RELAY: RelayManners = RelayManners { applies: Applies::After(0), bye: true, phone_sends: true };
