//! HTTP Basic authentication (RFC 7617).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cairn_core::ErrorKind;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::proof::{Proof, digest};
use crate::rate_limit::exceeded;
use crate::{ClientIp, Problem, RateLimiter, codes};

/// Hashes that are computed at a time: argon2 takes tens of megabytes each, and anybody can send a password.
const CONCURRENT_HASHES: usize = 2;

/// Somebody who may come in.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Name; without `:`.
    pub user: String,
    /// How the password is proved.
    pub proof: Proof,
}

/// Why credentials cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The name is empty or contains a colon, which RFC 7617 uses as the separator.
    #[error("{user:?} cannot be a user name")]
    User { user: String },
    /// Not a hash that is known here, or an empty password.
    #[error("the password of {user} is neither an argon2 nor a bcrypt hash, or it is empty")]
    Proof { user: String },
    /// There is nobody.
    #[error("there are no credentials")]
    Nobody,
}

/// Who has come in; an extension of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User(pub String);

/// Why somebody may not come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No credentials were sent.
    Missing,
    /// They are wrong.
    Wrong,
    /// Too many wrong ones came from this address.
    Limited {
        /// When the next try is taken.
        retry_after: Duration,
    },
}

impl Refusal {
    /// The answer: 401 with the challenge, or 429.
    pub fn problem(&self, auth: &BasicAuth) -> Problem {
        let detail = match self {
            Self::Missing => "credentials are needed",
            Self::Wrong => "user or password is wrong",
            Self::Limited { retry_after } => return exceeded(*retry_after),
        };
        Problem::new(ErrorKind::Unauthorized, codes::UNAUTHORIZED, detail).authenticate(&auth.challenge())
    }
}

/// Decides who may come in.
///
/// A good password is remembered as a keyed hash for the life of the process, so that only the first request of a
/// client waits for argon2.
pub struct BasicAuth {
    realm: String,
    credentials: Arc<[Credentials]>,
    on_failure: Option<Box<dyn Fn() + Send + Sync>>,
    failures: Option<Arc<RateLimiter>>,
    hashing: Semaphore,
    key: Zeroizing<[u8; 32]>,
    remembered: Mutex<HashMap<String, [u8; 32]>>,
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicAuth")
            .field("realm", &self.realm)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl BasicAuth {
    /// Lets these come in.
    pub fn new(realm: &str, credentials: Vec<Credentials>) -> Result<Self, AuthError> {
        for Credentials { user, proof } in &credentials {
            if user.is_empty() || user.contains(':') {
                return Err(AuthError::User { user: user.clone() });
            }
            if !proof.is_well_formed() {
                return Err(AuthError::Proof { user: user.clone() });
            }
        }
        if credentials.is_empty() {
            return Err(AuthError::Nobody);
        }
        Ok(Self {
            realm: realm.to_owned(),
            credentials: credentials.into(),
            on_failure: None,
            failures: None,
            hashing: Semaphore::new(CONCURRENT_HASHES),
            key: Zeroizing::new(rand::random()),
            remembered: Mutex::new(HashMap::new()),
        })
    }

    /// Called for each wrong password, e.g. to count it.
    pub fn on_failure(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_failure = Some(Box::new(hook));
        self
    }

    /// Limits how many wrong passwords one address may send. A password that is remembered always passes, so nobody
    /// is locked out by a neighbour behind the same address.
    pub fn limit_failures(mut self, limiter: Arc<RateLimiter>) -> Self {
        self.failures = Some(limiter);
        self
    }

    /// Value of `WWW-Authenticate`.
    pub fn challenge(&self) -> String {
        format!("Basic realm=\"{}\", charset=\"UTF-8\"", self.realm)
    }

    /// Who sent these headers.
    pub async fn authenticate(&self, headers: &HeaderMap, client: IpAddr) -> Result<User, Refusal> {
        let Some(encoded) = basic_value(headers) else { return Err(Refusal::Missing) };
        let Some((user, password)) = decode(encoded) else { return Err(self.refuse(client, true)) };
        let seen = digest(&self.key, &[&user, password.expose_secret()]);
        let known = self.remembered().get(&user).copied();
        if known.is_some_and(|known| bool::from(known.ct_eq(&seen))) {
            return Ok(User(user));
        }
        // The token is taken before the hash, so that a hundred tries at once are not a hundred hashes.
        if let Some(limiter) = &self.failures
            && let Err(retry_after) = limiter.take(client)
        {
            return Err(Refusal::Limited { retry_after });
        }
        if !self.verify(&user, password).await {
            return Err(self.refuse(client, false));
        }
        if let Some(limiter) = &self.failures {
            limiter.give_back(client);
        }
        self.remembered().insert(user.clone(), seen);
        Ok(User(user))
    }

    /// Asks for credentials on these routes and puts the [`User`] into each request.
    pub fn protect<S>(self: &Arc<Self>, routes: Router<S>) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        routes.route_layer(from_fn_with_state(Arc::clone(self), require))
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<String, [u8; 32]>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, client: IpAddr, take: bool) -> Refusal {
        // The name is not logged: people type a password there.
        tracing::warn!(client = %client, code = codes::UNAUTHORIZED, "login failed");
        if let Some(hook) = &self.on_failure {
            hook();
        }
        match &self.failures {
            Some(limiter) if take => match limiter.take(client) {
                Ok(()) => Refusal::Wrong,
                Err(retry_after) => Refusal::Limited { retry_after },
            },
            _ => Refusal::Wrong,
        }
    }

