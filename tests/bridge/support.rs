//! What the tests share and none of them is about.

pub(crate) mod crypto;
pub(crate) mod http_client;
pub(crate) mod http_server;
pub(crate) mod process;
pub(crate) mod rng;
pub(crate) mod rtc_client;
pub(crate) mod server;
