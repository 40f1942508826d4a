//! Taking out what nothing needs any more.
//!
//! ```text
//! for each repository:  look, without the lock (plan.rs)
//!                       under it, if the repository is still the same: manifests' records go, then holds
//! once:                 look which blobs no record names, without the lock
//!                       under it, those that no record of a repository changed since names either: the files go
//! at the end:           runs in quarantine that are older than the grace are removed for good
//! ```
//! Everything goes by rename, and what rests on something goes before it: wherever the process is killed, what can be
//! seen is whole, and what was left over is taken out by the next run.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::super::{Inner, Storage, StorageError, files, layout, lock};
use super::content::has_digest;
use super::plan::{Going, Plan};
use super::quarantine::Run;
use super::report::{CollectOptions, CollectReport, Kind, Skipped};
use super::snapshot::{digests_below, is_young};
use super::unless;
use crate::{Algorithm, Digest, RepositoryName};

/// How often a repository that changes meanwhile is looked at without the lock.
const TRIES: usize = 3;
/// Renames while the lock is held once.
pub(super) const BATCH: usize = 256;

impl Storage {
    /// Takes out what nothing needs: see [`CollectOptions`]. Pushes and pulls go on meanwhile. What is taken out lies in
    /// quarantine, where a collection that begins later than the grace after this one removes it for good.
    ///
    /// # Errors
    /// [`StorageError::Link`]; or a directory could not be listed or a file not be moved: what was done until then is complete, and the next run goes on.
    pub async fn collect(&self, options: CollectOptions) -> Result<CollectReport, StorageError> {
        self.upkeep(move |inner, abandoned| {
            let report = CollectReport { dry_run: options.dry_run, ..CollectReport::default() };
            // What such a repository holds would be taken for what nobody holds.
            if let Some(path) = inner.links()?.into_iter().next() {
                return Err(StorageError::Link { path });
            }
            let mut collecting = Collecting { inner, options: &options, run: inner.next_run()?, report };
            for repository in inner.all_repositories()? {
                unless(abandoned)?;
                collecting.repository(&repository)?;
            }
            collecting.finish(abandoned)
        })
        .await
    }
}

pub(super) struct Collecting<'a> {
    pub(super) inner: &'a Inner,
    pub(super) options: &'a CollectOptions,
    pub(super) run: Run,
    pub(super) report: CollectReport,
}

/// One change to a repository.
enum Step {
    Manifest(Going),
    Hold(Digest),
    Widowed((Digest, Digest)),
}

