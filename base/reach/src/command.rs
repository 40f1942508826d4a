//! A program of this machine, awaited.

use host::{Command, Linux, Output, ProcessError, Stop, Supervision};

/// Runs a command to its end on a thread of its own. Dropping the future kills the command and its children.
///
/// # Errors
/// As of [`Linux::run_supervised`].
pub async fn run(command: Command, supervision: Supervision) -> Result<Output, ProcessError> {
    let program = command.program().to_owned();
    let failed = |source| ProcessError::Start { program: program.clone(), source };
    let stop = Stop::new().map_err(failed)?;
    let _dropped = StopOnDrop(stop.clone());
    let supervision = supervision.stop(stop);
    let running = tokio::task::spawn_blocking(move || Linux.run_supervised(&command, &supervision));
    running.await.map_err(|error| failed(std::io::Error::other(error)))?
}

struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.now();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_command_ends_with_its_future() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Arc::new(host::LockFile::acquire(&path, "the command").unwrap());
        let (sender, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let on_line: host::OnLine = Arc::new(move |_| {
            let _ = sender.send(());
        });
        let supervision = Supervision::new().lock(lock).on_line(on_line);
        let command = Command::new("sh").args(["-c", "echo begun >&2; exec sleep 600"]);
        let running = tokio::spawn(run(command, supervision));
        begun.recv().await.unwrap();
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        // The sender goes with the thread that waited for the command.
        assert_eq!(begun.recv().await, None);
        host::LockFile::acquire(&path, "another").unwrap();
    }
}
