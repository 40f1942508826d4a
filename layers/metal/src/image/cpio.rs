//! The archive form of an initramfs (kernel documentation, driver-api/early-userspace/buffer-format, "newc"), written so
//! that equal trees are equal bytes: sorted, owner 0, one date, numbered inodes.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{ImageError, tree};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// The archive of everything below `root`; other things than directories, files and links are left out.
pub(super) fn archive(root: &Path, epoch: u64) -> Result<Vec<u8>, ImageError> {
    let mut out = Vec::new();
    let mut inode = 0;
    for relative in tree::walk(root)? {
        let path = root.join(&relative);
        let metadata = path.symlink_metadata().map_err(ImageError::file("read", &path))?;
        let permissions = metadata.permissions().mode() & 0o7777;
        let (kind, permissions, content) = if metadata.is_dir() {
            (DIRECTORY, permissions, Vec::new())
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(&path).map_err(ImageError::file("read", &path))?;
            (LINK, 0o777, target.as_os_str().as_bytes().to_vec())
        } else if metadata.is_file() {
            (REGULAR, permissions, std::fs::read(&path).map_err(ImageError::file("read", &path))?)
        } else {
            continue;
        };
        inode += 1;
        entry(&mut out, inode, kind | permissions, epoch, relative.as_os_str().as_bytes(), &content);
    }
    entry(&mut out, 0, 0, 0, b"TRAILER!!!", &[]);
    Ok(out)
}

fn entry(out: &mut Vec<u8>, inode: u32, mode: u32, epoch: u64, name: &[u8], content: &[u8]) {
    let links = if mode & DIRECTORY == 0 { 1 } else { 2 };
    let (date, size, name_size) = (epoch as u32, content.len() as u32, name.len() as u32 + 1);
    // inode, mode, uid, gid, links, date, size, device, represented device, length of the name, checksum
    let fields = [inode, mode, 0, 0, links, date, size, 0, 0, 0, 0, name_size, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(name);
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        tree::write(&root.path().join("bin/sh"), 0o755, b"hello").unwrap();
        tree::link(&root.path().join("init"), "bin/sh").unwrap();
        root
    }

    #[test]
    fn equal_trees_are_equal_bytes() {
        assert_eq!(archive(sample().path(), 7).unwrap(), archive(sample().path(), 7).unwrap());
    }

    #[test]
    fn the_first_entry_is_as_the_format_says() {
        let bytes = archive(sample().path(), 7).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with(concat!(
            "070701", "00000001", "000041ED", "00000000", "00000000", "00000002", "00000007", "00000000", "00000000",
            "00000000", "00000000", "00000000", "00000004", "00000000", "bin\0"
        )));
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
