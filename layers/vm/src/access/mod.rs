//! Who may do what: tokens of customers and of operators, and where asked for the guide's `dev_customer_<id>`.
//!
//! A customer sees its own VMs and nothing else: what belongs to others is not there (404). An operator sees everything.

mod token;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use cairn_core::{Clock, ErrorKind};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;
use web::Problem;

use crate::errors;
use crate::model::CustomerId;
use crate::service::Caller;
use crate::store::Error as StoreError;
use crate::store::tokens::TokenStore;

pub use token::{Token, TokenId};

/// Name of the operator's token file in the data directory.
pub const OPERATOR_FILE: &str = "operator.token";
/// In front of a customer's name where tokens are not checked (guide, "Manual Health Verification").
const DEVELOPER: &str = "dev_customer_";
/// How exactly the last use of a token is known.
const USE_NOTED: SignedDuration = SignedDuration::from_mins(1);
/// How long a token that has ended is still listed.
const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Between two looks at the token of who listens for long.
const LOOK: Duration = Duration::from_secs(30);
/// Longest name of a token.
const LONGEST_NAME: usize = 64;
const CHALLENGE: &str = "Bearer realm=\"vm\"";

/// What went wrong with tokens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error("cannot use the tokens")]
    Store(#[from] StoreError),
    /// The operator's file cannot be read or written.
    #[error("cannot use the operator's token file {}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name that no token can have.
    #[error("{0:?} cannot be the name of a token: 1 to {LONGEST_NAME} letters, digits, spaces and any of -_.@")]
    Name(String),
    /// A token that would be of no use.
    #[error("{0} is over already")]
    Expired(Timestamp),
}

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No token was sent.
    Missing,
    /// It is none, unknown, or has ended.
    Wrong(&'static str),
}

impl Refusal {
    /// The answer: 401 with a challenge (RFC 6750).
    pub fn problem(&self) -> Problem {
        let (detail, challenge) = match self {
            Self::Missing => ("a token is needed", CHALLENGE.to_owned()),
            Self::Wrong(why) => (*why, format!("{CHALLENGE}, error=\"invalid_token\"")),
        };
        Problem::new(ErrorKind::Unauthorized, errors::TOKEN, detail)
            .authenticate(&challenge)
            .hint("send Authorization: Bearer TOKEN; cairn vm token create makes one")
    }
}

/// What a new token is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What it is for, for people.
    pub name: String,
    /// Whose VMs it is for; an operator's without.
    pub customer: Option<CustomerId>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// All tokens of this host.
pub struct Tokens {
    store: TokenStore,
    clock: Arc<dyn Clock>,
    developer: bool,
    noted: Mutex<HashMap<TokenId, Timestamp>>,
    /// How many were revoked.
    revoked: watch::Sender<u64>,
}

impl Tokens {
    /// `developer`: `dev_customer_<id>` is let in too (CAIRN_DEV_TOKENS=1). Anybody can write such a token.
    pub fn new(store: TokenStore, clock: Arc<dyn Clock>, developer: bool) -> Self {
        if developer {
            tracing::warn!("developer tokens are let in: anybody who reaches the API can be any customer");
        }
        Self { store, clock, developer, noted: Mutex::default(), revoked: watch::Sender::default() }
    }

