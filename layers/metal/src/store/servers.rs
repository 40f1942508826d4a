//! Servers.

use jiff::Timestamp;

use super::{Error, MetalStore, doing, rows};
use crate::model::{Serial, Server};
use crate::pull_registry::{PullRegistry, password_purpose};

impl MetalStore {
    /// Writes a server's record; the generation counts on when the spec or the password differs from what was there.
    pub async fn put_server(&self, server: &Server) -> Result<(), Error> {
        let spec = json(&server.spec)?;
        let labels = json(&server.labels)?;
        sqlx::query(
            "INSERT INTO servers (serial, spec, sealed_password, labels, generation, created_at, updated_at)
             VALUES ($1, $2, $3, $4, 1, $5, $5)
             ON CONFLICT (serial) DO UPDATE SET
                 generation = servers.generation + 1, spec = excluded.spec,
                 sealed_password = excluded.sealed_password, labels = excluded.labels, updated_at = excluded.updated_at",
        )
        .bind(server.serial.as_str())
        .bind(spec)
        .bind(&server.sealed_password)
        .bind(labels)
        .bind(server.updated_at.as_microsecond())
        .execute(self.store.writer())
        .await
        .map_err(doing("write a server"))?;
        Ok(())
    }

    /// A server by its serial number.
    pub async fn server(&self, serial: &Serial) -> Result<Option<Server>, Error> {
        let row = sqlx::query("SELECT * FROM servers WHERE serial = $1")
            .bind(serial.as_str())
            .fetch_optional(self.store.reader())
            .await
            .map_err(doing("read a server"))?;
        row.as_ref().map(rows::server).transpose()
    }

    /// Any sealed password with the purpose that it is sealed for: what tells whether an instance key belongs to this
    /// database.
    pub async fn any_sealed_password(&self) -> Result<Option<(String, String)>, Error> {
        let row = sqlx::query("SELECT * FROM servers LIMIT 1")
            .fetch_optional(self.store.reader())
            .await
            .map_err(doing("read a server"))?;
        if let Some(server) = row.as_ref().map(rows::server).transpose()? {
            return Ok(Some((server.serial.password_purpose(), server.sealed_password)));
        }
        let registries = self.pull_registries().await?.into_iter();
        let sealed = |registry: PullRegistry| {
            registry.account.map(|account| (password_purpose(&registry.host), account.sealed_password))
        };
        Ok(registries.filter_map(sealed).next())
    }

    /// Up to `limit` servers in order of their serial numbers, after `cursor`.
    pub async fn servers(&self, cursor: Option<&str>, limit: u32) -> Result<Vec<Server>, Error> {
        let rows = sqlx::query("SELECT * FROM servers WHERE serial > $1 ORDER BY serial LIMIT $2")
            .bind(cursor.unwrap_or(""))
            .bind(i64::from(limit))
            .fetch_all(self.store.reader())
            .await
            .map_err(doing("list servers"))?;
        rows.iter().map(rows::server).collect()
    }

    /// Removes a server that no active job works on. `false`: there is one, or there is no such server.
    pub async fn remove_server(&self, serial: &Serial) -> Result<bool, Error> {
        let done = sqlx::query(
            "DELETE FROM servers WHERE serial = $1
             AND NOT EXISTS (SELECT 1 FROM jobs WHERE server_serial = $1 AND status <> 'complete')",
        )
        .bind(serial.as_str())
        .execute(self.store.writer())
        .await
        .map_err(doing("remove a server"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes what a BMC said about itself. Not a change of the record: `updated_at` stays.
    pub async fn server_seen(
        &self,
        serial: &Serial,
        vendor: &str,
        power: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Error> {
        sqlx::query(
            "UPDATE servers SET detected_vendor = $2, power = COALESCE($3, power), last_seen = $4 WHERE serial = $1",
        )
        .bind(serial.as_str())
        .bind(vendor)
        .bind(power)
        .bind(now.as_microsecond())
        .execute(self.store.writer())
        .await
        .map_err(doing("note a BMC's answer"))?;
        Ok(())
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|problem| Error::Row {
        table: "servers",
        column: "spec",
        problem: problem.to_string(),
    })
}
