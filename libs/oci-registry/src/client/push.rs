//! Pushing.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::TryStreamExt as _;
use reqwest::{Body, Method, StatusCode, header};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use url::Url;

use super::login::Need;
use super::{Client, ClientError, shown, successful, text_header};
use crate::{Algorithm, Descriptor, Digest, Hasher, RepositoryName, Selector};

/// Bytes read in one go.
const READ_SIZE: usize = 512 << 10;

impl Client {
    /// Pushes a file as a blob, in bounded memory, unless the repository has it. A connection that breaks is resumed
    /// where the registry says it stands. The file is read twice: its digest comes first.
    ///
    /// # Errors
    /// The file cannot be read, or the registry refuses it.
    pub async fn push_blob(
        &self,
        repository: &RepositoryName,
        path: &Path,
        media_type: &str,
    ) -> Result<Descriptor, ClientError> {
        let (digest, size) = hash_file(path.to_owned()).await?;
        let descriptor = Descriptor::new(media_type, digest, size);
        if self.has_blob(repository, &descriptor.digest).await? {
            return Ok(descriptor);
        }
        let mut location = None;
        let mut failures = 0;
        loop {
            match self.push_once(repository, path, &descriptor, &mut location).await {
                Ok(()) => return Ok(descriptor),
                Err(error) if is_worth_resuming(&error) => {
                    failures += 1;
                    if let Err(error) = self.pause(failures, error).await {
                        self.give_up(repository, location).await;
                        return Err(error);
                    }
                }
                Err(error) => {
                    self.give_up(repository, location).await;
                    return Err(error);
                }
            }
            // The answer to the last request may have been lost after it was carried out.
            if matches!(self.has_blob(repository, &descriptor.digest).await, Ok(true)) {
                return Ok(descriptor);
            }
        }
    }

    /// Pushes what a reader gives as a blob, hashed on the way. Cannot be resumed, for a reader is read only once.
    /// `size` in bytes, where it is known.
    ///
    /// # Errors
    /// The reader fails, or the registry refuses the blob.
    pub async fn push_reader(
        &self,
        repository: &RepositoryName,
        reader: impl AsyncRead + Send + 'static,
        size: Option<u64>,
        media_type: &str,
    ) -> Result<Descriptor, ClientError> {
        let location = self.start_upload(repository).await?;
        let seen = Arc::new(Mutex::new((Algorithm::Sha256.hasher(), 0_u64)));
        let writer = Arc::clone(&seen);
        let body = ReaderStream::with_capacity(reader, READ_SIZE).inspect_ok(move |bytes| {
            let mut seen = writer.lock().unwrap_or_else(PoisonError::into_inner);
            seen.0.update(bytes);
            seen.1 += bytes.len() as u64;
        });
        match self.send_chunk(repository, &location, Body::wrap_stream(body), 0, size).await {
            Ok(location) => {
                let (hasher, size) = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let descriptor = Descriptor::new(media_type, hasher.finish(), size);
                self.finish_upload(repository, location, &descriptor.digest).await?;
                Ok(descriptor)
            }
            Err(error) => {
                self.give_up(repository, Some(location)).await;
                Err(error)
            }
        }
    }

    /// Pushes a small blob, for example the empty configuration `{}`, unless the repository has it.
    ///
    /// # Errors
    /// The registry refuses it.
    pub async fn push_bytes(
        &self,
        repository: &RepositoryName,
        bytes: Bytes,
        media_type: &str,
    ) -> Result<Descriptor, ClientError> {
        let descriptor = Descriptor::new(media_type, Digest::sha256_of(&bytes), bytes.len() as u64);
        if self.has_blob(repository, &descriptor.digest).await? {
            return Ok(descriptor);
        }
        self.patiently(|| self.push_bytes_once(repository, &descriptor.digest, &bytes)).await?;
        Ok(descriptor)
    }

    async fn push_bytes_once(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        bytes: &Bytes,
    ) -> Result<(), ClientError> {
        let mut location = self.start_upload(repository).await?;
        location.query_pairs_mut().append_pair("digest", &digest.to_string());
        let complete = |request: reqwest::RequestBuilder| {
            request.header(header::CONTENT_TYPE, "application/octet-stream").body(bytes.clone())
        };
        let response = self.send(Method::PUT, &location, repository, Need::Push, complete).await?;
        successful(response, &shown(&location)).await.map(drop)
    }

