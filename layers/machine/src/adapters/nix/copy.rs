//! From one store to another.

use std::time::Duration;

use host::OnLine;
use reach::ssh::Connection;

use super::bridge::Bridge;
use super::program::{Failed, Where, says};
use super::roots::store_path;
use super::{Error, Nix, Place};

impl Nix {
    /// Brings a path and all that it needs to a machine, from here or from where it was built; between two machines it goes
    /// through here and stays neither in memory nor in the store. What is there already is not sent. It is held there under
    /// `root` from before it arrives.
    ///
    /// # Errors
    /// [`Error::Copy`], [`Error::DiskFull`], [`Error::NotTrusted`], [`Error::Daemon`], [`Error::Timeout`], and everything that
    /// keeps a machine from answering.
    pub async fn copy(
        &self,
        path: &str,
        from: Place<'_>,
        to: &Connection,
        root: &str,
        on_line: Option<&OnLine>,
        limit: Duration,
    ) -> Result<(), Error> {
        store_path(path)?;
        self.hold_there(to, root, &[path]).await?;
        if let Place::There(from) = from {
            return self.relay(path, from, to, limit).await;
        }
        let bridge = Bridge::open(to, &self.bridge_place())?;
        let mut command = self.command("nix", Where::There, limit).args(["copy", "--no-check-sigs"]);
        if self.settings.substitute_on_destination {
            command = command.arg("--substitute-on-destination");
        }
        let command = command.args(["--to", &bridge.store(), path]);
        match self.run("copy", command, None, on_line).await {
            Ok(_) => Ok(()),
            Err(Failed::Error(error)) => Err(error),
            Err(Failed::Exit { tail, .. }) => {
                let failure = bridge.failure(&tail).await;
                Err(failure.unwrap_or_else(|| failed(path, to.name(), tail)))
            }
        }
    }
}

/// Why a copy failed, by what Nix wrote.
pub(super) fn failed(path: &str, place: &str, tail: Vec<String>) -> Error {
    let place = place.to_owned();
    if says(&tail, &["No space left on device"]) {
        return Error::DiskFull { place: Some(place) };
    }
    if says(&tail, &["lacks a valid signature", "lacks a signature"]) {
        return Error::NotTrusted { place };
    }
    Error::Copy { path: path.to_owned(), place, tail }
}
