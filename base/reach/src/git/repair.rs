//! What killed processes leave in a mirror, and how it goes away.

use std::fs;
use std::path::Path;

use host::{LockFile, remove_if_present};

use super::Error;

/// Removes locks and half-written packs. Only while the mirror's lock is held: then no git is at work that could have
/// made them.
pub(super) fn clean(repository: &Path) -> Result<(), Error> {
    remove_below(repository, &["refs", "worktrees", "logs"], &|name| name.ends_with(".lock"))?;
    for name in ["config.lock", "packed-refs.lock", "HEAD.lock", "shallow.lock", "index.lock", "gc.pid"] {
        remove_if_present(&repository.join(name))?;
    }
    remove_below(repository, &["objects"], &|name| name.starts_with("tmp_"))
}

fn remove_below(repository: &Path, names: &[&str], is_left: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let mut directories: Vec<_> = names.iter().map(|name| repository.join(name)).collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory {
                directories.push(entry.path());
            } else if is_left(&entry.file_name().to_string_lossy()) {
                remove_if_present(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// Removes trees that nobody uses. Only while the mirror's lock is held: whoever makes a tree holds it until the tree's own
/// lock is taken.
pub(super) fn prune(trees: &Path, repository: &Path) {
    for entry in fs::read_dir(trees).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(id) = name.strip_suffix(".lock") else { continue };
        if let Ok(lock) = LockFile::acquire(&entry.path(), "prune") {
            remove_tree(trees, repository, id);
            drop(lock);
        }
    }
}

/// Removes a tree and what the repository knows of it. The lock goes last: as long as it is there, this is tried again.
pub(super) fn remove_tree(trees: &Path, repository: &Path, id: &str) {
    for directory in [trees.join(id), repository.join("worktrees").join(id)] {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(directory = %directory.display(), %error, "a tree could not be removed");
                return;
            }
            _ => {}
        }
    }
    let _ = fs::remove_file(trees.join(format!("{id}.lock")));
}
