//! The rack itself: a machine boots what its BMC was given, and nothing else.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::bridge::{self, Bridge};
use testkit::file_server::FileServer;
use testkit::grub_iso;
use testkit::machine::{Disk, DiskBus, Firmware, Machine, MachineSpec, Nic, Power};
use testkit::process::run;
use testkit::progress::Progress;
use testkit::rack::Rack;

/// Programs that a rack needs.
pub(crate) const NEEDS: &[&str] = &[
    "libvirtd",
    "virsh",
    "qemu-system-x86_64",
    "qemu-img",
    "openssl",
    "htpasswd",
    "curl",
    "grub-mkrescue",
    "xorriso",
    "mformat",
];
/// And with a bridge.
pub(crate) const BRIDGE_NEEDS: &[&str] =
    &["libvirtd", "virsh", "qemu-system-x86_64", "grub-mkrescue", "dnsmasq", "ip", "busybox"];

const TEXT: &str = "booted from virtual media";
const LIMIT: Duration = Duration::from_secs(300);

/// A UEFI machine: insert, override, On, the medium's text on the console, ForceOff, eject; then a machine without a
/// medium does not show it again.
pub(crate) fn boots_from_its_bmc(work: &Path) -> Result<()> {
    let mut progress = Progress::default();
    progress.phase("start libvirt and the BMC");
    let rack = Rack::start(work)?;
    let machine = rack.machine(MachineSpec::uefi("uefi"))?;
    boot_from_cd(work, &rack, &machine, &mut progress)?;
    print!("{}", progress.finish());
    Ok(())
}

/// A BIOS machine with an NVMe disk and a port of a bridge, in a network without any way out.
pub(crate) fn own_network_with_bios_and_nvme(work: &Path) -> Result<()> {
    let mut progress = Progress::default();
    progress.phase("start the network, libvirt and the BMC");
    let bridge = Bridge::start(work, true)?;
    gets_an_address(&bridge)?;
    let rack = Rack::start(work)?;
    let machine = rack.machine(MachineSpec {
        firmware: Firmware::Bios,
        disks: vec![Disk::new(DiskBus::Nvme, 1, "NVME-1"), Disk::new(DiskBus::Sata, 1, "SATA-1")],
        nics: vec![Nic::Bridge { mac: "52:54:00:ca:00:02".to_owned(), bridge: bridge::NAME.to_owned() }],
        ..MachineSpec::bios("bios")
    })?;
    boot_from_cd(work, &rack, &machine, &mut progress)?;
    print!("{}", progress.finish());
    Ok(())
}

/// A port of the bridge without a machine asks for an address.
fn gets_an_address(bridge: &Bridge) -> Result<()> {
    let mac = "52:54:00:ca:00:03";
    let lines: [&[&str]; 4] = [
        &["link", "add", "port0", "type", "veth", "peer", "name", "client0"],
        &["link", "set", "port0", "master", bridge::NAME, "up"],
        &["link", "set", "client0", "address", mac],
        &["link", "set", "client0", "up"],
    ];
    for line in lines {
        run(Command::new("ip").args(line))?;
    }
    run(Command::new("busybox").args([
        "udhcpc",
        "-n",
        "-q",
        "-t",
        "10",
        "-T",
        "1",
        "-i",
        "client0",
        "-s",
        "/bin/true",
    ]))?;
    let address = bridge.lease(mac).context("no lease for the client")?;
    ensure!((bridge::DHCP_RANGE.0..=bridge::DHCP_RANGE.1).contains(&address), "{address} is not of the range");
    Ok(())
}

fn boot_from_cd(work: &Path, rack: &Rack, machine: &Machine, progress: &mut Progress) -> Result<()> {
    let (bmc, uuid) = (rack.redfish(), machine.uuid());
    progress.phase("make and insert a CD");
    let media = work.join("media");
    std::fs::create_dir(&media)?;
    grub_iso::build(&media.join("smoke.iso"), TEXT)?;
    let server = FileServer::start(&media)?;
    ensure!(bmc.insert(uuid, &server.url("missing.iso")).is_err(), "a missing image was inserted");
    bmc.insert(uuid, &server.url("smoke.iso"))?;
    bmc.boot_from_cd(uuid)?;
    ensure!(bmc.inserted(uuid)? && machine.cd()?.is_some(), "the CD is not in");
    progress.phase("boot from it");
    bmc.reset(uuid, "On")?;
    machine.serial().wait_for(TEXT, LIMIT)?;
    ensure!(bmc.power(uuid)? == "On" && machine.power()? == Power::On, "the machine is not on");
    progress.phase("off and eject");
    bmc.reset(uuid, "ForceOff")?;
    machine.wait_power(Power::Off, LIMIT)?;
    bmc.eject(uuid)?;
    ensure!(!bmc.inserted(uuid)?, "the CD is still in");
    ensure!(!rack.media_copies()?.is_empty(), "the emulator keeps no copy any more: take the clean-up out");
    rack.remove_media_copies()?;
    ensure!(rack.media_copies()?.is_empty(), "copies of media are left");
    progress.phase("boot without a medium");
    let mark = machine.serial().mark();
    bmc.reset(uuid, "On")?;
    let firmware = if machine.spec().firmware == Firmware::Uefi { "BdsDxe: " } else { "Booting from Hard Disk" };
    machine.serial().wait_since(mark, firmware, LIMIT).context("the firmware looks for something to boot")?;
    ensure!(!machine.serial().since(mark).contains(TEXT), "the ejected medium was booted");
    machine.unplug()
}
