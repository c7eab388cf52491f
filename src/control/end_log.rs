//! The line that the log has for the end of each call: why, how much, how fast.

use crate::call_id::LogId;
use crate::close_reason::CloseReason;
use crate::messages::CallReport;
use crate::stats::{Percentiles, Stage};

/// One line on how a call went. Latencies in microseconds, of the stages that were measured.
pub(super) fn log_end(log_id: LogId, report: &CallReport) {
    let reason = report.close.unwrap_or(CloseReason::InternalError);
    let of = |stage| report.latency.iter().find(|each| each.stage == stage).map(|each| each.percentiles);
    let (uplink, wait, late) = (of(Stage::Uplink), of(Stage::JitterWait), of(Stage::TickLate));
    let (downlink, response, barge_in) = (of(Stage::Downlink), of(Stage::Response), of(Stage::BargeIn));
    let p50 = |of: Option<Percentiles>| of.map(|of| of.p50_us);
    let p99 = |of: Option<Percentiles>| of.map(|of| of.p99_us);
    let max = |of: Option<Percentiles>| of.map(|of| of.max_us);
    tracing::info!(
        call = %log_id,
        number = report.call.0,
        %reason,
        blame = reason.blame().label(),
        detail = report.close_detail.as_deref(),
        duration_ms = report.duration_ms,
        connected_ms = report.connected_ms,
        packets_in = report.uplink.packets,
        lost = report.uplink.lost,
        packets_out = report.downlink.packets,
        played_ms = report.downlink.played_ms,
        responses = report.agent.responses,
        barge_ins = report.agent.barge_ins,
        connect_us = report.connect_us,
        uplink_p50_us = p50(uplink),
        uplink_p99_us = p99(uplink),
        uplink_max_us = max(uplink),
        jitter_wait_p50_us = p50(wait),
        jitter_wait_p99_us = p99(wait),
        jitter_wait_max_us = max(wait),
        downlink_p50_us = p50(downlink),
        downlink_p99_us = p99(downlink),
        downlink_max_us = max(downlink),
        tick_late_p50_us = p50(late),
        tick_late_p99_us = p99(late),
        tick_late_max_us = max(late),
        response_p50_us = p50(response),
        response_p99_us = p99(response),
        response_max_us = max(response),
        barge_in_p50_us = p50(barge_in),
        barge_in_p99_us = p99(barge_in),
        barge_in_max_us = max(barge_in),
        "call ended"
    );
}
