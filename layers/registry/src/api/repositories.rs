//! `/api/v1/registry/repositories`: what is there, by name.

use axum::extract::State;
use serde::Deserialize;
use web::{Json, Problem, Query};

use super::{Shared, storage};
use crate::model::RepositoryList;
use crate::work::{self, RepositoryFilter};

/// Repositories of a page: unless said otherwise, and at most.
const PAGE: (usize, usize) = (100, 1000);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RepositoryQuery {
    limit: Option<usize>,
    cursor: Option<String>,
    prefix: Option<String>,
}

pub(super) async fn list(
    State(service): Shared,
    Query(query): Query<RepositoryQuery>,
) -> Result<Json<RepositoryList>, Problem> {
    let filter = RepositoryFilter {
        prefix: query.prefix,
        after: query.cursor,
        most: query.limit.unwrap_or(PAGE.0).clamp(1, PAGE.1),
    };
    work::repositories(service.registry().storage(), &filter).await.map(Json).map_err(|error| storage(&error))
}
