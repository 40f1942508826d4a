//! A file of a keeper cannot be used.

use std::io;
use std::path::{Path, PathBuf};

/// A file of a keeper cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system says no.
    #[error("cannot {operation} {}", .path.display())]
    File {
        /// What was tried: `write`, `lock`, …
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} cannot be understood", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Something else has the name of a FIFO.
    #[error("{} is no FIFO", .path.display())]
    NoFifo {
        /// The file.
        path: PathBuf,
    },
    /// Another keeper is at work.
    #[error("another keeper works in {}", .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
}

impl Error {
    /// For `map_err`: names the operation and the path.
    pub(crate) fn at<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::File { operation, path, source: source.into() }
    }
}
