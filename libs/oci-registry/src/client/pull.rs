//! Resolving and pulling.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use reqwest::{Method, StatusCode, header};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::login::Need;
use super::{Client, ClientError, content_digest, shown, successful, text_header};
use crate::{Descriptor, Digest, Hasher, RepositoryName, Selector, media_type};

/// Largest manifest or list that is read, in bytes.
const LARGEST_DOCUMENT: u64 = 4 << 20;

type Body = BoxStream<'static, Result<Bytes, ClientError>>;

impl Client {
    /// What a tag or digest points to now.
    ///
    /// # Errors
    /// [`ClientError::Status`] with 404 when there is none; [`ClientError::DigestMismatch`] when the registry answers
    /// a digest with another one.
    pub async fn resolve(&self, repository: &RepositoryName, selector: &Selector) -> Result<Descriptor, ClientError> {
        self.patiently(|| self.resolve_once(repository, selector)).await
    }

    async fn resolve_once(&self, repository: &RepositoryName, selector: &Selector) -> Result<Descriptor, ClientError> {
        let url = self.url(repository, &format!("manifests/{selector}"));
        let response = self
            .send(Method::HEAD, &url, repository, Need::Pull, |request| request.header(header::ACCEPT, accept()))
            .await?;
        let response = successful(response, &shown(&url)).await?;
        let headers = response.headers();
        let size = text_header(headers, header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let (Some(digest), Some(size)) = (content_digest(headers), size) else {
            // A registry need not send either header; the manifest itself tells both.
            return self.manifest_once(repository, selector).await.map(|(descriptor, _)| descriptor);
        };
        if let Selector::Digest(expected) = selector {
            check(repository, expected, digest.clone())?;
        }
        Ok(Descriptor::new(content_type(headers, &shown(&url))?, digest, size))
    }

    /// A manifest with its descriptor, checked against the digest that was asked for or that the registry sent.
    ///
    /// # Errors
    /// Those of [`Client::resolve`], and [`ClientError::TooLarge`].
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
    ) -> Result<(Descriptor, Bytes), ClientError> {
        self.patiently(|| self.manifest_once(repository, selector)).await
    }

    async fn manifest_once(
        &self,
        repository: &RepositoryName,
        selector: &Selector,
    ) -> Result<(Descriptor, Bytes), ClientError> {
        let url = self.url(repository, &format!("manifests/{selector}"));
        let response = self
            .send(Method::GET, &url, repository, Need::Pull, |request| request.header(header::ACCEPT, accept()))
            .await?;
        let shown = shown(&url);
        let response = successful(response, &shown).await?;
        let media_type = content_type(response.headers(), &shown)?;
        let promised = match selector {
            Selector::Digest(digest) => Some(digest.clone()),
            Selector::Tag(_) => content_digest(response.headers()),
        };
        let bytes = whole(response, &shown).await?;
        let digest = match promised {
            Some(promised) => check(repository, &promised, Digest::of(promised.algorithm(), &bytes))?,
            None => Digest::sha256_of(&bytes),
        };
        Ok((Descriptor::new(media_type, digest, bytes.len() as u64), bytes))
    }

    /// Whether the repository holds a blob.
    ///
    /// # Errors
    /// Anything but yes or no.
    pub async fn has_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, ClientError> {
        self.patiently(|| self.has_blob_once(repository, digest)).await
    }

