//! The layer's routes. Handlers are thin: they read, ask the store, and answer.

pub mod artifacts;
mod host;
mod jobs;
mod media;
mod pull_registries;
mod reports;
mod servers;
pub mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use cairn_core::ErrorKind;
use tokio_util::sync::CancellationToken;
use web::{BasicAuth, Problem, RateLimiter};

use crate::context::Metal;

/// What the routes need besides the layer itself.
pub struct RouteOptions {
    /// Who may use the API; nobody has to say who they are when absent.
    pub auth: Option<Arc<BasicAuth>>,
    /// Limit for requests that make or change jobs.
    pub limiter: Arc<RateLimiter>,
    /// Ends open event streams.
    pub shutdown: CancellationToken,
}

/// Recipes hold user-data of up to 1 MiB, and kickstart files; escaped, that is more.
const JOB_BODY: usize = 4 << 20;
const REPORT_BODY: usize = 64 << 10;
/// Looking an artifact up in a registry elsewhere may take 30 seconds.
const PEOPLE_LIMIT: Duration = Duration::from_secs(60);
const MACHINES_LIMIT: Duration = Duration::from_secs(30);

type Shared = State<Arc<Metal>>;

/// All routes of the layer but the registry's.
pub fn routes(metal: &Arc<Metal>, options: &RouteOptions) -> Router {
    let creating = web::limit_posts(
        &options.limiter,
        Router::new()
            .route("/api/v1/jobs", post(jobs::create).get(jobs::list))
            .route("/api/v1/jobs/{job}/cancel", post(jobs::cancel))
            .layer(web::body_limit(JOB_BODY)),
    );
    let people = Router::new()
        .merge(creating)
        .route("/api/v1/jobs/{job}", get(jobs::show))
        .route("/api/v1/jobs/{job}/events", get(jobs::events))
        .route("/api/v1/artifacts", get(artifacts::list))
        .route("/api/v1/registries", get(pull_registries::list))
        .route(
            "/api/v1/registries/{host}",
            get(pull_registries::show).put(pull_registries::put).delete(pull_registries::remove),
        )
        .route("/api/v1/servers", get(servers::list))
        .route("/api/v1/servers/{serial}", get(servers::show).put(servers::put).delete(servers::remove));
    let people = web::limit_time(PEOPLE_LIMIT, people);
    let people = match &options.auth {
        Some(auth) => auth.protect(people),
        None => people.route_layer(axum::middleware::from_fn_with_state(Arc::clone(metal), host::own_names_only)),
    };
    let machines = Router::new()
        .route("/api/v1/status-webhook/{serial}", post(reports::webhook))
        .route("/api/v1/jobs/{job}/progress", post(reports::progress))
        .route("/api/v1/jobs/{job}/first-boot", post(reports::first_boot))
        .layer(web::body_limit(REPORT_BODY));
    let machines = web::limit_time(MACHINES_LIMIT, machines);
    let media = Router::new()
        .route("/media/tasks/{job}/{file}", get(media::signed_by_query))
        .route("/media/s/{expires}/{signature}/{job}/{file}", get(media::signed_by_path))
        .route("/static/isos/{file}", get(media::static_iso));
    people.merge(machines).merge(media).layer(Extension(options.shutdown.clone())).with_state(Arc::clone(metal))
}

fn not_found(what: &str, name: &dyn std::fmt::Display) -> Problem {
    Problem::new(ErrorKind::NotFound, web::codes::NOT_FOUND, format!("there is no {what} {name}"))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
