//! What a kernel completion is about, in the 64 bits that both kernel interfaces hand back.
//!
//! A tag names the operation and the key it was for. The generation is in it, so that a completion of an earlier use of
//! a slot misses the table instead of hitting the slot's next owner.

use crate::io::{Door, SocketKey, StreamKey};

/// Slots per table: 24 bits of the tag. Machines number densely from zero, so this is calls at once, far above any.
pub(super) const SLOTS_MAX: u32 = 1 << 24;

// A tag is also a token of mio, which is a `usize`.
const _: () = assert!(usize::BITS == 64, "tags need 64-bit tokens");

/// The operation, or the thing that became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    /// The mailbox was signalled.
    Wake,
    /// A listener has a connection.
    Accept,
    /// A cancellation that found nothing: of no interest.
    Cancel,
    /// Datagrams.
    UdpReceive,
    /// A datagram that could not be sent.
    UdpSend,
    /// A connection being opened.
    Connect,
    /// Bytes of a stream.
    Receive,
    /// Bytes written to a stream.
    Write,
    /// The end of our side of a stream.
    Shutdown,
}

impl Op {
    const ALL: [Self; 9] = [
        Self::Wake,
        Self::Accept,
        Self::Cancel,
        Self::UdpReceive,
        Self::UdpSend,
        Self::Connect,
        Self::Receive,
        Self::Write,
        Self::Shutdown,
    ];
}

/// An operation and the key it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) op: Op,
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl Tag {
    /// A tag that belongs to no key.
    pub(super) const fn bare(op: Op) -> Self {
        Self { op, slot: 0, generation: 0 }
    }

    /// A tag for a datagram socket.
    pub(super) const fn socket(op: Op, key: SocketKey) -> Self {
        Self { op, slot: key.slot, generation: key.generation }
    }

    /// A tag for a stream.
    pub(super) const fn stream(op: Op, key: StreamKey) -> Self {
        Self { op, slot: key.slot, generation: key.generation }
    }

    /// A tag for a listener.
    pub(super) const fn door(op: Op, door: Door) -> Self {
        Self { op, slot: door as u32, generation: 0 }
    }

    /// The listener it is for; `None` for a slot that [`Tag::door`] never makes.
    pub(super) fn of_door(self) -> Option<Door> {
        Door::ALL.get(self.slot as usize).copied()
    }

    /// The socket it is for.
    pub(super) const fn socket_key(self) -> SocketKey {
        SocketKey { slot: self.slot, generation: self.generation }
    }

    /// The stream it is for.
    pub(super) const fn stream_key(self) -> StreamKey {
        StreamKey { slot: self.slot, generation: self.generation }
    }

    /// The operation in the top 8 bits, then 24 of the slot, then 32 of the generation.
    pub(super) const fn pack(self) -> u64 {
        ((self.op as u64) << 56) | (((self.slot % SLOTS_MAX) as u64) << 32) | self.generation as u64
    }

    /// The tag in these bits; `None` for bits that [`Tag::pack`] never makes.
    pub(super) fn unpack(bits: u64) -> Option<Self> {
        let op = *Op::ALL.get((bits >> 56) as usize)?;
        Some(Self { op, slot: (bits >> 32) as u32 % SLOTS_MAX, generation: bits as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_comes_back_as_it_was_packed() {
        for (place, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, place);
            for (slot, generation) in [(0, 0), (1, u32::MAX), (SLOTS_MAX - 1, 7)] {
                let tag = Tag { op, slot, generation };
                assert_eq!(Tag::unpack(tag.pack()), Some(tag));
            }
        }
    }

    #[test]
    fn every_door_comes_back_as_it_was_packed() {
        for (place, door) in Door::ALL.into_iter().enumerate() {
            assert_eq!(door as usize, place);
            assert_eq!(Tag::door(Op::Accept, door).of_door(), Some(door));
        }
    }

    #[test]
    fn foreign_bits_are_no_tag() {
        assert_eq!(Tag::unpack(u64::MAX), None);
    }
}
