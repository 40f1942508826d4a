//! A client for QMP, the protocol by which QEMU is controlled: JSON objects, one a line, over a Unix socket.
//!
//! A [`Client`] is one connection. [`Client::connect`] takes the greeting and leaves the negotiation behind it, so that
//! commands can follow; QEMU serves one connection at a time and lets others wait. Events that arrive between an answer
//! and its command are kept for [`Client::take_events`]. Nothing here starts QEMU or decides what to do next.
//!
//! The contract is `docs/interop/qmp-spec.rst` of QEMU's repository (QMP 2.x and later).
//!
//! Look next at `client.rs` (a connection), `message.rs` (what a line is).

mod client;
mod message;

pub use client::{Client, Error, LINE_LIMIT};
pub use message::{Event, Message, MessageError};
