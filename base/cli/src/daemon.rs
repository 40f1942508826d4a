//! The API of a daemon as commands use it.

use std::path::PathBuf;
use std::time::Duration;

use cairn_core::{ErrorKind, chain};
use clap::Args;
use reqwest::{Method, RequestBuilder, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;
use web::Problem;

use crate::{read_secret, read_text, usage};

/// Code: the daemon does not answer.
pub const CONTROLLER_UNREACHABLE: &str = "controller_unreachable";

/// For a request that is answered at once.
const SHORT: Duration = Duration::from_secs(60);
/// Event streams send a sign of life every 15 seconds; the end of a large push takes longer. A connection that is silent
/// for longer is broken.
const SILENCE: Duration = Duration::from_secs(300);

/// Which daemon is talked to, and as whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "Controller")]
pub struct Endpoint {
    /// Address of the controller
    #[arg(long, env = "CAIRN_URL", default_value = "http://127.0.0.1:8080", global = true)]
    url: Url,
    /// User name, where the controller asks for one
    #[arg(long, env = "CAIRN_USER", global = true)]
    user: Option<String>,
    /// File with the user's password; '-' reads it from standard input
    #[arg(long, env = "CAIRN_PASSWORD_FILE", value_name = "FILE", global = true)]
    user_password_file: Option<PathBuf>,
    /// File with certificate authorities that are trusted beside the system's
    #[arg(long, env = "CAIRN_CA_FILE", value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
}

/// A daemon, and the HTTP client that reaches it.
pub struct Daemon {
    http: reqwest::Client,
    /// For work that is answered when it is done, however long that takes.
    patient: reqwest::Client,
    base: Url,
    login: Login,
}

/// Who the commands are to the daemon.
enum Login {
    Nobody,
    User(String, SecretString),
    /// For daemons that know tokens and no users.
    Token(Option<SecretString>),
}

impl Daemon {
    /// A client for this endpoint. Nothing is asked yet.
    ///
    /// # Errors
    /// A file of the endpoint cannot be used, or a user has no password.
    pub fn new(endpoint: &Endpoint) -> Result<Self, Problem> {
        let login = match (&endpoint.user, &endpoint.user_password_file) {
            (Some(user), Some(path)) => Login::User(user.clone(), read_secret(path)?),
            (Some(_), None) => {
                return Err(usage("a user name needs a password")
                    .hint("say where it is: --user-password-file FILE, or CAIRN_PASSWORD_FILE"));
            }
            (None, _) => Login::Nobody,
        };
        let build = |builder: reqwest::ClientBuilder| builder.build().map_err(|error| usage(chain(&error)));
        let http = build(builder(endpoint)?.read_timeout(SILENCE))?;
        let patient = build(builder(endpoint)?.tcp_keepalive(Duration::from_secs(60)))?;
        Ok(Self { http, patient, base: endpoint.url.clone(), login })
    }

    /// The same daemon, where a bearer token says who the commands are, and not a user's name.
    #[must_use]
    pub fn with_token(self, token: Option<SecretString>) -> Self {
        Self { login: Login::Token(token), ..self }
    }

    /// Address of the daemon.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// The HTTP client, for other services that are reached in the same way.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Who the commands are to the daemon.
    pub fn user(&self) -> Option<(String, SecretString)> {
        match &self.login {
            Login::User(user, password) => Some((user.clone(), password.clone())),
            Login::Nobody | Login::Token(_) => None,
        }
    }

    /// A request to `path` (with its query).
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.authorized(self.http.request(method, self.url(path)))
    }

    /// A request to `path` whose answer may take as long as it takes.
    pub fn patient(&self, method: Method, path: &str) -> RequestBuilder {
        self.authorized(self.patient.request(method, self.url(path)))
    }

    /// Sends it; an answer that is an error becomes its Problem.
    ///
    /// # Errors
    /// The daemon does not answer, or refuses.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Problem> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(response);
        }
        let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let body = response.bytes().await.unwrap_or_default();
        let problem: Problem = serde_json::from_slice(&body).unwrap_or_else(|_| {
            let kind = ErrorKind::of_http_status(status.as_u16()).unwrap_or(ErrorKind::Failed);
            Problem::new(kind, web::codes::SERVER_ERROR, format!("{} answered {status}", self.base))
                .hint("is this address a Cairn controller?")
        });
        Err(match id {
            _ if status.as_u16() == 401 && matches!(self.login, Login::Nobody) => {
                problem.hint("say who you are: --user and --user-password-file, or CAIRN_USER and CAIRN_PASSWORD_FILE")
            }
            _ if status.as_u16() == 401 && matches!(self.login, Login::Token(None)) => {
                problem.hint(
                    "say who you are: --token-file FILE, or CAIRN_TOKEN; on the daemon's own host --data-dir DIR, as it was \
                     started",
                )
            }
            Some(id) if status.is_server_error() && problem.hint.is_none() => {
                problem.hint(format!("the controller's log says more under request {id}"))
            }
            _ => problem,
        })
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// Those of [`Self::send`], and an answer that cannot be read.
    pub async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Problem> {
        self.send(request).await?.json().await.map_err(|error| self.unreachable(&error))
    }

    /// Reads what is at `path` (with its query).
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        self.read(self.request(Method::GET, path).timeout(SHORT)).await
    }

    /// Sends a body to `path` and reads the answer.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub async fn write<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Problem> {
        self.read(self.request(method, path).timeout(SHORT).json(body)).await
    }

    /// Orders work and waits for its end.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub async fn work<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Problem> {
        self.read(self.patient(Method::POST, path).json(body)).await
    }

    /// A request that got no answer, for the edge.
    pub fn unreachable(&self, error: &reqwest::Error) -> Problem {
        let detail = format!("the controller at {} does not answer: {}", self.base, chain(error));
        Problem::new(ErrorKind::Unreachable, CONTROLLER_UNREACHABLE, detail)
            .hint("is it running (cairn serve)? another address is said with --url or CAIRN_URL")
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.login {
            Login::User(user, password) => request.basic_auth(user, Some(password.expose_secret())),
            Login::Token(Some(token)) => request.bearer_auth(token.expose_secret()),
            Login::Nobody | Login::Token(None) => request,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }
}

fn builder(endpoint: &Endpoint) -> Result<reqwest::ClientBuilder, Problem> {
    let builder = reqwest::Client::builder().user_agent(concat!("cairn/", env!("CARGO_PKG_VERSION")));
    let builder = builder.no_proxy().connect_timeout(Duration::from_secs(10));
    let Some(path) = &endpoint.ca_file else { return Ok(builder) };
    let text = read_text(path)?;
    let certificates = reqwest::Certificate::from_pem_bundle(text.as_bytes())
        .map_err(|error| usage(format!("{} holds no certificates: {}", path.display(), chain(&error))))?;
    Ok(builder.tls_certs_merge(certificates))
}
