//! What drivers count of the kernel side, which no machine can see. Each loop counts for itself, so that counting costs a
//! load and a store and no core waits for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one loop, which alone writes them. Reading never disturbs it.
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
    /// Turns of the loop.
    turns,
    /// Turns before which a collection window was kept.
    windows,
    /// System calls that move data or wait: opening and closing sockets is not in it.
    system_calls,
    /// Operations submitted to the ring.
    ring_submissions,
    /// Completions taken from the ring.
    ring_completions,
    /// Times that the ring's completion queue had overflowed into the kernel's memory.
    ring_overflows,
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
    /// Requests to the Graph API.
    graph_requests,
    /// Of these, those sent twice because the server had closed its connection meanwhile.
    graph_requests_repeated,
    /// Of these, those without an answer.
    graph_requests_unanswered,
    /// Connections made to the Graph API: few, where they stay open.
    graph_connections,
    /// Webhooks that were passed on and taken.
    forwards_taken,
    /// Webhooks put off because their receiver could not be reached, or said so.
    forwards_retried,
    /// Webhooks given up: refused by their receiver, or not taken in time.
    forwards_failed,
    /// Webhooks dropped because too many wait, or because the process has ended.
    forwards_dropped,
    /// Writes of the journal.
    journal_writes,
    /// Writes of the journal that failed.
    journal_failures,
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    count_many(counter, 1);
}

/// Counts several. One loop writes, so nothing is lost between load and store.
pub(super) fn count_many(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

impl Counters {
    /// What several loops have counted together, by name.
    pub fn sum(loops: &[Arc<Self>]) -> Vec<(&'static str, u64)> {
        let mut sum = Self::default().snapshot();
        for counters in loops {
            sum.iter_mut().zip(counters.snapshot()).for_each(|(all, (_, count))| all.1 += count);
        }
        sum
    }

    /// One counter by its name.
    pub fn value(&self, name: &str) -> Option<u64> {
        self.snapshot().into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}
