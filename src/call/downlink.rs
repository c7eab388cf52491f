//! Model to caller.

crate::report! {
    /// What was played to the caller.
    DownlinkReport {
        /// Packets sent.
        packets,
        /// Of these, packets of silence.
        silence_packets,
        /// Frames encoded.
        encoded,
        /// Audio received from the model, milliseconds.
        queued_ms,
        /// Audio of the model sent to the caller, milliseconds.
        played_ms,
        /// Audio thrown away on barge-in, milliseconds.
        flushed_ms,
        /// Audio dropped because the queue was full, milliseconds.
        dropped_ms,
        /// Frames whose due time had passed by more than a frame: skipped beats.
        skipped_beats,
    }
}
