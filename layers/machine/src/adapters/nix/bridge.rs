//! A store elsewhere, as a socket here.
//!
//! Nix takes `unix:///PATH` for a daemon of this machine. What connects there is joined to `nix-daemon --stdio` on the other
//! side, over the SSH connection that there is: no second login, no ssh program, no key in a file for one.

use std::path::Path;
use std::time::Duration;

use host::{FileError, PrivateDirectory};
use reach::ssh::{Command, Connection};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::Error;
use super::program::{clean, says};

/// What names of its directories begin with.
pub(super) const PREFIX: &str = "cairn-nix-";
/// How long the daemon may take to end once nobody speaks to it.
const LINGER: Duration = Duration::from_secs(10);

/// A socket that ends in a store elsewhere, until this value goes.
pub(super) struct Bridge {
    directory: PrivateDirectory,
    task: JoinHandle<Option<Error>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Bridge {
    /// Makes the socket in a directory of its own below `place`.
    pub(super) fn open(connection: &Connection, place: &Path) -> Result<Self, Error> {
        let directory = PrivateDirectory::new(place, PREFIX)?;
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).map_err(FileError::at("listen at", &path))?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(listener, connection.clone(), stopped));
        Ok(Self { directory, task, stop: Some(stop) })
    }

    /// What Nix calls the store.
    pub(super) fn store(&self) -> String {
        format!("unix://{}/socket", self.directory.path().display())
    }

    /// Why the other side did not do its part, when what Nix wrote looks so. Its client has ended by now.
    pub(super) async fn failure(mut self, tail: &[String]) -> Option<Error> {
        drop(self.stop.take());
        let error = (&mut self.task).await.ok().flatten()?;
        let is_cut = says(tail, &["end-of-file", "end of file", "Broken pipe", "Connection reset"]);
        (is_cut || matches!(error, Error::Ssh(_))).then_some(error)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Joins clients to daemons until it is told to stop, waits for those that are left, and gives back the first failure.
async fn accept(listener: UnixListener, connection: Connection, mut stop: oneshot::Receiver<()>) -> Option<Error> {
    let (mut joined, mut failure) = (JoinSet::new(), None);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.ok()?;
                let connection = connection.clone();
                joined.spawn(async move { join(stream, &connection).await });
            }
            Some(ended) = joined.join_next() => failure = failure.or(ended.ok().and_then(Result::err)),
            _ = &mut stop => break,
        }
    }
    drop(listener);
    while let Some(ended) = joined.join_next().await {
        failure = failure.or(ended.ok().and_then(Result::err));
    }
    failure
}

/// Joins one client to one daemon until both have said everything.
async fn join(stream: UnixStream, connection: &Connection) -> Result<(), Error> {
    let command = Command::new("nix-daemon").arg("--stdio").as_root();
    let mut daemon = connection.spawn(&command).await?;
    let (Some(mut input), Some(mut output)) = (daemon.stdin.take(), daemon.stdout.take()) else { return Ok(()) };
    let (mut reader, mut writer) = stream.into_split();
    let to_daemon = async {
        // Either side may go away at any time; how the daemon ends tells more.
        let _ = tokio::io::copy(&mut reader, &mut input).await;
        // The end of its input is the end of the daemon.
        let _ = input.shutdown().await;
        drop(input);
    };
    let to_client = async {
        let _ = tokio::io::copy(&mut output, &mut writer).await;
        let _ = writer.shutdown().await;
    };
    tokio::join!(to_daemon, to_client);
    let place = connection.name().to_owned();
    match tokio::time::timeout(LINGER, daemon.wait()).await {
        Ok(Ok(exit)) if !exit.is_success() => {
            let (said, _) = daemon.stderr();
            let said = String::from_utf8_lossy(&said);
            let last = said.lines().rfind(|line| !line.trim().is_empty()).map(clean);
            Err(Error::Daemon { place, message: last.unwrap_or_else(|| format!("it ended with {exit}")) })
        }
        Ok(Err(error)) => Err(error.into()),
        // It ended well, or is slow to end after everything was said.
        _ => Ok(()),
    }
}
