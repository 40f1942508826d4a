//! The hosts themselves: what the other scenarios stand on does what NixOS does, by hand and with the real clients.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use testkit::nix::{Flake, Host, Place, Rack, System, Unit};
use testkit::process::run;

use crate::runner::CannotRun;

/// Programs that this needs.
pub(crate) const NEEDS: &[&str] = testkit::nix::NEEDS;

/// Builds here, copies, activates and boots by hand.
pub(crate) fn by_hand(work: &Path) -> Result<()> {
    if let Some(why) = Rack::missing() {
        return Err(CannotRun(why).into());
    }
    let mut rack = Rack::start(work)?;
    let hosts = rack.boot_all(&[("gate", Place::Between), ("web", Place::Near), ("deep", Place::Far)])?;
    let [gate, mut web, deep] = <[Host; 3]>::try_from(hosts).ok().context("three hosts")?;
    logins(&rack, &gate, &web, &deep)?;
    let mut flake = rack.flake("fleet")?;
    let first = deploy(&rack, &mut flake, &web, system("1"))?;
    words(&rack, &mut flake, &web)?;
    exits(&rack, &mut flake, &web)?;
    boots(&rack, &mut flake, &mut web, &first)?;
    cut(&rack, &mut flake, &web)
}

fn system(version: &str) -> System {
    System::new("web", version)
        .unit(Unit::running("web", &format!("echo version {version}")))
        .unit(Unit::running("worker", &format!("echo version {version}")).restarting())
        .unit(Unit::running("proxy", &format!("echo version {version}")).reloading("echo reloaded"))
        .unit(Unit::running("kept", &format!("echo version {version}")).kept())
        .unit(Unit::running("same", "echo the same"))
        .file("version", version)
}

/// Each host has its own name and key, and only the one between reaches the far one.
fn logins(rack: &Rack, gate: &Host, web: &Host, deep: &Host) -> Result<()> {
    for host in [gate, web] {
        ensure!(run(rack.ssh(host, None)?.arg("hostname"))?.trim() == host.name(), "name of {}", host.name());
    }
    ensure!(run(rack.ssh(deep, Some(gate))?.arg("hostname"))?.trim() == "deep", "by a jump host");
    let direct = rack.ssh(deep, None)?.args(["-o", "ConnectTimeout=3", "true"]).output()?;
    ensure!(!direct.status.success(), "the far host is reached without a jump host");
    ensure!(web.host_key()? != gate.host_key()?, "two hosts have the same key");
    rack.ssh_configuration(web, None)?;
    web.change_host_key()?;
    let refused = refused(rack, web)?;
    ensure!(refused.contains("HOST IDENTIFICATION HAS CHANGED"), "{refused}");
    run(rack.ssh(web, None)?.arg("true")).map(drop)
}

/// What ssh says with the known hosts of before.
fn refused(rack: &Rack, host: &Host) -> Result<String> {
    let mut command = Command::new("ssh");
    command.arg("-F").arg(rack.work().join(format!("ssh-{}", host.name()))).args([host.name(), "true"]);
    Ok(String::from_utf8_lossy(&command.output()?.stderr).into_owned())
}

/// Builds, copies by ssh, sets the profile and switches.
fn deploy(rack: &Rack, flake: &mut Flake, host: &Host, system: System) -> Result<PathBuf> {
    let path = copied(rack, flake, host, system)?;
    let text = path.display().to_string();
    run(rack.ssh(host, None)?.args(["nix-env", "--profile", "/nix/var/nix/profiles/system", "--set", &text]))?;
    let ended = switch(rack, host, &path, "switch")?;
    ensure!(ended.0 == Some(0), "{ended:?}");
    for (name, found) in [
        ("current", host.current_system()?),
        ("profile", host.profile()?),
        ("boot", host.boot_default()?),
        ("generation", host.generations()?.pop().unwrap_or_default()),
    ] {
        ensure!(found == path, "{name}: {} is not {}", found.display(), path.display());
    }
    ensure!(host.booted_system()? != path, "booted");
    for unit in ["web", "worker", "proxy", "kept", "same"] {
        ensure!(host.unit_state(&format!("{unit}.service"))? == "active", "{unit} is not active");
    }
    ensure!(host.read("/etc/version")? == "1", "a file of /etc");
    Ok(path)
}

fn copied(rack: &Rack, flake: &mut Flake, host: &Host, system: System) -> Result<PathBuf> {
    let name = system.name().to_owned();
    let commit = flake.set(system)?;
    let path = rack.build(&flake.reference(&commit, &name))?;
    rack.copy(host, &path)?;
    Ok(path)
}

fn switch(rack: &Rack, host: &Host, system: &Path, action: &str) -> Result<(Option<i32>, String)> {
    let program = system.join("bin/switch-to-configuration").display().to_string();
    let Output { status, stderr, .. } = rack.over_ssh(host, &[&program, action])?;
    Ok((status.code(), String::from_utf8_lossy(&stderr).into_owned()))
}

