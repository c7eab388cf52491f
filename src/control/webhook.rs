//! Meta's webhook: who may send it, what is answered, and what is done with what it holds.
//!
//! It is answered before anything is done about it: Meta gives an answer some seconds and a call half a minute. What is
//! answered with 200 is ours to act on or to pass on; what cannot be taken now is answered with 503, and Meta sends it again.
//!
//! # What becomes of a delivery
//!
//! | it holds | what is done |
//! |---|---|
//! | call events of numbers that are served | each acted on once, whatever comes again or in which order |
//! | anything else, or calls of other numbers | the whole of it passed on as it came (its signature is over all of it), where there is somebody to pass it on to |
//! | a new call that this server cannot take: it drains, or is full | with a balancer in front (`BRIDGE_AGENT_CHECK_LISTEN`), 503: it tries another. Else it is rejected, so that the phone does not ring on |
//! | something to pass on, while too much waits to be | 503 |
//!
//! Of two instances on this machine, each knows calls of its own. Events of calls that are not known here are shown to the
//! other one first, which says which of them it has acted on.

use std::time::Instant;

use crate::http::client::{Answer, ClientRequest};
use crate::http::{BODY_BYTES_MAX, Head, Request};
use crate::io::{Door, Node, Output};
use crate::messages::{Forwarded, Message, Parcel};
use crate::whatsapp::seen::Novelty;
use crate::whatsapp::signature::{self, SignatureError};
use crate::whatsapp::webhook::{self, CallEvent, CallEventKind};

use super::answer::{Refusal, json_response, response};
use super::connections::Ticket;
use super::drain::Successor;
use super::forward::{self, Outcome, Purpose};
use super::handover::Other;
use super::{Control, json, secrets_match};

/// Bytes of bodies that wait to be passed on: a receiver that is away for minutes, at hundreds of messages a second.
const FORWARD_BYTES_MAX: usize = 64 << 20;
/// Bodies that wait to be passed on; also what the forwarder keeps at most.
const FORWARD_PARCELS_MAX: usize = 4096;
/// Longest challenge of a verification. Meta's are some ten digits.
const CHALLENGE_BYTES_MAX: usize = 256;
/// When a full queue is worth asking again, in seconds. Meta has its own idea of it.
const RETRY_SEC: u32 = 5;

/// Events of a delivery, each with its place in it.
pub(super) type Events = Vec<(usize, CallEvent)>;

impl Control {
    /// `GET`: Meta, or its app's dashboard, sets the webhook up.
    pub(super) fn verify_webhook(&mut self, now: Instant, ticket: Ticket, head: &Head) -> Result<(), Refusal> {
        let meta = self.meta.as_ref().ok_or_else(not_served)?;
        let query = &head.target.query;
        let of = |name: &str| query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        let (Some("subscribe"), Some(token), Some(challenge)) =
            (of("hub.mode"), of("hub.verify_token"), of("hub.challenge"))
        else {
            let error =
                "This is Meta's webhook: it takes hub.mode=subscribe, hub.verify_token and hub.challenge, or POST.";
            return Err(Refusal::new(400, "bad_verification", error));
        };
        if !secrets_match(token, meta.verify_token.expose()) {
            let error = "hub.verify_token is not WHATSAPP_VERIFY_TOKEN. Enter the same in the app's dashboard.";
            return Err(Refusal::new(403, "wrong_verify_token", error));
        }
        let is_plain = challenge.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || challenge.len() > CHALLENGE_BYTES_MAX {
            let error = format!("hub.challenge must be 1 to {CHALLENGE_BYTES_MAX} visible ASCII characters.");
            return Err(Refusal::field(error));
        }
        tracing::info!("Meta's webhook was verified");
        self.answer(now, ticket, response(200, "text/plain; charset=utf-8", challenge.as_bytes().to_vec()));
        Ok(())
    }

    /// `POST`: something has happened.
    pub(super) fn webhook(&mut self, now: Instant, ticket: Ticket, request: &Request) -> Result<(), Refusal> {
        let outcome = self.delivery(now, ticket, request);
        let label = outcome.as_ref().map_or_else(|refusal| refusal.code, |()| "taken");
        *self.stats.meta.deliveries.entry(label).or_default() += 1;
        outcome
    }

