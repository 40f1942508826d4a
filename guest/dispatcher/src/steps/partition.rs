//! `step partition`: from a recipe to partitions with file systems on exactly one disk.

use std::path::Path;
use std::time::Duration;

use host::{Command, ProcessError};
use recipe::{Disk, Format, Placement, TargetDisk, plan, roles};

use super::Context;
use super::stamp::Stamp;
use super::target::{MountedTarget, Others, PREPARED, clear, root_of, settle, table_id};
use crate::disks::{candidates, devices, partition_device, standing_on};
use crate::failure::{Failure, code};
use crate::pause;
use crate::workspace::PreparedDisk;

/// Time for one mkfs: the largest disks take minutes.
const FORMAT_TIME: Duration = Duration::from_secs(1200);
/// Time for the kernel to show new partitions.
const SHOW_TIME: Duration = Duration::from_secs(30);

pub(super) fn run(context: &Context<'_>) -> Result<String, Failure> {
    clear(context.host, &context.paths.new_root)?;
    let disk = select(context)?;
    let placements = plan(&context.recipe, disk.size, disk.sector)
        .map_err(|error| Failure::new(error.code(), format!("{}: {error}", disk.path)))?;
    check_bootable(context, &placements)?;
    let prepared = PreparedDisk { device: disk.path, placements };
    if is_done(context, &prepared) {
        context.workspace.write_json(PREPARED, &prepared)?;
        return Ok(format!("{} already carries the partitions of this job", prepared.device));
    }
    wipe(context, &prepared.device)?;
    make_table(context, &prepared)?;
    for placement in &prepared.placements {
        format(context, &prepared, placement)?;
    }
    settle(context.host);
    context.workspace.write_json(PREPARED, &prepared)?;
    let target = MountedTarget::mount(context, &prepared, Others::No)?;
    let stamp = Stamp {
        job_id: context.callback.job_id,
        placements: prepared.placements.clone(),
        image_begun: None,
        image_digest: None,
    };
    stamp.write(target.root())?;
    target.unmount()?;
    Ok(format!("{} partitions on {}", prepared.placements.len(), prepared.device))
}

/// The one disk that the recipe means.
fn select(context: &Context<'_>) -> Result<Disk, Failure> {
    let disks = candidates(&devices(context.host)?, &context.paths.new_root);
    let wanted = context.recipe.target_disk.as_ref();
    let wanted = wanted.ok_or_else(|| Failure::new(code::LAYOUT_INVALID, "the recipe has no target_disk"))?;
    let resolve = |path: &str| std::fs::canonicalize(path).ok().map(|path| path.display().to_string());
    wanted.select(&disks, resolve).cloned().map_err(|error| {
        let named = match wanted {
            TargetDisk::Device(path) => format!("{path}: "),
            TargetDisk::Hints(_) => String::new(),
        };
        Failure::new(error.code(), format!("{named}{error}"))
    })
}

/// What this machine needs to boot has to be in the layout before anything is wiped.
fn check_bootable(context: &Context<'_>, placements: &[Placement]) -> Result<(), Failure> {
    let roles = roles(placements);
    root_of(&roles)?;
    let invalid = |message: &str| Err(Failure::new(code::LAYOUT_INVALID, message));
    match (context.is_uefi(), roles.esp, roles.bios_boot) {
        (true, None, _) => invalid("this machine boots by UEFI and the layout has no EFI system partition (ef00)"),
        (true, Some(esp), _) if esp.format != Format::Vfat => invalid("the EFI system partition has to be vfat"),
        (false, _, None) => invalid("this machine boots by BIOS and the layout has no BIOS boot partition (ef02)"),
        _ => Ok(()),
    }
}

/// Whether an earlier run of this job has come to its end on this disk.
fn is_done(context: &Context<'_>, disk: &PreparedDisk) -> bool {
    if table_id(context.host, &disk.device) != Some(context.callback.job_id) {
        return false;
    }
    let Ok(target) = MountedTarget::mount(context, disk, Others::No) else { return false };
    let stamp = Stamp::read(target.root());
    target.unmount().is_ok() && stamp.is_some_and(|stamp| stamp.is_usable(context.callback.job_id, &disk.placements))
}

