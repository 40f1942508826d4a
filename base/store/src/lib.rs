//! What a Cairn process keeps on disk: one SQLite database with the migrations of every layer ([`Store`]), the
//! directory it lies in, held by one process at a time ([`DataDirLock`]), and the key that encrypts secrets in it
//! ([`InstanceKey`]); and what their SQL shares ([`Columns`], [`QueryError`]). It knows no table of any layer; layers bring their SQL and their migrations.

mod data_dir;
mod database;
mod instance_key;
mod migration;
mod replaced;
mod rows;

pub use data_dir::{DataDirError, DataDirLock};
pub use database::{Store, StoreError, WriteTransaction};
pub use instance_key::{InstanceKey, InstanceKeyError, SealError};
pub use migration::{Migration, MigrationError};
pub use replaced::set_stale_log_aside;
pub use rows::{Columns, QueryError, doing};
pub use sqlx;
