use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use store::{Migration, MigrationError, Store, StoreError};

const FIRST: Migration = Migration {
    version: 2_0001,
    name: "servers",
    sql: "CREATE TABLE servers (serial TEXT PRIMARY KEY); CREATE TABLE jobs (id TEXT PRIMARY KEY, server_serial TEXT NOT NULL REFERENCES servers (serial));",
};
const SECOND: Migration =
    Migration { version: 2_0002, name: "vendor", sql: "ALTER TABLE servers ADD COLUMN vendor TEXT;" };

async fn count(store: &Store) -> i64 {
    sqlx::query_scalar("SELECT COUNT(*) FROM servers").fetch_one(store.reader()).await.unwrap()
}

async fn add(store: &Store, serial: &str) {
    sqlx::query("INSERT INTO servers (serial) VALUES ($1)").bind(serial).execute(store.writer()).await.unwrap();
}

async fn open(directory: &Path, migrations: &[Migration]) -> Result<Store, StoreError> {
    Store::open(&directory.join("cairn.db"), migrations).await
}

fn refusal(error: StoreError) -> MigrationError {
    match error {
        StoreError::Migrate { source, .. } => source,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn migrations_run_once_and_forward() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &[FIRST]).await.unwrap();
    add(&store, "SN-1").await;
    store.close().await;
    for _ in 0..2 {
        let store = open(directory.path(), &[SECOND, FIRST]).await.unwrap();
        assert_eq!(count(&store).await, 1);
        store.check().await.unwrap();
        store.probe().await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path(), &[FIRST, SECOND]).await.unwrap().close().await;
    let before = fs::read(directory.path().join("cairn.db")).unwrap();
    let error = open(directory.path(), &[FIRST]).await.unwrap_err();
    assert_eq!(error.kind().exit_code(), 4);
    assert_eq!(
        refusal(error).to_string(),
        "the database has migration 20002 (vendor), which this program does not know: it was written by a newer one"
    );
    assert_eq!(fs::read(directory.path().join("cairn.db")).unwrap(), before);
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path(), &[FIRST]).await.unwrap().close().await;
    let edited = Migration { sql: "CREATE TABLE servers (serial TEXT)", ..FIRST };
    let error = refusal(open(directory.path(), &[edited]).await.unwrap_err());
    assert!(matches!(error, MigrationError::Changed { version: 2_0001, .. }), "{error}");
}

#[tokio::test]
async fn a_failing_migration_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path(), &[FIRST]).await.unwrap().close().await;
    let broken = Migration { version: 2_0003, name: "broken", sql: "CREATE TABLE half (a TEXT); NOT SQL;" };
    let error = refusal(open(directory.path(), &[FIRST, SECOND, broken]).await.unwrap_err());
    assert!(matches!(error, MigrationError::Statement { version: 2_0003, .. }), "{error}");
    let store = open(directory.path(), &[FIRST]).await.unwrap();
    let tables: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_master WHERE name = 'half'")
        .fetch_one(store.reader())
        .await
        .unwrap();
    assert_eq!(tables, 0);
}

#[tokio::test]
async fn only_the_owner_reads_the_files() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("cairn.db"), b"").unwrap();
    fs::set_permissions(directory.path().join("cairn.db"), fs::Permissions::from_mode(0o644)).unwrap();
    let store = open(directory.path(), &[FIRST]).await.unwrap();
    add(&store, "SN-1").await;
    let mut seen = 0;
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        seen += 1;
    }
    assert_eq!(seen, 3, "database, log and shared memory");
}

#[tokio::test]
async fn settings_of_the_connections_hold() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &[FIRST]).await.unwrap();
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(store.reader()).await.unwrap();
    assert_eq!(journal, "wal");
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(store.writer()).await.unwrap();
    assert_eq!(synchronous, 2, "FULL");
    let orphan = sqlx::query("INSERT INTO jobs VALUES ('j', 'nobody')").execute(store.writer()).await;
    assert!(orphan.unwrap_err().to_string().contains("FOREIGN KEY"));
    let write = sqlx::query("INSERT INTO servers (serial) VALUES ('x')").execute(store.reader()).await;
    assert!(write.unwrap_err().to_string().contains("readonly"));
}

