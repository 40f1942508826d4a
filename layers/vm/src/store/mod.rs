//! The layer's tables. Whoever owns a VM is the only one who changes its row.

mod assets;
mod rows;
pub mod tokens;

#[cfg(test)]
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use sqlx::Row;
use store::{Columns, Migration, QueryError, Store, StoreError};

use crate::model::{Event, Mapping, Port, Protocol, Slot, Vm, VmId};
use rows::vm_row;

/// The layer's migrations; versions start at 30 001.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 30_001, name: "vm: VMs, events, assets", sql: include_str!("migrations.sql") },
    tokens::MIGRATION,
];

/// Events that are kept of each VM.
const KEPT_EVENTS: i64 = 200;
/// Events that are kept in all.
const KEPT_EVENTS_IN_ALL: i64 = 100_000;

/// The database did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed, or a row is none that this program writes.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The row is not as its owner knew it.
    #[error("the row of VM {id} was changed by somebody else")]
    Changed {
        /// Which VM.
        id: VmId,
    },
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Query(error.into())
    }
}

impl Error {
    /// There is no room on the database's disk.
    pub(crate) fn is_full(&self) -> bool {
        // SQLITE_FULL (sqlite.org/rescode.html#full).
        let full =
            |error: &sqlx::Error| error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("13"));
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = source {
            if error.downcast_ref::<sqlx::Error>().is_some_and(full) {
                return true;
            }
            source = error.source();
        }
        false
    }
}

pub(crate) fn doing(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error::Query(store::doing(doing)(source))
}

/// Why a VM was not admitted.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is there now.
    Admitted(Box<Vm>),
    /// The same request was made before, and made this VM.
    Before(VmId),
    /// The key was used for another request.
    KeyUsed,
    /// The id is taken.
    Exists,
    /// So many are there already.
    Full(u32),
    /// No slot is free.
    NoSlot,
    /// The port is taken.
    PortTaken(Protocol, u16),
    /// No port of the range is free.
    NoPort,
}

/// What is to be admitted.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// The VM; slot and mappings are decided here.
    pub(crate) vm: Vm,
    /// Key and fingerprint of the request.
    pub(crate) key: Option<(String, String)>,
    /// VMs at most.
    pub(crate) most: u32,
    /// Slots there are.
    pub(crate) slots: u32,
    /// Ports for those who do not name one.
    pub(crate) ports: std::ops::RangeInclusive<u16>,
}

/// Access to the layer's tables.
#[derive(Debug, Clone)]
pub struct VmStore {
    store: Store,
    /// Commits that are reported to have failed although they took effect.
    #[cfg(test)]
    pub(crate) lies: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

impl VmStore {
    /// Uses an open store whose migrations include [`MIGRATIONS`].
    pub fn new(store: Store) -> Self {
        Self {
            store,
            #[cfg(test)]
            lies: std::sync::Arc::default(),
        }
    }

    async fn commit(&self, tx: Transaction, doing_what: &'static str) -> Result<(), Error> {
        tx.commit().await.map_err(doing(doing_what))?;
        #[cfg(test)]
        if self.lies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(doing(doing_what)(sqlx::Error::WorkerCrashed));
        }
        Ok(())
    }

    /// Adds a VM with everything that it holds on this host, or nothing.
    pub(crate) async fn admit(&self, candidate: Candidate) -> Result<Admission, Error> {
        let (id, customer, created_at) =
            (candidate.vm.id.clone(), candidate.vm.customer.clone(), candidate.vm.created_at.as_microsecond());
        let error = match self.try_admit(candidate).await {
            Err(error) => error,
            admission => return admission,
        };
        // A commit can take effect and still be reported as failed: such a VM would have no owner before the next start.
        let row = self.one(&id).await.ok().flatten();
        let is_ours = |vm: &Vm| vm.customer == customer && vm.created_at.as_microsecond() == created_at;
        row.filter(is_ours).map(|vm| Admission::Admitted(Box::new(vm))).ok_or(error)
    }

