//! `/health`: whether the daemon answers, and how its hypervisor is. It answers 200 for as long as it answers at all: the
//! guide's health-check.sh tells a dead API (CRITICAL) from a bad backend (WARNING) by that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use cairn_core::Clock;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use web::Json;

use super::{Api, Shared};
use crate::model::Backend;

/// How long a hypervisor has to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// For so long an answer stands: anybody may ask, and each look may start a process.
const FRESH: Duration = Duration::from_secs(2);

/// The last look at the hypervisor; whoever comes during a look waits for it.
#[derive(Clone)]
pub(super) struct Looks {
    version: &'static str,
    clock: Arc<dyn Clock>,
    last: Arc<Mutex<Option<(Instant, Look)>>>,
}

#[derive(Clone)]
struct Look {
    found: Result<(Backend, String), String>,
    took: Duration,
    at: Timestamp,
}

impl Looks {
    pub(super) fn new(version: &'static str, clock: Arc<dyn Clock>) -> Self {
        Self { version, clock, last: Arc::default() }
    }

    async fn look(&self, api: &Api) -> Look {
        let mut last = self.last.lock().await;
        if let Some((at, look)) = &*last
            && at.elapsed() < FRESH
        {
            return look.clone();
        }
        let started = Instant::now();
        let found = match tokio::time::timeout(PATIENCE, api.service.backend_health()).await {
            Ok(found) => found,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        let look = Look { found, took: started.elapsed(), at: self.clock.now() };
        *last = Some((Instant::now(), look.clone()));
        look
    }
}

pub(super) async fn show(State(api): Shared, Extension(looks): Extension<Looks>) -> Response {
    let look = looks.look(&api).await;
    let active = api.service.active_vms().values().sum::<u64>();
    let machine = tokio::task::spawn_blocking(host::machine).await.ok().and_then(Result::ok);
    let word = |is_well: bool| if is_well { "healthy" } else { "unhealthy" };
    let is_well = look.found.is_ok();
    let status = match (is_well, &machine) {
        (false, _) => "unhealthy",
        (true, Some(_)) => "healthy",
        // Something is amiss, and yet VMs run.
        (true, None) => "degraded",
    };
    let mut ping = json!({
        "status": word(is_well),
        "duration_ms": u64::try_from(look.took.as_millis()).unwrap_or(u64::MAX),
        "timestamp": look.at,
    });
    let backend = match &look.found {
        Ok((backend, version)) => json!({ "type": backend, "status": word(true), "version": version }),
        Err(error) => {
            ping["error"] = error.as_str().into();
            json!({ "type": "none", "status": word(false), "error": error })
        }
    };
    let body = json!({
        "status": status,
        "timestamp": looks.clock.now(),
        "version": looks.version,
        "active_vms": active,
        "maintenance": api.service.maintenance(),
        "backend": backend,
        "system": machine.as_ref().map(system),
        "checks": {
            "backend_ping": ping,
            "system_info": { "status": word(machine.is_some()) },
        },
    });
    ([(header::CACHE_CONTROL, "no-cache, no-store, must-revalidate")], Json(body)).into_response()
}

fn system(machine: &host::Machine) -> Value {
    let used = machine.memory.saturating_sub(machine.memory_available);
    let percent = used as f64 / machine.memory.max(1) as f64 * 100.0;
    json!({
        "hostname": machine.hostname,
        "uptime": machine.uptime,
        "cpu": { "architecture": machine.architecture, "cores": machine.cpus, "model": machine.cpu_model },
        "memory": {
            "total_bytes": machine.memory,
            "used_bytes": used,
            "available_bytes": machine.memory_available,
            "used_percent": (percent * 10.0).round() / 10.0,
        },
    })
}
