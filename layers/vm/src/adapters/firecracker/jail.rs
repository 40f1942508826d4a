//! The files of a jail, and the command line that makes one of them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use firecracker::{Arguments, CgroupVersion, Jailer, LogLevel, Version};
use host::{Command, FileError, Mounted};
use keeper::{Limits, Order, User};

use super::super::jails::{self, JailError, Owner};
use super::Inner;
use super::machine::{INITRD, KERNEL, METRICS, disk};
use crate::model::VmId;
use crate::ports::{Launch, Stray};

/// In front of the version, in the names of the pinned program and of the directory of its jails.
const PREFIX: &str = "firecracker-";

/// Where the copies of the program lie, below the jails.
const BIN: &str = "bin";

/// Kind of a stray that is such a copy.
const PROGRAM: &str = "program";

/// Memory that Firecracker itself may use, in bytes. It takes some 5 MB, and page tables of a large guest.
const OVERHEAD: u64 = 64 << 20;

/// Threads beside the processors: the process, its API, the kernel's workers for it.
const THREADS: u64 = 16;

/// Most open files.
const OPEN_FILES: u64 = 2048;

/// The copy of a program that is there, and of which program it is one.
#[derive(Debug, Clone)]
pub(super) struct Pinned {
    of: Stamp,
    path: PathBuf,
}

/// By what a program is known to be the same as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Result<Self, JailError> {
        let metadata = std::fs::metadata(path).map_err(FileError::at("look at", path))?;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Ok(Self { device: metadata.dev(), inode: metadata.ino(), size: metadata.len(), changed })
    }
}

/// A program did not say its version.
#[derive(Debug, thiserror::Error)]
pub(super) enum VersionProblem {
    /// It did not run.
    #[error("{} --version failed", path.display())]
    Run {
        path: PathBuf,
        #[source]
        source: host::ProcessError,
    },
    /// What it said is no version.
    #[error("{} --version said something unknown", path.display())]
    Text {
        path: PathBuf,
        #[source]
        source: firecracker::VersionError,
    },
}

/// The version of a program.
pub(super) fn version(inner: &Inner, program: &Path) -> Result<Version, VersionProblem> {
    let path = program.to_owned();
    let command = Command::new(program.to_string_lossy()).arg("--version");
    let output = inner.host.run(&command).map_err(|source| VersionProblem::Run { path: path.clone(), source })?;
    Version::of_output(&output.text()).map_err(|source| VersionProblem::Text { path, source })
}

/// Everything for one VM: the jail with its files, and what its keeper is to run.
pub(super) fn make(inner: &Inner, launch: &Launch) -> Result<Order, JailError> {
    let (id, owner) = (&launch.vm.id, Owner { uid: launch.uid, gid: launch.gid });
    jails::check_kernel(&launch.kernel)?;
    let jailer = jailer(inner, launch)?;
    let vector = jailer.vector()?;
    // The jailer fails on what an earlier run left.
    remove(inner, id)?;
    jails::directory(&jailer.directory(), 0o700, None)?;
    jails::directory(&jailer.root(), 0o700, Some(owner))?;
    jails::share(&launch.kernel, &jailer.outside(Path::new(KERNEL)), owner)?;
    if let Some(initrd) = &launch.initrd {
        jails::share(initrd, &jailer.outside(Path::new(INITRD)), owner)?;
    }
    // Only its entries are the user's.
    jails::directory(&jailer.outside(Path::new("/disks")), 0o755, None)?;
    for file in &launch.disks {
        let inside = jailer.outside(&disk(&file.id));
        jails::give(inner.host.as_ref(), &file.path, &inside, owner, file.read_only)?;
    }
    let mut argv = vec![jails::text(&inner.programs.jailer)?];
    argv.extend(vector.into_iter().map(|word| word.to_string_lossy().into_owned()));
    let spec = &launch.vm.spec;
    Ok(Order {
        name: id.to_string(),
        argv,
        environment: Default::default(),
        directory: "/".into(),
        user: None,
        network_namespace: None,
        limits: Limits {
            memory_bytes: Some((spec.memory_mib() << 20) + OVERHEAD),
            cpu_millis: Some(u64::from(spec.vcpus()) * 1000),
            tasks: Some(u64::from(spec.vcpus()) + THREADS),
        },
        open_files: Some(OPEN_FILES),
        console: inner.places.console(id),
        console_limit: inner.places.console_limit,
        metrics: Some(jailer.outside(Path::new(METRICS))),
        metrics_owner: Some(User { uid: launch.uid, gid: launch.gid }),
    })
}

fn jailer(inner: &Inner, launch: &Launch) -> Result<Jailer, JailError> {
    let id = firecracker::VmId::new(launch.vm.id.as_str())?;
    let mut jailer = Jailer::new(id, pin(inner)?, launch.uid, launch.gid);
    jailer.base.clone_from(&inner.places.jails);
    jailer.network_namespace = Some(launch.wire.namespace_path.clone());
    // In version 2 without settings the process stays in the group that the keeper made for it. The jailer does not
    // start in version 2 where that is not mounted at all.
    let unified = inner.host.mounts()?.iter().any(|mounted| mounted.filesystem == "cgroup2");
    jailer.cgroup_version = if unified { CgroupVersion::V2 } else { CgroupVersion::V1 };
    jailer.open_files_limit = Some(OPEN_FILES);
    jailer.arguments = Arguments {
        socket: socket_inside(&launch.vm.id),
        // The guest's console is on standard output too, and is bounded there.
        log_level: Some(LogLevel::Warning),
        ..Arguments::default()
    };
    Ok(jailer)
}