    async fn try_admit(&self, candidate: Candidate) -> Result<Admission, Error> {
        let Candidate { mut vm, key, most, slots, ports } = candidate;
        let failed = || doing("add a VM");
        let mut tx = self.store.begin().await?;
        if let Some((key, fingerprint)) = &key {
            let before = sqlx::query("SELECT fingerprint, vm_id FROM vm_keys WHERE customer = $1 AND key = $2")
                .bind(vm.customer.as_str())
                .bind(key)
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed())?;
            if let Some(row) = before {
                let columns = Columns::new("vm_keys", &row);
                if columns.get::<String>("fingerprint")? != *fingerprint {
                    return Ok(Admission::KeyUsed);
                }
                return Ok(Admission::Before(columns.word("vm_id")?));
            }
        }
        let there: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM vms WHERE id = $1")
            .bind(vm.id.as_str())
            .fetch_one(&mut *tx)
            .await
            .map_err(failed())?;
        if there > 0 {
            return Ok(Admission::Exists);
        }
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM vms").fetch_one(&mut *tx).await.map_err(failed())?;
        if count >= i64::from(most) {
            return Ok(Admission::Full(most));
        }
        let Some(slot) = free_slot(&mut tx, slots).await? else { return Ok(Admission::NoSlot) };
        vm.slot = slot;
        vm.mappings = match free_ports(&mut tx, &vm.spec.interface().ports, ports).await? {
            Ok(mappings) => mappings,
            Err(refused) => return Ok(refused),
        };
        rows::insert(&mut tx, &vm).await?;
        for mapping in &vm.mappings {
            sqlx::query("INSERT INTO vm_ports (protocol, host_port, vm_id) VALUES ($1, $2, $3)")
                .bind(mapping.protocol.as_str())
                .bind(i64::from(mapping.host_port))
                .bind(vm.id.as_str())
                .execute(&mut *tx)
                .await
                .map_err(failed())?;
        }
        if let Some((key, fingerprint)) = key {
            sqlx::query(
                "INSERT INTO vm_keys (customer, key, fingerprint, vm_id, created_at) VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(vm.customer.as_str())
            .bind(key)
            .bind(fingerprint)
            .bind(vm.id.as_str())
            .bind(vm.created_at.as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        }
        self.commit(tx, "add a VM").await?;
        Ok(Admission::Admitted(Box::new(vm)))
    }

    /// Writes a VM's row, if it is still the one before this generation, and what happened with it.
    pub(crate) async fn write(&self, vm: &Vm, event: Option<&NewEvent>) -> Result<Option<Event>, Error> {
        let mut tx = self.store.begin().await?;
        rows::update(&mut tx, vm).await?;
        let event = match event {
            Some(event) => Some(add_event(&mut tx, vm, event).await?),
            None => None,
        };
        self.commit(tx, "write a VM").await?;
        Ok(event)
    }

    /// A VM as it is stored.
    pub(crate) async fn one(&self, id: &VmId) -> Result<Option<Vm>, Error> {
        let row = sqlx::query("SELECT * FROM vms WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(self.store.reader())
            .await
            .map_err(doing("read a VM"))?;
        row.as_ref().map(vm_row).transpose()
    }

    /// The newest event of a VM.
    pub(crate) async fn last_event(&self, vm: &Vm) -> Result<Option<Event>, Error> {
        let row = sqlx::query(
            "SELECT id, vm_id, time, kind, state, message FROM vm_events
             WHERE vm_id = $1 AND customer = $2 ORDER BY id DESC LIMIT 1",
        )
        .bind(vm.id.as_str())
        .bind(vm.customer.as_str())
        .fetch_optional(self.store.reader())
        .await
        .map_err(doing("read events"))?;
        row.as_ref().map(rows::event_row).transpose()
    }

    /// Removes a VM's row and what it holds; its slot rests from now on. Where an earlier try took effect, nothing is done: by
    /// now another VM may have the id.
    pub(crate) async fn remove(&self, vm: &Vm, event: &NewEvent, forget_key: bool) -> Result<Event, Error> {
        let failed = || doing("remove a VM");
        let mut tx = self.store.begin().await?;
        let there: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM vms WHERE id = $1 AND created_at = $2 AND slot = $3")
            .bind(vm.id.as_str())
            .bind(vm.created_at.as_microsecond())
            .bind(i64::from(vm.slot.0))
            .fetch_one(&mut *tx)
            .await
            .map_err(failed())?;
        if there == 0 {
            drop(tx);
            return self.last_event(vm).await?.ok_or_else(|| Error::Changed { id: vm.id.clone() });
        }
        let event = add_event(&mut tx, vm, event).await?;
        for sql in ["DELETE FROM vm_ports WHERE vm_id = $1", "DELETE FROM vms WHERE id = $1"] {
            sqlx::query(sql).bind(vm.id.as_str()).execute(&mut *tx).await.map_err(failed())?;
        }
        if forget_key {
            let sql = "DELETE FROM vm_keys WHERE vm_id = $1";
            sqlx::query(sql).bind(vm.id.as_str()).execute(&mut *tx).await.map_err(failed())?;
        }
        sqlx::query(
            "INSERT INTO vm_slots (slot, freed_at) VALUES ($1, $2) ON CONFLICT (slot) DO UPDATE SET freed_at = $2",
        )
        .bind(i64::from(vm.slot.0))
        .bind(event.time.as_microsecond())
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
        self.commit(tx, "remove a VM").await?;
        Ok(event)
    }

    /// All VMs, by id.
    pub(crate) async fn all(&self) -> Result<Vec<Vm>, Error> {
        let rows = sqlx::query("SELECT * FROM vms ORDER BY id")
            .fetch_all(self.store.reader())
            .await
            .map_err(doing("read the VMs"))?;
        rows.iter().map(vm_row).collect()
    }

    /// Events after one, oldest first.
    pub(crate) async fn events(
        &self,
        customer: Option<&str>,
        vm: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        let rows = sqlx::query(
            "SELECT id, vm_id, time, kind, state, message FROM vm_events
             WHERE id > $1 AND ($2 IS NULL OR customer = $2) AND ($3 IS NULL OR vm_id = $3) ORDER BY id LIMIT $4",
        )
        .bind(after)
        .bind(customer)
        .bind(vm)
        .bind(i64::from(limit))
        .fetch_all(self.store.reader())
        .await
        .map_err(doing("read events"))?;
        rows.iter().map(rows::event_row).collect()
    }

    /// Forgets keys that are older, and events beyond what is kept.
    pub(crate) async fn prune(&self, oldest_key: Timestamp) -> Result<(), Error> {
        let failed = || doing("shorten the record of VMs");
        let mut tx = self.store.begin().await?;
        sqlx::query("DELETE FROM vm_keys WHERE created_at < $1")
            .bind(oldest_key.as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        sqlx::query("DELETE FROM vm_events WHERE id <= (SELECT COALESCE(MAX(id), 0) FROM vm_events) - $1")
            .bind(KEPT_EVENTS_IN_ALL)
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        tx.commit().await.map_err(failed())
    }
}

/// Something that happened, before it has a number.
#[derive(Debug, Clone)]
pub(crate) struct NewEvent {
    /// When.
    pub(crate) time: Timestamp,
    /// What kind.
    pub(crate) kind: &'static str,
    /// A sentence.
    pub(crate) message: String,
}

type Transaction = store::WriteTransaction;

/// The free slot that rested longest; one that was never used before any of those.
async fn free_slot(tx: &mut Transaction, slots: u32) -> Result<Option<Slot>, Error> {
    let failed = || doing("find a place for a VM");
    // Slots are handed out in order, so that the first that was never used is the count of those that were.
    let used: i64 = sqlx::query_scalar(
        "SELECT COALESCE(MAX(slot) + 1, 0) FROM (SELECT slot FROM vms UNION ALL SELECT slot FROM vm_slots) AS used",
    )
    .fetch_one(&mut **tx)
    .await
    .map_err(failed())?;
    if used < i64::from(slots) {
        return Ok(u32::try_from(used).ok().map(Slot));
    }
    let rested: Option<i64> = sqlx::query_scalar(
        "SELECT slot FROM vm_slots WHERE slot < $1 AND slot NOT IN (SELECT slot FROM vms) ORDER BY freed_at, slot LIMIT 1",
    )
    .bind(i64::from(slots))
    .fetch_optional(&mut **tx)
    .await
    .map_err(failed())?;
    Ok(rested.and_then(|slot| u32::try_from(slot).ok()).map(Slot))
}

/// Ports for a VM: those that it names, and free ones of the range for the others.
async fn free_ports(
    tx: &mut Transaction,
    wanted: &[Port],
    range: std::ops::RangeInclusive<u16>,
) -> Result<Result<Vec<Mapping>, Admission>, Error> {
    if wanted.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    let rows = sqlx::query("SELECT protocol, host_port FROM vm_ports")
        .fetch_all(&mut **tx)
        .await
        .map_err(doing("find ports for a VM"))?;
    let mut taken: std::collections::BTreeSet<(String, u16)> = rows
        .iter()
        .map(|row| (row.get::<String, _>(0), u16::try_from(row.get::<i64, _>(1)).unwrap_or_default()))
        .collect();
    let mut mappings = Vec::new();
    for port in wanted.iter().filter(|port| port.host_port != 0).chain(wanted.iter().filter(|port| port.host_port == 0))
    {
        let protocol = port.protocol.as_str().to_owned();
        let host_port = match port.host_port {
            0 => range.clone().find(|port| !taken.contains(&(protocol.clone(), *port))),
            named => Some(named),
        };
        let Some(host_port) = host_port else { return Ok(Err(Admission::NoPort)) };
        if !taken.insert((protocol, host_port)) {
            return Ok(Err(Admission::PortTaken(port.protocol, host_port)));
        }
        mappings.push(Mapping { host_port, guest_port: port.guest_port, protocol: port.protocol });
    }
    Ok(Ok(mappings))
}

async fn add_event(tx: &mut Transaction, vm: &Vm, event: &NewEvent) -> Result<Event, Error> {
    let failed = || doing("write an event");
    let id: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) + 1 FROM vm_events")
        .fetch_one(&mut **tx)
        .await
        .map_err(failed())?;
    sqlx::query(
        "INSERT INTO vm_events (id, vm_id, customer, time, kind, state, message) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id)
    .bind(vm.id.as_str())
    .bind(vm.customer.as_str())
    .bind(event.time.as_microsecond())
    .bind(event.kind)
    .bind(vm.state.as_str())
    .bind(&event.message)
    .execute(&mut **tx)
    .await
    .map_err(failed())?;
    // The newest stays, so that numbers are never used again.
    sqlx::query(
        "DELETE FROM vm_events WHERE vm_id = $1 AND id <=
         (SELECT id FROM vm_events WHERE vm_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
    )
    .bind(vm.id.as_str())
    .bind(KEPT_EVENTS)
    .execute(&mut **tx)
    .await
    .map_err(failed())?;
    Ok(Event {
        id,
        vm_id: vm.id.clone(),
        time: event.time,
        kind: event.kind.to_owned(),
        state: vm.state.as_str().to_owned(),
        message: event.message.clone(),
    })
}

#[cfg(test)]
mod tests;
