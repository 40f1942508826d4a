//! Which tags stay, and what takes room.

use std::time::Duration;

use oci_registry::storage::maintenance::{Keep, RepositoryUsage, RetentionRule};

use crate::fixture::{name, noise};
use crate::stock::Stock;

#[tokio::test]
async fn the_tags_that_were_set_last_stay() {
    let stock = Stock::open().await;
    let first = stock.image("tools/parted", "1", "first").await;
    for tag in ["2", "3", "4", "5"] {
        stock.image("tools/parted", tag, tag).await;
        stock.image("os-images/debian", tag, tag).await;
    }
    // As old as their names say, whatever the clock's grain; 2 was set again just now.
    for (tag, age) in [("1", 5), ("2", 4), ("3", 3), ("4", 2), ("5", 1)] {
        let path = stock.root().join("repositories/tools/parted/_refs").join(tag);
        let time = path.metadata().unwrap().modified().unwrap() - Duration::from_secs(3600 * age);
        std::fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
    stock.image("tools/parted", "2", "2").await;
    let rules = [RetentionRule { prefix: "tools".to_owned(), keep: Keep::Last(2) }];
    let protected = [(name("tools/parted"), first.digest)];

    let dry = stock.storage.retain(&rules, true, &protected).await.unwrap();
    assert_eq!(stock.storage.tags(&name("tools/parted")).await.unwrap().len(), 5);
    let report = stock.storage.retain(&rules, false, &protected).await.unwrap();
    assert_eq!((&dry.removed, dry.kept), (&report.removed, report.kept));
    let removed: Vec<_> = report.removed.iter().map(|removed| removed.tag.as_str()).collect();
    assert_eq!((removed, report.kept), (vec!["3", "4"], 3));
    let left = stock.storage.tags(&name("tools/parted")).await.unwrap();
    assert_eq!(left.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(), ["1", "2", "5"]);
    assert_eq!(stock.storage.tags(&name("os-images/debian")).await.unwrap().len(), 4);
    assert_eq!(stock.storage.retain(&rules, false, &protected).await.unwrap().removed, []);
    assert_eq!(stock.collect().await.manifests, 2);
}

#[tokio::test]
async fn what_takes_room() {
    let stock = Stock::open().await;
    let (large, small) = (noise(1, 30_000), noise(2, 20_000));
    let layer = stock.blob("a", &large).await;
    stock.blob("b", &large).await;
    stock.blob("a", b"{}").await;
    stock.manifest("a", "1", &crate::stock::image(&layer, None)).await;
    let spare = stock.blob("b", &small).await;
    let largest = stock.storage.largest(2).await.unwrap();
    let digests: Vec<_> = largest.iter().map(|stored| (&stored.digest, stored.size, stored.referenced)).collect();
    assert_eq!(digests, [(&layer.digest, 30_000, true), (&spare.digest, 20_000, false)]);
    assert_eq!(
        (&largest[0].repositories[..], &largest[1].repositories[..]),
        (&[name("a"), name("b")][..], &[name("b")][..])
    );
    assert_eq!(stock.storage.largest(0).await.unwrap(), []);
    assert!(stock.storage.largest(9).await.unwrap().iter().any(|stored| stored.size < 1000 && stored.referenced));

    let usage = stock.storage.usage_by_repository().await.unwrap();
    let own = usage[0].own_bytes;
    assert_eq!(
        usage[0],
        RepositoryUsage { repository: name("a"), tags: 1, manifests: 1, blobs: 2, bytes: 30_000 + own, own_bytes: own }
    );
    assert_eq!((usage[1].bytes, usage[1].own_bytes, usage[1].manifests), (50_000, 20_000, 0));
    let all = stock.storage.usage().bytes;
    assert_eq!(usage.iter().map(|usage| usage.own_bytes).sum::<u64>() + 30_000, all);
}

#[tokio::test]
async fn twenty_thousand_blobs() {
    let stock = Stock::open_in_memory().await;
    // As they would lie there after as many pushes, without the time that those take.
    let holds = stock.root().join("repositories/a/_blobs/sha256");
    std::fs::create_dir_all(&holds).unwrap();
    for number in 0..20_000_u32 {
        let content = number.to_le_bytes();
        let digest = oci_registry::Digest::sha256_of(&content);
        std::fs::write(stock.blob_path(&digest), content).unwrap();
        std::fs::write(holds.join(digest.hex()), "").unwrap();
    }
    let stock = stock.reopen().await;
    stock.image("a", "1", "kept").await;
    let before = stock.storage.usage();
    assert_eq!(stock.check(false).await.blobs, before.blobs);
    assert_eq!(stock.storage.largest(10).await.unwrap().len(), 10);
    let report = stock.collect().await;
    assert_eq!((report.holds, report.blobs, report.bytes), (20_000, 20_000, 80_000));
    assert_eq!(stock.storage.usage().blobs, 3);
    let restored = stock.storage.restore(report.run).await.unwrap();
    assert_eq!((restored.holds, restored.blobs), (20_000, 20_000));
    assert_eq!(stock.storage.usage(), before);
}
