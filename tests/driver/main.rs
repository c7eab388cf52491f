//! Both drivers against a real kernel, on loopback: they keep the promises of `io`, and they keep them alike.

#![allow(clippy::unwrap_used, reason = "tests, helpers included, end by panicking")]
#![allow(clippy::match_same_arms, reason = "steps of a script stand in their order")]

mod agreement;
mod closing;
mod datagrams;
mod harness;
mod mail;
mod streams;
mod syscalls;
