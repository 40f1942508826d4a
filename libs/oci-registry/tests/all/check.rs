//! What a check finds, and what it puts right.

use std::path::{Path, PathBuf};

use oci_registry::storage::Usage;
use oci_registry::storage::maintenance::{CheckOptions, CheckReport, CollectOptions, FindingKind};
use oci_registry::{Descriptor, Digest, media_type};
use serde_json::json;

use crate::stock::Stock;

/// Kinds of findings, and whether they were repaired.
fn kinds(report: &CheckReport) -> Vec<(FindingKind, bool)> {
    report.findings.iter().map(|finding| (finding.kind, finding.repaired)).collect()
}

async fn usage_is_right(stock: Stock) -> Stock {
    let counted = stock.storage.usage();
    let stock = stock.reopen().await;
    assert_eq!(stock.storage.usage(), counted);
    stock
}

fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[1] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn all_is_well() {
    let stock = Stock::open().await;
    let (one, two) = (stock.image("a", "", "one").await, stock.image("a/b", "1", "two").await);
    stock.index("a", "all", &[&one]).await;
    stock.signature("a/b", &two, "signature").await;
    let (send, progress) = std::sync::mpsc::channel();
    let report =
        stock.storage.check(CheckOptions { repair: true }, move |seen| send.send(seen).unwrap()).await.unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(Usage { blobs: report.blobs, bytes: report.bytes }, stock.storage.usage());
    assert_eq!((report.repositories, report.records), (2, 2 + 2 + 1 + 3 + 2 + 1 + 1));
    let last = progress.into_iter().last().unwrap();
    assert_eq!((last.blobs, last.bytes), (last.blobs_total, last.bytes_total));
    assert_eq!(stock.files(&["quarantine"]).len(), 0);
}

#[tokio::test]
async fn a_damaged_layer_goes_and_a_later_push_heals() {
    let stock = Stock::open().await;
    stock.image("a", "1", "layer").await;
    stock.blob("b", b"layer").await;
    let digest = Digest::sha256_of(b"layer");
    for damage in ["flipped", "shorter", "longer"] {
        let path = stock.blob_path(&digest);
        match damage {
            "flipped" => flip_a_bit(&path),
            "shorter" => std::fs::write(&path, "la").unwrap(),
            _ => std::fs::write(&path, [0; 100_000]).unwrap(),
        }
        let before = stock.files(&["."]);
        let report = stock.check(false).await;
        assert_eq!(report.findings[0].kind, FindingKind::DamagedContent, "{damage}");
        assert_eq!(report.findings[0].path, PathBuf::from(format!("blobs/sha256/{}", digest.hex())));
        assert_eq!(stock.files(&["."]), before, "nothing is changed unless that is asked for");

        let report = stock.check(true).await;
        let expected = [
            (FindingKind::DamagedContent, true),
            (FindingKind::HoldWithoutContent, true),
            (FindingKind::MissingReference, false),
            (FindingKind::HoldWithoutContent, true),
        ];
        assert_eq!(kinds(&report), expected, "{damage}");
        assert!(!stock.has_blob("a", &digest).await && !stock.has_blob("b", &digest).await);
        assert_eq!(kinds(&stock.check(true).await), [(FindingKind::MissingReference, false)]);
        stock.blob("a", b"layer").await;
        assert!(stock.has_blob("a", &digest).await && stock.check(false).await.findings.is_empty());
        stock.blob("b", b"layer").await;
    }
    // Damaged content is never put back.
    assert_eq!(stock.storage.restore(None).await.unwrap().blobs, 0);
    assert_eq!(stock.files(&["quarantine"]).len(), 3);
    let stock = usage_is_right(stock).await;
    assert_eq!(stock.storage.quarantine().await.unwrap().len(), 3);
}

/// A directory can be opened and not be read, whoever asks.
fn make_unreadable(path: &Path) -> PathBuf {
    let aside = path.with_extension("aside");
    std::fs::rename(path, &aside).unwrap();
    std::fs::create_dir(path).unwrap();
    aside
}

