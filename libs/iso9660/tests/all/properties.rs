//! Any files go in and come out; any damage is survived.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;

use iso9660::{EntryKind, Error, Image, Reader};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{TIMESTAMP, VOLUME_ID, build, files, have, text, xorriso};

/// Everything that a name may hold, and often what 8.3 and case make equal.
fn names() -> impl Strategy<Value = String> {
    let common = "[a-c]{1,3}[.-]?[A-Ca-c]{0,8}\\.?[a-z]{1,5}";
    let any = "[^\\p{Cc}*/:;?\\\\\u{10000}-\u{10ffff}]{1,64}";
    prop_oneof![3 => common, 1 => any]
}

fn contents() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![Just(0_usize), Just(2048), Just(4096), 0..10_000_usize];
    (length, any::<u8>()).prop_map(|(length, seed)| (0..length).map(|at| seed.wrapping_add(at as u8)).collect())
}

/// An image of those files whose names are taken, and these files.
fn image_of(files: Vec<(String, Vec<u8>)>) -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
    let mut image = Image::builder(VOLUME_ID, TIMESTAMP).unwrap();
    let mut taken = BTreeMap::new();
    for (name, contents) in files {
        match image.file(&name, contents.clone()) {
            Ok(_) => assert!(taken.insert(name, contents).is_none()),
            // A name may begin with a space, end with a full stop or differ from another in case only.
            Err(error) => assert!(matches!(error, Error::Duplicate { .. } | Error::Name { .. }), "{error}"),
        }
    }
    let bytes = image.build().unwrap();
    assert_eq!(bytes.len() as u64, image.size());
    assert_eq!(bytes.len() % 2048, 0);
    (bytes, taken)
}

/// Reads all that the reader can reach: lists every directory it lists, finds every file.
fn read_all(image: &[u8]) {
    let Ok(mut reader) = Reader::open(Cursor::new(image)) else { return };
    for entry in reader.list("/").unwrap_or_default() {
        assert!(!entry.name.is_empty() && !entry.name.contains('/'));
        match entry.kind {
            EntryKind::Directory => drop(reader.list(&entry.name)),
            EntryKind::File | EntryKind::Other => {
                if let Ok(extent) = reader.find(&entry.name) {
                    assert!(extent.offset + extent.length <= image.len() as u64);
                }
            }
        }
    }
}

/// An image with sub-directories, which the library itself does not write.
fn foreign_image() -> Option<Vec<u8>> {
    if !have("damaged_images_are_survived on an image of xorriso", &["xorriso"]) {
        return None;
    }
    let directory = TempDir::new().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir_all(tree.join("below/deeper")).unwrap();
    fs::write(tree.join("below/file"), b"contents").unwrap();
    fs::write(tree.join("a-very-long-name-".repeat(14)), b"continued").unwrap();
    let image = directory.path().join("image.iso");
    xorriso(&["-as", "mkisofs", "-quiet", "-no-pad", "-R", "-o", text(&image), text(&tree)]);
    Some(fs::read(image).unwrap())
}

/// Changes bytes where structures lie (behind the system area) and perhaps cuts the end off.
fn damage(image: &mut Vec<u8>, flips: &[(prop::sample::Index, u8)], cut: Option<prop::sample::Index>) {
    let structures = 16 * 2048..image.len().min(40 * 2048);
    for (at, value) in flips {
        image[structures.start + at.index(structures.len())] = *value;
    }
    if let Some(cut) = cut {
        image.truncate(cut.index(image.len()));
    }
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(files in prop::collection::vec((names(), contents()), 0..40)) {
        let (image, files) = image_of(files);
        let mut reader = Reader::open(Cursor::new(&image)).unwrap();
        prop_assert_eq!(reader.volume_id(), VOLUME_ID);
        let listed: Vec<_> = reader.list("/").unwrap();
        prop_assert_eq!(listed.len(), files.len());
        prop_assert!(listed.iter().all(|entry| entry.kind == EntryKind::File));
        for (name, contents) in &files {
            let extent = reader.find(name).unwrap();
            prop_assert_eq!(&image[extent.offset as usize..][..extent.length as usize], contents);
        }
    }

    #[test]
    fn the_order_of_files_does_not_count(
        files in prop::collection::btree_map("[a-e]{1,12}\\.[a-e]{1,4}", contents(), 0..12),
        rotation in any::<prop::sample::Index>(),
    ) {
        let mut files: Vec<_> = files.into_iter().collect();
        let (first, _) = image_of(files.clone());
        if !files.is_empty() {
            let by = rotation.index(files.len());
            files.rotate_left(by);
        }
        prop_assert!(first == image_of(files).0);
    }

    #[test]
    fn any_bytes_are_survived(tail in prop::collection::vec(any::<u8>(), 0..20_000)) {
        read_all(&tail);
        read_all(&[vec![0; 16 * 2048], b"\x01CD001\x01".to_vec(), tail].concat());
    }
}

/// Bytes that mean the most where they are lengths, flags and block numbers.
fn flips() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    let value = prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    prop::collection::vec((any::<prop::sample::Index>(), value), 1..60)
}

#[test]
fn damaged_images_are_survived() {
    let images = [Some(build(&files())), foreign_image()];
    for image in images.into_iter().flatten() {
        proptest!(ProptestConfig::with_cases(2000), |(
            flips in flips(),
            cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        )| {
            let mut damaged = image.clone();
            damage(&mut damaged, &flips, cut);
            read_all(&damaged);
        });
    }
}

#[test]
fn every_single_byte_of_the_structures_may_be_wrong() {
    let image = build(&files());
    // From the descriptors to the end of the continuation area: behind it are files only.
    let end = Reader::open(Cursor::new(&image)).unwrap().list("/").unwrap();
    let end = end.iter().map(|entry| entry.extent.offset).min().unwrap() as usize;
    let mut damaged = image;
    for at in 16 * 2048..end {
        let right = damaged[at];
        for wrong in [right ^ 0x01, !right] {
            damaged[at] = wrong;
            read_all(&damaged);
        }
        damaged[at] = right;
    }
}

#[test]
fn xorriso_agrees_on_any_files() {
    if !have("xorriso_agrees_on_any_files", &["xorriso"]) {
        return;
    }
    let name = "[a-zA-Z0-9äß_. +=,-]{1,64}";
    proptest!(ProptestConfig::with_cases(8), |(files in prop::collection::vec((name, contents()), 0..60))| {
        let (image, files) = image_of(files);
        let directory = TempDir::new().unwrap();
        let (path, out) = (directory.path().join("image.iso"), directory.path().join("out"));
        fs::write(&path, image).unwrap();
        xorriso(&["-indev", text(&path), "-osirrox", "on", "-extract", "/", text(&out)]);
        let extracted: BTreeMap<_, _> = fs::read_dir(&out).unwrap().map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        }).collect();
        fs::set_permissions(&out, fs::Permissions::from_mode(0o755)).unwrap();
        prop_assert_eq!(extracted, files);
    });
}
