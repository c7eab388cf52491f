//! Holds what was seen of a scenario to what was expected of it: sentences with what was measured.
//!
//! Facts in, checks out. It must not know how they came about.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::call::{Call, Ender};
use super::echo::LIKENESS_MIN;
use super::scenario::Expect;

/// A webhook must be answered this soon. Meta's own patience is longer; what waits for so long does its work first.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// Media may come this long after the terminate webhook was answered: what is under way, and a last word.
const STOP_TIME_MAX: Duration = Duration::from_secs(1);

/// Packets that may be missing, in percent of a call's: on one machine none should.
const LOSS_PERCENT_MAX: f64 = 1.0;

/// An expectation, and whether it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was expected, as a sentence without its full stop.
    pub text: String,
    /// Whether it was so.
    pub held: bool,
    /// What was seen, in words.
    pub seen: String,
}

impl std::fmt::Display for Check {
    /// A line of a table.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = if self.held { "ok" } else { "NOT" };
        write!(f, "  {mark:>5}  {:<56}  {}", self.text, self.seen)
    }
}

/// A webhook that was sent, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    pub(super) what: Delivery,
    /// The answer's status, or why there is none.
    pub(super) outcome: Result<u16, String>,
    pub(super) took: Duration,
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// An event, or something else that must be answered 200.
    Event,
    /// A verification with the right token. Whether its challenge came back.
    Right(bool),
    /// A verification with a wrong one. Whether its challenge came back.
    Wrong(bool),
}

/// What there is to judge by.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) calls: &'a [Call],
    pub(super) delivered: &'a [Delivered],
    /// Requests to the Graph API to do something, whatever became of them.
    pub(super) posts: u64,
}

/// What was seen of one call: a time, or a fact; or what is wrong.
type Seen = Result<Fact, String>;

