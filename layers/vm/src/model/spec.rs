//! What a user asks for: `VmConfig` of the contract, with fields of ours beside it.
//!
//! Reading takes both spellings of Connect JSON (`vcpu_count` and `vcpuCount`) and 64-bit numbers as texts; unknown keys
//! are errors. What is written is what was asked, so that a saved list can be posted again (guide, "VM Recovery").

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use super::asset::AssetName;

/// Processors that a hypervisor gives a VM at most (Firecracker).
const MOST_VCPUS: i32 = 32;
/// Least memory, in bytes: below this no kernel boots.
const LEAST_MEMORY: i64 = 16 << 20;
/// Most memory, in bytes (contract).
const MOST_MEMORY: i64 = 512 << 30;
/// Disks of a VM at most.
const MOST_DISKS: usize = 8;
/// Egress rules and ports of a VM at most.
const MOST_RULES: usize = 64;
/// Longest text that a user gives a kernel.
const LONGEST_KERNEL_ARGS: usize = 1024;
/// Bytes of metadata at most.
const MOST_METADATA: usize = 16 << 10;

/// Where no guest may go unless its egress rules say so: everything that is not the public internet (RFC 6890), with the
/// metadata services of clouds (169.254.169.254, fd00:ec2::254) in it.
pub(crate) const PRIVATE_IPV4: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, \
                            192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3";
/// The same for IPv6.
pub(crate) const PRIVATE_IPV6: &str = "::/96, ::ffff:0:0/96, 64:ff9b:1::/48, 100::/64, fc00::/7, fe80::/10, ff00::/8";

/// What is not the public internet, as networks.
pub(crate) fn private_networks() -> impl Iterator<Item = IpNet> {
    PRIVATE_IPV4.split(", ").chain(PRIVATE_IPV6.split(", ")).filter_map(|range| range.parse().ok())
}

/// A VM as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Processors.
    #[serde(default)]
    pub cpu: Cpu,
    /// Memory.
    #[serde(default)]
    pub memory: Memory,
    /// What is booted; the host's defaults where nothing is said.
    #[serde(default, skip_serializing_if = "is_default")]
    pub boot: Boot,
    /// Disks; the default one where the list is empty.
    #[serde(default, skip_serializing_if = "is_default")]
    pub storage: Vec<Storage>,
    /// The network interface; at most one, and one with the defaults where the list is empty.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: Vec<NetworkInterface>,
    /// The serial console.
    #[serde(default, skip_serializing_if = "is_default")]
    pub console: Console,
    /// Labels of the user.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metadata: BTreeMap<String, String>,
    /// What happens when the guest ends by itself.
    #[serde(default, alias = "restartPolicy", skip_serializing_if = "is_default")]
    pub restart_policy: RestartPolicy,
}

/// Processors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// 1 to 32.
    #[serde(default, alias = "vcpuCount")]
    pub vcpu_count: i32,
    /// The same number, or 0: processors are not added later.
    #[serde(default, alias = "maxVcpuCount", skip_serializing_if = "is_default")]
    pub max_vcpu_count: i32,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// In bytes; whole MiB.
    #[serde(default, alias = "sizeBytes", deserialize_with = "number_or_text")]
    pub size_bytes: i64,
    /// False: memory is not added later.
    #[serde(default, alias = "hotplugEnabled", skip_serializing_if = "is_default")]
    pub hotplug_enabled: bool,
    /// The same number, or 0.
    #[serde(default, alias = "maxSizeBytes", deserialize_with = "number_or_text", skip_serializing_if = "is_default")]
    pub max_size_bytes: i64,
}

/// What is booted. The contract calls these paths; they are names of assets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Kernel.
    #[serde(default, alias = "kernelPath", deserialize_with = "name_or_empty", skip_serializing_if = "is_default")]
    pub kernel_path: Option<AssetName>,
    /// Initial file system.
    #[serde(default, alias = "initrdPath", deserialize_with = "name_or_empty", skip_serializing_if = "is_default")]
    pub initrd_path: Option<AssetName>,
    /// Words after those that the VM needs.
    #[serde(default, alias = "kernelArgs", skip_serializing_if = "is_default")]
    pub kernel_args: String,
}

/// A disk: a copy of an asset that belongs to the VM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// Name among the VM's disks; `disk0`, `disk1`, … where nothing is said.
    #[serde(default, skip_serializing_if = "is_default")]
    pub id: String,
    /// Asset.
    #[serde(default, deserialize_with = "name_or_empty")]
    pub path: Option<AssetName>,
    /// The guest cannot write.
    #[serde(default, alias = "readOnly", skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// The guest's root; the first disk where none is marked.
    #[serde(default, alias = "isRootDevice", skip_serializing_if = "is_default")]
    pub is_root_device: bool,
    /// `virtio-blk`, or nothing.
    #[serde(default, alias = "interfaceType", skip_serializing_if = "is_default")]
    pub interface_type: String,
}

