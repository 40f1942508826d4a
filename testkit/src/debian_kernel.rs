//! Debian's cloud kernel and its modules: the package of `guest/debian/root.lock`, kept where the metal layer keeps its
//! packages, unpacked once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::environment;
use crate::process::run;

const LOCK: &str = include_str!("../../guest/debian/root.lock");

/// What installing the kernel brings.
const NEEDED: [&str; 2] = ["vmlinuz", "modules"];

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    directory: PathBuf,
    release: String,
}

impl Kernel {
    /// The kernel; downloaded from this machine's Debian archive if it is not here.
    pub fn get() -> Result<Self> {
        let line = LOCK.lines().find(|line| line.starts_with("linux-image-6")).context("the lock names no kernel")?;
        let fields: Vec<&str> = line.split(' ').collect();
        let [name, _, hash, _, path] = fields[..] else { anyhow::bail!("the lock has the line {line:?}") };
        let release = name.trim_start_matches("linux-image-").to_owned();
        let cache = environment::cache()?;
        let directory = cache.join("kernels").join(&release);
        if !NEEDED.iter().all(|name| directory.join(name).exists()) {
            let package = fetch(&cache.join("debs"), hash, path)?;
            unpack(&package, &release, &directory)?;
        }
        Ok(Self { directory, release })
    }

    /// The kernel image.
    pub fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// What `uname -r` prints.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Name and content of the files below `lib/modules/<release>/` that an initramfs with `names` needs.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let tree = self.directory.join("modules");
        let read = |name: &str| std::fs::read(tree.join(name)).with_context(|| format!("read {name} of the kernel"));
        let index = String::from_utf8(read("modules.dep")?).context("modules.dep")?;
        let mut files = BTreeSet::from(["modules.dep", "modules.builtin"]);
        for wanted in names {
            let of_name = |line: &&str| line.split(['/', ':']).any(|part| part.split(".ko").next() == Some(wanted));
            let line = index.lines().find(|line| line.split(':').next().is_some_and(|path| of_name(&path)));
            let line = line.with_context(|| format!("the kernel has no module {wanted}"))?;
            files.extend(line.split([':', ' ']).filter(|path| !path.is_empty()));
        }
        files.into_iter().map(|name| Ok((name.to_owned(), read(name)?))).collect()
    }
}

/// The package's file.
fn fetch(debs: &Path, hash: &str, path: &str) -> Result<PathBuf> {
    let package = debs.join(format!("{hash}.deb"));
    if !package.exists() {
        let sources = run(Command::new("apt-get").args(["indextargets", "--format", "$(SITE) $(COMPONENT)"]))?;
        let archive = sources.lines().find_map(|line| line.strip_suffix(" main"));
        let archive = archive.context("apt knows no Debian archive")?;
        std::fs::create_dir_all(debs).with_context(|| format!("make {}", debs.display()))?;
        let part = debs.join(format!("{hash}.kernel-part"));
        let mut helper = Command::new("/usr/lib/apt/apt-helper");
        helper.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "download-file"]);
        helper.arg(format!("{}/{path}", archive.trim_end_matches('/'))).arg(&part).arg(format!("SHA256:{hash}"));
        run(&mut helper)?;
        std::fs::rename(&part, &package).with_context(|| format!("rename {}", part.display()))?;
    }
    Ok(package)
}

/// Leaves `vmlinuz` and `modules/` of the package in `directory`, both or neither.
fn unpack(package: &Path, release: &str, directory: &Path) -> Result<()> {
    let parent = directory.parent().context("the cache has no parent")?;
    std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    let scratch = tempfile::tempdir_in(parent).context("make a directory to unpack in")?;
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(scratch.path()))?;
    // depmod looks below lib/.
    std::os::unix::fs::symlink("usr/lib", scratch.path().join("lib")).context("link lib")?;
    run(Command::new("depmod").arg("-b").arg(scratch.path()).arg(release))?;
    let done = scratch.path().join("done");
    std::fs::create_dir(&done).context("make a directory for the result")?;
    let moves = [(format!("boot/vmlinuz-{release}"), "vmlinuz"), (format!("usr/lib/modules/{release}"), "modules")];
    for (from, to) in moves {
        std::fs::rename(scratch.path().join(&from), done.join(to)).with_context(|| format!("move {from}"))?;
    }
    match std::fs::rename(&done, directory) {
        // Somebody else was faster.
        Err(_) if directory.exists() => Ok(()),
        other => other.with_context(|| format!("make {}", directory.display())),
    }
}
