//! Tests of whole calls: the server on one side, a media relay laid out like WhatsApp's on the other.

mod relay;
mod support;
