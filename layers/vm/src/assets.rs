//! Kernels, initial file systems and disks on this host: a directory of files named by their SHA-256, and a row for each
//! name. A file is written, hashed while it is written, synced and renamed before its row is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cairn_core::Clock;
use futures::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::model::{Asset, AssetKind, AssetName, Vm};
use crate::store::VmStore;

/// What goes wrong with assets.
#[derive(Debug, thiserror::Error)]
pub enum AssetError {
    /// There is none of this name.
    #[error("there is no {} called {name}", kind.as_str())]
    Missing {
        /// What was looked for.
        kind: AssetKind,
        /// Its name.
        name: AssetName,
    },
    /// Nothing was named, and the host has no default.
    #[error("no {} was named, and this host has no default", kind.as_str())]
    NoDefault {
        /// What was looked for.
        kind: AssetKind,
    },
    /// It is there, and something else.
    #[error("{name} is of kind {}, not {}", is.as_str(), wanted.as_str())]
    Kind {
        /// Its name.
        name: AssetName,
        /// What it is.
        is: AssetKind,
        /// What was wanted.
        wanted: AssetKind,
    },
    /// The name is taken.
    #[error("{name} is there already, with other content or for something else")]
    Exists {
        /// The name.
        name: AssetName,
    },
    /// A VM needs it.
    #[error("{name} is needed by VM {vm}")]
    InUse {
        /// The name.
        name: AssetName,
        /// One of those that need it.
        vm: crate::model::VmId,
    },
    /// There is nothing in it.
    #[error("the content of {name} is empty")]
    Empty {
        /// The name.
        name: AssetName,
    },
    /// Its file is gone or was changed.
    #[error("the file of {name}, {}, is not what was added", path.display())]
    Damaged {
        /// The name.
        name: AssetName,
        /// The file.
        path: PathBuf,
    },
    /// The file system did not do as it was told.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Whoever sent the content stopped.
    #[error("the content of {name} ended early")]
    Interrupted {
        /// The name.
        name: AssetName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

/// Names of what is used where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Kernel.
    pub kernel: Option<AssetName>,
    /// Initial file system.
    pub initrd: Option<AssetName>,
    /// Root disk.
    pub disk: Option<AssetName>,
}

/// What a VM boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// Kernel.
    pub kernel: Asset,
    /// Initial file system.
    pub initrd: Option<Asset>,
    /// Disks, in the order of the spec; the default one alone where it names none.
    pub disks: Vec<Asset>,
}

/// See the module.
#[derive(Clone)]
pub struct Assets {
    directory: PathBuf,
    store: VmStore,
    defaults: Defaults,
    clock: Arc<dyn Clock>,
    /// Adding and collecting do not meet.
    turn: Arc<tokio::sync::RwLock<()>>,
}

impl Assets {
    /// Assets below a directory, which exists.
    pub fn new(directory: PathBuf, store: VmStore, defaults: Defaults, clock: Arc<dyn Clock>) -> Self {
        Self { directory, store, defaults, clock, turn: Arc::default() }
    }

    /// The file of an asset.
    pub fn path(&self, asset: &Asset) -> PathBuf {
        self.directory.join(&asset.sha256)
    }

    /// All of them.
    ///
    /// # Errors
    /// The database.
    pub async fn list(&self) -> Result<Vec<Asset>, AssetError> {
        Ok(self.store.assets().await?)
    }

