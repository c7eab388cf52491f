//! The ring itself: how it is made, what it may do, and the one call that submits and sleeps.

use std::collections::VecDeque;
use std::io;

use io_uring::register::Restriction;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::sends::Sends;
use crate::driver::turn::Sleep;

/// Operations submitted together. A turn of 256 inputs rarely causes more; when it does, they are submitted on the way.
pub(super) const SUBMISSIONS: u32 = 1024;

/// Completions that wait to be read. As many datagrams as there are buffers, and the rest beside them.
const COMPLETIONS: u32 = 4096;

/// `IORING_REGISTER_FILES_UPDATE`, the one registration that is needed after the start.
const REGISTER_FILES_UPDATE: u8 = 6;

/// The first step of setting up, where a kernel that forbids rings says so.
pub(in super::super) const STEP_RING: &str = "io_uring_setup";

/// Why a ring could not be made.
#[derive(Debug)]
pub(in super::super) struct SetupError {
    /// What was tried.
    pub(in super::super) step: &'static str,
    pub(in super::super) error: io::Error,
}

impl SetupError {
    pub(super) fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { step, error }
    }
}

/// The operations this driver uses. The ring refuses every other one (`EACCES`): seccomp filters do not see what a ring
/// is asked to do, so a ring that can open files or sockets would be a way around them.
const OPERATIONS: [u8; 8] = [
    opcode::RecvMsgMulti::CODE,
    opcode::Send::CODE,
    opcode::Recv::CODE,
    opcode::Read::CODE,
    opcode::Accept::CODE,
    opcode::Connect::CODE,
    opcode::Shutdown::CODE,
    opcode::AsyncCancel::CODE,
];

/// With a collection window the kernel is to wait for more completions than there can be: only time wakes it then.
const WANT_ALL: usize = COMPLETIONS as usize;

/// What was done since it was last asked, for the counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) enters: u64,
    pub(super) submissions: u64,
}

/// A ring, what did not fit into its queue, and what the datagrams under way point to.
pub(super) struct Ring {
    io: IoUring,
    tally: Tally,
    /// Operations that the kernel would not take yet, in order. Empty unless it is short of memory.
    backlog: VecDeque<squeue::Entry>,
    pub(super) sends: Sends,
}

