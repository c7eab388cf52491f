//! Datagrams on epoll: `recvmsg` for the kernel's receive time, `sendto` at once.

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, SockaddrStorage, recvmsg};

use super::{Epoll, READS_MAX, queue};
use crate::driver::counters::count;
use crate::driver::stream::ip_address;
use crate::driver::tag::{Op, Tag};
use crate::driver::udp::{Moment, PAYLOAD_MAX};
use crate::io::{Datagram, Fault, Input, SocketKey};

/// An open datagram socket.
pub(super) struct Socket {
    pub(super) udp: UdpSocket,
    pub(super) port: u16,
    /// Whether it is in the list of those to be read.
    pub(super) queued: bool,
}

impl<M> Epoll<M> {
    /// Reads what waits, up to this socket's share of the turn.
    pub(super) fn receive_datagrams(
        &mut self,
        key: SocketKey,
        moment: &Moment,
        budget: &mut usize,
        give: &mut impl FnMut(Input<'_, M>),
    ) {
        let Some(socket) = self.sockets.get(key) else { return };
        socket.queued = false;
        let counters = &self.common.counters;
        let fd = socket.udp.as_raw_fd();
        for _ in 0..READS_MAX.min(*budget) {
            count(&counters.system_calls);
            let mut parts = [IoSliceMut::new(&mut self.chunk[..PAYLOAD_MAX])];
            let message =
                match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut self.control), MsgFlags::MSG_DONTWAIT) {
                    Ok(message) => message,
                    Err(Errno::EAGAIN) => return,
                    // An error that waited on the socket is taken by reading it; what comes after may be well.
                    Err(_) => {
                        *budget -= 1;
                        count(&counters.receive_failures);
                        continue;
                    }
                };
            *budget -= 1;
            let received = moment.received(receive_time(&message));
            let (len, from) = (message.bytes, message.address.as_ref().and_then(ip_address));
            if message.flags.contains(MsgFlags::MSG_TRUNC) {
                count(&counters.datagrams_truncated);
            } else if len == 0 {
                count(&counters.datagrams_empty);
            } else if let Some(from) = from {
                give(Input::Datagram(Datagram { socket: key, from, payload: &self.chunk[..len], received }));
            } else {
                count(&counters.datagrams_unreadable);
            }
        }
        queue(&mut self.ready, &mut socket.queued, Tag::socket(Op::UdpReceive, key));
    }

    /// Sends one datagram; a failure is an input of the next turn.
    pub(super) fn send_datagram(&mut self, key: SocketKey, to: SocketAddr, payload: &[u8]) {
        let Some(socket) = self.sockets.get(key) else { return };
        count(&self.common.counters.system_calls);
        if let Err(error) = socket.udp.send_to(payload, to) {
            self.common.pending.push_back(Input::SendFailed { socket: key, fault: Fault::of(&error) });
        }
    }
}

fn receive_time(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<Duration> {
    let time = |control| match control {
        ControlMessageOwned::ScmTimestampns(time) => Some(time.into()),
        _ => None,
    };
    message.cmsgs().ok()?.find_map(time)
}
