//! Units, the rule of polkit, the AppArmor profile, and the list of capabilities that several of them hold.

use std::collections::BTreeSet;
use std::process::Command;

use tempfile::TempDir;
use testkit::process::run;

use crate::deploy::{has, path, repository, text};

const UNITS: [&str; 2] = ["metald.service", "metald-vm@.service"];

/// Values of a key, in every line that sets it.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

fn capabilities(list: &str) -> BTreeSet<String> {
    list.split([' ', ',']).map(|name| name.to_lowercase()).collect()
}

#[test]
fn systemd_takes_the_units() {
    if !has("systemd_takes_the_units", &["systemd-analyze"]) {
        return;
    }
    // Programs have to be on the machine that checks; ours are not.
    let directory = TempDir::new().unwrap();
    let copies = UNITS.map(|unit| {
        let copy = directory.path().join(unit);
        let programs = ["/usr/local/bin/metald", "/usr/local/libexec/cairn/cairn-keeper"];
        std::fs::write(&copy, programs.iter().fold(text(unit), |text, ours| text.replace(ours, "/bin/true"))).unwrap();
        copy
    });
    let output = Command::new("systemd-analyze").arg("verify").args(&copies).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // An unknown key is only a line of text.
    assert!(output.status.success() && said.trim().is_empty(), "{}: {said}", output.status);
}

#[test]
fn how_exposed_the_units_are() {
    if !has("how_exposed_the_units_are", &["systemd-analyze"]) {
        return;
    }
    for unit in UNITS {
        let arguments = ["security", "--offline=true", "--no-pager", "--threshold=58"];
        let output = Command::new("systemd-analyze").args(arguments).arg(path(unit)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let score = said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or("no score");
        println!("{score}");
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn one_list_of_capabilities() {
    let daemon = text("metald.service");
    let keeper = text("metald-vm@.service");
    let makefile = std::fs::read_to_string(repository().join("Makefile")).unwrap();
    let of_file = makefile.lines().find_map(|line| line.strip_prefix("CAPABILITIES = ")).unwrap();
    let list = |unit, key| values(unit, key).into_iter().map(capabilities).collect::<Vec<_>>();
    let bounding = list(&daemon, "CapabilityBoundingSet");
    // A file's capability that is not in the bounding set makes execve fail; an ambient one is not given.
    assert_eq!(bounding, [capabilities(of_file)]);
    assert_eq!(list(&daemon, "AmbientCapabilities"), bounding);
    let less = list(&keeper, "CapabilityBoundingSet");
    assert_eq!(list(&keeper, "AmbientCapabilities"), less);
    assert!(less[0].is_subset(&bounding[0]));
    assert!(["cap_net_admin", "cap_sys_ptrace"].iter().all(|name| !less[0].contains(*name)));
    for never in ["cap_sys_resource", "cap_sys_module", "cap_sys_rawio", "cap_bpf"] {
        assert!(!bounding[0].contains(never), "{never}");
    }
    for reason in &bounding[0] {
        let name = reason.strip_prefix("cap_").unwrap().to_uppercase();
        assert!(daemon.lines().any(|line| line.starts_with("# ") && line.contains(&name)), "{name} has no reason");
    }
    let profile = text("apparmor/metald");
    let daemons = profile.split("profile cairn-keeper").next().unwrap();
    let allowed = |line: &str| Some(format!("cap_{}", line.trim().strip_prefix("capability ")?.strip_suffix(',')?));
    assert_eq!(daemons.lines().filter_map(allowed).collect::<BTreeSet<_>>(), bounding[0]);
}

#[test]
fn names_of_namespaces_stay_visible() {
    // Each of these gives a unit a mount namespace of its own (systemd.exec(5)).
    let own = [
        "BindPaths",
        "InaccessiblePaths",
        "LogNamespace",
        "MountFlags",
        "PrivateDevices",
        "PrivateMounts",
        "PrivateTmp",
        "ProcSubset",
        "ProtectControlGroups",
        "ProtectHome",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectProc",
        "ProtectSystem",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "RootDirectory",
        "TemporaryFileSystem",
    ];
    for unit in UNITS {
        let text = text(unit);
        for key in own {
            assert!(values(&text, key).is_empty(), "{unit} has {key}");
        }
        // QEMU without KVM translates code into memory that it then runs.
        assert!(values(&text, "MemoryDenyWriteExecute").is_empty(), "{unit}");
    }
}

#[test]
fn vms_outlive_the_daemon_and_their_keepers() {
    for unit in UNITS {
        let text = text(unit);
        let one = |key| values(&text, key).join(" ");
        assert_eq!(
            (one("User"), one("Group"), one("KillMode"), one("Delegate"), one("OOMPolicy")),
            ("metald".into(), "metald".into(), "process".into(), "yes".into(), "continue".into()),
            "{unit}"
        );
        assert_eq!(one("LimitNOFILE"), "65536", "{unit}");
    }
    let keeper = text("metald-vm@.service");
    for tie in ["BindsTo", "PartOf", "Requires", "Requisite", "StopPropagatedFrom", "Upholds"] {
        assert!(values(&keeper, tie).is_empty(), "{tie}");
    }
    assert!(!keeper.contains("[Install]") && values(&keeper, "Restart") == ["on-failure"]);
    let daemon = text("metald.service");
    assert_eq!((values(&daemon, "Restart"), values(&daemon, "RestartSec")), (vec!["always"], vec!["5"]));
    assert_eq!(values(&daemon, "EnvironmentFile"), ["-/etc/metald/metald.env"]);
}

#[test]
fn apparmor_takes_the_profile() {
    if !has("apparmor_takes_the_profile", &["apparmor_parser"]) {
        return;
    }
    let profile = path("apparmor/metald");
    run(Command::new("apparmor_parser").args(["--skip-kernel-load", "--skip-cache"]).arg(&profile)).unwrap();
    // Nobody has seen it enforced; the manual says how to.
    let text = text("apparmor/metald");
    let heads: Vec<&str> = text.lines().map(str::trim).filter(|line| line.starts_with("profile ")).collect();
    assert_eq!(heads.len(), 3, "{heads:?}");
    assert!(heads.iter().all(|head| head.contains("complain")), "{heads:?}");
}
