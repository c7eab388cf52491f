//! SDP: offers in, answers out, and a linter that judges the answers.
//!
//! An offer is read once, bounded and in linear time, into an [`Offer`] that holds only what a call needs; whatever
//! cannot be answered is an [`OfferError`] that names the line and the way out. The answer is written as text of our own,
//! since WhatsApp's validator is strict about order, packet time and line ends. The linter reads answers with code of
//! its own, so that one misreading cannot hide in both.
//!
//! Nothing here knows the WebRTC stack, a socket or a clock. ICE credentials are never printed.

pub mod answer;
pub mod candidate;
mod lines;
pub mod lint;
pub mod offer;
pub mod offer_error;
mod offer_parser;
pub mod opus_params;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

pub use answer::{AnswerParams, write_answer};
pub use candidate::{Policy, Refused, RemoteCandidate, Selected};
pub use lines::{OFFER_ATTRIBUTES_MAX, OFFER_BYTES_MAX, OFFER_LINES_MAX, OFFER_MEDIA_MAX};
pub use offer::{IceCredentials, Offer, OpusFormat, Profile, Setup, TelephoneEvent};
pub use offer_error::OfferError;
pub use opus_params::OpusParams;
