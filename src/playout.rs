//! Model audio that waits for its beat.
//!
//! A model speaks far faster than real time, so a whole reply waits here as PCM and leaves frame by frame. The queue
//! knows which item each sample belongs to and how much of each was played, which is what a truncation needs. It must
//! not know Opus, RTP or the clock.

mod chunks;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use crate::audio::FRAME_SAMPLES;
use chunks::Chunks;

/// A conversation item of the model, numbered by its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId(pub u32);

/// Most audio that waits, in samples: 120 s, 5.76 MB. Longer than any reply a caller listens to; a reader that paused
/// instead would not hear that the caller speaks, since that news comes behind the audio.
pub const QUEUE_SAMPLES_MAX: usize = 120 * 24_000;
/// Most items that wait. A reply has one or two.
pub const QUEUE_ITEMS_MAX: usize = 64;
/// Most items remembered as closed to further audio. Late deltas belong to the newest replies.
const CLOSED_ITEMS_MAX: usize = 16;

/// What became of audio that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// It waits for its beat.
    Queued,
    /// There is no room. The item is now closed: cancel it.
    Full,
    /// The item was closed before, by a full queue, by its end or by a flush. The audio is dropped.
    Closed,
}

/// What a flush threw away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// The item at the head: the one being played, or the first of those that wait.
    pub item: ItemId,
    /// Samples of it that were played.
    pub played: u64,
    /// Samples thrown away, of it and of all items behind it.
    pub flushed: u64,
}

/// A frame of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Played {
    /// Whose audio it is.
    pub item: ItemId,
    /// Samples of audio in it, at least one; fewer than a frame where the item ends or runs dry.
    pub samples: usize,
    /// Whether it is the first of its item.
    pub first: bool,
    /// Whether the item is finished with it.
    pub last: bool,
}

#[derive(Debug)]
struct Item {
    id: ItemId,
    queued: usize,
    played: u64,
    ended: bool,
}

/// The paced queue of one call.
#[derive(Debug, Default)]
pub struct Playout {
    chunks: Chunks,
    /// In the order of playing. The last may still grow.
    items: VecDeque<Item>,
    closed: VecDeque<ItemId>,
}

impl Playout {
    /// An empty queue. It takes memory for what waits, and keeps half a second's worth once it has.
    pub fn new() -> Self {
        Self::default()
    }

    /// Samples that wait.
    pub fn queued_samples(&self) -> usize {
        self.chunks.len()
    }

    /// Whether the item at the head has run dry, with more of it to come.
    pub fn is_waiting(&self) -> bool {
        self.items.front().is_some_and(|item| item.queued == 0)
    }

    /// Bytes of memory held for samples.
    pub fn memory_bytes(&self) -> usize {
        self.chunks.memory_bytes()
    }

    /// Queues audio of an item. All of it or none: a reply without its middle would be worse than one without its end.
    /// Audio of a new item ends the item before it.
    pub fn push(&mut self, id: ItemId, pcm: &[i16]) -> Push {
        if self.closed.contains(&id) {
            return Push::Closed;
        }
        let is_new = self.items.back().is_none_or(|item| item.id != id);
        if self.chunks.len() + pcm.len() > QUEUE_SAMPLES_MAX || (is_new && self.items.len() == QUEUE_ITEMS_MAX) {
            self.end_item(id);
            self.close(id);
            return Push::Full;
        }
        if is_new {
            if let Some(before) = self.items.back().map(|item| item.id) {
                self.end_item(before);
            }
            self.items.push_back(Item { id, queued: 0, played: 0, ended: false });
        }
        let item = self.items.back_mut().expect("it was there or was put there");
        item.queued += pcm.len();
        self.chunks.push(pcm);
        Push::Queued
    }

    /// No more audio comes for this item; what waits of it is played.
    pub fn end_item(&mut self, id: ItemId) {
        let Some(at) = self.items.iter().position(|item| item.id == id) else { return };
        self.items[at].ended = true;
        if self.items[at].queued == 0 {
            self.items.remove(at);
        }
        self.close(id);
    }

    /// Takes the next frame into `out`; what it does not fill of it is left alone. `None` when nothing waits.
    pub fn pop(&mut self, out: &mut [i16; FRAME_SAMPLES]) -> Option<Played> {
        let item = self.items.front_mut().filter(|item| item.queued > 0)?;
        let samples = item.queued.min(FRAME_SAMPLES);
        self.chunks.pop(&mut out[..samples]);
        let first = item.played == 0;
        item.queued -= samples;
        item.played += samples as u64;
        let played = Played { item: item.id, samples, first, last: item.ended && item.queued == 0 };
        if played.last {
            self.items.pop_front();
        }
        Some(played)
    }

    /// Throws away all that waits and closes its items, naming those behind the first: they were not heard at all. `None`
    /// when no item is playing or waiting.
    ///
    /// An item that ran dry but has not ended counts as playing: more of it may be on its way.
    pub fn flush(&mut self, mut unheard: impl FnMut(ItemId)) -> Option<Flush> {
        let head = self.items.front()?;
        let flush = Flush { item: head.id, played: head.played, flushed: self.chunks.len() as u64 };
        while let Some(item) = self.items.pop_front() {
            self.close(item.id);
            if item.id != flush.item {
                unheard(item.id);
            }
        }
        self.chunks.clear();
        Some(flush)
    }

    fn close(&mut self, id: ItemId) {
        if self.closed.contains(&id) {
            return;
        }
        if self.closed.len() == CLOSED_ITEMS_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(id);
    }
}
