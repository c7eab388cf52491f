//! A body as it comes: how long it may be, and what all the long ones together may hold.
//!
//! Up to [`BODY_BYTES_MAX`] a body costs no more than the number of connections times that. What is longer, on routes whose
//! owner allows it, is covered by a [`Budget`] that connections share: with its length where the head says it, and as it grows
//! where it is chunked. A share goes back when the last that holds the body lets go of it, whichever way that comes about.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::chunked::Decoder;
use super::framing::Framing;
use super::head::Head;
use super::{BODY_BYTES_MAX, Problem};

/// How long a body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyMax {
    /// Bytes, chunking undone.
    pub bytes: usize,
    /// The sentence for a longer one.
    pub too_long: &'static str,
}

impl BodyMax {
    /// [`BODY_BYTES_MAX`].
    pub const DEFAULT: Self = Self { bytes: BODY_BYTES_MAX, too_long: "The body is longer than 128 KiB." };

    pub(super) const fn problem(self) -> Problem {
        Problem { status: 413, code: "body_too_large", text: self.too_long }
    }
}

impl Default for BodyMax {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Which bodies an owner's connections take.
#[derive(Clone, Debug)]
pub struct Bodies {
    /// How long one may be, by the head of its request.
    pub max: fn(&Head) -> BodyMax,
    /// What covers those beyond [`BODY_BYTES_MAX`].
    pub budget: Budget,
}

impl Default for Bodies {
    /// [`BODY_BYTES_MAX`] everywhere.
    fn default() -> Self {
        Self { max: |_| BodyMax::DEFAULT, budget: Budget::new(0) }
    }
}

/// Bytes that bodies may hold together beyond [`BODY_BYTES_MAX`] each. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Bytes that nobody holds.
    pub fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// All that is asked, or nothing.
    fn take(&self, bytes: usize) -> bool {
        // Nothing else hangs on the count, so no order is needed.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// What one body holds of a budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    held: usize,
}

impl Share {
    /// Covers a body of so many bytes in all.
    fn cover(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = bytes.saturating_sub(BODY_BYTES_MAX).saturating_sub(self.held);
        if !self.budget.take(more) {
            let text = "Too many long requests are on their way in. Send it again.";
            return Err(Problem { status: 503, code: "too_many_long_bodies", text });
        }
        self.held += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.held, Ordering::Relaxed);
    }
}

/// A body on its way in.
#[derive(Debug)]
pub(super) struct Gathering {
    bytes: Vec<u8>,
    rest: Rest,
    max: BodyMax,
    share: Share,
}

/// What it still lacks.
#[derive(Debug)]
enum Rest {
    Bytes(usize),
    Chunks(Decoder),
}

impl Gathering {
    /// A body of which nothing has come, or why it shall not.
    pub(super) fn begin(head: &Head, bodies: &Bodies) -> Result<Self, Problem> {
        let max = (bodies.max)(head);
        let mut share = Share { budget: bodies.budget.clone(), held: 0 };
        let mut bytes = Vec::new();
        let rest = match head.framing.within(max)? {
            Framing::Chunked => Rest::Chunks(Decoder::up_to(max)),
            Framing::Length(length) => {
                share.cover(length)?;
                // What is covered is not copied as it grows. A short one gets memory only for what has come.
                if share.held > 0 {
                    bytes.reserve_exact(length);
                }
                Rest::Bytes(length)
            }
        };
        Ok(Self { bytes, rest, max, share })
    }

    /// Takes bytes. Returns how many were the body's and whether it is whole; when it is not, all were.
    pub(super) fn advance(&mut self, input: &[u8]) -> Result<(usize, bool), Problem> {
        match &mut self.rest {
            Rest::Bytes(left) => {
                let n = input.len().min(*left);
                self.bytes.extend_from_slice(&input[..n]);
                *left -= n;
                Ok((n, *left == 0))
            }
            Rest::Chunks(decoder) => {
                // Room by doubling, as `Vec` has it, but never beyond the maximum, and covered before it is there.
                let most = self.max.bytes.min(self.bytes.len() + input.len());
                let room = self.bytes.capacity();
                if most > room {
                    let room = self.max.bytes.min(most.max(2 * room));
                    self.share.cover(room)?;
                    self.bytes.reserve_exact(room - self.bytes.len());
                }
                decoder.advance(input, &mut self.bytes)
            }
        }
    }

    /// The body, and what covers it.
    pub(super) fn into_parts(self) -> (Vec<u8>, Option<Arc<Share>>) {
        let Self { bytes, share, .. } = self;
        let is_long = share.held > 0;
        (bytes, is_long.then(|| Arc::new(share)))
    }
}
