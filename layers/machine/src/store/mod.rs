//! What outlives a process: deployments and how they ended, systems that machines took back, host keys that were trusted.

#[cfg(test)]
mod tests;

use std::str::FromStr;

use jiff::Timestamp;
use serde::Serialize;
pub use store::QueryError as Error;
use store::sqlx;
use store::{Columns, Migration, Store, doing};

use crate::model::{DeploymentId, MachineName, StorePath};
use crate::plan::Progress;

/// The layer's migrations; versions start at 40 001.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 40_001,
    name: "machine: deployments, quarantine, host keys",
    sql: include_str!("migrations.sql"),
}];

/// Deployments that are kept of each machine.
const KEPT: i64 = 100;
/// How much of a log is kept, in characters.
const LOG: usize = 16_384;

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Ending {
    /// The machine runs the system.
    Applied,
    /// It ran it before.
    Unchanged,
    /// The host took the old system back.
    RolledBack,
    /// It failed before anything had been begun on the host.
    Failed,
    /// The process ended before anything had been begun on the host.
    Abandoned,
}

impl Ending {
    const ALL: [Self; 5] = [Self::Applied, Self::Unchanged, Self::RolledBack, Self::Failed, Self::Abandoned];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::RolledBack => "rolled-back",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

impl FromStr for Ending {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|ending| ending.as_str() == word);
        found.ok_or_else(|| format!("{word:?} is none"))
    }
}

/// A deployment as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Its id, here and on the host.
    pub id: DeploymentId,
    /// The machine.
    pub machine: MachineName,
    /// Name of the configuration.
    pub configuration: String,
    /// Branch, tag or commit that was asked for.
    pub reference: String,
    /// How far it came.
    pub progress: Progress,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; nothing while it has not.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub ending: Option<Ending>,
    /// Why it ended so.
    pub reason: String,
    /// The end of what the program that failed wrote.
    pub log: String,
}

/// A system that a machine took back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The system.
    pub system: StorePath,
    /// Why it was taken back.
    pub reason: String,
    /// Since when it is not tried there.
    pub since: Timestamp,
}

/// Access to the layer's tables.
#[derive(Debug, Clone)]
pub struct MachineStore {
    store: Store,
}

impl MachineStore {
    /// Uses an open store whose migrations include [`MIGRATIONS`].
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Writes down a deployment that begins. Fails when the machine has one that has not ended.
    pub async fn begin(&self, deployment: &Deployment) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO machine_deployments (id, machine, configuration, reference, progress, phase, started_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(deployment.id.to_string())
        .bind(deployment.machine.as_str())
        .bind(&deployment.configuration)
        .bind(&deployment.reference)
        .bind(json(&deployment.progress))
        .bind(deployment.progress.phase.as_str())
        .bind(deployment.started_at.to_string())
        .execute(self.store.writer())
        .await
        .map_err(doing("begin a deployment"))?;
        Ok(())
    }

    /// Writes down how far a deployment is, before anything is done there.
    pub async fn progress(&self, id: DeploymentId, progress: &Progress) -> Result<(), Error> {
        sqlx::query("UPDATE machine_deployments SET progress = $2, phase = $3 WHERE id = $1 AND ended_at IS NULL")
            .bind(id.to_string())
            .bind(json(progress))
            .bind(progress.phase.as_str())
            .execute(self.store.writer())
            .await
            .map_err(doing("write the progress of a deployment"))?;
        Ok(())
    }

