//! libopus 1.3 on the frames of `benches/codec.rs`, whose file of them is given: the same packets decoded and the same samples
//! encoded, with the same settings. Prints a line of microseconds per frame, by processor time of the thread, for each
//! complexity: `COMPLEXITY DECODE ENCODE`.
//!
//! `compare-opus FRAMES COMPLEXITY:LOSS...`, where a loss of 0 means no FEC. The file holds, for each frame, the length of its packet in two bytes, the packet, and
//! 480 samples, all little-endian: `cargo bench --bench codec -- frames FILE` writes it and prints
//! the other arguments.

use audiopus::coder::{Decoder, Encoder};
use audiopus::packet::Packet;
use audiopus::{Application, Bandwidth, Bitrate, Channels, MutSignals, SampleRate, Signal};
use nix::time::{ClockId, clock_gettime};

fn cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, settings @ ..] = &arguments[..] else { panic!("compare-opus FRAMES COMPLEXITY:LOSS...") };
    let bytes = std::fs::read(file).expect("the file of frames");
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (packet, behind) = behind.split_at(u16::from_le_bytes(*length).into());
        let (samples, behind) = behind.split_at(960);
        let pcm: Vec<i16> = samples.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        frames.push((packet.to_vec(), pcm));
        rest = behind;
    }
    for setting in settings {
        let (complexity, loss) = setting.split_once(':').expect("COMPLEXITY:LOSS");
        let loss: u8 = loss.parse().expect("percent");
        let mut decoder = Decoder::new(SampleRate::Hz24000, Channels::Mono).expect("a decoder");
        let mut encoder = Encoder::new(SampleRate::Hz24000, Channels::Mono, Application::Voip).expect("an encoder");
        encoder.set_bitrate(Bitrate::BitsPerSecond(20_000)).expect("a setting");
        encoder.set_max_bandwidth(Bandwidth::Wideband).expect("a setting");
        encoder.set_complexity(complexity.parse().expect("0 to 10")).expect("a setting");
        encoder.set_signal(Signal::Voice).expect("a setting");
        encoder.set_vbr(true).expect("a setting");
        encoder.set_vbr_constraint(true).expect("a setting");
        encoder.set_inband_fec(loss > 0).expect("a setting");
        encoder.set_packet_loss_perc(loss).expect("a setting");
        let (mut pcm, mut out) = ([0_i16; 2880], [0_u8; 1275]);
        // Once to warm up.
        for measured in [false, true] {
            let start = cpu_nanos();
            for (packet, _) in &frames {
                let packet = Packet::try_from(&packet[..]).expect("a packet");
                let signals = MutSignals::try_from(&mut pcm[..]).expect("room");
                decoder.decode(Some(packet), signals, false).expect("it decodes");
            }
            let decoded = cpu_nanos();
            for (_, pcm) in &frames {
                encoder.encode(pcm, &mut out).expect("it encodes");
            }
            let us = |from: u64, to: u64| (to - from) as f64 / 1_000.0 / frames.len() as f64;
            if measured {
                println!("{complexity} {:.3} {:.3}", us(start, decoded), us(decoded, cpu_nanos()));
            }
        }
    }
}
