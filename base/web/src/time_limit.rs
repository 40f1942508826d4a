//! A limit for requests whose answers are short. Streams of bytes have none: a large blob takes as long as it takes.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use cairn_core::ErrorKind;

use crate::{Problem, codes};

/// Answers 408 when a request, its body included, is not answered within `limit`: whoever sends a byte a minute does not
/// hold a connection for ever. What streams after the head of its answer is not limited.
pub fn limit_time<S>(limit: Duration, routes: Router<S>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes.route_layer(from_fn_with_state(limit, watch))
}

async fn watch(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("the request was not complete within {} s", limit.as_secs());
            Problem::new(ErrorKind::Invalid, codes::REQUEST_TIMEOUT, detail).status(408).into_response()
        }
    }
}
