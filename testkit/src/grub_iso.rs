//! The smallest thing a machine can boot: GRUB alone, which writes a text on the serial console and waits.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;

/// Makes an ISO for BIOS and UEFI at `out`.
pub fn build(out: &Path, text: &str) -> Result<()> {
    let tree = tempfile::tempdir().context("make a directory for the ISO's files")?;
    let grub = tree.path().join("boot/grub");
    std::fs::create_dir_all(&grub)?;
    let settings = format!(
        "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\nset timeout=-1\n\
         echo '{text}'\nmenuentry '{text}' {{ halt }}\n"
    );
    std::fs::write(grub.join("grub.cfg"), settings)?;
    run(Command::new("grub-mkrescue").arg("-o").arg(out).arg(tree.path()).args(["--", "-volid", "CAIRN_SMOKE"]))?;
    Ok(())
}
