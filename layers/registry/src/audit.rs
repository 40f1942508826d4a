//! Who did what: a line in the log at once, a row in the database and a line in a file soon after.
//!
//! Changes, refusals and pulls of manifests are kept; pulls of blobs, of which there are many, stand in the log only.

use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cairn_core::Clock;
use jiff::{SignedDuration, Timestamp};
use observe::metrics::Counter;
use oci_registry::server::{Event, EventAction};
use oci_registry::storage::maintenance::RemovedTag;
use oci_registry::{Digest, RepositoryName};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use web::User;

use crate::access;
use crate::model::AuditEntry;
use crate::store::RegistryStore;

/// Entries that wait to be written; more are lost to table and file.
const WAITING: usize = 8192;
/// Entries that are written at once.
const BATCH: usize = 256;
/// Rows that are kept: about 30 MB.
const KEPT_ROWS: i64 = 100_000;
/// Of refusals, which anybody can bring about: they do not push out what was done.
const KEPT_REFUSALS: i64 = 10_000;
/// And for so long.
const KEPT_HOURS: i64 = 90 * 24;
/// Between two looks for rows that are too old or too many.
const PRUNE: Duration = Duration::from_secs(600);
/// Longest text of a client that is kept, in characters.
const LONGEST: usize = 256;

/// Whose order work on the whole registry is.
#[derive(Debug, Clone)]
pub(crate) struct By {
    user: String,
    client: Option<IpAddr>,
}

impl By {
    /// The daemon's own rounds.
    pub(crate) fn retention() -> Self {
        Self { user: "retention".to_owned(), client: None }
    }

    /// A request, with its user where there is a login.
    pub(crate) fn request(user: Option<&User>, client: IpAddr) -> Self {
        Self { user: user.map_or(access::ANONYMOUS, |user| &user.0).to_owned(), client: Some(client) }
    }

    /// Whether somebody asked for it.
    pub(crate) fn is_order(&self) -> bool {
        self.client.is_some()
    }
}

/// Takes entries down. Never waits.
pub(crate) struct AuditLog {
    sender: Option<mpsc::Sender<AuditEntry>>,
    clock: Arc<dyn Clock>,
    lost: Counter,
}

/// Writes them.
pub(crate) struct AuditWriter {
    receiver: mpsc::Receiver<AuditEntry>,
    store: RegistryStore,
    file: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    lost: Counter,
}

/// Both ends. Without `enabled`, nothing is taken down at all.
pub(crate) fn open(
    enabled: bool,
    store: RegistryStore,
    file: Option<PathBuf>,
    clock: &Arc<dyn Clock>,
    lost: &Counter,
) -> (AuditLog, AuditWriter) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let log = AuditLog { sender: enabled.then_some(sender), clock: Arc::clone(clock), lost: lost.clone() };
    (log, AuditWriter { receiver, store, file, clock: Arc::clone(clock), lost: lost.clone() })
}

impl AuditLog {
    /// One that takes nothing down.
    #[cfg(test)]
    pub(crate) fn deaf() -> Self {
        Self { sender: None, clock: Arc::new(cairn_core::SystemClock), lost: Counter::default() }
    }

    pub(crate) fn event(&self, event: &Event<'_>) {
        let Some(sender) = &self.sender else { return };
        // The gate knows who was refused, and tells it itself.
        if event.action == EventAction::Denied {
            return;
        }
        let entry = AuditEntry {
            time: self.clock.now(),
            user: cut(event.user),
            client: access::client(event.asker.extensions).to_string(),
            action: event.action.as_str().to_owned(),
            repository: event.repository.map(ToString::to_string),
            reference: event.reference.map(cut),
            digest: event.digest.map(ToString::to_string),
            size: event.size,
        };
        tell(&entry);
        if event.action != EventAction::PullBlob {
            self.keep(sender, entry);
        }
    }

    /// Somebody was not let do something: `name` where it is proved, else nothing, for people type a password there.
    pub(crate) fn refused(&self, name: &str, client: IpAddr, repository: Option<&RepositoryName>, wanted: &str) {
        let Some(sender) = &self.sender else { return };
        let entry = AuditEntry {
            time: self.clock.now(),
            user: cut(name),
            client: client.to_string(),
            action: EventAction::Denied.as_str().to_owned(),
            repository: repository.map(ToString::to_string),
            reference: Some(wanted.to_owned()),
            digest: None,
            size: None,
        };
        tell(&entry);
        self.keep(sender, entry);
    }

