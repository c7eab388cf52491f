//! Bounded mailboxes between loops, and the wake-up that goes with them.
//!
//! A message is put in a bounded queue; the first one after the receiver has looked also writes to an eventfd, which
//! the receiver's loop waits on like on any descriptor. A receiver that is signalled already costs its senders no
//! system call. Nothing here blocks but `Inbox::wait`, which is for threads that run no loop.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::io::Node;

/// Messages that wait in one mailbox. A call is a few messages long, so this is hundreds of calls opened or ended
/// within one turn of the receiver; what does not fit waits with the sender.
pub const MESSAGES_MAX: usize = 1024;

/// Messages that wait with a sender whose receiver's mailbox is full. A receiver takes 64 a turn; one that is this far
/// behind does not run any more, and what it is sent further is dropped with an error in the log.
pub const WAITING_MAX: usize = 65_536;

/// What wakes a receiver.
struct Bell {
    event: EventFd,
    /// Whether the receiver was told already and has not looked since.
    rung: AtomicBool,
    /// Requests to end that were not taken yet.
    stops: AtomicU32,
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Fails only when the counter is at its end, and then the receiver is awake anyway.
            let _ = self.event.write(1);
        }
    }

    /// From here on, senders ring again. A read-modify-write, as in [`Bell::ring`]: one of the two sees the other, so
    /// either the sender rings or the queue that is read next holds its message.
    fn answer(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}

/// Puts messages into one mailbox; clones share it.
pub struct Sender<M> {
    /// `None` only while dropping.
    queue: Option<SyncSender<M>>,
    bell: Arc<Bell>,
}

impl<M> Sender<M> {
    /// Puts a message in; gives it back when the mailbox is full or its receiver is gone.
    pub fn send(&self, message: M) -> Result<(), TrySendError<M>> {
        self.queue.as_ref().expect("only dropping takes it").try_send(message)?;
        self.bell.ring();
        Ok(())
    }

    /// What tells the receiver to stop, from any thread.
    pub fn stopper(&self) -> Stopper {
        Stopper { bell: Arc::clone(&self.bell) }
    }
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl<M> Drop for Sender<M> {
    /// The receiver is woken after the last sender is gone, so that it can see that.
    fn drop(&mut self) {
        self.queue = None;
        self.bell.ring();
    }
}

impl<M> fmt::Debug for Sender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

/// Tells a receiver to stop: it gets [`crate::io::Input::Stop`], whatever its mailbox holds.
#[derive(Clone)]
pub struct Stopper {
    bell: Arc<Bell>,
}

impl Stopper {
    /// Asks once more. The second request means: at once.
    pub fn stop(&self) {
        self.bell.stops.fetch_add(1, Ordering::AcqRel);
        self.bell.ring();
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopper")
    }
}

/// Wakes a receiver that has other things to look at than its mailbox.
#[derive(Clone)]
pub(super) struct Waker {
    bell: Arc<Bell>,
}

impl Waker {
    pub(super) fn wake(&self) {
        self.bell.ring();
    }
}

/// The receiving end of a mailbox.
pub struct Inbox<M> {
    queue: Receiver<M>,
    bell: Arc<Bell>,
}

/// What an inbox held.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mail<M> {
    Message(M),
    Stop,
    Nothing,
    /// Every sender is gone.
    Closed,
}

impl<M> Inbox<M> {
    /// What wakes the receiver without a message.
    pub(super) fn waker(&self) -> Waker {
        Waker { bell: Arc::clone(&self.bell) }
    }

    /// The eventfd that becomes readable when there is something to look at.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.bell.event.as_fd()
    }

    /// To be called after waking and before the first [`Inbox::take`].
    pub(super) fn answer(&self) {
        self.bell.answer();
    }

    /// The next thing in the mailbox; requests to stop come first.
    pub(super) fn take(&self) -> Mail<M> {
        let stops = self.bell.stops.load(Ordering::Acquire);
        if stops > 0 {
            self.bell.stops.fetch_sub(1, Ordering::AcqRel);
            return Mail::Stop;
        }
        match self.queue.try_recv() {
            Ok(message) => Mail::Message(message),
            Err(TryRecvError::Empty) => Mail::Nothing,
            Err(TryRecvError::Disconnected) => Mail::Closed,
        }
    }

    /// Sleeps until there is something to take, or the time is over. For helper threads.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map_or(PollTimeout::NONE, |time| {
            PollTimeout::try_from(time.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut events = [PollFd::new(self.event(), PollFlags::POLLIN)];
        match poll(&mut events, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => {
                // Readable, and nobody else reads it: this cannot block.
                self.bell.event.read()?;
            }
            Err(error) => return Err(error.into()),
        }
        self.answer();
        Ok(())
    }
}

