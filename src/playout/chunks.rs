//! A first-in first-out store of samples in chunks, so that memory follows what waits: it grows by half a second at a
//! time, nothing is ever moved, and a drained store keeps one chunk: audio that comes as fast as it is played, as an
//! echo's does, then never allocates.

use std::collections::VecDeque;

/// Samples of a chunk: half a second, 24 KB.
pub(super) const CHUNK_SAMPLES: usize = 12_000;

#[derive(Debug, Default)]
pub(super) struct Chunks {
    store: VecDeque<Box<[i16; CHUNK_SAMPLES]>>,
    /// The chunk that was drained last, to be used again.
    spare: Option<Box<[i16; CHUNK_SAMPLES]>>,
    /// Samples of the first chunk that were taken.
    taken: usize,
    len: usize,
}

impl Chunks {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let chunks = self.store.len() + usize::from(self.spare.is_some());
        chunks * CHUNK_SAMPLES * size_of::<i16>() + self.store.capacity() * size_of::<usize>()
    }

    pub(super) fn push(&mut self, mut pcm: &[i16]) {
        while !pcm.is_empty() {
            let end = self.taken + self.len;
            let (chunk, at) = (end / CHUNK_SAMPLES, end % CHUNK_SAMPLES);
            if chunk == self.store.len() {
                let chunk = self.spare.take().unwrap_or_else(|| {
                    let zeroed = vec![0; CHUNK_SAMPLES].into_boxed_slice();
                    zeroed.try_into().expect("it has the length of a chunk")
                });
                self.store.push_back(chunk);
            }
            let (now, later) = pcm.split_at(pcm.len().min(CHUNK_SAMPLES - at));
            self.store[chunk][at..at + now.len()].copy_from_slice(now);
            self.len += now.len();
            pcm = later;
        }
    }

    /// Fills `out` whole, which must not be longer than what waits.
    pub(super) fn pop(&mut self, mut out: &mut [i16]) {
        assert!(out.len() <= self.len, "the caller knows what waits");
        while !out.is_empty() {
            let n = out.len().min(CHUNK_SAMPLES - self.taken);
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(&self.store[0][self.taken..self.taken + n]);
            self.taken += n;
            self.len -= n;
            if self.taken == CHUNK_SAMPLES {
                self.spare = self.store.pop_front();
                self.taken = 0;
            }
            out = later;
        }
        if self.len == 0 {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.spare = self.store.pop_front().or_else(|| self.spare.take());
        self.store.clear();
        (self.taken, self.len) = (0, 0);
    }
}
