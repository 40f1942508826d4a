//! Upload sessions that nobody has written to for long.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::received::Known;
use super::session::Session;
use super::{Inner, Storage, StorageError, files, layout, lock};
use crate::{Algorithm, RepositoryName};

impl Storage {
    /// Removes the sessions that nobody has written to for [`super::Limits::upload_expiry`] and returns how many those
    /// were. Done at start; a program that runs for long does it from time to time.
    ///
    /// # Errors
    /// A directory cannot be listed or a file not be removed.
    pub async fn expire_uploads(&self) -> Result<u64, StorageError> {
        self.run(|inner| inner.expire_uploads()).await
    }
}

impl Inner {
    pub(super) fn expire_uploads(&self) -> Result<u64, StorageError> {
        let mut expired = Vec::new();
        self.walk_repositories(&mut |name, _| {
            let directory = self.layout.repository(name).join(layout::UPLOADS);
            for (id, kind) in files::list(&directory)? {
                let path = directory.join(&id);
                if let (false, true, Ok(id)) = (kind.is_dir(), self.is_abandoned(&path), Uuid::try_parse(&id)) {
                    expired.push((name.clone(), id, path));
                }
            }
            Ok(())
        })?;
        let mut removed = 0;
        for (repository, id, path) in expired {
            removed += u64::from(self.expire_upload(repository, id, &path)?);
        }
        Ok(removed)
    }

    /// Removes a session unless it is in use again; whether it was removed.
    fn expire_upload(&self, repository: RepositoryName, id: Uuid, path: &Path) -> Result<bool, StorageError> {
        // Also one that was not used since the start: a request that comes now waits for its turn.
        let session = Arc::clone(
            lock(&self.sessions)
                .entry(id)
                .or_insert_with(|| Arc::new(Session::new(repository, path.to_owned(), Algorithm::Sha256))),
        );
        // Whoever is writing, however slowly, keeps the session. So does whoever wrote since it was looked at.
        let Ok(_turn) = session.turn.try_lock() else { return Ok(false) };
        if !self.is_abandoned(path) {
            return Ok(false);
        }
        tracing::info!(path = %path.display(), "removing an abandoned upload");
        *lock(&session.received) = Known::Nothing;
        lock(&self.sessions).remove(&id);
        files::remove(path)
    }

    fn is_abandoned(&self, path: &Path) -> bool {
        // The file system's own clock wrote the time that this compares with.
        let age = fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
        matches!(age, Ok(Ok(age)) if age > self.limits.upload_expiry)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;

    use super::super::Limits;
    use super::*;

    #[tokio::test]
    async fn what_was_written_since_it_looked_abandoned_stays() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path(), Limits::default()).await.unwrap();
        let name: RepositoryName = "a".parse().unwrap();
        let id = storage.start_upload(&name, Algorithm::Sha256).await.unwrap().id();
        let (inner, path) = (&storage.inner, storage.inner.layout.upload(&name, id));
        let expire = || inner.expire_upload(name.clone(), id, &path).unwrap();
        let body = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"bytes"))]);
        storage.upload(&name, id).await.unwrap().append(body, None).await.unwrap();
        assert!(!expire());
        assert_eq!(storage.upload(&name, id).await.unwrap().offset().await.unwrap(), 5);

        fs::File::options().write(true).open(&path).unwrap().set_modified(UNIX_EPOCH).unwrap();
        let upload = storage.upload(&name, id).await.unwrap();
        assert!(!expire(), "it has its turn");
        drop(upload);
        assert!(expire() && !path.exists());
        assert!(matches!(storage.upload(&name, id).await, Err(StorageError::UploadUnknown)));
    }
}