impl Ring {
    /// Makes a ring that is still disabled: buffers and files are registered first.
    pub(super) fn new() -> Result<Self, SetupError> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)
            .map_err(SetupError::at(STEP_RING))?;
        let mut known = io_uring::Probe::new();
        ring.submitter().register_probe(&mut known).map_err(SetupError::at("register_probe"))?;
        if !OPERATIONS.iter().all(|operation| known.is_supported(*operation)) {
            return Err(SetupError { step: "operations", error: io::Error::from_raw_os_error(libc::EINVAL) });
        }
        let sends = Sends::new(SUBMISSIONS as usize);
        Ok(Self { io: ring, tally: Tally::default(), backlog: VecDeque::new(), sends })
    }

    /// Restricts the ring to what this driver does, for good, and starts it.
    pub(super) fn enable(&mut self) -> Result<(), SetupError> {
        let flags = squeue::Flags::FIXED_FILE | squeue::Flags::BUFFER_SELECT | squeue::Flags::SKIP_SUCCESS;
        let mut allowed: Vec<Restriction> = OPERATIONS.into_iter().map(Restriction::sqe_op).collect();
        allowed.push(Restriction::sqe_flags_allowed(flags.bits()));
        allowed.push(Restriction::register_op(REGISTER_FILES_UPDATE));
        let submitter = self.io.submitter();
        submitter.register_restrictions(&mut allowed).map_err(SetupError::at("register_restrictions"))?;
        submitter.register_enable_rings().map_err(SetupError::at("register_enable_rings"))
    }

    /// For registrations.
    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.io.submitter()
    }

    /// Queues an operation; a full queue is submitted on the way, without waiting.
    ///
    /// # Safety
    /// What the operation points to must stay in place until its completion was read or, for an operation that only
    /// reads while it is submitted, until the queue was submitted.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        self.tally.submissions += 1;
        if self.backlog.is_empty() {
            // SAFETY: the caller's promise.
            if unsafe { self.io.submission().push(&entry) }.is_ok() {
                return;
            }
            self.tally.enters += 1;
            // Interrupted or short of memory: the backlog takes the entry, and the next enter tries again.
            let _ = self.io.submit();
            self.settle();
            // SAFETY: the caller's promise.
            if unsafe { self.io.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Submits everything and sleeps as told.
    ///
    /// A sleep with a window ends with the window, and a turn may then find nothing; but windows are for loops that are busy.
    /// Linux 6.12 could go on to the first completion by itself (`min_wait`), but counts only those posted after the wait has
    /// begun: a write that completed while it was submitted would not be seen before the deadline, or ever without one.
    pub(super) fn enter(&mut self, sleep: Sleep) -> io::Result<()> {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: promised when it was first pushed, and kept until it completes.
            if unsafe { self.io.submission().push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
        self.tally.enters += 1;
        let Sleep { timeout, window } = sleep;
        let (want, timeout) = if window.is_zero() { (1, timeout) } else { (WANT_ALL, Some(window)) };
        let mut args = types::SubmitArgs::new();
        let time;
        if let Some(timeout) = timeout {
            time = types::Timespec::from(timeout);
            args = args.timespec(&time);
        }
        let entered = self.io.submitter().submit_with_args(want, &args);
        self.settle();
        match entered.map_err(|error| (error.raw_os_error(), error)) {
            // The deadline; a signal; a shortage or an overfull completion queue, both better after reaping.
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY), _)) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    /// After a submission: the kernel is done with datagrams that it has taken from the queue.
    fn settle(&mut self) {
        if self.backlog.is_empty() && self.io.submission().is_empty() {
            self.sends.clear();
        }
    }

    /// Takes completions in order, at most `max`; true when there are more.
    pub(super) fn completions(&mut self, into: &mut Vec<cqueue::Entry>, max: usize) -> bool {
        let mut queue = self.io.completion();
        into.extend(queue.by_ref().take(max));
        !queue.is_empty()
    }

    /// What was done since it was last asked.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Whether completions wait in the kernel's memory for want of room in the queue.
    pub(super) fn has_overflowed(&mut self) -> bool {
        self.io.submission().cq_overflow()
    }

    /// Leaves to the kernel what queued operations point to.
    pub(super) fn leak(&mut self) {
        self.sends.leak();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A ring that runs; `None`, and a word about it, on a host that forbids rings.
    fn enabled() -> Option<Ring> {
        let made = Ring::new().and_then(|mut ring| ring.enable().map(|()| ring));
        made.inspect_err(|error| eprintln!("not tested, no ring here: {error:?}")).ok()
    }

    fn result_of(entry: squeue::Entry) -> Option<i32> {
        let mut ring = enabled()?;
        // SAFETY: the entries below point to nothing but static text.
        unsafe { ring.push(entry) };
        ring.enter(Sleep::at_most(Duration::from_secs(5))).unwrap();
        let mut completions = Vec::new();
        ring.completions(&mut completions, 8);
        assert_eq!(completions.len(), 1);
        Some(completions[0].result())
    }

    #[test]
    fn an_operation_that_is_not_on_the_list_is_refused() {
        let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), c"/etc/hostname".as_ptr()).build();
        let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_DGRAM, 0).build();
        for entry in [open, socket, opcode::Nop::new().build()] {
            assert!(result_of(entry).is_none_or(|result| result == -libc::EACCES));
        }
        let listed = result_of(opcode::Shutdown::new(types::Fd(-1), libc::SHUT_WR).build());
        assert!(listed.is_none_or(|result| result == -libc::EBADF));
    }

    #[test]
    fn a_registration_after_the_start_is_refused() {
        let Some(ring) = enabled() else { return };
        assert_eq!(ring.submitter().register_eventfd(0).unwrap_err().raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn a_window_ends_with_its_time_whether_or_not_something_has_completed_and_with_no_deadline_too() {
        let Some(mut ring) = enabled() else { return };
        let window = Duration::from_millis(5);
        for completes in [true, false] {
            for timeout in [None, Some(Duration::from_secs(3600))] {
                if completes {
                    // Completes while it is submitted.
                    let entry = opcode::Shutdown::new(types::Fd(-1), libc::SHUT_WR).build();
                    // SAFETY: the operation carries no pointer.
                    unsafe { ring.push(entry) };
                }
                let before = std::time::Instant::now();
                ring.enter(Sleep { timeout, window }).unwrap();
                assert!(before.elapsed() >= window, "woken by a completion");
                let mut completions = Vec::new();
                assert!(!ring.completions(&mut completions, 8));
                assert_eq!(completions.len(), usize::from(completes));
            }
        }
    }

    #[test]
    fn a_full_queue_is_submitted_on_the_way() {
        let Some(mut ring) = enabled() else { return };
        let count = SUBMISSIONS as usize * 2 + 1;
        for _ in 0..count {
            let entry = opcode::Shutdown::new(types::Fd(-1), libc::SHUT_WR).build();
            // SAFETY: the operation carries no pointer.
            unsafe { ring.push(entry) };
        }
        let mut completions = Vec::new();
        while completions.len() < count {
            ring.enter(Sleep::NONE).unwrap();
            ring.completions(&mut completions, usize::MAX);
        }
        assert_eq!(completions.len(), count);
    }
}
