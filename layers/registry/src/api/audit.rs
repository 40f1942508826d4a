//! `/api/v1/registry/audit`: who did what, newest first.

use axum::extract::State;
use cairn_core::ErrorKind;
use serde::Deserialize;
use web::{Json, Problem, Query};

use super::Shared;
use crate::model::AuditPage;
use crate::store::AuditFilter;

/// Entries of a page: unless said otherwise, and at most.
const PAGE: (u32, u32) = (100, 1000);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    limit: Option<u32>,
    cursor: Option<String>,
    repository: Option<String>,
    user: Option<String>,
}

pub(super) async fn list(State(service): Shared, Query(query): Query<AuditQuery>) -> Result<Json<AuditPage>, Problem> {
    let limit = query.limit.unwrap_or(PAGE.0).clamp(1, PAGE.1);
    let before = query.cursor.map(|cursor| {
        cursor.parse::<i64>().map_err(|_| {
            Problem::new(ErrorKind::Invalid, web::codes::INVALID_REQUEST, "cursor is not one that this list gave")
        })
    });
    let filter = AuditFilter { before: before.transpose()?, repository: query.repository, user: query.user };
    let mut rows = service.store.audit(&filter, limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| more).map(|(id, _)| id.to_string());
    Ok(Json(AuditPage { entries: rows.into_iter().map(|(_, entry)| entry).collect(), next_cursor }))
}