    /// For an unknown user the first password is checked all the same, so that the time tells nothing.
    async fn verify(&self, user: &str, password: SecretString) -> bool {
        let wanted = digest(&self.key, &[user]);
        let mut found = None;
        for (at, credentials) in self.credentials.iter().enumerate() {
            if bool::from(digest(&self.key, &[&credentials.user]).ct_eq(&wanted)) {
                found = Some(at);
            }
        }
        let at = found.unwrap_or(0);
        let key = *self.key;
        if let Proof::Plain(_) = self.credentials[at].proof {
            return self.credentials[at].proof.accepts(&key, &password) && found.is_some();
        }
        let Ok(_permit) = self.hashing.acquire().await else { return false };
        let credentials = Arc::clone(&self.credentials);
        let accepted = tokio::task::spawn_blocking(move || credentials[at].proof.accepts(&key, &password)).await;
        accepted.unwrap_or(false) && found.is_some()
    }
}

async fn require(State(auth): State<Arc<BasicAuth>>, mut request: Request, next: Next) -> Response {
    let client = ClientIp::of(request.extensions());
    match auth.authenticate(request.headers(), client.0).await {
        Ok(user) => {
            request.extensions_mut().insert(user);
            next.run(request).await
        }
        Err(refusal) => refusal.problem(&auth).into_response(),
    }
}

/// What follows `Basic` in the header.
fn basic_value(headers: &HeaderMap) -> Option<&str> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then(|| value.trim())
}

