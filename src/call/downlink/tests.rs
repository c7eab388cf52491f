use super::*;
use crate::audio::testing::{Rng, best_correlation, rms, speech};
use crate::audio::{Decoder, PACKET_SAMPLES_MAX};

const A: ItemId = ItemId(1);
const B: ItemId = ItemId(2);
const PHASE: Duration = Duration::from_millis(7);
const FIRST_TIME: u32 = u32::MAX - 2_000;

fn settings() -> EncoderSettings {
    EncoderSettings::for_peer(Some(20_000), Some(16_000), true, 5)
}

/// A downlink that beats on time, and a caller that hears it.
struct Call {
    downlink: Downlink,
    decoder: Decoder,
    heard: Vec<i16>,
}

/// A [`Beat`] without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    rtp_time: u32,
    marker: bool,
    due: Instant,
    item: Option<ItemId>,
    first: bool,
    last: bool,
}

impl Sent {
    fn silence(&self) -> bool {
        self.item.is_none()
    }
}

impl Call {
    fn new(settings: EncoderSettings) -> (Self, Instant) {
        let start = Instant::now();
        let mut downlink = Downlink::new(settings, PHASE, FIRST_TIME).unwrap();
        downlink.start(start);
        (Self { downlink, decoder: Decoder::new().unwrap(), heard: Vec::new() }, start)
    }

    fn beat(&mut self, now: Instant) -> Option<Sent> {
        let beat = self.downlink.beat(now)?;
        let mut out = [0; PACKET_SAMPLES_MAX];
        let samples = self.decoder.decode(beat.payload, &mut out).unwrap();
        assert_eq!(samples, FRAME_SAMPLES);
        self.heard.extend_from_slice(&out[..samples]);
        let Beat { rtp_time, marker, due, item, first_of_item, last_of_item, .. } = beat;
        Some(Sent { rtp_time, marker, due, item, first: first_of_item, last: last_of_item })
    }

    /// The next beats, each on time.
    fn beats(&mut self, count: usize) -> Vec<Sent> {
        (0..count)
            .map(|_| {
                let due = self.downlink.deadline().at.unwrap();
                let early = due.checked_sub(Duration::from_nanos(1)).unwrap();
                assert_eq!(self.downlink.beat(early), None, "early");
                self.beat(due).unwrap()
            })
            .collect()
    }
}

#[test]
fn nothing_flows_before_the_start_and_audio_waits_for_it() {
    let mut downlink = Downlink::new(settings(), PHASE, 0).unwrap();
    let now = Instant::now();
    assert_eq!(downlink.deadline(), Deadline::NEVER);
    assert_eq!(downlink.push(A, &speech(5)), Push::Queued);
    assert_eq!(downlink.beat(now + FRAME * 100), None);
    downlink.start(now);
    downlink.start(now + FRAME * 3);
    assert_eq!(downlink.deadline().at, Some(now + PHASE), "a second start changes nothing");
    assert_eq!(downlink.beat(now + PHASE).unwrap().item, Some(A));

    let mut downlink = Downlink::new(settings(), PHASE, 0).unwrap();
    downlink.start_soon(now);
    downlink.start(now);
    assert_eq!(downlink.deadline().at, Some(now + PHASE / 10), "whoever waits hears of it within two milliseconds");
}

#[test]
fn beats_and_timestamps_step_by_exactly_a_frame_however_late_each_is_served() {
    let (mut call, start) = Call::new(settings());
    call.downlink.push(A, &speech(100));
    let mut rng = Rng::new(5);
    for n in 0..200_u32 {
        let due = call.downlink.deadline().at.unwrap();
        assert_eq!(due, start + PHASE + FRAME * n);
        let sent = call.beat(due + Duration::from_micros(rng.below(20_000))).unwrap();
        assert_eq!((sent.due, sent.rtp_time), (due, FIRST_TIME.wrapping_add(960 * n)));
    }
    assert_eq!(call.downlink.report().skipped_beats, 0);
}

