//! The guest's serial console: what it said, and what it is told.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::unfold;
use host::FileWatch;
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;
use web::Problem;

use super::body::unread;
use super::query::Pairs;
use super::{Shared, invalid, vm_id};
use crate::model::VmId;
use crate::service::{Caller, Service};

/// Lines when nothing is said.
const LINES: usize = 1000;
/// Bytes that are read in one go.
const PIECE: usize = 64 << 10;
/// Between two looks when the kernel does not tell of news.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks whether the VM is still there.
const LOOK: Duration = Duration::from_secs(30);

pub(super) async fn logs(
    State(api): Shared,
    Extension(shutdown): Extension<CancellationToken>,
    caller: Caller,
    Path(id): Path<String>,
    query: Pairs,
) -> Result<Response, Problem> {
    query.only(&["tail", "follow"])?;
    let lines = match query.one::<String>("tail")?.as_deref() {
        None => LINES,
        Some("all") => usize::MAX,
        Some(number) => number.parse().map_err(|_| invalid("tail: a number of lines, or all, was expected"))?,
    };
    let follow = query.switch("follow")?;
    let id = vm_id(&id)?;
    api.service.get(&caller, &id).await?;
    let path = api.service.console_path(&id);
    let read = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || tail(&path, lines)).await
    };
    let (text, open) = read.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    let body = if follow {
        let following = Following::new(Arc::clone(&api.service), caller, id, path, open);
        Body::from_stream(following.stream(text, shutdown))
    } else {
        Body::from(text)
    };
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

