//! Answers without a blob's bytes have [`Options::read_timeout`](super::Options::read_timeout): a disk that hangs is said
//! to hang.

use std::time::Duration;

use axum::http::header;
use axum::response::Response;
use tracing::Instrument as _;

use super::error::{Code, Failure};

/// The answer of what only looks, or 503.
pub(super) async fn looked(
    longest: Duration,
    answer: impl Future<Output = Result<Response, Failure>>,
) -> Result<Response, Failure> {
    tokio::time::timeout(longest, answer).await.unwrap_or_else(|_| Err(too_slow()))
}

/// The answer of what changes something, or 503. The change goes on all the same, and is told to the observer, also when
/// the client goes away.
pub(super) async fn changed(
    longest: Duration,
    answer: impl Future<Output = Result<Response, Failure>> + Send + 'static,
) -> Result<Response, Failure> {
    match tokio::time::timeout(longest, tokio::spawn(answer.in_current_span())).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The program is going down.
            Err(_) => Err(too_slow()),
        },
        Err(_) => Err(too_slow()),
    }
}

fn too_slow() -> Failure {
    tracing::error!("the registry's storage does not answer in time");
    Failure::new(Code::Internal, "the registry's storage does not answer in time")
        .with_status(503)
        .with_header(header::RETRY_AFTER, "10")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::response::IntoResponse as _;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_takes_too_long_is_503_and_a_change_is_still_made() {
        let done = || async { Ok("done".into_response()) };
        let (short, long) = (Duration::from_millis(10), Duration::from_secs(600));
        assert!(looked(long, done()).await.is_ok() && changed(long, done()).await.is_ok());
        let response = looked(short, std::future::pending()).await.unwrap_err().into_response();
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"10".parse().unwrap()));
        let (disk, made) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (slow, making) = (Arc::clone(&disk), Arc::clone(&made));
        let late = async move {
            slow.notified().await;
            making.notify_one();
            done().await
        };
        assert_eq!(changed(short, late).await.unwrap_err().into_response().status(), 503);
        disk.notify_one();
        made.notified().await;
    }
}
