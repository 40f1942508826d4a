//! Pushes, re-tags, mounts, referrers and deletes against collections and checks that never stop.
//!
//! The predecessor's collector once deleted what a push at the same moment had just been told was there.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use oci_registry::storage::maintenance::{CheckOptions, CollectOptions, DigestOnly};
use oci_registry::storage::{Storage, StorageError};
use oci_registry::{Algorithm, Descriptor, Digest, RepositoryName, Selector, media_type};
use serde_json::{Value, json};

use crate::fixture::{name, noise};
use crate::stock::{Stock, image, push, put};

const PUSHERS: u64 = 6;
const REPOSITORIES: [&str; 3] = ["a", "a/b", "c"];
/// Layers that everybody takes from: what one repository no longer needs, another one pushes at that moment.
const LAYERS: u64 = 40;
/// Far too short for a real registry: between a blob and its manifest a collection often takes the blob, and the push
/// begins again. What was acknowledged and is referenced must stay all the same.
const GRACE: Duration = Duration::from_millis(20);

/// A pusher has tags of its own, so that it knows what they point to.
struct Pusher {
    storage: Storage,
    number: u64,
    random: u64,
    made: u64,
    again: Arc<AtomicU64>,
    tags: BTreeMap<(RepositoryName, String), Expected>,
}

/// What a tag points to.
struct Expected {
    manifest: Value,
    /// Images that it lists.
    listed: Vec<Value>,
    /// What was said about it while it had the tag.
    referrers: Vec<Digest>,
}

fn layer(number: u64) -> Vec<u8> {
    noise(number, 3000)
}

