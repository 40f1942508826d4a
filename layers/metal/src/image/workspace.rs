//! The cache directory while a build uses it: one build at a time, scratch space that goes away on every way out.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ImageError;

/// Holds the cache. Dropping it removes the scratch space; what a killed build left is removed by the next.
pub(super) struct Workspace {
    scratch: PathBuf,
    stop: Arc<AtomicBool>,
    /// The lock lives as long as this file is open, also when the process dies.
    _lock: File,
}

impl Workspace {
    pub(super) fn open(cache: &Path, stop: &Arc<AtomicBool>) -> Result<Self, ImageError> {
        std::fs::create_dir_all(cache).map_err(ImageError::file("create", cache))?;
        let cache = cache.canonicalize().map_err(ImageError::file("resolve", cache))?;
        let path = cache.join("lock");
        let lock = File::create(&path).map_err(ImageError::file("create", &path))?;
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(ImageError::CacheBusy { path });
        }
        let workspace = Self { scratch: cache.join("tmp"), stop: Arc::clone(stop), _lock: lock };
        workspace.clear()?;
        std::fs::create_dir(&workspace.scratch).map_err(ImageError::file("create", &workspace.scratch))?;
        // Roots under construction have set-user-id programs of their own.
        std::fs::set_permissions(&workspace.scratch, std::fs::Permissions::from_mode(0o700))
            .map_err(ImageError::file("set the mode of", &workspace.scratch))?;
        Ok(workspace)
    }

    /// A new scratch directory.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, ImageError> {
        let path = self.scratch.join(name);
        std::fs::create_dir_all(&path).map_err(ImageError::file("create", &path))?;
        Ok(path)
    }

    /// Fails when the caller asked to stop.
    pub(super) fn check_stop(&self) -> Result<(), ImageError> {
        if self.stop.load(Ordering::Relaxed) { Err(ImageError::Interrupted) } else { Ok(()) }
    }

    fn clear(&self) -> Result<(), ImageError> {
        match std::fs::remove_dir_all(&self.scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ImageError::file("remove", &self.scratch)(error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // Nobody is left to tell; the next build tries again and reports.
        let _ = self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_build_at_a_time_and_nothing_stays() {
        let cache = tempfile::tempdir().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let first = Workspace::open(cache.path(), &stop).unwrap();
        let scratch = first.directory("root").unwrap();
        assert!(matches!(Workspace::open(cache.path(), &stop), Err(ImageError::CacheBusy { .. })));
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(first.check_stop(), Err(ImageError::Interrupted)));
        drop(first);
        assert!(!scratch.exists());
        Workspace::open(cache.path(), &stop).unwrap();
    }
}
