//! Offers in, answers out.

/// An offer we can answer.
#[derive(Clone, Debug)]
pub struct Offer {}
