//! The registry over HTTP, and for callers in the same process.
//!
//! A request is parsed ([`route`]), asked of the access hook, and answered by the file of its endpoint. What happened is
//! told to the [`Observer`]. Bodies are streamed both ways, each within the times of [`Options`].

mod access;
mod blob;
mod body;
mod cached;
mod call;
mod catalog;
mod error;
mod inflight;
mod manifest;
mod observer;
mod options;
mod page;
mod range;
mod referrers;
mod registry;
mod route;
mod tags;
mod timed;
mod upload;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderName;
use axum::routing::any;

pub use access::{Access, Action, Anonymous, Asker, Decision};
pub use inflight::UploadInFlight;
pub use observer::{Event, EventAction, Observer, Unobserved};
pub use options::{FileBody, Options, ReadBody};
pub use registry::{Registry, Saturation};
pub use route::Route;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The routes `/v2` and below. Bodies are streamed without a limit of the framework's; those of [`Options`] hold
/// instead.
pub fn router(state: Arc<Registry>) -> Router {
    let serve = any(call::serve);
    Router::new().route("/v2", serve.clone()).route("/v2/", serve.clone()).route("/v2/{*path}", serve).with_state(state)
}

/// The `ETag` of content: its digest, quoted.
fn etag(digest: &crate::Digest) -> String {
    format!("\"{digest}\"")
}
