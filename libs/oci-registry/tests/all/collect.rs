//! What a collection takes out, and what it does not.

use std::time::Duration;

use oci_registry::storage::Usage;
use oci_registry::storage::maintenance::{CollectOptions, DigestOnly, Kind, TakenOut};
use oci_registry::{Descriptor, Digest, media_type};
use serde_json::json;

use crate::fixture::name;
use crate::stock::{Stock, age, image};

fn taken(report: &[TakenOut], kind: Kind) -> Vec<Digest> {
    report.iter().filter(|taken| taken.kind == kind).map(|taken| taken.digest.clone()).collect()
}

/// What is counted must be what a start would count.
async fn assert_counted(stock: Stock) -> Stock {
    let counted = stock.storage.usage();
    let stock = stock.reopen().await;
    assert_eq!(stock.storage.usage(), counted);
    stock
}

/// The predecessor did not follow the children of an index, and deleted live images.
#[tokio::test]
async fn what_an_index_lists_stays() {
    let stock = Stock::open().await;
    let (one, two) = (stock.image("a", "", "amd64").await, stock.image("a", "", "arm64").await);
    let nested = stock.index("a", "", &[&two]).await;
    stock.index("a", "all", &[&one, &nested]).await;
    for digest_only in [DigestOnly::Keep, DigestOnly::Collect] {
        let report = stock.storage.collect(CollectOptions { digest_only, ..CollectOptions::default() }).await.unwrap();
        assert_eq!((report.manifests, report.holds, report.blobs, report.bytes), (0, 0, 0, 0), "{report:?}");
        assert_eq!(report.run, None);
    }
    assert!(stock.has_manifest("a", &two.digest).await && stock.has_blob("a", &Digest::sha256_of(b"arm64")).await);
    assert!(stock.check(false).await.findings.is_empty());
}

#[tokio::test]
async fn what_lost_its_tag_goes_with_all_that_only_it_needs() {
    let stock = Stock::open().await;
    let old = stock.image("a", "1", "old").await;
    let signature = stock.signature("a", &old, "signature").await;
    let second = stock.signature("a", &signature, "signature of the signature").await;
    stock.image("a", "2", "kept").await;
    stock.image("b", "1", "old").await;
    stock.untag("a", "1").await;
    let before = stock.storage.usage();

    let report = stock.collect().await;
    assert_eq!(report.manifests, 3, "{report:?}");
    assert_eq!(taken(&report.quarantined, Kind::Manifest).len(), 3);
    // `old` is the same image in both repositories.
    assert_eq!((report.holds, report.blobs), (3, 4));
    assert!(!stock.has_manifest("a", &old.digest).await && stock.has_manifest("b", &old.digest).await);
    assert_eq!(stock.storage.referrers(&name("a"), &old.digest).await.unwrap(), []);
    assert!(!stock.has_blob("a", &Digest::sha256_of(b"old")).await);
    assert!(stock.has_blob("b", &Digest::sha256_of(b"old")).await);
    let after = stock.storage.usage();
    assert_eq!((before.blobs - after.blobs, before.bytes - after.bytes), (report.blobs, report.bytes));
    assert_eq!(report.quarantine_bytes, report.bytes);
    assert!(stock.check(false).await.findings.is_empty());

    let again = stock.collect().await;
    assert_eq!((again.manifests, again.holds, again.blobs), (0, 0, 0));
    let stock = assert_counted(stock).await;
    assert!(!stock.has_manifest("a", &second.digest).await);
}

#[tokio::test]
async fn what_is_young_in_use_or_meant_for_its_digest_stays() {
    let stock = Stock::open().await;
    let alone = stock.image("a", "", "alone").await;
    let old = stock.image("a", "1", "old").await;
    stock.untag("a", "1").await;
    stock.blob("a", b"between the blob and its manifest").await;
    let hour = CollectOptions { grace: Duration::from_secs(60), ..CollectOptions::default() };
    assert_eq!(stock.storage.collect(hour.clone()).await.unwrap().quarantined, []);
    stock.age();
    // Whoever is told that it is there gets it.
    assert!(stock.has_blob("a", &Digest::sha256_of(b"between the blob and its manifest")).await);
    let in_use = vec![(name("a"), old.digest.clone()), (name("a"), Digest::sha256_of(b"nowhere"))];
    let used = CollectOptions { in_use, ..hour.clone() };
    assert_eq!(stock.storage.collect(used).await.unwrap().quarantined, []);
    assert_eq!(taken(&stock.storage.collect(hour).await.unwrap().quarantined, Kind::Manifest), [old.digest]);
    let all = CollectOptions { digest_only: DigestOnly::Collect, ..CollectOptions::default() };
    assert_eq!(taken(&stock.storage.collect(all).await.unwrap().quarantined, Kind::Manifest), [alone.digest]);
    assert_eq!(stock.storage.usage(), Usage::default());
    assert_eq!(stock.storage.repositories().await.unwrap(), [], "what holds nothing is not listed");
}

