//! `POST /api/v1/registry/{gc,restore,retention,check}`: work on the whole registry. An answer comes when it is done; a
//! client that goes away does not end it, and `GET /api/v1/registry` has the report too.

use axum::extract::State;
use serde_json::Value;
use web::{Json, Problem};

use super::Shared;
use crate::audit::By;
use crate::model::{CheckOrder, DryRun, RestoreOrder};

pub(super) async fn collect(State(service): Shared, by: By, Json(order): Json<DryRun>) -> Result<Json<Value>, Problem> {
    service.collect(by, order.dry_run).await.map(Json).map_err(|error| error.problem())
}

pub(super) async fn restore(
    State(service): Shared,
    by: By,
    Json(order): Json<RestoreOrder>,
) -> Result<Json<Value>, Problem> {
    service.restore(by, order.run).await.map(Json).map_err(|error| error.problem())
}

pub(super) async fn retention(
    State(service): Shared,
    by: By,
    Json(order): Json<DryRun>,
) -> Result<Json<Value>, Problem> {
    service.retain(by, order.dry_run).await.map(Json).map_err(|error| error.problem())
}

pub(super) async fn check(
    State(service): Shared,
    by: By,
    Json(order): Json<CheckOrder>,
) -> Result<Json<Value>, Problem> {
    service.check(by, order.repair).await.map(Json).map_err(|error| error.problem())
}