    async fn has_blob_once(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, ClientError> {
        let url = self.url(repository, &format!("blobs/{digest}"));
        let response = self.send(Method::HEAD, &url, repository, Need::Pull, |request| request).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        successful(response, &shown(&url)).await.map(|_| true)
    }

    /// A blob's bytes from byte `from` on, over one connection and unchecked; see [`Client::verified_blob`].
    ///
    /// # Errors
    /// The answer is no success, or not the range that was asked for.
    pub async fn blob(
        &self,
        repository: &RepositoryName,
        descriptor: &Descriptor,
        from: u64,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + Send + use<>, ClientError> {
        self.open(repository, &descriptor.digest, from).await
    }

    /// A blob's bytes, resumed where a connection breaks, checked for size and digest at the end.
    pub fn verified_blob(&self, repository: &RepositoryName, descriptor: &Descriptor) -> VerifyingStream {
        Pull::new(self, repository, descriptor).into_stream()
    }

    /// A blob whose size is not known yet: its size in bytes as the registry announces it, and its bytes, resumed and
    /// checked as by [`Client::verified_blob`]. One request where nothing breaks.
    ///
    /// # Errors
    /// [`ClientError::Status`] with 404 when there is none; [`ClientError::Header`] when the registry names no size.
    pub async fn sized_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(u64, VerifyingStream), ClientError> {
        let (size, body) = self.patiently(|| self.open_sized(repository, digest, 0)).await?;
        let size = size.ok_or_else(|| self.no_length(repository, digest))?;
        let descriptor = Descriptor::new("application/octet-stream", digest.clone(), size);
        let mut pull = Pull::new(self, repository, &descriptor);
        pull.body = Some(body);
        Ok((size, pull.into_stream()))
    }

    /// Size of a blob in bytes, as the registry announces it.
    ///
    /// # Errors
    /// Those of [`Client::sized_blob`].
    pub async fn blob_size(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64, ClientError> {
        let size = self.patiently(|| self.blob_size_once(repository, digest)).await?;
        size.ok_or_else(|| self.no_length(repository, digest))
    }

    async fn blob_size_once(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>, ClientError> {
        let url = self.url(repository, &format!("blobs/{digest}"));
        let response = self.send(Method::HEAD, &url, repository, Need::Pull, |request| request).await?;
        let response = successful(response, &shown(&url)).await?;
        Ok(text_header(response.headers(), header::CONTENT_LENGTH).and_then(|text| text.parse().ok()))
    }

    fn no_length(&self, repository: &RepositoryName, digest: &Digest) -> ClientError {
        let url = shown(&self.url(repository, &format!("blobs/{digest}")));
        ClientError::Header { url, header: "Content-Length" }
    }

    async fn open(&self, repository: &RepositoryName, digest: &Digest, from: u64) -> Result<Body, ClientError> {
        self.open_sized(repository, digest, from).await.map(|(_, body)| body)
    }

    /// The bytes from `from` on, and how many the answer announces.
    async fn open_sized(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: u64,
    ) -> Result<(Option<u64>, Body), ClientError> {
        let url = self.url(repository, &format!("blobs/{digest}"));
        let complete = |request: reqwest::RequestBuilder| match from {
            0 => request,
            from => request.header(header::RANGE, format!("bytes={from}-")),
        };
        let response = self.send(Method::GET, &url, repository, Need::Pull, complete).await?;
        let shown = shown(&url);
        let response = successful(response, &shown).await?;
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let begins = text_header(response.headers(), header::CONTENT_RANGE)
                    .and_then(|text| text.strip_prefix("bytes ")?.split_once('-')?.0.parse::<u64>().ok());
                if begins != Some(from) {
                    return Err(ClientError::Header { url: shown, header: "Content-Range" });
                }
                0
            }
            // A server may ignore Range and send everything.
            _ => from,
        };
        let length = response.content_length();
        let body = response.bytes_stream().map(move |part| {
            part.map_err(|source| ClientError::Receive { url: shown.clone(), source: source.without_url() })
        });
        Ok((length, if skip == 0 { body.boxed() } else { skipped(body, skip).boxed() }))
    }
}

/// The stream without its first `skip` bytes.
fn skipped(
    body: impl Stream<Item = Result<Bytes, ClientError>> + Send,
    mut skip: u64,
) -> impl Stream<Item = Result<Bytes, ClientError>> + Send {
    body.map(move |part| {
        part.map(|mut part| {
            let now = usize::try_from(skip).unwrap_or(usize::MAX).min(part.len());
            skip -= now as u64;
            part.split_off(now)
        })
    })
}

/// A blob that is checked while it is read. The last item is an error when size or digest are wrong: nothing read
/// from it may be trusted before it has ended without one.
pub struct VerifyingStream {
    bytes: Body,
}

impl VerifyingStream {
    /// The same as a reader; the check's failure is an [`std::io::Error`] with the [`ClientError`] inside.
    pub fn into_reader(self) -> impl AsyncRead + Send + Unpin {
        StreamReader::new(self.bytes.map(|part| part.map_err(std::io::Error::other)))
    }
}

impl Stream for VerifyingStream {
    type Item = Result<Bytes, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.bytes.poll_next_unpin(context)
    }
}

/// A verified pull on its way.
struct Pull {
    client: Client,
    repository: RepositoryName,
    descriptor: Descriptor,
    hasher: Hasher,
    /// Bytes handed on.
    at: u64,
    /// Attempts since the last byte.
    failures: u32,
    body: Option<Body>,
}

impl Pull {
    fn new(client: &Client, repository: &RepositoryName, descriptor: &Descriptor) -> Self {
        Self {
            client: client.clone(),
            repository: repository.clone(),
            hasher: descriptor.digest.algorithm().hasher(),
            descriptor: descriptor.clone(),
            at: 0,
            failures: 0,
            body: None,
        }
    }

