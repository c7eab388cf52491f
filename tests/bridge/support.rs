//! What the tests share and none of them is about.

pub(crate) mod http_client;
pub(crate) mod http_server;
pub(crate) mod https_client;
pub(crate) mod process;
pub(crate) mod rtc_client;
pub(crate) mod server;

pub(crate) use voice_media_bridge::relay::{crypto, rng};
