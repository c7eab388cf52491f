//! Packets in place, by sequence number.
//!
//! A fixed table of slots indexed by sequence number. A payload is held where it arrived and moved out once; a slot's
//! number and arrival stay behind until it is used again, which tells duplicates from late packets and how late an
//! overtaken packet was.

use std::sync::Arc;
use std::time::Instant;

use super::number::{RtpTime, SeqNo};

/// Slots of the ring: 2.5 s of speech. A gap is waited for 60 ms at most, so only a burst behind a lost packet ever
/// fills a part of it.
pub const RING_SLOTS: usize = 128;

/// An audio packet in the ring.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When its audio begins.
    pub time: RtpTime,
    /// The Opus payload.
    pub payload: Arc<[u8]>,
    /// Samples that it decodes to.
    pub samples: u16,
    /// Samples of each of its frames: what its FEC can repair.
    pub frame_samples: u16,
    /// Whether the sender pauses after it.
    pub is_dtx: bool,
    /// Whether it carries FEC for the frame before it.
    pub has_fec: bool,
    /// When the kernel took it in.
    pub received: Instant,
    /// When it was inserted.
    pub inserted: Instant,
}

/// What arrived under a sequence number.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Audio.
    Audio(Packet),
    /// A DTMF event: no audio, but nothing is missing either.
    Event,
    /// A packet that cannot be decoded: audio is missing, and waiting would not bring it.
    Bad,
}

#[derive(Debug)]
struct Slot {
    seq: SeqNo,
    inserted: Instant,
    /// `None` once taken.
    content: Option<Content>,
}

/// How an insertion went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inserted {
    /// It has its place.
    Held,
    /// Its place was taken, now or before.
    Duplicate,
    /// Its place was passed without it.
    Late,
}

#[derive(Debug)]
pub(super) struct Ring {
    slots: Box<[Option<Slot>]>,
    /// The number to be taken next.
    next: SeqNo,
    /// One past the highest number inserted since the start.
    end: SeqNo,
    held: usize,
}

impl Ring {
    /// An empty ring that expects this number.
    pub(super) fn new(next: SeqNo) -> Self {
        Self { slots: (0..RING_SLOTS).map(|_| None).collect(), next, end: next, held: 0 }
    }

    /// Goes on at another number and forgets those so far. The ring must be empty.
    pub(super) fn jump(&mut self, next: SeqNo) {
        assert_eq!(self.held, 0, "nothing is left behind by a jump");
        self.slots.fill_with(|| None);
        (self.next, self.end) = (next, next);
    }

    /// The number to be taken next.
    pub(super) fn next(&self) -> SeqNo {
        self.next
    }

    /// How far the newest packet is ahead of the next one, in numbers.
    pub(super) fn ahead(&self) -> i64 {
        self.end.since(self.next)
    }

    /// Packets in their places, not yet taken.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Puts a packet in its place. The number must lie within [`RING_SLOTS`] of the next one, either way.
    pub(super) fn insert(&mut self, now: Instant, seq: SeqNo, content: Content) -> Inserted {
        let offset = seq.since(self.next);
        assert!(offset.unsigned_abs() < RING_SLOTS as u64, "the caller sorts out jumps");
        if self.slot(seq).is_some() {
            return Inserted::Duplicate;
        }
        if offset < 0 {
            return Inserted::Late;
        }
        self.slots[Self::index(seq)] = Some(Slot { seq, inserted: now, content: Some(content) });
        self.held += 1;
        if seq.since(self.end) >= 0 {
            self.end = seq.plus(1);
        }
        Inserted::Held
    }

    /// When the first packet arrived that overtook this one, if any did.
    pub(super) fn overtaken_at(&self, seq: SeqNo) -> Option<Instant> {
        let behind = u64::try_from(self.end.since(seq)).unwrap_or(0).min(RING_SLOTS as u64);
        (1..behind).filter_map(|offset| self.slot(seq.plus(offset))).map(|slot| slot.inserted).min()
    }

    /// The packet to be taken next, if it is here.
    pub(super) fn front(&self) -> Option<&Content> {
        self.slot(self.next).and_then(|slot| slot.content.as_ref())
    }

    /// Takes the next packet, if it is here, and expects its successor.
    pub(super) fn take(&mut self) -> Option<Content> {
        let index = Self::index(self.next);
        let slot = self.slots[index].as_mut().filter(|slot| slot.seq == self.next)?;
        let content = slot.content.take()?;
        self.held -= 1;
        self.next = self.next.plus(1);
        Some(content)
    }

    /// Gives up what is missing before the first packet held; how many numbers that were.
    pub(super) fn skip_gap(&mut self) -> u64 {
        let mut missing = 0;
        while self.held > 0 && self.front().is_none() {
            self.next = self.next.plus(1);
            missing += 1;
        }
        missing
    }

    fn slot(&self, seq: SeqNo) -> Option<&Slot> {
        self.slots[Self::index(seq)].as_ref().filter(|slot| slot.seq == seq)
    }

    fn index(seq: SeqNo) -> usize {
        (seq.0 % RING_SLOTS as u64) as usize
    }
}
