//! Tokens, by the hash of their secret.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use store::{Columns, Migration, Store};

use super::{Error, doing};
use crate::access::{Token, TokenId};

/// The table of tokens.
pub const MIGRATION: Migration = Migration { version: 30_002, name: "vm: tokens", sql: include_str!("tokens.sql") };

/// Access to the table.
#[derive(Debug, Clone)]
pub struct TokenStore {
    store: Store,
}

impl TokenStore {
    /// Uses an open store whose migrations include [`MIGRATION`].
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Adds a token, and forgets those that ended before `oldest`.
    pub async fn add(&self, token: &Token, hash: &str, oldest: Timestamp) -> Result<(), Error> {
        let mut tx = self.store.begin().await?;
        sqlx::query("DELETE FROM vm_tokens WHERE revoked_at < $1 OR expires_at < $1")
            .bind(oldest.as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(doing("forget tokens that ended long ago"))?;
        sqlx::query(
            "INSERT INTO vm_tokens (id, name, customer, hash, created_at, created_by, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(token.id.as_str())
        .bind(&token.name)
        .bind(token.customer.as_ref().map(|customer| customer.as_str()))
        .bind(hash)
        .bind(token.created_at.as_microsecond())
        .bind(&token.created_by)
        .bind(token.expires_at.map(Timestamp::as_microsecond))
        .execute(&mut *tx)
        .await
        .map_err(doing("add a token"))?;
        tx.commit().await.map_err(doing("add a token"))
    }

    /// A token and the hash of its secret.
    pub async fn get(&self, id: &TokenId) -> Result<Option<(Token, String)>, Error> {
        let row = sqlx::query("SELECT * FROM vm_tokens WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(self.store.reader())
            .await
            .map_err(doing("look for a token"))?;
        row.map(|row| Ok((read(&row)?, row.get("hash")))).transpose()
    }

    /// All tokens, the oldest first.
    pub async fn list(&self) -> Result<Vec<Token>, Error> {
        let rows = sqlx::query("SELECT * FROM vm_tokens ORDER BY created_at, id")
            .fetch_all(self.store.reader())
            .await
            .map_err(doing("list tokens"))?;
        rows.iter().map(read).collect()
    }

    /// Ends a token. False when there is none that has not ended already.
    pub async fn revoke(&self, id: &TokenId, now: Timestamp) -> Result<bool, Error> {
        let done = sqlx::query("UPDATE vm_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
            .bind(id.as_str())
            .bind(now.as_microsecond())
            .execute(self.store.writer())
            .await
            .map_err(doing("revoke a token"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes that a token was used.
    pub async fn used(&self, id: &TokenId, now: Timestamp) -> Result<(), Error> {
        sqlx::query("UPDATE vm_tokens SET last_used_at = $2 WHERE id = $1")
            .bind(id.as_str())
            .bind(now.as_microsecond())
            .execute(self.store.writer())
            .await
            .map(drop)
            .map_err(doing("note the use of a token"))
    }
}

fn read(row: &SqliteRow) -> Result<Token, Error> {
    let columns = Columns::new("vm_tokens", row);
    Ok(Token {
        id: columns.word("id")?,
        name: columns.get("name")?,
        customer: columns.optional_word("customer")?,
        created_at: columns.time("created_at")?,
        created_by: columns.get("created_by")?,
        expires_at: columns.optional_time("expires_at")?,
        last_used_at: columns.optional_time("last_used_at")?,
        revoked_at: columns.optional_time("revoked_at")?,
    })
}
