//! Forward-only migrations: the lists of all layers in one table.

use cairn_core::{Clock, SystemClock};
use sha2::{Digest, Sha256};
use sqlx::{Row, Sqlite, Transaction};

/// One change of the schema. It is never edited once it was released; the checksum holds it to that.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Number of the layer × 10 000 + number within the layer: `2_0001` is the first one of metal.
    pub version: i64,
    /// What it does, in a few words.
    pub name: &'static str,
    /// Statements, in the SQL that SQLite and PostgreSQL share.
    pub sql: &'static str,
}

/// Why the schema cannot be brought up to date. The database is as it was.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// Two migrations of the program have one number.
    #[error("two migrations have the number {version}")]
    Duplicate { version: i64 },
    /// The database was written by a newer program.
    #[error(
        "the database has migration {version} ({name}), which this program does not know: it was written by a newer one"
    )]
    Newer { version: i64, name: String },
    /// A migration was edited after it had run.
    #[error("migration {version} ({name}) has changed since it ran on this database")]
    Changed { version: i64, name: &'static str },
    /// A migration turned up below one that has run.
    #[error("migration {version} ({name}) is new, but {after} of its layer has already run")]
    OutOfOrder { version: i64, name: &'static str, after: i64 },
    /// A statement failed.
    #[error("migration {version} ({name}) failed")]
    Statement { version: i64, name: &'static str, source: sqlx::Error },
    /// The table of migrations cannot be read or written.
    #[error("cannot use the table of migrations")]
    Table { source: sqlx::Error },
}

/// What the base itself needs; it comes before the migrations of any layer and never changes.
const OWN_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version BIGINT PRIMARY KEY,
        name TEXT NOT NULL,
        checksum TEXT NOT NULL,
        applied_at TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS store_probe (
        id BIGINT PRIMARY KEY CHECK (id = 1),
        probes BIGINT NOT NULL
    );";

struct Applied {
    version: i64,
    name: String,
    checksum: String,
}

/// Runs what is missing, all of it or nothing: the caller commits.
pub(crate) async fn migrate(
    transaction: &mut Transaction<'static, Sqlite>,
    migrations: &[Migration],
) -> Result<(), MigrationError> {
    let table = |source| MigrationError::Table { source };
    sqlx::raw_sql(OWN_TABLES).execute(&mut **transaction).await.map_err(table)?;
    let rows = sqlx::query("SELECT version, name, checksum FROM schema_migrations ORDER BY version")
        .fetch_all(&mut **transaction)
        .await
        .map_err(table)?;
    let applied: Vec<Applied> =
        rows.iter().map(|row| Applied { version: row.get(0), name: row.get(1), checksum: row.get(2) }).collect();
    for migration in pending(migrations, &applied)? {
        let Migration { version, name, sql } = *migration;
        sqlx::raw_sql(sql).execute(&mut **transaction).await.map_err(|source| MigrationError::Statement {
            version,
            name,
            source,
        })?;
        sqlx::query("INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)")
            .bind(version)
            .bind(name)
            .bind(checksum(sql))
            .bind(SystemClock.now().to_string())
            .execute(&mut **transaction)
            .await
            .map_err(table)?;
        tracing::info!(version, name, "migration applied");
    }
    Ok(())
}

/// The migrations that have not run yet, in order.
fn pending<'m>(migrations: &'m [Migration], applied: &[Applied]) -> Result<Vec<&'m Migration>, MigrationError> {
    let mut known: Vec<&Migration> = migrations.iter().collect();
    known.sort_by_key(|migration| migration.version);
    if let Some(pair) = known.windows(2).find(|pair| pair[0].version == pair[1].version) {
        return Err(MigrationError::Duplicate { version: pair[0].version });
    }
    for row in applied {
        let Some(migration) = known.iter().find(|migration| migration.version == row.version) else {
            return Err(MigrationError::Newer { version: row.version, name: row.name.clone() });
        };
        if checksum(migration.sql) != row.checksum {
            return Err(MigrationError::Changed { version: migration.version, name: migration.name });
        }
    }
    known.retain(|migration| applied.iter().all(|row| row.version != migration.version));
    for migration in &known {
        let last_of_layer =
            applied.iter().map(|row| row.version).filter(|v| layer(*v) == layer(migration.version)).max();
        if let Some(after) = last_of_layer.filter(|after| *after > migration.version) {
            return Err(MigrationError::OutOfOrder { version: migration.version, name: migration.name, after });
        }
    }
    Ok(known)
}

fn layer(version: i64) -> i64 {
    version / 10_000
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn migration(version: i64, sql: &'static str) -> Migration {
        Migration { version, name: "m", sql }
    }

    fn applied(version: i64, sql: &str) -> Applied {
        Applied { version, name: "m".into(), checksum: checksum(sql) }
    }

    fn versions(result: Result<Vec<&Migration>, MigrationError>) -> Vec<i64> {
        result.unwrap().into_iter().map(|migration| migration.version).collect()
    }

    #[test]
    fn layers_advance_independently_and_in_order() {
        let list = [migration(3_0001, "c"), migration(2_0002, "b"), migration(2_0001, "a")];
        assert_eq!(versions(pending(&list, &[])), [2_0001, 2_0002, 3_0001]);
        assert_eq!(versions(pending(&list, &[applied(2_0001, "a"), applied(3_0001, "c")])), [2_0002]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let list = [migration(2_0001, "a"), migration(2_0002, "b")];
        assert!(matches!(
            pending(&list, &[applied(2_0001, "A")]),
            Err(MigrationError::Changed { version: 2_0001, .. })
        ));
        assert!(matches!(pending(&list, &[applied(2_0003, "c")]), Err(MigrationError::Newer { version: 2_0003, .. })));
        let error = pending(&list, &[applied(2_0002, "b")]).unwrap_err();
        assert!(matches!(error, MigrationError::OutOfOrder { version: 2_0001, after: 2_0002, .. }));
        let twice = [migration(2_0001, "a"), migration(2_0001, "b")];
        assert!(matches!(pending(&twice, &[]), Err(MigrationError::Duplicate { version: 2_0001 })));
    }
}
