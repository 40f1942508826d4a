//! Who we are: HTTP Basic or a session (DSP0266, "Authentication").
//!
//! BMCs lock accounts after a few wrong passwords. So a password is tried at most twice, once as Basic and once for a
//! session, and after that nothing more is sent.

use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::RequestBuilder;
use reqwest::header::{HeaderName, HeaderValue, LOCATION};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::client::{Call, Client};
use crate::error::Error;
use crate::model::{ServiceRoot, SessionService};
use crate::options::{AuthMode, Credentials, Phase, op};

const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-auth-token");

/// The session collection's address where the service root cannot be read without a login (DSP0266 fixes it).
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// What a request carries.
#[derive(Clone)]
pub(crate) enum Proof {
    /// Nothing: the service root and the login itself.
    Nothing,
    /// User name and password.
    Basic,
    /// A session's token.
    Token(SecretString),
}

impl Proof {
    /// Puts the proof on a request, in headers that are marked as sensitive.
    pub(crate) fn attach(&self, request: RequestBuilder, credentials: &Credentials) -> RequestBuilder {
        match self {
            Self::Nothing => request,
            Self::Basic => request.basic_auth(&credentials.username, Some(credentials.password.expose_secret())),
            Self::Token(token) => match HeaderValue::from_str(token.expose_secret()) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    request.header(TOKEN_HEADER, value)
                }
                // Cannot be: it came out of a header.
                Err(_) => request,
            },
        }
    }

    /// Both are the same proof, so that nobody has renewed it in between.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(one), Self::Token(two)) => one.expose_secret() == two.expose_secret(),
            (Self::Basic, Self::Basic) | (Self::Nothing, Self::Nothing) => true,
            _ => false,
        }
    }
}

fn no_sessions() -> Error {
    Error::Unsupported { what: "sessions, the only authentication that was allowed".to_owned() }
}

/// What is known about logging in to this BMC.
pub(crate) struct Authentication {
    mode: AuthMode,
    state: Mutex<State>,
    /// Held over a login, so that two tasks do not open two sessions.
    login: tokio::sync::Mutex<()>,
}

struct State {
    proof: Proof,
    /// Where sessions are made; `None` when the service has none.
    sessions: Option<String>,
    /// The session that is open, to be deleted.
    session: Option<String>,
    refused: bool,
}

