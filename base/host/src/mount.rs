//! Mounting and unmounting.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::linux::Linux;

/// How often a mount that is in use is tried again.
const BUSY_ATTEMPTS: u32 = 50;
/// Pause between two attempts: 100 ms.
const BUSY_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A file system that is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Block device, or a word for file systems without one.
    pub source: PathBuf,
    /// Directory; has to exist.
    pub target: PathBuf,
    /// As in `/proc/filesystems`, for example `ext4`.
    pub filesystem: String,
    /// What is not allowed on it.
    pub options: MountOptions,
    /// Options of the file system itself, comma-separated.
    pub data: String,
}

/// What is not allowed on a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Nothing can be written.
    pub read_only: bool,
    /// Set-user-id bits have no effect.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
}

impl MountOptions {
    /// For data that comes from elsewhere: `ro,nosuid,nodev,noexec`.
    pub const FOREIGN: Self = Self { read_only: true, nosuid: true, nodev: true, noexec: true };

    fn words(self) -> String {
        let all = [("ro", self.read_only), ("nosuid", self.nosuid), ("nodev", self.nodev), ("noexec", self.noexec)];
        let words: Vec<&str> = all.iter().filter(|(_, set)| *set).map(|(word, _)| *word).collect();
        if words.is_empty() { "rw".to_owned() } else { words.join(",") }
    }

    fn flags(self) -> MountFlags {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, self.read_only);
        flags.set(MountFlags::NOSUID, self.nosuid);
        flags.set(MountFlags::NODEV, self.nodev);
        flags.set(MountFlags::NOEXEC, self.noexec);
        flags
    }
}

impl Mount {
    /// A mount without restrictions and options.
    pub fn new(source: impl Into<PathBuf>, target: impl Into<PathBuf>, filesystem: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
            filesystem: filesystem.into(),
            options: MountOptions::default(),
            data: String::new(),
        }
    }

    /// The same with restrictions.
    pub fn options(mut self, options: MountOptions) -> Self {
        self.options = options;
        self
    }

    /// On one line, for recordings: `mount ext4 /dev/sda2 /mnt/new-root rw`.
    pub(crate) fn line(&self) -> String {
        let (source, target) = (self.source.display(), self.target.display());
        let comma = if self.data.is_empty() { "" } else { "," };
        format!("mount {} {source} {target} {}{comma}{}", self.filesystem, self.options.words(), self.data)
    }
}

/// A mount that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Block device, or a word for file systems without one.
    pub source: PathBuf,
    /// Directory.
    pub target: PathBuf,
    /// For example `ext4`.
    pub filesystem: String,
}

