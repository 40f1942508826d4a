//! What the SQL of every layer shares: its errors, and reading the columns of a row.

use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::StoreError;

/// The database did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A statement failed.
    #[error("cannot {doing}")]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// The driver's word.
        #[source]
        source: sqlx::Error,
    },
    /// A transaction could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored value is none that this program writes.
    #[error("cannot read {column} of a row in {table}: {problem}")]
    Row {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// Names what was being done when a statement failed.
pub fn doing(doing: &'static str) -> impl FnOnce(sqlx::Error) -> QueryError {
    move |source| QueryError::Sql { doing, source }
}

/// Reads the columns of one row; an error names table and column.
pub struct Columns<'a> {
    table: &'static str,
    row: &'a SqliteRow,
}

impl<'a> Columns<'a> {
    /// A row of `table`.
    pub fn new(table: &'static str, row: &'a SqliteRow) -> Self {
        Self { table, row }
    }

    /// A value as the driver reads it.
    pub fn get<'r, T>(&'r self, column: &'static str) -> Result<T, QueryError>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        self.row.try_get(column).map_err(|source| self.wrong(column, &source))
    }

    /// A text that stands for something else.
    pub fn word<T: FromStr<Err: Display>>(&self, column: &'static str) -> Result<T, QueryError> {
        self.get::<String>(column)?.parse().map_err(|problem| self.wrong(column, &problem))
    }

    /// The same, where there may be none.
    pub fn optional_word<T: FromStr<Err: Display>>(&self, column: &'static str) -> Result<Option<T>, QueryError> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| text.parse().map_err(|problem| self.wrong(column, &problem))).transpose()
    }

    /// A number that SQLite keeps as `i64`.
    pub fn number<T: TryFrom<i64, Error: Display>>(&self, column: &'static str) -> Result<T, QueryError> {
        T::try_from(self.get::<i64>(column)?).map_err(|problem| self.wrong(column, &problem))
    }

    /// JSON.
    pub fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, QueryError> {
        serde_json::from_str(&self.get::<String>(column)?).map_err(|problem| self.wrong(column, &problem))
    }

    /// The same, where there may be none.
    pub fn optional_json<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, QueryError> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| serde_json::from_str(&text).map_err(|problem| self.wrong(column, &problem))).transpose()
    }

    /// Microseconds since 1970.
    pub fn time(&self, column: &'static str) -> Result<Timestamp, QueryError> {
        Timestamp::from_microsecond(self.get(column)?).map_err(|problem| self.wrong(column, &problem))
    }

    /// The same, where there may be none.
    pub fn optional_time(&self, column: &'static str) -> Result<Option<Timestamp>, QueryError> {
        let micros: Option<i64> = self.get(column)?;
        micros.map(|micros| Timestamp::from_microsecond(micros).map_err(|p| self.wrong(column, &p))).transpose()
    }

    /// 0 or anything else.
    pub fn flag(&self, column: &'static str) -> Result<bool, QueryError> {
        Ok(self.get::<i64>(column)? != 0)
    }

    /// Says that what stands in a column cannot be.
    pub fn wrong(&self, column: &'static str, problem: &dyn Display) -> QueryError {
        QueryError::Row { table: self.table, column, problem: problem.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[tokio::test]
    async fn values_are_read_and_what_cannot_be_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("db"), &[]).await.unwrap();
        let row =
            sqlx::query("SELECT '7' AS word, 7 AS number, -1 AS less, '[1]' AS list, NULL AS none, 5000000 AS time")
                .fetch_one(store.writer())
                .await
                .unwrap();
        let columns = Columns::new("things", &row);
        assert_eq!(columns.word::<u8>("word").unwrap(), 7);
        assert_eq!(columns.number::<u8>("number").unwrap(), 7);
        assert_eq!(columns.json::<Vec<u8>>("list").unwrap(), [1]);
        assert_eq!(columns.time("time").unwrap(), Timestamp::from_second(5).unwrap());
        assert!(columns.flag("number").unwrap());
        assert_eq!(columns.optional_word::<u8>("none").unwrap(), None);
        assert_eq!(columns.optional_json::<u8>("none").unwrap(), None);
        assert_eq!(columns.optional_time("none").unwrap(), None);
        let error = columns.number::<u8>("less").unwrap_err().to_string();
        assert!(error.starts_with("cannot read less of a row in things: "), "{error}");
        assert!(columns.json::<u8>("list").is_err() && columns.word::<u8>("list").is_err());
        assert!(columns.get::<String>("missing").is_err());
    }
}
