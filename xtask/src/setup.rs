//! Installs what demo and tests need, and says what it does. Nothing that is there already is touched.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use testkit::process::run;
use testkit::sushy;

use crate::packages::PACKAGES;

const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str =
    "#!/bin/sh\n# From cairn's xtask setup, for the time of one apt-get call: starts no service.\nexit 101\n";
/// Packages that come with a server, and its unit: only their programs are used.
const SERVERS: &[(&str, &str)] = &[
    ("docker-registry", "docker-registry.service"),
    ("nginx-light", "nginx.service"),
    ("openssh-server", "ssh.service"),
    ("prometheus", "prometheus.service"),
];

/// Installs missing packages and the Python environment.
pub(crate) fn setup() -> Result<()> {
    let missing = missing(&installed()?);
    if missing.is_empty() {
        println!("setup: all {} Debian packages are there", PACKAGES.len());
    } else {
        install(&missing)?;
    }
    sushy::install(|text| println!("setup: {text}"))?;
    println!("setup: sushy-tools {} is there", sushy::VERSION);
    Ok(())
}

fn install(missing: &[(&str, &str)]) -> Result<()> {
    println!("setup: installing {} Debian packages with apt-get:", missing.len());
    for (name, reason) in missing {
        println!("  {name:28} {reason}");
    }
    may_be_root()?;
    for (_, unit) in SERVERS.iter().filter(|(server, _)| missing.iter().any(|(name, _)| name == server)) {
        mask(unit)?;
    }
    // A third-party source that fails does not matter as long as the packages can be installed.
    println!("setup: apt-get update");
    if let Err(error) = run(&mut apt(&["update"])) {
        println!("setup: going on although apt-get update failed: {error:#}");
    }
    println!("setup: {POLICY} keeps apt-get from starting services and goes afterwards");
    let _policy = Policy::set()?;
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    println!("setup: apt-get install (a few minutes)");
    run(&mut apt(&[&["install", "--yes", "--no-install-recommends"], names.as_slice()].concat()))?;
    let left = self::missing(&installed()?);
    ensure!(left.is_empty(), "still missing after apt-get install: {left:?}");
    Ok(())
}

/// Keeps a server from being started with the machine, too.
fn mask(unit: &str) -> Result<()> {
    let link = format!("/etc/systemd/system/{unit}");
    if Path::new(&link).is_symlink() {
        return Ok(());
    }
    println!("setup: masking {unit}, only the package's program is used");
    run(&mut as_root("mkdir", &["-p", "/etc/systemd/system"]))?;
    run(&mut as_root("ln", &["-s", "/dev/null", &link])).map(drop)
}

/// Names of the installed packages.
fn installed() -> Result<BTreeSet<String>> {
    let list = run(Command::new("dpkg-query").args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]))
        .context("the list of installed packages; cairn is tested on Debian 12")?;
    Ok(list.lines().filter_map(|line| line.strip_suffix(" installed")).map(str::to_owned).collect())
}

fn missing(installed: &BTreeSet<String>) -> Vec<(&'static str, &'static str)> {
    PACKAGES.iter().copied().filter(|(name, _)| !installed.contains(*name)).collect()
}

fn may_be_root() -> Result<()> {
    if is_root()? || run(Command::new("sudo").args(["-n", "true"])).is_ok() {
        return Ok(());
    }
    let names: Vec<&str> = missing(&installed()?).into_iter().map(|(name, _)| name).collect();
    bail!(
        "neither root nor able to use sudo without a password; run this first:\n  apt-get install {}",
        names.join(" ")
    )
}

fn is_root() -> Result<bool> {
    Ok(run(Command::new("id").arg("-u"))?.trim() == "0")
}

fn as_root(program: &str, arguments: &[&str]) -> Command {
    let mut command = if is_root().unwrap_or(false) {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", program]);
        sudo
    };
    command.args(arguments);
    command
}

fn apt(arguments: &[&str]) -> Command {
    // Through env, because sudo drops variables.
    let words = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"];
    as_root("env", &[&words, arguments].concat())
}

/// While it lives, packages start no services. A policy that was there before stays as it is.
struct Policy {
    ours: bool,
}

impl Policy {
    fn set() -> Result<Self> {
        let there = std::fs::read_to_string(POLICY).ok();
        // One of ours may be left by a call that was killed.
        let ours = there.as_deref().is_none_or(|text| text == POLICY_TEXT);
        if ours {
            let file = std::env::temp_dir().join(format!("policy-rc.d-{}", std::process::id()));
            std::fs::write(&file, POLICY_TEXT)?;
            let set = run(&mut as_root("install", &["-m", "755", &file.display().to_string(), POLICY]));
            std::fs::remove_file(&file)?;
            set?;
        }
        Ok(Self { ours })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = run(&mut as_root("rm", &["-f", POLICY]))
        {
            eprintln!("warning: {POLICY} is left: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_missing() {
        let all: BTreeSet<String> = PACKAGES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert!(missing(&all).is_empty());
        let mut some = all;
        some.remove("xorriso");
        assert_eq!(missing(&some).iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["xorriso"]);
    }

    #[test]
    fn the_list_is_sorted_and_has_reasons() {
        assert!(PACKAGES.is_sorted_by(|one, other| one.0 < other.0));
        assert!(PACKAGES.iter().all(|(_, reason)| !reason.is_empty()));
        assert!(SERVERS.iter().all(|(server, _)| PACKAGES.iter().any(|(name, _)| name == server)));
    }
}