impl Pusher {
    fn pick(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn repository(&mut self) -> RepositoryName {
        let at = self.pick(REPOSITORIES.len() as u64);
        name(REPOSITORIES[usize::try_from(at).unwrap()])
    }

    /// Pushes as a client does: blobs, then the manifest; from the beginning where a blob was taken meanwhile.
    async fn image(&mut self, repository: &RepositoryName, tag: &str, subject: Option<&Descriptor>) -> Value {
        let content = layer(self.pick(LAYERS));
        self.made += 1;
        loop {
            let mount = self.pick(3) == 0;
            let from = self.repository();
            let layer = Descriptor::new("x/y", Digest::sha256_of(&content), content.len() as u64);
            if !mount || self.storage.mount(repository, &from, &layer.digest).await.unwrap().is_none() {
                self.layer(repository, &content, &layer.digest).await;
            }
            push(&self.storage, repository, b"{}").await.unwrap();
            let mut manifest = image(&layer, subject);
            manifest["annotations"] = json!({"made": format!("{} by {}", self.made, self.number)});
            if self.put(repository, tag, &manifest).await {
                return manifest;
            }
        }
    }

    /// Now and then so slowly that the bytes are older than the grace when they get their name.
    async fn layer(&mut self, repository: &RepositoryName, content: &[u8], digest: &Digest) {
        let slowly = self.pick(4) == 0;
        let upload = self.storage.start_upload(repository, Algorithm::Sha256).await.unwrap();
        let body = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::copy_from_slice(content))]);
        upload.append(body, None).await.unwrap();
        if slowly {
            tokio::time::sleep(GRACE * 2).await;
        }
        upload.finish(digest).await.unwrap();
    }

    /// Whether the manifest was taken.
    async fn put(&self, repository: &RepositoryName, tag: &str, manifest: &Value) -> bool {
        match put(&self.storage, repository, tag, manifest).await {
            Ok(_) => true,
            Err(StorageError::ReferencesUnknown(_)) => {
                self.again.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn step(&mut self) {
        let (repository, which) = (self.repository(), self.pick(3));
        let tag = format!("{}-{which}", self.number);
        let key = (repository.clone(), tag.clone());
        match self.pick(6) {
            0 | 1 => {
                let manifest = self.image(&repository, &tag, None).await;
                self.tags.insert(key, Expected { manifest, listed: Vec::new(), referrers: Vec::new() });
            }
            2 => {
                let expected = loop {
                    let listed = vec![self.image(&repository, "", None).await, self.image(&repository, "", None).await];
                    let descriptors: Vec<_> = listed.iter().map(descriptor_of).collect();
                    let manifest =
                        json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": descriptors});
                    if self.put(&repository, &tag, &manifest).await {
                        break Expected { manifest, listed, referrers: Vec::new() };
                    }
                };
                self.tags.insert(key, expected);
            }
            3 => {
                if let Some(expected) = self.tags.get(&key) {
                    let subject = descriptor_of(&expected.manifest);
                    let signature = self.image(&repository, "", Some(&subject)).await;
                    let digest = descriptor_of(&signature).digest;
                    self.tags.get_mut(&key).unwrap().referrers.push(digest);
                }
            }
            4 => {
                if self.tags.remove(&key).is_some() {
                    let selector = Selector::Tag(tag.parse().unwrap());
                    assert!(self.storage.delete_manifest(&repository, &selector).await.unwrap());
                }
            }
            _ => {
                let content = noise(1000 + self.number, 500);
                push(&self.storage, &repository, &content).await.unwrap();
                self.storage.delete_blob(&repository, &Digest::sha256_of(&content)).await.unwrap();
            }
        }
    }

    async fn assert_one_complete(&mut self) {
        let count = self.tags.len() as u64;
        if count > 0 {
            let at = usize::try_from(self.pick(count)).unwrap();
            let ((repository, tag), expected) = self.tags.iter().nth(at).unwrap();
            self.assert_complete(repository, tag, expected).await;
        }
    }

    async fn assert_complete(&self, repository: &RepositoryName, tag: &str, expected: &Expected) {
        let selector = Selector::Tag(tag.parse().unwrap());
        let found = self.storage.manifest(repository, &selector).await.unwrap();
        let (_, bytes) = found.unwrap_or_else(|| panic!("{repository}:{tag} is gone"));
        assert_eq!(bytes, expected.manifest.to_string(), "{repository}:{tag}");
        for listed in &expected.listed {
            self.assert_held(repository, &descriptor_of(listed).digest).await;
        }
        for image in expected.listed.iter().chain([&expected.manifest]) {
            for layer in image["layers"].as_array().into_iter().flatten() {
                self.assert_blob(repository, &layer["digest"].as_str().unwrap().parse().unwrap()).await;
            }
        }
        let subject = descriptor_of(&expected.manifest).digest;
        let referrers = self.storage.referrers(repository, &subject).await.unwrap();
        for digest in &expected.referrers {
            assert!(referrers.iter().any(|listed| listed.digest == *digest), "{repository}:{tag} lost {digest}");
            self.assert_held(repository, digest).await;
        }
    }

    async fn assert_held(&self, repository: &RepositoryName, digest: &Digest) {
        let found = self.storage.manifest(repository, &digest.clone().into()).await.unwrap();
        assert!(found.is_some(), "{repository}@{digest} is gone");
    }

    async fn assert_blob(&self, repository: &RepositoryName, digest: &Digest) {
        let found = self.storage.blob(repository, digest).await.unwrap();
        let mut blob = found.unwrap_or_else(|| panic!("blob {digest} of {repository} is gone"));
        let mut bytes = Vec::new();
        blob.file.read_to_end(&mut bytes).unwrap();
        assert_eq!(Digest::sha256_of(&bytes), *digest);
    }

    async fn assert_all_complete(&self) {
        for ((repository, tag), expected) in &self.tags {
            self.assert_complete(repository, tag, expected).await;
        }
    }
}

fn descriptor_of(manifest: &Value) -> Descriptor {
    let bytes = manifest.to_string();
    let kind = manifest["mediaType"].as_str().unwrap();
    Descriptor::new(kind, Digest::sha256_of(bytes.as_bytes()), bytes.len() as u64)
}

/// What collections and checks came to.
#[derive(Debug, Default)]
struct Upkept {
    rounds: u64,
    manifests: u64,
    holds: u64,
    blobs: u64,
}

async fn upkeep(storage: Storage, stop: Arc<AtomicBool>) -> Upkept {
    let mut upkept = Upkept::default();
    while !stop.load(Ordering::Relaxed) {
        let options = CollectOptions { grace: GRACE, digest_only: DigestOnly::Collect, ..CollectOptions::default() };
        let report = storage.collect(options).await.unwrap();
        assert_eq!(report.skipped, []);
        upkept.manifests += report.manifests;
        upkept.holds += report.holds;
        upkept.blobs += report.blobs;
        upkept.rounds += 1;
        if upkept.rounds.is_multiple_of(4) {
            let report = storage.check(CheckOptions { repair: true }, |_| ()).await.unwrap();
            assert_eq!(report.findings, []);
        }
    }
    upkept
}

/// 3 s, and 60 s in the long tier.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_referenced_is_never_lost() {
    let length = Duration::from_secs(if std::env::var_os("CAIRN_LONG").is_some() { 60 } else { 3 });
    let stock = Stock::open_in_memory().await;
    let (stop, again) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let collector = tokio::spawn(upkeep(stock.storage.clone(), Arc::clone(&stop)));
    let end = Instant::now() + length;
    let pushers: Vec<_> = (1..=PUSHERS)
        .map(|number| {
            let (storage, again) = (stock.storage.clone(), Arc::clone(&again));
            let (random, tags) = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15), BTreeMap::new());
            let mut pusher = Pusher { storage, number, random, made: 0, again, tags };
            tokio::spawn(async move {
                while Instant::now() < end {
                    pusher.step().await;
                    pusher.assert_one_complete().await;
                }
                pusher.assert_all_complete().await;
                pusher
            })
        })
        .collect();
    let mut after = Vec::new();
    for pusher in pushers {
        after.push(pusher.await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    let upkept = collector.await.unwrap();
    let (made, again) = (after.iter().map(|pusher| pusher.made).sum::<u64>(), again.load(Ordering::Relaxed));
    eprintln!("{made} images, {again} manifests sent again, {upkept:?}");
    assert!(made > 0 && upkept.manifests > 0 && upkept.holds > 0 && upkept.blobs > 0, "{upkept:?}");

    // Now everything goes that nothing needs, and what is counted is what is there.
    stock.collect().await;
    for pusher in &after {
        pusher.assert_all_complete().await;
    }
    assert_eq!(stock.check(false).await.findings, []);
    let usage = stock.storage.usage();
    drop(after);
    assert_eq!(stock.reopen().await.storage.usage(), usage);
}
