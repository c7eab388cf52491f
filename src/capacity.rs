//! How many calls this machine holds at a stated bound, and what a call costs: the search, the reading of a bridge's
//! metrics, the table.
//!
//! All of it is arithmetic on what was measured; who starts the bridge, its model and the load, and who asks for the
//! metrics, is the server's glue (`server/capacity.rs`). A metric that a bridge does not have is told as not known, never as zero.

pub mod flags;
pub mod report;
pub mod scrape;
pub mod search;
