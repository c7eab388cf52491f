//! What control, workers and the resolver say to each other: a few messages per HTTP request, never one per packet.
//!
//! Control numbers calls and remembers them by the webhook's id; a worker knows numbers only. Reports are plain data
//! with the names that the API shows, so that control serialises them without knowing what they mean.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::agent::AgentReport;
use crate::call::downlink::DownlinkReport;
use crate::call::uplink::UplinkReport;
use crate::call_id::{CallNumber, LogId};
use crate::close_reason::CloseReason;
use crate::config::Secret;
use crate::peer::PeerReport;
use crate::peer::sdp::Offer;
use crate::realtime::SessionSettings;
use crate::stats::{StageLatency, Stages, WorkerStats};
use crate::tls::Acceptor;
use crate::whatsapp;

/// Ties an answer to the question that control put to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Everything that travels between nodes.
#[derive(Debug)]
pub enum Message {
    /// Control to a worker.
    ToWorker(ToWorker),
    /// A worker to control.
    FromWorker {
        /// The sender's index.
        worker: u16,
        /// What it says.
        event: FromWorker,
    },
    /// A worker asks the resolver.
    Resolve(Resolve),
    /// The resolver answers.
    Resolved(Resolved),
    /// Control has news for the world.
    Event(Event),
    /// Control has news for the service manager.
    Notify(Notice),
    /// The signals' thread has read settings again, for control.
    Reload(Box<Reloaded>),
    /// Control asks Meta's Graph API; answered by `GraphAnswered`.
    AskGraph(GraphAsk),
    /// What came of it.
    GraphAnswered(GraphAnswer),
    /// Control passes a webhook on; answered by `Forwarded`.
    Forward(Parcel),
    /// A webhook that was passed on has been taken, or given up.
    Forwarded(Forwarded),
    /// Control notes what must outlive a crash.
    Note(Note),
}

/// A request to Meta's Graph API.
#[derive(Debug)]
pub struct GraphAsk {
    /// Which, for the answer.
    pub id: RequestId,
    /// What lies below the API's URL and version, with `/` in front.
    pub path: String,
    /// What goes along as `Authorization: Bearer`.
    pub token: Secret,
    /// JSON of a POST; `None`: a GET.
    pub body: Option<GraphBody>,
    /// Until when, the answer included. What is not on its way by then is not sent: whoever asked has given it up.
    pub until: Instant,
}

/// JSON that holds a call id and SDP: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct GraphBody(pub String);

impl std::fmt::Debug for GraphBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GraphBody({} bytes)", self.0.len())
    }
}

/// What the Graph API said, if it did.
#[derive(Debug)]
pub struct GraphAnswer {
    /// To which request.
    pub id: RequestId,
    /// When the request was handed to the client: what is before is ours, what is after is Meta's and the network's.
    pub begun: Instant,
    /// When the answer was whole.
    pub ended: Instant,
    /// Whether the request was sent twice: a kept connection ended without an answer, and Meta may have done what the first of the
    /// two asked.
    pub is_repeated: bool,
    /// The answer, or in words why there is none. Such words name the server and neither path nor token.
    pub outcome: Result<GraphReply, String>,
}

/// An answer of the Graph API.
#[derive(Clone, PartialEq, Eq)]
pub struct GraphReply {
    /// The status.
    pub status: u16,
    /// `Retry-After`, in seconds.
    pub retry_after_sec: Option<u64>,
    /// The body.
    pub body: String,
}

impl std::fmt::Debug for GraphReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GraphReply({}, {} bytes)", self.status, self.body.len())
    }
}

/// A webhook that goes on as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Whom it is about, hashed: parcels that share one stay in their order. With [`Parcel::ANYBODY`] among them it stays in order
    /// with all.
    pub senders: Vec<u64>,
    /// `X-Hub-Signature-256`, as it came.
    pub signature: String,
    /// `Content-Type`, as it came.
    pub content_type: String,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

impl Parcel {
    /// Stands among the senders of what is about more people than are told apart. No hash is it.
    pub const ANYBODY: u64 = 0;
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parcel({} bytes, {} senders)", self.body.len(), self.senders.len())
    }
}

/// The end of a parcel, which frees the room it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The length of its body.
    pub bytes: usize,
    /// Whether its receiver has taken it.
    pub taken: bool,
}

