//! The helper threads that pass webhooks on to a receiver of the user's, byte for byte, with Meta's signature.
//!
//! One reads [`Message::Forward`] from its mailbox, and never waits for anything else; the others post. Which may go, in which
//! order, and when again, is `queue`'s business. Webhooks hold what people write, so no line of the log shows one.

mod queue;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Counters;
use super::counters::count;
use super::crew::Crew;
use super::fetch::{FetchError, Pooled, Request};
use super::mail::{Endpoint, Mail, Waker};
use crate::io::Node;
use crate::messages::{Forwarded, Message, Parcel};

use queue::{LANES, Number, Queue, Verdict};

/// How long a receiver may take to answer; Meta itself waits for about twenty seconds, and a receiver that takes longer
/// than this should answer first and work later.
const POST_TIME_MAX: Duration = Duration::from_secs(10);

/// How long webhooks are still passed on once the process is ending.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);

/// How long an answer to control waits for room in its mailbox before it is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// Posts a webhook and returns the status. May block.
pub type Post = Arc<dyn Fn(&Parcel) -> Result<u16, FetchError> + Send + Sync>;

/// Posts to the receiver at this URL.
pub fn poster(url: &str) -> Result<Post, FetchError> {
    let client = Pooled::new(url, LANES)?;
    Ok(Arc::new(move |parcel| {
        let headers = [("Content-Type", parcel.content_type.as_str()), ("X-Hub-Signature-256", &parcel.signature)];
        let request = Request { path: "", headers: &headers, body: Some(&parcel.body), time_max: POST_TIME_MAX };
        client.ask(&request).0.map(|answer| answer.status)
    }))
}

/// Starts the threads. They end some time after control has let go of its way to them: when all is passed on, or after two
/// seconds, or when the last post under way is answered.
pub fn spawn(endpoint: Endpoint<Message>, post: &Post, counters: Arc<Counters>) -> io::Result<Crew> {
    let (parcels, to_post) = mpsc::channel();
    let (done, outcomes) = mpsc::channel();
    let to_post = Arc::new(Mutex::new(to_post));
    let mut crew = Crew::new("forward");
    for _ in 0..LANES {
        let (to_post, done, waker, post) =
            (Arc::clone(&to_post), done.clone(), endpoint.inbox.waker(), Arc::clone(post));
        crew.spawn(move || post_all(&post, &to_post, &done, &waker))?;
    }
    let mut forwarder = Forwarder { endpoint, queue: Queue::default(), parcels, outcomes, counters, away: false };
    crew.spawn(move || forwarder.run())?;
    Ok(crew)
}

/// Posts what comes until nobody sends any more.
fn post_all(
    post: &Post,
    parcels: &Mutex<Receiver<(Number, Arc<Parcel>)>>,
    done: &Sender<(Number, Result<u16, String>)>,
    waker: &Waker,
) {
    loop {
        // Held by the one that waits for the next; nothing panics meanwhile.
        let next = parcels.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, parcel)) = next else { return };
        let outcome = match catch_unwind(AssertUnwindSafe(|| post(&parcel))) {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => Err("the HTTP client has panicked".into()),
        };
        if done.send((number, outcome)).is_err() {
            return;
        }
        waker.wake();
    }
}

struct Forwarder {
    endpoint: Endpoint<Message>,
    queue: Queue,
    /// As many are under way as there are lanes, so neither channel ever holds more.
    parcels: Sender<(Number, Arc<Parcel>)>,
    outcomes: Receiver<(Number, Result<u16, String>)>,
    counters: Arc<Counters>,
    /// Whether the log says that the receiver takes nothing.
    away: bool,
}

