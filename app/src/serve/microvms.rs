//! The vm role: what it looks at before anything is made, what it runs, and where metald shows its metrics a second time.

use std::fs;
use std::io;
use std::sync::Arc;

use cairn_core::{ErrorKind, SystemClock, chain};
use observe::metrics::Registry;
use store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vm::api::{Api, RouteOptions, table};
use vm::metrics::VmMetrics;
use vm::settings::{Accounts, UidRange, VmSettings};
use web::{ListenAddress, Problem};

use super::door::Door;
use super::settings_problem;

/// The vm layer, opened.
pub(super) struct Machines {
    api: Arc<Api>,
    asset_limit: u64,
}

impl Machines {
    pub(super) async fn open(settings: &VmSettings, store: &Store, families: &mut Registry) -> Result<Self, Problem> {
        let metrics = Arc::new(VmMetrics::register(families, settings.high_cardinality, &table::names()));
        let api = vm::open(settings, store.clone(), metrics, Arc::new(SystemClock)).await.map_err(|error| {
            Problem::new(ErrorKind::Failed, error.code(), chain(&error)).hint("cairn explain says more about the code")
        })?;
        Ok(Self { api, asset_limit: settings.asset_limit })
    }

    pub(super) fn routes(&self, door: &Door, shutdown: &CancellationToken) -> axum::Router {
        let options = RouteOptions {
            failures: Arc::clone(&door.failures),
            shutdown: shutdown.clone(),
            asset_limit: self.asset_limit,
            version: env!("CARGO_PKG_VERSION"),
            clock: Arc::new(SystemClock),
        };
        vm::api::routes(&self.api, options)
    }

    pub(super) fn start(&self, workers: &mut JoinSet<Result<(), Problem>>, shutdown: &CancellationToken) {
        let work = vm::run(Arc::clone(&self.api.service), shutdown.clone());
        workers.spawn(async {
            work.await.map_err(|error| {
                Problem::new(ErrorKind::Failed, error.code(), chain(&error))
                    .hint("cairn explain says more about the code")
            })
        });
        let (api, shutdown) = (Arc::clone(&self.api), shutdown.clone());
        workers.spawn(async move {
            api.keep_gauges(&shutdown).await;
            Ok(())
        });
    }
}

/// The second listener (guide, "Prometheus Configuration").
pub(super) async fn metrics_listener(settings: &VmSettings) -> Result<Option<TcpListener>, Problem> {
    let Some(address) = &settings.metrics_listen else { return Ok(None) };
    let address: ListenAddress = address.parse().map_err(settings_problem)?;
    let listener = web::bind(&address).await.map_err(|error| {
        Problem::new(error.kind(), "listen", chain(&error)).hint(
            "say another one with UNKEY_METALD_OTEL_PROMETHEUS_INTERFACE and UNKEY_METALD_OTEL_PROMETHEUS_PORT, or none \
             with UNKEY_METALD_OTEL_PROMETHEUS_ENABLED=false",
        )
    })?;
    tracing::info!(%address, "metrics are served there too");
    Ok(Some(listener))
}

/// Nobody else on this host may have a user that a VM is to have.
pub(super) fn check_users(uids: UidRange) -> Result<(), Problem> {
    let read = |path: &str| match fs::read(path) {
        // A name in another encoding is still nobody's number.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(settings_problem(format!("cannot read {path}: {error}"))),
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    let (subuid, subgid) = (read("/etc/subuid")?, read("/etc/subgid")?);
    taken(uids, Accounts { passwd: &passwd, group: &group, subuid: &subuid, subgid: &subgid })
}

fn taken(uids: UidRange, accounts: Accounts<'_>) -> Result<(), Problem> {
    let Some(by) = uids.taken(accounts) else { return Ok(()) };
    let problem = settings_problem(format!("users {uids} are for VMs alone, and {by}"));
    Err(match uids.free(accounts) {
        Some(free) => problem.hint(format!("set UNKEY_METALD_JAILER_UID_RANGE={free}, which nobody has")),
        None => problem.hint("set UNKEY_METALD_JAILER_UID_RANGE"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_somebody_has_names_a_free_one() {
        let accounts = Accounts { subuid: "bob:165536:65536\n", ..Accounts::default() };
        let problem = taken("200000-265535".parse().unwrap(), accounts).unwrap_err();
        insta::assert_snapshot!(format!("{}\n{}", problem.detail, problem.hint.unwrap()), @r"
        users 200000-265535 are for VMs alone, and /etc/subuid gives 165536 to 231071 to bob
        set UNKEY_METALD_JAILER_UID_RANGE=265536-331071, which nobody has
        ");
        assert!(taken("300000-365535".parse().unwrap(), accounts).is_ok());
    }
}
