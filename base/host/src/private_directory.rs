//! Directories for what must not be seen, for as long as a value lives.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::file::FileError;
use crate::lock::LockFile;

/// Names that are tried before it is given up.
const TRIES: u32 = 16;

/// A directory that nobody else can look into (mode 0700). It goes with this value; what a killed process left goes with
/// the next [`PrivateDirectory::sweep`].
#[derive(Debug)]
pub struct PrivateDirectory {
    path: PathBuf,
    lock: Option<LockFile>,
}

impl PrivateDirectory {
    /// Makes one in `place`; its name begins with `prefix`.
    ///
    /// # Errors
    /// It cannot be made there.
    pub fn new(place: &Path, prefix: &str) -> Result<Self, FileError> {
        // A sweep can come between the directory and its lock; then another is made.
        for number in 0..TRIES {
            let path = place.join(format!("{prefix}{:x}-{:x}-{number}", std::process::id(), next()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(FileError::at("create", &path))?,
            }
            if let Ok(lock) = LockFile::acquire(&path.join("lock"), &format!("process {}", std::process::id())) {
                return Ok(Self { path, lock: Some(lock) });
            }
            let _ = fs::remove_dir_all(&path);
        }
        Err(FileError {
            operation: "make a directory in",
            path: place.into(),
            source: io::ErrorKind::ResourceBusy.into(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes those of this user in `place` whose process is gone.
    pub fn sweep(place: &Path, prefix: &str) {
        // A process's own directory is its user's.
        let Ok(owner) = fs::metadata("/proc/self").map(|about| about.uid()) else { return };
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let is_ours = entry.file_name().to_string_lossy().starts_with(prefix)
                && entry.metadata().is_ok_and(|about| about.is_dir() && about.uid() == owner);
            // Whoever uses it holds its lock.
            if is_ours && let Ok(_lock) = LockFile::acquire(&entry.path().join("lock"), "sweep") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// A number that this process has not had before.
fn next() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        drop(self.lock.take());
        // When this fails, the next sweep tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_in_use_stays_and_what_was_left_goes() {
        let place = tempfile::tempdir().unwrap();
        let (used, mut left) =
            (PrivateDirectory::new(place.path(), "a-").unwrap(), PrivateDirectory::new(place.path(), "a-").unwrap());
        assert_eq!(used.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let lost = left.path().to_owned();
        // As after a kill.
        drop(left.lock.take());
        fs::create_dir(place.path().join("b-1")).unwrap();
        PrivateDirectory::sweep(place.path(), "a-");
        assert!(!lost.exists() && used.path().exists() && place.path().join("b-1").exists());
        let path = used.path().to_owned();
        drop(used);
        assert!(!path.exists());
    }
}