/// A line of the journal: what is to be known after a crash.
#[derive(Clone, PartialEq, Eq)]
pub enum Note {
    /// This is so, under this key. One line of text.
    Put(u64, String),
    /// It is so no longer.
    Remove(u64),
}

impl std::fmt::Debug for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Put(key, text) => write!(f, "Put({key}, {} bytes)", text.len()),
            Self::Remove(key) => write!(f, "Remove({key})"),
        }
    }
}

/// What SIGHUP has read again: nothing where no file is named, and the reason in words where it cannot be used.
#[derive(Debug)]
pub struct Reloaded {
    /// The certificate of the API.
    pub tls: Option<Result<Acceptor, String>>,
    /// The tokens of the API; at least one.
    pub api_tokens: Option<Result<Vec<Secret>, String>>,
    /// The phone numbers of WhatsApp, and the secrets that go with them.
    pub whatsapp: Option<Result<whatsapp::Settings, String>>,
}

/// What control tells a worker.
#[derive(Debug)]
pub enum ToWorker {
    /// Take this call; answered by `Answered` or `Refused`.
    Open(Box<OpenCall>),
    /// Media may start (`startMedia: manual`). Without effect when it has, or when the call is gone.
    Activate(CallNumber),
    /// End this call; answered by `Ended` unless it has ended already.
    Hangup(CallNumber, CloseReason),
    /// Report on one call; answered by `Described`.
    Describe(RequestId, CallNumber),
    /// Report on all calls; answered by `Listed`.
    List(RequestId),
    /// The histograms of one call; answered by `Latency`.
    Latency(RequestId, CallNumber),
    /// Counters and histograms; answered by `Stats`.
    Stats(RequestId),
    /// End every call in this way with [`CloseReason::ServerStopping`], answer `Stopped`, and be done. May be repeated.
    Stop(Ending),
    /// Answer `Pong`: a worker without calls does not turn by itself.
    Ping,
}

/// How calls are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Callers who hear us are told first: two tones, within [`GOODBYE_TIME_MAX`].
    Goodbye,
    /// Now.
    AtOnce,
}

/// A call whose goodbye takes longer is ended all the same: the tones are below a second, and this is room for a core that
/// is late with all of them.
pub const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);

/// A call to be taken.
#[derive(Debug)]
pub struct OpenCall {
    /// Its number.
    pub call: CallNumber,
    /// What logs call it.
    pub log_id: LogId,
    /// The peer's offer, parsed.
    pub offer: Offer,
    /// What the model shall be told.
    pub session: SessionSettings,
    /// When silence may start to flow.
    pub start_media: StartMedia,
    /// Its longest duration, in seconds.
    pub duration_sec_max: u32,
}

/// When media towards the caller may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartMedia {
    /// As soon as DTLS is up, plus the configured delay.
    Auto,
    /// On `POST …/activate`.
    Manual,
}

/// What a worker tells control.
#[derive(Debug)]
pub enum FromWorker {
    /// The call stands; this is the answer to its offer.
    Answered {
        /// Which.
        call: CallNumber,
        /// SDP, CRLF line ends.
        answer: String,
    },
    /// The call cannot be taken.
    Refused {
        /// Which.
        call: CallNumber,
        /// Why.
        why: OpenRefusal,
    },
    /// DTLS is up: media flows.
    Connected(CallNumber),
    /// The call is over; this is its last report, and these are its histograms.
    Ended(Box<CallReport>, Box<Stages>),
    /// A report that was asked for; `None` when the worker does not know the call (any more).
    Described(RequestId, Option<Box<CallReport>>),
    /// All calls of this worker.
    Listed(RequestId, Vec<CallReport>),
    /// The histograms that were asked for; `None` when the worker does not know the call (any more).
    Latency(RequestId, Option<Box<Stages>>),
    /// Counters and histograms of this worker.
    Stats(RequestId, Box<WorkerStats>),
    /// How loaded this worker is: some times a second while it has calls, and once after.
    Load(LoadReport),
    /// Every call is ended.
    Stopped,
    /// The answer to `Ping`.
    Pong,
}

