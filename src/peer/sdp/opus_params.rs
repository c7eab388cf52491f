//! What an Opus `fmtp` asks of our encoder (RFC 7587, section 6.1).
//!
//! Values outside the RFC's ranges are clamped into them and unreadable ones count as absent: a strange wish about
//! quality is no reason to lose a call.

/// Parameters by which a receiver tells the sender what it can use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the RFC has four independent flags")]
pub struct OpusParams {
    /// `maxaveragebitrate`: most bits per second on average, 6000 to 510000.
    pub max_average_bitrate: Option<u32>,
    /// `maxplaybackrate`: highest sampling rate the receiver can play, 8000 to 48000 Hz.
    pub max_playback_rate: Option<u32>,
    /// `sprop-maxcapturerate`: highest rate the offerer will send, 8000 to 48000 Hz.
    pub max_capture_rate: Option<u32>,
    /// `minptime`: shortest packet wanted, 3 to 120 ms.
    pub min_ptime: Option<u32>,
    /// `useinbandfec=1`: the decoder can use in-band FEC.
    pub use_inband_fec: bool,
    /// `usedtx=1`: the receiver prefers discontinuous transmission.
    pub use_dtx: bool,
    /// `stereo=1`: the receiver prefers stereo.
    pub stereo: bool,
    /// `cbr=1`: the receiver prefers a constant bitrate.
    pub cbr: bool,
}

impl OpusParams {
    /// Reads `name=value;name=value`. Unknown names are passed over; of a repeated name the last counts.
    pub fn parse(fmtp: &str) -> Self {
        let mut params = Self::default();
        for pair in fmtp.split(';') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (name.trim(), value.trim());
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            if is("maxaveragebitrate") {
                params.max_average_bitrate = number(value, 6_000, 510_000);
            } else if is("maxplaybackrate") {
                params.max_playback_rate = number(value, 8_000, 48_000);
            } else if is("sprop-maxcapturerate") {
                params.max_capture_rate = number(value, 8_000, 48_000);
            } else if is("minptime") {
                params.min_ptime = number(value, 3, 120);
            } else if is("useinbandfec") {
                params.use_inband_fec = value == "1";
            } else if is("usedtx") {
                params.use_dtx = value == "1";
            } else if is("stereo") {
                params.stereo = value == "1";
            } else if is("cbr") {
                params.cbr = value == "1";
            }
        }
        params
    }
}

/// A decimal number clamped to a range; `None` when it is not a number. One too large for 32 bits is the maximum.
fn number(text: &str, min: u32, max: u32) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(max).clamp(min, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatsapp_asks_for_wideband_at_20_kbps_with_fec() {
        let fmtp =
            "maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;sprop-maxcapturerate=16000;useinbandfec=1";
        let expected = OpusParams {
            max_average_bitrate: Some(20_000),
            max_playback_rate: Some(16_000),
            max_capture_rate: Some(16_000),
            min_ptime: Some(20),
            use_inband_fec: true,
            ..OpusParams::default()
        };
        assert_eq!(OpusParams::parse(fmtp), expected);
    }

    #[test]
    fn spaces_and_case_do_not_matter_and_unknown_names_are_passed_over() {
        let params = OpusParams::parse(" MinPTime = 10 ; stereo=1;; x-new=3; USEDTX=1; cbr=1 ;flag");
        assert_eq!((params.min_ptime, params.stereo, params.use_dtx, params.cbr), (Some(10), true, true, true));
    }

    #[test]
    fn values_out_of_range_are_clamped_and_nonsense_is_absent() {
        let high = OpusParams::parse("maxaveragebitrate=99999999999999999999;maxplaybackrate=4294967296;minptime=500");
        assert_eq!(high.max_average_bitrate, Some(510_000));
        assert_eq!((high.max_playback_rate, high.min_ptime), (Some(48_000), Some(120)));
        let low = OpusParams::parse("maxaveragebitrate=0;maxplaybackrate=1;minptime=0");
        assert_eq!(low.max_average_bitrate, Some(6_000));
        assert_eq!((low.max_playback_rate, low.min_ptime), (Some(8_000), Some(3)));
        let nonsense = "maxaveragebitrate=-5;maxplaybackrate=+8000;minptime=;useinbandfec=yes;stereo=2";
        assert_eq!(OpusParams::parse(nonsense), OpusParams::default());
    }
}
