//! What `GET /api/latency` says, read and shown: the `latency` command, and the figures above the list of `top`.
//!
//! Values are microseconds. The server's histograms count since its start; the difference of two answers is what
//! happened between them. This file must not know how an answer is fetched beyond asking for it.

use std::fmt::Write;

use serde::Deserialize;

use crate::driver::fetch::{Client, Fetched};

/// The latencies of a process or of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Latencies {
    /// How long the process has run, or the call has lasted, in milliseconds.
    pub uptime_ms: u64,
    /// The stages that were recorded, in the order of the path.
    pub stages: Vec<Stage>,
}

/// One stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stage {
    /// Its name.
    pub stage: String,
    /// Values recorded.
    pub count: u64,
    /// Median.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p999_us: u64,
    /// Largest.
    pub max_us: u64,
    /// Upper bounds and how many values are at most that. Bounds are the same in every answer, but for those at the ends
    /// that count nothing new.
    pub buckets: Vec<(u64, u64)>,
}

impl Latencies {
    /// Reads an answer's body.
    pub fn parse(body: &str) -> Result<Self, String> {
        serde_json::from_str(body).map_err(|error| format!("the answer is not what a bridge sends: {error}"))
    }

    /// A stage by its name.
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.stage == name)
    }

    /// Whether this answer is a later one of the same process.
    pub fn follows(&self, earlier: &Self) -> bool {
        self.uptime_ms >= earlier.uptime_ms
            && earlier.stages.iter().all(|old| self.stage(&old.stage).is_some_and(|new| new.count >= old.count))
    }
}

impl Stage {
    /// The 99th percentile of what came since an earlier answer, as its bucket's upper bound; `None` when nothing came.
    pub fn p99_us_since(&self, earlier: Option<&Self>) -> Option<u64> {
        let before = earlier.map_or(0, |earlier| earlier.count);
        let new = self.count.checked_sub(before).filter(|new| *new > 0)?;
        let rank = new - new / 100;
        let buckets = |stage: &Self, bound: u64| {
            stage.buckets.iter().rev().find(|(other, _)| *other <= bound).map_or(0, |(_, count)| *count)
        };
        let is_there = |(bound, count): &&(u64, u64)| {
            let before = earlier.map_or(0, |earlier| buckets(earlier, *bound));
            count.saturating_sub(before) >= rank
        };
        Some(self.buckets.iter().find(is_there).map_or(self.max_us, |(bound, _)| (*bound).min(self.max_us)))
    }
}

/// Asks for the latencies of the process, or of one call by the webhook's id, and returns what to print. `format`:
/// `table`, or one that the server writes itself. Errors are sentences.
pub fn report(client: &Client, call: Option<&str>, format: &str) -> Result<String, String> {
    let asked = if format == "table" { "json" } else { format };
    let path = match call {
        None => format!("/api/latency?format={asked}"),
        Some(call) => format!("/api/sessions/{}/latency?format={asked}", percent_encoded(call)),
    };
    let Fetched { status, body } = client.get(&path).map_err(|error| error.to_string())?;
    match status {
        200 if format == "table" => Ok(table(&Latencies::parse(&body)?)),
        200 => Ok(body),
        _ => Err(refusal(status, &body, call.is_some())),
    }
}

/// What a refusal means to whoever typed the command.
pub fn refusal(status: u16, body: &str, of_a_call: bool) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let said = serde_json::from_str::<Refusal>(body).map(|refusal| printable(&refusal.error)).unwrap_or_default();
    match status {
        401 | 403 => "the bridge refuses the token, or wants one: give it with --token or BRIDGE_API_TOKEN".into(),
        404 if of_a_call && said == "Session not found" => {
            "the bridge knows no call of this id: it is not live, and not among those that ended within the last hour"
                .into()
        }
        _ if said.is_empty() => format!("the server answers with status {status}; is it a voice-media-bridge?"),
        _ => format!("the bridge answers with status {status}: {said}"),
    }
}

/// Text of the server without what a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn percent_encoded(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(byte.into()),
            _ => {
                let _ = write!(path, "%{byte:02X}");
            }
        }
    }
    path
}

