//! Durable file work: nothing is in its place before its bytes are on the disk. Blocking; called on the blocking pool.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::StorageError;

/// A record's lease is renewed when it is older than this.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// Makes directories that are others' business at most as far as the group, whatever the umask lets pass.
pub(super) fn new_directory() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o750);
    builder
}

/// Opens for writing, and what a symbolic link leads to never. A file that is made then is the group's to read and nobody
/// else's, whatever the umask lets pass.
pub(super) fn writing() -> OpenOptions {
    let mut options = File::options();
    options.write(true).mode(0o640).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Opens a file for reading. The registry makes regular files only: where a symbolic link, a FIFO or the like lies at the
/// path, there is none. A link might lead to what was never pushed, and to open a FIFO waits for as long as nobody writes.
pub(super) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| if is_link(&error) { io::ErrorKind::NotFound.into() } else { error })?;
    let metadata = file.metadata()?;
    if is_ours(&metadata) { Ok((file, metadata)) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// What lies at the path itself, with the same exceptions as [`open`].
pub(super) fn look(path: &Path) -> io::Result<Metadata> {
    let metadata = fs::symlink_metadata(path)?;
    if is_ours(&metadata) { Ok(metadata) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn is_ours(metadata: &Metadata) -> bool {
    metadata.is_file() || metadata.is_dir()
}

/// Whether a path was not opened because it is a symbolic link.
pub(super) fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// Makes a directory and its parents; each new entry is on the disk when this returns.
pub(super) fn create_directory(path: &Path) -> Result<(), StorageError> {
    match new_directory().create(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().ok_or_else(|| StorageError::Create { path: path.to_owned(), source: error })?;
            create_directory(parent)?;
            match new_directory().create(path) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    Err(StorageError::Create { path: path.to_owned(), source })
                }
                _ => sync_directory(parent),
            }
        }
        Err(source) => Err(StorageError::Create { path: path.to_owned(), source }),
    }
}

/// Brings a directory's entries to the disk.
pub(super) fn sync_directory(path: &Path) -> Result<(), StorageError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| StorageError::Sync { path: path.to_owned(), source })
}

/// Writes a new file and brings its bytes to the disk. A failed attempt leaves nothing behind.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let file = writing().create_new(true).open(path);
    let mut file = file.map_err(|source| StorageError::Create { path: path.to_owned(), source })?;
    let written = file
        .write_all(bytes)
        .map_err(|source| StorageError::Write { path: path.to_owned(), source })
        .and_then(|()| file.sync_all().map_err(|source| StorageError::Sync { path: path.to_owned(), source }));
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// Moves a finished file to its place, over what is there, and brings the entry to the disk.
pub(super) fn put_in_place(from: &Path, to: &Path) -> Result<(), StorageError> {
    fs::rename(from, to).map_err(|source| StorageError::Rename { path: to.to_owned(), source })?;
    to.parent().map_or(Ok(()), sync_directory)
}

/// Removes a file and brings that to the disk; `false` when there was none.
pub(super) fn remove(path: &Path) -> Result<bool, StorageError> {
    match fs::remove_file(path) {
        Ok(()) => path.parent().map_or(Ok(true), |parent| sync_directory(parent).map(|()| true)),
        Err(error) if is_absent(&error) => Ok(false),
        Err(source) => Err(StorageError::Remove { path: path.to_owned(), source }),
    }
}

/// The size of a file in bytes; `None` when there is none.
pub(super) fn size_of(path: &Path) -> Result<Option<u64>, StorageError> {
    match look(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(StorageError::Read { path: path.to_owned(), source }),
    }
}

/// Whether the lease of a record runs for less than [`LEASE`]; `None` when there is no such record.
pub(super) fn is_fresh(path: &Path) -> Result<Option<bool>, StorageError> {
    match look(path).and_then(|metadata| metadata.modified()) {
        // A time to come is a clock that was set: renewed like one long past.
        Ok(time) => Ok(Some(time.elapsed().is_ok_and(|age| age < LEASE))),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(StorageError::Read { path: path.to_owned(), source }),
    }
}

/// Renews the lease of a record if it is not fresh; `false` when there is no such record. The caller is committing.
pub(super) fn renew(path: &Path) -> Result<bool, StorageError> {
    match is_fresh(path)? {
        Some(false) => {}
        fresh => return Ok(fresh.is_some()),
    }
    let only_modified = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    };
    match rustix::fs::utimensat(CWD, path, &only_modified, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from) {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(source) => Err(StorageError::Write { path: path.to_owned(), source }),
    }
}

/// Bytes that an ordinary user may still write to the file system of this path.
pub(super) fn free_bytes(path: &Path) -> Result<u64, StorageError> {
    match rustix::fs::statvfs(path) {
        Ok(found) => Ok(found.f_bavail.saturating_mul(found.f_frsize)),
        Err(error) => Err(StorageError::Read { path: path.to_owned(), source: error.into() }),
    }
}

/// The whole of a small file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    let whole = |(mut file, _): (File, Metadata)| {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map(|_| bytes)
    };
    match open(path).and_then(whole) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(StorageError::Read { path: path.to_owned(), source }),
    }
}

/// The entries of a directory whose names are UTF-8, with their kind; empty when there is no such directory.
pub(super) fn list(path: &Path) -> Result<Vec<(String, fs::FileType)>, StorageError> {
    let failed = |source| StorageError::List { path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, kind));
        }
    }
    Ok(found)
}

pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
