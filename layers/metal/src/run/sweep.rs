//! Task media of complete jobs go after JOB_RETENTION_DAYS (runbook 8.2), those of active jobs never.

use std::path::PathBuf;

use jiff::SignedDuration;

use crate::context::Metal;
use crate::model::{JobId, Status};
use crate::store::Error;

/// Removes the folders of media whose jobs have been complete for long enough.
pub(super) async fn sweep(metal: &Metal) -> Result<(), Error> {
    let keep = SignedDuration::try_from(metal.settings.retention).unwrap_or(SignedDuration::MAX);
    for (id, folder) in folders(metal) {
        let old = match metal.store.job(id).await? {
            Some(job) => job.status == Status::Complete && metal.clock.now().duration_since(job.updated_at) > keep,
            None => false,
        };
        if !old {
            continue;
        }
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => tracing::info!(job_id = %id, path = %folder.display(), "task media removed"),
            Err(error) => {
                tracing::warn!(job_id = %id, path = %folder.display(), error = &error as &dyn std::error::Error, "task media stay")
            }
        }
    }
    Ok(())
}

/// Folders that are named after jobs.
fn folders(metal: &Metal) -> Vec<(JobId, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(&metal.settings.task_iso_dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect()
}
