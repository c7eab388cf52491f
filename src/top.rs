//! `top`: live calls in a terminal.
//!
//! [`Top`] takes one look at a bridge after the other, and keys, and gives lines. It must not know the clock, the terminal
//! or how a bridge is asked; `driver` has those.

mod snapshot;
mod view;

use std::collections::VecDeque;

use crate::driver::terminal::{Key, Line, Screen};
use crate::latency::{Latencies, printable};

pub use snapshot::{Snapshot, ask};

use view::Sort;

/// Looks that "now" is made of: few enough to follow what happens, many enough for a 99th percentile of one call's
/// fifty packets a second.
const RECENT: usize = 10;

/// One look: what the bridge said, or why it said nothing.
pub type Look = Result<Snapshot, String>;

/// What is shown.
#[derive(Debug)]
pub struct Top {
    title: String,
    snapshot: Option<Snapshot>,
    /// Latencies of the last looks, the oldest first; all of one process.
    history: VecDeque<Latencies>,
    /// Why the last look failed.
    trouble: Option<String>,
    sort: Sort,
    /// The first call shown.
    first: usize,
    /// Calls shown at once.
    page: usize,
    paused: bool,
}

impl Top {
    /// Nothing seen yet, of the bridge at this URL. What may be a token in its path is not shown.
    pub fn new(url: &str) -> Self {
        let shown = url.split_once("/k/").map_or(url, |(server, _)| server);
        Self {
            title: format!("voice-media-bridge top  {}", printable(shown.trim_end_matches('/'))),
            snapshot: None,
            history: VecDeque::new(),
            trouble: None,
            sort: Sort::default(),
            first: 0,
            page: 1,
            paused: false,
        }
    }

    /// All that is known, in plain lines for a script.
    pub fn plain(&self) -> String {
        view::plain(self)
    }

    fn look(&mut self, look: Look) {
        let snapshot = match look {
            Ok(snapshot) => snapshot,
            Err(why) => {
                self.trouble = Some(why);
                return;
            }
        };
        self.trouble = None;
        if let Some(latencies) = &snapshot.latencies {
            if self.history.back().is_some_and(|last| !latencies.follows(last)) {
                self.history.clear();
            }
            if self.history.len() > RECENT {
                self.history.pop_front();
            }
            self.history.push_back(latencies.clone());
        }
        self.snapshot = Some(snapshot);
    }

    /// A stage's 99th percentile over the last looks. With one look alone: since the bridge's start.
    fn recent_p99_us(&self, stage: &str) -> Option<u64> {
        let new = self.history.back()?.stage(stage)?;
        match self.history.len() {
            1 => Some(new.p99_us).filter(|_| new.count > 0),
            _ => new.p99_us_since(self.history.front()?.stage(stage)),
        }
    }

    /// The place of the last page.
    fn first_max(&self) -> usize {
        let calls = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.calls.len());
        calls.saturating_sub(self.page)
    }
}

impl Screen<Look> for Top {
    fn news(&mut self, look: Look) {
        if !self.paused {
            self.look(look);
        }
    }

    fn key(&mut self, key: Key) -> bool {
        let first = match key {
            Key::Char('q') => return false,
            Key::Char('s') => {
                let at = Sort::ALL.iter().position(|sort| *sort == self.sort).unwrap_or(0);
                self.sort = Sort::ALL[(at + 1) % Sort::ALL.len()];
                0
            }
            Key::Char('p') => {
                self.paused = !self.paused;
                self.first
            }
            Key::Char(_) => self.first,
            Key::Up => self.first.saturating_sub(1),
            Key::Down => self.first + 1,
            Key::PageUp => self.first.saturating_sub(self.page),
            Key::PageDown => self.first + self.page,
            Key::Home => 0,
            Key::End => usize::MAX,
        };
        self.first = first.min(self.first_max());
        true
    }

    fn lines(&mut self, columns: usize, rows: usize) -> Vec<Line> {
        let (lines, page) = view::lines(self, columns, rows);
        self.page = page;
        self.first = self.first.min(self.first_max());
        lines
    }
}

#[cfg(test)]
mod tests;
