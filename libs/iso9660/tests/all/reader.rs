//! The reader on images that xorriso made.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use iso9660::{EntryKind, ReadError, Reader};
use tempfile::TempDir;

use crate::{build, files, have, run, text, xorriso};

const RESERVED_BYTES: usize = 10 << 20;

/// A tree like that of a maintenance medium: the reserved file at the root, a kernel below, names too
/// long for their directory record, a symbolic link, a directory of several sectors.
fn maintenance_tree(root: &Path) {
    let reserved: Vec<u8> = (0..RESERVED_BYTES).map(|at| (at / 2048) as u8).collect();
    fs::write(root.join("TASK.IMG"), reserved).unwrap();
    fs::create_dir_all(root.join("boot/grub/very-long-directory-name")).unwrap();
    fs::write(root.join("boot/vmlinuz"), b"kernel").unwrap();
    fs::write(root.join("boot/grub/very-long-directory-name/grub.cfg"), b"menu").unwrap();
    fs::write(root.join("long-".repeat(48)), b"a name of 240 bytes").unwrap();
    symlink("boot/vmlinuz", root.join("vmlinuz")).unwrap();
    fs::create_dir(root.join("pool")).unwrap();
    for number in 0..100 {
        fs::write(root.join(format!("pool/package-{number}.deb")), number.to_string()).unwrap();
    }
}

fn maintenance_image(directory: &TempDir, options: &[&str]) -> PathBuf {
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    maintenance_tree(&tree);
    let image = directory.path().join("maintenance.iso");
    let arguments = [&["-as", "mkisofs", "-quiet", "-V", "CAIRN_MAINT"], options, &["-o", text(&image), text(&tree)]];
    xorriso(&arguments.concat());
    image
}

fn contents(image: &Path, reader: &mut Reader<File>, path: &str) -> Vec<u8> {
    let extent = reader.find(path).unwrap();
    let mut bytes = vec![0; extent.length as usize];
    File::open(image).unwrap().read_exact_at(&mut bytes, extent.offset).unwrap();
    bytes
}

