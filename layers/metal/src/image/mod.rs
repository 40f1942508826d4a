//! The maintenance image: the system a machine is started with to be installed. Debian from a lock file, systemd, an
//! ordinary kernel, the dispatcher, and no service that listens; as an ISO that BIOS and UEFI start.
//!
//! ```text
//! lock ─ packages ─ debian + kernel ─→ base.squashfs, vmlinuz, initramfs      kept in the cache, see `base`
//! dispatcher, units, authorities ────→ cairn.squashfs                         small, made every time, see `layer`
//! GRUB for both firmwares, /TASK.IMG ─→ the ISO, read back and checked        see `boot`, `iso`
//! ```
//!
//! The static files are in `guest/maintenance/`. Two builds from one lock, one dispatcher and one build host are equal
//! byte for byte.

mod base;
mod boot;
mod cpio;
mod debian;
mod error;
mod guest_files;
mod initramfs;
mod iso;
mod kernel;
mod layer;
mod lock;
mod mirror;
mod packages;
mod refresh;
mod root;
mod tool;
mod tree;
mod workspace;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sha2::{Digest, Sha256};

pub use error::ImageError;
pub use lock::{Lock, LockedPackage};
pub use refresh::PackageList;
pub use root::{BuiltRoot, RootEntry, RootOptions, bootable_entries, debian_root};
pub use tool::needed_packages;

use base::Base;
use layer::Layer;
use packages::{Packages, sha256_of};
use workspace::Workspace;

/// Volume id of the ISO.
pub const VOLUME_ID: &str = "CAIRN_MAINT";
/// Bytes of the file `/TASK.IMG` over which a job's task ISO is laid.
pub const TASK_IMAGE_SIZE: u64 = 10 * 1024 * 1024;

/// Is told what the build is doing. Called from the thread that builds.
pub trait Progress {
    /// A step begins; the one before it is done.
    fn step(&self, text: &str);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _text: &str) {}
}

/// What to build, and from what.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The ISO to write; `<output>.json` is written beside it.
    pub output: PathBuf,
    /// Where packages and base layers are kept between builds. One build at a time uses it.
    pub cache: PathBuf,
    /// A lock to use in place of the one built in.
    pub lock: Option<PathBuf>,
    /// URL of a Debian archive; none means the first one in the host's apt sources.
    pub mirror: Option<String>,
    /// The dispatcher (`provisioner`) for the image.
    pub dispatcher: PathBuf,
    /// PEM files of certificate authorities that the image trusts besides Debian's.
    pub authorities: Vec<PathBuf>,
    /// A root shell without a password on the serial console.
    pub debug_shell: bool,
    /// Set from outside to stop at the next step. Programs at work in the foreground get the terminal's signal themselves.
    pub stop: Arc<AtomicBool>,
}

/// A range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// The finished image; also the content of the file beside it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BuiltImage {
    /// SHA-256 of the ISO, lower-case hex.
    pub sha256: String,
    /// Bytes of the ISO.
    pub size: u64,
    /// Identifies what the image was built from; also `cairn.build=` on its kernel command line.
    pub build_id: String,
    /// Volume id.
    pub volume_id: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Debian suite.
    pub suite: String,
    /// SHA-256 of the lock.
    pub lock_sha256: String,
    /// SHA-256 of the dispatcher.
    pub dispatcher_sha256: String,
    /// Where `/TASK.IMG` lies in the ISO.
    pub task_image: Extent,
}

/// What a build would do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Plan {
    /// Packages of the lock.
    pub packages: usize,
    /// Packages that are not in the cache.
    pub packages_to_download: usize,
    /// Their bytes.
    pub bytes_to_download: u64,
    /// Whether the base layer has to be built.
    pub base_layer: bool,
    /// Release of the kernel.
    pub kernel: String,
    /// The archive that would be asked.
    pub mirror: Option<String>,
}

/// The lock that is built in.
pub fn default_lock() -> Result<Lock, ImageError> {
    Lock::parse("the built-in image.lock", guest_files::LOCK)
}

