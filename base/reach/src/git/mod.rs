//! Repositories of others: a mirror without the contents of files, and trees of single commits beside it.
//!
//! All of it is the program `git`, with an empty environment and none of the user's or the system's settings. What a
//! mirror directory holds:
//!
//! ```text
//! <directory>/<name>/     one for every URL and tenant, 0700
//!   url                   for whoever looks
//!   lock                  who works on it; kept by the git processes too, so that nobody begins while one is left
//!   known_hosts           host keys taken on first use
//!   git/                  the bare repository: commits and trees; contents only of what was checked out
//!   trees/<id>  <id>.lock a tree, and the lock of whoever uses it: without an owner it goes away
//! ```

mod access;
mod address;
mod error;
mod history;
mod mirror;
mod program;
mod reference;
mod repair;
mod worktree;

pub use access::{Credentials, KnownHosts};
pub use address::Protocol;
pub use error::Error;
pub use history::LogLine;
pub use mirror::{Mirror, Repository};
pub use reference::Commit;
pub use worktree::Worktree;