/// The network interface. Inside, every guest has the same address; outside, its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterface {
    /// `eth0`, or nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub id: String,
    /// `auto`, or nothing: the host chooses.
    #[serde(default, alias = "macAddress", skip_serializing_if = "is_default")]
    pub mac_address: String,
    /// Nothing: the host chooses.
    #[serde(default, alias = "tapDevice", skip_serializing_if = "is_default")]
    pub tap_device: String,
    /// `virtio-net`, or nothing.
    #[serde(default, alias = "interfaceType", skip_serializing_if = "is_default")]
    pub interface_type: String,
    /// IPv4.
    #[serde(default, alias = "ipv4Config", skip_serializing_if = "is_default")]
    pub ipv4_config: Option<Ipv4>,
    /// IPv6.
    #[serde(default, alias = "ipv6Config", skip_serializing_if = "is_default")]
    pub ipv6_config: Option<Ipv6>,
    /// `NETWORK_MODE_DUAL_STACK`, `_IPV4_ONLY`, `_IPV6_ONLY`, or nothing for both.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: String,
    /// What the guest may receive.
    #[serde(default, alias = "rxRateLimit", skip_serializing_if = "is_default")]
    pub rx_rate_limit: Option<RateLimit>,
    /// What the guest may send.
    #[serde(default, alias = "txRateLimit", skip_serializing_if = "is_default")]
    pub tx_rate_limit: Option<RateLimit>,
    /// Where the guest may connect to besides the public internet.
    #[serde(default, skip_serializing_if = "is_default")]
    pub egress: Vec<Egress>,
    /// False: nowhere but where `egress` says.
    #[serde(default = "yes", alias = "egressInternet", skip_serializing_if = "is_yes")]
    pub egress_internet: bool,
    /// Ports of the host that lead to the guest.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ports: Vec<Port>,
}

/// The address outside; the host's next free one where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ipv4 {
    /// Nothing: the host chooses, and tells.
    #[serde(default, skip_serializing_if = "is_default")]
    pub address: String,
    /// Name servers for the guest.
    #[serde(default, alias = "dnsServers", skip_serializing_if = "is_default")]
    pub dns_servers: Vec<Ipv4Addr>,
}

/// The same for IPv6.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ipv6 {
    /// Nothing: the host chooses, and tells.
    #[serde(default, skip_serializing_if = "is_default")]
    pub address: String,
    /// Name servers for the guest.
    #[serde(default, alias = "dnsServers", skip_serializing_if = "is_default")]
    pub dns_servers: Vec<Ipv6Addr>,
}

/// How fast.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Bytes a second.
    #[serde(deserialize_with = "number_or_text")]
    pub bandwidth: i64,
    /// In milliseconds; how long an empty bucket takes to fill. Only Firecracker's own limiter knows it.
    #[serde(default, alias = "refillTime", deserialize_with = "number_or_text", skip_serializing_if = "is_default")]
    pub refill_time: i64,
    /// Bytes at once after silence.
    #[serde(default, deserialize_with = "number_or_text", skip_serializing_if = "is_default")]
    pub burst: i64,
}

/// A destination that is allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Address or network.
    pub to: IpNet,
    /// Only this protocol.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Option<Protocol>,
    /// Only this port; needs a protocol.
    #[serde(default, skip_serializing_if = "is_default")]
    pub port: Option<u16>,
}

/// Protocols with ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// IANA's number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A port of the host that leads to one of the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Port of the host; the next free one of the range where it is 0.
    #[serde(default, alias = "hostPort", skip_serializing_if = "is_default")]
    pub host_port: u16,
    /// Port of the guest.
    #[serde(alias = "guestPort")]
    pub guest_port: u16,
    /// TCP where nothing is said.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
}

/// The serial console. It is always kept; the fields are the contract's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// Taken and without effect: the console is always on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub enabled: bool,
    /// Nothing: callers name no file of the host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub output: String,
    /// Nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub input: String,
    /// `serial`, or nothing.
    #[serde(default, alias = "consoleType", skip_serializing_if = "is_default")]
    pub console_type: String,
}

/// What happens when the guest ends by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// It stays as it ended.
    #[default]
    Never,
    /// It is booted again after a failure, with growing pauses.
    OnFailure,
    /// It is booted again however it ended, and after a restart of the host.
    Always,
}

