//! A database file that was put back from a backup while the log of the one before it still lay there.
//!
//! A process that is killed leaves `…-wal` and `…-shm`. SQLite would apply that log to whatever file has the name at the
//! next start (sqlite.org, "How To Corrupt An SQLite Database File", 1.4), and metald's guide puts a backup back with `cp`
//! and removes neither. Of its own accord the file changes only while a log is copied into it, which begins right after
//! the last write to that log: a file that is a minute younger than its log is another file.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// In seconds. No copying of a log takes this long: it has 1,000 pages.
const MARGIN: i64 = 60;

/// Renames the log of a database that was replaced, so that it is not applied to the new one. The name that it has now;
/// nothing when the log belongs to the database, or there is none. Nothing may have the database open.
///
/// # Errors
/// The directory cannot be read or written.
pub fn set_stale_log_aside(database: &Path) -> io::Result<Option<PathBuf>> {
    let log = with_suffix(database, "-wal");
    let (Some(own), Some(other)) = (metadata(database)?, metadata(&log)?) else { return Ok(None) };
    if other.len() == 0 || own.mtime() - other.mtime() <= MARGIN {
        return Ok(None);
    }
    let aside = with_suffix(database, "-wal.replaced");
    fs::rename(&log, &aside)?;
    match fs::remove_file(with_suffix(database, "-shm")) {
        // Only an index of the log; SQLite makes it anew.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(Some(aside)),
    }
}

fn metadata(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Migration, Store};

    const MIGRATIONS: &[Migration] =
        &[Migration { version: 90_001, name: "x", sql: "CREATE TABLE x (n INTEGER NOT NULL)" }];

    async fn numbers(path: &Path) -> Vec<i64> {
        let store = Store::open(path, MIGRATIONS).await.unwrap();
        let rows = sqlx::query_scalar("SELECT n FROM x ORDER BY n").fetch_all(store.reader()).await.unwrap();
        store.close().await;
        rows
    }

    /// A database of a process that was killed: 1 was backed up, 2 is in the log. The backup, and the database.
    async fn killed(directory: &Path) -> (PathBuf, PathBuf) {
        let (live, backup, left) = (directory.join("live"), directory.join("backup"), directory.join("left"));
        let store = Store::open(&live, MIGRATIONS).await.unwrap();
        let add = |n: i64| sqlx::query("INSERT INTO x VALUES (?)").bind(n).execute(store.writer());
        add(1).await.unwrap();
        let name = backup.to_str().unwrap();
        sqlx::query("VACUUM INTO ?").bind(name).execute(store.writer()).await.unwrap();
        add(2).await.unwrap();
        for suffix in ["", "-wal", "-shm"] {
            fs::copy(with_suffix(&live, suffix), with_suffix(&left, suffix)).unwrap();
        }
        store.close().await;
        (backup, left)
    }

    #[tokio::test]
    async fn the_log_of_a_killed_process_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (_, left) = killed(directory.path()).await;
        assert_eq!(set_stale_log_aside(&left).unwrap(), None);
        assert_eq!(numbers(&left).await, [1, 2]);
        assert_eq!(set_stale_log_aside(&left).unwrap(), None, "closed in order");
    }

    #[tokio::test]
    async fn a_backup_that_was_put_back_stays_what_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let (backup, left) = killed(directory.path()).await;
        fs::copy(&backup, &left).unwrap();
        let log = fs::File::options().write(true).open(with_suffix(&left, "-wal")).unwrap();
        log.set_modified(std::time::UNIX_EPOCH).unwrap();
        let aside = set_stale_log_aside(&left).unwrap().unwrap();
        assert!(aside.ends_with("left-wal.replaced") && aside.exists());
        assert_eq!(numbers(&left).await, [1]);
    }
}
