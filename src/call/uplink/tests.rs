use super::*;
use crate::audio::testing::{Rng, best_correlation, correlation, frames, rms, speech};
use crate::audio::{Encoder, EncoderSettings, FRAME, FRAME_SAMPLES, PAYLOAD_BYTES_MAX};

const FRAME_TICKS: u64 = 960;
/// A SILK wideband frame of 20 ms without a payload: the sender pauses.
const DTX: &[u8] = &[9 << 3];

fn encode(settings: EncoderSettings, pcm: &[i16]) -> Vec<Arc<[u8]>> {
    let mut encoder = Encoder::new(settings).unwrap();
    let mut out = [0; PAYLOAD_BYTES_MAX];
    frames(pcm)
        .map(|frame| {
            let len = encoder.encode(frame, &mut out).unwrap();
            Arc::from(&out[..len])
        })
        .collect()
}

/// WhatsApp's own numbers.
fn settings() -> EncoderSettings {
    EncoderSettings::for_peer(Some(20_000), Some(16_000), true, 5)
}

/// An uplink and all that it appended.
struct Model {
    uplink: Uplink,
    pcm: Vec<i16>,
    kinds: Vec<FrameKind>,
    waited: Vec<Duration>,
    keep: bool,
    samples: u64,
}

impl Model {
    fn new() -> Self {
        let (pcm, kinds, waited) = (Vec::new(), Vec::new(), Vec::new());
        Self { uplink: Uplink::new().unwrap(), pcm, kinds, waited, keep: true, samples: 0 }
    }

    fn poll(&mut self, now: Instant) {
        let Self { uplink, pcm, kinds, waited, keep, samples } = self;
        uplink.poll(now, &mut |frame| {
            assert!(!frame.pcm.is_empty() && frame.pcm.len() <= PACKET_SAMPLES_MAX);
            assert!(frame.received.is_some() || frame.kind != FrameKind::Decoded);
            *samples += frame.pcm.len() as u64;
            if *keep {
                pcm.extend_from_slice(frame.pcm);
                kinds.push(frame.kind);
                waited.push(frame.waited);
            }
        });
        assert!(self.uplink.deadline().at.is_none_or(|at| at > now), "all that is due was done");
    }

    /// Whether packets wait behind a gap.
    fn held(&self) -> bool {
        self.uplink.buffer.holds_packets()
    }

    /// Lets time pass, each deadline served when it is due.
    fn pass(&mut self, until: Instant) {
        while let Some(due) = self.uplink.deadline().at.filter(|due| *due <= until) {
            self.poll(due);
        }
    }

    fn hear(&mut self, now: Instant, seq: u64, frame: u64, payload: &Arc<[u8]>) {
        self.pass(now);
        self.uplink.insert_packet(now, now, seq, frame * FRAME_TICKS, payload.clone());
        self.poll(now);
    }
}

#[test]
fn speech_in_order_is_appended_at_once_and_whole() {
    let said = speech(150);
    let payloads = encode(EncoderSettings::for_peer(None, None, true, 5), &said);
    let (mut model, start) = (Model::new(), Instant::now());
    for (n, payload) in payloads.iter().enumerate() {
        model.hear(start + FRAME * n as u32, n as u64, n as u64, payload);
        assert_eq!(model.pcm.len(), (n + 1) * FRAME_SAMPLES, "at once");
    }
    let (likeness, delay) = best_correlation(&said, &model.pcm);
    assert!(likeness > 0.9, "correlation {likeness} at {delay} samples");
    assert!(model.waited.iter().all(Duration::is_zero));
    let report = model.uplink.report();
    assert_eq!(report, UplinkReport { packets: 150, appended_ms: 3_000, ..UplinkReport::default() });
}

