//! What is done with a storage, the same through the API and on a directory that no daemon holds.

use oci_registry::storage::maintenance::{
    CheckOptions, CheckProgress, CheckReport, CollectOptions, CollectReport, DigestOnly, Keep, RetentionReport,
    RetentionRule,
};
use oci_registry::storage::{Storage, StorageError};
use oci_registry::{Digest, RepositoryName, Selector};

use crate::model::{BlobView, RepositoryList, RepositoryUsageView, RepositoryView, TagView, UsageReport, UsageView};
use crate::settings::UpkeepSettings;

/// Collects what nothing refers to, by the settings.
pub(crate) async fn collect(
    storage: &Storage,
    settings: &UpkeepSettings,
    dry_run: bool,
    in_use: Vec<(RepositoryName, Digest)>,
) -> Result<CollectReport, StorageError> {
    let digest_only = if settings.collect_digest_only { DigestOnly::Collect } else { DigestOnly::Keep };
    storage.collect(CollectOptions { grace: settings.grace, digest_only, dry_run, in_use }).await
}

/// Removes tags that are more than the settings keep (seed 8.2). Operating systems are all kept.
pub(crate) async fn retain(
    storage: &Storage,
    settings: &UpkeepSettings,
    dry_run: bool,
    in_use: &[(RepositoryName, Digest)],
) -> Result<RetentionReport, StorageError> {
    let rules = [
        RetentionRule { prefix: "tools".to_owned(), keep: Keep::Last(settings.tools_keep) },
        RetentionRule { prefix: "maintenance".to_owned(), keep: Keep::LastPerMinor(settings.maintenance_keep) },
    ];
    storage.retain(&rules, dry_run, in_use).await
}

/// Reads everything and compares it with its digests.
pub(crate) async fn check(
    storage: &Storage,
    repair: bool,
    progress: impl FnMut(CheckProgress) + Send + 'static,
) -> Result<CheckReport, StorageError> {
    storage.check(CheckOptions { repair }, progress).await
}

/// How much is stored.
pub(crate) async fn usage(storage: &Storage) -> Result<UsageView, StorageError> {
    let usage = storage.usage();
    let quarantine_bytes = storage.quarantine().await?.iter().map(|run| run.bytes).sum();
    Ok(UsageView { blobs: usage.blobs, bytes: usage.bytes, quarantine_bytes })
}

/// What takes room, with so many of the largest blobs.
pub(crate) async fn usage_report(storage: &Storage, largest: usize) -> Result<UsageReport, StorageError> {
    let repositories = storage.usage_by_repository().await?.into_iter().map(|of| RepositoryUsageView {
        name: of.repository.to_string(),
        tags: of.tags,
        manifests: of.manifests,
        blobs: of.blobs,
        bytes: of.bytes,
        own_bytes: of.own_bytes,
    });
    let mut repositories: Vec<_> = repositories.collect();
    repositories.sort_by(|one, other| (other.bytes, &one.name).cmp(&(one.bytes, &other.name)));
    let largest = storage.largest(largest).await?.into_iter().map(|blob| BlobView {
        digest: blob.digest.to_string(),
        size: blob.size,
        repositories: blob.repositories.iter().map(ToString::to_string).collect(),
        referenced: blob.referenced,
    });
    Ok(UsageReport { usage: usage(storage).await?, repositories, largest: largest.collect() })
}

/// Which repositories are listed.
#[derive(Debug, Default)]
pub(crate) struct RepositoryFilter {
    /// This one and those below it.
    pub(crate) prefix: Option<String>,
    /// Those whose names come after this one.
    pub(crate) after: Option<String>,
    /// At most so many.
    pub(crate) most: usize,
}

impl RepositoryFilter {
    fn wants(&self, name: &RepositoryName) -> bool {
        let below = |prefix: &String| {
            let rest = name.as_str().strip_prefix(prefix.trim_end_matches('/'));
            prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.prefix.as_ref().is_none_or(below) && self.after.as_deref().is_none_or(|after| name.as_str() > after)
    }
}

/// Repositories with their tags.
pub(crate) async fn repositories(storage: &Storage, filter: &RepositoryFilter) -> Result<RepositoryList, StorageError> {
    let mut names: Vec<_> = storage.repositories().await?.into_iter().filter(|name| filter.wants(name)).collect();
    let more = names.len() > filter.most;
    names.truncate(filter.most);
    let next_cursor = names.last().filter(|_| more).map(ToString::to_string);
    let mut repositories = Vec::new();
    for name in names {
        repositories.push(repository(storage, &name).await);
    }
    Ok(RepositoryList { repositories, next_cursor })
}

/// One repository. What of it cannot be read is named, for the others are whole.
async fn repository(storage: &Storage, name: &RepositoryName) -> RepositoryView {
    let told = |error: &StorageError| {
        tracing::error!(error = error as &dyn std::error::Error, repository = %name, "a repository is damaged");
    };
    let mut view = RepositoryView { name: name.to_string(), tags: Vec::new(), damage: None };
    let tags = match storage.tags(name).await {
        Ok(tags) => tags,
        Err(error) => {
            told(&error);
            view.damage = Some("its tags cannot be listed".to_owned());
            return view;
        }
    };
    let mut damaged = Vec::new();
    for tag in tags {
        let text = tag.to_string();
        match storage.resolve(name, &Selector::Tag(tag)).await {
            Ok(Some(found)) => {
                let (digest, media_type, size) = (found.digest.to_string(), found.media_type, found.size);
                view.tags.push(TagView { name: text, digest, media_type, size });
            }
            // A tag may go while the list is made.
            Ok(None) => {}
            Err(error) => {
                told(&error);
                damaged.push(text);
            }
        }
    }
    if !damaged.is_empty() {
        view.damage = Some(format!("tags that cannot be read: {}", damaged.join(", ")));
    }
    view
}
