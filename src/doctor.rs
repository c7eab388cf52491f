//! A call to a bridge through the real network stack, step by step: which one failed, the likely cause, and what to do.
//!
//! The caller is [`crate::relay`], as WhatsApp's, on a socket of this host ([`caller`]). What a step's outcome means is
//! judged here, by plain functions; who places the call, and asks the API meanwhile, is `server::doctor`.

pub mod caller;
pub mod causes;
pub mod flags;
pub mod steps;
