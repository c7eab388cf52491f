//! Joins WhatsApp Business voice calls to a realtime speech model.

pub mod agent;
pub mod audio;
pub mod call;
pub mod call_id;
pub mod close_reason;
pub mod config;
pub mod control;
pub mod http;
pub mod io;
pub mod jitter;
pub mod messages;
pub mod peer;
pub mod playout;
pub mod realtime;
pub mod stats;
pub mod wss;
