//! Every environment variable that testkit, tests and xtask read.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where things are kept between runs: `$CAIRN_CACHE`, else `~/.cache/cairn`.
pub fn cache() -> Result<PathBuf> {
    if let Some(path) = set("CAIRN_CACHE") {
        return Ok(path.into());
    }
    let home = set("HOME").context("neither CAIRN_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/cairn"))
}

/// The `cairn` to test: `$CAIRN_BIN`, else the one in the target directory that the running program lies in.
pub fn cairn() -> Result<PathBuf> {
    if let Some(path) = set("CAIRN_BIN") {
        return Ok(path.into());
    }
    let program = std::env::current_exe().context("the path of the running program")?;
    let found =
        program.ancestors().skip(1).take(2).map(|directory| directory.join("cairn")).find(|path| path.is_file());
    found.with_context(|| format!("no cairn beside {}: run `cargo build` first or set CAIRN_BIN", program.display()))
}

/// Which scenarios to run, `quick` or `all`: `$CAIRN_SCENARIOS`, set by `cargo xtask test`.
pub fn scenarios() -> Option<String> {
    set("CAIRN_SCENARIOS")
}

/// Run only scenarios whose name contains this: `$CAIRN_SCENARIO_ONLY`, set by `cargo xtask test --only`.
pub fn only_scenario() -> Option<String> {
    set("CAIRN_SCENARIO_ONLY")
}

/// The cargo to call: `$CARGO`, which cargo sets for what it runs.
pub fn cargo() -> String {
    set("CARGO").unwrap_or_else(|| "cargo".to_owned())
}

/// The real Firecracker that tests may use beside the fake one: `$CAIRN_TEST_FIRECRACKER`.
pub fn firecracker() -> Option<PathBuf> {
    set("CAIRN_TEST_FIRECRACKER").map(PathBuf::from)
}

/// Its jailer: `$CAIRN_TEST_JAILER`.
pub fn jailer() -> Option<PathBuf> {
    set("CAIRN_TEST_JAILER").map(PathBuf::from)
}

/// Whether to keep the work directory for a look afterwards: `$CAIRN_KEEP`.
pub fn keep() -> bool {
    set("CAIRN_KEEP").is_some()
}

/// A checkout of the OCI conformance programme (the folder with its `main.go`) to build in the place of the pinned module:
/// `$CAIRN_CONFORMANCE_SOURCE`.
pub fn conformance_source() -> Option<PathBuf> {
    set("CAIRN_CONFORMANCE_SOURCE").map(PathBuf::from)
}

/// Where Go modules come from, as Go reads it: `$GOPROXY`.
pub fn go_proxy() -> Option<String> {
    set("GOPROXY")
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether `/` is a mount point. In the root of a chroot it need not be, and then `ip` and `unshare` cannot make mounts
/// of their own.
pub fn root_is_mounted() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"))
}
