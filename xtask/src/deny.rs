//! Licences, bans and sources of everything in Cargo.lock, by a cargo-deny that is built once and kept in the cache.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use testkit::{environment, process};

use crate::cargo;
use crate::summary::Counts;

/// The release that `deny.toml` is written for.
const VERSION: &str = "0.20.2";

/// What is left out, and why.
const ADVISORIES: &str = "cargo deny check advisories: the database of advisories comes from no package registry";

/// The command that checks, or why there is none.
pub(crate) fn command(counts: &mut Counts) -> Result<Option<Command>> {
    let mut say = |what: &str| {
        eprintln!("NOT RUN: {what}");
        counts.line(&format!("NOT RUN: {what}"));
    };
    say(ADVISORIES);
    let program = match program() {
        Ok(program) => program,
        Err(error) => {
            say(&format!("cargo deny: {}", format!("{error:#}").replace('\n', " ")));
            return Ok(None);
        }
    };
    // Fills cargo's own cache, so that the check needs no network.
    process::run(&mut cargo::cargo(&["metadata", "--format-version", "1", "--locked"])?)?;
    let mut command = Command::new(program);
    command.current_dir(cargo::root()?).args(["--offline", "check", "bans", "licenses", "sources"]);
    Ok(Some(command))
}

/// Builds cargo-deny from crates.io by its own lock file, unless it is there.
fn program() -> Result<PathBuf> {
    let root = environment::cache()?.join(format!("cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    println!("deny: building cargo-deny {VERSION} (a few minutes, once)");
    let start = Instant::now();
    let target = tempfile::tempdir_in(environment::cache()?).context("make a directory to build in")?;
    let mut command = cargo::cargo(&["install", "cargo-deny", "--locked", "--quiet"])?;
    // Without optimisation it is built in a third of the time, and a check takes seconds either way.
    command.args(["--version", VERSION, "--debug", "--root"]).arg(&root).env("CARGO_TARGET_DIR", target.path());
    process::run(&mut command).context("build cargo-deny")?;
    ensure!(program.is_file(), "cargo install has not made {}", program.display());
    println!("deny: built in {} s", start.elapsed().as_secs());
    Ok(program)
}
