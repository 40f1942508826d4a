//! From one machine to another, through here.
//!
//! Not over a [bridge](super::bridge): Nix takes the daemon behind a socket for one of this machine and reads what it has to
//! send from the disk here. So the sender exports and the receiver imports, a few hundred paths at a time, what others
//! need first.

use std::time::Duration;

use reach::ssh::{Command, Connection, Running};
use tokio::io::AsyncWriteExt;

use super::roots::store_path;
use super::{Error, Nix};

/// Paths in one command line: Linux takes 128 KiB for a shell's line.
const PATHS: usize = 400;
/// Most output of a query, in bytes: closures of systems have some thousand paths.
const OUTPUT: usize = 8 << 20;

impl Nix {
    /// Sends a path and all that it needs, as far as the receiver has not got it.
    pub(super) async fn relay(
        &self,
        path: &str,
        from: &Connection,
        to: &Connection,
        limit: Duration,
    ) -> Result<(), Error> {
        let late = |_| Error::Timeout { operation: "copy", seconds: limit.as_secs() };
        tokio::time::timeout(limit, send(path, from, to, limit)).await.map_err(late)?
    }
}

async fn send(path: &str, from: &Connection, to: &Connection, limit: Duration) -> Result<(), Error> {
    let closure = ask(from, &["--query", "--requisites"], &[path.to_owned()], limit).await?;
    for part in closure.chunks(PATHS) {
        let wanted = ask(to, &["--check-validity", "--print-invalid"], part, limit).await?;
        if wanted.is_empty() {
            continue;
        }
        let mut sender = from.spawn(&command(&["--export"], &wanted)).await?;
        let mut receiver = to.spawn(&command(&["--import"], &[])).await?;
        if let (Some(mut output), Some(mut input)) = (sender.stdout.take(), receiver.stdin.take()) {
            // When either ends early, its status tells why.
            let _ = tokio::io::copy(&mut output, &mut input).await;
            let _ = input.shutdown().await;
        }
        ended(&mut receiver, path, to).await?;
        ended(&mut sender, path, from).await?;
    }
    Ok(())
}

/// Asks a machine's store for paths.
async fn ask(connection: &Connection, what: &[&str], about: &[String], limit: Duration) -> Result<Vec<String>, Error> {
    let command = command(what, about).output_limit(OUTPUT);
    let output = connection.run(&command, &[], limit).await?;
    if !output.exit.is_success() {
        let place = connection.name().to_owned();
        return Err(Error::Remote { place, operation: "look into the store", message: output.stderr_text() });
    }
    output.stdout_text().lines().map(|path| store_path(path).map(str::to_owned)).collect()
}

fn command(what: &[&str], about: &[String]) -> Command {
    Command::new("nix-store").args(what).args(about).as_root()
}

async fn ended(running: &mut Running, path: &str, connection: &Connection) -> Result<(), Error> {
    if running.wait().await?.is_success() {
        return Ok(());
    }
    let (said, _) = running.stderr();
    let tail: Vec<String> = String::from_utf8_lossy(&said).lines().map(super::program::clean).collect();
    Err(super::copy::failed(path, connection.name(), tail))
}