#[test]
fn losses_are_repaired_by_fec_and_that_is_better_than_expansion() {
    let payloads = encode(settings(), &speech(250));
    let start = Instant::now();
    let play = |lossy: bool, with_fec: bool| {
        let mut model = Model::new();
        for (n, payload) in payloads.iter().enumerate() {
            if lossy && n % 10 == 7 {
                continue;
            }
            // The same packet, but the buffer is not told that FEC is in it.
            if lossy && !with_fec && n % 10 == 8 {
                model.pass(start + FRAME * n as u32);
                let info = PacketInfo::of(payload).unwrap();
                let now = start + FRAME * n as u32;
                let packet = Packet {
                    time: RtpTime(n as u64 * FRAME_TICKS),
                    payload: payload.clone(),
                    samples: info.samples,
                    frame_samples: info.frame_samples,
                    is_dtx: false,
                    has_fec: false,
                    received: now,
                    inserted: now,
                };
                model.uplink.buffer.insert_packet(SeqNo(n as u64), packet);
                model.poll(now);
                continue;
            }
            model.hear(start + FRAME * n as u32, n as u64, n as u64, payload);
        }
        model.pass(start + FRAME * 260);
        model
    };
    let whole = play(false, true).pcm;
    let likeness = |model: &Model| {
        let lost = (57..250).step_by(10).map(|n| n * FRAME_SAMPLES..(n + 1) * FRAME_SAMPLES);
        lost.clone().map(|at| correlation(&whole[at.clone()], &model.pcm[at])).sum::<f64>() / lost.count() as f64
    };
    let (fec, plc) = (play(true, true), play(true, false));
    let report = fec.uplink.report();
    assert_eq!(report.lost, 25);
    assert!(report.fec >= 18 && report.fec + report.expanded == 25, "{report:?}");
    assert_eq!(plc.uplink.report().fec, 0);
    let (fec, plc) = (likeness(&fec), likeness(&plc));
    assert!(fec > 0.8 && fec > plc + 0.2, "repaired {fec:.3}, expanded {plc:.3}");
}

#[test]
fn a_packet_behind_a_gap_says_how_long_it_waited() {
    let payloads = encode(settings(), &speech(4));
    let (mut model, start) = (Model::new(), Instant::now());
    model.hear(start, 0, 0, &payloads[0]);
    model.hear(start + FRAME * 2, 2, 2, &payloads[2]);
    model.hear(start + FRAME * 2 + Duration::from_millis(6), 1, 1, &payloads[1]);
    let ms = Duration::from_millis;
    assert_eq!(model.waited, [ms(0), ms(0), ms(6)]);
    assert_eq!(model.kinds, [FrameKind::Decoded; 3]);
}

#[test]
fn what_libopus_refuses_is_concealed_and_counted() {
    let payloads = encode(settings(), &speech(10));
    let (mut model, start) = (Model::new(), Instant::now());
    for (n, payload) in payloads.iter().enumerate() {
        // An empty payload, and one whose frame count lies.
        let bad: Option<Arc<[u8]>> = match n {
            4 => Some(Arc::from([])),
            6 => Some(Arc::from([9 << 3 | 3, 63])),
            _ => None,
        };
        model.hear(start + FRAME * n as u32, n as u64, n as u64, bad.as_ref().unwrap_or(payload));
    }
    let report = model.uplink.report();
    assert_eq!((report.packets, report.undecodable, report.lost, report.appended_ms), (10, 2, 0, 200));
    assert_eq!(report.fec + report.expanded, 2);
}

#[test]
fn a_stall_fades_out_and_its_silence_is_silent() {
    let payloads = encode(EncoderSettings::for_peer(None, None, true, 5), &speech(40));
    let (mut model, start) = (Model::new(), Instant::now());
    for (n, payload) in payloads.iter().take(30).enumerate() {
        model.hear(start + FRAME * n as u32, n as u64, n as u64, payload);
    }
    let spoken = model.pcm.len();
    model.pass(start + FRAME * 50);
    let silence = &model.pcm[spoken..];
    assert_eq!(silence.len(), 12 * FRAME_SAMPLES, "from 200 ms after the last packet on");
    assert!(rms(&silence[RAMP_SAMPLES..]) == 0.0);
    let step = |pcm: &[i16]| pcm.windows(2).map(|pair| pair[1].abs_diff(pair[0])).max().unwrap();
    assert!(step(&model.pcm[spoken - 1..]) <= step(&model.pcm[..spoken]), "it clicks");
    model.hear(start + FRAME * 50, 30, 30, &payloads[30]);
    let report = model.uplink.report();
    assert_eq!((report.stall_fill_ms, report.silence_ms, report.appended_ms), (240, 240, 31 * 20 + 240));
}

#[test]
fn a_new_stream_is_followed_when_it_is_announced() {
    let payloads = encode(settings(), &speech(6));
    let (mut model, start) = (Model::new(), Instant::now());
    (0..3).for_each(|n| model.hear(start + FRAME * n as u32, n, n, &payloads[n as usize]));
    model.uplink.restart();
    (3..6).for_each(|n| model.hear(start + FRAME * n as u32, n + 50, n + 9_000, &payloads[n as usize]));
    let report = model.uplink.report();
    assert_eq!((report.packets, report.lost, report.resyncs, report.appended_ms), (6, 0, 1, 120));
}