    fn into_stream(self) -> VerifyingStream {
        VerifyingStream { bytes: futures::stream::try_unfold(self, Self::next).boxed() }
    }

    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ClientError> {
        loop {
            let size = self.descriptor.size;
            if self.at == size && self.body.is_none() {
                check(&self.repository, &self.descriptor.digest, self.hasher.finish())?;
                return Ok(None);
            }
            match self.receive().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => {
                    self.at += bytes.len() as u64;
                    if self.at > size {
                        return Err(ClientError::SizeMismatch {
                            what: self.descriptor.digest.to_string(),
                            expected: size,
                            actual: self.at,
                        });
                    }
                    self.hasher.update(&bytes);
                    self.failures = 0;
                    return Ok(Some((bytes, self)));
                }
                Ok(None) if self.at == size => self.body = None,
                Ok(None) => {
                    let error =
                        ClientError::Truncated { what: self.descriptor.digest.to_string(), received: self.at, size };
                    self.again_after(error).await?;
                }
                // Everything is here; how the connection ended does not matter.
                Err(_) if self.at == size => self.body = None,
                Err(error) if error.is_transient() => self.again_after(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, ClientError> {
        let body = match &mut self.body {
            Some(body) => body,
            None => self.body.insert(self.client.open(&self.repository, &self.descriptor.digest, self.at).await?),
        };
        body.next().await.transpose()
    }

    async fn again_after(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.body = None;
        self.failures += 1;
        self.client.pause(self.failures, error).await
    }
}

/// The whole body of an answer that is a manifest or a list.
pub(super) async fn whole(mut response: reqwest::Response, shown: &str) -> Result<Bytes, ClientError> {
    let mut bytes = BytesMut::new();
    while let Some(part) = response
        .chunk()
        .await
        .map_err(|source| ClientError::Receive { url: shown.to_owned(), source: source.without_url() })?
    {
        bytes.extend_from_slice(&part);
        if bytes.len() as u64 > LARGEST_DOCUMENT {
            return Err(ClientError::TooLarge { url: shown.to_owned(), limit: LARGEST_DOCUMENT });
        }
    }
    Ok(bytes.freeze())
}

fn accept() -> String {
    media_type::MANIFESTS.join(", ")
}

fn check(repository: &RepositoryName, expected: &Digest, actual: Digest) -> Result<Digest, ClientError> {
    if actual == *expected {
        return Ok(actual);
    }
    Err(ClientError::DigestMismatch { what: repository.to_string(), expected: expected.clone(), actual })
}

fn content_type(headers: &header::HeaderMap, url: &str) -> Result<String, ClientError> {
    let text = text_header(headers, header::CONTENT_TYPE)
        .ok_or(ClientError::Header { url: url.to_owned(), header: "Content-Type" })?;
    let (essence, _) = text.split_once(';').unwrap_or((text, ""));
    Ok(essence.trim().to_owned())
}
