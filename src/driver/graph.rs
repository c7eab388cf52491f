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
    fn next(&self) -> Option<GraphAsk> {
        let inbox = lock(&self.inbox);
        loop {
            match inbox.take() {
                Mail::Message(Message::AskGraph(ask)) => return Some(ask),
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
fn asked(client: &Pooled, ask: GraphAsk) -> (GraphAnswer, Effort) {
    let GraphAsk { id, path, token, body, until } = ask;
    let begun = Instant::now();
    let time_max = until.saturating_duration_since(begun);
    if time_max.is_zero() {
        // Sent now, it could overtake what was asked after it was given up.
        let outcome = Err("the Graph API was asked too much at once: this was not sent in time".to_owned());
        return (GraphAnswer { id, begun, ended: begun, is_repeated: false, outcome }, Effort::default());
    }
    let bearer = format!("Bearer {}", token.expose());
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let request = Request {
        path: &path,
        headers: if body.is_some() { &headers } else { &headers[..1] },
        body: body.as_ref().map(|body| body.0.as_bytes()),
        time_max,
    };
    let asked = catch_unwind(AssertUnwindSafe(|| client.ask(&request)));
    let ended = Instant::now();
    let (outcome, effort) = match asked {
        Ok((outcome, effort)) => (outcome.map(reply).map_err(|error| error.to_string()), effort),
        Err(_) => (Err("the HTTP client has panicked".to_owned()), Effort::default()),
    };
    (GraphAnswer { id, begun, ended, is_repeated: effort.is_repeated, outcome }, effort)
}

fn reply(Answer { status, retry_after_sec, body }: Answer) -> GraphReply {
    GraphReply { status, retry_after_sec, body }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Barrier;

    use super::*;
    use crate::config::Secret;
    use crate::driver::fetch::testing::{Server, Told, answer};
    use crate::driver::mail::{MESSAGES_MAX, Mailboxes, mailboxes};
    use crate::messages::{GraphBody, RequestId};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Control's end, and the threads that ask this server.
    struct Rig {
        control: Endpoint<Message>,
        crew: Crew,
        counters: Arc<Counters>,
    }

    fn rig(url: &str) -> Rig {
        let Mailboxes { control, graph, .. } = mailboxes(0).unwrap();
        let counters = Arc::<Counters>::default();
        let crew = spawn(graph, &client(url).unwrap(), Arc::clone(&counters)).unwrap();
        Rig { control, crew, counters }
    }

    fn ask(id: u64) -> GraphAsk {
        let body = Some(GraphBody(id.to_string()));
        let token = Secret::new("canary");
        GraphAsk { id: RequestId(id), path: "/canary/calls".into(), token, body, until: Instant::now() + PATIENCE }
    }

    impl Rig {
        fn send(&mut self, ask: GraphAsk) {
            self.control.routes.send(Node::Graph, Message::AskGraph(ask));
        }

        fn answered(&self) -> GraphAnswer {
            let until = Instant::now() + PATIENCE;
            while Instant::now() < until {
                match self.control.inbox.take() {
                    Mail::Message(Message::GraphAnswered(answer)) => return answer,
                    Mail::Nothing => self.control.inbox.wait(Some(PATIENCE)).unwrap(),
                    other => panic!("{other:?}"),
                }
            }
            panic!("no answer")
        }
    }

    #[test]
    fn requests_one_after_the_other_are_answered_over_one_connection() {
        let server = Server::plain(|asked| {
            let head = asked.head.to_lowercase();
            assert!(head.starts_with("post /v24.0/canary/calls http/1.1\r\n"), "{head}");
            assert!(head.contains("authorization: bearer canary\r\n"), "{head}");
            assert!(head.contains("content-type: application/json\r\n"), "{head}");
            Told::Answer(answer(400, "Retry-After: 3\r\n", &String::from_utf8(asked.body.clone()).unwrap()))
        });
        let mut rig = rig(&format!("{}/v24.0", server.url()));
        let before = Instant::now();
        for id in 0..50 {
            rig.send(ask(id));
            let GraphAnswer { id: answered, begun, ended, is_repeated, outcome } = rig.answered();
            assert!(!is_repeated);
            let reply = outcome.unwrap();
            assert_eq!((answered, reply.status, reply.retry_after_sec), (RequestId(id), 400, Some(3)));
            assert_eq!(reply.body, id.to_string());
            assert!(before <= begun && begun <= ended && ended <= Instant::now());
        }
        assert_eq!(server.connections(), 1);
        let counted = |name| rig.counters.value(name).unwrap();
        assert_eq!((counted("graph_requests"), counted("graph_connections")), (50, 1));
        assert_eq!((counted("graph_requests_unanswered"), counted("graph_requests_repeated")), (0, 0));
        drop(rig.control);
        assert!(rig.crew.finish(PATIENCE));
    }

    #[test]
    fn as_many_as_there_are_threads_are_under_way_at_once() {
        // None is answered before all have come.
        let all = Arc::new(Barrier::new(THREADS));
        let server = Server::plain(move |asked| {
            all.wait();
            Told::Answer(answer(200, "", &String::from_utf8(asked.body.clone()).unwrap()))
        });
        let mut rig = rig(&server.url());
        // Twice: the second time over the connections of the first.
        for _ in 0..2 {
            (0..THREADS as u64).for_each(|id| rig.send(ask(id)));
            let mut ids: Vec<_> = (0..THREADS).map(|_| rig.answered()).map(|answer| answer.id.0).collect();
            ids.sort_unstable();
            assert!(ids.into_iter().eq(0..THREADS as u64));
        }
        assert_eq!(server.connections(), THREADS);
    }

    #[test]
    fn a_server_that_is_away_or_hangs_is_told_in_words() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut away = rig(&format!("http://{free}"));
        away.send(ask(1));
        let error = away.answered().outcome.unwrap_err();
        assert!(error.contains("connection refused") && !error.contains("canary"), "{error}");
        assert_eq!(away.counters.value("graph_requests_unanswered"), Some(1));
        let server = Server::plain(|_| Told::Hang);
        let mut hanging = rig(&server.url());
        hanging.send(GraphAsk { until: Instant::now() + Duration::from_millis(20), ..ask(2) });
        let error = hanging.answered().outcome.unwrap_err();
        assert!(error.contains("did not answer within") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn what_is_too_late_to_be_asked_is_not_sent() {
        let server = Server::plain(|_| Told::Answer(answer(200, "", "{}")));
        let mut rig = rig(&server.url());
        rig.send(GraphAsk { until: Instant::now(), ..ask(1) });
        assert!(rig.answered().outcome.unwrap_err().contains("not sent in time"));
        assert_eq!(server.connections(), 0);
    }

    #[test]
    fn a_get_has_no_body() {
        let server = Server::plain(|asked| {
            assert!(asked.head.starts_with("GET /canary/calls HTTP/1.1\r\n"), "{}", asked.head);
            assert!(!asked.head.to_lowercase().contains("content-"), "{}", asked.head);
            Told::Answer(answer(200, "", "{}"))
        });
        let mut rig = rig(&server.url());
        rig.send(GraphAsk { body: None, ..ask(1) });
        assert_eq!(rig.answered().outcome.unwrap().status, 200);
    }

    #[test]
    fn an_answer_waits_for_room_in_controls_mailbox() {
        let server = Server::plain(|_| Told::Answer(answer(200, "", "{}")));
        let Mailboxes { mut control, graph, to_control, .. } = mailboxes(0).unwrap();
        let counters = Arc::<Counters>::default();
        let crew = spawn(graph, &client(&server.url()).unwrap(), Arc::clone(&counters)).unwrap();
        while to_control.send(Message::AskGraph(ask(0))).is_ok() {}
        (1..=3).for_each(|id| control.routes.send(Node::Graph, Message::AskGraph(ask(id))));
        drop(control.routes);
        let until = Instant::now() + PATIENCE;
        while counters.value("graph_requests") != Some(3) {
            assert!(Instant::now() < until, "not asked");
            thread::yield_now();
        }
        let (mut fillers, mut answers) = (0, 0);
        while answers < 3 {
            assert!(Instant::now() < until, "{answers} answers");
            match control.inbox.take() {
                Mail::Message(Message::GraphAnswered(_)) => answers += 1,
                Mail::Message(_) => fillers += 1,
                _ => control.inbox.wait(Some(PATIENCE)).unwrap(),
            }
        }
        assert_eq!(fillers, MESSAGES_MAX);
        assert!(crew.finish(PATIENCE));
    }

    #[test]
    fn what_was_asked_before_control_went_is_still_asked() {
        let (tell, came) = std::sync::mpsc::channel();
        let server = Server::plain(move |asked| {
            tell.send(asked.body.clone()).unwrap();
            Told::Answer(answer(200, "", "{}"))
        });
        let mut rig = rig(&server.url());
        (0..3).for_each(|id| rig.send(ask(id)));
        drop(rig.control);
        assert!(rig.crew.finish(PATIENCE));
        let mut bodies: Vec<_> = came.try_iter().collect();
        bodies.sort();
        assert_eq!(bodies, [b"0", b"1", b"2"]);
    }
}
