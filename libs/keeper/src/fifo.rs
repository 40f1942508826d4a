//! FIFOs that are made once and opened by every keeper anew.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, mkfifoat};
use rustix::io::Errno;

use crate::Error;

/// Whom a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Makes a FIFO that its owner alone reads and writes, unless it is there.
pub fn make_fifo(path: &Path, owner: Owner) -> Result<(), Error> {
    match mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Error::at("make the FIFO", path)(errno)),
    }
    let found = std::fs::symlink_metadata(path).map_err(Error::at("look at", path))?;
    if !found.file_type().is_fifo() {
        return Err(Error::NoFifo { path: path.to_owned() });
    }
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(Error::at("change the owner of", path))
}

/// Opens a FIFO for reading and writing, so that it has both ends whoever else is there, and so that this never waits.
/// `blocking` says whether reads and writes do.
pub fn open_fifo(path: &Path, blocking: bool) -> Result<File, Error> {
    let flags = OFlags::NOFOLLOW | if blocking { OFlags::empty() } else { OFlags::NONBLOCK };
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).custom_flags(flags.bits() as i32);
    let file = options.open(path).map_err(Error::at("open", path))?;
    let kind = file.metadata().map_err(Error::at("look at", path))?.file_type();
    if kind.is_fifo() { Ok(file) } else { Err(Error::NoFifo { path: path.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_fifo_is_made_once_and_nothing_else_is_taken_for_one() {
        let place = tempfile::tempdir().unwrap();
        let own = place.path().metadata().unwrap();
        let owner = Owner { uid: own.uid(), gid: own.gid() };
        let path = place.path().join("fifo");
        make_fifo(&path, owner).unwrap();
        make_fifo(&path, owner).unwrap();
        let (mut one, mut other) = (open_fifo(&path, true).unwrap(), open_fifo(&path, false).unwrap());
        one.write_all(b"x").unwrap();
        let mut bytes = [0; 4];
        assert_eq!(other.read(&mut bytes).unwrap(), 1);
        assert_eq!(other.read(&mut bytes).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

        let link = place.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(make_fifo(&link, owner), Err(Error::NoFifo { .. })));
        assert!(open_fifo(&link, true).is_err());
        let plain = place.path().join("plain");
        std::fs::write(&plain, b"").unwrap();
        assert!(matches!(open_fifo(&plain, true), Err(Error::NoFifo { .. })));
    }
}
