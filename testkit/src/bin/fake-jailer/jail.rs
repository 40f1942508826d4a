//! The jail's directory, what lies in it, and what the process gives up.

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Directories of a jail.
const DIRECTORIES: [&str; 3] = ["dev", "dev/net", "run"];

/// Name and number of the device nodes (`Documentation/admin-guide/devices.txt` of the kernel).
const DEVICES: [(&str, u32); 2] = [("dev/net/tun", 200), ("dev/kvm", 232)];

/// Major number of both.
const MISC: u32 = 10;

/// One jail.
#[derive(Debug)]
pub(crate) struct Jail {
    root: PathBuf,
    name: String,
    uid: u32,
    gid: u32,
}

impl Jail {
    /// Makes the root and copies the executable into it.
    pub(crate) fn make(base: &str, executable: &str, id: &str, uid: u32, gid: u32) -> Result<Self> {
        let canonical =
            |path: &str| std::fs::canonicalize(path).with_context(|| format!("Failed to canonicalize path {path}"));
        let (base, executable) = (canonical(base)?, canonical(executable)?);
        let name = executable.file_name().and_then(|name| name.to_str()).context("Failed to extract filename")?;
        let root = base.join(name).join(id).join("root");
        std::fs::create_dir_all(&root).with_context(|| format!("Failed to create directory {}", root.display()))?;
        let copy = root.join(name);
        std::fs::copy(&executable, &copy).with_context(|| format!("Failed to copy to {}", copy.display()))?;
        Ok(Self { name: name.to_owned(), root, uid, gid })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn executable(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// Makes directories and device nodes, and gives them to the jail's user. What an earlier jail left is a failure.
    pub(crate) fn devices(&self) -> Result<()> {
        if self.root.join("old_root").exists() {
            bail!("Failed to create the jail root directory before pivoting root: File exists (os error 17)");
        }
        self.own(&self.root)?;
        for directory in DIRECTORIES.map(|name| self.root.join(name)) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .with_context(|| format!("Failed to create directory {}", directory.display()))?;
            self.own(&directory)?;
        }
        for (name, minor) in DEVICES {
            let path = self.root.join(name);
            mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(MISC, minor))
                .with_context(|| format!("Failed to create /{name} via mknod inside the jail"))?;
            self.own(&path)?;
        }
        Ok(())
    }

    fn own(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("Failed to change owner for {}", path.display()))
    }

    /// Names the jailed process. A file that an earlier jail left is a failure.
    pub(crate) fn write_pid(&self, pid: u32) -> Result<()> {
        let path = self.root.join(format!("{}.pid", self.name));
        let mut file = File::create_new(&path).with_context(|| format!("Failed to open file /{}.pid", self.name))?;
        write!(file, "{pid}").with_context(|| format!("Failed to write to {}", path.display()))
    }
}

/// Joins a network namespace.
pub(crate) fn join(path: &str) -> Result<()> {
    let file = File::open(path).with_context(|| format!("Failed to open file {path}"))?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .context("Failed to join network namespace: netns")
}

/// Sets a limit.
pub(crate) fn limit(name: &str, value: u64) -> Result<()> {
    let resource = match name {
        "fsize" => Resource::Fsize,
        "no-file" => Resource::Nofile,
        other => bail!("Invalid resource argument: {other}"),
    };
    let limit = Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(resource, limit).with_context(|| format!("Failed to set limit for resource: {name}"))
}
