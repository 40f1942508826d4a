//! `/api/v1/registry`: how the registry is doing, what takes room, and the switch for pushes and deletes.

use axum::extract::State;
use cairn_core::ErrorKind;
use oci_registry::server::Saturation;
use serde::Deserialize;
use web::{Json, Problem, Query};

use super::{Shared, storage};
use crate::access::Scheme;
use crate::audit::By;
use crate::errors;
use crate::model::{DiskView, ReadOnlyView, SaturationView, StatusView, UploadView, UsageReport};
use crate::service::Service;
use crate::work;

pub(super) async fn show(State(service): Shared) -> Result<Json<StatusView>, Problem> {
    let registry = service.registry();
    let uploads = registry.uploads().into_iter().map(|upload| UploadView {
        repository: upload.repository.to_string(),
        id: upload.id.to_string(),
        user: upload.user,
        bytes: upload.bytes,
        seconds: upload.begun.elapsed().as_secs(),
    });
    let login = match service.gate.scheme {
        Scheme::Open => "open",
        Scheme::Basic => "basic",
        Scheme::Bearer => "token",
    };
    Ok(Json(StatusView {
        usage: work::usage(registry.storage()).await.map_err(|error| storage(&error))?,
        disk: disk(&service).await?,
        read_only: registry.is_read_only(),
        login: login.to_owned(),
        uploads: uploads.collect(),
        saturation: saturation(&service).await,
        running: service.turns.running().map(|kind| kind.as_str().to_owned()),
        last_runs: service.store.last_runs().await?,
    }))
}

async fn disk(service: &Service) -> Result<DiskView, Problem> {
    let path = service.settings.storage.clone();
    let space = tokio::task::spawn_blocking(move || host::space(&path)).await;
    let space = space.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    Ok(DiskView { free: space.available, total: space.total, min_free: service.min_free })
}

async fn saturation(service: &Service) -> Option<SaturationView> {
    let (reason, detail) = match service.saturation().await? {
        Saturation::NearlyFull { free, min_free } => {
            ("nearly_full", format!("{free} bytes are free, {min_free} are kept free"))
        }
        Saturation::UploadsWaiting { count } => ("uploads_waiting", format!("{count} uploads wait for their turn")),
        Saturation::SlowWrites { latency } => {
            ("slow_writes", format!("the disk takes {} ms for half a mebibyte", latency.as_millis()))
        }
    };
    Some(SaturationView { reason: reason.to_owned(), detail })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageQuery {
    largest: Option<usize>,
}

/// Most blobs that are told of.
const MOST: usize = 1000;

pub(super) async fn usage(
    State(service): Shared,
    Query(query): Query<UsageQuery>,
) -> Result<Json<UsageReport>, Problem> {
    let largest = query.largest.unwrap_or(10).min(MOST);
    let report = work::usage_report(service.registry().storage(), largest).await;
    report.map(Json).map_err(|error| storage(&error))
}

pub(super) async fn read_only(State(service): Shared) -> Json<ReadOnlyView> {
    Json(ReadOnlyView { read_only: service.registry().is_read_only() })
}

pub(super) async fn set_read_only(
    State(service): Shared,
    by: By,
    Json(order): Json<ReadOnlyView>,
) -> Result<Json<ReadOnlyView>, Problem> {
    if !service.set_read_only(order.read_only).await? {
        let detail = "the settings say that the registry is read-only";
        return Err(Problem::new(ErrorKind::Conflict, errors::REGISTRY_READ_ONLY, detail)
            .hint("take REGISTRY_READ_ONLY away and start again"));
    }
    service.audit.ordered(&by, "read_only", Some(if order.read_only { "on" } else { "off" }));
    Ok(Json(order))
}
