//! Datagrams on the ring: one multishot receive per socket, sends that complete only when they fail.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use io_uring::types::RecvMsgOut;
use io_uring::{cqueue, opcode, squeue};
use nix::sys::socket::SockaddrLike;

use super::buffers::DATAGRAMS;
use super::files::Descriptor;
use super::{Uring, target};
use crate::driver::counters::count;
use crate::driver::tag::{Op, Tag};
use crate::driver::udp::Moment;
use crate::io::{Datagram, Fault, Input, SocketKey};

/// Room for a sender's address of either family.
const NAME_LEN: usize = size_of::<libc::sockaddr_in6>();
/// Room for one control message with the receive time: a header of 16 bytes and two 64-bit words.
const CONTROL_LEN: usize = 32;
/// What the kernel puts before the payload: four 32-bit words, the name, the control messages.
pub(super) const HEADER_LEN: usize = 16 + NAME_LEN + CONTROL_LEN;

/// Receives of one socket that may fail one after the other before it is given up: none that is alive fails twice.
const FAILURES_MAX: u8 = 16;

/// An open datagram socket.
pub(super) struct Socket {
    /// `None` only while it is released.
    descriptor: Option<Descriptor>,
    port: u16,
    /// Whether the receive is in flight.
    armed: bool,
    pub(super) closing: bool,
    failures: u8,
}

impl Socket {
    pub(super) fn new(descriptor: Descriptor, port: u16) -> Self {
        Self { descriptor: Some(descriptor), port, armed: false, closing: false, failures: 0 }
    }
}

/// The message header that says how much room name and control messages get. One serves all sockets.
pub(super) struct Template(Option<Box<libc::msghdr>>);

impl Template {
    pub(super) fn new() -> Self {
        // SAFETY: `msghdr` is plain data, for which zeros are null pointers and empty lengths.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_namelen = NAME_LEN as u32;
        header.msg_controllen = CONTROL_LEN as _;
        Self(Some(Box::new(header)))
    }

    fn header(&self) -> &libc::msghdr {
        self.0.as_ref().expect("leaked only when the ring ends")
    }

    pub(super) fn leak(&mut self) {
        std::mem::forget(self.0.take());
    }
}

impl<M> Uring<M> {
    /// Arms the receive of a socket.
    pub(super) fn arm_datagrams(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get(key) else { return };
        let (fd, flags) = target(socket.descriptor.as_ref().expect("open"));
        socket.armed = true;
        let receive = opcode::RecvMsgMulti::new(fd, self.template.header(), DATAGRAMS.group).build();
        let entry = receive.flags(flags).user_data(Tag::socket(Op::UdpReceive, key).pack());
        // SAFETY: the header lives until the ring is quiet, and so do the buffers of the group.
        unsafe { self.ring.push(entry) };
    }

