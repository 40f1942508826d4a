//! A libvirt daemon of our own: the enclosure's mounts hide the host's configuration, state and sockets from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::mount::UnmountFlags;

use crate::process::{Daemon, run};
use crate::{enclosure, wait};

/// What libvirt writes to or reads its settings from; `/run/dbus` hides the host's systemd-machined from it.
pub(crate) const DIRECTORIES: &[&str] =
    &["/etc/libvirt", "/run/libvirt", "/run/dbus", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"];

/// libvirtd refuses to start where the user and group that Debian builds it with are missing, even if its settings name
/// others. They come with the package of the system service, which is not wanted.
const ACCOUNTS: [(&str, &str); 2] = [
    ("/etc/passwd", "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n"),
    ("/etc/group", "libvirt-qemu:x:64055:\n"),
];

const URI: &str = "qemu:///system";
const POOL: &str = "default";

// Machines are qemu processes of root without cgroups and security drivers, so that no systemd is needed. The log goes to
// files directly: no virtlogd.
const QEMU_SETTINGS: &str = r#"user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
remember_owner = 0
stdio_handler = "file"
"#;

const DAEMON_SETTINGS: &str = r#"auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
log_outputs = "2:stderr"
"#;

#[derive(Debug)]
pub(crate) struct Libvirt {
    daemon: Daemon,
    pool: PathBuf,
}

impl Libvirt {
    /// Starts the daemon and its storage pool `default`.
    pub(crate) fn start(work: &Path) -> Result<Self> {
        let state = work.join("libvirt");
        for directory in DIRECTORIES {
            enclosure::bind(work, &state.join(&directory[1..]), directory)?;
        }
        for (file, line) in ACCOUNTS {
            let accounts = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
            if !accounts.lines().any(|account| account.starts_with("libvirt-qemu:")) {
                let copy = state.join(&file[1..]);
                fs::write(&copy, accounts + line).with_context(|| format!("write {}", copy.display()))?;
                enclosure::bind_file(work, &copy, file)?;
            }
        }
        fs::write("/etc/libvirt/qemu.conf", QEMU_SETTINGS).context("write /etc/libvirt/qemu.conf")?;
        fs::write("/etc/libvirt/libvirtd.conf", DAEMON_SETTINGS).context("write /etc/libvirt/libvirtd.conf")?;
        let mut command = Command::new("/usr/sbin/libvirtd");
        command.args(["--config", "/etc/libvirt/libvirtd.conf", "--pid-file", "/run/libvirt/libvirtd.pid"]);
        let mut daemon = Daemon::start("libvirtd", &mut command, &state.join("libvirtd.log"))?;
        wait::until("libvirtd", Duration::from_secs(60), Duration::from_millis(100), || {
            daemon.check()?;
            Ok(virsh(&["version"]).ok())
        })?;
        let pool = work.join("pool");
        fs::create_dir_all(&pool)?;
        let libvirt = Self { daemon, pool };
        let target = libvirt.pool.display().to_string();
        virsh(&["pool-define-as", POOL, "dir", "--target", &target])?;
        virsh(&["pool-start", POOL])?;
        Ok(libvirt)
    }

    /// Where the pool's volumes lie.
    pub(crate) fn pool(&self) -> &Path {
        &self.pool
    }

    pub(crate) fn uri() -> &'static str {
        URI
    }

    pub(crate) fn pool_name() -> &'static str {
        POOL
    }

    fn end(&mut self) -> Result<()> {
        for name in virsh(&["list", "--name"])?.split_whitespace() {
            virsh(&["destroy", name])?;
        }
        self.daemon.stop(Duration::from_secs(20))?;
        for directory in DIRECTORIES.iter().rev() {
            rustix::mount::unmount(*directory, UnmountFlags::DETACH).with_context(|| format!("unmount {directory}"))?;
        }
        Ok(())
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("warning: libvirt did not end well: {error:#}");
        }
    }
}

/// One `virsh` call; gives back its output.
pub(crate) fn virsh(arguments: &[&str]) -> Result<String> {
    run(Command::new("virsh").args(["--quiet", "--connect", URI]).args(arguments))
}
