//! Work on the whole registry: collection, restore, retention, check. One at a time, whoever asks for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cairn_core::{ErrorKind, chain};
use oci_registry::storage::StorageError;
use oci_registry::{Digest, RepositoryName};
use serde::Serialize;
use serde_json::Value;
use web::Problem;

use crate::audit::By;
use crate::errors;
use crate::model::{RunKind, RunView};
use crate::ports::PortError;
use crate::service::Service;
use crate::work;

/// Why such work was not done.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// Other work is under way.
    #[error("{} is under way", running.as_str())]
    Busy {
        /// What.
        running: RunKind,
    },
    /// Nothing may be changed.
    #[error("the registry is read-only")]
    ReadOnly,
    /// It is not known what is still needed.
    #[error("it cannot be told which artifacts are still needed, so nothing is collected")]
    Leases(#[source] PortError),
    /// The storage failed.
    #[error("the storage of the registry failed")]
    Storage(#[from] StorageError),
    /// A report could not be written as JSON.
    #[error("the report cannot be written")]
    Report(#[from] serde_json::Error),
}

impl UpkeepError {
    /// The same for the edge.
    pub fn problem(&self) -> Problem {
        let problem = |kind, code, hint: &str| Problem::new(kind, code, chain(self)).hint(hint);
        match self {
            Self::Busy { .. } => problem(
                ErrorKind::Conflict,
                errors::REGISTRY_BUSY,
                "wait for it; cairn registry status shows when it ends",
            ),
            Self::ReadOnly => {
                problem(ErrorKind::Conflict, errors::REGISTRY_READ_ONLY, "end that first: cairn registry read-only off")
            }
            Self::Leases(_) => {
                problem(ErrorKind::Unavailable, errors::REGISTRY_LEASES, "the log of the server says more")
            }
            Self::Storage(error @ StorageError::RunUnknown { .. }) => {
                Problem::new(ErrorKind::NotFound, errors::REGISTRY_RUN_UNKNOWN, chain(error)).hint(errors::NAME_A_RUN)
            }
            Self::Storage(_) | Self::Report(_) => {
                tracing::error!(error = self as &dyn std::error::Error, "work on the registry failed");
                problem(ErrorKind::Failed, errors::REGISTRY_STORAGE, "the log of the server says more")
            }
        }
    }
}

/// Who may work on the registry now.
#[derive(Default)]
pub(crate) struct Turns {
    turn: tokio::sync::Mutex<()>,
    running: Mutex<Option<RunKind>>,
}

impl Turns {
    pub(crate) fn running(&self) -> Option<RunKind> {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once nothing is under way.
    pub(crate) async fn ended(&self) {
        drop(self.turn.lock().await);
    }

    fn set(&self, kind: Option<RunKind>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = kind;
    }
}

/// Says that nothing is under way when it is dropped, also by a panic.
struct Running<'a>(&'a Turns);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl Service {
    /// Collects what nothing refers to.
    ///
    /// # Errors
    /// See [`UpkeepError`].
    pub(crate) async fn collect(self: &Arc<Self>, by: By, dry_run: bool) -> Result<Value, UpkeepError> {
        self.alone(RunKind::Collect, dry_run, by, move |service| async move {
            // Read last: what is taken into use after this is younger than any grace.
            let in_use = service.in_use().await?;
            let report = work::collect(service.registry().storage(), &service.settings.upkeep, dry_run, in_use).await?;
            if !dry_run {
                service.metrics.freed_bytes.inc_by(report.bytes);
                service.metrics.freed_blobs.inc_by(report.blobs);
            }
            to_value(&report)
        })
        .await
    }

    /// Brings back what is in quarantine, of one run or of all.
    ///
    /// # Errors
    /// See [`UpkeepError`].
    pub(crate) async fn restore(self: &Arc<Self>, by: By, run: Option<u64>) -> Result<Value, UpkeepError> {
        self.alone(RunKind::Restore, false, by, move |service| async move {
            to_value(&service.registry().storage().restore(run).await?)
        })
        .await
    }

    /// Removes tags that are too many.
    ///
    /// # Errors
    /// See [`UpkeepError`].
    pub(crate) async fn retain(self: &Arc<Self>, by: By, dry_run: bool) -> Result<Value, UpkeepError> {
        let remover = by.clone();
        self.alone(RunKind::Retention, dry_run, by, move |service| async move {
            let in_use = service.in_use().await?;
            let report = work::retain(service.registry().storage(), &service.settings.upkeep, dry_run, &in_use).await?;
            if !dry_run {
                service.metrics.tags_removed.inc_by(report.removed.len() as u64);
                for removed in &report.removed {
                    service.audit.tag_removed(&remover, removed);
                }
            }
            to_value(&report)
        })
        .await
    }

    /// Reads everything and compares it with its digest; mends what can be mended when `repair` is set.
    ///
    /// # Errors
    /// See [`UpkeepError`].
    pub(crate) async fn check(self: &Arc<Self>, by: By, repair: bool) -> Result<Value, UpkeepError> {
        // A check that only looks may look at a read-only registry too.
        self.alone(RunKind::Check, !repair, by, move |service| async move {
            to_value(&work::check(service.registry().storage(), repair, |_| {}).await?)
        })
        .await
    }

    /// What must stay whatever the tags say.
    async fn in_use(&self) -> Result<Vec<(RepositoryName, Digest)>, UpkeepError> {
        let mut in_use = Vec::new();
        for leases in &self.leases {
            in_use.extend(leases.in_use().await.map_err(UpkeepError::Leases)?);
        }
        Ok(in_use)
    }

    /// Does work while nobody else does. It runs as a task of its own: a client that goes away does not end it halfway.
    async fn alone<F>(
        self: &Arc<Self>,
        kind: RunKind,
        looks_only: bool,
        by: By,
        work: impl FnOnce(Arc<Self>) -> F + Send + 'static,
    ) -> Result<Value, UpkeepError>
    where
        F: Future<Output = Result<Value, UpkeepError>> + Send,
    {
        if self.registry().is_read_only() && !looks_only {
            return Err(UpkeepError::ReadOnly);
        }
        let service = Arc::clone(self);
        let task = tokio::spawn(async move {
            let Ok(_turn) = service.turns.turn.try_lock() else {
                return Err(UpkeepError::Busy { running: service.turns.running().unwrap_or(kind) });
            };
            service.turns.set(Some(kind));
            let _running = Running(&service.turns);
            // Taken down before the work, which may end halfway.
            if by.is_order() && !looks_only {
                service.audit.ordered(&by, kind.as_str(), None);
            }
            tokio::select! {
                done = service.recorded(kind, looks_only, work(Arc::clone(&service))) => done,
                () = service.stopping.cancelled() => Err(StorageError::Stopping.into()),
            }
        });
        match task.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StorageError::Stopping.into()),
            },
        }
    }

    async fn recorded(
        &self,
        kind: RunKind,
        looks_only: bool,
        work: impl Future<Output = Result<Value, UpkeepError>>,
    ) -> Result<Value, UpkeepError> {
        // A rehearsal is no run.
        let is_kept = kind == RunKind::Check || !looks_only;
        let (begun, started) = (self.clock.now(), Instant::now());
        let result = work.await;
        let ended = self.clock.now();
        let (outcome, detail) = match &result {
            Ok(report) => {
                if is_kept {
                    self.metrics.run_done(kind, ended.as_second(), started.elapsed());
                }
                let counts = counted(report);
                tracing::info!(run = kind.as_str(), looks_only, report = %counts, "work on the registry done");
                ("done", counts)
            }
            Err(error) => {
                self.metrics.run_failed(kind);
                tracing::error!(
                    run = kind.as_str(),
                    error = error as &dyn std::error::Error,
                    "work on the registry failed"
                );
                ("failed", Value::String(chain(error)))
            }
        };
        let (kind_text, outcome) = (kind.as_str().to_owned(), outcome.to_owned());
        let run = RunView { kind: kind_text, begun, ended, outcome, detail };
        if is_kept && let Err(error) = self.store.add_run(kind, &run).await {
            tracing::error!(error = &error as &dyn std::error::Error, "a run was not written down");
        }
        self.publish().await;
        self.publish_quarantine().await;
        result
    }
}

/// The report with the length of each list in its place: what is kept of it does not grow with the registry.
fn counted(report: &Value) -> Value {
    match report {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match value {
                Value::Array(list) => (name.clone(), Value::from(list.len())),
                other => (name.clone(), other.clone()),
            })
            .collect(),
        other => other.clone(),
    }
}

fn to_value<T: Serialize>(report: &T) -> Result<Value, UpkeepError> {
    Ok(serde_json::to_value(report)?)
}