/// A wish that cannot be granted: where it stands, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SpecError {
    /// JSON pointer into the spec.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl VmSpec {
    /// Everything that is wrong with it, as far as it can be seen without the host.
    pub fn check(&self) -> Vec<SpecError> {
        let mut wrong = Vec::new();
        let mut add = |path: &str, message: String| wrong.push(SpecError { path: path.to_owned(), message });
        let Cpu { vcpu_count, max_vcpu_count } = self.cpu;
        if !(1..=MOST_VCPUS).contains(&vcpu_count) {
            add("/cpu/vcpu_count", format!("{vcpu_count} processors: 1 to {MOST_VCPUS} are possible"));
        }
        if max_vcpu_count != 0 && max_vcpu_count != vcpu_count {
            add("/cpu/max_vcpu_count", "processors cannot be added later; leave it out".to_owned());
        }
        let Memory { size_bytes, hotplug_enabled, max_size_bytes } = self.memory;
        if !(LEAST_MEMORY..=MOST_MEMORY).contains(&size_bytes) {
            add("/memory/size_bytes", format!("{size_bytes} bytes: 16 MiB to 512 GiB are possible"));
        } else if size_bytes % (1 << 20) != 0 {
            add("/memory/size_bytes", format!("{size_bytes} bytes are no whole MiB"));
        }
        if hotplug_enabled || (max_size_bytes != 0 && max_size_bytes != size_bytes) {
            add("/memory", "memory cannot be added later; leave hotplug_enabled and max_size_bytes out".to_owned());
        }
        let args = &self.boot.kernel_args;
        if args.len() > LONGEST_KERNEL_ARGS || args.chars().any(|letter| letter.is_control()) {
            add("/boot/kernel_args", format!("at most {LONGEST_KERNEL_ARGS} bytes and no control characters"));
        }
        if !matches!(self.console.console_type.as_str(), "" | "serial")
            || !self.console.output.is_empty()
            || !self.console.input.is_empty()
        {
            add("/console", "the console is serial, and is read by the API alone".to_owned());
        }
        if self.metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MOST_METADATA {
            add("/metadata", format!("more than {MOST_METADATA} bytes"));
        }
        self.check_storage(&mut add);
        self.check_network(&mut add);
        wrong
    }

    fn check_storage(&self, add: &mut impl FnMut(&str, String)) {
        if self.storage.len() > MOST_DISKS {
            add("/storage", format!("{} disks: {MOST_DISKS} are possible", self.storage.len()));
        }
        if self.storage.iter().filter(|disk| disk.is_root_device).count() > 1 {
            add("/storage", "more than one disk is the root device".to_owned());
        }
        for (at, disk) in self.storage.iter().enumerate() {
            if disk.path.is_none() {
                add(&format!("/storage/{at}/path"), "the name of an asset is needed".to_owned());
            }
            if !matches!(disk.interface_type.as_str(), "" | "virtio-blk") {
                add(&format!("/storage/{at}/interface_type"), "only virtio-blk is possible".to_owned());
            }
            let id = self.disk_id(at);
            let letters = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if id.len() > 32 || !letters || (0..at).any(|earlier| self.disk_id(earlier) == id) {
                let rule = "1 to 32 letters, digits and underscores, and not twice";
                add(&format!("/storage/{at}/id"), format!("{id:?}: {rule}"));
            }
        }
    }

    fn check_network(&self, add: &mut impl FnMut(&str, String)) {
        if self.network.len() > 1 {
            add("/network", format!("{} interfaces: one is possible", self.network.len()));
        }
        let Some(interface) = self.network.first() else { return };
        let host_chooses = "the host chooses it; leave it out".to_owned();
        for (name, value, allowed) in [
            ("id", &interface.id, "eth0"),
            ("mac_address", &interface.mac_address, "auto"),
            ("tap_device", &interface.tap_device, ""),
            ("interface_type", &interface.interface_type, "virtio-net"),
        ] {
            if !value.is_empty() && value != allowed {
                add(&format!("/network/0/{name}"), host_chooses.clone());
            }
        }
        let modes = ["", "NETWORK_MODE_UNSPECIFIED", "NETWORK_MODE_DUAL_STACK", "NETWORK_MODE_IPV4_ONLY"];
        if !modes.contains(&interface.mode.as_str()) && interface.mode != "NETWORK_MODE_IPV6_ONLY" {
            add("/network/0/mode", format!("{:?} is no network mode", interface.mode));
        }
        let given = |address: Option<&String>| address.is_some_and(|address| !address.is_empty());
        if given(interface.ipv4_config.as_ref().map(|config| &config.address)) {
            add("/network/0/ipv4_config/address", host_chooses.clone());
        }
        if given(interface.ipv6_config.as_ref().map(|config| &config.address)) {
            add("/network/0/ipv6_config/address", host_chooses);
        }
        for (name, limit) in [("rx_rate_limit", &interface.rx_rate_limit), ("tx_rate_limit", &interface.tx_rate_limit)]
        {
            if limit.as_ref().is_some_and(|limit| limit.bandwidth <= 0 || limit.burst < 0 || limit.refill_time < 0) {
                add(&format!("/network/0/{name}"), "a bandwidth above 0 is needed".to_owned());
            }
        }
        if interface.egress.len() + interface.ports.len() > MOST_RULES {
            add("/network/0", format!("more than {MOST_RULES} egress rules and ports"));
        }
        for (at, egress) in interface.egress.iter().enumerate() {
            if egress.port.is_some() && egress.protocol.is_none() {
                add(&format!("/network/0/egress/{at}/port"), "a port needs a protocol".to_owned());
            }
        }
        for (at, port) in interface.ports.iter().enumerate() {
            let same = |other: &Port| (other.host_port, other.protocol) == (port.host_port, port.protocol);
            if port.guest_port == 0 || (port.host_port != 0 && interface.ports[..at].iter().any(same)) {
                add(&format!("/network/0/ports/{at}"), "a guest port above 0, and no host port twice".to_owned());
            }
        }
    }

    /// Name of a disk among the VM's.
    pub fn disk_id(&self, at: usize) -> String {
        match self.storage.get(at).map(|disk| disk.id.as_str()) {
            Some(id) if !id.is_empty() => id.to_owned(),
            _ => format!("disk{at}"),
        }
    }

    /// Memory in MiB.
    pub fn memory_mib(&self) -> u64 {
        u64::try_from(self.memory.size_bytes >> 20).unwrap_or_default()
    }

    /// Processors.
    pub fn vcpus(&self) -> u8 {
        u8::try_from(self.cpu.vcpu_count).unwrap_or_default()
    }

    /// The one interface, with the defaults where none was asked for.
    pub fn interface(&self) -> NetworkInterface {
        self.network.first().cloned().unwrap_or(NetworkInterface { egress_internet: true, ..Default::default() })
    }
}

