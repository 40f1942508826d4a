use std::io;
use std::sync::Arc;

use bytes::Bytes;
use cairn_core::SystemClock;
use serde_json::json;

use super::*;
use crate::disks::Disks;
use crate::model::State;
use crate::store::MIGRATIONS;

struct Place {
    directory: tempfile::TempDir,
    assets: Assets,
    disks: Disks,
}

async fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    for name in ["assets", "vms"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    let store = store::Store::open(&directory.path().join("db"), MIGRATIONS).await.unwrap();
    let at = directory.path().join("assets");
    let defaults = Defaults { kernel: "k".parse().ok(), initrd: "i".parse().ok(), disk: None };
    let assets = Assets::new(at.clone(), VmStore::new(store), defaults, Arc::new(SystemClock));
    Place { disks: Disks::new(directory.path().join("vms"), at), directory, assets }
}

async fn add(assets: &Assets, name: &str, kind: AssetKind, content: &[u8]) -> Result<Asset, AssetError> {
    let pieces: Vec<io::Result<Bytes>> =
        content.chunks(content.len() / 16 + 7).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    assets.add(name.parse().unwrap(), kind, futures::stream::iter(pieces)).await
}

fn vm(spec: serde_json::Value) -> Vm {
    let vm = Vm::new(
        "a".parse().unwrap(),
        "c".parse().unwrap(),
        serde_json::from_value(spec).unwrap(),
        jiff::Timestamp::UNIX_EPOCH,
    );
    Vm { state: State::Created, operation: None, ..vm }
}

