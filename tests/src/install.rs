//! Installs on virtual bare machines.

use std::path::Path;

use anyhow::Result;
use testkit::demo::demo;
use testkit::progress::Progress;

use crate::rack;

/// Programs that an install needs.
pub(crate) const NEEDS: &[&str] = rack::NEEDS;

/// What the demo shows: a blank UEFI machine becomes a Debian machine that reports its first boot.
pub(crate) fn blank_machine_to_first_boot(work: &Path) -> Result<()> {
    let mut progress = Progress::default();
    let ended = demo(work, &mut progress);
    print!("{}", progress.finish());
    ended
}
