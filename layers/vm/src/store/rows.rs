//! Rows and what they mean.

use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Error, Transaction, doing};
use crate::model::{Event, Slot, Vm};

/// Reads a text as what it stands for.
pub(super) fn parsed<T>(table: &'static str, column: &'static str, text: &str) -> Result<T, Error>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| Error::Row { table, column, problem: error.to_string() })
}

pub(super) fn time(table: &'static str, column: &'static str, microseconds: i64) -> Result<Timestamp, Error> {
    Timestamp::from_microsecond(microseconds).map_err(|error| Error::Row { table, column, problem: error.to_string() })
}

fn json<T: DeserializeOwned>(column: &'static str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Row { table: "vms", column, problem: error.to_string() })
}

fn text<T: serde::Serialize>(value: &T) -> String {
    // Plain data: nothing in it can fail to be written.
    serde_json::to_string(value).unwrap_or_default()
}

fn number<T: TryFrom<i64>>(column: &'static str, value: i64) -> Result<T, Error> {
    T::try_from(value).map_err(|_| Error::Row { table: "vms", column, problem: format!("{value} is out of range") })
}

pub(super) fn vm_row(row: &SqliteRow) -> Result<Vm, Error> {
    let get = |column: &'static str| row.get::<String, _>(column);
    let maybe = |column: &'static str| row.get::<Option<String>, _>(column);
    let at = |column: &'static str| time("vms", column, row.get(column));
    Ok(Vm {
        id: parsed("vms", "id", &get("id"))?,
        customer: parsed("vms", "customer", &get("customer"))?,
        spec: json("spec", &get("spec"))?,
        state: parsed("vms", "state", &get("state"))?,
        reason: get("reason"),
        failure: maybe("failure").map(|text| json("failure", &text)).transpose()?,
        backend: maybe("backend").map(|text| parsed("vms", "backend", &text)).transpose()?,
        slot: Slot(number("slot", row.get("slot"))?),
        mappings: json("mappings", &get("mappings"))?,
        boot_id: maybe("boot_id"),
        unattended: row.get::<i64, _>("unattended") != 0,
        restarts: number("restarts", row.get("restarts"))?,
        started_at: row.get::<Option<i64>, _>("started_at").map(|at| time("vms", "started_at", at)).transpose()?,
        generation: row.get("generation"),
        created_at: at("created_at")?,
        updated_at: at("updated_at")?,
        operation: maybe("operation").map(|text| json("operation", &text)).transpose()?,
    })
}

pub(super) fn event_row(row: &SqliteRow) -> Result<Event, Error> {
    Ok(Event {
        id: row.get(0),
        vm_id: parsed("vm_events", "vm_id", &row.get::<String, _>(1))?,
        time: time("vm_events", "time", row.get(2))?,
        kind: row.get(3),
        state: row.get(4),
        message: row.get(5),
    })
}

pub(super) async fn insert(tx: &mut Transaction, vm: &Vm) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO vms (id, customer, spec, state, reason, failure, backend, slot, mappings, boot_id, unattended,
         restarts, started_at, generation, created_at, updated_at, operation)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
    )
    .bind(vm.id.as_str())
    .bind(vm.customer.as_str())
    .bind(text(&vm.spec))
    .bind(vm.state.as_str())
    .bind(&vm.reason)
    .bind(vm.failure.as_ref().map(text))
    .bind(vm.backend.map(crate::model::Backend::as_str))
    .bind(i64::from(vm.slot.0))
    .bind(text(&vm.mappings))
    .bind(&vm.boot_id)
    .bind(i64::from(vm.unattended))
    .bind(i64::from(vm.restarts))
    .bind(vm.started_at.map(|at| at.as_microsecond()))
    .bind(vm.generation)
    .bind(vm.created_at.as_microsecond())
    .bind(vm.updated_at.as_microsecond())
    .bind(vm.operation.as_ref().map(text))
    .execute(&mut **tx)
    .await
    .map_err(doing("add a VM"))?;
    Ok(())
}

/// Writes everything that changes, if the row is still the one before this generation.
pub(super) async fn update(tx: &mut Transaction, vm: &Vm) -> Result<(), Error> {
    let done = sqlx::query(
        "UPDATE vms SET state = $1, reason = $2, failure = $3, backend = $4, boot_id = $5, unattended = $6, restarts = $7,
         started_at = $8, generation = $9, updated_at = $10, operation = $11 WHERE id = $12 AND generation = $13",
    )
    .bind(vm.state.as_str())
    .bind(&vm.reason)
    .bind(vm.failure.as_ref().map(text))
    .bind(vm.backend.map(crate::model::Backend::as_str))
    .bind(&vm.boot_id)
    .bind(i64::from(vm.unattended))
    .bind(i64::from(vm.restarts))
    .bind(vm.started_at.map(|at| at.as_microsecond()))
    .bind(vm.generation)
    .bind(vm.updated_at.as_microsecond())
    .bind(vm.operation.as_ref().map(text))
    .bind(vm.id.as_str())
    .bind(vm.generation - 1)
    .execute(&mut **tx)
    .await
    .map_err(doing("write a VM"))?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Error::Changed { id: vm.id.clone() }) }
}
