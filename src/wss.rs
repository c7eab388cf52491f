//! WebSocket connections over bytes.

pub mod memory;
