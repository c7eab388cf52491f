//! Questions to the Graph API and what comes of them; and the ones that keep its connections warm.

use std::time::{Duration, Instant};

use crate::io::{Node, Output};
use crate::messages::{GraphAnswer, GraphAsk, GraphBody, Message, RequestId};
use crate::stats::Stage;
use crate::whatsapp::CallPolicy;
use crate::whatsapp::graph::{self, Action, Reply};

use super::super::Control;
use super::super::timers::Timer;

/// The threads behind the Graph API answer within the time they are given, and this much for their own queue. One that has
/// not by then never will, and the call must not wait for it.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(10);
/// How often connections are used that no call uses: servers close idle ones, commonly after a minute.
const PROBE_EVERY: Duration = Duration::from_secs(25);
/// Connections kept warm: `pre_accept` of two calls that come at once.
const PROBES: usize = 2;
/// A probe's answer is nobody's life.
const PROBE_TIME_MAX: Duration = Duration::from_secs(10);

/// A question under way.
#[derive(Debug)]
pub(super) struct Ask {
    about: About,
    until: Instant,
}

impl Ask {
    const fn is_probe(&self) -> bool {
        matches!(self.about, About::Probe(_))
    }
}

#[derive(Clone, Debug)]
enum About {
    /// A call, by its key.
    Call(u64, Action),
    /// A number, by Meta's id of it.
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
        line.ask = Some((id, action));
        line.record.asked();
        let until = now + time_max + QUEUE_TIME_MAX;
        meta.asks.insert(id, Ask { about: About::Call(key, action), until });
        self.timers.arm(until, Timer::GraphAsk(id));
        let ask = GraphAsk { id, path, token, body: Some(GraphBody(body)), time_max };
        self.outputs.push_back(Output::Message { to: Node::Graph, message: Message::AskGraph(ask) });
    }

    /// The Graph API has answered, or has not.
    pub(in crate::control) fn graph_answered(&mut self, now: Instant, answer: &GraphAnswer) {
        let is_probe = self.meta.as_ref().and_then(|meta| meta.asks.get(&answer.id)).is_some_and(Ask::is_probe);
        let reply = if is_probe { graph::read_probe(&answer.outcome) } else { graph::read(&answer.outcome) };
        self.graph_said(now, answer.id, answer.begun, &reply);
    }

    /// Its threads have not even said that there is no answer.
    pub(in crate::control) fn graph_timed_out(&mut self, now: Instant, id: RequestId) {
        tracing::error!("the Graph API's threads do not answer");
        self.graph_said(now, id, now, &Reply::Unclear("the Graph API's threads do not answer".to_owned()));
    }

    fn graph_said(&mut self, now: Instant, id: RequestId, begun: Instant, reply: &Reply) {
        let Some(Ask { about, until }) = self.meta.as_mut().and_then(|meta| meta.asks.remove(&id)) else { return };
        self.timers.disarm(until, Timer::GraphAsk(id));
        let outcome = match reply {
            Reply::Done => "ok",
            Reply::Refused(refused) => refused.meaning.label,
            Reply::Unclear(_) => "unclear",
        };
        let action = if let About::Call(_, action) = about { action.label() } else { "probe" };
        *self.stats.meta.requests.entry((action, outcome)).or_default() += 1;
        match about {
            About::Call(key, action) => self.replied(now, key, action, begun, reply),
            About::Probe(number) => self.probed(&number, outcome, reply),
        }
    }

    fn replied(&mut self, now: Instant, key: u64, action: Action, begun: Instant, reply: &Reply) {
        let Some(line) = self.line_mut(key) else { return };
        let log_id = line.log_id;
        line.ask = None;
        let us = now.saturating_duration_since(begun).as_micros() as u64;
        match reply {
            Reply::Done => tracing::debug!(call = %log_id, action = action.label(), us, "Meta has done it"),
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
        let before = line.signalling.timings();
        line.signalling.replied(now, begun, reply);
        let after = line.signalling.timings();
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
        self.follow(now, key);
    }

    /// Uses connections, so that they are warm when a call comes, and sees whether numbers and tokens belong together.
    pub(in crate::control) fn probe_graph(&mut self, now: Instant) {
        let Some(meta) = &mut self.meta else { return };
        let known: Vec<(String, _)> = (meta.numbers.iter())
            .filter(|(_, number)| number.calls != CallPolicy::Ignore)
            .map(|(id, number)| (id.clone(), number.token.clone()))
            .collect();
        if known.is_empty() {
            return;
        }
        let first = meta.probes.next;
        meta.probes.next = (first + PROBES) % known.len();
        for (number, token) in (first..first + PROBES).map(|index| known[index % known.len()].clone()) {
            let id = self.request_id();
            let path = graph::probe_path(&number);
            let until = now + PROBE_TIME_MAX + QUEUE_TIME_MAX;
            let Some(meta) = &mut self.meta else { return };
            meta.asks.insert(id, Ask { about: About::Probe(number), until });
            self.timers.arm(until, Timer::GraphAsk(id));
            let ask = GraphAsk { id, path, token, body: None, time_max: PROBE_TIME_MAX };
            self.outputs.push_back(Output::Message { to: Node::Graph, message: Message::AskGraph(ask) });
        }
        self.timers.arm(now + PROBE_EVERY, Timer::GraphProbe);
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
            Reply::Done => tracing::info!(number = name, "the Graph API knows the number and takes its token"),
            Reply::Refused(refused) => {
                let (code, text) = (refused.error.code, &refused.error.text);
                tracing::error!(number = name, code, text, "the Graph API refuses: {}", refused.meaning.advice);
            }
            Reply::Unclear(why) => tracing::warn!(number = name, "the Graph API is not heard: {why}"),
        }
    }
}