#[tokio::test]
async fn a_name_stands_for_one_content() {
    let place = place().await;
    let kernel = add(&place.assets, "k", AssetKind::Kernel, b"a kernel").await.unwrap();
    assert_eq!((kernel.size, kernel.sha256.len()), (8, 64));
    let again = add(&place.assets, "k", AssetKind::Kernel, b"a kernel").await.unwrap();
    assert_eq!((again.name, again.sha256), (kernel.name, kernel.sha256));
    assert!(matches!(add(&place.assets, "k", AssetKind::Kernel, b"another").await, Err(AssetError::Exists { .. })));
    assert!(matches!(add(&place.assets, "k", AssetKind::Disk, b"a kernel").await, Err(AssetError::Exists { .. })));
    assert!(matches!(add(&place.assets, "e", AssetKind::Disk, b"").await, Err(AssetError::Empty { .. })));
    // Two names of one content share the file.
    add(&place.assets, "k2", AssetKind::Kernel, b"a kernel").await.unwrap();
    assert_eq!(std::fs::read_dir(place.directory.path().join("assets")).unwrap().count(), 1);
    assert_eq!(place.assets.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_ends_early_is_not_kept() {
    let place = place().await;
    let pieces = [Ok(Bytes::from_static(b"half")), Err(io::Error::other("gone"))];
    let broken = place.assets.add("d".parse().unwrap(), AssetKind::Disk, futures::stream::iter(pieces)).await;
    assert!(matches!(broken, Err(AssetError::Interrupted { .. })));
    assert!(place.assets.list().await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(place.directory.path().join("assets")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_a_vm_boots_from_is_found_or_named() {
    let place = place().await;
    let resolve = |spec: serde_json::Value| {
        let (assets, spec) = (place.assets.clone(), vm(spec).spec);
        async move { assets.resolve(&spec).await }
    };
    assert!(matches!(resolve(json!({})).await, Err(AssetError::Missing { kind: AssetKind::Kernel, .. })));
    for (name, kind) in
        [("k", AssetKind::Kernel), ("k2", AssetKind::Kernel), ("i", AssetKind::Initrd), ("d", AssetKind::Disk)]
    {
        add(&place.assets, name, kind, name.repeat(50).as_bytes()).await.unwrap();
    }
    let files = resolve(json!({})).await.unwrap();
    assert_eq!((files.kernel.name.as_str(), files.initrd.unwrap().name.as_str(), files.disks.len()), ("k", "i", 0));
    // The default initial file system does not go with another kernel.
    let files = resolve(json!({"boot": {"kernel_path": "k2"}, "storage": [{"path": "d"}]})).await.unwrap();
    assert_eq!((files.kernel.name.as_str(), files.initrd, files.disks.len()), ("k2", None, 1));
    let wrong = resolve(json!({"boot": {"kernel_path": "d"}})).await;
    assert!(matches!(wrong, Err(AssetError::Kind { is: AssetKind::Disk, .. })));
    let file = place.assets.path(&files.disks[0]);
    std::fs::remove_file(file).unwrap();
    assert!(matches!(resolve(json!({"storage": [{"path": "d"}]})).await, Err(AssetError::Damaged { .. })));
    // Added again, it is whole.
    add(&place.assets, "d", AssetKind::Disk, "d".repeat(50).as_bytes()).await.unwrap();
    assert_eq!(resolve(json!({"storage": [{"path": "d"}]})).await.unwrap().disks.len(), 1);
}

#[tokio::test]
async fn nothing_that_is_needed_is_removed() {
    let place = place().await;
    let (kernel, disk): (AssetName, AssetName) = ("k".parse().unwrap(), "d".parse().unwrap());
    add(&place.assets, "k", AssetKind::Kernel, b"kernel").await.unwrap();
    add(&place.assets, "d", AssetKind::Disk, b"disk").await.unwrap();
    let there = [Arc::new(vm(json!({"storage": [{"path": "d"}]})))];
    assert!(matches!(place.assets.remove(&kernel, &there).await, Err(AssetError::InUse { .. })));
    // A made VM has its own copy of the disk.
    place.assets.remove(&disk, &there).await.unwrap();
    assert!(matches!(place.assets.remove(&disk, &there).await, Err(AssetError::Missing { .. })));
    std::fs::write(place.directory.path().join("assets/.part-x"), "half").unwrap();
    std::fs::write(place.directory.path().join("assets/notes"), "not ours").unwrap();
    assert_eq!(place.assets.collect(true).await.unwrap().len(), 2);
    assert_eq!(place.assets.collect(false).await.unwrap().len(), 2);
    assert!(place.assets.collect(false).await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(place.directory.path().join("assets")).unwrap().count(), 2);
}

#[tokio::test]
async fn a_disk_is_a_copy_and_holes_stay_holes() {
    use std::os::unix::fs::MetadataExt as _;
    let place = place().await;
    let content = [vec![1; 1 << 20], vec![0; 8 << 20], vec![2; 100]].concat();
    let asset = add(&place.assets, "d", AssetKind::Disk, &content).await.unwrap();
    add(&place.assets, "k", AssetKind::Kernel, b"kernel").await.unwrap();
    add(&place.assets, "i", AssetKind::Initrd, b"initrd").await.unwrap();
    let vm =
        vm(json!({"storage": [{"path": "d", "id": "data"}, {"path": "d", "is_root_device": true, "read_only": true}]}));
    let files = place.assets.resolve(&vm.spec).await.unwrap();
    place.disks.prepare(&vm, &files).await.unwrap();
    place.disks.prepare(&vm, &files).await.unwrap();
    let made = place.disks.files(&vm);
    assert_eq!(
        made.iter().map(|disk| (disk.id.as_str(), disk.is_root, disk.read_only)).collect::<Vec<_>>(),
        [("disk1", true, true), ("data", false, false)]
    );
    assert_eq!(std::fs::read(&made[1].path).unwrap(), content);
    let found = std::fs::metadata(&made[1].path).unwrap();
    assert!(found.blocks() * 512 < 4 << 20, "{} bytes on the disk", found.blocks() * 512);
    assert_eq!(place.disks.strays(&[]).unwrap().len(), 1);
    place.disks.remove(&vm.id).await.unwrap();
    place.disks.remove(&vm.id).await.unwrap();
    // An asset that was changed becomes no disk.
    let path = place.assets.path(&asset);
    let mut changed = content;
    changed[5] = 9;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, changed).unwrap();
    let error = place.disks.prepare(&vm, &files).await.unwrap_err();
    assert!(error.reason.contains("not what was added"), "{error}");
    let left: Vec<_> = std::fs::read_dir(place.directory.path().join("vms/a/disks")).unwrap().collect();
    assert!(left.is_empty());
}
