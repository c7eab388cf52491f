//! The model leg.

crate::report! {
    /// What passed between the model and us.
    AgentReport {
        /// Appends sent.
        appends,
        /// Audio deltas received.
        deltas,
        /// Bytes received.
        bytes_received,
        /// Bytes sent.
        bytes_sent,
        /// Responses the model finished.
        responses,
        /// Responses that failed or were incomplete.
        responses_failed,
        /// Barge-ins: the caller spoke over the model.
        barge_ins,
        /// Truncations sent.
        truncations,
        /// Error events that were harmless.
        errors_benign,
        /// Error events that were not.
        errors,
        /// Events of unknown type.
        unknown_events,
        /// Audio dropped before the session was ready, milliseconds.
        early_dropped_ms,
    }
}
