//! What was found: a table for people, JSON for programs.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::relay::record::Record;

use super::call::{Call, Ender};
use super::expect::Check;
use super::scenario::Scenario;

/// Scenarios that are kept; only who serves for days has more.
const SCENARIOS_MAX: usize = 1_024;

/// A run, scenario by scenario.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Everything that was asked for ran, and held, and nothing was asked of the Graph API that belongs to no call.
    pub passed: bool,
    /// Whether a signal ended it early.
    pub interrupted: bool,
    /// Why it ended without running, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Scenarios that held.
    pub held: usize,
    /// Scenarios that ended.
    pub ran: usize,
    /// The last of them, in the order in which they ended.
    pub scenarios: Vec<ScenarioReport>,
    /// Requests to the Graph API that belong to no call of a scenario: what was refused, each once.
    pub strays: Vec<String>,
}

/// A scenario.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScenarioReport {
    /// Its name.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    /// How sure it is that Meta behaves so.
    pub certainty: &'static str,
    /// Every check held.
    pub held: bool,
    /// How long it took.
    pub seconds: f64,
    /// What it was held to.
    pub checks: Vec<Check>,
    /// Its calls.
    pub calls: Vec<CallReport>,
    /// What else was seen.
    pub notes: Vec<String>,
}

/// A call. Times are in milliseconds; those without another word count from when the connect webhook was sent.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallReport {
    /// Its id.
    pub id: String,
    /// The webhook was answered.
    pub webhook_answered_ms: Option<f64>,
    /// `pre_accept` came.
    pub pre_accept_ms: Option<f64>,
    /// The answer was applied at the relay.
    pub applied_ms: Option<f64>,
    /// DTLS was connected.
    pub connected_ms: Option<f64>,
    /// `accept` came.
    pub accept_ms: Option<f64>,
    /// `accept` was done.
    pub accepted_ms: Option<f64>,
    /// From `accept`'s being done to the first audio.
    pub first_audio_ms: Option<f64>,
    /// From `accept`'s being done to the first voice.
    pub first_voice_ms: Option<f64>,
    /// What of all this the bridge took: to `pre_accept`, from connected to `accept`, and from there to audio.
    pub own_ms: Option<[f64; 3]>,
    /// ICE and DTLS: from the answer's being applied to connected. The bridge's checks and flights set the pace.
    pub connecting_ms: Option<f64>,
    /// It was over.
    pub ended_ms: Option<f64>,
    /// How like the caller's words something is that the caller heard afterwards, by its loudness: 0 to 1.
    pub said_back: Option<f64>,
    /// Who ended it: `user`, `bridge`, `client` (Meta's, for want of an answer or of media) or `simulator`.
    pub ended_by: Option<&'static str>,
    /// Meta's code, where its client ended it.
    pub failure: Option<u32>,
    /// RTP packets from the bridge.
    pub received: u64,
    /// RTP packets from it that never came.
    pub lost: u64,
    /// RTP packets to it.
    pub sent: u64,
    /// SSRCs of its packets.
    pub ssrcs: usize,
    /// The longest time without an RTP packet of it, from the first to the end.
    pub longest_gap_ms: f64,
}

impl CallReport {
    pub(super) fn of(call: &Call) -> Self {
        let times = &call.times;
        let told = |at: Option<Instant>| call.since_told(at).map(ms);
        let between = |from: Option<Instant>, to: Option<Instant>| Some(to?.saturating_duration_since(from?));
        let record = call.record.as_ref();
        Self {
            id: call.id.clone(),
            webhook_answered_ms: told(times.acknowledged),
            pre_accept_ms: told(times.pre_accept),
            applied_ms: told(times.applied),
            connected_ms: told(times.connected),
            accept_ms: told(times.accept),
            accepted_ms: told(times.accepted),
            first_audio_ms: between(times.accepted, times.audio).map(ms),
            first_voice_ms: between(times.accepted, times.voice).map(ms),
            own_ms: own(call).map(|parts| parts.map(ms)),
            connecting_ms: between(times.applied, times.connected).map(ms),
            ended_ms: told(times.ended),
            said_back: call.said_back.map(|likeness| (100.0 * likeness).round() / 100.0),
            ended_by: call.ender.map(|ender| match ender {
                Ender::User => "user",
                Ender::Bridge => "bridge",
                Ender::Client => "client",
                Ender::Simulator => "simulator",
            }),
            failure: call.failure,
            received: record.map_or(0, Record::rtp_heard),
            lost: record.map_or(0, Record::rtp_lost),
            sent: record.map_or(0, Record::rtp_sent),
            ssrcs: record.map_or(0, |record| record.ssrcs.len()),
            longest_gap_ms: ms(call.gap),
        }
    }
}