#[tokio::test]
async fn a_transaction_that_is_dropped_never_happened_and_the_next_one_begins() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &[FIRST]).await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    sqlx::query("INSERT INTO servers VALUES ('a')").execute(&mut *transaction).await.unwrap();
    assert_eq!(count(&store).await, 0, "a reader sees commits only");
    drop(transaction);
    let mut transaction = store.begin().await.unwrap();
    sqlx::query("INSERT INTO servers VALUES ('b')").execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(count(&store).await, 1);
}

#[tokio::test]
async fn writers_queue_instead_of_failing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &[FIRST]).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut transaction = store.begin().await.unwrap();
            let seen: i64 =
                sqlx::query_scalar("SELECT COUNT(*) FROM servers").fetch_one(&mut *transaction).await.unwrap();
            sqlx::query("INSERT INTO servers VALUES ($1)")
                .bind(format!("{number}-{seen}"))
                .execute(&mut *transaction)
                .await
                .unwrap();
            transaction.commit().await.unwrap();
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    assert_eq!(count(&store).await, 50);
}

/// The files as they lie on disk while the process is running are what a loss of power leaves.
#[tokio::test]
async fn after_a_loss_of_power_every_commit_is_there_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &[FIRST]).await.unwrap();
    add(&store, "committed").await;
    let mut transaction = store.begin().await.unwrap();
    sqlx::query("INSERT INTO servers VALUES ('not committed')").execute(&mut *transaction).await.unwrap();

    let left = tempfile::tempdir().unwrap();
    for name in ["cairn.db", "cairn.db-wal"] {
        fs::copy(directory.path().join(name), left.path().join(name)).unwrap();
    }
    // The last write to the log was cut in the middle.
    let mut log = fs::OpenOptions::new().append(true).open(left.path().join("cairn.db-wal")).unwrap();
    log.write_all(&[0x5a; 1000]).unwrap();

    let reopened = open(left.path(), &[FIRST]).await.unwrap();
    let serials: Vec<String> =
        sqlx::query_scalar("SELECT serial FROM servers").fetch_all(reopened.reader()).await.unwrap();
    assert_eq!(serials, ["committed"]);
    reopened.check().await.unwrap();
}

#[tokio::test]
async fn damage_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &[FIRST]).await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    for number in 0..500 {
        let serial = format!("serial-{number:060}");
        sqlx::query("INSERT INTO servers (serial) VALUES ($1)").bind(serial).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    store.close().await;
    let mut file = fs::OpenOptions::new().write(true).open(directory.path().join("cairn.db")).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    assert!(pages > 12);
    file.seek(SeekFrom::Start(4096 * (pages - 3))).unwrap();
    file.write_all(&[0xff; 4096]).unwrap();
    let store = open(directory.path(), &[FIRST]).await.unwrap();
    let error = store.check().await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_missing_parent_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &[FIRST]).await.unwrap();
    let mut connection = store.writer().acquire().await.unwrap();
    sqlx::query("PRAGMA foreign_keys = OFF").execute(&mut *connection).await.unwrap();
    sqlx::query("INSERT INTO jobs VALUES ('j', 'nobody')").execute(&mut *connection).await.unwrap();
    drop(connection);
    let error = store.check().await.unwrap_err();
    assert_eq!(error.to_string(), "the database is damaged: a row of jobs has no servers");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("cairn.db"), vec![b'x'; 8192]).unwrap();
    let error = open(directory.path(), &[FIRST]).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot open the database "), "{error}");
    let error = Store::open(&directory.path().join("no/such/cairn.db"), &[]).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot create the database "), "{error}");
}

#[tokio::test]
async fn a_connection_whose_rollback_failed_is_not_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("test.db"), &[]).await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    // Behind the back of whoever counts transactions, as SQLite itself does when the disk is full.
    sqlx::query("ROLLBACK").execute(&mut *transaction).await.unwrap();
    drop(transaction);
    store.begin().await.unwrap().commit().await.unwrap();
    store.probe().await.unwrap();
}
