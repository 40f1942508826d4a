//! The layer's settings: what [`KEYS`] resolve to.

mod keys;
mod network;
mod users;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use settings::{Origin, Resolved, SettingsError};

pub use keys::{KEYS, METALD, PREFIX};
pub use network::{Bridge, NetworkSettings};
pub use users::{Accounts, RESERVED_BY, UidRange};

use crate::adapters::probe::BackendSetting;
use crate::assets::Defaults;

/// Programs that are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// Firecracker.
    pub firecracker: PathBuf,
    /// Its jailer.
    pub jailer: PathBuf,
    /// QEMU.
    pub qemu: PathBuf,
    /// The parent of every hypervisor.
    pub keeper: PathBuf,
}

/// Certificate and key of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// What [`KEYS`] resolve to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSettings {
    /// Where metald listens: `ADDRESS:PORT`.
    pub listen: String,
    /// Database, disks, keepers, the operator's token.
    pub data_dir: PathBuf,
    /// Assets, each in a file that is called by its SHA-256.
    pub asset_dir: PathBuf,
    /// Largest asset, in bytes.
    pub asset_limit: u64,
    /// Audit log and consoles.
    pub log_dir: PathBuf,
    /// Jails.
    pub jail_dir: PathBuf,
    /// Level of the log, where metald's own setting says one.
    pub log_level: Option<String>,
    /// VMs at most.
    pub max_vms: u32,
    /// `dev_customer_*` are tokens.
    pub dev_tokens: bool,
    /// Which hypervisor.
    pub backend: BackendSetting,
    /// How long a guest may be silent after its start; zero for ever.
    pub sign_of_life: Duration,
    /// Programs.
    pub programs: Programs,
    /// User that owns what VMs share and only read.
    pub shared_uid: u32,
    /// Group of that.
    pub shared_gid: u32,
    /// One user and group for each VM.
    pub uids: UidRange,
    /// Assets of VMs that name none.
    pub defaults: Defaults,
    /// Networks.
    pub network: NetworkSettings,
    /// TLS of the API, as metald.
    pub tls: Option<TlsSettings>,
    /// Where metald shows metrics a second time: `ADDRESS:PORT`.
    pub metrics_listen: Option<String>,
    /// Metrics say whose VMs they count.
    pub high_cardinality: bool,
    /// What is set and does nothing, a sentence each; told at start.
    pub warnings: Vec<String>,
}

impl VmSettings {
    /// Reads the layer's keys. Directories that are not set lie in `data_dir`.
    ///
    /// # Errors
    /// A value cannot be used; the error names its key and its variable.
    pub fn resolve(resolved: &Resolved, data_dir: &Path) -> Result<Self, SettingsError> {
        let path = |name: &str| resolved.get(name).map(PathBuf::from);
        let directory = |name: &str, below: &str| path(name).unwrap_or_else(|| data_dir.join(below));
        let program = |name: &str| resolved.require(name).map(PathBuf::from);
        if let Some(key) = keys::refused().find(|key| resolved.get(key.name).is_some()) {
            return Err(resolved.wrong(key.name, "there is no docker backend; leave it out"));
        }
        let max_vms = resolved.parse("vm_max_processes")?;
        if !(1..=65_000).contains(&max_vms) {
            return Err(resolved.wrong("vm_max_processes", "1 to 65000 was expected"));
        }
        let uids: UidRange = resolved.parse("vm_jailer_uid_range")?;
        if uids.count() < max_vms {
            let reason = format!("{} users are too few for {max_vms} VMs (UNKEY_METALD_MAX_PROCESSES)", uids.count());
            return Err(resolved.wrong("vm_jailer_uid_range", reason));
        }
        check_unused(resolved)?;
        Ok(Self {
            listen: listen(resolved, "vm_address", "vm_port")?,
            data_dir: data_dir.to_owned(),
            asset_dir: directory("vm_asset_dir", "assets"),
            asset_limit: resolved.size("vm_asset_limit")?,
            log_dir: directory("vm_log_dir", "logs"),
            jail_dir: program("vm_jailer_chroot_dir")?,
            log_level: log_level(resolved)?,
            max_vms,
            dev_tokens: resolved.boolean("vm_dev_tokens")?,
            backend: resolved.parse("vm_backend")?,
            sign_of_life: resolved.duration("vm_sign_of_life")?,
            programs: Programs {
                firecracker: program("vm_firecracker")?,
                jailer: program("vm_jailer")?,
                qemu: program("vm_qemu")?,
                keeper: path("vm_keeper").unwrap_or_else(keeper),
            },
            shared_uid: user(resolved, "vm_jailer_uid", uids)?,
            shared_gid: user(resolved, "vm_jailer_gid", uids)?,
            uids,
            defaults: Defaults {
                kernel: resolved.parse_optional("vm_default_kernel")?,
                initrd: resolved.parse_optional("vm_default_initrd")?,
                disk: resolved.parse_optional("vm_default_rootfs")?,
            },
            network: NetworkSettings::resolve(resolved)?,
            tls: tls(resolved)?,
            metrics_listen: match resolved.boolean("vm_prometheus_enabled")? {
                true => Some(listen(resolved, "vm_prometheus_interface", "vm_prometheus_port")?),
                false => None,
            },
            high_cardinality: resolved.boolean("vm_high_cardinality")?,
            warnings: warnings(resolved),
        })
    }
}

