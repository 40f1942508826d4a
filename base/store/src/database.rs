//! The SQLite database of a process.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_core::ErrorKind;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Row, Sqlite};

use crate::migration::{Migration, MigrationError, migrate};

/// How long a statement waits for a lock of another process, e.g. of `sqlite3` in an operator's shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection; the one writer is busy only for milliseconds at a time.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;

/// A transaction that holds the write lock from its first statement on. Dropped without `commit()`, nothing happened.
pub type WriteTransaction = sqlx::Transaction<'static, Sqlite>;

/// What can go wrong with the database as such.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made or its mode cannot be set.
    #[error("cannot create the database {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    /// The file cannot be opened as a database.
    #[error("cannot open the database {}", path.display())]
    Open { path: PathBuf, source: sqlx::Error },
    /// The schema cannot be brought up to date.
    #[error("cannot migrate the database {}", path.display())]
    Migrate { path: PathBuf, source: MigrationError },
    /// A transaction cannot begin.
    #[error("cannot begin to write to the database")]
    Begin { source: sqlx::Error },
    /// A transaction of our own cannot end.
    #[error("cannot commit to the database")]
    Commit { source: sqlx::Error },
    /// The trial write of [`Store::probe`] failed.
    #[error("cannot write to the database")]
    Probe { source: sqlx::Error },
    /// A check could not be made.
    #[error("cannot check the database")]
    Check { source: sqlx::Error },
    /// The file is damaged.
    #[error("the database is damaged: {findings}")]
    Damaged { findings: String },
}

impl StoreError {
    /// [`ErrorKind::Conflict`] for a database of a newer program, [`ErrorKind::Unavailable`] when it may work later.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Migrate { source: MigrationError::Newer { .. }, .. } => ErrorKind::Conflict,
            Self::Begin { .. } | Self::Probe { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Failed,
        }
    }
}

/// The database: one connection that writes, a few that read. Clones share them.
///
/// Readers see the last commit and are never held up by the writer (WAL); writers queue for the one connection
/// instead of failing with SQLITE_BUSY.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    writer: SqlitePool,
    reader: SqlitePool,
}

impl Store {
    /// Opens the database, made with mode 0600 if it is missing, and runs the migrations that it lacks, all or none.
    ///
    /// # Errors
    /// Among others: the database was written by a newer program, or a migration was edited after it had run.
    pub async fn open(path: &Path, migrations: &[Migration]) -> Result<Self, StoreError> {
        create_private(path).map_err(|source| StoreError::Create { path: path.to_owned(), source })?;
        let failed = |source| StoreError::Open { path: path.to_owned(), source };
        let options = SqliteConnectOptions::new().filename(path).foreign_keys(true).busy_timeout(BUSY_TIMEOUT);
        // FULL syncs the log at every commit; NORMAL would lose the last commits with the power, and a job whose
        // machine was already reset would run again. Commits are few here, and a sync costs a few milliseconds.
        let writing = options.clone().journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            // A full disk can keep even a rollback from ending; such a connection would begin nothing any more.
            .before_acquire(|connection, _| {
                let is_free = !connection.is_in_transaction();
                Box::pin(async move { Ok(is_free) })
            })
            .connect_with(writing)
            .await
            .map_err(failed)?;
        let mut transaction = begin(&writer).await?;
        migrate(&mut transaction, migrations)
            .await
            .map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
        transaction.commit().await.map_err(|source| StoreError::Commit { source })?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options.read_only(true))
            .await
            .map_err(failed)?;
        Ok(Self { path: path.to_owned(), writer, reader })
    }

    /// Where the database lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connections that can only read.
    pub fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// The one connection that writes, for a single statement. For more than one, [`Store::begin`].
    pub fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Begins a transaction that writes (`BEGIN IMMEDIATE`). It keeps every other writer waiting: no network call and
    /// no long computation before its `commit()`.
    pub async fn begin(&self) -> Result<WriteTransaction, StoreError> {
        begin(&self.writer).await
    }

    /// A small real write, for `/readyz`: it fails on a full disk, a read-only file system or a writer that hangs.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let failed = |source| StoreError::Probe { source };
        // In a transaction, as all work that matters is.
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO store_probe (id, probes) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET probes = store_probe.probes + 1",
        )
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// Reads the whole file and looks for damage and for rows whose parent is missing. It takes time in proportion to
    /// the file: for a start after trouble and for `doctor`, not for every `/readyz`.
    pub async fn check(&self) -> Result<(), StoreError> {
        let failed = |source: sqlx::Error| match &source {
            // SQLITE_CORRUPT and SQLITE_NOTADB: the check itself met the damage.
            sqlx::Error::Database(error)
                if matches!(error.code().as_deref(), Some("11" | "267" | "523" | "779" | "26")) =>
            {
                StoreError::Damaged { findings: error.message().to_owned() }
            }
            _ => StoreError::Check { source },
        };
        let mut findings: Vec<String> =
            sqlx::query_scalar("PRAGMA quick_check(10)").fetch_all(&self.reader).await.map_err(failed)?;
        findings.retain(|line| line != "ok");
        let orphans = sqlx::query("PRAGMA foreign_key_check").fetch_all(&self.reader).await.map_err(failed)?;
        findings.extend(orphans.iter().take(10).map(|row| {
            let (table, parent): (String, String) = (row.get(0), row.get(2));
            format!("a row of {table} has no {parent}")
        }));
        if findings.is_empty() { Ok(()) } else { Err(StoreError::Damaged { findings: findings.join("; ") }) }
    }

    /// Waits for the connections to come back, moves the log into the file and closes it.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

async fn begin(writer: &SqlitePool) -> Result<WriteTransaction, StoreError> {
    writer.begin_with("BEGIN IMMEDIATE").await.map_err(|source| StoreError::Begin { source })
}

/// Makes the file ours alone before SQLite sees it: its log and shared-memory files take over the mode.
fn create_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}
