//! The disks of this machine.

use std::path::Path;

use host::{Command, Processes};
use recipe::Disk;
use serde::Deserialize;

use crate::failure::{Failure, code};

/// What lsblk says about a device, with everything that stands on it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Device {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    size: u64,
    #[serde(rename = "log-sec")]
    sector: u32,
    #[serde(rename = "rm")]
    removable: bool,
    #[serde(rename = "ro")]
    read_only: bool,
    #[serde(rename = "rota")]
    rotational: bool,
    serial: Option<String>,
    wwn: Option<String>,
    model: Option<String>,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    #[serde(default)]
    children: Vec<Device>,
}

#[derive(Deserialize)]
struct List {
    blockdevices: Vec<Device>,
}

const COLUMNS: &str = "PATH,TYPE,SIZE,LOG-SEC,RM,RO,ROTA,SERIAL,WWN,MODEL,MOUNTPOINTS";

/// Every block device. Serial number, WWN and model come from udev's database.
pub(crate) fn devices(processes: &dyn Processes) -> Result<Vec<Device>, Failure> {
    let command = Command::new("lsblk").args(["--json", "--bytes", "--tree", "--output", COLUMNS]);
    let output = processes.run(&command).map_err(Failure::of(code::DISKS_UNREADABLE))?;
    let list: List = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new(code::DISKS_UNREADABLE, format!("lsblk wrote no list of devices: {error}")))?;
    Ok(list.blockdevices)
}

/// The disks that a system could be installed on: no optical drive, loop device or RAM disk, nothing removable,
/// read-only or empty, and nothing that is mounted elsewhere than below `new_root`, as the boot medium is.
pub(crate) fn candidates(devices: &[Device], new_root: &Path) -> Vec<Disk> {
    let usable = |device: &&Device| {
        device.kind == "disk"
            && !device.removable
            && !device.read_only
            && device.size > 0
            && !["/dev/zram", "/dev/ram", "/dev/nbd", "/dev/fd"].iter().any(|name| device.path.starts_with(name))
            && device
                .tree()
                .iter()
                .flat_map(|one| &one.mountpoints)
                .flatten()
                .all(|at| Path::new(at).starts_with(new_root))
    };
    let filled =
        |text: &Option<String>| text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let disk = |device: &Device| Disk {
        path: device.path.clone(),
        size: device.size,
        sector: device.sector,
        serial: filled(&device.serial),
        wwn: filled(&device.wwn),
        model: filled(&device.model),
        rotational: device.rotational,
    };
    devices.iter().filter(usable).map(disk).collect()
}

/// What stands on a disk: partitions, and arrays and volumes on them, the topmost first.
pub(crate) fn standing_on(devices: &[Device], disk: &str) -> Vec<(String, String)> {
    let Some(device) = devices.iter().find(|device| device.path == disk) else { return Vec::new() };
    device.tree().iter().skip(1).rev().map(|one| (one.kind.clone(), one.path.clone())).collect()
}

impl Device {
    /// The device and everything on it, parents first.
    fn tree(&self) -> Vec<&Device> {
        let mut all = vec![self];
        let mut next = 0;
        while let Some(device) = all.get(next).copied() {
            all.extend(&device.children);
            next += 1;
        }
        all
    }
}

/// A partition's device: names that end in a digit have a `p` before the number.
pub(crate) fn partition_device(disk: &str, index: u32) -> String {
    let infix = if disk.ends_with(|letter: char| letter.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{infix}{index}")
}

#[cfg(test)]
mod tests {
    use host::{Fake, Reply};

    use super::*;

    const LSBLK: &str = r#"{"blockdevices": [
        {"path": "/dev/sda", "type": "disk", "size": 4000787030016, "log-sec": 512, "rm": false, "ro": false, "rota": true,
         "serial": "ZC1", "wwn": "0x5000c500a1", "model": "ST4000NM0035 ", "mountpoints": [null], "children": [
            {"path": "/dev/sda1", "type": "part", "size": 1048576, "log-sec": 512, "rm": false, "ro": false, "rota": true,
             "serial": null, "wwn": "0x5000c500a1", "model": null, "mountpoints": [null], "children": [
                {"path": "/dev/md127", "type": "raid1", "size": 1048576, "log-sec": 512, "rm": false, "ro": false, "rota": true,
                 "serial": null, "wwn": null, "model": null, "mountpoints": [null]}]}]},
        {"path": "/dev/sdb", "type": "disk", "size": 16008609792, "log-sec": 512, "rm": true, "ro": false, "rota": false,
         "serial": "", "wwn": null, "model": "Virtual Floppy", "mountpoints": [null]},
        {"path": "/dev/sdc", "type": "disk", "size": 1600860979, "log-sec": 512, "rm": false, "ro": false, "rota": false,
         "serial": "BOOT", "wwn": null, "model": "USB", "mountpoints": ["/run/live/medium"]},
        {"path": "/dev/sdd", "type": "disk", "size": 0, "log-sec": 512, "rm": false, "ro": false, "rota": false,
         "serial": null, "wwn": null, "model": "Card reader", "mountpoints": [null]},
        {"path": "/dev/sr0", "type": "rom", "size": 700000000, "log-sec": 2048, "rm": true, "ro": false, "rota": true,
         "serial": null, "wwn": null, "model": "CD", "mountpoints": [null]},
        {"path": "/dev/loop0", "type": "loop", "size": 70000000, "log-sec": 512, "rm": false, "ro": true, "rota": false,
         "serial": null, "wwn": null, "model": null, "mountpoints": ["/run/rootfs"]},
        {"path": "/dev/nvme0n1", "type": "disk", "size": 480103981056, "log-sec": 4096, "rm": false, "ro": false, "rota": false,
         "serial": "PHY", "wwn": "eui.01", "model": "INTEL", "mountpoints": [], "children": [
            {"path": "/dev/nvme0n1p2", "type": "part", "size": 1048576, "log-sec": 4096, "rm": false, "ro": false, "rota": false,
             "serial": null, "wwn": null, "model": null, "mountpoints": ["/mnt/new-root"]}]}
    ]}"#;

    #[test]
    fn only_disks_that_can_be_written_are_candidates() {
        let fake = Fake::new().on(&["lsblk"], Reply::Stdout(LSBLK.into()));
        let devices = devices(&fake).unwrap();
        let disks = candidates(&devices, Path::new("/mnt/new-root"));
        let named: Vec<_> = disks.iter().map(|disk| (disk.path.as_str(), disk.sector, disk.model.as_deref())).collect();
        assert_eq!(named, [("/dev/sda", 512, Some("ST4000NM0035")), ("/dev/nvme0n1", 4096, Some("INTEL"))]);
        let above = [("raid1".to_owned(), "/dev/md127".to_owned()), ("part".to_owned(), "/dev/sda1".to_owned())];
        assert_eq!(standing_on(&devices, "/dev/sda"), above);
    }

    #[test]
    fn partitions_are_named_as_the_kernel_names_them() {
        assert_eq!(partition_device("/dev/sda", 2), "/dev/sda2");
        assert_eq!(partition_device("/dev/nvme0n1", 10), "/dev/nvme0n1p10");
    }
}
