//! Joins WhatsApp Business voice calls (WebRTC, Opus) to a realtime speech model (OpenAI Realtime over WebSocket), with as
//! little added delay as physics allows, for as many calls as the codec allows.
//!
//! # Shape
//!
//! Everything is a **machine** ([`io::Machine`]): inputs and a time go in, outputs come out until it names its next
//! deadline. Machines own no socket, thread or clock. **Drivers** run them: `uring` in production, `epoll` where io_uring
//! is forbidden, tests by hand. Production, test and bench differ only in who calls.
//!
//! ```text
//!             HTTP session API            WhatsApp relay (ICE-lite)          realtime model
//!                    |                          |   UDP                         |   TCP/TLS
//!         +----------v---------+      +---------v-------------------------------v----------+
//!         | control (1 thread) |<====>| worker 0 (pinned): calls, each = peer leg + agent leg |
//!         +--------------------+ mail +------------------------------------------------------+
//!                    |          boxes | worker 1 (pinned) ...                                |
//!         +----------v---------+      +------------------------------------------------------+
//!         | resolver, events,  |         Meta: webhooks come to the API,
//!         | Graph API, webhook |         the Graph API is asked by its threads
//!         | forwarder, journal,|
//!         | supervisor         |
//!         +--------------------+
//! ```
//!
//! [`control`] owns the HTTP API and placement. [`worker`]s own calls; a call lives and dies on one core. They talk by
//! mailboxes, a few messages per HTTP request and never one per packet. A call ([`call`]) is two legs that never see each
//! other: [`peer`] (str0m) and [`agent`] (WebSocket), with the [`call::uplink`] and the [`call::downlink`] between them.
//!
//! # Decisions, and what they cost
//!
//! * **One UDP socket and port per call.** Many WhatsApp calls come from one relay address and port; before SRTP nothing
//!   else tells them apart. The kernel does the demultiplexing, and an attack on a port touches one call. It costs a port
//!   range in the firewall.
//! * **The uplink is driven by arrival, not by a playout clock.** A model takes audio whenever it comes, so packets in order
//!   wait for nothing. Only a gap waits, for a bounded time, and is then repaired or concealed.
//! * **The downlink runs on an absolute beat.** The far side plays by timestamp: every 20 ms of jitter of ours becomes delay
//!   there. Frames are encoded at the moment of sending, so that a barge-in flushes exactly.
//! * **Reading from the model never pauses**: the event that the caller speaks comes behind the audio it interrupts. A
//!   reply that is longer than the queue is cut off instead.
//! * **A turn of a worker's loop is short**: some hundred microseconds of packets, four calls' deadlines, a few messages. What
//!   a turn puts out reaches the kernel at its end, so a longer one makes the first frame wait for the last. A busy loop
//!   wakes at most once a collection window (half a millisecond) and serves what has gathered; an idle one wakes for each
//!   packet. The window costs up to itself in lateness, and saves two system calls of three at half load, five of six near the limit.
//! * **Effort follows load.** Encoding is most of what a call costs, and complexity 0 costs well under half of the default. A
//!   worker that fills up takes its encoders' effort down in steps, and up again when there has been room for a while. Quality
//!   is what it costs, for all calls of a full core alike, before any call is refused.
//! * **Admission is by load, not by count.** Control places a call on the core with the most room, counting the calls that
//!   are too young to show in it, and refuses it when no core has room at the least effort: at once, without asking a worker.
//! * **A panic ends one call.** It is caught at the worker's edge and counted.
//! * **An upgrade is a second process, not a new program in the old one.** A call never moves: its sockets, keys, decoder and
//!   model session are where they were opened. Two instances share the API's listening socket instead, the new one takes it over,
//!   and each passes on requests about calls that the other has (`control::handover`). It costs half of the media ports, and twice the
//!   memory for as long as calls last.
//! * **Nothing ends that can be waited for.** A signal is a drain: calls end by themselves, up to a bound, and those that are cut
//!   then hear it. The service manager's watchdog is fed only when control and every worker have turned.
//! * **A call at Meta is a machine of its own** ([`whatsapp::signalling`]): control opens and ends calls for it, helper threads
//!   carry its questions. Media connects while the phone rings, `accept` follows once it is up, and audio starts with its 200.
//!   Whatever fails, Meta is told: no phone rings on because of us. A journal on disk says what is alive there; it costs one write
//!   a call, which nobody waits for.
//! * **A webhook is answered before it is acted on**, and acted on once, in whichever order events come. What is no call event goes on
//!   to its receiver as it came. What cannot be taken now is refused, so that Meta keeps it: nothing is lost that was taken.
//! * **io_uring** saves system calls (a fraction of one per packet, against four), not CPU: at equal batching epoll costs
//!   the same. The codec is 80 to 92 % of a call.
//!
//! # What is measured
//!
//! [`stats::Stage`] lists the stretches of the path. Each value is recorded twice at once, in the call's histogram and in
//! its worker's: so nothing has to be merged when somebody asks, and what is asked about all calls is answered a few calls
//! a turn. `GET /api/latency`, `GET /api/sessions/{id}/latency` and `GET /metrics` show them.
//!
//! # Where things are named
//!
//! Each third-party protocol crate is named in one module, each module names only those that a table allows, and the
//! clock, sockets and threads are named in [`driver`] alone. `tests/architecture.rs` holds the table.
//!
//! The API speaks plain HTTP, or TLS where a certificate is configured ([`tls`]); what serves it ([`http`]) does not know which.

pub mod agent;
pub mod audio;
pub mod builtin;
pub mod call;
pub mod call_id;
pub mod capacity;
pub mod check;
pub mod close_reason;
pub mod config;
pub mod control;
pub mod doctor;
pub mod driver;
pub mod http;
pub mod io;
pub mod jitter;
pub mod latency;
pub mod load;
pub mod messages;
pub mod peer;
pub mod playout;
pub mod realtime;
pub mod relay;
pub mod report;
pub mod server;
pub mod simulator;
pub mod slab;
pub mod stats;
pub mod tls;
pub mod top;
pub mod whatsapp;
pub mod worker;
pub mod wss;
