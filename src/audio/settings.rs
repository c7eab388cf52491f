//! What an encoder is told, and how the peer's wishes become it.

/// Bitrate when the peer names none, bits per second: wideband speech with FEC is transparent enough at it.
const BITRATE_BPS_DEFAULT: u32 = 32_000;
/// Below this Opus speech is no longer worth sending; also the lowest that RFC 7587 section 6.1 lets a peer ask for.
const BITRATE_BPS_MIN: u32 = 6_000;
/// Above this mono speech gains nothing, whatever a peer allows.
const BITRATE_BPS_MAX: u32 = 64_000;

/// The encoder's greatest effort.
pub const COMPLEXITY_MAX: u8 = 10;

/// What a frame costs at each complexity, relative to the default of 5: of two kinds of processor the one that saves less, so
/// that what a lower effort would save is not overrated. On the other, complexity 0 costs 26.
const COST_PCT: [u16; COMPLEXITY_MAX as usize + 1] = [42, 42, 82, 82, 104, 100, 104, 120, 138, 138, 138];

/// What encoding costs at this complexity, relative to the default of 5.
pub fn relative_cost(complexity: u8) -> f64 {
    f64::from(COST_PCT[usize::from(complexity.min(COMPLEXITY_MAX))]) / 100.0
}

/// The widest audio band that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bandwidth {
    /// Up to 4 kHz.
    Narrow,
    /// Up to 6 kHz.
    Medium,
    /// Up to 8 kHz.
    Wide,
    /// Up to 12 kHz.
    SuperWide,
    /// Up to 20 kHz.
    Full,
}

impl Bandwidth {
    /// The band of a peer that plays at this rate (`maxplaybackrate`, RFC 7587 section 6.1). Rates between two steps
    /// take the lower one.
    pub const fn for_playback_rate(hz: u32) -> Self {
        match hz {
            0..12_000 => Self::Narrow,
            12_000..16_000 => Self::Medium,
            16_000..24_000 => Self::Wide,
            24_000..48_000 => Self::SuperWide,
            _ => Self::Full,
        }
    }
}

/// What an encoder is told. Always variable bitrate, without DTX: the stream's silence is handled by its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderSettings {
    /// Average bitrate, bits per second, 500 to 512000.
    pub bitrate_bps: u32,
    /// Widest band.
    pub bandwidth_max: Bandwidth,
    /// Effort, 0 (cheapest) to 10.
    pub complexity: u8,
    /// Whether the peer uses FEC: it is sent where it costs no audio band.
    pub fec_wanted: bool,
    /// Whether packets carry a coarse copy of the frame before (LBRR).
    pub inband_fec: bool,
    /// Loss to prepare for, percent, 0 to 100. With 0 no FEC is sent.
    pub loss_pct: u8,
}

impl EncoderSettings {
    /// The settings that a peer's fmtp line asks for (RFC 7587 section 6.1), each `None` when it does not say.
    ///
    /// A peer's limits are kept; numbers out of range are brought into it. FEC is sent where the peer uses it and the
    /// bitrate carries it at full band.
    pub fn for_peer(
        max_average_bitrate: Option<u32>,
        max_playback_rate: Option<u32>,
        use_inband_fec: bool,
        complexity: u8,
    ) -> Self {
        let bitrate_bps = max_average_bitrate.unwrap_or(BITRATE_BPS_DEFAULT).clamp(BITRATE_BPS_MIN, BITRATE_BPS_MAX);
        let bandwidth_max = max_playback_rate.map_or(Bandwidth::Full, Bandwidth::for_playback_rate);
        let settings = Self {
            bitrate_bps,
            bandwidth_max,
            complexity: 0,
            fec_wanted: use_inband_fec,
            inband_fec: false,
            loss_pct: 0,
        };
        settings.with_complexity(complexity)
    }

    /// The same for another effort, which decides whether there are bits for FEC.
    #[must_use]
    pub fn with_complexity(self, complexity: u8) -> Self {
        let complexity = complexity.min(COMPLEXITY_MAX);
        let hint = fec_loss_hint(self.bitrate_bps, complexity, self.bandwidth_max).filter(|_| self.fec_wanted);
        Self { complexity, inband_fec: hint.is_some(), loss_pct: hint.unwrap_or(0), ..self }
    }
}

/// The smallest loss hint with which libopus sends FEC without giving up audio band, if there is one.
///
/// Given a hint above 5 %, libopus narrows the band until it can afford FEC: at 20 kbit/s a hint of 10 % costs the
/// caller everything above 6 kHz in every packet, to repair the rare lost one. A higher hint makes FEC look more worth
/// its bits and so keeps the band. This is the encoder's own rule (`decide_fec` and `compute_equiv_rate` of libopus
/// 1.6), as it holds once FEC is on; a test holds it against the encoder.
fn fec_loss_hint(bitrate_bps: u32, complexity: u8, bandwidth_max: Bandwidth) -> Option<u8> {
    // Bits per second from which FEC stays on, at a loss of 25 % or more.
    let needed = match bandwidth_max {
        Bandwidth::Narrow => 11_000,
        Bandwidth::Medium => 13_000,
        // Wider bands are free to fall back to wideband: speech has little above it.
        Bandwidth::Wide | Bandwidth::SuperWide | Bandwidth::Full => 15_000,
    };
    let effort = bitrate_bps * (90 + u32::from(complexity)) / 100;
    // Complexity 0 and 1 quantise without looking ahead, which wastes a fifth of the bits.
    let effort = if complexity < 2 { effort * 4 / 5 } else { effort };
    [10, 15, 20, 25].into_iter().find(|&loss| {
        let rate = effort - effort * u32::from(loss) / (6 * u32::from(loss) + 10);
        rate > needed * (125 - u32::from(loss)) / 100
    })
}
