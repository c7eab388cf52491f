//! Descriptors: registered with the ring where that is sound, plain otherwise.
//!
//! A registered descriptor spares the kernel a look-up per operation. Before Linux 6.13 the kernel frees one only after
//! every operation that was begun earlier has ended, on whatever socket: a receive that is armed for a whole call would
//! keep each call that closes meanwhile bound to its port (liburing's issue 1192). So the table is used only where [`super::super::probe`] has
//! seen a descriptor freed at once.

use std::os::fd::{AsRawFd, OwnedFd};

use super::ring::{Ring, SetupError};

/// Registered descriptors per loop: a socket and a stream for each of thousands of calls. Further ones are plain.
const REGISTERED_MAX: u32 = 8192;

/// An open socket.
#[derive(Debug)]
pub(super) enum Descriptor {
    Plain(OwnedFd),
    /// Its place in the ring's table; there is no number of the process for it.
    Registered(u32),
}

/// The ring's table, and which places are free.
pub(super) struct Files {
    free: Vec<u32>,
}

impl Files {
    /// Registers an empty table as large as the descriptor limit allows; none when that is not wanted.
    pub(super) fn new(ring: &Ring, registered: bool) -> Result<Self, SetupError> {
        if !registered {
            return Ok(Self { free: Vec::new() });
        }
        let limit = super::super::system::descriptor_limit().map_or(REGISTERED_MAX, |limit| limit as u32);
        let count = REGISTERED_MAX.min(limit);
        ring.submitter().register_files_sparse(count).map_err(SetupError::at("register_files"))?;
        Ok(Self { free: (0..count).rev().collect() })
    }

    /// Takes a socket over: into the table if there is room.
    pub(super) fn adopt(&mut self, ring: &Ring, fd: OwnedFd) -> Descriptor {
        let Some(slot) = self.free.pop() else { return Descriptor::Plain(fd) };
        if ring.submitter().register_files_update(slot, &[fd.as_raw_fd()]).is_ok() {
            Descriptor::Registered(slot)
        } else {
            self.free.push(slot);
            Descriptor::Plain(fd)
        }
    }

    /// Closes a socket on which no operation is left.
    pub(super) fn release(&mut self, ring: &Ring, descriptor: Descriptor) {
        match descriptor {
            Descriptor::Plain(fd) => drop(fd),
            Descriptor::Registered(slot) => match ring.submitter().register_files_update(slot, &[-1]) {
                Ok(_) => self.free.push(slot),
                Err(error) => tracing::error!(%error, "a registered descriptor stays open until its loop ends"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_place_in_the_table_is_free_again_after_its_release() {
        let Ok(mut ring) = Ring::new() else { return eprintln!("not tested: no ring here") };
        let mut files = Files::new(&ring, true).unwrap();
        ring.enable().unwrap();
        let all = files.free.len();
        for _ in 0..3 {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let here = socket.local_addr().unwrap();
            let descriptor = files.adopt(&ring, OwnedFd::from(socket));
            assert!(matches!(descriptor, Descriptor::Registered(_)) && files.free.len() == all - 1);
            UdpSocket::bind(here).expect_err("the table holds the socket");
            files.release(&ring, descriptor);
            assert_eq!(files.free.len(), all);
        }
    }

    #[test]
    fn a_socket_that_finds_no_place_is_plain() {
        let Ok(mut ring) = Ring::new() else { return eprintln!("not tested: no ring here") };
        let mut files = Files::new(&ring, false).unwrap();
        ring.enable().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(matches!(files.adopt(&ring, OwnedFd::from(socket)), Descriptor::Plain(_)));
    }
}