/// A word, or a list of directives such as `info,vm=debug`, which the log itself judges.
fn log_level(resolved: &Resolved) -> Result<Option<String>, SettingsError> {
    let Some(level) = resolved.get("vm_log_level") else { return Ok(None) };
    let words = ["error", "warn", "info", "debug", "trace"];
    if !level.contains(['=', ',']) && !words.contains(&level.to_ascii_lowercase().as_str()) {
        return Err(resolved.wrong("vm_log_level", "error, warn, info, debug or trace was expected"));
    }
    Ok(Some(level.to_owned()))
}

fn listen(resolved: &Resolved, address: &str, port: &str) -> Result<String, SettingsError> {
    let host: IpAddr = resolved.parse(address)?;
    let port: u16 = resolved.parse(port)?;
    Ok(std::net::SocketAddr::new(host, port).to_string())
}

/// A user or group of what is shared. It is nobody's VM: that one could write what all others read.
fn user(resolved: &Resolved, name: &str, uids: UidRange) -> Result<u32, SettingsError> {
    let id: u32 = resolved.parse(name)?;
    if id == 0 || id == u32::MAX || (uids.first..=uids.last).contains(&id) {
        return Err(resolved.wrong(name, format!("not 0, and not one of the VMs' own ({uids})")));
    }
    Ok(id)
}

/// Nothing is served without TLS once somebody has asked for it.
fn tls(resolved: &Resolved) -> Result<Option<TlsSettings>, SettingsError> {
    match resolved.require("vm_tls_mode")? {
        "disabled" => Ok(None),
        "file" => {
            if resolved.get("vm_tls_ca_file").is_some() {
                let reason = "this version does not look at certificates of clients; leave it out";
                return Err(resolved.wrong("vm_tls_ca_file", reason));
            }
            let file = |name: &str| resolved.require(name).map(PathBuf::from);
            Ok(Some(TlsSettings { certificate: file("vm_tls_cert_file")?, key: file("vm_tls_key_file")? }))
        }
        "spiffe" => Err(resolved.wrong(
            "vm_tls_mode",
            "this version has no SPIFFE client yet; use file with UNKEY_METALD_TLS_CERT_FILE and \
             UNKEY_METALD_TLS_KEY_FILE, or disabled behind something that speaks TLS",
        )),
        _ => Err(resolved.wrong("vm_tls_mode", "disabled or file was expected")),
    }
}

/// What does nothing is checked all the same, so that a wrong value does not wait for the version that uses it.
fn check_unused(resolved: &Resolved) -> Result<(), SettingsError> {
    for name in [
        "vm_billing_enabled",
        "vm_billing_mock_mode",
        "vm_assetmanager_enabled",
        "vm_network_multi_bridge",
        "vm_network_host_protection",
        "vm_tls_cert_caching",
    ] {
        if resolved.get(name).is_some() {
            resolved.boolean(name)?;
        }
    }
    resolved.parse_optional::<u32>("vm_network_max_vms_per_bridge")?;
    Ok(())
}

