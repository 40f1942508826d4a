//! Being told when a file grows or is replaced (inotify(7)).

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::FileError;

/// Tells when something happens to a file: it grows, another one takes its name, it goes. Nothing here waits.
#[derive(Debug)]
pub struct FileWatch {
    descriptor: OwnedFd,
    file: PathBuf,
}

impl FileWatch {
    /// Watches a file, which need not be there yet; its directory has to.
    ///
    /// # Errors
    /// There is no such directory, or the limits `fs.inotify.max_user_instances` and `max_user_watches` are reached.
    pub fn new(file: &Path) -> Result<Self, FileError> {
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let descriptor =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(FileError::at("watch", file))?;
        // Of the directory only what makes names, for others in it may be written to all the time.
        inotify::add_watch(&descriptor, directory, WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)
            .map_err(FileError::at("watch", directory))?;
        let watch = Self { descriptor, file: file.to_owned() };
        watch.renew()?;
        Ok(watch)
    }

    /// Watches the file that has the name now, after another one took it. That it loses its name is an `ATTRIB`: whoever
    /// has it open does not see it deleted.
    ///
    /// # Errors
    /// The limits of inotify are reached. That there is no file is no error.
    pub fn renew(&self) -> Result<(), FileError> {
        let flags = WatchFlags::MODIFY | WatchFlags::MOVE_SELF | WatchFlags::ATTRIB;
        match inotify::add_watch(&self.descriptor, &self.file, flags) {
            Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(FileError::at("watch", &self.file)(error)),
        }
    }

    /// What an event loop waits for and reads: it becomes readable when something has happened, never blocks, and has to be
    /// read until there is nothing left. What is read only says that something happened.
    ///
    /// # Errors
    /// The process has too many descriptors.
    pub fn reader(&self) -> Result<File, FileError> {
        let copy = self.descriptor.try_clone().map_err(FileError::at("watch", &self.file))?;
        Ok(File::from(copy))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn is_told(watch: &FileWatch) -> bool {
        let mut reader = watch.reader().unwrap();
        let mut buffer = [0; 4096];
        let mut told = false;
        while reader.read(&mut buffer).is_ok() {
            told = true;
        }
        told
    }

    #[test]
    fn a_file_is_followed_over_its_replacement() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let watch = FileWatch::new(&path).unwrap();
        assert!(!is_told(&watch));
        let mut file = std::fs::File::create(&path).unwrap();
        assert!(is_told(&watch), "created");
        watch.renew().unwrap();
        file.write_all(b"x").unwrap();
        assert!(is_told(&watch), "grown");
        std::fs::rename(&path, directory.path().join("console.log.1")).unwrap();
        assert!(is_told(&watch), "moved away");
        let mut file = std::fs::File::create(&path).unwrap();
        assert!(is_told(&watch), "another one");
        watch.renew().unwrap();
        file.write_all(b"y").unwrap();
        assert!(is_told(&watch), "grown again");
        std::fs::write(directory.path().join("other"), b"z").unwrap();
        is_told(&watch);
        std::fs::write(directory.path().join("other"), b"zz").unwrap();
        assert!(!is_told(&watch), "others do not wake us when they grow");
    }
}
