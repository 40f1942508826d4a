use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use dispatcher::arguments::Step;
use dispatcher::failure::code;
use dispatcher::steps::{self, ImageSource, Registry, SourceError};
use dispatcher::workspace::Workspace;
use host::{Command, Linux, Processes};
use recipe::callback::{Artifact, Callback, PullCredentials};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::server::Server;
use super::stage::{self, Machine};

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn recipe(machine: &Machine) -> Value {
    json!({
        "task_target": "install-linux.target",
        "target_disk": machine.disk.display().to_string(),
        "oci_url": "os-images/tiny:1",
        "partition_layout": [
            {"size": "40M", "type_guid": "ef00", "format": "vfat", "label": "EFI"},
            {"size": "100%", "format": "ext4", "label": "root"},
            {"size": "16M", "format": "swap", "label": "swap"},
            {"size": "8M", "format": "ext4", "mountpoint": "/var"},
            {"size": "8M", "format": "ext4", "label": "cidata"}
        ],
        "user_data": "#cloud-config\npassword: planted-secret\n",
        "env": {"HOSTNAME": "Node_7", "SERIAL_CONSOLE": "ttyS0,115200"}
    })
}

/// A root file system with what the steps look for, and things that tar has to keep.
fn root_file_system() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, owner: u64, contents: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(contents.len() as u64);
        header.set_mtime(1);
        archive.append_data(&mut header, path, contents).unwrap();
    };
    for directory in ["etc", "usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib/grub", "usr/lib/systemd", "var", "boot"]
    {
        add(directory, tar::EntryType::Directory, 0o755, 0, b"");
    }
    add("usr/lib/grub/x86_64-efi", tar::EntryType::Directory, 0o755, 0, b"");
    for program in ["usr/sbin/grub-install", "usr/sbin/grub-mkconfig", "usr/lib/systemd/systemd"] {
        add(program, tar::EntryType::Regular, 0o755, 0, b"");
    }
    add("usr/bin/su", tar::EntryType::Regular, 0o4755, 0, b"su");
    add("var/mail", tar::EntryType::Directory, 0o2775, 8, b"");
    add("var/noise", tar::EntryType::Regular, 0o600, 33, &vec![7; 3 << 20]);
    archive.into_inner().unwrap()
}

/// Puts an artifact into the registry; with `spoil`, the layer's bytes are not what the manifest says.
fn publish(server: &Server, layer: &[u8], spoil: bool) -> Artifact {
    publish_as(server, layer, "application/vnd.oci.image.layer.v1.tar", spoil)
}

fn publish_as(server: &Server, layer: &[u8], media_type: &str, spoil: bool) -> Artifact {
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.cairn.os-image.v1",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": media_type, "digest": digest(layer), "size": layer.len()}]
    }))
    .unwrap();
    let reference = digest(&manifest);
    server.serve(
        &format!("/v2/os-images/tiny/manifests/{reference}"),
        "application/vnd.oci.image.manifest.v1+json",
        &manifest,
    );
    let mut bytes = layer.to_vec();
    if spoil {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    }
    server.serve(&format!("/v2/os-images/tiny/blobs/{}", digest(layer)), "application/octet-stream", &bytes);
    let credentials = Some(PullCredentials { username: "job".into(), password: "pull-secret".into() });
    Artifact {
        registry: server.url.clone(),
        repository: "os-images/tiny".into(),
        digest: reference,
        credentials,
        ca_pem: None,
    }
}

fn callback(server: &Server, job: u128, artifact: Artifact) -> Callback {
    stage::callback(&server.url, Uuid::from_u128(job), Some(artifact))
}

fn step(machine: &Machine, step: Step) -> Result<(), String> {
    let outcome = steps::run(machine, &machine.paths, step).map_err(|failure| format!("{}: {failure}", failure.code));
    assert_eq!(machine.mounted_below_root(), [], "{step:?} left something mounted");
    outcome
}

