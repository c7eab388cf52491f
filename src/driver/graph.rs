//! The helper threads that ask Meta's Graph API.
//!
//! They share one mailbox and one client whose connections stay open. Whichever of them is free waits for the next
//! [`Message::AskGraph`], takes it, and leaves the mailbox to the next one while it asks: no thread hands work to another, so
//! a request is on its way as soon as control has sent it. Paths, tokens and bodies are personal data or secrets, and no line
//! of the log shows one. What is asked and what an answer means is not known here.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Counters;
use super::counters::{count, count_many};
use super::crew::Crew;
use super::fetch::{Answer, Effort, FetchError, Pooled, Request};
use super::mail::{Endpoint, Inbox, Mail, Routes};
use crate::io::Node;
use crate::messages::{GraphAnswer, GraphAsk, GraphReply, Message};

/// Requests under way at once. 200 calls that arrive within two seconds ask twice each, which is 200 requests a second; at a
/// round trip of 200 ms that is 40 under way, and while the first connections are made there are more. An idle thread costs
/// some 20 KB.
pub const THREADS: usize = 64;

/// How long the end of the process waits for what is still being asked: longer than Meta usually takes, and short for
/// whoever waits for a restart.
pub const END_TIME_MAX: Duration = Duration::from_secs(5);

/// How long an answer waits for room in control's mailbox before it is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(2);

/// A client of the API below this URL, for [`spawn`].
pub fn client(url: &str) -> Result<Pooled, FetchError> {
    Pooled::new(url, THREADS)
}

/// Starts the threads. They end when control has let go of its way to them, and what it has asked is answered.
pub fn spawn(endpoint: Endpoint<Message>, client: &Pooled, counters: Arc<Counters>) -> io::Result<Crew> {
    let Endpoint { inbox, routes } = endpoint;
    let desk =
        Arc::new(Desk { inbox: Mutex::new(inbox), outbox: Mutex::new(Outbox { routes, counters, unanswered: false }) });
    let mut crew = Crew::new("graph");
    for _ in 0..THREADS {
        let (desk, client) = (Arc::clone(&desk), client.clone());
        crew.spawn(move || {
            while let Some(ask) = desk.next() {
                desk.answer(asked(&client, ask));
            }
        })?;
    }
    Ok(crew)
}

/// What the threads share.
struct Desk {
    /// Held by the one thread that waits for the next request.
    inbox: Mutex<Inbox<Message>>,
    outbox: Mutex<Outbox>,
}

struct Outbox {
    routes: Routes<Message>,
    /// Written by whoever holds the outbox.
    counters: Arc<Counters>,
    /// Whether the log says that nothing is answered.
    unanswered: bool,
}

/// Nothing panics while it holds one of the two, and if it did the others could go on.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// The next request; `None` when none can come any more.
    fn next(&self) -> Option<Box<GraphAsk>> {
        let inbox = lock(&self.inbox);
        loop {
            match inbox.take() {
                Mail::Message(Message::AskGraph(ask)) => return Some(Box::new(ask)),
                Mail::Message(_) | Mail::Stop => {}
                Mail::Closed => return None,
                Mail::Nothing => {
                    if let Err(error) = inbox.wait(None) {
                        tracing::error!(%error, "no mailbox to wait for: the Graph API is not asked any more");
                        return None;
                    }
                }
            }
        }
    }

    /// Gives an answer to control, however long its mailbox is full: a call waits for it.
    fn answer(&self, (answer, effort): (GraphAnswer, Effort)) {
        let mut outbox = lock(&self.outbox);
        outbox.note(&answer, effort);
        outbox.routes.send(Node::Control, Message::GraphAnswered(answer));
        while outbox.routes.retry() {
            drop(outbox);
            thread::sleep(TRY_AGAIN);
            outbox = lock(&self.outbox);
        }
    }
}

impl Outbox {
    fn note(&mut self, answer: &GraphAnswer, effort: Effort) {
        count(&self.counters.graph_requests);
        count_many(&self.counters.graph_connections, effort.connections);
        if effort.is_repeated {
            count(&self.counters.graph_requests_repeated);
        }
        match &answer.outcome {
            Ok(_) => {
                if std::mem::take(&mut self.unanswered) {
                    tracing::info!("the Graph API answers again");
                }
            }
            Err(why) => {
                count(&self.counters.graph_requests_unanswered);
                if !std::mem::replace(&mut self.unanswered, true) {
                    tracing::warn!(why, "the Graph API does not answer");
                }
            }
        }
    }
}

/// Asks, and waits for what comes of it.
fn asked(client: &Pooled, ask: Box<GraphAsk>) -> (GraphAnswer, Effort) {
    let GraphAsk { id, path, token, body, time_max } = *ask;
    let bearer = format!("Bearer {}", token.expose());
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let request = Request {
        path: &path,
        headers: if body.is_some() { &headers } else { &headers[..1] },
        body: body.as_ref().map(|body| body.0.as_bytes()),
        time_max,
    };
    let begun = Instant::now();
    let asked = catch_unwind(AssertUnwindSafe(|| client.ask(&request)));
    let ended = Instant::now();
    let (outcome, effort) = match asked {
        Ok((outcome, effort)) => (outcome.map(reply).map_err(|error| error.to_string()), effort),
        Err(_) => (Err("the HTTP client has panicked".to_owned()), Effort::default()),
    };
    (GraphAnswer { id, begun, ended, outcome }, effort)
}

fn reply(Answer { status, retry_after_sec, body }: Answer) -> GraphReply {
    GraphReply { status, retry_after_sec, body }
}
