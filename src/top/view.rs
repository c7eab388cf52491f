//! From what is known to lines: pure, and as wide and as high as the window.

use crate::driver::terminal::{Line, Look};
use crate::latency::readable;

use super::Top;
use super::snapshot::{Call, STAGES, Snapshot, Worker};

/// Lines that workers may take of a window: a third, so that calls are seen on a machine of many cores.
const WORKERS_SHARE: usize = 3;
/// Wide enough for all.
const COLUMNS_MAX: usize = 200;
/// A worker's busy bar, in columns: what its line leaves, between these.
const BAR: (usize, usize) = (4, 20);
/// The columns of a worker's line without the bar.
const BESIDE_BAR: usize = 74;

/// Above the first a 99th percentile is worth a look, above the second it is wrong, microseconds, in the order of
/// [`STAGES`]. What a loaded bridge is held to, and what a caller hears.
const BOUNDS_US: [(u64, u64); STAGES.len()] =
    [(3_000, 20_000), (2_000, 20_000), (60_000, 200_000), (1_500_000, 3_000_000)];
/// The same for lost packets, in thousandths: up to the first, nobody hears them.
const BOUNDS_PERMILLE: (u64, u64) = (10, 50);

/// What the list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Sort {
    #[default]
    Age,
    Loss,
    /// By the 99th percentile of one of [`STAGES`].
    Stage(usize),
    PacketsIn,
    PacketsOut,
}

impl Sort {
    pub(super) const ALL: [Self; 8] = [
        Self::Age,
        Self::Loss,
        Self::Stage(0),
        Self::Stage(1),
        Self::Stage(2),
        Self::Stage(3),
        Self::PacketsIn,
        Self::PacketsOut,
    ];

    fn key(self, call: &Call) -> u64 {
        match self {
            Self::Age => call.age_ms,
            Self::Loss => call.loss_permille(),
            Self::Stage(stage) => call.p99_us[stage].map_or(0, |us| us.saturating_add(1)),
            Self::PacketsIn => call.packets_in,
            Self::PacketsOut => call.packets_out,
        }
    }
}

/// A column: its heading, its width, and what it is sorted by.
const COLUMNS: [(&str, usize, Option<Sort>); 11] = [
    ("call", 12, None),
    ("state", 10, None),
    ("w", 3, None),
    ("age", 8, Some(Sort::Age)),
    ("in", 8, Some(Sort::PacketsIn)),
    ("out", 8, Some(Sort::PacketsOut)),
    ("loss %", 7, Some(Sort::Loss)),
    ("uplink", 8, Some(Sort::Stage(0))),
    ("tick_late", 10, Some(Sort::Stage(1))),
    ("downlink", 9, Some(Sort::Stage(2))),
    ("response", 9, Some(Sort::Stage(3))),
];

/// Columns that a narrow window goes without, the first to go first.
const DISPENSABLE: [usize; 4] = [2, 5, 4, 1];

/// Which columns fit.
fn visible(columns: usize) -> [bool; COLUMNS.len()] {
    let mut visible = [true; COLUMNS.len()];
    let mut width = COLUMNS.iter().map(|(_, width, _)| width + 1).sum::<usize>() - 1;
    for column in DISPENSABLE {
        if width > columns {
            visible[column] = false;
            width -= COLUMNS[column].1 + 1;
        }
    }
    visible
}

/// All lines for a window, and how many calls it shows at once.
pub(super) fn lines(top: &Top, columns: usize, rows: usize) -> (Vec<Line>, usize) {
    let mut lines = head(top, columns, rows);
    let Some(snapshot) = &top.snapshot else { return (lines, 1) };
    lines.push(headings(top.sort, columns));
    let page = rows.saturating_sub(lines.len() + 1).max(1);
    let calls = sorted(snapshot, top.sort);
    let first = top.first.min(calls.len().saturating_sub(page));
    lines.extend(calls[first..].iter().take(page).map(|call| call_line(call, columns)));
    if calls.is_empty() {
        lines.push(Line::new(Look::Dim, "no calls"));
    }
    while lines.len() + 1 < rows {
        lines.push(Line::default());
    }
    let last = (first + page).min(calls.len());
    let place =
        if calls.len() > page { format!("   calls {}-{last} of {}", first + 1, calls.len()) } else { String::new() };
    lines.push(Line::new(Look::Dim, format!("q quit  s sort  ↑↓ PgUp PgDn scroll  p pause{place}")));
    (lines, page)
}

/// Everything, for a script: no window, no colours.
pub(super) fn plain(top: &Top) -> String {
    let mut lines = head(top, COLUMNS_MAX, usize::MAX);
    if let Some(snapshot) = &top.snapshot {
        lines.push(headings(top.sort, COLUMNS_MAX));
        lines.extend(sorted(snapshot, top.sort).into_iter().map(|call| call_line(call, COLUMNS_MAX)));
    }
    lines.iter().map(|line| line.text() + "\n").collect()
}

