//! The table of connections: keys, their generations, and the request each is being answered.
//!
//! Accepting is pulled: a few keys are offered to the driver, and none where there is no room. Connections beyond the
//! maximum are told so; beyond that they wait in the kernel's backlog.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::call_id::{CallNumber, LogId};
use crate::http::{Bodies, BodyMax, Budget, DRAIN_BYTES_MAX, Event, Head, Method, Response};
use crate::io::{Door, StreamKey};
use crate::tls::Acceptor;

use super::timers::{Timer, Timers};
use super::wire::{News, Wire};

/// Connections served at once: room for a thousand stalled clients beside honest ones. At worst, each with head and
/// body nearly whole, they hold 300 MB, and [`LONG_BODIES_BYTES_MAX`]; TLS adds some 10 KB to each.
pub(super) const CONNECTIONS_MAX: usize = 2048;
/// Longest body of Meta's webhook: 3 MB, says the overview of webhooks in the Cloud API's documentation. It does not say which
/// megabyte, so the larger one.
pub(super) const WEBHOOK_BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
// Who sends one that is refused can read why.
const _: () = assert!(WEBHOOK_BODY_BYTES_MAX < DRAIN_BYTES_MAX);
/// What bodies of the webhook hold together beyond the usual length of each: ten of the longest, where an ordinary one has
/// 2 KB and needs nothing of it. What finds no room is told to come again, which Meta does for days.
const LONG_BODIES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Connections beyond it that are being told so.
const REFUSALS_MAX: usize = 64;
/// Accepts under way at each door: what arrives within one turn of the loop without a wait.
const ACCEPTS_ARMED: usize = 8;
/// After an accept failed (mostly: no descriptors), none is tried for this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Names one request on one connection; stale once that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) stream: StreamKey,
    number: u32,
}

/// A request between being read and its answer being written.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) read_at: Instant,
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    /// Which call it is about, for the log.
    pub(super) call: Option<LogId>,
    /// The call whose first answer it gets: the `setup` stage.
    pub(super) opened_call: Option<CallNumber>,
    /// The call whose connection it waits for, and until when.
    pub(super) waits_for: Option<CallNumber>,
    pub(super) waits_until: Option<Instant>,
    answered: bool,
}