enum Fact {
    Time(Duration),
    Word(&'static str),
    Number(u64, &'static str),
}

/// Judges one expectation.
pub(super) fn judge(expect: Expect, view: &View<'_>) -> Check {
    let check = |text: &str, (held, seen): (bool, String)| Check { text: text.to_owned(), held, seen };
    let calls = |of: fn(&Call) -> Seen| each(view.calls, of);
    match expect {
        Expect::WebhookAnswered => check("each webhook is answered 200 within 1 s", answered(view)),
        Expect::WebhookRefused => check("each webhook is refused with 401 or 403", refused(view)),
        Expect::Verified => check("the challenge is given back for the right token alone", verified(view)),
        Expect::PreAccepted => check("pre_accept comes, with an answer that Meta takes", calls(pre_accepted)),
        Expect::ConnectedFirst => check("media is connected before accept is asked", calls(connected_first)),
        Expect::Accepted => check("accept comes, with the same answer", calls(accepted)),
        Expect::SilentBeforeAccept => check("no audio is sent before accept is done", calls(silent)),
        Expect::Heard => check("the caller hears a voice", calls(heard)),
        Expect::HeardBack => check("a voice begins after the caller has spoken", calls(heard_back)),
        Expect::SaidBack => check("the agent says back what the caller said", calls(said_back)),
        Expect::KeptSending(seconds) => {
            let most = Duration::from_secs(seconds);
            let kept = |call: &Call| match (call.times.audio, call.quiet) {
                (None, _) => Err("no audio came".to_owned()),
                (_, gap) if gap <= most => Ok(Fact::Time(gap)),
                (_, gap) => Err(format!("nothing came for {}", shown(gap))),
            };
            check(&format!("no {seconds} s pass without RTP or RTCP"), each(view.calls, kept))
        }
        Expect::OneStream => check("audio is one stream: one SSRC", calls(one_stream)),
        Expect::NothingLost => check("no packet is lost on the way", calls(nothing_lost)),
        Expect::OneCall => check("nothing is asked twice", calls(one_call)),
        Expect::NoCall => {
            let seen = match view.posts {
                0 => "nothing".to_owned(),
                posts => format!("{posts} requests, where there is no call"),
            };
            check("nothing is asked of the Graph API", (view.posts == 0, seen))
        }
        Expect::NotTerminated => check("a call that the user has ended is not ended again", calls(not_terminated)),
        Expect::EndedByBridge(seconds) => {
            let most = Duration::from_secs(seconds);
            let ended = |call: &Call| match (call.ender, call.since_told(call.times.ended)) {
                (Some(Ender::Bridge), Some(time)) if time <= most => Ok(Fact::Time(time)),
                (Some(Ender::Bridge), time) => Err(format!("it ended only after {}", shown(time.unwrap_or_default()))),
                (Some(Ender::Client), _) => Err("Meta's client gave up before".to_owned()),
                _ => Err("it did not end".to_owned()),
            };
            check(&format!("the bridge ends the call at Meta within {seconds} s"), each(view.calls, ended))
        }
        Expect::StoppedSending => check("audio stops within 1 s of the terminate webhook", calls(stopped)),
    }
}

fn answered(view: &View<'_>) -> (bool, String) {
    let mut worst = Duration::ZERO;
    for delivered in view.delivered {
        match &delivered.outcome {
            Ok(200) if delivered.took <= ANSWER_TIME_MAX => worst = worst.max(delivered.took),
            Ok(200) => return (false, format!("200 only after {}", shown(delivered.took))),
            Ok(status) => return (false, format!("it was answered {status}")),
            Err(why) => return (false, why.clone()),
        }
    }
    match view.delivered.len() {
        0 => (false, "none was sent".to_owned()),
        1 => (true, shown(worst)),
        sent => (true, format!("{} at most, {sent} of them", shown(worst))),
    }
}

fn refused(view: &View<'_>) -> (bool, String) {
    for delivered in view.delivered {
        match &delivered.outcome {
            Ok(401 | 403) => {}
            Ok(status) => return (false, format!("it was answered {status}")),
            Err(why) => return (false, why.clone()),
        }
    }
    let statuses: Vec<String> =
        view.delivered.iter().filter_map(|d| d.outcome.as_ref().ok()).map(u16::to_string).collect();
    (!statuses.is_empty(), statuses.join(", "))
}

fn verified(view: &View<'_>) -> (bool, String) {
    let mut seen = Vec::new();
    let mut held = view.delivered.len() == 2;
    for Delivered { what, outcome, .. } in view.delivered {
        let (token, good) = match (what, outcome) {
            (Delivery::Right(back), Ok(status)) => ("right", *back && *status == 200),
            (Delivery::Wrong(back), Ok(status)) => ("wrong", !back && (400..500).contains(status)),
            (Delivery::Right(_), Err(_)) => ("right", false),
            (Delivery::Wrong(_) | Delivery::Event, _) => ("wrong", false),
        };
        held &= good;
        let status = outcome.as_ref().map_or_else(Clone::clone, u16::to_string);
        seen.push(format!("{token} token: {status}"));
    }
    (held, seen.join(", "))
}

fn pre_accepted(call: &Call) -> Seen {
    match (call.times.pre_accepted, call.since_told(call.times.pre_accept)) {
        (Some(_), Some(time)) => Ok(Fact::Time(time)),
        (None, Some(_)) => Err("it was refused".to_owned()),
        _ => Err("it never came".to_owned()),
    }
}

fn connected_first(call: &Call) -> Seen {
    match (call.times.connected, call.times.accept) {
        (Some(connected), Some(accept)) if connected <= accept => {
            Ok(Fact::Time(call.since_told(Some(connected)).unwrap_or_default()))
        }
        (Some(_), Some(_)) => Err("accept came before".to_owned()),
        (None, _) => Err("media was never connected".to_owned()),
        (_, None) => Err("accept never came".to_owned()),
    }
}

fn accepted(call: &Call) -> Seen {
    match (call.times.accepted, call.since_told(call.times.accept)) {
        (Some(_), Some(time)) => Ok(Fact::Time(time)),
        (None, Some(_)) => Err("it was refused".to_owned()),
        _ => Err("it never came".to_owned()),
    }
}

fn silent(call: &Call) -> Seen {
    let after = |at: Option<Instant>| Some(at?.saturating_duration_since(call.times.accepted?));
    match (call.counts.early_packets, after(call.times.audio)) {
        (0, Some(time)) => Ok(Fact::Time(time)),
        (0, None) => Err("no audio came at all".to_owned()),
        (packets, _) => Err(format!("{packets} packets came before")),
    }
}

fn heard(call: &Call) -> Seen {
    match (call.times.voice, call.times.accepted) {
        (Some(voice), Some(accepted)) => Ok(Fact::Time(voice.saturating_duration_since(accepted))),
        _ => Err("none was heard".to_owned()),
    }
}

fn heard_back(call: &Call) -> Seen {
    match (call.times.spoke, call.times.heard_back) {
        (Some(spoke), Some(back)) => Ok(Fact::Time(back.saturating_duration_since(spoke))),
        (Some(_), None) => Err("none was heard".to_owned()),
        (None, _) => Err("the caller never came to speak".to_owned()),
    }
}

fn said_back(call: &Call) -> Seen {
    let percent = |likeness: f64| (100.0 * likeness).round() as u64;
    match call.said_back {
        Some(likeness) if likeness >= LIKENESS_MIN => Ok(Fact::Number(percent(likeness), "% alike")),
        Some(likeness) => Err(format!("{} % alike: something else", percent(likeness))),
        None => Err("the caller never came to speak".to_owned()),
    }
}

fn one_stream(call: &Call) -> Seen {
    match call.record.as_ref().map_or(0, |record| record.ssrcs.len()) {
        0 => Err("no audio came".to_owned()),
        1 => Ok(Fact::Word("one")),
        ssrcs => Err(format!("{ssrcs} SSRCs came")),
    }
}

fn nothing_lost(call: &Call) -> Seen {
    let Some(record) = &call.record else { return Err("no audio came".to_owned()) };
    let (heard, lost) = (record.rtp_heard(), record.rtp_lost());
    let percent = 100.0 * lost as f64 / (heard + lost).max(1) as f64;
    match percent {
        _ if heard == 0 => Err("no audio came".to_owned()),
        _ if percent <= LOSS_PERCENT_MAX => Ok(Fact::Number(lost, "lost")),
        _ => Err(format!("{lost} of {} were lost", heard + lost)),
    }
}

fn one_call(call: &Call) -> Seen {
    match call.counts.repeated {
        0 if call.counts.asked == 0 => Err("nothing was asked".to_owned()),
        0 => Ok(Fact::Number(call.counts.asked.into(), "requests")),
        repeated => Err(format!("{repeated} requests for what was done")),
    }
}

fn not_terminated(call: &Call) -> Seen {
    match (call.ender, call.counts.endings) {
        (Some(Ender::User), 0) => Ok(Fact::Word("the user ended it")),
        (Some(Ender::User), _) => Err("the bridge asked to end it, too".to_owned()),
        (Some(Ender::Bridge), _) => Err("the bridge ended it before the user".to_owned()),
        (Some(Ender::Client), _) => Err(format!(
            "Meta's client ended it ({})",
            call.failure.map_or("no answer".into(), |code| code.to_string())
        )),
        (Some(Ender::Simulator) | None, _) => Err("it was over by no one's doing".to_owned()),
    }
}

fn stopped(call: &Call) -> Seen {
    match (call.times.end_acknowledged, call.times.last_media) {
        (Some(_), None) => Err("no audio came".to_owned()),
        (Some(told), Some(last)) if last <= told + STOP_TIME_MAX => {
            Ok(Fact::Time(last.saturating_duration_since(told)))
        }
        (Some(_), Some(_)) => Err("it went on".to_owned()),
        (None, _) => Err("the webhook was not answered".to_owned()),
    }
}

/// Puts what was seen of each call together.
fn each(calls: &[Call], of: impl Fn(&Call) -> Seen) -> (bool, String) {
    let seen: Vec<Seen> = calls.iter().map(of).collect();
    let all = seen.len();
    let wrong: Vec<&String> = seen.iter().filter_map(|seen| seen.as_ref().err()).collect();
    if let Some(first) = wrong.first() {
        let of_all = if all == 1 { String::new() } else { format!(" ({} of {all} calls)", wrong.len()) };
        return (false, format!("{first}{of_all}"));
    }
    let facts: Vec<Fact> = seen.into_iter().flatten().collect();
    let mut times: Vec<Duration> =
        facts.iter().filter_map(|fact| if let Fact::Time(time) = fact { Some(*time) } else { None }).collect();
    times.sort_unstable();
    let of_all = if all <= 1 { String::new() } else { format!(", {all} of {all} calls") };
    let text = match (&times[..], facts.first()) {
        (_, None) => String::new(),
        ([time], _) => shown(*time),
        ([.., worst], _) => {
            format!("{} in the middle, {} at most{of_all}", shown(times[times.len() / 2]), shown(*worst))
        }
        ([], Some(Fact::Word(word))) => format!("{word}{of_all}"),
        ([], Some(Fact::Number(_, unit))) => {
            let sum: u64 = facts.iter().map(|fact| if let Fact::Number(n, _) = fact { *n } else { 0 }).sum();
            format!("{sum} {unit}{of_all}")
        }
        ([], Some(Fact::Time(_))) => unreachable!("times were collected above"),
    };
    (true, text)
}

/// A time for people: three digits that count.
pub(super) fn shown(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    match ms {
        _ if ms < 10.0 => format!("{ms:.2} ms"),
        _ if ms < 100.0 => format!("{ms:.1} ms"),
        _ if ms < 10_000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(outcomes: &[(Delivery, Result<u16, String>, u64)]) -> Vec<Delivered> {
        let delivered = |(what, outcome, ms): &(Delivery, Result<u16, String>, u64)| Delivered {
            what: *what,
            outcome: outcome.clone(),
            took: Duration::from_millis(*ms),
        };
        outcomes.iter().map(delivered).collect()
    }

    fn held(expect: Expect, outcomes: &[(Delivery, Result<u16, String>, u64)]) -> (bool, String) {
        let check = judge(expect, &View { calls: &[], delivered: &delivered(outcomes), posts: 0 });
        (check.held, check.seen)
    }

    #[test]
    fn webhooks_are_answered_all_and_soon_or_the_first_fault_is_said() {
        let answered = |status, ms| (Delivery::Event, Ok(status), ms);
        assert_eq!(held(Expect::WebhookAnswered, &[answered(200, 4)]), (true, "4.00 ms".into()));
        let two = held(Expect::WebhookAnswered, &[answered(200, 4), answered(200, 40)]);
        assert_eq!(two, (true, "40.0 ms at most, 2 of them".into()));
        assert!(!held(Expect::WebhookAnswered, &[answered(200, 4), answered(500, 4)]).0);
        assert!(held(Expect::WebhookAnswered, &[answered(200, 1_200)]).1.contains("only after 1200 ms"));
        assert!(!held(Expect::WebhookAnswered, &[]).0);
        assert!(!held(Expect::WebhookAnswered, &[(Delivery::Event, Err("cannot connect".into()), 1)]).0);
    }

    #[test]
    fn refusals_are_401_or_403_and_nothing_else() {
        let answered = |status| (Delivery::Event, Ok(status), 1);
        assert_eq!(held(Expect::WebhookRefused, &[answered(401), answered(403)]), (true, "401, 403".into()));
        assert!(!held(Expect::WebhookRefused, &[answered(200)]).0 && !held(Expect::WebhookRefused, &[]).0);
    }

    #[test]
    fn a_challenge_comes_back_for_the_right_token_alone() {
        let right = |back, status| (Delivery::Right(back), Ok(status), 1);
        let wrong = |back, status| (Delivery::Wrong(back), Ok(status), 1);
        assert!(held(Expect::Verified, &[right(true, 200), wrong(false, 403)]).0);
        for outcomes in [
            [right(false, 200), wrong(false, 403)],
            [right(true, 200), wrong(true, 200)],
            [right(true, 200), wrong(false, 200)],
            [right(true, 200), right(true, 200)],
        ] {
            assert_eq!(held(Expect::Verified, &outcomes).0, outcomes[1].0 == Delivery::Right(true), "{outcomes:?}");
        }
        assert!(!held(Expect::Verified, &[right(true, 200)]).0);
    }

    #[test]
    fn times_are_shown_with_the_digits_that_count() {
        let shown = |us| shown(Duration::from_micros(us));
        assert_eq!(
            [shown(1_234), shown(12_345), shown(1_234_567), shown(12_345_678)],
            ["1.23 ms", "12.3 ms", "1235 ms", "12.3 s"]
        );
    }
}