    fn delivery(&mut self, now: Instant, ticket: Ticket, request: &Request) -> Result<(), Refusal> {
        let meta = self.meta.as_ref().ok_or_else(not_served)?;
        let by_other = self.connections.door(ticket.stream) == Some(Door::Local);
        let signature = request.head.header("x-hub-signature-256").unwrap_or_default();
        // The other instance has checked it.
        if !by_other {
            signature::verify(signature, &request.body, &meta.app_secrets).map_err(unsigned)?;
        }
        let delivery = webhook::parse(&request.body).map_err(|error| Refusal::new(400, "bad_webhook", error))?;
        self.stats.meta.unusable += delivery.unusable as u64;
        // A call that is up stays ours, whatever has become of its number since.
        let is_ours = |event: &CallEvent| meta.serves(&event.phone_number_id) || meta.knows(&event.call);
        let (events, strangers): (Events, Events) =
            delivery.events.into_iter().enumerate().partition(|(_, event)| is_ours(event));
        if by_other {
            self.delivered_by_other(now, ticket, events);
            return Ok(());
        }
        let is_forwarded = delivery.has_others || !strangers.is_empty();
        if !strangers.is_empty() {
            self.strange_numbers(now, &strangers);
        }
        let news = self.news(now, events);
        let news = self.without_calls(now, news)?;
        if is_forwarded && self.forward_is_full(request.body.len()) {
            // Calls do not wait for it. Sent again, they are none of the news.
            self.act_or_ask(now, news, &request.body);
            let error = "Too many webhooks wait for their receiver (BRIDGE_WEBHOOK_FORWARD_URL). Send it again.";
            return Err(Refusal::new(503, "forward_full", error).retry_after(RETRY_SEC));
        }
        self.answer(now, ticket, json_response(200, json::success()));
        if is_forwarded {
            self.pass_on(delivery.senders, signature.unwrap_or_default(), request);
        }
        self.act_or_ask(now, news, &request.body);
        Ok(())
    }

    /// Those events that have not come before.
    fn news(&mut self, now: Instant, events: Events) -> Events {
        let mut news = Vec::new();
        for (index, event) in events {
            let Some(meta) = &mut self.meta else { break };
            let what = if matches!(event.kind, CallEventKind::Connect { .. }) { "connect" } else { "terminate" };
            match meta.is_news(now, &event) {
                Novelty::New => news.push((index, event)),
                Novelty::Repeated => self.count_event(what, "repeated"),
                Novelty::Over => {
                    tracing::info!(call = %event.call.log_id(), "a connect webhook came after its terminate: nothing is done");
                    self.count_event(what, "over");
                }
            }
        }
        news
    }

    /// Where a balancer can send a new call to another server, one that cannot be taken here is refused: what else is new is
    /// done, and the rest is to be sent again. Without a balancer Meta would come back here, while the phone rings on.
    fn without_calls(&mut self, now: Instant, news: Events) -> Result<Events, Refusal> {
        let has_balancer = self.config.drain.agent_check_listen.is_some() && self.successor == Successor::None;
        let is_connect = |event: &CallEvent| matches!(event.kind, CallEventKind::Connect { .. });
        if !has_balancer || !news.iter().any(|(_, event)| is_connect(event)) {
            return Ok(news);
        }
        let Err(refusal) = self.place(now) else { return Ok(news) };
        let (connects, others): (Events, Events) = news.into_iter().partition(|(_, event)| is_connect(event));
        for (_, event) in &connects {
            self.count_event("connect", "sent_on");
            if let Some(meta) = &mut self.meta {
                meta.not_taken(event);
            }
        }
        self.act(now, others);
        Err(refusal)
    }

    /// Calls of numbers that nobody has configured.
    fn strange_numbers(&mut self, now: Instant, strangers: &Events) {
        for (_, event) in strangers {
            let is_connect = matches!(event.kind, CallEventKind::Connect { .. });
            self.count_event(if is_connect { "connect" } else { "terminate" }, "other_number");
        }
        let is_unknown = |event: &CallEvent| self.meta.as_ref().is_some_and(|meta| !meta.has(&event.phone_number_id));
        if !self.forwards()
            && strangers.iter().any(|(_, event)| is_unknown(event))
            && let Some(unsaid) = self.refusals_logged.take(now)
        {
            tracing::warn!(
                calls = strangers.len(),
                unsaid,
                "a webhook tells of calls to a number that is not in the settings, and there is nobody to pass it on to: its \
                 phone rings on (BRIDGE_WHATSAPP_NUMBERS, BRIDGE_WEBHOOK_FORWARD_URL)"
            );
        }
    }

    fn forward_is_full(&self, bytes: usize) -> bool {
        let Some(meta) = &self.meta else { return false };
        let waiting = meta.forwarding;
        self.forwards() && (waiting.parcels >= FORWARD_PARCELS_MAX || waiting.bytes + bytes > FORWARD_BYTES_MAX)
    }

    /// Whether webhooks are still to be passed on while another instance serves: nobody waits for this one's end then.
    pub(super) fn waits_for_receiver(&self) -> bool {
        let is_waiting = self.meta.as_ref().is_some_and(|meta| meta.forwarding.parcels > 0);
        is_waiting && self.successor == Successor::Known
    }

    /// Whether there is anybody to pass webhooks on to.
    fn forwards(&self) -> bool {
        self.config.whatsapp.as_ref().is_some_and(|whatsapp| whatsapp.forward_url.is_some())
    }

