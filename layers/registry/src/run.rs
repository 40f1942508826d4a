//! The daemon: writes the record, keeps what is stored small, publishes how it is doing.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::audit::By;
use crate::model::RunKind;
use crate::service::Service;
use crate::upkeep::UpkeepError;

/// Between two looks at what the gauges tell.
const PUBLISH: Duration = Duration::from_secs(15);
/// From the start to the first round, unless the interval is shorter.
const FIRST_ROUND: Duration = Duration::from_secs(120);

/// The registry cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// One of its tasks panicked. The process ends: what the panic left behind is not known, and a restart looks.
    #[error("a task of the registry panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// Runs until `shutdown`. Work on the whole registry that is under way then ends where it is: each step of it is safe to
/// be cut off after.
///
/// # Errors
/// A task panicked.
pub async fn run(service: Arc<Service>, shutdown: CancellationToken) -> Result<(), RunError> {
    let mut tasks = JoinSet::new();
    let (audited, token) = (Arc::clone(&service), shutdown.clone());
    tasks.spawn(async move { audited.writer.lock().await.run(&token).await });
    let (kept, token) = (Arc::clone(&service), shutdown.clone());
    tasks.spawn(async move { keep(&kept, &token).await });
    let (told, token) = (Arc::clone(&service), shutdown.clone());
    tasks.spawn(async move { publish(&told, &token).await });
    let (stopped, token) = (Arc::clone(&service), shutdown.clone());
    tasks.spawn(async move {
        token.cancelled().await;
        stopped.stopping.cancel();
        stopped.turns.ended().await;
    });
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(RunError::Panicked)?;
    }
    Ok(())
}

async fn publish(service: &Service, shutdown: &CancellationToken) {
    let mut interval = tokio::time::interval(PUBLISH);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => service.publish().await,
        }
    }
}

/// A round every interval. Hosts that were started together do not all read their disks at the same moment.
async fn keep(service: &Arc<Service>, shutdown: &CancellationToken) {
    let interval = service.settings.upkeep.interval;
    let mut pause = FIRST_ROUND.min(interval);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause + pause.mul_f64(rand::random::<f64>() / 10.0)) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = round(service) => {}
        }
        pause = interval;
    }
}

/// Retention first, so that what it lets go of begins its grace; then collection; then abandoned uploads.
async fn round(service: &Arc<Service>) {
    told(service, RunKind::Retention, service.retain(By::retention(), false).await.map(drop));
    told(service, RunKind::Collect, service.collect(By::retention(), false).await.map(drop));
    if let Err(error) = service.registry().storage().expire_uploads().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "abandoned uploads stay");
    }
}

/// A failure has been told where it happened; what was not even tried is told here.
fn told(service: &Service, kind: RunKind, done: Result<(), UpkeepError>) {
    if let Err(error @ (UpkeepError::Busy { .. } | UpkeepError::ReadOnly)) = done {
        service.metrics.run_skipped(kind);
        tracing::info!(run = kind.as_str(), reason = %error, "work on the registry left out");
    }
}
