//! The words every layer shares: typed ids, time through a [`Clock`], what a state machine decides
//! ([`Outcome`]) and how bad news is sorted ([`ErrorKind`]). No I/O and no async runtime.
//!
//! The package is called `cairn-core` because a crate named `core` would hide Rust's own.

mod chain;
mod clock;
mod error_kind;
mod id;
mod outcome;

pub use chain::chain;
pub use clock::{Clock, FixedClock, SystemClock};
pub use error_kind::ErrorKind;
pub use id::InvalidId;
pub use outcome::Outcome;

#[doc(hidden)]
pub mod private {
    pub use serde;
    pub use uuid;
}
