//! Both drivers against a real kernel, on loopback: they keep the promises of `io`, and they keep them alike.

mod agreement;
mod closing;
mod datagrams;
mod harness;
mod mail;
mod streams;
mod syscalls;
