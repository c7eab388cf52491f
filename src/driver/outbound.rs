//! The helper threads that post events to a receiver of the user's.
//!
//! One reads [`Message::Event`] from its mailbox, and never waits for anything else: what does not fit is dropped and
//! counted, so neither control nor a worker ever waits for a receiver. The other posts, one event at a time. Which, and
//! when again, is `queue`'s business. Bodies hold call ids, so no line of the log shows one.

mod queue;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::counters::count;
use super::fetch::{Client, FetchError};
use super::mail::{Endpoint, Inbox, Mail, Waker};
use super::{Counters, system};
use crate::config::Events;
use crate::messages::{Event, Message};

use queue::{Parcel, Queue, Verdict};

/// How long a receiver may take to answer. One that takes longer should answer first and work later.
const POST_TIME_MAX: Duration = Duration::from_secs(5);
/// How long events are still sent once the process is ending.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);

/// Posts a body and returns the status. May block.
pub type Post = Box<dyn FnMut(&[u8]) -> Result<u16, FetchError> + Send>;

/// Posts to the receiver that is configured.
pub fn poster(events: &Events) -> Result<Post, FetchError> {
    let client = Client::new(&events.url.expose(), events.token.as_ref(), POST_TIME_MAX)?;
    Ok(Box::new(move |body| Ok(client.post_json(body)?.status)))
}

/// Starts the threads. The one returned ends some time after control has let go of its way to it: when all is sent, or
/// after [`FLUSH_TIME_MAX`].
pub fn spawn(endpoint: Endpoint<Message>, post: Post, counters: Arc<Counters>) -> io::Result<JoinHandle<()>> {
    let inbox = endpoint.inbox;
    // One is under way at a time, so neither channel ever holds more than one.
    let (parcels, to_post) = mpsc::sync_channel(1);
    let (done, outcomes) = mpsc::channel();
    let waker = inbox.waker();
    thread::Builder::new().name("post".into()).spawn(move || post_all(post, &to_post, &done, &waker))?;
    let mut outbound = Outbound { inbox, queue: Queue::default(), parcels, outcomes, counters, away: false };
    thread::Builder::new().name("events".into()).spawn(move || outbound.run())
}

/// Posts what comes until nobody sends any more.
fn post_all(mut post: Post, parcels: &Receiver<Parcel>, done: &Sender<Result<u16, FetchError>>, waker: &Waker) {
    while let Ok(parcel) = parcels.recv() {
        let outcome = post(&parcel.body);
        if done.send(outcome).is_err() {
            return;
        }
        waker.wake();
    }
}

struct Outbound {
    inbox: Inbox<Message>,
    queue: Queue,
    parcels: SyncSender<Parcel>,
    outcomes: Receiver<Result<u16, FetchError>>,
    counters: Arc<Counters>,
    /// Whether the log says that the receiver takes nothing.
    away: bool,
}

impl Outbound {
    fn run(&mut self) {
        let mut until = None;
        loop {
            let now = Instant::now();
            let is_closed = self.read();
            self.settle(now);
            self.begin(now);
            if is_closed {
                let until = *until.get_or_insert(now + FLUSH_TIME_MAX);
                if self.queue.len() == 0 || now >= until {
                    break;
                }
            }
            let patience = [self.queue.next(), until].into_iter().flatten().min();
            if let Err(error) = self.inbox.wait(patience.map(|at| at.saturating_duration_since(now))) {
                tracing::error!(%error, "the sender of events cannot wait for its mailbox: it ends");
                break;
            }
        }
        if self.queue.len() > 0 {
            tracing::warn!(events = self.queue.len(), "the process ends with events that could not be sent");
            (0..self.queue.len()).for_each(|_| count(&self.counters.events_dropped));
        }
    }

    /// Empties the mailbox; true when nothing more can come.
    fn read(&mut self) -> bool {
        loop {
            match self.inbox.take() {
                Mail::Message(Message::Event(event)) => self.keep(&event),
                Mail::Message(_) | Mail::Stop => {}
                Mail::Nothing => return false,
                Mail::Closed => return true,
            }
        }
    }

