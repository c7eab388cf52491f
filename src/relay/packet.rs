//! Which protocol a datagram belongs to, by its first two bytes (RFC 7983 section 7, RFC 5761 section 4).

/// What a datagram of a call carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Audio or telephone-event, with what its header says in clear.
    Rtp {
        /// Its stream.
        ssrc: u32,
        /// Its sequence number.
        seq: u16,
    },
    /// Reports and BYE.
    Rtcp,
    /// STUN, DTLS, or nothing known.
    Other,
}

impl Kind {
    /// The kind of this datagram; headers are not validated further.
    pub fn of(datagram: &[u8]) -> Self {
        match *datagram {
            [0x80..0xc0, kind, ..] if (64..96).contains(&(kind & 0x7f)) => Self::Rtcp,
            [0x80..0xc0, _, s1, s0, _, _, _, _, c3, c2, c1, c0, ..] => {
                Self::Rtp { ssrc: u32::from_be_bytes([c3, c2, c1, c0]), seq: u16::from_be_bytes([s1, s0]) }
            }
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtp_rtcp_and_the_rest_are_told_apart() {
        let rtp = [0x80, 0xef, 1, 2, 0, 0, 0, 0, 3, 4, 5, 6];
        assert_eq!(Kind::of(&rtp), Kind::Rtp { ssrc: 0x0304_0506, seq: 0x0102 });
        assert_eq!(Kind::of(&rtp[..11]), Kind::Other);
        assert_eq!(Kind::of(&[0x81, 200, 0, 7]), Kind::Rtcp);
        for other in [&[][..], &[0x80], &[0, 1], &[22, 254], &[0xc0, 111]] {
            assert_eq!(Kind::of(other), Kind::Other);
        }
    }
}
