//! Storage for callers in the same process: what is recorded, and for how long it stands.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use oci_registry::storage::{Limits, Storage, StorageError, Stored};
use oci_registry::{Algorithm, Descriptor, Digest, RepositoryName, Selector, Tag, media_type};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::{name, tag};
use crate::stock::{Stock, push};

struct Disk {
    directory: TempDir,
    storage: Storage,
    repository: RepositoryName,
}

impl Disk {
    async fn open(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), limits).await.unwrap();
        Self { directory, storage, repository: name("a/b") }
    }

    fn record(&self, kind: &str, digest: &Digest) -> PathBuf {
        let below = format!("repositories/a/b/{kind}/{}/{}", digest.algorithm().name(), digest.hex());
        self.directory.path().join(below)
    }

    async fn push(&self, bytes: &'static [u8], begun: Algorithm, digest: &Digest) -> Result<u64, StorageError> {
        let upload = self.storage.start_upload(&self.repository, begun).await?;
        let body = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(bytes))]);
        upload.append(body, None).await?;
        upload.finish(digest).await
    }

    async fn put(&self, selector: &Selector, kind: &str, json: &Value) -> Result<Stored, StorageError> {
        let bytes = Bytes::from(json.to_string());
        self.storage.put_manifest(&self.repository, selector, &[], kind, bytes).await
    }

    /// Stores a manifest of the empty descriptor; `text` tells it from others.
    async fn image(&self, selector: Option<&Selector>, text: &str, subject: Option<&Digest>) -> Stored {
        self.push(b"{}", Algorithm::Sha256, &Digest::sha256_of(b"{}")).await.unwrap();
        let manifest = image(text, subject);
        let digest = Selector::from(Digest::sha256_of(manifest.to_string().as_bytes()));
        self.put(selector.unwrap_or(&digest), media_type::OCI_MANIFEST, &manifest).await.unwrap()
    }

    fn is_adopted(&self, digest: &Digest) -> bool {
        let record: Value = serde_json::from_slice(&std::fs::read(self.record("_manifests", digest)).unwrap()).unwrap();
        record["adopted"] == true
    }
}

