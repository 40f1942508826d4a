//! The task medium: a volume `TASK_*`, on a drive of its own or as `TASK.IMG` on the boot medium.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::{Host, LoopDevice, Mount, MountOptions};

use crate::failure::{Failure, code};
use crate::pause;
use crate::workspace::Paths;

/// Volume id of the maintenance system's own medium.
const BOOT_VOLUME: &str = "CAIRN_MAINT";
/// What the volume id of a task begins with.
const TASK_VOLUME: &str = "TASK_";
/// The file on the boot medium that a task can be laid over.
const TASK_IMAGE: &str = "TASK.IMG";

/// A task medium that is mounted at [`Paths::task`] until [`Medium::release`].
pub(crate) struct Medium {
    boot_medium: Option<LoopDevice>,
}

/// Where a task was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Device(PathBuf),
    BootMedium(PathBuf),
}

/// Waits for the medium and mounts it read-only. With `devices`, only those are looked at, whatever they are called.
pub(crate) fn mount(
    host: &dyn Host,
    paths: &Paths,
    devices: &[PathBuf],
    limit: Duration,
    interval: Duration,
) -> Result<Medium, Failure> {
    let mut boot_medium_tried = false;
    let found = pause::until(limit, interval, || {
        let seen = match devices {
            [] => look(paths),
            devices => devices.iter().filter(|one| volume_id(one).is_some()).cloned().map(Seen::Device).collect(),
        };
        let tasks: Vec<&Seen> = seen.iter().filter(|one| matches!(one, Seen::Device(_))).collect();
        match (&tasks[..], seen.first()) {
            ([Seen::Device(device)], _) => Some(mount_device(host, paths, device)),
            ([], Some(Seen::BootMedium(device))) => {
                boot_medium_tried = true;
                mount_from_boot_medium(host, paths, device).transpose()
            }
            ([], _) => None,
            _ => {
                let message = format!("more than one task medium is there: {seen:?}");
                Some(Err(Failure::new(code::MEDIUM_AMBIGUOUS, message)))
            }
        }
    });
    found.unwrap_or_else(|| {
        let boot = if boot_medium_tried { "; the boot medium holds none either" } else { "" };
        let message = format!("no volume {TASK_VOLUME}* showed up within {} s{boot}", limit.as_secs());
        Err(Failure::new(code::MEDIUM_MISSING, message))
    })
}

impl Medium {
    /// Unmounts the medium, so that it can be ejected.
    pub(crate) fn release(self, host: &dyn Host, paths: &Paths) -> Result<(), Failure> {
        host.unmount(&paths.task).map_err(Failure::of(code::MEDIUM_MOUNT))?;
        if let Some(device) = self.boot_medium {
            device.detach(host).map_err(Failure::of(code::MEDIUM_MOUNT))?;
            host.unmount(&paths.boot_medium).map_err(Failure::of(code::MEDIUM_MOUNT))?;
        }
        Ok(())
    }
}

/// Every block device with a volume of ours, tasks before boot media.
fn look(paths: &Paths) -> Vec<Seen> {
    let Ok(entries) = std::fs::read_dir(paths.root.join("sys/class/block")) else { return Vec::new() };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    let (mut tasks, mut boot) = (Vec::new(), Vec::new());
    let mut known = Vec::new();
    for device in names.iter().map(|name| paths.root.join("dev").join(name)) {
        match volume_id(&device) {
            // The id holds the job's: the same one again is the same medium on a partition or a second path.
            Some(id) if known.contains(&id) => {}
            Some(id) if id.starts_with(TASK_VOLUME) => {
                known.push(id);
                tasks.push(Seen::Device(device));
            }
            Some(id) if id == BOOT_VOLUME => boot.push(Seen::BootMedium(device)),
            _ => {}
        }
    }
    tasks.extend(boot);
    tasks
}

/// Volume id of an ISO 9660 volume (ECMA-119, 8.4): the first descriptor is sector 16, the id its bytes 40 to 71.
fn volume_id(device: &Path) -> Option<String> {
    let mut descriptor = [0; 72];
    File::open(device).ok()?.read_exact_at(&mut descriptor, 16 * 2048).ok()?;
    if descriptor[0] != 1 || &descriptor[1..6] != b"CD001" {
        return None;
    }
    Some(String::from_utf8_lossy(&descriptor[40..]).trim_end().to_owned())
}

fn mount_device(host: &dyn Host, paths: &Paths, device: &Path) -> Result<Medium, Failure> {
    mount_iso(host, device, &paths.task)?;
    tracing::info!(device = %device.display(), "the task is mounted from a drive of its own");
    Ok(Medium { boot_medium: None })
}

/// Mounts the task inside the boot medium; `None` when the reserved file holds none.
fn mount_from_boot_medium(host: &dyn Host, paths: &Paths, device: &Path) -> Result<Option<Medium>, Failure> {
    mount_iso(host, device, &paths.boot_medium)?;
    let image = match task_image(&paths.boot_medium) {
        Ok(Some(image)) if volume_id(&image).is_some_and(|id| id.starts_with(TASK_VOLUME)) => image,
        Ok(_) => {
            host.unmount(&paths.boot_medium).map_err(Failure::of(code::MEDIUM_MOUNT))?;
            return Ok(None);
        }
        Err(error) => {
            let message = format!("cannot read {}: {error}", paths.boot_medium.display());
            return Err(Failure::new(code::MEDIUM_UNREADABLE, message));
        }
    };
    let attached = LoopDevice::attach(host, &image, true).map_err(Failure::of(code::MEDIUM_MOUNT))?;
    mount_iso(host, attached.path(), &paths.task)?;
    tracing::info!(file = %image.display(), device = %attached.path().display(), "the task is mounted from the boot medium");
    Ok(Some(Medium { boot_medium: Some(attached) }))
}

