//! `/api/v1/jobs`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use cairn_core::ErrorKind;
use futures::Stream;
use oci_registry::{RepositoryName, Selector};
use recipe::OciReference;
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use url::Url;
use web::{Detail, Json, Problem, Query};

use super::servers::PAGE;
use super::view::{JobList, JobView};
use super::{Shared, header, not_found};
use crate::context::Metal;
use crate::errors;
use crate::model::{ArtifactRef, Job, JobId, Serial, Server, Status};
use crate::pull_registry::{self, host_of};
use crate::store::{Inserted, JobFilter, NewJob};
use cairn_core::chain;

/// Body of `POST`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateJob {
    server_serial: String,
    recipe: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    status: Option<Status>,
    serial: Option<String>,
    limit: Option<u32>,
    cursor: Option<JobId>,
}

pub(super) async fn create(
    State(metal): Shared,
    headers: HeaderMap,
    Json(body): Json<CreateJob>,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    let recipe = recipe::parse(&body.recipe).map_err(invalid_recipe)?;
    let serial: Serial = body.server_serial.parse().map_err(|problem: crate::model::InvalidSerial| {
        invalid("the request has a fault").detail_list(vec![Detail::at(
            "/server_serial",
            "pattern",
            problem.to_string(),
        )])
    })?;
    let key = idempotency_key(&headers)?;
    if let Some(key) = &key
        && let Some(job) = metal.store.job_by_key(&serial, key).await?
    {
        return existing(&job, &body.recipe);
    }
    let Some(server) = metal.store.server(&serial).await? else {
        return Err(not_found("server", &serial)
            .hint("make its record first: cairn metal server add, or PUT /api/v1/servers/{serial}"));
    };
    if !recipe.task_target.can_run() {
        let detail = format!("{} cannot be run by this version", recipe.task_target);
        return Err(Problem::new(ErrorKind::Invalid, errors::TARGET_NOT_SUPPORTED, detail));
    }
    if metal.settings.maintenance_iso_url.is_none() && !metal.settings.maintenance_iso().exists() {
        let detail = "there is no maintenance image to boot the machine from";
        return Err(Problem::new(ErrorKind::Conflict, errors::MAINTENANCE_IMAGE_MISSING, detail)
            .hint("build one: cairn metal image build"));
    }
    let artifact = match &recipe.oci_url {
        Some(reference) => Some(resolve(&metal, &server, reference).await?),
        None => None,
    };
    let new = NewJob {
        id: JobId::new(),
        serial: serial.clone(),
        recipe_json: body.recipe.to_string(),
        task_target: recipe.task_target.to_string(),
        artifact,
        idempotency_key: key,
        now: metal.clock.now(),
    };
    match metal.store.insert_job(&new).await? {
        Inserted::Created(job) => {
            metal.metrics.transition(None, Status::Queued);
            tracing::info!(job_id = %job.id, server_serial = %serial, step = "validation.schema", op = "validation",
                schema_id = recipe::SCHEMA_ID, recipe_bytes = new.recipe_json.len(), "recipe accepted");
            metal.wake.queue();
            let mut view = JobView::of(&job);
            view.warnings =
                recipe::lints(&recipe).into_iter().map(|lint| format!("{}: {}", lint.code, lint.message)).collect();
            Ok((StatusCode::ACCEPTED, Json(view)))
        }
        Inserted::Existing(job) => existing(&job, &body.recipe),
        Inserted::Active(active) => {
            let detail = format!("server {serial} has job {active}, which is not complete");
            Err(Problem::new(ErrorKind::Conflict, errors::ACTIVE_JOB, detail)
                .hint("wait for it (cairn metal job watch) or end it (cairn metal job cancel)"))
        }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    match header(headers, "idempotency-key") {
        None | Some("") => Ok(None),
        Some(key) if key.len() > 255 => Err(invalid("an Idempotency-Key has at most 255 characters")),
        Some(key) => Ok(Some(key.to_owned())),
    }
}

/// The answer to a key that came before.
fn existing(job: &Job, recipe: &Value) -> Result<(StatusCode, Json<JobView>), Problem> {
    let same = serde_json::from_str::<Value>(&job.recipe_json).is_ok_and(|earlier| earlier == *recipe);
    if same {
        return Ok((StatusCode::OK, Json(JobView::of(job))));
    }
    let detail = format!("this Idempotency-Key brought job {} with another recipe", job.id);
    Err(Problem::new(ErrorKind::Conflict, errors::IDEMPOTENCY_CONFLICT, detail))
}

pub(super) async fn show(State(metal): Shared, Path(id): Path<String>) -> Result<Json<JobView>, Problem> {
    let job = find(&metal, &id).await?;
    let mut view = JobView::of(&job);
    view.events = metal.store.events(job.id, 0).await?;
    Ok(Json(view))
}

pub(super) async fn list(State(metal): Shared, Query(filter): Query<Filter>) -> Result<Json<JobList>, Problem> {
    let limit = filter.limit.unwrap_or(PAGE.0).clamp(1, PAGE.1);
    let serial = match &filter.serial {
        Some(text) => Some(text.parse().map_err(|problem: crate::model::InvalidSerial| invalid(problem.to_string()))?),
        None => None,
    };
    let wanted = JobFilter { status: filter.status, serial, cursor: filter.cursor, limit: limit + 1 };
    let mut jobs = metal.store.jobs(&wanted).await?;
    let more = jobs.len() > limit as usize;
    jobs.truncate(limit as usize);
    let next_cursor = jobs.last().filter(|_| more).map(|job| job.id.to_string());
    Ok(Json(JobList { jobs: jobs.iter().map(JobView::of).collect(), next_cursor }))
}

pub(super) async fn cancel(
    State(metal): Shared,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    let job = find(&metal, &id).await?;
    match metal.store.cancel_job(job.id, metal.clock.now()).await? {
        None => {
            let detail =
                format!("job {} is {}; only queued and provisioning jobs can be cancelled", job.id, job.status);
            return Err(Problem::new(ErrorKind::Conflict, errors::WRONG_STATE, detail));
        }
        Some(Status::Queued) => {
            metal.metrics.transition(Some(Status::Queued), Status::Failed);
            metal.wake.queue();
        }
        Some(_) => {}
    }
    metal.wake.job(job.id);
    let job = find(&metal, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(JobView::of(&job))))
}