    /// Keeps what `content` brings under a name. The same content under the same name again is nothing new.
    ///
    /// # Errors
    /// The name is taken, the content ended early, the disk is full.
    pub async fn add(
        &self,
        name: AssetName,
        kind: AssetKind,
        mut content: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<Asset, AssetError> {
        let _turn = self.turn.read().await;
        let directory = self.directory.clone();
        let failed = |doing| {
            let path = directory.clone();
            move |source| AssetError::File { doing, path, source }
        };
        // Without a name until it is whole: what a kill leaves behind is gone.
        let part =
            tempfile::Builder::new().prefix(".part-").tempfile_in(&self.directory).map_err(failed("make a file in"))?;
        let mut file = tokio::fs::File::from_std(part.reopen().map_err(failed("open a file in"))?);
        let (mut hash, mut size) = (Sha256::new(), 0_u64);
        while let Some(piece) = content.next().await {
            let piece = piece.map_err(|source| AssetError::Interrupted { name: name.clone(), source })?;
            hash.update(&piece);
            size += piece.len() as u64;
            file.write_all(&piece).await.map_err(failed("write into"))?;
        }
        if size == 0 {
            return Err(AssetError::Empty { name });
        }
        file.flush().await.map_err(failed("write into"))?;
        file.sync_all().await.map_err(failed("write into"))?;
        let sha256 = hex(&hash.finalize());
        let asset = Asset { name, kind, sha256, size, created_at: self.clock.now() };
        let known = self.store.asset(&asset.name).await?;
        if known.as_ref().is_some_and(|known| (known.kind, &known.sha256) != (asset.kind, &asset.sha256)) {
            return Err(AssetError::Exists { name: asset.name });
        }
        // Also where it is known: so a file that was damaged becomes whole again.
        let path = self.path(&asset);
        put(part, &path).map_err(|source| AssetError::File { doing: "keep", path: path.clone(), source })?;
        if let Some(known) = known {
            return Ok(known);
        }
        if self.store.add_asset(&asset).await? { Ok(asset) } else { Err(AssetError::Exists { name: asset.name }) }
    }

    /// Takes a name away; the file stays until [`Assets::collect`], for disks may be copied from it this very moment.
    ///
    /// # Errors
    /// There is none, or one of `vms` needs it.
    pub async fn remove(&self, name: &AssetName, vms: &[Arc<Vm>]) -> Result<(), AssetError> {
        if let Some(vm) = vms.iter().find(|vm| self.needs(vm, name)) {
            return Err(AssetError::InUse { name: name.clone(), vm: vm.id.clone() });
        }
        if self.store.remove_asset(name).await? {
            Ok(())
        } else {
            Err(AssetError::Missing { kind: AssetKind::Disk, name: name.clone() })
        }
    }

    /// Whether a VM boots from it: its disks are copies, so those count only until the VM is made.
    fn needs(&self, vm: &Vm, name: &AssetName) -> bool {
        let boot = &vm.spec.boot;
        let kernel = boot.kernel_path.as_ref().or(self.defaults.kernel.as_ref());
        let initrd = boot.initrd_path.as_ref().or(self.defaults.initrd.as_ref().filter(|_| boot.kernel_path.is_none()));
        let disks = vm.spec.storage.iter().filter_map(|disk| disk.path.as_ref());
        let making = vm.state == crate::model::State::Creating;
        kernel == Some(name) || initrd == Some(name) || (making && disks.into_iter().any(|disk| disk == name))
    }

    /// Removes files that no name has any more; those that would go when `dry_run`. What is given back has the hash for a
    /// name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn collect(&self, dry_run: bool) -> Result<Vec<(String, u64)>, AssetError> {
        let _turn = self.turn.write().await;
        let known: Vec<String> = self.store.assets().await?.into_iter().map(|asset| asset.sha256).collect();
        let failed = |source| AssetError::File { doing: "look into", path: self.directory.clone(), source };
        let mut gone = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours =
                (name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())) || name.starts_with(".part-");
            if !ours || known.contains(&name) {
                continue;
            }
            let size = entry.metadata().map_err(failed)?.len();
            if !dry_run {
                let path = entry.path();
                std::fs::remove_file(&path).map_err(|source| AssetError::File { doing: "remove", path, source })?;
            }
            gone.push((name, size));
        }
        gone.sort();
        Ok(gone)
    }

    /// What a VM boots from.
    ///
    /// # Errors
    /// One of them is missing, or is something else than it has to be.
    pub async fn resolve(&self, spec: &crate::model::VmSpec) -> Result<BootFiles, AssetError> {
        let (kernel, initrd) = self.resolve_boot(spec).await?;
        let mut disks = Vec::new();
        for disk in &spec.storage {
            disks.push(self.find(disk.path.as_ref(), AssetKind::Disk).await?);
        }
        if spec.storage.is_empty()
            && let Some(name) = &self.defaults.disk
        {
            disks.push(self.find(Some(name), AssetKind::Disk).await?);
        }
        Ok(BootFiles { kernel, initrd, disks })
    }

    /// Kernel and initial file system alone: a VM that is made has its own copies of its disks, and boots without the assets
    /// that those were.
    ///
    /// # Errors
    /// One of them is missing, or is something else than it has to be.
    pub async fn resolve_boot(&self, spec: &crate::model::VmSpec) -> Result<(Asset, Option<Asset>), AssetError> {
        let boot = &spec.boot;
        let kernel = self.find(boot.kernel_path.as_ref().or(self.defaults.kernel.as_ref()), AssetKind::Kernel).await?;
        // The default initial file system belongs to the default kernel.
        let initrd = boot.initrd_path.as_ref().or(self.defaults.initrd.as_ref().filter(|_| boot.kernel_path.is_none()));
        let initrd = match initrd {
            Some(name) => Some(self.find(Some(name), AssetKind::Initrd).await?),
            None => None,
        };
        Ok((kernel, initrd))
    }

    async fn find(&self, name: Option<&AssetName>, kind: AssetKind) -> Result<Asset, AssetError> {
        let name = name.ok_or(AssetError::NoDefault { kind })?;
        let missing = || AssetError::Missing { kind, name: name.clone() };
        let asset = self.store.asset(name).await?.ok_or_else(missing)?;
        if asset.kind != kind {
            return Err(AssetError::Kind { name: name.clone(), is: asset.kind, wanted: kind });
        }
        let path = self.path(&asset);
        let there = std::fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == asset.size);
        if there { Ok(asset) } else { Err(AssetError::Damaged { name: name.clone(), path }) }
    }
}

/// Gives a whole file its name, for good, readable by the group of the jails and by nobody else.
fn put(part: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    part.as_file().set_permissions(std::fs::Permissions::from_mode(0o440))?;
    let file = part.persist(path).map_err(|error| error.error)?;
    file.sync_all()?;
    std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "assets_tests.rs"]
mod tests;
