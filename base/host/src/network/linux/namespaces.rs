//! Named namespaces: files in a directory on which the kernel's handle is mounted, as `ip netns` makes them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::fstatfs;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount};
use rustix::thread::UnshareFlags;

use super::super::error::{Cause, NetworkError};
use super::super::names;
use super::super::namespace::{Namespace, Network, Networks, Place};
use super::numbers::ESRCH;
use super::{LinuxNetwork, on_thread};
use crate::file::{FileError, remove_if_present};

/// Where `ip netns` looks.
const DIRECTORY: &str = "/run/netns";
/// The handle of the calling thread's namespace.
const OWN: &str = "/proc/thread-self/ns/net";
/// What fstatfs(2) says of a namespace's handle (`NSFS_MAGIC`).
const NAMESPACE_FILE: u64 = 0x6e73_6673;

/// The namespaces of this machine.
#[derive(Debug, Clone)]
pub struct LinuxNetworks {
    directory: PathBuf,
    /// Whether mounts below the directory reach other mount namespaces and are undone there too.
    shared: bool,
}

impl Default for LinuxNetworks {
    fn default() -> Self {
        Self::new()
    }
}

impl LinuxNetworks {
    /// The names that `ip netns` knows, in `/run/netns`.
    pub fn new() -> Self {
        Self { directory: DIRECTORY.into(), shared: true }
    }

    /// Names in a directory of the caller's. It is made when the first is.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), shared: false }
    }

    /// The open handle of a namespace; nothing for the caller's own.
    pub(super) fn handle(&self, place: &Place) -> Result<Option<File>, Cause> {
        match place {
            Place::Host => Ok(None),
            Place::Named(name) => {
                names::namespace(name)?;
                open_handle(&self.directory.join(name)).map(Some)
            }
            Place::Process(pid) => open_handle(&process_handle(*pid)).map(Some),
        }
    }

    /// The same, also for the caller's own.
    pub(super) fn any_handle(&self, place: &Place) -> Result<File, Cause> {
        self.handle(place)?.map_or_else(|| open_handle(Path::new(OWN)), Ok)
    }

    fn create(&self, name: &str) -> Result<(), Cause> {
        names::namespace(name)?;
        self.prepare().map_err(Cause::File)?;
        let path = self.directory.join(name);
        if !self.claim(&path)? {
            return Err(Cause::AlreadyThere);
        }
        let made = on_thread(|| {
            enter_new_namespace()?;
            rustix::mount::mount_bind(OWN, &path)?;
            Ok(())
        });
        made.map_err(|error| {
            let _ = std::fs::remove_file(&path);
            Cause::from(error)
        })
    }

    /// Makes the file of a name, or takes over one on which no namespace is mounted: its maker was killed.
    fn claim(&self, path: &Path) -> Result<bool, Cause> {
        let mut options = OpenOptions::new();
        match options.read(true).write(true).create_new(true).mode(0o444).open(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match open_handle(path) {
                Ok(_) => Ok(false),
                Err(Cause::NotThere) => Ok(true),
                Err(cause) => Err(cause),
            },
            Err(error) => Err(Cause::File(FileError::at("create", path)(error))),
        }
    }

    fn prepare(&self) -> Result<(), FileError> {
        let directory = &self.directory;
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755).create(directory).map_err(FileError::at("create", directory))?;
        if !self.shared {
            return Ok(());
        }
        // What `ip netns add` does, too: otherwise a name that one program removes lives on where another looks.
        let share = || mount_change(directory, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
        match share() {
            Err(Errno::INVAL) => mount_bind_recursive(directory, directory).and_then(|()| share()),
            other => other,
        }
        .map_err(FileError::at("share mounts below", directory))
    }

    fn remove(&self, name: &str) -> Result<(), Cause> {
        names::namespace(name)?;
        let path = self.directory.join(name);
        match unmount(&path, UnmountFlags::DETACH) {
            // Not mounted: only the file is left of it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(Errno::NOENT) => return Err(Cause::NotThere),
            Err(errno) => return Err(Cause::File(FileError::at("unmount", &path)(errno))),
        }
        remove_if_present(&path).map_err(Cause::File)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Cause> {
        names::namespace(from)?;
        names::namespace(to)?;
        self.bind(&self.directory.join(from), to)?;
        self.remove(from)
    }

    fn name(&self, place: &Place, name: &str) -> Result<(), Cause> {
        names::namespace(name)?;
        let source = match place {
            Place::Host => PathBuf::from(OWN),
            Place::Named(other) => {
                names::namespace(other)?;
                self.directory.join(other)
            }
            Place::Process(pid) => process_handle(*pid),
        };
        open_handle(&source)?;
        self.prepare().map_err(Cause::File)?;
        self.bind(&source, name)
    }

    /// Gives the namespace whose handle is at `source` the name `to`.
    fn bind(&self, source: &Path, to: &str) -> Result<(), Cause> {
        let target = self.directory.join(to);
        open_handle(source)?;
        if !self.claim(&target)? {
            return Err(Cause::AlreadyThere);
        }
        rustix::mount::mount_bind(source, &target).map_err(|errno| {
            let _ = std::fs::remove_file(&target);
            Cause::File(FileError::at("mount the namespace on", &target)(errno))
        })
    }

    fn list(&self) -> Result<Vec<Namespace>, FileError> {
        let failed = |error| FileError::at("list", &self.directory)(error);
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let handle = open_handle(&entry.path()).ok();
            let inode = handle.and_then(|handle| handle.metadata().ok()).map(|metadata| metadata.ino());
            found.push(Namespace { name, inode });
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }
}

