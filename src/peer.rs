//! The WebRTC leg.

pub mod sdp;

crate::report! {
    /// What passed between the peer and us.
    PeerReport {
        /// Datagrams received.
        datagrams_received,
        /// Bytes received.
        bytes_received,
        /// Datagrams dropped: no ICE-validated source, or unknown kind.
        datagrams_unvalidated,
        /// Datagrams that the WebRTC stack refused.
        datagrams_refused,
        /// RTP packets received.
        rtp_received,
        /// Datagrams sent.
        datagrams_sent,
        /// Bytes sent.
        bytes_sent,
        /// DTMF digits heard.
        dtmf_digits,
    }
}