    /// Makes a token. Its text is given once, here.
    pub async fn create(&self, by: &str, new: NewToken) -> Result<(Token, SecretString), Error> {
        let now = self.clock.now();
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || " -_.@".contains(letter);
        if !(1..=LONGEST_NAME).contains(&new.name.len()) || !new.name.chars().all(allowed) {
            return Err(Error::Name(new.name));
        }
        if let Some(end) = new.expires_at.filter(|end| *end <= now) {
            return Err(Error::Expired(end));
        }
        let (id, text) = token::random();
        let token = Token {
            id,
            name: new.name,
            customer: new.customer,
            created_at: now,
            created_by: by.to_owned(),
            expires_at: new.expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        let Some((_, hash)) = token::parse(&text) else { return Err(Error::Name(token.name)) };
        let oldest = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
        self.store.add(&token, &hash, oldest).await?;
        Ok((token, text))
    }

    /// All that are, and those that ended in the last 90 days.
    pub async fn list(&self) -> Result<Vec<Token>, Error> {
        Ok(self.store.list().await?)
    }

    /// Ends a token. False when there is none that has not ended already.
    pub async fn revoke(&self, id: &TokenId) -> Result<bool, Error> {
        let was_good = self.store.revoke(id, self.clock.now()).await?;
        self.revoked.send_modify(|revoked| *revoked += 1);
        Ok(was_good)
    }

    /// Who sends these headers.
    ///
    /// # Errors
    /// The inner one: nobody that is known. The outer one: the database.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Result<Caller, Refusal>, Error> {
        let Some(text) = bearer(headers) else { return Ok(Err(Refusal::Missing)) };
        if self.developer
            && let Some(customer) = text.expose_secret().strip_prefix(DEVELOPER)
        {
            let known = customer.parse::<CustomerId>();
            let caller = |customer| Caller { who: format!("{DEVELOPER}{customer}"), customer: Some(customer) };
            return Ok(known.map(caller).map_err(|_| Refusal::Wrong("the token names no customer")));
        }
        const UNKNOWN: Refusal = Refusal::Wrong("the token is unknown");
        let Some((id, hash)) = token::parse(&text) else { return Ok(Err(UNKNOWN)) };
        let Some((token, stored)) = self.store.get(&id).await? else { return Ok(Err(UNKNOWN)) };
        if !token::is_same(&hash, &stored) {
            return Ok(Err(UNKNOWN));
        }
        let now = self.clock.now();
        if let Some(why) = token.ended(now) {
            return Ok(Err(Refusal::Wrong(why)));
        }
        self.note_use(&token, now).await;
        Ok(Ok(Caller { who: format!("{} ({})", token.name, token.id), customer: token.customer }))
    }

    /// Changes with every token that is revoked from now on.
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.revoked.subscribe()
    }

    /// Returns once these headers let nobody in any more. A database that does not answer shuts nobody out.
    pub async fn until_ended(&self, mut revoked: watch::Receiver<u64>, headers: &HeaderMap) {
        loop {
            tokio::select! {
                _ = revoked.changed() => {}
                // Tokens end by themselves, too.
                () = tokio::time::sleep(LOOK) => {}
            }
            if let Ok(Err(_)) = self.identify(headers).await {
                return;
            }
        }
    }

    /// Once a minute is enough, and spares a write at every request. That it cannot be written keeps nobody out.
    async fn note_use(&self, token: &Token, now: Timestamp) {
        let is_due = {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            let last = noted.get(&token.id).copied().or(token.last_used_at);
            let is_due = last.is_none_or(|last| now.duration_since(last) >= USE_NOTED);
            if is_due {
                noted.insert(token.id.clone(), now);
            }
            is_due
        };
        if is_due && let Err(error) = self.store.used(&token.id, now).await {
            tracing::warn!(token_id = %token.id, error = &error as &dyn std::error::Error, "the use of a token was not noted");
        }
    }

    /// Writes the operator's token file (mode 0600) unless the one that is there holds a token that is good here: it does not
    /// any more after the database was replaced. Root's command line reads it.
    pub async fn ensure_operator_file(&self, directory: &Path) -> Result<(), Error> {
        let path = directory.join(OPERATOR_FILE);
        let failed = |source| Error::File { path: path.clone(), source };
        let read = {
            let path = path.clone();
            blocking(move || std::fs::read_to_string(path)).await
        };
        match read {
            Ok(text) if self.is_good_operator(&SecretString::from(text.trim())).await? => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let new = NewToken { name: "operator".to_owned(), customer: None, expires_at: None };
        let (token, text) = self.create("first start", new).await?;
        let written = {
            let path = path.clone();
            let write = move || {
                let line = format!("{}\n", text.expose_secret());
                host::write_atomic(&path, line.as_bytes(), 0o600).map_err(io::Error::other)
            };
            blocking(write).await
        };
        written.map_err(failed)?;
        tracing::info!(path = %path.display(), token_id = %token.id, "operator's token file written");
        Ok(())
    }

    async fn is_good_operator(&self, text: &SecretString) -> Result<bool, Error> {
        let Some((id, hash)) = token::parse(text) else { return Ok(false) };
        let Some((token, stored)) = self.store.get(&id).await? else { return Ok(false) };
        Ok(token::is_same(&hash, &stored) && token.customer.is_none() && token.ended(self.clock.now()).is_none())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The token of an `Authorization` header; none when there are several headers, or another scheme.
fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| SecretString::from(token))
}

/// Who was let in; every route that needs it has the door in front that puts it there.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Refusal::Missing.problem())
    }
}

#[cfg(test)]
mod tests;
