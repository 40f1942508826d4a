//! Every name, its variable, its default and its meaning. The names in capitals are those of metald's guide and of its
//! original, so that an environment file of either is understood.

use settings::Key;

#[cfg(target_arch = "aarch64")]
const QEMU: &str = "/usr/bin/qemu-system-aarch64";
#[cfg(not(target_arch = "aarch64"))]
const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// Name, environment variables, default and meaning.
pub const KEYS: &[Key] = &[
    // The daemon.
    Key::new("vm_address", &["UNKEY_METALD_ADDRESS"], Some("0.0.0.0"), "As metald: address to listen on"),
    Key::new("vm_port", &["UNKEY_METALD_PORT"], Some("8080"), "As metald: port to listen on"),
    Key::new("vm_data_dir", &["UNKEY_METALD_DATA_DIR"], None, "Database, disks, keepers (default: data_dir)"),
    Key::new("vm_asset_dir", ASSET_DIR, None, "Kernels and disks (default: assets in the data directory)"),
    Key::new("vm_asset_limit", &["UNKEY_METALD_ASSET_LIMIT"], Some("64GiB"), "Largest asset"),
    Key::new("vm_log_dir", &["UNKEY_METALD_LOG_DIR"], None, "Audit log and consoles (default: logs there)"),
    Key::new("vm_log_level", &["UNKEY_METALD_LOG_LEVEL"], None, "As metald: debug, info, warn or error"),
    Key::new("vm_max_processes", &["UNKEY_METALD_MAX_PROCESSES"], Some("2000"), "VMs on this host at most"),
    Key::new(
        "vm_dev_tokens",
        &["CAIRN_DEV_TOKENS"],
        Some("false"),
        "Take Bearer dev_customer_NAME for NAME: never where others get in",
    ),
    Key::secret("vm_token", &["CAIRN_TOKEN"], "Token that cairn vm … shows"),
    // Hypervisors and jail.
    Key::new(
        "vm_backend",
        &["UNKEY_METALD_BACKEND"],
        Some("auto"),
        "auto, firecracker or qemu; auto tries what KVM can do here",
    ),
    Key::new("vm_firecracker", &["UNKEY_METALD_FIRECRACKER"], Some("/usr/local/bin/firecracker"), "Firecracker"),
    Key::new("vm_jailer", &["UNKEY_METALD_JAILER"], Some("/usr/local/bin/jailer"), "Its jailer"),
    Key::new("vm_qemu", &["UNKEY_METALD_QEMU"], Some(QEMU), "QEMU"),
    Key::new(
        "vm_keeper",
        &["UNKEY_METALD_KEEPER"],
        None,
        "cairn-keeper (default: beside this program, else in /usr/local/libexec/cairn)",
    ),
    Key::new("vm_jailer_chroot_dir", &["UNKEY_METALD_JAILER_CHROOT_DIR"], Some("/srv/jailer"), "Jails"),
    Key::new("vm_jailer_uid", &["UNKEY_METALD_JAILER_UID"], Some("977"), "User that owns what VMs share and only read"),
    Key::new("vm_jailer_gid", &["UNKEY_METALD_JAILER_GID"], Some("976"), "Group of that"),
    Key::new(
        "vm_jailer_uid_range",
        &["UNKEY_METALD_JAILER_UID_RANGE"],
        Some("200000-265535"),
        "Users, one for each VM, that nobody else has",
    ),
    Key::new(
        "vm_sign_of_life",
        &["UNKEY_METALD_SIGN_OF_LIFE"],
        Some("60s"),
        "A guest whose console is silent so long after its start has failed; 0 for ever",
    ),
    // What VMs are made of when their configuration does not say.
    Key::new(
        "vm_default_kernel",
        &["UNKEY_METALD_DEFAULT_KERNEL"],
        None,
        "Asset that is booted where a VM names no kernel",
    ),
    Key::new("vm_default_initrd", &["UNKEY_METALD_DEFAULT_INITRD"], None, "Initial file system with that kernel"),
    Key::new(
        "vm_default_rootfs",
        &["UNKEY_METALD_DEFAULT_ROOTFS"],
        None,
        "Asset that becomes the disk of a VM that names none",
    ),
    // Network.
    Key::new("vm_network_enabled", &["UNKEY_METALD_NETWORK_ENABLED"], Some("true"), "Give VMs a network"),
    Key::new("vm_network_ipv4_enabled", &["UNKEY_METALD_NETWORK_IPV4_ENABLED"], Some("true"), "With IPv4"),
    Key::new("vm_network_ipv6_enabled", &["UNKEY_METALD_NETWORK_IPV6_ENABLED"], Some("true"), "With IPv6"),
    Key::new(
        "vm_network_subnet_ipv4",
        &["UNKEY_METALD_NETWORK_VM_SUBNET_IPV4"],
        Some("10.100.0.0/16"),
        "Addresses of VMs",
    ),
    Key::new("vm_network_subnet_ipv6", &["UNKEY_METALD_NETWORK_VM_SUBNET_IPV6"], Some("fd00::/64"), "Addresses of VMs"),
    Key::new(
        "vm_network_bridge",
        &["UNKEY_METALD_NETWORK_BRIDGE"],
        None,
        "Bridge of this host that VMs are put on, with its subnet (default: routed)",
    ),
    Key::new(
        "vm_network_bridge_ipv4",
        &["UNKEY_METALD_NETWORK_BRIDGE_IPV4"],
        None,
        "Address and prefix of that bridge (default: as it is)",
    ),
    Key::new(
        "vm_network_bridge_ipv6",
        &["UNKEY_METALD_NETWORK_BRIDGE_IPV6"],
        None,
        "Address and prefix of that bridge (default: as it is)",
    ),
    Key::new(
        "vm_network_dns_ipv4",
        &["UNKEY_METALD_NETWORK_DNS_IPV4"],
        Some("8.8.8.8,8.8.4.4"),
        "Name servers for guests",
    ),
    Key::new(
        "vm_network_dns_ipv6",
        &["UNKEY_METALD_NETWORK_DNS_IPV6"],
        Some("2606:4700:4700::1111,2606:4700:4700::1001"),
        "Name servers for guests",
    ),
    Key::new(
        "vm_network_rate_limit",
        &["UNKEY_METALD_NETWORK_RATE_LIMIT"],
        Some("true"),
        "Limit what a VM sends and receives",
    ),
    Key::new(
        "vm_network_rate_limit_mbps",
        &["UNKEY_METALD_NETWORK_RATE_LIMIT_MBPS"],
        Some("1000"),
        "To so many megabits a second each way",
    ),
    Key::new(
        "vm_network_port_range",
        &["UNKEY_METALD_NETWORK_PORT_RANGE"],
        Some("20000-29999"),
        "Ports of this host for VMs that do not say which",
    ),
    Key::new("vm_network_pool", &["UNKEY_METALD_NETWORK_POOL"], Some("4"), "Namespaces made ahead of VMs; 0 for none"),
    // Who may talk to it.
    Key::new("vm_tls_mode", &["UNKEY_METALD_TLS_MODE"], Some("disabled"), "As metald: disabled or file"),
    Key::new("vm_tls_cert_file", &["UNKEY_METALD_TLS_CERT_FILE"], None, "Certificate chain (PEM) for file"),
    Key::new("vm_tls_key_file", &["UNKEY_METALD_TLS_KEY_FILE"], None, "Private key (PEM) for file"),
    Key::new(
        "vm_tls_ca_file",
        &["UNKEY_METALD_TLS_CA_FILE"],
        None,
        "Refused: certificates of clients are not looked at",
    ),
    // Telemetry.
    Key::new(
        "vm_prometheus_enabled",
        &["UNKEY_METALD_OTEL_PROMETHEUS_ENABLED"],
        Some("true"),
        "As metald: a second listener with /metrics",
    ),
    Key::new("vm_prometheus_port", &["UNKEY_METALD_OTEL_PROMETHEUS_PORT"], Some("9464"), "Its port"),
    Key::new("vm_prometheus_interface", &["UNKEY_METALD_OTEL_PROMETHEUS_INTERFACE"], Some("127.0.0.1"), "Its address"),
    Key::new(
        "vm_high_cardinality",
        &["UNKEY_METALD_OTEL_HIGH_CARDINALITY_ENABLED"],
        Some("false"),
        "Metrics with the label customer_id",
    ),
    Key::new(
        "vm_otel_enabled",
        &["UNKEY_METALD_OTEL_ENABLED"],
        Some("false"),
        "As metald: send traces to a collector by OTLP over HTTP",
    ),
    Key::new(
        "vm_otel_sampling_rate",
        &["UNKEY_METALD_OTEL_SAMPLING_RATE"],
        Some("1.0"),
        "Share of traces that are recorded, 0 to 1",
    ),
    Key::new(
        "vm_otel_endpoint",
        &["UNKEY_METALD_OTEL_ENDPOINT"],
        Some("localhost:4318"),
        "The collector: HOST:PORT or a URL",
    ),
    Key::new("vm_otel_service_name", &["UNKEY_METALD_OTEL_SERVICE_NAME"], Some("metald"), "service.name of traces"),
    Key::new(
        "vm_otel_service_version",
        &["UNKEY_METALD_OTEL_SERVICE_VERSION"],
        None,
        "service.version of traces (default: that of the program)",
    ),
    // Services beside metald, which this version has no client for.
    Key::new("vm_billing_enabled", &["UNKEY_METALD_BILLING_ENABLED"], None, NO_BILLING),
    Key::new("vm_billing_endpoint", &["UNKEY_METALD_BILLING_ENDPOINT"], None, NO_BILLING),
    Key::new("vm_billing_mock_mode", &["UNKEY_METALD_BILLING_MOCK_MODE"], None, NO_BILLING),
    Key::new("vm_assetmanager_enabled", &["UNKEY_METALD_ASSETMANAGER_ENABLED"], None, NO_ASSET_SERVICE),
    Key::new("vm_assetmanager_endpoint", &["UNKEY_METALD_ASSETMANAGER_ENDPOINT"], None, NO_ASSET_SERVICE),
    // Names of the original that mean nothing here.
    Key::new("vm_socket_dir", &["UNKEY_METALD_SOCKET_DIR"], None, "No effect: sockets lie in jails and beside keepers"),
    Key::new("vm_network_ipv6_mode", &["UNKEY_METALD_NETWORK_IPV6_MODE"], None, "No effect: each VM says its mode"),
    Key::new(
        "vm_network_max_vms_per_bridge",
        &["UNKEY_METALD_NETWORK_MAX_VMS_PER_BRIDGE"],
        None,
        "No effect: the subnet is the limit",
    ),
    Key::new("vm_network_multi_bridge", &["UNKEY_METALD_NETWORK_MULTI_BRIDGE"], None, "No effect: VMs need no bridge"),
    Key::new(
        "vm_network_bridge_prefix",
        &["UNKEY_METALD_NETWORK_BRIDGE_PREFIX"],
        None,
        "No effect: VMs need no bridge",
    ),
    Key::new(
        "vm_network_host_protection",
        &["UNKEY_METALD_NETWORK_HOST_PROTECTION"],
        None,
        "No effect: this host is always protected",
    ),
    Key::new(
        "vm_network_primary_interface",
        &["UNKEY_METALD_NETWORK_PRIMARY_INTERFACE"],
        None,
        "No effect: routes say where packets go",
    ),
    Key::new(
        "vm_tls_cert_caching",
        &["UNKEY_METALD_TLS_ENABLE_CERT_CACHING"],
        None,
        "No effect: certificates are read again on SIGHUP",
    ),
    Key::new(
        "vm_tls_cert_cache_ttl",
        &["UNKEY_METALD_TLS_CERT_CACHE_TTL"],
        None,
        "No effect: certificates are read again on SIGHUP",
    ),
    Key::new(
        "vm_spiffe_socket",
        &["UNKEY_METALD_SPIFFE_SOCKET"],
        None,
        "No effect in this version: there is no SPIFFE client",
    ),
    Key::new("vm_docker_host", &["UNKEY_METALD_DOCKER_HOST"], None, NO_DOCKER),
    Key::new("vm_docker_network", &["UNKEY_METALD_DOCKER_NETWORK"], None, NO_DOCKER),
    Key::new("vm_docker_port_range_min", &["UNKEY_METALD_DOCKER_PORT_RANGE_MIN"], None, NO_DOCKER),
    Key::new("vm_docker_port_range_max", &["UNKEY_METALD_DOCKER_PORT_RANGE_MAX"], None, NO_DOCKER),
];

/// The second name is that of the original's cache of assets, which lay in the same place.
const ASSET_DIR: &[&str] = &["UNKEY_METALD_ASSET_DIR", "UNKEY_METALD_ASSETMANAGER_CACHE_DIR"];
const NO_BILLING: &str = "No effect in this version: nothing is sent to a billing service";
const NO_ASSET_SERVICE: &str = "No effect in this version: assets are kept by this daemon";
const NO_DOCKER: &str = "Refused: containers are no VMs; leave it out";

/// Variables of metald begin with this.
pub const PREFIX: &str = "UNKEY_METALD_";

/// Defaults of metald's guide, for a program that is called by its name.
pub const METALD: &[(&str, &str)] = &[
    ("vm_data_dir", "/var/lib/metald"),
    ("vm_asset_dir", "/opt/metald/assets"),
    ("vm_log_dir", "/var/log/metald"),
    ("vm_log_level", "info"),
];

/// Settings that are taken and do nothing: whoever sets one is told at start.
pub(super) fn without_effect() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.help.starts_with("No effect"))
}

/// Settings of a backend that is not there: whoever sets one wants something else than what would happen.
pub(super) fn refused() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.help == NO_DOCKER)
}
