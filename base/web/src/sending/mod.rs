//! Files in answers, sent by the kernel where that can be: from the page cache to the socket (sendfile(2)), without a
//! copy through this process.
//!
//! hyper writes bytes and knows no files. So a body over a plain connection of [`crate::serve`] hands hyper *stand-ins*:
//! slices of a region that is never read. hyper orders them between heads and other bodies, and when the connection is
//! to write one, it is known by its address and the bytes go out of the file instead ([`Queue`]). Nothing can make
//! bytes of the region itself go out: a stand-in that is dropped before its bytes have been sent, for instance because
//! somebody copied them, cuts the connection. docs/decisions/0016 says why this and not a loop of our own.

mod connection;
mod queue;
mod read;
mod send;

use std::fs::File;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Extensions;

pub(crate) use connection::Connection;
pub(crate) use queue::Queue;

/// Told of bytes of a file that have gone out.
type Sent = Arc<dyn Fn(u64) + Send + Sync>;

/// The body of an answer: `length` bytes of `file` from `first` on. `extensions` are those of the request.
///
/// The file is opened by the caller, must be a regular one and may not become shorter; if it does, the connection ends
/// before the promised length. `sent` is told how many bytes went to the kernel, as they go. Over TLS, and where the
/// connection is not one of [`crate::serve`], the file is read into memory a piece at a time, and `sent` is told of a
/// piece when it is handed over, at most 256 KiB before they go out.
///
/// The body must reach the connection as it is: middleware that looks at the bytes of answers (to compress them, to
/// hash them) does not go together with it, and what it makes of them does not get out.
///
/// Bytes that are not in the page cache are fetched on the blocking pool before they are sent. What remains: a page that
/// is evicted between those two steps is read by the thread of the connection, and so is all of a file on a file system
/// that cannot tell what is cached.
pub fn file_body(
    extensions: &Extensions,
    file: File,
    first: u64,
    length: u64,
    sent: Arc<dyn Fn(u64) + Send + Sync>,
) -> Body {
    let end = first.saturating_add(length);
    match extensions.get::<Arc<Queue>>() {
        Some(queue) => Body::new(send::SendBody::new(Arc::clone(queue), file, first, end, sent)),
        None => Body::new(read::ReadBody::new(file, first, end, sent)),
    }
}