    fn pass_on(&mut self, senders: Vec<u64>, signature: &str, request: &Request) {
        if !self.forwards() {
            self.stats.meta.not_forwarded += 1;
            return;
        }
        let Some(meta) = &mut self.meta else { return };
        meta.forwarding.parcels += 1;
        meta.forwarding.bytes += request.body.len();
        let content_type = request.head.header("content-type").ok().flatten().unwrap_or("application/json").to_owned();
        let parcel = Parcel { senders, signature: signature.to_owned(), content_type, body: request.body.clone() };
        self.outputs.push_back(Output::Message { to: Node::Forwarder, message: Message::Forward(parcel) });
    }

    /// A webhook that was passed on is taken, or given up.
    pub(super) fn forwarded(&mut self, forwarded: Forwarded) {
        let Some(meta) = &mut self.meta else { return };
        meta.forwarding.parcels -= 1;
        meta.forwarding.bytes -= forwarded.bytes;
        let count =
            if forwarded.taken { &mut self.stats.meta.forwarded } else { &mut self.stats.meta.forward_given_up };
        *count += 1;
    }

    /// Acts on events; those of calls that the other instance may have are shown to it first.
    fn act_or_ask(&mut self, now: Instant, events: Events, body: &[u8]) {
        let has_other = matches!(self.handover.other, Other::Old | Other::New);
        let (unknown, known): (Events, Events) =
            events.into_iter().partition(|(_, event)| has_other && !self.is_call_here(event));
        self.act(now, known);
        if unknown.is_empty() {
            return;
        }
        // What is asked is kept to be asked again: a body of many is not worth it.
        let fits = body.len() <= BODY_BYTES_MAX && !self.asks_are_full();
        let Some(text) = std::str::from_utf8(body).ok().filter(|_| fits) else { return self.act(now, unknown) };
        let (method, target, host) = ("POST", "/webhooks/whatsapp", forward::HOST);
        let header = Some(forward::FORWARDED);
        let bytes = ClientRequest { method, target, host, token: None, json: Some(text), header }.encode();
        self.ask_other(now, bytes, Purpose::Webhook { events: unknown, asked: 1 }, forward::ASK_TIME_MAX);
    }

    fn act(&mut self, now: Instant, events: Events) {
        for (_, event) in events {
            self.call_event(now, event);
        }
    }

    /// The other instance has said which events it has acted on; the rest is ours. One that does not answer is taken to have
    /// no such call: a phone must not ring for its sake. But this one would only reject a new call while it drains, and the other may
    /// have it by now: so it is asked once more then.
    pub(super) fn other_has_acted(
        &mut self,
        now: Instant,
        events: Events,
        asked: u8,
        bytes: Vec<u8>,
        outcome: &Outcome,
    ) {
        let done = match outcome {
            Outcome::Answered(Answer { status: 200, body, .. }) => json::done_events(body),
            Outcome::Answered(_) | Outcome::Nobody => Vec::new(),
            Outcome::Silent if self.is_leaving() && asked == 1 => {
                return self.ask_other(now, bytes, Purpose::Webhook { events, asked: 2 }, forward::ASK_TIME_MAX);
            }
            Outcome::Silent => {
                tracing::warn!(events = events.len(), "the other instance does not answer: call events are taken here");
                Vec::new()
            }
        };
        let rest = events.into_iter().filter(|(index, _)| !done.contains(index)).collect();
        self.act(now, rest);
    }

    /// What the other instance shows: events of its delivery that may be of calls here.
    fn delivered_by_other(&mut self, now: Instant, ticket: Ticket, events: Events) {
        let takes_all = !self.is_leaving() && self.handover.other != Other::Unasked;
        let mine: Events = events.into_iter().filter(|(_, event)| takes_all || self.is_call_here(event)).collect();
        let done: Vec<usize> = mine.iter().map(|(index, _)| *index).collect();
        let news = self.news(now, mine);
        self.answer(now, ticket, json_response(200, json::done(&done)));
        self.act(now, news);
    }

    /// Whether the call of an event is known here.
    fn is_call_here(&self, event: &CallEvent) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.knows(&event.call)) || self.calls.by_id(&event.call).is_some()
    }
}

fn not_served() -> Refusal {
    let error = "Meta's webhook is not served here. Set WHATSAPP_PHONE_NUMBER_ID or BRIDGE_WHATSAPP_NUMBERS.";
    Refusal::new(404, "not_found", error)
}

fn unsigned(error: SignatureError) -> Refusal {
    let error = match error {
        SignatureError::Missing => "X-Hub-Signature-256 is missing. Only Meta's webhooks are taken here.",
        SignatureError::Malformed => "X-Hub-Signature-256 must be sha256= and 64 hexadecimal digits.",
        SignatureError::Wrong => {
            "X-Hub-Signature-256 is not made with this app's secret over these bytes. Check WHATSAPP_APP_SECRET, and that no \
             proxy changes the body."
        }
    };
    Refusal::new(401, "bad_signature", error)
}