/// Named after the namespace, so that the process can be found by it (guide, "Network Cleanup").
fn socket_inside(id: &VmId) -> PathBuf {
    PathBuf::from(format!("/run/{}.sock", id.namespace()))
}

/// The copy of the program of this version. Programs of running VMs are copies of that copy.
fn pin(inner: &Inner) -> Result<PathBuf, JailError> {
    let program = &inner.programs.firecracker;
    let stamp = Stamp::of(program)?;
    let mut pinned = inner.pinned.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Pinned { of, path }) = pinned.as_ref()
        && *of == stamp
        && path.is_file()
    {
        return Ok(path.clone());
    }
    let version = version(inner, program).map_err(|problem| {
        let error = std::io::Error::other(cairn_core::chain(&problem));
        FileError::at("ask for the version of", program)(error)
    })?;
    let directory = inner.places.jails.join(BIN);
    jails::directory(&directory, 0o755, None)?;
    let path = directory.join(format!("{PREFIX}{version}"));
    // By a rename: a jailer that copies it at this moment reads one or the other.
    let new = directory.join(format!(".{PREFIX}{version}.{}", std::process::id()));
    host::remove_if_present(&new)?;
    jails::copy(program, &new, 0o555)?;
    std::fs::rename(&new, &path).map_err(FileError::at("rename", &new))?;
    tracing::info!(%version, "jailer: program of this version copied");
    *pinned = Some(Pinned { of: stamp, path: path.clone() });
    Ok(path)
}

/// Directories of jails, one for each version that was ever used.
fn parents(inner: &Inner) -> Result<Vec<PathBuf>, JailError> {
    let base = &inner.places.jails;
    let names = jails::names(base)?.into_iter().filter(|name| name.starts_with(PREFIX));
    Ok(names.map(|name| base.join(name)).collect())
}

/// The socket of a VM, in the jail that is there.
pub(super) fn socket(inner: &Inner, id: &VmId) -> Result<Option<PathBuf>, JailError> {
    let roots = parents(inner)?.into_iter().map(|parent| parent.join(id.as_str()).join("root"));
    let inside = socket_inside(id);
    let found = roots.into_iter().find(|root| root.is_dir());
    Ok(found.map(|root| root.join(inside.strip_prefix("/").unwrap_or(&inside))))
}

/// Removes the jails of a VM, of whatever version, and the control groups that a jailer made for it.
pub(super) fn remove(inner: &Inner, id: &VmId) -> Result<(), JailError> {
    for parent in parents(inner)? {
        jails::remove(inner.host.as_ref(), &parent.join(id.as_str()))?;
    }
    let groups = inner.host.mounts()?.into_iter().filter(|mounted| mounted.filesystem.starts_with("cgroup"));
    for Mounted { target, .. } in groups {
        for name in jails::names(&target)?.into_iter().filter(|name| name.starts_with(PREFIX)) {
            let group = target.join(name).join(id.as_str());
            match std::fs::remove_dir(&group) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(FileError::at("remove the control group", &group)(error).into());
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Jails of nobody, and copies of programs for which there is no jail.
pub(super) fn strays(inner: &Inner, known: &[VmId]) -> Result<Vec<Stray>, JailError> {
    let mut found = Vec::new();
    for parent in parents(inner)? {
        found.extend(jails::strays(&parent, known)?);
    }
    let pinned = inner.pinned.lock().unwrap_or_else(PoisonError::into_inner);
    for name in unused(inner, pinned.as_ref())? {
        let path = inner.places.jails.join(BIN).join(name);
        found.push(Stray { kind: PROGRAM.to_owned(), name: path.display().to_string() });
    }
    Ok(found)
}

/// Copies of programs that no boot uses again: not of the version that is used now, and without a jail of their version.
/// A VM that runs has a copy of its own in its jail; the common one stays beside it all the same, for its keeper's order
/// names it. Among them is what a daemon left that was killed while it copied.
fn unused(inner: &Inner, pinned: Option<&Pinned>) -> Result<Vec<String>, JailError> {
    let mut names = jails::names(&inner.places.jails.join(BIN))?;
    names.retain(|name| name.trim_start_matches('.').starts_with(PREFIX));
    if names.is_empty() {
        return Ok(names);
    }
    let current = match pinned {
        Some(Pinned { path, .. }) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        // A program that is gone or does not run keeps no copy of itself.
        None => version(inner, &inner.programs.firecracker).ok().map(|version| format!("{PREFIX}{version}")),
    };
    let mut unused = Vec::new();
    for name in names {
        let is_used = current.as_deref() == Some(&*name) || !jails::names(&inner.places.jails.join(&name))?.is_empty();
        if !is_used || name.starts_with('.') {
            unused.push(name);
        }
    }
    Ok(unused)
}

/// Removes a copy that [`strays`] found, if it is still one; with it, the directory of its jails.
pub(super) fn remove_program(inner: &Inner, stray: &Stray) -> Result<(), JailError> {
    let pinned = inner.pinned.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = inner.places.jails.join(BIN);
    for name in unused(inner, pinned.as_ref())? {
        let path = directory.join(&name);
        if stray.kind == PROGRAM && stray.name == path.display().to_string() {
            host::remove_if_present(&path)?;
            // It is empty, or was never made.
            let _ = std::fs::remove_dir(inner.places.jails.join(&name));
        }
    }
    Ok(())
}
