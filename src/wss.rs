//! WebSocket connections over bytes: TLS, the HTTP upgrade and messages, without a socket, thread or clock.
//!
//! Bytes that came go in, messages and changes of state come out, and what is to be written is collected until somebody
//! asks for it. This module must not know what the messages say.
//!
//! Only the files below it name tungstenite.

mod client;
mod frame;
pub mod memory;
pub mod server;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod upgrade;

pub use client::{Client, Event, Step, Text};
pub use upgrade::Request;

pub use crate::tls::Tls;

use std::time::Duration;

/// Longest message taken, in bytes, and longest frame: servers send a message as one frame.
///
/// The longest honest one is audio. OpenAI names no size for its deltas; servers that synthesise first and send then put a
/// whole utterance into one delta. 4 MiB of base64 is 65 s of 24 kHz speech. A longer frame is refused by its header.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Longest head of the answer to the upgrade, in bytes. Real ones are about 1 KiB.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// How much of a refusal's body is kept, in bytes: enough for the error object that says why.
pub const BODY_BYTES_MAX: usize = 2 << 10;
/// How long a refusal's body may take after its head. The status is worth more than the rest of the body.
pub const BODY_WAIT: Duration = Duration::from_secs(1);
/// We ping this often: proxies on the way drop connections that seem idle, often after 60 s. When a whole interval after
/// a ping brings not one byte, not even the pong, the other end is taken for gone.
pub const PING_EVERY: Duration = Duration::from_secs(20);
/// tungstenite's buffers, in bytes each; its default of 128 KiB twice per connection is a server's, not a call's. It reads in
/// such pieces and grows for a longer message.
const BUFFER_BYTES: usize = 8 << 10;
