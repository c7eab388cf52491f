//! The path of a packet: from the input that a driver hands over to the output that it gets back, and what the codec and the
//! WebRTC stack alone take of the same frames.
//!
//! `cargo bench --bench rtp`. Time is virtual; control and worker are the real machines, without a driver, without TLS. Every
//! step measures the path, the codec and the stack on the same frame, so that noise of the machine falls on all of them. The
//! table at the end gives medians over all steps.

mod rig;

use std::cell::RefCell;
use std::time::Duration;

use criterion::Criterion;
use rig::meter::nanos;
use rig::paths::{Meters, Sample, Step, answer, beat, beat_of_silence, delta_in, rtp_in};
use rig::report::{Table, median};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let table = RefCell::new(Vec::new());
    let mut measure = |name: &'static str, mut step: Step| {
        let mut samples = Vec::new();
        criterion.bench_function(&format!("rtp/{name}"), |bencher| {
            bencher.iter_custom(|steps| {
                let first = samples.len();
                samples.extend((0..steps).map(|_| step()));
                Duration::from_nanos(samples[first..].iter().map(|sample: &Sample| sample.path).sum())
            });
        });
        table.borrow_mut().push((name, samples));
    };
    let meters = Meters::all(nanos);
    measure("answer, control and worker", answer(meters, |posted| posted.control + posted.worker));
    measure("answer, worker", answer(meters, |posted| posted.worker));
    measure("RTP packet in, append out", rtp_in(meters));
    measure("delta of 20 ms in", delta_in(meters, 1));
    measure("delta of 100 ms in", delta_in(meters, 5));
    measure("beat of audio, complexity 0", beat(meters, 0));
    measure("beat of audio, complexity 5", beat(meters, 5));
    measure("beat of silence", beat_of_silence(meters));

    let columns = &["whole us", "codec us", "stack us", "codec %", "stack %", "ours us"];
    let mut figures = Table::new("rtp", "path, median", columns);
    for (name, samples) in table.into_inner().iter().filter(|(_, samples)| !samples.is_empty()) {
        let part = |part: fn(&Sample) -> u64| median(&mut samples.iter().map(part).collect::<Vec<_>>()) / 1_000.0;
        let (path, codec, stack) = (part(|s| s.path), part(|s| s.codec), part(|s| s.stack));
        let share = |us: f64| us / path * 100.0;
        figures.row(*name, [path, codec, stack, share(codec), share(stack), path - codec - stack]);
    }
    figures.finish();
    criterion.final_summary();
}
