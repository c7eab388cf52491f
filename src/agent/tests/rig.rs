//! An agent, the network as it sees it, and a scripted model at the other end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{Agent, AgentConfig, AgentEvent, AgentOutput, AgentReport, AgentSink, Attempt, CLOSE_WAIT, ItemId};
use crate::call_id::LogId;
use crate::close_reason::CloseReason;
use crate::config::Secret;
use crate::io::Fault;
use crate::realtime::SessionSettings;
use crate::wss;
use crate::wss::testing::{Server, entropy};

pub(super) const KEY: &str = "sk-test-0123456789";

/// An event, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Ready,
    Audio(ItemId, Vec<i16>),
    ItemDone(ItemId),
    SpeechStarted,
    SpeechStopped,
    ResponseDone,
    Closed(CloseReason, String),
}

#[derive(Default)]
pub(super) struct Recorder(pub(super) Vec<Told>);

impl AgentSink for Recorder {
    fn agent_event(&mut self, _: Instant, event: AgentEvent<'_>) {
        self.0.push(match event {
            AgentEvent::Ready => Told::Ready,
            AgentEvent::Audio { item, pcm } => Told::Audio(item, pcm.to_vec()),
            AgentEvent::ItemDone { item } => Told::ItemDone(item),
            AgentEvent::SpeechStarted => Told::SpeechStarted,
            AgentEvent::SpeechStopped => Told::SpeechStopped,
            AgentEvent::ResponseDone => Told::ResponseDone,
            AgentEvent::Closed { reason, detail } => Told::Closed(reason, detail),
        });
    }
}

pub(super) struct Rig {
    pub(super) agent: Agent,
    pub(super) now: Instant,
    pub(super) told: Recorder,
    pub(super) server: Server,
    /// Attempts in the order they were made.
    pub(super) connects: Vec<(Attempt, SocketAddr)>,
    pub(super) closes: Vec<Attempt>,
    /// Whether the model takes what is written.
    pub(super) reads: bool,
    /// Bytes written that the model has not taken.
    pub(super) unread: Vec<u8>,
}

pub(super) fn config(tls: Option<wss::Tls>) -> AgentConfig {
    AgentConfig {
        host: "localhost".into(),
        port: 443,
        path: "/v1/realtime".into(),
        tls,
        api_key: Some(Secret::new(KEY)),
        org_id: Some("org-1".into()),
        project_id: Some("proj_1".into()),
        entropy,
    }
}

pub(super) fn settings() -> SessionSettings {
    SessionSettings { model: "gpt-realtime-2.1".into(), ..SessionSettings::default() }
}

impl Rig {
    pub(super) fn with(config: AgentConfig, settings: SessionSettings, server: Server) -> Self {
        let now = Instant::now();
        let agent = Agent::new(now, LogId::default(), Arc::new(config), settings);
        Self {
            agent,
            now,
            told: Recorder::default(),
            server,
            connects: vec![],
            closes: vec![],
            reads: true,
            unread: vec![],
        }
    }

    pub(super) fn new(settings: SessionSettings) -> Self {
        Self::with(config(None), settings, Server::plain())
    }

    /// A session that is live, with what led there forgotten.
    pub(super) fn live(settings: SessionSettings) -> Self {
        let mut rig = Self::new(settings);
        rig.connect();
        rig.model(r#"{"type":"session.created","session":{"model":"gpt-realtime-2.1"}}"#);
        rig.model(r#"{"type":"session.updated","session":{}}"#);
        assert_eq!(rig.take(), [Told::Ready]);
        rig.sent();
        rig
    }

    pub(super) fn resolve(&mut self, addresses: &[&str]) {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.agent.handle_resolved(self.now, Ok(addresses.into()), &mut self.told);
        self.run();
    }

    /// Resolves, connects and upgrades.
    pub(super) fn connect(&mut self) {
        self.resolve(&["192.0.2.1:443"]);
        self.connected(Attempt(0));
    }

    pub(super) fn connected(&mut self, attempt: Attempt) {
        self.agent.handle_connected(self.now, attempt, &mut self.told);
        self.run();
    }

    pub(super) fn failed(&mut self, attempt: Attempt, errno: i32) {
        self.agent.handle_failed(self.now, attempt, Fault { errno }, &mut self.told);
        self.run();
    }

    pub(super) fn link(&self) -> Attempt {
        self.agent.link.expect("connected")
    }

    /// The model says this.
    pub(super) fn model(&mut self, text: &str) {
        self.server.send(text);
        self.run();
    }

    /// Carries everything both ways until all is at rest.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            while let Some(output) = self.agent.poll_output() {
                moved = true;
                match output {
                    AgentOutput::Resolve { .. } => {}
                    AgentOutput::Connect { attempt, to } => self.connects.push((attempt, to)),
                    AgentOutput::Write { attempt, bytes } => {
                        assert!(!self.closes.contains(&attempt), "written after its close");
                        if self.reads {
                            self.server.handle(&bytes);
                            self.agent.handle_written(attempt, bytes.len(), bytes);
                        } else {
                            self.unread.extend_from_slice(&bytes);
                        }
                    }
                    AgentOutput::Close { attempt } => {
                        assert!(!self.closes.contains(&attempt), "closed twice");
                        self.closes.push(attempt);
                    }
                }
            }
            let down = self.server.poll_write();
            if let (false, Some(link)) = (down.is_empty(), self.agent.link) {
                moved = true;
                self.agent.handle_received(self.now, link, &down, &mut self.told);
            }
            if !moved {
                return;
            }
        }
        panic!("never at rest");
    }

    /// Time passes, deadline by deadline.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..10_000 {
            match self.agent.deadline().at {
                Some(at) if at <= end => {
                    self.now = at.max(self.now);
                    self.agent.handle_timeout(self.now, &mut self.told);
                    self.run();
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("deadlines without end: {:?}", self.agent.deadline());
    }

    /// What was told since the last call.
    pub(super) fn take(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told.0)
    }

    /// What the model was sent since the last call.
    pub(super) fn sent(&mut self) -> Vec<Value> {
        self.run();
        std::mem::take(&mut self.server.received).iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    /// The types of what the model was sent since the last call.
    pub(super) fn sent_types(&mut self) -> Vec<String> {
        self.sent().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    /// The reason and the detail of the end.
    pub(super) fn end(&mut self) -> (CloseReason, String) {
        let ends: Vec<_> = self.take().into_iter().filter(|told| matches!(told, Told::Closed(..))).collect();
        let [Told::Closed(reason, detail)] = &ends[..] else { panic!("{ends:?}") };
        (*reason, detail.clone())
    }

    pub(super) fn report(&self) -> AgentReport {
        self.agent.report()
    }

    /// The leg is over, and every attempt made was closed.
    pub(super) fn assert_closed(&mut self) {
        self.run();
        self.pass(CLOSE_WAIT);
        assert!(self.agent.is_closed());
        let mut closes = self.closes.clone();
        closes.sort_unstable();
        assert_eq!(closes, self.connects.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>());
        assert_eq!(self.agent.deadline(), crate::io::Deadline::NEVER);
        assert!(self.agent.poll_output().is_none());
    }
}
