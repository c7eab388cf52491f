//! Finds the largest number of calls that holds: doubled until one does not, then halved towards the edge.
//!
//! It takes for granted that fewer calls are easier. The number of steps is bounded and known before the first.

/// The part of the last number that held within which the edge is good enough: 4 %, less than what two runs differ by.
const RESOLUTION_DIVISOR: usize = 25;

/// The search.
#[derive(Clone, Debug)]
pub struct Search {
    start: usize,
    max: usize,
    held: Option<usize>,
    failed: Option<usize>,
}

impl Search {
    /// A search that begins at `start` and goes up to `max`, both at least one.
    pub fn new(start: usize, max: usize) -> Self {
        let max = max.max(1);
        Self { start: start.clamp(1, max), max, held: None, failed: None }
    }

    /// The number to try next; `None` when the edge is found.
    pub fn next(&self) -> Option<usize> {
        match (self.held, self.failed) {
            (None, None) => Some(self.start),
            (Some(held), None) if held >= self.max => None,
            (Some(held), None) => Some((held * 2).min(self.max)),
            (None, Some(1)) => None,
            (None, Some(failed)) => Some((failed / 2).max(1)),
            (Some(held), Some(failed)) if failed - held <= (held / RESOLUTION_DIVISOR).max(1) => None,
            (Some(held), Some(failed)) => Some(held + (failed - held) / 2),
        }
    }

    /// What came of a number that [`Search::next`] gave.
    pub fn record(&mut self, calls: usize, holds: bool) {
        let place = if holds { &mut self.held } else { &mut self.failed };
        *place = Some(calls);
    }

    /// The largest number that held.
    pub fn held(&self) -> Option<usize> {
        self.held
    }

    /// Whether nothing was found that does not hold.
    pub fn is_open(&self) -> bool {
        self.failed.is_none()
    }

    /// Most steps that a search from here takes, wherever the edge is.
    pub fn steps_max(&self) -> usize {
        let steps = |edge: usize| {
            let mut search = self.clone();
            let mut steps = 0;
            while let Some(calls) = search.next() {
                search.record(calls, calls <= edge);
                steps += 1;
            }
            steps
        };
        (0..=self.max).map(steps).max().expect("zero is among them")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_is_found_to_four_percent_within_the_steps_promised() {
        for max in [1, 2, 7, 400] {
            for start in [1, 25, 400] {
                let most = Search::new(start, max).steps_max();
                assert!(most <= 14, "{start} to {max}: {most}");
                for edge in 0..=max + 5 {
                    let mut search = Search::new(start, max);
                    let mut steps = 0;
                    while let Some(calls) = search.next() {
                        assert!((1..=max).contains(&calls));
                        search.record(calls, calls <= edge);
                        steps += 1;
                        assert!(steps <= most, "{start} to {max}, {edge}");
                    }
                    let held = search.held().unwrap_or(0);
                    let edge = edge.min(max);
                    assert!(held <= edge && edge - held <= (held / 25).max(1), "{start} to {max}: {held} of {edge}");
                    assert_eq!(search.is_open(), held == max);
                }
            }
        }
    }
}
