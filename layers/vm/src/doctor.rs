//! Whether this host has what VMs need (guide, "Prerequisites" and "System Tuning"), and what is in the way.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::service::{Error, Service};

/// Least kernel: cgroup and pidfd calls that are used (decision 37).
const KERNEL: (u32, u32) = (5, 10);
/// Least systemd, where it is the first process.
const SYSTEMD: u32 = 247;
const GIB: u64 = 1 << 30;
/// Capabilities that the daemon uses, by number and name (linux/capability.h).
const CAPABILITIES: [(u8, &str); 12] = [
    (0, "cap_chown"),
    (1, "cap_dac_override"),
    (3, "cap_fowner"),
    (5, "cap_kill"),
    (6, "cap_setgid"),
    (7, "cap_setuid"),
    (8, "cap_setpcap"),
    (12, "cap_net_admin"),
    (18, "cap_sys_chroot"),
    (19, "cap_sys_ptrace"),
    (21, "cap_sys_admin"),
    (27, "cap_mknod"),
];

/// What one check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// VMs run, but not as well as they could, or not all of them.
    Warn,
    /// VMs do not run.
    Fail,
}

/// What was found on the host; what could not be read is missing.
#[derive(Debug, Clone, Default)]
struct Facts {
    kernel: String,
    systemd: Option<String>,
    memory: Option<u64>,
    cores: usize,
    room: Option<(PathBuf, u64)>,
    kvm: bool,
    tun: bool,
    capabilities: Option<u64>,
    open_files: Option<u64>,
    inotify: Option<u64>,
    namespaces: Option<u64>,
    most_vms: u64,
    forwarding: [(&'static str, Option<u64>); 2],
    security: Option<String>,
}

impl Service {
    /// Looks at everything that VMs need.
    pub async fn doctor(&self) -> Vec<Finding> {
        let (limits, most_vms) = (self.limits(), u64::from(self.limits().most_vms));
        let facts = tokio::task::spawn_blocking({
            let vms = limits.vms.clone();
            move || gather(&vms, most_vms)
        });
        // Only reads; should it panic, that is a finding too.
        let mut findings = facts
            .await
            .map_or_else(|error| vec![found("host", Verdict::Fail, error.to_string())], |facts| judge(&facts));
        findings.push(match self.backend_health().await {
            Ok((backend, version)) => found("hypervisor", Verdict::Ok, format!("{backend} {version}")),
            Err(reason) => found("hypervisor", Verdict::Fail, reason)
                .hint("install firecracker and jailer to /usr/local/bin, or the package qemu-system-x86"),
        });
        findings.push(match self.context.assets.resolve(&crate::model::VmSpec::default()).await {
            Ok(files) => found("default kernel", Verdict::Ok, files.kernel.name.to_string()),
            Err(error) => found("default kernel", Verdict::Warn, cairn_core::chain(&error))
                .hint("cairn vm asset add vmlinux FILE --kind kernel, and set UNKEY_METALD_DEFAULT_KERNEL=vmlinux"),
        });
        match self.context.edges.foreign().await {
            Ok(foreign) if foreign.is_empty() => {
                findings.push(found("packet filters of others", Verdict::Ok, "none is in the way".to_owned()));
            }
            Ok(foreign) => findings.extend(foreign.into_iter().map(|one| {
                found("packet filters of others", Verdict::Warn, one.chain)
                    .hint("a drop in any chain of a hook is final: let the VMs' subnet pass there too")
            })),
            Err(error) => findings.push(found("packet filters of others", Verdict::Warn, error.reason)),
        }
        findings.push(match self.strays().await {
            Ok(strays) if strays.is_empty() => found("strays", Verdict::Ok, "nothing belongs to no VM".to_owned()),
            Ok(strays) => found("strays", Verdict::Warn, format!("{} belong to no VM", strays.len()))
                .hint("cairn vm gc --dry-run names them, cairn vm gc removes them"),
            Err(error) => found("strays", Verdict::Warn, stray_error(&error)),
        });
        findings
    }
}

fn stray_error(error: &Error) -> String {
    cairn_core::chain(error)
}

fn found(check: &str, verdict: Verdict, detail: impl Into<String>) -> Finding {
    Finding { check: check.to_owned(), verdict, detail: detail.into(), hint: None }
}

impl Finding {
    fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let verdict = |good: bool, bad: Verdict| if good { Verdict::Ok } else { bad };
    let number = |value: Option<u64>| value.map_or_else(|| "cannot be read".to_owned(), |value| value.to_string());
    let at_least = |check: &str, value: Option<u64>, least: u64, hint: &str| {
        let good = value.is_none_or(|value| value >= least);
        let finding =
            found(check, verdict(good, Verdict::Warn), format!("{}, at least {least} is wanted", number(value)));
        if good { finding } else { finding.hint(hint) }
    };
    let mut findings = vec![
        found("kernel", verdict(version(&facts.kernel) >= Some(KERNEL), Verdict::Fail), facts.kernel.clone()),
        match &facts.systemd {
            None => found("systemd", Verdict::Ok, "is not the first process here; keepers are started without it"),
            Some(text) => {
                let known = text.split_whitespace().find_map(|word| word.parse::<u32>().ok());
                found("systemd", verdict(known.is_none_or(|known| known >= SYSTEMD), Verdict::Fail), text.clone())
            }
        },
        memory(facts.memory),
        at_least("processors", Some(facts.cores as u64), 2, "the guide plans with two"),
    ];
    if let Some((path, bytes)) = &facts.room {
        let detail = format!("{} GiB free below {}, 20 are wanted", bytes / GIB, path.display());
        findings.push(found("disk", verdict(*bytes >= 20 * GIB, Verdict::Warn), detail));
    }
    let device = |check: &str, there: bool, path: &str, bad: Verdict, hint: &str| {
        let finding = found(check, verdict(there, bad), if there { path.to_owned() } else { format!("no {path}") });
        if there { finding } else { finding.hint(hint) }
    };
    findings.push(device(
        "kvm",
        facts.kvm,
        "/dev/kvm",
        Verdict::Warn,
        "without it VMs are emulated, many times slower",
    ));
    findings.push(device("tun", facts.tun, "/dev/net/tun", Verdict::Fail, "modprobe tun"));
    if let Some(has) = facts.capabilities {
        let missing: Vec<_> =
            CAPABILITIES.iter().filter(|(bit, _)| has & (1 << bit) == 0).map(|(_, name)| *name).collect();
        findings.push(if missing.is_empty() {
            found("capabilities", Verdict::Ok, "all that are used")
        } else {
            found("capabilities", Verdict::Fail, format!("missing: {}", missing.join(", ")))
                .hint("start metald by its unit, or as make install leaves it (getcap /usr/local/bin/metald)")
        });
    }
    findings.push(at_least("open files", facts.open_files, 65_536, "LimitNOFILE=65536 in the unit"));
    findings.push(at_least("inotify instances", facts.inotify, 512, "sysctl -w fs.inotify.max_user_instances=512"));
    findings.push(at_least(
        "network namespaces",
        facts.namespaces,
        facts.most_vms,
        "sysctl -w user.max_net_namespaces=…",
    ));
    for (name, value) in facts.forwarding {
        let on = value.is_some_and(|value| value > 0);
        findings.push(found(name, verdict(on, Verdict::Warn), if on { "on" } else { "off: VMs reach only this host" }));
    }
    if let Some(security) = &facts.security {
        findings.push(found("security modules", Verdict::Ok, security.clone()));
    }
    findings
}

fn memory(bytes: Option<u64>) -> Finding {
    let text = bytes.map_or_else(|| "cannot be read".to_owned(), cli::size);
    let detail = format!("{text}, at least {} is wanted", cli::size(4 * GIB));
    match bytes.is_none_or(|bytes| bytes >= 4 * GIB) {
        true => found("memory", Verdict::Ok, detail),
        false => found("memory", Verdict::Warn, detail).hint("VMs get less together than the guide plans with"),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn gather(vms: &Path, most_vms: u64) -> Facts {
    let text = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let number = |path: &str| text(path)?.parse().ok();
    let systemd = Path::new("/run/systemd/system").is_dir();
    Facts {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        systemd: systemd.then(systemd_version),
        memory: text("/proc/meminfo").and_then(|text| field(&text, "MemTotal:")).map(|kib| kib * 1024),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        room: host::space(vms).ok().map(|space| (vms.to_owned(), space.available)),
        kvm: Path::new("/dev/kvm").exists(),
        tun: Path::new("/dev/net/tun").exists(),
        capabilities: text("/proc/self/status").and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("CapEff:").map(str::to_owned))?;
            u64::from_str_radix(line.trim(), 16).ok()
        }),
        open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.or(Some(u64::MAX)),
        inotify: number("/proc/sys/fs/inotify/max_user_instances"),
        namespaces: number("/proc/sys/user/max_net_namespaces"),
        most_vms,
        forwarding: [
            ("IPv4 forwarding", number("/proc/sys/net/ipv4/ip_forward")),
            ("IPv6 forwarding", number("/proc/sys/net/ipv6/conf/all/forwarding")),
        ],
        security: text("/sys/kernel/security/lsm"),
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// What `systemctl --version` says in its first line.
fn systemd_version() -> String {
    let command = host::Command::new("systemctl").arg("--version");
    let output = host::Processes::run(&host::Linux, &command).map(|output| output.text());
    output
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "of an unknown version".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(facts: &Facts) -> Vec<(String, Verdict)> {
        judge(facts).into_iter().map(|finding| (finding.check, finding.verdict)).collect()
    }

    #[test]
    fn a_good_host_has_nothing_to_complain_about() {
        let good = Facts {
            kernel: "6.1.0-18-amd64".to_owned(),
            systemd: Some("systemd 252 (252.22-1)".to_owned()),
            memory: Some(8 * GIB),
            cores: 4,
            room: Some(("/srv".into(), 40 * GIB)),
            kvm: true,
            tun: true,
            capabilities: Some(u64::MAX),
            open_files: Some(65_536),
            inotify: Some(512),
            namespaces: Some(4000),
            most_vms: 2000,
            forwarding: [("IPv4 forwarding", Some(1)), ("IPv6 forwarding", Some(1))],
            security: None,
        };
        assert!(verdicts(&good).iter().all(|(_, verdict)| *verdict == Verdict::Ok));
        let bad = Facts {
            kernel: "4.14.0".to_owned(),
            systemd: Some("systemd 232".to_owned()),
            tun: false,
            kvm: false,
            capabilities: Some(1 << 21),
            namespaces: Some(10),
            ..good
        };
        let bad = verdicts(&bad);
        let of = |check: &str| bad.iter().find(|(name, _)| name == check).unwrap().1;
        for check in ["kernel", "systemd", "tun", "capabilities"] {
            assert_eq!(of(check), Verdict::Fail, "{check}");
        }
        assert_eq!((of("kvm"), of("network namespaces"), of("memory")), (Verdict::Warn, Verdict::Warn, Verdict::Ok));
    }

    #[test]
    fn memory_is_told_in_units() {
        assert_eq!(memory(Some(3 << 29)).detail, "1.5 GiB, at least 4.0 GiB is wanted");
        assert_eq!((memory(Some(3 << 29)).verdict, memory(Some(4 * GIB)).verdict), (Verdict::Warn, Verdict::Ok));
    }

    #[test]
    fn this_host_can_be_looked_at() {
        let facts = gather(Path::new("/"), 1);
        assert!(version(&facts.kernel).is_some() && facts.memory.is_some() && facts.capabilities.is_some());
    }
}
