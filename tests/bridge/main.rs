//! Tests of whole calls: the server on one side, a media relay laid out like WhatsApp's on the other.

mod calls;
mod commands;
mod events;
mod relay;
mod server_calls;
mod server_hostile;
mod server_log;
mod server_process;
mod support;
mod voice;
mod world;
