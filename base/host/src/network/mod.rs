//! Networks: namespaces, links, addresses, routes, packet filter, connection tracking and rate limits.
//!
//! [`Networks`] are the namespaces of a host; a [`Network`] is what is inside one of them. [`LinuxNetworks`] does it by
//! netlink, without a process per step; [`FakeNetworks`] remembers. One suite of tests runs against both.
//!
//! Every step says "already there" and "not there" apart from other failures, so that work which was cut short can
//! simply be done again: see [`NetworkError::is_already_there`], [`NetworkError::is_not_there`] and [`Repeatable`].

mod address;
mod error;
mod fake;
mod filter;
mod foreign;
mod layout;
mod limit;
mod link;
mod linux;
mod names;
mod namespace;

pub use address::{Addresses, Neighbour, NeighbourEntry, Route};
pub use error::{Cause, NetworkError, Repeatable};
pub use fake::FakeNetworks;
pub use filter::{
    Chain, Change, Data, Element, Family, Filter, Hook, Key, Listed, Part, Set, Table, TableObjects, Verdict,
};
pub use foreign::{ForeignChain, Obstacle};
pub use limit::{Limit, Traffic};
pub use link::{Isolation, Link, LinkChange, LinkKind, Links, Mac, NewKind, NewLink, Peer, VethPeer};
pub use linux::LinuxNetworks;
pub use namespace::{Namespace, Network, Networks, Place};
