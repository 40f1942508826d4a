//! What somebody else put into the registry's directory: links that lead out of it, and files that never end.

use std::os::unix::fs::symlink;
use std::path::Path;

use oci_registry::Digest;
use oci_registry::storage::StorageError;
use oci_registry::storage::maintenance::{CollectOptions, FindingKind};

use crate::fixture::name;
use crate::stock::{Stock, push};

fn make_fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
}

#[tokio::test]
async fn a_link_or_a_fifo_is_no_content_and_a_push_heals() {
    let stock = Stock::open().await;
    let outside = stock.root().with_extension("outside");
    std::fs::write(&outside, "never pushed").unwrap();
    let image = stock.image("a", "1", "layer").await;
    for digest in [&Digest::sha256_of(b"layer"), &image.digest] {
        let path = stock.blob_path(digest);
        let bytes = std::fs::read(&path).unwrap();
        for plant in [&(|path: &Path| symlink(&outside, path).unwrap()) as &dyn Fn(&Path), &make_fifo] {
            std::fs::remove_file(&path).unwrap();
            plant(&path);
            let size = stock.storage.blob_size(&name("a"), digest).await.unwrap();
            assert!(size.is_none() && stock.storage.blob(&name("a"), digest).await.unwrap().is_none());
            assert!(digest != &image.digest || !stock.has_manifest("a", digest).await);
            let found = stock.check(false).await.findings;
            assert!(found.iter().any(|finding| finding.kind == FindingKind::UnknownFile), "{found:?}");
            push(&stock.storage, &name("a"), &bytes).await.unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            assert_eq!(stock.check(false).await.findings, []);
        }
    }
    assert_eq!(std::fs::read(&outside).unwrap(), b"never pushed");
    std::fs::remove_file(outside).unwrap();
}

#[tokio::test]
async fn an_upload_is_not_written_through_a_link() {
    let stock = Stock::open().await;
    let outside = stock.root().join("outside");
    std::fs::write(&outside, "other").unwrap();
    let upload = stock.storage.start_upload(&name("a"), oci_registry::Algorithm::Sha256).await.unwrap();
    let (id, path) = (upload.id(), stock.root().join("repositories/a/_uploads").join(upload.id().to_string()));
    drop(upload);
    std::fs::remove_file(&path).unwrap();
    symlink(&outside, &path).unwrap();
    // Once as the session that is known, once as one from before a restart.
    let body = || futures::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"layer"))]);
    if let Ok(upload) = stock.storage.upload(&name("a"), id).await {
        let result = upload.append(body(), None).await;
        assert!(matches!(result, Err(StorageError::UploadUnknown)), "{result:?}");
    }
    let stock = stock.reopen().await;
    assert!(matches!(stock.storage.upload(&name("a"), id).await, Err(StorageError::UploadUnknown)));
    assert_eq!(std::fs::read(outside).unwrap(), b"other");
}

#[tokio::test]
async fn nothing_is_collected_while_a_repository_is_a_link() {
    let stock = Stock::open().await;
    let (aside, link) = (stock.root().join("aside"), stock.root().join("repositories/a/b"));
    stock.blob("a/b", b"layer").await;
    std::fs::rename(&link, &aside).unwrap();
    symlink(&aside, &link).unwrap();
    stock.age();
    let refused = stock.storage.collect(CollectOptions::default()).await;
    assert!(matches!(&refused, Err(StorageError::Link { path }) if *path == link), "{refused:?}");
    let found = stock.check(true).await.findings;
    assert_eq!(
        (found.len(), found[0].kind, found[0].path.as_path()),
        (1, FindingKind::UnknownFile, Path::new("repositories/a/b"))
    );
    std::fs::remove_file(&link).unwrap();
    std::fs::rename(&aside, &link).unwrap();
    assert!(stock.storage.collect(CollectOptions::default()).await.is_ok());
}
