//! Tests over whole offers and answers; each part's own tests stand beside it.

mod accepted;
mod answers;
mod candidates;
mod hostile;
mod linting;
mod refused;
