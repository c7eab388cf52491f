//! As much of STUN (RFC 8489) and ICE (RFC 8445 section 16) as it takes to see whom a check is for and what it claims.
//!
//! Bounded by the datagram, no allocation, no integrity: str0m verifies that before anything here is believed.

/// STUN's magic cookie, RFC 8489 section 5.
const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Bytes of a STUN header.
const HEADER: usize = 20;

/// Message type of a binding request.
const BINDING_REQUEST: u16 = 0x0001;

const USERNAME: u16 = 0x0006;
const USE_CANDIDATE: u16 = 0x0025;
const ICE_CONTROLLED: u16 = 0x8029;

/// A connectivity check, as far as it is read before it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check<'a> {
    /// The username fragment of the one who is asked: ours.
    pub local_ufrag: &'a str,
    /// The sender takes the controlled role, which is ours.
    pub controlled: bool,
    /// The sender nominates this pair.
    pub use_candidate: bool,
}

impl<'a> Check<'a> {
    /// `None` for anything but a whole binding request with a username of two parts.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (header, mut rest) = datagram.split_at_checked(HEADER)?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if kind != BINDING_REQUEST || header[4..8] != MAGIC || len != rest.len() {
            return None;
        }
        let mut username = None;
        let mut controlled = false;
        let mut use_candidate = false;
        while !rest.is_empty() {
            let (head, tail) = rest.split_at_checked(4)?;
            let kind = u16::from_be_bytes([head[0], head[1]]);
            let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (value, tail) = tail.split_at_checked(len)?;
            rest = tail.get(len.next_multiple_of(4) - len..)?;
            match kind {
                USERNAME => username = Some(value),
                USE_CANDIDATE => use_candidate = true,
                ICE_CONTROLLED => controlled = true,
                _ => {}
            }
        }
        let (local_ufrag, _) = std::str::from_utf8(username?).ok()?.split_once(':')?;
        Some(Self { local_ufrag, controlled, use_candidate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend_from_slice(&kind.to_be_bytes());
            body.extend_from_slice(&(value.len() as u16).to_be_bytes());
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut datagram = BINDING_REQUEST.to_be_bytes().to_vec();
        datagram.extend_from_slice(&(body.len() as u16).to_be_bytes());
        datagram.extend_from_slice(&MAGIC);
        datagram.extend_from_slice(&[7; 12]);
        datagram.extend_from_slice(&body);
        datagram
    }

    #[test]
    fn a_check_names_its_call_its_role_and_its_nomination() {
        let plain = request(&[(USERNAME, b"ours:theirs"), (0x802a, &[0; 8])]);
        let expected = Check { local_ufrag: "ours", controlled: false, use_candidate: false };
        assert_eq!(Check::parse(&plain), Some(expected));

        let wrong_role = request(&[(ICE_CONTROLLED, &[0; 8]), (USERNAME, b"ours:theirs"), (USE_CANDIDATE, &[])]);
        let expected = Check { local_ufrag: "ours", controlled: true, use_candidate: true };
        assert_eq!(Check::parse(&wrong_role), Some(expected));
    }

    #[test]
    fn what_is_not_a_whole_check_is_none() {
        let whole = request(&[(USERNAME, b"ours:theirs")]);
        for len in 0..whole.len() {
            assert_eq!(Check::parse(&whole[..len]), None, "{len} bytes");
        }
        let mut response = whole.clone();
        response[0] = 1;
        assert_eq!(Check::parse(&response), None);
        let mut other_magic = whole.clone();
        other_magic[5] ^= 1;
        assert_eq!(Check::parse(&other_magic), None);
        assert_eq!(Check::parse(&request(&[])), None);
        assert_eq!(Check::parse(&request(&[(USERNAME, b"one part")])), None);
        assert_eq!(Check::parse(&request(&[(USERNAME, b"\xff\xfe:x")])), None);
    }
}