fn warnings(resolved: &Resolved) -> Vec<String> {
    let set = |name: &str| !matches!(resolved.origin(name), Origin::Unset | Origin::BuiltIn);
    // Switched off is what it is anyway.
    let off = |name: &str| resolved.get(name).is_some_and(|value| settings::parse_boolean(value) == Ok(false));
    keys::without_effect()
        .filter(|key| set(key.name) && (key.name == "vm_network_host_protection" || !off(key.name)))
        .map(|key| format!("{}: {}", resolved.origin(key.name), lower_first(key.help)))
        .collect()
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// Beside this program, where a build puts it; otherwise where it is installed.
fn keeper() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("cairn-keeper"));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("/usr/local/libexec/cairn/cairn-keeper"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use settings::Resolver;

    use super::*;

    fn environment(values: &[(&str, &str)]) -> BTreeMap<String, String> {
        values.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned())).collect()
    }

    fn resolve(values: &[(&str, &str)]) -> Result<VmSettings, SettingsError> {
        let resolved = Resolver::new(&[KEYS]).environment(&environment(values))?.resolve();
        VmSettings::resolve(&resolved, Path::new("/data"))
    }

    #[test]
    fn nothing_has_to_be_set() {
        let settings = resolve(&[]).unwrap();
        assert_eq!(
            (settings.listen.as_str(), settings.metrics_listen.as_deref()),
            ("0.0.0.0:8080", Some("127.0.0.1:9464"))
        );
        assert_eq!((settings.backend, settings.tls, settings.max_vms), (BackendSetting::Auto, None, 2000));
        assert_eq!((settings.shared_uid, settings.shared_gid), (977, 976));
        assert_eq!(
            (settings.asset_dir.as_path(), settings.jail_dir.as_path()),
            (Path::new("/data/assets"), Path::new("/srv/jailer"))
        );
        assert_eq!(settings.network.bridge, None);
        assert_eq!(settings.network.bits_per_second, Some(1_000_000_000));
        assert_eq!((settings.network.ports, settings.network.dns.len()), (20_000..=29_999, 4));
        assert!(!settings.dev_tokens && settings.warnings.is_empty());
    }

    #[test]
    fn the_guides_environment_is_taken() {
        let settings = resolve(&[
            ("PORT", "8080"),
            ("JAILER_UID", "977"),
            ("JAILER_GID", "976"),
            ("BILLING_ENDPOINT", "http://billaged:8081"),
            ("ASSETMANAGER_ENDPOINT", "http://assetmanager:8083"),
            ("MAX_PROCESSES", "2000"),
            ("OTEL_SAMPLING_RATE", "0.1"),
            ("OTEL_HIGH_CARDINALITY_ENABLED", "false"),
            ("LOG_LEVEL", "debug"),
            ("NETWORK_BRIDGE", "br0"),
        ])
        .unwrap();
        assert_eq!(
            (settings.log_level.as_deref(), settings.network.bridge.unwrap().name.as_str()),
            (Some("debug"), "br0")
        );
        insta::assert_snapshot!(settings.warnings.join("\n"), @r"
        environment UNKEY_METALD_BILLING_ENDPOINT: no effect in this version: nothing is sent to a billing service
        environment UNKEY_METALD_ASSETMANAGER_ENDPOINT: no effect in this version: assets are kept by this daemon
        ");
    }

    #[test]
    fn what_does_nothing_is_told_unless_it_is_off() {
        let warned = |name, value| !resolve(&[(name, value)]).unwrap().warnings.is_empty();
        assert!(!warned("OTEL_ENABLED", "true") && !warned("OTEL_SAMPLING_RATE", "0.1"));
        assert!(warned("BILLING_ENABLED", "true") && !warned("BILLING_ENABLED", "false"));
        assert!(warned("NETWORK_HOST_PROTECTION", "false") && warned("SOCKET_DIR", "/x"));
        assert!(warned("TLS_CERT_CACHE_TTL", "5s") && warned("SPIFFE_SOCKET", "/run/x"));
    }

    #[test]
    fn wrong_values_name_their_variable() {
        for (name, value) in [
            ("PORT", "http"),
            ("ADDRESS", "localhost"),
            ("LOG_LEVEL", "loud"),
            ("ASSET_LIMIT", "much"),
            ("SIGN_OF_LIFE", "soon"),
            ("BACKEND", "docker"),
            ("BACKEND", "xen"),
            ("MAX_PROCESSES", "0"),
            ("MAX_PROCESSES", "many"),
            ("JAILER_UID", "-1"),
            ("JAILER_UID", "0"),
            ("JAILER_GID", "200001"),
            ("JAILER_UID_RANGE", "1000-2000"),
            ("JAILER_UID_RANGE", "200000-200099"),
            ("NETWORK_ENABLED", "maybe"),
            ("NETWORK_RATE_LIMIT", "fast"),
            ("NETWORK_RATE_LIMIT_MBPS", "0"),
            ("NETWORK_VM_SUBNET_IPV4", "10.0.0.0"),
            ("NETWORK_VM_SUBNET_IPV4", "10.0.0.0/30"),
            ("NETWORK_VM_SUBNET_IPV6", "fd00::/120"),
            ("NETWORK_BRIDGE", "a/b"),
            ("NETWORK_BRIDGE_IPV4", "192.168.100.1"),
            ("NETWORK_DNS_IPV4", "8.8.8.8,dns.google"),
            ("NETWORK_PORT_RANGE", "80-90"),
            ("NETWORK_POOL", "-1"),
            ("DEFAULT_KERNEL", "/boot/vmlinuz"),
            ("BILLING_ENABLED", "maybe"),
            ("NETWORK_HOST_PROTECTION", "sometimes"),
            ("NETWORK_MAX_VMS_PER_BRIDGE", "some"),
            ("OTEL_PROMETHEUS_PORT", "99999"),
            ("OTEL_PROMETHEUS_INTERFACE", "lo"),
            ("TLS_MODE", "spiffe"),
            ("TLS_MODE", "on"),
            ("DOCKER_HOST", "unix:///var/run/docker.sock"),
        ] {
            let error = resolve(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(&format!("(environment {PREFIX}{name})")), "{name}={value}: {error}");
        }
    }

    #[test]
    fn tls_is_there_or_nothing_is_served() {
        let missing = resolve(&[("TLS_MODE", "file"), ("TLS_CERT_FILE", "/c")]).unwrap_err();
        assert!(missing.hint().unwrap().contains("UNKEY_METALD_TLS_KEY_FILE"), "{missing}");
        let both = [("TLS_MODE", "file"), ("TLS_CERT_FILE", "/c"), ("TLS_KEY_FILE", "/k")];
        let tls = resolve(&both).unwrap().tls.unwrap();
        assert_eq!((tls.certificate, tls.key), (PathBuf::from("/c"), PathBuf::from("/k")));
        assert!(resolve(&[&both[..], &[("TLS_CA_FILE", "/ca")]].concat()).is_err());
        assert!(resolve(&[("TLS_MODE", "spiffe")]).unwrap_err().to_string().contains("use file with"));
    }

    #[test]
    fn a_misspelt_variable_is_not_overlooked() {
        let known = |name| Resolver::new(&[KEYS]).known_variables(PREFIX, &environment(&[(name, "x")]));
        assert!(known("BACKEND").is_ok() && known("ASSETMANAGER_CACHE_DIR").is_ok() && known("DOCKER_HOST").is_ok());
        let error = known("NETWORK_BRIGDE").unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean UNKEY_METALD_NETWORK_BRIDGE?");
    }

    #[test]
    fn the_guides_directories_come_with_its_name() {
        let resolver =
            METALD.iter().fold(Resolver::new(&[KEYS]), |resolver, (name, value)| resolver.preset(name, value));
        let resolved = resolver.resolve();
        let settings = VmSettings::resolve(&resolved, Path::new("/var/lib/metald")).unwrap();
        assert_eq!(settings.asset_dir, Path::new("/opt/metald/assets"));
        assert_eq!(settings.log_dir, Path::new("/var/log/metald"));
        assert!(settings.warnings.is_empty());
    }
}
