use std::collections::BTreeSet;

use super::testing::*;
use super::*;

fn settings() -> EncoderSettings {
    EncoderSettings::for_peer(None, None, true, 5)
}

/// Encodes a signal to its payloads.
fn encode(settings: EncoderSettings, pcm: &[i16]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(settings).unwrap();
    let mut out = [0; PAYLOAD_BYTES_MAX];
    frames(pcm)
        .map(|frame| {
            let len = encoder.encode(frame, &mut out).unwrap();
            out[..len].to_vec()
        })
        .collect()
}

fn decode(payloads: &[Vec<u8>]) -> Vec<i16> {
    let mut decoder = Decoder::new().unwrap();
    let mut out = [0; PACKET_SAMPLES_MAX];
    let mut pcm = Vec::new();
    for payload in payloads {
        let samples = decoder.decode(payload, &mut out).unwrap();
        pcm.extend_from_slice(&out[..samples]);
    }
    pcm
}

/// The audio band in a SILK or hybrid packet's first byte (RFC 6716 section 3.1).
fn band(payload: &[u8]) -> Bandwidth {
    match payload[0] >> 3 {
        0..4 | 16..20 => Bandwidth::Narrow,
        4..8 => Bandwidth::Medium,
        8..12 | 20..24 => Bandwidth::Wide,
        12..14 | 24..28 => Bandwidth::SuperWide,
        _ => Bandwidth::Full,
    }
}

fn bitrate_bps(payloads: &[Vec<u8>]) -> usize {
    payloads.iter().map(Vec::len).sum::<usize>() * 8 * 50 / payloads.len()
}

#[test]
fn speech_comes_back_as_it_went_in_and_noise_does_not() {
    let said = speech(150);
    for complexity in [0, 5, 10] {
        let heard = decode(&encode(EncoderSettings { complexity, ..settings() }, &said));
        assert_eq!(heard.len(), said.len());
        let (likeness, delay) = best_correlation(&said, &heard);
        assert!(likeness > 0.9, "complexity {complexity}: correlation {likeness} at {delay} samples");
        let level = rms(&heard) / rms(&said);
        assert!((0.85..1.15).contains(&level), "complexity {complexity}: level {level}");
    }
    let mut rng = Rng::new(1);
    let noise: Vec<i16> = (0..said.len()).map(|_| rng.next() as i16).collect();
    let (likeness, _) = best_correlation(&said, &noise);
    assert!(likeness < 0.1, "noise reaches {likeness}");
}

#[test]
fn the_peers_bitrate_and_band_are_kept() {
    let pcm = speech(150);
    for (rate, band_max) in [
        (8_000, Bandwidth::Narrow),
        (12_000, Bandwidth::Medium),
        (16_000, Bandwidth::Wide),
        (24_000, Bandwidth::SuperWide),
        (48_000, Bandwidth::Full),
    ] {
        let settings = EncoderSettings::for_peer(Some(40_000), Some(rate), true, 5);
        assert_eq!(settings.bandwidth_max, band_max);
        let payloads = encode(settings, &pcm);
        // 24 kHz PCM holds nothing above 12 kHz, whatever the peer could play.
        let widest = payloads.iter().map(|payload| band(payload)).max().unwrap();
        assert_eq!(widest, band_max.min(Bandwidth::SuperWide), "playback rate {rate}");
    }
    for bitrate in [8_000, 20_000, 32_000] {
        let sent = bitrate_bps(&encode(EncoderSettings::for_peer(Some(bitrate), Some(16_000), true, 5), &pcm));
        assert!(sent <= bitrate as usize && sent > bitrate as usize / 2, "{sent} of {bitrate} bit/s");
    }
}

