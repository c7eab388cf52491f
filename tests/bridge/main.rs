//! Tests of whole calls: the server on one side, a media relay laid out like WhatsApp's on the other.

mod calls;
mod relay;
mod support;
mod voice;
mod world;