/// Server-sent events: `event` for each line of the history (its number is the SSE id, so `Last-Event-ID` resumes), `job`
/// for each change of the job, and `end` when nothing will change any more.
pub(super) async fn events(
    State(metal): Shared,
    Extension(shutdown): Extension<CancellationToken>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, Problem> {
    let job = find(&metal, &id).await?;
    let after = header(&headers, "last-event-id").and_then(|id| id.parse().ok()).unwrap_or(0);
    let watch = metal.wake.watch(job.id);
    let state = Following { metal, watch, id: job.id, after, shown: None, ended: false, fresh: true };
    let stream = futures::stream::unfold(state, move |mut state| {
        let shutdown = shutdown.clone();
        async move {
            if state.ended {
                return None;
            }
            let news = tokio::select! {
                news = state.next() => news,
                () = shutdown.cancelled() => return None,
            };
            Some((news, state))
        }
    });
    Ok(Sse::new(futures::StreamExt::flat_map(stream, futures::stream::iter)).keep_alive(KeepAlive::default()))
}

/// One watcher of one job.
struct Following {
    metal: Arc<Metal>,
    watch: crate::context::Watch,
    id: JobId,
    after: i64,
    shown: Option<String>,
    ended: bool,
    fresh: bool,
}

impl Following {
    /// What is new; waits until something is.
    async fn next(&mut self) -> Vec<Result<SseEvent, Infallible>> {
        loop {
            if !std::mem::take(&mut self.fresh) {
                self.watch.changed().await;
            }
            match self.look().await {
                Ok(news) if news.is_empty() => {}
                Ok(news) => return news.into_iter().map(Ok).collect(),
                Err(error) => {
                    tracing::error!(job_id = %self.id, error = &error as &dyn std::error::Error, "cannot follow a job");
                    self.ended = true;
                    return Vec::new();
                }
            }
        }
    }

    async fn look(&mut self) -> Result<Vec<SseEvent>, crate::store::Error> {
        let mut news = Vec::new();
        let job = self.metal.store.job(self.id).await?;
        for event in self.metal.store.events(self.id, self.after).await? {
            self.after = event.id;
            news.push(sse("event", &event).id(event.id.to_string()));
        }
        let Some(job) = job else {
            self.ended = true;
            return Ok(news);
        };
        let view = JobView::of(&job);
        let text = serde_json::to_string(&view).unwrap_or_default();
        if self.shown.as_ref() != Some(&text) {
            news.push(SseEvent::default().event("job").data(&text));
            self.shown = Some(text);
        }
        if view.is_settled() {
            self.ended = true;
            news.push(SseEvent::default().event("end").data("{}"));
        }
        Ok(news)
    }
}

fn sse<T: serde::Serialize>(name: &str, value: &T) -> SseEvent {
    SseEvent::default().event(name).data(serde_json::to_string(value).unwrap_or_default())
}

async fn find(metal: &Metal, id: &str) -> Result<Job, Problem> {
    // A text that is no id names no job: the smoke test of design 036 asks for `nonexistent` and expects 404.
    let Ok(parsed) = id.parse::<JobId>() else { return Err(not_found("job", &id)) };
    metal.store.job(parsed).await?.ok_or_else(|| not_found("job", &id))
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Invalid, web::codes::INVALID_REQUEST, detail)
}

