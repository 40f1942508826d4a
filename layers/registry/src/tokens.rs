//! Bearer tokens of the registry (distribution token specification): compact JWTs (RFC 7519), HS256 with a key that is
//! derived from the instance key. Nothing is stored; a token is good until it expires.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cairn_core::Clock;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use oci_registry::RepositoryName;
use oci_registry::server::Action;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use store::InstanceKey;
use uuid::Uuid;
use zeroize::Zeroizing;

/// Who a token is for, as the challenge names it.
pub(crate) const SERVICE: &str = "cairn-registry";
const ISSUER: &str = "cairn";
/// The only header that is written, and the only one that is read: no token chooses how it is checked.
const HEADER: &str = r#"{"typ":"JWT","alg":"HS256"}"#;
/// A clock may be put back so far, in seconds, before tokens that it has made are from the future.
const SLACK: i64 = 60;
/// Longest token that is looked at, in bytes.
const LONGEST: usize = 16 << 10;
/// Most scopes of one request that are looked at; clients ask for one or two.
const MOST_SCOPES: usize = 32;

/// What a token is good for: an entry of its `access`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// `pull`, `push`, `delete`, or `*` for the catalog.
    pub(crate) actions: Vec<String>,
}

/// A scope as clients ask for it: `repository:NAME:pull,push`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Actions on a repository.
    Repository(RepositoryName, Vec<Action>),
    /// The list of all repositories.
    Catalog,
}

/// Reads scopes, several in one text separated by spaces. What is no scope of a registry grants nothing.
pub(crate) fn scopes<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Scope> {
    texts.flat_map(str::split_whitespace).filter_map(scope).take(MOST_SCOPES).collect()
}

fn scope(text: &str) -> Option<Scope> {
    let (kind, rest) = text.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    match kind {
        "registry" if name == "catalog" => Some(Scope::Catalog),
        "repository" => {
            let mut wanted = Vec::new();
            for action in actions.split(',') {
                match action {
                    "pull" => wanted.push(Action::Pull),
                    "push" => wanted.push(Action::Push),
                    "delete" => wanted.push(Action::Delete),
                    "*" => wanted.extend([Action::Pull, Action::Push, Action::Delete]),
                    _ => {}
                }
            }
            Some(Scope::Repository(name.parse().ok()?, wanted))
        }
        _ => None,
    }
}

/// The word for an action in scopes and grants.
pub(crate) fn action_word(action: Action) -> &'static str {
    match action {
        Action::Ping | Action::Pull => "pull",
        Action::Push => "push",
        Action::Delete => "delete",
    }
}

/// Whether these grants cover an action; a ping needs none.
pub(crate) fn covers(grants: &[Grant], action: Action, repository: Option<&RepositoryName>) -> bool {
    let has = |kind: &str, name: &str, word: &str| {
        grants
            .iter()
            .any(|grant| grant.kind == kind && grant.name == name && grant.actions.iter().any(|action| action == word))
    };
    match (action, repository) {
        (Action::Ping, _) => true,
        (_, Some(repository)) => has("repository", repository.as_str(), action_word(action)),
        (_, None) => has("registry", "catalog", "*"),
    }
}

/// Whom a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Holder {
    /// Nobody has said.
    Anonymous,
    /// A user with a login.
    User,
    /// A machine, for this repository.
    Guest(String),
}

/// What a token says (RFC 7519, section 4.1, and the `access` of the distribution token specification).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    pub(crate) sub: String,
    aud: String,
    exp: i64,
    iat: i64,
    jti: String,
    pub(crate) access: Vec<Grant>,
    /// Our own claim: whether the subject is a person, a machine or nobody.
    pub(crate) holder: Holder,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// Not one of ours, or changed.
    #[error("the token was not made here")]
    Forged,
    /// Its time is over, or has not come.
    #[error("the token has expired")]
    Expired,
    /// Made here for something else.
    #[error("the token is for another service")]
    Audience,
}

/// A token that was just made.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) at: Timestamp,
    pub(crate) ttl: Duration,
}

/// Makes and checks tokens.
pub(crate) struct Tokens {
    key: Zeroizing<[u8; 32]>,
    ttl: Duration,
    clock: Arc<dyn Clock>,
}

impl Tokens {
    /// Tokens of this instance that hold for `ttl`.
    pub(crate) fn new(key: &InstanceKey, ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { key: key.derive("registry tokens"), ttl, clock }
    }