#[tokio::test]
async fn what_cannot_be_read_is_told_of_and_left() {
    let stock = Stock::open().await;
    let image = stock.image("a", "1", "layer").await;
    stock.image("b", "1", "other").await;
    for digest in [&image.digest, &Digest::sha256_of(b"layer")] {
        let path = stock.blob_path(digest);
        let aside = make_unreadable(&path);
        let report = stock.check(true).await;
        let unreadable = report.findings.iter().filter(|finding| finding.kind == FindingKind::Unreadable);
        let unreadable: Vec<_> = unreadable.map(|finding| (finding.digest.as_ref(), finding.repaired)).collect();
        assert_eq!(unreadable, [(Some(digest), false)], "once, whoever needs it");
        assert!(report.findings.iter().all(|finding| !finding.repaired), "{:?}", report.findings);
        assert_eq!(report.repositories, 2);
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(aside, &path).unwrap();
        assert_eq!(stock.check(true).await.findings, []);
    }
    let record = stock.root().join("repositories/a/_refs/1");
    let aside = make_unreadable(&record);
    let found = stock.check(true).await.findings;
    assert!(found.iter().any(|finding| finding.kind == FindingKind::Unreadable && !finding.repaired), "{found:?}");
    assert!(record.exists() && aside.exists());
}

#[tokio::test]
async fn a_good_copy_comes_back_from_quarantine() {
    let stock = Stock::open().await;
    let image = stock.image("a", "1", "layer").await;
    for (damaged, how) in [("layer", "damaged"), ("layer", "gone"), ("manifest", "damaged"), ("manifest", "gone")] {
        let digest = if damaged == "layer" { Digest::sha256_of(b"layer") } else { image.digest.clone() };
        let copy = stock.root().join("quarantine/7/blobs/sha256").join(digest.hex());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(stock.blob_path(&digest), &copy).unwrap();
        if how == "gone" {
            std::fs::remove_file(stock.blob_path(&digest)).unwrap();
        } else {
            flip_a_bit(&stock.blob_path(&digest));
        }
        let expected = match (damaged, how) {
            (_, "damaged") => FindingKind::DamagedContent,
            ("layer", _) => FindingKind::HoldWithoutContent,
            _ => FindingKind::ManifestWithoutContent,
        };
        let report = stock.check(true).await;
        assert_eq!(kinds(&report), [(expected, true)], "{damaged} {how}");
        assert!(stock.has_manifest("a", &image.digest).await && !copy.exists());
        assert_eq!(stock.check(true).await.findings, []);
    }
}

#[tokio::test]
async fn a_manifest_that_is_lost_takes_its_tags_along() {
    for how in ["damaged", "gone"] {
        let stock = Stock::open().await;
        let image = stock.image("a", "1", "layer").await;
        let listing = stock.index("a", "all", &[&image]).await;
        if how == "gone" {
            std::fs::remove_file(stock.blob_path(&image.digest)).unwrap();
        } else {
            flip_a_bit(&stock.blob_path(&image.digest));
        }
        let mut found = kinds(&stock.check(true).await);
        found.sort_by_key(|(kind, _)| *kind);
        let mut expected = vec![
            (FindingKind::ManifestWithoutContent, true),
            (FindingKind::MissingReference, false),
            (FindingKind::TagToNowhere, true),
        ];
        if how == "damaged" {
            expected.insert(0, (FindingKind::DamagedContent, true));
        }
        assert_eq!(found, expected, "{how}");
        assert!(!stock.has_manifest("a", &image.digest).await);
        stock.image("a", "1", "layer").await;
        assert!(stock.check(false).await.findings.is_empty());
        assert!(stock.has_manifest("a", &listing.digest).await);
    }
}

#[tokio::test]
async fn records_are_written_anew_or_removed() {
    let stock = Stock::open().await;
    let image = stock.image("a", "1", "layer").await;
    let signature = stock.signature("a", &image, "signature").await;
    let referrers = stock.root().join("repositories/a/_referrers/sha256");
    let referrer = referrers.join(image.digest.hex()).join(format!("sha256-{}", signature.digest.hex()));
    let wrong = referrers.join(Digest::sha256_of(b"other").hex()).join(format!("sha256-{}", signature.digest.hex()));
    let tag = stock.root().join("repositories/a/_refs/damaged");
    let nowhere = stock.root().join("repositories/a/_refs/nowhere");
    let mut elsewhere = image.clone();
    elsewhere.digest = Digest::sha256_of(b"nowhere");
    for record in [&image, &signature].map(|held| stock.record("a", "_manifests", &held.digest)) {
        std::fs::write(record, "").unwrap();
    }
    std::fs::remove_file(&referrer).unwrap();
    std::fs::create_dir_all(wrong.parent().unwrap()).unwrap();
    std::fs::write(&wrong, "x").unwrap();
    std::fs::write(&tag, "{").unwrap();
    std::fs::write(&nowhere, json!(elsewhere).to_string()).unwrap();
    std::fs::write(stock.root().join("repositories/a/_refs/.swp"), "x").unwrap();
    std::fs::write(stock.root().join("blobs/sha256/notes.txt"), "x").unwrap();

    let dry = stock.check(false).await;
    assert!(dry.findings.iter().all(|finding| !finding.repaired));
    let report = stock.check(true).await;
    let mut found = kinds(&report);
    found.sort();
    let expected = [
        (FindingKind::DamagedRecord, true),
        (FindingKind::DamagedRecord, true),
        (FindingKind::DamagedRecord, true),
        (FindingKind::WrongReferrer, true),
        (FindingKind::TagToNowhere, true),
        (FindingKind::UnknownFile, false),
        (FindingKind::UnknownFile, false),
    ];
    assert_eq!(found, expected);
    assert!(referrer.exists() && !wrong.exists() && !tag.exists() && !nowhere.exists());
    std::fs::remove_file(&referrer).unwrap();
    let again = kinds(&stock.check(true).await);
    assert_eq!(
        again.iter().filter(|(_, repaired)| *repaired).collect::<Vec<_>>(),
        [&(FindingKind::MissingReferrer, true)]
    );
    assert!(referrer.exists());
    let selector = "1".parse().unwrap();
    let (descriptor, _) = stock.storage.manifest(&"a".parse().unwrap(), &selector).await.unwrap().unwrap();
    assert_eq!(descriptor, image);
    assert_eq!(stock.collect().await.manifests, 0, "a record that was written anew keeps its manifest");
}

