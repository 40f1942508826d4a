//! One process holds a data directory; a second one is told who.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cairn_core::ErrorKind;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made.
    #[error("cannot create the data directory {}", directory.display())]
    Create { directory: PathBuf, source: io::Error },
    /// Its lock file cannot be opened, locked or written.
    #[error("cannot use the lock file {}", path.display())]
    LockFile { path: PathBuf, source: io::Error },
    /// Another process has it.
    #[error("the data directory {} is held by {holder}", directory.display())]
    Held { directory: PathBuf, holder: String },
}

impl DataDirError {
    /// [`ErrorKind::Conflict`] when another process has it, [`ErrorKind::Failed`] otherwise.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Held { .. } => ErrorKind::Conflict,
            Self::Create { .. } | Self::LockFile { .. } => ErrorKind::Failed,
        }
    }
}

/// A data directory that is ours until this is dropped or the process ends, however it ends: the kernel lets go of
/// the lock with the last descriptor.
#[derive(Debug)]
pub struct DataDirLock {
    directory: PathBuf,
    file: File,
}

impl DataDirLock {
    /// Takes the directory, made with mode 0750 if it is missing, and writes into `<directory>/lock` who has it:
    /// this process and the address it listens on.
    pub fn acquire(directory: &Path, listen: &str) -> Result<Self, DataDirError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)
            .map_err(|source| DataDirError::Create { directory: directory.to_owned(), source })?;
        let path = directory.join("lock");
        let failed = |source| DataDirError::LockFile { path: path.clone(), source };
        // Never truncated on opening: until the lock is ours, the text belongs to the holder.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(failed)?;
                let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() }.to_owned();
                return Err(DataDirError::Held { directory: directory.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "process {}, listening on {listen}", std::process::id()).map_err(failed)?;
        Ok(Self { directory: directory.to_owned(), file })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that was just forked has the descriptor too until it executes its program, and the
        // lock would last as long. When this fails, closing ends the lock as far as it can.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_start_is_told_who_holds_it() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        let held = DataDirLock::acquire(&directory, "127.0.0.1:8080").unwrap();
        assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o750);
        let error = DataDirLock::acquire(&directory, "127.0.0.1:9090").unwrap_err();
        let holder = format!("process {}, listening on 127.0.0.1:8080", std::process::id());
        assert_eq!(error.to_string(), format!("the data directory {} is held by {holder}", directory.display()));
        assert_eq!(error.kind().exit_code(), 4);
        drop(held);
        DataDirLock::acquire(&directory, "[::]:1").unwrap();
        let text = std::fs::read_to_string(directory.join("lock")).unwrap();
        assert_eq!(text, format!("process {}, listening on [::]:1\n", std::process::id()));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = DataDirLock::acquire(Path::new("/proc/no/such"), "x").unwrap_err();
        assert_eq!(error.to_string(), "cannot create the data directory /proc/no/such");
    }
}
