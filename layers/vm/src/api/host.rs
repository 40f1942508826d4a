//! `/v1/strays`, `/v1/network`, `/v1/doctor`: this host, for operators.

use axum::extract::{Path, State};
use serde_json::{Value, json};
use web::{Json, Problem};

use super::{Shared, vm_id};
use crate::service::Caller;

pub(super) async fn strays(State(api): Shared) -> Result<Json<Value>, Problem> {
    let strays = api.service.strays().await?;
    api.metrics.set_strays(strays.iter().map(|stray| stray.kind.as_str()));
    Ok(Json(json!({ "strays": strays })))
}

pub(super) async fn remove_strays(State(api): Shared) -> Result<Json<Value>, Problem> {
    let removed = api.service.remove_strays().await?;
    api.metrics.set_strays([]);
    Ok(Json(json!({ "removed": removed })))
}

pub(super) async fn network(State(api): Shared, caller: Caller) -> Result<Json<Value>, Problem> {
    Ok(Json(api.service.show_network(&caller, None).await?))
}

pub(super) async fn network_of_one(
    State(api): Shared,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(api.service.show_network(&caller, Some(&vm_id(&id)?)).await?))
}

pub(super) async fn doctor(State(api): Shared) -> Json<Value> {
    Json(json!({ "findings": api.service.doctor().await }))
}
