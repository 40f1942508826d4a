//! Rows and what they mean.

use sqlx::sqlite::SqliteRow;
use store::Columns;

use super::{Error, Transaction, doing};
use crate::model::{Event, Slot, Vm};

fn text<T: serde::Serialize>(value: &T) -> String {
    // Plain data: nothing in it can fail to be written.
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn vm_row(row: &SqliteRow) -> Result<Vm, Error> {
    let columns = Columns::new("vms", row);
    Ok(Vm {
        id: columns.word("id")?,
        customer: columns.word("customer")?,
        spec: columns.json("spec")?,
        state: columns.word("state")?,
        reason: columns.get("reason")?,
        failure: columns.optional_json("failure")?,
        backend: columns.optional_word("backend")?,
        slot: Slot(columns.number("slot")?),
        mappings: columns.json("mappings")?,
        boot_id: columns.get("boot_id")?,
        unattended: columns.flag("unattended")?,
        restarts: columns.number("restarts")?,
        started_at: columns.optional_time("started_at")?,
        generation: columns.get("generation")?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
        operation: columns.optional_json("operation")?,
    })
}

pub(super) fn event_row(row: &SqliteRow) -> Result<Event, Error> {
    let columns = Columns::new("vm_events", row);
    Ok(Event {
        id: columns.get("id")?,
        vm_id: columns.word("vm_id")?,
        time: columns.time("time")?,
        kind: columns.get("kind")?,
        state: columns.get("state")?,
        message: columns.get("message")?,
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