impl<M> fmt::Debug for Inbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}

/// A new mailbox.
pub fn mailbox<M>() -> io::Result<(Sender<M>, Inbox<M>)> {
    // The eventfd blocks on purpose: a ring's read of a non-blocking one fails instead of waiting.
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
    let bell = Arc::new(Bell { event, rung: AtomicBool::new(false), stops: AtomicU32::new(0) });
    let (sender, receiver) = mpsc::sync_channel(MESSAGES_MAX);
    Ok((Sender { queue: Some(sender), bell: Arc::clone(&bell) }, Inbox { queue: receiver, bell }))
}

/// Where one node's messages go. What does not fit into a full mailbox waits here and is tried again, in order.
pub struct Routes<M> {
    routes: HashMap<Node, Route<M>>,
    /// Messages that wait, of all routes.
    waiting: usize,
}

struct Route<M> {
    sender: Sender<M>,
    waiting: VecDeque<M>,
}

impl<M> Routes<M> {
    /// Routes to nowhere.
    pub fn new() -> Self {
        Self { routes: HashMap::new(), waiting: 0 }
    }

    /// Adds the way to a node.
    #[must_use]
    pub fn with(mut self, node: Node, sender: Sender<M>) -> Self {
        self.routes.insert(node, Route { sender, waiting: VecDeque::new() });
        self
    }

    /// Sends, or keeps until the mailbox has room. A receiver that is gone loses its messages: nobody is left to miss
    /// them.
    pub(super) fn send(&mut self, to: Node, message: M) {
        let route = self.routes.get_mut(&to).expect("machines send only along the star");
        if !route.waiting.is_empty() {
            if route.waiting.len() < WAITING_MAX {
                route.waiting.push_back(message);
                self.waiting += 1;
            } else {
                tracing::error!(?to, "a mailbox is not read any more: message dropped");
            }
        } else if let Err(TrySendError::Full(message)) = route.sender.send(message) {
            route.waiting.push_back(message);
            self.waiting += 1;
        }
    }

    /// Tries again what waits; true when something still does.
    pub(super) fn retry(&mut self) -> bool {
        if self.waiting == 0 {
            return false;
        }
        for route in self.routes.values_mut() {
            while let Some(message) = route.waiting.pop_front() {
                if let Err(TrySendError::Full(message)) = route.sender.send(message) {
                    route.waiting.push_front(message);
                    break;
                }
                self.waiting -= 1;
            }
        }
        self.waiting > 0
    }
}

impl<M> Default for Routes<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> fmt::Debug for Routes<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.routes.keys()).finish()
    }
}

/// What one node of the star holds.
#[derive(Debug)]
pub struct Endpoint<M> {
    /// What it reads.
    pub inbox: Inbox<M>,
    /// Whom it may write to.
    pub routes: Routes<M>,
}

/// The mailboxes of a whole process.
#[derive(Debug)]
pub struct Mailboxes<M> {
    /// Control: writes to every worker and to the helper threads.
    pub control: Endpoint<M>,
    /// Workers by index: each writes to control and to the resolver.
    pub workers: Vec<Endpoint<M>>,
    /// The resolver: writes to every worker.
    pub resolver: Endpoint<M>,
    /// The events' thread: writes to nobody.
    pub events: Endpoint<M>,
    /// The supervisor: writes to nobody.
    pub supervisor: Endpoint<M>,
    /// The threads that ask the Graph API: they write to control.
    pub graph: Endpoint<M>,
    /// The threads that pass webhooks on: they write to control.
    pub forwarder: Endpoint<M>,
    /// The journal: writes to nobody.
    pub journal: Endpoint<M>,
    /// Makes control stop; for signals.
    pub stopper: Stopper,
    /// Tells control what a signal has brought.
    pub to_control: Sender<M>,
}

