//! The console: a file that grows to a limit, and the one before it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

use crate::Error;

/// Least limit of a console, in bytes; a smaller one counts as this.
pub const LEAST_LIMIT: u64 = 4096;
/// Bytes that are moved at once.
const PORTION: usize = 64 << 10;

/// A console file. On disk there are never more bytes than twice its limit.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    limit: u64,
    file: File,
    /// Bytes that no disk would take since the last that one did.
    lost: u64,
}

/// What was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes, or they were given up because the disk did not take them.
    Bytes(usize),
    /// There was nothing.
    Nothing,
}

/// Name of the file before the current one.
pub fn rotated(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    name.into()
}

impl Console {
    /// Opens or makes the file. What is in it stays.
    pub fn open(path: &Path, limit: u64) -> Result<Self, Error> {
        Ok(Self { path: path.to_owned(), limit: limit.max(LEAST_LIMIT), file: open(path)?, lost: 0 })
    }

    /// Moves what is in a pipe, which must not block, to the file. The kernel takes bytes out of the pipe only as it
    /// puts them into the file (splice(2)): whoever is killed here loses none. When the disk takes no more, bytes are
    /// dropped, since a guest must not stand still for that; a line in the file says how many.
    pub fn take(&mut self, pipe: &File) -> Result<Moved, Error> {
        let moved = self.room().and_then(|room| {
            self.tell_of_loss()?;
            Ok(match splice(pipe, None, &self.file, None, room, SpliceFlags::NONBLOCK) {
                // This file system cannot; then a kill may lose what was just read.
                Err(Errno::INVAL) => self.copy(pipe, room)?,
                result => result?,
            })
        });
        match moved {
            Ok(0) => Ok(Moved::Nothing),
            Ok(count) => Ok(Moved::Bytes(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Moved::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Moved::Bytes(0)),
            Err(_) => self.drop_from(pipe),
        }
    }

    /// Bytes that fit; makes room when there is none.
    fn room(&mut self) -> io::Result<usize> {
        // Somebody may have cut the file.
        let mut length = self.file.seek(SeekFrom::End(0))?;
        if length >= self.limit {
            std::fs::rename(&self.path, rotated(&self.path))?;
            self.file = open(&self.path).map_err(|error| match error {
                Error::File { source, .. } => source,
                _ => io::ErrorKind::Other.into(),
            })?;
            length = 0;
        }
        Ok(PORTION.min(usize::try_from(self.limit - length).unwrap_or(PORTION)))
    }

    fn tell_of_loss(&mut self) -> io::Result<()> {
        if self.lost > 0 {
            self.file.write_all(format!("\n[keeper: {} bytes were lost here]\n", self.lost).as_bytes())?;
            self.lost = 0;
        }
        Ok(())
    }

    fn copy(&mut self, mut pipe: &File, room: usize) -> io::Result<usize> {
        let mut bytes = vec![0; room];
        let count = pipe.read(&mut bytes)?;
        if let Err(error) = self.file.write_all(&bytes[..count]) {
            self.lost += count as u64;
            return Err(error);
        }
        Ok(count)
    }

    fn drop_from(&mut self, mut pipe: &File) -> Result<Moved, Error> {
        let mut bytes = vec![0; PORTION];
        match pipe.read(&mut bytes) {
            Ok(0) => Ok(Moved::Nothing),
            Ok(count) => {
                self.lost += count as u64;
                Ok(Moved::Bytes(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Moved::Nothing),
            Err(error) => Err(Error::at("read what is for", &self.path)(error)),
        }
    }
}

/// Not for appending: splice(2) does not like that. Only the keeper with the lock writes.
fn open(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o640).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let file = options.open(path).map_err(Error::at("open", path))?;
    if let Some(directory) = path.parent().and_then(|parent| std::fs::metadata(parent).ok()) {
        // Only root can give files away, and nobody else needs to.
        let _ = std::os::unix::fs::fchown(&file, Some(directory.uid()), Some(directory.gid()));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn pipe() -> (File, File) {
        let (read, write): (OwnedFd, OwnedFd) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        (read.into(), write.into())
    }

    fn take_all(console: &mut Console, pipe: &File) {
        while console.take(pipe).unwrap() != Moved::Nothing {}
    }

    #[test]
    fn what_is_written_arrives_in_order_and_the_file_is_bounded() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("console");
        let (read, mut write) = pipe();
        let mut console = Console::open(&path, LEAST_LIMIT).unwrap();
        let mut all = Vec::new();
        for number in 0..2000 {
            let line = format!("line {number}\n");
            write.write_all(line.as_bytes()).unwrap();
            all.extend_from_slice(line.as_bytes());
            take_all(&mut console, &read);
        }
        let (before, now) = (std::fs::read(rotated(&path)).unwrap(), std::fs::read(&path).unwrap());
        assert_eq!(before.len() as u64, LEAST_LIMIT);
        assert!(now.len() as u64 <= LEAST_LIMIT);
        let kept = [before, now].concat();
        assert!(all.ends_with(&kept));
    }

    #[test]
    fn another_keeper_goes_on_where_the_one_before_ended() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("console");
        let (read, mut write) = pipe();
        for text in ["one ", "two ", "three"] {
            write.write_all(text.as_bytes()).unwrap();
            take_all(&mut Console::open(&path, 1 << 20).unwrap(), &read);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"one two three");
    }

    #[test]
    fn a_full_disk_holds_nobody_up_and_is_told_of() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("console");
        let (read, mut write) = pipe();
        let mut console = Console::open(&path, 1 << 20).unwrap();
        console.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        write.write_all(b"lost").unwrap();
        take_all(&mut console, &read);
        assert_eq!(console.lost, 4);
        console.file = open(&path).unwrap();
        write.write_all(b"kept").unwrap();
        take_all(&mut console, &read);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "\n[keeper: 4 bytes were lost here]\nkept");
    }
}
