//! The built-in agent: a realtime server inside the process, spoken to over the same WebSocket path as the real one.
//!
//! It makes the first run work without an account, and is the other end for tests and load. It greets, finds turns by
//! energy, and answers with the caller's own words played back; with [`BuiltinOptions::echo`] it returns each append at
//! once, so that latency can be measured, and [`BuiltinAgent::talking`] makes it talk a share of the time, as load. It is a [`Machine`] for streams alone: it accepts connections, each of which
//! is a session, and takes no messages. It promises the GA protocol's shape for every event it sends, bounded memory
//! for every connection, and to never read anything into an API key: it asks for none.
//!
//! What the real service does and this does not: understand, speak text, call tools, transcribe (it says that it
//! failed), time out an idle conversation, end a session after an hour.

mod connection;
mod events;
mod greeting;
mod hearing;
mod items;
mod response;
mod session;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod vad;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::io::{Deadline, Door, Input, Machine, Output, StreamKey};
use crate::messages::Message;

use connection::Connection;

/// Speech for whoever needs some: the greeting as 24 kHz mono PCM, 4.1 s.
pub fn recording() -> Arc<[i16]> {
    greeting::greeting()
}

/// Connections at once. One that listens to a long monologue holds 3 MiB for it; most hold some 50 KiB.
pub const CONNECTIONS_MAX: usize = 1_024;

/// How long to wait after a connection could not be accepted: the process is out of descriptors, mostly.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Write buffers kept for reuse.
const SPARE_BUFFERS_MAX: usize = 64;

/// Largest write buffer worth keeping, in bytes: some deltas of 200 ms.
const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// How the agent behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuiltinOptions {
    /// Return each append at once, as audio of one long response, instead of listening for turns.
    pub echo: bool,
}

/// What a session does with what it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Listens for turns, and says back what it heard.
    Turns,
    /// Returns each append at once.
    Echo,
    /// Talks this share of the time, in percent, whatever it hears.
    Talk(u8),
}

/// The agent. A driver with a listener runs it.
#[derive(Debug)]
pub struct BuiltinAgent {
    mode: Mode,
    greeting: Arc<[i16]>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The key that waits for a connection.
    offered: Option<StreamKey>,
    accept_at: Option<Instant>,
    life: Life,
    outputs: VecDeque<Output<Message>>,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    /// Free, or offered for an accept.
    Empty,
    Live(Box<Connection>),
    /// Closed by us; the driver has not given the key back.
    Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Stopping,
    Exited,
}

impl BuiltinAgent {
    /// An agent that is ready to accept.
    pub fn new(options: BuiltinOptions) -> Self {
        Self::with_mode(if options.echo { Mode::Echo } else { Mode::Turns })
    }

    /// An agent for load: it talks this share of the time, 1 to 100 percent, in bursts of some seconds, and does not
    /// listen. Its audio comes far faster than it plays, as a model's does.
    pub fn talking(percent: u8) -> Self {
        Self::with_mode(Mode::Talk(percent.clamp(1, 100)))
    }

