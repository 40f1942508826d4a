//! What happens between a look and the change that rests on it, in an order that is given.

use std::fs;

use bytes::Bytes;

use super::super::{Limits, Storage};
use super::collect::Collecting;
use super::plan::Plan;
use super::{CollectOptions, CollectReport};
use crate::{Algorithm, Digest, RepositoryName};

fn name() -> RepositoryName {
    "a".parse().unwrap()
}

async fn push(storage: &Storage, bytes: &'static [u8]) -> Digest {
    let upload = storage.start_upload(&name(), Algorithm::Sha256).await.unwrap();
    let body = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(bytes))]);
    upload.append(body, None).await.unwrap();
    let digest = Digest::sha256_of(bytes);
    upload.finish(&digest).await.unwrap();
    digest
}

fn collecting<'a>(storage: &'a Storage, options: &'a CollectOptions) -> Collecting<'a> {
    Collecting {
        inner: &storage.inner,
        options,
        run: storage.inner.next_run().unwrap(),
        report: CollectReport::default(),
    }
}

#[tokio::test]
async fn a_blob_that_was_pushed_since_nothing_named_it_stays() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::open(directory.path(), Limits::default()).await.unwrap();
    let (digest, options) = (push(&storage, b"layer").await, CollectOptions::default());
    storage.delete_blob(&name(), &digest).await.unwrap();
    let unnamed = storage.inner.steady_generations();
    push(&storage, b"layer").await;
    let mut collecting = collecting(&storage, &options);
    collecting.blobs(std::slice::from_ref(&digest), &unnamed).unwrap();
    assert_eq!(collecting.report.blobs, 0);
    assert_eq!(storage.blob_size(&name(), &digest).await.unwrap(), Some(5));

    storage.delete_blob(&name(), &digest).await.unwrap();
    collecting.blobs(std::slice::from_ref(&digest), &unnamed).unwrap();
    assert_eq!(collecting.report.blobs, 1);
}

#[tokio::test]
async fn a_repository_that_changed_is_looked_at_again() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::open(directory.path(), Limits::default()).await.unwrap();
    let (digest, options) = (push(&storage, b"layer").await, CollectOptions::default());
    let mut collecting = collecting(&storage, &options);
    let seen = storage.inner.steady_generation(&name());
    let plan = || Ok(Plan { holds: vec![digest.clone()], ..Plan::default() });
    push(&storage, b"another").await;
    assert!(!collecting.sweep(&name(), plan(), Some(seen)).unwrap());
    assert_eq!(collecting.report.holds, 0);
    let seen = storage.inner.steady_generation(&name());
    assert!(collecting.sweep(&name(), plan(), Some(seen)).unwrap());
    assert_eq!(collecting.report.holds, 1);
}

/// A change counts when it begins. One that has begun must be over before what it left is looked at.
#[tokio::test]
async fn a_look_waits_for_the_change_that_is_being_made() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::open(directory.path(), Limits::default()).await.unwrap();
    let record = directory.path().join("record");
    let looks: [fn(&Storage); 2] = [
        |storage| assert_eq!(storage.inner.steady_generation(&name()), 1),
        |storage| assert_eq!(storage.inner.steady_generations()[&name()], 2),
    ];
    for look in looks {
        let changing = storage.inner.changing(&name());
        let (begun, is_begun) = std::sync::mpsc::channel();
        let looking = {
            let (storage, record) = (storage.clone(), record.clone());
            std::thread::spawn(move || {
                begun.send(()).unwrap();
                look(&storage);
                record.exists()
            })
        };
        is_begun.recv().unwrap();
        std::thread::yield_now();
        fs::write(&record, "").unwrap();
        drop(changing);
        assert!(looking.join().unwrap());
        fs::remove_file(&record).unwrap();
    }
}
