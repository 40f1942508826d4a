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
    /// through here and stays in neither memory nor store. What is there already is not sent. It is held there under
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
        let target = Bridge::open(to, &self.bridge_place())?;
        let source = match from {
            Place::Here => None,
            Place::There(connection) => Some(Bridge::open(connection, &self.bridge_place())?),
        };
        let mut command = self.command("nix", Where::There, limit).args(["copy", "--no-check-sigs"]);
        if self.settings.substitute_on_destination {
            command = command.arg("--substitute-on-destination");
        }
        if let Some(source) = &source {
            command = command.args(["--from", &source.store()]);
        }
        let command = command.args(["--to", &target.store(), path]);
        let tail = match self.run("copy", command, None, on_line).await {
            Ok(_) => return Ok(()),
            Err(Failed::Error(error)) => return Err(error),
            Err(Failed::Exit { tail, .. }) => tail,
        };
        for bridge in [Some(target), source].into_iter().flatten() {
            if let Some(error) = bridge.failure(&tail).await {
                return Err(error);
            }
        }
        let place = to.name().to_owned();
        if says(&tail, &["No space left on device"]) {
            return Err(Error::DiskFull { place: Some(place) });
        }
        if says(&tail, &["lacks a valid signature", "lacks a signature"]) {
            return Err(Error::NotTrusted { place });
        }
        Err(Error::Copy { path: path.to_owned(), place, tail })
    }
}
