//! Room for the records where a disk is full: without it not even a VM could be deleted, which would make room.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;

/// Bytes that are kept: the records of many VMs.
const KEPT: u64 = 8 << 20;
/// New disks leave so many bytes free, or are not made.
pub(crate) const LEFT_FREE: u64 = 32 << 20;

/// A file that takes room, and is given up when the database finds none.
#[derive(Debug, Clone)]
pub(crate) struct Reserve(Arc<Path>);

impl Reserve {
    /// At this path; nothing is written yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path.into())
    }

    /// Takes the room, where there is enough of it for others too.
    pub(crate) fn fill(&self) {
        let filled = || -> io::Result<()> {
            let directory = self.0.parent().unwrap_or(Path::new("/"));
            let free = host::space(directory).map_or(0, |space| space.available);
            if self.0.exists() || free < KEPT + LEFT_FREE {
                return Ok(());
            }
            let file = File::options().write(true).create_new(true).mode(0o600).open(&self.0)?;
            rustix::fs::fallocate(file.as_fd(), FallocateFlags::empty(), 0, KEPT)?;
            file.sync_all()
        };
        if let Err(error) = filled() {
            let _ = std::fs::remove_file(&self.0);
            tracing::warn!(path = %self.0.display(), error = &error as &dyn std::error::Error, "no room is kept for records");
        }
    }

    /// Gives the room up when an error says that there is none; whether there is some now.
    pub(crate) fn release_for(&self, error: &crate::store::Error) -> bool {
        let released = error.is_full() && std::fs::remove_file(&*self.0).is_ok();
        if released {
            tracing::error!(path = %self.0.display(), bytes = KEPT, "the disk is full; room that was kept for records is used");
        }
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_and_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reserve");
        let reserve = Reserve::new(path.clone());
        reserve.fill();
        reserve.fill();
        assert_eq!(path.metadata().unwrap().len(), KEPT);
        assert!(!reserve.release_for(&crate::store::doing("x")(sqlx::Error::PoolTimedOut)));
        assert!(path.exists());
    }
}