/// An hour of talk: pauses, losses, bursts of them, jitter that reorders, DTMF, stalls, and a clock that runs off.
#[test]
fn over_an_hour_of_everything_the_timeline_is_exact() {
    let payloads = encode(settings(), &speech(500));
    let dtx: Arc<[u8]> = Arc::from(DTX);
    for drift in [-25_i64, 25] {
        let mut rng = Rng::new(11);
        let mut arrivals = Vec::new();
        let (mut seq, mut frame, mut losing, mut stalled_until) = (65_000, 0_u64, 0, 0);
        while frame < 180_000 {
            let sent_ms = (frame as i64 * 20 * (1_000 + drift) / 1_000) as u64;
            if rng.below(30_000) == 0 {
                stalled_until = stalled_until.max(sent_ms + 200 + rng.below(5_000));
            }
            if losing == 0 && rng.permille(20) {
                losing = if rng.permille(200) { 2 + rng.below(20) } else { 1 };
            }
            let pause = rng.permille(5);
            let at_ms = (sent_ms + 20 + rng.below(40)).max(stalled_until);
            if losing == 0 || frame == 0 {
                arrivals.push((at_ms, seq, frame, if pause { &dtx } else { &payloads[frame as usize % 500] }));
            }
            losing = losing.saturating_sub(1);
            seq += 1;
            if rng.permille(1) {
                // An event: a number without time, marked by an empty payload's place in the list.
                arrivals.push((at_ms, seq, u64::MAX, &dtx));
                seq += 1;
            }
            frame += if pause { 20 } else { 1 };
        }
        arrivals.sort_by_key(|arrival| arrival.0);
        let (mut model, start) = (Model::new(), Instant::now());
        model.keep = false;
        let (mut first, mut last) = (u64::MAX, 0);
        for (at_ms, seq, frame, payload) in arrivals {
            let now = start + Duration::from_millis(at_ms);
            if frame == u64::MAX {
                model.pass(now);
                model.uplink.insert_event(now, seq);
                model.poll(now);
            } else {
                first = first.min(frame);
                last = last.max(frame);
                model.hear(now, seq, frame, payload);
            }
        }
        // What still waits behind a gap; no silence is put in after it.
        while let Some(due) = model.uplink.deadline().at.filter(|_| model.held()) {
            model.poll(due);
        }
        let report = model.uplink.report();
        let elapsed_ms = (last - first + 1) * 20;
        assert_eq!(model.samples, (elapsed_ms + report.stall_fill_ms) * 24, "{report:?}");
        assert_eq!(report.appended_ms, elapsed_ms + report.stall_fill_ms);
        assert_eq!((report.resyncs, report.undecodable), (0, 0));
        assert!(
            report.stall_fill_ms > 0 && report.fec > 500 && report.lost > 3_000 && report.events > 100,
            "{report:?}"
        );
        // What the network's stalls and jitter put in, over an hour: less than 2 %.
        assert!(report.stall_fill_ms < 72_000, "{report:?}");
    }
}

#[test]
fn hostile_payloads_never_panic_and_keep_the_time() {
    let good = encode(settings(), &speech(50));
    let mut rng = Rng::new(13);
    let (mut model, mut now) = (Model::new(), Instant::now());
    model.keep = false;
    let mut frame = 0;
    for seq in 0..20_000 {
        let payload: Arc<[u8]> = match rng.below(4) {
            0 => (0..rng.below(200)).map(|_| rng.next() as u8).collect(),
            1 => {
                let mut bytes = good[rng.below(50) as usize].to_vec();
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next() as u8;
                bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
                bytes.into()
            }
            _ => good[rng.below(50) as usize].clone(),
        };
        now += FRAME;
        // Times leave room for any length, so that nothing overlaps.
        model.hear(now, seq, frame, &payload);
        frame += 6;
    }
    // One good packet more, to close the last gap.
    model.hear(now + FRAME, 20_000, frame, &good[0]);
    let report = model.uplink.report();
    assert!(report.undecodable > 1_000, "{report:?}");
    assert_eq!(report.resyncs, 0, "{report:?}");
    assert_eq!(report.appended_ms, model.samples / 24);
    let first_ms_max = 120 * 3;
    let elapsed_ms = frame * 20 + 20;
    assert!(report.appended_ms - report.stall_fill_ms <= elapsed_ms);
    assert!(report.appended_ms - report.stall_fill_ms >= elapsed_ms - first_ms_max, "{report:?} of {elapsed_ms}");
}