impl NetworkInterface {
    /// Egress rules that nobody but an operator may grant: whoever names them reaches what is not the public internet, or
    /// VMs of others. `vms` are the networks of this host's VMs.
    pub fn privileged_egress(&self, vms: &[IpNet]) -> Vec<SpecError> {
        let meets = |to: &IpNet, other: &IpNet| to.contains(other) || other.contains(to);
        let is_private = |to: &IpNet| private_networks().chain(vms.iter().copied()).any(|other| meets(to, &other));
        let privileged = self.egress.iter().enumerate().filter(|(_, egress)| is_private(&egress.to));
        privileged
            .map(|(at, egress)| SpecError {
                path: format!("/network/0/egress/{at}/to"),
                message: format!("{}: only an operator lets a guest reach what is not the public internet", egress.to),
            })
            .collect()
    }

    /// Whether the guest has IPv4.
    pub fn has_ipv4(&self) -> bool {
        self.mode != "NETWORK_MODE_IPV6_ONLY"
    }

    /// Whether the guest has IPv6.
    pub fn has_ipv6(&self) -> bool {
        self.mode != "NETWORK_MODE_IPV4_ONLY"
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// 64-bit numbers are texts in protobuf's JSON.
fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
    }
    match Either::deserialize(deserializer).map_err(|_| serde::de::Error::custom("a whole number was expected"))? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(|_| serde::de::Error::custom("a whole number was expected")),
    }
}

