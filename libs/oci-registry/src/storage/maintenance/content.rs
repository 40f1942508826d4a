//! Whether bytes on disk are what their name says.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::super::{StorageError, files};
use crate::Digest;

/// Bytes that are read at once.
const PART: usize = 512 << 10;

/// Whether a file has this digest; `false` when there is none.
pub(super) fn has_digest(path: &Path, digest: &Digest) -> Result<bool, StorageError> {
    match files::open(path) {
        Ok((mut file, _)) => is_content_of(&mut file, path, digest, &mut |_| Ok(())),
        Err(error) if files::is_absent(&error) => Ok(false),
        Err(source) => Err(StorageError::Read { path: path.to_owned(), source }),
    }
}

/// Whether an open file has this digest. `read` hears of the bytes of each part, and may end it.
pub(super) fn is_content_of(
    file: &mut File,
    path: &Path,
    digest: &Digest,
    read: &mut dyn FnMut(u64) -> Result<(), StorageError>,
) -> Result<bool, StorageError> {
    let mut hasher = digest.algorithm().hasher();
    let mut buffer = vec![0; PART];
    loop {
        let count = file.read(&mut buffer).map_err(|source| StorageError::Read { path: path.to_owned(), source })?;
        if count == 0 {
            return Ok(hasher.finish() == *digest);
        }
        hasher.update(&buffer[..count]);
        read(count as u64)?;
    }
}
