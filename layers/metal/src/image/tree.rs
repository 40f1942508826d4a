//! File trees in the making: writing, removing by pattern, and lists of paths.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::ImageError;

/// The lines of an embedded list that are neither empty nor a comment.
pub(super) fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Writes `content` with `mode`, making the directories above it (mode 0755).
pub(super) fn write(path: &Path, mode: u32, content: &[u8]) -> Result<(), ImageError> {
    make_parent(path)?;
    std::fs::write(path, content).map_err(ImageError::file("write", path))?;
    set_mode(path, mode)
}

/// Makes a symbolic link and the directories above it.
pub(super) fn link(path: &Path, target: &str) -> Result<(), ImageError> {
    make_parent(path)?;
    symlink(target, path).map_err(ImageError::file("link", path))
}

/// Copies a file with `mode`, making the directories above it.
pub(super) fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), ImageError> {
    make_parent(to)?;
    std::fs::copy(from, to).map_err(ImageError::file("copy", from))?;
    set_mode(to, mode)
}

/// Makes a directory and those above it, all with mode 0755 whatever the umask.
pub(super) fn make_directory(path: &Path) -> Result<(), ImageError> {
    if path.is_dir() {
        return Ok(());
    }
    make_parent(path)?;
    std::fs::create_dir(path).map_err(ImageError::file("create", path))?;
    set_mode(path, 0o755)
}

fn make_parent(path: &Path) -> Result<(), ImageError> {
    path.parent().map_or(Ok(()), make_directory)
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), ImageError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(ImageError::file("set the mode of", path))
}

/// Every path below `root`, relative to it, a directory before what is in it, each directory sorted by name.
pub(super) fn walk(root: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let mut found = Vec::new();
    descend(root, Path::new(""), &mut found)?;
    Ok(found)
}

fn descend(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<(), ImageError> {
    let directory = root.join(below);
    let entries = std::fs::read_dir(&directory).map_err(ImageError::file("read", &directory))?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    for name in names {
        let relative = below.join(name);
        let is_directory = root.join(&relative).symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        found.push(relative.clone());
        if is_directory {
            descend(root, &relative, found)?;
        }
    }
    Ok(())
}

/// Removes what `pattern` names below `root`; nothing matching is no error. `*` stands for any part of one name.
pub(super) fn remove(root: &Path, pattern: &str) -> Result<(), ImageError> {
    let mut places = vec![root.to_owned()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for place in places {
            if !part.contains('*') {
                next.push(place.join(part));
            } else if let Ok(entries) = std::fs::read_dir(&place) {
                let names = entries.flatten().map(|entry| entry.file_name());
                next.extend(names.filter(|name| matches(part, &name.to_string_lossy())).map(|name| place.join(name)));
            }
        }
        places = next;
    }
    for place in places {
        let Ok(metadata) = place.symlink_metadata() else { continue };
        let outcome = if metadata.is_dir() { std::fs::remove_dir_all(&place) } else { std::fs::remove_file(&place) };
        outcome.map_err(ImageError::file("remove", &place))?;
    }
    Ok(())
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_part_of_one_name() {
        assert!(matches("lib*.so*", "libicu.so.76"));
        assert!(matches("*", ""));
        assert!(!matches("perl*", "xperl"));
        assert!(!matches("a*b", "ac"));
    }

    #[test]
    fn removal_follows_the_pattern_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        for name in ["usr/share/doc/a/x", "usr/share/doc/b", "usr/share/info/x", "usr/bin/perl5"] {
            write(&root.path().join(name), 0o644, b"").unwrap();
        }
        link(&root.path().join("usr/bin/perl"), "perl5").unwrap();
        for pattern in ["usr/share/doc/*", "usr/bin/perl*", "no/such/place", "usr/share/info"] {
            remove(root.path(), pattern).unwrap();
        }
        let left: Vec<_> = walk(root.path()).unwrap().iter().map(|path| path.display().to_string()).collect();
        assert_eq!(left, ["usr", "usr/bin", "usr/share", "usr/share/doc"]);
    }
}