/// The reserved file; Rock Ridge, Joliet and plain names differ in their case.
fn task_image(directory: &Path) -> io::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.eq_ignore_ascii_case(TASK_IMAGE)) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

fn mount_iso(host: &dyn Host, device: &Path, target: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(target)
        .map_err(|error| Failure::new(code::MEDIUM_MOUNT, format!("cannot make {}: {error}", target.display())))?;
    let mount = Mount::new(device, target, "iso9660").options(MountOptions::FOREIGN);
    host.mount(&mount).map_err(Failure::of(code::MEDIUM_MOUNT))
}

#[cfg(test)]
mod tests {
    use host::{Fake, Reply};

    use super::*;

    /// A machine with these devices: name and volume id.
    fn machine(devices: &[(&str, &str)]) -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let paths = Paths {
            run: at("run/provision"),
            task: at("mnt/task"),
            boot_medium: at("run/boot"),
            new_root: at("mnt/new-root"),
            cidata: at("mnt/cidata"),
            root: root.path().to_owned(),
        };
        for directory in ["sys/class/block", "dev"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        for (name, id) in devices {
            std::fs::write(at("sys/class/block").join(name), "").unwrap();
            std::fs::write(at("dev").join(name), volume(id)).unwrap();
        }
        (root, paths)
    }

    fn volume(id: &str) -> Vec<u8> {
        let mut bytes = vec![0; 17 * 2048];
        if !id.is_empty() {
            bytes[16 * 2048] = 1;
            bytes[16 * 2048 + 1..][..5].copy_from_slice(b"CD001");
            bytes[16 * 2048 + 40..][..32].copy_from_slice(format!("{id:<32}").as_bytes());
        }
        bytes
    }

    fn mounted(paths: &Paths, fake: &Fake, devices: &[PathBuf]) -> Result<Vec<String>, String> {
        let interval = Duration::from_millis(1);
        let medium = mount(fake, paths, devices, Duration::from_millis(5), interval).map_err(|error| error.code)?;
        medium.release(fake, paths).unwrap();
        let root = paths.root.display().to_string();
        Ok(fake.lines().iter().map(|line| line.replace(&root, "")).collect())
    }

    #[test]
    fn a_task_on_its_own_drive_is_found_by_its_label() {
        let (_root, paths) = machine(&[("sr0", "CAIRN_MAINT"), ("sr7", "TASK_0123"), ("sda", "")]);
        let lines = mounted(&paths, &Fake::new(), &[]).unwrap();
        assert_eq!(lines, ["mount iso9660 /dev/sr7 /mnt/task ro,nosuid,nodev,noexec", "unmount /mnt/task"]);
    }

    #[test]
    fn two_tasks_are_refused_and_none_is_waited_for_in_vain() {
        let (_root, paths) = machine(&[("sr0", "TASK_1"), ("sr1", "TASK_2")]);
        assert_eq!(mounted(&paths, &Fake::new(), &[]), Err(code::MEDIUM_AMBIGUOUS.to_owned()));
        let (_root, paths) = machine(&[("sda", "TASK_1"), ("sda1", "TASK_1")]);
        let lines = mounted(&paths, &Fake::new(), &[]).unwrap();
        assert!(lines[0].starts_with("mount iso9660 /dev/sda /mnt/task"), "{lines:?}");
        let (_root, paths) = machine(&[("sr0", "DEBIAN"), ("sda", "")]);
        assert_eq!(mounted(&paths, &Fake::new(), &[]), Err(code::MEDIUM_MISSING.to_owned()));
        let named = [paths.root.join("dev/sr0")];
        assert_eq!(mounted(&paths, &Fake::new(), &named).unwrap().len(), 2, "a device that is named needs no label");
    }

    #[test]
    fn a_task_inside_the_boot_medium_is_mounted_through_a_loop_device() {
        let (_root, paths) = machine(&[("sr0", "CAIRN_MAINT")]);
        std::fs::create_dir_all(&paths.boot_medium).unwrap();
        let fake = || Fake::new().on(&["losetup", "--find"], Reply::Stdout("/dev/loop3\n".into()));
        assert_eq!(mounted(&paths, &fake(), &[]), Err(code::MEDIUM_MISSING.to_owned()), "no such file");
        std::fs::write(paths.boot_medium.join("task.img"), volume("")).unwrap();
        assert_eq!(mounted(&paths, &fake(), &[]), Err(code::MEDIUM_MISSING.to_owned()), "nothing but zeros");
        std::fs::write(paths.boot_medium.join("task.img"), volume("TASK_9")).unwrap();
        let expected = [
            "mount iso9660 /dev/sr0 /run/boot ro,nosuid,nodev,noexec",
            "losetup --find --show --read-only -- /run/boot/task.img",
            "mount iso9660 /dev/loop3 /mnt/task ro,nosuid,nodev,noexec",
            "unmount /mnt/task",
            "losetup --detach /dev/loop3",
            "unmount /run/boot",
        ];
        assert_eq!(mounted(&paths, &fake(), &[]).unwrap(), expected);
    }
}