    /// A datagram, or the end of the receive.
    pub(super) fn received_datagram(
        &mut self,
        key: SocketKey,
        moment: &Moment,
        completion: &cqueue::Entry,
        give: &mut impl FnMut(Input<'_, M>),
    ) {
        let (result, flags) = (completion.result(), completion.flags());
        if let Some(id) = cqueue::buffer_select(flags) {
            let wanted = self.sockets.get(key).is_some_and(|socket| {
                socket.failures = 0;
                !socket.closing
            });
            if wanted && let Ok(len) = usize::try_from(result) {
                self.hand_over(key, moment, self.datagrams.bytes(id, len), give);
            }
            self.datagrams.give_back(id);
        }
        if cqueue::more(flags) {
            return;
        }
        let Some(socket) = self.sockets.get(key) else { return };
        socket.armed = false;
        if socket.closing {
            self.release_socket(key, moment.now);
            return give(Input::UdpClosed { socket: key });
        }
        if result == -libc::ENOBUFS {
            count(&self.common.counters.receive_buffers_short);
        } else if result < 0 {
            count(&self.common.counters.receive_failures);
            socket.failures += 1;
            if socket.failures == FAILURES_MAX {
                tracing::error!(errno = -result, "a media socket cannot receive any more");
                return;
            }
        }
        self.arm_datagrams(key);
    }

    fn hand_over(&self, key: SocketKey, moment: &Moment, buffer: &[u8], give: &mut impl FnMut(Input<'_, M>)) {
        let counters = &self.common.counters;
        let Ok(message) = RecvMsgOut::parse(buffer, self.template.header()) else {
            return count(&counters.datagrams_unreadable);
        };
        let payload = message.payload_data();
        if message.is_payload_truncated() {
            count(&counters.datagrams_truncated);
        } else if payload.is_empty() {
            count(&counters.datagrams_empty);
        } else if let Some(from) = address(message.name_data()) {
            let received = moment.received(receive_time(message.control_data()));
            give(Input::Datagram(Datagram { socket: key, from, payload, received }));
        } else {
            count(&counters.datagrams_unreadable);
        }
    }

    /// Queues a datagram. It is sent without waiting while it is submitted, so the kernel never keeps it.
    pub(super) fn send_datagram(&mut self, key: SocketKey, to: SocketAddr, payload: Vec<u8>) {
        let Some(socket) = self.sockets.get(key).filter(|socket| !socket.closing) else { return };
        let (fd, flags) = target(socket.descriptor.as_ref().expect("open"));
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let Some((address, bytes)) = self.ring.sends.keep(to, payload) else {
            // Only when the kernel takes no submissions for want of memory.
            let fault = Fault { errno: libc::ENOBUFS };
            return self.common.pending.push_back(Input::SendFailed { socket: key, fault });
        };
        let send = opcode::Send::new(fd, bytes.as_ptr(), len)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .dest_addr(address.as_ptr())
            .dest_addr_len(address.len())
            .build();
        let entry = send.flags(flags | squeue::Flags::SKIP_SUCCESS).user_data(Tag::socket(Op::UdpSend, key).pack());
        // SAFETY: payload and address stay in `sends` until the queue was submitted; a send that may not wait
        // (`MSG_DONTWAIT`) is over by then.
        unsafe { self.ring.push(entry) };
    }

    /// Cancels the receive; its last completion closes the socket.
    pub(super) fn close_socket(&mut self, key: SocketKey, now: Instant) {
        let closed = match self.sockets.get(key) {
            Some(socket) if socket.closing => return,
            Some(socket) => {
                socket.closing = true;
                !socket.armed
            }
            None => true,
        };
        if closed {
            self.release_socket(key, now);
            self.common.pending.push_back(Input::UdpClosed { socket: key });
        } else {
            self.cancel(Tag::socket(Op::UdpReceive, key));
        }
    }

    fn release_socket(&mut self, key: SocketKey, now: Instant) {
        if let Some(mut socket) = self.sockets.remove(key) {
            self.files.release(&self.ring, socket.descriptor.take().expect("released once"));
            self.common.ports.rest(socket.port, now);
        }
    }
}

/// The address in a `sockaddr`: family, port in network order, then IPv4's address, or IPv6's flow, address and scope.
fn address(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*name.first_chunk()?);
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    let rest = name.get(4..)?;
    match i32::from(family) {
        libc::AF_INET => Some((Ipv4Addr::from(*rest.first_chunk::<4>()?), port).into()),
        libc::AF_INET6 => {
            let flow = u32::from_be_bytes(*rest.first_chunk()?);
            let ip = Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?);
            let scope = u32::from_ne_bytes(*rest.get(20..)?.first_chunk()?);
            Some(SocketAddrV6::new(ip, port, flow, scope).into())
        }
        _ => None,
    }
}

/// The receive time in the control messages, of which there is one: length, level and type, then seconds and
/// nanoseconds since the epoch.
fn receive_time(control: &[u8]) -> Option<Duration> {
    let word = |at: usize| control.get(at..)?.first_chunk::<8>().map(|bytes| i64::from_ne_bytes(*bytes));
    let half = |at: usize| control.get(at..)?.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes));
    if half(8)? != libc::SOL_SOCKET || half(12)? != libc::SCM_TIMESTAMPNS {
        return None;
    }
    let (seconds, nanoseconds) = (u64::try_from(word(16)?).ok()?, u32::try_from(word(24)?).ok()?);
    (nanoseconds < 1_000_000_000).then(|| Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::SockaddrStorage;

    #[test]
    fn addresses_of_both_families_are_read_back() {
        for text in ["192.0.2.1:3478", "[2001:db8::1]:40000", "[fe80::1%3]:9"] {
            let wanted: SocketAddr = text.parse().unwrap();
            let raw = SockaddrStorage::from(wanted);
            // SAFETY: a socket address is that many initialised bytes.
            let name = unsafe { std::slice::from_raw_parts(raw.as_ptr().cast::<u8>(), raw.len() as usize) };
            assert_eq!(address(&name[..name.len().min(NAME_LEN)]), Some(wanted));
        }
    }

    #[test]
    fn short_or_foreign_headers_are_no_address_and_no_time() {
        for len in 0..8 {
            assert_eq!(address(&[2, 0, 1, 1, 127, 0, 0, 1][..len]), None);
        }
        assert_eq!(address(&[0xff; NAME_LEN]), None);
        for len in 0..CONTROL_LEN {
            assert_eq!(receive_time(&vec![0xff; len]), None);
        }
    }
}
