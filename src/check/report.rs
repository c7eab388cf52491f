//! All that `check-config` says, for people and for machines.

use std::fmt;

use serde::Serialize;

use super::{Check, Outcome, Setting};

/// Columns that values take where a note follows them.
const VALUE_WIDTH: usize = 32;

/// Settings and verdicts.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The worst verdict.
    pub outcome: Outcome,
    /// The effective settings.
    pub settings: Vec<Setting>,
    /// The verdicts.
    pub checks: Vec<Check>,
}

impl Report {
    /// Sums up.
    pub fn new(settings: Vec<Setting>, checks: Vec<Check>) -> Self {
        let outcome = checks.iter().map(|check| check.outcome).max().unwrap_or(Outcome::Ok);
        Self { outcome, settings, checks }
    }

    /// Whether a bridge may start on this; `strict`: without a warning.
    pub fn passes(&self, strict: bool) -> bool {
        self.outcome < if strict { Outcome::Warn } else { Outcome::Fail }
    }

    /// As JSON, on lines.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and lists of them always serialise") + "\n"
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut headings: Vec<&str> = Vec::new();
        for setting in &self.settings {
            if !headings.contains(&setting.heading.as_str()) {
                headings.push(&setting.heading);
            }
        }
        for heading in headings {
            writeln!(f, "{heading}:")?;
            for Setting { variable, value, set_by, .. } in self.settings.iter().filter(|each| each.heading == heading) {
                match set_by {
                    Some(by) => writeln!(f, "{variable:<26} {value:<VALUE_WIDTH$} ({by})")?,
                    None => writeln!(f, "{variable:<26} {value}")?,
                }
            }
            writeln!(f)?;
        }
        writeln!(f, "Checks:")?;
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        for Check { name, outcome, found, advice } in &self.checks {
            let word = match outcome {
                Outcome::Ok => "ok",
                Outcome::Warn => "warn",
                Outcome::Fail => "FAIL",
            };
            writeln!(f, "{word:<4}  {name:<width$}  {found}")?;
            if let Some(advice) = advice {
                writeln!(f, "{:<6}{:<width$}  -> {advice}", "", "")?;
            }
        }
        let some = |count: usize, what: &str| match count {
            0 => String::new(),
            1 => format!(", 1 {what}"),
            many => format!(", {many} {what}s"),
        };
        let (failures, warnings) =
            (some(self.count(Outcome::Fail), "failure"), some(self.count(Outcome::Warn), "warning"));
        match self.outcome {
            Outcome::Fail => writeln!(f, "not ok{failures}{warnings}"),
            Outcome::Warn | Outcome::Ok => writeln!(f, "ok{warnings}"),
        }
    }
}
