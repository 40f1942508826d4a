//! The libvirt description of a virtual bare machine. Source of the format: libvirt.org, "Domain XML format".

use std::path::Path;

use crate::machine::{DiskBus, Firmware, MachineSpec, Nic};

/// Where the files of one machine lie.
pub(crate) struct Files<'a> {
    pub disks: &'a [std::path::PathBuf],
    pub serial: &'a Path,
    pub firmware_state: &'a Path,
}

pub(crate) fn domain(spec: &MachineSpec, uuid: &str, files: &Files<'_>) -> String {
    let Files { disks, serial, firmware_state } = files;
    let firmware = match spec.firmware {
        Firmware::Uefi => format!(
            "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>\
             <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>{}</nvram>",
            firmware_state.display()
        ),
        Firmware::Bios => "<bios useserial='yes'/>".to_owned(),
    };
    let (mut attached, mut command_line) = (String::new(), String::new());
    for (index, (disk, path)) in spec.disks.iter().zip(*disks).enumerate() {
        match disk.bus {
            DiskBus::Nvme => command_line.push_str(&nvme_disk(index, &disk.serial, path)),
            bus => attached.push_str(&ordinary_disk(index, bus, &disk.serial, path)),
        }
    }
    if !command_line.is_empty() {
        command_line = format!("<qemu:commandline>{command_line}</qemu:commandline>\n");
    }
    let nics: Vec<String> = spec.nics.iter().map(nic).collect();
    // The slot of a SCSI controller decides where the BMC puts its CD: sushy takes scsi when a disk is on scsi.
    // Without CMPXCHG16B: QEMU 7.2 gives the flags register a wrong value after that instruction when it emulates, and a
    // kernel that is interrupted just then dies of a double fault.
    format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n\
         <name>{name}</name><uuid>{uuid}</uuid>\n\
         <memory unit='MiB'>{memory}</memory><vcpu>{cpus}</vcpu>\n\
         <sysinfo type='smbios'><system><entry name='manufacturer'>Cairn</entry><entry name='serial'>{serial_number}</entry>\
         </system></sysinfo>\n\
         <os><type arch='x86_64' machine='q35'>hvm</type>{firmware}<boot dev='hd'/><smbios mode='sysinfo'/></os>\n\
         <features><acpi/><apic/></features>\
         <cpu mode='custom' match='exact'><model fallback='allow'>qemu64</model>\
         <feature policy='disable' name='cx16'/></cpu>\n\
         <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>\n\
         <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\n\
         <controller type='scsi' index='0' model='virtio-scsi'/>\n\
         {attached}{nics}\
         <serial type='file'><source path='{serial}' append='on'/><target port='0'/></serial>\n\
         <memballoon model='none'/><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\n\
         </devices>\n{command_line}</domain>\n",
        name = spec.name,
        memory = spec.memory_mib,
        cpus = spec.cpus,
        serial_number = spec.serial_number,
        nics = nics.concat(),
        serial = serial.display(),
    )
}

fn ordinary_disk(index: usize, bus: DiskBus, serial: &str, path: &Path) -> String {
    let bus = if bus == DiskBus::Scsi { "scsi" } else { "sata" };
    let letter = char::from(b'a' + u8::try_from(index).unwrap_or(0));
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='unsafe' discard='unmap'/>\
         <source file='{}'/><target dev='sd{letter}' bus='{bus}'/><serial>{serial}</serial></disk>\n",
        path.display()
    )
}

/// libvirt before 11.5 has no NVMe bus, so QEMU is told directly. The boot index stands behind the one that libvirt
/// gives to the CD, so that a CD that the BMC asks for comes first.
fn nvme_disk(index: usize, serial: &str, path: &Path) -> String {
    let arguments = [
        "-drive".to_owned(),
        format!("file={},if=none,id=nvme{index},format=qcow2,cache=unsafe", path.display()),
        "-device".to_owned(),
        format!("nvme,drive=nvme{index},serial={serial},bootindex={},addr=0x{:x}", 90 + index, 0x1a + index),
    ];
    arguments.map(|argument| format!("<qemu:arg value='{argument}'/>")).concat()
}

fn nic(nic: &Nic) -> String {
    let (kind, mac, source) = match nic {
        Nic::User { mac } => ("user", mac, String::new()),
        Nic::Bridge { mac, bridge } => ("bridge", mac, format!("<source bridge='{bridge}'/>")),
    };
    // Without a boot ROM the firmware does not try the network, which takes minutes.
    format!(
        "<interface type='{kind}'><mac address='{mac}'/>{source}<model type='virtio'/><rom enabled='no'/></interface>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Disk;

    fn xml(spec: &MachineSpec) -> String {
        let disks: Vec<_> = (0..spec.disks.len()).map(|index| format!("/w/{index}.qcow2").into()).collect();
        let files = Files { disks: &disks, serial: Path::new("/w/serial"), firmware_state: Path::new("/w/vars") };
        domain(spec, "5f9b6a3e-0000-4000-8000-000000000001", &files)
    }

    #[test]
    fn firmware_bus_and_nics_are_as_asked() {
        let uefi = xml(&MachineSpec::uefi("m1"));
        assert!(
            uefi.contains("type='pflash'") && uefi.contains("bus='scsi'") && uefi.contains("<interface type='user'>")
        );
        assert!(!uefi.contains("qemu:commandline"));
        let spec = MachineSpec {
            firmware: Firmware::Bios,
            disks: vec![Disk::new(DiskBus::Sata, 1, "A"), Disk::new(DiskBus::Nvme, 2, "B")],
            nics: vec![Nic::Bridge { mac: "52:54:00:00:00:01".into(), bridge: "cairn0".into() }],
            ..MachineSpec::uefi("m2")
        };
        let bios = xml(&spec);
        assert!(bios.contains("<bios useserial='yes'/>") && bios.contains("<source bridge='cairn0'/>"));
        assert!(bios.contains("<target dev='sda' bus='sata'/><serial>A</serial>"));
        assert!(bios.contains("nvme,drive=nvme1,serial=B,bootindex=91"));
    }
}