#[test]
fn beats_that_passed_are_skipped_in_time_and_lose_no_audio() {
    let (mut call, start) = Call::new(settings());
    call.downlink.push(A, &speech(10));
    call.beats(2);
    let due = start + PHASE + FRAME * 2;
    let late = due + FRAME * 2 + Duration::from_millis(5);
    let sent = call.beat(late).unwrap();
    assert_eq!((sent.rtp_time, sent.due), (FIRST_TIME.wrapping_add(960 * 4), due), "it was due two frames ago");
    assert_eq!(call.beat(late), None, "one packet a call, and the next is not due");
    assert_eq!(call.downlink.deadline().at, Some(start + PHASE + FRAME * 5), "the beat is the old one");
    call.beats(7);
    let report = call.downlink.report();
    assert_eq!((report.skipped_beats, report.played_ms, report.packets), (2, 200, 10));
    // A machine that was suspended for an hour goes on with one packet.
    let hour = call.downlink.deadline().at.unwrap() + Duration::from_secs(3_600);
    assert!(call.beat(hour).is_some());
    assert_eq!(call.beat(hour), None);
    assert_eq!(call.downlink.report().skipped_beats, 2 + 180_000);
}

#[test]
fn the_caller_hears_the_reply() {
    let (mut call, _) = Call::new(EncoderSettings::for_peer(None, None, true, 5));
    let said = speech(150);
    call.beats(30);
    call.heard.clear();
    for piece in said.chunks(7_777) {
        assert_eq!(call.downlink.push(A, piece), Push::Queued);
    }
    call.downlink.end_item(A);
    let sent = call.beats(150);
    let (likeness, delay) = best_correlation(&said, &call.heard);
    assert!(likeness > 0.9, "correlation {likeness} at {delay} samples");
    assert!(sent[0].marker && sent[0].first && sent[149].last);
    assert!(sent[1..].iter().all(|beat| !beat.marker && !beat.first && !beat.silence()));
    assert_eq!(call.downlink.report().played_ms, 3_000);
}

#[test]
fn silence_is_encoded_until_it_has_settled_and_then_costs_nothing() {
    let (mut call, _) = Call::new(settings());
    call.beats(500);
    assert_eq!(call.downlink.report().encoded, u64::from(SETTLE_FRAMES));
    call.downlink.push(A, &speech(20));
    call.downlink.end_item(A);
    call.beats(20);
    let due = call.downlink.deadline().at.unwrap();
    let payloads: Vec<Vec<u8>> =
        (0..100).map(|n| call.downlink.beat(due + FRAME * n).unwrap().payload.to_vec()).collect();
    let settled = SETTLE_FRAMES as usize;
    assert!(payloads[settled..].iter().all(|payload| *payload == payloads[settled - 1]));
    assert!(payloads[settled].len() <= 20, "{} bytes of silence", payloads[settled].len());
    let report = call.downlink.report();
    assert_eq!((report.encoded, report.silence_packets), (u64::from(2 * SETTLE_FRAMES) + 20, 600));
}

#[test]
fn repeated_silence_is_silent_and_speech_after_it_is_clear_for_every_encoder() {
    let said = speech(60);
    for bitrate in [8_000, 20_000, 64_000] {
        for band in [8_000, 16_000, 48_000] {
            for complexity in [0, 5] {
                let (mut call, _) = Call::new(EncoderSettings::for_peer(Some(bitrate), Some(band), true, complexity));
                call.downlink.push(A, &said);
                call.downlink.end_item(A);
                call.beats(60 + 4);
                call.heard.clear();
                call.beats(300);
                let what = format!("{bitrate} bit/s, {band} Hz, complexity {complexity}");
                let loudest = call.heard.chunks(FRAME_SAMPLES).map(rms).fold(0.0, f64::max);
                assert!(loudest < 2.0, "silence at {loudest}: {what}");
                call.heard.clear();
                call.downlink.push(B, &said);
                call.beats(60);
                let (likeness, _) = best_correlation(&said, &call.heard);
                let bar = if bitrate == 8_000 || band == 8_000 { 0.8 } else { 0.9 };
                assert!(likeness > bar, "correlation {likeness}: {what}");
            }
        }
    }
}

