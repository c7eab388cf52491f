//! A ring of buffers that the kernel takes from as data comes in.
//!
//! Buffers belong to the ring and not to a socket, so a socket that closes leaves no buffer behind in the kernel's hands.
//! A buffer that a completion names is ours until it is given back.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::{Ring, SetupError};
use crate::driver::udp::PAYLOAD_MAX;

use super::sockets::HEADER_LEN;

/// The measure of a buffer ring.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// The kernel's name for it.
    pub(super) group: u16,
    /// How many buffers; a power of two.
    count: u16,
    /// Bytes of one that the kernel may fill.
    len: u32,
}

/// For datagrams: 2 MiB per loop. Enough for a thousand sockets at 50 packets a second over a stall of 20 ms; when they
/// are used up, datagrams wait in their sockets.
pub(super) const DATAGRAMS: Shape = Shape { group: 0, count: 1024, len: (HEADER_LEN + PAYLOAD_MAX) as u32 };

/// For streams: 1 MiB per loop. Each holds a TLS record; one per stream is under way at most.
pub(super) const CHUNKS: Shape = Shape { group: 1, count: 64, len: 16 * 1024 + 512 };

/// Largest page of the machines Linux runs on; the kernel wants the ring to begin a page.
const PAGE: usize = 64 * 1024;

/// A registered ring of buffers.
pub(super) struct BufferRing {
    shape: Shape,
    entries: NonNull<BufRingEntry>,
    data: NonNull<u8>,
    /// How many were ever given to the kernel; the ring's position is its low bits.
    tail: u16,
    leaked: bool,
}

impl BufferRing {
    /// Allocates and registers the buffers, all in the kernel's hands.
    pub(super) fn new(ring: &Ring, shape: Shape) -> Result<Self, SetupError> {
        let (entries, data) = (allocate(entries_layout(shape)).cast(), allocate(data_layout(shape)));
        let mut buffers = Self { shape, entries, data, tail: 0, leaked: false };
        (0..shape.count).for_each(|id| buffers.give_back(id));
        buffers.publish();
        let address = entries.as_ptr() as u64;
        // SAFETY: the entries stay allocated, at this place, until the ring is quiet (see `Uring::drop`).
        unsafe { ring.submitter().register_buf_ring_with_flags(address, shape.count, shape.group, 0) }
            .map_err(SetupError::at("register_buf_ring"))?;
        Ok(buffers)
    }

    /// What the kernel put into a buffer. The kernel names only buffers of the ring and lengths within them.
    pub(super) fn bytes(&self, id: u16, len: usize) -> &[u8] {
        assert!(id < self.shape.count && len <= self.shape.len as usize, "the kernel keeps to the ring it was given");
        // SAFETY: in bounds by the assertion, initialised (zeroed at first), and not written by the kernel until it is
        // given back, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr().add(id as usize * self.shape.len as usize), len) }
    }

    /// Puts a buffer back into the ring; the kernel sees it after [`BufferRing::publish`].
    pub(super) fn give_back(&mut self, id: u16) {
        assert!(id < self.shape.count, "the kernel keeps to the ring it was given");
        let place = (self.tail & (self.shape.count - 1)) as usize;
        let start = id as usize * self.shape.len as usize;
        // SAFETY: `place` is inside the ring by the mask, and the kernel does not read it until the tail has passed it.
        // The tail shares the first entry's memory in a field that is not written here.
        let entry = unsafe { &mut *self.entries.as_ptr().add(place) };
        // SAFETY: inside the allocation by the assertion.
        entry.set_addr(unsafe { self.data.as_ptr().add(start) } as u64);
        entry.set_len(self.shape.len);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    pub(super) fn publish(&mut self) {
        // SAFETY: the entries begin the ring, so the tail is where the kernel expects it: aligned, and from here on
        // written only atomically.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Leaves the memory to the kernel.
    pub(super) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: allocated with the same layouts in `new`, and the kernel fills them no more: no operation is left.
            unsafe {
                dealloc(self.entries.as_ptr().cast(), entries_layout(self.shape));
                dealloc(self.data.as_ptr(), data_layout(self.shape));
            }
        }
    }
}

fn entries_layout(shape: Shape) -> Layout {
    let size = shape.count as usize * size_of::<BufRingEntry>();
    Layout::from_size_align(size, PAGE).expect("a few KiB in a page")
}

fn data_layout(shape: Shape) -> Layout {
    let size = shape.count as usize * shape.len as usize;
    Layout::from_size_align(size, align_of::<u64>()).expect("a few MiB")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout here is empty.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