#[tokio::test]
async fn a_dry_run_tells_the_same_and_changes_nothing() {
    let stock = Stock::open().await;
    let (one, two) = (stock.image("a", "", "one").await, stock.image("a", "", "two").await);
    stock.index("a", "all", &[&one, &two]).await;
    stock.signature("a", &one, "signature").await;
    stock.image("b", "1", "two").await;
    stock.blob("b", b"let go").await;
    stock.storage.delete_blob(&name("b"), &Digest::sha256_of(b"let go")).await.unwrap();
    stock.untag("a", "all").await;
    let before = (stock.files(&["."]), stock.storage.usage());
    let dry = stock.storage.collect(CollectOptions { dry_run: true, ..CollectOptions::default() }).await.unwrap();
    assert_eq!((stock.files(&["."]), stock.storage.usage()), before);
    assert!(dry.dry_run && dry.run.is_none());
    let real = stock.collect().await;
    assert_eq!(dry.quarantined, real.quarantined);
    assert_eq!((dry.manifests, dry.holds, dry.blobs, dry.bytes), (real.manifests, real.holds, real.blobs, real.bytes));
    assert_eq!((real.manifests, real.holds, real.blobs), (4, 4, 6), "the image `two` is held elsewhere");
}

#[tokio::test]
async fn nothing_is_gone_for_good_before_the_grace_is_over() {
    let stock = Stock::open().await;
    let image = stock.image("a", "1", "text").await;
    let signature = stock.signature("a", &image, "signature").await;
    let index = stock.index("a", "all", &[&image]).await;
    stock.untag("a", "1").await;
    stock.untag("a", "all").await;
    let before = (stock.files(&["blobs", "repositories"]), stock.storage.usage());
    stock.age();
    let hour = CollectOptions { grace: Duration::from_secs(3000), ..CollectOptions::default() };
    let report = stock.storage.collect(hour.clone()).await.unwrap();
    assert_eq!(report.manifests, 3);
    assert_eq!(stock.storage.usage(), Usage::default());
    assert_eq!(stock.storage.quarantine().await.unwrap()[0].bytes, report.bytes);
    assert_eq!(stock.storage.collect(hour.clone()).await.unwrap().expired_runs, []);

    let unknown = stock.storage.restore(Some(17)).await;
    let told = unknown.unwrap_err().to_string();
    assert_eq!(told, format!("there is no run 17 in quarantine, only {}", report.run.unwrap()));
    let restored = stock.storage.restore(report.run).await.unwrap();
    assert_eq!((restored.manifests, restored.holds, restored.blobs), (3, 3, 6), "{restored:?}");
    assert_eq!(restored.left, []);
    assert_eq!((stock.files(&["blobs", "repositories"]), stock.storage.usage()), before);
    assert_eq!(stock.storage.referrers(&name("a"), &image.digest).await.unwrap()[0].digest, signature.digest);
    assert!(stock.has_manifest("a", &index.digest).await && stock.check(false).await.findings.is_empty());
    // What was put back has time to be tagged.
    assert_eq!(stock.storage.collect(hour).await.unwrap().quarantined, []);

    let stock = assert_counted(stock).await;
    let run = stock.collect().await.run.unwrap();
    let report = stock.collect().await;
    assert!(report.expired_runs.iter().any(|expired| expired.run == run), "{report:?}");
    assert_eq!((stock.files(&["quarantine"]).len(), report.quarantine_bytes), (0, 0));
    assert_eq!(stock.storage.restore(None).await.unwrap().manifests, 0);
}

