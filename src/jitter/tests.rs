//! Arrival traces with what must be decided for each, and seeded runs that hold the timeline's identity.

use std::sync::Arc;

use super::*;
use crate::audio::testing::Rng;

const FRAME_TICKS: u64 = 960;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn packet(now: Instant, ticks: u64) -> Packet {
    Packet {
        time: RtpTime(ticks),
        payload: Arc::from([0_u8; 40]),
        samples: 480,
        frame_samples: 480,
        is_dtx: false,
        has_fec: false,
        received: now,
        inserted: now,
    }
}

/// Runs a trace: words such as `20:p1`, "at 20 ms packet 1 arrives". `p` is audio, `f` audio with FEC, `d` a DTX frame,
/// `b` a bad packet, `e` an event, `r` a restart, `.` nothing. Its RTP time is its number, in frames, unless `@` gives
/// another. What is decided comes out the same way: `D` decoded, `F` repaired, `X` expanded, `S` silence; samples
/// follow where they are not 480, and a count where the same happens again at once.
fn run(buffer: &mut JitterBuffer, trace: &str) -> String {
    run_from(Instant::now(), buffer, trace)
}

/// The same, with times that count from `start`.
fn run_from(start: Instant, buffer: &mut JitterBuffer, trace: &str) -> String {
    let mut said: Vec<(u64, String, u32)> = Vec::new();
    let drain = |buffer: &mut JitterBuffer, at: u64, said: &mut Vec<(u64, String, u32)>| {
        for _ in 0..10_000 {
            let size = |samples: usize| if samples == 480 { String::new() } else { samples.to_string() };
            let word = match buffer.decide(start + ms(at)) {
                Decision::Decode(packet) => format!("D{}", packet.time.0 / FRAME_TICKS),
                Decision::Fec { samples, .. } => format!("F{}", size(samples)),
                Decision::Expand { samples } => format!("X{}", size(samples)),
                Decision::Silence { samples } => format!("S{}", size(samples)),
                Decision::Wait(until) => {
                    assert_eq!(until, buffer.deadline());
                    assert!(until.is_none_or(|until| until > start + ms(at)), "it waits for the past");
                    return;
                }
            };
            match said.last_mut() {
                Some((when, last, count)) if *when == at && *last == word => *count += 1,
                _ => said.push((at, word, 1)),
            }
        }
        panic!("decisions without end");
    };
    for word in trace.split_whitespace() {
        let (at, what) = word.split_once(':').expect("time:what");
        let at: u64 = at.parse().expect("milliseconds");
        while let Some(due) = buffer.deadline().map(|due| (due - start).as_millis() as u64).filter(|due| *due <= at) {
            drain(buffer, due, &mut said);
        }
        let now = start + ms(at);
        let (number, time) = what[1..].split_once('@').unwrap_or((&what[1..], &what[1..]));
        let seq = SeqNo(number.parse().unwrap_or(0));
        let ticks = time.parse::<u64>().unwrap_or(0).wrapping_mul(FRAME_TICKS);
        match &what[..1] {
            "p" => buffer.insert_packet(seq, packet(now, ticks)),
            "f" => buffer.insert_packet(seq, Packet { has_fec: true, ..packet(now, ticks) }),
            "d" => buffer.insert_packet(seq, Packet { is_dtx: true, ..packet(now, ticks) }),
            "b" => buffer.insert_bad(now, seq),
            "e" => buffer.insert_event(now, seq),
            "r" => buffer.restart(),
            _ => assert_eq!(what, "."),
        }
        drain(buffer, at, &mut said);
    }
    let words = said.into_iter().map(|(at, word, count)| match count {
        1 => format!("{at}:{word}"),
        count => format!("{at}:{word}*{count}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn golden(trace: &str, decided: &str) -> Counts {
    let mut buffer = JitterBuffer::new();
    assert_eq!(run(&mut buffer, trace), decided, "{trace}");
    buffer.counts()
}

/// Packets `from..to` arriving every 20 ms of their own time, shifted by `late` milliseconds.
fn stream(from: u64, to: u64, late: u64) -> String {
    let words: Vec<_> = (from..to).map(|n| format!("{}:p{n} ", n * 20 + late)).collect();
    words.concat()
}

fn burst(at: u64, from: u64, to: u64) -> String {
    let words: Vec<_> = (from..to).map(|n| format!("{at}:p{n} ")).collect();
    words.concat()
}

#[test]
fn packets_in_order_are_decoded_as_they_arrive() {
    let counts = golden("0:p0 20:p1 47:p2 61:p3 80:p4", "0:D0 20:D1 47:D2 61:D3 80:D4");
    assert_eq!(counts, Counts { packets: 5, elapsed_samples: 5 * 480, ..Counts::default() });
}

#[test]
fn a_packet_overtaken_within_the_wait_is_put_in_order() {
    let counts = golden("0:p0 20:p2 28:p1 60:p3", "0:D0 28:D1 28:D2 60:D3");
    assert_eq!((counts.lost, counts.late), (0, 0));
}

#[test]
fn a_packet_later_than_its_concealment_is_counted_and_dropped() {
    let counts = golden("0:p0 40:p2 55:p1 60:p3", "0:D0 50:X 50:D2 60:D3");
    assert_eq!((counts.lost, counts.late, counts.expanded, counts.packets), (1, 1, 1, 3));
}

#[test]
fn the_wait_for_a_gap_grows_with_lateness_and_stays_bounded() {
    let (mut buffer, start) = (JitterBuffer::new(), Instant::now());
    assert_eq!(buffer.gap_wait(), WAIT_MIN);
    let swapped = "0:p0 100:p2 138:p1 300:p4 338:p3 500:p6 538:p5 700:p8 738:p7";
    run_from(start, &mut buffer, swapped);
    assert_eq!(buffer.gap_wait(), ms(40));
    assert_eq!(buffer.counts().late, 1, "it had to learn once");
    let learnt = run_from(start, &mut buffer, "900:p10 938:p9 1000:p13 1060:.");
    assert_eq!(learnt, "900:S 938:D9 938:D10 1040:X*2 1040:D13");
}

#[test]
fn a_loss_is_repaired_from_the_next_packet_where_it_can_be() {
    let counts = golden("0:p0 40:f2", "0:D0");
    assert_eq!(counts.lost, 0, "it still waits");
    let counts = golden("0:p0 40:f2 50:.", "0:D0 50:F 50:D2");
    assert_eq!((counts.lost, counts.fec, counts.expanded), (1, 1, 0));
    let counts = golden("0:p0 40:p2 50:.", "0:D0 50:X 50:D2");
    assert_eq!((counts.lost, counts.fec, counts.expanded), (1, 0, 1));
}

#[test]
fn a_burst_of_losses_is_expanded_a_while_then_silent_then_repaired() {
    let counts = golden("0:p0 60:f3 70:.", "0:D0 70:X 70:F 70:D3");
    assert_eq!((counts.lost, counts.fec, counts.expanded), (2, 1, 1));
    let counts = golden("0:p0 160:f8 170:.", "0:D0 170:X*3 170:S*3 170:F 170:D8");
    assert_eq!((counts.lost, counts.fec, counts.expanded), (7, 1, 3));
    let counts = golden("0:p0 120:p6 130:.", "0:D0 130:X*3 130:S*2 130:D6");
    assert_eq!((counts.lost, counts.fec, counts.expanded), (5, 0, 3));
}

#[test]
fn every_gap_is_waited_for_on_its_own() {
    golden("0:p0 40:p2 45:p4 56:.", "0:D0 50:X 50:D2 55:X 55:D4");
    golden("0:p0 40:p2 45:p4 46:p3 56:.", "0:D0 50:X 50:D2 50:D3 50:D4");
}

#[test]
fn after_a_dtx_frame_silence_is_filled_in_real_time() {
    // The next packet is contiguous in number and 400 ms later in time.
    let counts = golden(
        "0:p0 20:d1 420:p2@21",
        "0:D0 20:D1 60:S 80:S 100:S 120:S 140:S 160:S 180:S 200:S 220:S 240:S 260:S 280:S 300:S 320:S 340:S 360:S 380:S \
         400:S 420:S 420:D21",
    );
    assert_eq!((counts.lost, counts.stall_fill_samples, counts.elapsed_samples), (0, 0, 22 * 480));
    // Speech that goes on at once leaves no trace, even 15 ms late.
    assert_eq!(golden("0:p0 20:d1 55:p2 60:p3", "0:D0 20:D1 55:D2 60:D3").stall_fill_samples, 0);
    // What RTP time does not explain is a stall.
    assert_eq!(golden("0:p0 20:d1 70:p2", "0:D0 20:D1 60:S 70:D2").stall_fill_samples, 480);
    // What real time did not fill yet, RTP time does.
    assert_eq!(golden("0:p0 20:d1 21:p2@5", "0:D0 20:D1 21:S*3 21:D5").stall_fill_samples, 0);
}

#[test]
fn a_word_that_is_lost_at_the_end_of_a_pause_is_repaired() {
    let counts = golden("0:d0 100:f2@5 110:.", "0:D0 40:S 60:S 80:S 100:S 110:F 110:D5");
    assert_eq!((counts.fec, counts.stall_fill_samples), (1, 480), "the fourth frame of silence was one too many");
}

#[test]
fn after_speech_silence_is_filled_only_when_nothing_was_heard_for_200_ms() {
    let counts = golden("0:p0 199:p1", "0:D0 199:D1");
    assert_eq!(counts.stall_fill_samples, 0);
    let counts = golden("0:p0 250:.", "0:D0 200:S 220:S 240:S");
    assert_eq!(counts.elapsed_samples, 480);
}

#[test]
fn a_burst_after_a_stall_is_appended_whole() {
    for (stall_ms, filled) in [(200, 0), (5_000, 240)] {
        let n = stall_ms / 20;
        let mut buffer = JitterBuffer::new();
        let trace = String::from("0:p0 20:p1 ") + &burst(stall_ms + 10, 2, n + 2) + &stream(n + 2, n + 5, 0);
        let after = run(&mut buffer, &trace);
        assert_eq!(after.matches('D').count() as u64, n + 5, "{after}");
        let counts = buffer.counts();
        assert_eq!((counts.lost, counts.late), (0, 0));
        assert_eq!(counts.elapsed_samples, (n + 5) * 480);
        assert_eq!(counts.stall_fill_samples / 480, filled, "{after}");
        assert!(after.ends_with(&format!("{}:D{}", (n + 4) * 20, n + 4)), "no delay stays behind: {after}");
    }
}

#[test]
fn a_stall_whose_packets_never_come_is_filled_to_the_exact_time() {
    let silence: Vec<_> = (200..1_001).step_by(20).map(|at| format!("{at}:S ")).collect();
    let decided = format!("0:D0 {}1010:S*8 1010:D50", silence.concat());
    let counts = golden("0:p0 1000:p50 1010:.", &decided);
    assert_eq!((counts.lost, counts.elapsed_samples, counts.stall_fill_samples), (49, 51 * 480, 0));
}

#[test]
fn numbers_go_on_across_65535() {
    let near = SeqNo(65_534);
    let extended: Vec<u64> = [65_534_u16, 65_535, 0, 1].map(|wire| near.extend(wire).0).to_vec();
    assert_eq!(extended, [65_534, 65_535, 65_536, 65_537]);
    golden("0:p65534 20:p65535 40:p65536 60:p65537", "0:D65534 20:D65535 40:D65536 60:D65537");
}

#[test]
fn numbers_and_times_may_wrap_even_64_bits() {
    let mut buffer = JitterBuffer::new();
    let now = Instant::now();
    for n in 0..4_u64 {
        let seq = SeqNo(u64::MAX - 1).plus(n);
        buffer.insert_packet(seq, packet(now, (u64::MAX - 1_000).wrapping_add(n * FRAME_TICKS)));
        assert!(matches!(buffer.decide(now), Decision::Decode(_)), "packet {n}");
    }
    assert_eq!(buffer.counts().elapsed_samples, 4 * 480);
}

#[test]
fn duplicates_are_counted_and_dropped() {
    let counts = golden("0:p0 1:p0 20:p1 60:p3 61:p3 65:p2 66:p2 67:p3", "0:D0 20:D1 65:D2 65:D3");
    assert_eq!((counts.duplicates, counts.late, counts.packets), (4, 0, 4));
}

#[test]
fn dtmf_events_take_numbers_and_are_not_losses() {
    let counts = golden("0:p0 20:e1 21:p2@1 40:e3 41:p4@2", "0:D0 21:D1 41:D2");
    assert_eq!((counts.events, counts.lost, counts.packets), (2, 0, 3));
    // The key stands in for audio: silence is due as after a pause.
    let counts = golden("0:p0 20:e1 40:e2 60:e3 80:e4 100:p5@5", "0:D0 60:S 80:S 100:S*2 100:D5");
    assert_eq!((counts.lost, counts.elapsed_samples, counts.stall_fill_samples), (0, 6 * 480, 0));
    golden("0:e0 20:p1 40:p2", "20:D1 40:D2");
}

#[test]
fn a_bad_packet_is_concealed_without_waiting() {
    let counts = golden("0:p0 20:b1 40:f2", "0:D0 40:F 40:D2");
    assert_eq!((counts.packets, counts.lost, counts.fec), (3, 0, 1));
    golden("0:p0 20:b1 40:p2", "0:D0 40:X 40:D2");
}

#[test]
fn a_gap_is_not_waited_for_behind_a_long_burst() {
    let trace = String::from("0:p0 ") + &burst(3_000, 2, 68);
    let mut buffer = JitterBuffer::new();
    let decided = run(&mut buffer, &trace);
    assert!(decided.ends_with("3000:D67"), "{decided}");
    assert_eq!(buffer.counts().lost, 1);
}

#[test]
fn a_long_loss_is_a_gap_and_a_longer_one_a_resync() {
    let counts = golden("0:p0 20:p500@90 40:p501@91", "0:D0 20:X*3 20:S*86 20:D90 40:D91");
    assert_eq!((counts.lost, counts.resyncs), (499, 0));
    // 2 s and one frame are missing, and real time filled none of it.
    let counts = golden("0:p0 20:p500@102 40:p501@103", "0:D0 20:D102 40:D103");
    assert_eq!((counts.lost, counts.resyncs, counts.elapsed_samples), (499, 1, 3 * 480));
}

#[test]
fn a_clock_that_jumps_is_followed_and_counted() {
    for to in [1_000_000_000, 5, u64::MAX / 2] {
        let counts = golden(&format!("0:p10 20:p11@{to} 40:p12@{}", to + 1), &{
            let shown = |frames: u64| frames.wrapping_mul(FRAME_TICKS) / FRAME_TICKS;
            format!("0:D10 20:D{} 40:D{}", shown(to), shown(to + 1))
        });
        assert_eq!((counts.resyncs, counts.elapsed_samples, counts.lost), (1, 3 * 480, 0));
    }
}

#[test]
fn a_stray_number_is_dropped_and_a_new_run_of_numbers_is_followed() {
    let counts = golden("0:p1000 20:p7 40:p1001 60:p1002", "0:D1000 40:D1001 60:D1002");
    assert_eq!((counts.out_of_range, counts.resyncs), (1, 0));
    for to in [7, 1_000_000] {
        let counts = golden(&format!("0:p1000 20:p{to} 40:p{} 60:p{}", to + 1, to + 2), &{
            format!("0:D1000 40:D{} 60:D{}", to + 1, to + 2)
        });
        assert_eq!((counts.out_of_range, counts.resyncs, counts.lost), (1, 1, 0));
    }
}

#[test]
fn a_restart_goes_on_at_once_after_what_was_held() {
    let counts = golden("0:p1000 40:p1002 41:r 42:p1003@77 60:p1004@78", "0:D1000 42:X 42:D1002 42:D77 60:D78");
    assert_eq!((counts.resyncs, counts.lost, counts.out_of_range), (1, 1, 0));
    golden("0:r 1:p5 20:p6", "1:D5 20:D6");
}

#[test]
fn packets_of_other_lengths_keep_the_time() {
    let (mut buffer, now) = (JitterBuffer::new(), Instant::now());
    let mut ticks = 5;
    let mut appended = 0;
    for (n, samples) in [60_u16, 240, 2_880, 120, 480, 1_440].into_iter().cycle().take(61).enumerate() {
        if n % 7 != 3 {
            buffer.insert_packet(SeqNo(n as u64), Packet { samples, frame_samples: samples, ..packet(now, ticks) });
        }
        ticks += u64::from(samples) * 2;
        let later = now + ms(60);
        loop {
            appended += match buffer.decide(later) {
                Decision::Decode(packet) => u64::from(packet.samples),
                Decision::Fec { samples, .. } | Decision::Expand { samples } | Decision::Silence { samples } => {
                    samples as u64
                }
                Decision::Wait(_) => break,
            };
        }
    }
    assert_eq!(appended, (ticks - 5) / 2);
    assert_eq!(buffer.counts().elapsed_samples, appended);
}

/// What a path does to packets.
#[derive(Clone, Copy, Debug)]
struct Path {
    loss_permille: u64,
    burst_permille: u64,
    jitter_ms: u64,
    duplicate_permille: u64,
    stall_permille: u64,
    /// The sender's clock against ours, in permille of 1.
    drift: i64,
}

/// A talk of `frames` frames over a path: arrivals in milliseconds, with number, frame of RTP time, DTX flag, FEC flag.
fn talk(rng: &mut Rng, path: Path, frames: u64) -> Vec<(u64, u64, u64, bool, bool)> {
    let mut arrivals = Vec::new();
    let (mut seq, mut frame, mut losing, mut stalled_until) = (60_000, 0, 0, 0);
    while frame < frames {
        let pause = rng.permille(15);
        let sent = (frame as i64 * 20 * (1000 + path.drift) / 1000) as u64;
        if rng.permille(path.stall_permille) {
            stalled_until = stalled_until.max(sent + 50 + rng.below(5_000));
        }
        let at = (sent + 30 + rng.below(path.jitter_ms + 1)).max(stalled_until);
        if losing == 0 && rng.permille(path.loss_permille) {
            losing = if rng.permille(path.burst_permille) { 2 + rng.below(30) } else { 1 };
        }
        // The first packet and the last arrive: they are the ends of the measure.
        if losing == 0 || frame == 0 {
            arrivals.push((at, seq, frame, pause, rng.permille(700)));
            if rng.permille(path.duplicate_permille) {
                arrivals.push((at + rng.below(40), seq, frame, pause, false));
            }
        } else {
            losing -= 1;
        }
        seq += 1;
        frame += if pause { 1 + rng.below(60) } else { 1 };
    }
    arrivals.sort_by_key(|arrival| arrival.0);
    let sent = (frame as i64 * 20 * (1000 + path.drift) / 1000) as u64;
    let last = arrivals.last().map_or(0, |arrival| arrival.0);
    arrivals.push(((sent + 30).max(last), seq, frame, false, false));
    arrivals
}

#[test]
fn over_any_path_the_timeline_is_exact_and_no_delay_stays_behind() {
    let calm =
        Path { loss_permille: 0, burst_permille: 0, jitter_ms: 0, duplicate_permille: 0, stall_permille: 0, drift: 0 };
    let paths = [
        calm,
        Path { drift: 25, ..calm },
        Path { drift: -25, ..calm },
        Path { jitter_ms: 15, ..calm },
        Path { jitter_ms: 90, duplicate_permille: 20, ..calm },
        Path { loss_permille: 60, burst_permille: 300, jitter_ms: 10, ..calm },
        Path { stall_permille: 5, drift: -25, ..calm },
        Path {
            loss_permille: 40,
            burst_permille: 300,
            jitter_ms: 60,
            duplicate_permille: 5,
            stall_permille: 2,
            drift: 25,
        },
    ];
    for path in paths {
        for seed in 1..=8 {
            let arrivals = talk(&mut Rng::new(seed), path, 6_000);
            let first_frame = arrivals[0].2;
            let start = Instant::now();
            let mut buffer = JitterBuffer::new();
            let (mut appended, mut decoded, mut last_frame) = (0, 0, first_frame);
            let mut drain = |buffer: &mut JitterBuffer, now: Instant| {
                for _ in 0..2_000 {
                    match buffer.decide(now) {
                        Decision::Decode(packet) => {
                            decoded += 1;
                            assert!(now - packet.inserted <= WAIT_MAX, "seed {seed} {path:?}: waited too long");
                            last_frame = packet.time.0 / FRAME_TICKS;
                            appended += u64::from(packet.samples);
                        }
                        Decision::Fec { samples, .. }
                        | Decision::Expand { samples }
                        | Decision::Silence { samples } => {
                            appended += samples as u64;
                        }
                        Decision::Wait(_) => return,
                    }
                }
                panic!("decisions without end");
            };
            for &(at, seq, frame, is_dtx, has_fec) in &arrivals {
                let now = start + ms(at);
                while let Some(due) = buffer.deadline().filter(|due| *due <= now) {
                    drain(&mut buffer, due);
                }
                let packet = Packet { is_dtx, has_fec, ..packet(now, frame * FRAME_TICKS) };
                buffer.insert_packet(SeqNo(seq), packet);
                drain(&mut buffer, now);
            }
            let end = start + ms(arrivals.last().expect("there are some").0) + WAIT_MAX;
            while let Some(due) = buffer.deadline().filter(|due| *due <= end) {
                drain(&mut buffer, due);
            }
            let counts = buffer.counts();
            let rtp_elapsed = (last_frame - first_frame + 1) * 480;
            assert_eq!(appended, rtp_elapsed + counts.stall_fill_samples, "seed {seed} {path:?} {counts:?}");
            assert_eq!(counts.elapsed_samples, rtp_elapsed, "seed {seed} {path:?}");
            assert_eq!(decoded, counts.packets, "what got a place was heard: seed {seed} {path:?}");
            assert_eq!(counts.resyncs, 0, "seed {seed} {path:?}");
            // A duplicate that comes behind a long burst is out of the ring's memory.
            assert!(counts.out_of_range == 0 || path.stall_permille > 0, "seed {seed} {path:?}");
            if path.jitter_ms == 0 && path.stall_permille == 0 && path.drift <= 0 {
                assert_eq!(counts.stall_fill_samples, 0, "nothing was put in that time did not explain: {path:?}");
            }
        }
    }
}

#[test]
fn any_numbers_and_times_are_taken_without_panic_or_endless_work() {
    let mut rng = Rng::new(7);
    for _ in 0..200 {
        let (mut buffer, mut now) = (JitterBuffer::new(), Instant::now());
        let (mut seq, mut ticks) = (rng.next(), rng.next());
        for _ in 0..400 {
            (seq, ticks) = match rng.below(6) {
                0 => (rng.next(), ticks),
                1 => (seq, rng.next()),
                2 => (seq.wrapping_add(rng.below(300)), ticks.wrapping_add(rng.below(400_000))),
                3 => (seq.wrapping_sub(rng.below(300)), ticks.wrapping_sub(rng.below(400_000))),
                _ => (seq.wrapping_add(1), ticks.wrapping_add(960)),
            };
            now += Duration::from_micros(rng.below(30_000));
            let samples = 60 * (1 + rng.below(48)) as u16;
            let (is_dtx, has_fec) = (rng.permille(100), rng.permille(500));
            match rng.below(20) {
                0 => buffer.insert_event(now, SeqNo(seq)),
                1 => buffer.insert_bad(now, SeqNo(seq)),
                2 => buffer.restart(),
                _ => buffer.insert_packet(
                    SeqNo(seq),
                    Packet { samples, frame_samples: samples, is_dtx, has_fec, ..packet(now, ticks) },
                ),
            }
            let mut appended = 0;
            loop {
                appended += match buffer.decide(now) {
                    Decision::Decode(packet) => u64::from(packet.samples),
                    Decision::Fec { samples, .. } | Decision::Expand { samples } | Decision::Silence { samples } => {
                        samples as u64
                    }
                    Decision::Wait(_) => break,
                };
                // All slots at their longest, each behind a gap.
                assert!(appended <= RING_SLOTS as u64 * (2_880 + GAP_FILL_SAMPLES_MAX), "work without bound");
            }
        }
    }
}
