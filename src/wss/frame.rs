//! Text frames of a client, written in place: header, payload and mask in one buffer (RFC 6455, sections 5.2 and 5.3).
//!
//! tungstenite would take each message in a buffer of its own and copy it. An append goes out fifty times a second, so
//! its text is written straight to where its frame lies, and masked there.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::io::Entropy;

/// Room left for the header before the payload is known: that of payloads from 126 to 65,535 bytes, which are nearly all.
const HEADER_BYTES: usize = 8;

/// Masking keys, drawn from the source of entropy 64 at a time.
#[derive(Debug)]
pub(super) struct Masks {
    entropy: Entropy,
    pool: [u8; 256],
    used: usize,
}

impl Masks {
    pub(super) fn new(entropy: Entropy) -> Self {
        Self { entropy, pool: [0; 256], used: 256 }
    }

    fn next(&mut self) -> [u8; 4] {
        if self.used == self.pool.len() {
            (self.entropy)(&mut self.pool);
            self.used = 0;
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&self.pool[self.used..self.used + 4]);
        self.used += 4;
        mask
    }
}

/// Appends one text frame whose payload is what `write` appends. That must be UTF-8, and only appended.
pub(super) fn write_text(out: &mut Vec<u8>, masks: &mut Masks, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    write(out);
    let length = out.len() - start - HEADER_BYTES;
    let mask = masks.next();
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), mask: Some(mask), ..FrameHeader::default() };
    let mut bytes = [0; 14];
    let mut rest = &mut bytes[..];
    header.format(length as u64, &mut rest).expect("a header is at most 14 bytes long");
    let header_bytes = 14 - rest.len();
    if header_bytes == HEADER_BYTES {
        out[start..start + HEADER_BYTES].copy_from_slice(&bytes[..HEADER_BYTES]);
    } else {
        out.splice(start..start + HEADER_BYTES, bytes[..header_bytes].iter().copied());
    }
    apply(mask, &mut out[start + header_bytes..]);
}

/// Masks in place, eight bytes at a time.
fn apply(mask: [u8; 4], payload: &mut [u8]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use tungstenite::protocol::{Role, WebSocket};

    use super::*;
    use crate::wss::memory::MemoryStream;

    fn counting(bytes: &mut [u8]) {
        bytes.iter_mut().enumerate().for_each(|(index, byte)| *byte = index as u8);
    }

    #[test]
    fn frames_of_every_header_length_are_read_back_by_a_server() {
        let mut masks = Masks::new(counting);
        let mut out = Vec::new();
        let lengths = [0, 1, 7, 8, 125, 126, 127, 1335, 65_535, 65_536, 100_001];
        let texts: Vec<String> = lengths.iter().map(|&n| "abcdefg".chars().cycle().take(n).collect()).collect();
        for text in &texts {
            write_text(&mut out, &mut masks, |out| out.extend_from_slice(text.as_bytes()));
        }
        let mut stream = MemoryStream::default();
        stream.feed(&out);
        let mut server = WebSocket::from_raw_socket(stream, Role::Server, None);
        for text in &texts {
            assert_eq!(server.read().unwrap().into_text().unwrap().as_str(), text);
        }
    }

    #[test]
    fn each_frame_has_a_mask_of_its_own() {
        let mut masks = Masks::new(|bytes| aws_lc_rs::rand::fill(bytes).expect("the system has entropy"));
        let drawn: std::collections::BTreeSet<_> = (0..200).map(|_| masks.next()).collect();
        assert_eq!(drawn.len(), 200);
    }

    #[test]
    fn the_source_is_asked_once_for_64_masks() {
        let mut masks = Masks::new(counting);
        let first = masks.next();
        assert_eq!(first, [0, 1, 2, 3]);
        (1..64).for_each(|_| assert_ne!(masks.next(), first));
        assert_eq!(masks.next(), first, "the pool was filled anew");
    }
}
