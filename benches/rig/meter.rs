//! How the cost of one step is taken: a function that runs the step and says what it took.
//!
//! The same rig then serves the benches (time), the scoreboard (instructions) and the tests (allocations).

use std::time::Instant;

use nix::time::{ClockId, clock_gettime};

/// Runs a step once; its cost, in the meter's unit.
pub(crate) type Meter = fn(&mut dyn FnMut()) -> u64;

/// Costs nothing and says nothing: for what leads up to a measurement.
pub(crate) fn unmetered(step: &mut dyn FnMut()) -> u64 {
    step();
    0
}

/// Nanoseconds that passed.
pub(crate) fn nanos(step: &mut dyn FnMut()) -> u64 {
    let start = Instant::now();
    step();
    start.elapsed().as_nanos() as u64
}

/// Nanoseconds of processor time of this thread: blind to what else runs on the machine, but for the cache.
pub(crate) fn cpu_nanos(step: &mut dyn FnMut()) -> u64 {
    let start = thread_cpu_nanos();
    step();
    thread_cpu_nanos() - start
}

/// Processor time that this thread has had, in nanoseconds.
pub(crate) fn thread_cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// The one function inside which callgrind counts (`--toggle-collect=*watched*`): hence never inlined.
#[inline(never)]
pub(crate) fn watched(step: &mut dyn FnMut()) -> u64 {
    step();
    std::hint::black_box(0)
}