    /// Pushes a manifest under a tag or its digest. Everything it names must have been pushed before.
    ///
    /// # Errors
    /// The registry refuses it.
    pub async fn push_manifest(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Descriptor, ClientError> {
        let algorithm = match selector {
            Selector::Digest(expected) => expected.algorithm(),
            Selector::Tag(_) => Algorithm::Sha256,
        };
        let descriptor = Descriptor::new(media_type, Digest::of(algorithm, &bytes), bytes.len() as u64);
        let url = self.url(repository, &format!("manifests/{selector}"));
        let complete =
            |request: reqwest::RequestBuilder| request.header(header::CONTENT_TYPE, media_type).body(bytes.clone());
        self.patiently(|| async {
            let response = self.send(Method::PUT, &url, repository, Need::Push, complete).await?;
            successful(response, &shown(&url)).await
        })
        .await?;
        Ok(descriptor)
    }

    async fn push_once(
        &self,
        repository: &RepositoryName,
        path: &Path,
        descriptor: &Descriptor,
        session: &mut Option<Url>,
    ) -> Result<(), ClientError> {
        let (location, at) = self.position(repository, session.take()).await?;
        *session = Some(location.clone());
        let rest = descriptor.size.saturating_sub(at);
        let location = if rest > 0 {
            let read = |source| ClientError::Read { path: path.to_owned(), source };
            let mut file = tokio::fs::File::open(path).await.map_err(read)?;
            file.set_max_buf_size(READ_SIZE);
            file.seek(SeekFrom::Start(at)).await.map_err(read)?;
            let body = Body::wrap_stream(ReaderStream::with_capacity(file.take(rest), READ_SIZE));
            self.send_chunk(repository, &location, body, at, Some(rest)).await?
        } else {
            location
        };
        *session = Some(location.clone());
        self.finish_upload(repository, location, &descriptor.digest).await
    }

    /// Where to go on: the session as it stands, or a new one when there is none or it is lost.
    async fn position(&self, repository: &RepositoryName, session: Option<Url>) -> Result<(Url, u64), ClientError> {
        if let Some(url) = session {
            let response = self.send(Method::GET, &url, repository, Need::Push, |request| request).await?;
            if response.status().is_success() {
                let last = text_header(response.headers(), header::RANGE).and_then(|text| {
                    text.strip_prefix("bytes=").unwrap_or(text).strip_prefix("0-")?.parse::<u64>().ok()
                });
                let next = self.location(&url, response.headers()).unwrap_or_else(|_| url.clone());
                match last {
                    // "0-0" is written for one byte and for none: not worth telling apart.
                    Some(last) if last > 0 => return Ok((next, last + 1)),
                    _ => self.give_up(repository, Some(next)).await,
                }
            }
        }
        Ok((self.start_upload(repository).await?, 0))
    }

    async fn start_upload(&self, repository: &RepositoryName) -> Result<Url, ClientError> {
        let url = self.url(repository, "blobs/uploads/");
        let response = self
            .send(Method::POST, &url, repository, Need::Push, |request| request.header(header::CONTENT_LENGTH, 0))
            .await?;
        let response = successful(response, &shown(&url)).await?;
        self.location(&url, response.headers())
    }

    async fn send_chunk(
        &self,
        repository: &RepositoryName,
        location: &Url,
        body: Body,
        at: u64,
        length: Option<u64>,
    ) -> Result<Url, ClientError> {
        let mut request = self
            .request(Method::PATCH, location, repository, Need::Push)
            .header(header::CONTENT_TYPE, "application/octet-stream");
        if let Some(length) = length {
            request = request.header(header::CONTENT_LENGTH, length);
            if at > 0 {
                request = request.header(header::CONTENT_RANGE, format!("{at}-{}", at + length - 1));
            }
        }
        // The body can be sent only once, so a login in between is left to the next attempt.
        let response = self.send_once(request.body(body), location).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.is_registry(location) {
            self.log_in_again(&response, location, repository, Need::Push).await?;
        }
        let response = successful(response, &shown(location)).await?;
        self.location(location, response.headers())
    }

    async fn finish_upload(
        &self,
        repository: &RepositoryName,
        mut location: Url,
        digest: &Digest,
    ) -> Result<(), ClientError> {
        location.query_pairs_mut().append_pair("digest", &digest.to_string());
        let complete = |request: reqwest::RequestBuilder| request.header(header::CONTENT_LENGTH, 0);
        let response = self.send(Method::PUT, &location, repository, Need::Push, complete).await?;
        successful(response, &shown(&location)).await.map(drop)
    }

    /// Asks the registry to forget a session. It would expire anyhow, so nobody hears of a failure.
    async fn give_up(&self, repository: &RepositoryName, session: Option<Url>) {
        if let Some(url) = session {
            let _ = self.send(Method::DELETE, &url, repository, Need::Push, |request| request).await;
        }
    }

    fn location(&self, from: &Url, headers: &header::HeaderMap) -> Result<Url, ClientError> {
        text_header(headers, header::LOCATION)
            .and_then(|text| from.join(text).ok())
            .ok_or_else(|| ClientError::Header { url: shown(from), header: "Location" })
    }
}

/// Beside what is transient anyhow: an expired token, a session that stands elsewhere or that another request held.
fn is_worth_resuming(error: &ClientError) -> bool {
    error.is_transient() || matches!(error.status(), Some(401 | 404 | 409 | 416))
}

async fn hash_file(path: PathBuf) -> Result<(Digest, u64), ClientError> {
    let read = |path: PathBuf| move |source| ClientError::Read { path, source };
    let work = move || {
        let mut file = std::fs::File::open(&path).map_err(read(path.clone()))?;
        let mut seen: (Hasher, u64) = (Algorithm::Sha256.hasher(), 0);
        let mut buffer = vec![0; READ_SIZE];
        loop {
            match std::io::Read::read(&mut file, &mut buffer).map_err(read(path.clone()))? {
                0 => return Ok((seen.0.finish(), seen.1)),
                count => {
                    seen.0.update(&buffer[..count]);
                    seen.1 += count as u64;
                }
            }
        }
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
