//! Moments of a call that become latencies once what they led to is in the kernel's hands.
//!
//! Marks are set while inputs are handled; [`Marks::submitted`] closes them all with one reading of the clock. Each list
//! is as long as what one turn of the loop can put out, and keeps its memory.

use std::time::{Duration, Instant};

use super::downlink::Beat;
use crate::playout::ItemId;
use crate::stats::Stage;

/// Marks of one kind that one turn may set. A turn longer than this many frames has worse problems than a lost sample.
const MARKS_MAX: usize = 64;

/// Moments that wait to be measured.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// When the kernel received the packets behind this turn's appends.
    appended: Vec<Instant>,
    /// When this turn's frames were due.
    due: Vec<Instant>,
    /// The newest item and when its first delta was read, until its first packet leaves.
    first_delta: Option<(ItemId, Instant)>,
    newest_item: Option<ItemId>,
    /// When the model said that the caller stopped speaking, until a reply leaves.
    speech_stopped: Option<Instant>,
    /// Closed by the next submit.
    reply: Option<Instant>,
    response: Option<Instant>,
    barge_in: Option<Instant>,
}

impl Marks {
    /// An append carries the packet that the kernel received then.
    pub(super) fn appended(&mut self, received: Instant) {
        if self.appended.len() < MARKS_MAX {
            self.appended.push(received);
        }
    }

    /// A frame leaves.
    pub(super) fn sent(&mut self, beat: &Beat<'_>) {
        if self.due.len() < MARKS_MAX {
            self.due.push(beat.due);
        }
        if !beat.first_of_item {
            return;
        }
        self.response = self.speech_stopped.take();
        if let Some((item, at)) = self.first_delta
            && beat.item == Some(item)
        {
            self.reply = Some(at);
            self.first_delta = None;
        }
    }

    /// A delta of this item was read, and nothing else waits to be played.
    pub(super) fn delta(&mut self, item: ItemId, now: Instant) {
        if self.newest_item != Some(item) {
            self.newest_item = Some(item);
            self.first_delta = Some((item, now));
        }
    }

    /// The model says that the caller stopped speaking.
    pub(super) fn speech_stopped(&mut self, now: Instant) {
        self.speech_stopped = Some(now);
    }

    /// The old reply was flushed: nothing of it leaves after the packets already handed out.
    pub(super) fn barge_in(&mut self, now: Instant) {
        self.barge_in = Some(now);
        self.first_delta = None;
    }

    /// No reply comes any more: what is played from now on is our own.
    pub(super) fn leave(&mut self) {
        (self.first_delta, self.speech_stopped) = (None, None);
    }

    /// Whether a submit would measure something.
    pub(super) fn pending(&self) -> bool {
        !self.appended.is_empty()
            || !self.due.is_empty()
            || self.reply.is_some()
            || self.response.is_some()
            || self.barge_in.is_some()
    }

    /// Everything put out so far was handed to the kernel at `now`.
    pub(super) fn submitted(&mut self, now: Instant, mut record: impl FnMut(Stage, Duration)) {
        let mut record = |stage, from| record(stage, now.saturating_duration_since(from));
        self.appended.drain(..).for_each(|from| record(Stage::Uplink, from));
        self.due.drain(..).for_each(|from| record(Stage::TickLate, from));
        self.reply.take().into_iter().for_each(|from| record(Stage::Downlink, from));
        self.response.take().into_iter().for_each(|from| record(Stage::Response, from));
        self.barge_in.take().into_iter().for_each(|from| record(Stage::BargeIn, from));
    }
}
