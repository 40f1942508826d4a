//! `/media/…` and `/static/isos/…`: what BMCs fetch, in pieces and more than once.

use std::io::SeekFrom;
use std::path::{Path as FilePath, PathBuf};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header as names};
use axum::response::IntoResponse;
use cairn_core::ErrorKind;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use web::{Problem, Query};

use super::{Shared, header, not_found};
use crate::context::Metal;
use crate::errors;
use crate::media::{Medium, Piece, Range, Refused, Room, check, overlay, range};
use crate::model::{JobId, Status};
use crate::tokens::Match;

#[derive(Deserialize)]
pub(super) struct Signature {
    expires: Option<i64>,
    sig: Option<String>,
}

pub(super) async fn signed_by_query(
    State(metal): Shared,
    Path((job, file)): Path<(String, String)>,
    Query(signature): Query<Signature>,
    method: Method,
    headers: HeaderMap,
) -> Response<Body> {
    let proof = (signature.expires.unwrap_or(0), signature.sig.unwrap_or_default());
    counted(&metal, medium(&metal, &job, &file, proof, &method, &headers).await)
}

pub(super) async fn signed_by_path(
    State(metal): Shared,
    Path((expires, signature, job, file)): Path<(String, String, String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response<Body> {
    let proof = (expires.parse().unwrap_or(0), signature);
    counted(&metal, medium(&metal, &job, &file, proof, &method, &headers).await)
}

/// Images without secrets of a job, for anyone: the maintenance ISO, vendors' installers.
pub(super) async fn static_iso(
    State(metal): Shared,
    Path(file): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response<Body> {
    let answer = async {
        let plain = file.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if !plain || file.starts_with('.') {
            return Err(not_found("file", &file));
        }
        let path = metal.settings.static_dir.join("isos").join(&file);
        // Looked at before it is opened: opening a pipe would wait for somebody to write into it.
        let metadata = tokio::fs::metadata(&path).await.map_err(|_| not_found("file", &file))?;
        if !metadata.is_file() {
            return Err(not_found("file", &file));
        }
        let mut source = open(&path, &file).await?;
        let changed = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let etag = format!("\"{:x}-{:x}\"", changed.unwrap_or_default().as_nanos(), metadata.len());
        let answer = Answer { total: metadata.len(), etag, cache: "public, max-age=0, must-revalidate" };
        answer
            .respond(&method, &headers, async |first, length| {
                source.seek(SeekFrom::Start(first)).await?;
                Ok(stream(source, length))
            })
            .await
    };
    counted(&metal, answer.await)
}

async fn medium(
    metal: &Metal,
    job: &str,
    file: &str,
    (expires, signature): (i64, String),
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    let missing = || not_found("medium", &format!("{job}/{file}"));
    let medium = Medium::of_file_name(file).ok_or_else(missing)?;
    let id: JobId = job.parse().map_err(|_| missing())?;
    let job = metal.store.job(id).await?.ok_or_else(missing)?;
    let iso = job.task_iso.ok_or_else(missing)?;
    if job.status == Status::Complete {
        return Err(forbidden(metal, id, Refused::Expired));
    }
    match check(&metal.signing, id, medium, &iso, expires, &signature, metal.clock.now()) {
        Ok(Match::Current) => {}
        Ok(Match::Old) => tracing::info!(job_id = %id, "a medium was fetched with the secret before the rotation"),
        Err(refused) => return Err(forbidden(metal, id, refused)),
    }
    let task = PathBuf::from(&iso.path);
    match medium {
        Medium::Task => {
            let mut source = open(&task, file).await?;
            let answer = Answer {
                total: iso.size_bytes,
                etag: format!("\"sha256:{}\"", iso.sha256),
                cache: "private, max-age=60",
            };
            answer
                .respond(method, headers, async |first, length| {
                    source.seek(SeekFrom::Start(first)).await?;
                    Ok(stream(source, length))
                })
                .await
        }
        Medium::Maintenance => {
            let mut source = open(&task.with_file_name("maintenance.iso"), file).await?;
            let total = source.metadata().await.map_err(|error| Problem::internal(&error))?.len();
            // Its bytes stay as long as the job keeps its name for them.
            Answer { total, etag: format!("\"{id}-{total:x}\""), cache: "private, max-age=60" }
                .respond(method, headers, async |first, length| {
                    source.seek(SeekFrom::Start(first)).await?;
                    Ok(stream(source, length))
                })
                .await
        }
        Medium::Boot => {
            let maintenance = task.with_file_name("maintenance.iso");
            open(&task, file).await?;
            let (room, total) = room(&maintenance, file).await?;
            let etag = format!("\"sha256:{}+{total:x}-{:x}\"", iso.sha256, room.offset);
            Answer { total, etag, cache: "private, max-age=60" }
                .respond(method, headers, async |first, length| {
                    laid_over(&maintenance, &task, overlay(total, room, iso.size_bytes, first, length)).await
                })
                .await
        }
    }
}

/// The reserved room of a maintenance ISO, and the ISO's size.
async fn room(path: &FilePath, file: &str) -> Result<(Room, u64), Problem> {
    let total = open(path, file).await?.metadata().await.map_err(|error| Problem::internal(&error))?.len();
    let path = path.to_owned();
    let found = tokio::task::spawn_blocking(move || crate::task_iso::room(&path)).await;
    match found {
        Ok(Ok(room)) => Ok((room, total)),
        Ok(Err(error)) => Err(Problem::internal(&error)),
        Err(error) => Err(Problem::internal(&error)),
    }
}

/// Size and name of what is asked for.
struct Answer {
    total: u64,
    etag: String,
    cache: &'static str,
}

impl Answer {
    async fn respond<S>(
        self,
        method: &Method,
        headers: &HeaderMap,
        open: impl AsyncFnOnce(u64, u64) -> std::io::Result<S>,
    ) -> Result<Response<Body>, Problem>
    where
        S: Stream<Item = std::io::Result<axum::body::Bytes>> + Send + 'static,
    {
        let mut response = Response::builder()
            .header(names::ETAG, &self.etag)
            .header(names::ACCEPT_RANGES, "bytes")
            .header(names::CACHE_CONTROL, self.cache)
            .header(names::CONTENT_TYPE, "application/x-iso9660-image");
        if header(headers, "if-none-match").is_some_and(|given| given.split(',').any(|tag| tag.trim() == self.etag)) {
            return finish(response.status(StatusCode::NOT_MODIFIED), Body::empty());
        }
        let unchanged = header(headers, "if-range").is_none_or(|given| given == self.etag);
        let asked = header(headers, "range").filter(|_| unchanged);
        let (first, length) = match range(asked, self.total) {
            Range::Whole => (0, self.total),
            Range::Part { first, last } => {
                response = response
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header(names::CONTENT_RANGE, format!("bytes {first}-{last}/{}", self.total));
                (first, last - first + 1)
            }
            Range::Unsatisfiable => {
                let whole = HeaderValue::from_str(&format!("bytes */{}", self.total)).ok();
                let response = response.status(StatusCode::RANGE_NOT_SATISFIABLE);
                let response = match whole {
                    Some(whole) => response.header(names::CONTENT_RANGE, whole),
                    None => response,
                };
                return finish(response, Body::empty());
            }
        };
        response = response.header(names::CONTENT_LENGTH, length);
        if method == Method::HEAD {
            return finish(response, Body::empty());
        }
        let bytes = open(first, length).await.map_err(|error| Problem::internal(&error))?;
        finish(response, Body::from_stream(bytes))
    }
}

fn finish(response: axum::http::response::Builder, body: Body) -> Result<Response<Body>, Problem> {
    response.body(body).map_err(|error| Problem::internal(&error))
}

const CHUNK: usize = 256 * 1024;

fn stream(file: File, length: u64) -> impl Stream<Item = std::io::Result<axum::body::Bytes>> + Send + 'static {
    ReaderStream::with_capacity(file.take(length), CHUNK)
}

async fn laid_over(
    maintenance: &FilePath,
    task: &FilePath,
    pieces: Vec<Piece>,
) -> std::io::Result<impl Stream<Item = std::io::Result<axum::body::Bytes>> + Send + use<>> {
    let mut streams = Vec::with_capacity(pieces.len());
    for piece in pieces {
        // Opened now and not when its turn comes: what is promised must be there.
        let mut file = File::open(if piece.from_task { task } else { maintenance }).await?;
        file.seek(SeekFrom::Start(piece.offset)).await?;
        streams.push(stream(file, piece.length));
    }
    Ok(futures::stream::iter(streams).map(Ok::<_, std::io::Error>).try_flatten())
}

async fn open(path: &FilePath, name: &str) -> Result<File, Problem> {
    match File::open(path).await {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(not_found("file", &name)),
        Err(error) => Err(Problem::internal(&error)),
    }
}

fn forbidden(metal: &Metal, job: JobId, refused: Refused) -> Problem {
    metal.metrics.media_refused.inc();
    let (code, detail) = match refused {
        Refused::Tampered => (errors::MEDIA_URL_TAMPERED, "the signature of this URL is missing or wrong"),
        Refused::Expired => (errors::MEDIA_URL_EXPIRED, "this URL has expired"),
    };
    tracing::warn!(job_id = %job, code, "a medium was refused");
    Problem::new(ErrorKind::Forbidden, code, detail)
}

fn counted(metal: &Metal, answer: Result<Response<Body>, Problem>) -> Response<Body> {
    let response = answer.unwrap_or_else(IntoResponse::into_response);
    metal.metrics.media_requests.with([response.status().as_str()]).inc();
    response
}
