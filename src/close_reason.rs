//! Why a call ended: one enum for the log, the API and the metric label, ordered by who is to blame.

use std::fmt;

macro_rules! close_reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $blame:ident;)*) => {
        /// Why a call ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum CloseReason {
            $($(#[$doc])* $name,)*
        }

        impl CloseReason {
            /// Every reason, so that metrics show those that never happened as zero.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The label in metrics and the value in the API.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// Who is to blame.
            pub const fn blame(self) -> Blame {
                match self { $(Self::$name => Blame::$blame,)* }
            }
        }
    };
}

/// Who ended a call, or is at fault for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nobody: it was asked for.
    Nobody,
    /// The WebRTC side.
    Peer,
    /// The model's side.
    Upstream,
    /// A limit that is set.
    Limit,
    /// This program.
    Us,
}

impl Blame {
    /// The label in metrics and the value in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Peer => "peer",
            Self::Upstream => "upstream",
            Self::Limit => "limit",
            Self::Us => "us",
        }
    }
}

close_reasons! {
    /// `DELETE`, or `/bridge/stop`.
    Hangup = "hangup", Nobody;
    /// The peer closed the DTLS connection.
    PeerClosed = "peer_closed", Nobody;
    /// WhatsApp says that the call is over: the user hung up.
    Terminated = "terminated", Nobody;
    /// SIGTERM, or a drain whose time ran out.
    ServerStopping = "server_stopping", Nobody;
    /// No ICE pair within the limit after the answer: no UDP path, or the answer was never applied.
    IceTimeout = "ice_timeout", Peer;
    /// ICE connected, DTLS did not within the limit.
    DtlsTimeout = "dtls_timeout", Peer;
    /// The peer's certificate is not the one its offer announced, or DTLS failed for good.
    DtlsFailed = "dtls_failed", Peer;
    /// The peer's consent ran out: its host no longer answers checks.
    IceLost = "ice_lost", Peer;
    /// No packet of any kind for the limit. Where the peer's host is gone, consent runs out a moment before: `ice_lost`.
    PeerSilent = "peer_silent", Peer;
    /// WhatsApp says that the call failed.
    MetaFailed = "meta_failed", Peer;
    /// WhatsApp did not take our answer, or could not be reached in time.
    AcceptFailed = "accept_failed", Peer;
    /// The model closed the session.
    AgentClosed = "agent_closed", Upstream;
    /// The model's host name could not be resolved.
    AgentDns = "agent_dns", Upstream;
    /// No TCP connection to the model.
    AgentTcp = "agent_tcp", Upstream;
    /// TLS with the model failed.
    AgentTls = "agent_tls", Upstream;
    /// The model's server refused the WebSocket upgrade.
    AgentHttp = "agent_http", Upstream;
    /// The model refused the session, or broke its protocol.
    AgentSession = "agent_session", Upstream;
    /// The longest duration allowed is over.
    MaxDuration = "max_duration", Limit;
    /// A fault of ours: the call panicked or its codec could not be made.
    InternalError = "internal_error", Us;
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct_metric_words() {
        let mut labels: Vec<_> = CloseReason::ALL.iter().map(|reason| reason.label()).collect();
        assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), CloseReason::ALL.len());
    }
}
