//! `…/blobs/uploads/…`: sessions, chunks, mounts.

use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::TryStreamExt as _;
use uuid::Uuid;

use super::access::Action;
use super::body::{RequestBody, announced};
use super::call::Call;
use super::error::{Code, Failure};
use super::inflight::InFlight;
use super::observer::EventAction;
use super::range;
use super::timed;
use super::{DOCKER_CONTENT_DIGEST, DOCKER_UPLOAD_UUID};
use crate::storage::{StorageError, Upload};
use crate::{Algorithm, Digest, InvalidDigest, RepositoryName};

/// `POST`: a mount, a whole blob in one request, or a session.
pub(super) async fn start(
    call: &Call,
    repository: &RepositoryName,
    body: &mut RequestBody,
) -> Result<Response, Failure> {
    if call.method != Method::POST {
        return Err(Failure::method_not_allowed("POST"));
    }
    if let Some(response) = mount(call, repository).await? {
        return Ok(response);
    }
    let digest = call.parameter("digest").map(parse_digest).transpose()?;
    if digest.is_some() {
        announced_fits(call, 0)?;
    }
    let algorithm = match &digest {
        Some(digest) => digest.algorithm(),
        None => algorithm(call)?,
    };
    let upload = call.registry.storage.start_upload(repository, algorithm).await?;
    let Some(digest) = digest else {
        return Ok((StatusCode::ACCEPTED, progress(repository, upload.id(), 0)).into_response());
    };
    // The client has no name for this session, so nothing of it may stay when it fails.
    let (storage, id) = (call.registry.storage.clone(), upload.id());
    let result = receive_and_finish(call, repository, upload, body, &digest).await;
    if result.is_err()
        && let Ok(rest) = storage.upload(repository, id).await
    {
        rest.cancel().await?;
    }
    result
}

/// What the session's digest will be of, as far as the client says.
fn algorithm(call: &Call) -> Result<Algorithm, Failure> {
    let named = call.parameter("digest-algorithm");
    // A mount that came to nothing goes on as an upload of the same content.
    let mounted = call.parameter("mount").and_then(|digest| digest.split(':').next());
    named.or(mounted).map_or(Ok(Algorithm::Sha256), |name| name.parse().map_err(invalid_digest))
}

/// Answers a mount of what the client may read elsewhere; `None` where an ordinary session has to do.
async fn mount(call: &Call, repository: &RepositoryName) -> Result<Option<Response>, Failure> {
    let Some(digest) = call.parameter("mount") else { return Ok(None) };
    let digest = parse_digest(digest)?;
    let sources = match call.parameter("from") {
        Some(from) => from.parse::<RepositoryName>().into_iter().collect(),
        None => call.registry.storage.holders(&digest).await?,
    };
    for from in sources {
        if !call.may(&from, Action::Pull).await {
            continue;
        }
        if let Some(size) = call.registry.storage.mount(repository, &from, &digest).await? {
            tracing::info!(user = call.user, %repository, %from, %digest, size, "blob mounted");
            call.event(EventAction::MountBlob, repository, Some(from.as_str()), Some(&digest), Some(size));
            return Ok(Some(created(repository, &digest)));
        }
    }
    Ok(None)
}