#[test]
fn the_reserved_file_of_a_maintenance_image_is_found() {
    if !have("the_reserved_file_of_a_maintenance_image_is_found", &["xorriso"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let image = maintenance_image(&directory, &["-J", "-joliet-long", "-R"]);
    let mut reader = Reader::open(File::open(&image).unwrap()).unwrap();
    assert_eq!(reader.volume_id(), "CAIRN_MAINT");

    let extent = reader.find("/TASK.IMG").unwrap();
    assert_eq!((extent.length, extent.offset % 2048), (RESERVED_BYTES as u64, 0));
    let original = fs::read(directory.path().join("tree/TASK.IMG")).unwrap();
    assert!(contents(&image, &mut reader, "/TASK.IMG") == original);
    // xorriso's own answer to the same question: the first block of the file's extent.
    let report = xorriso(&["-indev", text(&image), "-find", "/TASK.IMG", "-exec", "report_lba", "--"]);
    let line = report.lines().find(|line| line.starts_with("File data lba:")).unwrap();
    assert_eq!(line.split(',').nth(1).unwrap().trim(), (extent.offset / 2048).to_string());

    assert_eq!(contents(&image, &mut reader, "/boot/vmlinuz"), b"kernel");
    assert_eq!(contents(&image, &mut reader, "//boot/grub/very-long-directory-name/grub.cfg"), b"menu");
    assert_eq!(contents(&image, &mut reader, "/pool/package-99.deb"), b"99");
    assert_eq!(contents(&image, &mut reader, &format!("/{}", "long-".repeat(48))), b"a name of 240 bytes");
    assert_eq!(reader.list("/pool").unwrap().len(), 100);
    let mut root: Vec<_> = reader.list("/").unwrap().into_iter().map(|entry| (entry.name, entry.kind)).collect();
    root.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(
        root,
        [
            ("TASK.IMG".into(), EntryKind::File),
            ("boot".into(), EntryKind::Directory),
            ("long-".repeat(48), EntryKind::File),
            ("pool".into(), EntryKind::Directory),
            ("vmlinuz".into(), EntryKind::Other),
        ]
    );
}

#[test]
fn a_path_that_leads_nowhere_is_named() {
    if !have("a_path_that_leads_nowhere_is_named", &["xorriso"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let image = maintenance_image(&directory, &["-R"]);
    let mut reader = Reader::open(File::open(image).unwrap()).unwrap();
    assert!(matches!(reader.find("/task.img"), Err(ReadError::NotFound { path }) if path == "/task.img"));
    assert!(matches!(reader.find("/TASK.IMG/x"), Err(ReadError::NotADirectory { path }) if path == "/TASK.IMG"));
    assert!(matches!(reader.list("/TASK.IMG"), Err(ReadError::NotADirectory { .. })));
    assert!(matches!(reader.find("/boot"), Err(ReadError::NotAFile { path }) if path == "/boot"));
    assert!(matches!(reader.find("/vmlinuz"), Err(ReadError::NotAFile { .. })));
    assert!(matches!(reader.find("/"), Err(ReadError::NotAFile { .. })));
}

#[test]
fn without_rock_ridge_the_plain_names_count() {
    if !have("without_rock_ridge_the_plain_names_count", &["genisoimage"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir_all(tree.join("boot")).unwrap();
    fs::write(tree.join("TASK.IMG"), b"reserved").unwrap();
    fs::write(tree.join("boot/user-data"), b"data").unwrap();
    let image = directory.path().join("plain.iso");
    run("genisoimage", &["-quiet", "-V", "PLAIN", "-o", text(&image), text(&tree)]);
    let mut reader = Reader::open(File::open(&image).unwrap()).unwrap();
    assert_eq!(reader.volume_id(), "PLAIN");
    assert_eq!(contents(&image, &mut reader, "/TASK.IMG"), b"reserved");
    assert_eq!(contents(&image, &mut reader, "/BOOT/USER_DAT"), b"data");
}

/// Where the record of the primary tree with `identifier` starts.
fn record_of(image: &[u8], identifier: &[u8]) -> usize {
    let at = image.windows(identifier.len()).position(|window| window == identifier).unwrap();
    at - 33
}

#[test]
fn the_sections_of_a_file_are_one_extent_if_they_lie_behind_each_other() {
    const MORE_FOLLOWS: u8 = 0x80;
    let contents = |length| vec![1; length];
    let files = [("a".into(), contents(4096)), ("b".into(), contents(5)), ("c".into(), contents(7))];
    let image = build(&files);

    let mut joined = image.clone();
    joined[record_of(&image, b"A.;1") + 25] |= MORE_FOLLOWS;
    let mut reader = Reader::open(std::io::Cursor::new(joined)).unwrap();
    assert_eq!(reader.list("/").unwrap().len(), 2);
    assert_eq!(reader.find("/a").unwrap().length, 4096 + 5);

    for scattered_or_cut in [b"B.;1", b"C.;1"] {
        let mut broken = image.clone();
        broken[record_of(&image, scattered_or_cut) + 25] |= MORE_FOLLOWS;
        let mut reader = Reader::open(std::io::Cursor::new(broken)).unwrap();
        assert!(matches!(reader.find("/a"), Err(ReadError::Record { .. })));
    }
}

#[test]
fn what_is_not_an_image_is_said_so() {
    for bytes in [vec![], vec![0; 100_000], b"CD001".repeat(20_000)] {
        assert!(matches!(Reader::open(std::io::Cursor::new(bytes)), Err(ReadError::NotIso9660)));
    }
    let mut small_blocks = build(&files());
    small_blocks[16 * 2048 + 128..][..2].copy_from_slice(&512_u16.to_le_bytes());
    let refused = Reader::open(std::io::Cursor::new(small_blocks));
    assert!(matches!(refused, Err(ReadError::BlockSize { size: 512 })));
}

#[test]
fn a_file_that_the_image_has_lost_is_past_the_end() {
    let mut image = build(&files());
    let end = image.len() as u64 - 2048;
    image.truncate(end as usize);
    let mut reader = Reader::open(std::io::Cursor::new(&image)).unwrap();
    let last = reader.list("/").unwrap().into_iter().max_by_key(|entry| entry.extent.offset).unwrap();
    let lost = reader.find(&last.name);
    assert!(matches!(lost, Err(ReadError::PastEnd { end: at, .. }) if at == end));
}
