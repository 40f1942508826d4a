//! Who may come in, and for what: [`decide`](decide::decide) says what is allowed, [`Gate`] finds out who asks.

pub(crate) mod address;
pub(crate) mod decide;
pub(crate) mod htpasswd;
pub(crate) mod logins;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{Extensions, HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci_registry::RepositoryName;
use oci_registry::server::{Access, Action, Asker, Decision};
use secrecy::{ExposeSecret as _, SecretString};
use web::{ClientIp, Refusal};

use crate::audit::AuditLog;
use crate::ports::Guests;
use crate::settings::AuthMode;
use crate::tokens::{self, Grant, Holder, SERVICE, Scope, TokenError, Tokens};
use address::OwnAddress;
use decide::{Policy, Verdict, Who, decide};
use logins::Logins;

/// Name of somebody who has not said it, in log and audit.
pub(crate) const ANONYMOUS: &str = "anonymous";
/// The challenge of the Shoal manual.
pub(crate) const BASIC_CHALLENGE: &str = "Basic realm=\"Shoal Registry\"";

/// How people prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Not at all.
    Open,
    /// With every request.
    Basic,
    /// With a token, which they get for a password. A password itself is taken too.
    Bearer,
}

/// Where passwords come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The registry's own file.
    File,
    /// The login of the API.
    Api,
}

/// What a mode means with the users that there are; `None` where it needs users and there are none.
pub(crate) fn effective(mode: Option<AuthMode>, has_file: bool, has_api: bool) -> Option<(Scheme, Option<Source>)> {
    let source = match (has_file, has_api) {
        (true, _) => Some(Source::File),
        (false, true) => Some(Source::Api),
        (false, false) => None,
    };
    match (mode, source) {
        (Some(AuthMode::None), _) | (None, None) => Some((Scheme::Open, None)),
        (None | Some(AuthMode::Basic), Some(source)) => Some((Scheme::Basic, Some(source))),
        (Some(AuthMode::Token), Some(source)) => Some((Scheme::Bearer, Some(source))),
        (Some(AuthMode::Htpasswd), Some(Source::File)) => Some((Scheme::Basic, source)),
        (Some(AuthMode::Basic | AuthMode::Htpasswd | AuthMode::Token), _) => None,
    }
}

/// Who asks, as far as it is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Name for log and audit.
    pub(crate) name: String,
    kind: Kind,
    /// What the token is good for, where one was shown.
    grants: Option<Vec<Grant>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Anonymous,
    User,
    Guest(RepositoryName),
}

impl Identity {
    fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), kind: Kind::Anonymous, grants: None }
    }

    fn who(&self) -> Who<'_> {
        match &self.kind {
            Kind::Anonymous => Who::Anonymous,
            Kind::User => Who::User(&self.name),
            Kind::Guest(repository) => Who::Guest(repository),
        }
    }

    /// Subject and holder of a token for this one.
    pub(crate) fn holder(&self) -> (&str, Holder) {
        match &self.kind {
            Kind::Anonymous => ("", Holder::Anonymous),
            Kind::User => (&self.name, Holder::User),
            Kind::Guest(repository) => (&self.name, Holder::Guest(repository.to_string())),
        }
    }

    /// Whether a token was shown, and not a password.
    pub(crate) fn by_token(&self) -> bool {
        self.grants.is_some()
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.kind == Kind::Anonymous
    }
}

/// Why nobody is found behind a request's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotKnown {
    /// Name and password, or a guest and its token, do not belong together.
    Wrong,
    /// Too many wrong passwords came from there.
    Limited(std::time::Duration),
    /// The token is not taken.
    Token(TokenError),
}

/// What a request brings to prove who asks.
enum Presented {
    Nothing,
    Basic(String, SecretString),
    Bearer(String),
    Unreadable,
}

/// Finds out who asks and decides over every request.
pub(crate) struct Gate {
    pub(crate) scheme: Scheme,
    pub(crate) policy: Policy,
    pub(crate) logins: Option<Logins>,
    pub(crate) tokens: Tokens,
    pub(crate) guests: Vec<Arc<dyn Guests>>,
    pub(crate) address: OwnAddress,
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) read_only: AtomicBool,
}

