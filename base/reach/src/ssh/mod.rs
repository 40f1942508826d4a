//! SSH as a client: one connection to a host, many commands on it.
//!
//! - [`Target`] says where, as whom, and which host keys count. Nothing is taken from an agent, from `~/.ssh` or from
//!   the environment.
//! - [`Connection`] is logged in. [`run`](Connection::run) is for a command with little output, [`spawn`](Connection::spawn)
//!   for one that is talked to, [`dial`](Connection::dial) and [`dial_socket`](Connection::dial_socket) for what the host
//!   can reach and we cannot.
//! - [`Connections`] keeps one connection per target.
//!
//! Whatever is started on a host is a [`Command`]: words, quoted in one place for the shell that sshd puts in between.
//!
//! A reader of [`Running::stdout`] or of a [`Stream`] that stops reading holds up, once some
//! 2 MiB wait for it, everything else on the same connection: the transport has one order for all of its channels. Bulk
//! that may stall belongs on a connection of its own ([`Connections::fresh`]).

mod command;
mod connection;
mod connections;
mod dialing;
mod errors;
mod handler;
mod host_key;
mod login;
mod pulse;
mod running;
mod stream;
mod target;

pub use command::{Command, CommandError, Exit, Output};
pub use connection::{Connection, KeepAlive};
pub use connections::Connections;
pub use errors::Error;
pub use host_key::{HostKey, InvalidHostKey};
pub use running::{Running, Stdin, Stdout};
pub use stream::Stream;
pub use target::{HostKeys, Login, Target};
