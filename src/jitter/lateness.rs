//! How late packets have been that were overtaken: what a gap is worth waiting for.
//!
//! A packet's lateness is the time from the arrival of the first packet that overtook it to its own. Only overtaken
//! packets count: those in order never wait, and lost ones say nothing about waiting.

use std::time::Duration;

/// The shortest wait for a missing packet. Even a path that never reordered before may swap two packets of one burst.
pub const WAIT_MIN: Duration = Duration::from_millis(10);
/// The longest wait. Beyond it a caller's turn is answered late more often than a word is saved.
pub const WAIT_MAX: Duration = Duration::from_millis(60);

/// The share of overtaken packets that shall be waited for.
const QUANTILE: f32 = 0.95;
/// What remains of a lateness for each packet that arrives after it: after 10 s of speech a third of it.
const FORGET_PER_PACKET: f32 = 0.998;
/// A memory fainter than this share of one packet is gone.
const WEIGHT_MIN: f32 = 0.02;
const BUCKET_MS: u64 = 5;
/// Buckets up to [`WAIT_MAX`], and one for all that is later.
const BUCKETS: usize = (WAIT_MAX.as_millis() as u64 / BUCKET_MS) as usize + 1;

/// A histogram of lateness that forgets.
#[derive(Clone, Debug)]
pub(super) struct Lateness {
    weights: [f32; BUCKETS],
    /// Packets since the weights were brought up to date.
    packets: u32,
}

impl Lateness {
    /// Nothing known: waits [`WAIT_MIN`].
    pub(super) fn new() -> Self {
        Self { weights: [0.0; BUCKETS], packets: 0 }
    }

    /// A packet arrived, in order or not.
    pub(super) fn packet(&mut self) {
        self.packets = self.packets.saturating_add(1);
    }

    /// An overtaken packet arrived this late.
    pub(super) fn overtaken(&mut self, lateness: Duration) {
        let kept = self.kept();
        self.packets = 0;
        self.weights.iter_mut().for_each(|weight| *weight *= kept);
        let bucket = lateness.as_millis() / u128::from(BUCKET_MS);
        self.weights[usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)] += 1.0;
    }

    /// How long a gap is waited for: the upper edge of the bucket that holds the quantile.
    pub(super) fn wait(&self) -> Duration {
        let total: f32 = self.weights.iter().sum();
        if total * self.kept() < WEIGHT_MIN {
            return WAIT_MIN;
        }
        let mut below = 0.0;
        let bucket = self.weights.iter().position(|weight| {
            below += weight;
            below >= QUANTILE * total
        });
        let edge_ms = (bucket.unwrap_or(BUCKETS - 1) as u64 + 1) * BUCKET_MS;
        Duration::from_millis(edge_ms).clamp(WAIT_MIN, WAIT_MAX)
    }

    fn kept(&self) -> f32 {
        FORGET_PER_PACKET.powf(self.packets as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn after(lateness_ms: impl IntoIterator<Item = u64>) -> Lateness {
        let mut estimate = Lateness::new();
        for late in lateness_ms {
            (0..20).for_each(|_| estimate.packet());
            estimate.overtaken(ms(late));
        }
        estimate
    }

    #[test]
    fn the_wait_follows_a_high_quantile_within_its_bounds() {
        for (seen, wait) in [
            (vec![], WAIT_MIN),
            (vec![0; 10], WAIT_MIN),
            (vec![23; 10], ms(25)),
            (vec![5_000; 10], WAIT_MAX),
            ([vec![12; 99], vec![47]].concat(), ms(15)),
            ([vec![12; 18], vec![47; 6]].concat(), ms(50)),
        ] {
            assert_eq!(after(seen.clone()).wait(), wait, "{seen:?}");
        }
    }

    #[test]
    fn new_lateness_outweighs_old() {
        let estimate = after([vec![45; 20], vec![12; 200]].concat());
        assert_eq!(estimate.wait(), ms(15));
    }

    #[test]
    fn lateness_is_forgotten_when_packets_stay_in_order() {
        let mut estimate = after([40]);
        assert_eq!(estimate.wait(), ms(45));
        (0..1_000).for_each(|_| estimate.packet());
        assert_eq!(estimate.wait(), ms(45), "after 20 s of speech");
        (0..2_000).for_each(|_| estimate.packet());
        assert_eq!(estimate.wait(), WAIT_MIN, "after a minute of speech");
    }
}