impl Gate {
    /// Who sent these headers.
    pub(crate) async fn identify(&self, headers: &HeaderMap, client: IpAddr) -> Result<Identity, NotKnown> {
        if self.scheme == Scheme::Open {
            return Ok(Identity::anonymous());
        }
        match presented(headers) {
            Presented::Nothing => Ok(Identity::anonymous()),
            Presented::Unreadable => Err(NotKnown::Wrong),
            // What podman and skopeo send that have no login.
            Presented::Basic(user, password) if user.is_empty() && password.expose_secret().is_empty() => {
                Ok(Identity::anonymous())
            }
            Presented::Basic(user, token) => match self.guests.iter().find(|guests| guests.is_guest(&user)) {
                Some(guests) => guest(guests.as_ref(), user, &token).await,
                None => self.user(headers, client).await,
            },
            Presented::Bearer(token) if self.scheme == Scheme::Bearer => self.holder(&token),
            Presented::Bearer(_) => Err(NotKnown::Wrong),
        }
    }

    async fn user(&self, headers: &HeaderMap, client: IpAddr) -> Result<Identity, NotKnown> {
        let Some(logins) = &self.logins else { return Err(NotKnown::Wrong) };
        match logins.log_in(headers, client).await {
            Ok(name) => Ok(Identity { name, kind: Kind::User, grants: None }),
            Err(Refusal::Limited { retry_after }) => Err(NotKnown::Limited(retry_after)),
            Err(Refusal::Missing | Refusal::Wrong) => Err(NotKnown::Wrong),
        }
    }

    fn holder(&self, token: &str) -> Result<Identity, NotKnown> {
        let claims = self.tokens.check(token).map_err(NotKnown::Token)?;
        let (name, kind) = match claims.holder {
            Holder::Anonymous => (ANONYMOUS.to_owned(), Kind::Anonymous),
            Holder::User => (claims.sub, Kind::User),
            Holder::Guest(repository) => {
                let repository = repository.parse().map_err(|_| NotKnown::Token(TokenError::Forged))?;
                (claims.sub, Kind::Guest(repository))
            }
        };
        Ok(Identity { name, kind, grants: Some(claims.access) })
    }

    /// What of these scopes this one may do. A token for a read-only registry may say push: whoever pushes is then told
    /// that the registry is read-only, not to log in.
    pub(crate) fn grants(&self, identity: &Identity, scopes: &[Scope]) -> Vec<Grant> {
        let may = |action, repository| {
            matches!(self.verdict(identity, action, repository), Verdict::Allow | Verdict::ReadOnly)
        };
        let mut grants: Vec<Grant> = Vec::new();
        for scope in scopes {
            let (kind, name, actions) = match scope {
                Scope::Catalog if may(Action::Pull, None) => ("registry", "catalog", vec!["*"]),
                Scope::Catalog => continue,
                Scope::Repository(repository, wanted) => {
                    let allowed = wanted.iter().filter(|action| may(**action, Some(repository)));
                    ("repository", repository.as_str(), allowed.map(|action| tokens::action_word(*action)).collect())
                }
            };
            let at = grants.iter().position(|grant| grant.kind == kind && grant.name == name);
            let at = at.unwrap_or_else(|| {
                grants.push(Grant { kind: kind.to_owned(), name: name.to_owned(), actions: Vec::new() });
                grants.len() - 1
            });
            for action in actions {
                if !grants[at].actions.iter().any(|known| known == action) {
                    grants[at].actions.push(action.to_owned());
                }
            }
        }
        grants.retain(|grant| !grant.actions.is_empty());
        grants
    }

    fn verdict(&self, identity: &Identity, action: Action, repository: Option<&RepositoryName>) -> Verdict {
        decide(&self.policy, self.read_only.load(Ordering::Relaxed), identity.who(), action, repository)
    }

    /// Value of `WWW-Authenticate`.
    fn challenge(
        &self,
        asker: Asker<'_>,
        repository: Option<&RepositoryName>,
        action: Action,
        error: Option<&str>,
    ) -> String {
        if self.scheme != Scheme::Bearer {
            return BASIC_CHALLENGE.to_owned();
        }
        let mut challenge =
            format!("Bearer realm=\"{}\",service=\"{SERVICE}\"", self.address.token_realm(asker.headers));
        let scope = match (action, repository) {
            (Action::Ping, _) => None,
            (Action::Pull, None) => Some("registry:catalog:*".to_owned()),
            (Action::Push, Some(repository)) => {
                let mounted = asker.from.map(|from| format!(" repository:{from}:pull")).unwrap_or_default();
                Some(format!("repository:{repository}:pull,push{mounted}"))
            }
            (_, Some(repository)) => Some(format!("repository:{repository}:{}", tokens::action_word(action))),
            (_, None) => None,
        };
        for (key, value) in [("scope", scope.as_deref()), ("error", error)] {
            if let Some(value) = value {
                challenge.push_str(&format!(",{key}=\"{value}\""));
            }
        }
        challenge
    }