    fn with_mode(mode: Mode) -> Self {
        let mut agent = Self {
            mode,
            greeting: greeting::greeting(),
            slots: Vec::new(),
            free: Vec::new(),
            offered: None,
            accept_at: None,
            life: Life::Running,
            outputs: VecDeque::new(),
            spare: Vec::new(),
        };
        agent.offer();
        agent
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.state, SlotState::Live(_))).count()
    }

    /// Asks for one more connection, unless one is asked for or there are enough.
    fn offer(&mut self) {
        if self.offered.is_some() || self.accept_at.is_some() || self.life != Life::Running {
            return;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < CONNECTIONS_MAX => {
                self.slots.push(Slot { generation: 0, state: SlotState::Empty });
                self.slots.len() as u32 - 1
            }
            None => return,
        };
        let stream = StreamKey { slot, generation: self.slots[slot as usize].generation };
        self.offered = Some(stream);
        self.outputs.push_back(Output::Accept { stream, door: Door::Api });
    }

    /// The slot of a key that is in use.
    fn slot(&mut self, stream: StreamKey) -> Option<&mut Slot> {
        self.slots.get_mut(stream.slot as usize).filter(|slot| slot.generation == stream.generation)
    }

    fn close(&mut self, stream: StreamKey) {
        if let Some(slot) = self.slot(stream)
            && !matches!(slot.state, SlotState::Closing)
        {
            slot.state = SlotState::Closing;
            self.outputs.push_back(Output::Close { stream });
        }
    }

    fn accepted(&mut self, now: Instant, stream: StreamKey) {
        if self.offered != Some(stream) {
            return;
        }
        self.offered = None;
        let (mode, greeting) = (self.mode, self.greeting.clone());
        if let Some(slot) = self.slot(stream) {
            slot.state = SlotState::Live(Box::new(Connection::new(now, stream, mode, greeting)));
        }
        self.offer();
    }

    fn failed(&mut self, now: Instant, stream: StreamKey) {
        if self.offered == Some(stream) {
            self.offered = None;
            self.accept_at = Some(now + ACCEPT_AGAIN);
        }
        self.close(stream);
    }

    fn closed(&mut self, stream: StreamKey) {
        let Some(slot) = self.slot(stream) else { return };
        // After 4 billion uses a slot rests for good: a generation is never used twice.
        if let Some(generation) = slot.generation.checked_add(1) {
            *slot = Slot { generation, state: SlotState::Empty };
            self.free.push(stream.slot);
        }
        self.offer();
        self.exit_when_empty();
    }

    fn stop(&mut self, now: Instant) {
        if self.life == Life::Stopping {
            self.exit();
            return;
        }
        self.life = Life::Stopping;
        if let Some(stream) = self.offered.take() {
            self.close(stream);
        }
        for stream in self.live() {
            self.drive(stream, |connection| connection.stop(now));
        }
        self.exit_when_empty();
    }

    fn exit_when_empty(&mut self) {
        let in_use = self.slots.iter().any(|slot| !matches!(slot.state, SlotState::Empty));
        if self.life == Life::Stopping && !in_use {
            self.exit();
        }
    }

    fn exit(&mut self) {
        if self.life != Life::Exited {
            self.life = Life::Exited;
            self.outputs.push_back(Output::Exit);
        }
    }

    fn live(&self) -> Vec<StreamKey> {
        let live = self.slots.iter().zip(0..).filter(|(slot, _)| matches!(slot.state, SlotState::Live(_)));
        live.map(|(slot, index)| StreamKey { slot: index, generation: slot.generation }).collect()
    }

    /// Lets a connection do something, and takes from it what is to be done.
    fn drive(&mut self, stream: StreamKey, act: impl FnOnce(&mut Connection)) {
        let Some(slot) = self.slots.get_mut(stream.slot as usize) else { return };
        let SlotState::Live(connection) = &mut slot.state else { return };
        if slot.generation != stream.generation {
            return;
        }
        act(connection);
        if connection.is_finished() {
            self.close(stream);
            return;
        }
        if connection.has_output() {
            let bytes = connection.take_output(self.spare.pop().unwrap_or_default());
            self.outputs.push_back(Output::Write { stream, bytes });
        }
        if connection.wants_shutdown() {
            self.outputs.push_back(Output::Shutdown { stream });
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            self.offer();
        }
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if let SlotState::Live(connection) = &slot.state
                && connection.deadline().at.is_some_and(|at| at <= now)
            {
                let stream = StreamKey { slot: index as u32, generation: slot.generation };
                self.drive(stream, |connection| connection.handle_timeout(now));
            }
        }
    }

    fn deadline(&self) -> Deadline {
        let accept = self.accept_at.map_or(Deadline::NEVER, |at| Deadline::at(at, "accept again"));
        let connections = self.slots.iter().filter_map(|slot| match &slot.state {
            SlotState::Live(connection) => Some(connection.deadline()),
            SlotState::Empty | SlotState::Closing => None,
        });
        connections.fold(accept, Deadline::min)
    }
}

impl Machine for BuiltinAgent {
    type Message = Message;

    fn handle_input(&mut self, now: Instant, input: Input<'_, Message>) {
        if self.life == Life::Exited {
            return;
        }
        match input {
            Input::Timeout => self.handle_timeout(now),
            Input::Accepted { stream, .. } => self.accepted(now, stream),
            Input::Received { stream, bytes } => self.drive(stream, |connection| connection.received(now, bytes)),
            Input::Ended { stream } => self.drive(stream, |connection| connection.ended(now)),
            Input::Failed { stream, .. } => self.failed(now, stream),
            Input::Written { stream, len, buffer } => {
                if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BUFFER_BYTES_MAX {
                    self.spare.push(buffer);
                }
                self.drive(stream, |connection| connection.written(len));
            }
            Input::Closed { stream } => self.closed(stream),
            Input::Stop => self.stop(now),
            Input::Submitted
            | Input::Connected { .. }
            | Input::Message(_)
            | Input::Datagram(_)
            | Input::UdpBound { .. }
            | Input::UdpRefused { .. }
            | Input::UdpClosed { .. }
            | Input::SendFailed { .. } => {}
        }
    }

    fn poll_output(&mut self) -> Output<Message> {
        self.outputs.pop_front().unwrap_or_else(|| Output::Timeout(self.deadline()))
    }
}