/// What is told before and while units change.
fn words(rack: &Rack, flake: &mut Flake, host: &Host) -> Result<()> {
    let path = copied(rack, flake, host, system("2").unit(Unit::once("fresh", "true")))?;
    let before = [host.invocation("same.service")?, host.invocation("kept.service")?];
    let (code, said) = switch(rack, host, &path, "dry-activate")?;
    for line in [
        "would stop the following units: web.service",
        "would NOT stop the following changed units: kept.service",
        "would activate the configuration...",
        "would reload the following units: proxy.service",
        "would restart the following units: worker.service",
        "would start the following units: web.service",
    ] {
        ensure!(said.lines().any(|said| said == line), "no line {line:?} in\n{said}");
    }
    ensure!(code == Some(0) && host.read("/etc/version")? == "1", "dry-activate changed something");
    let (code, said) = switch(rack, host, &path, "test")?;
    for line in [
        "stopping the following units: web.service",
        "NOT restarting the following changed units: kept.service",
        "activating the configuration...",
        "reloading the following units: proxy.service",
        "restarting the following units: worker.service",
        "starting the following units: web.service",
        "the following new units were started: fresh.service",
    ] {
        ensure!(said.lines().any(|said| said == line), "no line {line:?} in\n{said}");
    }
    ensure!(code == Some(0), "test ended with {code:?}:\n{said}");
    ensure!(host.current_system()? == path && host.boot_default()? != path, "`test` is not for the next boot");
    ensure!([host.invocation("same.service")?, host.invocation("kept.service")?] == before, "restarted");
    ensure!(host.journal(Some("web.service"))?.contains("version 2"), "the new version did not start");
    Ok(())
}

/// How activations end that do not go well.
fn exits(rack: &Rack, flake: &mut Flake, host: &Host) -> Result<()> {
    let failing = copied(rack, flake, host, system("3").unit(Unit::failing("broken")))?;
    let (code, said) = switch(rack, host, &failing, "test")?;
    ensure!(
        code == Some(4) && said.contains("warning: the following units failed: broken.service"),
        "{code:?}\n{said}"
    );
    ensure!(host.current_system()? == failing, "it is the current system although a unit failed");
    let unhappy = copied(rack, flake, host, system("4").activation("exit 7"))?;
    let (code, said) = switch(rack, host, &unhappy, "test")?;
    ensure!(code == Some(2) && said.contains("Failed to run activate script"), "{code:?}\n{said}");
    let other = copied(rack, flake, host, system("5").init_interface("another"))?;
    let (code, said) = switch(rack, host, &other, "test")?;
    ensure!(code == Some(100) && host.current_system()? == unhappy, "{code:?}\n{said}");
    let held = copied(rack, flake, host, system("6").unit(Unit::held("slow")))?;
    let program = held.join("bin/switch-to-configuration").display().to_string();
    host.run(&["systemd-run", "--unit=first", &program, "test"])?;
    host.wait_held("slow")?;
    let (code, said) = switch(rack, host, &held, "test")?;
    ensure!(code == Some(11) && said.contains("Could not acquire lock"), "{code:?}\n{said}");
    host.release("slow")?;
    host.wait_unit("first.service", "inactive")?;
    let (code, said) = switch(rack, host, &held, "sideways")?;
    ensure!(code == Some(1) && said.contains("Usage"), "{code:?}\n{said}");
    Ok(())
}

/// A host comes up with what its boot loader names.
fn boots(rack: &Rack, flake: &mut Flake, host: &mut Host, first: &Path) -> Result<()> {
    let boot = host.read("/proc/sys/kernel/random/boot_id")?;
    host.reboot()?;
    ensure!(host.read("/proc/sys/kernel/random/boot_id")? != boot, "the id of the boot is the one of before");
    ensure!(host.booted_system()? == first && host.current_system()? == first, "not the default system");
    ensure!(host.unit_state("web.service")? == "active" && host.read("/etc/version")? == "1", "not as it was");
    ensure!(!host.exists("/etc/systemd/system/slow.service")?, "a unit of another system");
    let next = copied(rack, flake, host, system("7").kernel("6.12.9"))?;
    let (code, said) = switch(rack, host, &next, "boot")?;
    ensure!(code == Some(0) && host.current_system()? == first, "{code:?}\n{said}");
    host.reboot()?;
    ensure!(host.booted_system()? == next && host.read("/etc/version")? == "7", "not the system of `boot`");
    let kernels = [first, &next].map(|system| host.follow(&system.join("kernel").display().to_string()));
    let [old, new] = kernels;
    ensure!(old? != new?, "another kernel is the same");
    Ok(())
}

/// A unit that takes the network away, and gives it back when it goes.
fn cut(rack: &Rack, flake: &mut Flake, host: &Host) -> Result<()> {
    let good = host.current_system()?;
    let bad = copied(rack, flake, host, system("8").unit(Unit::cutting_network("cut")))?;
    let program = |system: &Path| system.join("bin/switch-to-configuration").display().to_string();
    host.run(&["systemd-run", "--wait", &program(&bad), "test"])?;
    ensure!(!host.is_linked()?, "the network is still there");
    host.run(&["systemd-run", "--wait", &program(&good), "test"])?;
    ensure!(host.is_linked()?, "the network is still away");
    host.cut()?;
    let lost = rack.ssh(host, None)?.args(["-o", "ConnectTimeout=2", "true"]).output()?;
    ensure!(!lost.status.success(), "a host that is cut off is reached");
    host.mend()?;
    run(rack.ssh(host, None)?.arg("true")).map(drop)
}