impl Forwarder {
    fn run(&mut self) {
        let mut until = None;
        loop {
            let now = Instant::now();
            let is_closed = self.read(now);
            self.settle(now);
            self.begin(now);
            if is_closed {
                let until = *until.get_or_insert(now + FLUSH_TIME_MAX);
                if self.queue.len() == 0 || now >= until {
                    break;
                }
            }
            let again = self.endpoint.routes.retry().then(|| now + TRY_AGAIN);
            let patience = [self.queue.next(), until, again].into_iter().flatten().min();
            if let Err(error) = self.endpoint.inbox.wait(patience.map(|at| at.saturating_duration_since(now))) {
                tracing::error!(%error, "what passes webhooks on cannot wait for its mailbox: it ends");
                break;
            }
        }
        if self.queue.len() > 0 {
            tracing::warn!(webhooks = self.queue.len(), "the process ends with webhooks that could not be passed on");
            (0..self.queue.len()).for_each(|_| count(&self.counters.forwards_dropped));
        }
    }

    /// Empties the mailbox; true when nothing more can come.
    fn read(&mut self, now: Instant) -> bool {
        loop {
            match self.endpoint.inbox.take() {
                Mail::Message(Message::Forward(parcel)) => {
                    let bytes = parcel.body.len();
                    if !self.queue.push(now, parcel) {
                        count(&self.counters.forwards_dropped);
                        tracing::warn!("a webhook was not passed on: too many wait");
                        self.tell(bytes, false);
                    }
                }
                Mail::Message(_) | Mail::Stop => {}
                Mail::Nothing => return false,
                Mail::Closed => return true,
            }
        }
    }

    fn tell(&mut self, bytes: usize, taken: bool) {
        self.endpoint.routes.send(Node::Control, Message::Forwarded(Forwarded { bytes, taken }));
    }

