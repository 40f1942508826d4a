//! The registry's tables.

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
pub use store::QueryError as Error;
use store::{Columns, Migration, Store, doing};

use crate::model::{AuditEntry, RunKind, RunView};

/// The registry's migrations; versions start at 70 001.
pub const MIGRATIONS: &[Migration] =
    &[Migration { version: 70_001, name: "registry: audit, runs, switches", sql: include_str!("migrations.sql") }];

/// Runs that are kept.
const KEPT_RUNS: i64 = 200;

/// Access to the registry's tables.
#[derive(Clone)]
pub(crate) struct RegistryStore {
    store: Store,
}

/// Which entries of the record are wanted.
#[derive(Debug, Default)]
pub(crate) struct AuditFilter {
    /// Older than the entry with this id.
    pub(crate) before: Option<i64>,
    /// Of this repository.
    pub(crate) repository: Option<String>,
    /// Of this user.
    pub(crate) user: Option<String>,
}

impl RegistryStore {
    /// Uses an open store whose migrations include [`MIGRATIONS`].
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Adds entries, all or none.
    pub(crate) async fn add_audit(&self, entries: &[AuditEntry]) -> Result<(), Error> {
        let mut tx = self.store.begin().await?;
        let failed = || doing("write the audit record");
        let last: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) FROM registry_audit")
            .fetch_one(&mut *tx)
            .await
            .map_err(failed())?;
        for (id, entry) in (last + 1..).zip(entries) {
            sqlx::query(
                "INSERT INTO registry_audit (id, time, user_name, client, action, repository, reference, digest, size)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(id)
            .bind(entry.time.as_microsecond())
            .bind(&entry.user)
            .bind(&entry.client)
            .bind(&entry.action)
            .bind(&entry.repository)
            .bind(&entry.reference)
            .bind(&entry.digest)
            .bind(entry.size.map(|size| i64::try_from(size).unwrap_or(i64::MAX)))
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        }
        tx.commit().await.map_err(failed())
    }

    /// Removes entries that are older than `oldest`, all but the newest `most`, and all but the newest `refusals` of
    /// those that tell of a refusal.
    pub(crate) async fn prune_audit(&self, oldest: Timestamp, most: i64, refusals: i64) -> Result<u64, Error> {
        let failed = || doing("shorten the audit record");
        let mut tx = self.store.begin().await?;
        let refused = sqlx::query(
            "DELETE FROM registry_audit WHERE action = 'denied' AND id <=
             (SELECT id FROM registry_audit WHERE action = 'denied' ORDER BY id DESC LIMIT 1 OFFSET $1)",
        )
        .bind(refusals)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
        let others = sqlx::query(
            "DELETE FROM registry_audit WHERE time < $1 OR id <=
             (SELECT id FROM registry_audit ORDER BY id DESC LIMIT 1 OFFSET $2)",
        )
        .bind(oldest.as_microsecond())
        .bind(most)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
        tx.commit().await.map_err(failed())?;
        Ok(refused.rows_affected() + others.rows_affected())
    }

    /// At most `limit` entries with their ids, newest first.
    pub(crate) async fn audit(&self, filter: &AuditFilter, limit: u32) -> Result<Vec<(i64, AuditEntry)>, Error> {
        let rows = sqlx::query(
            "SELECT id, time, user_name, client, action, repository, reference, digest, size FROM registry_audit
             WHERE id < $1 AND ($2 IS NULL OR repository = $2) AND ($3 IS NULL OR user_name = $3)
             ORDER BY id DESC LIMIT $4",
        )
        .bind(filter.before.unwrap_or(i64::MAX))
        .bind(&filter.repository)
        .bind(&filter.user)
        .bind(i64::from(limit))
        .fetch_all(self.store.reader())
        .await
        .map_err(doing("read the audit record"))?;
        rows.iter().map(audit_row).collect()
    }

    /// Keeps how a run ended.
    pub(crate) async fn add_run(&self, kind: RunKind, run: &RunView) -> Result<(), Error> {
        let failed = || doing("write down a run");
        let mut tx = self.store.begin().await?;
        sqlx::query(
            "INSERT INTO registry_runs (id, kind, begun, ended, outcome, detail)
             VALUES ((SELECT COALESCE(MAX(id), 0) + 1 FROM registry_runs), $1, $2, $3, $4, $5)",
        )
        .bind(kind.as_str())
        .bind(run.begun.as_microsecond())
        .bind(run.ended.as_microsecond())
        .bind(&run.outcome)
        .bind(run.detail.to_string())
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
        // The last one of a kind stays, however many there were of another since.
        sqlx::query(
            "DELETE FROM registry_runs WHERE id <= (SELECT MAX(id) FROM registry_runs) - $1
             AND id NOT IN (SELECT MAX(id) FROM registry_runs GROUP BY kind)",
        )
        .bind(KEPT_RUNS)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
        tx.commit().await.map_err(failed())
    }