#[test]
fn nonsense_from_a_peer_is_brought_into_range() {
    let low = EncoderSettings::for_peer(Some(0), Some(0), true, 255);
    assert_eq!((low.bitrate_bps, low.bandwidth_max, low.complexity), (6_000, Bandwidth::Narrow, 10));
    let high = EncoderSettings::for_peer(Some(u32::MAX), Some(u32::MAX), true, 0);
    assert_eq!((high.bitrate_bps, high.bandwidth_max), (64_000, Bandwidth::Full));
    assert_eq!(EncoderSettings::for_peer(None, None, true, 5).bitrate_bps, 32_000);
    assert!(!EncoderSettings::for_peer(None, None, false, 5).inband_fec);
    for settings in [low, high] {
        Encoder::new(settings).unwrap();
    }
    let wrong = EncoderSettings { complexity: 11, ..settings() };
    assert_eq!(Encoder::new(wrong).unwrap_err(), CodecError::BadSetting);
}

#[test]
fn fec_is_sent_where_promised_and_never_costs_the_band() {
    let pcm = speech(150);
    for bitrate in [16_000, 20_000, 24_000, 32_000, 40_000] {
        for complexity in [0, 1, 2, 5, 10] {
            let settings = EncoderSettings::for_peer(Some(bitrate), Some(16_000), true, complexity);
            // In its first second the encoder still settles.
            let payloads = &encode(settings, &pcm)[50..];
            let mut bands = BTreeSet::new();
            bands.extend(payloads.iter().map(|payload| band(payload)));
            assert_eq!(bands.into_iter().collect::<Vec<_>>(), [Bandwidth::Wide], "{settings:?}");
            let repaired = payloads.iter().filter(|payload| PacketInfo::of(payload).unwrap().has_fec).count();
            assert_eq!(repaired * 4 > payloads.len() * 3, settings.inband_fec, "{repaired} with FEC: {settings:?}");
        }
    }
    assert!(EncoderSettings::for_peer(Some(20_000), Some(16_000), true, 5).inband_fec, "WhatsApp's own numbers");
}

#[test]
fn fec_repairs_a_lost_frame_better_than_expansion() {
    let said = speech(200);
    for settings in [settings(), EncoderSettings::for_peer(Some(20_000), Some(16_000), true, 5)] {
        let payloads = encode(settings, &said);
        let whole = decode(&payloads);
        let (mut fec, mut plc, mut tried) = (0.0, 0.0, 0);
        for lost in (60..payloads.len() - 1).step_by(7) {
            if !PacketInfo::of(&payloads[lost + 1]).unwrap().has_fec {
                continue;
            }
            let conceal = |repair: bool| {
                let (mut decoder, mut out) = (Decoder::new().unwrap(), [0; PACKET_SAMPLES_MAX]);
                for payload in &payloads[..lost] {
                    decoder.decode(payload, &mut out).unwrap();
                }
                let mut made = [0; FRAME_SAMPLES];
                if repair {
                    decoder.decode_fec(&payloads[lost + 1], &mut made).unwrap();
                } else {
                    decoder.expand(&mut made).unwrap();
                }
                correlation(&whole[lost * FRAME_SAMPLES..][..FRAME_SAMPLES], &made)
            };
            fec += conceal(true);
            plc += conceal(false);
            tried += 1;
        }
        assert!(tried >= 10, "only {tried} packets had FEC");
        let (fec, plc) = (fec / f64::from(tried), plc / f64::from(tried));
        assert!(fec > 0.9 && fec > plc + 0.05, "FEC {fec:.3}, expansion {plc:.3} over {tried}");
    }
}

#[test]
fn a_packets_header_tells_its_length_pauses_and_fec() {
    // Configurations of RFC 6716 section 3.1: SILK wideband 20 ms mono, CELT fullband 20 ms stereo, SILK 60 ms.
    for (payload, samples, frame_samples) in [
        (&[9 << 3, 1, 2][..], 480, 480),
        (&[31 << 3 | 4, 1, 2], 480, 480),
        (&[11 << 3, 1, 2], 1440, 1440),
        (&[9 << 3 | 3, 6, 0, 0, 0, 0, 0, 0], 2880, 480),
        (&[28 << 3, 1, 2], 60, 60),
    ] {
        let info = PacketInfo::of(payload).unwrap();
        assert_eq!((info.samples, info.frame_samples, info.is_dtx), (samples, frame_samples, false), "{payload:?}");
    }
    assert!(PacketInfo::of(&[9 << 3]).unwrap().is_dtx);
    assert!(PacketInfo::of(&[9 << 3, 0]).unwrap().is_dtx);
    for bad in [&[][..], &[9 << 3 | 3], &[9 << 3 | 3, 0], &[9 << 3 | 3, 7], &[11 << 3 | 3, 3]] {
        assert_eq!(PacketInfo::of(bad).unwrap_err(), CodecError::BadPacket, "{bad:?}");
    }
}

