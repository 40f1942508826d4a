//! Files of jails: how they get there without anybody else's file being given away, and how they go.
//!
//! A jail's root belongs to the VM's user, who may be an attacker: nothing here follows a link that lies in one, and
//! nothing is written into a jail once its process runs.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use host::{FileError, MountError, Mounts};

use crate::model::VmId;
use crate::ports::{StepError, Stray};

/// Offset and text by which a bzImage is known (kernel documentation, arch/x86/boot).
const BZIMAGE: (u64, &[u8; 4]) = (0x202, b"HdrS");

/// Where the hypervisors keep what they keep on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Directory of all jails (`/srv/jailer`).
    pub jails: PathBuf,
    /// Directory of the consoles; a VM's is `<id>.log`.
    pub consoles: PathBuf,
    /// Bytes of a console file at most.
    pub console_limit: u64,
}

impl Places {
    /// File of a VM's console.
    pub fn console(&self, id: &VmId) -> PathBuf {
        self.consoles.join(format!("{id}.log"))
    }
}

/// A jail's files could not be put in place or taken away.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// A file operation.
    #[error(transparent)]
    File(#[from] FileError),
    /// A mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A disk that the VM may write has other names, so it would be somebody else's as well.
    #[error("{} has {links} names and cannot become the disk of one VM", path.display())]
    Shared {
        /// The disk.
        path: PathBuf,
        /// Names of the file.
        links: u64,
    },
    /// A disk is no regular file.
    #[error("{} is no regular file", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// A kernel is none.
    #[error("{} is no kernel: neither an ELF file nor a bzImage", path.display())]
    NoKernel {
        /// The file.
        path: PathBuf,
    },
    /// A device that the VM's user has to open is closed to it.
    #[error(
        "{} is closed to the users of VMs; open it by a udev rule: KERNEL==\"kvm\", MODE=\"0666\"",
        path.display()
    )]
    Device {
        /// The device.
        path: PathBuf,
    },
    /// The jailer's command line cannot be made.
    #[error(transparent)]
    Jailer(#[from] firecracker::JailerError),
    /// Paths on command lines are text.
    #[error("{} is no text", path.display())]
    NoText {
        /// The path.
        path: PathBuf,
    },
}

impl JailError {
    /// As a step's failure.
    pub(super) fn into_step(self) -> StepError {
        let code = match &self {
            Self::NoKernel { .. } => crate::errors::ASSET_DAMAGED,
            _ => crate::errors::VM_JAIL,
        };
        StepError::of(code, &self)
    }
}

/// User and group of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Makes a directory, and those above it with mode 0755; gives it to `owner` when there is one.
pub(super) fn directory(path: &Path, mode: u32, owner: Option<Owner>) -> Result<(), JailError> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(FileError::at("make", parent))?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(FileError::at("make", path)(error).into());
        }
        _ => {}
    }
    // Whatever the umask, and whoever made it before.
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(FileError::at("set the mode of", path))?;
    if let Some(Owner { uid, gid }) = owner {
        chown(path, Some(uid), Some(gid)).map_err(FileError::at("give away", path))?;
    }
    Ok(())
}

/// Puts a file that is shared by many VMs where this one can read and nobody of them can change it: by another name
/// where the file's own mode allows no more than that, otherwise as a copy, of blocks where the file system can do that.
/// The file itself is never given away.
pub(super) fn share(from: &Path, to: &Path, owner: Owner) -> Result<(), JailError> {
    let metadata = std::fs::symlink_metadata(from).map_err(FileError::at("look at", from))?;
    let mode = metadata.mode();
    let readable = mode & 0o004 != 0 || (metadata.gid() == owner.gid && mode & 0o040 != 0);
    let unwritable = mode & 0o022 == 0 && metadata.uid() != owner.uid;
    if metadata.is_file() && readable && unwritable && std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    copy(from, to, 0o444)
}

