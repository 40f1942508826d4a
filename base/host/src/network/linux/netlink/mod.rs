//! Netlink: messages built and taken apart, and a socket of one namespace that asks and waits for the answer.
//!
//! The kernel answers in the call that asks, so everything here blocks for microseconds and needs no runtime. The same
//! few lines serve routing, packet filter, connection tracking and queues, and only attributes that are used are read:
//! what a newer kernel adds is passed over. The crates with a type for every message are large, and want a runtime or
//! know no token buckets.

mod connection;
mod message;
pub(super) mod numbers;

pub(super) use connection::{Connection, Refusal};
pub(super) use message::{Attributes, Message, NESTED, Reply, attribute_in};