/// Takes everything off the disk that a later boot could mistake for its own: arrays, volume groups, signatures,
/// partition tables.
fn wipe(context: &Context<'_>, disk: &str) -> Result<(), Failure> {
    let standing = standing_on(&devices(context.host)?, disk);
    if standing.iter().any(|(kind, _)| kind == "lvm") {
        optional(context, &Command::new("vgchange").args(["--activate", "n"]))?;
    }
    for (_, path) in standing.iter().filter(|(kind, _)| kind.starts_with("raid")) {
        run_tool(context, &Command::new("mdadm").args(["--stop", path]))?;
    }
    for (_, path) in standing.iter().filter(|(kind, _)| kind == "part") {
        run_tool(context, &Command::new("wipefs").args(["--all", "--force", path]))?;
    }
    run_tool(context, &Command::new("wipefs").args(["--all", "--force", disk]))?;
    // It exits with 2 when the table that it destroys was damaged.
    match context.host.run(&Command::new("sgdisk").args(["--zap-all", disk])) {
        Err(error) if error.exit_code() != Some(2) => Err(Failure::of(code::PARTITION_FAILED)(error)),
        _ => Ok(()),
    }
}

/// Writes the whole table at once; its GUID is the job's.
fn make_table(context: &Context<'_>, disk: &PreparedDisk) -> Result<(), Failure> {
    run_tool(context, &table_command(&context.callback.job_id.to_string(), disk))?;
    run_tool(context, &Command::new("partx").args(["--update", &disk.device]))?;
    settle(context.host);
    for placement in &disk.placements {
        let device = partition_device(&disk.device, placement.index);
        let shown = || Path::new(&device).exists().then_some(());
        if pause::until(SHOW_TIME, Duration::from_millis(200), shown).is_none() {
            let message = format!("{device} did not show up within {} s", SHOW_TIME.as_secs());
            return Err(Failure::new(code::PARTITION_FAILED, message));
        }
        // What lay there before must not shine through, above all where no file system is made.
        run_tool(context, &Command::new("wipefs").args(["--all", "--force", &device]))?;
    }
    Ok(())
}

fn table_command(guid: &str, disk: &PreparedDisk) -> Command {
    // Every sector is given; sgdisk must not move them.
    let mut command = Command::new("sgdisk").args(["--clear", "--set-alignment=1"]);
    command = command.arg(format!("--disk-guid={}", guid.to_uppercase()));
    for placement in &disk.placements {
        let index = placement.index;
        command = command
            .arg(format!("--new={index}:{}:{}", placement.first_lba, placement.last_lba))
            .arg(format!("--typecode={index}:{}", placement.type_guid.to_string().to_uppercase()));
        if let Some(label) = &placement.label {
            command = command.arg(format!("--change-name={index}:{label}"));
        }
        if placement.bootable {
            command = command.arg(format!("--attributes={index}:set:2"));
        }
    }
    command.arg(disk.device.clone())
}

fn format(context: &Context<'_>, disk: &PreparedDisk, placement: &Placement) -> Result<(), Failure> {
    let Some(command) = format_command(placement, &partition_device(&disk.device, placement.index)) else {
        return Ok(());
    };
    context.host.run(&command.timeout(FORMAT_TIME)).map_err(Failure::of(code::FORMAT_FAILED))?;
    Ok(())
}

/// The command that makes a file system without asking; `None` where none is wanted.
fn format_command(placement: &Placement, device: &str) -> Option<Command> {
    let (program, options, label) = match placement.format {
        Format::Raw => return None,
        Format::Vfat => ("mkfs.vfat", vec!["-F", "32"], "-n"),
        // GRUB 2.06 and kernels before 5.15 do not know these two features.
        Format::Ext4 => ("mkfs.ext4", vec!["-q", "-F", "-O", "^metadata_csum_seed,^orphan_file"], "-L"),
        Format::Xfs => ("mkfs.xfs", vec!["-q", "-f"], "-L"),
        Format::Btrfs => ("mkfs.btrfs", vec!["-q", "-f"], "-L"),
        Format::Ntfs => ("mkfs.ntfs", vec!["--quick", "--force"], "-L"),
        Format::Swap => ("mkswap", vec!["--force"], "-L"),
    };
    let mut command = Command::new(program).args(options);
    if let Some(text) = &placement.label {
        let text: String = text.chars().take(placement.format.label_limit()).collect();
        command = command.arg(label).arg(text.trim_end());
    }
    Some(command.arg(device))
}

fn run_tool(context: &Context<'_>, command: &Command) -> Result<(), Failure> {
    context.host.run(command).map(|_| ()).map_err(Failure::of(code::PARTITION_FAILED))
}