fn table(latencies: &Latencies) -> String {
    if latencies.stages.is_empty() {
        return "nothing was measured yet\n".into();
    }
    let mut text =
        format!("{:<12}{:>12}{:>9}{:>9}{:>9}{:>9}{:>9}\n", "stage", "count", "p50", "p90", "p99", "p99.9", "max");
    for stage in &latencies.stages {
        let _ = write!(text, "{:<12}{:>12}", printable(&stage.stage), stage.count);
        for us in [stage.p50_us, stage.p90_us, stage.p99_us, stage.p999_us, stage.max_us] {
            let _ = write!(text, "{:>9}", readable(us));
        }
        text.push('\n');
    }
    text
}

/// A latency as people read it: two or three digits and a unit.
pub fn readable(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..9_950 => format!("{:.1} ms", us as f64 / 1e3),
        9_950..999_500 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(count: u64, buckets: &[(u64, u64)]) -> Stage {
        Stage { stage: "uplink".into(), count, max_us: 5_000, buckets: buckets.to_vec(), ..Stage::default() }
    }

    #[test]
    fn the_difference_of_two_answers_is_what_came_between_them() {
        let old = stage(1000, &[(100, 990), (200, 1000)]);
        // 100 more, all between 400 and 800; bounds that count nothing new are left out at the low end.
        let new = stage(1100, &[(200, 1000), (400, 1000), (800, 1100)]);
        assert_eq!(new.p99_us_since(Some(&old)), Some(800));
        assert_eq!(new.p99_us_since(None), Some(800));
        assert_eq!(old.p99_us_since(None), Some(100));
        assert_eq!(new.p99_us_since(Some(&new)), None);
        assert_eq!(old.p99_us_since(Some(&new)), None, "another process");
        assert_eq!(stage(3, &[]).p99_us_since(None), Some(5_000), "no buckets: the largest");
        assert_eq!(stage(1, &[(8_000, 1)]).p99_us_since(None), Some(5_000), "no more than the largest");
    }

    #[test]
    fn an_answer_of_a_process_that_started_anew_does_not_follow() {
        let answer = |uptime_ms, count| Latencies { uptime_ms, stages: vec![stage(count, &[])] };
        assert!(answer(2, 5).follows(&answer(1, 5)));
        assert!(!answer(1, 9).follows(&answer(2, 5)));
        assert!(!answer(9, 4).follows(&answer(2, 5)));
        assert!(!Latencies { uptime_ms: 9, stages: Vec::new() }.follows(&answer(2, 5)));
    }

    #[test]
    fn a_table_has_a_line_for_each_stage_in_readable_units() {
        let body = r#"{"uptimeMs":5,"new":1,"stages":[
            {"stage":"uplink","count":1000,"p50Us":210,"p90Us":999,"p99Us":1000,"p999Us":9949,"maxUs":9950,"meanUs":230,
             "buckets":[[64,10],[128,700]]},
            {"stage":"resp\u001b[2Jonse","count":3,"p50Us":999499,"p90Us":999500,"p99Us":1000000,"p999Us":0,"maxUs":60000000}]}"#;
        let text = table(&Latencies::parse(body).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1], "uplink              1000   210 µs   999 µs   1.0 ms   9.9 ms    10 ms");
        assert_eq!(lines[2], "resp[2Jonse            3   999 ms    1.0 s    1.0 s     0 µs   60.0 s");
        assert!(lines.iter().all(|line| line.chars().count() == 69), "{text}");
        assert_eq!(table(&Latencies::default()), "nothing was measured yet\n");
    }

    #[test]
    fn refusals_say_what_to_do() {
        for (status, body, of_a_call, words) in [
            (401, r#"{"error":"no"}"#, false, "--token"),
            (404, r#"{"error":"Session not found","code":"not_found"}"#, true, "knows no call of this id"),
            (404, r#"{"error":"No such path."}"#, true, "status 404: No such path."),
            (502, "<html>", false, "is it a voice-media-bridge?"),
            (503, r#"{"error":"busy\u001b[31m"}"#, false, "status 503: busy[31m"),
        ] {
            let text = refusal(status, body, of_a_call);
            assert!(text.contains(words), "{text}");
        }
        assert!(Latencies::parse("[]x").unwrap_err().contains("not what a bridge sends"));
    }

    #[test]
    fn a_call_id_is_one_segment_of_a_path() {
        assert_eq!(percent_encoded("wacid.a+/=?é"), "wacid.a%2B%2F%3D%3F%C3%A9");
    }
}
