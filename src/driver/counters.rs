//! What drivers count: rare things of the kernel side that no machine can see.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one loop or, shared, of several. Reading never disturbs the loop.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(super) $name: AtomicU64,)*
        }

        impl Counters {
            /// Every counter with its name, for metrics.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Datagrams larger than the driver's buffer, dropped.
    datagrams_truncated,
    /// Datagrams without a byte, dropped.
    datagrams_empty,
    /// Datagrams whose sender the kernel did not name, dropped.
    datagrams_unreadable,
    /// Receives that ended because every buffer was in use; datagrams wait in their socket meanwhile.
    receive_buffers_short,
    /// Receives that failed otherwise and were armed again.
    receive_failures,
    /// Ports that another program holds, skipped.
    ports_busy,
    /// Rings that ended with operations that did not: their buffers were left to the kernel.
    rings_leaked,
    /// Accepts put off because descriptors or memory are short.
    accepts_delayed,
    /// Events that their receiver took.
    events_sent,
    /// Events put off because their receiver could not be reached, or said so.
    events_retried,
    /// Events given up: refused by their receiver, or not taken in as many attempts as there are.
    events_failed,
    /// Events dropped because too many wait, or because the process has ended.
    events_dropped,
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// One counter by its name.
    pub fn value(&self, name: &str) -> Option<u64> {
        self.snapshot().into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}
