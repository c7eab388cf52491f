//! The helper thread that looks up names for workers.
//!
//! It reads [`Message::Resolve`] from its mailbox and answers [`Message::Resolved`] to the worker that asked. What to
//! answer, keep and look up is `cache`'s business; here are the threads. A look-up may hang for as long as the host's
//! resolver takes, so each runs on a short-lived thread of its own, and others go on meanwhile.

mod cache;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::mail::{Endpoint, Inbox, Mail, Routes, Waker};
use crate::io::Node;
use crate::messages::{Message, Resolve, Resolved};

use cache::{Answer, Asked, Asker, Cache, Name};

/// How long to wait before a worker's full mailbox is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// Finds the addresses of a host, in any order. May block.
pub type Lookup = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// The host's own resolver (`getaddrinfo`).
pub fn system_lookup() -> Lookup {
    Arc::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
}

/// Starts the thread. It ends when every worker has let go of its way to it.
pub fn spawn(endpoint: Endpoint<Message>, lookup: Lookup) -> io::Result<JoinHandle<()>> {
    let (done, found) = mpsc::channel();
    let Endpoint { inbox, routes } = endpoint;
    let finders = Finders { lookup, done, waker: inbox.waker() };
    let mut resolver = Resolver { inbox, routes, cache: Cache::new(), finders, found };
    thread::Builder::new().name("resolver".into()).spawn(move || resolver.run())
}

struct Resolver {
    inbox: Inbox<Message>,
    routes: Routes<Message>,
    cache: Cache,
    finders: Finders,
    /// At most one per look-up in flight, which the cache bounds.
    found: Receiver<Found>,
}

/// What a look-up found, and for whom.
type Found = (Name, Result<Vec<SocketAddr>, String>);

/// What a look-up's thread needs.
struct Finders {
    lookup: Lookup,
    done: Sender<Found>,
    waker: Waker,
}

impl Finders {
    fn start(&self, name: &Name) -> io::Result<()> {
        let (lookup, done, waker, name) =
            (Arc::clone(&self.lookup), self.done.clone(), self.waker.clone(), name.clone());
        let look_up = move || {
            let found = lookup(&name.host, name.port).map_err(|error| error.to_string());
            // The resolver may be gone: then nobody waits for this.
            let _ = done.send((name, found));
            waker.wake();
        };
        thread::Builder::new().name("lookup".into()).spawn(look_up).map(drop)
    }
}

impl Resolver {
    fn run(&mut self) {
        loop {
            let now = Instant::now();
            while let Ok((name, found)) = self.found.try_recv() {
                let answers = self.cache.found(now, &name, found);
                self.answer(answers);
            }
            loop {
                match self.inbox.take() {
                    Mail::Message(Message::Resolve(question)) => self.ask(now, question),
                    Mail::Message(_) | Mail::Stop => {}
                    Mail::Nothing => break,
                    Mail::Closed => return,
                }
            }
            let late = self.cache.late(now);
            self.answer(late);
            let retry = self.routes.retry().then_some(RETRY);
            let patience = self.cache.next_late().map(|at| at.saturating_duration_since(now));
            if let Err(error) = self.inbox.wait(retry.into_iter().chain(patience).min()) {
                tracing::error!(%error, "the resolver cannot wait for its mailbox: it ends");
                return;
            }
        }
    }

    fn ask(&mut self, now: Instant, question: Resolve) {
        let Resolve { worker, call, host, port } = question;
        let (asker, name) = (Asker { worker, call }, Name { host, port });
        match self.cache.ask(now, &name, asker) {
            Asked::Known(outcome) => self.answer(vec![(asker, outcome)]),
            Asked::Waits => {}
            Asked::LookUp => {
                if let Err(error) = self.finders.start(&name) {
                    let answers = self.cache.found(now, &name, Err(error.to_string()));
                    self.answer(answers);
                }
            }
        }
    }

    fn answer(&mut self, answers: Vec<Answer>) {
        for (Asker { worker, call }, outcome) in answers {
            self.routes.send(Node::Worker(worker), Message::Resolved(Resolved { call, outcome }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::call_id::CallNumber;
    use crate::driver::mail::{Mailboxes, mailboxes};

    fn ask(worker: &mut Endpoint<Message>, call: u64, host: &str) {
        let question = Resolve { worker: 0, call: CallNumber(call), host: host.into(), port: 443 };
        worker.routes.send(Node::Resolver, Message::Resolve(question));
    }

    fn answer(worker: &Endpoint<Message>) -> Resolved {
        loop {
            match worker.inbox.take() {
                Mail::Message(Message::Resolved(resolved)) => return resolved,
                Mail::Nothing => worker.inbox.wait(None).unwrap(),
                other => panic!("not an answer: {other:?}"),
            }
        }
    }

    #[test]
    fn a_look_up_that_hangs_does_not_hold_up_another_and_a_second_question_costs_none() {
        let (looked_up, hang) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let lookup: Lookup = {
            let (looked_up, hang) = (Arc::clone(&looked_up), Arc::clone(&hang));
            Arc::new(move |host, port| {
                looked_up.fetch_add(1, Ordering::SeqCst);
                if host == "hangs.example" {
                    hang.wait();
                }
                Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()])
            })
        };
        let Mailboxes { mut workers, resolver, .. } = mailboxes(1).unwrap();
        let thread = spawn(resolver, lookup).unwrap();
        let mut worker = workers.remove(0);
        ask(&mut worker, 1, "hangs.example");
        ask(&mut worker, 2, "fast.example");
        let first = answer(&worker);
        assert_eq!(first.call, CallNumber(2));
        let v6_first = [(Ipv6Addr::LOCALHOST, 443).into(), (Ipv4Addr::LOCALHOST, 443).into()];
        assert_eq!(*first.outcome.unwrap(), v6_first);
        ask(&mut worker, 3, "fast.example");
        assert_eq!(answer(&worker).call, CallNumber(3));
        hang.wait();
        assert_eq!(answer(&worker).call, CallNumber(1));
        assert_eq!(looked_up.load(Ordering::SeqCst), 2);
        drop(worker);
        thread.join().unwrap();
    }

    #[test]
    fn the_hosts_own_resolver_knows_localhost() {
        let found = system_lookup()("localhost", 80).unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
    }
}
