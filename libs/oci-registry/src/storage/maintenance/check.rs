//! Checking that everything is what its name says and everything that is named is there.
//!
//! What looks wrong is looked at once more under the lock before it is told or repaired: the registry is in use.
//! Leftovers that nobody can see (blobs that no repository holds, referrer records of manifests that none holds) are not
//! wrong; a collection takes them out.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::super::{Inner, Storage, StorageError, files, layout, open};
use super::content::is_content_of;
use super::finding::{CheckOptions, CheckProgress, CheckReport, Finding, FindingKind};
use super::quarantine::Run;
use super::snapshot::digests_below;
use super::unless;
use crate::{Algorithm, Digest, RepositoryName, Tag};

impl Storage {
    /// Reads and hashes every blob, looks at every record, and with [`CheckOptions::repair`] puts right what can be.
    /// `progress` is called for every blob and every 512 KiB. Pushes and pulls go on meanwhile.
    ///
    /// # Errors
    /// A directory cannot be listed, or a repair failed. A file that cannot be read is a finding.
    pub async fn check(
        &self,
        options: CheckOptions,
        mut progress: impl FnMut(CheckProgress) + Send + 'static,
    ) -> Result<CheckReport, StorageError> {
        let usage = self.usage();
        self.upkeep(move |inner, abandoned| {
            let run = inner.next_run()?;
            let (unread, report) = (HashSet::new(), CheckReport::default());
            let mut checking = Checking { inner, options, run, unread, report };
            let mut seen = CheckProgress { blobs: 0, blobs_total: usage.blobs, bytes: 0, bytes_total: usage.bytes };
            checking.contents(abandoned, &mut |blobs, bytes| {
                seen.blobs += blobs;
                seen.bytes += bytes;
                progress(seen);
            })?;
            for link in inner.links()? {
                checking.found(FindingKind::UnknownFile, None, None, &link, false);
            }
            for repository in inner.all_repositories()? {
                unless(abandoned)?;
                checking.repository(&repository)?;
            }
            Ok(checking.report)
        })
        .await
    }
}

pub(super) struct Checking<'a> {
    pub(super) inner: &'a Inner,
    pub(super) options: CheckOptions,
    run: Run,
    /// Content whose bytes could not be read, so that nothing is known of it.
    pub(super) unread: HashSet<Digest>,
    pub(super) report: CheckReport,
}

