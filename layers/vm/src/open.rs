//! The layer, put together from its settings: what is on a real host, behind the ports that the rest knows.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_core::Clock;
use host::network::{LinuxNetworks, Place};
use host::{FileError, Host, Linux, LockError, LockFile};
use store::Store;
use tokio::sync::watch;

use crate::access::Tokens;
use crate::adapters::edge::{EdgeSettings, HostEdges};
use crate::adapters::keepers::{HostKeepers, Settings as KeeperSettings};
use crate::adapters::probe::{Choice, Present, Probe, Verdict, choose};
use crate::adapters::{Accelerator, Firecracker, Places, Programs, Qemu};
use crate::api::Api;
use crate::assets::Assets;
use crate::audit::AuditLog;
use crate::metrics::VmMetrics;
use crate::model::Backend;
use crate::ports::{Hypervisor, StepError};
use crate::service::{Limits, Ports};
use crate::settings::{NetworkSettings, VmSettings};
use crate::store::VmStore;
use crate::store::tokens::TokenStore;

/// Bytes of a guest's console that are kept; as much again of what was before.
const CONSOLE: u64 = 4 << 20;
/// Control groups, units and tables of the packet filter begin with it.
const PREFIX: &str = "metald";

/// Why the layer cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory cannot be made.
    #[error("cannot create {}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host does not say what it is, or the probe's verdict cannot be kept.
    #[error("cannot look at this host")]
    Host(#[from] FileError),
    /// Names of namespaces, links, tables and control groups are the host's: what one daemon has would be a stray to another.
    #[error("another daemon has the VMs of this host: {0}")]
    Another(String),
    /// Keepers or networks.
    #[error("{0}")]
    Port(#[from] StepError),
    /// The operator's token.
    #[error("the operator's token cannot be written")]
    Token(#[from] crate::access::Error),
    /// The database.
    #[error("cannot read the records of VMs")]
    Store(#[from] crate::store::Error),
}

impl OpenError {
    /// Stable code, with a page in docs/errors/.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Directory { .. } | Self::Host(_) | Self::Token(_) | Self::Another(_) => "data_dir",
            Self::Port(error) => error.code,
            Self::Store(_) => "database",
        }
    }
}

/// Puts the layer together. Nothing runs until [`crate::run`] is called; no VM is touched.
///
/// # Errors
/// This host or the settings do not allow it.
pub async fn open(
    settings: &VmSettings,
    database: Store,
    metrics: Arc<VmMetrics>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Api>, OpenError> {
    let only = only_here(Path::new("/run"), &settings.data_dir)?;
    let (vms, consoles) = (settings.data_dir.join("vms"), settings.log_dir.join("consoles"));
    for (path, mode) in [
        (&vms, 0o750),
        (&settings.asset_dir, 0o750),
        (&settings.log_dir, 0o750),
        (&consoles, 0o750),
        // The guide's own mode: users of VMs pass through it.
        (&settings.jail_dir, 0o755),
    ] {
        make(path, mode)?;
    }
    let tokens = Tokens::new(TokenStore::new(database.clone()), Arc::clone(&clock), settings.dev_tokens);
    tokens.ensure_operator_file(&settings.data_dir).await?;
    let audit = AuditLog::new(Some(&settings.log_dir), Arc::clone(&clock), metrics.audit_lost.clone());
    let store = VmStore::new(database);
    let assets = Assets::new(settings.asset_dir.clone(), store.clone(), settings.defaults.clone(), Arc::clone(&clock));
    let keepers = HostKeepers::open(&KeeperSettings {
        directory: settings.data_dir.join("keepers"),
        program: settings.programs.keeper.clone(),
        prefix: PREFIX.to_owned(),
    })?;
    let edge = edge_settings(&settings.network, settings.uids.first);
    let edges = HostEdges::new(Arc::new(LinuxNetworks::new()), &Place::Host, edge)?;
    let subnets = edges.subnets();
    let (hypervisors, choice) = hypervisors(settings, &consoles).await?;
    match &choice {
        Ok(choice) => tracing::info!(backend = %choice.backend, accelerator = ?choice.accelerator, "hypervisor chosen"),
        // What is there can be looked at and deleted; a boot says why it cannot be.
        Err(error) => tracing::warn!(reason = %error, "no VM can be booted"),
    }
    let ports = Ports {
        keepers: Arc::new(keepers),
        edges: Arc::new(edges),
        hypervisors,
        chosen: watch::channel(Some(choice.map(|choice| choice.backend))).1,
        clock,
    };
    let limits = Limits {
        vms,
        consoles,
        maintenance: settings.data_dir.join("maintenance"),
        most_vms: settings.max_vms,
        first_uid: settings.uids.first,
        users: settings.uids.count(),
        subnets,
        ports: settings.network.ports.clone(),
        sign_of_life: settings.sign_of_life,
        boot_id: boot_id()?,
    };
    let around = (tokens, audit, metrics);
    let api = Api::open(store, assets, settings.asset_dir.clone(), limits, ports, around).await?;
    api.hold(only);
    Ok(api)
}

/// Every hypervisor that is installed, for VMs that one of them runs are looked after whichever is chosen now.
async fn hypervisors(
    settings: &VmSettings,
    consoles: &Path,
) -> Result<(Vec<Arc<dyn Hypervisor>>, Result<Choice, StepError>), OpenError> {
    let programs = &settings.programs;
    let present = Present {
        firecracker: programs.firecracker.exists() && programs.jailer.exists(),
        qemu: programs.qemu.exists(),
    };
    let verdict = verdict(settings, present).await?;
    let choice = choose(settings.backend, verdict.as_ref(), present);
    let accelerator = match &choice {
        Ok(Choice { backend: Backend::Qemu, accelerator }) => *accelerator,
        _ if verdict == Some(Verdict::Usable) => Accelerator::Kvm,
        _ => Accelerator::Tcg,
    };
    let places = Places { jails: settings.jail_dir.clone(), consoles: consoles.to_owned(), console_limit: CONSOLE };
    let host: Arc<dyn Host> = Arc::new(Linux);
    let pair = Programs { firecracker: programs.firecracker.clone(), jailer: programs.jailer.clone() };
    let all: Vec<Arc<dyn Hypervisor>> = vec![
        Arc::new(Firecracker::new(pair, places.clone(), Arc::clone(&host))),
        Arc::new(Qemu::new(programs.qemu.clone(), places, accelerator, host)),
    ];
    Ok((all, choice))
}

/// Whether KVM can run a kernel here. Takes seconds the first time, and where it is needed only.
async fn verdict(settings: &VmSettings, present: Present) -> Result<Option<Verdict>, OpenError> {
    let programs = &settings.programs;
    let probe = Probe {
        device: "/dev/kvm".into(),
        qemu: present.qemu.then(|| programs.qemu.clone()),
        firecracker: present.firecracker.then(|| programs.firecracker.clone()),
        file: settings.data_dir.join("accelerator.json"),
        processes: Arc::new(Linux),
    };
    let needed = settings.backend.needs_probe();
    let look = move || if needed { probe.verdict(false).map(Some) } else { Ok(probe.kept()) };
    match tokio::task::spawn_blocking(look).await {
        Ok(verdict) => Ok(verdict?),
        Err(_) => Ok(Some(Verdict::NotUsable("the probe ended by itself".to_owned()))),
    }
}

fn edge_settings(network: &NetworkSettings, first_user: u32) -> EdgeSettings {
    let defaults = EdgeSettings::default();
    let (mut dns_ipv4, mut dns_ipv6) = (Vec::new(), Vec::new());
    for address in &network.dns {
        match address {
            std::net::IpAddr::V4(address) => dns_ipv4.push(*address),
            std::net::IpAddr::V6(address) => dns_ipv6.push(*address),
        }
    }
    EdgeSettings {
        enabled: network.enabled,
        ipv4: network.ipv4.is_some(),
        ipv6: network.ipv6.is_some(),
        subnet_ipv4: network.ipv4.unwrap_or(defaults.subnet_ipv4),
        subnet_ipv6: network.ipv6.unwrap_or(defaults.subnet_ipv6),
        dns_ipv4,
        dns_ipv6,
        bridge: network.bridge.as_ref().map(|bridge| bridge.name.clone()),
        bridge_ipv4: network.bridge.as_ref().and_then(|bridge| bridge.ipv4),
        bridge_ipv6: network.bridge.as_ref().and_then(|bridge| bridge.ipv6),
        rate_limit: network.bits_per_second.map(|bits| bits / 8),
        pool: usize::try_from(network.pool).unwrap_or(usize::MAX),
        ports: network.ports.clone(),
        first_user,
        ..defaults
    }
}

/// The lock of the one daemon that has the VMs of this host, or of this container where that has a network of its own.
/// Nothing where there is no place for it.
fn only_here(place: &Path, data_dir: &Path) -> Result<Option<LockFile>, OpenError> {
    let network = Path::new("/proc/self/ns/net");
    let network = std::fs::metadata(network).map_err(FileError::at("look at", network))?.ino();
    let holder = format!("process {} with the data directory {}", std::process::id(), data_dir.display());
    match LockFile::acquire(&place.join(format!("cairn-vm-{network}.lock")), &holder) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Held { holder, .. }) => Err(OpenError::Another(holder)),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "nobody is kept from starting another daemon for the VMs of this host");
            Ok(None)
        }
    }
}

fn boot_id() -> Result<String, FileError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(FileError::at("read", path))?;
    Ok(text.trim().to_owned())
}

fn make(path: &Path, mode: u32) -> Result<(), OpenError> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| OpenError::Directory { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_daemon_for_vms() {
        let place = tempfile::tempdir().unwrap();
        let first = only_here(place.path(), Path::new("/one")).unwrap();
        let error = only_here(place.path(), Path::new("/two")).unwrap_err().to_string();
        assert!(error.contains("with the data directory /one"), "{error}");
        drop(first);
        assert!(only_here(place.path(), Path::new("/two")).unwrap().is_some());
        assert!(only_here(Path::new("/nowhere"), Path::new("/two")).unwrap().is_none());
    }
}
