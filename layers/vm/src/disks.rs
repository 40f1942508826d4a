//! The disks of VMs: copies of assets, `<data>/vms/<id>/disks/<disk>`, each the VM's own from the start.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::assets::{BootFiles, hex};
use crate::blocking::blocking;
use crate::errors;
use crate::model::{Vm, VmId};
use crate::ports::{DiskFile, StepError, Stray};
use crate::reserve::LEFT_FREE;

/// Kind of a stray: the directory of a VM that is not known.
pub(crate) const STRAY: &str = "disks";
/// What is read at once.
const PIECE: usize = 1 << 20;

/// See the module.
#[derive(Debug, Clone)]
pub struct Disks {
    directory: PathBuf,
    assets: PathBuf,
    left_free: u64,
}

impl Disks {
    /// Disks below `<data>/vms`, from assets in their directory.
    pub fn new(directory: PathBuf, assets: PathBuf) -> Self {
        Self { directory, assets, left_free: LEFT_FREE }
    }

    fn of(&self, id: &VmId) -> PathBuf {
        self.directory.join(id.as_str())
    }

    /// The files, in the guest's order: the root device first.
    pub fn files(&self, vm: &Vm) -> Vec<DiskFile> {
        let storage = &vm.spec.storage;
        let count =
            if storage.is_empty() { usize::from(self.of(&vm.id).join("disks/disk0").exists()) } else { storage.len() };
        let root = storage.iter().position(|disk| disk.is_root_device).unwrap_or(0);
        let mut files: Vec<DiskFile> = (0..count)
            .map(|at| {
                let id = vm.spec.disk_id(at);
                let path = self.of(&vm.id).join("disks").join(&id);
                DiskFile {
                    id,
                    path,
                    read_only: storage.get(at).is_some_and(|disk| disk.read_only),
                    is_root: at == root,
                }
            })
            .collect();
        files.sort_by_key(|file| !file.is_root);
        files
    }

    /// Makes those that are not there. A copy shares its blocks with the asset where the file system can; otherwise the
    /// bytes are hashed on their way, so that a damaged asset becomes no disk.
    ///
    /// # Errors
    /// An asset is damaged, the disk is full.
    pub async fn prepare(&self, vm: &Vm, files: &BootFiles) -> Result<(), StepError> {
        let left_free = self.left_free;
        let directory = self.of(&vm.id).join("disks");
        let wanted: Vec<(PathBuf, PathBuf, String)> = files
            .disks
            .iter()
            .enumerate()
            .map(|(at, asset)| {
                (directory.join(vm.spec.disk_id(at)), self.assets.join(&asset.sha256), asset.sha256.clone())
            })
            .collect();
        blocking(move || {
            let failed = |path: &Path| {
                let path = path.display().to_string();
                move |error: io::Error| {
                    StepError::new(errors::VM_DISKS, format!("cannot make the disk {path}: {error}"))
                }
            };
            std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&directory).map_err(failed(&directory))?;
            for (path, asset, sha256) in wanted {
                if !path.exists() {
                    room(&directory, left_free).map_err(failed(&path))?;
                    copy(&asset, &path, &sha256).map_err(failed(&path))?;
                }
            }
            File::open(&directory).and_then(|directory| directory.sync_all()).map_err(failed(&directory))
        })
        .await
    }

    /// Nothing of them is left.
    ///
    /// # Errors
    /// The file system did not do as it was told.
    pub async fn remove(&self, id: &VmId) -> Result<(), StepError> {
        let directory = self.of(id);
        blocking(move || match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StepError::new(errors::VM_DISKS, format!("cannot remove {}: {error}", directory.display())))
            }
            _ => Ok(()),
        })
        .await
    }

    /// Directories of VMs that are not known.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn strays(&self, known: &[VmId]) -> Result<Vec<Stray>, StepError> {
        let failed =
            |error| StepError::new(errors::VM_DISKS, format!("cannot look into {}: {error}", self.directory.display()));
        let mut strays = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if !known.iter().any(|id| id.as_str() == name) {
                strays.push(Stray { kind: STRAY.to_owned(), name });
            }
        }
        strays.sort();
        Ok(strays)
    }
}

/// New disks do not take the last of the room: records could not be written any more, not even that a VM is deleted.
fn room(directory: &Path, left_free: u64) -> io::Result<()> {
    let free = host::space(directory).map_err(io::Error::other)?.available;
    if free >= left_free {
        return Ok(());
    }
    let text = format!("{free} bytes are free, and {left_free} have to stay so");
    Err(io::Error::new(io::ErrorKind::StorageFull, text))
}

/// Under a name of its own until it is whole.
fn copy(asset: &Path, path: &Path, sha256: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let part = tempfile::Builder::new().prefix(".part-").tempfile_in(directory)?;
    let from = File::open(asset)?;
    if rustix::fs::ioctl_ficlone(part.as_file(), &from).is_err() {
        copy_bytes(&from, part.as_file(), sha256)?;
    }
    part.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
    part.as_file().sync_all()?;
    part.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Holes stay holes: a disk of many GiB that is mostly empty takes no room for it.
fn copy_bytes(from: &File, to: &File, sha256: &str) -> io::Result<()> {
    use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
    let (mut from, mut to) = (from, to);
    let mut piece = vec![0; PIECE];
    let (mut hash, mut size) = (Sha256::new(), 0_u64);
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
        size += read as u64;
        if piece[..read].iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Current(i64::try_from(read).unwrap_or_default()))?;
        } else {
            to.write_all(&piece[..read])?;
        }
    }
    to.set_len(size)?;
    if hex(&hash.finalize()) == sha256 {
        return Ok(());
    }
    Err(io::Error::other("the asset's file is not what was added"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_room_is_not_for_disks() {
        let directory = tempfile::tempdir().unwrap();
        room(directory.path(), 0).unwrap();
        let error = room(directory.path(), u64::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
