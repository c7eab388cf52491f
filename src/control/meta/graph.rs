//! Questions to the Graph API and what comes of them; and the ones that keep its connections warm.

use std::time::{Duration, Instant};

use crate::io::{Node, Output};
use crate::messages::{GraphAnswer, GraphAsk, GraphBody, Message, ToWorker};
use crate::stats::Stage;
use crate::whatsapp::CallPolicy;
use crate::whatsapp::graph::{self, Action, Reply};

use super::super::Control;
use super::super::timers::Timer;

/// How often connections are used that no call uses: servers close idle ones, commonly after a minute.
const PROBE_EVERY: Duration = Duration::from_secs(25);
/// Connections kept warm: `pre_accept` of two calls that come at once.
const PROBES: usize = 2;
/// No call waits for a probe.
const PROBE_TIME_MAX: Duration = Duration::from_secs(10);

/// A question whose answer has not come. It always comes, since the threads give up what they were not in time for; how long a
/// call waits for it is its signalling's business.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// About a call, by its key.
    Call(u64, Action),
    /// About a number, by Meta's id of it.
    Probe(String),
}

/// What is known of the way to the Graph API.
#[derive(Debug, Default)]
pub(super) struct Probes {
    next: usize,
    /// What the log has said last of each number: nothing, or why it cannot be used.
    said: std::collections::BTreeMap<String, &'static str>,
}

impl Control {
    /// Asks for a call.
    pub(super) fn ask_graph(&mut self, now: Instant, key: u64, action: Action, time_max: Duration) {
        let id = self.request_id();
        if action == Action::Accept {
            // Without a good `pre_accept` the answer goes only with this.
            self.tell_line(key, ToWorker::BeginChecks);
        }
        let Some(line) = self.meta.as_ref().and_then(|meta| meta.lines.get(&key)) else { return };
        let answer = match action {
            Action::PreAccept | Action::Accept => self.answer_of(line.call),
            Action::Reject | Action::Terminate => None,
        };
        let (path, body) = graph::request(&line.phone_number_id, &line.id, action, answer);
        let Some(meta) = &mut self.meta else { return };
        let Some(line) = meta.lines.get(&key) else { return };
        let token = meta.token(line);
        let Some(line) = meta.lines.get_mut(&key) else { return };
        line.ask = Some(id);
        line.record.asked();
        meta.asks.insert(id, Ask::Call(key, action));
        let ask = GraphAsk { id, path, token, body: Some(GraphBody(body)), until: now + time_max };
        self.outputs.push_back(Output::Message { to: Node::Graph, message: Message::AskGraph(ask) });
    }

    /// The Graph API has answered, or has not.
    pub(in crate::control) fn graph_answered(&mut self, now: Instant, answer: &GraphAnswer) {
        match self.meta.as_mut().and_then(|meta| meta.asks.remove(&answer.id)) {
            Some(Ask::Call(key, action)) => {
                let reply = graph::read(&answer.outcome);
                let is_done = self.replied(now, key, action, answer, &reply);
                self.count_request(action.label(), if is_done { "ok" } else { label(&reply) });
            }
            Some(Ask::Probe(number)) => {
                let reply = graph::read_probe(&answer.outcome);
                self.count_request("probe", label(&reply));
                self.probed(&number, label(&reply), &reply);
            }
            None => {}
        }
    }

    fn count_request(&mut self, action: &'static str, outcome: &'static str) {
        *self.stats.meta.requests.entry((action, outcome)).or_default() += 1;
    }

