//! A client for OCI registries. The HTTP client is handed in: time-outs (set a read time-out, so that a connection
//! that hangs is broken and resumed), TLS roots and proxies are the caller's.

mod error;
mod list;
mod login;
mod pull;
mod push;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use url::Url;

pub use error::ClientError;
pub use login::Credentials;
pub use pull::VerifyingStream;

use crate::{Digest, RepositoryName};
use login::Need;

/// Most that is read of an error's body, in bytes.
const ERROR_BODY: usize = 16 << 10;

/// How often and how patiently a transfer is resumed.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Attempts in a row that may fail without a byte of progress.
    pub attempts: u32,
    /// Pause after the first failure; doubles with each further one.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
}

impl Default for Retry {
    /// Six attempts, pauses from 500 ms to 15 s.
    fn default() -> Self {
        Self { attempts: 6, first_pause: Duration::from_millis(500), longest_pause: Duration::from_secs(15) }
    }
}

/// A client of one registry. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    registry: Url,
    credentials: Option<Credentials>,
    retry: Retry,
    /// What the last login for a repository gave.
    logins: Mutex<HashMap<(RepositoryName, Need), HeaderValue>>,
}

impl Client {
    /// A client of the registry at this address, for example `http://192.0.2.1:8080`. Credentials are sent to this
    /// address and to the token server that it names, nowhere else, and only once it asks for them.
    pub fn new(http: reqwest::Client, mut registry: Url, credentials: Option<Credentials>) -> Self {
        // Credentials come by their own way; an address is logged. Neither call fails for http and https.
        let _ = registry.set_username("");
        let _ = registry.set_password(None);
        registry.set_query(None);
        let inner = Inner { http, registry, credentials, retry: Retry::default(), logins: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The same client with another patience and without its logins.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        let Inner { http, registry, credentials, .. } = &*self.inner;
        let (http, registry, credentials) = (http.clone(), registry.clone(), credentials.clone());
        Self { inner: Arc::new(Inner { http, registry, credentials, retry, logins: Mutex::default() }) }
    }

    fn url(&self, repository: &RepositoryName, rest: &str) -> Url {
        let mut url = self.inner.registry.clone();
        let path = format!("{}/v2/{repository}/{rest}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }

    /// Sends a request, after a login if the registry asks for one, and returns its answer whatever the status.
    /// `complete` adds headers and body, twice when a login comes between.
    async fn send(
        &self,
        method: Method,
        url: &Url,
        repository: &RepositoryName,
        need: Need,
        complete: impl Fn(RequestBuilder) -> RequestBuilder + Sync,
    ) -> Result<Response, ClientError> {
        let response = self.send_once(complete(self.request(method.clone(), url, repository, need)), url).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !self.is_registry(url) {
            return Ok(response);
        }
        self.log_in_again(&response, url, repository, need).await?;
        self.send_once(complete(self.request(method, url, repository, need)), url).await
    }

    async fn log_in_again(
        &self,
        response: &Response,
        url: &Url,
        repository: &RepositoryName,
        need: Need,
    ) -> Result<(), ClientError> {
        let challenges: Vec<String> = response
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        let login = self.log_in(&shown(url), &challenges, repository, need).await?;
        let mut logins = self.inner.logins.lock().unwrap_or_else(PoisonError::into_inner);
        logins.insert((repository.clone(), need), login);
        Ok(())
    }

    fn request(&self, method: Method, url: &Url, repository: &RepositoryName, need: Need) -> RequestBuilder {
        let request = self.inner.http.request(method, url.clone());
        let logins = self.inner.logins.lock().unwrap_or_else(PoisonError::into_inner);
        match logins.get(&(repository.clone(), need)).filter(|_| self.is_registry(url)) {
            Some(login) => request.header(header::AUTHORIZATION, login.clone()),
            None => request,
        }
    }

    async fn send_once(&self, request: RequestBuilder, url: &Url) -> Result<Response, ClientError> {
        request.send().await.map_err(|source| ClientError::Send { url: shown(url), source: source.without_url() })
    }

    fn is_registry(&self, url: &Url) -> bool {
        url.origin() == self.inner.registry.origin()
    }

    /// Repeats what may be repeated without harm until it succeeds, fails for good, or the attempts are used up.
    async fn patiently<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, ClientError> {
        let mut failures = 0;
        loop {
            match attempt().await {
                Err(error) if error.is_transient() => {
                    failures += 1;
                    self.pause(failures, error).await?;
                }
                result => return result,
            }
        }
    }

    /// Waits before attempt number `failures + 1`, or gives up.
    async fn pause(&self, failures: u32, error: ClientError) -> Result<(), ClientError> {
        let Retry { attempts, first_pause, longest_pause } = self.inner.retry;
        if failures >= attempts {
            return Err(ClientError::GaveUp { attempts: failures, source: Box::new(error) });
        }
        let pause = first_pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest_pause);
        tracing::warn!(error = &error as &dyn std::error::Error, failures, ?pause, "transfer broke off, trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// An address as it may be shown: without credentials, and without a query, which may hold a signature.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The response if it is a success, else the registry's reason.
async fn successful(mut response: Response, url: &str) -> Result<Response, ClientError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let mut body = Vec::new();
    while let Ok(Some(part)) = response.chunk().await {
        body.extend_from_slice(&part);
        if body.len() > ERROR_BODY {
            break;
        }
    }
    let message = serde_json::from_slice::<ErrorBody>(&body)
        .ok()
        .and_then(|body| body.errors.into_iter().next())
        .map(|entry| format!("{} {}", entry.code, entry.message).trim().to_owned())
        .filter(|message| !message.is_empty());
    Err(ClientError::Status { url: url.to_owned(), status: response.status().as_u16(), message })
}

fn text_header(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    text_header(headers, "docker-content-digest").and_then(|text| text.parse().ok())
}