/// How loaded a worker is. Shares are of its core, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// Calls, those being opened included.
    pub calls: u32,
    /// Share of the time in which the worker ran, smoothed over about a second.
    pub busy: f64,
    /// What it would be with the encoders' effort at its lowest.
    pub busy_at_floor: f64,
    /// What another call must be expected to take, with the encoders' effort at its lowest.
    pub call_cost: f64,
    /// Lateness of frames over the last second or two: the 99th percentile, microseconds.
    pub tick_late_p99_us: u64,
    /// Frames are late although the worker does not take its core: something else does.
    pub starved: bool,
    /// The encoders' complexity now.
    pub complexity: u8,
    /// What the worker's thread has run since its start, in nanoseconds.
    pub thread_ns: u64,
    /// Of that, in the kernel.
    pub kernel_ns: u64,
    /// Of that, encoding.
    pub encode_ns: u64,
    /// Of that, decoding.
    pub decode_ns: u64,
}

/// Why a worker does not take a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenRefusal {
    /// No media port is free, or the socket could not be opened: 503.
    NoPort(String),
    /// The offer cannot be answered: 400.
    Offer {
        /// The API's error code.
        code: &'static str,
        /// What is wrong and what to do.
        text: String,
    },
    /// The worker is stopping: 503.
    Stopping,
    /// A fault of ours: 500.
    Internal(String),
}

/// Where a call is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallState {
    /// Answered; ICE is looking for a path.
    Connecting,
    /// ICE has a path; DTLS is under way.
    Securing,
    /// DTLS is up; waits for `activate` or the start delay.
    Held,
    /// Media flows.
    Active,
    /// Over.
    Ended,
}

impl CallState {
    /// The states a live call can be in, for metrics.
    pub const LIVE: [Self; 4] = [Self::Connecting, Self::Securing, Self::Held, Self::Active];

    /// The label in metrics and the value in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Securing => "securing",
            Self::Held => "held",
            Self::Active => "active",
            Self::Ended => "ended",
        }
    }
}

/// One call, as `GET /api/sessions/{callId}` shows it. Durations in milliseconds, latencies in microseconds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallReport {
    /// Its number; control replaces it by the webhook's id.
    #[serde(skip)]
    pub call: CallNumber,
    /// Where it is in its life.
    pub state: CallState,
    /// Why it ended.
    #[serde(skip)]
    pub close: Option<CloseReason>,
    /// More on the end, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_detail: Option<String>,
    /// Since the worker took it, until now or its end.
    pub duration_ms: u64,
    /// Since DTLS came up; absent before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_ms: Option<u64>,
    /// From the answer to DTLS; absent before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<u64>,
    /// The WebRTC side.
    pub peer: PeerReport,
    /// Caller to model.
    pub uplink: UplinkReport,
    /// Model to caller.
    pub downlink: DownlinkReport,
    /// The model side.
    pub agent: AgentReport,
    /// Percentiles of the stages that have been measured.
    pub latency: Vec<StageLatency>,
}

impl CallReport {
    /// The report of a call of which nothing more is known.
    pub fn empty(call: CallNumber) -> Self {
        Self {
            call,
            state: CallState::Connecting,
            close: None,
            close_detail: None,
            duration_ms: 0,
            connected_ms: None,
            connect_us: None,
            peer: PeerReport::default(),
            uplink: UplinkReport::default(),
            downlink: DownlinkReport::default(),
            agent: AgentReport::default(),
            latency: Vec::new(),
        }
    }
}

/// A worker wants the addresses of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// Which worker.
    pub worker: u16,
    /// For which call.
    pub call: CallNumber,
    /// The name, or an address in text.
    pub host: Arc<str>,
    /// The port the addresses shall carry.
    pub port: u16,
}

/// The resolver's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// For which call.
    pub call: CallNumber,
    /// Addresses in the order to try, or the reason there is none.
    pub outcome: Result<Arc<[SocketAddr]>, String>,
}

/// What the service manager shall be told of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The process serves: at its start, and again after `Reloading`.
    Ready,
    /// One line on what it is doing.
    Status(String),
    /// It reads its settings again; `Ready` follows.
    Reloading,
    /// It takes no more work, and ends.
    Stopping {
        /// At the latest: a manager's own patience must not be shorter.
        within: Duration,
    },
    /// Every loop turns: the proof of life that a watchdog waits for.
    Alive,
}

/// What whoever listens shall be told of a call.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened, as the event's receiver reads it.
    pub name: &'static str,
    /// What logs call the call.
    pub log_id: LogId,
    /// The call, in JSON. It holds the call's id and metadata.
    pub call: Vec<u8>,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Event({}, {}, {} bytes)", self.name, self.log_id, self.call.len())
    }
}