    /// Whether what was asked is done, be it that Meta says so in a refusal.
    fn replied(&mut self, now: Instant, key: u64, action: Action, answer: &GraphAnswer, reply: &Reply) -> bool {
        let is_done = *reply == Reply::Done;
        // What was given up as lost is no question's answer any more.
        let Some(line) = self.line_mut(key).filter(|line| line.ask == Some(answer.id)) else { return is_done };
        let log_id = line.log_id;
        line.ask = None;
        let us = now.saturating_duration_since(answer.begun).as_micros() as u64;
        let before = line.signalling.timings();
        if answer.is_repeated {
            line.signalling.repeated();
        }
        line.signalling.replied(now, answer.begun, reply);
        let after = line.signalling.timings();
        let is_done_by_now = match action {
            Action::PreAccept => before.pre_accepted.is_none() && after.pre_accepted.is_some(),
            Action::Accept => before.accepted.is_none() && after.accepted.is_some(),
            Action::Reject | Action::Terminate => false,
        };
        match reply {
            Reply::Done => tracing::debug!(call = %log_id, action = action.label(), us, "Meta has done it"),
            Reply::Refused(refused) if is_done_by_now => {
                let code = refused.error.code;
                tracing::info!(call = %log_id, action = action.label(), code, "Meta says that it is done already");
            }
            Reply::Refused(refused) => {
                line.record.refused(action, refused);
                let (code, text, advice) = (refused.error.code, &refused.error.text, refused.meaning.advice);
                tracing::warn!(call = %log_id, action = action.label(), code, text, "Meta refuses: {advice}");
            }
            Reply::Unclear(why) => {
                line.record.not_heard(action, why);
                tracing::warn!(call = %log_id, action = action.label(), why, "Meta was not heard");
            }
        }
        let arrived = line.arrived;
        if before.pre_accept_sent.is_none()
            && let Some(sent) = after.pre_accept_sent
        {
            self.record_stage(Stage::PreAccept, sent);
        }
        if before.accept_sent.is_none()
            && let (Some(sent), Some(connected), Some(pre_accepted)) =
                (after.accept_sent, after.connected, after.pre_accepted)
        {
            // It may be sent once both are there; what is after the later of them is ours.
            self.record_stage(Stage::Accept, sent.saturating_sub(connected.max(pre_accepted)));
        }
        if before.accepted.is_none()
            && let Some(accepted) = after.accepted
        {
            self.record_stage(Stage::Ringing, accepted);
            let ms = now.saturating_duration_since(arrived).as_millis() as u64;
            tracing::info!(call = %log_id, ms, "WhatsApp call accepted");
        }
        // From here on the relay may have our answer, or a lost reply of Meta's may have said so.
        if action == Action::PreAccept && !matches!(reply, Reply::Refused(_) if !is_done_by_now) {
            self.tell_line(key, ToWorker::BeginChecks);
        }
        self.follow(now, key);
        is_done || is_done_by_now
    }

    /// Asks about every number, and then about some at a time.
    pub(in crate::control) fn probe_all(&mut self, now: Instant) {
        let Some(meta) = &self.meta else { return };
        let numbers: Vec<String> = meta.numbers.keys().cloned().collect();
        // At least as many as connections are to be warm.
        let least = if numbers.is_empty() { 0 } else { PROBES };
        let count = numbers.len().max(least);
        numbers.iter().cycle().take(count).for_each(|number| self.probe(now, number));
        self.timers.arm(now + PROBE_EVERY, Timer::GraphProbe);
    }

    /// Uses connections, so that they are warm when a call comes, and sees whether numbers and tokens belong together.
    pub(in crate::control) fn probe_some(&mut self, now: Instant) {
        let Some(meta) = &mut self.meta else { return };
        let numbers: Vec<String> = meta.numbers.keys().cloned().collect();
        let first = meta.probes.next;
        meta.probes.next = (first + PROBES) % numbers.len().max(1);
        numbers.iter().cycle().skip(first).take(PROBES).for_each(|number| self.probe(now, number));
        self.timers.arm(now + PROBE_EVERY, Timer::GraphProbe);
    }

    fn probe(&mut self, now: Instant, number: &str) {
        let id = self.request_id();
        let Some(meta) = &mut self.meta else { return };
        let Some(found) = meta.numbers.get(number).filter(|number| number.calls != CallPolicy::Ignore) else { return };
        let (path, token) = (graph::probe_path(number), found.token.clone());
        meta.asks.insert(id, Ask::Probe(number.to_owned()));
        let ask = GraphAsk { id, path, token, body: None, until: now + PROBE_TIME_MAX };
        self.outputs.push_back(Output::Message { to: Node::Graph, message: Message::AskGraph(ask) });
    }

    /// Says once what a number's owner must know, and once that it is well again.
    fn probed(&mut self, number: &str, outcome: &'static str, reply: &Reply) {
        let Some(meta) = &mut self.meta else { return };
        let name = meta.numbers.get(number).map(|number| number.name.clone());
        let before = meta.probes.said.insert(number.to_owned(), outcome);
        if before == Some(outcome) {
            return;
        }
        match reply {
            Reply::Done => tracing::info!(phone_number = name, "the Graph API knows the number and takes its token"),
            Reply::Refused(refused) => {
                let (code, text) = (refused.error.code, &refused.error.text);
                tracing::error!(phone_number = name, code, text, "the Graph API refuses: {}", refused.meaning.advice);
            }
            Reply::Unclear(why) => tracing::warn!(phone_number = name, "the Graph API is not heard: {why}"),
        }
    }
}

/// The word for a reply in metrics.
fn label(reply: &Reply) -> &'static str {
    match reply {
        Reply::Done => "ok",
        Reply::Refused(refused) => refused.meaning.label,
        Reply::Unclear(_) => "unclear",
    }
}