/// A copy of a file with a mode of its own; blocks are shared with the original where the file system can do that.
pub(super) fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), JailError> {
    let mut source = File::open(from).map_err(FileError::at("open", from))?;
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(mode).open(to);
    let mut target = made.map_err(FileError::at("create", to))?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
        io::copy(&mut source, &mut target).map_err(FileError::at("write", to))?;
    }
    target.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(FileError::at("set the mode of", to))?;
    Ok(())
}

/// Puts a disk that belongs to this VM alone into its jail and gives it to its user: by another name, or by a bind mount
/// from another file system. A read-only disk with other names is shared instead.
pub(super) fn give(
    mounts: &dyn Mounts,
    from: &Path,
    to: &Path,
    owner: Owner,
    read_only: bool,
) -> Result<(), JailError> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(from).map_err(FileError::at("open", from))?;
    let metadata = file.metadata().map_err(FileError::at("look at", from))?;
    if !metadata.is_file() {
        return Err(JailError::NoFile { path: from.to_owned() });
    }
    if metadata.nlink() > 1 {
        if read_only {
            return share(from, to, owner);
        }
        return Err(JailError::Shared { path: from.to_owned(), links: metadata.nlink() });
    }
    let mode = if read_only { 0o400 } else { 0o600 };
    fchown(&file, Some(owner.uid), Some(owner.gid)).map_err(FileError::at("give away", from))?;
    file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(FileError::at("set the mode of", from))?;
    match std::fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            File::create_new(to).map_err(FileError::at("create", to))?;
            Ok(mounts.bind(from, to)?)
        }
        linked => Ok(linked.map_err(FileError::at("link", to))?),
    }
}

/// Removes a jail with everything in it; mounts first. Nothing happens when there is none.
pub(super) fn remove(mounts: &dyn Mounts, directory: &Path) -> Result<(), JailError> {
    if std::fs::symlink_metadata(directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    // The kernel lists mounts without the links on the way to them; the jail's own name is none.
    let parent = directory.parent().unwrap_or(directory);
    let resolved = std::fs::canonicalize(parent).map_err(FileError::at("look at", parent))?;
    host::unmount_below(mounts, &resolved.join(directory.file_name().unwrap_or_default()))?;
    // Does not follow links, and goes down by open directories.
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::at("remove", directory)(error).into()),
        _ => Ok(()),
    }
}

/// Names of the entries of a directory; none when it is not there.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, JailError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(FileError::at("list", directory)(error).into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FileError::at("list", directory))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The jails in a directory that belong to nobody.
pub(super) fn strays(directory: &Path, known: &[VmId]) -> Result<Vec<Stray>, JailError> {
    let unknown = |name: &String| !known.iter().any(|id| id.as_str() == name);
    let stray = |name: String| Stray { kind: "jail".to_owned(), name: directory.join(name).display().to_string() };
    Ok(names(directory)?.into_iter().filter(unknown).map(stray).collect())
}

/// The VM whose jail a stray is; nothing for strays of others. Removing by the id finds it in whichever directory of
/// jails it lies.
pub(super) fn stray_id(stray: &Stray) -> Option<VmId> {
    let name = Path::new(&stray.name).file_name().and_then(|name| name.to_str())?;
    if stray.kind == "jail" { name.parse().ok() } else { None }
}

/// Finds a file that no hypervisor can start, before one is asked to.
pub(super) fn check_kernel(path: &Path) -> Result<(), JailError> {
    let mut start = Vec::new();
    let (offset, word) = BZIMAGE;
    let file = File::open(path).map_err(FileError::at("open", path))?;
    file.take(offset + word.len() as u64).read_to_end(&mut start).map_err(FileError::at("read", path))?;
    if start.starts_with(b"\x7fELF") || start.ends_with(word) && start.len() as u64 == offset + word.len() as u64 {
        return Ok(());
    }
    Err(JailError::NoKernel { path: path.to_owned() })
}

