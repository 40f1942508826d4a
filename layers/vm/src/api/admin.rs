//! `/admin/maintenance`: the guide's switch for changes, for whoever is on this machine.

use axum::extract::State;
use serde_json::{Value, json};
use web::{Json, Problem};

use super::{Api, Shared};

pub(super) async fn enable(State(api): Shared) -> Result<Json<Value>, Problem> {
    set(&api, true).await
}

pub(super) async fn disable(State(api): Shared) -> Result<Json<Value>, Problem> {
    set(&api, false).await
}

async fn set(api: &Api, on: bool) -> Result<Json<Value>, Problem> {
    api.service.set_maintenance(on).await?;
    api.metrics.maintenance.set(on.into());
    Ok(Json(json!({ "maintenance": on })))
}
