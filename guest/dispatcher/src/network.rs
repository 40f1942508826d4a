//! The maintenance system's network: files for systemd-networkd, then waiting for link and address.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use host::{Command, Processes};
use recipe::network::Network;

use crate::failure::{Failure, code};
use crate::pause;

mod files;

use files::{BOND, PREFIX, VLAN};
pub use files::{Files, files};

/// Writes the files, restarts systemd-networkd and waits for an address.
pub(crate) fn bring_up(
    processes: &dyn Processes,
    root: &Path,
    network: Option<&Network>,
    limit: Duration,
    interval: Duration,
) -> Result<(), Failure> {
    if let Some(violation) = network.and_then(|network| network.violations().into_iter().next()) {
        let message = format!("network.json {}: {}", violation.path, violation.message);
        return Err(Failure::new(code::NETWORK_INVALID, message));
    }
    write_files(&root.join("run/systemd/network"), &files(network))?;
    let restart = Command::new("systemctl").args(["restart", "systemd-networkd.service"]);
    processes.run(&restart).map_err(Failure::of(code::START_FAILED))?;
    wait(root, network, limit, interval)?;
    resolver(root, network)
}

fn write_files(directory: &Path, files: &Files) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(code::STATE_UNWRITABLE, format!("cannot write to {}: {error}", directory.display()))
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
            std::fs::remove_file(&path).map_err(failed)?;
        }
    }
    for (name, contents) in files {
        // systemd-networkd runs as its own user and has to read them.
        host::write_atomic(&directory.join(name), contents.as_bytes(), 0o644)
            .map_err(Failure::of(code::STATE_UNWRITABLE))?;
    }
    Ok(())
}

/// Waits for interface, link and address in this order; what is missing when the time is over is the failure.
fn wait(root: &Path, network: Option<&Network>, limit: Duration, interval: Duration) -> Result<(), Failure> {
    let mut missing = Missing::Interface;
    let up = pause::until(limit, interval, || match state(root, network) {
        Ok(()) => Some(()),
        Err(now) => {
            missing = now;
            None
        }
    });
    if up.is_some() {
        return Ok(());
    }
    let whom = match network {
        None => "an Ethernet interface".to_owned(),
        Some(network) => network.macs().join(", "),
    };
    let seconds = limit.as_secs();
    Err(match missing {
        Missing::Interface => {
            let seen: Vec<String> = interfaces(root).iter().map(|one| format!("{} {}", one.name, one.mac)).collect();
            let seen = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
            let message = format!("no interface with {whom} within {seconds} s; seen: {seen}");
            Failure::new(code::NETWORK_NO_INTERFACE, message)
        }
        Missing::Link => Failure::new(code::NETWORK_NO_LINK, format!("{whom} got no link within {seconds} s")),
        Missing::Address => {
            let how = if network.is_some_and(|network| !network.dhcp) { "its static" } else { "a DHCP" };
            Failure::new(code::NETWORK_NO_ADDRESS, format!("{whom} did not get {how} address within {seconds} s"))
        }
    })
}

/// What is not there yet.
enum Missing {
    Interface,
    Link,
    Address,
}

/// An Ethernet interface of real hardware.
struct Interface {
    name: String,
    mac: String,
    carrier: bool,
}