    /// Writes down how a deployment ended, with a system that is not to be tried on its machine again, all or nothing.
    pub async fn end(
        &self,
        deployment: &Deployment,
        ending: Ending,
        quarantine: Option<&StorePath>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let failed = || doing("end a deployment");
        let log: String = {
            let skipped = deployment.log.chars().count().saturating_sub(LOG);
            deployment.log.chars().skip(skipped).collect()
        };
        let mut tx = self.store.begin().await?;
        sqlx::query(
            "UPDATE machine_deployments SET ended_at = $2, outcome = $3, reason = $4, log = $5, progress = $6, phase = $7 \
             WHERE id = $1 AND ended_at IS NULL",
        )
        .bind(deployment.id.to_string())
        .bind(now.to_string())
        .bind(ending.as_str())
        .bind(&deployment.reason)
        .bind(log)
        .bind(json(&deployment.progress))
        .bind(deployment.progress.phase.as_str())
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
        if let Some(system) = quarantine {
            sqlx::query(
                "INSERT INTO machine_quarantine (machine, system, reason, deployment, since) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (machine, system) DO UPDATE SET reason = excluded.reason, deployment = excluded.deployment",
            )
            .bind(deployment.machine.as_str())
            .bind(system.as_str())
            .bind(&deployment.reason)
            .bind(deployment.id.to_string())
            .bind(now.to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        }
        sqlx::query(
            "DELETE FROM machine_deployments WHERE machine = $1 AND ended_at IS NOT NULL AND id NOT IN \
             (SELECT id FROM machine_deployments WHERE machine = $1 ORDER BY id DESC LIMIT $2)",
        )
        .bind(deployment.machine.as_str())
        .bind(KEPT)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
        tx.commit().await.map_err(failed())
    }

    /// The deployment of a machine that has not ended.
    pub async fn running(&self, machine: &MachineName) -> Result<Option<Deployment>, Error> {
        let row = sqlx::query("SELECT * FROM machine_deployments WHERE machine = $1 AND ended_at IS NULL")
            .bind(machine.as_str())
            .fetch_optional(self.store.reader())
            .await
            .map_err(doing("look for a deployment"))?;
        row.as_ref().map(deployment).transpose()
    }

    /// The last deployments of a machine, or of all of them, the newest first.
    pub async fn history(&self, machine: Option<&MachineName>, limit: u32) -> Result<Vec<Deployment>, Error> {
        let rows =
            sqlx::query("SELECT * FROM machine_deployments WHERE $1 = '' OR machine = $1 ORDER BY id DESC LIMIT $2")
                .bind(machine.map_or("", MachineName::as_str))
                .bind(i64::from(limit))
                .fetch_all(self.store.reader())
                .await
                .map_err(doing("read the history"))?;
        rows.iter().map(deployment).collect()
    }

    /// What a machine ran before it was brought to what it was last brought to. A deployment that only took back what
    /// somebody had done by hand counts for nothing.
    pub async fn before(&self, machine: &MachineName) -> Result<Option<StorePath>, Error> {
        let history = self.history(Some(machine), u32::MAX).await?;
        let mut applied =
            history.into_iter().filter(|deployment| deployment.ending == Some(Ending::Applied)).peekable();
        let Some(now) = applied.peek().and_then(|last| last.progress.system.clone()) else { return Ok(None) };
        Ok(applied
            .filter_map(|deployment| deployment.progress.before)
            .filter_map(|before| before.profile.or(before.current))
            .find(|before| *before != now))
    }

    /// What a machine was last brought to, by a deployment that changed something.
    pub async fn last_applied(&self, machine: &MachineName) -> Result<Option<Deployment>, Error> {
        let row = sqlx::query(
            "SELECT * FROM machine_deployments WHERE machine = $1 AND outcome = 'applied' \
             ORDER BY id DESC LIMIT 1",
        )
        .bind(machine.as_str())
        .fetch_optional(self.store.reader())
        .await
        .map_err(doing("read the history"))?;
        row.as_ref().map(deployment).transpose()
    }

    /// Why a system is not to be tried on a machine.
    pub async fn quarantined(&self, machine: &MachineName, system: &StorePath) -> Result<Option<Quarantined>, Error> {
        let row = sqlx::query("SELECT * FROM machine_quarantine WHERE machine = $1 AND system = $2")
            .bind(machine.as_str())
            .bind(system.as_str())
            .fetch_optional(self.store.reader())
            .await
            .map_err(doing("look into the quarantine"))?;
        let Some(row) = row else { return Ok(None) };
        let columns = Columns::new("machine_quarantine", &row);
        Ok(Some(Quarantined { system: system.clone(), reason: columns.get("reason")?, since: columns.word("since")? }))
    }

    /// Lets a system be tried on a machine again.
    pub async fn release(&self, machine: &MachineName, system: &StorePath) -> Result<(), Error> {
        sqlx::query("DELETE FROM machine_quarantine WHERE machine = $1 AND system = $2")
            .bind(machine.as_str())
            .bind(system.as_str())
            .execute(self.store.writer())
            .await
            .map_err(doing("release a system from quarantine"))?;
        Ok(())
    }

    /// The host key that a machine was trusted with.
    pub async fn host_key(&self, machine: &MachineName) -> Result<Option<String>, Error> {
        sqlx::query_scalar("SELECT host_key FROM machine_host_keys WHERE machine = $1")
            .bind(machine.as_str())
            .fetch_optional(self.store.reader())
            .await
            .map_err(doing("look for a host key"))
    }

    /// Keeps the first host key of a machine; one that is kept stays.
    pub async fn trust(&self, machine: &MachineName, key: &str, now: Timestamp) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO machine_host_keys (machine, host_key, first_seen) VALUES ($1, $2, $3) \
             ON CONFLICT (machine) DO NOTHING",
        )
        .bind(machine.as_str())
        .bind(key)
        .bind(now.to_string())
        .execute(self.store.writer())
        .await
        .map_err(doing("keep a host key"))?;
        Ok(())
    }

    /// Forgets the host key of a machine that was installed anew.
    pub async fn distrust(&self, machine: &MachineName) -> Result<(), Error> {
        sqlx::query("DELETE FROM machine_host_keys WHERE machine = $1")
            .bind(machine.as_str())
            .execute(self.store.writer())
            .await
            .map_err(doing("forget a host key"))?;
        Ok(())
    }
}

fn json(progress: &Progress) -> String {
    // Words, numbers and lists: there is nothing in it that JSON does not have.
    serde_json::to_string(progress).unwrap_or_default()
}

fn deployment(row: &sqlx::sqlite::SqliteRow) -> Result<Deployment, Error> {
    let columns = Columns::new("machine_deployments", row);
    Ok(Deployment {
        id: columns.word("id")?,
        machine: columns.word("machine")?,
        configuration: columns.get("configuration")?,
        reference: columns.get("reference")?,
        progress: columns.json("progress")?,
        started_at: columns.word("started_at")?,
        ended_at: columns.optional_word("ended_at")?,
        ending: columns.optional_word("outcome")?,
        reason: columns.get("reason")?,
        log: columns.get("log")?,
    })
}