    /// The last run of each kind.
    pub(crate) async fn last_runs(&self) -> Result<Vec<RunView>, Error> {
        let rows = sqlx::query(
            "SELECT kind, begun, ended, outcome, detail FROM registry_runs
             WHERE id IN (SELECT MAX(id) FROM registry_runs GROUP BY kind) ORDER BY kind",
        )
        .fetch_all(self.store.reader())
        .await
        .map_err(doing("read the last runs"))?;
        rows.iter().map(run_row).collect()
    }

    /// What an operator has switched; `None` when nobody has.
    pub(crate) async fn switch(&self, name: &str) -> Result<Option<String>, Error> {
        sqlx::query_scalar("SELECT value FROM registry_switches WHERE name = $1")
            .bind(name)
            .fetch_optional(self.store.reader())
            .await
            .map_err(doing("read a switch"))
    }

    /// Keeps what an operator switches.
    pub(crate) async fn set_switch(&self, name: &str, value: &str) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO registry_switches (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(value)
        .execute(self.store.writer())
        .await
        .map_err(doing("keep a switch"))?;
        Ok(())
    }
}

fn audit_row(row: &SqliteRow) -> Result<(i64, AuditEntry), Error> {
    let columns = Columns::new("registry_audit", row);
    let size: Option<i64> = columns.get("size")?;
    let entry = AuditEntry {
        time: columns.time("time")?,
        user: columns.get("user_name")?,
        client: columns.get("client")?,
        action: columns.get("action")?,
        repository: columns.get("repository")?,
        reference: columns.get("reference")?,
        digest: columns.get("digest")?,
        size: size.and_then(|size| u64::try_from(size).ok()),
    };
    Ok((columns.get("id")?, entry))
}

fn run_row(row: &SqliteRow) -> Result<RunView, Error> {
    let columns = Columns::new("registry_runs", row);
    let detail: String = columns.get("detail")?;
    Ok(RunView {
        kind: columns.get("kind")?,
        begun: columns.time("begun")?,
        ended: columns.time("ended")?,
        outcome: columns.get("outcome")?,
        detail: serde_json::from_str(&detail).map_err(|problem| columns.wrong("detail", &problem))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: i64, action: &str) -> AuditEntry {
        AuditEntry {
            time: Timestamp::from_second(at).unwrap(),
            user: "alice".to_owned(),
            client: "192.0.2.1".to_owned(),
            action: action.to_owned(),
            repository: None,
            reference: None,
            digest: None,
            size: Some(u64::MAX),
        }
    }

    #[tokio::test]
    async fn the_record_is_bounded_and_refusals_do_not_push_out_what_was_done() {
        let directory = tempfile::tempdir().unwrap();
        let store = RegistryStore::new(Store::open(&directory.path().join("db"), MIGRATIONS).await.unwrap());
        let all: Vec<_> = (0..10).map(|at| entry(at, if at < 4 { "push_blob" } else { "denied" })).collect();
        store.add_audit(&all).await.unwrap();
        let left = || async {
            let rows = store.audit(&AuditFilter::default(), 100).await.unwrap();
            rows.iter().map(|(id, entry)| format!("{id} {}", entry.action)).collect::<Vec<_>>()
        };
        let long_ago = Timestamp::from_second(0).unwrap();
        assert_eq!(store.prune_audit(long_ago, 100, 2).await.unwrap(), 4);
        assert_eq!(left().await, ["10 denied", "9 denied", "4 push_blob", "3 push_blob", "2 push_blob", "1 push_blob"]);
        assert_eq!(store.prune_audit(long_ago, 3, 2).await.unwrap(), 3);
        assert_eq!(left().await, ["10 denied", "9 denied", "4 push_blob"]);
        assert_eq!(store.prune_audit(Timestamp::from_second(9).unwrap(), 3, 2).await.unwrap(), 2);
        store.add_audit(&[entry(20, "push_blob")]).await.unwrap();
        assert_eq!(left().await, ["11 push_blob", "10 denied"]);
    }

    #[tokio::test]
    async fn the_last_run_of_each_kind_stays() {
        let directory = tempfile::tempdir().unwrap();
        let store = RegistryStore::new(Store::open(&directory.path().join("db"), MIGRATIONS).await.unwrap());
        let run = |kind: RunKind, at: i64| RunView {
            kind: kind.as_str().to_owned(),
            begun: Timestamp::from_second(at).unwrap(),
            ended: Timestamp::from_second(at).unwrap(),
            outcome: "done".to_owned(),
            detail: serde_json::json!({ "blobs": at }),
        };
        store.add_run(RunKind::Check, &run(RunKind::Check, 1)).await.unwrap();
        for at in 2..=KEPT_RUNS + 10 {
            store.add_run(RunKind::Collect, &run(RunKind::Collect, at)).await.unwrap();
        }
        let last = store.last_runs().await.unwrap();
        let last: Vec<_> = last.iter().map(|run| (run.kind.as_str(), run.detail["blobs"].as_i64().unwrap())).collect();
        assert_eq!(last, [("check", 1), ("collect", KEPT_RUNS + 10)]);
        assert_eq!(store.switch("read_only").await.unwrap(), None);
        store.set_switch("read_only", "true").await.unwrap();
        store.set_switch("read_only", "false").await.unwrap();
        assert_eq!(store.switch("read_only").await.unwrap().as_deref(), Some("false"));
    }
}
