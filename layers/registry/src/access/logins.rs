//! People's passwords.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::http::{HeaderMap, header};
use tokio::sync::Mutex as Turn;
use web::{BasicAuth, Refusal};

use super::htpasswd::UsersFile;

/// Who knows the users.
pub(crate) enum Users {
    /// The login of the API.
    Api(Arc<BasicAuth>),
    /// A file of the registry's own.
    File(Arc<UsersFile>),
}

/// Checks passwords. A good one is remembered by the login behind it, as a keyed hash and for as long as the users stay
/// as they are. Requests with the same password wait for the first of them: a client that opens with a hundred requests
/// at once pays for one hash, and is not taken for somebody who guesses.
pub(crate) struct Logins {
    users: Users,
    hasher: RandomState,
    turns: Mutex<HashMap<u64, Weak<Turn<()>>>>,
}

impl Logins {
    pub(crate) fn new(users: Users) -> Self {
        Self { users, hasher: RandomState::new(), turns: Mutex::default() }
    }

    /// The user whose name and password these headers have.
    pub(crate) async fn log_in(&self, headers: &HeaderMap, client: IpAddr) -> Result<String, Refusal> {
        let auth = match &self.users {
            Users::Api(auth) => Some(Arc::clone(auth)),
            Users::File(file) => file.login().await,
        };
        let auth = auth.ok_or(Refusal::Wrong)?;
        let turn = self.turn(headers);
        let _turn = turn.lock().await;
        auth.authenticate(headers, client).await.map(|user| user.0)
    }

    /// What requests with the same credentials queue for.
    fn turn(&self, headers: &HeaderMap) -> Arc<Turn<()>> {
        let key = self.hasher.hash_one(headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()));
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = turns.get(&key).and_then(Weak::upgrade).unwrap_or_default();
        turns.insert(key, Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use web::{Credentials, Proof, RateLimiter};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hundred_requests_at_once_are_one_login() {
        let proof = Proof::Hash(bcrypt::hash("pw", 4).unwrap().into());
        let limiter = RateLimiter::new(NonZeroU32::MIN, NonZeroU32::MIN);
        let auth = BasicAuth::new("r", vec![Credentials { user: "alice".to_owned(), proof }]).unwrap();
        let logins = Arc::new(Logins::new(Users::Api(Arc::new(auth.limit_failures(Arc::new(limiter))))));
        let headers = |pair: &str| {
            let value = format!("Basic {}", STANDARD.encode(pair)).parse().unwrap();
            HeaderMap::from_iter([(header::AUTHORIZATION, value)])
        };
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let all = (0..100).map(|_| {
            let (logins, headers) = (Arc::clone(&logins), headers("alice:pw"));
            tokio::spawn(async move { logins.log_in(&headers, client).await })
        });
        for done in futures::future::join_all(all).await {
            assert_eq!(done.unwrap(), Ok("alice".to_owned()));
        }
        assert_eq!(logins.log_in(&headers("alice:no"), client).await, Err(Refusal::Wrong));
        assert!(matches!(logins.log_in(&headers("alice:no"), client).await, Err(Refusal::Limited { .. })));
        assert!(logins.turns.lock().unwrap().len() <= 3);
    }
}
