//! Memory that the kernel reads or writes while an operation is under way, other than the receive buffers.

use std::cell::UnsafeCell;
use std::net::SocketAddr;

use nix::sys::socket::SockaddrStorage;

/// Datagrams that were queued and not submitted yet. The kernel copies both payload and address while it submits, since
/// they are sent without waiting; after that they can go.
pub(super) struct Sends {
    /// Never grows beyond its first capacity, so that nothing in it moves.
    addresses: Vec<SockaddrStorage>,
    payloads: Vec<Vec<u8>>,
}

impl Sends {
    pub(super) fn new(capacity: usize) -> Self {
        Self { addresses: Vec::with_capacity(capacity), payloads: Vec::with_capacity(capacity) }
    }

    /// Keeps a datagram in place until [`Sends::clear`]; `None` when there is no room.
    pub(super) fn keep(&mut self, to: SocketAddr, payload: Vec<u8>) -> Option<(&SockaddrStorage, &[u8])> {
        if self.addresses.len() == self.addresses.capacity() {
            return None;
        }
        self.addresses.push(SockaddrStorage::from(to));
        self.payloads.push(payload);
        Some((self.addresses.last()?, self.payloads.last()?))
    }

    /// Drops all datagrams: the kernel has taken them.
    pub(super) fn clear(&mut self) {
        self.addresses.clear();
        self.payloads.clear();
    }

    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.addresses));
        std::mem::forget(std::mem::take(&mut self.payloads));
    }
}

/// Where the read of the mailbox's eventfd puts its count. Nobody looks at it.
pub(super) struct WakeCount(Option<Box<UnsafeCell<[u8; 8]>>>);

impl WakeCount {
    pub(super) const LEN: u32 = 8;

    pub(super) fn new() -> Self {
        Self(Some(Box::new(UnsafeCell::new([0; 8]))))
    }

    pub(super) fn place(&self) -> *mut u8 {
        self.0.as_ref().expect("leaked only when the ring ends").get().cast()
    }

    pub(super) fn leak(&mut self) {
        std::mem::forget(self.0.take());
    }
}
