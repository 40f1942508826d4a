//! Registries elsewhere.

use super::{Error, MetalStore, doing, rows};
use crate::pull_registry::PullRegistry;

impl MetalStore {
    /// Writes the record of a registry; what was there is replaced, only its age stays.
    pub async fn put_pull_registry(&self, registry: &PullRegistry) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO pull_registries (host, username, sealed_password, ca_pem, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $5)
             ON CONFLICT (host) DO UPDATE SET
                 username = excluded.username, sealed_password = excluded.sealed_password,
                 ca_pem = excluded.ca_pem, updated_at = excluded.updated_at",
        )
        .bind(&registry.host)
        .bind(registry.account.as_ref().map(|account| &account.username))
        .bind(registry.account.as_ref().map(|account| &account.sealed_password))
        .bind(&registry.ca_pem)
        .bind(registry.updated_at.as_microsecond())
        .execute(self.store.writer())
        .await
        .map_err(doing("write the record of a registry"))?;
        Ok(())
    }

    /// The record of the registry at this host.
    pub async fn pull_registry(&self, host: &str) -> Result<Option<PullRegistry>, Error> {
        let row = sqlx::query("SELECT * FROM pull_registries WHERE host = $1")
            .bind(host)
            .fetch_optional(self.store.reader())
            .await
            .map_err(doing("read the record of a registry"))?;
        row.as_ref().map(rows::pull_registry).transpose()
    }

    /// All records, in order of their hosts: an operator has few.
    pub async fn pull_registries(&self) -> Result<Vec<PullRegistry>, Error> {
        let rows = sqlx::query("SELECT * FROM pull_registries ORDER BY host")
            .fetch_all(self.store.reader())
            .await
            .map_err(doing("list the records of registries"))?;
        rows.iter().map(rows::pull_registry).collect()
    }

    /// Removes a record; `false` when there is none.
    pub async fn remove_pull_registry(&self, host: &str) -> Result<bool, Error> {
        let done = sqlx::query("DELETE FROM pull_registries WHERE host = $1")
            .bind(host)
            .execute(self.store.writer())
            .await
            .map_err(doing("remove the record of a registry"))?;
        Ok(done.rows_affected() == 1)
    }
}