    fn keep(&mut self, event: &Event) {
        let log_id = event.log_id;
        let parcel = Parcel { log_id, body: envelope(event, unix_ms(), &unique_id()).into() };
        if !self.queue.push(parcel) {
            count(&self.counters.events_dropped);
            tracing::debug!(call = %log_id, "an event was dropped: too many wait");
        }
    }

    /// Takes the outcome of the attempt under way, if it is there.
    fn settle(&mut self, now: Instant) {
        let outcome = match self.outcomes.try_recv() {
            Ok(outcome) => outcome,
            Err(TryRecvError::Empty) => return,
            // It panicked: every further attempt fails like this one.
            Err(TryRecvError::Disconnected) => return self.attempted(now, None, "the posting thread is gone"),
        };
        match outcome {
            Ok(status) => self.attempted(now, Some(status), &format!("status {status}")),
            Err(error) => self.attempted(now, None, &error.to_string()),
        }
    }

    fn attempted(&mut self, now: Instant, status: Option<u16>, why: &str) {
        let Some((call, verdict)) = self.queue.attempted(now, status) else { return };
        match verdict {
            Verdict::Sent => {
                count(&self.counters.events_sent);
                if std::mem::take(&mut self.away) {
                    tracing::info!("events are taken again");
                }
            }
            Verdict::PutOff => {
                count(&self.counters.events_retried);
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(why, "events are not taken by their receiver; they are tried again");
                }
            }
            Verdict::GivenUp => {
                count(&self.counters.events_failed);
                tracing::warn!(%call, why, "an event was given up");
            }
        }
    }

    fn begin(&mut self, now: Instant) {
        while let Some(parcel) = self.queue.begin(now) {
            if self.parcels.try_send(parcel).is_ok() {
                return;
            }
            self.attempted(now, None, "the posting thread is gone");
        }
    }
}

/// The event as it is posted.
fn envelope(event: &Event, unix_ms: u64, id: &str) -> Vec<u8> {
    let at = rfc3339(unix_ms);
    let head = format!("{{\"event\":\"{}\",\"eventId\":\"{id}\",\"at\":\"{at}\",\"call\":", event.name);
    [head.as_bytes(), &event.call, b"}"].concat()
}

