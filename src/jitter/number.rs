//! Sequence numbers and RTP times that do not wrap in practice, compared as if they always could.

/// An RTP sequence number, extended beyond its 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeqNo(pub u64);

impl SeqNo {
    /// The number nearest to `self` whose low 16 bits are `wire`: how a number from a packet is extended.
    #[must_use]
    pub const fn extend(self, wire: u16) -> Self {
        Self(self.0.wrapping_add(wire.wrapping_sub(self.0 as u16) as i16 as u64))
    }

    /// How many numbers `self` lies after `earlier`; negative when before.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0) as i64
    }

    /// The number this far on.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.wrapping_add(count))
    }
}

/// A time on the RTP clock of Opus, 48,000 ticks a second, extended beyond its 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RtpTime(pub u64);

impl RtpTime {
    /// The time nearest to `self` whose low 32 bits are `wire`: how a time from a packet is extended.
    #[must_use]
    pub const fn extend(self, wire: u32) -> Self {
        Self(self.0.wrapping_add(wire.wrapping_sub(self.0 as u32) as i32 as u64))
    }

    /// Ticks from `earlier` to `self`; negative when `self` is before.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0) as i64
    }

    /// The time this many ticks on.
    #[must_use]
    pub const fn plus(self, ticks: u64) -> Self {
        Self(self.0.wrapping_add(ticks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wires_16_bits_extend_across_their_wrap() {
        for (near, wire, far) in [
            (65_535, 0, 65_536),
            (65_535, 65_534, 65_534),
            (65_536, 65_535, 65_535),
            (131_072, 3, 131_075),
            (7, 65_535, u64::MAX),
        ] {
            assert_eq!(SeqNo(near).extend(wire), SeqNo(far), "{wire} near {near}");
        }
    }

    #[test]
    fn the_clocks_32_bits_extend_across_their_wrap() {
        assert_eq!(RtpTime(0xffff_ff00).extend(0x10), RtpTime(0x1_0000_0010));
        assert_eq!(RtpTime(0x1_0000_0010).extend(0xffff_ff00), RtpTime(0xffff_ff00));
    }

    #[test]
    fn differences_are_signed_and_never_overflow() {
        assert_eq!(SeqNo(0).since(SeqNo(u64::MAX)), 1);
        assert_eq!(SeqNo(u64::MAX).since(SeqNo(0)), -1);
        assert_eq!(RtpTime(1 << 63).since(RtpTime(0)), i64::MIN);
        assert_eq!(RtpTime(u64::MAX).plus(2), RtpTime(1));
    }
}