#[test]
fn stereo_and_every_band_decode_to_24_khz_mono() {
    let mut decoder = Decoder::new().unwrap();
    let mut out = [0; PACKET_SAMPLES_MAX];
    for config in 0..32_u8 {
        for stereo in [0, 4] {
            let payload = [config << 3 | stereo, 0x5a, 0xa5, 0x11, 0x22, 0x33];
            let info = PacketInfo::of(&payload).unwrap();
            assert_eq!(decoder.decode(&payload, &mut out).unwrap(), usize::from(info.samples), "config {config}");
        }
    }
}

#[test]
fn a_room_too_small_or_an_odd_length_is_an_error() {
    let payload = &encode(settings(), &speech(3))[2];
    let mut decoder = Decoder::new().unwrap();
    assert_eq!(decoder.decode(payload, &mut [0; FRAME_SAMPLES - 1]).unwrap_err(), CodecError::BadLength);
    for len in [0, 59, 481, PACKET_SAMPLES_MAX + EXPAND_STEP_SAMPLES] {
        let mut out = vec![0; len];
        assert_eq!(decoder.expand(&mut out).unwrap_err(), CodecError::BadLength, "{len} samples");
        assert_eq!(decoder.decode_fec(payload, &mut out).unwrap_err(), CodecError::BadLength, "{len} samples");
    }
    assert_eq!(decoder.decode(&[], &mut [0; FRAME_SAMPLES]).unwrap_err(), CodecError::BadPacket);
    assert_eq!(decoder.decode(payload, &mut [0; FRAME_SAMPLES]), Ok(FRAME_SAMPLES));
}

#[test]
fn hostile_payloads_are_errors_or_sound_and_the_decoder_lives_on() {
    let good = encode(settings(), &speech(60));
    let mut rng = Rng::new(2);
    let mut decoder = Decoder::new().unwrap();
    let mut out = [0; PACKET_SAMPLES_MAX];
    for round in 0..20_000 {
        let mut payload = match round % 3 {
            0 => (0..rng.below(1_500)).map(|_| rng.next() as u8).collect(),
            _ => good[rng.below(good.len() as u64) as usize].clone(),
        };
        match round % 3 {
            1 => payload.truncate(rng.below(payload.len() as u64 + 1) as usize),
            2 => {
                for _ in 0..=rng.below(4) {
                    let at = rng.below(payload.len() as u64) as usize;
                    payload[at] = rng.next() as u8;
                }
            }
            _ => {}
        }
        let info = PacketInfo::of(&payload);
        if let Ok(samples) = decoder.decode(&payload, &mut out) {
            assert_eq!(samples, usize::from(info.expect("what decodes has a readable header").samples));
        }
        if let Ok(info) = info {
            // Concealment may refuse, but fills all or nothing.
            let _ = decoder.decode_fec(&payload, &mut out[..usize::from(info.frame_samples)]);
        }
        decoder.expand(&mut out[..FRAME_SAMPLES]).unwrap();
    }
    // The state recovers: after a few good packets it sounds like a decoder that never heard the bad ones.
    let mut heard = Vec::new();
    for payload in &good {
        let samples = decoder.decode(payload, &mut out).unwrap();
        heard.extend_from_slice(&out[..samples]);
    }
    let clean = decode(&good);
    let tail = 30 * FRAME_SAMPLES..;
    assert!(correlation(&clean[tail.clone()], &heard[tail]) > 0.95);
}

#[test]
fn codecs_move_between_threads() {
    fn moves<T: Send>() {}
    moves::<Encoder>();
    moves::<Decoder>();
}