fn invalid_recipe(violations: Vec<recipe::Violation>) -> Problem {
    let details: Vec<_> = violations
        .into_iter()
        .map(|violation| Detail {
            path: violation.path,
            field: violation.field,
            code: violation.code.to_owned(),
            message: violation.message,
        })
        .collect();
    let detail = format!("the recipe has {} fault(s), the first: {}", details.len(), details[0].message);
    Problem::new(ErrorKind::Invalid, errors::VALIDATION, detail).detail_list(details)
}

/// Fixes a reference to a digest now, so that the machine gets what was meant when the job was posted.
async fn resolve(metal: &Metal, server: &Server, reference: &OciReference) -> Result<ArtifactRef, Problem> {
    let fault = |problem: String| {
        invalid("the recipe has a fault").detail_list(vec![Detail::at("/oci_url", "pattern", problem)])
    };
    let repository: RepositoryName =
        reference.repository.parse().map_err(|problem: oci_registry::InvalidName| fault(problem.to_string()))?;
    let selector: Selector =
        reference.reference().parse().map_err(|problem: oci_registry::InvalidSelector| fault(problem.to_string()))?;
    let missing = || {
        let detail = format!("there is no artifact {reference}");
        Problem::new(ErrorKind::Invalid, errors::ARTIFACT_MISSING, detail)
            .hint("push it first: cairn metal artifact push; list what is there: cairn metal artifact list")
    };
    let requested = reference.to_string();
    if let Some(host) = &reference.registry
        && !is_own(metal, server, host)
    {
        let scheme = if reference.scheme.as_deref() == Some("http") { "http" } else { "https" };
        let found = resolve_elsewhere(metal, &format!("{scheme}://{host}"), &repository, &selector).await?;
        let (base, digest) = found.ok_or_else(missing)?;
        return Ok(ArtifactRef { registry: Some(base), repository: repository.to_string(), digest, requested });
    }
    let Some(registry) = &metal.registry else {
        return Err(missing().hint("this controller serves no registry (ENABLE_REGISTRY=false)"));
    };
    let found = registry.resolve(&repository, &selector).await.map_err(|error| Problem::internal(&error))?;
    let digest = found.ok_or_else(missing)?.digest.to_string();
    Ok(ArtifactRef { registry: None, repository: repository.to_string(), digest, requested })
}

/// Whether a host in a reference is this controller, by any of the addresses that it is known under.
fn is_own(metal: &Metal, server: &Server, host: &str) -> bool {
    [metal.media_url(server), metal.callback_url(server), metal.urls.media.clone(), metal.urls.callback.clone()]
        .iter()
        .any(|url| host_of(url) == host)
}

async fn resolve_elsewhere(
    metal: &Metal,
    registry: &str,
    repository: &RepositoryName,
    selector: &Selector,
) -> Result<Option<(Url, String)>, Problem> {
    let unreachable = |problem: String| {
        let detail = format!("registry {registry} does not answer: {problem}");
        Problem::new(ErrorKind::Unreachable, errors::REGISTRY_UNREACHABLE, detail).hint(
            "a certificate of an authority of one's own is recorded with: cairn metal registry add HOST --ca FILE",
        )
    };
    let base = Url::parse(registry).map_err(|problem| unreachable(chain(&problem)))?;
    let record = metal.store.pull_registry(&host_of(&base)).await?;
    let client = pull_registry::client(metal, &base, record.as_ref()).map_err(unreachable)?;
    match client.resolve(repository, selector).await {
        Ok(found) => Ok(Some((base, found.digest.to_string()))),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) if error.is_login() => {
            let detail = format!("registry {registry} does not let this controller pull: {}", chain(&error));
            Err(Problem::new(ErrorKind::Invalid, errors::REGISTRY_LOGIN, detail)
                .hint("say who pulls there: cairn metal registry add HOST --pull-user USER --pull-password-file FILE; an account is used over https only"))
        }
        Err(error) => Err(unreachable(chain(&error))),
    }
}