/// 128 unpredictable bits: a receiver that gets an event twice knows it.
fn unique_id() -> String {
    let mut bytes = [0; 16];
    system::entropy(&mut bytes);
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// The wall clock. One that stands before 1970 is at 1970.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A time in UTC, as RFC 3339 writes it. The date by the days of 400 years that begin in March, so that a leap day is
/// the last of its year.
fn rfc3339(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let since_year_0 = days + 719_468;
    let (era, day) = (since_year_0 / 146_097, since_year_0 % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::RecvTimeoutError;

    use super::*;
    use crate::call_id::{CallId, LogId};
    use crate::driver::mail::{Mailboxes, mailboxes};
    use crate::io::Node;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn event(n: u32) -> Message {
        let call = format!("{{\"n\":{n}}}").into_bytes();
        Message::Event(Event { name: "call.ended", log_id: LogId::default(), call })
    }

    /// A receiver that answers as told: each request waits for its answer.
    struct Told {
        answers: Sender<Result<u16, FetchError>>,
        bodies: Receiver<String>,
    }

    fn told() -> (Told, Post) {
        let (answers, next) = mpsc::channel();
        let (tell, bodies) = mpsc::channel();
        let post = move |body: &[u8]| {
            tell.send(String::from_utf8(body.to_vec()).unwrap()).unwrap();
            next.recv().unwrap()
        };
        (Told { answers, bodies }, Box::new(post))
    }

    #[test]
    fn events_are_posted_in_order_each_with_an_id_of_its_own() {
        let Mailboxes { mut control, events, .. } = mailboxes(0).unwrap();
        let (told, post) = told();
        let counters = Arc::<Counters>::default();
        let thread = spawn(events, post, Arc::clone(&counters)).unwrap();
        (0..3).for_each(|n| control.routes.send(Node::Events, event(n)));
        let mut ids = Vec::new();
        for n in 0..3 {
            let body = told.bodies.recv_timeout(PATIENCE).unwrap();
            assert!(body.starts_with("{\"event\":\"call.ended\",\"eventId\":\""), "{body}");
            assert!(body.ends_with(&format!("\"call\":{{\"n\":{n}}}}}")), "{body}");
            ids.push(body[33..65].to_owned());
            assert_eq!(told.bodies.try_recv().unwrap_err(), TryRecvError::Empty, "one at a time");
            told.answers.send(Ok(200)).unwrap();
        }
        ids.dedup();
        assert!(ids.len() == 3 && ids.iter().all(|id| id.bytes().all(|b| b.is_ascii_hexdigit())), "{ids:?}");
        drop(control);
        thread.join().unwrap();
        assert_eq!(counters.value("events_sent"), Some(3));
    }

    #[test]
    fn what_a_silent_receiver_keeps_waiting_is_bounded_and_dropped_at_the_end() {
        let Mailboxes { mut control, events, .. } = mailboxes(0).unwrap();
        let (told, post) = told();
        let counters = Arc::<Counters>::default();
        let thread = spawn(events, post, Arc::clone(&counters)).unwrap();
        let beyond = 7;
        for n in 0..queue::EVENTS_MAX as u32 + beyond {
            control.routes.send(Node::Events, event(n));
            while control.routes.retry() {
                thread::yield_now();
            }
        }
        told.bodies.recv_timeout(PATIENCE).unwrap();
        drop(control);
        thread.join().unwrap();
        assert_eq!(counters.value("events_dropped"), Some(u64::from(beyond) + queue::EVENTS_MAX as u64));
        assert_eq!(counters.value("events_sent"), Some(0));
    }

    #[test]
    fn a_receiver_that_comes_back_gets_the_event_again() {
        let Mailboxes { mut control, events, .. } = mailboxes(0).unwrap();
        let (told, post) = told();
        let counters = Arc::<Counters>::default();
        let thread = spawn(events, post, Arc::clone(&counters)).unwrap();
        control.routes.send(Node::Events, event(1));
        let first = told.bodies.recv_timeout(PATIENCE).unwrap();
        told.answers.send(Ok(503)).unwrap();
        assert_eq!(told.bodies.recv_timeout(PATIENCE).unwrap(), first);
        told.answers.send(Ok(200)).unwrap();
        drop(control);
        thread.join().unwrap();
        assert_eq!(told.bodies.recv_timeout(PATIENCE).unwrap_err(), RecvTimeoutError::Disconnected);
        assert_eq!((counters.value("events_retried"), counters.value("events_sent")), (Some(1), Some(1)));
    }

    #[test]
    fn a_panic_of_the_posting_thread_loses_events_and_nothing_else() {
        let Mailboxes { mut control, events, .. } = mailboxes(0).unwrap();
        let counters = Arc::<Counters>::default();
        let thread = spawn(events, Box::new(|_| panic!("as a test")), Arc::clone(&counters)).unwrap();
        control.routes.send(Node::Events, event(1));
        drop(control);
        thread.join().unwrap();
        assert_eq!((counters.value("events_sent"), counters.value("events_dropped")), (Some(0), Some(1)));
    }

    #[test]
    fn no_event_prints_what_it_carries() {
        let log_id = CallId::new("wacid.canary").unwrap().log_id();
        let event = Event { name: "call.ended", log_id, call: b"{\"callId\":\"wacid.canary\"}".to_vec() };
        let shown = format!("{:?}", Message::Event(event));
        assert!(!shown.contains("canary") && shown.contains(&log_id.to_string()), "{shown}");
    }

    #[test]
    fn times_are_written_in_utc() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_767_225_599_000, "2025-12-31T23:59:59.000Z"),
            (1_767_225_600_000, "2026-01-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(unix_ms), text);
        }
    }
}