impl Authentication {
    pub(crate) fn new(mode: AuthMode) -> Self {
        let proof = if mode == AuthMode::Session { Proof::Nothing } else { Proof::Basic };
        let state = State { proof, sessions: Some(SESSIONS.to_owned()), session: None, refused: false };
        Self { mode, state: Mutex::new(state), login: tokio::sync::Mutex::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// The proof to begin with. In session mode this logs in.
    pub(crate) async fn proof(&self, phase: Phase) -> Result<Proof, Error> {
        let (proof, refused) = {
            let state = self.authentication.state();
            (state.proof.clone(), state.refused)
        };
        match proof {
            _ if refused => Err(self.denial()),
            Proof::Nothing => self.renew(&Proof::Nothing, phase).await,
            proof => Ok(proof),
        }
    }

    /// A new proof after the BMC has refused `old`, or after there was none.
    pub(crate) async fn renew(&self, old: &Proof, phase: Phase) -> Result<Proof, Error> {
        let _one_at_a_time = self.authentication.login.lock().await;
        let sessions = {
            let state = self.authentication.state();
            if state.refused {
                return Err(self.denial());
            }
            if !state.proof.is(old) {
                return Ok(state.proof.clone());
            }
            state.sessions.clone()
        };
        match (self.authentication.mode, sessions) {
            (AuthMode::Session, None) => Err(no_sessions()),
            (AuthMode::Basic, _) | (AuthMode::Auto, None) => Err(self.refused()),
            (_, Some(sessions)) => self.log_in(&sessions, phase).await,
        }
    }

    /// Remembers that the password is wrong.
    pub(crate) fn refused(&self) -> Error {
        self.authentication.state().refused = true;
        self.denial()
    }

    fn denial(&self) -> Error {
        Error::Auth { host: self.host.clone() }
    }

    async fn log_in(&self, sessions: &str, phase: Phase) -> Result<Proof, Error> {
        let body = json!({
            "UserName": self.credentials.username,
            "Password": self.credentials.password.expose_secret(),
        });
        let call = Call::post(phase.named(op::SESSION_LOGIN), sessions, &body);
        let answer = match self.repeat(&call, &Proof::Nothing).await {
            Ok(answer) => answer,
            Err(Error::Http { status: 404 | 405 | 501, .. }) if self.authentication.mode == AuthMode::Session => {
                return Err(no_sessions());
            }
            // 400 is what some services answer to a wrong password. Without a session service after all, the refusal
            // of Basic was the last word.
            Err(Error::Http { status: 400 | 401 | 403 | 404 | 405 | 501, .. }) => return Err(self.refused()),
            Err(error) => return Err(error),
        };
        let token = answer.header(&TOKEN_HEADER).filter(|token| !token.is_empty());
        let Some(token) = token else {
            return Err(Error::protocol(&self.clean(sessions), "the new session has no X-Auth-Token"));
        };
        let proof = Proof::Token(SecretString::from(token));
        let mut state = self.authentication.state();
        state.session = answer.header(&LOCATION).map(str::to_owned);
        state.proof = proof.clone();
        Ok(proof)
    }

    /// Deletes the open session, if there is one. A session that the BMC has already dropped is no error.
    pub(crate) async fn log_out(&self, phase: Phase) -> Result<(), Error> {
        let (session, proof) = {
            let mut state = self.authentication.state();
            (state.session.take(), state.proof.clone())
        };
        let Some(session) = session else { return Ok(()) };
        let outcome = self.repeat(&Call::delete(phase.named(op::SESSION_LOGOUT), &session), &proof).await;
        if !matches!(proof, Proof::Basic) && self.authentication.mode != AuthMode::Basic {
            self.authentication.state().proof = Proof::Nothing;
        }
        match outcome {
            Ok(_) | Err(Error::Http { status: 401 | 404 | 410, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads the service root, which is open to everybody, and with credentials where it is not.
    pub(crate) async fn service_root(&self, phase: Phase, path: &str) -> Result<ServiceRoot, Error> {
        let call = Call::get(phase, path);
        let answer = match self.repeat(&call, &Proof::Nothing).await {
            Err(Error::Http { status: 401 | 403, .. }) => self.send(&call).await?,
            other => other?,
        };
        let root: ServiceRoot = self.resource(path, &answer)?.value;
        let direct = root.links.as_ref().and_then(|links| links.sessions.as_ref()?.address().map(str::to_owned));
        let service = root.session_service.as_ref().and_then(|link| link.address());
        let sessions = match (direct, service) {
            (Some(direct), _) => Some(direct),
            (None, Some(service)) => Some(self.sessions_of(phase, service).await),
            (None, None) => None,
        };
        self.authentication.state().sessions = sessions;
        Ok(root)
    }

    /// The collection that a session service links to; the fixed address where it cannot be read without a login.
    async fn sessions_of(&self, phase: Phase, service: &str) -> String {
        let read = async {
            let answer = self.repeat(&Call::get(phase, service), &Proof::Nothing).await.ok()?;
            let service: SessionService = self.resource(service, &answer).ok()?.value;
            service.sessions?.id
        };
        read.await.unwrap_or_else(|| SESSIONS.to_owned())
    }

    /// Everything that must not be shown.
    pub(crate) fn secrets(&self) -> Vec<SecretString> {
        let password = &self.credentials.password;
        let basic = STANDARD.encode(format!("{}:{}", self.credentials.username, password.expose_secret()));
        let mut secrets = vec![password.clone(), SecretString::from(basic)];
        if let Proof::Token(token) = &self.authentication.state().proof {
            secrets.push(token.clone());
        }
        secrets
    }
}
