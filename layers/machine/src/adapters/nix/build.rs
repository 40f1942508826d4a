//! From a derivation to a system.

use std::time::Duration;

use host::OnLine;
use reach::ssh::Connection;

use super::bridge::Bridge;
use super::program::{Failed, Where, says};
use super::roots::store_path;
use super::{Error, Evaluated, Nix, Place};

impl Nix {
    /// Builds what was evaluated, or takes it from a cache, where it is to be built. It is held there under `root`. What Nix
    /// and the builders write goes to `on_line`, line by line.
    ///
    /// # Errors
    /// [`Error::Build`] with the end of the log, [`Error::DiskFull`], [`Error::Timeout`], and everything that keeps a machine
    /// from answering.
    pub async fn build(
        &self,
        evaluated: &Evaluated,
        place: Place<'_>,
        root: &str,
        on_line: Option<&OnLine>,
        limit: Duration,
    ) -> Result<(), Error> {
        store_path(&evaluated.derivation)?;
        store_path(&evaluated.output)?;
        match place {
            Place::Here => self.build_here(evaluated, root, on_line, limit).await,
            Place::There(connection) => self.build_there(evaluated, connection, root, on_line, limit).await,
        }
    }

    async fn build_here(
        &self,
        evaluated: &Evaluated,
        root: &str,
        on_line: Option<&OnLine>,
        limit: Duration,
    ) -> Result<(), Error> {
        let link = self.output_root(root)?;
        host::remove_if_present(&link)?;
        let command = self
            .command("nix-store", Where::Here, limit)
            .args(["--realise", &evaluated.derivation, "--add-root"])
            .arg(link.display().to_string())
            .arg("--indirect");
        match self.run("build", command, None, on_line).await {
            Ok(_) => {}
            Err(Failed::Error(error)) => return Err(error),
            Err(Failed::Exit { tail, .. }) => return Err(failed(evaluated, None, tail)),
        }
        let found = std::fs::read_link(&link).map_err(host::FileError::at("read", &link))?;
        if found.as_os_str() == evaluated.output.as_str() {
            return Ok(());
        }
        Err(Error::Missing { path: evaluated.output.clone(), place: None })
    }

    async fn build_there(
        &self,
        evaluated: &Evaluated,
        connection: &Connection,
        root: &str,
        on_line: Option<&OnLine>,
        limit: Duration,
    ) -> Result<(), Error> {
        self.hold_there(connection, root, &[&evaluated.derivation, &evaluated.output]).await?;
        let bridge = Bridge::open(connection, &self.bridge_place())?;
        let place = Some(connection.name().to_owned());
        let copy = self
            .command("nix", Where::There, limit)
            .args(["copy", "--no-check-sigs", "--derivation", "--to", &bridge.store()])
            .arg(&evaluated.derivation);
        let build = self.command("nix-store", Where::There, limit).args([
            "--store",
            &bridge.store(),
            "--realise",
            &evaluated.derivation,
        ]);
        for command in [copy, build] {
            match self.run("build", command, None, on_line).await {
                Ok(_) => {}
                Err(Failed::Error(error)) => return Err(error),
                Err(Failed::Exit { tail, .. }) => {
                    let failure = bridge.failure(&tail).await;
                    return Err(failure.unwrap_or_else(|| failed(evaluated, place, tail)));
                }
            }
        }
        Ok(())
    }
}

fn failed(evaluated: &Evaluated, place: Option<String>, tail: Vec<String>) -> Error {
    if says(&tail, &["No space left on device"]) {
        return Error::DiskFull { place };
    }
    match place {
        Some(place) if says(&tail, &["lacks a valid signature", "lacks a signature"]) => Error::NotTrusted { place },
        place => Error::Build { derivation: evaluated.derivation.clone(), place, tail },
    }
}