/// What the controller was told when the step ended.
fn told(server: &Server) -> String {
    server.posted("/progress").last().unwrap().body["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_disk_is_partitioned_filled_and_made_bootable() {
    let Some(machine) = Machine::new("a_disk_is_partitioned_filled_and_made_bootable", 192) else { return };
    let server = Server::start(&[]);
    let callback = callback(&server, 0x11, publish(&server, &root_file_system(), false));
    machine.dispatched(&callback, &recipe(&machine));
    step(&machine, Step::Partition).unwrap();
    check_partitions(&machine);
    step(&machine, Step::Partition).unwrap();
    assert!(told(&server).ends_with("already carries the partitions of this job"));
    step(&machine, Step::ImageLinux).unwrap();
    machine.look(2, |root| {
        let su = root.join("usr/bin/su").metadata().unwrap();
        assert_eq!((su.mode() & 0o7777, su.mtime()), (0o4755, 1));
        assert!(!root.join("var/noise").exists(), "/var is a file system of its own");
    });
    machine.look(4, |var| {
        assert_eq!(var.join("noise").metadata().unwrap().uid(), 33);
        assert_eq!(var.join("mail").metadata().unwrap().mode() & 0o7777, 0o2775);
    });
    step(&machine, Step::ImageLinux).unwrap();
    assert!(told(&server).ends_with("is already unpacked"));
    step(&machine, Step::BootloaderLinux).unwrap();
    check_boot(&machine);
    step(&machine, Step::ConfigDrive).unwrap();
    machine.look(5, |drive| {
        let text = |name: &str| std::fs::read_to_string(drive.join(name)).unwrap();
        assert_eq!(text("user-data"), "#cloud-config\npassword: planted-secret\n");
        assert_eq!(text("meta-data"), "instance-id: 00000000-0000-0000-0000-000000000011\nlocal-hostname: node-7\n");
        assert_eq!(drive.join("user-data").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    });
    step(&machine, Step::Partition).unwrap();
    assert!(told(&server).ends_with("already carries the partitions of this job"), "a finished disk is not wiped");
    let units: Vec<_> = server.posted("/progress").iter().map(|asked| asked.body["unit"].clone()).collect();
    assert!(units.contains(&json!("bootloader-linux.service")));
}

fn check_partitions(machine: &Machine) {
    let disk = machine.disk.display().to_string();
    assert_eq!(machine.probe(&disk, "PTUUID"), "00000000-0000-0000-0000-000000000011");
    let verified = Linux.run(&Command::new("sgdisk").args(["--verify", &disk])).unwrap().text();
    assert!(verified.contains("No problems found"), "{verified}");
    let info =
        |index: u32| Linux.run(&Command::new("sgdisk").arg(format!("--info={index}")).arg(&disk)).unwrap().text();
    assert!(info(1).contains("C12A7328-F81F-11D2-BA4B-00A0C93EC93B (EFI system partition)"), "{}", info(1));
    assert!(info(1).contains("Partition name: 'EFI'") && info(1).contains("First sector: 2048 "));
    assert!(info(3).contains("(Linux swap)"));
    let kinds: Vec<_> = (1..=5).map(|index| machine.probe(&machine.partition(index), "TYPE")).collect();
    assert_eq!(kinds, ["vfat", "ext4", "swap", "ext4", "ext4"]);
    assert_eq!(machine.probe(&machine.partition(2), "LABEL"), "root");
}

fn check_boot(machine: &Machine) {
    let efi = "--efi-directory=/boot/efi --bootloader-id=Cairn";
    let expected = [
        format!("/usr/sbin/grub-install --target=x86_64-efi --recheck {efi} --removable"),
        format!("/usr/sbin/grub-install --target=x86_64-efi --recheck {efi}"),
        "/usr/sbin/grub-mkconfig -o /boot/grub/grub.cfg".to_owned(),
        "/usr/lib/cairn/first-boot --version".to_owned(),
    ];
    assert_eq!(*machine.chroot.lock().unwrap(), expected);
    let id = |index| machine.probe(&machine.partition(index), "UUID");
    let (esp, root_id, swap, var) = (id(1), id(2), id(3), id(4));
    let link = std::fs::read_link(machine.paths.root.join("dev/disk/by-uuid").join(&root_id)).unwrap();
    assert_eq!(link.display().to_string(), machine.partition(2), "grub-mkconfig needs it");
    machine.look(2, |root| {
        let fstab = std::fs::read_to_string(root.join("etc/fstab")).unwrap();
        let lines: Vec<&str> = fstab.lines().skip(1).collect();
        let expected = [
            format!("UUID={root_id} / ext4 defaults 0 1"),
            format!("UUID={var} /var ext4 defaults 0 2"),
            format!("UUID={esp} /boot/efi vfat umask=0077 0 2"),
            format!("UUID={swap} none swap sw 0 0"),
        ];
        assert_eq!(lines, expected);
        assert!(root.join("etc/default/grub.d/90-cairn-console.cfg").exists());
        let mode = |path: &str| root.join(path).metadata().unwrap().mode() & 0o777;
        assert_eq!((mode("usr/lib/cairn/first-boot"), mode("etc/cairn/first-boot.json")), (0o755, 0o600));
        let config = std::fs::read_to_string(root.join("etc/cairn/first-boot.json")).unwrap();
        assert!(config.contains("first-boot-token") && !config.contains("webhook-token"));
        let link = std::fs::read_link(root.join("etc/systemd/system/multi-user.target.wants/cairn-first-boot.service"));
        assert_eq!(link.unwrap(), Path::new("/etc/systemd/system/cairn-first-boot.service"));
    });
    let workspace = Workspace::new(&machine.paths.run);
    assert_eq!(workspace.read_json::<bool>("first-boot-reporter.json").unwrap(), Some(true));
}

#[test]
fn a_wrong_digest_is_never_taken_for_an_installed_system() {
    let Some(machine) = Machine::new("a_wrong_digest_is_never_taken_for_an_installed_system", 192) else { return };
    let server = Server::start(&[]);
    let layer = root_file_system();
    let callback = callback(&server, 0x22, publish(&server, &layer, true));
    machine.dispatched(&callback, &recipe(&machine));
    step(&machine, Step::Partition).unwrap();
    let error = step(&machine, Step::ImageLinux).unwrap_err();
    assert!(error.starts_with(code::ARTIFACT_DIGEST_MISMATCH), "{error}");
    let failure = Workspace::new(&machine.paths.run).failure().unwrap().unwrap();
    assert_eq!(
        (failure.unit.as_str(), failure.failure.code.as_str()),
        ("image-linux.service", code::ARTIFACT_DIGEST_MISMATCH)
    );
    machine.look(2, |root| assert!(root.join("usr/bin/su").exists(), "part of it was unpacked"));
    publish(&server, &layer, false);
    step(&machine, Step::Partition).unwrap();
    assert!(told(&server).starts_with("5 partitions on"), "a half-filled disk is made anew: {}", told(&server));
    machine.look(2, |root| assert!(!root.join("usr").exists()));
    step(&machine, Step::ImageLinux).unwrap();
}

/// Takes nothing, as tar that has given up.
struct Closed;

impl std::io::Write for Closed {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn damage_is_named_even_when_tar_stumbles_over_it_first() {
    let layer: Vec<u8> = (0..3_000_000_u32).map(|number| (number >> 8) as u8).collect();
    for spoil in [true, false] {
        let server = Server::start(&[]);
        let registry = Registry::new(&publish(&server, &layer, spoil)).unwrap();
        let layers = registry.layers().unwrap();
        match registry.copy(&layers[0], &mut Closed).unwrap_err() {
            SourceError::Source { code, .. } => assert!(spoil && code == code::ARTIFACT_DIGEST_MISMATCH, "{code}"),
            SourceError::Write(_) => assert!(!spoil),
        }
    }
}

#[test]
fn another_job_wipes_and_the_same_job_survives_a_power_cut() {
    let Some(machine) = Machine::new("another_job_wipes_and_the_same_job_survives_a_power_cut", 192) else { return };
    let server = Server::start(&[]);
    let artifact = publish(&server, &root_file_system(), false);
    let first = callback(&server, 0x31, artifact.clone());
    machine.dispatched(&first, &recipe(&machine));
    step(&machine, Step::Partition).unwrap();
    step(&machine, Step::ImageLinux).unwrap();
    let file_system = machine.probe(&machine.partition(2), "UUID");
    let second = callback(&server, 0x32, artifact);
    machine.dispatched(&second, &recipe(&machine));
    assert!(step(&machine, Step::ImageLinux).unwrap_err().starts_with(code::DISK_NOT_PREPARED));
    machine.dispatched(&second, &recipe(&machine));
    step(&machine, Step::Partition).unwrap();
    assert_ne!(machine.probe(&machine.partition(2), "UUID"), file_system);
    machine.look(2, |root| assert!(!root.join("usr").exists()));
    // The power goes after the table was written and before the stamp was.
    machine.look(2, |root| std::fs::remove_dir_all(root.join(".cairn")).unwrap());
    let interrupted = machine.probe(&machine.partition(2), "UUID");
    step(&machine, Step::Partition).unwrap();
    assert_ne!(machine.probe(&machine.partition(2), "UUID"), interrupted);
    step(&machine, Step::ImageLinux).unwrap();
}

#[test]
fn what_cannot_boot_or_fit_is_refused_before_anything_is_written() {
    let Some(machine) = Machine::new("what_cannot_boot_or_fit_is_refused_before_anything_is_written", 96) else {
        return;
    };
    let server = Server::start(&[]);
    let callback = callback(&server, 0x41, publish(&server, b"x", false));
    let refused = |layout: Value, disk: Value| {
        let mut recipe = recipe(&machine);
        recipe["partition_layout"] = layout;
        recipe["target_disk"] = disk;
        machine.dispatched(&callback, &recipe);
        let error = step(&machine, Step::Partition).unwrap_err();
        assert_eq!(machine.probe(&machine.disk.display().to_string(), "PTUUID"), "");
        error.split(':').next().unwrap().to_owned()
    };
    let disk = json!(machine.disk.display().to_string());
    let root = json!({"size": "100%", "format": "ext4"});
    let esp = json!({"size": "40M", "type_guid": "ef00", "format": "vfat"});
    assert_eq!(refused(json!([root]), disk.clone()), code::LAYOUT_INVALID, "no ESP on a UEFI machine");
    assert_eq!(refused(json!([esp, {"size": "10M", "format": "vfat"}]), disk.clone()), code::LAYOUT_INVALID, "no root");
    assert_eq!(refused(json!([esp, {"size": "4G", "format": "ext4"}]), disk.clone()), "disk_too_small");
    assert_eq!(refused(json!([esp, root]), json!("/dev/sdzz")), "disk_hint_no_match");
    assert_eq!(refused(json!([esp, root]), json!({"min_size": "1T"})), "disk_hint_no_match");
    std::fs::remove_dir_all(machine.paths.root.join("sys/firmware")).unwrap();
    assert_eq!(refused(json!([esp, root]), disk), code::LAYOUT_INVALID, "no ef02 on a BIOS machine");
}

#[test]
fn every_file_system_and_compression_is_handled_by_the_programs_themselves() {
    let test = "every_file_system_and_compression_is_handled_by_the_programs_themselves";
    for program in ["mkfs.xfs", "mkfs.btrfs", "mkfs.ntfs", "zstd", "gzip"] {
        if Linux.run(&Command::new(program).arg("--version")).is_err_and(|error| error.is_missing()) {
            return stage::not_run(test, &format!("{program} is missing"));
        }
    }
    let Some(machine) = Machine::new(test, 1200) else { return };
    let server = Server::start(&[]);
    let mut recipe = recipe(&machine);
    for (job, root, compressor, media_type) in [
        (0x61, "xfs", "zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
        (0x62, "btrfs", "gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
    ] {
        recipe["partition_layout"] = json!([
            {"size": "40M", "type_guid": "ef00", "format": "vfat"},
            {"size": "50%", "format": root, "label": "a-root-label-too-long", "mountpoint": "/"},
            {"size": "50%", "format": if root == "xfs" { "btrfs" } else { "xfs" }, "mountpoint": "/srv"},
            {"size": "16M", "format": "ntfs", "label": "windows"}
        ]);
        let layer = Linux.run(&Command::new(compressor).arg("-c").input(root_file_system())).unwrap().stdout;
        let callback = callback(&server, job, publish_as(&server, &layer, media_type, false));
        machine.dispatched(&callback, &recipe);
        step(&machine, Step::Partition).unwrap();
        step(&machine, Step::ImageLinux).unwrap();
        step(&machine, Step::BootloaderLinux).unwrap();
        assert_eq!(machine.probe(&machine.partition(2), "TYPE"), root);
        assert_eq!(machine.probe(&machine.partition(4), "TYPE"), "ntfs");
        machine.look_as(2, root, |at| {
            assert_eq!(at.join("usr/bin/su").metadata().unwrap().mode() & 0o7777, 0o4755);
            let fstab = std::fs::read_to_string(at.join("etc/fstab")).unwrap();
            assert!(fstab.contains(&format!(" / {root} defaults 0 0\n")), "{fstab}");
        });
    }
}

#[test]
fn a_bios_machine_gets_grub_on_the_disk_and_no_reporter_that_does_not_run() {
    let test = "a_bios_machine_gets_grub_on_the_disk_and_no_reporter_that_does_not_run";
    let Some(machine) = Machine::new(test, 128) else { return };
    std::fs::remove_dir_all(machine.paths.root.join("sys/firmware")).unwrap();
    let server = Server::start(&[]);
    let callback = callback(&server, 0x51, publish(&server, &root_file_system(), false));
    let mut recipe = recipe(&machine);
    recipe["partition_layout"] =
        json!([{"size": "1M", "type_guid": "ef02"}, {"size": "100%", "format": "ext4", "mountpoint": "/"}]);
    machine.dispatched(&callback, &recipe);
    step(&machine, Step::Partition).unwrap();
    step(&machine, Step::ImageLinux).unwrap();
    let error = step(&machine, Step::BootloaderLinux).unwrap_err();
    assert!(error.starts_with(code::BOOTLOADER_MISSING) && error.contains("/usr/lib/grub/i386-pc"), "{error}");
    machine.look(2, |root| std::fs::create_dir(root.join("usr/lib/grub/i386-pc")).unwrap());
    machine.chroot.lock().unwrap().clear();
    *machine.broken.lock().unwrap() = Some("first-boot --version");
    step(&machine, Step::BootloaderLinux).unwrap();
    assert!(told(&server).ends_with("; the new system cannot report its first boot"));
    let install = format!("/usr/sbin/grub-install --target=i386-pc --recheck {}", machine.disk.display());
    assert_eq!(machine.chroot.lock().unwrap()[0], install);
    machine.look(2, |root| {
        assert!(!root.join("usr/lib/cairn/first-boot").exists());
        assert!(!root.join("etc/cairn/first-boot.json").exists());
    });
    step(&machine, Step::ConfigDrive).unwrap();
    machine.look(2, |root| {
        let seed = root.join("var/lib/cloud/seed/nocloud/user-data");
        assert_eq!(seed.metadata().unwrap().mode() & 0o777, 0o600, "without a cidata partition it lies in the root");
    });
}