/// `GET`, `PATCH`, `PUT` and `DELETE` of a session.
pub(super) async fn proceed(
    call: &Call,
    repository: &RepositoryName,
    id: Uuid,
    body: &mut RequestBody,
) -> Result<Response, Failure> {
    let storage = &call.registry.storage;
    match call.method {
        Method::GET | Method::HEAD => {
            let look = async {
                let offset = storage.upload_offset(repository, id).await?;
                Ok((StatusCode::NO_CONTENT, progress(repository, id, offset)).into_response())
            };
            timed::looked(call.longest(), look).await
        }
        Method::PATCH => {
            let upload = storage.upload(repository, id).await?;
            let offset = receive(call, repository, &upload, body).await?;
            Ok((StatusCode::ACCEPTED, progress(repository, id, offset)).into_response())
        }
        Method::PUT => {
            let digest =
                call.parameter("digest").ok_or_else(|| Failure::new(Code::DigestInvalid, "the digest is missing"))?;
            let digest = parse_digest(digest)?;
            let upload = storage.upload(repository, id).await?;
            receive_and_finish(call, repository, upload, body, &digest).await
        }
        Method::DELETE => {
            storage.upload(repository, id).await?.cancel().await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(Failure::method_not_allowed("GET, HEAD, PATCH, PUT, DELETE")),
    }
}

async fn receive_and_finish(
    call: &Call,
    repository: &RepositoryName,
    upload: Upload,
    body: &mut RequestBody,
    digest: &Digest,
) -> Result<Response, Failure> {
    receive(call, repository, &upload, body).await?;
    let size = upload.finish(digest).await?;
    tracing::info!(user = call.user, %repository, %digest, size, "blob stored");
    call.event(EventAction::PushBlob, repository, None, Some(digest), Some(size));
    Ok(created(repository, digest))
}

/// Appends the body and returns the new offset. A chunk that says where it belongs must belong at the end.
async fn receive(
    call: &Call,
    repository: &RepositoryName,
    upload: &Upload,
    body: &mut RequestBody,
) -> Result<u64, Failure> {
    let at = upload.offset().await?;
    let mut announced = announced_fits(call, at)?;
    if let Some(text) = call.header(header::CONTENT_RANGE) {
        let out_of_order = |failure: Failure| failure.with_header(header::RANGE, received(at));
        let (first, last) = range::chunk(text).ok_or_else(|| {
            out_of_order(Failure::new(Code::BlobUploadInvalid, "Content-Range is not <first>-<last>").with_status(416))
        })?;
        if first != at {
            return Err(out_of_order(StorageError::UploadOffset { at, from: first }.into()));
        }
        let length = (last - first).saturating_add(1);
        if announced.is_some_and(|announced| announced != length) {
            return Err(Failure::new(Code::SizeInvalid, "Content-Range and Content-Length disagree"));
        }
        announced = Some(length);
    }
    // What only ends a session has no bytes to wait with.
    let in_flight = if body.is_empty { None } else { Some(turn(call, repository, upload).await?) };
    let pieces = body.pieces().inspect_ok(|piece| {
        if let Some(in_flight) = &in_flight {
            in_flight.received(piece.len() as u64);
        }
    });
    upload.append(pieces, announced).await.map_err(|error| {
        let interrupted = matches!(error, StorageError::Interrupted(_));
        tracing::info!(user = call.user, %repository, upload = %upload.id(), interrupted, "upload not received in full");
        error.into()
    })
}

/// Waits for its turn among the uploads, for as long as a client may be silent.
async fn turn(call: &Call, repository: &RepositoryName, upload: &Upload) -> Result<InFlight, Failure> {
    let (uploads, options) = (&call.registry.uploads, &call.registry.options);
    let Some(turn) = uploads.turn(options.read_timeout).await else {
        let seconds = options.read_timeout.as_secs().max(1).to_string();
        let failure = Failure::new(Code::TooManyRequests, "more uploads than this registry takes at a time");
        return Err(failure.with_header(header::RETRY_AFTER, seconds));
    };
    let observer = std::sync::Arc::clone(&options.observer);
    Ok(uploads.begin(turn, observer, repository, upload.id(), &call.user))
}

/// The body's length where the client says it, refused at once when the blob would be too large.
fn announced_fits(call: &Call, at: u64) -> Result<Option<u64>, Failure> {
    let limit = call.registry.storage.limits().max_blob_size;
    match announced(&call.headers) {
        Some(length) if at.saturating_add(length) > limit => Err(StorageError::TooLarge { limit }.into()),
        announced => Ok(announced),
    }
}

fn parse_digest(text: &str) -> Result<Digest, Failure> {
    text.parse::<Digest>().map_err(invalid_digest)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn invalid_digest(error: InvalidDigest) -> Failure {
    Failure::new(Code::DigestInvalid, error.to_string())
}

/// Headers that say where a session is and how far it has come.
fn progress(repository: &RepositoryName, id: Uuid, offset: u64) -> [(HeaderName, String); 3] {
    [
        (header::LOCATION, format!("/v2/{repository}/blobs/uploads/{id}")),
        (header::RANGE, received(offset)),
        (DOCKER_UPLOAD_UUID, id.to_string()),
    ]
}

/// `0-<last byte>`; nothing received is `0-0` too, for the form knows no empty range.
fn received(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

fn created(repository: &RepositoryName, digest: &Digest) -> Response {
    let headers =
        [(header::LOCATION, format!("/v2/{repository}/blobs/{digest}")), (DOCKER_CONTENT_DIGEST, digest.to_string())];
    (StatusCode::CREATED, headers).into_response()
}
