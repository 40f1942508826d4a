//! One keeper per directory.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use crate::Error;

/// The right to work in a directory. It ends with this value or its process.
///
/// A lock of the process (fcntl(2), `F_SETLK`), not of the open file (flock(2)): a child that was forked would keep the
/// latter, and the next keeper would be refused although the one before is dead.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a directory, without waiting. At most one value per directory and process.
    pub(crate) fn acquire(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("lock");
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(Error::at("open", &path))?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::ACCESS | Errno::AGAIN) => return Err(Error::Locked { path: directory.to_owned() }),
            Err(errno) => return Err(Error::at("lock", &path)(errno)),
        }
        // The directory may have been taken away in between, and another one may have its name.
        let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let held = file.metadata().map(inode).map_err(Error::at("look at", &path))?;
        let named = std::fs::metadata(&path).map(inode).map_err(Error::at("look at", &path))?;
        if held == named { Ok(Self { _file: file }) } else { Err(Error::Locked { path: directory.to_owned() }) }
    }
}
