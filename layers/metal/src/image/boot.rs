//! What firmware starts: GRUB for BIOS and UEFI, each finding the medium by a file only this build has.

use std::path::Path;

use super::tool::Tool;
use super::{ImageError, guest_files, tree};

/// Bytes of the FAT image with the UEFI program: the largest floppy format, the one every firmware reads.
const EFI_FORMAT: &str = "2880";
const MODULES: [&str; 12] = [
    "iso9660",
    "linux",
    "serial",
    "search",
    "search_fs_file",
    "echo",
    "terminal",
    "normal",
    "configfile",
    "test",
    "boot",
    "minicmd",
];

/// Writes `boot/bios.img`, `boot/efi.img` and `boot/grub/grub.cfg` below `medium`; `scratch` is an empty directory.
pub(super) fn install(
    medium: &Path,
    scratch: &Path,
    build_id: &str,
    extra: &str,
    epoch: u64,
) -> Result<(), ImageError> {
    let fill = |text: &str| text.replace("@BUILD@", build_id).replace("@EXTRA@", extra);
    tree::write(&medium.join("boot/grub/grub.cfg"), 0o644, fill(guest_files::GRUB).as_bytes())?;
    let early = scratch.join("early.cfg");
    tree::write(&early, 0o644, fill(guest_files::GRUB_EARLY).as_bytes())?;
    make_core(&early, "i386-pc-eltorito", &["biosdisk"], &medium.join("boot/bios.img"))?;
    let program = scratch.join("BOOTX64.EFI");
    make_core(&early, "x86_64-efi", &["fat", "part_gpt", "all_video"], &program)?;
    make_efi_image(&program, &medium.join("boot/efi.img"), build_id, epoch)
}

/// What the result of [`install`] depends on besides its arguments: GRUB comes from the build host.
pub(super) fn grub_version() -> Result<String, ImageError> {
    Ok(Tool::new("grub-mkimage").arg("--version").run()?.trim().to_owned())
}

fn make_core(early: &Path, format: &str, more: &[&str], output: &Path) -> Result<(), ImageError> {
    Tool::new("grub-mkimage")
        .args(["-O", format, "-p", "/boot/grub", "-c"])
        .arg(early)
        .arg("-o")
        .arg(output)
        .args(more)
        .args(MODULES)
        .run()?;
    Ok(())
}

fn make_efi_image(program: &Path, output: &Path, build_id: &str, epoch: u64) -> Result<(), ImageError> {
    // The volume's serial number would otherwise come from the clock.
    let serial = &build_id[..8];
    let tool = |name: &str| Tool::new(name).env("SOURCE_DATE_EPOCH", epoch.to_string()).env("MTOOLS_SKIP_CHECK", "1");
    tool("mformat").args(["-C", "-f", EFI_FORMAT, "-N", serial, "-i"]).arg(output).arg("::").run()?;
    tool("mmd").arg("-i").arg(output).args(["::EFI", "::EFI/BOOT"]).run()?;
    tool("mcopy").arg("-i").arg(output).arg(program).arg("::EFI/BOOT/BOOTX64.EFI").run()?;
    Ok(())
}
