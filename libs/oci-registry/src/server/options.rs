//! What a program hands a registry: limits, and hooks.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Extensions;
use bytes::Bytes;

use super::{Access, Observer, Unobserved};
use crate::cache::Upstream;
use crate::storage::Limits;

/// Bytes read from disk in one go.
const READ_SIZE: usize = 512 << 10;

/// Limits and hooks of a [`super::Registry`].
#[derive(Clone)]
pub struct Options {
    /// Limits of what is stored.
    pub limits: Limits,
    /// Requests that send a blob at the same time. One more waits up to [`Options::read_timeout`] for its turn.
    pub max_concurrent_uploads: usize,
    /// Longest that a request may take to send its body.
    pub upload_timeout: Duration,
    /// Longest that an answer may take to be sent.
    pub download_timeout: Duration,
    /// Longest pause between two pieces of a request's body, and longest that the store may take for an answer without a
    /// blob's bytes: tags, referrers, catalog, manifests, blob deletion and the state of an upload. An upstream has limits
    /// of its own.
    pub read_timeout: Duration,
    /// Whether `_catalog` lists the repositories that the asker may pull.
    pub catalog: bool,
    /// Who may do what.
    pub access: Arc<dyn Access>,
    /// Hears what happens.
    pub observer: Arc<dyn Observer>,
    /// How files are sent.
    pub files: Arc<dyn FileBody>,
    /// Registries that parts of this one are a cache of; see [`crate::cache`].
    pub cache: Vec<Upstream>,
}

impl Options {
    /// 8 uploads at a time, of at most an hour; downloads of at most half an hour; 30 s without a byte; no catalog,
    /// nothing heard, files read and sent, no upstreams, [`Limits::default`].
    pub fn new(access: Arc<dyn Access>) -> Self {
        Self {
            limits: Limits::default(),
            max_concurrent_uploads: 8,
            upload_timeout: Duration::from_secs(3600),
            download_timeout: Duration::from_secs(1800),
            read_timeout: Duration::from_secs(30),
            catalog: false,
            access,
            observer: Arc::new(Unobserved),
            files: Arc::new(ReadBody),
            cache: Vec::new(),
        }
    }
}

/// Makes the body of an answer from a part of a file. A program that knows the connection may let the kernel send it.
pub trait FileBody: Send + Sync {
    /// `length` bytes from `first` on, which are there. `extensions` are those of the request; `sent` is told of bytes
    /// as they go out. Does not block.
    fn body(
        &self,
        extensions: &Extensions,
        file: File,
        first: u64,
        length: u64,
        sent: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Body;
}

/// Reads the file a piece at a time on the blocking pool.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadBody;

impl FileBody for ReadBody {
    fn body(&self, _: &Extensions, file: File, first: u64, length: u64, sent: Arc<dyn Fn(u64) + Send + Sync>) -> Body {
        let file = Arc::new(file);
        let pieces = futures::stream::try_unfold((first, length), move |(first, left)| {
            let (file, sent) = (Arc::clone(&file), Arc::clone(&sent));
            async move {
                if left == 0 {
                    return Ok(None);
                }
                let wanted = usize::try_from(left).unwrap_or(READ_SIZE).min(READ_SIZE);
                let piece = tokio::task::spawn_blocking(move || read(&file, first, wanted)).await??;
                let length = piece.len() as u64;
                sent(length);
                Ok::<_, std::io::Error>(Some((piece, (first + length, left - length))))
            }
        });
        Body::from_stream(pieces)
    }
}

fn read(file: &File, first: u64, wanted: usize) -> std::io::Result<Bytes> {
    let mut piece = vec![0; wanted];
    file.read_exact_at(&mut piece, first)?;
    Ok(piece.into())
}