pub(super) async fn type_in(
    State(api): Shared,
    caller: Caller,
    Path(id): Path<String>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let bytes = bytes.map_err(|rejection| unread(&rejection))?;
    api.service.type_in(&caller, &vm_id(&id)?, &bytes).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A console file, and how far it was read.
#[derive(Debug)]
struct Open {
    file: File,
    read: u64,
}

/// The last lines of a console and of the part before it, and the file to go on with.
fn tail(path: &FilePath, lines: usize) -> io::Result<(Vec<u8>, Option<Open>)> {
    let mut open = opened(path)?;
    let mut text = match &mut open {
        Some(open) => {
            let mut text = Vec::new();
            open.read = open.file.read_to_end(&mut text)? as u64;
            text
        }
        None => Vec::new(),
    };
    let mut earlier = path.as_os_str().to_owned();
    earlier.push(".1");
    if count(&text) < lines
        && let Some(mut before) = opened(FilePath::new(&earlier))?
    {
        let mut whole = Vec::new();
        before.file.read_to_end(&mut whole)?;
        whole.append(&mut text);
        text = whole;
    }
    Ok((last_lines(&text, lines).to_vec(), open))
}

fn opened(path: &FilePath) -> io::Result<Option<Open>> {
    match File::open(path) {
        Ok(mut file) => {
            file.seek(SeekFrom::Start(0))?;
            Ok(Some(Open { file, read: 0 }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn count(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// So many lines from the end; what stands after the last line break is one too.
fn last_lines(text: &[u8], lines: usize) -> &[u8] {
    if lines == 0 {
        return &[];
    }
    let whole = text.strip_suffix(b"\n").unwrap_or(text);
    let breaks = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let start = breaks.map(|(at, _)| at + 1).nth(lines - 1);
    &text[start.unwrap_or(0)..]
}

/// Somebody who follows a console, over the replacement of its file, until the VM is gone.
struct Following {
    service: Arc<Service>,
    caller: Caller,
    id: VmId,
    path: PathBuf,
    open: Option<Open>,
    watch: Option<(FileWatch, Receiver)>,
}

impl Following {
    fn new(service: Arc<Service>, caller: Caller, id: VmId, path: PathBuf, open: Option<Open>) -> Self {
        let watch = FileWatch::new(&path).and_then(|watch| {
            // It is no pipe, and is read like one.
            let news = Receiver::from_file_unchecked(watch.reader()?).map_err(host::FileError::at("watch", &path))?;
            Ok((watch, news))
        });
        if let Err(error) = &watch {
            // Limits of inotify, as a rule; looking once a second does it too.
            tracing::warn!(vm_id = %id, error = error as &dyn std::error::Error, "console is looked at instead of watched");
        }
        Self { service, caller, id, path, open, watch: watch.ok() }
    }

    fn stream(
        self,
        text: Vec<u8>,
        shutdown: CancellationToken,
    ) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
        unfold((self, Some(text)), move |(mut following, first)| {
            let shutdown = shutdown.clone();
            async move {
                if let Some(first) = first.filter(|first| !first.is_empty()) {
                    return Some((Ok(Bytes::from(first)), (following, None)));
                }
                tokio::select! {
                    piece = following.next() => Some((piece.transpose()?, (following, None))),
                    () = shutdown.cancelled() => None,
                }
            }
        })
    }

    /// What is new; waits until something is. Nothing once the VM is gone.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let before = self.open.as_ref().map(id_of);
            let piece = self.read().await?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
            if before != self.open.as_ref().map(id_of) {
                // It is watched only since now, and may have grown before.
                continue;
            }
            if !self.service.may_see(&self.caller, &self.id) || !self.wait().await {
                return Ok(None);
            }
        }
    }

    /// The next piece, from the file that has the name now once the one that is open is used up.
    async fn read(&mut self) -> io::Result<Bytes> {
        let before = self.open.as_ref().map(id_of);
        let (open, path) = (self.open.take(), self.path.clone());
        let read = tokio::task::spawn_blocking(move || read(open, &path)).await.map_err(io::Error::other)?;
        let (piece, open) = read?;
        let is_another = before != open.as_ref().map(id_of);
        self.open = open;
        if is_another && let Some((watch, _)) = &self.watch {
            watch.renew().map_err(io::Error::other)?;
        }
        Ok(piece)
    }

    /// Waits for news. False when nobody can tell any more.
    async fn wait(&self) -> bool {
        let Some((_, news)) = &self.watch else {
            tokio::time::sleep(PAUSE).await;
            return true;
        };
        match tokio::time::timeout(LOOK, news.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return false,
            Err(_) => return true,
        }
        let mut buffer = [0; 4096];
        loop {
            match news.try_read(&mut buffer) {
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}

fn id_of(open: &Open) -> (u64, u64) {
    open.file.metadata().map(|data| (data.dev(), data.ino())).unwrap_or_default()
}

fn read(open: Option<Open>, path: &FilePath) -> io::Result<(Bytes, Option<Open>)> {
    if let Some(mut open) = open {
        let piece = piece(&mut open)?;
        if !piece.is_empty() {
            return Ok((piece, Some(open)));
        }
        let is_same = std::fs::metadata(path).is_ok_and(|data| (data.dev(), data.ino()) == id_of(&open));
        if is_same {
            let is_cut = open.file.metadata()?.len() < open.read;
            open.read = if is_cut { 0 } else { open.read };
            let piece = if is_cut { self::piece(&mut open)? } else { Bytes::new() };
            return Ok((piece, Some(open)));
        }
        // Another file has the name; what was written into this one before that comes first.
        let rest = self::piece(&mut open)?;
        if !rest.is_empty() {
            return Ok((rest, Some(open)));
        }
    }
    let Some(mut open) = opened(path)? else { return Ok((Bytes::new(), None)) };
    Ok((piece(&mut open)?, Some(open)))
}

fn piece(open: &mut Open) -> io::Result<Bytes> {
    let mut buffer = vec![0; PIECE];
    let length = open.file.read_at(&mut buffer, open.read)?;
    buffer.truncate(length);
    open.read += length as u64;
    Ok(buffer.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
            ("\n\n", 1, "\n"),
        ] {
            assert_eq!(last_lines(text.as_bytes(), lines), expected.as_bytes(), "{text:?} {lines}");
        }
    }

    #[test]
    fn a_console_goes_on_from_one_file_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm.log");
        let (text, open) = tail(&path, 10).unwrap();
        assert!(text.is_empty() && open.is_none());
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let (text, open) = tail(&path, 1).unwrap();
        assert_eq!(text, b"two\n");
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, b"three\n").unwrap();
        std::fs::rename(&path, directory.path().join("vm.log.1")).unwrap();
        std::fs::write(&path, "four\n").unwrap();
        let (piece, open) = read(open, &path).unwrap();
        assert_eq!(&piece[..], b"three\n");
        let (piece, open) = read(open, &path).unwrap();
        assert_eq!(&piece[..], b"four\n");
        let (piece, _) = read(open, &path).unwrap();
        assert!(piece.is_empty());
        let (text, _) = tail(&path, 3).unwrap();
        assert_eq!(text, b"two\nthree\nfour\n");
    }
}
