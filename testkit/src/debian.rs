//! A Debian root file system to install: built once, kept in the cache.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::environment;
use crate::process::run;

const SUITE: &str = "trixie";
const MIRROR: &str =
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main";
/// A kernel, boot loaders for BIOS and UEFI, and what a machine needs to come up with a network.
const PACKAGES: &str = "ca-certificates,dbus,e2fsprogs,grub-efi-amd64-bin,grub-pc-bin,grub2-common,initramfs-tools,\
                        iproute2,kmod,linux-image-cloud-amd64,login,passwd,systemd-sysv,udev";
/// The console is where one watches a machine without a screen.
const GRUB_DEFAULTS: &str =
    "GRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX=\"console=ttyS0,115200\"\nGRUB_TERMINAL=serial\nGRUB_DISABLE_OS_PROBER=true\n";
/// mmdebstrap takes the name of the building machine otherwise.
const HOSTNAME: &str = "debian\n";
const NETWORK: &str = "[Match]\nType=ether\n[Network]\nDHCP=yes\n";

/// Where the root file system lies once it is built.
pub fn path() -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    (SUITE, MIRROR, PACKAGES, GRUB_DEFAULTS, HOSTNAME, NETWORK).hash(&mut hasher);
    Ok(environment::cache()?.join(format!("debian-{SUITE}-{:016x}.tar", hasher.finish())))
}

/// The root file system as a tar archive; builds it with mmdebstrap if the cache has none with these contents.
pub fn root() -> Result<PathBuf> {
    let out = path()?;
    if out.exists() {
        return Ok(out);
    }
    let files = tempfile::tempdir().context("make a directory for settings")?;
    let settings = [
        ("grub", GRUB_DEFAULTS, "/etc/default/grub"),
        ("hostname", HOSTNAME, "/etc/hostname"),
        ("network", NETWORK, "/etc/systemd/network/80-wired.network"),
    ];
    let enabled = files.path().join("multi-user.target.wants");
    std::fs::create_dir(&enabled)?;
    let unit = "systemd-networkd.service";
    std::os::unix::fs::symlink(format!("/usr/lib/systemd/system/{unit}"), enabled.join(unit))?;
    std::fs::create_dir_all(out.parent().context("the cache has no parent")?)?;
    // Only a complete archive gets the final name.
    let partial = out.with_extension("partial.tar");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--mode=root", "--variant=minbase", &format!("--include={PACKAGES}")]);
    command.args(["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"]);
    command.args(["--dpkgopt=path-exclude=/usr/share/locale/*", "--aptopt=Acquire::Languages \"none\""]);
    for (name, text, place) in settings {
        let file = files.path().join(name);
        std::fs::write(&file, text)?;
        command.arg(format!("--customize-hook=upload {} {place}", file.display()));
    }
    command.arg(format!("--customize-hook=copy-in {} /etc/systemd/system", enabled.display()));
    run(command.arg(SUITE).arg(&partial).arg(MIRROR))?;
    std::fs::rename(&partial, &out).with_context(|| format!("rename {}", partial.display()))?;
    Ok(out)
}
