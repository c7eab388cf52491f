//! Latency histograms and counters of calls and workers.
//!
//! A stage is a stretch of the path a packet or a turn takes (the table in the crate's documentation). Each call records
//! its own, and at the same moment its worker does, so that nothing has to be gathered from calls when somebody asks.
//! Values are microseconds. This file must not know where the values come from.

mod histogram;
mod interchange;
mod prometheus;
mod stages;

use serde::Serialize;

use crate::agent::{AgentReport, Step};
use crate::call::downlink::DownlinkReport;
use crate::call::uplink::UplinkReport;
use crate::close_reason::CloseReason;
use crate::messages::CallState;
use crate::peer::PeerReport;

/// What a histogram counts with: 32 or 64 bits.
pub use hdrhistogram::Counter as Count;
pub use histogram::{Distribution, Grain, Histogram, LATENCY_US_MAX, Percentiles};
pub use interchange::{PackedStages, interval_log, percentile_text};
pub use prometheus::{
    BuildInfo, ControlStats, CounterReader, Handshakes, MetaStats, ProcessReader, ProcessStats, Reader, Reloads,
    WorkerLoad, render,
};
pub use stages::{RECENT, Recorder, StageDistribution, StageLatency, Stages};

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $help:literal;)*) => {
        /// A stretch of the path whose time is measured.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Stage {
            $($(#[$doc])* $name,)*
        }

        impl Stage {
            /// Every stage, in the order of the path.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word in metrics and in the API.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// From where to where, for the metrics' help text.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help,)* }
            }
        }
    };
}

stages! {
    /// RTP packet received by the kernel, to its append handed to the kernel.
    Uplink = "uplink", "RTP packet received by the kernel, to its append handed to the kernel";
    /// RTP packet inserted, to its decoding.
    JitterWait = "jitter_wait", "RTP packet inserted into the jitter buffer, to its decoding";
    /// First delta of a reply read, to its first RTP packet handed to the kernel.
    Downlink = "downlink", "First delta of a reply read, to its first RTP packet handed to the kernel";
    /// A paced frame's due time, to its packet handed to the kernel.
    TickLate = "tick_late", "Due time of a paced frame, to its packet handed to the kernel";
    /// The model says the caller stopped speaking, to the first RTP packet of the reply.
    Response = "response", "Model says the caller stopped speaking, to the first RTP packet of the reply";
    /// The model says the caller started speaking, to the last RTP packet of the old reply being behind us.
    BargeIn = "barge_in", "Model says the caller started speaking, to the last RTP packet of the old reply";
    /// Session request read, to its answer written.
    Setup = "setup", "Session request read, to its answer written";
    /// Answer written, to DTLS connected.
    Connect = "connect", "Answer written, to DTLS connected";
    /// Connect webhook read, to `pre_accept` handed to the HTTP client.
    PreAccept = "pre_accept", "Meta's connect webhook read, to pre_accept handed to the HTTP client";
    /// Media up and `pre_accept` done, to `accept` handed to the HTTP client.
    Accept = "accept", "Media up and pre_accept done, to accept handed to the HTTP client";
    /// Connect webhook read, to `accept` done: as long as the phone rings because of us.
    Ringing = "ringing", "Meta's connect webhook read, to accept done";
    /// One pass of a worker's loop, waiting excluded.
    Turn = "turn", "One pass of a worker's loop, waiting excluded";
}

/// What is so now, of one call or summed over several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Calls by state, in the order of [`CallState::LIVE`].
    pub live: [u64; CallState::LIVE.len()],
    /// Connections to the model by how far they are, in the order of [`Step::ALL`].
    pub model: [u64; Step::ALL.len()],
    /// Audio of the model that waits to be played, milliseconds.
    pub playout_queued_ms: u64,
    /// Packets that wait in jitter buffers.
    pub jitter_packets: u64,
    /// Bytes for the model that the kernel has not taken.
    pub model_unwritten_bytes: u64,
}

impl Gauges {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.live.iter_mut().zip(other.live).for_each(|(mine, theirs)| *mine += theirs);
        self.model.iter_mut().zip(other.model).for_each(|(mine, theirs)| *mine += theirs);
        self.playout_queued_ms += other.playout_queued_ms;
        self.jitter_packets += other.jitter_packets;
        self.model_unwritten_bytes += other.model_unwritten_bytes;
    }
}

/// What one worker counted, or the sum of several.
#[derive(Clone, Debug, Default)]
pub struct WorkerStats {
    /// Sums over live calls.
    pub gauges: Gauges,
    /// Calls taken since the start.
    pub opened: u64,
    /// Calls ended since the start, in the order of [`CloseReason::ALL`].
    pub ended: Vec<u64>,
    /// Calls that panicked; each is also in `ended`.
    pub panics: u64,
    /// Datagrams that belonged to no live call.
    pub stray_datagrams: u64,
    /// Sends that the kernel refused.
    pub send_failures: u64,
    /// Sums over live and ended calls.
    pub peer: PeerReport,
    /// Sums over live and ended calls.
    pub uplink: UplinkReport,
    /// Sums over live and ended calls.
    pub downlink: DownlinkReport,
    /// Sums over live and ended calls.
    pub agent: AgentReport,
    /// Over live and ended calls.
    pub stages: Stages<u64>,
    /// The same of the last [`RECENT`], or up to two of them.
    pub recent: Stages<u64>,
}

impl WorkerStats {
    /// Adds what another worker counted.
    pub fn merge(&mut self, other: &Self) {
        self.gauges.add(&other.gauges);
        self.opened += other.opened;
        self.ended.resize(CloseReason::ALL.len(), 0);
        self.ended.iter_mut().zip(&other.ended).for_each(|(mine, theirs)| *mine += theirs);
        self.panics += other.panics;
        self.stray_datagrams += other.stray_datagrams;
        self.send_failures += other.send_failures;
        self.peer.add(&other.peer);
        self.uplink.add(&other.uplink);
        self.downlink.add(&other.downlink);
        self.agent.add(&other.agent);
        self.stages.merge(&other.stages);
        self.recent.merge(&other.recent);
    }
}
