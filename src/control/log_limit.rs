//! Keeps a log from being written by strangers: so many lines a second, and a count of those left out.

use std::time::{Duration, Instant};

/// Refusals logged per second: enough to see what happens, too few to fill a disk (50 MB a day).
const LINES_PER_SECOND: u32 = 5;

/// A budget of log lines.
#[derive(Debug)]
pub(super) struct LogLimit {
    second: Instant,
    left: u32,
    unsaid: u64,
}

impl LogLimit {
    pub(super) fn new(now: Instant) -> Self {
        Self { second: now, left: LINES_PER_SECOND, unsaid: 0 }
    }

    /// Whether a line may be written now; if so, how many were left out before it.
    pub(super) fn take(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.left = LINES_PER_SECOND;
        }
        if self.left == 0 {
            self.unsaid += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_a_second_and_a_count() {
        let now = Instant::now();
        let mut limit = LogLimit::new(now);
        let said = (0..1000).filter(|_| limit.take(now).is_some()).count();
        assert_eq!(said, LINES_PER_SECOND as usize);
        assert_eq!(limit.take(now + Duration::from_secs(1)), Some(1000 - u64::from(LINES_PER_SECOND)));
        assert_eq!(limit.take(now + Duration::from_secs(1)), Some(0));
    }
}
