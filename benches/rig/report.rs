//! Figures as a table for people, and as JSON for the scoreboard where it asks for it by `SCOREBOARD_DIR`.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A table: rows by name, each with the same columns.
pub(crate) struct Table {
    bench: &'static str,
    title: &'static str,
    columns: &'static [&'static str],
    rows: Vec<(String, Vec<f64>)>,
}

impl Table {
    /// An empty table of a bench. Columns say their unit.
    pub(crate) fn new(bench: &'static str, title: &'static str, columns: &'static [&'static str]) -> Self {
        Self { bench, title, columns, rows: Vec::new() }
    }

    /// Adds a row. NaN is a cell without a figure.
    pub(crate) fn row(&mut self, name: impl Into<String>, figures: impl Into<Vec<f64>>) {
        let figures = figures.into();
        assert_eq!(figures.len(), self.columns.len(), "a figure for each column");
        self.rows.push((name.into(), figures));
    }

    /// Prints it, and leaves it for the scoreboard.
    pub(crate) fn finish(self) {
        let width = self.rows.iter().map(|(name, _)| name.len()).chain([self.title.len()]).max().unwrap_or(0) + 2;
        let mut text = format!("\n{:<width$}", self.title);
        for column in self.columns {
            _ = write!(text, "{column:>16}");
        }
        for (name, figures) in &self.rows {
            _ = write!(text, "\n{name:<width$}");
            for figure in figures {
                _ = match figure {
                    figure if figure.is_nan() => write!(text, "{:>16}", ""),
                    figure if figure.abs() < 10.0 => write!(text, "{figure:>16.3}"),
                    figure if figure.abs() < 1_000.0 => write!(text, "{figure:>16.1}"),
                    figure => write!(text, "{figure:>16.0}"),
                };
            }
        }
        println!("{text}");
        if let Some(folder) = std::env::var_os("SCOREBOARD_DIR") {
            let row = |(name, figures): &(String, Vec<f64>)| {
                let cells = self.columns.iter().zip(figures).filter(|(_, figure)| figure.is_finite());
                let cells: Map<_, _> =
                    cells.map(|(column, figure)| ((*column).to_owned(), Value::from(*figure))).collect();
                (name.clone(), Value::Object(cells))
            };
            let rows: Vec<Value> =
                self.rows.iter().map(row).map(|(name, cells)| serde_json::json!([name, cells])).collect();
            let json =
                serde_json::json!({"bench": self.bench, "title": self.title, "columns": self.columns, "rows": rows});
            let name: String = self
                .title
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
                .collect();
            let path = std::path::Path::new(&folder).join(format!("{}-{name}.json", self.bench));
            std::fs::write(path, json.to_string()).expect("the scoreboard's folder can be written to");
        }
    }
}

/// The middle of some costs; sorts them.
pub(crate) fn median(costs: &mut [u64]) -> f64 {
    costs.sort_unstable();
    costs.get(costs.len() / 2).map_or(f64::NAN, |cost| *cost as f64)
}
