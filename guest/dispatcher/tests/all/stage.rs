//! A machine to install on: a directory for everything that is `/` elsewhere, and a loop device for its disk.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use dispatcher::workspace::{Paths, Workspace};
use host::{Command, Feed, Linux, LoopDevice, Mount, MountError, Mounted, Mounts, Output, ProcessError, Processes};
use recipe::callback::{Artifact, Callback};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

pub(crate) fn not_run(test: &str, reason: &str) {
    let _ = writeln!(io::stderr(), "NOT RUN: {test}: {reason}");
}

pub(crate) fn paths(root: &Path) -> Paths {
    Paths {
        run: root.join("run/provision"),
        task: root.join("mnt/task"),
        boot_medium: root.join("run/cairn/boot-medium"),
        new_root: root.join("mnt/new-root"),
        cidata: root.join("mnt/cidata"),
        root: root.to_owned(),
    }
}

pub(crate) fn callback(server: &Url, job_id: Uuid, artifact: Option<Artifact>) -> Callback {
    let at = |path: &str| server.join(path).unwrap();
    Callback {
        job_id,
        attempt: 1,
        server_serial: "SN-7".into(),
        webhook_url: at("/webhook"),
        progress_url: at("/progress"),
        first_boot_url: at("/first-boot"),
        webhook_token: "webhook-token".into(),
        first_boot_token: "first-boot-token".into(),
        artifact,
    }
}

/// The real host with a loop device as its only disk. Programs of the new system are only remembered; FAT, which not
/// every kernel has, is a RAM disk.
pub(crate) struct Machine {
    pub(crate) disk: PathBuf,
    pub(crate) paths: Paths,
    pub(crate) chroot: Mutex<Vec<String>>,
    /// Commands in the new system that begin so fail.
    pub(crate) broken: Mutex<Option<&'static str>>,
    root: tempfile::TempDir,
}

impl Machine {
    /// `None` where there are no loop devices with partitions.
    pub(crate) fn new(test: &str, megabytes: u64) -> Option<Self> {
        for program in
            ["sgdisk", "mkfs.ext4", "mkfs.vfat", "mkswap", "wipefs", "partx", "blkid", "losetup", "lsblk", "tar"]
        {
            if Linux.run(&Command::new(program).arg("--version")).is_err_and(|error| error.is_missing()) {
                not_run(test, &format!("{program} is missing"));
                return None;
            }
        }
        let root = tempfile::tempdir().unwrap();
        for directory in ["dev", "proc", "sys/firmware/efi/efivars", "mnt"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let image = root.path().join("disk.img");
        std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let device = match LoopDevice::attach(&Linux, &image, false) {
            Ok(device) => device,
            Err(error) => {
                not_run(test, &error.to_string());
                return None;
            }
        };
        let paths = paths(root.path());
        let (chroot, broken) = (Mutex::default(), Mutex::default());
        Some(Self { disk: device.path().to_owned(), paths, chroot, broken, root })
    }

    /// Leaves in the workspace what dispatch would.
    pub(crate) fn dispatched(&self, callback: &Callback, recipe: &Value) {
        let _ = std::fs::remove_dir_all(&self.paths.run);
        let workspace = Workspace::new(&self.paths.run);
        workspace.create().unwrap();
        workspace.write_json("callback.json", callback).unwrap();
        workspace.write_json("recipe.json", recipe).unwrap();
        if let Some(text) = recipe.get("user_data").and_then(Value::as_str) {
            workspace.write("user-data", text.as_bytes()).unwrap();
        }
    }

    pub(crate) fn partition(&self, index: u32) -> String {
        format!("{}p{index}", self.disk.display())
    }

    /// What blkid reads from a device.
    pub(crate) fn probe(&self, device: &str, tag: &str) -> String {
        let command = Command::new("blkid").args(["--probe", "--output", "value", "--match-tag", tag, device]);
        Linux.run(&command).map(|output| output.text()).unwrap_or_default()
    }

    /// Looks at an ext4 file system of the disk.
    pub(crate) fn look<T>(&self, index: u32, look: impl FnOnce(&Path) -> T) -> T {
        self.look_as(index, "ext4", look)
    }

    pub(crate) fn look_as<T>(&self, index: u32, filesystem: &str, look: impl FnOnce(&Path) -> T) -> T {
        let at = self.root.path().join("look");
        std::fs::create_dir_all(&at).unwrap();
        Linux.mount(&Mount::new(self.partition(index), &at, filesystem)).unwrap();
        let seen = look(&at);
        Linux.unmount(&at).unwrap();
        seen
    }

    pub(crate) fn mounted_below_root(&self) -> Vec<Mounted> {
        let mut mounts = Linux.mounts().unwrap();
        mounts.retain(|mounted| mounted.target.starts_with(self.root.path()));
        mounts
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = host::unmount_below(&Linux, self.root.path());
        let disk = self.disk.display().to_string();
        let _ = Linux.run(&Command::new("partx").args(["--delete", &disk]));
        let _ = Linux.run(&Command::new("losetup").args(["--detach", &disk]));
    }
}

impl Processes for Machine {
    fn run_fed(&self, command: &Command, feed: &mut Feed<'_>) -> Result<Output, ProcessError> {
        let missing =
            |program: &str| ProcessError::Start { program: program.into(), source: io::ErrorKind::NotFound.into() };
        match command.program() {
            "lsblk" => {
                let mut output = Linux.run(&command.clone().arg(self.disk.display().to_string()))?;
                output.stdout = String::from_utf8(output.stdout).unwrap().replace("\"loop\"", "\"disk\"").into_bytes();
                Ok(output)
            }
            "udevadm" => Err(missing("udevadm")),
            "chroot" => {
                let line = command.argv()[2..].join(" ");
                self.chroot.lock().unwrap().push(line.clone());
                if self.broken.lock().unwrap().is_some_and(|broken| line.contains(broken)) {
                    let status = "exit status 127".to_owned();
                    return Err(ProcessError::Exit {
                        program: "chroot".into(),
                        status,
                        code: Some(127),
                        stderr: "no".into(),
                    });
                }
                Ok(Output::default())
            }
            _ => Linux.run_fed(command, feed),
        }
    }
}

impl Mounts for Machine {
    fn mount(&self, mount: &Mount) -> Result<(), MountError> {
        match mount.filesystem.as_str() {
            "vfat" | "efivarfs" => Linux.mount(&Mount::new("none", &mount.target, "tmpfs")),
            _ => Linux.mount(mount),
        }
    }

    fn bind(&self, source: &Path, target: &Path) -> Result<(), MountError> {
        Linux.bind(source, target)
    }

    fn unmount(&self, target: &Path) -> Result<(), MountError> {
        Linux.unmount(target)
    }

    fn mounts(&self) -> Result<Vec<Mounted>, MountError> {
        Linux.mounts()
    }
}