fn image(text: &str, subject: Option<&Digest>) -> Value {
    let subject = subject.map(|digest| Descriptor::new(media_type::OCI_MANIFEST, digest.clone(), 1));
    let mut manifest = json!({
        "schemaVersion": 2, "config": Descriptor::empty(), "layers": [], "annotations": {"text": text},
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!(subject);
    }
    manifest
}

fn age(record: &Path) {
    let long_ago = record.metadata().unwrap().modified().unwrap() - Duration::from_secs(3600);
    File::options().write(true).open(record).unwrap().set_modified(long_ago).unwrap();
}

fn is_old(record: &Path) -> bool {
    record.metadata().unwrap().modified().unwrap().elapsed().unwrap() > Duration::from_secs(1800)
}

#[tokio::test]
async fn both_algorithms_whichever_the_session_was_begun_with() {
    let disk = Disk::open(Limits::default()).await;
    for begun in Algorithm::ALL {
        for used in Algorithm::ALL {
            let digest = Digest::of(used, b"content");
            assert_eq!(disk.push(b"content", begun, &digest).await.unwrap(), 7, "{begun:?} {used:?}");
            assert_eq!(disk.storage.blob_size(&disk.repository, &digest).await.unwrap(), Some(7));
            let wrong = disk.push(b"other", begun, &digest).await;
            assert!(matches!(wrong, Err(StorageError::DigestMismatch { .. })), "{begun:?} {used:?}");
        }
    }
    assert_eq!(disk.storage.usage().blobs, 2);
    assert!(disk.storage.delete_blob(&disk.repository, &Digest::sha256_of(b"content")).await.unwrap());
    assert!(!disk.storage.delete_blob(&disk.repository, &Digest::sha256_of(b"content")).await.unwrap());
    assert_eq!(disk.storage.blob_size(&disk.repository, &Digest::sha256_of(b"content")).await.unwrap(), None);
    assert_eq!(disk.storage.usage().blobs, 2, "bytes stay until they are collected");
}

#[tokio::test]
async fn a_manifest_is_adopted_by_a_tag_or_an_index_and_stays_so() {
    let disk = Disk::open(Limits::default()).await;
    let alone = disk.image(None, "alone", None).await.descriptor;
    assert!(!disk.is_adopted(&alone.digest));
    let tagged = disk.image(Some(&tag("1")), "tagged", None).await.descriptor;
    assert!(disk.is_adopted(&tagged.digest));
    let index = json!({"schemaVersion": 2, "manifests": [alone]});
    let index = disk.put(&tag("all"), media_type::OCI_INDEX, &index).await.unwrap();
    assert!(disk.is_adopted(&alone.digest) && disk.is_adopted(&index.descriptor.digest));
    // Pushed again by its digest, it was adopted all the same.
    disk.image(None, "tagged", None).await;
    assert!(disk.is_adopted(&tagged.digest));

    // Records from before there was such a thing learn of it when the tag goes.
    let record = disk.record("_manifests", &tagged.digest);
    std::fs::write(&record, serde_json::to_vec(&tagged).unwrap()).unwrap();
    assert!(disk.storage.delete_manifest(&disk.repository, &tag("1")).await.unwrap());
    assert!(disk.is_adopted(&tagged.digest));
}

#[tokio::test]
async fn whoever_is_told_that_it_is_there_gets_a_new_lease() {
    let disk = Disk::open(Limits::default()).await;
    let (storage, repository, blob) = (&disk.storage, &disk.repository, Digest::sha256_of(b"{}"));
    let first = disk.image(Some(&tag("1")), "first", None).await.descriptor;
    let (blob_record, record) = (disk.record("_blobs", &blob), disk.record("_manifests", &first.digest));
    age(&blob_record);
    assert_eq!(storage.blob_size(&name("other"), &blob).await.unwrap(), None);
    assert!(is_old(&blob_record), "another repository's question");

    let (by_digest, index) = (Selector::from(first.digest.clone()), json!({"schemaVersion": 2, "manifests": [first]}));
    for (what, renewed) in [
        ("size", &blob_record),
        ("open", &blob_record),
        ("push", &blob_record),
        ("manifest with it", &blob_record),
        ("mount", &blob_record),
        ("resolve", &record),
        ("read", &record),
        ("index with it", &record),
        ("tag moves", &record),
        ("tag goes", &record),
    ] {
        if what == "tag goes" {
            disk.image(Some(&tag("1")), "first", None).await;
        }
        age(renewed);
        let generation = storage.generation(repository);
        match what {
            "size" => drop(storage.blob_size(repository, &blob).await.unwrap()),
            "open" => drop(storage.blob(repository, &blob).await.unwrap()),
            "push" => drop(disk.push(b"{}", Algorithm::Sha256, &blob).await.unwrap()),
            "manifest with it" => drop(disk.put(&tag("2"), media_type::OCI_MANIFEST, &image("2", None)).await.unwrap()),
            "mount" => assert_eq!(storage.mount(repository, repository, &blob).await.unwrap(), Some(2)),
            "resolve" => drop(storage.resolve(repository, &by_digest).await.unwrap()),
            "read" => drop(storage.manifest(repository, &by_digest).await.unwrap()),
            "index with it" => drop(disk.put(&tag("all"), media_type::OCI_INDEX, &index).await.unwrap()),
            "tag moves" => drop(disk.image(Some(&tag("1")), "second", None).await),
            _ => assert!(storage.delete_manifest(repository, &tag("1")).await.unwrap()),
        }
        assert!(!is_old(renewed), "{what}");
        assert!(storage.generation(repository) > generation, "{what}");
    }
}

#[tokio::test]
async fn referrers_are_listed_while_they_are_held_whatever_comes_first() {
    let disk = Disk::open(Limits::default()).await;
    let subject = Digest::sha256_of(image("subject", None).to_string().as_bytes());
    assert_eq!(disk.storage.referrers(&disk.repository, &subject).await.unwrap(), []);
    let before = disk.image(None, "before", Some(&subject)).await;
    assert_eq!(before.subject.as_ref(), Some(&subject));
    disk.image(None, "subject", None).await;
    let index = json!({
        "schemaVersion": 2, "manifests": [], "artifactType": "x/list",
        "subject": Descriptor::new(media_type::OCI_MANIFEST, subject.clone(), 1),
    });
    let index = disk.put(&tag("list"), media_type::OCI_INDEX, &index).await.unwrap();

    let mut listed = disk.storage.referrers(&disk.repository, &subject).await.unwrap();
    listed.sort_by_key(|descriptor| descriptor.artifact_type.clone());
    let types: Vec<_> = listed.iter().map(|descriptor| descriptor.artifact_type.as_deref().unwrap()).collect();
    assert_eq!(types, [media_type::OCI_EMPTY, "x/list"]);
    assert_eq!(listed[0].annotations["text"], "before");
    assert_eq!(listed[1].digest, index.descriptor.digest);
    assert_eq!(disk.storage.referrers(&name("other"), &subject).await.unwrap(), []);

    disk.storage.delete_manifest(&disk.repository, &index.descriptor.digest.into()).await.unwrap();
    assert_eq!(disk.storage.referrers(&disk.repository, &subject).await.unwrap(), listed[..1]);
    // A record that outlived its manifest is not shown.
    std::fs::remove_file(disk.record("_manifests", &before.descriptor.digest)).unwrap();
    assert_eq!(disk.storage.referrers(&disk.repository, &subject).await.unwrap(), []);
}

#[tokio::test]
async fn referrers_from_before_there_were_records_are_found_at_the_start() {
    let disk = Disk::open(Limits::default()).await;
    let subject = Digest::sha256_of(b"never pushed");
    disk.image(None, "old", Some(&subject)).await;
    let Disk { directory, storage, repository } = disk;
    let listed = storage.referrers(&repository, &subject).await.unwrap();
    assert_eq!(listed.len(), 1);
    drop(storage);
    std::fs::remove_dir_all(directory.path().join("repositories/a/b/_referrers")).unwrap();
    std::fs::remove_file(directory.path().join("referrers")).unwrap();
    let storage = Storage::open(directory.path(), Limits::default()).await.unwrap();
    assert_eq!(storage.referrers(&repository, &subject).await.unwrap(), listed);
}

#[tokio::test]
async fn immutable_tags_stay_and_may_be_pushed_again() {
    let disk = Disk::open(Limits { immutable_tags: true, ..Limits::default() }).await;
    let first = disk.image(Some(&tag("1")), "first", None).await;
    disk.image(Some(&tag("1")), "first", None).await;
    let second = image("second", None);
    let refused = disk.put(&tag("1"), media_type::OCI_MANIFEST, &second).await;
    assert!(matches!(refused, Err(StorageError::TagImmutable { .. })), "{refused:?}");
    let bytes = Bytes::from(second.to_string());
    let digest = Selector::from(Digest::sha256_of(&bytes));
    let tags: [Tag; 2] = ["2".parse().unwrap(), "1".parse().unwrap()];
    let refused = disk.storage.put_manifest(&disk.repository, &digest, &tags, media_type::OCI_MANIFEST, bytes).await;
    assert!(matches!(refused, Err(StorageError::TagImmutable { .. })), "{refused:?}");
    assert_eq!(disk.storage.tags(&disk.repository).await.unwrap(), ["1".parse().unwrap()]);
    assert_eq!(disk.storage.resolve(&disk.repository, &tag("1")).await.unwrap(), Some(first.descriptor));
    assert_eq!(disk.storage.resolve(&disk.repository, &digest).await.unwrap(), None, "nothing of it is kept");
}

#[tokio::test]
async fn tags_that_moved_are_named() {
    let disk = Disk::open(Limits::default()).await;
    let first = disk.image(Some(&tag("1")), "first", None).await;
    assert_eq!(first.retagged, []);
    let second = disk.image(Some(&tag("1")), "second", None).await;
    assert_eq!(second.retagged, [("1".parse().unwrap(), first.descriptor.digest)]);
}

#[tokio::test]
async fn nothing_is_taken_in_when_the_disk_is_nearly_full() {
    let disk = Disk::open(Limits { min_free: u64::MAX, ..Limits::default() }).await;
    let refused = disk.storage.start_upload(&disk.repository, Algorithm::Sha256).await.map(drop);
    assert!(matches!(refused, Err(StorageError::NearlyFull { min_free: u64::MAX, .. })), "{refused:?}");
    let refused = disk.put(&tag("1"), media_type::OCI_MANIFEST, &image("x", None)).await;
    assert!(matches!(refused, Err(StorageError::NearlyFull { .. })), "{refused:?}");
    assert_eq!(std::fs::read_dir(disk.directory.path().join("repositories")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(disk.directory.path().join("tmp")).unwrap().count(), 0);
    assert!(disk.storage.free().unwrap() > 0);
}

#[tokio::test]
async fn many_tags_are_all_there_and_a_refusal_leaves_nothing() {
    let disk = Disk::open(Limits::default()).await;
    let tags: Vec<Tag> = (0..30).map(|number| format!("v{number}").parse().unwrap()).collect();
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256_of(b"absent"), 6)],
    });
    let (first, kind) = (tag("v0"), media_type::OCI_INDEX);
    let put = async |manifest: &Value| {
        let bytes = Bytes::from(manifest.to_string());
        disk.storage.put_manifest(&disk.repository, &first, &tags, kind, bytes).await
    };
    assert!(matches!(put(&manifest).await, Err(StorageError::ReferencesUnknown(_))));
    let unfinished = || std::fs::read_dir(disk.directory.path().join("tmp")).unwrap().count();
    assert_eq!((unfinished(), disk.storage.tags(&disk.repository).await.unwrap()), (0, vec![]));
    manifest["manifests"] = json!([]);
    let stored = put(&manifest).await.unwrap();
    for tag in &tags {
        let found = disk.storage.resolve(&disk.repository, &Selector::Tag(tag.clone())).await.unwrap();
        assert_eq!(found.as_ref(), Some(&stored.descriptor));
    }
    assert_eq!(unfinished(), 0);
}