/// Runs a program that need not be installed.
fn optional(context: &Context<'_>, command: &Command) -> Result<(), Failure> {
    match context.host.run(command) {
        Err(error) if !ProcessError::is_missing(&error) => Err(Failure::of(code::PARTITION_FAILED)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use host::{Fake, Reply};
    use recipe::callback::Callback;
    use recipe::partition_type::{EFI_SYSTEM, LINUX, SWAP};

    use super::*;
    use crate::report::progress::Progress;
    use crate::workspace::{Paths, Workspace};

    fn placement(index: u32, type_guid: uuid::Uuid, format: Format, label: &str) -> Placement {
        Placement {
            index,
            first_lba: u64::from(index) * 2048,
            last_lba: u64::from(index) * 2048 + 2047,
            bytes: 1 << 20,
            type_guid,
            label: (!label.is_empty()).then(|| label.to_owned()),
            format,
            mountpoint: None,
            bootable: index == 2,
        }
    }

    #[test]
    fn the_table_is_written_by_one_command() {
        let placements = vec![placement(1, EFI_SYSTEM, Format::Vfat, "EFI"), placement(2, LINUX, Format::Ext4, "")];
        let disk = PreparedDisk { device: "/dev/nvme0n1".into(), placements };
        let command = table_command("0000000a-0000-4000-8000-000000000001", &disk);
        let expected = [
            "sgdisk",
            "--clear",
            "--set-alignment=1",
            "--disk-guid=0000000A-0000-4000-8000-000000000001",
            "--new=1:2048:4095",
            "--typecode=1:C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
            "--change-name=1:EFI",
            "--new=2:4096:6143",
            "--typecode=2:0FC63DAF-8483-4772-8E79-3D69D8477DE4",
            "--attributes=2:set:2",
            "/dev/nvme0n1",
        ];
        assert_eq!(command.argv(), expected);
    }

    #[test]
    fn arrays_and_volumes_are_stopped_before_they_are_wiped() {
        let device = |path: &str, kind: &str, children: &str| {
            format!(
                r#"{{"path": "{path}", "type": "{kind}", "size": 1, "log-sec": 512, "rm": false, "ro": false, "rota": true,
                "serial": null, "wwn": null, "model": null, "mountpoints": [null], "children": [{children}]}}"#
            )
        };
        let volume = device("/dev/mapper/vg-root", "lvm", "");
        let array = device("/dev/md127", "raid1", &volume);
        let disk = device("/dev/sda", "disk", &device("/dev/sda1", "part", &array));
        let other = device("/dev/sdb", "disk", &device("/dev/sdb1", "part", ""));
        let fake = Fake::new()
            .on(&["lsblk"], Reply::Stdout(format!(r#"{{"blockdevices": [{disk}, {other}]}}"#)))
            .on(&["vgchange"], Reply::Missing)
            .on(&["sgdisk", "--zap-all"], Reply::Exit(2, "invalid main GPT header".into()));
        let run = tempfile::tempdir().unwrap();
        let paths = Paths { run: run.path().to_owned(), ..Paths::default() };
        let recipe = recipe::parse(&serde_json::json!({"task_target": "other.target"})).unwrap();
        let url: url::Url = "http://127.0.0.1:9/".parse().unwrap();
        let callback = Callback {
            job_id: uuid::Uuid::from_u128(1),
            attempt: 1,
            server_serial: "S".into(),
            webhook_url: url.clone(),
            progress_url: url.clone(),
            first_boot_url: url,
            webhook_token: "t".into(),
            first_boot_token: "t".into(),
            artifact: None,
        };
        let (workspace, progress) = (Workspace::new(run.path()), Progress::start(&callback));
        let context = Context { host: &fake, paths: &paths, workspace, callback, recipe, progress };
        wipe(&context, "/dev/sda").unwrap();
        let expected = [
            "vgchange --activate n",
            "mdadm --stop /dev/md127",
            "wipefs --all --force /dev/sda1",
            "wipefs --all --force /dev/sda",
            "sgdisk --zap-all /dev/sda",
        ];
        assert_eq!(fake.lines()[1..], expected);
    }

    #[test]
    fn every_format_has_its_command() {
        let line = |format, label| {
            format_command(&placement(1, SWAP, format, label), "/dev/x1").map(|command| command.argv().join(" "))
        };
        let long = "a-label-that-is-too-long-for-most";
        assert_eq!(line(Format::Vfat, long).unwrap(), "mkfs.vfat -F 32 -n a-label-tha /dev/x1");
        let ext4 = "mkfs.ext4 -q -F -O ^metadata_csum_seed,^orphan_file -L a-label-that-is- /dev/x1";
        assert_eq!(line(Format::Ext4, long).unwrap(), ext4);
        assert_eq!(line(Format::Xfs, "root").unwrap(), "mkfs.xfs -q -f -L root /dev/x1");
        assert_eq!(line(Format::Btrfs, "").unwrap(), "mkfs.btrfs -q -f /dev/x1");
        assert_eq!(line(Format::Ntfs, "win").unwrap(), "mkfs.ntfs --quick --force -L win /dev/x1");
        assert_eq!(line(Format::Swap, "swap").unwrap(), "mkswap --force -L swap /dev/x1");
        assert_eq!(line(Format::Raw, "x"), None);
    }
}
