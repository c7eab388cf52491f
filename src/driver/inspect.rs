//! What `check-config` and `doctor` look at on this host and beyond, each look bounded in time.
//!
//! Facts only: nothing here knows whether what it saw is good or bad, and nothing is changed by looking. What the host does
//! not tell is `None`.

mod host;
mod ports;
mod reach;

pub use host::{Clock, Folder, Host, Limit, folder, host, is_local_address, is_roots_alone, mode};
pub use ports::{ApiPort, MediaPorts, api_port, media_ports};
pub use reach::{Login, Reach, Stage, Target, reach};

/// Receive and send buffer that the sockets of calls ask for, in bytes.
pub const CALL_BUFFER_BYTES: [usize; 2] = [super::udp::RECEIVE_BUFFER_BYTES, super::udp::SEND_BUFFER_BYTES];