#[test]
fn a_flush_is_immediate_and_exact_to_the_frame() {
    let (mut call, _) = Call::new(settings());
    assert_eq!(call.downlink.flush(|_| {}), None);
    call.downlink.push(A, &speech(50));
    call.downlink.push(B, &speech(25));
    let sent = call.beats(13).iter().filter(|beat| beat.item == Some(A)).count() as u32;
    let mut unheard = Vec::new();
    let flushed = call.downlink.flush(|item| unheard.push(item));
    assert_eq!(flushed, Some(Flushed { item: A, played_ms: 20 * sent, flushed_ms: 1_500 - 20 * sent }));
    assert_eq!(unheard, [B], "what waited behind it is named");
    assert!(call.beats(1)[0].silence());
    assert_eq!((call.downlink.push(A, &[1; 480]), call.downlink.push(B, &[1; 480])), (Push::Closed, Push::Closed));
    assert_eq!(call.downlink.flush(|_| {}), None, "a second barge-in finds nothing");
    let report = call.downlink.report();
    assert_eq!((report.played_ms, report.flushed_ms, report.dropped_ms, report.queued_ms), (260, 1_240, 40, 1_500));
    assert_eq!(report.queued_ms, report.played_ms + report.flushed_ms);
}

#[test]
fn audio_that_stops_or_starts_inside_of_a_sound_does_not_click() {
    // A steady tone that is at its loudest at every frame's edge: a click would be a step as high as the tone.
    let tone: Vec<i16> = (0..24_000)
        .map(|n| ((f64::from(n) / 24_000.0 * 200.0 * std::f64::consts::TAU).cos() * 12_000.0) as i16)
        .collect();
    let (mut call, _) = Call::new(EncoderSettings::for_peer(Some(64_000), None, false, 10));
    call.downlink.push(A, &tone[..20 * FRAME_SAMPLES - 20]);
    call.downlink.push(A, &tone[20 * FRAME_SAMPLES - 20..]);
    call.beats(20);
    call.downlink.flush(|_| {});
    call.beats(5);
    let step = |pcm: &[i16]| pcm.windows(2).map(|pair| pair[1].abs_diff(pair[0])).max().unwrap();
    let render = |downlink: &mut Downlink, count: usize| {
        let mut pcm = Vec::new();
        let mut frame = [0; FRAME_SAMPLES];
        for _ in 0..count {
            downlink.render(&mut frame);
            pcm.extend_from_slice(&frame);
        }
        pcm
    };
    let (Call { mut downlink, .. }, _) = Call::new(settings());
    // Cut by a flush.
    downlink.push(A, &tone);
    let mut pcm = render(&mut downlink, 5);
    assert_eq!(pcm, &tone[..5 * FRAME_SAMPLES], "audio itself is left alone");
    downlink.flush(|_| {});
    pcm.extend(render(&mut downlink, 2));
    assert!(step(&pcm) <= step(&tone), "a flush steps by {}", step(&pcm));
    // Dry inside of a frame, at the edge of one, and with more to come each time; the first start is the model's own.
    for len in [3 * FRAME_SAMPLES - 240, 3 * FRAME_SAMPLES - 1, 2 * FRAME_SAMPLES] {
        downlink.push(B, &tone[..FRAME_SAMPLES]);
        let mut pcm = render(&mut downlink, 2);
        for _ in 0..3 {
            downlink.push(B, &tone[..len]);
            pcm.extend(render(&mut downlink, 5));
        }
        assert!(step(&pcm) <= step(&tone), "a dry reply steps by {}", step(&pcm));
        assert!(pcm[pcm.len() - FRAME_SAMPLES..].iter().all(|sample| *sample == 0));
    }
}

