//! The layer's routes: the guide's `/v1/vms`, `/health`, `/admin` and `/debug`, what belongs beside them, and the nine calls
//! of the original as Connect JSON. Handlers are thin: they read, ask the service, and answer. Start at [`table`].

mod admin;
mod assets;
mod body;
mod connect;
mod console;
mod context;
mod debug;
mod events;
mod gate;
mod health;
mod host;
pub mod openapi;
mod operations;
mod query;
pub mod table;
mod tokens;
pub mod view;
mod vms;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, State};
use axum::middleware::from_fn;
use cairn_core::{Clock, ErrorKind};
use tokio_util::sync::CancellationToken;
use web::{Problem, RateLimiter};

use crate::model::VmId;
use crate::service::Error;

pub use context::Api;

/// What the routes need besides the layer.
pub struct RouteOptions {
    /// Limits how many wrong tokens one address may send.
    pub failures: Arc<RateLimiter>,
    /// Ends open streams.
    pub shutdown: CancellationToken,
    /// Largest asset, in bytes.
    pub asset_limit: u64,
    /// Version of the program, for `/health`.
    pub version: &'static str,
    /// Time, for `/health`.
    pub clock: Arc<dyn Clock>,
}

/// Metadata, rules and kernel arguments of a VM stay far below it.
const BODY: usize = 256 << 10;

type Shared = State<Arc<Api>>;

/// All routes of the layer. `/metrics` and `/errors` are the program's.
pub fn routes(api: &Arc<Api>, options: RouteOptions) -> Router {
    let gate = gate::Gate::new(api, &options.failures)
        .add("GET", "/v1/vms", vms::list)
        .add("POST", "/v1/vms", vms::create)
        .add("GET", "/v1/vms/{id}", vms::show)
        .add("DELETE", "/v1/vms/{id}", vms::remove)
        .add("POST", "/v1/vms/{id}/boot", operations::boot)
        .add("POST", "/v1/vms/{id}/shutdown", operations::shutdown)
        .add("POST", "/v1/vms/{id}/pause", operations::pause)
        .add("POST", "/v1/vms/{id}/resume", operations::resume)
        .add("POST", "/v1/vms/{id}/reboot", operations::reboot)
        .add("GET", "/v1/vms/{id}/wait", operations::wait)
        .add("GET", "/v1/vms/{id}/events", events::of_one)
        .add("GET", "/v1/vms/{id}/logs", console::logs)
        .add("POST", "/v1/vms/{id}/console", console::type_in)
        .add("GET", "/v1/vms/{id}/network", host::network_of_one)
        .add("GET", "/v1/events", events::of_all)
        .add("GET", "/v1/tokens", tokens::list)
        .add("POST", "/v1/tokens", tokens::create)
        .add("DELETE", "/v1/tokens/{id}", tokens::revoke)
        .add("GET", "/v1/assets", assets::list)
        .add("PUT", "/v1/assets/{name}", assets::add)
        .add("DELETE", "/v1/assets/{name}", assets::remove)
        .add("POST", "/v1/assets/{name}", assets::collect)
        .add("GET", "/v1/strays", host::strays)
        .add("DELETE", "/v1/strays", host::remove_strays)
        .add("GET", "/v1/network", host::network)
        .add("GET", "/v1/doctor", host::doctor)
        .add("GET", "/health", health::show)
        .add("POST", "/admin/maintenance/enable", admin::enable)
        .add("POST", "/admin/maintenance/disable", admin::disable)
        .add("GET", "/debug/pprof/goroutine", debug::tasks)
        .add("GET", "/debug/pprof/heap", debug::memory);
    let limits = assets::Limit(options.asset_limit);
    let routes = connect::add(gate).finish();
    connect::catch_all(routes)
        .layer(from_fn(connect::in_its_form))
        .layer(web::body_limit(BODY))
        .layer(Extension(limits))
        .layer(Extension(health::Looks::new(options.version, options.clock)))
        .layer(Extension(options.shutdown))
}

/// A text that is no id names no VM.
fn vm_id(text: &str) -> Result<VmId, Problem> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Problem::new(ErrorKind::NotFound, crate::errors::VM_NOT_FOUND, format!("there is no VM {shown}"))
    })
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Invalid, web::codes::INVALID_REQUEST, detail)
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        error.problem()
    }
}
