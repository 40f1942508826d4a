//! A client for the Redfish service of a server's management controller (BMC): find the one computer system it
//! manages, put an image into its virtual CD drive, boot from it once, switch power, take everything back.
//!
//! It owns the HTTP conversation (authentication, retries, links, vendor differences) and never decides what to do
//! next: the caller calls [`Bmc`]'s operations in its order. Nothing is printed and no environment is read.
//!
//! Every operation runs under a [`Phase`]: a name for metrics and a deadline. All operations can be cancelled by
//! dropping their future: waiting is done with tokio timers only, nothing runs on in the background, and because
//! each operation reads the BMC's state before it changes something, calling it again is the way to go on.
//!
//! Look next at `discovery.rs` (how a BMC is read), `client.rs` (one request), `media.rs`, `boot.rs`, `power.rs`.

mod auth;
mod boot;
mod client;
mod discovery;
mod error;
mod fault;
mod media;
mod model;
mod options;
mod power;
mod redact;
mod retry;
mod vendor;

pub use boot::{BootMode, BootOverride, BootWarning};
pub use discovery::{Bmc, Inventory, Slot};
pub use error::Error;
pub use media::{InsertOutcome, MediaOptions};
pub use options::{AuthMode, Code, Credentials, Observer, Options, Phase, Retry, op};
pub use power::{PowerState, ResetIntent, ResetOutcome};
pub use vendor::Vendor;