    /// Something was ordered that reaches the whole registry; `reference` says more, where there is more to say.
    pub(crate) fn ordered(&self, by: &By, action: &str, reference: Option<&str>) {
        self.done(by, action, None, reference, None);
    }

    /// Retention has removed a tag.
    pub(crate) fn tag_removed(&self, by: &By, removed: &RemovedTag) {
        let (action, tag) = (EventAction::DeleteTag.as_str(), removed.tag.to_string());
        self.done(by, action, Some(&removed.repository), Some(&tag), Some(&removed.digest));
    }

    fn done(
        &self,
        by: &By,
        action: &str,
        repository: Option<&RepositoryName>,
        reference: Option<&str>,
        digest: Option<&Digest>,
    ) {
        let Some(sender) = &self.sender else { return };
        let entry = AuditEntry {
            time: self.clock.now(),
            user: cut(&by.user),
            client: by.client.map(|client| client.to_string()).unwrap_or_default(),
            action: action.to_owned(),
            repository: repository.map(ToString::to_string),
            reference: reference.map(cut),
            digest: digest.map(ToString::to_string),
            size: None,
        };
        tell(&entry);
        self.keep(sender, entry);
    }

    fn keep(&self, sender: &mpsc::Sender<AuditEntry>, entry: AuditEntry) {
        if sender.try_send(entry).is_err() {
            self.lost.inc();
        }
    }
}

fn tell(entry: &AuditEntry) {
    let AuditEntry { user, client, action, repository, reference, digest, size, .. } = entry;
    tracing::info!(user, client, action, repository, reference, digest, size, "registry access");
}

impl AuditWriter {
    /// Writes until `shutdown`.
    pub(crate) async fn run(&mut self, shutdown: &CancellationToken) {
        let mut prune = tokio::time::interval(PRUNE);
        prune.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = prune.tick() => self.prune().await,
                count = self.receiver.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        // Nobody takes anything down.
                        shutdown.cancelled().await;
                        return;
                    }
                    self.write(std::mem::take(&mut batch)).await;
                }
            }
        }
    }

    /// Writes what still waits.
    pub(crate) async fn finish(&mut self) {
        let mut batch = Vec::new();
        while let Ok(entry) = self.receiver.try_recv() {
            batch.push(entry);
        }
        if !batch.is_empty() {
            self.write(batch).await;
        }
    }

    async fn write(&self, batch: Vec<AuditEntry>) {
        let count = batch.len() as u64;
        if let Err(error) = self.store.add_audit(&batch).await {
            self.lost.inc_by(count);
            let lost = count;
            tracing::error!(error = &error as &dyn std::error::Error, lost, "audit entries stand in the log only");
        }
        let Some(path) = self.file.clone() else { return };
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || append(&path, &batch)).await;
        let failed: Box<dyn std::error::Error + Send + Sync> = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.into(),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => error.into(),
            },
        };
        self.lost.inc_by(count);
        tracing::error!(
            path = shown,
            error = failed.as_ref() as &dyn std::error::Error,
            "the audit file was not written"
        );
    }

    async fn prune(&self) {
        let age = SignedDuration::from_hours(KEPT_HOURS);
        let oldest = self.clock.now().checked_sub(age).unwrap_or(Timestamp::MIN);
        match self.store.prune_audit(oldest, KEPT_ROWS, KEPT_REFUSALS).await {
            Ok(0) => {}
            Ok(rows) => tracing::debug!(rows, "audit record shortened"),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the audit record was not shortened");
            }
        }
    }
}

/// Opened for each batch, so that a file that was rotated away is left alone.
pub(crate) fn append(path: &Path, batch: &[AuditEntry]) -> std::io::Result<()> {
    let mut text = String::new();
    for entry in batch {
        text.push_str(&serde_json::to_string(entry)?);
        text.push('\n');
    }
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true).mode(0o640).open(path)?.write_all(text.as_bytes())
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