/// Interfaces that have a device behind them.
fn interfaces(root: &Path) -> Vec<Interface> {
    let Ok(entries) = std::fs::read_dir(root.join("sys/class/net")) else { return Vec::new() };
    let read = |path: &Path, file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default().trim().to_owned();
    let mut found: Vec<Interface> = entries
        .flatten()
        .map(|entry| entry.path())
        // 1 is ARPHRD_ETHER; only hardware has a link called `device`.
        .filter(|path| read(path, "type") == "1" && path.join("device").exists())
        .map(|path| Interface {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            mac: read(&path, "address"),
            carrier: read(&path, "carrier") == "1",
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn state(root: &Path, network: Option<&Network>) -> Result<(), Missing> {
    let hardware = interfaces(root);
    let wanted: Vec<&Interface> = match network {
        None => hardware.iter().collect(),
        // The members of a bond take its address: by then they have done what they were looked for.
        Some(network) if network.bond.is_some() => hardware.iter().collect(),
        Some(network) => {
            let macs = network.macs();
            hardware.iter().filter(|one| macs.iter().any(|mac| mac.eq_ignore_ascii_case(&one.mac))).collect()
        }
    };
    if wanted.is_empty() {
        return Err(Missing::Interface);
    }
    if !wanted.iter().any(|one| one.carrier) {
        return Err(Missing::Link);
    }
    let names: Vec<&str> = match network {
        Some(Network { vlan: Some(_), .. }) => vec![VLAN],
        Some(Network { bond: Some(_), .. }) => vec![BOND],
        _ => wanted.iter().map(|one| one.name.as_str()).collect(),
    };
    if names.iter().any(|name| has_address(root, name)) { Ok(()) } else { Err(Missing::Address) }
}

/// Whether an interface has an IPv4 address, seen by the route that comes with it, or a global IPv6 address that is
/// ready (`/proc/net/route`, `/proc/net/if_inet6`).
fn has_address(root: &Path, name: &str) -> bool {
    let read = |file: &str| std::fs::read_to_string(root.join("proc/net").join(file)).unwrap_or_default();
    let route = read("route").lines().skip(1).any(|line| line.split_whitespace().next() == Some(name));
    let global = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Scope 00 is global; flag 0x40 is tentative.
        matches!(words[..], [_, _, _, "00", flags, interface] if interface == name
            && u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 0x40 == 0))
    };
    route || read("if_inet6").lines().any(global)
}

/// Without systemd-resolved nobody writes `/etc/resolv.conf`: the servers that systemd-networkd knows go there.
fn resolver(root: &Path, network: Option<&Network>) -> Result<(), Failure> {
    if root.join("run/systemd/resolve").exists() {
        return Ok(());
    }
    let mut servers: Vec<String> =
        network.map(|network| network.dns.iter().map(ToString::to_string).collect()).unwrap_or_default();
    let state = std::fs::read_to_string(root.join("run/systemd/netif/state")).unwrap_or_default();
    let known = state.lines().find_map(|line| line.strip_prefix("DNS=")).unwrap_or_default();
    for server in known.split_whitespace().filter(|server| server.parse::<IpAddr>().is_ok()) {
        if !servers.iter().any(|one| one == server) {
            servers.push(server.to_owned());
        }
    }
    if servers.is_empty() {
        return Ok(());
    }
    let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    host::write_atomic(&root.join("etc/resolv.conf"), text.as_bytes(), 0o644)
        .map_err(Failure::of(code::STATE_UNWRITABLE))
}

#[cfg(test)]
mod tests {
    use host::Fake;

    use super::*;

    fn network(json: &str) -> Network {
        serde_json::from_str(json).unwrap()
    }

    /// A machine with one interface.
    fn machine(mac: &str, carrier: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let interface = root.path().join("sys/class/net/ens3");
        std::fs::create_dir_all(interface.join("device")).unwrap();
        for (file, contents) in [("type", "1\n"), ("address", mac), ("carrier", carrier)] {
            std::fs::write(interface.join(file), contents).unwrap();
        }
        std::fs::create_dir_all(root.path().join("proc/net")).unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        root
    }

    fn outcome(root: &Path, network: Option<&Network>) -> Result<(), String> {
        let (limit, interval) = (Duration::from_millis(5), Duration::from_millis(1));
        bring_up(&Fake::new(), root, network, limit, interval).map_err(|failure| failure.code)
    }

    #[test]
    fn what_is_missing_has_its_own_code() {
        let wanted = network(r#"{"mac": "52:54:00:AA:00:01", "dhcp": true, "dns": ["192.0.2.53"]}"#);
        let other = machine("52:54:00:aa:00:02\n", "1\n");
        assert_eq!(outcome(other.path(), Some(&wanted)), Err(code::NETWORK_NO_INTERFACE.into()));
        let unplugged = machine("52:54:00:aa:00:01\n", "0\n");
        assert_eq!(outcome(unplugged.path(), Some(&wanted)), Err(code::NETWORK_NO_LINK.into()));
        let silent = machine("52:54:00:aa:00:01\n", "1\n");
        assert_eq!(outcome(silent.path(), Some(&wanted)), Err(code::NETWORK_NO_ADDRESS.into()));
        let local = "fe80000000000000505400fffeaa0001 02 40 20 80     ens3\n";
        let tentative = "20010db8000000000000000000000002 02 40 00 40     ens3\n";
        std::fs::write(silent.path().join("proc/net/if_inet6"), format!("{local}{tentative}")).unwrap();
        assert_eq!(outcome(silent.path(), None), Err(code::NETWORK_NO_ADDRESS.into()));
        let route = "Iface\tDestination\tGateway\nens3\t00020CC0\t00000000\n";
        std::fs::write(silent.path().join("proc/net/route"), route).unwrap();
        assert_eq!(outcome(silent.path(), Some(&wanted)), Ok(()));
        let resolver = std::fs::read_to_string(silent.path().join("etc/resolv.conf")).unwrap();
        assert_eq!(resolver, "nameserver 192.0.2.53\n");
        let broken = network(r#"{"mac": "x", "dhcp": true}"#);
        assert_eq!(outcome(silent.path(), Some(&broken)), Err(code::NETWORK_INVALID.into()));
    }

    #[test]
    fn files_of_an_earlier_attempt_go() {
        let root = machine("52:54:00:aa:00:01\n", "1\n");
        let directory = root.path().join("run/systemd/network");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("10-cairn-bond.netdev"), "old").unwrap();
        std::fs::write(directory.join("90-site.network"), "theirs").unwrap();
        let _ = outcome(root.path(), None);
        let mut names: Vec<_> =
            std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["10-cairn-any.network", "90-site.network"]);
    }
}