#[test]
fn the_end_of_an_item_is_padded_and_not_held() {
    let (mut call, _) = Call::new(settings());
    call.downlink.push(A, &speech(2)[..700]);
    call.downlink.end_item(A);
    call.downlink.push(B, &speech(1));
    let told: Vec<_> = call.beats(4).iter().map(|beat| (beat.item, beat.first, beat.last)).collect();
    assert_eq!(told, [(Some(A), true, false), (Some(A), false, true), (Some(B), true, false), (None, false, false)]);
    let report = call.downlink.report();
    assert_eq!((report.played_ms, report.underruns), (49, 1), "700 and 480 samples; the second item has not ended");
}

#[test]
fn a_reply_that_runs_dry_plays_what_it_has_and_goes_on() {
    let (mut call, _) = Call::new(settings());
    call.downlink.push(A, &speech(1)[..100]);
    assert_eq!(call.beats(1)[0].item, Some(A));
    let dry = call.beats(3);
    assert!(dry.iter().all(Sent::silence));
    call.downlink.push(A, &speech(2));
    let more = call.beats(2);
    assert!(more[0].marker && !more[0].first);
    let report = call.downlink.report();
    assert_eq!((report.underruns, report.played_ms), (1, 44));
    assert_eq!(
        call.downlink.flush(|_| {}),
        Some(Flushed { item: A, played_ms: 44, flushed_ms: 0 }),
        "it has not ended"
    );
}

#[test]
fn a_full_queue_refuses_once_and_drops_the_rest_of_the_item() {
    let (mut call, _) = Call::new(settings());
    let second = speech(50);
    for _ in 0..120 {
        assert_eq!(call.downlink.push(A, &second), Push::Queued);
    }
    assert_eq!(call.downlink.queued_ms(), 120_000);
    assert_eq!((call.downlink.push(A, &second), call.downlink.push(A, &second)), (Push::Full, Push::Closed));
    call.beats(50);
    assert_eq!(call.downlink.push(A, &second), Push::Closed, "it stays refused when there is room again");
    assert_eq!(call.downlink.push(B, &second), Push::Queued);
    let report = call.downlink.report();
    assert_eq!((report.dropped_ms, report.queued_ms, report.played_ms), (3_000, 121_000, 1_000));
}

#[test]
fn effort_that_changes_in_mid_reply_is_not_heard_and_takes_less_or_more_of_the_codec() {
    let (mut call, _) = Call::new(settings());
    let said = speech(100);
    assert_eq!(call.downlink.push(A, &said), Push::Queued);
    for complexity in [5, 0, 10, 3, 5] {
        call.downlink.set_complexity(complexity);
        assert_eq!(call.downlink.complexity(), complexity);
        assert!(call.beats(20).iter().all(|sent| sent.item == Some(A)));
    }
    let (correlation, _) = best_correlation(&said, &call.heard);
    assert!(correlation > 0.9, "{correlation}");
}

#[test]
fn the_encoders_time_is_counted_where_it_is_measured() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NOW_NS: AtomicU64 = AtomicU64::new(0);
    let (mut call, start) = Call::new(settings());
    call.beats(3);
    assert_eq!(call.downlink.encode_ns(), 0);
    call.downlink = Downlink::new(settings(), PHASE, 0).unwrap().timed_by(|| NOW_NS.fetch_add(7, Ordering::Relaxed));
    call.downlink.start(start);
    call.beats(3);
    assert_eq!(call.downlink.encode_ns(), 8 * 7, "one frame of three was measured, and counts for eight");
}

#[test]
fn a_pause_in_the_models_audio_is_played_and_counted_and_not_encoded() {
    let (mut call, _) = Call::new(settings());
    let mut said = speech(10);
    said.extend(vec![0; 20 * FRAME_SAMPLES]);
    said.extend(speech(10));
    assert_eq!(call.downlink.push(A, &said), Push::Queued);
    let sent = call.beats(40);
    assert!(sent.iter().all(|sent| sent.item == Some(A) && !sent.marker || sent.first));
    let report = call.downlink.report();
    assert_eq!((report.played_ms, report.silence_packets), (800, 0));
    assert_eq!(report.encoded, 20 + u64::from(SETTLE_FRAMES), "the rest of the pause reuses its payload");
}
