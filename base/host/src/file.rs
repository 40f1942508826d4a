//! Files that are either there in full or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file operation failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", .path.display())]
pub struct FileError {
    /// What was tried: `write`, `rename`, …
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: names the operation and the path.
    pub fn at<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self { operation, path, source: source.into() }
    }
}

/// Writes a file so that after a power cut either the old or the new contents are there. `mode` is set whatever the
/// umask. The directory has to exist.
pub fn write_atomic(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = directory.join(name);
    let written = write_new(&new, contents, mode)
        .and_then(|()| std::fs::rename(&new, path).map_err(FileError::at("rename", &new)));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&new);
        return Err(error);
    }
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(FileError::at("sync", directory))
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    // A file of the same name is left from a process that had our id and died; it may be someone's link.
    remove_if_present(path)?;
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path).map_err(FileError::at("create", path))?;
    file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(FileError::at("set the mode of", path))?;
    file.write_all(contents).map_err(FileError::at("write", path))?;
    file.sync_all().map_err(FileError::at("sync", path))
}

/// Removes a file; that it is not there is no error.
pub fn remove_if_present(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Writes everything that the file system around `path` holds back to its disk.
pub fn sync_file_system(path: &Path) -> Result<(), FileError> {
    let directory = File::open(path).map_err(FileError::at("open", path))?;
    rustix::fs::syncfs(&directory).map_err(FileError::at("sync the file system of", path))
}

/// How much room a file system has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// In all.
    pub total: u64,
    /// For users other than root.
    pub available: u64,
}

/// Room in the file system around `path`.
pub fn space(path: &Path) -> Result<Space, FileError> {
    let stat = rustix::fs::statvfs(path).map_err(FileError::at("look at the file system of", path))?;
    Ok(Space { total: stat.f_blocks * stat.f_frsize, available: stat.f_bavail * stat.f_frsize })
}

/// A directory whose files are in memory and never on a disk, and that this process may write to, if there is one.
pub fn memory_directory() -> Option<PathBuf> {
    /// `TMPFS_MAGIC` of linux/magic.h.
    const TMPFS: i64 = 0x0102_1994;
    let path = Path::new("/dev/shm");
    let about = rustix::fs::statfs(path).ok()?;
    let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    (about.f_type == TMPFS && rustix::fs::access(path, wanted).is_ok()).then(|| path.to_owned())
}
