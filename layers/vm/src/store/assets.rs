//! Assets.

use sqlx::sqlite::SqliteRow;
use store::Columns;

use super::{Error, VmStore, doing};
use crate::model::{Asset, AssetName};

impl VmStore {
    /// All of them, by name.
    pub(crate) async fn assets(&self) -> Result<Vec<Asset>, Error> {
        let rows = sqlx::query("SELECT name, kind, sha256, size, created_at FROM vm_assets ORDER BY name")
            .fetch_all(self.store.reader())
            .await
            .map_err(doing("read the assets"))?;
        rows.iter().map(asset_row).collect()
    }

    /// One of them.
    pub(crate) async fn asset(&self, name: &AssetName) -> Result<Option<Asset>, Error> {
        let row = sqlx::query("SELECT name, kind, sha256, size, created_at FROM vm_assets WHERE name = $1")
            .bind(name.as_str())
            .fetch_optional(self.store.reader())
            .await
            .map_err(doing("read an asset"))?;
        row.as_ref().map(asset_row).transpose()
    }

    /// Adds one unless its name is taken; says whether it was added.
    pub(crate) async fn add_asset(&self, asset: &Asset) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO vm_assets (name, kind, sha256, size, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(asset.name.as_str())
        .bind(asset.kind.as_str())
        .bind(&asset.sha256)
        .bind(i64::try_from(asset.size).unwrap_or(i64::MAX))
        .bind(asset.created_at.as_microsecond())
        .execute(self.store.writer())
        .await
        .map_err(doing("add an asset"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Removes one; says whether it was there.
    pub(crate) async fn remove_asset(&self, name: &AssetName) -> Result<bool, Error> {
        let done = sqlx::query("DELETE FROM vm_assets WHERE name = $1")
            .bind(name.as_str())
            .execute(self.store.writer())
            .await
            .map_err(doing("remove an asset"))?;
        Ok(done.rows_affected() == 1)
    }
}

fn asset_row(row: &SqliteRow) -> Result<Asset, Error> {
    let columns = Columns::new("vm_assets", row);
    Ok(Asset {
        name: columns.word("name")?,
        kind: columns.word("kind")?,
        sha256: columns.get("sha256")?,
        size: columns.number("size")?,
        created_at: columns.time("created_at")?,
    })
}
