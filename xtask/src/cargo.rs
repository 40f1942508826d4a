//! Calls of cargo in the workspace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The workspace's directory.
pub(crate) fn root() -> Result<PathBuf> {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).context("xtask lies in no workspace")
}

/// The cargo that started us, in the workspace's directory.
pub(crate) fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(testkit::environment::cargo());
    command.current_dir(root()?).args(arguments).stdin(std::process::Stdio::null());
    Ok(command)
}

/// Builds the programs themselves.
pub(crate) fn build() -> Result<()> {
    println!("building cairn");
    let status = cargo(&["build"])?.status().context("start cargo")?;
    ensure!(status.success(), "cargo build ended with {status}");
    Ok(())
}