    /// Takes the outcomes that are there.
    fn settle(&mut self, now: Instant) {
        loop {
            match self.outcomes.try_recv() {
                Ok((number, Ok(status))) => self.attempted(now, number, Some(status), &format!("status {status}")),
                Ok((number, Err(why))) => self.attempted(now, number, None, &why),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn attempted(&mut self, now: Instant, number: Number, status: Option<u16>, why: &str) {
        let Some((verdict, bytes)) = self.queue.attempted(now, number, status) else { return };
        match verdict {
            Verdict::Taken => {
                count(&self.counters.forwards_taken);
                if std::mem::take(&mut self.away) {
                    tracing::info!("webhooks are taken again by their receiver");
                }
            }
            Verdict::PutOff => {
                count(&self.counters.forwards_retried);
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(why, "webhooks are not taken by their receiver; they are tried again");
                }
            }
            Verdict::GivenUp => {
                count(&self.counters.forwards_failed);
                tracing::warn!(why, "a webhook was given up");
            }
        }
        if verdict != Verdict::PutOff {
            self.tell(bytes, verdict == Verdict::Taken);
        }
    }

    fn begin(&mut self, now: Instant) {
        while let Some((number, parcel)) = self.queue.begin(now) {
            if self.parcels.send((number, parcel)).is_err() {
                self.attempted(now, number, None, "the posting threads are gone");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::fetch::testing::{Asked, Server, Told, answer};
    use crate::driver::mail::{Mailboxes, mailboxes};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Control's end, and the threads that post to this server.
    struct Rig {
        control: Endpoint<Message>,
        crew: Crew,
        counters: Arc<Counters>,
    }

    fn rig(post: &Post) -> Rig {
        let Mailboxes { control, forwarder, .. } = mailboxes(0).unwrap();
        let counters = Arc::<Counters>::default();
        let crew = spawn(forwarder, post, Arc::clone(&counters)).unwrap();
        Rig { control, crew, counters }
    }

    impl Rig {
        fn send(&mut self, sender: u64, body: &[u8]) {
            let (signature, content_type) = ("sha256=00ff".into(), "application/json; charset=utf-8".into());
            let parcel = Parcel { senders: vec![sender], signature, content_type, body: body.to_vec() };
            self.control.routes.send(Node::Forwarder, Message::Forward(parcel));
        }

        fn told(&self) -> Forwarded {
            let until = Instant::now() + PATIENCE;
            while Instant::now() < until {
                match self.control.inbox.take() {
                    Mail::Message(Message::Forwarded(forwarded)) => return forwarded,
                    Mail::Nothing => self.control.inbox.wait(Some(PATIENCE)).unwrap(),
                    other => panic!("{other:?}"),
                }
            }
            panic!("control is told nothing")
        }

        /// Lets go of the threads, and says what they have counted.
        fn counted(self, names: &[&str]) -> Vec<u64> {
            drop(self.control);
            assert!(self.crew.finish(PATIENCE));
            names.iter().map(|name| self.counters.value(name).unwrap()).collect()
        }
    }

    fn server(tell: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> (Server, Post) {
        let server = Server::plain(tell);
        let post = poster(&format!("{}/hook/?a=b", server.url())).unwrap();
        (server, post)
    }

    #[test]
    fn a_webhook_arrives_byte_for_byte_with_its_signature() {
        let body = b"{\"a\": \"\\u00e4\" ,\n\"b\":\xff}";
        let (_server, post) = server(move |asked| {
            let head = asked.head.to_lowercase();
            assert!(asked.head.starts_with("POST /hook/?a=b HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("x-hub-signature-256: sha256=00ff\r\n"), "{head}");
            assert!(head.contains("content-type: application/json; charset=utf-8\r\n"), "{head}");
            assert_eq!(asked.body, body);
            Told::Answer(answer(200, "", "ok"))
        });
        let mut rig = rig(&post);
        rig.send(1, body);
        assert_eq!(rig.told(), Forwarded { bytes: body.len(), taken: true });
        assert_eq!(rig.counted(&["forwards_taken", "forwards_failed", "forwards_dropped"]), [1, 0, 0]);
    }

    #[test]
    fn a_refusal_is_told_and_the_next_of_its_sender_goes() {
        let (_server, post) =
            server(|asked| Told::Answer(answer(if asked.body == b"bad" { 400 } else { 200 }, "", "")));
        let mut rig = rig(&post);
        rig.send(1, b"bad");
        rig.send(1, b"good one");
        assert_eq!(rig.told(), Forwarded { bytes: 3, taken: false });
        assert_eq!(rig.told(), Forwarded { bytes: 8, taken: true });
        assert_eq!(rig.counted(&["forwards_taken", "forwards_failed"]), [1, 1]);
    }

    #[test]
    fn a_receiver_that_comes_back_gets_it_again() {
        let (tell, came) = mpsc::channel();
        let (_server, post) = server(move |asked| {
            tell.send(asked.body.clone()).unwrap();
            Told::Answer(answer(if asked.nth == 0 { 503 } else { 200 }, "", ""))
        });
        let mut rig = rig(&post);
        rig.send(1, b"first");
        rig.send(1, b"second");
        assert!(rig.told().taken && rig.told().taken);
        let bodies: Vec<_> = came.try_iter().collect();
        assert_eq!(bodies, [&b"first"[..], b"first", b"second"]);
        assert_eq!(rig.counted(&["forwards_taken", "forwards_retried"]), [2, 1]);
    }

    #[test]
    fn what_is_left_when_control_goes_is_sent_for_a_while_and_then_dropped() {
        let (_server, post) =
            server(|asked| Told::Answer(answer(if asked.body == b"never" { 503 } else { 200 }, "", "")));
        let mut rig = rig(&post);
        (0..20).for_each(|sender| rig.send(sender, b"last words"));
        (0..3).for_each(|_| rig.send(99, b"never"));
        assert_eq!(rig.counted(&["forwards_taken", "forwards_dropped"]), [20, 3]);
    }

    #[test]
    fn a_panic_of_a_posting_thread_is_a_failure_like_others() {
        let post: Post = Arc::new(|_| panic!("as a test"));
        let mut rig = rig(&post);
        rig.send(1, b"x");
        assert_eq!(rig.counted(&["forwards_taken", "forwards_dropped"]), [0, 1]);
    }
}
