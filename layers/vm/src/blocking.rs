//! Work that blocks, on a thread for it.

use crate::errors;
use crate::ports::StepError;

/// Runs it where it holds nobody up. A panic in it goes on here.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(end) => match end.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down, and nobody waits for this any more.
            Err(_) => Err(StepError::new(errors::HYPERVISOR, "this process is ending")),
        },
    }
}