/// Builds the star: control and the resolver in the middle, workers around them.
pub fn mailboxes<M>(workers: u16) -> io::Result<Mailboxes<M>> {
    let (to_control, control) = mailbox()?;
    let (to_resolver, resolver) = mailbox()?;
    let (to_events, events) = mailbox()?;
    let (to_supervisor, supervisor) = mailbox()?;
    let (to_graph, graph) = mailbox()?;
    let (to_forwarder, forwarder) = mailbox()?;
    let (to_journal, journal) = mailbox()?;
    let mut from_control = Routes::new()
        .with(Node::Events, to_events)
        .with(Node::Supervisor, to_supervisor)
        .with(Node::Graph, to_graph)
        .with(Node::Forwarder, to_forwarder)
        .with(Node::Journal, to_journal);
    let answering = |inbox| Endpoint { inbox, routes: Routes::new().with(Node::Control, to_control.clone()) };
    let mut from_resolver = Routes::new();
    let mut ends = Vec::new();
    for worker in 0..workers {
        let (to_worker, inbox) = mailbox()?;
        from_control = from_control.with(Node::Worker(worker), to_worker.clone());
        from_resolver = from_resolver.with(Node::Worker(worker), to_worker);
        let routes = Routes::new().with(Node::Control, to_control.clone()).with(Node::Resolver, to_resolver.clone());
        ends.push(Endpoint { inbox, routes });
    }
    Ok(Mailboxes {
        control: Endpoint { inbox: control, routes: from_control },
        workers: ends,
        resolver: Endpoint { inbox: resolver, routes: from_resolver },
        events: Endpoint { inbox: events, routes: Routes::new() },
        supervisor: Endpoint { inbox: supervisor, routes: Routes::new() },
        graph: answering(graph),
        forwarder: answering(forwarder),
        journal: Endpoint { inbox: journal, routes: Routes::new() },
        stopper: to_control.stopper(),
        to_control,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often the eventfd was written since it was last read; zero when it is not readable.
    fn rings<M>(inbox: &Inbox<M>) -> u64 {
        let mut events = [PollFd::new(inbox.event(), PollFlags::POLLIN)];
        if poll(&mut events, PollTimeout::ZERO).unwrap() == 0 { 0 } else { inbox.bell.event.read().unwrap() }
    }

    #[test]
    fn a_receiver_that_is_signalled_already_is_not_signalled_again() {
        let (sender, inbox) = mailbox().unwrap();
        (0..3).for_each(|n| sender.send(n).unwrap());
        assert_eq!(rings(&inbox), 1);
        inbox.answer();
        assert_eq!([inbox.take(), inbox.take(), inbox.take()], [0, 1, 2].map(Mail::Message));
        assert_eq!(inbox.take(), Mail::Nothing);
        sender.send(3).unwrap();
        assert_eq!(rings(&inbox), 1);
    }

    #[test]
    fn what_does_not_fit_waits_with_the_sender_in_order() {
        let (sender, inbox) = mailbox().unwrap();
        let mut routes = Routes::new().with(Node::Control, sender);
        let all = MESSAGES_MAX * 2 + 7;
        (0..all).for_each(|n| routes.send(Node::Control, n));
        assert!(routes.retry(), "a full mailbox was not full");
        let mut got = Vec::new();
        loop {
            while let Mail::Message(n) = inbox.take() {
                got.push(n);
            }
            if !routes.retry() && got.len() == all {
                break;
            }
        }
        assert!(got.into_iter().eq(0..all));
    }

    #[test]
    fn a_stop_overtakes_messages_and_fits_into_a_full_mailbox() {
        let (sender, inbox) = mailbox().unwrap();
        while sender.send(()).is_ok() {}
        sender.stopper().stop();
        sender.stopper().stop();
        assert_eq!([inbox.take(), inbox.take(), inbox.take()], [Mail::Stop, Mail::Stop, Mail::Message(())]);
    }

    #[test]
    fn the_last_sender_wakes_the_receiver_when_it_goes() {
        let (sender, inbox) = mailbox::<()>().unwrap();
        let other = sender.clone();
        drop(sender);
        inbox.wait(None).unwrap();
        assert_eq!(inbox.take(), Mail::Nothing);
        drop(other);
        inbox.wait(None).unwrap();
        assert_eq!(inbox.take(), Mail::Closed);
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        const ALL: u32 = 200_000;
        let (sender, inbox) = mailbox().unwrap();
        let writer = std::thread::spawn(move || {
            let mut routes = Routes::new().with(Node::Control, sender);
            for n in 0..ALL {
                routes.send(Node::Control, n);
                // Now and then the receiver gets to the end of its queue, where a wake-up could be lost.
                while n % 100 == 99 && routes.retry() {
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < ALL {
            inbox.wait(None).unwrap();
            while let Mail::Message(n) = inbox.take() {
                assert_eq!(n, expected);
                expected += 1;
            }
        }
        writer.join().unwrap();
    }
}
