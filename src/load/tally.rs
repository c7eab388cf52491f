//! Counts and histograms of a run; bounded, however long it takes.

use std::time::{Duration, Instant};

use crate::relay::record::Record;
use crate::stats::Histogram;

use super::call::{Call, Heard, State};
use super::report::{Calls, Echo, Interarrival, Own, Packets, Refusal, Report};

/// Kinds of refusals told apart; a server that makes up words fills no memory.
const REFUSAL_KINDS_MAX: usize = 16;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) error: Option<String>,
    pub(super) interrupted: bool,
    pub(super) packets: Packets,
    pub(super) connected_now: u64,
    pub(super) never_connected: u64,
    pub(super) hangups_failed: u64,
    pub(super) send_failures: u64,
    pub(super) probes: u64,
    answered: u64,
    connected: u64,
    connected_max: u64,
    ended_by_server: u64,
    answer: Histogram,
    connect: Histogram,
    first_media: Histogram,
    refusal: Histogram,
    refusals: Vec<(String, u64, Histogram)>,
    deviation: Histogram,
    round_trip: Histogram,
    bursts_sent: u64,
    bursts_missed: u64,
    own_late: Histogram,
    cpu: Cpu,
    /// Of all connected calls together.
    call_time: Duration,
}

/// CPU time of the load's thread.
#[derive(Debug, Default)]
struct Cpu {
    begun: Duration,
    last: Option<(Duration, Instant)>,
    busy_max: f64,
}

impl Tally {
    /// The run begins.
    pub(super) fn begin(&mut self, cpu: Duration, now: Instant) {
        self.cpu = Cpu { begun: cpu, last: Some((cpu, now)), busy_max: 0.0 };
    }

    /// A second is over; shorter stretches say nothing about how busy it was.
    pub(super) fn second(&mut self, cpu: Duration, now: Instant) {
        let Some((cpu_before, before)) = self.cpu.last else { return };
        let elapsed = now.saturating_duration_since(before);
        self.call_time += elapsed * u32::try_from(self.connected_now).expect("calls are bounded");
        if elapsed > Duration::from_millis(500) {
            let busy = cpu.saturating_sub(cpu_before).as_secs_f64() / elapsed.as_secs_f64();
            self.cpu.busy_max = self.cpu.busy_max.max(busy);
        }
        self.cpu.last = Some((cpu, now));
    }

    pub(super) fn answered(&mut self, took: Duration) {
        self.answered += 1;
        self.answer.record(took);
    }

    pub(super) fn refused(&mut self, why: String, took: Duration, by_server: bool) {
        if by_server {
            self.refusal.record(took);
        }
        let place = self.refusals.iter().position(|(known, ..)| *known == why).unwrap_or_else(|| {
            if self.refusals.len() < REFUSAL_KINDS_MAX {
                self.refusals.push((why, 0, Histogram::new()));
            } else {
                self.refusals[REFUSAL_KINDS_MAX - 1].0 = "others".into();
            }
            self.refusals.len() - 1
        });
        let (_, count, histogram) = &mut self.refusals[place];
        *count += 1;
        histogram.record(took);
    }

    pub(super) fn refusals(&self) -> u64 {
        self.refusals.iter().map(|(_, count, _)| count).sum()
    }

    pub(super) fn connected(&mut self, took: Duration) {
        self.connected += 1;
        self.connected_now += 1;
        self.connected_max = self.connected_max.max(self.connected_now);
        self.connect.record(took);
    }

    /// The other side closed a call that was not being hung up; one that was never connected has failed instead.
    pub(super) fn ended(&mut self, state: State) {
        match state {
            State::Connected(_) => self.ended_by_server += 1,
            State::Asked | State::Answered(_) => self.never_connected += 1,
        }
    }

    /// A call is over, by whomever.
    pub(super) fn over(&mut self, call: &Call) {
        self.connected_now -= u64::from(matches!(call.state, State::Connected(_)));
    }

    pub(super) fn heard(&mut self, heard: &Heard) {
        let Heard { first, deviation, round_trip } = heard;
        for (value, histogram) in
            [(first, &mut self.first_media), (deviation, &mut self.deviation), (round_trip, &mut self.round_trip)]
        {
            if let Some(value) = value {
                histogram.record(*value);
            }
        }
    }

    /// A burst was sent; whether the one before it was missed.
    pub(super) fn burst(&mut self, missed: bool) {
        self.bursts_sent += 1;
        self.bursts_missed += u64::from(missed);
    }

    pub(super) fn own_late(&mut self, late: Duration) {
        self.own_late.record(late);
    }

    pub(super) fn echo_p50_us(&self) -> Option<u64> {
        self.round_trip.percentiles().map(|percentiles| percentiles.p50_us)
    }

    /// All of it. Nothing is concluded yet.
    pub(super) fn report(&self, seconds: f64, packets: Packets, socket_drops: Option<u64>) -> Report {
        let refused = self.refusals();
        let cpu_seconds = self.cpu.last.map_or(0.0, |(cpu, _)| cpu.saturating_sub(self.cpu.begun).as_secs_f64());
        let call_seconds = self.call_time.as_secs_f64();
        let refusals = self.refusals.iter().map(|(what, count, histogram)| Refusal {
            what: what.clone(),
            count: *count,
            took: histogram.percentiles(),
        });
        Report {
            seconds,
            interrupted: self.interrupted,
            error: self.error.clone(),
            calls: Calls {
                asked: self.answered + refused,
                answered: self.answered,
                connected: self.connected,
                connected_max: self.connected_max,
                refused,
                never_connected: self.never_connected,
                ended_by_server: self.ended_by_server,
                hangups_failed: self.hangups_failed,
                answer: self.answer.percentiles(),
                connect: self.connect.percentiles(),
                first_media: self.first_media.percentiles(),
                refusals: refusals.collect(),
                refusal: self.refusal.percentiles(),
            },
            packets,
            interarrival: Interarrival::of(&self.deviation),
            echo: Echo {
                probes: self.probes,
                sent: self.bursts_sent,
                heard: self.round_trip.count(),
                missed: self.bursts_missed,
                round_trip: self.round_trip.percentiles(),
            },
            own: Own {
                cpu_seconds,
                cpu_ms_per_call_second: if call_seconds > 0.0 { 1000.0 * cpu_seconds / call_seconds } else { 0.0 },
                busy_max: self.cpu.busy_max,
                late: self.own_late.percentiles(),
                socket_drops,
                trusted: false,
            },
            warnings: Vec::new(),
            bounds: Vec::new(),
            passed: false,
        }
    }
}

/// A call's packets.
pub(crate) fn count(record: &Record) -> Packets {
    Packets {
        sent: record.rtp_sent(),
        received: record.rtp_heard(),
        lost: record.rtp_lost(),
        duplicates: record.duplicates,
        late: record.rtp_late(),
        undecryptable: record.undecryptable,
        strays: 0,
    }
}
