//! Units of keepers, through the D-Bus interface of systemd (org.freedesktop.systemd1(5)). polkit allows a daemon without
//! root exactly these calls for exactly these units.

use std::path::PathBuf;

use keeper::Limits;
use serde::Serialize;
use tokio::sync::Mutex;
use zbus::wire::DynamicType;
use zbus::{Connection, Variant};

use super::{blocking, failed};
use crate::model::VmId;
use crate::ports::StepError;

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// Where systemd keeps properties that were set until the next restart of the host.
const PROPERTIES: &str = "/run/systemd/system.control";
/// "No limit" as a property.
const INFINITY: u64 = u64::MAX;
/// Memory of a keeper, which is in the unit too; in bytes.
const KEEPER_MEMORY: u64 = 16 << 20;
/// Its tasks, and one for what systemd itself starts there.
const KEEPER_TASKS: u64 = 2;

/// systemd, and the units of one prefix.
pub(super) struct Systemd {
    prefix: String,
    connection: Mutex<Option<Connection>>,
}

impl Systemd {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), connection: Mutex::default() }
    }

    fn unit(&self, id: &VmId) -> String {
        format!("{}-vm@{id}.service", self.prefix)
    }

    /// Sets the limits of a keeper's unit and starts it, unless it is started.
    pub(super) async fn start(&self, id: &VmId, limits: Limits) -> Result<(), StepError> {
        let unit = self.unit(id);
        self.call("SetUnitProperties", &(&unit, true, properties(limits))).await.map_err(failed)?;
        match self.call("StartUnit", &(&unit, "replace")).await {
            Ok(()) => Ok(()),
            // Perhaps it died too often in too short a time; that is forgiven once.
            Err(_) => {
                self.unless_missing("ResetFailedUnit", &(&unit,)).await?;
                self.call("StartUnit", &(&unit, "replace")).await.map_err(failed)
            }
        }
    }

    /// Nothing of a unit is left, neither in systemd nor on disk.
    pub(super) async fn forget(&self, id: &VmId) -> Result<(), StepError> {
        let unit = self.unit(id);
        self.unless_missing("StopUnit", &(&unit, "replace")).await?;
        self.unless_missing("ResetFailedUnit", &(&unit,)).await?;
        let properties = PathBuf::from(format!("{PROPERTIES}/{unit}.d"));
        blocking(move || {
            // Only root can, and a handful of lines until the next restart does no harm.
            let _ = std::fs::remove_dir_all(properties);
            Ok(())
        })
        .await
    }

    async fn unless_missing<B: Serialize + DynamicType + Sync>(&self, method: &str, body: &B) -> Result<(), StepError> {
        match self.call(method, body).await {
            Err(zbus::Error::MethodError(name, ..)) if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit" => Ok(()),
            result => result.map_err(failed),
        }
    }

    /// One call; another one on a new connection when the old one is broken.
    async fn call<B: Serialize + DynamicType + Sync>(&self, method: &str, body: &B) -> Result<(), zbus::Error> {
        let mut held = self.connection.lock().await;
        let connection = match held.take() {
            Some(connection) => connection,
            None => Connection::system().await?,
        };
        let mut result = on(&connection, method, body).await;
        let mut connection = connection;
        if matches!(&result, Err(error) if !matches!(error, zbus::Error::MethodError(..))) {
            connection = Connection::system().await?;
            result = on(&connection, method, body).await;
        }
        *held = Some(connection);
        result
    }
}

async fn on<B: Serialize + DynamicType + Sync>(
    connection: &Connection,
    method: &str,
    body: &B,
) -> Result<(), zbus::Error> {
    connection.call_method(Some(SERVICE), PATH, Some(MANAGER), method, body).await.map(drop)
}

/// Limits as properties (systemd.resource-control(5)). The unit holds the keeper too.
fn properties(limits: Limits) -> Vec<(&'static str, Variant<'static>)> {
    let or_infinity = |value: Option<u64>| Variant::from(value.unwrap_or(INFINITY));
    vec![
        ("MemoryMax", or_infinity(limits.memory_bytes.map(|bytes| bytes.saturating_add(KEEPER_MEMORY)))),
        ("CPUQuotaPerSecUSec", or_infinity(limits.cpu_millis.map(|millis| millis.saturating_mul(1000)))),
        ("TasksMax", or_infinity(limits.tasks.map(|tasks| tasks.saturating_add(KEEPER_TASKS)))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_limited_is_said_too() {
        let set = properties(Limits { memory_bytes: Some(1 << 20), cpu_millis: Some(1500), tasks: None });
        let expected = [("MemoryMax", 17 << 20), ("CPUQuotaPerSecUSec", 1_500_000), ("TasksMax", u64::MAX)];
        assert_eq!(set, expected.map(|(name, value)| (name, Variant::from(value))));
    }

    #[test]
    fn a_unit_has_the_name_of_its_vm() {
        let id: VmId = "ud-0123456789abcdef".parse().unwrap();
        assert_eq!(Systemd::new("metald").unit(&id), "metald-vm@ud-0123456789abcdef.service");
    }
}