/// The packages that the built-in lock was made for.
pub fn default_packages() -> Result<PackageList, ImageError> {
    PackageList::parse("the built-in packages.list", guest_files::PACKAGES)
}

/// The lock of the Debian root that is built in.
pub fn default_root_lock() -> Result<Lock, ImageError> {
    Lock::parse("the built-in root.lock", guest_files::ROOT_LOCK)
}

/// The packages that the built-in lock of the Debian root was made for.
pub fn default_root_packages() -> Result<PackageList, ImageError> {
    PackageList::parse("the built-in packages.list of the Debian root", guest_files::ROOT_PACKAGES)
}

/// Makes a lock for `list` from what the archive has now in `suite`. Needs apt, not root.
pub fn refresh(list: &PackageList, suite: &str, mirror: Option<&str>, cache: &Path) -> Result<Lock, ImageError> {
    let workspace = Workspace::open(cache, &Arc::default())?;
    let scratch = workspace.directory("apt")?;
    refresh::resolve(&mirror_or_hosts(mirror)?, suite, list, &scratch)
}

/// What [`build`] would do with `options`; changes nothing.
pub fn plan(options: &BuildOptions) -> Result<Plan, ImageError> {
    let lock = lock_of(options)?;
    let packages = Packages::below(&options.cache)?;
    let missing = packages.missing(&lock);
    Ok(Plan {
        packages: lock.packages.len(),
        packages_to_download: missing.len(),
        bytes_to_download: missing.iter().map(|package| package.size).sum(),
        base_layer: !Base::of(&lock, &options.cache).is_built(),
        kernel: kernel::release(&lock)?,
        mirror: mirror_or_hosts(options.mirror.as_deref()).ok(),
    })
}

/// Builds the image. Needs root, and the programs of [`needed_packages`]. The output appears complete or not at all.
pub fn build(options: &BuildOptions, progress: &dyn Progress) -> Result<BuiltImage, ImageError> {
    require_root()?;
    tool::require_all()?;
    let lock = lock_of(options)?;
    let workspace = Workspace::open(&options.cache, &options.stop)?;
    let base = Base::of(&lock, &options.cache);
    if !base.is_built() {
        let packages = Packages::below(&options.cache)?;
        packages.fetch(&lock, &mirror_unless_cached(&packages, &lock, options.mirror.as_deref())?, progress)?;
        workspace.check_stop()?;
        base.build(&lock, &packages, &workspace, progress)?;
    }
    progress.step("making the layer with the dispatcher");
    let scratch = workspace.directory("image")?;
    let layer = Layer::compose(options, &lock, &base, scratch.join("layer"))?;
    let mut built = BuiltImage {
        sha256: String::new(),
        size: 0,
        build_id: build_id(&base, &layer)?,
        volume_id: VOLUME_ID.to_owned(),
        kernel: kernel::release(&lock)?,
        suite: lock.suite.clone(),
        lock_sha256: lock.hash(),
        dispatcher_sha256: sha256_of(&options.dispatcher)?,
        task_image: Extent { offset: 0, length: TASK_IMAGE_SIZE },
    };
    let medium = scratch.join("medium");
    let inside = serde_json::json!({
        "build_id": built.build_id, "kernel": built.kernel, "suite": built.suite, "lock_sha256": built.lock_sha256,
        "dispatcher_sha256": built.dispatcher_sha256,
    });
    tree::make_directory(&medium.join("cairn"))?;
    layer.finish(&lock, &format!("{inside}\n"), &medium.join("cairn/cairn.squashfs"))?;
    fill_medium(&medium, &base, &built.build_id)?;
    boot::install(&medium, &scratch, &built.build_id, "", lock.epoch)?;
    workspace.check_stop()?;
    progress.step("writing the ISO");
    finish(options, &mut built, &medium, &lock)?;
    Ok(built)
}

fn require_root() -> Result<(), ImageError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(ImageError::NotRoot) }
}

