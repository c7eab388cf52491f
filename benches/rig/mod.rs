//! What benches and the tests of allocations share: sound, one bridge in one thread on virtual time, the WebRTC stack alone,
//! and how a cost is taken and told.
//!
//! Nothing here has a socket. A bench uses a part of it.

#![allow(dead_code, reason = "a bench uses a part of what they share")]
#![allow(clippy::unwrap_used, reason = "a bench that fails stops")]

pub(crate) mod bridge;
pub(crate) mod meter;
pub(crate) mod paths;
pub(crate) mod report;
pub(crate) mod sound;
pub(crate) mod stack;