/// A directory that looks to everybody as if its disk had turned read-only.
struct ReadOnly<'a>(&'a std::path::Path);

impl<'a> ReadOnly<'a> {
    fn mount(directory: &'a std::path::Path) -> Option<Self> {
        let mount = |words: &[&str]| {
            let done = std::process::Command::new("mount").args(words).arg(directory).output();
            done.is_ok_and(|output| output.status.success())
        };
        if !mount(&["--bind", directory.to_str().unwrap()]) {
            return None;
        }
        let mounted = Self(directory);
        mount(&["-o", "remount,bind,ro"]).then_some(mounted)
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0).output();
    }
}

#[tokio::test]
async fn a_disk_that_has_turned_read_only_is_still_pulled_from() {
    let stock = Stock::open().await;
    let image = stock.image("a", "1", "layer").await;
    let layer = Digest::sha256_of(b"layer");
    // Leases that a pull would renew.
    stock.age();
    let Some(_mounted) = ReadOnly::mount(stock.root()) else {
        eprintln!("NOT RUN: a_disk_that_has_turned_read_only_is_still_pulled_from: mount is missing or not allowed");
        return;
    };
    assert!(stock.has_manifest("a", &image.digest).await && stock.has_blob("a", &layer).await);
    assert!(stock.storage.blob(&name("a"), &layer).await.unwrap().is_some());
    let refused = push(&stock.storage, &name("a"), b"more").await;
    assert!(matches!(refused, Err(StorageError::Create { .. })), "{refused:?}");
}

#[tokio::test]
async fn of_a_name_that_only_an_upload_was_begun_for_nothing_stays() {
    let stock = Stock::open().await;
    stock.image("kept", "1", "layer").await;
    let upload = stock.storage.start_upload(&name("a/b/c"), Algorithm::Sha256).await.unwrap();
    upload.cancel().await.unwrap();
    let begun = stock.storage.start_upload(&name("a/d"), Algorithm::Sha256).await.unwrap().id();
    let stock = stock.reopen().await;
    let repositories = stock.root().join("repositories");
    assert!(!repositories.join("a/b").exists() && repositories.join("kept/_blobs").exists());
    assert_eq!(stock.storage.upload_offset(&name("a/d"), begun).await.unwrap(), 0);
}
