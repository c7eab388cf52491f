//! What the reports' counters are called in metrics, and what they mean.
//!
//! A field that counts milliseconds (`…_ms`) is shown in seconds. `_total` is added to every name.

/// What every name begins with.
pub(super) const PREFIX: &str = "voice_media_bridge_";

/// One counter of a report.
pub(super) struct Row {
    /// The report's field.
    pub(super) field: &'static str,
    /// The metric, without prefix and `_total`.
    pub(super) name: &'static str,
    /// A sentence.
    pub(super) help: &'static str,
}

/// The counters of one report.
pub(super) type Table = &'static [Row];

macro_rules! table {
    ($($field:literal => $name:literal, $help:literal;)*) => {
        &[$(Row { field: $field, name: $name, help: $help }),*]
    };
}

pub(super) const PEER: Table = table! {
    "datagrams_received" => "peer_received_datagrams", "Datagrams received from callers.";
    "bytes_received" => "peer_received_bytes", "UDP payload bytes received from callers.";
    "datagrams_unvalidated" => "peer_unvalidated_datagrams",
        "Datagrams dropped because ICE had not validated their source, or their kind was unknown.";
    "datagrams_refused" => "peer_refused_datagrams", "Datagrams that the WebRTC stack refused.";
    "rtp_received" => "peer_rtp_received_packets", "RTP packets received.";
    "datagrams_sent" => "peer_sent_datagrams", "Datagrams sent to callers.";
    "bytes_sent" => "peer_sent_bytes", "UDP payload bytes sent to callers.";
    "errors" => "peer_errors", "Errors of the WebRTC stack that a call survived, those of single datagrams excluded.";
    "dtmf_digits" => "peer_dtmf_digits", "DTMF digits that callers pressed.";
};

pub(super) const UPLINK: Table = table! {
    "packets" => "uplink_packets", "Audio packets put into the jitter buffer.";
    "late" => "uplink_late_packets", "Audio packets that came after their place was concealed or passed.";
    "duplicates" => "uplink_duplicate_packets", "Audio packets whose place was taken already.";
    "out_of_range" => "uplink_out_of_range_packets", "Audio packets too far ahead or behind to be part of the stream.";
    "lost" => "uplink_lost_packets", "Audio packets that did not come in time.";
    "fec" => "uplink_fec_packets", "Lost packets repaired by in-band forward error correction.";
    "expanded" => "uplink_expanded_packets", "Lost packets concealed by expansion.";
    "undecodable" => "uplink_undecodable_packets", "Audio packets that libopus refused; they were concealed.";
    "events" => "uplink_event_packets", "DTMF packets, which take places in the audio's sequence.";
    "resyncs" => "uplink_resyncs", "Times the stream jumped and the jitter buffer began anew.";
    "appended_ms" => "uplink_appended_seconds", "Audio handed to the model.";
    "silence_ms" => "uplink_silence_seconds", "Silence put in where the wire was silent.";
    "stall_fill_ms" => "uplink_stall_fill_seconds",
        "Silence put in beyond the RTP timeline, where the wire stalled and then caught up.";
};

pub(super) const DOWNLINK: Table = table! {
    "packets" => "downlink_packets", "Audio packets sent to callers.";
    "silence_packets" => "downlink_silence_packets", "Audio packets sent to callers that carried silence.";
    "encoded" => "downlink_encoded_frames", "Frames that were encoded.";
    "queued_ms" => "downlink_queued_seconds", "Audio received from the model.";
    "played_ms" => "downlink_played_seconds", "Audio of the model sent to callers.";
    "flushed_ms" => "downlink_flushed_seconds", "Audio of the model thrown away on barge-in.";
    "dropped_ms" => "downlink_dropped_seconds", "Audio of the model dropped because the queue was full.";
    "underruns" => "downlink_underruns", "Times the model's audio ran out before its item had ended.";
    "skipped_beats" => "downlink_skipped_beats", "Beats skipped because their time had passed by more than a frame.";
};

pub(super) const AGENT: Table = table! {
    "appends" => "agent_appends", "Audio appends sent to the model.";
    "deltas" => "agent_audio_deltas", "Audio deltas received from the model.";
    "deltas_late" => "agent_late_audio_deltas",
        "Audio deltas dropped because the caller had spoken over them or the playout was full.";
    "bytes_received" => "agent_received_bytes", "TCP payload bytes received from the model.";
    "bytes_sent" => "agent_sent_bytes", "TCP payload bytes sent to the model.";
    "responses" => "agent_responses", "Responses that the model finished.";
    "responses_failed" => "agent_failed_responses", "Responses that failed or were incomplete.";
    "barge_ins" => "agent_barge_ins", "Times a caller spoke over the model.";
    "truncations" => "agent_truncations", "Truncations sent to the model.";
    "deletions" => "agent_deletions", "Items deleted from the conversation because nothing of them was heard.";
    "items_refused" => "agent_refused_items", "Items cut short because the playout was full.";
    "function_calls" => "agent_function_calls", "Function calls of the model that were answered.";
    "errors_benign" => "agent_benign_errors", "Error events of the model that were harmless.";
    "errors" => "agent_errors", "Error events of the model that were not harmless.";
    "unknown_events" => "agent_unknown_events", "Events of the model of unknown type.";
    "malformed_events" => "agent_malformed_events", "Messages of the model that were no event, or audio that was none.";
    "early_dropped_ms" => "agent_early_dropped_seconds", "Audio dropped before the model's session was ready.";
};