fn decode(encoded: &str) -> Option<(String, SecretString)> {
    let bytes = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let (user, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some((user.to_owned(), SecretString::from(password)))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn credentials(user: &str, proof: Proof) -> Credentials {
        Credentials { user: user.to_owned(), proof }
    }

    fn argon2_hash(password: &str) -> Proof {
        use argon2::Argon2;
        use argon2::password_hash::PasswordHasher;
        let argon2 = Argon2::new(
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            argon2::Params::new(64, 1, 1, None).unwrap(),
        );
        Proof::Hash(argon2.hash_password_with_salt(password.as_bytes(), b"saltsaltsalt").unwrap().to_string().into())
    }

    fn bcrypt_hash(password: &str) -> Proof {
        Proof::Hash(bcrypt::hash(password, 4).unwrap().replacen("$2b$", "$2y$", 1).into())
    }

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    fn basic(pair: &str) -> HeaderMap {
        headers(&format!("Basic {}", STANDARD.encode(pair)))
    }

    #[tokio::test]
    async fn every_kind_of_proof_lets_the_right_one_in_twice() {
        for proof in [argon2_hash("pä:ss"), bcrypt_hash("pä:ss"), Proof::Plain("pä:ss".into())] {
            let auth = BasicAuth::new("r", vec![credentials("admin", proof)]).unwrap();
            for _ in 0..2 {
                assert_eq!(auth.authenticate(&basic("admin:pä:ss"), CLIENT).await, Ok(User("admin".into())));
                assert_eq!(auth.authenticate(&basic("admin:pass"), CLIENT).await, Err(Refusal::Wrong));
                assert_eq!(auth.authenticate(&basic("admin:"), CLIENT).await, Err(Refusal::Wrong));
                assert_eq!(auth.authenticate(&basic("other:pä:ss"), CLIENT).await, Err(Refusal::Wrong));
            }
        }
    }

    #[tokio::test]
    async fn users_have_their_own_passwords() {
        let list = vec![credentials("a", Proof::Plain("1".into())), credentials("b", bcrypt_hash("2"))];
        let auth = BasicAuth::new("r", list).unwrap();
        assert_eq!(auth.authenticate(&basic("b:2"), CLIENT).await, Ok(User("b".into())));
        assert_eq!(auth.authenticate(&basic("a:1"), CLIENT).await, Ok(User("a".into())));
        assert_eq!(auth.authenticate(&basic("a:2"), CLIENT).await, Err(Refusal::Wrong));
        assert_eq!(auth.authenticate(&basic("b:1"), CLIENT).await, Err(Refusal::Wrong));
    }

    #[tokio::test]
    async fn what_is_not_basic_is_missing_and_what_is_broken_is_wrong() {
        let auth = BasicAuth::new("r", vec![credentials("a", Proof::Plain("1".into()))]).unwrap();
        for missing in [HeaderMap::new(), headers("Bearer x"), headers("Basic")] {
            assert_eq!(auth.authenticate(&missing, CLIENT).await, Err(Refusal::Missing));
        }
        for wrong in [headers("Basic %%%"), basic("no colon"), headers("basic ")] {
            assert_eq!(auth.authenticate(&wrong, CLIENT).await, Err(Refusal::Wrong));
        }
    }

    #[tokio::test]
    async fn wrong_passwords_are_counted_and_limited_but_a_good_one_is_remembered() {
        let counted = Arc::new(AtomicU32::new(0));
        let hook = Arc::clone(&counted);
        let two = NonZeroU32::new(2).unwrap();
        let auth = BasicAuth::new("r", vec![credentials("a", bcrypt_hash("1"))])
            .unwrap()
            .on_failure(move || {
                hook.fetch_add(1, Ordering::Relaxed);
            })
            .limit_failures(Arc::new(RateLimiter::new(NonZeroU32::MIN, two)));
        let elsewhere = IpAddr::from([192, 0, 2, 7]);
        for _ in 0..5 {
            assert!(auth.authenticate(&basic("a:1"), CLIENT).await.is_ok(), "a good password costs nothing");
        }
        assert_eq!(auth.authenticate(&basic("a:x"), CLIENT).await, Err(Refusal::Wrong));
        assert_eq!(auth.authenticate(&headers("Basic %"), CLIENT).await, Err(Refusal::Wrong));
        assert!(matches!(auth.authenticate(&basic("a:x"), CLIENT).await, Err(Refusal::Limited { .. })));
        assert_eq!(counted.load(Ordering::Relaxed), 2);
        assert!(auth.authenticate(&basic("a:1"), CLIENT).await.is_ok());
        assert_eq!(auth.authenticate(&basic("a:x"), elsewhere).await, Err(Refusal::Wrong));
    }

    #[test]
    fn credentials_that_could_never_work_are_refused_at_start() {
        let try_one = |user: &str, proof| BasicAuth::new("r", vec![credentials(user, proof)]).err();
        assert_eq!(BasicAuth::new("r", vec![]).err(), Some(AuthError::Nobody));
        assert_eq!(try_one("a:b", Proof::Plain("x".into())), Some(AuthError::User { user: "a:b".into() }));
        for proof in [
            Proof::Plain("".into()),
            Proof::Hash("hunter2".into()),
            Proof::Hash("$2y$05$short".into()),
            Proof::Hash("$argon2id$v=19$m=64,t=1,p=1".into()),
            Proof::Hash("$6$salt$hash".into()),
        ] {
            assert_eq!(try_one("a", proof), Some(AuthError::Proof { user: "a".into() }));
        }
    }
}
