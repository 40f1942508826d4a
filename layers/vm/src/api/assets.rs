//! `/v1/assets`: kernels, initial file systems and disks of this host, by name.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use cairn_core::ErrorKind;
use futures::{Stream, StreamExt as _};
use serde_json::{Value, json};
use web::{Json, Problem};

use super::query::Pairs;
use super::{Shared, invalid};
use crate::model::{Asset, AssetKind, AssetName};

/// Largest asset, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit(pub(super) u64);

impl Limit {
    fn problem(self) -> Problem {
        let detail = format!("an asset has at most {} bytes", self.0);
        Problem::new(ErrorKind::Invalid, web::codes::BODY_TOO_LARGE, detail).status(413)
    }
}

pub(super) async fn list(State(api): Shared) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "assets": api.service.assets().await? })))
}

pub(super) async fn add(
    State(api): Shared,
    Extension(limit): Extension<Limit>,
    Path(name): Path<String>,
    query: Pairs,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Asset>), Problem> {
    query.only(&["kind"])?;
    let name = asset_name(&name)?;
    let kind: AssetKind =
        query.one("kind")?.ok_or_else(|| invalid("kind: is it a kernel, an initrd or a disk? Add ?kind=…"))?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit.0) {
        return Err(limit.problem());
    }
    let read = Arc::new(AtomicU64::new(0));
    let content = limited(body, limit, Arc::clone(&read));
    match api.service.add_asset(name, kind, content).await {
        Ok(asset) => Ok((StatusCode::CREATED, Json(asset))),
        Err(_) if read.load(Ordering::Relaxed) > limit.0 => Err(limit.problem()),
        Err(error) => Err(error.problem()),
    }
}

/// The body, which fails as soon as it is longer than it may be.
fn limited(body: Body, limit: Limit, read: Arc<AtomicU64>) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin {
    body.into_data_stream().map(move |piece| {
        let piece = piece.map_err(io::Error::other)?;
        let length = piece.len() as u64;
        if read.fetch_add(length, Ordering::Relaxed) + length > limit.0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(piece)
    })
}

pub(super) async fn remove(State(api): Shared, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    api.service.remove_asset(&asset_name(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/assets/gc`.
pub(super) async fn collect(
    State(api): Shared,
    Path(name): Path<String>,
    query: Pairs,
) -> Result<Json<Value>, Problem> {
    if name != "gc" {
        let detail = "an asset is added with PUT; POST is for /v1/assets/gc";
        return Err(Problem::new(ErrorKind::Invalid, web::codes::METHOD_NOT_ALLOWED, detail).status(405));
    }
    query.only(&["dry_run"])?;
    let dry_run = query.switch("dry_run")?;
    let removed = api.service.collect_assets(dry_run).await?;
    let removed: Vec<Value> =
        removed.into_iter().map(|(sha256, size)| json!({ "sha256": sha256, "size": size })).collect();
    Ok(Json(json!({ "dry_run": dry_run, "removed": removed })))
}

fn asset_name(text: &str) -> Result<AssetName, Problem> {
    text.parse().map_err(|error: crate::model::InvalidName| invalid(error.to_string()))
}
