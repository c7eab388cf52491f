//! Caller to model.

crate::report! {
    /// What happened to the caller's packets.
    UplinkReport {
        /// Audio packets inserted.
        packets,
        /// Packets that came after their place was concealed or passed.
        late,
        /// Packets whose place was taken already.
        duplicates,
        /// Packets too far ahead or behind to be part of the stream.
        out_of_range,
        /// Packets that never came in time.
        lost,
        /// Lost packets repaired by in-band FEC.
        fec,
        /// Lost packets concealed by expansion.
        expanded,
        /// Packets that libopus refused; concealed.
        undecodable,
        /// DTMF packets, which take places in the audio's sequence.
        events,
        /// Audio handed to the model, milliseconds.
        appended_ms,
        /// Silence put in where the wire was silent, milliseconds.
        silence_ms,
        /// Silence put in beyond the RTP timeline (the wire stalled and then caught up), milliseconds.
        stall_fill_ms,
    }
}