impl Checking<'_> {
    fn contents(
        &mut self,
        abandoned: &CancellationToken,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), StorageError> {
        self.unknown_files(None, &self.inner.layout.blobs())?;
        let mut carried = false;
        let mut result = Ok(());
        for digest in digests_below(&self.inner.layout.blobs())? {
            result = unless(abandoned).and_then(|()| self.content(&digest, &mut carried, abandoned, progress));
            if result.is_err() {
                break;
            }
        }
        if carried {
            // The sizes that they were counted with are not known.
            let _committing = self.inner.committing();
            let usage = open::count(&self.inner.layout)?;
            self.inner.blobs.store(usage.blobs, Ordering::Relaxed);
            self.inner.bytes.store(usage.bytes, Ordering::Relaxed);
        }
        result
    }

    /// Reads one blob. `carried` is set when it went to quarantine.
    fn content(
        &mut self,
        digest: &Digest,
        carried: &mut bool,
        abandoned: &CancellationToken,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), StorageError> {
        let path = self.inner.layout.blob(digest);
        let (mut file, metadata) = match files::open(&path) {
            Ok(opened) => opened,
            Err(error) if files::is_absent(&error) => return Ok(()),
            Err(source) => {
                self.unread.insert(digest.clone());
                return self.readable(None, Some(digest), Err(StorageError::Read { path, source }));
            }
        };
        let is_good = is_content_of(&mut file, &path, digest, &mut |bytes| {
            progress(0, bytes);
            unless(abandoned)
        });
        match is_good {
            Ok(true) => {}
            Ok(false) => self.damaged(digest, &path, &metadata, carried)?,
            Err(error) => {
                self.unread.insert(digest.clone());
                self.readable(None, Some(digest), Err(error))?;
            }
        }
        self.report.blobs += 1;
        self.report.bytes += metadata.len();
        progress(1, 0);
        Ok(())
    }

    /// Turns a file that cannot be read into a finding, once for each file. Nothing is repaired for it: an error may
    /// pass, and what is taken for lost then is still there.
    fn readable(
        &mut self,
        repository: Option<&RepositoryName>,
        digest: Option<&Digest>,
        result: Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let Err(StorageError::Read { path, source }) = result else { return result };
        tracing::warn!(path = %path.display(), error = %source, "cannot be read");
        let relative = path.strip_prefix(self.inner.layout.root()).unwrap_or(&path);
        let is_known = |finding: &Finding| finding.kind == FindingKind::Unreadable && finding.path == relative;
        if !self.report.findings.iter().any(is_known) {
            self.found(FindingKind::Unreadable, repository, digest, &path, false);
        }
        Ok(())
    }

    fn damaged(
        &mut self,
        digest: &Digest,
        path: &Path,
        seen: &Metadata,
        carried: &mut bool,
    ) -> Result<(), StorageError> {
        {
            let _committing = self.inner.committing();
            // A push may have healed it meanwhile.
            match files::look(path) {
                Ok(now) if (now.dev(), now.ino()) == (seen.dev(), seen.ino()) => {}
                _ => return Ok(()),
            }
            if self.options.repair {
                *carried |= self.run.carry(path, &self.run.damaged(digest))?;
                self.run.settle()?;
            }
        }
        if self.options.repair {
            self.heal(digest)?;
        }
        self.found(FindingKind::DamagedContent, None, Some(digest), path, self.options.repair);
        Ok(())
    }

    /// Puts content that is not there back from quarantine; `false` when there is no good copy of it.
    pub(super) fn heal(&self, digest: &Digest) -> Result<bool, StorageError> {
        for run in self.inner.runs()?.iter_mut().rev() {
            match self.inner.put_back(run, std::slice::from_ref(digest)) {
                // No good copy, as far as can be told.
                Err(StorageError::Read { path, source }) => {
                    tracing::warn!(path = %path.display(), error = %source, "a copy in quarantine cannot be read");
                }
                back => {
                    if !back?.is_empty() {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Tells of files that are not named as they should be below `directory/<alg>/`.
    pub(super) fn unknown_files(
        &mut self,
        repository: Option<&RepositoryName>,
        directory: &Path,
    ) -> Result<(), StorageError> {
        for algorithm in Algorithm::ALL {
            let directory = directory.join(algorithm.name());
            for (name, kind) in files::list(&directory)? {
                let is_digest = format!("{}:{name}", algorithm.name()).parse::<Digest>().is_ok();
                if !is_digest || !kind.is_file() {
                    self.found(FindingKind::UnknownFile, repository, None, &directory.join(name), false);
                }
            }
        }
        Ok(())
    }

    fn repository(&mut self, name: &RepositoryName) -> Result<(), StorageError> {
        self.report.repositories += 1;
        let (inner, directory) = (self.inner, self.inner.layout.repository(name));
        for kind in [layout::BLOBS, layout::MANIFESTS] {
            self.unknown_files(Some(name), &directory.join(kind))?;
        }
        for (entry, kind) in files::list(&inner.layout.refs(name))? {
            if entry.parse::<Tag>().is_err() || kind.is_symlink() {
                let path = inner.layout.refs(name).join(entry);
                self.found(FindingKind::UnknownFile, Some(name), None, &path, false);
            }
        }
        // Tags last: one may turn out to point to nowhere.
        for digest in inner.recorded(name, layout::BLOBS)? {
            let checked = self.hold(name, &digest);
            self.readable(Some(name), Some(&digest), checked)?;
        }
        for digest in inner.recorded(name, layout::MANIFESTS)? {
            let checked = self.manifest(name, &digest);
            self.readable(Some(name), Some(&digest), checked)?;
        }
        for (subject, digest) in inner.recorded_referrers(name)? {
            let checked = self.referrer(name, &subject, &digest);
            self.readable(Some(name), Some(&digest), checked)?;
        }
        for tag in inner.tags(name)? {
            let checked = self.tag(name, &tag);
            self.readable(Some(name), None, checked)?;
        }
        Ok(())
    }

    pub(super) fn found(
        &mut self,
        kind: FindingKind,
        repository: Option<&RepositoryName>,
        digest: Option<&Digest>,
        path: &Path,
        repaired: bool,
    ) -> &mut Finding {
        let path = path.strip_prefix(self.inner.layout.root()).unwrap_or(path).to_owned();
        tracing::warn!(path = %path.display(), kind = ?kind, repaired, "the registry's storage is damaged");
        let finding =
            Finding { kind, repository: repository.cloned(), tag: None, digest: digest.cloned(), path, repaired };
        let at = self.report.findings.len();
        self.report.findings.push(finding);
        &mut self.report.findings[at]
    }
}
