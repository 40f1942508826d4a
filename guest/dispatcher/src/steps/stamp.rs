//! What was done to a disk, kept on its root file system: `/.cairn/steps.json`.
//!
//! A power cut can come between any two lines. The stamp of the partition step is written last, after every file
//! system was made; without it the disk is made anew. `image_begun` is set before the first byte is unpacked and
//! `image_digest` after the last one is on the disk; a disk with the first and without the second is made anew too.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use recipe::Placement;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::failure::{Failure, code};

const DIRECTORY: &str = ".cairn";
const FILE: &str = "steps.json";

/// How far a job has come on this disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// The job that made the partitions.
    pub job_id: Uuid,
    /// The partitions, as they were made.
    pub placements: Vec<Placement>,
    /// Digest of the artifact that is being unpacked.
    #[serde(default)]
    pub image_begun: Option<String>,
    /// Digest of the artifact that was unpacked in full.
    #[serde(default)]
    pub image_digest: Option<String>,
}

impl Stamp {
    /// The stamp of a root file system that is mounted at `root`; `None` when there is none that makes sense.
    pub(super) fn read(root: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(root.join(DIRECTORY).join(FILE)).ok()?).ok()
    }

    /// Writes everything before it to the disk, then the stamp.
    pub(super) fn write(&self, root: &Path) -> Result<(), Failure> {
        let directory = root.join(DIRECTORY);
        host::sync_file_system(root).map_err(Failure::of(code::STATE_UNWRITABLE))?;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|error| {
            Failure::new(code::STATE_UNWRITABLE, format!("cannot make {}: {error}", directory.display()))
        })?;
        let text = serde_json::to_vec_pretty(self).map_err(Failure::of(code::STATE_UNWRITABLE))?;
        host::write_atomic(&directory.join(FILE), &text, 0o600).map_err(Failure::of(code::STATE_UNWRITABLE))?;
        host::sync_file_system(root).map_err(Failure::of(code::STATE_UNWRITABLE))
    }

    /// Whether the disk can be used as it is: made for this job, with this layout, and not half unpacked.
    pub(super) fn is_usable(&self, job: Uuid, placements: &[Placement]) -> bool {
        self.job_id == job && self.placements == placements && self.image_begun == self.image_digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_disk_of_the_same_job_is_used_again() {
        let job = Uuid::from_u128(7);
        let mut stamp = Stamp { job_id: job, placements: Vec::new(), image_begun: None, image_digest: None };
        assert!(stamp.is_usable(job, &[]));
        assert!(!stamp.is_usable(Uuid::from_u128(8), &[]));
        stamp.image_begun = Some("sha256:1".into());
        assert!(!stamp.is_usable(job, &[]), "the power went while it was unpacked");
        stamp.image_digest = Some("sha256:1".into());
        assert!(stamp.is_usable(job, &[]));
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Stamp::read(root.path()), None);
        stamp.write(root.path()).unwrap();
        assert_eq!(Stamp::read(root.path()), Some(stamp));
        std::fs::write(root.path().join(".cairn/steps.json"), "{").unwrap();
        assert_eq!(Stamp::read(root.path()), None);
    }
}
