//! Bodies, with an end to how long they may take.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::observer::RequestReport;
use crate::storage::StorageError;

/// Most that is still read, in bytes and time, of a body that was refused.
const DRAIN_SIZE: u64 = 8 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyFault {
    /// The connection, or its framing, broke.
    #[error("the body broke off")]
    Broken(#[source] axum::Error),
    /// Nothing came for as long as a client may be silent.
    #[error("nothing was received for {} s", .0.as_secs())]
    Silent(Duration),
    /// It took longer than a request may.
    #[error("the body took too long")]
    TooSlow,
}

/// The body of a request.
pub(super) struct RequestBody {
    /// Whether it is known to have no bytes.
    pub(super) is_empty: bool,
    stream: BodyDataStream,
    silence: Duration,
    end: Instant,
}

impl RequestBody {
    /// `silence` is the longest pause between two pieces, `whole` the longest time for all of them.
    pub(super) fn new(body: Body, silence: Duration, whole: Duration) -> Self {
        let is_empty = body.is_end_stream();
        Self { is_empty, stream: body.into_data_stream(), silence, end: Instant::now() + whole }
    }

    async fn next(&mut self) -> Option<Result<Bytes, BodyFault>> {
        let silent = Instant::now() + self.silence;
        match tokio::time::timeout_at(silent.min(self.end), self.stream.next()).await {
            Ok(piece) => piece.map(|piece| piece.map_err(BodyFault::Broken)),
            Err(_) if self.end < silent => Some(Err(BodyFault::TooSlow)),
            Err(_) => Some(Err(BodyFault::Silent(self.silence))),
        }
    }

    /// The pieces as they come, up to the end or the first fault.
    pub(super) fn pieces(&mut self) -> impl Stream<Item = Result<Bytes, BodyFault>> + Send {
        futures::stream::unfold(Some(self), |body| async {
            let body = body?;
            let piece = body.next().await?;
            let goes_on = piece.is_ok();
            Some((piece, goes_on.then_some(body)))
        })
        .fuse()
    }

    /// The whole body, refused as soon as it is longer than `limit` bytes.
    pub(super) async fn whole(&mut self, limit: u64) -> Result<Bytes, StorageError> {
        let mut bytes = BytesMut::new();
        while let Some(piece) = self.next().await {
            bytes.extend_from_slice(&piece.map_err(|fault| StorageError::Interrupted(fault.into()))?);
            if bytes.len() as u64 > limit {
                return Err(StorageError::TooLarge { limit });
            }
        }
        Ok(bytes.freeze())
    }

    /// Reads on for a while. To close a connection on which bytes are still arriving resets it, and the client never
    /// gets to read why.
    pub(super) async fn drain(&mut self) {
        let reading = async {
            let mut left = DRAIN_SIZE;
            while let Some(Ok(piece)) = self.stream.next().await {
                left = left.saturating_sub(piece.len() as u64);
                if left == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
    }
}

/// The length that a request's headers give its body, in bytes.
pub(super) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(axum::http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The body of an answer. The report lives as long as it does; pieces pass unchanged.
struct AnswerBody {
    body: Body,
    end: Pin<Box<Sleep>>,
    _report: RequestReport,
}

/// Lets the report live as long as the body of the answer, and that as long as `longest`. The time counts when a piece
/// is wanted: a connection that takes nothing at all is for the server to cut.
pub(super) fn reported(response: Response, report: RequestReport, longest: Duration) -> Response {
    if response.body().is_end_stream() {
        return response;
    }
    let end = Box::pin(tokio::time::sleep(longest));
    response.map(|body| Body::new(AnswerBody { body, end, _report: report }))
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(BodyFault::TooSlow))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