/// A path as an argument.
pub(super) fn text(path: &Path) -> Result<String, JailError> {
    path.to_str().map(str::to_owned).ok_or_else(|| JailError::NoText { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use host::Fake;

    use super::*;

    const OWNER: Owner = Owner { uid: 200_001, gid: 200_001 };

    fn inode(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn a_shared_file_is_linked_only_where_nobody_can_change_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("kernel"), "kernel").unwrap();
        for (mode, linked) in [(0o444, true), (0o644, true), (0o600, false), (0o666, false), (0o664, false)] {
            std::fs::set_permissions(at("kernel"), std::fs::Permissions::from_mode(mode)).unwrap();
            let before = std::fs::metadata(at("kernel")).unwrap();
            share(&at("kernel"), &at("copy"), OWNER).unwrap();
            assert_eq!(inode(&at("kernel")) == inode(&at("copy")), linked, "{mode:o}");
            let after = std::fs::metadata(at("kernel")).unwrap();
            assert_eq!((before.mode(), before.uid()), (after.mode(), after.uid()));
            assert_eq!(std::fs::read_to_string(at("copy")).unwrap(), "kernel");
            assert_eq!(std::fs::metadata(at("copy")).unwrap().mode() & 0o022, 0, "{mode:o}");
            std::fs::remove_file(at("copy")).unwrap();
        }
    }

    #[test]
    fn a_disk_with_other_names_is_not_given_away() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("NOT RUN: a_disk_with_other_names_is_not_given_away: it needs root");
        }
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("disk"), "disk").unwrap();
        give(&Fake::new(), &at("disk"), &at("jailed"), OWNER, false).unwrap();
        let metadata = std::fs::metadata(at("jailed")).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777, metadata.nlink()), (OWNER.uid, 0o600, 2));
        let other = give(&Fake::new(), &at("disk"), &at("other"), Owner { uid: 7, gid: 7 }, false);
        assert!(matches!(other, Err(JailError::Shared { links: 2, .. })), "{other:?}");
        // A read-only one is lent: nobody but its user may read this one, so it is copied.
        give(&Fake::new(), &at("disk"), &at("lent"), Owner { uid: 7, gid: 7 }, true).unwrap();
        assert_ne!(inode(&at("disk")), inode(&at("lent")));
        assert_eq!(std::fs::metadata(at("disk")).unwrap().uid(), OWNER.uid);
        std::os::unix::fs::symlink(at("disk"), at("link")).unwrap();
        assert!(give(&Fake::new(), &at("link"), &at("x"), OWNER, false).is_err());
    }

    #[test]
    fn what_a_guest_links_to_stays_when_its_jail_goes() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "").unwrap();
        let jail = directory.path().join("jail");
        std::fs::create_dir_all(jail.join("root")).unwrap();
        std::os::unix::fs::symlink(&outside, jail.join("root/link")).unwrap();
        remove(&Fake::new(), &jail).unwrap();
        remove(&Fake::new(), &jail).unwrap();
        assert!(!jail.exists() && outside.join("file").exists());
    }

    #[test]
    fn mounts_are_found_behind_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        std::fs::create_dir_all(real.join("jail/disks")).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let fake = Fake::new();
        fake.bind(Path::new("/data/disk"), &real.join("jail/disks/disk")).unwrap();
        remove(&fake, &link.join("jail")).unwrap();
        assert_eq!(fake.mounts().unwrap(), []);
        assert!(!real.join("jail").exists());
    }

    #[test]
    fn kernels_are_known_by_their_first_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let kernel = directory.path().join("kernel");
        let mut image = vec![0; 0x202];
        image.extend(b"HdrS and more");
        for (bytes, good) in [(b"\x7fELF".to_vec(), true), (image, true), (vec![0; 4096], false), (Vec::new(), false)] {
            std::fs::write(&kernel, &bytes).unwrap();
            assert_eq!(check_kernel(&kernel).is_ok(), good, "{} bytes", bytes.len());
        }
    }

    #[test]
    fn who_is_not_known_is_a_stray() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(strays(&directory.path().join("none"), &[]).unwrap(), []);
        for name in ["ud-1", "ud-2"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let found = strays(directory.path(), &["ud-1".parse().unwrap()]).unwrap();
        let name = directory.path().join("ud-2").display().to_string();
        assert_eq!(found, [Stray { kind: "jail".to_owned(), name }]);
    }
}
