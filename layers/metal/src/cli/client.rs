//! The controller's API as the commands use it.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use cairn_core::ErrorKind;
use reqwest::{Method, RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;
use web::Problem;

use super::Endpoint;
use crate::adapters::tls;
use crate::model::BmcTls;
use cairn_core::chain;

/// A controller.
pub(super) struct Client {
    pub(super) http: reqwest::Client,
    pub(super) base: Url,
    user: Option<(String, SecretString)>,
}

impl Client {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, Problem> {
        let judgement = match &endpoint.ca_file {
            Some(path) => BmcTls::Ca { pem: read_text(path)? },
            None => BmcTls::System,
        };
        let http = tls::builder(&judgement)
            .map_err(|error| usage(chain(&error)))?
            .connect_timeout(Duration::from_secs(10))
            // Event streams send a sign of life every 15 seconds; the end of a large push takes longer.
            .read_timeout(Duration::from_secs(300))
            .build()
            .map_err(|error| usage(chain(&error)))?;
        let user = match (&endpoint.user, &endpoint.user_password_file) {
            (Some(user), Some(path)) => Some((user.clone(), read_secret(path)?)),
            (Some(_), None) => {
                return Err(usage("a user name needs a password")
                    .hint("say where it is: --user-password-file FILE, or CAIRN_PASSWORD_FILE"));
            }
            (None, _) => None,
        };
        Ok(Self { http, base: endpoint.url.clone(), user })
    }

    /// A request to `path` (with its query).
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        let request = self.http.request(method, url);
        match &self.user {
            Some((user, password)) => request.basic_auth(user, Some(password.expose_secret())),
            None => request,
        }
    }

    /// Sends it; an answer that is an error becomes its Problem.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Problem> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(response);
        }
        let request = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let body = response.bytes().await.unwrap_or_default();
        let problem: Problem = serde_json::from_slice(&body).unwrap_or_else(|_| {
            let kind = ErrorKind::of_http_status(status.as_u16()).unwrap_or(ErrorKind::Failed);
            Problem::new(kind, web::codes::SERVER_ERROR, format!("{} answered {status}", self.base))
                .hint("is this address a Cairn controller?")
        });
        Err(match request {
            _ if status.as_u16() == 401 && self.user.is_none() => {
                problem.hint("say who you are: --user and --user-password-file, or CAIRN_USER and CAIRN_PASSWORD_FILE")
            }
            Some(id) if status.is_server_error() => {
                problem.hint(format!("the controller's log says more under request {id}"))
            }
            _ => problem,
        })
    }

    pub(super) async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Problem> {
        self.send(request).await?.json().await.map_err(|error| self.unreachable(&error))
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        self.read(self.request(Method::GET, path).timeout(Duration::from_secs(30))).await
    }

    pub(super) async fn write<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Problem> {
        self.read(self.request(method, path).timeout(Duration::from_secs(60)).json(body)).await
    }

    /// Credentials for the registry behind the same address.
    pub(super) fn registry(&self) -> oci_registry::client::Client {
        let credentials =
            self.user.clone().map(|(username, password)| oci_registry::client::Credentials { username, password });
        oci_registry::client::Client::new(self.http.clone(), self.base.clone(), credentials)
    }

    pub(super) fn unreachable(&self, error: &reqwest::Error) -> Problem {
        let detail = format!("the controller at {} does not answer: {}", self.base, chain(error));
        Problem::new(ErrorKind::Unreachable, crate::errors::CONTROLLER_UNREACHABLE, detail)
            .hint("is it running (cairn serve)? another address is said with --url or CAIRN_URL")
    }
}

/// A mistake in how the command was called.
pub(super) fn usage(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Invalid, web::codes::INVALID_REQUEST, detail)
}

pub(super) fn read_text(path: &Path) -> Result<String, Problem> {
    std::fs::read_to_string(path).map_err(|error| usage(format!("cannot read {}: {error}", path.display())))
}

/// A secret from a file, or from standard input for `-`; one line end at its end is not part of it.
pub(super) fn read_secret(path: &Path) -> Result<SecretString, Problem> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .take(64 << 10)
            .read_to_string(&mut text)
            .map_err(|error| usage(format!("cannot read standard input: {error}")))?;
    } else {
        text = read_text(path)?;
    }
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(usage(format!("{} holds no password", path.display())));
    }
    Ok(secret.to_owned().into())
}

/// A text as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    let mut url = Url::parse("http://x/").unwrap_or_else(|_| unreachable!("a constant address"));
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop().push(text);
    }
    url.path().trim_start_matches('/').to_owned()
}
