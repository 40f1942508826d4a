//! Putting back what a collection took out.

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::super::manifest::contents_of;
use super::super::record::ManifestRecord;
use super::super::{Inner, Storage, StorageError, files, layout, walk_repositories};
use super::collect::BATCH;
use super::quarantine::Run;
use super::snapshot::digests_below;
use super::unless;
use crate::{Digest, RepositoryName};

/// What was put back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// The runs that were looked through.
    pub runs: Vec<u64>,
    /// Manifests that repositories hold again.
    pub manifests: u64,
    /// Blobs that repositories hold again, counted for each repository.
    pub holds: u64,
    /// Blobs and manifests whose bytes are back.
    pub blobs: u64,
    /// Those bytes.
    pub bytes: u64,
    /// What stays in quarantine because it is damaged, or because content that it needs is nowhere.
    pub left: Vec<Digest>,
}

impl Storage {
    /// Puts back what a run took out, or what all did that are still in quarantine, where it is not there already. What
    /// is put back has a new lease: a collection lets it be for its grace, in which it can be tagged.
    ///
    /// # Errors
    /// [`StorageError::RunUnknown`]; or a file cannot be moved: what was done until then is complete.
    pub async fn restore(&self, run: Option<u64>) -> Result<RestoreReport, StorageError> {
        self.upkeep(move |inner, abandoned| {
            let mut runs = inner.runs()?;
            // What was taken out last is what was there last.
            runs.reverse();
            if let Some(number) = run {
                if !runs.iter().any(|run| run.number == number) {
                    let there = runs.iter().map(|run| run.number).collect();
                    return Err(StorageError::RunUnknown { run: number, there });
                }
                runs.retain(|run| run.number == number);
            }
            let mut report = RestoreReport::default();
            for run in &mut runs {
                report.runs.push(run.number);
                inner.restore_blobs(run, &mut report, abandoned)?;
            }
            for run in &mut runs {
                inner.restore_records(run, &mut report, abandoned)?;
            }
            Ok(report)
        })
        .await
    }
}

impl Inner {
    fn restore_blobs(
        &self,
        run: &mut Run,
        report: &mut RestoreReport,
        abandoned: &CancellationToken,
    ) -> Result<(), StorageError> {
        let digests: Vec<Digest> = run.blobs()?.into_iter().map(|(digest, _)| digest).collect();
        for batch in digests.chunks(BATCH) {
            unless(abandoned)?;
            for (_, size) in self.put_back(run, batch)? {
                report.blobs += 1;
                report.bytes += size;
            }
            for digest in batch {
                if files::size_of(&self.layout.blob(digest))?.is_none() {
                    report.left.push(digest.clone());
                }
            }
        }
        Ok(())
    }

    fn restore_records(
        &self,
        run: &mut Run,
        report: &mut RestoreReport,
        abandoned: &CancellationToken,
    ) -> Result<(), StorageError> {
        let mut names = Vec::new();
        walk_repositories(&run.layout, &mut |name, _| {
            names.push(name.clone());
            Ok(())
        })?;
        for name in names {
            unless(abandoned)?;
            for batch in digests_below(&run.layout.repository(&name).join(layout::BLOBS))?.chunks(BATCH) {
                self.restore_holds(run, &name, batch, report)?;
            }
            let mut waiting = digests_below(&run.layout.repository(&name).join(layout::MANIFESTS))?;
            // What an index lists comes before it; the order is in the manifests.
            loop {
                let count = waiting.len();
                let mut later = Vec::new();
                for digest in waiting {
                    match self.restore_manifest(run, &name, &digest)? {
                        Some(restored) => report.manifests += u64::from(restored),
                        None => later.push(digest),
                    }
                }
                waiting = later;
                if waiting.len() == count || waiting.is_empty() {
                    break;
                }
            }
            report.left.extend(waiting);
        }
        Ok(())
    }

    /// Puts holds back whose blobs are there.
    fn restore_holds(
        &self,
        run: &mut Run,
        repository: &RepositoryName,
        digests: &[Digest],
        report: &mut RestoreReport,
    ) -> Result<(), StorageError> {
        let _changing = self.changing(repository);
        for digest in digests {
            let (from, to) = (run.layout.held_blob(repository, digest), self.layout.held_blob(repository, digest));
            if files::size_of(&to)?.is_some() {
                continue;
            }
            if files::size_of(&self.layout.blob(digest))?.is_none() {
                report.left.push(digest.clone());
                continue;
            }
            files::renew(&from)?;
            report.holds += u64::from(run.carry(&from, &to)?);
        }
        run.settle()
    }

    /// Whether a manifest was put back; `None` where it, or what it names, is not there.
    fn restore_manifest(
        &self,
        run: &mut Run,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<bool>, StorageError> {
        let _changing = self.changing(repository);
        let (from, to) = (run.layout.held_manifest(repository, digest), self.layout.held_manifest(repository, digest));
        if files::size_of(&to)?.is_some() {
            return Ok(Some(false));
        }
        let bytes = files::read(&self.layout.blob(digest))?.unwrap_or_default();
        let Some(ManifestRecord { descriptor, .. }) = self.read_record(&from)? else { return Ok(None) };
        let Ok(contents) = contents_of(&descriptor.media_type, &bytes) else { return Ok(None) };
        if !self.is_cached(repository)? {
            match self.check_references(repository, &contents) {
                Err(StorageError::ReferencesUnknown(_) | StorageError::ManifestInvalid(_)) => return Ok(None),
                whole => whole?,
            }
        }
        self.write_referrer(repository, &descriptor, &contents)?;
        files::renew(&from)?;
        let restored = run.carry(&from, &to)?;
        run.settle().map(|()| Some(restored))
    }
}