#[tokio::test]
async fn what_is_needed_again_is_put_back_rather_than_removed() {
    let stock = Stock::open().await;
    stock.image("a", "1", "text").await;
    stock.blob("b", b"other").await;
    let digest = Digest::sha256_of(b"text");
    let quarantined = stock.root().join("quarantine/7/blobs/sha256");
    std::fs::create_dir_all(&quarantined).unwrap();
    std::fs::rename(stock.blob_path(&digest), quarantined.join(digest.hex())).unwrap();
    let stock = stock.reopen().await;
    assert!(!stock.has_blob("a", &digest).await);
    let report = stock.collect().await;
    assert_eq!(report.expired_runs.len(), 1);
    assert!(stock.has_blob("a", &digest).await && stock.check(false).await.findings.is_empty());
    assert_counted(stock).await;
}

#[tokio::test]
async fn content_that_may_be_fetched_elsewhere_stays_where_it_is_named() {
    let stock = Stock::open().await;
    let mut layer = stock.blob("a", b"foreign").await;
    layer.urls = vec!["https://registry.example/layer".to_owned()];
    stock.blob("a", b"{}").await;
    stock.manifest("a", "1", &image(&layer, None)).await;
    assert_eq!(stock.collect().await.quarantined, []);
}

#[tokio::test]
async fn nothing_goes_from_a_repository_with_damage() {
    for what in ["manifest", "record", "tag", "gone"] {
        let stock = Stock::open().await;
        let damaged = stock.image("a", "1", "text").await;
        stock.blob("a", b"nobody knows whether it is needed").await;
        stock.blob("b", b"not needed").await;
        let path = match what {
            "manifest" | "gone" => stock.blob_path(&damaged.digest),
            "record" => stock.record("a", "_manifests", &damaged.digest),
            _ => stock.root().join("repositories/a/_refs/1"),
        };
        if what == "gone" { std::fs::remove_file(&path) } else { std::fs::write(&path, "{\"schemaVersion\":2}") }
            .unwrap();
        let before = stock.files(&["repositories/a"]);
        let report = stock.collect().await;
        assert_eq!(report.skipped[0].repository, name("a"), "{what}");
        assert_eq!(stock.files(&["repositories/a"]), before, "{what}");
        assert_eq!(taken(&report.quarantined, Kind::Blob), [Digest::sha256_of(b"not needed")], "{what}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_keeps_its_repository_alone() {
    let stock = Stock::open().await;
    let image = stock.image("a", "1", "layer").await;
    for repository in ["a", "b"] {
        stock.blob(repository, b"loose").await;
    }
    let path = stock.blob_path(&image.digest);
    std::fs::remove_file(&path).unwrap();
    // It can be opened and not be read, whoever asks.
    std::fs::create_dir(&path).unwrap();
    let report = stock.collect().await;
    assert_eq!(report.skipped.iter().map(|skipped| skipped.repository.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!((report.holds, report.blobs), (1, 0));
    assert!(!stock.has_blob("b", &Digest::sha256_of(b"loose")).await);
}

#[tokio::test]
async fn leftovers_of_a_kill_go() {
    let stock = Stock::open().await;
    let image = stock.image("a", "1", "text").await;
    // The bytes came, their record did not; a referrer's record came, its manifest's did not.
    let stray = Digest::sha256_of(b"stray");
    std::fs::write(stock.blob_path(&stray), b"stray").unwrap();
    let widowed = stock.root().join("repositories/a/_referrers/sha256").join(image.digest.hex());
    std::fs::create_dir_all(&widowed).unwrap();
    let record = widowed.join(format!("sha256-{}", stray.hex()));
    std::fs::write(&record, json!(Descriptor::new(media_type::OCI_MANIFEST, stray.clone(), 5)).to_string()).unwrap();
    let stock = stock.reopen().await;
    assert!(stock.check(false).await.findings.is_empty());
    let minute = CollectOptions { grace: Duration::from_secs(60), ..CollectOptions::default() };
    assert_eq!(stock.storage.collect(minute.clone()).await.unwrap().quarantined, []);
    assert!(record.exists());
    age(&stock.blob_path(&stray));
    age(&record);
    let report = stock.storage.collect(minute).await.unwrap();
    assert_eq!(taken(&report.quarantined, Kind::Blob), [stray]);
    assert!(!widowed.exists());
    assert_counted(stock).await;
}
