//! A Debian root as one compressed tar: what an installation writes to a disk. The same lock and package machinery as
//! the image, but everything installed, kernel and initramfs included.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sha2::{Digest, Sha256};

use super::lock::hex;
use super::packages::{Packages, sha256_of};
use super::tool::{self, Tool};
use super::workspace::Workspace;
use super::{ImageError, Lock, Progress, debian, mirror_unless_cached, require_root, tree};

/// Raised when this code makes another root from the same inputs.
const RECIPE: u32 = 1;

/// Traces of the build that are not the same twice, and this host's names.
const PRUNE: [&str; 16] = [
    "etc/apt/sources.list",
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "usr/share/doc/*",
    "usr/share/info",
    "usr/share/locale/*",
    "usr/share/man/*",
    "var/backups/*",
    "var/cache/apt/*",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/*",
    "var/lib/apt/lists/*",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/*-old",
    "var/log/*",
];

/// Something put into the root after its packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootEntry {
    /// A file of root.
    File {
        /// Place, relative to the root.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Content.
        content: Vec<u8>,
    },
    /// A symbolic link.
    Link {
        /// Place, relative to the root.
        path: String,
        /// What it says.
        target: String,
    },
}

const NETWORK: &str = "[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n";
/// The serial console is where one watches a machine without a screen; a kernel in trouble starts again by itself.
const GRUB: &str = "GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX_DEFAULT=\"\"\n\
                    GRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200 oops=panic panic=30\"\nGRUB_TERMINAL=\"console serial\"\n\
                    GRUB_SERIAL_COMMAND=\"serial --unit=0 --speed=115200\"\nGRUB_DISABLE_OS_PROBER=true\n";

/// What turns a plain Debian with systemd-networkd and systemd-resolved into one that comes up by itself after being
/// written to a disk: an address on every wired interface, names, both consoles, an id of its own. Root has no password.
pub fn bootable_entries() -> Vec<RootEntry> {
    let file = |path: &str, mode, content: &str| RootEntry::File {
        path: path.to_owned(),
        mode,
        content: content.as_bytes().to_vec(),
    };
    let link = |path: &str, target: &str| RootEntry::Link { path: path.to_owned(), target: target.to_owned() };
    let units = "/usr/lib/systemd/system";
    let wanted = "etc/systemd/system/multi-user.target.wants/systemd-networkd.service";
    vec![
        file("etc/default/grub", 0o644, GRUB),
        file("etc/hostname", 0o644, "debian\n"),
        // Empty, not absent: the id is made and kept at the first start, which is not held up for questions.
        file("etc/machine-id", 0o444, ""),
        file("etc/systemd/network/80-dhcp.network", 0o644, NETWORK),
        link(wanted, &format!("{units}/systemd-networkd.service")),
        link(
            "etc/systemd/system/sockets.target.wants/systemd-networkd.socket",
            &format!("{units}/systemd-networkd.socket"),
        ),
        link(
            "etc/systemd/system/sysinit.target.wants/systemd-resolved.service",
            &format!("{units}/systemd-resolved.service"),
        ),
        link("etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf"),
    ]
}

/// What root to build.
#[derive(Debug, Clone)]
pub struct RootOptions {
    /// The `.tar.zst` to write.
    pub output: PathBuf,
    /// The cache of [`super::BuildOptions`].
    pub cache: PathBuf,
    /// Every package of it is installed.
    pub lock: Lock,
    /// URL of a Debian archive; none means the first one in the host's apt sources.
    pub mirror: Option<String>,
    /// Added after the packages, in this order; an entry replaces what was there.
    pub entries: Vec<RootEntry>,
    /// Set from outside to stop at the next step.
    pub stop: Arc<AtomicBool>,
}

/// The finished archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltRoot {
    /// SHA-256 of the archive, lower-case hex.
    pub sha256: String,
    /// Bytes of the archive.
    pub size: u64,
    /// Whether it came out of the cache.
    pub cached: bool,
}

/// Builds the root, or takes it from the cache. Needs root, and the programs of [`super::needed_packages`].
pub fn debian_root(options: &RootOptions, progress: &dyn Progress) -> Result<BuiltRoot, ImageError> {
    let workspace = Workspace::open(&options.cache, &options.stop)?;
    let kept = options.cache.join("roots").join(format!("{}.tar.zst", key(options)));
    let cached = kept.is_file();
    if !cached {
        require_root()?;
        tool::require_all()?;
        let packages = Packages::below(&options.cache)?;
        let mirror = mirror_unless_cached(&packages, &options.lock, options.mirror.as_deref())?;
        packages.fetch(&options.lock, &mirror, progress)?;
        workspace.check_stop()?;
        let archive = make(options, &packages, &workspace, progress)?;
        tree::make_directory(&options.cache.join("roots"))?;
        std::fs::rename(&archive, &kept).map_err(ImageError::file("move into the cache", &archive))?;
    }
    deliver(&kept, &options.output)?;
    let size = kept.metadata().map_err(ImageError::file("read", &kept))?.len();
    Ok(BuiltRoot { sha256: sha256_of(&kept)?, size, cached })
}

fn key(options: &RootOptions) -> String {
    let mut hasher = Sha256::new();
    hasher.update(format!("root {RECIPE}\n{}{PRUNE:?}{:?}", options.lock, options.entries));
    hex(&hasher.finalize())
}

fn make(
    options: &RootOptions,
    packages: &Packages,
    workspace: &Workspace,
    progress: &dyn Progress,
) -> Result<PathBuf, ImageError> {
    let scratch = workspace.directory("root")?;
    let root = scratch.join("root");
    progress.step("installing the root file system");
    debian::install(packages, &options.lock, |_| true, &scratch, &root)?;
    workspace.check_stop()?;
    for pattern in PRUNE {
        tree::remove(&root, pattern)?;
    }
    for entry in &options.entries {
        match entry {
            RootEntry::File { path, mode, content } => {
                tree::remove(&root, path)?;
                tree::write(&root.join(path), *mode, content)?;
            }
            RootEntry::Link { path, target } => {
                tree::remove(&root, path)?;
                tree::link(&root.join(path), target)?;
            }
        }
    }
    progress.step("packing the root file system");
    let (archive, packed) = (scratch.join("root.tar"), scratch.join("root.tar.zst"));
    Tool::new("tar")
        .args(["--create", "--format=posix", "--sort=name", "--numeric-owner", "--one-file-system"])
        .args(["--xattrs", "--xattrs-include=*", "--acls"])
        .args(["--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"])
        .arg(format!("--mtime=@{}", options.lock.epoch))
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(&root)
        .arg(".")
        .run()?;
    // Two threads: the result does not depend on their number as long as there is more than one.
    Tool::new("zstd").args(["-q", "-9", "-T2", "-f", "-o"]).arg(&packed).arg(&archive).run()?;
    Ok(packed)
}

/// A copy under another name, complete or not at all.
fn deliver(kept: &Path, output: &Path) -> Result<(), ImageError> {
    let parent = super::parent_of(output);
    std::fs::create_dir_all(parent).map_err(ImageError::file("create", parent))?;
    let file = tempfile::NamedTempFile::new_in(parent).map_err(ImageError::file("create a file in", parent))?;
    tree::copy(kept, file.path(), 0o644)?;
    file.persist(output).map_err(|error| ImageError::file("write", output)(error.error))?;
    Ok(())
}
