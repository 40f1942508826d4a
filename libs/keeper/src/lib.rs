//! What a keeper is told and what it leaves behind: the files of one directory per VM, shared by the keeper (the program
//! in `guest/keeper`) and by whoever starts it.
//!
//! | file | who writes it | what |
//! |---|---|---|
//! | `order.json` | who starts the keeper | [`Order`] |
//! | `lock` | keeper | locked while a keeper is at work |
//! | `keeper.json` | keeper | [`Keeper`]; again once it is at work |
//! | `process.json` | keeper | [`Process`]; on the disk before the process may do anything |
//! | `ended.json` | keeper | [`Ended`], once |
//! | `metrics.json` | keeper | [`Totals`] of all lines of metrics so far |
//! | `console.fifo`, `console.in` | the process, whoever types | output and input of the process |
//!
//! The console itself is a [`Console`] wherever the order says. Everything is written so that a reader and a power cut see
//! the old contents or the new, never a part.

mod console;
mod directory;
mod error;
mod fifo;
mod identity;
mod lock;
mod metrics;
mod order;

pub use console::{Console, LEAST_LIMIT, Moved, rotated};
pub use directory::{Directory, Ended, Exit, Keeper, Process};
pub use error::Error;
pub use fifo::{Owner, make_fifo, open_fifo};
pub use identity::{Identity, Life};
pub use lock::Lock;
pub use metrics::{Counter, Lines, Totals};
pub use order::{Limits, Order, User};
