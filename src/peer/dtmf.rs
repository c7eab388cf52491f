//! DTMF digits from RFC 4733 telephone-event packets.
//!
//! One key press is many packets with one RTP timestamp, the last three marked as its end. A digit is told once, at the
//! first packet that carries its timestamp: the end may be lost, and the caller's press should not wait for it.

/// Tells key presses from the packets that make them.
#[derive(Debug, Default)]
pub struct Dtmf {
    last_time: Option<u32>,
}

impl Dtmf {
    /// Takes one packet's RTP timestamp and payload; returns the digit it begins, if any.
    ///
    /// Events beyond the sixteen DTMF digits (RFC 4733 table 3) are ignored.
    pub fn packet(&mut self, rtp_time: u32, payload: &[u8]) -> Option<char> {
        let &[event, _, _, _, ..] = payload else { return None };
        let digit = *b"0123456789*#ABCD".get(usize::from(event))?;
        // A late packet of an earlier press must not tell it again: only a newer timestamp begins one.
        let newer = self.last_time.is_none_or(|last| (1..1 << 31).contains(&rtp_time.wrapping_sub(last)));
        newer.then(|| {
            self.last_time = Some(rtp_time);
            char::from(digit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_press_is_told_once_however_many_packets_carry_it() {
        let mut dtmf = Dtmf::default();
        assert_eq!(dtmf.packet(1000, &[5, 10, 0, 160]), Some('5'));
        for end in [0, 0x80, 0x80, 0x80] {
            assert_eq!(dtmf.packet(1000, &[5, 0x0a | end, 3, 32]), None);
        }
        assert_eq!(dtmf.packet(9000, &[11, 10, 0, 160]), Some('#'));
        assert_eq!(dtmf.packet(1000, &[5, 0x8a, 3, 32]), None, "a late repeat");
    }

    #[test]
    fn the_same_key_pressed_again_is_told_again_also_across_the_wrap() {
        let mut dtmf = Dtmf::default();
        assert_eq!(dtmf.packet(u32::MAX - 100, &[1, 10, 0, 160]), Some('1'));
        assert_eq!(dtmf.packet(800, &[1, 10, 0, 160]), Some('1'));
    }

    #[test]
    fn short_payloads_and_other_events_are_ignored() {
        let mut dtmf = Dtmf::default();
        assert_eq!(dtmf.packet(1, &[5, 10, 0]), None);
        assert_eq!(dtmf.packet(1, &[16, 10, 0, 160]), None);
    }
}