/// What the bridge itself took: to `pre_accept`, from connected to `accept`, from its 200 to audio. `None` for a call that
/// was accepted before it was connected.
fn own(call: &Call) -> Option<[Duration; 3]> {
    let times = &call.times;
    let (told, connected, accept) = (times.told?, times.connected?, times.accept?);
    let ready = connected.max(times.pre_accepted?);
    let first = times.pre_accept?.saturating_duration_since(told);
    let audio = times.audio?.saturating_duration_since(times.accepted?);
    (ready <= accept).then(|| [first, accept - ready, audio])
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1000.0
}

impl ScenarioReport {
    pub(super) fn new(
        scenario: &'static Scenario,
        took: Duration,
        checks: Vec<Check>,
        calls: &[Call],
        notes: Vec<String>,
    ) -> Self {
        Self {
            name: scenario.name,
            about: scenario.about,
            certainty: scenario.certainty.label(),
            held: checks.iter().all(|check| check.held),
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
            checks,
            calls: calls.iter().map(CallReport::of).collect(),
            notes,
        }
    }

    /// What the bridge itself took, median over calls: the whole and its parts.
    fn own(&self) -> Option<(f64, [f64; 3])> {
        let mut all: Vec<[f64; 3]> = self.calls.iter().filter_map(|call| call.own_ms).collect();
        let sum = |parts: &[f64; 3]| parts.iter().sum::<f64>();
        all.sort_by(|one, two| sum(one).total_cmp(&sum(two)));
        let middle = *all.get(all.len() / 2)?;
        Some((sum(&middle), middle))
    }

    /// How long ICE and DTLS took, median over calls.
    fn connecting(&self) -> Option<f64> {
        let mut all: Vec<f64> = self.calls.iter().filter_map(|call| call.connecting_ms).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }
}

impl fmt::Display for ScenarioReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.held { "held" } else { "DID NOT HOLD" };
        writeln!(f, "{}: {verdict} ({:.1} s, {} at Meta)", self.name, self.seconds, self.certainty)?;
        writeln!(f, "  {}", self.about)?;
        for check in &self.checks {
            writeln!(f, "{check}")?;
        }
        if let Some((sum, [first, second, third])) = self.own() {
            writeln!(f, "         the bridge's own time: {sum:.1} ms = {first:.1} from the webhook to pre_accept +")?;
            writeln!(f, "         {second:.1} from connected to accept + {third:.1} from accept's 200 to audio")?;
        }
        if let Some(connecting) = self.connecting() {
            writeln!(f, "         ICE and DTLS: {connecting:.1} ms from the answer's being applied to connected")?;
        }
        for note in &self.notes {
            writeln!(f, "   note  {note}")?;
        }
        Ok(())
    }
}

impl Report {
    /// Takes what a scenario found. Of very many the oldest are only counted.
    pub(super) fn take(&mut self, report: ScenarioReport) {
        self.held += usize::from(report.held);
        self.ran += 1;
        if self.scenarios.len() == SCENARIOS_MAX {
            self.scenarios.remove(0);
        }
        self.scenarios.push(report);
    }

    pub(super) fn concluded(mut self, asked: usize) -> Self {
        self.passed = self.error.is_none() && !self.interrupted && self.held == asked && self.strays.is_empty();
        self
    }

    /// The report for programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and strings are JSON")
    }

    /// The last line.
    pub fn verdict(&self) -> String {
        match &self.error {
            Some(error) => format!("it could not run: {error}"),
            None if self.interrupted => format!("interrupted; {} of {} held", self.held, self.ran),
            None if !self.strays.is_empty() => {
                format!("{} of {} held, but something was asked that belongs to no call", self.held, self.ran)
            }
            None => format!("{} of {} held", self.held, self.ran),
        }
    }
}

impl fmt::Display for Report {
    /// What follows behind the scenarios, which are shown as they end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stray in &self.strays {
            writeln!(f, "a request that belongs to no call was refused: {stray}")?;
        }
        writeln!(f, "{}", self.verdict())
    }
}