fn head(top: &Top, columns: usize, rows: usize) -> Vec<Line> {
    let Some(snapshot) = &top.snapshot else {
        let said = top.trouble.as_deref().unwrap_or("asking");
        return vec![Line::new(Look::Bold, &top.title), trouble(said)];
    };
    let mut count = format!("  {} calls", snapshot.calls.len());
    if let Some(workers) = &snapshot.workers {
        count = format!("  {} of {} calls", snapshot.calls.len(), workers.calls_max);
    }
    let mut first = Line::new(Look::Bold, &top.title).with(Look::Plain, count);
    if let Some(latencies) = &snapshot.latencies {
        first = first.with(Look::Dim, format!("  up {}", age(latencies.uptime_ms)));
    }
    if let Some(drain) = snapshot.draining() {
        first = first.with(Look::Warn, format!("  DRAINING: {} calls remain, {} s", drain.calls, drain.seconds_left));
    }
    if top.paused {
        first = first.with(Look::Warn, "  PAUSED");
    }
    let mut lines = vec![first];
    lines.extend(top.trouble.as_deref().map(trouble));
    match &snapshot.workers {
        Some(workers) => {
            let shown = workers.workers.len().min((rows / WORKERS_SHARE).max(1));
            let draining = snapshot.draining().is_some();
            lines.extend(workers.workers[..shown].iter().map(|worker| worker_line(worker, columns, draining)));
            if shown < workers.workers.len() {
                lines.push(Line::new(Look::Dim, format!("{} more workers", workers.workers.len() - shown)));
            }
        }
        None => lines.push(Line::new(Look::Dim, "workers: this bridge has no /api/workers")),
    }
    lines.push(match &snapshot.latencies {
        Some(_) => recent(top),
        None => Line::new(Look::Dim, "latency: this bridge has no /api/latency; the calls' own follow"),
    });
    lines
}

fn trouble(said: &str) -> Line {
    Line::new(Look::Bad, format!("no answer: {said}; trying again"))
}

/// The 99th percentiles of the last looks, over all calls.
fn recent(top: &Top) -> Line {
    let mut line = Line::new(Look::Plain, "p99 now ");
    for (stage, bounds) in STAGES.iter().zip(BOUNDS_US) {
        let us = top.recent_p99_us(stage);
        line = line.with(Look::Plain, format!("  {stage} ")).with(look(us, bounds), us.map_or("-".into(), readable));
    }
    line
}

fn worker_line(worker: &Worker, columns: usize, draining: bool) -> Line {
    let bar = columns.saturating_sub(BESIDE_BAR).clamp(BAR.0, BAR.1);
    let filled = usize::from(worker.busy_percent) * bar / 100;
    let busy = match worker.busy_percent {
        0..70 => Look::Good,
        70..90 => Look::Warn,
        _ => Look::Bad,
    };
    let late = worker.tick_late_p99_us;
    let complexity = worker.complexity.map_or("-".to_owned(), |complexity| complexity.to_string());
    let admits = match (worker.admits, draining) {
        (_, true) => (Look::Dim, "drains"),
        (true, _) => (Look::Plain, "admits"),
        (false, _) => (Look::Warn, "full"),
    };
    Line::new(Look::Plain, format!("worker {:<3}", worker.index))
        .with(busy, "█".repeat(filled))
        .with(Look::Dim, "·".repeat(bar - filled))
        .with(Look::Plain, format!("{:>4} %{:>6} calls  tick late p99 ", worker.busy_percent, worker.calls))
        .with(look(late, BOUNDS_US[1]), format!("{:>7}", late.map_or("-".into(), readable)))
        .with(Look::Plain, format!("  complexity {complexity:>2}  "))
        .with(admits.0, admits.1)
}

fn headings(sort: Sort, columns: usize) -> Line {
    let mut text = String::new();
    let visible = visible(columns);
    for (index, (name, width, by)) in COLUMNS.iter().enumerate().filter(|(index, _)| visible[*index]) {
        let name = if *by == Some(sort) { format!("▼{name}") } else { (*name).to_owned() };
        text += &cell(index, &name, *width);
    }
    Line::new(Look::Bar, format!("{text:<columns$}"))
}

fn call_line(call: &Call, columns: usize) -> Line {
    let permille = call.loss_permille();
    let stage = |stage: usize| {
        let us = call.p99_us[stage];
        (look(us, BOUNDS_US[stage]), us.map_or("-".to_owned(), readable))
    };
    let cells = [
        (Look::Bold, call.name.clone()),
        (Look::Plain, call.state.clone()),
        (Look::Plain, call.worker.to_string()),
        (Look::Plain, age(call.age_ms)),
        (Look::Plain, call.packets_in.to_string()),
        (Look::Plain, call.packets_out.to_string()),
        (look(Some(permille), BOUNDS_PERMILLE), format!("{}.{}", permille / 10, permille % 10)),
        stage(0),
        stage(1),
        stage(2),
        stage(3),
    ];
    let visible = visible(columns);
    let mut line = Line::default();
    for (index, (look, text)) in cells.into_iter().enumerate().filter(|(index, _)| visible[*index]) {
        line = line.with(look, cell(index, &text, COLUMNS[index].1));
    }
    line
}

/// Words stand left, numbers right.
fn cell(column: usize, text: &str, width: usize) -> String {
    let text: String = text.chars().take(width).collect();
    if column < 2 { format!("{text:<width$} ") } else { format!("{text:>width$} ") }
}

fn look(value: Option<u64>, (warn, bad): (u64, u64)) -> Look {
    match value {
        None => Look::Dim,
        Some(value) if value > bad => Look::Bad,
        Some(value) if value > warn => Look::Warn,
        Some(_) => Look::Plain,
    }
}

/// The calls, the most first; equals by name, so that lines keep their place.
fn sorted(snapshot: &Snapshot, sort: Sort) -> Vec<&Call> {
    let mut calls: Vec<&Call> = snapshot.calls.iter().collect();
    calls.sort_by(|a, b| sort.key(b).cmp(&sort.key(a)).then_with(|| a.name.cmp(&b.name)));
    calls
}

/// A time as a telephone shows it.
fn age(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}