/// Where the handle of a process's namespace is.
fn process_handle(pid: u32) -> PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

/// Opens the handle of a namespace. A file that is none is as good as not there.
fn open_handle(path: &Path) -> Result<File, Cause> {
    let file = match File::open(path) {
        Ok(file) => file,
        // A process that is just ending has no namespace any more.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) => {
            return Err(Cause::NotThere);
        }
        Err(error) => return Err(Cause::File(FileError::at("open", path)(error))),
    };
    let kind = fstatfs(&file).map_err(|errno| Cause::File(FileError::at("look at", path)(errno)))?.f_type;
    if u64::try_from(kind) == Ok(NAMESPACE_FILE) { Ok(file) } else { Err(Cause::NotThere) }
}

/// Puts the calling thread into a network namespace of its own.
#[allow(unsafe_code)]
fn enter_new_namespace() -> io::Result<()> {
    // SAFETY: unsafe only for CLONE_FILES, after which this thread would not see the others' descriptors. The network
    // namespace alone is left, and the table of descriptors stays shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// For `map_err`: names a step with a whole namespace.
fn of(operation: &str, place: &Place) -> impl FnOnce(Cause) -> NetworkError + use<> {
    NetworkError::at(operation, &place.to_string(), &Place::Host)
}

impl Networks for LinuxNetworks {
    fn create_namespace(&self, name: &str) -> Result<(), NetworkError> {
        self.create(name).map_err(of("make", &Place::named(name)))
    }

    fn remove_namespace(&self, name: &str) -> Result<(), NetworkError> {
        self.remove(name).map_err(of("remove", &Place::named(name)))
    }

    fn rename_namespace(&self, from: &str, to: &str) -> Result<(), NetworkError> {
        self.rename(from, to).map_err(of(&format!("give the name {to} to"), &Place::named(from)))
    }

    fn name_namespace(&self, place: &Place, name: &str) -> Result<(), NetworkError> {
        self.name(place, name).map_err(of(&format!("give the name {name} to"), place))
    }

    fn namespaces(&self) -> Result<Vec<Namespace>, NetworkError> {
        self.list().map_err(Cause::File).map_err(NetworkError::at("list", "the namespaces", &Place::Host))
    }

    fn namespace_path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn open(&self, place: &Place) -> Result<Box<dyn Network>, NetworkError> {
        let network = LinuxNetwork::open(self, place).map_err(of("open", place))?;
        Ok(Box::new(network))
    }
}
