//! Sessions of the model leg on the plain machine, against a model in memory.

mod hostile;
mod ladder;
mod rig;
mod voice;
