//! `step bootloader-linux`: fstab, GRUB for this machine's firmware, and the reporter of the first boot.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use host::{Command, Mount, write_atomic};
use recipe::{Roles, roles};

use super::Context;
use super::first_boot;
use super::fstab::fstab;
use super::target::{MountedTarget, Others, file_system_id, in_root, make_directory, prepared, root_of, settle};
use crate::disks::partition_device;
use crate::failure::{Failure, code};
use crate::workspace::PreparedDisk;

/// Time for a GRUB program: slow flash and slow firmware take minutes.
const GRUB_TIME: Duration = Duration::from_secs(300);

/// Name of the boot entry and of the directory on the EFI system partition.
const BOOT_ENTRY: &str = "Cairn";

/// Variable of the recipe that keeps a serial console, for example `ttyS0,115200`.
const SERIAL_CONSOLE: &str = "SERIAL_CONSOLE";

pub(super) fn run(context: &Context<'_>) -> Result<String, Failure> {
    let disk = prepared(context)?;
    let roles = roles(&disk.placements);
    let target = MountedTarget::mount(context, &disk, Others::All)?;
    let root = target.root().to_owned();
    write_fstab(context, &disk, &roles, &root)?;
    write_console(context, &root)?;
    settle(context.host);
    link_root(context, &disk, &roles)?;
    bind_kernel(context, &root)?;
    let warning = install_grub(context, &disk, &roles, &root)?;
    configure_grub(context, &root)?;
    let reporter = first_boot::install(context, &root)?;
    target.unmount()?;
    let firmware = if context.is_uefi() { "UEFI" } else { "BIOS" };
    let reporter = if reporter { "" } else { "; the new system cannot report its first boot" };
    Ok(format!("GRUB for {firmware} on {}{}{reporter}", disk.device, warning.unwrap_or_default()))
}

fn write_fstab(context: &Context<'_>, disk: &PreparedDisk, roles: &Roles<'_>, root: &Path) -> Result<(), Failure> {
    let text =
        fstab(roles, |placement| file_system_id(context.host, &partition_device(&disk.device, placement.index)))?;
    make_directory(&root.join("etc"))?;
    write(&root.join("etc/fstab"), &text, 0o644)
}

/// grub-mkconfig writes `root=UUID=…` only where `/dev/disk/by-uuid` has the file system, and a device name, which can
/// be another one after the next boot, elsewhere. udev makes that link; where it has not, it is made here.
fn link_root(context: &Context<'_>, disk: &PreparedDisk, roles: &Roles<'_>) -> Result<(), Failure> {
    let device = partition_device(&disk.device, root_of(roles)?.index);
    let link = context.paths.root.join("dev/disk/by-uuid").join(file_system_id(context.host, &device)?);
    if link.exists() {
        return Ok(());
    }
    if let Some(directory) = link.parent() {
        make_directory(directory)?;
    }
    symlink(&device, &link).map_err(|error| {
        Failure::new(code::STATE_UNWRITABLE, format!("cannot link {} to {device}: {error}", link.display()))
    })
}

/// Kernel, GRUB and getty talk on the serial console that the recipe names.
fn write_console(context: &Context<'_>, root: &Path) -> Result<(), Failure> {
    let Some(text) = context.recipe.variable(SERIAL_CONSOLE) else { return Ok(()) };
    let config = console_config(text).ok_or_else(|| {
        Failure::new(code::BOOTLOADER_FAILED, format!("{SERIAL_CONSOLE}={text:?} is not like ttyS0,115200"))
    })?;
    make_directory(&root.join("etc/default/grub.d"))?;
    write(&root.join("etc/default/grub.d/90-cairn-console.cfg"), &config, 0o644)
}

fn console_config(text: &str) -> Option<String> {
    let (unit, speed) = text.strip_prefix("ttyS")?.split_once(',').unwrap_or((text.strip_prefix("ttyS")?, "115200"));
    let (unit, speed): (u8, u32) = (unit.parse().ok()?, speed.parse().ok()?);
    Some(format!(
        "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX console=tty0 console=ttyS{unit},{speed}\"\n\
         GRUB_TERMINAL=\"console serial\"\n\
         GRUB_SERIAL_COMMAND=\"serial --unit={unit} --speed={speed}\"\n"
    ))
}

