//! `make install` on a host with systemd and polkit: what the units give and withhold, with programs that only wait in the
//! place of ours.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use testkit::process::run;
use testkit::systemd_host::SystemdHost;
use testkit::wait;

use crate::deploy::{has, repository};

const BUS: [&str; 5] =
    ["busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
const VM: &str = "metald-vm@ud-1.service";

/// Built programs that are none, the files of the repository that an install takes, and drop-ins that give them arguments.
fn prepare(root: &Path) {
    let source = root.join("root/cairn");
    let release = source.join("target/release");
    fs::create_dir_all(&release).unwrap();
    for part in ["Makefile", "deploy", "docs"] {
        run(Command::new("cp").arg("-r").arg(repository().join(part)).arg(&source)).unwrap();
    }
    for program in ["cairn", "cairn-keeper"] {
        fs::copy("/usr/bin/sleep", release.join(program)).unwrap();
    }
    for (unit, command) in [
        ("metald.service", "/usr/local/bin/metald 600"),
        // A hypervisor that outlives its keeper; only one keeper begins it.
        (
            "metald-vm@.service",
            "/bin/sh -c '[ -e /var/lib/metald/begun ] || { touch /var/lib/metald/begun; sleep 700 & }; exec /usr/local/libexec/cairn/cairn-keeper 600'",
        ),
    ] {
        let directory = root.join("etc/systemd/system").join(format!("{unit}.d"));
        fs::create_dir_all(&directory).unwrap();
        let text = format!("[Service]\nExecStart=\nExecStart={command}\n");
        fs::write(directory.join("stub.conf"), text).unwrap();
    }
}

fn main_process(host: &SystemdHost, unit: &str) -> String {
    host.run(&["systemctl", "show", "--property=MainPID", "--value", unit]).unwrap().trim().to_owned()
}

fn is_active(host: &SystemdHost, unit: &str) -> bool {
    host.command("systemctl").args(["is-active", "--quiet", unit]).status().unwrap().success()
}

fn sleepers(host: &SystemdHost) -> usize {
    let output = host.command("pgrep").args(["-f", "^sleep 700$"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().count()
}

/// What systemd says to a call by this user.
fn asked(host: &SystemdHost, (uid, gid): (u32, u32), call: &[&str]) -> Result<(), String> {
    let output = host.command_as(uid, gid, BUS[0]).args(&BUS[1..]).args(call).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn installed_on_a_host() {
    let test = "installed_on_a_host";
    if let Some(why) = SystemdHost::missing() {
        return eprintln!("NOT RUN: {test}: {why}");
    }
    if !has(test, &["make", "busctl", "getcap", "setcap", "pkcheck", "useradd"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let host = match SystemdHost::boot(directory.path(), &format!("cairn-deploy-{}", std::process::id())) {
        Ok(host) => host,
        Err(error) => panic!("{error:#}\n{}", fs::read_to_string(directory.path().join("log")).unwrap_or_default()),
    };
    prepare(&host.root());
    host.run(&["make", "-C", "/root/cairn", "install"]).unwrap();
    owners_and_capabilities(&host);
    the_daemon_has_what_it_needs(&host);
    polkit_allows_vms_and_nothing_else(&host);
    nothing_ends_a_vm(&host);
}

fn owners_and_capabilities(host: &SystemdHost) {
    assert_eq!(host.run(&["id", "metald"]).unwrap().trim(), "uid=977(metald) gid=976(metald) groups=976(metald)");
    let listed = host.run(&["getcap", "/usr/local/bin/metald", "/usr/local/bin/cairn"]).unwrap();
    assert!(listed.contains("cap_net_admin") && listed.contains("=ep") && !listed.contains("bin/cairn"), "{listed}");
    let owner = |path: &str| host.run(&["stat", "--format=%U:%G %a", path]).unwrap().trim().to_owned();
    assert_eq!(owner("/usr/local/bin/metald"), "root:metald 750");
    assert_eq!(owner("/srv/jailer"), "root:root 755");
    assert_eq!(owner("/var/lib/metald"), "metald:metald 750");
    assert_eq!(owner("/opt/metald/assets"), "metald:metald 755");
    assert_eq!(host.run(&["grep", "^metald:", "/etc/subuid"]).unwrap(), "metald:200000:65536\n");
    // Everybody else may not even start it, and so gets none of its capabilities.
    assert!(!host.command_as(1234, 1234, "/usr/local/bin/metald").arg("0").status().unwrap().success());
    assert!(host.command_as(977, 976, "/usr/local/bin/metald").arg("0").status().unwrap().success());
}

/// Lines of `/proc/PID/status` that begin with `Cap`, as numbers.
fn capability(host: &SystemdHost, unit: &str, name: &str) -> u64 {
    let status = host.run(&["cat", &format!("/proc/{}/status", main_process(host, unit))]).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    u64::from_str_radix(value.trim(), 16).unwrap()
}

fn the_daemon_has_what_it_needs(host: &SystemdHost) {
    host.run(&["systemctl", "enable", "--now", "metald"]).unwrap();
    let of_file = capability(host, "metald", "CapEff");
    assert_eq!(of_file.count_ones(), 12);
    assert_eq!(of_file, capability(host, "metald", "CapBnd"));
    // A program whose file has capabilities loses the ambient ones: what it starts gets none unless it raises them.
    assert_eq!(capability(host, "metald", "CapAmb"), 0);
    // After the guide's upgrade by cp the file has none, and the unit's are there.
    host.run(&["systemctl", "stop", "metald"]).unwrap();
    host.run(&["cp", "/usr/bin/sleep", "/usr/local/bin/metald"]).unwrap();
    assert_eq!(host.run(&["getcap", "/usr/local/bin/metald"]).unwrap(), "");
    host.run(&["systemctl", "start", "metald"]).unwrap();
    assert_eq!(capability(host, "metald", "CapEff"), of_file);
    assert_eq!(capability(host, "metald", "CapAmb"), of_file);
    // Names of namespaces are mounts that `ip netns` on the host has to see.
    let process = main_process(host, "metald");
    let space = |process: &str| host.run(&["readlink", &format!("/proc/{process}/ns/mnt")]).unwrap();
    assert_eq!(space(&process), space("1"));
}

fn polkit_allows_vms_and_nothing_else(host: &SystemdHost) {
    let metald = (977, 976);
    asked(host, metald, &["StartUnit", "ss", VM, "fail"]).unwrap();
    asked(host, metald, &["SetUnitProperties", "sba(sv)", VM, "true", "1", "MemoryMax", "t", "100000000"]).unwrap();
    for refused in [
        &["StartUnit", "ss", "console-getty.service", "fail"][..],
        &["RestartUnit", "ss", "metald.service", "fail"],
        &["StopUnit", "ss", "dbus.service", "fail"],
        &["StartUnit", "ss", "metald-vm@..-x.service", "fail"],
        &["KillUnit", "ssi", VM, "all", "9"],
        // Of any name: polkit is not told it.
        &["StartTransientUnit", "ssa(sv)a(sa(sv))", "metald-vm@x.service", "fail", "1", "Description", "s", "x", "0"],
    ] {
        let said = asked(host, metald, refused).unwrap_err();
        assert!(said.contains("Interactive authentication required"), "{refused:?}: {said}");
    }
    let said = asked(host, (65_534, 65_534), &["StopUnit", "ss", VM, "fail"]).unwrap_err();
    assert!(said.contains("Interactive authentication required"), "{said}");
}

fn nothing_ends_a_vm(host: &SystemdHost) {
    let runs = || is_active(host, VM) && sleepers(host) == 1;
    let soon = |what: &str, look: &dyn Fn() -> bool| {
        let seen = wait::until(what, Duration::from_secs(30), Duration::from_millis(100), || Ok(look().then_some(())));
        seen.unwrap();
    };
    soon("the VM", &runs);
    // Guide, "Service Hung".
    host.run(&["systemctl", "kill", "-s", "KILL", "metald"]).unwrap();
    host.run(&["systemctl", "start", "metald"]).unwrap();
    assert!(is_active(host, "metald") && runs());
    host.run(&["systemctl", "stop", "metald"]).unwrap();
    assert!(!is_active(host, "metald") && runs());
    // A keeper that is killed has a successor, and its hypervisor goes on.
    let before = main_process(host, VM);
    host.run(&["kill", "-KILL", &before]).unwrap();
    soon("the next keeper", &|| is_active(host, VM) && main_process(host, VM) != before);
    assert!(runs());
    // The hypervisor is the daemon's to end.
    asked(host, (977, 976), &["StopUnit", "ss", VM, "fail"]).unwrap();
    soon("the end of the unit", &|| !is_active(host, VM));
    assert_eq!(sleepers(host), 1);
}
