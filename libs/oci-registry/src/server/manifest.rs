//! `…/manifests/<tag or digest>`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::body::{RequestBody, announced};
use super::call::{Call, names};
use super::error::{Code, Failure};
use super::observer::EventAction;
use super::timed;
use super::{DOCKER_CONTENT_DIGEST, OCI_SUBJECT, OCI_TAG, etag};
use crate::storage::{Precondition, StorageError, Stored};
use crate::{RepositoryName, Selector, Tag};

/// Most tags that one request may set.
const MOST_TAGS: usize = 100;

pub(super) async fn answer(
    call: &Arc<Call>,
    repository: &RepositoryName,
    selector: Result<Selector, Failure>,
    body: &mut RequestBody,
) -> Result<Response, Failure> {
    match call.method {
        // What cannot be the name of a manifest names none.
        Method::GET | Method::HEAD => match selector {
            Ok(selector) => timed::looked(call.longest(), read(call, repository, &selector)).await,
            Err(_) => Err(unknown()),
        },
        Method::PUT => put(call, repository, selector?, body).await,
        Method::DELETE => {
            let (longest, call, repository, selector) =
                (call.longest(), Arc::clone(call), repository.clone(), selector?);
            timed::changed(longest, async move { delete(&call, &repository, &selector).await }).await
        }
        _ => Err(Failure::method_not_allowed("GET, HEAD, PUT, DELETE")),
    }
}

fn unknown() -> Failure {
    Failure::new(Code::ManifestUnknown, "manifest unknown to registry")
}

async fn read(call: &Call, repository: &RepositoryName, selector: &Selector) -> Result<Response, Failure> {
    let (descriptor, bytes) = call.registry.storage.manifest(repository, selector).await?.ok_or_else(unknown)?;
    let etag = etag(&descriptor.digest);
    let headers = [(DOCKER_CONTENT_DIGEST, descriptor.digest.to_string()), (header::ETAG, etag.clone())];
    if call.has_current(&etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let length = bytes.len();
    let body = if call.method == Method::HEAD {
        Body::empty()
    } else {
        let reference = selector.to_string();
        let (digest, size) = (&descriptor.digest, descriptor.size);
        call.event(EventAction::PullManifest, repository, Some(&reference), Some(digest), Some(size));
        Body::from(bytes)
    };
    let mut response = (headers, body).into_response();
    let media_type =
        HeaderValue::from_str(&descriptor.media_type).map_err(|_| Failure::new(Code::Internal, "media type"))?;
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

async fn put(
    call: &Arc<Call>,
    repository: &RepositoryName,
    selector: Selector,
    body: &mut RequestBody,
) -> Result<Response, Failure> {
    let limit = call.registry.storage.limits().max_manifest_size;
    if announced(&call.headers).is_some_and(|length| length > limit) {
        return Err(StorageError::TooLarge { limit }.into());
    }
    let tags = tags(call)?;
    let bytes = body.whole(limit).await.map_err(|error| Failure::from(error).of_manifest())?;
    let media_type = media_type(call, &bytes)?;
    let (longest, call, repository) = (call.longest(), Arc::clone(call), repository.clone());
    let store = async move {
        let (storage, condition) = (&call.registry.storage, precondition(&call));
        let stored = storage.put_manifest_if(&repository, &selector, &tags, &media_type, bytes, condition).await?;
        Ok(answer_stored(&call, &repository, &selector, &tags, &stored))
    };
    timed::changed(longest, store).await
}

/// The tags of `?tag=` parameters (distribution-spec 1.1, end-7b).
fn tags(call: &Call) -> Result<Vec<Tag>, Failure> {
    let invalid = |error: crate::InvalidTag| Failure::new(Code::ManifestInvalid, error.to_string());
    let tags: Vec<Tag> = call.parameters("tag").map(|tag| tag.parse().map_err(invalid)).collect::<Result<_, _>>()?;
    if tags.len() > MOST_TAGS {
        return Err(Failure::new(Code::SizeInvalid, format!("more than {MOST_TAGS} tags")).with_status(414));
    }
    Ok(tags)
}

fn answer_stored(
    call: &Call,
    repository: &RepositoryName,
    selector: &Selector,
    tags: &[Tag],
    stored: &Stored,
) -> Response {
    let (digest, size, user) = (&stored.descriptor.digest, stored.descriptor.size, &call.user);
    for reference in std::iter::once(selector.to_string()).chain(tags.iter().map(ToString::to_string)) {
        tracing::info!(user, %repository, reference, %digest, size, "manifest stored");
        call.event(EventAction::PushManifest, repository, Some(&reference), Some(digest), Some(size));
    }
    for (tag, before) in &stored.retagged {
        tracing::info!(user, %repository, %tag, %before, now = %digest, "tag moved");
    }
    let headers = [
        (header::LOCATION, format!("/v2/{repository}/manifests/{digest}")),
        (header::ETAG, etag(digest)),
        (DOCKER_CONTENT_DIGEST, digest.to_string()),
    ];
    let mut response = (StatusCode::CREATED, headers).into_response();
    let subject = stored.subject.iter().map(|subject| (OCI_SUBJECT, subject.to_string()));
    for (name, value) in subject.chain(tags.iter().map(|tag| (OCI_TAG, tag.to_string()))) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// What the client says it has seen (RFC 9110, 13.1): a list of referrers under a tag may be changed by several.
fn precondition(call: &Call) -> Precondition {
    let (matching, none) = (call.header(header::IF_MATCH), call.header(header::IF_NONE_MATCH));
    let (matching, none) = (matching.map(str::to_owned), none.map(str::to_owned));
    Precondition::new(move |now| {
        let named = |list: &String| now.is_some_and(|digest| names(list, &etag(digest)));
        matching.as_ref().is_none_or(named) && !none.as_ref().is_some_and(named)
    })
}

/// The media type as sent, without parameters; where none is sent, as the manifest calls itself.
fn media_type(call: &Call, bytes: &[u8]) -> Result<String, Failure> {
    if let Some(sent) = call.header(header::CONTENT_TYPE) {
        let (essence, _) = sent.split_once(';').unwrap_or((sent, ""));
        return Ok(essence.trim().to_ascii_lowercase());
    }
    let json: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| StorageError::ManifestInvalid(error.to_string()))?;
    let declared = json["mediaType"].as_str().map(str::to_owned);
    declared.ok_or_else(|| Failure::new(Code::ManifestInvalid, "neither Content-Type nor mediaType says what this is"))
}

async fn delete(call: &Call, repository: &RepositoryName, selector: &Selector) -> Result<Response, Failure> {
    if !call.registry.storage.delete_manifest(repository, selector).await? {
        return Err(unknown());
    }
    let reference = selector.to_string();
    tracing::info!(user = call.user, %repository, reference, "manifest or tag removed");
    match selector {
        Selector::Tag(_) => call.event(EventAction::DeleteTag, repository, Some(&reference), None, None),
        Selector::Digest(digest) => {
            call.event(EventAction::DeleteManifest, repository, Some(&reference), Some(digest), None);
        }
    }
    Ok(StatusCode::ACCEPTED.into_response())
}