/// A mount was not made or undone.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel refused the mount.
    #[error("cannot mount {} ({filesystem}) on {}", .source_path.display(), .target.display())]
    Mount {
        /// Block device or directory.
        source_path: PathBuf,
        /// Directory.
        target: PathBuf,
        /// For example `ext4`, or `bind`.
        filesystem: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused to unmount.
    #[error("cannot unmount {}", .target.display())]
    Unmount {
        /// Directory.
        target: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The list of mounts cannot be read.
    #[error("cannot read /proc/self/mountinfo")]
    List(#[source] io::Error),
}

/// Mounts and unmounts.
pub trait Mounts: Send + Sync {
    /// Mounts a file system.
    fn mount(&self, mount: &Mount) -> Result<(), MountError>;

    /// Shows a directory and everything mounted below it in a second place. Unmounting there does not come back here.
    fn bind(&self, source: &Path, target: &Path) -> Result<(), MountError>;

    /// Unmounts. What is in use is waited for a few seconds: a process that is just being started, or a daemon that
    /// looks at new file systems, can hold it for a moment.
    fn unmount(&self, target: &Path) -> Result<(), MountError>;

    /// Everything that is mounted, in the order it was.
    fn mounts(&self) -> Result<Vec<Mounted>, MountError>;
}

/// Unmounts `directory` and everything below it, the latest first, and says how many there were. The first failure
/// is returned after everything was tried.
pub fn unmount_below(mounts: &dyn Mounts, directory: &Path) -> Result<usize, MountError> {
    let targets: Vec<PathBuf> = mounts
        .mounts()?
        .into_iter()
        .map(|mounted| mounted.target)
        .filter(|target| target.starts_with(directory))
        .collect();
    let mut failure = None;
    for target in targets.iter().rev() {
        if let Err(error) = mounts.unmount(target) {
            failure.get_or_insert(error);
        }
    }
    failure.map_or(Ok(targets.len()), Err)
}

impl Mounts for Linux {
    fn mount(&self, mount: &Mount) -> Result<(), MountError> {
        let failed = |source| MountError::Mount {
            source_path: mount.source.clone(),
            target: mount.target.clone(),
            filesystem: mount.filesystem.clone(),
            source,
        };
        let data = CString::new(mount.data.as_str()).map_err(|error| failed(error.into()))?;
        let flags = mount.options.flags();
        rustix::mount::mount(&mount.source, &mount.target, mount.filesystem.as_str(), flags, data.as_c_str())
            .map_err(|errno| failed(errno.into()))
    }

    fn bind(&self, source: &Path, target: &Path) -> Result<(), MountError> {
        let failed = |errno: Errno| MountError::Mount {
            source_path: source.to_owned(),
            target: target.to_owned(),
            filesystem: "bind".to_owned(),
            source: errno.into(),
        };
        rustix::mount::mount_bind_recursive(source, target).map_err(failed)?;
        // Without this, unmounting the copy of /dev/pts would take the real one with it.
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(target, private).map_err(failed)
    }

    fn unmount(&self, target: &Path) -> Result<(), MountError> {
        let mut left = BUSY_ATTEMPTS;
        loop {
            match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
                Ok(()) => return Ok(()),
                Err(Errno::BUSY) if left > 0 => {
                    left -= 1;
                    // The kernel does not say when a mount is let go.
                    let _ = rustix::event::poll(&mut [], Some(&BUSY_PAUSE));
                }
                Err(errno) => {
                    return Err(MountError::Unmount { target: target.to_owned(), source: errno.into() });
                }
            }
        }
    }

    fn mounts(&self) -> Result<Vec<Mounted>, MountError> {
        let text = std::fs::read("/proc/self/mountinfo").map_err(MountError::List)?;
        Ok(text.split(|byte| *byte == b'\n').filter_map(mounted).collect())
    }
}

/// One line of mountinfo (proc_pid_mountinfo(5)): fields, optional fields, `-`, type, source, options.
fn mounted(line: &[u8]) -> Option<Mounted> {
    let mut words = line.split(|byte| *byte == b' ');
    let target = words.nth(4)?;
    let mut words = words.skip_while(|word| *word != b"-").skip(1);
    let filesystem = String::from_utf8_lossy(words.next()?).into_owned();
    Some(Mounted { source: unescaped(words.next()?), target: unescaped(target), filesystem })
}

/// Space, tab, newline and backslash are written as `\040` and so on.
pub(crate) fn unescaped(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_and_without_optional_fields() {
        let plain = b"36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime - ext3 /dev/root rw,errors=continue";
        let expected = Mounted { source: "/dev/root".into(), target: "/mnt/a b".into(), filesystem: "ext3".into() };
        assert_eq!(mounted(plain), Some(expected.clone()));
        let shared = b"36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 shared:2 - ext3 /dev/root rw";
        assert_eq!(mounted(shared), Some(expected));
        assert_eq!(mounted(b""), None);
    }

    #[test]
    fn a_mount_prints_its_restrictions() {
        let mount = Mount::new("/dev/sr1", "/mnt/task", "iso9660").options(MountOptions::FOREIGN);
        assert_eq!(mount.line(), "mount iso9660 /dev/sr1 /mnt/task ro,nosuid,nodev,noexec");
    }
}
