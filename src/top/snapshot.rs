//! One look at a bridge: what its routes answered, read.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::call_id::CallId;
use crate::driver::fetch::{Client, Fetched};
use crate::latency::{Latencies, printable, refusal};

/// What the bridge said when it was asked once. Routes that an older one does not have are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub(super) calls: Vec<Call>,
    pub(super) workers: Option<Workers>,
    pub(super) latencies: Option<Latencies>,
    pub(super) drain: Option<Drain>,
}

/// Asks a bridge. The error is a sentence.
pub fn ask(client: &Client) -> Result<Snapshot, String> {
    let sessions: Sessions = get(client, "/api/sessions")?.ok_or("the server has no /api/sessions; is it a bridge?")?;
    let calls = sessions.sessions.iter().map(Call::of).collect();
    Ok(Snapshot {
        calls,
        workers: get(client, "/api/workers")?,
        latencies: get(client, "/api/latency")?,
        drain: get(client, "/api/drain")?,
    })
}

fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<Option<T>, String> {
    let Fetched { status, body } = client.get(path).map_err(|error| error.to_string())?;
    match status {
        200 => read(&body).map(Some),
        404 => Ok(None),
        _ => Err(refusal(status, &body, false)),
    }
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T, String> {
    serde_json::from_str(body).map_err(|error| format!("the answer is not what a bridge sends: {error}"))
}

/// One call, by the name that logs use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) worker: u64,
    pub(super) state: String,
    pub(super) age_ms: u64,
    pub(super) packets_in: u64,
    pub(super) packets_out: u64,
    pub(super) lost: u64,
    /// 99th percentiles in microseconds, in the order of [`STAGES`].
    pub(super) p99_us: [Option<u64>; STAGES.len()],
}

/// The stages that the list shows.
pub(super) const STAGES: [&str; 4] = ["uplink", "tick_late", "downlink", "response"];

impl Call {
    fn of(session: &Session) -> Self {
        let p99_us = STAGES.map(|name| {
            session.latency.iter().find(|stage| stage.stage == name && stage.count > 0).map(|stage| stage.p99_us)
        });
        Self {
            // The id itself decodes to phone numbers, and terminals are seen by those who stand behind.
            name: CallId::new(&session.call_id).map_or_else(|| "?".into(), |id| id.log_id().to_string()),
            worker: session.worker,
            state: printable(&session.state),
            age_ms: session.duration_ms,
            packets_in: session.uplink.packets,
            packets_out: session.downlink.packets,
            lost: session.uplink.lost,
            p99_us,
        }
    }

    /// Packets that did not come, in thousandths of those that should have.
    pub(super) fn loss_permille(&self) -> u64 {
        (self.lost * 1000).checked_div(self.packets_in.saturating_add(self.lost)).unwrap_or(0)
    }
}

#[derive(Deserialize)]
struct Sessions {
    sessions: Vec<Session>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Session {
    call_id: String,
    worker: u64,
    state: String,
    duration_ms: u64,
    uplink: Leg,
    downlink: Leg,
    latency: Vec<Percentiles>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Leg {
    packets: u64,
    lost: u64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Percentiles {
    stage: String,
    count: u64,
    p99_us: u64,
}

/// What `GET /api/workers` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Workers {
    pub(super) calls_max: u64,
    pub(super) workers: Vec<Worker>,
}

/// What `GET /api/drain` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Drain {
    pub(super) draining: bool,
    pub(super) calls: u64,
    pub(super) seconds_left: u64,
}

impl Snapshot {
    /// The drain under way, if one is.
    pub(super) fn draining(&self) -> Option<Drain> {
        self.drain.filter(|drain| drain.draining)
    }
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Worker {
    #[serde(rename = "worker")]
    pub(super) index: u64,
    pub(super) calls: u64,
    #[serde(rename = "busyRatio", deserialize_with = "percent")]
    pub(super) busy_percent: u8,
    pub(super) tick_late_p99_us: Option<u64>,
    pub(super) complexity: Option<u64>,
    pub(super) admits: bool,
}

fn percent<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    Ok((f64::deserialize(deserializer)? * 100.0).clamp(0.0, 100.0).round() as u8)
}

#[cfg(test)]
impl Snapshot {
    /// Reads answers' bodies, as [`ask`] does.
    pub(super) fn of(sessions: &str, workers: Option<&str>, latencies: Option<&str>) -> Self {
        let sessions: Sessions = read(sessions).unwrap();
        Self {
            calls: sessions.sessions.iter().map(Call::of).collect(),
            workers: workers.map(|body| read(body).unwrap()),
            latencies: latencies.map(|body| read(body).unwrap()),
            drain: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_by_its_hash_alone() {
        let id = "wacid.HBgLMTY1MDU1NTEyMzQ=";
        let snapshot = Snapshot::of(&format!(r#"{{"sessions":[{{"callId":"{id}"}},{{}}]}}"#), None, None);
        assert_eq!(snapshot.calls[0].name, "6248b1702d80");
        assert_eq!(snapshot.calls[1].name, "?");
        assert!(!format!("{snapshot:?}").contains(id));
    }

    #[test]
    fn what_was_never_measured_is_absent_and_loss_is_of_what_should_have_come() {
        let body = r#"{"sessions":[{"uplink":{"packets":95,"lost":5},"latency":[
            {"stage":"uplink","count":3,"p99Us":7},{"stage":"response","count":0,"p99Us":0}]},{}]}"#;
        let calls = Snapshot::of(body, None, None).calls;
        assert_eq!(calls[0].p99_us, [Some(7), None, None, None]);
        assert_eq!((calls[0].loss_permille(), calls[1].loss_permille()), (50, 0));
    }

    #[test]
    fn text_of_the_server_cannot_move_the_cursor() {
        let body = r#"{"sessions":[{"state":"act\u001b[2Jive"}]}"#;
        assert_eq!(Snapshot::of(body, None, None).calls[0].state, "act[2Jive");
    }

    #[test]
    fn a_busy_ratio_is_a_percentage_between_its_ends() {
        let body = r#"{"workers":[{"busyRatio":0.424},{"busyRatio":7},{"busyRatio":-1}]}"#;
        let workers = Snapshot::of(r#"{"sessions":[]}"#, Some(body), None).workers.unwrap().workers;
        assert_eq!(workers.iter().map(|worker| worker.busy_percent).collect::<Vec<_>>(), [42, 100, 0]);
    }
}
