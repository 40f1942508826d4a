//! Where what was taken out lies until it is removed for good: `quarantine/<run>/`, at the paths it had.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::super::layout::Layout;
use super::super::{Inner, Storage, StorageError, files};
use super::snapshot::digests_below;
use crate::Digest;

/// What one run took out and is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QuarantinedRun {
    /// Its number: seconds since 1970 at its start, or the next one that was free.
    pub run: u64,
    /// Blobs in it, damaged ones included.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Storage {
    /// What lies in quarantine, the oldest run first. It is not part of [`Storage::usage`].
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub async fn quarantine(&self) -> Result<Vec<QuarantinedRun>, StorageError> {
        self.run(|inner| inner.runs()?.into_iter().map(|run| run.usage()).collect()).await
    }
}

/// A directory of the quarantine. It is made when something goes into it.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    pub(super) layout: Layout,
    /// Directories whose entries have changed since the last [`Run::settle`].
    changed: BTreeSet<PathBuf>,
}

impl Inner {
    /// The runs that are there, the oldest first.
    pub(super) fn runs(&self) -> Result<Vec<Run>, StorageError> {
        let entries = files::list(&self.layout.quarantine())?;
        let numbers = entries.into_iter().filter(|(_, kind)| kind.is_dir()).filter_map(|(name, _)| name.parse().ok());
        let mut runs: Vec<Run> = numbers.map(|number| self.run_of(number)).collect();
        runs.sort_by_key(|run| run.number);
        Ok(runs)
    }

    pub(super) fn run_of(&self, number: u64) -> Run {
        let layout = Layout::new(self.layout.quarantine().join(number.to_string()));
        Run { number, layout, changed: BTreeSet::new() }
    }

    /// A run of its own, later than all that are there.
    pub(super) fn next_run(&self) -> Result<Run, StorageError> {
        let after = self.runs()?.last().map_or(0, |run| run.number + 1);
        Ok(self.run_of(after.max(now())))
    }
}

impl Run {
    /// Whether it began at least this long ago.
    pub(super) fn is_older_than(&self, grace: Duration) -> bool {
        now().saturating_sub(self.number) >= grace.as_secs()
    }

    pub(super) fn damaged(&self, digest: &Digest) -> PathBuf {
        self.damaged_root().join(digest.algorithm().name()).join(digest.hex())
    }

    fn damaged_root(&self) -> PathBuf {
        self.layout.root().join("damaged")
    }

    /// Moves a file; `false` when it is not there. On the disk after [`Run::settle`]. The caller is committing.
    pub(super) fn carry(&mut self, from: &Path, to: &Path) -> Result<bool, StorageError> {
        if let Some(directory) = to.parent()
            && !self.changed.contains(directory)
        {
            files::create_directory(directory)?;
        }
        match fs::rename(from, to) {
            Ok(()) => {}
            Err(error) if files::is_absent(&error) => return Ok(false),
            Err(source) => return Err(StorageError::Rename { path: to.to_owned(), source }),
        }
        self.changed.extend([from, to].into_iter().filter_map(Path::parent).map(Path::to_owned));
        Ok(true)
    }

    /// Brings what was moved to the disk, so that the next step may rest on it.
    pub(super) fn settle(&mut self) -> Result<(), StorageError> {
        self.changed.iter().try_for_each(|directory| files::sync_directory(directory))?;
        self.changed.clear();
        Ok(())
    }

    /// Its blobs with their sizes in bytes.
    pub(super) fn blobs(&self) -> Result<Vec<(Digest, u64)>, StorageError> {
        sizes(&self.layout.blobs())
    }

    pub(super) fn usage(&self) -> Result<QuarantinedRun, StorageError> {
        let (blobs, damaged) = (self.blobs()?, sizes(&self.damaged_root())?);
        let bytes = blobs.iter().chain(&damaged).map(|(_, size)| size).sum();
        Ok(QuarantinedRun { run: self.number, blobs: (blobs.len() + damaged.len()) as u64, bytes })
    }

    /// Removes it for good. Records go before blobs: what is left of it half-way can still be put back.
    pub(super) fn remove(&self) -> Result<(), StorageError> {
        for path in [self.layout.repositories().as_path(), self.layout.root()] {
            match fs::remove_dir_all(path) {
                Err(source) if !files::is_absent(&source) => {
                    return Err(StorageError::Remove { path: path.to_owned(), source });
                }
                _ => {}
            }
        }
        self.layout.root().parent().map_or(Ok(()), files::sync_directory)
    }
}

fn sizes(directory: &Path) -> Result<Vec<(Digest, u64)>, StorageError> {
    let mut found = Vec::new();
    for digest in digests_below(directory)? {
        let path = directory.join(digest.algorithm().name()).join(digest.hex());
        found.extend(files::size_of(&path)?.map(|size| (digest, size)));
    }
    Ok(found)
}

/// Seconds since 1970.
fn now() -> u64 {
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