    /// A token for `subject` (empty for nobody) with these grants.
    pub(crate) fn issue(&self, subject: &str, holder: Holder, access: Vec<Grant>) -> Issued {
        let at = self.clock.now();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: subject.to_owned(),
            aud: SERVICE.to_owned(),
            exp: at.as_second().saturating_add(i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX)),
            iat: at.as_second(),
            jti: Uuid::new_v4().to_string(),
            access,
            holder,
        };
        Issued { token: self.sign(&claims), at, ttl: self.ttl }
    }

    fn sign(&self, claims: &Claims) -> String {
        let payload = serde_json::to_vec(claims).expect("strings and numbers can always be written as JSON");
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(payload));
        let signature = URL_SAFE_NO_PAD.encode(self.mac(&signed).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// What a token says, once it has been found to be ours and good now.
    pub(crate) fn check(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::Forged);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Forged)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Forged)?;
        // Compares in constant time.
        self.mac(signed).verify_slice(&signature).map_err(|_| TokenError::Forged)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Forged)?;
        if header != URL_SAFE_NO_PAD.encode(HEADER) {
            return Err(TokenError::Forged);
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::Forged)?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenError::Forged)?;
        if claims.iss != ISSUER || claims.aud != SERVICE {
            return Err(TokenError::Audience);
        }
        let now = self.clock.now().as_second();
        if now + SLACK < claims.iat || now >= claims.exp {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }

    #[allow(clippy::expect_used)] // HMAC takes keys of any length
    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_slice()).expect("any key length");
        mac.update(text.as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use cairn_core::FixedClock;
    use jiff::SignedDuration;

    use super::*;

    fn tokens(key: u8) -> (Tokens, Arc<FixedClock>) {
        let clock = Arc::new(FixedClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        (Tokens::new(&InstanceKey::from_bytes([key; 32]), Duration::from_secs(300), shared), clock)
    }

    fn pull(name: &str) -> Grant {
        Grant { kind: "repository".to_owned(), name: name.to_owned(), actions: vec!["pull".to_owned()] }
    }

    #[test]
    fn a_token_holds_here_for_its_time() {
        let (tokens, clock) = tokens(1);
        let issued = tokens.issue("alice", Holder::User, vec![pull("a/b")]);
        let claims = tokens.check(&issued.token).unwrap();
        assert_eq!((claims.sub.as_str(), claims.access, claims.holder), ("alice", vec![pull("a/b")], Holder::User));
        clock.advance(SignedDuration::from_secs(299));
        assert!(tokens.check(&issued.token).is_ok());
        clock.advance(SignedDuration::from_secs(1));
        assert_eq!(tokens.check(&issued.token), Err(TokenError::Expired));
        clock.advance(SignedDuration::from_secs(-361));
        assert_eq!(tokens.check(&issued.token), Err(TokenError::Expired));
        assert_eq!(self::tokens(2).0.check(&issued.token), Err(TokenError::Forged));
    }

    #[test]
    fn a_changed_token_is_forged() {
        let (tokens, _) = tokens(1);
        let token = tokens.issue("alice", Holder::User, vec![pull("a")]).token;
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last character of the signature has bits that nobody reads; strict decoding refuses those too.
            assert_eq!(tokens.check(&changed), Err(TokenError::Forged), "byte {at}");
        }
        let none = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#);
        let payload = token.split('.').nth(1).unwrap();
        let long = "x".repeat(LONGEST + 1);
        for forged in ["", ".", "..", "a.b.c", &format!("{none}.{payload}."), &format!("{none}.{payload}"), &long] {
            assert_eq!(tokens.check(forged), Err(TokenError::Forged), "{forged}");
        }
    }

    #[test]
    fn a_token_for_something_else_is_not_taken() {
        let (tokens, _) = tokens(1);
        let issued = tokens.issue("alice", Holder::User, Vec::new());
        let claims = tokens.check(&issued.token).unwrap();
        for other in
            [Claims { aud: "other".to_owned(), ..claims.clone() }, Claims { iss: "other".to_owned(), ..claims }]
        {
            assert_eq!(tokens.check(&tokens.sign(&other)), Err(TokenError::Audience));
        }
        // Signed by us, but with another header: nothing here makes such a thing.
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        let signed = format!("{header}.{}", issued.token.split('.').nth(1).unwrap());
        let signature = URL_SAFE_NO_PAD.encode(tokens.mac(&signed).finalize().into_bytes());
        assert_eq!(tokens.check(&format!("{signed}.{signature}")), Err(TokenError::Forged));
    }

    #[test]
    fn scopes_are_read_as_clients_write_them() {
        let read = |texts: &[&str]| scopes(texts.iter().copied());
        let name = |text: &str| text.parse::<RepositoryName>().unwrap();
        assert_eq!(
            read(&["repository:a/b:pull,push", "repository:c:pull registry:catalog:*"]),
            [
                Scope::Repository(name("a/b"), vec![Action::Pull, Action::Push]),
                Scope::Repository(name("c"), vec![Action::Pull]),
                Scope::Catalog,
            ]
        );
        assert_eq!(
            read(&["repository:a:*"]),
            [Scope::Repository(name("a"), vec![Action::Pull, Action::Push, Action::Delete])]
        );
        for nothing in
            ["", "repository", "repository:a", "repository:../x:pull", "registry:x:*", "repository(plugin):a:pull"]
        {
            assert_eq!(read(&[nothing]), [], "{nothing}");
        }
        assert_eq!(read(&[&"repository:a:pull ".repeat(1000)]).len(), MOST_SCOPES);
    }

    #[test]
    fn a_grant_covers_its_own_repository_and_actions() {
        let (own, other) = ("a/b".parse().unwrap(), "a/b/c".parse().unwrap());
        let grants = [pull("a/b")];
        assert!(covers(&grants, Action::Pull, Some(&own)) && covers(&[], Action::Ping, None));
        assert!(!covers(&grants, Action::Push, Some(&own)) && !covers(&grants, Action::Pull, Some(&other)));
        assert!(!covers(&grants, Action::Pull, None));
    }
}