    /// Whether this one may pull there, and only the token does not say so.
    fn may_widen(&self, identity: &Identity, grants: &[Grant], from: &RepositoryName) -> bool {
        self.verdict(identity, Action::Pull, Some(from)) == Verdict::Allow
            && !tokens::covers(grants, Action::Pull, Some(from))
    }

    async fn decide(&self, asker: Asker<'_>, repository: Option<&RepositoryName>, action: Action) -> Decision {
        if self.scheme == Scheme::Open && !self.address.is_own(asker.headers) {
            return Decision::Deny;
        }
        let client = client(asker.extensions);
        let challenge = |error| Decision::Challenge(self.challenge(asker, repository, action, error));
        let refused = |name: &str| self.audit.refused(name, client, repository, tokens::action_word(action));
        let identity = match self.identify(asker.headers, client).await {
            Ok(identity) => identity,
            Err(NotKnown::Token(TokenError::Expired)) => return challenge(Some("invalid_token")),
            Err(NotKnown::Token(_)) => {
                refused("");
                return challenge(Some("invalid_token"));
            }
            // Nobody has looked at the password: this is no refusal, and a right one may follow.
            Err(NotKnown::Limited(wait)) => return Decision::Wait(wait),
            Err(NotKnown::Wrong) => {
                refused("");
                return challenge(None);
            }
        };
        match (self.verdict(&identity, action, repository), &identity.grants) {
            // What a user may do, the token may still not say.
            (Verdict::Allow | Verdict::ReadOnly, Some(grants)) if !tokens::covers(grants, action, repository) => {
                challenge(Some("insufficient_scope"))
            }
            // For a mount the client needs both; a token for both is there for the asking.
            (Verdict::Allow, Some(grants))
                if asker.from.is_some_and(|from| self.may_widen(&identity, grants, from)) =>
            {
                challenge(Some("insufficient_scope"))
            }
            // The registry itself says that it is read-only: 405 is not an answer about access.
            (Verdict::Allow | Verdict::ReadOnly, _) => Decision::Allow { user: identity.name },
            (Verdict::LogIn, Some(_)) if action != Action::Ping => challenge(Some("insufficient_scope")),
            // Whoever shows an anonymous token has taken the challenge already.
            (Verdict::LogIn, Some(_)) => Decision::Allow { user: identity.name },
            (Verdict::LogIn, None) => {
                if !identity.is_anonymous() {
                    refused(&identity.name);
                }
                challenge(None)
            }
            (Verdict::Refuse, _) => {
                refused(&identity.name);
                Decision::Deny
            }
        }
    }

    /// Whether the list of all repositories has this one for somebody who sees the list. A token for the list has no
    /// grants for what is on it.
    async fn is_listed(&self, asker: Asker<'_>, repository: &RepositoryName) -> bool {
        let identity = self.identify(asker.headers, client(asker.extensions)).await;
        identity.is_ok_and(|identity| self.verdict(&identity, Action::Pull, Some(repository)) == Verdict::Allow)
    }
}

impl Access for Gate {
    fn check<'a>(
        &'a self,
        asker: Asker<'a>,
        repository: Option<&'a RepositoryName>,
        action: Action,
    ) -> BoxFuture<'a, Decision> {
        self.decide(asker, repository, action).boxed()
    }

    fn lists<'a>(&'a self, asker: Asker<'a>, repository: &'a RepositoryName) -> BoxFuture<'a, bool> {
        self.is_listed(asker, repository).boxed()
    }
}

/// The address that limits and logs go by.
pub(crate) fn client(extensions: &Extensions) -> IpAddr {
    extensions.get::<ClientIp>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.0)
}

async fn guest(guests: &dyn Guests, user: String, token: &SecretString) -> Result<Identity, NotKnown> {
    match guests.may_pull(&user, token).await {
        Ok(Some(repository)) => Ok(Identity { name: user, kind: Kind::Guest(repository), grants: None }),
        Ok(None) => Err(NotKnown::Wrong),
        Err(error) => {
            tracing::error!(error = error.as_ref() as &dyn std::error::Error, "cannot tell what a guest may pull");
            Err(NotKnown::Wrong)
        }
    }
}

fn presented(headers: &HeaderMap) -> Presented {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Presented::Nothing };
    let Some((scheme, value)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return Presented::Unreadable;
    };
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Presented::Bearer(value.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Presented::Unreadable;
    }
    let decoded = STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => Presented::Basic(user.to_owned(), SecretString::from(password)),
        None => Presented::Unreadable,
    }
}

/// An `Authorization` header of this user and password; `None` when they do not fit into one.
pub(crate) fn basic_header(user: &str, password: &SecretString) -> Option<HeaderValue> {
    let pair = STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    let mut value = HeaderValue::from_str(&format!("Basic {pair}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests;
