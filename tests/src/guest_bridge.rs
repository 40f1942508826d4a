//! Machines on a bridge, as in a machine room: DHCP and a static address, a controller that asks for a password, a
//! registry elsewhere with an account and an authority of its own, and a maintenance OS that listens to nobody.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::bridge::{self, Bridge, scan};
use testkit::commands::{self, Job};
use testkit::elsewhere::{Elsewhere, PULLER};
use testkit::http;
use testkit::machine::{Machine, MachineSpec, Nic};
use testkit::progress::Progress;
use testkit::serial::Mark;
use testkit::site::{ARTIFACT, Site};

use crate::machines::{booted_once_each, ended_well, every_unit_in_order, nothing_told, recipe, shown, wait_event};

/// Programs that it needs.
pub(crate) const NEEDS: &[&str] =
    &["libvirtd", "virsh", "qemu-system-x86_64", "qemu-img", "openssl", "htpasswd", "curl", "dnsmasq", "ip"];

const USER: &str = "operator";
const PASSWORD: &str = "operator-Pa55-word-of-the-bridge";
const STATIC: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);

/// One machine with DHCP, one with two interfaces and an address on the second. There is no way out of this network: what
/// images are built from has to be in the cache.
pub(crate) fn dhcp_and_static(work: &Path) -> Result<()> {
    let mut progress = Progress::default();
    let bridge = Bridge::start(work, true)?;
    let site = Site::start_at(work, &bridge::ADDRESS.to_string(), USER, PASSWORD, &mut progress)?;
    let answer = http::get(&format!("{}/v2/", site.controller.url()))?;
    ensure!(answer.status == 401, "the registry answers {} to everybody", answer.status);
    by_dhcp(&bridge, &site, &mut progress)?;
    progress.phase("push the root file system to a registry elsewhere");
    let elsewhere = Elsewhere::start(&work.join("elsewhere"), &bridge::ADDRESS.to_string())?;
    elsewhere.push(ARTIFACT, &site.archive())?;
    let account = elsewhere.password_file()?;
    let account = Some((PULLER.0, account.as_path()));
    site.controller.command(&commands::registry_add(elsewhere.host(), account, &elsewhere.authority()))?;
    by_static_address(&bridge, &site, &elsewhere, &mut progress)?;
    print!("{}", progress.finish());
    Ok(())
}

fn by_dhcp(bridge: &Bridge, site: &Site, progress: &mut Progress) -> Result<()> {
    progress.phase("DHCP");
    let mac = "52:54:00:ca:00:11";
    let machine = site.machine(MachineSpec { nics: vec![port(mac)], ..MachineSpec::uefi("dhcp") }, &[])?;
    let job = site.order(&machine, &recipe(&machine))?;
    wait_event(site, &job, "image-linux.service started")?;
    let address = bridge.lease(mac).context("no lease for the machine")?;
    shown(&machine, nothing_open(site, address, progress))?;
    finish(site, &machine, &job, progress)
}

fn by_static_address(bridge: &Bridge, site: &Site, elsewhere: &Elsewhere, progress: &mut Progress) -> Result<()> {
    progress.phase("a static address on the second of two interfaces, and a registry elsewhere");
    let (first, second) = ("52:54:00:ca:00:21", "52:54:00:ca:00:22");
    let spec = MachineSpec { nics: vec![port(first), port(second)], ..MachineSpec::uefi("static") };
    let address = format!("{STATIC}/24");
    let gateway = bridge::ADDRESS.to_string();
    let machine = site.machine(spec, &["--mac", second, "--address", &address, "--gateway", &gateway])?;
    let mut recipe = recipe(&machine);
    recipe["oci_url"] = Value::from(format!("{}/{ARTIFACT}", elsewhere.host()));
    let job = site.order(&machine, &recipe)?;
    wait_event(site, &job, "image-linux.service started")?;
    let leases = [first, second].map(|mac| bridge.lease(mac));
    ensure!(leases == [None, None], "the maintenance OS asked for addresses: {leases:?}");
    shown(&machine, nothing_open(site, STATIC, progress))?;
    finish(site, &machine, &job, progress)?;
    // The installed system is another one: it asks for an address on every interface.
    ensure!([first, second].iter().all(|mac| bridge.lease(mac).is_some()), "the installed system has no lease");
    Ok(())
}

fn port(mac: &str) -> Nic {
    Nic::Bridge { mac: mac.to_owned(), bridge: bridge::NAME.to_owned() }
}

/// The controller stands still meanwhile, so that the maintenance OS is at work for as long as it takes.
fn nothing_open(site: &Site, address: Ipv4Addr, progress: &mut Progress) -> Result<()> {
    progress.phase("look at every TCP port of the maintenance OS");
    site.controller.pause()?;
    let mut found = scan(address, 1..=u16::MAX);
    progress.note(&format!("{} ports open, {} without an answer at first", found.open.len(), found.silent.len()));
    // An emulated machine is slow to refuse so many at a time.
    for _ in 0..5 {
        let again = scan(address, found.silent.into_iter());
        found.open.extend(again.open);
        found.silent = again.silent;
    }
    let own: SocketAddr = site.controller.url().trim_start_matches("http://").parse().context("the own address")?;
    let seen = scan(bridge::ADDRESS, std::iter::once(own.port()));
    site.controller.go_on()?;
    ensure!(seen.open == [own.port()], "the scan does not see the controller's port {}", own.port());
    ensure!(found.open.is_empty(), "open TCP ports of the maintenance OS: {:?}", found.open);
    ensure!(
        found.silent.is_empty(),
        "{} ports gave no answer, so nobody knows: {:?}",
        found.silent.len(),
        found.silent
    );
    Ok(())
}

fn finish(site: &Site, machine: &Machine, job: &Job, progress: &mut Progress) -> Result<()> {
    site.follow(machine, job, progress)?;
    let document = shown(machine, ended_well(site, machine, job))?;
    // Reports that were sent while nobody answered are lost.
    if let Err(error) = every_unit_in_order(&document) {
        progress.note(&format!("{error:#}"));
    }
    shown(machine, booted_once_each(machine, Mark::default()))?;
    nothing_told(site, machine, &[job])
}
