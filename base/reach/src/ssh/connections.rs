//! One kept connection per target.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Connection, Error, HostKeys, KeepAlive, Login, Target};

/// A connection that nobody asked for in this time is closed when another is asked for.
const IDLE: Duration = Duration::from_secs(600);

/// Keeps one connection per target: per everything in it but its name and its time limit. A jump host is a target as any
/// other, shared by all that go through it.
#[derive(Debug, Default)]
pub struct Connections {
    keep_alive: KeepAlive,
    slots: Mutex<HashMap<[u8; 32], Arc<Slot>>>,
}

#[derive(Debug)]
struct Slot {
    /// Attempts that have ended. Who waited while one was being made shares how it ended.
    attempts: AtomicU64,
    used: Mutex<Instant>,
    state: tokio::sync::Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Connection>,
    failure: Option<Error>,
}

impl Connections {
    /// None yet.
    pub fn new(keep_alive: KeepAlive) -> Self {
        Self { keep_alive, slots: Mutex::default() }
    }

    /// The kept connection, or a new one where there is none or the kept one is broken. Callers at the same time share
    /// one attempt and, if it fails, its error.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn get(&self, target: &Target) -> Result<Connection, Error> {
        let slot = self.slot(target);
        let before = slot.attempts.load(Ordering::SeqCst);
        let mut state = slot.state.lock().await;
        if let Some(connection) = &state.connection
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        if slot.attempts.load(Ordering::SeqCst) != before
            && let Some(failure) = &state.failure
        {
            return Err(failure.clone());
        }
        *state = State::default();
        let opened = self.open(target).await;
        slot.attempts.fetch_add(1, Ordering::SeqCst);
        match &opened {
            Ok(connection) => state.connection = Some(connection.clone()),
            Err(error) => state.failure = Some(error.clone()),
        }
        opened
    }

    async fn open(&self, target: &Target) -> Result<Connection, Error> {
        let jump = match &target.jump {
            None => None,
            Some(jump) => Some(
                Box::pin(self.get(jump))
                    .await
                    .map_err(|source| Error::Jump { name: target.name.clone(), source: Box::new(source) })?,
            ),
        };
        Box::pin(Connection::open_through(target, self.keep_alive, jump)).await
    }

    /// A new connection all the way, also to the jump host; it is not kept. For proof that a host still lets us in, and
    /// for bulk.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn fresh(&self, target: &Target) -> Result<Connection, Error> {
        Connection::open_with(target, self.keep_alive).await
    }

    /// Stops keeping the connection of a target, such as one that was removed. Who uses it goes on doing so.
    pub fn forget(&self, target: &Target) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&identity(target));
    }

    fn slot(&self, target: &Target) -> Arc<Slot> {
        let now = Instant::now();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| !slot.is_stale(now));
        let slot = slots.entry(identity(target)).or_insert_with(|| {
            Arc::new(Slot { attempts: AtomicU64::new(0), used: Mutex::new(now), state: tokio::sync::Mutex::default() })
        });
        *slot.used.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Arc::clone(slot)
    }
}

impl Slot {
    /// True when nobody asked for it lately and nobody uses it.
    fn is_stale(&self, now: Instant) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(used) < IDLE {
            return false;
        }
        // Locked is in use.
        self.state
            .try_lock()
            .is_ok_and(|state| state.connection.as_ref().is_none_or(|kept| kept.is_closed() || kept.is_idle()))
    }
}

/// Digest of everything that decides where a connection leads and as whom. Secrets are in it, but cannot be read back.
fn identity(target: &Target) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut next = Some(target);
    while let Some(target) = next {
        add(&mut digest, &target.host);
        add(&mut digest, &target.port.to_string());
        add(&mut digest, &target.user);
        match &target.login {
            Login::Password(password) => {
                add(&mut digest, "password");
                add(&mut digest, password.expose_secret());
            }
            Login::Key { pem, passphrase } => {
                add(&mut digest, "key");
                add(&mut digest, pem.expose_secret());
                add(&mut digest, passphrase.as_ref().map_or("", |passphrase| passphrase.expose_secret()));
            }
        }
        match &target.host_keys {
            HostKeys::TrustFirst => add(&mut digest, "first"),
            HostKeys::TrustFirstWithPassword => add(&mut digest, "first, with password"),
            HostKeys::Pinned(keys) => {
                let mut lines: Vec<String> = keys.iter().map(ToString::to_string).collect();
                lines.sort();
                add(&mut digest, &lines.join("\n"));
            }
        }
        next = target.jump.as_deref();
    }
    digest.finalize().into()
}

fn add(digest: &mut Sha256, part: &str) {
    digest.update((part.len() as u64).to_be_bytes());
    digest.update(part);
}
