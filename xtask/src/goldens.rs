//! Files that are checked in so that a change of what users see shows up in a review. The tests compare them; this writes
//! them.

use anyhow::{Context, Result, ensure};

use crate::cargo;

/// Writes `api/` and accepts every insta snapshot as the tests produce it. Read the difference before it is committed.
pub(crate) fn write() -> Result<()> {
    let mut tests = cargo::cargo(&["test", "--workspace", "--exclude", "tests", "--no-fail-fast"])?;
    let tests = tests.env("CAIRN_GOLDENS", "write").env("INSTA_UPDATE", "always");
    let status = tests.status().context("start cargo")?;
    ensure!(status.success(), "cargo test ended with {status}; the goldens are written all the same");
    Ok(())
}
