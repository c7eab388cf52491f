//! What a stream has still to write: buffers in order, one front position, and perhaps an end after them.
//!
//! Both drivers write the front until it is done, then hand the buffer back, then send the end. The machine bounds how
//! much it queues ([`crate::io::Output::Write`]), so there is no bound here.

use std::collections::VecDeque;

/// The unwritten part of a stream.
#[derive(Default)]
pub(super) struct Writes {
    queue: VecDeque<Vec<u8>>,
    /// How much of the front is written.
    written: usize,
    end: End,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Wanted,
    Taken,
}

impl Writes {
    /// Adds a buffer. After the end was asked for there is nothing more to say: it is dropped.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        if self.end == End::Open {
            self.queue.push_back(bytes);
        }
    }

    /// The rest of the front buffer; `None` when all is written. Its bytes stay in place until [`Writes::advance`].
    pub(super) fn front(&self) -> Option<&[u8]> {
        self.queue.front().map(|buffer| &buffer[self.written..])
    }

    /// Counts bytes of the front as written; gives the buffer back, with the length it had, when that was its last.
    pub(super) fn advance(&mut self, written: usize) -> Option<(usize, Vec<u8>)> {
        let len = self.queue.front()?.len();
        self.written += written;
        assert!(self.written <= len, "the kernel writes no more than it is given");
        if self.written < len {
            return None;
        }
        self.written = 0;
        let mut buffer = self.queue.pop_front()?;
        buffer.clear();
        Some((len, buffer))
    }

    /// Asks for the end after what is queued.
    pub(super) fn finish(&mut self) {
        if self.end == End::Open {
            self.end = End::Wanted;
        }
    }

    /// Whether the end is due now; true once.
    pub(super) fn take_end(&mut self) -> bool {
        let due = self.end == End::Wanted && self.queue.is_empty();
        if due {
            self.end = End::Taken;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_cleared_and_in_order_and_the_end_comes_last_and_once() {
        let mut writes = Writes::default();
        writes.push(b"abc".to_vec());
        writes.push(Vec::new());
        writes.finish();
        writes.push(b"too late".to_vec());
        assert_eq!(writes.front(), Some(&b"abc"[..]));
        assert!(writes.advance(2).is_none() && !writes.take_end());
        assert_eq!(writes.front(), Some(&b"c"[..]));
        assert_eq!(writes.advance(1), Some((3, Vec::new())));
        assert_eq!(writes.front(), Some(&b""[..]));
        assert_eq!(writes.advance(0), Some((0, Vec::new())));
        assert_eq!(writes.front(), None);
        assert!(writes.take_end() && !writes.take_end());
    }
}
