//! One call.

pub mod downlink;
pub mod uplink;