impl Exchange {
    pub(super) fn new(read_at: Instant, method: &'static str) -> Self {
        Self {
            read_at,
            method,
            route: "none",
            call: None,
            opened_call: None,
            waits_for: None,
            waits_until: None,
            answered: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Connections {
    bodies: Bodies,
    slots: Vec<Slot>,
    free: Vec<u32>,
    offered: [usize; Door::ALL.len()],
    open: usize,
    refusing: usize,
    paused: bool,
    /// Connections that may have something to say.
    touched: VecDeque<StreamKey>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    Offered(Door),
    Open(Box<Open>),
    /// Accepted or connected, and served by others than this table: it keeps the key alone.
    Apart,
    /// Given up; waits for the driver to return the key.
    Closing,
}

#[derive(Debug)]
struct Open {
    door: Door,
    wire: Wire,
    /// Beyond the maximum, being told so.
    refused: bool,
    /// Being told why it is not served, without having asked.
    unasked: bool,
    requests: u32,
    exchange: Option<Exchange>,
    armed: Option<Instant>,
}

impl Connections {
    /// No connection yet. `webhook`: whether Meta's is served, whose bodies may be long.
    pub(super) fn new(webhook: bool) -> Self {
        let bodies = Bodies { max: body_max, budget: Budget::new(LONG_BODIES_BYTES_MAX) };
        Self {
            bodies: if webhook { bodies } else { Bodies::default() },
            slots: Vec::new(),
            free: Vec::new(),
            offered: [0; Door::ALL.len()],
            open: 0,
            refusing: 0,
            paused: false,
            touched: VecDeque::new(),
        }
    }

    /// A key to accept under, while there are too few at this door and room for more.
    pub(super) fn offer(&mut self, door: Door) -> Option<StreamKey> {
        let is_full = door == Door::Api && self.refusing >= REFUSALS_MAX;
        if self.paused || self.offered[door as usize] >= ACCEPTS_ARMED || is_full {
            return None;
        }
        self.offered[door as usize] += 1;
        Some(self.take_slot(State::Offered(door)))
    }

    /// The keys offered at a door.
    pub(super) fn offered_at(&self, door: Door) -> Vec<StreamKey> {
        let offered = |slot: &Slot| matches!(slot.state, State::Offered(other) if other == door);
        let slots = (0..).zip(&self.slots).filter(|(_, slot)| offered(slot));
        slots.map(|(index, slot)| StreamKey { slot: index, generation: slot.generation }).collect()
    }

    /// A key to connect with, for others than this table.
    pub(super) fn dial(&mut self) -> StreamKey {
        self.take_slot(State::Apart)
    }

    fn take_slot(&mut self, state: State) -> StreamKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, state: State::Free });
            u32::try_from(self.slots.len() - 1).expect("connections are bounded far below")
        });
        let entry = &mut self.slots[slot as usize];
        entry.state = state;
        StreamKey { slot, generation: entry.generation }
    }

    pub(super) fn is_offered(&self, stream: StreamKey) -> bool {
        self.slot(stream).is_some_and(|slot| matches!(slot.state, State::Offered(_)))
    }

    pub(super) fn pause_accepts(&mut self, now: Instant, timers: &mut Timers) {
        if !self.paused {
            self.paused = true;
            timers.arm(now + ACCEPT_PAUSE, Timer::Accept);
        }
    }

    pub(super) fn accept_again(&mut self) {
        self.paused = false;
    }

    /// A connection stands. At the API's door it speaks TLS where there is an acceptor; the others are on this machine. Where
    /// there are too many, returns a ticket to refuse it with.
    pub(super) fn accepted(&mut self, now: Instant, stream: StreamKey, tls: Option<&Acceptor>) -> Option<Ticket> {
        let State::Offered(door) = self.slot(stream)?.state else { return None };
        self.offered[door as usize] -= 1;
        let tls = tls.filter(|_| door == Door::Api);
        // The other instance bounds what it asks, and must get through whatever comes to the API.
        let refused = door != Door::Local && self.open >= CONNECTIONS_MAX;
        if refused {
            self.refusing += 1;
        } else {
            self.open += 1;
        }
        let wire = Wire::new(now, tls, self.bodies.clone());
        let open = Open { door, wire, refused, unasked: refused, requests: 0, exchange: None, armed: None };
        self.slots[stream.slot as usize].state = State::Open(Box::new(open));
        self.touched.push_back(stream);
        refused.then(|| self.begin(stream, Exchange::new(now, "none")))
    }

    /// A connection stands that speaks no HTTP. False where the key is not ours.
    pub(super) fn accepted_apart(&mut self, stream: StreamKey) -> bool {
        let Some(State::Offered(door)) = self.slot(stream).map(|slot| &slot.state) else { return false };
        self.offered[*door as usize] -= 1;
        self.slots[stream.slot as usize].state = State::Apart;
        true
    }

    pub(super) fn received(&mut self, now: Instant, stream: StreamKey, bytes: &[u8]) -> News {
        let mut news = News::None;
        self.touch(stream, |open| news = open.wire.received(now, bytes));
        news
    }

    /// A ticket to refuse a connection with that has asked nothing.
    pub(super) fn refuse_unasked(&mut self, now: Instant, stream: StreamKey) -> Ticket {
        let open = self.open_mut(stream).expect("only open connections have news");
        open.unasked = true;
        self.begin(stream, Exchange::new(now, "none"))
    }

    pub(super) fn ended(&mut self, now: Instant, stream: StreamKey) {
        self.touch(stream, |open| open.wire.ended(now));
    }

    pub(super) fn written(&mut self, now: Instant, stream: StreamKey) {
        self.touch(stream, |open| open.wire.written(now));
    }

    pub(super) fn timed_out(&mut self, now: Instant, stream: StreamKey) {
        self.touch(stream, |open| {
            open.armed = None;
            open.wire.timed_out(now);
        });
    }

    /// The next connection that something happened to.
    pub(super) fn touched(&mut self) -> Option<StreamKey> {
        self.touched.pop_front()
    }

    pub(super) fn poll(&mut self, now: Instant, stream: StreamKey) -> Option<Event> {
        self.open_mut(stream)?.wire.poll(now)
    }

    /// The door that a connection came through.
    pub(super) fn door(&self, stream: StreamKey) -> Option<Door> {
        match &self.slot(stream)?.state {
            State::Open(open) => Some(open.door),
            _ => None,
        }
    }

    /// Whether a connection of this door stands.
    pub(super) fn any_at(&self, door: Door) -> bool {
        self.slots.iter().any(|slot| matches!(&slot.state, State::Open(open) if open.door == door))
    }

    /// A request was read.
    pub(super) fn begin(&mut self, stream: StreamKey, exchange: Exchange) -> Ticket {
        let open = self.open_mut(stream).expect("only open connections have events");
        open.requests = open.requests.wrapping_add(1);
        open.exchange = Some(exchange);
        Ticket { stream, number: open.requests }
    }

    /// The request of a ticket, unless it is answered or its connection gone.
    pub(super) fn exchange(&mut self, ticket: Ticket) -> Option<&mut Exchange> {
        let open = self.open_mut(ticket.stream)?;
        let current = open.requests == ticket.number;
        open.exchange.as_mut().filter(|exchange| current && !exchange.answered)
    }

    /// The ticket of the request that a connection is being answered.
    pub(super) fn ticket(&mut self, stream: StreamKey) -> Option<Ticket> {
        let number = self.open_mut(stream)?.requests;
        let ticket = Ticket { stream, number };
        self.exchange(ticket).is_some().then_some(ticket)
    }

    /// Hands a response over; `None` where nobody waits for it any more.
    pub(super) fn respond(&mut self, now: Instant, ticket: Ticket, response: Response) -> Option<&mut Exchange> {
        self.exchange(ticket)?.answered = true;
        self.touched.push_back(ticket.stream);
        let open = self.open_mut(ticket.stream)?;
        if open.unasked {
            open.wire.refuse(now, response);
        } else {
            open.wire.respond(now, response);
        }
        open.exchange.as_mut()
    }

    /// The answer was written.
    pub(super) fn end(&mut self, stream: StreamKey) -> Option<Exchange> {
        self.open_mut(stream)?.exchange.take()
    }

    /// Sets the timer to the connection's deadline.
    pub(super) fn rearm(&mut self, stream: StreamKey, timers: &mut Timers) {
        let Some(open) = self.open_mut(stream) else { return };
        let until = open.wire.deadline();
        if until != open.armed {
            if let Some(at) = open.armed {
                timers.disarm(at, Timer::Connection(stream));
            }
            if let Some(at) = until {
                timers.arm(at, Timer::Connection(stream));
            }
            open.armed = until;
        }
    }

    /// Whether the key is ours to close: offered or open.
    pub(super) fn is_held(&self, stream: StreamKey) -> bool {
        self.slot(stream).is_some_and(|slot| matches!(slot.state, State::Offered(_) | State::Open(_) | State::Apart))
    }

    /// Gives a connection up, and returns the request it was being answered.
    pub(super) fn close(&mut self, stream: StreamKey, timers: &mut Timers) -> Option<Exchange> {
        self.slot(stream)?;
        let slot = &mut self.slots[stream.slot as usize];
        match std::mem::replace(&mut slot.state, State::Closing) {
            State::Open(open) => {
                if open.refused {
                    self.refusing -= 1;
                } else {
                    self.open -= 1;
                }
                if let Some(at) = open.armed {
                    timers.disarm(at, Timer::Connection(stream));
                }
                open.exchange
            }
            State::Offered(door) => {
                self.offered[door as usize] -= 1;
                None
            }
            State::Apart | State::Free | State::Closing => None,
        }
    }

    /// The driver returned the key.
    pub(super) fn closed(&mut self, stream: StreamKey) {
        match self.slot(stream).map(|slot| &slot.state) {
            Some(State::Closing) => {}
            // It was withdrawn.
            Some(State::Offered(door)) => self.offered[*door as usize] -= 1,
            _ => return,
        }
        let slot = &mut self.slots[stream.slot as usize];
        slot.state = State::Free;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(stream.slot);
    }

    /// Connections open now.
    pub(super) fn count(&self) -> usize {
        self.open + self.refusing
    }

    /// Whether any request is on its way in or its answer on its way out.
    pub(super) fn any_busy(&self) -> bool {
        self.slots.iter().any(|slot| matches!(&slot.state, State::Open(open) if open.wire.is_busy()))
    }

    fn slot(&self, stream: StreamKey) -> Option<&Slot> {
        self.slots.get(stream.slot as usize).filter(|slot| slot.generation == stream.generation)
    }

    fn open_mut(&mut self, stream: StreamKey) -> Option<&mut Open> {
        let slot = self.slots.get_mut(stream.slot as usize).filter(|slot| slot.generation == stream.generation)?;
        if let State::Open(open) = &mut slot.state { Some(open) } else { None }
    }

    fn touch(&mut self, stream: StreamKey, change: impl FnOnce(&mut Open)) {
        if let Some(open) = self.open_mut(stream) {
            change(open);
            self.touched.push_back(stream);
        }
    }
}

/// How long a body may be where Meta's webhook is served. It is known by its path alone: whether it is signed shows only when
/// it is whole.
fn body_max(head: &Head) -> BodyMax {
    let is_webhook = head.method == Method::Post && head.target.segments == ["webhooks", "whatsapp"];
    if is_webhook {
        BodyMax { bytes: WEBHOOK_BODY_BYTES_MAX, too_long: "The body is longer than 3 MiB." }
    } else {
        BodyMax::DEFAULT
    }
}

#[cfg(test)]
mod tests;