#[tokio::test]
async fn a_lost_hold_costs_no_image() {
    let stock = Stock::open().await;
    stock.image("a", "1", "layer").await;
    stock.image("b", "1", "layer").await;
    let layer = Digest::sha256_of(b"layer");
    for repository in ["a", "b"] {
        std::fs::remove_file(stock.record(repository, "_blobs", &layer)).unwrap();
    }
    let dry = CollectOptions { dry_run: true, ..CollectOptions::default() };
    assert_eq!(stock.storage.collect(dry).await.unwrap().quarantined, []);
    assert_eq!(stock.collect().await.quarantined, [], "what a manifest names stays, held or not");
    assert_eq!(kinds(&stock.check(false).await), [(FindingKind::MissingReference, false); 2]);
    let report = stock.check(true).await;
    assert_eq!(kinds(&report), [(FindingKind::MissingReference, true); 2]);
    assert_eq!(report.findings[0].digest.as_ref(), Some(&layer));
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.contains(r#""kind":"missing_reference","repository":"a","digest":"sha256:"#), "{text}");
    assert!(stock.has_blob("a", &layer).await && stock.has_blob("b", &layer).await);
    assert_eq!(stock.check(true).await.findings, []);

    // Once no manifest names it, it goes like any other.
    std::fs::remove_file(stock.record("a", "_blobs", &layer)).unwrap();
    stock.untag("a", "1").await;
    stock.untag("b", "1").await;
    assert!(stock.collect().await.quarantined.iter().any(|taken| taken.digest == layer));
    assert_eq!(stock.storage.usage(), Usage::default());
}

#[tokio::test]
async fn a_lost_hold_of_bad_content_is_not_written_again() {
    for how in ["gone", "damaged", "unreadable"] {
        let stock = Stock::open().await;
        stock.image("a", "1", "layer").await;
        let layer = Digest::sha256_of(b"layer");
        let (hold, path) = (stock.record("a", "_blobs", &layer), stock.blob_path(&layer));
        std::fs::remove_file(&hold).unwrap();
        match how {
            "gone" => std::fs::remove_file(&path).unwrap(),
            "damaged" => flip_a_bit(&path),
            _ => drop(make_unreadable(&path)),
        }
        let found = kinds(&stock.check(true).await);
        assert!(found.contains(&(FindingKind::MissingReference, false)), "{how}: {found:?}");
        assert!(!hold.exists(), "{how}");
    }
}

#[tokio::test]
async fn what_a_manifest_names_many_times_is_told_of_once() {
    let stock = Stock::open().await;
    let layer = stock.blob("a", b"layer").await;
    stock.blob("a", b"{}").await;
    let image = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": Descriptor::empty(),
        "layers": vec![&layer; 1000],
    });
    let image = stock.manifest("a", "", &image).await;
    stock.index("a", "all", &[&image, &image]).await;
    std::fs::remove_file(stock.record("a", "_blobs", &layer.digest)).unwrap();
    assert_eq!(kinds(&stock.check(false).await), [(FindingKind::MissingReference, false)]);
    std::fs::remove_file(stock.record("a", "_manifests", &image.digest)).unwrap();
    let found = stock.check(false).await.findings;
    let found: Vec<_> = found.iter().map(|finding| (finding.kind, finding.digest.as_ref())).collect();
    assert_eq!(found, [(FindingKind::MissingReference, Some(&image.digest))]);
}
