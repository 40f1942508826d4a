//! What the commands of every layer share: what they print ([`Output`]), the daemon that they talk to ([`Endpoint`],
//! [`Daemon`]), and what they read from files ([`read_text`], [`read_secret`]). It knows no command.

mod daemon;
mod input;
mod output;

pub use daemon::{CONTROLLER_UNREACHABLE, Daemon, Endpoint};
pub use input::{read_secret, read_text, segment, usage};
pub use output::{Output, for_a_terminal, size};
