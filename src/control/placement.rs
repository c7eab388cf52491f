//! Which worker a call goes to, and whether any takes one more.
//!
//! A worker tells its load some times a second; a call shows in it only seconds after it was placed, when media flows and the
//! model talks. So every call placed lately is counted at what a call is known to cost. A call goes where the core is least
//! full, and of equals where there are the fewest calls. Time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::messages::LoadReport;

/// A call older than this shows in its worker's load: it is connected and greeted.
const YOUNG: Duration = Duration::from_secs(3);

/// Loads nearer to each other than this share of a core are equal: they swing by as much.
const EQUAL: f64 = 0.02;

/// What a call costs before its worker has told anything, a share of a core: both sides talking at the least effort.
const CALL_COST: f64 = 0.006;

/// What is known of one worker.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Calls placed here and not over.
    pub(super) calls: u32,
    /// What it last said of its load.
    pub(super) report: Option<LoadReport>,
    /// When calls were placed here, the youngest last. No more than calls may be at once.
    placed: VecDeque<Instant>,
}

impl Place {
    /// A call is placed here.
    pub(super) fn add(&mut self, now: Instant) {
        self.calls += 1;
        self.placed.push_back(now);
    }

    /// A call is over. Of those placed lately, it counts as one.
    pub(super) fn remove(&mut self) {
        self.calls -= 1;
        while self.placed.len() > self.calls as usize {
            self.placed.pop_front();
        }
    }

    /// The share of the core that its calls will take at the least effort.
    fn filled(&mut self, now: Instant) -> f64 {
        while self.placed.front().is_some_and(|at| now.saturating_duration_since(*at) >= YOUNG) {
            self.placed.pop_front();
        }
        let (busy, cost) = self.report.map_or((0.0, CALL_COST), |report| (report.busy_at_floor, report.call_cost));
        busy + self.placed.len() as f64 * cost
    }

    /// Whether it takes one more call, where a core may be this full.
    pub(super) fn admits(&mut self, now: Instant, admit_busy: Option<f64>) -> bool {
        let Some(limit) = admit_busy else { return true };
        let starved = self.report.is_some_and(|report| report.starved);
        let cost = self.report.map_or(CALL_COST, |report| report.call_cost);
        !starved && self.filled(now) + cost <= limit
    }
}

/// The share of all cores' room that is free for calls, 0 to 1: where cores may be this full, and none where no core takes one.
pub(super) fn room(places: &mut [Place], now: Instant, admit_busy: Option<f64>) -> f64 {
    let Some(limit) = admit_busy else { return 1.0 };
    let free = |place: &mut Place| if place.admits(now, admit_busy) { 1.0 - place.filled(now) / limit } else { 0.0 };
    let count = places.len() as f64;
    places.iter_mut().map(free).sum::<f64>() / count
}

/// The worker for the next call; `None` where none takes one.
pub(super) fn choose(places: &mut [Place], now: Instant, admit_busy: Option<f64>) -> Option<u16> {
    let open = places.iter_mut().enumerate().filter_map(|(worker, place)| {
        let admits = place.admits(now, admit_busy);
        admits.then(|| ((place.filled(now) / EQUAL) as u32, place.calls, worker))
    });
    let (_, _, worker) = open.min()?;
    Some(u16::try_from(worker).expect("workers are numbered by u16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Option<f64> = Some(0.8);

    fn report(busy_at_floor: f64) -> LoadReport {
        LoadReport { busy: busy_at_floor, busy_at_floor, call_cost: 0.01, ..LoadReport::default() }
    }

    fn places(loads: &[(f64, u32)]) -> Vec<Place> {
        let place =
            |(busy, calls): &(f64, u32)| Place { calls: *calls, report: Some(report(*busy)), ..Place::default() };
        loads.iter().map(place).collect()
    }

    #[test]
    fn a_call_goes_to_the_emptiest_core_and_of_equals_to_the_fewest_calls() {
        let now = Instant::now();
        assert_eq!(choose(&mut places(&[(0.5, 3), (0.3, 90), (0.4, 0)]), now, LIMIT), Some(1));
        assert_eq!(choose(&mut places(&[(0.301, 9), (0.309, 8), (0.305, 8)]), now, LIMIT), Some(1));
        assert_eq!(choose(&mut [Place::default(), Place::default()], now, LIMIT), Some(0));
    }

    #[test]
    fn calls_that_do_not_show_yet_are_counted_at_their_cost_until_they_do() {
        let now = Instant::now();
        let mut places = places(&[(0.7, 70)]);
        let mut taken = 0;
        while choose(&mut places, now, LIMIT).is_some() {
            places[0].add(now);
            taken += 1;
        }
        assert!((9..=10).contains(&taken), "a tenth of a core at a hundredth a call is ten calls, not {taken}");
        assert_eq!(choose(&mut places, now + YOUNG, LIMIT), Some(0));
    }

    #[test]
    fn a_call_that_ended_young_is_counted_no_more() {
        let now = Instant::now();
        let mut place = Place::default();
        (0..10).for_each(|_| place.add(now));
        (0..10).for_each(|_| place.remove());
        assert!(place.filled(now) < 0.001);
    }

    #[test]
    fn room_is_what_all_cores_have_left_below_their_limit() {
        let now = Instant::now();
        let near = |room: f64, expected: f64| assert!((room - expected).abs() < 1e-9, "{room} is not {expected}");
        near(room(&mut places(&[(0.0, 0), (0.0, 0)]), now, LIMIT), 1.0);
        near(room(&mut places(&[(0.4, 40), (0.0, 0)]), now, LIMIT), 0.75);
        near(room(&mut places(&[(0.9, 90), (0.4, 40)]), now, LIMIT), 0.25);
        near(room(&mut places(&[(0.9, 90)]), now, LIMIT), 0.0);
        near(room(&mut places(&[(0.9, 90)]), now, None), 1.0);
        let starved = LoadReport { starved: true, ..LoadReport::default() };
        near(room(&mut [Place { report: Some(starved), ..Place::default() }], now, LIMIT), 0.0);
    }

    #[test]
    fn full_and_starved_cores_take_none_unless_the_limit_is_lifted() {
        let now = Instant::now();
        let mut full = places(&[(0.85, 10)]);
        assert_eq!(choose(&mut full, now, LIMIT), None);
        assert_eq!(choose(&mut full, now, None), Some(0));
        let starved = LoadReport { starved: true, ..LoadReport::default() };
        let mut starved = [Place { report: Some(starved), ..Place::default() }];
        assert_eq!(choose(&mut starved, now, LIMIT), None);
    }
}