impl Collecting<'_> {
    fn repository(&mut self, name: &RepositoryName) -> Result<(), StorageError> {
        for _ in 0..TRIES {
            let generation = self.inner.steady_generation(name);
            let plan = self.mark(name);
            if self.inner.steady_generation(name) == generation && self.sweep(name, plan, Some(generation))? {
                return Ok(());
            }
        }
        // It changes faster than it can be looked at. Now nobody else changes it.
        let _changing = self.inner.changing(name);
        let plan = self.mark(name);
        self.sweep(name, plan, None).map(drop)
    }

    fn mark(&self, name: &RepositoryName) -> Result<Plan, StorageError> {
        let of_this = self.options.in_use.iter().filter(|(repository, _)| repository == name);
        let in_use: Vec<Digest> = of_this.map(|(_, digest)| digest.clone()).collect();
        Ok(self.inner.snapshot(name, self.options.grace)?.plan(&in_use, self.options.digest_only))
    }

    /// Does what the plan says; `false` when the repository has changed since it had this generation and has to be
    /// looked at again. Without a generation the caller is committing.
    pub(super) fn sweep(
        &mut self,
        name: &RepositoryName,
        plan: Result<Plan, StorageError>,
        mut generation: Option<u64>,
    ) -> Result<bool, StorageError> {
        let plan = match plan {
            Err(error @ (StorageError::Record { .. } | StorageError::Corrupt { .. } | StorageError::Read { .. })) => {
                tracing::warn!(repository = %name, error = %error, "nothing of this repository is collected");
                self.report.skipped.push(Skipped { repository: name.clone(), reason: error.to_string() });
                return Ok(true);
            }
            plan => plan?,
        };
        if self.options.dry_run {
            let manifests = plan.manifests.iter().flatten().map(|going| &going.digest);
            manifests.for_each(|digest| self.report.note(Kind::Manifest, Some(name), digest, None));
            plan.holds.iter().for_each(|digest| self.report.note(Kind::Hold, Some(name), digest, None));
            return Ok(true);
        }
        for stage in stages(plan) {
            let _changing = match &mut generation {
                None => None,
                Some(seen) => {
                    let changing = self.inner.changing(name);
                    *seen += 1;
                    if self.inner.generation(name) != *seen {
                        return Ok(false);
                    }
                    Some(changing)
                }
            };
            self.stage(name, &stage)?;
        }
        Ok(true)
    }

    /// The caller is committing.
    fn stage(&mut self, name: &RepositoryName, steps: &[Step]) -> Result<(), StorageError> {
        let Self { inner, run, report, .. } = self;
        for step in steps {
            let (kind, digest, from, to) = match step {
                Step::Manifest(Going { digest, .. }) => {
                    let to = run.layout.held_manifest(name, digest);
                    (Kind::Manifest, digest, inner.layout.held_manifest(name, digest), to)
                }
                Step::Hold(digest) => {
                    let to = run.layout.held_blob(name, digest);
                    (Kind::Hold, digest, inner.layout.held_blob(name, digest), to)
                }
                Step::Widowed(_) => continue,
            };
            if run.carry(&from, &to)? {
                report.note(kind, Some(name), digest, None);
            }
        }
        run.settle()?;
        // These can be written anew from the manifests, so they need not be kept.
        for step in steps {
            match step {
                Step::Manifest(Going { digest, subject: Some(subject) }) => {
                    inner.forget_referrer(name, subject, digest)?;
                }
                Step::Widowed((subject, digest)) => inner.forget_referrer(name, subject, digest)?,
                Step::Manifest(_) | Step::Hold(_) => {}
            }
        }
        inner.forget_empty(name);
        Ok(())
    }

    fn finish(mut self, abandoned: &CancellationToken) -> Result<CollectReport, StorageError> {
        let before = self.inner.steady_generations();
        let named = self.named()?;
        let mut candidates = Vec::new();
        for digest in digests_below(&self.inner.layout.blobs())? {
            let path = self.inner.layout.blob(&digest);
            if !named.contains(&digest) && is_young(&path, self.options.grace)? == Some(false) {
                candidates.push(digest);
            }
        }
        for batch in candidates.chunks(BATCH) {
            unless(abandoned)?;
            self.blobs(batch, &before)?;
        }
        unless(abandoned)?;
        self.expire(&named)?;
        let Self { inner, run, mut report, .. } = self;
        report.quarantined.sort();
        report.run = (!report.dry_run && !report.quarantined.is_empty()).then_some(run.number);
        for run in inner.runs()? {
            report.quarantine_bytes += run.usage()?.bytes;
        }
        Ok(report)
    }

    /// Every digest that a record of some repository names, or a manifest that some repository holds: should the
    /// record of a blob be lost, the blob is not. In a dry run without those that would have gone.
    fn named(&self) -> Result<HashSet<Digest>, StorageError> {
        let mut gone = HashSet::new();
        if self.options.dry_run {
            let taken = &self.report.quarantined;
            gone = taken.iter().map(|taken| (taken.kind, taken.repository.as_ref(), &taken.digest)).collect();
        }
        let mut named = HashSet::new();
        for repository in self.inner.all_repositories()? {
            for (kind, directory) in [(Kind::Hold, layout::BLOBS), (Kind::Manifest, layout::MANIFESTS)] {
                let mut recorded = self.inner.recorded(&repository, directory)?;
                recorded.retain(|digest| !gone.contains(&(kind, Some(&repository), digest)));
                for manifest in recorded.iter().filter(|_| kind == Kind::Manifest) {
                    match self.inner.names(manifest) {
                        Ok((names, _)) => named.extend(names),
                        // What it names cannot be known. The repository's records are all there: nothing was taken out.
                        Err(StorageError::Corrupt { .. } | StorageError::Read { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                named.extend(recorded);
            }
        }
        Ok(named)
    }

    /// Takes out those of these blobs that are still named by nothing. At `before` nothing named them.
    pub(super) fn blobs(
        &mut self,
        digests: &[Digest],
        before: &HashMap<RepositoryName, u64>,
    ) -> Result<(), StorageError> {
        let Self { inner, run, report, options } = self;
        let _committing = inner.committing();
        let changed = inner.changed_since(before);
        for digest in digests {
            let path = inner.layout.blob(digest);
            // Pushed again, even if it was let go of after that.
            if is_young(&path, options.grace)? != Some(false) {
                continue;
            }
            let mut is_named = false;
            for repository in &changed {
                is_named |= files::size_of(&inner.layout.held_blob(repository, digest))?.is_some()
                    || files::size_of(&inner.layout.held_manifest(repository, digest))?.is_some();
            }
            let Some(size) = files::size_of(&path)?.filter(|_| !is_named) else { continue };
            if options.dry_run {
                report.note(Kind::Blob, None, digest, Some(size));
            } else if run.carry(&path, &run.layout.blob(digest))? {
                inner.blobs.fetch_sub(1, Ordering::Relaxed);
                inner.bytes.fetch_sub(size, Ordering::Relaxed);
                report.note(Kind::Blob, None, digest, Some(size));
            }
        }
        run.settle()
    }

    /// Removes what was taken out long enough ago. Should a record name a blob that is nowhere else, it is put back.
    fn expire(&mut self, named: &HashSet<Digest>) -> Result<(), StorageError> {
        for mut run in self.inner.runs()? {
            if run.number == self.run.number || !run.is_older_than(self.options.grace) {
                continue;
            }
            self.report.expired_runs.push(run.usage()?);
            if self.options.dry_run {
                continue;
            }
            let mut needed: Vec<Digest> = run.blobs()?.into_iter().map(|(digest, _)| digest).collect();
            needed.retain(|digest| named.contains(digest));
            for (digest, _) in self.inner.put_back(&mut run, &needed)? {
                tracing::error!(digest = %digest, "a blob in quarantine is needed: put back");
            }
            tracing::info!(run = run.number, "removing what was taken out");
            run.remove()?;
        }
        Ok(())
    }
}

/// The steps of a plan, in the order of their stages: each is on the disk before the next begins.
fn stages(plan: Plan) -> Vec<Vec<Step>> {
    let Plan { manifests, holds, widowed } = plan;
    let holds = holds.into_iter().map(Step::Hold).collect();
    let widowed = widowed.into_iter().map(Step::Widowed).collect();
    let manifests = manifests.into_iter().map(|stage| stage.into_iter().map(Step::Manifest).collect());
    let mut batches = Vec::new();
    for mut stage in manifests.chain([holds, widowed]).collect::<Vec<Vec<Step>>>() {
        while !stage.is_empty() {
            let rest = stage.split_off(stage.len().min(BATCH));
            batches.push(std::mem::replace(&mut stage, rest));
        }
    }
    batches
}

impl Inner {
    /// The generation while nobody is changing anything: with the number alone, a change that had begun before would
    /// not be told from one that was over.
    pub(super) fn steady_generation(&self, repository: &RepositoryName) -> u64 {
        let _committing = self.committing();
        self.generation(repository)
    }

    pub(super) fn steady_generations(&self) -> HashMap<RepositoryName, u64> {
        let _committing = self.committing();
        lock(&self.generations).clone()
    }

    fn changed_since(&self, before: &HashMap<RepositoryName, u64>) -> Vec<RepositoryName> {
        let now = lock(&self.generations);
        let changed = now.iter().filter(|(name, generation)| before.get(*name) != Some(*generation));
        changed.map(|(name, _)| name.clone()).collect()
    }

    /// Puts those of these blobs back that are not there and not damaged in quarantine; tells which, and their sizes in
    /// bytes.
    pub(super) fn put_back(&self, run: &mut Run, digests: &[Digest]) -> Result<Vec<(Digest, u64)>, StorageError> {
        let mut good = Vec::new();
        for digest in digests {
            if files::size_of(&self.layout.blob(digest))?.is_none() && has_digest(&run.layout.blob(digest), digest)? {
                good.push(digest);
            }
        }
        let _committing = self.committing();
        let mut back = Vec::new();
        for digest in good {
            let (from, to) = (run.layout.blob(digest), self.layout.blob(digest));
            if files::size_of(&to)?.is_none()
                && let Some(size) = files::size_of(&from)?
                && run.carry(&from, &to)?
            {
                self.blobs.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(size, Ordering::Relaxed);
                back.push((digest.clone(), size));
            }
        }
        run.settle().map(|()| back)
    }

    fn forget_referrer(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        digest: &Digest,
    ) -> Result<(), StorageError> {
        files::remove(&self.layout.referrer(repository, subject, digest))?;
        remove_if_empty(&self.layout.referrers(repository, subject));
        Ok(())
    }

    /// Lets go of directories that are empty, so that a repository that holds nothing is not listed. They are made anew
    /// under the lock that the caller holds.
    fn forget_empty(&self, repository: &RepositoryName) {
        let directory = self.layout.repository(repository);
        for kind in [layout::BLOBS, layout::MANIFESTS, layout::REFERRERS] {
            for algorithm in Algorithm::ALL {
                remove_if_empty(&directory.join(kind).join(algorithm.name()));
            }
            remove_if_empty(&directory.join(kind));
        }
    }
}

fn remove_if_empty(directory: &Path) {
    // Most are not, and whether they are is not worth a look of its own.
    let _ = fs::remove_dir(directory);
}