/// An empty text is none, as in protobuf.
fn name_or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AssetName>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> VmSpec {
        serde_json::from_value(value).unwrap()
    }

    fn wrong(value: serde_json::Value) -> Vec<String> {
        read(value).check().into_iter().map(|error| error.path).collect()
    }

    #[test]
    fn the_guides_smoke_test_is_enough() {
        let spec = read(json!({"cpu": {"vcpu_count": 1}, "memory": {"size_bytes": 134217728}}));
        assert_eq!(spec.check(), []);
        assert_eq!((spec.vcpus(), spec.memory_mib()), (1, 128));
        // What is written is what was asked.
        let written = serde_json::to_value(&spec).unwrap();
        assert_eq!(written, json!({"cpu": {"vcpu_count": 1}, "memory": {"size_bytes": 134217728}}));
        assert!(spec.interface().egress_internet && spec.interface().has_ipv4() && spec.interface().has_ipv6());
    }

    #[test]
    fn both_spellings_and_texts_for_long_numbers_are_read() {
        let spec = read(json!({"cpu": {"vcpuCount": 2}, "memory": {"sizeBytes": "268435456"},
            "boot": {"kernelPath": "vmlinux", "initrdPath": ""}, "storage": [{"path": "root", "isRootDevice": true}],
            "network": [{"ports": [{"hostPort": 8081, "guestPort": 80}], "egress": [{"to": "10.0.0.0/8"}]}]}));
        assert_eq!(spec.check(), []);
        assert_eq!(spec.boot.kernel_path.as_ref().map(AssetName::as_str), Some("vmlinux"));
        assert_eq!((spec.boot.initrd_path.clone(), spec.disk_id(0).as_str()), (None, "disk0"));
        assert!(spec.interface().egress_internet);
        let again: VmSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }

    #[test]
    fn every_wish_that_cannot_be_granted_is_named() {
        let good = json!({"cpu": {"vcpu_count": 1}, "memory": {"size_bytes": 134217728}});
        let with = |key: &str, value: serde_json::Value| {
            let mut spec = good.clone();
            spec[key] = value;
            wrong(spec)
        };
        assert_eq!(with("cpu", json!({})), ["/cpu/vcpu_count"]);
        assert_eq!(with("cpu", json!({"vcpu_count": 33})), ["/cpu/vcpu_count"]);
        assert_eq!(with("cpu", json!({"vcpu_count": 1, "max_vcpu_count": 2})), ["/cpu/max_vcpu_count"]);
        assert_eq!(with("memory", json!({"size_bytes": 0})), ["/memory/size_bytes"]);
        assert_eq!(with("memory", json!({"size_bytes": 134217729})), ["/memory/size_bytes"]);
        assert_eq!(with("storage", json!([{}])), ["/storage/0/path"]);
        assert_eq!(
            with("storage", json!([{"path": "a", "is_root_device": true}, {"path": "b", "is_root_device": true}])),
            ["/storage"]
        );
        assert_eq!(with("storage", json!([{"path": "a", "id": "x"}, {"path": "b", "id": "x"}])), ["/storage/1/id"]);
        assert_eq!(with("network", json!([{}, {}])), ["/network"]);
        assert_eq!(with("network", json!([{"tap_device": "tap7"}])), ["/network/0/tap_device"]);
        assert_eq!(
            with("network", json!([{"egress": [{"to": "10.0.0.1/32", "port": 1}]}])),
            ["/network/0/egress/0/port"]
        );
        assert_eq!(with("network", json!([{"ports": [{"guest_port": 0}]}])), ["/network/0/ports/0"]);
        assert_eq!(with("network", json!([{"rx_rate_limit": {"bandwidth": 0}}])), ["/network/0/rx_rate_limit"]);
        assert_eq!(with("console", json!({"output": "/etc/shadow"})), ["/console"]);
        assert_eq!(with("boot", json!({"kernel_args": "a\nb"})), ["/boot/kernel_args"]);
    }

    #[test]
    fn what_is_not_the_public_internet_is_an_operators_to_grant() {
        let privileged = |to: &str| {
            let egress = vec![Egress { to: to.parse().unwrap(), protocol: None, port: None }];
            let vms = ["203.0.114.0/24".parse().unwrap()];
            !NetworkInterface { egress, ..Default::default() }.privileged_egress(&vms).is_empty()
        };
        for to in [
            "169.254.169.254/32",
            "fd00:ec2::254/128",
            "10.100.0.3/32",
            "10.0.0.0/8",
            "203.0.114.7/32",
            "203.0.0.0/16",
            "0.0.0.0/0",
            "::/0",
            "::ffff:10.0.0.1/128",
        ] {
            assert!(privileged(to), "{to}");
        }
        for to in ["192.0.3.0/24", "8.8.8.8/32", "2600::/12"] {
            assert!(!privileged(to), "{to}");
        }
        let all = PRIVATE_IPV4.split(", ").count() + PRIVATE_IPV6.split(", ").count();
        assert_eq!(private_networks().count(), all);
    }

    #[test]
    fn a_path_of_the_host_and_an_unknown_key_are_not_read() {
        for bad in [json!({"boot": {"kernel_path": "/etc/shadow"}}), json!({"cpus": 1}), json!({"cpu": {"count": 1}})] {
            assert!(serde_json::from_value::<VmSpec>(bad).is_err());
        }
    }
}