fn lock_of(options: &BuildOptions) -> Result<Lock, ImageError> {
    let Some(path) = &options.lock else { return default_lock() };
    let text = std::fs::read_to_string(path).map_err(ImageError::file("read", path))?;
    Lock::parse(&path.display().to_string(), &text)
}

fn mirror_or_hosts(mirror: Option<&str>) -> Result<String, ImageError> {
    let given = mirror.map(|mirror| mirror.trim_end_matches('/').to_owned());
    given.or_else(|| mirror::of_host(Path::new("/etc/apt"))).ok_or(ImageError::NoMirror)
}

/// A build whose packages are all there works on a host without any archive.
fn mirror_unless_cached(packages: &Packages, lock: &Lock, mirror: Option<&str>) -> Result<String, ImageError> {
    if packages.missing(lock).is_empty() { Ok(String::new()) } else { mirror_or_hosts(mirror) }
}

/// The directory a file is to be written to.
fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn build_id(base: &Base, layer: &Layer) -> Result<String, ImageError> {
    let mut hasher = Sha256::new();
    let parts = [&base.key, &layer.hash()?, &boot::grub_version()?, guest_files::GRUB, guest_files::GRUB_EARLY];
    for part in parts {
        hasher.update(part);
        hasher.update([0]);
    }
    Ok(lock::hex(&hasher.finalize())[..32].to_owned())
}

fn fill_medium(medium: &Path, base: &Base, build_id: &str) -> Result<(), ImageError> {
    let link = |from: PathBuf, to: &str| {
        let to = medium.join(to);
        tree::make_directory(to.parent().unwrap_or(medium))?;
        std::fs::hard_link(&from, &to).map_err(ImageError::file("link", &from))
    };
    link(base.squashfs(), "cairn/base.squashfs")?;
    link(base.kernel(), "boot/vmlinuz")?;
    link(base.initramfs(), "boot/initrd")?;
    // The content tells the initramfs, the name tells GRUB, which searches by name.
    for name in ["build-id", build_id] {
        tree::write(&medium.join("cairn").join(name), 0o444, format!("{build_id}\n").as_bytes())?;
    }
    tree::write(&medium.join("TASK.IMG"), 0o444, &vec![0; TASK_IMAGE_SIZE as usize])
}

fn finish(options: &BuildOptions, built: &mut BuiltImage, medium: &Path, lock: &Lock) -> Result<(), ImageError> {
    let parent = parent_of(&options.output);
    std::fs::create_dir_all(parent).map_err(ImageError::file("create", parent))?;
    // Beside the output, so that the last move is one rename; removed when anything goes wrong before it.
    let file = tempfile::Builder::new()
        .prefix(".cairn-image-")
        .tempfile_in(parent)
        .map_err(ImageError::file("create a file in", parent))?;
    iso::write(medium, file.path(), lock.epoch)?;
    built.task_image = iso::check(file.path(), medium)?;
    built.sha256 = sha256_of(file.path())?;
    built.size = file.path().metadata().map_err(ImageError::file("read", file.path()))?.len();
    tree::set_mode(file.path(), 0o644)?;
    file.as_file().sync_all().map_err(ImageError::file("write", file.path()))?;
    file.persist(&options.output).map_err(|error| ImageError::file("write", &options.output)(error.error))?;
    write_sidecar(options, built)
}

/// Path of the file beside an image.
pub fn sidecar_of(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

fn write_sidecar(options: &BuildOptions, built: &BuiltImage) -> Result<(), ImageError> {
    let path = sidecar_of(&options.output);
    let parent = parent_of(&path);
    let text = serde_json::to_string_pretty(built).unwrap_or_default() + "\n";
    let file = tempfile::NamedTempFile::new_in(parent).map_err(ImageError::file("create a file in", parent))?;
    std::fs::write(file.path(), text).map_err(ImageError::file("write", file.path()))?;
    tree::set_mode(file.path(), 0o644)?;
    file.persist(&path).map_err(|error| ImageError::file("write", &path)(error.error))?;
    Ok(())
}