/// What programs in the new root need of this system. `/run` holds secrets: only udev's part of it is shown.
fn bind_kernel(context: &Context<'_>, root: &Path) -> Result<(), Failure> {
    for name in ["dev", "proc", "sys", "run/udev"] {
        let (source, target) = (context.paths.root.join(name), root.join(name));
        if source.exists() {
            make_directory(&target)?;
            context.host.bind(&source, &target).map_err(Failure::of(code::MOUNT_FAILED))?;
        }
    }
    let variables = root.join("sys/firmware/efi/efivars");
    let shown = context.host.mounts().map_err(Failure::of(code::MOUNT_FAILED))?;
    if context.is_uefi() && !shown.iter().any(|one| one.target == variables) {
        // Without it there is no boot entry, and the removable path still boots.
        let mount = Mount::new("efivarfs", &variables, "efivarfs");
        if let Err(error) = context.host.mount(&mount) {
            tracing::warn!(error = %error, "the firmware's variables cannot be reached");
        }
    }
    Ok(())
}

/// Installs GRUB. The warning is one that does not keep the machine from booting.
fn install_grub(
    context: &Context<'_>,
    disk: &PreparedDisk,
    roles: &Roles<'_>,
    root: &Path,
) -> Result<Option<String>, Failure> {
    let program = program(root, &["grub-install", "grub2-install"])?;
    let (platform, needed) = if context.is_uefi() { ("x86_64-efi", roles.esp) } else { ("i386-pc", roles.bios_boot) };
    if needed.is_none() {
        let message =
            format!("the layout has no partition that GRUB needs for {platform}: ef00 for UEFI, ef02 for BIOS");
        return Err(Failure::new(code::LAYOUT_INVALID, message));
    }
    if !root.join("usr/lib/grub").join(platform).exists() {
        let message =
            format!("the new system has no /usr/lib/grub/{platform}: its GRUB is not for this machine's firmware");
        return Err(Failure::new(code::BOOTLOADER_MISSING, message));
    }
    let install = || in_root(root, &program).arg(format!("--target={platform}")).arg("--recheck");
    if !context.is_uefi() {
        run_grub(context, install().arg(disk.device.clone()))?;
        return Ok(None);
    }
    let mut options = vec!["--efi-directory=/boot/efi".to_owned(), format!("--bootloader-id={BOOT_ENTRY}")];
    if root.join("usr/lib/grub/x86_64-efi-signed").exists() {
        // A signed GRUB looks for its configuration only in the distribution's own directory.
        options.push("--no-uefi-secure-boot".to_owned());
    }
    // The path that firmware tries when it knows of no entry: needs no variables.
    run_grub(context, install().args(options.clone()).arg("--removable"))?;
    let entry = run_grub(context, install().args(options));
    Ok(entry.err().map(|failure| format!(" without a boot entry ({failure})")))
}

fn configure_grub(context: &Context<'_>, root: &Path) -> Result<(), Failure> {
    let program = program(root, &["grub-mkconfig", "grub2-mkconfig"])?;
    let directory = if program.contains("grub2") { "grub2" } else { "grub" };
    make_directory(&root.join("boot").join(directory))?;
    run_grub(context, in_root(root, &program).arg("-o").arg(format!("/boot/{directory}/grub.cfg")))
}

/// The first of these programs that the new system has, as a path in it.
fn program(root: &Path, names: &[&str]) -> Result<String, Failure> {
    let directories = ["usr/sbin", "usr/bin", "sbin"];
    let mut paths =
        names.iter().flat_map(|name| directories.iter().map(move |directory| format!("{directory}/{name}")));
    let found = paths.find(|path| std::fs::symlink_metadata(root.join(path)).is_ok());
    let missing = || Failure::new(code::BOOTLOADER_MISSING, format!("the new system has no {}", names[0]));
    found.map(|path| format!("/{path}")).ok_or_else(missing)
}

fn run_grub(context: &Context<'_>, command: Command) -> Result<(), Failure> {
    context.host.run(&command.timeout(GRUB_TIME)).map(|_| ()).map_err(Failure::of(code::BOOTLOADER_FAILED))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    write_atomic(path, text.as_bytes(), mode).map_err(Failure::of(code::STATE_UNWRITABLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_console_is_kept() {
        let text = console_config("ttyS1,9600").unwrap();
        assert!(text.contains("console=tty0 console=ttyS1,9600\"\n"), "{text}");
        assert!(text.contains("serial --unit=1 --speed=9600"), "{text}");
        assert!(console_config("ttyS0").unwrap().contains("console=ttyS0,115200"));
        for text in ["tty0", "ttyS", "ttyS0,fast", "ttyS0,1\"; reboot"] {
            assert_eq!(console_config(text), None, "{text}");
        }
    }
}
