//! Mounts that every program expects, and the root disk.

use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::process::{chdir, chroot};

use crate::arguments::Root;
use crate::uevent;

/// Where the root disk is mounted before it becomes the root.
const NEW_ROOT: &str = "/new-root";

/// Kind, place, flags beyond «no set-user-id programs», options.
const EARLY: [(&str, &str, MountFlags, &str); 6] = [
    ("proc", "/proc", MountFlags::NODEV.union(MountFlags::NOEXEC), ""),
    ("sysfs", "/sys", MountFlags::NODEV.union(MountFlags::NOEXEC), ""),
    ("devtmpfs", "/dev", MountFlags::NOEXEC, "mode=0755"),
    ("devpts", "/dev/pts", MountFlags::NOEXEC, "mode=0620,gid=5,ptmxmode=0666"),
    ("tmpfs", "/run", MountFlags::NODEV, "mode=0755"),
    ("tmpfs", "/tmp", MountFlags::NODEV, "mode=1777"),
];

/// Those that go along to the root disk; `/dev/pts` goes with `/dev`, and `/tmp` is the disk's own.
const MOVED: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

/// A mount failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("make the directory {path}")]
    Directory {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("mount {kind} at {path}")]
    Mount {
        kind: String,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("wait for {device}")]
    Device {
        device: String,
        #[source]
        source: io::Error,
    },
    #[error("switch to the root disk: {step}")]
    Switch {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Mounts what is needed to see and say anything.
pub(crate) fn early() -> Result<(), MountError> {
    for (kind, path, flags, options) in EARLY {
        directory(path)?;
        let flags = flags | MountFlags::NOSUID;
        let options = std::ffi::CString::new(options).unwrap_or_default();
        match mount(kind, path, kind, flags, options.as_c_str()) {
            // The kernel may have done it.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(source) => {
                return Err(MountError::Mount { kind: kind.into(), path: path.into(), source: source.into() });
            }
        }
    }
    Ok(())
}

fn directory(path: &str) -> Result<(), MountError> {
    let made = std::fs::create_dir_all(path);
    made.map_err(|source| MountError::Directory { path: path.to_owned(), source })
}

/// Makes the root disk the root of this process, with the early mounts in it.
pub(crate) fn switch(root: &Root) -> Result<(), MountError> {
    let Root { device, kind, writable, .. } = root;
    let found = || Path::new(device).exists().then_some(());
    uevent::wait_for(found).map_err(|source| MountError::Device { device: device.clone(), source })?;
    directory(NEW_ROOT)?;
    let flags = if *writable { MountFlags::empty() } else { MountFlags::RDONLY };
    mount(device, NEW_ROOT, kind, flags, c"").map_err(|source| MountError::Mount {
        kind: kind.clone(),
        path: NEW_ROOT.to_owned(),
        source: source.into(),
    })?;
    for path in MOVED {
        let target = format!("{NEW_ROOT}{path}");
        // On a read-only disk only what is there already can be a place for a mount, and then this does nothing.
        let _ = std::fs::create_dir_all(&target);
        mount_move(path, &target).map_err(|source| MountError::Mount {
            kind: path.into(),
            path: target,
            source: source.into(),
        })?;
    }
    // The modules are the larger part of the initramfs, and its memory comes back with them.
    let _ = std::fs::remove_dir_all("/lib/modules");
    let step = |step| move |source: rustix::io::Errno| MountError::Switch { step, source: source.into() };
    chdir(NEW_ROOT).map_err(step("chdir"))?;
    mount_move(".", "/").map_err(step("move the mount"))?;
    chroot(".").map_err(step("chroot"))?;
    chdir("/").map_err(step("chdir to the root"))
}

/// Lays `content` in the place of a file, over it where the disk is read-only.
pub(crate) fn lay(content: &str, path: &str) -> io::Result<()> {
    // A link could lead to a file of a service that does not run.
    let _ = std::fs::remove_file(path);
    if std::fs::write(path, content).is_ok() {
        return Ok(());
    }
    let aside = "/run/cairn-resolv.conf";
    std::fs::write(aside, content)?;
    Ok(mount_bind(aside, path)?)
}
