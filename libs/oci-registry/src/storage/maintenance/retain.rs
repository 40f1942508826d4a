//! Letting old tags go. What they pointed to is collected later.

use std::os::unix::fs::MetadataExt as _;

use serde::Serialize;

use super::super::{Inner, Storage, StorageError, files};
use super::retention::{RetentionRule, Tagged, excess, rule_for};
use super::unless;
use crate::{Descriptor, Digest, RepositoryName, Tag};

/// Which tags went, or would go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RetentionReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The tags, by repository and the oldest first.
    pub removed: Vec<RemovedTag>,
    /// Tags that stay in the repositories that a rule fits.
    pub kept: u64,
}

/// A tag that went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemovedTag {
    /// Its repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// What it pointed to.
    pub digest: Digest,
    /// When it was set to that, in seconds since 1970.
    pub tagged: i64,
}

impl Storage {
    /// Removes the tags that rules do not keep, counted by the time that they were set. A tag that points to
    /// `protected` content stays. Nothing else is removed: a later [`Storage::collect`] takes out what has become
    /// unneeded. With `dry_run` nothing is changed.
    ///
    /// # Errors
    /// A record cannot be read or removed.
    pub async fn retain(
        &self,
        rules: &[RetentionRule],
        dry_run: bool,
        protected: &[(RepositoryName, Digest)],
    ) -> Result<RetentionReport, StorageError> {
        let (rules, protected) = (rules.to_vec(), protected.to_vec());
        self.upkeep(move |inner, abandoned| {
            let mut report = RetentionReport { dry_run, ..RetentionReport::default() };
            for name in inner.all_repositories()? {
                unless(abandoned)?;
                let Some(rule) = rule_for(&rules, &name) else { continue };
                let stays: Vec<&Digest> =
                    protected.iter().filter(|of| of.0 == name).map(|(_, digest)| digest).collect();
                let tags = inner.tagged(&name)?;
                report.kept += tags.len() as u64;
                for tagged in excess(rule.keep, &tags, &stays) {
                    if dry_run || inner.let_go(&name, &tagged)? {
                        report.kept -= 1;
                        let Tagged { tag, digest, at } = tagged;
                        report.removed.push(RemovedTag { repository: name.clone(), tag, digest, tagged: at.0 });
                    }
                }
            }
            Ok(report)
        })
        .await
    }
}

impl Inner {
    fn tagged(&self, repository: &RepositoryName) -> Result<Vec<Tagged>, StorageError> {
        let mut found = Vec::new();
        for tag in self.tags(repository)? {
            // Damaged ones are for a check to tell of.
            match self.tag_record(repository, tag) {
                Err(StorageError::Record { .. }) => {}
                tagged => found.extend(tagged?),
            }
        }
        Ok(found)
    }

    fn tag_record(&self, repository: &RepositoryName, tag: Tag) -> Result<Option<Tagged>, StorageError> {
        let path = self.layout.tag(repository, &tag);
        let at = match files::look(&path) {
            Ok(metadata) => (metadata.mtime(), metadata.mtime_nsec()),
            Err(error) if files::is_absent(&error) => return Ok(None),
            Err(source) => return Err(StorageError::Read { path, source }),
        };
        let record = self.read_record::<Descriptor>(&path)?;
        Ok(record.map(|Descriptor { digest, .. }| Tagged { tag, digest, at }))
    }

    /// Removes a tag; `false` when it has been set again or removed since it was looked at.
    fn let_go(&self, repository: &RepositoryName, tagged: &Tagged) -> Result<bool, StorageError> {
        let _changing = self.changing(repository);
        if self.tag_record(repository, tagged.tag.clone())?.as_ref() != Some(tagged) {
            return Ok(false);
        }
        self.remove_tag(repository, &tagged.tag)
    }
}
